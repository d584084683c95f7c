/* template.h: templates are text with Lua in it; this turns one into text.
 *
 *   % lua       a line of Lua (after blanks)
 *   ${lua}      an expression, put in as text: a string, an integer or a boolean; anything else is an error
 *
 * A template becomes one Lua function, line for line, so a Lua error names template and line; embed.c translates and compiles it
 * when bptt is built, for the Lua that it is built with.  An unknown name is an error.
 * Depends on Lua and on the embedded templates; the templates are ours and trusted, what a spec may put into them is checked before.
 */
#ifndef BPTT_TEMPLATE_H
#define BPTT_TEMPLATE_H

#include "status.h"

#include <lua.h>
#include <stddef.h>

typedef struct bptt_templates bptt_templates;

/* NULL: no memory. */
bptt_templates *bptt_templates_new(void);
void bptt_templates_free(bptt_templates *templates);
/* The Lua state; a function pushed with `fill` runs protected and defines names for the templates as fields of the table at index 1. */
bptt_status bptt_templates_define(bptt_templates *templates, int (*fill)(lua_State *L), const void *argument, bptt_error *error);
/* Renders templates/NAME.  The caller frees *text. */
bptt_status bptt_templates_render(bptt_templates *templates, const char *name, char **text, bptt_error *error);

#endif
