/* embed.c: build tool.  Writes the C of embedded.h to standard output: each argument NAME=PATH becomes one array of bytes.  A
 * template, templates/..., is translated to Lua as template.h says and compiled, so that a start of the program need not, and an
 * error of syntax ends the build.
 *
 * Depends on Lua alone.  Not part of the program.
 */
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_file(const char *path, size_t *length)
{
    char *text = NULL;
    FILE *in = fopen(path, "rb"), *out = open_memstream(&text, length);
    if (in == NULL || out == NULL) { return NULL; }
    for (int c = getc(in); c != EOF; c = getc(in)) { putc(c, out); }
    const bool failed = ferror(in) != 0;
    (void)fclose(in);
    return fclose(out) != 0 || failed ? NULL : text;
}

/* --- from template to Lua --------------------------------------------------------------------------------------------------- */

static void put_escaped(FILE *lua, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"' || text[i] == '\\') { putc('\\', lua); }
        putc(text[i], lua);
    }
}

/* One line of text: write("...", (expression), "...\n") */
static void translate_text(FILE *lua, const char *line, size_t length)
{
    const char *open, *close;
    fputs("write(\"", lua);
    while ((open = memmem(line, length, "${", 2)) != NULL &&
           (close = memchr(open, '}', length - (size_t)(open - line))) != NULL) {
        put_escaped(lua, line, (size_t)(open - line));
        fprintf(lua, "\", (%.*s), \"", (int)(close - open) - 2, open + 2);
        length -= (size_t)(close + 1 - line);
        line = close + 1;
    }
    put_escaped(lua, line, length);
    fputs("\\n\")", lua);
}

static char *translate(const char *template, size_t *length)
{
    char *text = NULL;
    FILE *lua = open_memstream(&text, length);
    if (lua == NULL) { return NULL; }
    while (*template != '\0') {
        const size_t columns = strcspn(template, "\n"), blanks = strspn(template, " ");
        if (template[blanks] == '%') {
            fwrite(template + blanks + 1, 1, columns - blanks - 1, lua);
        } else {
            translate_text(lua, template, columns);
        }
        putc('\n', lua);
        template += columns + (template[columns] == '\n');
    }
    return fclose(lua) == 0 ? text : NULL;
}

/* --- from either to C ------------------------------------------------------------------------------------------------------- */

/* Standard C promises string literals of 4095 bytes only, so bytes are an array of numbers. */
static int put_bytes(lua_State *L, const void *bytes, size_t size, void *unused)
{
    (void)L, (void)unused;
    for (size_t i = 0; i < size; i++) { printf("%d,%s", ((const char *)bytes)[i], i % 32 == 31 ? "\n" : ""); }
    return 0;
}

/* Lines and names stay in it: messages tell them. */
static bool put_compiled(lua_State *L, const char *name, const char *text, size_t length)
{
    const bool is_lua = strcmp(name + strlen(name) - 4, ".lua") == 0;
    char *lua = is_lua ? NULL : translate(text, &length);
    if (!is_lua && lua == NULL) { return false; }
    lua_pushfstring(L, "@%s", name);
    const int status = luaL_loadbufferx(L, is_lua ? text : lua, length, lua_tostring(L, -1), "t");
    free(lua);
    if (status != LUA_OK) { fprintf(stderr, "%s\n", lua_tostring(L, -1)); }
    const bool done = status == LUA_OK && lua_dump(L, put_bytes, NULL, 0) == 0;
    lua_settop(L, 0);
    return done;
}

static bool embed(lua_State *L, const char *name, const char *path, int number)
{
    size_t length = 0;
    char *text = read_file(path, &length);
    if (text == NULL) { return false; }
    bool done = true;
    printf("static const char bytes_%d[] = {\n", number);
    if (strncmp(name, "templates/", strlen("templates/")) == 0) {
        done = put_compiled(L, name, text, length);
    } else {
        (void)put_bytes(L, text, length, NULL);
    }
    printf("0};\n");
    free(text);
    return done;
}

static const char tail[] = "};\n\n"
                           "static const struct entry *find(const char *name)\n{\n"
                           "    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {\n"
                           "        if (strcmp(entries[i].name, name) == 0) { return &entries[i]; }\n"
                           "    }\n    return NULL;\n}\n\n"
                           "const char *bptt_embedded(const char *name)\n{\n"
                           "    const struct entry *entry = find(name);\n    return entry == NULL ? NULL : entry->bytes;\n}\n\n"
                           "size_t bptt_embedded_size(const char *name)\n{\n"
                           "    const struct entry *entry = find(name);\n    return entry == NULL ? 0 : entry->size;\n}\n";

int main(int count, char **arguments)
{
    lua_State *L = luaL_newstate();
    if (L == NULL) { return 1; }
    printf("#include \"embedded.h\"\n#include <string.h>\n");
    for (int i = 1; i < count; i++) {
        char *path = strchr(arguments[i], '=');
        if (path != NULL) { *path++ = '\0'; }
        if (path == NULL || !embed(L, arguments[i], path, i)) {
            fprintf(stderr, "embed: cannot embed '%s'\n", arguments[i]);
            return 1;
        }
    }
    printf("static const struct entry { const char *name, *bytes; size_t size; } entries[] = {\n");
    for (int i = 1; i < count; i++) { printf("{\"%s\", bytes_%d, sizeof bytes_%d - 1},\n", arguments[i], i, i); }
    fputs(tail, stdout);
    lua_close(L);
    return ferror(stdout) || fflush(stdout) != 0;
}
