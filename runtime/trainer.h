/* trainer.h: training as a step that can be called, saved and resumed exactly.
 *
 * Depends on backend.h, feed.h and checkpoint.h.  Knows nothing of limits, clocks, terminals or options.
 */
#ifndef BPTT_TRAINER_H
#define BPTT_TRAINER_H

#include "backend.h"
#include "checkpoint.h"
#include "feed.h"

typedef struct bptt_trainer {
    const bptt_spec *spec; /* borrowed, as is program */
    bptt_program *program;
    void *memory;
    bptt_feed feed;
    bptt_cursor cursor;             /* where training stands after the last good step */
    void *state;                    /* copy of the carried state at that point */
    double progress[BPTT_PROGRESS]; /* and of what else training counts */
    double norm, share; /* of the last update: the gradient's norm, 0: none yet; its factor, to be a mean (NAN: it is gone) */
    bool lost;          /* gradients that were added up since the last update, with one that is not finite */
} bptt_trainer;

/* What one chunk gave, or the chunks of a step together. */
typedef struct bptt_step {
    size_t labels;    /* predictions of the chunk */
    double loss_sum;  /* nats, over these */
    double grad_norm; /* before clipping, of the last update when gradients are added up and none followed */
    double rate;      /* of the next update before the chunk */
    bool updated;     /* an update followed, which ends a step */
} bptt_step;

/* A model from the spec's seed, at the first step of `data`; `what` names the data in messages.  On success close it. */
bptt_status bptt_trainer_open(bptt_trainer *trainer, const bptt_spec *spec, bptt_program *program, const bptt_data *data,
                              const char *what, bptt_error *error);
/* Takes a checkpoint of the same spec and the same data. */
bptt_status bptt_trainer_resume(bptt_trainer *trainer, const char *path, bptt_error *error);
/* One chunk: gradient and, when it is due, update; a step is an update, and the chunks that it follows.  Fails when the loss or a
 * gradient is not finite: the message names the step, the tensor and a remedy, and the trainer stands where it stood before the
 * chunk, but for gradients that were added up since the last update, which are lost: it can then not be saved. */
bptt_status bptt_trainer_chunk(bptt_trainer *trainer, bptt_step *step, bptt_error *error);
/* The gradient's norm after clipping, when it was `norm` before: what the last step's update was made from.  Where the
 * spec clips by value, this looks at every element, and is not a number once the next chunk has a gradient of its own. */
double bptt_trainer_clipped(const bptt_trainer *trainer, double norm);
/* Fails in the same way when the model is not worth saving: a parameter, a moment or the loss of the next chunk is not finite.
 * Changes nothing. */
bptt_status bptt_trainer_check(bptt_trainer *trainer, bptt_error *error);
/* Writes a checkpoint. */
bptt_status bptt_trainer_save(const bptt_trainer *trainer, const char *path, bptt_error *error);
/* The learning rate of the next update. */
double bptt_trainer_rate(const bptt_trainer *trainer);
/* Predictions learned from so far, all epochs. */
uint64_t bptt_trainer_tokens(const bptt_trainer *trainer);
void bptt_trainer_close(bptt_trainer *trainer);

#endif
