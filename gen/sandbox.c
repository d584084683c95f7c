/* sandbox.c: a Lua state in which a stranger's text may run.  See sandbox.h.
 *
 * Four limits: memory (the allocator refuses), instructions and CPU time (a count hook), and functions of C that could run for
 * long between two instructions (wrapped below).  What could undo a limit is not offered: coroutines and pcall would swallow the
 * error, a finalizer (setmetatable) runs with hooks off.  Everything runs in the C locale.
 *
 * Depends on Lua.  Refuses to load binary chunks.
 */
#include "sandbox.h"

#include <lauxlib.h>
#include <locale.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MEMORY_MIB = 64, INSTRUCTIONS = 10000000, SECONDS = 10, HOOK_INTERVAL = 100 };

/* Steps that one pattern match may take; about a second. */
static const double match_limit = 1e8;

struct bptt_sandbox {
    lua_State *L;
    locale_t locale;
    char *chunk;        /* "@" and the source compiled last */
    size_t bytes;       /* held by L */
    uint64_t spent;     /* instructions */
    time_t deadline;    /* CPU seconds of this thread */
    bptt_error *error;  /* of the call under way */
    bptt_error refusal; /* where memory was refused last */
};

static bptt_sandbox *sandbox_of(lua_State *L)
{
    return *(bptt_sandbox **)lua_getextraspace(L);
}

/* Writes "source:line: message" for the innermost Lua function at work.  Allocates nothing: it runs when memory is out too. */
static void locate(bptt_sandbox *sandbox, const char *message, bptt_error *error)
{
    lua_Debug where;
    for (int level = 0; lua_getstack(sandbox->L, level, &where) != 0; level++) {
        (void)lua_getinfo(sandbox->L, "Sl", &where);
        if (where.currentline <= 0) { continue; }
        /* Lua's own messages begin with the source cut to 60 bytes. */
        size_t length = strlen(where.short_src);
        if (strncmp(message, where.short_src, length) == 0 && message[length] == ':') {
            (void)bptt_fail(error, BPTT_FAILED, "%s%s", where.source + 1, message + length);
        } else {
            (void)bptt_fail(error, BPTT_FAILED, "%s:%d: %s", where.source + 1, where.currentline, message);
        }
        return;
    }
    (void)bptt_fail(error, BPTT_FAILED, "%s: %s", sandbox->chunk == NULL ? "sandbox" : sandbox->chunk + 1, message);
}

static void refuse(bptt_sandbox *sandbox, bool limit)
{
    char message[64] = "not enough memory";
    if (limit) { (void)snprintf(message, sizeof message, "memory limit of %d MiB exceeded", MEMORY_MIB); }
    locate(sandbox, message, &sandbox->refusal);
}

static void *allocate(void *user, void *block, size_t old_size, size_t new_size)
{
    bptt_sandbox *sandbox = user;
    if (block == NULL) { old_size = 0; /* Lua passes a type tag there */ }
    if (new_size == 0) {
        free(block);
        sandbox->bytes -= old_size;
        return NULL;
    }
    size_t others = sandbox->bytes - old_size;
    bool limit = new_size > old_size && new_size > ((size_t)MEMORY_MIB << 20) - others;
    void *result = limit ? NULL : realloc(block, new_size);
    if (result == NULL) {
        if (sandbox->L != NULL) { refuse(sandbox, limit); }
        return NULL;
    }
    sandbox->bytes = others + new_size;
    return result;
}

static time_t cpu_seconds(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec;
}

/* Counts `units` instructions; raises when a limit is passed. */
static void spend(lua_State *L, uint64_t units)
{
    bptt_sandbox *sandbox = sandbox_of(L);
    sandbox->spent += units;
    if (sandbox->spent > INSTRUCTIONS || units > INSTRUCTIONS) {
        lua_pushfstring(L, "limit of %d instructions exceeded (an endless loop?)", INSTRUCTIONS);
        (void)lua_error(L);
    }
    if (cpu_seconds() > sandbox->deadline) {
        lua_pushfstring(L, "limit of %d seconds exceeded", SECONDS);
        (void)lua_error(L);
    }
}

static void hook(lua_State *L, lua_Debug *activation)
{
    (void)activation;
    spend(L, HOOK_INTERVAL);
}

/* The function that a wrapper stands for, run in the wrapper's own frame, so that messages name it and its caller's line. */
static int original(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static int guarded_rep(lua_State *L)
{
    size_t length = 0;
    size_t separator = 0;
    (void)luaL_checklstring(L, 1, &length);
    lua_Integer count = luaL_checkinteger(L, 2);
    (void)luaL_optlstring(L, 3, "", &separator);
    if (count > 0 && length == 0 && separator == 0) { /* would count to `count` while copying nothing */
        lua_pushliteral(L, "");
        return 1;
    }
    return original(L);
}

/* Upper bound on the steps of matching `pattern` on `size` bytes: every repetition may try every length at every start. */
static double match_steps(const char *pattern, size_t length, size_t size)
{
    const char *end = pattern + length;
    double positions = (double)size + 1;
    double steps = positions * ((double)length + 1);
    for (const char *p = pattern; p < end; p++) {
        if (*p == '%') {
            p++;
            if (p < end && (*p == 'b' || (*p >= '0' && *p <= '9'))) { steps *= positions; }
        } else if (*p == '[') {
            p += p + 1 < end && p[1] == '^' ? 2 : 1;
            for (const char *first = p; p < end && (p == first || *p != ']'); p++) {
                if (*p == '%') { p++; }
            }
        } else if (*p == '*' || *p == '+' || *p == '-') {
            steps *= positions;
        } else if (*p == '?') {
            steps *= 2;
        }
    }
    return steps;
}

/* find, match, gmatch and gsub: the instruction hook does not reach into a match. */
static int guarded_match(lua_State *L)
{
    size_t size = 0;
    size_t length = 0;
    (void)luaL_checklstring(L, 1, &size);
    const char *pattern = luaL_checklstring(L, 2, &length);
    spend(L, 1);
    if (match_steps(pattern, length, size) > match_limit) {
        return luaL_error(L, "matching this pattern on %I bytes may take too long; use a shorter text or fewer repetitions",
                          (LUAI_UACINT)size);
    }
    return original(L);
}

static int less(lua_State *L)
{
    size_t length = lua_type(L, 1) == LUA_TSTRING ? lua_rawlen(L, 1) : 0;
    spend(L, 1 + length / 64);
    lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
    return 1;
}

static int guarded_sort(lua_State *L)
{
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        lua_pushcfunction(L, less);
    }
    return original(L);
}

static int guarded_move(lua_State *L)
{
    lua_Integer first = luaL_checkinteger(L, 2);
    lua_Integer last = luaL_checkinteger(L, 3);
    if (last >= first) { spend(L, (uint64_t)last - (uint64_t)first); }
    return original(L);
}

/* What is kept of the base library. */
static const char *const base_names[] = {"assert", "error",  "ipairs", "next",     "pairs",    "rawequal", "rawget", "rawlen",
                                         "rawset", "select", "type",   "tonumber", "tostring", "_VERSION", NULL};

/* What is wrapped in, or (NULL) taken out of, the other libraries. */
static const struct {
    const char *library, *name;
    lua_CFunction guard;
} guards[] = {
    {"string", "rep", guarded_rep},      {"string", "find", guarded_match}, {"string", "match", guarded_match},
    {"string", "gmatch", guarded_match}, {"string", "gsub", guarded_match}, {"string", "dump", NULL},
    {"table", "sort", guarded_sort},     {"table", "move", guarded_move},   {"math", "randomseed", NULL},
};

static void keep_base_names(lua_State *L)
{
    lua_newtable(L);
    for (size_t i = 0; base_names[i] != NULL; i++) {
        lua_getglobal(L, base_names[i]);
        lua_setfield(L, -2, base_names[i]);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

static int open_libraries(lua_State *L)
{
    luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
    keep_base_names(L);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    luaL_requiref(L, LUA_UTF8LIBNAME, luaopen_utf8, 1);
    lua_getfield(L, -2, "randomseed"); /* Lua seeds with time and address */
    lua_pushinteger(L, 1);
    lua_call(L, 1, 0);
    for (size_t i = 0; i < sizeof guards / sizeof guards[0]; i++) {
        lua_getglobal(L, guards[i].library);
        if (guards[i].guard == NULL) {
            lua_pushnil(L);
        } else {
            lua_getfield(L, -1, guards[i].name);
            lua_pushcclosure(L, guards[i].guard, 1);
        }
        lua_setfield(L, -2, guards[i].name);
        lua_pop(L, 1);
    }
    return 0;
}

/* A name that nothing was assigned to is a slip of the pen, not a nil. */
static int unknown_global(lua_State *L)
{
    if (lua_type(L, 2) != LUA_TSTRING) { return 0; }
    return luaL_error(L, "unknown name '%s'", lua_tostring(L, 2));
}

static int guard_globals(lua_State *L)
{
    lua_pushglobaltable(L);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, unknown_global);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    return 0;
}

bptt_sandbox *bptt_sandbox_new(void)
{
    bptt_sandbox *sandbox = calloc(1, sizeof *sandbox);
    if (sandbox == NULL) { return NULL; }
    sandbox->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    lua_State *L = sandbox->locale == (locale_t)0 ? NULL : lua_newstate(allocate, sandbox);
    sandbox->L = L;
    if (L == NULL) {
        bptt_sandbox_free(sandbox);
        return NULL;
    }
    *(bptt_sandbox **)lua_getextraspace(L) = sandbox;
    lua_pushcfunction(L, guard_globals); /* runs second */
    lua_pushcfunction(L, open_libraries);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK || lua_pcall(L, 0, 0, 0) != LUA_OK) {
        bptt_sandbox_free(sandbox);
        return NULL;
    }
    lua_sethook(L, hook, LUA_MASKCOUNT, HOOK_INTERVAL);
    return sandbox;
}

void bptt_sandbox_free(bptt_sandbox *sandbox)
{
    if (sandbox == NULL) { return; }
    if (sandbox->L != NULL) { lua_close(sandbox->L); }
    if (sandbox->locale != (locale_t)0) { freelocale(sandbox->locale); }
    free(sandbox->chunk);
    free(sandbox);
}

lua_State *bptt_sandbox_state(bptt_sandbox *sandbox)
{
    return sandbox->L;
}

/* The message of a failed load, on the top of the stack, with the source in full. */
static bptt_status syntax_error(bptt_sandbox *sandbox, bptt_error *error)
{
    lua_State *L = sandbox->L;
    const char *message = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "not loaded";
    const char *source = sandbox->chunk + 1;
    lua_Debug empty = {0};
    if (luaL_loadbufferx(L, "", 0, sandbox->chunk, "t") == LUA_OK) { /* how Lua shortens the source */
        (void)lua_getinfo(L, ">S", &empty);
    } else {
        lua_pop(L, 1);
    }
    size_t length = strlen(empty.short_src);
    bool prefixed = length > 0 && strncmp(message, empty.short_src, length) == 0 && message[length] == ':';
    bptt_status status = prefixed ? bptt_fail(error, BPTT_FAILED, "%s%s", source, message + length)
                                  : bptt_fail(error, BPTT_FAILED, "%s:1: %s", source, message);
    lua_pop(L, 1);
    return status;
}

bptt_status bptt_sandbox_compile(bptt_sandbox *sandbox, const char *text, size_t length, const char *source, bptt_error *error)
{
    size_t size = strlen(source) + 2;
    char *chunk = malloc(size);
    if (chunk == NULL || !lua_checkstack(sandbox->L, 4)) {
        free(chunk);
        return bptt_fail(error, BPTT_FAILED, "%s: not enough memory", source);
    }
    chunk[0] = '@';
    memcpy(chunk + 1, source, size - 1);
    free(sandbox->chunk);
    sandbox->chunk = chunk;
    if (length > 0 && text[0] == LUA_SIGNATURE[0]) {
        return bptt_fail(error, BPTT_FAILED, "%s:1: this is precompiled Lua; expected text", source);
    }
    locale_t outside = uselocale(sandbox->locale);
    int status = luaL_loadbufferx(sandbox->L, text, length, chunk, "t");
    bptt_status result = BPTT_OK;
    if (status == LUA_ERRMEM) {
        *error = sandbox->refusal;
        lua_pop(sandbox->L, 1);
        result = BPTT_FAILED;
    } else if (status != LUA_OK) {
        result = syntax_error(sandbox, error);
    }
    (void)uselocale(outside);
    return result;
}

/* Runs where the error was raised, while the stack still tells the line. */
static int handle_error(lua_State *L)
{
    char other[64];
    bptt_sandbox *sandbox = sandbox_of(L);
    const char *message = lua_tostring(L, 1);
    if (message == NULL) {
        (void)snprintf(other, sizeof other, "the error is a %s, expected a text", luaL_typename(L, 1));
        message = other;
    }
    locate(sandbox, message, sandbox->error);
    return 0;
}

bptt_status bptt_sandbox_call(bptt_sandbox *sandbox, int arguments, int results, bptt_error *error)
{
    lua_State *L = sandbox->L;
    int handler = lua_gettop(L) - arguments;
    bptt_error *outer = sandbox->error;
    if (!lua_checkstack(L, LUA_MINSTACK + (results > 0 ? results : 0))) {
        lua_settop(L, handler - 1);
        return bptt_fail(error, BPTT_FAILED, "%s: not enough memory", sandbox->chunk == NULL ? "sandbox" : sandbox->chunk + 1);
    }
    sandbox->error = error;
    if (outer == NULL) { sandbox->deadline = cpu_seconds() + SECONDS; }
    (void)bptt_fail(error, BPTT_FAILED, "%s: an error within an error", sandbox->chunk == NULL ? "sandbox" : sandbox->chunk + 1);
    locale_t outside = uselocale(sandbox->locale);
    lua_pushcfunction(L, handle_error);
    lua_insert(L, handler);
    int status = lua_pcall(L, arguments, results, handler);
    lua_remove(L, handler);
    (void)uselocale(outside);
    sandbox->error = outer;
    if (status == LUA_OK) {
        error->text[0] = '\0';
        return BPTT_OK;
    }
    if (status == LUA_ERRMEM) { *error = sandbox->refusal; }
    lua_pop(L, 1); /* what handle_error returned, or Lua's own message */
    return BPTT_FAILED;
}
