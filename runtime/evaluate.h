/* evaluate.h: the loss of a model on a whole file, and the one-stream companion model that it and sampling run on.
 *
 * Depends on backend.h and the bptt_model interface.
 */
#ifndef BPTT_EVALUATE_H
#define BPTT_EVALUATE_H

#include "backend.h"
#include "data.h"
#include "json.h"

/* The network of a spec for one sequence at a time (batch = 1), with a memory of its own. */
typedef struct bptt_companion {
    bptt_spec spec;
    bptt_program program;
    void *memory;
} bptt_companion;

/* Opens the companion of `spec`, initialised from the seed.  On success close it; on failure nothing is held. */
bptt_status bptt_companion_open(bptt_companion *companion, const bptt_spec *spec, bptt_backend backend, bptt_error *error);
/* The same for a checkpoint: its spec, its parameters. */
bptt_status bptt_companion_load(bptt_companion *companion, const char *checkpoint, bptt_backend backend, bptt_error *error);
/* Takes the parameters of a model of the same network whatever its layout, then refreshes. */
void bptt_companion_copy(bptt_companion *companion, const bptt_model *model, const void *memory);
void bptt_companion_close(bptt_companion *companion);

typedef struct bptt_evaluation {
    uint64_t tokens;         /* predictions: labels, or numbers of targets */
    double loss;             /* nats per token; per number the squared error, or nats */
    double bits, perplexity; /* the same, as bits per token and as exp(loss) */
    bool text;               /* the loss is of labels */
} bptt_evaluation;

double bptt_bits(double loss); /* nats to bits */

/* Exact loss over all count - 1 predictions in order, as one stream from h_0, the state being carried from sequence to sequence
 * as the spec says.  `what` names the data in messages.  A loss that is not finite is an error. */
bptt_status bptt_evaluate(bptt_companion *companion, const bptt_data *data, const char *what, bptt_evaluation *evaluation,
                          bptt_error *error);
/* The members of an evaluation, into the object that is open. */
void bptt_evaluation_json(const bptt_evaluation *evaluation, bptt_json *json);

#endif
