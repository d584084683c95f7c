/* interpreted.h: the step graph, run by the interpreter in double, behind the bptt_model interface.
 *
 * The reference of `bptt check` for networks that have no generic loops: any cell, any number of layers, slowly.  The graph and its
 * adjoint are those that the generated code came from; plan, text and compiler have no part in it.  Where blocks overlap, a sequence
 * is taken from chunk 0 on, with the same parameters for all of it.  Depends on interpret.h, rows.h and backend.h.  Refuses to train: it has neither update nor predict.
 */
#ifndef BPTT_INTERPRETED_H
#define BPTT_INTERPRETED_H

#include "backend.h"

/* A program with init (all zero: the caller copies weights), reset, refresh, gradient and loss; reals are double whatever the spec
 * says.  For one memory at a time, which refresh is called with.  The spec, which must be f64, outlives it; on success close with
 * bptt_program_close.  Errors: as of bptt_trace, or no memory. */
bptt_status bptt_interpreted_open(const bptt_spec *spec, bptt_program *program, bptt_error *error);
/* Whether some equation has a kink, where a difference of losses is no derivative: relu, abs, min, max. */
bool bptt_interpreted_has_kinks(const bptt_program *program);

#endif
