/* suggest.h: "did you mean": the candidate nearest to an unknown word.
 *
 * Depends on nothing.  Feed every candidate, then read `best`.
 */
#ifndef BPTT_SUGGEST_H
#define BPTT_SUGGEST_H

#include <stddef.h>

typedef struct bptt_suggestion {
    const char *word; /* need not end with NUL; `length` bytes */
    size_t length;
    const char *best; /* the candidate to propose; NULL: none is near enough */
    size_t distance;  /* its distance */
} bptt_suggestion;

/* Keeps `candidate` when it is nearer than the best so far and at most a third of the word's letters differ (one letter inserted,
 * dropped, changed or swapped with its neighbour counts 1; case counts 0). */
void bptt_suggest(bptt_suggestion *suggestion, const char *candidate);

#endif
