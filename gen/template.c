/* template.c: the template engine.  See template.h. */
#include "template.h"

#include "embedded.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A growing text; `failed` once memory ran out. */
typedef struct buffer {
    char *text;
    size_t length, capacity;
    int failed;
} buffer;

struct bptt_templates {
    lua_State *L;
    buffer out;
};

static void append(buffer *b, const char *text, size_t length)
{
    if (b->failed) { return; }
    if (b->text == NULL || b->length + length + 1 > b->capacity) {
        size_t capacity = 2 * (b->length + length + 1024);
        char *grown = realloc(b->text, capacity);
        if (grown == NULL) {
            b->failed = 1;
            return;
        }
        b->text = grown;
        b->capacity = capacity;
    }
    memcpy(b->text + b->length, text, length);
    b->length += length;
    b->text[b->length] = '\0';
}

/* --- functions for templates ------------------------------------------------------------------------------------------------------- */

/* write(...): strings, integers and booleans to the output. */
static int template_write(lua_State *L)
{
    bptt_templates *templates = lua_touserdata(L, lua_upvalueindex(1));
    const int count = lua_gettop(L);
    for (int i = 1; i <= count; i++) {
        size_t length;
        if (lua_type(L, i) == LUA_TSTRING) {
            const char *text = lua_tolstring(L, i, &length);
            append(&templates->out, text, length);
        } else if (lua_isinteger(L, i)) {
            char digits[24];
            length = (size_t)snprintf(digits, sizeof digits, "%" PRId64, (int64_t)lua_tointeger(L, i));
            append(&templates->out, digits, length);
        } else if (lua_isboolean(L, i)) {
            append(&templates->out, lua_toboolean(L, i) ? "1" : "0", 1);
        } else {
            return luaL_error(L, "cannot write a %s (argument %d)", luaL_typename(L, i), i);
        }
    }
    return 0;
}

static bool is_lua(const char *name)
{
    const size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".lua") == 0;
}

/* Pushes the template as a function; each is loaded once. */
static int load_template(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt loaded");
    if (lua_getfield(L, -1, name) == LUA_TFUNCTION) {
        lua_remove(L, -2);
        return 1;
    }
    lua_pop(L, 1);
    char path[128];
    (void)snprintf(path, sizeof path, "templates/%s", name);
    const char *code = bptt_embedded(path);
    if (code == NULL) { return luaL_error(L, "there is no template '%s'", name); }
    if (luaL_loadbufferx(L, code, bptt_embedded_size(path), path, "b") != LUA_OK) { return lua_error(L); }
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt names");
    if (lua_setupvalue(L, -2, 1) == NULL) { lua_pop(L, 1); }
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, name);
    lua_remove(L, -2);
    return 1;
}

/* include(name): runs a template among the same names; of a .lua file it returns the value, which is found once. */
static int template_include(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt values");
    if (is_lua(name) && lua_getfield(L, -1, name) != LUA_TNIL) { return 1; }
    lua_settop(L, 2);
    load_template(L, name);
    lua_call(L, 0, 1);
    if (is_lua(name)) {
        lua_pushvalue(L, -1);
        lua_setfield(L, 2, name);
    }
    return 1;
}

/* hex(x): a C constant of exactly that value, whatever the locale. */
static int template_hex(lua_State *L)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%a", luaL_checknumber(L, 1));
    for (char *c = text; *c != '\0'; c++) {
        if (*c == ',') { *c = '.'; }
    }
    lua_pushstring(L, text);
    return 1;
}

static int unknown_name(lua_State *L)
{
    return luaL_error(L, "unknown name '%s'", luaL_tolstring(L, 2, NULL));
}

/* --- the engine -------------------------------------------------------------------------------------------------------------------- */

static int set_up(lua_State *L)
{
    bptt_templates *templates = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_newtable(L);
    static const char *const borrowed[] = {"ipairs",   "pairs", "string", "table", "math",  "tostring",
                                           "tonumber", "error", "assert", "type",  "select"};
    for (size_t i = 0; i < sizeof borrowed / sizeof borrowed[0]; i++) {
        lua_getglobal(L, borrowed[i]);
        lua_setfield(L, -2, borrowed[i]);
    }
    lua_pushlightuserdata(L, templates);
    lua_pushcclosure(L, template_write, 1);
    lua_setfield(L, -2, "write");
    lua_pushcfunction(L, template_include);
    lua_setfield(L, -2, "include");
    lua_pushcfunction(L, template_hex);
    lua_setfield(L, -2, "hex");
    lua_newtable(L);
    lua_pushcfunction(L, unknown_name);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt names");
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt loaded"); /* name -> function */
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt values"); /* name of a .lua file -> its value */
    return 0;
}

static bptt_status call(bptt_templates *templates, int (*function)(lua_State *L), const void *argument, bptt_error *error)
{
    lua_State *L = templates->L;
    lua_settop(L, 0);
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, (void *)(uintptr_t)argument);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s", lua_tostring(L, -1) == NULL ? "error in a template" : lua_tostring(L, -1));
}

bptt_templates *bptt_templates_new(void)
{
    bptt_templates *templates = calloc(1, sizeof *templates);
    if (templates == NULL) { return NULL; }
    templates->L = luaL_newstate();
    bptt_error error;
    if (templates->L == NULL || call(templates, set_up, templates, &error) != BPTT_OK) {
        bptt_templates_free(templates);
        return NULL;
    }
    return templates;
}

void bptt_templates_free(bptt_templates *templates)
{
    if (templates == NULL) { return; }
    if (templates->L != NULL) { lua_close(templates->L); }
    free(templates->out.text);
    free(templates);
}

typedef struct definition {
    int (*fill)(lua_State *L);
    const void *argument;
} definition;

static int define(lua_State *L)
{
    const definition *d = lua_touserdata(L, 1);
    lua_pushcfunction(L, d->fill);
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt names");
    lua_pushlightuserdata(L, (void *)(uintptr_t)d->argument);
    lua_call(L, 2, 0);
    return 0;
}

bptt_status bptt_templates_define(bptt_templates *templates, int (*fill)(lua_State *L), const void *argument, bptt_error *error)
{
    definition d = {fill, argument};
    return call(templates, define, &d, error);
}

static int render(lua_State *L)
{
    load_template(L, lua_touserdata(L, 1));
    lua_call(L, 0, 0);
    return 0;
}

bptt_status bptt_templates_render(bptt_templates *templates, const char *name, char **text, bptt_error *error)
{
    templates->out = (buffer){0};
    append(&templates->out, "", 0);
    bptt_status status = call(templates, render, name, error);
    if (status == BPTT_OK && templates->out.failed) {
        status = bptt_fail(error, BPTT_FAILED, "no memory for the text of %s", name);
    }
    if (status != BPTT_OK) {
        free(templates->out.text);
    } else {
        *text = templates->out.text;
    }
    templates->out = (buffer){0};
    return status;
}
