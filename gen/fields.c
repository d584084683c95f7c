/* fields.c: the fields of a spec, and the kinds of value that they take.  See fields.h.
 *
 * To add a field: a row in bptt_fields (and a member of bptt_spec).  Reads values by raw access alone; runs no Lua code.
 */
#include "fields.h"

#include "names.h"
#include "suggest.h"

#include <float.h>
#include <lauxlib.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define AT(member) .offset = offsetof(bptt_spec, member)

/* Positive numbers stay clear of what a float rounds to 0 or to infinity. */
#define TINY  1e-30
#define LARGE 1e30

const bptt_field bptt_fields[] = {
    {"name", BPTT_KIND_NAME, AT(name), .help = "prefix of every emitted name"},
    {"cell", BPTT_KIND_CELL, AT(cell), .words = WORDS("rnn", "gru", "lstm"), .fallback = "\"rnn\"", .help = "recurrence"},
    {"activation", BPTT_KIND_CHOICE, AT(activation), .words = WORDS("tanh", "relu", "sigmoid", "identity"),
     .fallback = "\"tanh\"", .help = "phi in h_t = phi(a_t) of cell rnn"},
    {"hidden", BPTT_KIND_SIZES, AT(hidden), 1, 65536, .help = "hidden units, H, of every layer or of each"},
    {"layers", BPTT_KIND_INTEGER, AT(layers), 1, BPTT_MAX_LAYERS, .fallback = "1", .later = true,
     .help = "cells on top of each other; a list of hidden sizes says it too"},
    {"vocab", BPTT_KIND_VOCAB, AT(vocab), 2, INT32_MAX, .fallback = "0", .later = true,
     .help = "token ids, V; without inputs x is a token, without outputs the target is one"},
    {"inputs", BPTT_KIND_INTEGER, AT(inputs), 0, 65536, .fallback = "0", .later = true, .help = "reals of an input, D"},
    {"embedding", BPTT_KIND_INTEGER, AT(embedding), 0, 65536, .fallback = "0", .later = true,
     .help = "reals of the row that a token becomes, E"},
    {"outputs", BPTT_KIND_INTEGER, AT(outputs), 0, 65536, .fallback = "0", .later = true, .help = "reals of a target, Q"},
    {"T", BPTT_KIND_INTEGER, AT(T), 1, 65536, .help = "time steps of a sequence"},
    {"K", BPTT_KIND_INTEGER, AT(K), 1, 65536, .fallback = "T", .help = "truncation horizon, steps of a chunk, at most T"},
    {"truncation", BPTT_KIND_CHOICE, AT(truncation), .words = WORDS("chunk", "block", "uniform"), .fallback = "\"chunk\"",
     .later = true, .help = "how far losses flow back: to the start of their chunk, over overlapping blocks, or exactly K steps"},
    {"stride", BPTT_KIND_INTEGER, AT(stride), 0, 65536, .fallback = "0", .later = true,
     .help = "truncation = \"block\": steps from one run back to the next, at most K"},
    {"batch", BPTT_KIND_INTEGER, AT(batch), 1, 65536, .fallback = "1", .help = "sequences trained side by side, B"},
    {"dtype", BPTT_KIND_CHOICE, AT(dtype), .words = WORDS("f32", "f64"), .fallback = "\"f32\"", .help = "type of every real"},
    {"loss", BPTT_KIND_CHOICE, AT(loss), .words = WORDS("cross_entropy", "squared_error", "binary_cross_entropy"),
     .fallback = "outputs > 0 and \"squared_error\" or \"cross_entropy\"", .help = "loss of a step"},
    {"output_activation", BPTT_KIND_CHOICE, AT(output_activation), .words = WORDS("identity", "sigmoid", "tanh"),
     .fallback = "\"identity\"", .later = true, .help = "g in the squared error (g(o_t) - d_t)^2"},
    {"loss_at", BPTT_KIND_STEPS, AT(loss_at), .words = WORDS("all", "last"), .fallback = "\"all\"", .later = true,
     .help = "steps of a sequence that have an output and a loss"},
    {"tie", BPTT_KIND_BOOLEAN, AT(tie), .fallback = "false", .later = true,
     .help = "the output layer's matrix is the embedding's"},
    {"smoothing", BPTT_KIND_NUMBER, AT(smoothing), .low = 0, .high = 0.999999, .fallback = "0", .later = true,
     .help = "share of a label that is spread over all of them"},
    {"reduction", BPTT_KIND_CHOICE, AT(reduction), .words = WORDS("mean", "sum"), .fallback = "\"mean\"",
     .help = "how the losses of a chunk become one"},
    {"carry", BPTT_KIND_BOOLEAN, AT(carry), .fallback = "true", .help = "the state goes on from sequence to sequence"},
    {"h0", BPTT_KIND_CHOICE, AT(h0), .words = WORDS("zero", "learned", "given"), .fallback = "\"zero\"", .later = true,
     .help = "the state before a sequence; given: by the caller of the emitted code"},
    {"resets", BPTT_KIND_BOOLEAN, AT(resets), .fallback = "false", .later = true,
     .help = "documents start within sequences: the state before them is h0"},
    {"separator", BPTT_KIND_TOKEN, AT(separator), 0, INT32_MAX, .fallback = "false", .later = true,
     .help = "token that ends a document, for resets"},
    {"dropout", BPTT_KIND_DROPOUT, AT(dropout), .low = 0, .high = 0.999, .words = WORDS("input", "between", "output"),
     .fallback = "0", .later = true, .help = "probability of dropping: the input, if it is a vector, between layers, the output"},
    {"optimizer", BPTT_KIND_OPTIMIZER, AT(optimizer), .words = WORDS("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"),
     .fallback = "\"adagrad\"", .help = "update rule and its rates"},
    {"schedule", BPTT_KIND_SCHEDULE, AT(schedule), .words = WORDS("constant", "step", "exponential", "cosine", "plateau"),
     .fallback = "\"constant\"", .later = true, .help = "what the optimizer's rate is multiplied with, from update to update"},
    {"update", BPTT_KIND_CHOICE, AT(update), .words = WORDS("chunk", "sequence"), .fallback = "\"chunk\"", .later = true,
     .help = "what an update follows: each chunk of K steps, or a sequence of T"},
    {"accumulate", BPTT_KIND_INTEGER, AT(accumulate), 1, 65536, .fallback = "1", .later = true,
     .help = "chunks, or sequences, whose gradients are added up before an update"},
    {"clip", BPTT_KIND_SCALE, AT(clip), .low = TINY, .high = LARGE, .words = WORDS("none", "norm", "value"),
     .fallback = "{norm = 5}", .help = "limit of the gradient's norm or of its elements"},
    {"init", BPTT_KIND_SCALE, AT(init), .min = BPTT_INIT_UNIFORM, .low = 0, .high = LARGE,
     .words = WORDS("uniform", "normal", "xavier", "orthogonal", "identity"), .fallback = "{uniform = 1 / math.sqrt(hidden)}",
     .help = "first weights, with their range, standard deviation or factor"},
    {"init_recurrent", BPTT_KIND_SCALE, AT(init_recurrent), .low = 0, .high = LARGE,
     .words = WORDS("same", "uniform", "normal", "xavier", "orthogonal", "identity"), .fallback = "\"same\"", .later = true,
     .help = "those of square matrices from state to state; same as init"},
    {"forget_bias", BPTT_KIND_NUMBER, AT(forget_bias), .low = -LARGE, .high = LARGE, .fallback = "1", .later = true,
     .help = "first biases of a forget gate, in cells that have one"},
    {"seed", BPTT_KIND_INTEGER, AT(seed), 0, INT64_MAX, .fallback = "1", .help = "of everything that is random"},
    {"unroll", BPTT_KIND_CHOICE, AT(unroll), .words = WORDS("auto", "time", "full", "none"), .fallback = "\"auto\"",
     .spelling = true, .help = "which loops are spelled out"},
    {"simd", BPTT_KIND_LANES, AT(simd), .words = WORDS("auto", "1", "4", "8", "16"), .fallback = "\"auto\"", .spelling = true,
     .help = "32-bit lanes of a vector; auto is this machine's"},
    {"threads", BPTT_KIND_INTEGER, AT(threads), 1, 64, .fallback = "1", .spelling = true,
     .help = "threads that share the work, at most batch"},
    {0},
};

_Static_assert(sizeof bptt_fields / sizeof bptt_fields[0] == BPTT_FIELD_COUNT + 1, "BPTT_FIELD_COUNT counts the rows");
_Static_assert(sizeof(bptt_cell) == sizeof(int) && sizeof(bptt_clip_kind) == sizeof(int), "choices are kept as int");
_Static_assert(offsetof(bptt_optimizer, kind) == 0 && offsetof(bptt_schedule, kind) == 0, "a rule begins with the choice");
_Static_assert(offsetof(bptt_clip, limit) == offsetof(bptt_init, scale), "clip and init are read alike");

/* Rules are chosen by a word and have rates of their own, in a struct that begins with the choice.  Columns in the order of its
 * enum; UNUSED: the rule has no such rate; NEEDED: it has no default. */
#define UNUSED (-1.0)
#define NEEDED (-2.0)
enum { MOST_RULES = 6 };

typedef enum { NUMBER, WHOLE, FLAG } rate_type; /* WHOLE: an integer; FLAG: true or false, kept as 1 or 0 */

struct rate {
    const char *name;
    size_t offset; /* of a double */
    rate_type type;
    double low, high;
    double fallback[MOST_RULES];
};

/* PyTorch's forms, and its defaults but for the rates of sgd, momentum and adagrad. */
#define RATE(member) #member, offsetof(bptt_optimizer, member)
static const struct rate optimizer_rates[] = {
    /*                                              sgd     momentum adagrad rmsprop adam   adamw */
    {RATE(rate), NUMBER, TINY, LARGE, {0.1, 0.01, 0.1, 0.01, 0.001, 0.001}},
    {RATE(momentum), NUMBER, 0, 0.9999999, {UNUSED, 0.9, UNUSED, UNUSED, UNUSED, UNUSED}},
    {RATE(nesterov), FLAG, 0, 1, {UNUSED, 0, UNUSED, UNUSED, UNUSED, UNUSED}},
    {RATE(decay), NUMBER, 0, 0.9999999, {UNUSED, UNUSED, UNUSED, 0.99, UNUSED, UNUSED}},
    {RATE(beta1), NUMBER, 0, 0.9999999, {UNUSED, UNUSED, UNUSED, UNUSED, 0.9, 0.9}},
    {RATE(beta2), NUMBER, 0, 0.9999999, {UNUSED, UNUSED, UNUSED, UNUSED, 0.999, 0.999}},
    {RATE(epsilon), NUMBER, TINY, 1, {UNUSED, UNUSED, 1e-10, 1e-8, 1e-8, 1e-8}},
    {RATE(weight_decay), NUMBER, 0, LARGE, {0, 0, 0, 0, 0, 0.01}},
};
#undef RATE

#define RATE(member) #member, offsetof(bptt_schedule, member)
#define MOST         1e9
static const struct rate schedule_rates[] = {
    /*                                              constant step exponential cosine plateau */
    {RATE(every), WHOLE, 1, MOST, {UNUSED, NEEDED, UNUSED, UNUSED, UNUSED}},
    {RATE(factor), NUMBER, TINY, 1, {UNUSED, 0.1, NEEDED, UNUSED, 0.1}},
    {RATE(steps), WHOLE, 1, MOST, {UNUSED, UNUSED, UNUSED, NEEDED, UNUSED}},
    {RATE(floor), NUMBER, 0, 1, {UNUSED, UNUSED, UNUSED, 0, UNUSED}},
    {RATE(patience), WHOLE, 0, MOST, {UNUSED, UNUSED, UNUSED, UNUSED, 10}},
    {RATE(threshold), NUMBER, 0, 0.9999999, {UNUSED, UNUSED, UNUSED, UNUSED, 1e-4}},
    {RATE(warmup), WHOLE, 0, MOST, {0, 0, 0, 0, 0}},
};
#undef RATE

static const struct family {
    const struct rate *rates;
    size_t count;
    const char *noun, *some; /* for messages: what a rate is called, one of them, a rule with its own */
    const char *like;
} families[] = {
    [BPTT_KIND_OPTIMIZER] = {optimizer_rates, sizeof optimizer_rates / sizeof optimizer_rates[0], "rate", "rate = 0.01",
                             "{\"adam\", rate = 0.001}"},
    [BPTT_KIND_SCHEDULE] = {schedule_rates, sizeof schedule_rates / sizeof schedule_rates[0], "number", "warmup = 100",
                            "{\"step\", every = 1000, factor = 0.5}"},
};

static bool has_rate(const struct rate *rate, int rule)
{
    return rate->fallback[rule] != UNUSED;
}

static double load_rate(const void *rule, const struct rate *rate)
{
    double value;
    memcpy(&value, (const char *)rule + rate->offset, sizeof value);
    return value;
}

/* What is off unless asked for is not written when it is off: texts and digests of specs without it stay as they were. */
static bool is_off(const void *rule, const struct rate *rate, int kind)
{
    return rate->fallback[kind] == 0 && load_rate(rule, rate) == 0;
}

static int kind_of(const void *rule)
{
    int kind;
    memcpy(&kind, rule, sizeof kind);
    return kind;
}

/* ---- texts ---- */

void bptt_append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

/* The shortest decimal text that reads back as the same number. */
static void format_number(double number, char *text, size_t size)
{
    for (int digits = 1; digits <= DBL_DECIMAL_DIG; digits++) {
        (void)snprintf(text, size, "%.*g", digits, number);
        if (strtod(text, NULL) == number) { return; }
    }
}

void bptt_append_quoted(char *text, size_t size, char quote, const char *bytes, size_t length)
{
    enum { SHOWN = 40 };
    bptt_append(text, size, "%c", quote);
    for (size_t i = 0; i < length && i < SHOWN; i++) {
        unsigned char c = (unsigned char)bytes[i];
        bptt_append(text, size, c >= 0x20 && c < 0x7f ? "%c" : "\\%03u", c);
    }
    bptt_append(text, size, length > SHOWN ? "...%c" : "%c", quote);
}

void bptt_describe(lua_State *L, int index, char *text, size_t size)
{
    text[0] = '\0';
    int type = lua_type(L, index);
    double number = type == LUA_TNUMBER ? lua_tonumber(L, index) : 0;
    if (type == LUA_TSTRING) {
        size_t length = 0;
        const char *bytes = lua_tolstring(L, index, &length);
        bptt_append_quoted(text, size, '"', bytes, length);
    } else if (lua_isinteger(L, index)) {
        bptt_append(text, size, "%lld", lua_tointeger(L, index));
    } else if (isnan(number)) {
        bptt_append(text, size, "nan");
    } else if (type == LUA_TNUMBER) {
        format_number(number, text, size);
    } else if (type == LUA_TBOOLEAN) {
        bptt_append(text, size, lua_toboolean(L, index) ? "true" : "false");
    } else if (type == LUA_TNIL || type == LUA_TNONE) {
        bptt_append(text, size, "nothing");
    } else {
        bptt_append(text, size, "a %s", lua_typename(L, type));
    }
}

/* `"a", "b" or 4`: words as they are written in a spec. */
static void append_words(const char *const *words, char *text, size_t size)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        bool digit = words[i][0] >= '0' && words[i][0] <= '9';
        const char *joint = i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ";
        bptt_append(text, size, digit ? "%s%s" : "%s\"%s\"", joint, words[i]);
    }
}

/* ---- messages ---- */

/* "field = value: expected ...", or with `part` "field.part = value: expected ..."; an override shows the former itself. */
static bptt_status expected(bptt_reader *r, lua_State *L, int index, const char *part, const char *what)
{
    char value[256];
    const char *field = r->field->name;
    bptt_describe(L, index, value, sizeof value);
    if (part != NULL) {
        const char *dot = part[0] == '[' ? "" : ".";
        return bptt_reader_fail(r, part, "%s%s%s = %s: expected %s", field, dot, part, value, what);
    }
    if (r->origins[r->field - bptt_fields] != NULL) { return bptt_reader_fail(r, NULL, "expected %s", what); }
    return bptt_reader_fail(r, NULL, "%s = %s: expected %s", field, value, what);
}

static bptt_status unexpected(bptt_reader *r, lua_State *L, int index)
{
    char what[512] = "";
    bptt_field_expect(r->field, what, sizeof what);
    return expected(r, L, index, NULL, what);
}

/* ---- keys of tables ---- */

static bool comes_first(lua_State *L, int a, int b)
{
    int type_a = lua_type(L, a);
    int type_b = lua_type(L, b);
    if (type_a != type_b) { return type_a == LUA_TNUMBER || (type_a == LUA_TSTRING && type_b != LUA_TNUMBER); }
    return (type_a == LUA_TNUMBER || type_a == LUA_TSTRING) && lua_compare(L, a, b, LUA_OPLT) != 0;
}

bool bptt_push_stray_key(lua_State *L, int table, bptt_key_test *known, const void *context)
{
    bool found = false;
    luaL_checkstack(L, 4, NULL);
    table = lua_absindex(L, table);
    lua_pushnil(L);
    int least = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        lua_pop(L, 1);
        int key = lua_gettop(L);
        if (known(context, L, key) || (found && !comes_first(L, key, least))) { continue; }
        lua_copy(L, key, least);
        found = true;
    }
    if (!found) { lua_pop(L, 1); }
    return found;
}

static int find_word(const char *const *words, const char *word, size_t length)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strlen(words[i]) == length && memcmp(words[i], word, length) == 0) { return i; }
    }
    return -1;
}

int bptt_word_at(lua_State *L, int index, const char *const *words)
{
    size_t length = 0;
    const char *word = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &length) : NULL;
    return word == NULL ? -1 : find_word(words, word, length);
}

/* ---- kinds: read, write and describe ---- */

static void *slot(const bptt_field *field, bptt_spec *spec)
{
    return (char *)spec + field->offset;
}

static const void *const_slot(const bptt_field *field, const bptt_spec *spec)
{
    return (const char *)spec + field->offset;
}

/* An integer, also as a float without a fraction. */
static bool integer_at(lua_State *L, int index, int64_t *value)
{
    int exact = 0;
    if (lua_type(L, index) != LUA_TNUMBER) { return false; }
    *value = lua_tointegerx(L, index, &exact);
    return exact != 0;
}

/* A number in low .. high, which excludes NaN and the infinities; -0 becomes 0. */
static bool number_at(lua_State *L, int index, double low, double high, double *value)
{
    if (lua_type(L, index) != LUA_TNUMBER) { return false; }
    double number = lua_tonumber(L, index);
    *value = number == 0 ? 0 : number;
    return number >= low && number <= high;
}

static bptt_status read_name(bptt_reader *r, lua_State *L, int index)
{
    size_t length = 0;
    if (lua_type(L, index) != LUA_TSTRING) { return unexpected(r, L, index); }
    const char *name = lua_tolstring(L, index, &length);
    const char *fault = bptt_name_fault(name, length);
    if (fault != NULL) {
        char what[256] = "";
        bptt_field_expect(r->field, what, sizeof what);
        bptt_append(what, sizeof what, "; %s", fault);
        return expected(r, L, index, NULL, what);
    }
    memcpy(slot(r->field, r->spec), name, length + 1);
    return BPTT_OK;
}

static void write_name(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    (void)fprintf(out, "\"%s\"", (const char *)const_slot(field, spec));
}

static void expect_name(const bptt_field *field, char *text, size_t size)
{
    (void)field;
    bptt_append(text, size, "a C identifier of at most 40 characters");
}

static bptt_status read_choice(bptt_reader *r, lua_State *L, int index)
{
    int word = bptt_word_at(L, index, r->field->words);
    if (word < 0) { return unexpected(r, L, index); }
    memcpy(slot(r->field, r->spec), &word, sizeof word);
    return BPTT_OK;
}

static void write_choice(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    int word;
    memcpy(&word, const_slot(field, spec), sizeof word);
    (void)fprintf(out, "\"%s\"", field->words[word]);
}

static void expect_words(const bptt_field *field, char *text, size_t size)
{
    append_words(field->words, text, size);
}

enum { EQUATIONS_LIMIT = 1 << 16 };

/* Copies the equations: printable ASCII, tabs and line ends, which become "\n". */
static bptt_status copy_equations(bptt_reader *r, bptt_span body)
{
    if (body.length > EQUATIONS_LIMIT) {
        return bptt_reader_fail(r, NULL, "cell: a function of %zu bytes, expected at most %d", body.length, EQUATIONS_LIMIT);
    }
    char *text = malloc(body.length + 1);
    if (text == NULL) { return bptt_fail(r->error, BPTT_FAILED, "%s: not enough memory", r->source); }
    size_t length = 0;
    for (size_t i = 0; i < body.length; i++) {
        const unsigned char c = (unsigned char)body.start[i];
        if (c == '\r' && i + 1 < body.length && body.start[i + 1] == '\n') { continue; }
        if (c != '\n' && c != '\t' && (c < 0x20 || c > 0x7e)) {
            free(text);
            return bptt_reader_fail(r, NULL, "cell: byte %u in the function, expected printable ASCII", c);
        }
        text[length++] = (char)c;
    }
    text[length] = '\0';
    free(r->spec->equations);
    r->spec->equations = text;
    return BPTT_OK;
}

/* A function's text is cut out of the file where Lua says that it stands. */
static bptt_status read_equations(bptt_reader *r, lua_State *L, int index)
{
    lua_Debug about = {0};
    lua_pushvalue(L, index);
    (void)lua_getinfo(L, ">Su", &about);
    if (r->origins[r->field - bptt_fields] != NULL) {
        return bptt_reader_fail(r, NULL, "a function is written in the spec itself");
    }
    if (strcmp(about.what, "Lua") != 0) { return bptt_reader_fail(r, NULL, "cell: this function is not written in the spec"); }
    if (about.nparams > 0 || about.isvararg) {
        return bptt_reader_fail(r, NULL,
                                "cell: a function with parameters, expected function() ... end; x, hidden, ... are names in it");
    }
    for (int i = 1; lua_getupvalue(L, index, i) != NULL; i++) {
        const char *name = lua_getupvalue(L, index, i);
        if (strcmp(name, "_ENV") == 0) { continue; }
        return bptt_reader_fail(r, NULL, "cell: the function uses '%s' from outside; write the number in the cell", name);
    }
    bptt_span body = {NULL, 0};
    const int count = bptt_functions_at(r->text, about.linedefined, about.lastlinedefined, &body, &r->spec->equations_line);
    if (count != 1) {
        return bptt_reader_fail(r, NULL, "cell: %s function begins on line %d and ends on line %d; give it lines of its own",
                                count == 0 ? "no" : "more than one", about.linedefined, about.lastlinedefined);
    }
    return copy_equations(r, body);
}

static bptt_status read_cell(bptt_reader *r, lua_State *L, int index)
{
    return lua_isfunction(L, index) ? read_equations(r, L, index) : read_choice(r, L, index);
}

static void write_cell(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    if (spec->equations == NULL) {
        write_choice(field, spec, out);
        return;
    }
    (void)fprintf(out, "function()%send", spec->equations);
}

static void expect_cell(const bptt_field *field, char *text, size_t size)
{
    append_words(field->words, text, size);
    bptt_append(text, size, ", or a function of equations, function() ... end");
}

static bptt_status read_lanes(bptt_reader *r, lua_State *L, int index)
{
    char digits[32] = "";
    int64_t lanes = 0;
    int word = bptt_word_at(L, index, WORDS("auto"));
    if (word < 0 && integer_at(L, index, &lanes)) {
        (void)snprintf(digits, sizeof digits, "%lld", (long long)lanes);
        word = find_word(r->field->words, digits, strlen(digits));
    }
    if (word < 0) { return unexpected(r, L, index); }
    memcpy(slot(r->field, r->spec), &lanes, sizeof lanes);
    return BPTT_OK;
}

static int64_t load_integer(const bptt_field *field, const bptt_spec *spec)
{
    int64_t value;
    memcpy(&value, const_slot(field, spec), sizeof value);
    return value;
}

static void write_lanes(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    int64_t lanes = load_integer(field, spec);
    (void)(lanes == 0 ? fprintf(out, "\"auto\"") : fprintf(out, "%lld", (long long)lanes));
}

static bptt_status read_integer(bptt_reader *r, lua_State *L, int index)
{
    int64_t value = 0;
    if (!integer_at(L, index, &value) || value < r->field->min || value > r->field->max) { return unexpected(r, L, index); }
    memcpy(slot(r->field, r->spec), &value, sizeof value);
    return BPTT_OK;
}

static void write_integer(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    (void)fprintf(out, "%lld", (long long)load_integer(field, spec));
}

static void expect_integer(const bptt_field *field, char *text, size_t size)
{
    bptt_append(text, size, "an integer from %lld to %lld", (long long)field->min, (long long)field->max);
}

static bptt_status read_number(bptt_reader *r, lua_State *L, int index)
{
    double value = 0;
    if (!number_at(L, index, r->field->low, r->field->high, &value)) { return unexpected(r, L, index); }
    memcpy(slot(r->field, r->spec), &value, sizeof value);
    return BPTT_OK;
}

static void write_number(double number, FILE *out)
{
    char text[64];
    format_number(number, text, sizeof text);
    (void)fputs(text, out);
}

static void write_real(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    double value;
    memcpy(&value, const_slot(field, spec), sizeof value);
    write_number(value, out);
}

static void expect_number(const bptt_field *field, char *text, size_t size)
{
    bptt_append(text, size, "a number from %g to %g", field->low, field->high);
}

static bptt_status read_boolean(bptt_reader *r, lua_State *L, int index)
{
    if (!lua_isboolean(L, index)) { return unexpected(r, L, index); }
    bool value = lua_toboolean(L, index) != 0;
    memcpy(slot(r->field, r->spec), &value, sizeof value);
    return BPTT_OK;
}

static bptt_status read_sizes(bptt_reader *r, lua_State *L, int index)
{
    bptt_spec *spec = r->spec;
    spec->size_count = 0;
    if (!lua_istable(L, index)) { return read_integer(r, L, index); }
    const lua_Unsigned count = lua_rawlen(L, index);
    if (count < 1 || count > BPTT_MAX_LAYERS) { return unexpected(r, L, index); }
    for (lua_Unsigned i = 0; i < count; i++) {
        (void)lua_rawgeti(L, index, (lua_Integer)i + 1);
        bptt_status status = read_integer(r, L, lua_gettop(L)); /* the last one stays in `hidden` */
        if (status != BPTT_OK) { return status; }
        spec->sizes[i] = spec->hidden;
        lua_pop(L, 1);
    }
    spec->size_count = (int)count;
    return BPTT_OK;
}

static void write_sizes(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    if (spec->size_count == 0) {
        write_integer(field, spec, out);
        return;
    }
    for (int i = 0; i < spec->size_count; i++) { (void)fprintf(out, "%s%lld", i == 0 ? "{" : ", ", (long long)spec->sizes[i]); }
    (void)fputc('}', out);
}

static void expect_sizes(const bptt_field *field, char *text, size_t size)
{
    expect_integer(field, text, size);
    bptt_append(text, size, ", or a list of up to %d, one a layer", BPTT_MAX_LAYERS);
}

static void write_boolean(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    bool value;
    memcpy(&value, const_slot(field, spec), sizeof value);
    (void)fprintf(out, value ? "true" : "false");
}

static void expect_boolean(const bptt_field *field, char *text, size_t size)
{
    (void)field;
    bptt_append(text, size, "true or false");
}

static bptt_status read_alphabet(bptt_reader *r, lua_State *L, int index)
{
    bool seen[256] = {false};
    size_t length = 0;
    const char *bytes = lua_tolstring(L, index, &length);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (seen[byte]) {
            char shown[16] = "";
            bptt_append_quoted(shown, sizeof shown, '"', bytes + i, 1);
            return bptt_reader_fail(r, NULL, "vocab: byte %s (%u) comes twice in the alphabet", shown, byte);
        }
        seen[byte] = true;
    }
    if (length < 2) { return unexpected(r, L, index); }
    memcpy(r->spec->alphabet, bytes, length); /* distinct, so at most 256 */
    r->spec->alphabet_size = (int)length;
    r->spec->vocab = (int64_t)length;
    return BPTT_OK;
}

static bptt_status read_vocab(bptt_reader *r, lua_State *L, int index)
{
    int64_t value = 0;
    r->spec->alphabet_size = 0;
    r->spec->vocab = 0;
    if (integer_at(L, index, &value) && value == 0) { return BPTT_OK; }
    return lua_type(L, index) == LUA_TSTRING ? read_alphabet(r, L, index) : read_integer(r, L, index);
}

static void write_characters(const unsigned char *bytes, int count, FILE *out)
{
    (void)fputc('"', out);
    for (int i = 0; i < count; i++) {
        unsigned char c = bytes[i];
        bool plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
        (void)fprintf(out, plain ? "%c" : "\\%03u", c);
    }
    (void)fputc('"', out);
}

static void write_vocab(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    if (spec->alphabet_size == 0) {
        write_integer(field, spec, out);
    } else {
        write_characters(spec->alphabet, spec->alphabet_size, out);
    }
}

static void expect_vocab(const bptt_field *field, char *text, size_t size)
{
    expect_integer(field, text, size);
    bptt_append(text, size, ", or a string of 2 to 256 distinct bytes");
}

/* Step `step` after all before it; false: too many stretches. */
static bool add_step(bptt_steps *steps, int64_t step)
{
    if (steps->count > 0 && steps->stretches[steps->count - 1].last + 1 == step) {
        steps->stretches[steps->count - 1].last++;
        return true;
    }
    if (steps->count == BPTT_MAX_STRETCHES) { return false; }
    steps->stretches[steps->count].first = steps->stretches[steps->count].last = (int32_t)step;
    steps->count++;
    return true;
}

static bptt_status read_steps(bptt_reader *r, lua_State *L, int index)
{
    enum { LONGEST = 65536 };
    bptt_steps steps = {.kind = BPTT_STEPS_LIST};
    const int word = bptt_word_at(L, index, r->field->words);
    const lua_Unsigned length = lua_istable(L, index) ? lua_rawlen(L, index) : 0;
    if (word < 0 && (length == 0 || length > LONGEST)) { return unexpected(r, L, index); }
    if (word >= 0) { steps.kind = word == 0 ? BPTT_STEPS_ALL : BPTT_STEPS_LAST; }
    int64_t before = 0, step = 0;
    for (lua_Integer i = 1; word < 0 && i <= (lua_Integer)length; i++) {
        (void)lua_rawgeti(L, index, i);
        if (!integer_at(L, lua_gettop(L), &step) || step <= before || step > LONGEST) {
            char part[32];
            (void)snprintf(part, sizeof part, "[%lld]", (long long)i);
            return expected(r, L, lua_gettop(L), part, "a step, from 1 and rising");
        }
        if (!add_step(&steps, step)) {
            return bptt_reader_fail(r, NULL, "loss_at: expected at most %d stretches of steps", BPTT_MAX_STRETCHES);
        }
        before = step;
        lua_pop(L, 1);
    }
    memcpy(slot(r->field, r->spec), &steps, sizeof steps);
    return BPTT_OK;
}

static void write_steps(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    const bptt_steps *steps = const_slot(field, spec);
    if (steps->kind != BPTT_STEPS_LIST) {
        (void)fprintf(out, "\"%s\"", field->words[steps->kind]);
        return;
    }
    for (int i = 0; i < steps->count; i++) {
        for (int32_t step = steps->stretches[i].first; step <= steps->stretches[i].last; step++) {
            (void)fprintf(out, "%s%d", i == 0 && step == steps->stretches[i].first ? "{" : ", ", (int)step);
        }
    }
    (void)fputc('}', out);
}

static void expect_steps(const bptt_field *field, char *text, size_t size)
{
    append_words(field->words, text, size);
    bptt_append(text, size, ", or a list of steps, like {1, 2, 5}");
}

/* One more than the id; a character is kept beyond all ids until the alphabet is known. */
static bptt_status read_token(bptt_reader *r, lua_State *L, int index)
{
    int64_t token = -1;
    size_t length = 0;
    const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &length) : "";
    const bool none = lua_isboolean(L, index) && !lua_toboolean(L, index);
    const bool id = integer_at(L, index, &token) && token >= r->field->min && token <= r->field->max;
    if (!none && !id && length != 1) { return unexpected(r, L, index); }
    if (length == 1) { token = BPTT_CHARACTERS + (unsigned char)text[0]; }
    token++;
    memcpy(slot(r->field, r->spec), &token, sizeof token);
    return BPTT_OK;
}

static void write_token(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    const int64_t token = load_integer(field, spec) - 1;
    if (token < 0) {
        (void)fputs("false", out);
    } else if (token < spec->alphabet_size) {
        write_characters(spec->alphabet + token, 1, out);
    } else {
        (void)fprintf(out, "%lld", (long long)token);
    }
}

static void expect_token(const bptt_field *field, char *text, size_t size)
{
    (void)field;
    bptt_append(text, size, "a token id below vocab, a character of the alphabet, or false");
}

/* A rule as it is read: its family and its kind. */
struct rule {
    const struct family *family;
    int kind;
};

static bool is_rate_key(const void *context, lua_State *L, int key)
{
    const struct rule *rule = context;
    int64_t index = 0;
    if (lua_type(L, key) != LUA_TSTRING) { return integer_at(L, key, &index) && index == 1; }
    for (size_t i = 0; i < rule->family->count; i++) {
        const struct rate *rate = &rule->family->rates[i];
        if (has_rate(rate, rule->kind) && bptt_word_at(L, key, (const char *[]){rate->name, NULL}) == 0) { return true; }
    }
    return false;
}

static void format_rate(const struct rate *rate, double value, char *text, size_t size)
{
    if (value == NEEDED) {
        (void)snprintf(text, size, "(required)");
    } else if (rate->type == FLAG) {
        (void)snprintf(text, size, value != 0 ? "true" : "false");
    } else if (rate->type == WHOLE) {
        (void)snprintf(text, size, "%.0f", value);
    } else {
        format_number(value, text, size);
    }
}

/* The names of a rule's rates, or each with its default. */
static void append_rates(const struct rule *rule, bool defaults, char *text, size_t size)
{
    const char *joint = "";
    for (size_t i = 0; i < rule->family->count; i++) {
        const struct rate *rate = &rule->family->rates[i];
        if (!has_rate(rate, rule->kind)) { continue; }
        bptt_append(text, size, "%s%s", joint, rate->name);
        joint = ", ";
        if (!defaults) { continue; }
        bptt_append(text, size, " = ");
        format_rate(rate, rate->fallback[rule->kind], text + strlen(text), size - strlen(text));
    }
}

static bptt_status stray_rate(bptt_reader *r, lua_State *L, const struct rule *rule)
{
    char text[512];
    size_t length = 0;
    const char *field = r->field->name, *word = r->field->words[rule->kind], *noun = rule->family->noun;
    if (lua_type(L, -1) != LUA_TSTRING) {
        bptt_describe(L, -1, text, sizeof text);
        return bptt_reader_fail(r, NULL, "%s[%s]: expected the word and named %ss only, like {\"%s\", %s}", field, text, noun,
                                word, rule->family->some);
    }
    const char *key = lua_tolstring(L, -1, &length);
    bptt_suggestion near = {key, length, NULL, 0};
    for (size_t i = 0; i < rule->family->count; i++) {
        if (has_rate(&rule->family->rates[i], rule->kind)) { bptt_suggest(&near, rule->family->rates[i].name); }
    }
    (void)snprintf(text, sizeof text, "unknown %s ", noun);
    bptt_append_quoted(text, sizeof text, '\'', key, length);
    if (near.best != NULL) {
        bptt_append(text, sizeof text, " (did you mean '%s'?)", near.best);
    } else {
        bptt_append(text, sizeof text, "; \"%s\" has ", word);
        append_rates(rule, false, text, sizeof text);
    }
    return bptt_reader_fail(r, key, "%s: %s", field, text);
}

static void expect_rate(const struct rate *rate, char *text, size_t size)
{
    if (rate->type == FLAG) {
        (void)snprintf(text, size, "true or false");
    } else if (rate->type == WHOLE) {
        (void)snprintf(text, size, "an integer from %.0f to %.0f", rate->low, rate->high);
    } else {
        (void)snprintf(text, size, "a number from %g to %.7g", rate->low, rate->high);
    }
}

static bool rate_at(lua_State *L, int index, const struct rate *rate, double *value)
{
    int64_t whole = 0;
    if (rate->type == WHOLE && !integer_at(L, index, &whole)) { return false; }
    if (rate->type != FLAG) { return number_at(L, index, rate->low, rate->high, value); }
    *value = lua_toboolean(L, index) ? 1 : 0;
    return lua_isboolean(L, index);
}

/* `table` 0: there is none, so the default. */
static bptt_status read_rate(bptt_reader *r, lua_State *L, int table, const struct rate *rate, int kind)
{
    double value = rate->fallback[kind];
    char what[128];
    if (table != 0) {
        lua_pushstring(L, rate->name);
        (void)lua_rawget(L, table);
        if (!lua_isnil(L, -1) && !rate_at(L, lua_gettop(L), rate, &value)) {
            expect_rate(rate, what, sizeof what);
            return expected(r, L, lua_gettop(L), rate->name, what);
        }
        lua_pop(L, 1);
    }
    if (value == NEEDED) {
        expect_rate(rate, what, sizeof what);
        return bptt_reader_fail(r, NULL, "%s.%s is missing: expected %s", r->field->name, rate->name, what);
    }
    memcpy((char *)slot(r->field, r->spec) + rate->offset, &value, sizeof value);
    return BPTT_OK;
}

static bptt_status read_rule(bptt_reader *r, lua_State *L, int index)
{
    int table = lua_istable(L, index) ? index : 0;
    const char *const *words = r->field->words;
    struct rule rule = {&families[r->field->kind], -1};
    if (table != 0) {
        (void)lua_rawgeti(L, table, 1);
    } else {
        lua_pushvalue(L, index);
    }
    rule.kind = bptt_word_at(L, lua_gettop(L), words);
    if (rule.kind < 0 && table != 0) {
        char what[256] = "";
        append_words(words, what, sizeof what);
        bptt_append(what, sizeof what, " first, like %s", rule.family->like);
        return expected(r, L, lua_gettop(L), "[1]", what);
    }
    if (rule.kind < 0) { return unexpected(r, L, index); }
    if (table != 0 && bptt_push_stray_key(L, table, is_rate_key, &rule)) { return stray_rate(r, L, &rule); }
    memcpy(slot(r->field, r->spec), &rule.kind, sizeof rule.kind);
    for (size_t i = 0; i < rule.family->count; i++) {
        const struct rate *rate = &rule.family->rates[i];
        const double none = 0;
        memcpy((char *)slot(r->field, r->spec) + rate->offset, &none, sizeof none);
        bptt_status status = has_rate(rate, rule.kind) ? read_rate(r, L, table, rate, rule.kind) : BPTT_OK;
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

static void write_rule(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    const struct family *family = &families[field->kind];
    const void *rule = const_slot(field, spec);
    const int kind = kind_of(rule);
    bool alone = true;
    for (size_t i = 0; i < family->count; i++) {
        alone = alone && (!has_rate(&family->rates[i], kind) || is_off(rule, &family->rates[i], kind));
    }
    (void)fprintf(out, alone ? "\"%s\"" : "{\"%s\"", field->words[kind]);
    for (size_t i = 0; i < family->count; i++) {
        const struct rate *rate = &family->rates[i];
        char text[64];
        if (!has_rate(rate, kind) || is_off(rule, rate, kind)) { continue; }
        format_rate(rate, load_rate(rule, rate), text, sizeof text);
        (void)fprintf(out, ", %s = %s", rate->name, text);
    }
    if (!alone) { (void)fputc('}', out); }
}

static void expect_rule(const bptt_field *field, char *text, size_t size)
{
    append_words(field->words, text, size);
    bptt_append(text, size, ", or one with its %ss, like %s", families[field->kind].noun, families[field->kind].like);
}

const char *bptt_spec_rate(const bptt_spec *spec, const char *name, int i, double *value)
{
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        if (strcmp(field->name, name) != 0) { continue; }
        const struct family *family = &families[field->kind];
        const void *rule = const_slot(field, spec);
        for (size_t n = 0; n < family->count; n++) {
            const struct rate *rate = &family->rates[n];
            if (!has_rate(rate, kind_of(rule)) || is_off(rule, rate, kind_of(rule)) || i-- > 0) { continue; }
            *value = load_rate(rule, rate);
            return rate->name;
        }
    }
    return NULL;
}

static bool is_word(const void *context, lua_State *L, int key)
{
    return bptt_word_at(L, key, context) >= 0;
}

static bptt_status read_dropout(bptt_reader *r, lua_State *L, int index)
{
    double p[3] = {0, 0, 0};
    const bptt_field *field = r->field;
    if (!lua_istable(L, index)) {
        if (!number_at(L, index, field->low, field->high, p)) { return unexpected(r, L, index); }
        p[1] = p[2] = p[0];
    } else if (bptt_push_stray_key(L, index, is_word, field->words)) {
        return unexpected(r, L, index);
    }
    for (int i = 0; i < 3 && lua_istable(L, index); i++) {
        (void)lua_pushstring(L, field->words[i]);
        (void)lua_rawget(L, index);
        if (!lua_isnil(L, -1) && !number_at(L, lua_gettop(L), field->low, field->high, &p[i])) {
            char what[128];
            (void)snprintf(what, sizeof what, "a number from %g to %g", field->low, field->high);
            return expected(r, L, lua_gettop(L), field->words[i], what);
        }
        lua_pop(L, 1);
    }
    *(bptt_dropout *)slot(field, r->spec) = (bptt_dropout){.input = p[0], .between = p[1], .output = p[2]};
    return BPTT_OK;
}

static void write_dropout(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    const bptt_dropout *dropout = const_slot(field, spec);
    const double p[3] = {dropout->input, dropout->between, dropout->output};
    const char *joint = "{";
    if (p[0] == p[1] && p[1] == p[2]) {
        write_number(p[0], out);
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (p[i] == 0) { continue; }
        (void)fprintf(out, "%s%s = ", joint, field->words[i]);
        write_number(p[i], out);
        joint = ", ";
    }
    (void)fputc('}', out);
}

static void expect_dropout(const bptt_field *field, char *text, size_t size)
{
    bptt_append(text, size, "a number from %g to %g, or {input = number, between = number, output = number}", field->low,
                field->high);
}

/* Pushes key and value of a table's only entry; false: it has none or several. */
static bool push_only_entry(lua_State *L, int table)
{
    lua_pushnil(L);
    if (lua_next(L, table) == 0) { return false; }
    lua_pushvalue(L, -2);
    return lua_next(L, table) == 0;
}

/* Whether the first word of a scale stands alone, without a number. */
static bool has_lone_word(const bptt_field *field)
{
    return strcmp(field->words[0], "none") == 0 || strcmp(field->words[0], "same") == 0;
}

/* clip and init lie alike: a choice, then a number. */
static bptt_status read_scale(bptt_reader *r, lua_State *L, int index)
{
    const bptt_field *field = r->field;
    bptt_clip *scale = slot(field, r->spec);
    const bool lone = has_lone_word(field), off = strcmp(field->words[0], "none") == 0 && lua_isboolean(L, index);
    if (off ? !lua_toboolean(L, index) : lone && bptt_word_at(L, index, WORDS(field->words[0])) == 0) {
        *scale = (bptt_clip){0};
        return BPTT_OK;
    }
    if (!lua_istable(L, index) || !push_only_entry(L, index)) { return unexpected(r, L, index); }
    int key = lua_gettop(L) - 1;
    int word = bptt_word_at(L, key, field->words);
    if (word < (lone ? 1 : 0)) { return unexpected(r, L, index); }
    double number = 0;
    if (!number_at(L, key + 1, field->low, field->high, &number)) {
        char what[128];
        (void)snprintf(what, sizeof what, "a number from %g to %g", field->low, field->high);
        return expected(r, L, key + 1, field->words[word], what);
    }
    *scale = (bptt_clip){(bptt_clip_kind)(word + field->min), number};
    return BPTT_OK;
}

static void write_scale(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    const bptt_clip *scale = const_slot(field, spec);
    const int64_t index = (int64_t)scale->kind - field->min;
    const char *word = field->words[index < 0 ? 0 : index];
    if (index == 0 && has_lone_word(field)) {
        (void)fprintf(out, "\"%s\"", word);
        return;
    }
    (void)fprintf(out, "{%s = ", word);
    write_number(scale->limit, out);
    (void)fputc('}', out);
}

static void expect_scale(const bptt_field *field, char *text, size_t size)
{
    for (size_t i = 0; field->words[i] != NULL; i++) {
        const char *joint = i == 0 ? "" : field->words[i + 1] == NULL ? " or " : ", ";
        bptt_append(text, size, i == 0 && has_lone_word(field) ? "%s\"%s\"" : "%s{%s = number}", joint, field->words[i]);
    }
}

static const struct kind {
    bptt_status (*read)(bptt_reader *reader, lua_State *L, int index);
    void (*write)(const bptt_field *field, const bptt_spec *spec, FILE *out);
    void (*expect)(const bptt_field *field, char *text, size_t size);
} kinds[] = {
    [BPTT_KIND_NAME] = {read_name, write_name, expect_name},
    [BPTT_KIND_CHOICE] = {read_choice, write_choice, expect_words},
    [BPTT_KIND_CELL] = {read_cell, write_cell, expect_cell},
    [BPTT_KIND_LANES] = {read_lanes, write_lanes, expect_words},
    [BPTT_KIND_INTEGER] = {read_integer, write_integer, expect_integer},
    [BPTT_KIND_SIZES] = {read_sizes, write_sizes, expect_sizes},
    [BPTT_KIND_BOOLEAN] = {read_boolean, write_boolean, expect_boolean},
    [BPTT_KIND_TOKEN] = {read_token, write_token, expect_token},
    [BPTT_KIND_VOCAB] = {read_vocab, write_vocab, expect_vocab},
    [BPTT_KIND_STEPS] = {read_steps, write_steps, expect_steps},
    [BPTT_KIND_OPTIMIZER] = {read_rule, write_rule, expect_rule},
    [BPTT_KIND_SCHEDULE] = {read_rule, write_rule, expect_rule},
    [BPTT_KIND_NUMBER] = {read_number, write_real, expect_number},
    [BPTT_KIND_DROPOUT] = {read_dropout, write_dropout, expect_dropout},
    [BPTT_KIND_SCALE] = {read_scale, write_scale, expect_scale},
};

bptt_status bptt_field_read(bptt_reader *reader, lua_State *L, int index)
{
    luaL_checkstack(L, 8, NULL);
    int top = lua_gettop(L);
    bptt_status status = kinds[reader->field->kind].read(reader, L, lua_absindex(L, index));
    lua_settop(L, top);
    return status;
}

void bptt_field_write(const bptt_field *field, const bptt_spec *spec, FILE *out)
{
    kinds[field->kind].write(field, spec, out);
}

bool bptt_field_is_default(const bptt_field *field, const bptt_spec *spec)
{
    char text[128] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    if (out == NULL) { return false; }
    bptt_field_write(field, spec, out);
    return fclose(out) == 0 && field->fallback != NULL && strcmp(text, field->fallback) == 0;
}

void bptt_field_expect(const bptt_field *field, char *text, size_t size)
{
    kinds[field->kind].expect(field, text, size);
}

void bptt_rules_help(const bptt_field *field, FILE *out)
{
    if (field->kind != BPTT_KIND_OPTIMIZER && field->kind != BPTT_KIND_SCHEDULE) { return; }
    for (int kind = 0; field->words[kind] != NULL; kind++) {
        char text[512] = "";
        append_rates(&(struct rule){&families[field->kind], kind}, true, text, sizeof text);
        (void)fprintf(out, "  {\"%s\", %s}\n", field->words[kind], text);
    }
}
