/* sample.h: drawing tokens from a model's probabilities.
 *
 * Depends on status.h alone; the generator is our own (SplitMix64), so that a seed gives the same text on every machine.
 */
#ifndef BPTT_SAMPLE_H
#define BPTT_SAMPLE_H

#include "../gen/status.h"

#include <stddef.h>
#include <stdint.h>

/* Draws from p[0 .. count - 1] (not all zero, not negative) raised to 1 / temperature and normalised; temperature 0: the first of
 * the likeliest.  top_k > 0: among the top_k likeliest alone, the lower token where two are equal.  `order` is workspace for
 * `count` tokens, p is overwritten.  Errors: a probability that is not finite. */
bptt_status bptt_draw(double *p, uint32_t *order, size_t count, double temperature, uint64_t top_k, uint64_t *state,
                      uint32_t *token, bptt_error *error);

#endif
