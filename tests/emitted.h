/* emitted.h: what the suites share that hand emitted files to real compilers: specs, a folder, programs and how they are run.
 *
 * Compilers run through runtime/backend_process.c, without a shell.  gcc must be there; clang, g++ and tcc are used where they are
 * found, and then must pass.  Depends on Check, scratch.h and compile.h.
 */
#ifndef BPTT_TESTS_EMITTED_H
#define BPTT_TESTS_EMITTED_H

#include "../gen/compile.h"
#include "../runtime/backend_private.h"
#include "../runtime/generate.h"
#include "scratch.h"

#include <ftw.h>
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

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static inline void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(old_path);
}

static inline void open_all(void)
{
    scratch_open();
    const char *path = getenv("PATH");
    old_path = strdup(path != NULL ? path : "/usr/bin:/bin");
    ck_assert_ptr_nonnull(old_path);
    ck_assert_int_eq(unsetenv("MAKEFLAGS"), 0); /* of the make that runs the tests */
}

static inline void fresh_folder(void)
{
    (void)snprintf(folder, sizeof folder, "%s/XXXXXX", scratch_folder);
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

/* Path of a file in the test's folder; good until the eighth call after it. */
static inline char *in_folder(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void put(const char *name, const char *text)
{
    scratch_put(in_folder(name), text, strlen(text));
}

/* Path of a program, or NULL; kept for as long as the test runs. */
static inline char *find(const char *program)
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

static inline int run(char *const *argv)
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
static inline void compile(char *compiler, const char *flags, char *const *arguments)
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

static inline bptt_spec spec_of(const char *name, const char *fields)
{
    char text[1500];
    bptt_spec spec;
    bptt_error error = {""};
    const int length = snprintf(text, sizeof text, "return {name = '%s', %s}", name, fields);
    ck_assert_int_lt(length, (int)sizeof text);
    ck_assert_msg(bptt_spec_parse(text, (size_t)length, "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

static inline bptt_unit unit_of(const char *name, const char *fields)
{
    bptt_spec spec = spec_of(name, fields);
    bptt_unit unit;
    bptt_error error = {""};
    ck_assert_msg(bptt_compile_here(&spec, &unit, &error) == BPTT_OK, "%s: %s", fields, error.text);
    bptt_spec_free(&spec);
    return unit;
}

/* Writes the four files of `bptt gen`. */
static inline void emit(const char *name, const char *fields)
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

static const char *const c_compilers[] = {"gcc", "clang"};

/* A C compiler of the table; NULL where one that need not be there is not. */
static inline char *c_compiler(int i)
{
    char *compiler = find(c_compilers[i]);
    ck_assert(compiler != NULL || i > 0);
    return compiler;
}

/* A case of a suite whose tests each have a fresh folder. */
static inline TCase *emitted_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 300);
    tcase_add_unchecked_fixture(tcase, open_all, remove_all);
    tcase_add_checked_fixture(tcase, fresh_folder, NULL);
    suite_add_tcase(suite, tcase);
    return tcase;
}

/* Runs a suite; what main returns. */
static inline int emitted_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
