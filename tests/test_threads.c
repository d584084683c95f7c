/* test_threads.c: models whose work is done in parts, and the team that does them.
 *
 * What a part computes must not depend on when, where, or whether at the same time as others it is computed: the same bits with a
 * team, without one and in every run.  Models are compiled by libtcc through backend_private.h, since bptt_program_open refuses
 * more threads than this machine has CPUs and a team does not.  BPTT_TEST_SEED chooses other random cases.  Runs in the tree's root.
 */
#include "../gen/compile.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "../runtime/machine.h"
#include "../runtime/team.h"
#include "oracle.h"
#include "scratch.h"

#include <ftw.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

enum { MOST = 5 };

static bptt_error error;

static void pause_us(long us)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000 * us}, NULL);
}

static bptt_team *team_of(int parts)
{
    bptt_team *team = bptt_team_new(parts, &error);
    ck_assert_msg(team != NULL, "%s", error.text);
    return team;
}

/* --- the team ----------------------------------------------------------------------------------------------------------------- */

struct round {
    unsigned number;
    int late; /* part that takes its time; -1: none */
    unsigned done[MOST];
    atomic_int count;
};

static void do_part(void *job, int part)
{
    struct round *r = job;
    if (part == r->late) { pause_us(300); }
    ck_assert_uint_eq(r->done[part], r->number);
    r->done[part]++;
    (void)atomic_fetch_add(&r->count, 1);
}

/* Every part once in every round, and none after the round; some rounds come late, in some one part is late. */
START_TEST(test_every_part_once)
{
    const int parts = _i;
    struct round r = {.late = -1};
    bptt_team *team = team_of(parts);
    for (; r.number < 3000; r.number++) {
        if (r.number % 200 == 7) { pause_us(400); }
        r.late = r.number % 200 == 9 ? (int)(r.number / 200) % parts : -1;
        team->run(team, do_part, &r);
        ck_assert_int_eq(atomic_load(&r.count), parts * (int)(r.number + 1));
    }
    bptt_team_free(team);
}
END_TEST

START_TEST(test_team_without_work)
{
    for (int i = 0; i < 20; i++) {
        bptt_team *team = team_of(1 + i % MOST);
        if (i % 2 == 0) { pause_us(300); }
        bptt_team_free(team);
    }
    bptt_team_free(NULL);
}
END_TEST

/* --- models ------------------------------------------------------------------------------------------------------------------- */

struct fixture {
    bptt_spec spec;
    bptt_unit unit;
    bptt_code code;
    bptt_model model; /* the code's, with or without a team */
    void *memory;
};

static void open_fixture(struct fixture *f, const bptt_spec *spec, int64_t threads, bptt_team *team)
{
    *f = (struct fixture){.spec = *spec};
    f->spec.threads = threads;
    f->spec.seed &= INT64_MAX;
    f->spec.text = NULL;
    f->spec.source = strdup("test");
    ck_assert_msg(bptt_spec_seal(&f->spec, &error) == BPTT_OK, "%s", error.text);
    const int simd = f->spec.simd > 0 ? (int)f->spec.simd : bptt_kernels_simd();
    ck_assert_msg(bptt_compile(&f->spec, simd, SIZE_MAX, &f->unit, &error) == BPTT_OK, "%s", error.text);
    bptt_text text = {f->spec.name, f->spec.digest, f->unit.header, f->unit.source, NULL, 0};
    text.kernels = bptt_kernels(f->spec.dtype == BPTT_F64 ? 8 : 4, simd, &text.kernel_count);
    ck_assert_ptr_nonnull(text.kernels);
    ck_assert_msg(bptt_tcc_compile(&text, &f->code, &error) == BPTT_OK, "%s", error.text);
    f->model = *f->code.model;
    ck_assert_ptr_null(f->model.team);
    ck_assert_uint_eq(f->model.threads, (unsigned)threads);
    f->model.team = team;
    f->memory = oracle_memory_new(&f->model);
}

static void close_fixture(struct fixture *f)
{
    f->code.release(f->code.owner);
    bptt_unit_free(&f->unit);
    bptt_spec_free(&f->spec);
    free(f->memory);
}

/* Case i of the random specs, with `threads` threads. */
static bptt_spec spec_of(unsigned i, int64_t threads)
{
    bptt_spec spec;
    oracle_random_spec(oracle_seed(), i, &spec);
    spec.unroll = i % 2 == 0 ? BPTT_UNROLL_TIME : BPTT_UNROLL_NONE;
    if (spec.simd > bptt_kernels_simd()) { spec.simd = 0; }
    if (spec.batch < threads) { spec.batch += threads; }
    return spec;
}

/* The same in mode i of truncation. */
static bptt_spec in_mode(bptt_spec spec, unsigned i)
{
    spec.truncation = (bptt_truncation_mode)(i % 3);
    if (spec.truncation == BPTT_TRUNCATION_BLOCK) { spec.stride = 1 + (spec.K - 1) / 2; }
    if (spec.truncation != BPTT_TRUNCATION_CHUNK && i % 2 == 0) { spec.dropout.output = 0.25; }
    return spec;
}

/* Everything that the interface shows, on the edges and random sizes, with a team and without. */
START_TEST(test_follows_the_oracle)
{
    const int threads = _i;
    bptt_team *team = team_of(threads);
    for (unsigned i = 0; i < oracle_edge_count() + 25; i++) {
        const bptt_spec spec = spec_of(i, threads);
        struct fixture f;
        open_fixture(&f, &spec, threads, i % 3 == 0 ? NULL : team);
        const oracle_verdict verdict = oracle_follow(&f.spec, &f.model, f.memory, f.spec.seed, 2);
        ck_assert_msg(verdict.worst <= (spec.dtype == BPTT_F64 ? 1e-11 : 2e-4), "seed %llu case %u: %s is off by %g",
                      (unsigned long long)oracle_seed(), i, verdict.where, verdict.worst);
        close_fixture(&f);
    }
    bptt_team_free(team);
}
END_TEST

/* A model after some chunks of random tokens; their losses and norms go to `figures`. */
static void train(struct fixture *f, uint32_t chunks, double *figures)
{
    const size_t tokens = (size_t)(f->spec.T * f->spec.batch);
    uint32_t *x = calloc(tokens, sizeof *x), *y = calloc(tokens, sizeof *y);
    ck_assert(x != NULL && y != NULL);
    uint64_t state = f->spec.seed;
    oracle_tokens(&state, tokens, (size_t)f->spec.vocab, 4, x, y);
    f->model.init(&f->model, f->memory, f->spec.seed);
    for (uint32_t i = 0; i < chunks; i++) {
        const uint32_t chunk = i % f->model.chunks;
        const size_t first = (size_t)chunk * f->model.chunk_steps * (size_t)f->spec.batch;
        figures[2 * i] = f->model.gradient(&f->model, f->memory, &(bptt_rows){.x = x + first, .y = y + first}, chunk);
        figures[2 * i + 1] = f->model.update(&f->model, f->memory);
    }
    free(x);
    free(y);
}

static void assert_same_bits(const struct fixture *a, const struct fixture *b)
{
    const bptt_model *m = &a->model;
    const char *p = a->memory, *q = b->memory;
    const size_t block = m->block * m->real_size;
    ck_assert_mem_eq(p + m->param, q + m->param, block);
    ck_assert_mem_eq(p + m->grad, q + m->grad, block);
    for (uint32_t i = 0; i < m->moment_count; i++) { ck_assert_mem_eq(p + m->moment[i], q + m->moment[i], block); }
    ck_assert_mem_eq(p + m->state, q + m->state, bptt_state_bytes(m));
    ck_assert_mem_eq(p + m->progress, q + m->progress, 3 * sizeof(double));
}

enum { CHUNKS = 12 };

START_TEST(test_timing_changes_no_bit)
{
    const int threads = _i;
    bptt_team *team = team_of(threads);
    for (unsigned i = 0; i < oracle_edge_count() + 15; i++) {
        const bptt_spec spec = in_mode(spec_of(i, threads), i);
        double alone[2 * CHUNKS], together[2 * CHUNKS];
        struct fixture a, b;
        open_fixture(&a, &spec, threads, NULL);
        open_fixture(&b, &spec, threads, team);
        train(&a, CHUNKS, alone);
        for (int again = 0; again < 3; again++) {
            train(&b, CHUNKS, together);
            ck_assert_mem_eq(alone, together, sizeof alone);
            assert_same_bits(&a, &b);
        }
        close_fixture(&a);
        close_fixture(&b);
    }
    bptt_team_free(team);
}
END_TEST

typedef struct counting_team {
    bptt_team face;
    int rounds;
} counting_team;

static void count_round(bptt_team *face, void (*work)(void *job, int part), void *job)
{
    ((counting_team *)(void *)face)->rounds++;
    for (int part = 0; part < 2; part++) { work(job, part); }
}

/* A caller's own team stays with the model when bptt, which has none, drives it. */
START_TEST(test_own_team_stays)
{
    const bptt_spec spec = spec_of(0, 2);
    counting_team team = {.face = {count_round}};
    struct fixture f;
    open_fixture(&f, &spec, 2, &team.face);
    uint32_t *tokens = calloc((size_t)(f.spec.K * f.spec.batch), sizeof *tokens);
    ck_assert_ptr_nonnull(tokens);
    f.model.init(&f.model, f.memory, 1);
    (void)f.model.loss(&f.model, f.memory, &(bptt_rows){.x = tokens, .y = tokens}, 0);
    const int rounds = team.rounds;
    ck_assert_int_gt(rounds, 0);
    f.model.team = NULL;
    (void)f.model.loss(&f.model, f.memory, &(bptt_rows){.x = tokens, .y = tokens}, 0);
    ck_assert_int_eq(team.rounds, 2 * rounds);
    free(tokens);
    close_fixture(&f);
}
END_TEST

/* The first chunk, so that training has not yet driven rounding apart. */
START_TEST(test_one_thread_gives_the_same)
{
    const int threads = _i;
    for (unsigned i = 0; i < oracle_edge_count() + 15; i++) {
        bptt_spec spec = in_mode(spec_of(i, threads), i);
        spec.dtype = BPTT_F64;
        double one[2], many[2];
        struct fixture a, b;
        open_fixture(&a, &spec, 1, NULL);
        open_fixture(&b, &spec, threads, NULL);
        train(&a, 1, one);
        train(&b, 1, many);
        ck_assert_double_eq_tol(one[0], many[0], 1e-12 * (1 + fabs(one[0])));
        ck_assert_double_eq_tol(one[1], many[1], 1e-11 * (1 + one[1]));
        close_fixture(&a);
        close_fixture(&b);
    }
}
END_TEST

static const char *const texts[] = {
    /* values and models that are called what the functions of parts, macros and kernels are; sums are cut */
    "return {name = 'sum', hidden = 40, vocab = 9, T = 4, K = 2, batch = 3, dtype = 'f64', carry = false,\n"
    "dropout = {output = 0.25}, cell = function()\n"
    "j, give_rows, other = matrix(hidden, input), vector(hidden), state(hidden)\n"
    "own, first_stream = matrix(hidden, hidden), sigmoid(j * x + give_rows)\n"
    "APART = vector(hidden)\n"
    "part = first_stream * other + APART\n"
    "bptt_tanh = part * part\n"
    "other = tanh(j * x + own * bptt_tanh)\n"
    "end}",
    /* what the second layer's cut sums read are gates of the first, whose adjoints are there by then in one thread's order */
    "return {name = 'net', hidden = {40, 40}, vocab = 9, T = 4, batch = 2, dtype = 'f64', cell = function()\n"
    "s, c = state(hidden), state(hidden)\n"
    "A, V, b = matrix(hidden, hidden), matrix(hidden, hidden), vector(hidden)\n"
    "W, U, g = matrix(hidden, input), matrix(hidden, hidden), vector(hidden)\n"
    "v = V * s * 0.5 + b\n"
    "s = sigmoid(abs(A * c) + U * s) - W * x\n"
    "c = g + v\n"
    "output = v\n"
    "end}",
};

START_TEST(test_texts_give_the_same)
{
    const char *text = texts[_i];
    double figures[2][2];
    for (int i = 0; i < 2; i++) {
        bptt_spec spec;
        struct fixture f;
        ck_assert_msg(bptt_spec_parse(text, strlen(text), "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
        open_fixture(&f, &spec, 1 + i, NULL);
        train(&f, 1, figures[i]);
        close_fixture(&f);
        spec.equations = NULL; /* the fixture's */
        bptt_spec_free(&spec);
    }
    ck_assert_double_eq_tol(figures[0][0], figures[1][0], 1e-12 * (1 + fabs(figures[0][0])));
    ck_assert_double_eq_tol(figures[0][1], figures[1][1], 1e-11 * (1 + figures[0][1]));
}
END_TEST

/* --- programs ----------------------------------------------------------------------------------------------------------------- */

static bptt_spec parsed(const char *more)
{
    char text[256];
    bptt_spec spec;
    (void)snprintf(text, sizeof text, "return {name = 'net', hidden = 20, vocab = 30, T = 9, K = 4, batch = 64, %s}", more);
    ck_assert_msg(bptt_spec_parse(text, strlen(text), "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

START_TEST(test_more_threads_than_cpus)
{
    char more[32], message[64];
    const int cpus = bptt_machine_cpus();
    ck_assert_int_ge(cpus, 1);
    if (cpus >= 64) { return; }
    (void)snprintf(more, sizeof more, "threads = %d", cpus + 1);
    (void)snprintf(message, sizeof message, "threads = %d: this machine has %d CPU%s", cpus + 1, cpus, cpus > 1 ? "s" : "");
    bptt_spec spec = parsed(more);
    for (int backend = BPTT_BACKEND_TCC; backend <= BPTT_BACKEND_AUTO; backend++) {
        bptt_program program;
        ck_assert_int_eq(bptt_program_open(&spec, (bptt_backend)backend, &program, &error), BPTT_FAILED);
        ck_assert_str_eq(error.text, message);
    }
    bptt_unit unit; /* gen is for another machine */
    ck_assert_int_eq(bptt_compile(&spec, 8, SIZE_MAX, &unit, &error), BPTT_OK);
    bptt_unit_free(&unit);
    bptt_spec_free(&spec);
}
END_TEST

START_TEST(test_programs_have_a_team)
{
    bptt_spec spec = parsed("threads = 2, dtype = 'f64'");
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", scratch_folder, 1), 0);
    for (int backend = BPTT_BACKEND_TCC; backend <= BPTT_BACKEND_CC && bptt_machine_cpus() > 1; backend++) {
        bptt_program program;
        ck_assert_msg(bptt_program_open(&spec, (bptt_backend)backend, &program, &error) == BPTT_OK, "%s", error.text);
        ck_assert_ptr_nonnull(program.model->team);
        void *memory = oracle_memory_new(program.model);
        const oracle_verdict verdict = oracle_follow(&spec, program.model, memory, spec.seed, 2);
        ck_assert_msg(verdict.worst <= 1e-11, "%s: %s is off by %g", program.backend, verdict.where, verdict.worst);
        free(memory);
        bptt_program_close(&program);
    }
    bptt_spec_free(&spec);
}
END_TEST

/* A stream that two parts do has one state: here it would grow beyond all numbers in the part that does not answer for it. */
START_TEST(test_shared_stream_follows)
{
    bptt_spec spec = parsed("threads = 2, batch = 3, activation = 'identity', init_recurrent = {identity = 2.0}");
    struct fixture f;
    open_fixture(&f, &spec, 2, NULL);
    uint32_t *tokens = calloc((size_t)(f.spec.K * f.spec.batch), sizeof *tokens);
    ck_assert_ptr_nonnull(tokens);
    f.model.init(&f.model, f.memory, 1);
    for (int i = 0; i < 200; i++) {
        f.model.reset(&f.model, f.memory);
        const double loss = f.model.gradient(&f.model, f.memory, &(bptt_rows){.x = tokens, .y = tokens}, 0);
        const float *grad = (const float *)(const void *)((const char *)f.memory + f.model.grad);
        ck_assert(isfinite(loss));
        size_t finite = 0;
        for (size_t j = 0; j < f.model.block; j++) { finite += isfinite(grad[j]) != 0; }
        ck_assert_uint_eq(finite, f.model.block);
    }
    free(tokens);
    close_fixture(&f);
    bptt_spec_free(&spec);
}
END_TEST

/* --- under the thread sanitizer ------------------------------------------------------------------------------------------------ */

static const char consumer[] = "#include \"net.h\"\n"
                               "#include \"team.h\"\n"
                               "#include <stdio.h>\n"
                               "static net model;\n"
                               "static net_token x[NET_STEPS * NET_BATCH], y[NET_STEPS * NET_BATCH];\n"
                               "int main(void)\n"
                               "{\n"
                               "    bptt_error error;\n"
                               "    double loss = 0, first = 0;\n"
                               "    for (unsigned i = 0; i < NET_STEPS * NET_BATCH; i++) {\n"
                               "        x[i] = i * i % NET_VOCAB;\n"
                               "        y[i] = (x[i] + 1) % NET_VOCAB;\n"
                               "    }\n"
                               "    net_init(&model, NET_SEED);\n"
                               "    model.threads.team = bptt_team_new(NET_THREADS, &error);\n"
                               "    for (int i = 0; i < 20; i++) {\n"
                               "        loss = net_train(&model, x, y);\n"
                               "        if (i == 0) { first = loss; }\n"
                               "    }\n"
                               "    bptt_team_free(model.threads.team);\n"
                               "    printf(\"%g %g\\n\", first, loss);\n"
                               "    return loss < first ? 0 : 1;\n"
                               "}\n";

static int run(char *const *argv, bptt_process *process)
{
    ck_assert_msg(bptt_process_start(process, argv, scratch_folder, 100e3, false, &error) == BPTT_OK, "%s", error.text);
    ck_assert(bptt_process_wait(process, 110e3));
    ck_assert_msg(!process->late && WIFEXITED(process->status), "%s: %s", argv[0], process->text);
    return WEXITSTATUS(process->status);
}

/* Sums of its own in each part, sums that are cut, and both; not as many streams in every part. */
static const char *const raced[] = {
    "threads = 3, simd = 8",
    "threads = 3, simd = 8, truncation = 'block', stride = 2",
    "threads = 3, simd = 8, truncation = 'uniform'",
    "threads = 3, simd = 8, batch = 5, loss_at = {1, 5, 9}, accumulate = 2",
    "threads = 3, simd = 8, batch = 5, truncation = 'block', stride = 2",
    "threads = 3, simd = 8, batch = 5, truncation = 'uniform', embedding = 20",
};

/* Our team and the example's, with emitted code made for the sanitizer, which knows nothing of code that libtcc made. */
START_TEST(test_no_data_race)
{
    static bptt_process process;
    char source[512], main_file[512], header[512], consumer_file[512], include[512], program[512], data[512];
    char gcc[] = "/usr/bin/gcc", c11[] = "-std=gnu11", debug[] = "-O1", tsan[] = "-fsanitize=thread", o[] = "-o",
         calls[] = "-fno-builtin", /* the sanitizer sees no memcpy that gcc spells itself */
        here[] = "-Iruntime", team[] = "runtime/team.c", machine[] = "runtime/machine.c", status[] = "gen/status.c", m[] = "-lm",
         pthread[] = "-pthread";
    if (access(gcc, X_OK) != 0) {
        printf("%s: not found\n", gcc);
        return;
    }
    bptt_spec spec = parsed(raced[_i]);
    bptt_unit unit;
    ck_assert_int_eq(bptt_compile(&spec, 8, SIZE_MAX, &unit, &error), BPTT_OK);
    (void)snprintf(include, sizeof include, "-I%s", scratch_folder);
    (void)snprintf(program, sizeof program, "%s", scratch("program"));
    (void)snprintf(data, sizeof data, "%s", scratch("data"));
    (void)snprintf(source, sizeof source, "%s", scratch("net.c"));
    (void)snprintf(main_file, sizeof main_file, "%s", scratch("net_main.c"));
    (void)snprintf(header, sizeof header, "%s", scratch("net.h"));
    (void)snprintf(consumer_file, sizeof consumer_file, "%s", scratch("consumer.c"));
    scratch_put(source, unit.source, strlen(unit.source));
    scratch_put(main_file, unit.example, strlen(unit.example));
    scratch_put(header, unit.header, strlen(unit.header));
    scratch_put(consumer_file, consumer, strlen(consumer));
    char bytes[4000];
    for (size_t i = 0; i < sizeof bytes; i++) { bytes[i] = (char)(i * i % 30); }
    scratch_put(data, bytes, sizeof bytes);
    char *const with_team[] = {gcc,           c11,    debug, tsan,    calls,  here, include, o,   program,
                               consumer_file, source, team,  machine, status, m,    pthread, NULL};
    char *const example[] = {gcc, c11, debug, tsan, calls, o, program, main_file, source, m, pthread, NULL};
    ck_assert_msg(run(with_team, &process) == 0, "%s", process.text);
    ck_assert_msg(run((char *[]){program, NULL}, &process) == 0, "%s", process.text);
    ck_assert_msg(run(example, &process) == 0, "%s", process.text);
    ck_assert_msg(run((char *[]){program, data, NULL}, &process) == 0, "%s", process.text);
    bptt_unit_free(&unit);
    bptt_spec_free(&spec);
}
END_TEST

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
    printf("seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 200);
    tcase_add_unchecked_fixture(tcase, scratch_open, remove_all);
    tcase_add_loop_test(tcase, test_every_part_once, 1, MOST + 1);
    tcase_add_test(tcase, test_team_without_work);
    tcase_add_loop_test(tcase, test_follows_the_oracle, 2, 5);
    tcase_add_loop_test(tcase, test_timing_changes_no_bit, 2, 4);
    tcase_add_test(tcase, test_own_team_stays);
    tcase_add_loop_test(tcase, test_one_thread_gives_the_same, 2, 4);
    tcase_add_test(tcase, test_more_threads_than_cpus);
    tcase_add_test(tcase, test_programs_have_a_team);
    tcase_add_loop_test(tcase, test_texts_give_the_same, 0, sizeof texts / sizeof *texts);
    tcase_add_test(tcase, test_shared_stream_follows);
    tcase_add_loop_test(tcase, test_no_data_race, 0, (int)(sizeof raced / sizeof raced[0]));
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
