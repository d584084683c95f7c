/* sandbox.h: a Lua state in which a stranger's text may run.
 *
 * string, table, math and utf8 only; text chunks only; memory and instruction limits; nothing reaches a file, a process, the
 * host's environment or another state.  Depends on Lua and status.h.  Used by spec (the user's file) and trace (a cell's equations).
 */
#ifndef BPTT_SANDBOX_H
#define BPTT_SANDBOX_H

#include "status.h"

#include <lua.h>
#include <stddef.h>

typedef struct bptt_sandbox bptt_sandbox;

/* NULL: no memory. */
bptt_sandbox *bptt_sandbox_new(void);
void bptt_sandbox_free(bptt_sandbox *sandbox);
/* The state, for registering functions and reading results.  Work on it that may raise belongs in a function run by bptt_sandbox_call. */
lua_State *bptt_sandbox_state(bptt_sandbox *sandbox);

/* Compiles `text` as a chunk named `source` and leaves the function on the stack. */
bptt_status bptt_sandbox_compile(bptt_sandbox *sandbox, const char *text, size_t length, const char *source, bptt_error *error);
/* lua_pcall under the limits; an error becomes "source:line: message". */
bptt_status bptt_sandbox_call(bptt_sandbox *sandbox, int arguments, int results, bptt_error *error);

#endif
