/* test_emitted.c: the emitted files in the hands of real compilers: warnings, C++, symbols, sanitizers, the example and its Makefile.
 *
 * Compilers run through runtime/backend_process.c, without a shell.  gcc must be there; clang, g++ and tcc are used where they are
 * found, and then must pass.  What the numbers must be is test_proof.c's matter.
 */
#include "../gen/compile.h"
#include "../gen/fields.h"
#include "../gen/names.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "../runtime/data.h"
#include "../runtime/generate.h"
#include "../runtime/kernels.h"
#include "scratch.h"

#include <ftw.h>
#include <math.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define EACH(i, list) for (size_t i = 0; (i) < sizeof(list) / sizeof(list)[0]; (i)++)

/* Every op of a cell: numbers, parameters as operands, whole rows, padding that must be cleared. */
#define CELL                                                                                                                     \
    "cell = function() "                                                                                                         \
    "W, W2, U, b, p = matrix(hidden, input), matrix(hidden, input), matrix(hidden, hidden), vector(hidden), vector(hidden) "     \
    "h, c, s = state(hidden), state(hidden), state(3) V, O = matrix(3, hidden), matrix(hidden, 4) "                              \
    "a = W * x + W2 * x + U * h + b + p g = sigmoid(a) * p "                                                                     \
    "c = 0.5 * c + min(g, 0.3) / (1 + abs(a)) - max(c, tanh(b)) * exp(-sqrt(abs(c) + 0.1)) + 0.1 * sqrt(a * a + c * c) "         \
    "s = softmax(V * h + concat(slice(s, 2, 3), slice(s, 1, 1))) d = b * 2 - 1 / (1 + exp(-c)) "                                 \
    "h = tanh(max(log(1 + exp(a - g)), h) + d * p + relu(c) + min(a, c)) + O * concat(s, slice(s, 1, 1)) end, "

/* Every choice of a spec at least once (test_table_is_complete), the edges of sizes among them. */
static const char *const models[] = {
    "hidden = 5, vocab = 7, T = 7, K = 3, batch = 2",
    "hidden = 16, vocab = 16, T = 1, simd = 16", /* as many bytes of state as reals of workspace */
    "hidden = 16, vocab = 16, T = 5, K = 4, simd = 16",
    "hidden = 1, vocab = 2, T = 1, simd = 1, optimizer = 'sgd', clip = 'none', init = {uniform = 0.5}, unroll = 'full'",
    "hidden = 3, vocab = 4, T = 5, K = 2, batch = 2, simd = 4, optimizer = 'momentum', clip = {value = 1}, unroll = 'full'",
    "hidden = 17, vocab = 33, T = 6, simd = 8, optimizer = 'rmsprop', init = {normal = 0.3}, unroll = 'none', carry = false",
    "hidden = 40, vocab = 65, T = 9, K = 4, batch = 5, simd = 16, optimizer = 'adam', unroll = 'time', reduction = 'sum'",
    "hidden = 9, vocab = 10, T = 8, K = 1, batch = 3, simd = 16, dtype = 'f64', activation = 'relu', init = {normal = 0.2}",
    "hidden = 6, vocab = 5, T = 6, K = 5, simd = 1, dtype = 'f64', activation = 'sigmoid', optimizer = 'adam', unroll = 'none'",
    "hidden = 8, vocab = 300, T = 4, batch = 4, simd = 8, dtype = 'f64', optimizer = 'sgd', reduction = 'sum', clip = {norm = 1}",
    "hidden = 4, vocab = 3, T = 4, K = 3, simd = 4, activation = 'relu', optimizer = 'rmsprop', carry = false, unroll = 'time'",
    "hidden = 90, vocab = 12, T = 7, K = 3, batch = 5, threads = 3, optimizer = 'adam', simd = 8, unroll = 'time'",
    "hidden = 90, vocab = 5, T = 2, K = 1, batch = 2, optimizer = 'sgd'",
    "hidden = 90, vocab = 5, T = 4, K = 2, batch = 2, optimizer = 'sgd', unroll = 'time'",
    "hidden = 90, vocab = 5, T = 4, K = 2, batch = 3, threads = 2, unroll = 'time', optimizer = {'adagrad', rate = 0.01}",
    "hidden = 4, vocab = 4, T = 2, reduction = 'sum', unroll = 'full'",
    "hidden = 9, vocab = 33, T = 5, batch = 2, threads = 2, dtype = 'f64', unroll = 'none', reduction = 'sum', carry = false",
    "hidden = 7, vocab = 9, T = 4, K = 2, batch = 2, threads = 2, carry = false, optimizer = 'adamw', unroll = 'time'",
    "hidden = 3, vocab = 4, T = 2, optimizer = {'momentum', nesterov = true, weight_decay = 0.1}, unroll = 'full'",
    "hidden = 7, vocab = 9, T = 4, K = 2, optimizer = {'adagrad', weight_decay = 0.1}, unroll = 'none'",
    "hidden = 7, vocab = 9, T = 4, K = 2, schedule = {'plateau', factor = 0.5, warmup = 3}, threads = 2, batch = 2, unroll = "
    "'time'",
    "hidden = 7, vocab = 9, T = 4, schedule = {'cosine', steps = 10, floor = 0.1, warmup = 3}, optimizer = 'adamw', simd = 16",
    "hidden = 3, vocab = 4, T = 4, schedule = {'exponential', factor = 0.99}, optimizer = 'adam', unroll = 'full'",
    "hidden = 3, vocab = 4, T = 4, schedule = {'step', every = 5}, dtype = 'f64', unroll = 'none'",
    "hidden = 4, vocab = 4, T = 2, simd = 1, unroll = 'time'", /* fewer weights than a run of their squares */
    "hidden = 3, vocab = 4, T = 4, schedule = {'constant', warmup = 5}, dtype = 'f64', unroll = 'none'",
    CELL "hidden = 5, vocab = 7, T = 7, K = 3, batch = 2",
    CELL "hidden = 16, vocab = 9, T = 5, K = 4, simd = 16, optimizer = 'adam'",
    CELL "hidden = 6, vocab = 4, T = 3, K = 2, batch = 2, simd = 8, unroll = 'full', optimizer = 'sgd'",
    CELL "hidden = 9, vocab = 5, T = 4, K = 2, batch = 3, threads = 2, simd = 8, dtype = 'f64', unroll = 'none'",
    CELL "hidden = 3, vocab = 5, T = 4, K = 2, batch = 3, threads = 3, simd = 4, unroll = 'time', reduction = 'sum'",
    CELL "hidden = 4, vocab = 5, T = 3, simd = 1, dtype = 'f64'",
    "hidden = 7, vocab = 9, T = 4, K = 3, update = 'sequence', threads = 2, batch = 2, unroll = 'time'",
    "hidden = 3, vocab = 4, T = 4, K = 3, accumulate = 2, update = 'sequence', reduction = 'sum', unroll = 'full'",
    "hidden = 90, vocab = 12, T = 4, K = 3, accumulate = 5, batch = 3, clip = {value = 1}, unroll = 'none'",
    "hidden = 7, vocab = 9, T = 4, activation = 'identity', layers = 2, optimizer = {'adam', rate = 0.01}",
    "hidden = 7, vocab = 9, T = 4, K = 3, cell = 'gru', batch = 3, threads = 2, layers = 2",
    "hidden = {9, 5}, vocab = 9, T = 4, cell = 'lstm', batch = 2, simd = 4",
    "hidden = 4, vocab = 5, T = 3, cell = 'lstm', unroll = 'full', simd = 4",
    "hidden = 7, vocab = 9, T = 4, init = {xavier = 1}, init_recurrent = {orthogonal = 1}, unroll = 'time'",
    "hidden = 4, vocab = 3, T = 4, init = {orthogonal = 0.5}, init_recurrent = {identity = 1}, dtype = 'f64', unroll = 'full'",
    "hidden = 4, vocab = 3, T = 2, init = {identity = 1}, forget_bias = 0.5",
    "hidden = 5, inputs = 3, outputs = 2, T = 7, K = 3, batch = 2",
    "hidden = 9, inputs = 1, outputs = 17, T = 5, batch = 3, threads = 2, output_activation = 'tanh', loss_at = {1, 4, 5}, simd "
    "= 4",
    "hidden = 4, inputs = 5, outputs = 1, T = 4, K = 3, unroll = 'full', loss = 'binary_cross_entropy', loss_at = 'last'",
    "hidden = 6, inputs = 4, vocab = 5, T = 6, K = 2, unroll = 'none', reduction = 'sum', dtype = 'f64', carry = false",
    "hidden = 6, vocab = 7, embedding = 6, tie = true, smoothing = 0.1, T = 6, K = 4, batch = 2, threads = 2",
    "hidden = 3, vocab = 7, embedding = 3, tie = true, smoothing = 0.1, T = 3, unroll = 'full', batch = 2, simd = 4",
    "hidden = 6, vocab = 7, embedding = 3, outputs = 3, T = 6, K = 4, output_activation = 'sigmoid', simd = 8",
    "hidden = 12, vocab = 9, T = 6, K = 2, batch = 2, loss_at = 'last', smoothing = 0.2",
    "hidden = 5, vocab = 7, T = 7, K = 3, batch = 2, h0 = 'learned', carry = false, unroll = 'full'",
    "hidden = 9, vocab = 7, T = 7, K = 3, batch = 3, threads = 2, h0 = 'learned', resets = true, cell = 'gru', layers = 2",
    "hidden = 9, inputs = 3, outputs = 2, T = 7, K = 2, resets = true, cell = 'lstm', unroll = 'none', dtype = 'f64'",
    "hidden = 6, vocab = 7, T = 6, batch = 2, h0 = 'given', carry = false, cell = 'lstm'",
    "hidden = 9, inputs = 3, outputs = 2, T = 7, K = 2, batch = 3, threads = 3, dropout = 0.125, layers = 2, unroll = 'none'",
    "hidden = 9, vocab = 7, T = 6, K = 3, batch = 3, threads = 2, layers = 2, dropout = 0.25, loss_at = 'last', accumulate = 2",
    "hidden = 5, vocab = 7, embedding = 4, T = 5, K = 2, dropout = {input = 0.1, output = 0.1}, accumulate = 2, unroll = 'full'",
    "hidden = 7, vocab = 9, T = 7, K = 5, truncation = 'block', stride = 2, batch = 2, unroll = 'time'",
    "hidden = 90, vocab = 9, T = 6, K = 4, truncation = 'block', stride = 4, carry = false, optimizer = 'adam', unroll = 'none'",
    "hidden = 5, vocab = 9, T = 4, K = 1, truncation = 'block', stride = 1, dtype = 'f64', update = 'sequence'",
    "hidden = 7, vocab = 9, T = 7, K = 3, truncation = 'uniform', batch = 2, unroll = 'time'",
    "hidden = 90, vocab = 9, T = 6, K = 6, truncation = 'uniform', dtype = 'f64', optimizer = 'adam', unroll = 'none'",
    "hidden = 5, vocab = 9, T = 4, K = 1, truncation = 'uniform', reduction = 'sum', carry = false",
    "hidden = 7, vocab = 9, T = 7, K = 5, truncation = 'block', stride = 2, batch = 3, threads = 2, h0 = 'learned', resets = "
    "true, "
    "dropout = 0.25, layers = 2, unroll = 'time'",
    "hidden = 9, inputs = 3, outputs = 2, T = 7, K = 5, truncation = 'block', stride = 3, batch = 2, h0 = 'given', carry = "
    "false, "
    "dropout = 0.25, unroll = 'none', cell = 'gru', loss_at = {2, 7}, update = 'sequence', dtype = 'f64'",
    "hidden = 6, vocab = 9, embedding = 3, T = 9, K = 5, truncation = 'block', stride = 4, batch = 3, threads = 3, "
    "cell = 'lstm', dropout = {input = 0.25}, unroll = 'none', loss_at = 'last'",
    "hidden = 7, vocab = 9, T = 7, K = 3, truncation = 'uniform', batch = 3, threads = 2, h0 = 'learned', resets = true, "
    "dropout = 0.25, layers = 2, unroll = 'time'",
    "hidden = 9, inputs = 3, outputs = 2, T = 6, K = 1, truncation = 'uniform', batch = 3, threads = 3, resets = true, "
    "dropout = 0.25, unroll = 'none', cell = 'lstm', loss_at = {2, 6}",
    "hidden = 6, vocab = 9, embedding = 3, T = 5, K = 4, truncation = 'uniform', batch = 2, h0 = 'given', carry = false, "
    "cell = 'gru', dropout = {input = 0.25}, unroll = 'none'",
    "hidden = 3, vocab = 4, T = 6, K = 4, truncation = 'block', stride = 3, h0 = 'learned', resets = true, dropout = 0.25, "
    "unroll = 'full'",
    "hidden = 3, vocab = 4, T = 5, K = 3, truncation = 'uniform', resets = true, dropout = 0.25, cell = 'gru', unroll = 'full', "
    "simd = 4",
    CELL "hidden = 6, vocab = 9, T = 6, K = 4, truncation = 'block', stride = 3, batch = 2",
    CELL "hidden = 6, vocab = 9, T = 6, K = 4, truncation = 'uniform', batch = 2, unroll = 'none'",
    "hidden = 2, vocab = 70000, T = 3, K = 2, batch = 2, activation = 'sigmoid', optimizer = 'momentum', clip = {value = 5}",
    "hidden = 8, vocab = 40, T = 4, optimizer = 'sgd', clip = {value = 1}, unroll = 'time'",
    /* the second product with W wants the name of the one with W_2 */
    "hidden = 5, inputs = 3, outputs = 2, T = 4, batch = 2, unroll = 'time', cell = function() "
    "W_2, W, b, h = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), state(hidden) "
    "a = W_2 * x + W * h + b c = tanh(a) h = tanh(W * c) end",
};
enum { MODELS = sizeof models / sizeof models[0] };

static char *old_path;
static char folder[300]; /* of this test */

/* --- files and programs ------------------------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(old_path);
}

static void open_all(void)
{
    scratch_open();
    const char *path = getenv("PATH");
    old_path = strdup(path != NULL ? path : "/usr/bin:/bin");
    ck_assert_ptr_nonnull(old_path);
    ck_assert_int_eq(unsetenv("MAKEFLAGS"), 0); /* of the make that runs the tests */
}

static void fresh_folder(void)
{
    (void)snprintf(folder, sizeof folder, "%s/XXXXXX", scratch_folder);
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

/* Path of a file in the test's folder; good until the eighth call after it. */
static char *in_folder(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text)
{
    scratch_put(in_folder(name), text, strlen(text));
}

/* Path of a program, or NULL; kept for as long as the test runs. */
static char *find(const char *program)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    for (const char *from = old_path; *from != '\0'; from += strspn(from, ":")) {
        const int length = (int)strcspn(from, ":");
        (void)snprintf(path, sizeof paths[0], "%.*s/%s", length, from, program);
        if (access(path, X_OK) == 0) { return path; }
        from += length;
    }
    printf("%s: not found\n", program);
    return NULL;
}

/* Runs a program and returns its exit status; what it writes goes to `output`. */
static char output[1 << 14];

static int run(char *const *argv)
{
    static bptt_process process;
    bptt_error error = {""};
    ck_assert_msg(bptt_process_start(&process, argv, folder, 120e3, false, &error) == BPTT_OK, "%s", error.text);
    ck_assert(bptt_process_wait(&process, 130e3));
    ck_assert_msg(!process.late && WIFEXITED(process.status), "%s: %.900s", argv[0], process.text);
    (void)snprintf(output, sizeof output, "%s", process.text);
    return WEXITSTATUS(process.status);
}

/* Runs a compiler: flags, one string with single blanks between them, then the other arguments as they are; no message allowed. */
static void compile(char *compiler, const char *flags, char *const *arguments)
{
    char words[512], *argv[48] = {compiler}, *rest = words;
    size_t count = 1;
    ck_assert_int_lt(snprintf(words, sizeof words, "%s", flags), (int)sizeof words);
    for (char *word = strsep(&rest, " "); word != NULL; word = strsep(&rest, " ")) { argv[count++] = word; }
    while (*arguments != NULL) { argv[count++] = *arguments++; }
    ck_assert_uint_lt(count, sizeof argv / sizeof argv[0]);
    const int status = run(argv);
    ck_assert_msg(status == 0 && output[0] == '\0', "%s %s: status %d\n%.1500s", compiler, flags, status, output);
}

#define COMPILE(compiler, flags, ...) compile(compiler, flags, (char *[]){__VA_ARGS__, NULL})
#define RUN(...)                      run((char *[]){__VA_ARGS__, NULL})

#define STRICT     "-std=c99 -Wall -Wextra -pedantic -Wconversion -Werror"
#define STRICT_CXX "-std=c++11 -Wall -Wextra -Wconversion -pedantic -Werror"

/* --- specs and what is emitted -------------------------------------------------------------------------------------------------- */

static bptt_spec spec_of(const char *name, const char *fields)
{
    char text[1500];
    bptt_spec spec;
    bptt_error error = {""};
    const int length = snprintf(text, sizeof text, "return {name = '%s', %s}", name, fields);
    ck_assert_int_lt(length, (int)sizeof text);
    ck_assert_msg(bptt_spec_parse(text, (size_t)length, "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

static bptt_unit unit_of(const char *name, const char *fields)
{
    bptt_spec spec = spec_of(name, fields);
    bptt_unit unit;
    bptt_error error = {""};
    ck_assert_msg(bptt_compile_here(&spec, &unit, &error) == BPTT_OK, "%s: %s", fields, error.text);
    bptt_spec_free(&spec);
    return unit;
}

/* Writes the four files of `bptt gen`. */
static void emit(const char *name, const char *fields)
{
    bptt_unit unit = unit_of(name, fields);
    char file[64];
    (void)snprintf(file, sizeof file, "%s.h", name);
    put(file, unit.header);
    (void)snprintf(file, sizeof file, "%s.c", name);
    put(file, unit.source);
    (void)snprintf(file, sizeof file, "%s_main.c", name);
    put(file, unit.example);
    put("Makefile", unit.makefile);
    bptt_unit_free(&unit);
}

START_TEST(test_table_is_complete)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {{"optimizer", offsetof(bptt_spec, optimizer.kind)},
                  {"clip", offsetof(bptt_spec, clip.kind)},
                  {"init", offsetof(bptt_spec, init.kind)},
                  {"reduction", offsetof(bptt_spec, reduction)},
                  {"dtype", offsetof(bptt_spec, dtype)},
                  {"activation", offsetof(bptt_spec, activation)},
                  {"unroll", offsetof(bptt_spec, unroll)},
                  {"cell", offsetof(bptt_spec, cell)},
                  {"loss", offsetof(bptt_spec, loss)},
                  {"h0", offsetof(bptt_spec, h0)},
                  {"output_activation", offsetof(bptt_spec, output_activation)}};
    unsigned seen[sizeof fields / sizeof fields[0]] = {0}, widths = 0, carry = 0;
    EACH(i, models)
    {
        bptt_spec spec = spec_of("net", models[i]);
        EACH(k, fields)
        {
            int value;
            memcpy(&value, (const char *)&spec + fields[k].offset, sizeof value);
            seen[k] |= 1u << value;
        }
        widths |= 1u << spec.simd;
        carry |= 1u << spec.carry;
        bptt_spec_free(&spec);
    }
    EACH(k, fields)
    {
        for (int value = 0; bptt_spec_word(fields[k].name, value) != NULL; value++) {
            ck_assert_msg(seen[k] >> value & 1, "no model with %s = %s", fields[k].name, bptt_spec_word(fields[k].name, value));
        }
        ck_assert_uint_ne(seen[k], 0);
    }
    ck_assert_uint_eq(widths, 1u << 0 | 1u << 1 | 1u << 4 | 1u << 8 | 1u << 16);
    ck_assert_uint_eq(carry, 3);
}
END_TEST

/* --- the text ------------------------------------------------------------------------------------------------------------------- */

/* Every line that begins with #include names one of these. */
static void check_includes(const char *text)
{
    static const char *const allowed[] = {"<stdint.h>", "<stddef.h>", "<string.h>", "<math.h>", "\"net.h\""};
    for (const char *at = strstr(text, "#include"); at != NULL; at = strstr(at, "#include")) {
        bool found = false;
        at += strlen("#include ");
        EACH(i, allowed)
        {
            found = found || strncmp(at, allowed[i], strlen(allowed[i])) == 0;
        }
        ck_assert_msg(found, "#include %.30s", at);
    }
}

START_TEST(test_text_needs_little)
{
    static const char *const refused[] = {"alloc(", "free(", "printf",   "FILE", "errno", "exit(",
                                          "abort(", "goto ", "__DATE__", "/tmp", "/home", "long double"};
    EACH(i, models)
    {
        bptt_unit unit = unit_of("net", models[i]), again = unit_of("net", models[i]);
        check_includes(unit.header);
        check_includes(unit.source);
        EACH(k, refused)
        {
            ck_assert_msg(strstr(unit.header, refused[k]) == NULL, "%s in the header", refused[k]);
            ck_assert_msg(strstr(unit.source, refused[k]) == NULL, "%s in the source", refused[k]);
        }
        ck_assert_ptr_nonnull(strstr(unit.source, "typedef char net_size_is_as_planned[sizeof(net) == "));
        ck_assert_str_eq(unit.header, again.header);
        ck_assert_str_eq(unit.source, again.source);
        ck_assert_str_eq(unit.example, again.example);
        ck_assert_str_eq(unit.makefile, again.makefile);
        bptt_unit_free(&unit);
        bptt_unit_free(&again);
    }
}
END_TEST

/* --- names ---------------------------------------------------------------------------------------------------------------------- */

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"

static void assert_taken(const char *word, size_t length, const char *own)
{
    if (length >= strlen(own) && strncasecmp(word, own, strlen(own)) == 0) { return; }
    ck_assert_msg(bptt_name_fault(word, length) != NULL, "a model may be called %.*s: %.60s", (int)length, word, word);
}

/* A copy without comments, strings and directives, each as long as it was; macros have names that are taken.  Free it. */
static char *bare_text(const char *text, const char *own)
{
    char *copy = strdup(text);
    ck_assert_ptr_nonnull(copy);
    for (char *c = copy; *c != '\0'; c++) {
        char *end = c;
        if (strncmp(c, "extern \"C\" {", 12) == 0) {
            end = c + 12;
        } else if (strncmp(c, "/*", 2) == 0) {
            end = strstr(c, "*/") + 2;
        } else if (*c == '"' || *c == '\'') {
            for (end = c + 1; *end != *c; end++) { end += *end == '\\'; }
            end++;
        } else if (*c == '#') {
            if (strncmp(c, "#define ", 8) == 0) { assert_taken(c + 8, strspn(c + 8, LETTERS "0123456789"), own); }
            for (end = c; *end != '\n' || end[-1] == '\\'; end++) {}
        }
        if (end > c) { memset(c, ' ', (size_t)(end - c)); }
    }
    return copy;
}

/* The next identifier from `c` on, before `end`; NULL: none.  Members of structs are none. */
static const char *next_word(const char *c, const char *end, size_t *length)
{
    while (c < end) {
        const bool member = *c == '.' || strncmp(c, "->", 2) == 0;
        c += member ? strspn(c, ".->") : 0;
        *length = strspn(c, LETTERS "0123456789");
        if (!member && *length > 0 && strchr(LETTERS, *c) != NULL) { return c; }
        c += *length > 0 ? *length : 1;
    }
    return NULL;
}

static void assert_all_taken(const char *from, const char *to, const char *own)
{
    size_t length = 0;
    for (const char *c = next_word(from, to, &length); c != NULL; c = next_word(c + length, to, &length)) {
        assert_taken(c, length, own);
    }
}

/* Where `own` is the last time between two places; NULL: nowhere. */
static const char *last_use(const char *from, const char *to, const char *own)
{
    size_t length = 0;
    const char *last = NULL;
    for (const char *c = next_word(from, to, &length); c != NULL; c = next_word(c + length, to, &length)) {
        if (length == strlen(own) && memcmp(c, own, length) == 0) { last = c; }
    }
    return last;
}

/* Nobody may give a model a name that the text declares for a whole file, or in a function before it uses the model's type. */
static void check_taken(const char *text, const char *own)
{
    char *copy = bare_text(text, own);
    const char *start = copy, *open = copy;
    int depth = 0;
    for (const char *c = copy; *c != '\0'; c++) {
        if (*c == '{' && depth++ == 0) { open = c; }
        if (*c == '}' && depth > 0) { depth--; }
        if (depth > 0 || (*c != '}' && *c != ';')) { continue; }
        const bool block = *c == '}' && open >= start; /* else the end of extern "C" */
        const char *head = block ? open : c, *bracket = memchr(start, '(', (size_t)(head - start));
        assert_all_taken(start, bracket != NULL ? bracket : head, own);
        const char *use = block && bracket != NULL ? last_use(open, c, own) : NULL;
        if (use != NULL) { assert_all_taken(start, use, own); }
        if (block && strncmp(start + strspn(start, " \n"), "enum ", 5) == 0) { assert_all_taken(open, c, own); }
        start = c + 1;
    }
    free(copy);
}

START_TEST(test_names_are_taken)
{
    EACH(i, models)
    {
        bptt_unit unit = unit_of("net", models[i]);
        check_taken(unit.header, "net");
        check_taken(unit.source, "net");
        check_taken(unit.example, "net");
        bptt_unit_free(&unit);
    }
}
END_TEST

static const char *const c_compilers[] = {"gcc", "clang"};

/* A C compiler of the table; NULL where one that need not be there is not. */
static char *c_compiler(int i)
{
    char *compiler = find(c_compilers[i]);
    ck_assert(compiler != NULL || i > 0);
    return compiler;
}

/* A spec whose cell has eight names of the text's own: two matrices, a vector, a state, a matrix, two values and the first state. */
static void compile_names(char *compiler, const char *fields, char *const *names)
{
    static const char *const places = "ABCDEFGH";
    static const char cell[] =
        "cell = function() H, D = state(hidden), state(hidden) "
        "A, B, C, E = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), matrix(hidden, hidden) "
        "F = A * x + B * H + C + D G = sigmoid(F) D = tanh(E * G) H = tanh(F) * G + D end, ";
    char text[1500] = "", *to = text;
    for (const char *c = cell; *c != '\0'; c++) {
        const char *place = strchr(places, *c);
        to += snprintf(to, sizeof text - (size_t)(to - text), "%.*s", place != NULL ? 40 : 1,
                       place != NULL ? names[place - places] : c);
    }
    (void)snprintf(to, sizeof text - (size_t)(to - text), "%s", fields);
    emit("net", text);
    COMPILE(compiler, STRICT " -fsyntax-only", in_folder("net.c"));
}

/* Adds the words of a text to `words`, each once, unless the equations of a cell have another use for them. */
static size_t collect_words(const char *text, char (*words)[64], size_t count, size_t room)
{
    static const char used[] = " x hidden input net NET and end for if in true while break do else return goto tanh exp log sqrt "
                               "max min abs sigmoid softmax cross_entropy state W_hy b_y o ";
    char spaced[66];
    size_t length = 0;
    const char *const end = text + strlen(text);
    for (const char *c = next_word(text, end, &length); c != NULL; c = next_word(c + length, end, &length)) {
        (void)snprintf(spaced, sizeof spaced, " %.*s ", (int)length, c);
        bool known = length > 21 || *c == '_' || strstr(used, spaced) != NULL || strncasecmp(c, "net_", 4) == 0;
        for (size_t i = 0; i < count && !known; i++) { known = strlen(words[i]) == length && memcmp(words[i], c, length) == 0; }
        if (known) { continue; }
        ck_assert_uint_lt(count, room);
        (void)snprintf(words[count++], sizeof *words, "%.*s", (int)length, c);
    }
    return count;
}

START_TEST(test_values_may_have_any_name)
{
    static const char *const ways[] = {
        "hidden = 5, vocab = 7, T = 5, K = 3, batch = 2, truncation = 'block', stride = 2, dropout = 0.25, unroll = 'none'",
        "hidden = 5, vocab = 7, T = 5, K = 3, batch = 3, threads = 2, resets = true, h0 = 'learned', unroll = 'time', loss_at = "
        "{2}",
        "hidden = 3, vocab = 4, T = 3, unroll = 'full'",
        "hidden = 5, inputs = 2, outputs = 3, T = 5, K = 3, truncation = 'uniform', carry = false, unroll = 'none'",
    };
    static const char of_c[] =
        "asm typeof unix linux typedef unsigned const inline restrict bptt bptt_add NAN carry_state window";
    enum { ROOM = 1000, NAMES = 8 };
    static char words[ROOM][64];
    bptt_unit unit = unit_of("net", ways[_i]);
    const char *own = strstr(unit.source, "/* --- the steps of the network");
    ck_assert_ptr_nonnull(own);
    char *copy = bare_text(own, "net");
    size_t count = collect_words(of_c, words, collect_words(copy, words, 0, ROOM), ROOM);
    ck_assert_uint_gt(count, 100);
    for (; count % NAMES != 0; count++) { (void)snprintf(words[count], sizeof *words, "more%zu", count % NAMES); }
    char *compiler = c_compiler(0);
    for (size_t i = 0; i < count; i += NAMES) {
        char *names[NAMES];
        for (size_t n = 0; n < NAMES; n++) { names[n] = words[i + (n + (size_t)_i * 2) % NAMES]; }
        compile_names(compiler, ways[_i], names);
    }
    free(copy);
    bptt_unit_free(&unit);
}
END_TEST

/* --- warnings ------------------------------------------------------------------------------------------------------------------- */

static void compile_model(char *compiler, const char *flags)
{
    COMPILE(compiler, flags, "-o", in_folder("net.o"), in_folder("net.c"));
    COMPILE(compiler, flags, "-o", in_folder("net_main.o"), in_folder("net_main.c"));
}

START_TEST(test_no_warning)
{
    char *compiler = c_compiler(_i);
    for (size_t i = 0; i < MODELS && compiler != NULL; i++) {
        emit("net", models[i]);
        compile_model(compiler, STRICT " -O0 -c");
        if (i == 0 || i == 2 || i == 4) {
            compile_model(compiler, STRICT " -O2 -c");
            compile_model(compiler, STRICT " -O3 -march=native -c");
        }
    }
}
END_TEST

/* The header alone, first in a C++ file. */
START_TEST(test_header_in_cxx)
{
    static const char *const compilers[] = {"g++", "clang++"};
    char *compiler = find(compilers[_i]);
    put("unit.cc", "#include \"net.h\"\nstatic_assert(NET_HIDDEN > 0 && sizeof(net) > sizeof(net_real), \"\");\n");
    for (size_t i = 0; i < MODELS && compiler != NULL; i++) {
        emit("net", models[i]);
        COMPILE(compiler, STRICT_CXX " -fsyntax-only", in_folder("unit.cc"));
    }
}
END_TEST

/* --- programs -------------------------------------------------------------------------------------------------------------------- */

/* Uses every function of a model called net, in C99 and C++11: prints some results, fails when it does not learn. */
static const char consumer[] =
    "#include \"net.h\"\n"
    "#include <math.h>\n"
    "#include <stdio.h>\n"
    "#ifdef NET_STRIDE\n"
    "enum { CHUNK = NET_STRIDE * NET_BATCH };\n"
    "#else\n"
    "enum { CHUNK = NET_HORIZON * NET_BATCH };\n"
    "#endif\n"
    "enum { ROWS = NET_STEPS * NET_BATCH };\n"
    "static net model;\n"
    "#ifdef NET_INPUTS\n"
    "static net_real in[ROWS][NET_INPUTS];\n"
    "#define IN(row) in[row]\n"
    "#else\n"
    "static net_token in[ROWS];\n"
    "#define IN(row) (in + (row))\n"
    "#endif\n"
    "#ifdef NET_TARGETS\n"
    "enum { WIDTH = NET_TARGETS };\n"
    "static net_real out[ROWS][NET_TARGETS];\n"
    "#define OUT(row) out[row]\n"
    "#else\n"
    "enum { WIDTH = NET_VOCAB };\n"
    "static net_token out[ROWS];\n"
    "#define OUT(row) (out + (row))\n"
    "#endif\n"
    "static net_real p[NET_BATCH * WIDTH];\n"
    "#ifdef NET_RESETS\n"
    "static uint8_t reset[ROWS];\n"
    "#define RESET(row) , (row) % 2 == 0 ? reset + (row) : 0\n"
    "#else\n"
    "#define RESET(row)\n"
    "#endif\n"
    "int main(void)\n"
    "{\n"
    "    double first = 0, last = 0, sum = 0;\n"
    "    for (unsigned i = 0; i < ROWS; i++) {\n"
    "#ifdef NET_INPUTS\n"
    "        for (unsigned j = 0; j < NET_INPUTS; j++) { in[i][j] = (net_real)((i + 2 * j) % 7) / 7; }\n"
    "#else\n"
    "        in[i] = (i * i + i / 3) % NET_VOCAB;\n"
    "#endif\n"
    "#ifdef NET_TARGETS\n"
    "        for (unsigned j = 0; j < NET_TARGETS; j++) {\n"
    "            out[i][j] = (i + j) % 5 == 4 ? (net_real)NAN : (net_real)((i * 3 + j) % 4) / 8;\n"
    "        }\n"
    "#else\n"
    "        out[i] = i % 5 == 4 ? NET_VOCAB : (i * i + i / 3 + 1) % NET_VOCAB;\n"
    "#endif\n"
    "    }\n"
    "#ifdef NET_RESETS\n"
    "    for (int i = 0; i < ROWS; i++) { reset[i] = i % 5 == 2; }\n"
    "#endif\n"
    "    net_init(&model, NET_SEED);\n"
    "    net_refresh(&model);\n"
    "    for (int i = 0; i < 25; i++) {\n"
    "        last = net_train(&model, IN(0), OUT(0) RESET(0));\n"
    "        if (i == 0) { first = last; }\n"
    "    }\n"
    "    net_reset(&model);\n"
    "    printf(\"%.12g %.12g\", first, last);\n"
    "    for (unsigned chunk = 0; chunk < NET_CHUNKS; chunk++) {\n"
    "        const double loss = net_loss(&model, IN(chunk * CHUNK), OUT(chunk * CHUNK) RESET(chunk * CHUNK), chunk);\n"
    "        const double before = net_gradient(&model, IN(chunk * CHUNK), OUT(chunk * CHUNK) RESET(chunk * CHUNK), chunk);\n"
    "        printf(\" %.12g %.12g %.12g\", loss, before, net_update(&model));\n"
    "    }\n"
    "#ifdef NET_START\n"
    "    static net_real h0[NET_START];\n"
    "    for (int i = 0; i < NET_START; i++) { h0[i] = (net_real)i / NET_START; }\n"
    "    net_start(&model, h0);\n"
    "    for (int i = 0; i < NET_START; i++) { /* the rows are there, in the order of the states */\n"
    "        const int state = i / (NET_BATCH * NET_HIDDEN), row = i / NET_HIDDEN % NET_BATCH;\n"
    "        const bptt_tensor *const s = &net_model.states[state];\n"
    "        const net_real *const at = (const net_real *)(const void *)((const char *)&model + net_model.state);\n"
    "        if (at[s->offset + (size_t)row * s->stride + (size_t)(i % NET_HIDDEN)] < h0[i]) { return 2; }\n"
    "        if (at[s->offset + (size_t)row * s->stride + (size_t)(i % NET_HIDDEN)] > h0[i]) { return 2; }\n"
    "    }\n"
    "#endif\n"
    "    net_predict(&model, IN(0) RESET(0), p);\n"
    "    for (int i = 0; i < NET_BATCH * WIDTH; i++) { sum += (double)p[i]; }\n"
    "    printf(\" %.12g %.12g\\n\", (double)p[NET_BATCH * WIDTH - 1], sum);\n"
    "#ifdef NET_TARGETS\n"
    "    return last < first && sum - sum == 0 ? 0 : 1;\n"
    "#else\n"
    "    return last < first && sum > 0.999 * NET_BATCH && sum < 1.001 * NET_BATCH ? 0 : 1;\n"
    "#endif\n"
    "}\n";

/* Compiles and runs the consumer of the model `source` in the folder; what it printed is in `output`. */
static void train_with(char *compiler, const char *flags, const char *source)
{
    COMPILE(compiler, flags, "-o", in_folder("consumer"), in_folder("consumer.c"), in_folder(source), "-lm");
    const int status = RUN(in_folder("consumer"));
    ck_assert_msg(status == 0, "%s %s: status %d: %.900s", compiler, flags, status, output);
}

START_TEST(test_cxx_program)
{
    char *gcc = find("gcc"), *cxx = find("g++");
    ck_assert_ptr_nonnull(gcc);
    put("consumer.c", consumer);
    for (size_t i = 0; i < MODELS && cxx != NULL; i += 4) {
        emit("net", models[i]);
        COMPILE(gcc, STRICT " -O1 -c", "-o", in_folder("net.o"), in_folder("net.c"));
        COMPILE(cxx, STRICT_CXX " -O1 -c -x c++", "-o", in_folder("consumer.o"), in_folder("consumer.c"));
        COMPILE(cxx, "-o", in_folder("consumer"), in_folder("consumer.o"), in_folder("net.o"), "-lm");
        ck_assert_int_eq(RUN(in_folder("consumer")), 0);
    }
}
END_TEST

/* Two models in one file of a program, f32 and f64. */
START_TEST(test_two_models)
{
    static const char text[] =
        "#include \"small.h\"\n"
        "#include \"wide.h\"\n"
        "static small a;\n"
        "static wide b;\n"
        "int main(void)\n"
        "{\n"
        "    static const uint32_t x[8] = {0, 1, 2, 3, 0, 1, 2, 3}, y[8] = {1, 2, 3, 0, 1, 2, 3, 0};\n"
        "    const bptt_model *const models[] = {&small_model, &wide_model};\n"
        "    small_init(&a, 1);\n"
        "    wide_init(&b, 1);\n"
        "    const double a0 = small_train(&a, x, y), b0 = wide_train(&b, x, y);\n"
        "    double a1 = a0, b1 = b0;\n"
        "    for (int i = 0; i < 40; i++) {\n"
        "        a1 = small_train(&a, x, y);\n"
        "        b1 = wide_train(&b, x, y);\n"
        "    }\n"
        "    return a1 < a0 / 2 && b1 < b0 / 2 && models[0]->real_size == 4 && models[1]->real_size == 8 ? 0 : 1;\n"
        "}\n";
    char *compiler = c_compiler(_i);
    if (compiler == NULL) { return; }
    put("two.c", text);
    emit("small", "hidden = 6, vocab = 4, T = 8, K = 3");
    emit("wide", "hidden = 20, vocab = 4, T = 4, batch = 2, dtype = 'f64', optimizer = {'adam', rate = 0.03}");
    COMPILE(compiler, STRICT " -O1", "-o", in_folder("two"), in_folder("two.c"), in_folder("small.c"), in_folder("wide.c"),
            "-lm");
    ck_assert_int_eq(RUN(in_folder("two")), 0);
}
END_TEST

/* NAME_train adds up and updates as a caller who reads the header would. */
START_TEST(test_train_adds_up)
{
    static const char text[] =
        "#include \"sum.h\"\n"
        "#include <string.h>\n"
        "static sum a, b;\n"
        "int main(void)\n"
        "{\n"
        "    static const uint32_t x[8] = {0, 1, 2, 3, 0, 1, 2, 3}, y[8] = {1, 2, 9, 0, 1, 2, 3, 0};\n"
        "    int updates = 0, units = 0;\n"
        "    sum_init(&a, 1);\n"
        "    sum_init(&b, 1);\n"
        "    for (int i = 0; i < 5; i++) {\n"
        "        (void)sum_train(&a, x, y);\n"
        "        for (uint32_t chunk = 0; chunk < SUM_CHUNKS; chunk++) {\n"
        "            (void)sum_gradient(&b, x + 3 * chunk, y + 3 * chunk, chunk);\n"
        "            if (!sum_model.whole_sequence || chunk + 1 == SUM_CHUNKS) { units++; }\n"
        "            if (units < (int)sum_model.accumulate) { continue; }\n"
        "            (void)sum_update(&b);\n"
        "            units = 0;\n"
        "            updates++;\n"
        "        }\n"
        "    }\n"
        "    return memcmp(a.param, b.param, sizeof a.param) == 0 && a.progress[0] == updates ? updates : 99;\n"
        "}\n";
    static const struct {
        const char *rule;
        int updates; /* of 15 chunks, 5 sequences */
    } cases[] = {
        {"accumulate = 2", 7}, {"update = 'sequence'", 5}, {"update = 'sequence', accumulate = 2, reduction = 'sum'", 2}};
    char *compiler = c_compiler(_i);
    if (compiler == NULL) { return; }
    put("sum_test.c", text);
    EACH(i, cases)
    {
        char spec[200];
        (void)snprintf(spec, sizeof spec, "hidden = 6, vocab = 4, T = 8, K = 3, optimizer = 'adam', %s", cases[i].rule);
        emit("sum", spec);
        COMPILE(compiler, STRICT " -O1", "-o", in_folder("sum_test"), in_folder("sum_test.c"), in_folder("sum.c"), "-lm");
        ck_assert_int_eq(RUN(in_folder("sum_test")), cases[i].updates);
    }
}
END_TEST

/* One text at every width that a compiler may give it, down to plain C: the same numbers within rounding. */
static size_t read_numbers(double *numbers, size_t most)
{
    size_t count = 0;
    char *end = output;
    for (char *at = output; count < most; at = end) {
        numbers[count] = strtod(at, &end);
        if (end == at) { break; }
        count++;
    }
    return count;
}

static void compare_numbers(const double *expected, size_t count, double tolerance, const char *what)
{
    double numbers[64];
    ck_assert_uint_eq(read_numbers(numbers, 64), count);
    for (size_t i = 0; i < count; i++) {
        const double allowed = tolerance * (fabs(expected[i]) + 0.01);
        ck_assert_msg(fabs(numbers[i] - expected[i]) <= allowed, "%s: number %zu is %.12g, expected %.12g", what, i, numbers[i],
                      expected[i]);
    }
}

/* The model for a compiler without vectors: gcc, once its headers are read. */
static const char plain[] = "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n"
                            "#undef __GNUC__\n#include \"net.c\"\n"
                            "typedef char no_vectors[LANES == 1 ? 1 : -1];\n";

START_TEST(test_every_width_computes_the_same)
{
    static const char *const dtypes[] = {"f32", "f64"};
    static const char *const data[] = {"vocab = 45", "inputs = 3, outputs = 19, output_activation = 'sigmoid'",
                                       "inputs = 3, outputs = 19, loss = 'binary_cross_entropy', loss_at = {2, 3, 7}",
                                       "vocab = 45, embedding = 37, tie = true, smoothing = 0.1",
                                       /* plain steps: Adagrad's drive rounding apart */
                                       "vocab = 45, h0 = 'learned', resets = true, layers = 2, dropout = 0.25, optimizer = "
                                       "{'sgd', rate = 0.1}",
                                       "vocab = 45, h0 = 'learned', resets = true, layers = 2, dropout = 0.25, optimizer = "
                                       "{'sgd', rate = 0.1}, threads = 2, truncation = 'block', stride = 2"};
    static const struct {
        const char *flags, *source;
        int simd; /* what the CPU must have */
    } ways[] = {{"-std=c99 -O2", "plain.c", 1},
                {"-std=c99 -O0", "net.c", 1},
                {"-std=c99 -O2 -mavx2 -mfma", "net.c", 8},
                {"-std=c99 -O2 -mavx2 -mfma -mavx512f", "net.c", 16},
                {"-std=c99 -O3 -march=native", "net.c", 1}};
    char fields[280];
    double expected[64];
    (void)snprintf(fields, sizeof fields, "hidden = 37, %s, T = 7, K = 3, batch = 3, simd = 16, dtype = '%s'", data[_i / 2],
                   dtypes[_i % 2]);
    const double tolerance = _i % 2 == 0 ? 2e-3 : 1e-9;
    const size_t chunks = strstr(fields, "stride = 2") != NULL ? 4 : 3;
    char *gcc = find("gcc"), *tcc = find("tcc");
    emit("net", fields);
    put("consumer.c", consumer);
    put("plain.c", plain);
    train_with(gcc, "-std=c99 -O2", "net.c");
    const size_t count = read_numbers(expected, 64);
    ck_assert_uint_eq(count, 2 + 3 * chunks + 2);
    EACH(i, ways)
    {
        if (ways[i].simd > bptt_kernels_simd()) { continue; }
        train_with(gcc, ways[i].flags, ways[i].source);
        compare_numbers(expected, count, tolerance, ways[i].flags);
    }
    char *clang = find("clang");
    if (clang != NULL) {
        train_with(clang, "-std=c99 -O2", "net.c");
        compare_numbers(expected, count, tolerance, "clang");
    }
    if (tcc != NULL) {
        train_with(tcc, "-Wall -Werror", "net.c");
        compare_numbers(expected, count, tolerance, "tcc");
    }
}
END_TEST

enum { SHARES = 4 };

/* What sanitizers cannot see under libtcc, in its twin; a share of the models. */
START_TEST(test_sanitizers_are_silent)
{
    char *compilers[] = {find("gcc"), find("clang")}; /* each sees what the other does not */
    put("consumer.c", consumer);
    for (size_t i = (size_t)_i; i < MODELS; i += SHARES) {
        emit("net", models[i]);
        for (size_t c = 0; c < 2; c++) {
            if (compilers[c] == NULL) { continue; }
            train_with(compilers[c], "-std=c99 -g -fsanitize=address,undefined -fno-sanitize-recover=all", "net.c");
            ck_assert_msg(strchr(output, '\n') == output + strlen(output) - 1, "%s: %.900s", models[i],
                          output); /* its one line and no more */
        }
    }
}
END_TEST

/* --- symbols --------------------------------------------------------------------------------------------------------------------- */

static void check_symbol(char type, const char *symbol)
{
    static const char *const needed[] = {"memcpy", "memset", "memmove", "sqrt", "sqrtf", "log", "logf", "cos", "pow"};
    bool known = false;
    EACH(i, needed)
    {
        known = known || strcmp(symbol, needed[i]) == 0;
    }
    ck_assert_msg(type != 'U' || known, "%s is needed from outside", symbol);
    ck_assert_msg(strchr("DdBbCGgSs", type) == NULL, "%s can be written (%c)", symbol, type);
    const bool public = type >= 'A' && type <= 'Z' && type != 'U';
    ck_assert_msg(!public || strncmp(symbol, "net_", 4) == 0, "%s is public (%c)", symbol, type);
}

/* Not position-independent: there, constants with addresses in them are written once, by the loader. */
START_TEST(test_symbols)
{
    static const char *const levels[] = {"-std=c99 -fno-pic -fno-pie -c -O0", "-std=c99 -fno-pic -fno-pie -c -O3"};
    char *compiler = c_compiler(_i), *nm = find("nm");
    ck_assert_ptr_nonnull(nm);
    for (size_t i = 0; i < MODELS && compiler != NULL; i += 3) {
        emit("net", models[i]);
        EACH(k, levels)
        {
            unsigned publics = 0;
            COMPILE(compiler, levels[k], "-o", in_folder("net.o"), in_folder("net.c"));
            ck_assert_int_eq(RUN(nm, "-P", in_folder("net.o")), 0);
            ck_assert_uint_lt(strlen(output), sizeof output - 2); /* all of it */
            char *rest = output;
            for (char *line = strsep(&rest, "\n"); line != NULL && *line != '\0'; line = strsep(&rest, "\n")) {
                char symbol[128], type;
                ck_assert_int_eq(sscanf(line, "%127s %c", symbol, &type), 2);
                check_symbol(type, symbol);
                publics += type == 'T' || type == 'R';
            }
            const unsigned rate = strstr(models[i], "schedule") != NULL, observe = strstr(models[i], "plateau") != NULL;
            const unsigned start = strstr(models[i], "given") != NULL;
            ck_assert_uint_eq(publics, 9 + rate + observe + start); /* eight functions, the descriptor; what a schedule adds */
        }
    }
}
END_TEST

/* --- the example and its Makefile --------------------------------------------------------------------------------------------------- */

/* A text of `length` bytes below 50, in which much can be learnt. */
static void put_text(const char *name, size_t length)
{
    char *text = calloc(length + 1, 1);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < length; i++) { text[i] = (char)(1 + (i * i / 7 + i) % 11 + (i % 200 < 100 ? 0 : 30)); }
    scratch_put(in_folder(name), text, length);
    free(text);
}

/* Runs the example for four epochs; their losses. */
static void run_example(double losses[4])
{
    const int status = RUN(in_folder("net"), in_folder("text"), "4");
    ck_assert_msg(status == 0, "%.900s", output);
    char *rest = output;
    for (int i = 0; i < 4; i++) {
        int epoch, used = 0;
        ck_assert_msg(sscanf(rest, "epoch %d: loss %lf nats a token\n%n", &epoch, &losses[i], &used) == 2, "%.900s", output);
        ck_assert_int_eq(epoch, i + 1);
        rest += used;
    }
    ck_assert_str_eq(rest, "");
}

/* The same epochs by the program's own reader and the tcc backend. */
static void train_here(const char *fields, double losses[4])
{
    bptt_spec spec = spec_of("net", fields);
    const bptt_data_options options = {.token_bytes = 1};
    bptt_data data;
    bptt_stream stream;
    bptt_program program;
    bptt_error error = {""};
    ck_assert(bptt_data_load(in_folder("text"), &spec, &options, &data, &error) == BPTT_OK);
    ck_assert(bptt_stream_open(&stream, data.tokens, data.count, (size_t)spec.batch, "text", &error) == BPTT_OK);
    ck_assert_msg(bptt_program_open(&spec, BPTT_BACKEND_TCC, &program, &error) == BPTT_OK, "%s", error.text);
    const bptt_model *m = program.model;
    void *memory = bptt_memory_new(m);
    uint32_t x[64], y[64];
    ck_assert(memory != NULL && spec.K * spec.batch <= 64);
    m->init(m, memory, spec.seed);
    for (int epoch = 0; epoch < 4; epoch++) {
        losses[epoch] = 0;
        m->reset(m, memory);
        stream.position = 0;
        for (uint32_t chunk = 0;; chunk = (chunk + 1) % m->chunks) {
            const uint32_t steps = chunk + 1 < m->chunks ? m->chunk_steps : m->steps - chunk * m->chunk_steps;
            const size_t labels = bptt_stream_next(&stream, steps, x, y);
            if (labels == 0) { break; }
            const double loss = m->gradient(m, memory, &(bptt_rows){.x = x, .y = y}, chunk);
            losses[epoch] += spec.reduction == BPTT_MEAN ? loss * (double)labels : loss;
            ck_assert(isfinite(m->update(m, memory)));
        }
        losses[epoch] /= (double)stream.predictions;
    }
    free(memory);
    bptt_program_close(&program);
    bptt_data_free(&data);
    bptt_spec_free(&spec);
}

/* Streams are cut evenly and the state goes on, so the example computes what `bptt train` does. */
START_TEST(test_example_learns)
{
    static const char *const examples[] = {
        "hidden = 24, vocab = 256, T = 16, reduction = 'mean'",
        "hidden = 24, vocab = 50, T = 14, K = 6, batch = 3, reduction = 'mean'",
        "hidden = 24, vocab = 50, T = 16, batch = 3, reduction = 'sum', carry = false",
        "hidden = 24, vocab = 50, T = 14, K = 9, truncation = 'block', stride = 4, batch = 3",
        "hidden = 24, vocab = 50, T = 16, K = 9, truncation = 'uniform', batch = 3",
        "hidden = 24, T = 16, batch = 3, vocab = (function() local s = '' for i = 41, 1, -1 do "
        "s = s .. string.char(i) end return s end)()"};
    double losses[4], expected[4];
    char *make = find("make");
    ck_assert_ptr_nonnull(make);
    emit("net", examples[_i]);
    put_text("text", 1 + 3 * (14 * 16 * 5 + 12)); /* sequences that end with whole chunks and a remainder */
    const int status = RUN(make, "-C", folder, "CC=gcc");
    ck_assert_msg(status == 0 && strstr(output, "warning") == NULL, "%.900s", output);
    run_example(losses);
    train_here(examples[_i], expected);
    ck_assert_double_lt(losses[3], 0.7 * losses[0]);
    for (int i = 0; i < 4; i++) { ck_assert_double_eq_tol(losses[i], expected[i], 2e-3); }
    ck_assert_int_eq(RUN(make, "-C", folder, "clean"), 0);
    ck_assert_int_ne(access(in_folder("net"), F_OK), 0);
}
END_TEST

/* Runs the example on the text `name`; it must refuse and say why. */
static void assert_refuses(const char *name, char *epochs, const char *why)
{
    const int status = RUN(in_folder("net"), in_folder(name), epochs);
    ck_assert_int_eq(status, 1);
    ck_assert_msg(strstr(output, why) != NULL, "expected \"%s\" in \"%s\"", why, output);
}

START_TEST(test_example_refuses)
{
    emit("net", "hidden = 4, vocab = 40, T = 4, batch = 3, activation = 'relu', optimizer = {'sgd', rate = 1e30}, clip = 'none'");
    COMPILE(find("gcc"), STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
    put_text("short", 3);
    put_text("low", 50); /* all below 40 */
    put_text("high", 200);
    ck_assert_int_eq(RUN(in_folder("net")), 1);
    ck_assert_ptr_nonnull(strstr(output, "usage: ./net FILE [EPOCHS]"));
    assert_refuses("nowhere", NULL, "cannot open the file");
    assert_refuses("low", "0", "usage");
    assert_refuses("short", NULL, "the file is too short for 3 streams");
    assert_refuses("low", "9", "training diverged");
    assert_refuses("high", NULL, "the file has a token that is not below 40");
}
END_TEST

/* Larger vocabularies: little-endian 16-bit and 32-bit numbers. */
START_TEST(test_example_reads_numbers)
{
    static const struct {
        const char *fields, *what;
        int bytes, top;
    } cases[] = {{"hidden = 3, vocab = 300, T = 4", "16-bit", 2, 299}, {"hidden = 3, vocab = 70000, T = 4", "32-bit", 4, 69999}};
    char *gcc = find("gcc");
    EACH(i, cases)
    {
        unsigned char text[4 * 21] = {0};
        const size_t length = (size_t)cases[i].bytes * 21;
        emit("net", cases[i].fields);
        COMPILE(gcc, STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
        for (int t = 0; t < 21; t++) {
            for (int k = 0; k < cases[i].bytes; k++) {
                text[t * cases[i].bytes + k] = (unsigned char)((unsigned)(cases[i].top - t % 2) >> 8 * k);
            }
        }
        scratch_put(in_folder("text"), text, length);
        double losses[4];
        run_example(losses);
        ck_assert_double_lt(losses[3], 0.9 * losses[0]);
        text[length - (size_t)cases[i].bytes]++; /* top + 1 */
        scratch_put(in_folder("text"), text, length);
        assert_refuses("text", NULL, "not below");
    }
}
END_TEST

/* The mean is over what counts: a sequence that ends before its loss adds nothing.  A header is no row. */
START_TEST(test_example_counts)
{
    enum { ROWS = 6, COLUMNS = 2 };
    static const unsigned char header[128] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1};
    unsigned char bytes[sizeof header + ROWS * COLUMNS * sizeof(float)];
    float rows[ROWS][COLUMNS];
    double losses[2] = {0};
    for (int t = 0; t < ROWS; t++) { rows[t][0] = 0.1F * (float)t, rows[t][1] = 1.0F + (float)t; }
    emit("net", "hidden = 3, inputs = 1, outputs = 1, T = 4, loss_at = 'last', optimizer = {'sgd', rate = 1e-20}");
    COMPILE(find("gcc"), STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
    for (int i = 0; i < 2; i++) {
        scratch_put(in_folder("rows"), (const char *)rows, (size_t)(i == 0 ? 4 : ROWS) * sizeof rows[0]);
        ck_assert_int_eq(RUN(in_folder("net"), in_folder("rows")), 0);
        ck_assert_int_eq(sscanf(output, "epoch 1: loss %lf a number", &losses[i]), 1);
    }
    ck_assert_double_gt(losses[0], 1);
    ck_assert_double_eq(losses[0], losses[1]);
    scratch_put(in_folder("rows"), (const char *)rows, 3 * sizeof rows[0]);
    assert_refuses("rows", NULL, "no target where the network has a loss");
    memcpy(bytes, header, sizeof header);
    memcpy(bytes + sizeof header, rows, sizeof rows);
    scratch_put(in_folder("rows"), (const char *)bytes, sizeof bytes);
    assert_refuses("rows", NULL, "nothing but rows of 2 floats");
    scratch_put(in_folder("rows"), (const char *)rows, sizeof rows - 1);
    assert_refuses("rows", NULL, "nothing but rows of 2 floats");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("emitted");
    TCase *texts = tcase_create("texts");
    tcase_set_timeout(texts, 300);
    tcase_add_test(texts, test_table_is_complete);
    tcase_add_test(texts, test_text_needs_little);
    tcase_add_test(texts, test_names_are_taken);
    suite_add_tcase(suite, texts);
    TCase *tcase = tcase_create("compilers");
    tcase_set_timeout(tcase, 300);
    tcase_add_unchecked_fixture(tcase, open_all, remove_all);
    tcase_add_checked_fixture(tcase, fresh_folder, NULL);
    tcase_add_loop_test(tcase, test_no_warning, 0, 2);
    tcase_add_loop_test(tcase, test_header_in_cxx, 0, 2);
    tcase_add_test(tcase, test_cxx_program);
    tcase_add_loop_test(tcase, test_two_models, 0, 2);
    tcase_add_loop_test(tcase, test_train_adds_up, 0, 2);
    tcase_add_loop_test(tcase, test_every_width_computes_the_same, 0, 12);
    tcase_add_loop_test(tcase, test_sanitizers_are_silent, 0, SHARES);
    tcase_add_loop_test(tcase, test_symbols, 0, 2);
    tcase_add_loop_test(tcase, test_example_learns, 0, 6);
    tcase_add_test(tcase, test_example_refuses);
    tcase_add_test(tcase, test_example_reads_numbers);
    tcase_add_test(tcase, test_example_counts);
    suite_add_tcase(suite, tcase);
    TCase *names = tcase_create("names");
    tcase_set_timeout(names, 300);
    tcase_add_unchecked_fixture(names, open_all, remove_all);
    tcase_add_checked_fixture(names, fresh_folder, NULL);
    tcase_add_loop_test(names, test_values_may_have_any_name, 0, 4);
    suite_add_tcase(suite, names);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
