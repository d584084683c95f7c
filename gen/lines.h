/* lines.h: on which line a Lua text sets a key, and where in it a function stands.
 *
 * Lua's tables hold no lines, and messages need them; its functions hold lines but not their text.  A tokenizer, not a parser: it skips comments and strings, counts blocks
 * and braces, and guesses from where `key =` stands.  Depends on nothing; never fails, at worst it names the line of `return`.
 */
#ifndef BPTT_LINES_H
#define BPTT_LINES_H

#include <stddef.h>

typedef struct bptt_span {
    const char *start;
    size_t length;
} bptt_span;

/* Line of `key = {... part = ...}`, or of `key =` when `part` is empty or not found there: first in the table after the
 * chunk's `return`, else the last place before it.  An empty or unknown key: the line of `return`, or the last line. */
int bptt_line_of(bptt_span text, bptt_span key, bptt_span part);

/* Functions without parameters that begin on line `first` and end on line `last` of a text that Lua has compiled: how many.  The
 * last one's equations, that is what stands between `function()` and `end`, and their line. */
int bptt_functions_at(bptt_span text, int first, int last, bptt_span *body, int *line);

#endif
