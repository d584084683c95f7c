/* render.c: build tool.  `render REAL_SIZE SIMD` writes one precompiled kernel library (templates/library.c) to standard output.
 *
 * Depends on template.h.  Not part of the program.
 */
#include "template.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>

static int fill(lua_State *L)
{
    const int *sizes = lua_touserdata(L, 2);
    const int lanes = 4 * sizes[1] / sizes[0];
    lua_settop(L, 1);
    const char *const names[] = {"real_size", "simd", "lanes"};
    const int values[] = {sizes[0], sizes[1], lanes < 1 ? 1 : lanes};
    for (int i = 0; i < 3; i++) {
        lua_pushinteger(L, values[i]);
        lua_setfield(L, 1, names[i]);
    }
    return 0;
}

int main(int count, char **arguments)
{
    bptt_error error;
    char *text = NULL;
    const int sizes[2] = {count > 1 ? atoi(arguments[1]) : 0, count > 2 ? atoi(arguments[2]) : 0};
    bptt_templates *templates = bptt_templates_new();
    if (templates == NULL || sizes[0] == 0 || sizes[1] == 0) {
        fprintf(stderr, "usage: render REAL_SIZE SIMD\n");
        return 2;
    }
    if (bptt_templates_define(templates, fill, sizes, &error) != BPTT_OK ||
        bptt_templates_render(templates, "library.c", &text, &error) != BPTT_OK) {
        fprintf(stderr, "render: %s\n", error.text);
        return 1;
    }
    fputs(text, stdout);
    free(text);
    bptt_templates_free(templates);
    return fflush(stdout) != 0;
}
