/* rows.h: memory for what a model reads (bptt_rows), and its numbers one by one.
 *
 * Depends on data.h for what a missing label is, and on the bptt_model interface.  Knows the spec's sizes; reads no file.
 */
#ifndef BPTT_ROWS_H
#define BPTT_ROWS_H

#include "data.h"

#include "../templates/abi.h"

/* Rows for `steps` steps of B sequences, all zero; what the spec does not read is NULL.  On success the caller frees them. */
bptt_status bptt_rows_new(const bptt_spec *spec, size_t steps, bptt_rows *rows, bptt_error *error);
/* The same with tokens, labels and reals drawn from a seed: reals in [-1, 1) (targets in [0, 1)) that a float holds exactly. */
bptt_status bptt_rows_draw(const bptt_spec *spec, size_t steps, uint64_t seed, bptt_rows *rows, bptt_error *error);
void bptt_rows_free(bptt_rows *rows);

/* The rows from row `row` on, where there are `row` before; borrowed. */
bptt_rows bptt_rows_from(const bptt_spec *spec, const bptt_rows *rows, size_t row);
/* Sequence b of rows [steps][B] that begin at step `first` of a sequence, to `to`: rows of one sequence, reals in double, without
 * the labels and targets of steps that have no loss.  Returns how many count. */
size_t bptt_rows_sequence(const bptt_spec *spec, const bptt_rows *rows, size_t b, size_t first, size_t steps,
                          const bptt_rows *to);
/* Real `index` of v or d, which have the spec's dtype. */
void bptt_rows_put(const bptt_spec *spec, const void *reals, size_t index, double value);
double bptt_rows_get(const bptt_spec *spec, const void *reals, size_t index);
/* Labels, or numbers of targets, that count, of `count` rows from `row` on. */
size_t bptt_rows_labels(const bptt_spec *spec, const bptt_rows *rows, size_t row, size_t count);

#endif
