/* interpret.h: runs a step graph and its adjoint node by node, in double, over the steps of one sequence.
 *
 * Any cell, any number of states and parameters; the values of all steps are kept, so that any loss can be followed back from any
 * step.  Clear before fast, yet no matrix of an outer product is ever formed.  Depends on gen/graph.h alone: knows no plan, text,
 * backend, file or truncation.  Refuses an op that it has no rule for, when it is opened.
 *
 * A state here is all states of the cell one after the other, `state_size` reals.  Step t takes the state before it to the state
 * after it; t counts from 0.
 */
#ifndef BPTT_INTERPRET_H
#define BPTT_INTERPRET_H

#include "../gen/graph.h"

/* What a network reads: tokens and labels, real inputs and targets; what it does not read may be NULL.  A label that is not below V
 * and a target that is not a number have no loss. */
typedef struct bptt_sequence {
    size_t steps;
    const uint32_t *x, *y; /* [steps]; borrowed, as all here */
    const double *v, *d;   /* [steps][D], [steps][Q] */
    const uint8_t *starts; /* [steps], not 0: the state before the step is h_0; NULL: nowhere */
} bptt_sequence;

typedef struct bptt_interpreter {
    const bptt_graph *graph; /* borrowed; traced and derived */
    size_t state_size;
    size_t param_size;                /* reals of all parameters */
    double *params[BPTT_MAX_PARAMS];  /* each [rows][cols] as the graph has it, a vector [rows]; the caller fills them */
    size_t param_at[BPTT_MAX_PARAMS]; /* where its gradient begins in a flat vector of param_size */
    size_t steps;                     /* of the longest sequence */
    /* its own */
    bptt_sequence sequence; /* that was run forward last */
    bool fresh;             /* it started from h_0 */
    size_t *offset;         /* of each node in the values of a step, or in those of the adjoint */
    unsigned char *uses;    /* what each node is needed for */
    size_t step_size;       /* reals of the forward nodes of a step */
    double *values;         /* [steps][step_size] */
    double *adjoints;       /* of the step that runs back */
    double *tangents;       /* [step_size] */
} bptt_interpreter;

/* Room for sequences of up to `steps` steps; parameters zero.  Errors: no memory, or an op without a rule (it is named).  On
 * success the caller closes it; on failure nothing is held. */
bptt_status bptt_interpreter_open(bptt_interpreter *it, const bptt_graph *graph, size_t steps, bptt_error *error);
void bptt_interpreter_close(bptt_interpreter *it);

/* All steps of `sequence` from the state `start` (NULL: h_0, or zero).  losses[steps]: nats of each step, 0 where there is no label. */
void bptt_interpret_forward(bptt_interpreter *it, const bptt_sequence *sequence, const double *start, double *losses);
/* The value of a forward node in step t of the sequence that was run last. */
const double *bptt_interpret_value(const bptt_interpreter *it, size_t t, int node);
/* The state after step t. */
void bptt_interpret_state(const bptt_interpreter *it, size_t t, double *state);

/* One step back.  `carry`: adjoint of the state after step t from the steps after it.  `loss`: whether step t's own loss counts.
 * `total`: that adjoint with step t's own part (NULL: not wanted).  `outgoing`: adjoint of the state before step t; may be `carry`.
 * `gradient`: flat, added to (NULL: not wanted, and not computed). */
void bptt_interpret_back(bptt_interpreter *it, size_t t, bool loss, const double *carry, double *total, double *outgoing,
                         double *gradient);
/* J v and J' u, J the Jacobian of the state after step t by the state before it; the result may be the operand. */
void bptt_interpret_tangent(bptt_interpreter *it, size_t t, const double *v, double *result);
void bptt_interpret_cotangent(bptt_interpreter *it, size_t t, const double *u, double *result);

#endif
