/* embedded.h: what the program carries, so that it needs no file at run time: templates/ compiled, gen/cells/ and
 * runtime/diagnose.gp as they are.  embed.c writes the C. */
#ifndef BPTT_EMBEDDED_H
#define BPTT_EMBEDDED_H

#include <stddef.h>

/* The text of e.g. "cells/rnn.lua", or Lua's binary chunk of e.g. "templates/model.c"; NULL: there is none.  Static. */
const char *bptt_embedded(const char *name);
/* Its bytes; 0: there is none. */
size_t bptt_embedded_size(const char *name);

#endif
