/* json.h: prints JSON on standard output, value by value, with nothing to allocate.
 *
 * Depends on nothing.  Printing is not checked here: main.c looks at the stream once at the end.
 */
#ifndef BPTT_JSON_H
#define BPTT_JSON_H

#include <stdbool.h>
#include <stdint.h>

/* Start with {0}.  `key` is NULL inside an array and for the outermost value.
 * Numbers that are not finite become null; reals read back as the same double. */
typedef struct bptt_json {
    unsigned depth;
    bool comma; /* a value came before on this level */
} bptt_json;

void bptt_json_open(bptt_json *json, const char *key, char bracket); /* '{' or '[' */
void bptt_json_close(bptt_json *json, char bracket);                 /* '}' or ']'; the outermost ends the line */
void bptt_json_real(bptt_json *json, const char *key, double value);
void bptt_json_whole(bptt_json *json, const char *key, uint64_t value);
void bptt_json_text(bptt_json *json, const char *key, const char *value); /* NULL becomes null */

#endif
