/* suggest.c: edit distance with swaps (optimal string alignment).  See suggest.h. */
#include "suggest.h"

#include <string.h>

enum { LONGEST = 63 };

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Both at most LONGEST bytes. */
static size_t distance(const char *a, size_t rows, const char *b, size_t columns)
{
    unsigned char cost[LONGEST + 1][LONGEST + 1];
    for (size_t i = 0; i <= rows; i++) {
        for (size_t j = 0; j <= columns; j++) {
            if (i == 0 || j == 0) {
                cost[i][j] = (unsigned char)(i + j);
                continue;
            }
            size_t change = cost[i - 1][j - 1] + (size_t)(lower(a[i - 1]) != lower(b[j - 1]));
            size_t edit = (size_t)least(cost[i - 1][j], cost[i][j - 1]) + 1;
            size_t best = least(change, edit);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
                best = least(best, (size_t)cost[i - 2][j - 2] + 1);
            }
            cost[i][j] = (unsigned char)best;
        }
    }
    return cost[rows][columns];
}

void bptt_suggest(bptt_suggestion *suggestion, const char *candidate)
{
    size_t length = strlen(candidate);
    if (suggestion->length > LONGEST || length > LONGEST) { return; }
    size_t found = distance(suggestion->word, suggestion->length, candidate, length);
    if (found > suggestion->length / 3 || (suggestion->best != NULL && found >= suggestion->distance)) { return; }
    suggestion->best = candidate;
    suggestion->distance = found;
}
