/* generic.h: the same network by plain C loops whose sizes are run-time values.
 *
 * The baseline of every comparison (compiled -O3) and an oracle that knows nothing of graph, plan or text.  It implements the
 * bptt_model interface; it refuses to be clever: no tiles, no vector types, textbook loops in the order of design.md section 1.
 */
#ifndef BPTT_GENERIC_H
#define BPTT_GENERIC_H

#include "../gen/spec.h"
#include "../templates/abi.h"

/* Are these loops those of `spec`?  They are of one layer of cell rnn. */
bool bptt_generic_has(const bptt_spec *spec);

/* Makes a model of `spec`, f32 or f64; NULL when there is no memory or bptt_generic_has it not.  Free with bptt_generic_free. */
const bptt_model *bptt_generic_new(const bptt_spec *spec);
void bptt_generic_free(const bptt_model *model);

#endif
