/* spec.c: from a Lua file and overrides to a checked struct.  See spec.h.
 *
 * The file runs in one sandbox; overrides and defaults are expressions that run in another, which the file cannot reach.  Each
 * value is read by its field's kind (fields.c); what concerns several fields is checked here, at the end.
 */
#include "spec.h"

#include "fields.h"
#include "suggest.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_LIMIT = 1 << 20 };

/* No product of sizes may come near what a size_t or a disk holds. */
static const double byte_limit = (double)((int64_t)1 << 48);

/* What a message shows of an override. */
typedef struct label {
    char text[160];
} label;

static label show(const bptt_override *o)
{
    label s;
    bool cut = strlen(o->value) > 80;
    (void)snprintf(s.text, sizeof s.text, "--set %.*s=%.80s%s", o->key_length > 40 ? 40 : (int)o->key_length, o->key, o->value,
                   cut ? "..." : "");
    return s;
}

bptt_status bptt_reader_fail(bptt_reader *r, const char *part, const char *format, ...)
{
    char message[700];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    const bptt_override *origin = r->field == NULL ? NULL : r->origins[r->field - bptt_fields];
    if (origin != NULL) { return bptt_fail(r->error, BPTT_USAGE, "%s: %s", show(origin).text, message); }
    bptt_span key = {r->field == NULL ? "" : r->field->name, r->field == NULL ? 0 : strlen(r->field->name)};
    bptt_span inner = {part, part == NULL ? 0 : strlen(part)};
    return bptt_fail(r->error, BPTT_FAILED, "%s:%d: %s", r->source, bptt_line_of(r->text, key, inner), message);
}

/* ---- unknown fields ---- */

static const bptt_field *find_field(const char *name, size_t length)
{
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        if (strlen(field->name) == length && memcmp(field->name, name, length) == 0) { return field; }
    }
    return NULL;
}

/* "unknown field 'hiden' (did you mean 'hidden'?)" */
static void unknown_field(const char *name, size_t length, char *text, size_t size)
{
    bptt_suggestion near = {name, length, NULL, 0};
    (void)snprintf(text, size, "unknown field ");
    bptt_append_quoted(text, size, '\'', name, length);
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) { bptt_suggest(&near, field->name); }
    if (near.best != NULL) {
        bptt_append(text, size, " (did you mean '%s'?)", near.best);
        return;
    }
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        bptt_append(text, size, "%s%s", field == bptt_fields ? "; the fields are " : ", ", field->name);
    }
}

static bool is_field_key(const void *context, lua_State *L, int key)
{
    (void)context;
    size_t length = 0;
    if (lua_type(L, key) != LUA_TSTRING) { return false; }
    const char *name = lua_tolstring(L, key, &length);
    return find_field(name, length) != NULL;
}

static bptt_status stray_entry(bptt_reader *r, lua_State *L)
{
    char text[512];
    size_t length = 0;
    if (lua_type(L, -1) != LUA_TSTRING) {
        bptt_describe(L, -1, text, sizeof text);
        return bptt_reader_fail(r, NULL, "entry [%s]: expected named fields only, name = value", text);
    }
    const char *name = lua_tolstring(L, -1, &length);
    unknown_field(name, length, text, sizeof text);
    int line = bptt_line_of(r->text, (bptt_span){name, length}, (bptt_span){NULL, 0});
    return bptt_fail(r->error, BPTT_FAILED, "%s:%d: %s", r->source, line, text);
}

/* ---- values ---- */

/* Lua function (reader, value): reads the value into the reader's field.  nil leaves it unset, but not in an override. */
static int read_value(lua_State *L)
{
    bptt_reader *r = lua_touserdata(L, 1);
    ptrdiff_t row = r->field - bptt_fields;
    if (lua_isnil(L, 2) && r->origins[row] == NULL) { return 0; }
    r->status = bptt_field_read(r, L, 2);
    r->given[row] = r->status == BPTT_OK;
    return 0;
}

/* Lua function (reader, table): reads every field that no override gives. */
static int read_table(lua_State *L)
{
    bptt_reader *r = lua_touserdata(L, 1);
    if (!lua_istable(L, 2)) {
        bool empty = lua_isnil(L, 2);
        r->status = bptt_reader_fail(r, NULL, "the spec returns %s%s, expected a table of fields", empty ? "" : "a ",
                                     empty ? "nothing" : luaL_typename(L, 2));
        return 0;
    }
    if (bptt_push_stray_key(L, 2, is_field_key, NULL)) {
        r->status = stray_entry(r, L);
        return 0;
    }
    for (size_t i = 0; i < BPTT_FIELD_COUNT && r->status == BPTT_OK; i++) {
        if (r->origins[i] != NULL) { continue; }
        r->field = &bptt_fields[i];
        lua_pushcfunction(L, read_value);
        lua_pushlightuserdata(L, r);
        (void)lua_pushstring(L, r->field->name);
        (void)lua_rawget(L, 2);
        lua_call(L, 2, 0);
    }
    return 0;
}

/* Calls `reader_function` with the value on the top of the stack, which it takes. */
static bptt_status read_protected(bptt_reader *r, bptt_sandbox *sandbox, lua_CFunction reader_function)
{
    bptt_error error;
    lua_State *L = bptt_sandbox_state(sandbox);
    lua_pushcfunction(L, reader_function);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, r);
    lua_insert(L, -2);
    r->status = BPTT_OK;
    bptt_status status = bptt_sandbox_call(sandbox, 2, 0, &error);
    if (status == BPTT_OK) { return r->status; }
    *r->error = error;
    return status;
}

/* ---- the file ---- */

/* alphabet_of("file"): the file's distinct bytes, sorted.  Upvalue: the folder as light userdata. */
static int alphabet_of(lua_State *L)
{
    unsigned char alphabet[256];
    int size = 0;
    size_t length = 0;
    bptt_error error;
    const char *folder = lua_touserdata(L, lua_upvalueindex(1));
    const char *file = luaL_checklstring(L, 1, &length);
    if (folder == NULL) { return luaL_error(L, "alphabet_of(\"%s\"): refused, this spec is not a file", file); }
    if (strlen(file) != length) { return luaL_error(L, "alphabet_of(\"%s\"): the name holds a zero byte", file); }
    if (bptt_alphabet_of(folder, file, alphabet, &size, &error) != BPTT_OK) {
        return luaL_error(L, "alphabet_of(\"%s\"): %s", file, error.text);
    }
    lua_pushlstring(L, (const char *)alphabet, (size_t)size);
    return 1;
}

static int offer_alphabet_of(lua_State *L)
{
    lua_pushcclosure(L, alphabet_of, 1);
    lua_setglobal(L, "alphabet_of");
    return 0;
}

/* A sandbox with alphabet_of; NULL and an error. */
static bptt_sandbox *new_sandbox(const char *folder, bptt_error *error)
{
    bptt_sandbox *sandbox = bptt_sandbox_new();
    if (sandbox == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "not enough memory for Lua");
        return NULL;
    }
    lua_State *L = bptt_sandbox_state(sandbox);
    lua_pushcfunction(L, offer_alphabet_of);
    lua_pushlightuserdata(L, (void *)(uintptr_t)folder);
    if (bptt_sandbox_call(sandbox, 1, 0, error) == BPTT_OK) { return sandbox; }
    bptt_sandbox_free(sandbox);
    return NULL;
}

static bptt_status read_file_fields(bptt_reader *r, const char *folder)
{
    bptt_sandbox *sandbox = new_sandbox(folder, r->error);
    if (sandbox == NULL) { return BPTT_FAILED; }
    bptt_status status = bptt_sandbox_compile(sandbox, r->text.start, r->text.length, r->source, r->error);
    if (status == BPTT_OK) { status = bptt_sandbox_call(sandbox, 0, 1, r->error); }
    if (status == BPTT_OK) { status = read_protected(r, sandbox, read_table); }
    r->field = NULL;
    bptt_sandbox_free(sandbox);
    return status;
}

/* ---- overrides and defaults ---- */

/* Whether the text of an override is a bare word, that is a string without its quotes. */
static bool is_bare_word(const char *value)
{
    static const char *const constants[] = {"true", "false", "nil"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    size_t length = strlen(value);
    if (length == 0 || (value[0] >= '0' && value[0] <= '9') || strspn(value, letters) != length) { return false; }
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (strcmp(value, constants[i]) == 0) { return false; }
    }
    return true;
}

/* Evaluates `value` into the reader's field.  `quote`: it is a string without its quotes. */
static bptt_status read_expression(bptt_reader *r, bptt_sandbox *sandbox, const char *value, bool quote)
{
    bptt_error error;
    char *text = NULL;
    if (asprintf(&text, quote ? "return \"%s\"" : "return %s", value) < 0) {
        return bptt_fail(r->error, BPTT_FAILED, "not enough memory");
    }
    bptt_status status = bptt_sandbox_compile(sandbox, text, strlen(text), "value", &error);
    if (status == BPTT_OK) { status = bptt_sandbox_call(sandbox, 0, 1, &error); }
    free(text);
    if (status == BPTT_OK) { return read_protected(r, sandbox, read_value); }
    const char *message = strstr(error.text, ": "); /* the override is the place, not "value:1" */
    return bptt_reader_fail(r, NULL, "%s", message == NULL ? error.text : message + 2);
}

static bptt_status read_overrides(bptt_reader *r, bptt_sandbox *sandbox)
{
    for (size_t i = 0; i < BPTT_FIELD_COUNT; i++) {
        if (r->origins[i] == NULL) { continue; }
        r->field = &bptt_fields[i];
        bptt_status status = read_expression(r, sandbox, r->origins[i]->value, is_bare_word(r->origins[i]->value));
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

/* Lua function (reader): offers the integer fields that are set, or are 0 unless they are, as variables to the defaults. */
static int offer_fields(lua_State *L)
{
    bptt_reader *r = lua_touserdata(L, 1);
    for (size_t i = 0; i < BPTT_FIELD_COUNT; i++) {
        int64_t value;
        const bptt_field *field = &bptt_fields[i];
        const bool whole = field->kind == BPTT_KIND_INTEGER || field->kind == BPTT_KIND_SIZES;
        const bool zero = field->fallback != NULL && strcmp(field->fallback, "0") == 0; /* that is there, given or not */
        if (!whole || !(r->given[i] || zero)) { continue; }
        memcpy(&value, (const char *)r->spec + bptt_fields[i].offset, sizeof value);
        lua_pushinteger(L, value);
        lua_setglobal(L, bptt_fields[i].name);
    }
    return 0;
}

static bptt_status read_defaults(bptt_reader *r, bptt_sandbox *sandbox)
{
    for (size_t i = 0; i < BPTT_FIELD_COUNT; i++) {
        if (r->given[i] || bptt_fields[i].fallback != NULL) { continue; }
        char what[512] = "";
        bptt_field_expect(&bptt_fields[i], what, sizeof what);
        r->field = NULL;
        return bptt_reader_fail(r, NULL, "field '%s' is missing: expected %s", bptt_fields[i].name, what);
    }
    lua_State *L = bptt_sandbox_state(sandbox);
    lua_pushcfunction(L, offer_fields);
    lua_pushlightuserdata(L, r);
    bptt_status status = bptt_sandbox_call(sandbox, 1, 0, r->error);
    for (size_t i = 0; i < BPTT_FIELD_COUNT && status == BPTT_OK; i++) {
        if (r->given[i]) { continue; }
        r->field = &bptt_fields[i];
        r->defaulted[i] = true;
        status = read_expression(r, sandbox, bptt_fields[i].fallback, false);
        r->given[i] = false; /* nobody gave it */
    }
    return status;
}

static bptt_status match_overrides(bptt_reader *r, const bptt_override *overrides, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const bptt_field *field = find_field(overrides[i].key, overrides[i].key_length);
        if (field == NULL) {
            char text[512];
            unknown_field(overrides[i].key, overrides[i].key_length, text, sizeof text);
            return bptt_fail(r->error, BPTT_USAGE, "%s: %s", show(&overrides[i]).text, text);
        }
        r->origins[field - bptt_fields] = &overrides[i]; /* the last one counts */
    }
    return BPTT_OK;
}

/* ---- what a spec reads ---- */

bool bptt_spec_tokens(const bptt_spec *spec)
{
    return spec->inputs == 0 || spec->embedding > 0;
}

bool bptt_spec_labels(const bptt_spec *spec)
{
    return spec->outputs == 0;
}

int bptt_spec_loss_steps(const bptt_spec *spec, int64_t stretches[BPTT_MAX_STRETCHES][2])
{
    const bptt_steps *at = &spec->loss_at;
    stretches[0][0] = at->kind == BPTT_STEPS_LAST ? spec->T - 1 : 0;
    stretches[0][1] = spec->T;
    for (int i = 0; at->kind == BPTT_STEPS_LIST && i < at->count; i++) {
        stretches[i][0] = at->stretches[i].first - 1;
        stretches[i][1] = at->stretches[i].last;
    }
    return at->kind == BPTT_STEPS_LIST ? at->count : 1;
}

int64_t bptt_spec_input_size(const bptt_spec *spec)
{
    return spec->inputs + spec->embedding > 0 ? spec->inputs + spec->embedding : spec->vocab;
}

int64_t bptt_spec_output_size(const bptt_spec *spec)
{
    return spec->outputs > 0 ? spec->outputs : spec->vocab;
}

bool bptt_spec_restarts(const bptt_spec *spec)
{
    return spec->resets || spec->h0 == BPTT_H0_LEARNED;
}

bool bptt_spec_drops(const bptt_spec *spec)
{
    return spec->dropout.input > 0 || spec->dropout.between > 0 || spec->dropout.output > 0;
}

/* ---- several fields at once ---- */

/* Blames the first of the fields that an override gives, else the first. */
static void blame(bptt_reader *r, const char *const *names)
{
    r->field = find_field(names[0], strlen(names[0]));
    for (size_t i = 0; names[i] != NULL; i++) {
        const bptt_field *field = find_field(names[i], strlen(names[i]));
        if (r->origins[field - bptt_fields] != NULL) {
            r->field = field;
            return;
        }
    }
}

static bptt_status check_product(bptt_reader *r, const char *const *names)
{
    char terms[128] = "";
    char values[128] = "";
    double bytes = r->spec->dtype == BPTT_F64 ? 8 : 4;
    for (size_t i = 0; names[i] != NULL; i++) {
        int64_t value;
        memcpy(&value, (const char *)r->spec + find_field(names[i], strlen(names[i]))->offset, sizeof value);
        bytes *= (double)value;
        bptt_append(terms, sizeof terms, "%s%s", i == 0 ? "" : " * ", names[i]);
        bptt_append(values, sizeof values, "%s%lld", i == 0 ? "" : " * ", (long long)value);
    }
    if (bytes <= byte_limit) { return BPTT_OK; }
    blame(r, names);
    return bptt_reader_fail(r, NULL, "%s = %s reals take %.0f bytes, expected at most %.0f", terms, values, bytes, byte_limit);
}

/* As many layers as sizes; the last size counts where `hidden` is one number. */
static bptt_status check_layers(bptt_reader *r)
{
    static const char *const names[] = {"layers", "hidden", NULL};
    bptt_spec *spec = r->spec;
    const bptt_field *layers = find_field("layers", strlen("layers"));
    if (spec->size_count == 0) { return BPTT_OK; }
    if (r->defaulted[layers - bptt_fields]) { spec->layers = spec->size_count; }
    if (spec->layers != spec->size_count) {
        blame(r, names);
        return bptt_reader_fail(r, NULL, "layers = %lld, but hidden has %d sizes, expected as many", (long long)spec->layers,
                                spec->size_count);
    }
    if (spec->layers == 1) { spec->size_count = 0; }
    return BPTT_OK;
}

/* What goes in and what comes out, and the loss that fits. */
static bptt_status check_data(bptt_reader *r)
{
    static const char *const vocab[] = {"vocab", "inputs", "outputs", NULL}, *const loss[] = {"loss", "outputs", NULL},
                             *const activation[] = {"output_activation", "loss", NULL},
                             *const tie[] = {"tie", "embedding", "hidden", NULL},
                             *const smoothing[] = {"smoothing", "loss", NULL};
    const bptt_spec *spec = r->spec;
    const char *word = bptt_spec_word("loss", (int)spec->loss);
    if (spec->vocab == 0 && (bptt_spec_tokens(spec) || bptt_spec_labels(spec))) {
        blame(r, vocab);
        return bptt_reader_fail(r, NULL, "vocab is missing: %s are tokens; expected vocab, or %s for reals",
                                bptt_spec_tokens(spec) ? "inputs" : "outputs",
                                bptt_spec_tokens(spec) ? "inputs = D" : "outputs = Q");
    }
    if (spec->vocab > 0 && !bptt_spec_tokens(spec) && !bptt_spec_labels(spec)) {
        blame(r, vocab);
        return bptt_reader_fail(r, NULL, "vocab with inputs and outputs, which are reals: nothing is a token; expected no vocab");
    }
    const bool same =
        spec->embedding == spec->hidden || (spec->equations != NULL && spec->embedding > 0); /* then trace.c knows */
    if (spec->tie && (!same || !bptt_spec_labels(spec))) {
        blame(r, tie);
        return bptt_reader_fail(r, NULL, "tie = true with embedding = %lld, hidden = %lld: one matrix for both needs %s",
                                (long long)spec->embedding, (long long)spec->hidden,
                                bptt_spec_labels(spec) ? "embedding = hidden" : "labels, no outputs");
    }
    if (spec->smoothing > 0 && spec->loss != BPTT_CROSS_ENTROPY) {
        blame(r, smoothing);
        return bptt_reader_fail(r, NULL, "smoothing with loss = \"%s\": expected \"cross_entropy\", whose labels it smooths",
                                word);
    }
    if ((spec->loss == BPTT_CROSS_ENTROPY) != bptt_spec_labels(spec)) {
        blame(r, loss);
        return bptt_reader_fail(r, NULL, "loss = \"%s\" with %s; expected %s", word,
                                bptt_spec_labels(spec) ? "labels, since there are no outputs" : "outputs, which are reals",
                                bptt_spec_labels(spec) ? "\"cross_entropy\", or outputs = Q"
                                                       : "\"squared_error\" or \"binary_cross_entropy\"");
    }
    if (spec->output_activation != BPTT_OUTPUT_IDENTITY && spec->loss != BPTT_SQUARED_ERROR) {
        blame(r, activation);
        return bptt_reader_fail(r, NULL,
                                "output_activation = \"%s\" with loss = \"%s\", which takes logits; expected \"identity\"",
                                bptt_spec_word("output_activation", (int)spec->output_activation), word);
    }
    return BPTT_OK;
}

/* The separator's id, where it is a character. */
static bptt_status find_separator(bptt_reader *r)
{
    static const char *const separator[] = {"separator", "resets", "inputs", "vocab", NULL};
    bptt_spec *spec = r->spec;
    int64_t token = spec->separator - 1;
    if (token < 0) { return BPTT_OK; }
    blame(r, separator);
    if (!spec->resets) { return bptt_reader_fail(r, NULL, "separator without resets, which it is for; expected resets = true"); }
    if (!bptt_spec_tokens(spec)) { return bptt_reader_fail(r, NULL, "separator with inputs that are reals; expected none"); }
    if (token >= BPTT_CHARACTERS) {
        const unsigned char c = (unsigned char)(token - BPTT_CHARACTERS);
        const unsigned char *at = memchr(spec->alphabet, c, (size_t)spec->alphabet_size);
        char shown[16] = "";
        bptt_append_quoted(shown, sizeof shown, '"', (const char *)&c, 1);
        if (at == NULL) { return bptt_reader_fail(r, NULL, "separator: the alphabet has no %s", shown); }
        token = at - spec->alphabet;
    }
    spec->separator = token + 1;
    if (token < spec->vocab) { return BPTT_OK; }
    return bptt_reader_fail(r, NULL, "separator = %lld is not below vocab = %lld", (long long)token, (long long)spec->vocab);
}

/* Where sequences and documents start. */
static bptt_status check_starts(bptt_reader *r)
{
    static const char *const learned[] = {"h0", "carry", "resets", NULL}, *const given[] = {"h0", "resets", NULL};
    const bptt_spec *spec = r->spec;
    if (spec->h0 == BPTT_H0_LEARNED && spec->carry && !spec->resets) {
        blame(r, learned);
        return bptt_reader_fail(r, NULL,
                                "h0 = \"learned\" with carry = true, so that no sequence starts from h0; expected "
                                "carry = false, or resets = true");
    }
    if (spec->h0 == BPTT_H0_GIVEN && spec->resets) {
        blame(r, given);
        return bptt_reader_fail(r, NULL,
                                "h0 = \"given\" with resets: a document within a sequence is given none; expected "
                                "\"zero\" or \"learned\"");
    }
    return find_separator(r);
}

/* One probability is for all places that there are; of those that are named, each must be there. */
static bptt_status check_dropout(bptt_reader *r)
{
    static const char *const input[] = {"dropout", "inputs", "embedding", NULL}, *const between[] = {"dropout", "layers", NULL};
    const bptt_spec *spec = r->spec;
    const bptt_dropout *p = &spec->dropout;
    if (p->input == p->between && p->between == p->output) { return BPTT_OK; }
    if (p->input > 0 && bptt_spec_tokens(spec) && spec->embedding == 0) {
        blame(r, input);
        return bptt_reader_fail(r, "input",
                                "dropout.input with inputs that are tokens, not vectors; expected embedding = E, or none");
    }
    if (p->between > 0 && spec->layers == 1) {
        blame(r, between);
        return bptt_reader_fail(r, "between", "dropout.between with one layer; expected layers = 2 or more, or none");
    }
    return BPTT_OK;
}

/* How far losses flow back, and what that goes with. */
static bptt_status check_truncation(bptt_reader *r)
{
    static const char *const stride[] = {"stride", "truncation", "K", NULL}, *const mode[] = {"truncation", "stride", NULL},
                             *const vocab[] = {"truncation", "vocab", NULL};
    const bptt_spec *spec = r->spec;
    const char *word = bptt_spec_word("truncation", (int)spec->truncation);
    const bool block = spec->truncation == BPTT_TRUNCATION_BLOCK;
    if (block && spec->stride == 0) {
        blame(r, mode);
        return bptt_reader_fail(r, NULL, "truncation = \"block\" without stride; expected stride from 1 to K = %lld",
                                (long long)spec->K);
    }
    if (block ? spec->stride > spec->K : spec->stride != 0) {
        blame(r, stride);
        if (!block) {
            return bptt_reader_fail(r, NULL, "stride = %lld with truncation = \"%s\"; expected truncation = \"block\"",
                                    (long long)spec->stride, word);
        }
        return bptt_reader_fail(r, NULL, "stride = %lld with truncation = \"block\"; expected stride from 1 to K = %lld",
                                (long long)spec->stride, (long long)spec->K);
    }
    if (spec->truncation == BPTT_TRUNCATION_CHUNK) { return BPTT_OK; }
    if (block && spec->dtype == BPTT_F32 && spec->vocab > 1 << 24) {
        blame(r, vocab);
        return bptt_reader_fail(r, NULL,
                                "truncation = \"block\" with vocab = %lld, which keeps tokens as f32; expected at most %d",
                                (long long)spec->vocab, 1 << 24);
    }
    return BPTT_OK;
}

static bptt_status check_together(bptt_reader *r)
{
    static const char *const horizon[] = {"K", "T", NULL};
    static const char *const parts[] = {"threads", "batch", NULL};
    static const char *const steps[] = {"loss_at", "T", NULL};
    static const char *const spelled[] = {"threads", "unroll", NULL};
    static const char *const products[][4] = {
        {"batch", "T", NULL},           {"hidden", "hidden", NULL},
        {"hidden", "vocab", NULL},      {"T", "batch", "hidden", NULL},
        {"T", "batch", "vocab", NULL},  {"hidden", "inputs", NULL},
        {"hidden", "outputs", NULL},    {"hidden", "embedding", NULL},
        {"embedding", "vocab", NULL},   {"T", "batch", "embedding", NULL},
        {"T", "batch", "inputs", NULL}, {"T", "batch", "outputs", NULL},
    };
    bptt_status status = check_layers(r);
    if (status != BPTT_OK) { return status; }
    if (r->spec->K > r->spec->T) {
        blame(r, horizon);
        return bptt_reader_fail(r, NULL, "K = %lld is more than T = %lld, expected K from 1 to T", (long long)r->spec->K,
                                (long long)r->spec->T);
    }
    int64_t stretches[BPTT_MAX_STRETCHES][2] = {{0}};
    const int64_t end = stretches[bptt_spec_loss_steps(r->spec, stretches) - 1][1];
    if (end > r->spec->T) {
        blame(r, steps);
        return bptt_reader_fail(r, NULL, "loss_at: step %lld is beyond T = %lld", (long long)end, (long long)r->spec->T);
    }
    status = check_truncation(r);
    if (status != BPTT_OK) { return status; }
    if (r->spec->threads > r->spec->batch) {
        blame(r, parts);
        return bptt_reader_fail(r, NULL, "threads = %lld is more than batch = %lld, expected threads from 1 to batch",
                                (long long)r->spec->threads, (long long)r->spec->batch);
    }
    if (r->spec->threads > 1 && r->spec->unroll == BPTT_UNROLL_FULL) {
        blame(r, spelled);
        return bptt_reader_fail(r, NULL, "threads = %lld with unroll = 'full', which is for one thread; expected unroll = 'time'",
                                (long long)r->spec->threads);
    }
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        status = check_product(r, products[i]);
        if (status != BPTT_OK) { return status; }
    }
    status = check_data(r);
    if (status == BPTT_OK) { status = check_starts(r); }
    return status == BPTT_OK ? check_dropout(r) : status;
}

/* ---- entry points ---- */

int64_t bptt_spec_chunk(const bptt_spec *spec)
{
    switch (spec->truncation) {
    case BPTT_TRUNCATION_BLOCK:
        return spec->stride;
    case BPTT_TRUNCATION_UNIFORM:
        return spec->T;
    default:
        return spec->K;
    }
}

int64_t bptt_spec_width(const bptt_spec *spec, int64_t layer)
{
    return spec->size_count > 0 ? spec->sizes[layer] : spec->hidden;
}

/* A path as messages show it: one longer than a message would hide what is wrong. */
static const char *shown_path(const char *path)
{
    enum { SHOWN = 250 };
    size_t length = strlen(path);
    return length > SHOWN ? path + length - SHOWN : path;
}

/* Fills r->spec, but for text, digest and source. */
static bptt_status resolve(bptt_reader *r, const char *folder, const bptt_override *overrides, size_t count)
{
    bptt_status status = match_overrides(r, overrides, count);
    if (status != BPTT_OK) { return status; }
    status = read_file_fields(r, folder);
    if (status != BPTT_OK) { return status; }
    bptt_sandbox *sandbox = new_sandbox(folder, r->error);
    if (sandbox == NULL) { return BPTT_FAILED; }
    status = read_overrides(r, sandbox);
    if (status == BPTT_OK) { status = read_defaults(r, sandbox); }
    bptt_sandbox_free(sandbox);
    return status == BPTT_OK ? check_together(r) : status;
}

static bptt_status parse(bptt_span text, const char *source, const char *folder, const bptt_override *overrides, size_t count,
                         bptt_spec *spec, bptt_error *error)
{
    bptt_reader reader = {.spec = spec, .source = shown_path(source), .text = text, .error = error};
    *spec = (bptt_spec){0};
    if (text.length > FILE_LIMIT) { return bptt_fail(error, BPTT_FAILED, "%s: larger than 1 MiB", reader.source); }
    bptt_status status = resolve(&reader, folder, overrides, count);
    if (status == BPTT_OK) {
        spec->source = strdup(source);
        status = spec->source == NULL ? bptt_fail(error, BPTT_FAILED, "not enough memory") : bptt_spec_seal(spec, error);
    }
    if (status != BPTT_OK) {
        bptt_spec_free(spec);
        *spec = (bptt_spec){0};
    }
    return status;
}

bptt_status bptt_spec_parse(const char *text, size_t length, const char *source, const bptt_override *overrides, size_t count,
                            bptt_spec *spec, bptt_error *error)
{
    return parse((bptt_span){text, length}, source, NULL, overrides, count, spec, error);
}

/* Reads at most FILE_LIMIT + 1 bytes; the text is the caller's. */
static bptt_status read_text(const char *path, int file, char **text, size_t *length, bptt_error *error)
{
    struct stat about;
    *length = 0;
    if (fstat(file, &about) != 0) { return bptt_fail(error, BPTT_FAILED, "%s: %s", path, strerror(errno)); }
    if (S_ISDIR(about.st_mode)) { return bptt_fail(error, BPTT_FAILED, "%s: a folder, expected a Lua file", path); }
    if (!S_ISREG(about.st_mode)) { return bptt_fail(error, BPTT_FAILED, "%s: not a regular file", path); }
    *text = malloc(FILE_LIMIT + 1);
    if (*text == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: not enough memory", path); }
    while (*length <= FILE_LIMIT) {
        ssize_t count = read(file, *text + *length, FILE_LIMIT + 1 - *length);
        if (count < 0 && errno == EINTR) { continue; }
        if (count < 0) { return bptt_fail(error, BPTT_FAILED, "%s: %s", path, strerror(errno)); }
        if (count == 0) { break; }
        *length += (size_t)count;
    }
    return BPTT_OK;
}

/* The folder part of a path; owned by the caller, NULL: no memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) { return strdup("."); }
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

bptt_status bptt_spec_load(const char *path, const bptt_override *overrides, size_t count, bptt_spec *spec, bptt_error *error)
{
    char *text = NULL;
    size_t length = 0;
    const char *shown = shown_path(path);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) { return bptt_fail(error, BPTT_FAILED, "%s: %s", shown, strerror(errno)); }
    bptt_status status = read_text(shown, file, &text, &length, error);
    (void)close(file);
    char *folder = folder_of(path);
    if (status == BPTT_OK && folder == NULL) { status = bptt_fail(error, BPTT_FAILED, "%s: not enough memory", shown); }
    if (status == BPTT_OK) { status = parse((bptt_span){text, length}, path, folder, overrides, count, spec, error); }
    free(folder);
    free(text);
    return status;
}
