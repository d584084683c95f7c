/* test_proof.c: generated code against the oracles, the ladder of design.md section 6.
 *
 * Everything goes through bptt_program_open and the bptt_model interface: the code that a user's spec becomes is the code that is
 * judged.  Depends on oracle.h; rests on no result of runtime/generic.c.  BPTT_TEST_SEED chooses other random cases.
 */
#include "../runtime/backend.h"
#include "../runtime/checkpoint.h"
#include "../runtime/kernels.h"
#include "oracle.h"
#include "scratch.h"

#include <ftw.h>
#include <math.h>

enum { RANDOM_SPECS = 60 };
static const bptt_unroll unrolls[] = {BPTT_UNROLL_TIME, BPTT_UNROLL_NONE, BPTT_UNROLL_FULL};
static const int64_t widths[] = {1, 4, 8, 16};
#define EACH(i, list) for (size_t i = 0; (i) < sizeof(list) / sizeof(list)[0]; (i)++)

/* --- a generated model, an oracle net with the same parameters, a sequence of tokens ------------------------------------------ */

struct fixture {
    bptt_spec spec;
    bptt_program program;
    const bptt_model *model;
    void *memory;
    oracle_net *net;
    double *gradient, *h;
    uint32_t *x, *y;
};

/* False where all loops spelled out would be too long a text; any other failure fails the test. */
static bool try_fixture(struct fixture *f, const bptt_spec *spec, bptt_backend backend)
{
    *f = (struct fixture){.spec = *spec};
    bptt_error error = {""};
    f->spec.seed &= INT64_MAX;
    f->spec.text = NULL;
    f->spec.source = strdup("test");
    ck_assert_msg(bptt_spec_seal(&f->spec, &error) == BPTT_OK, "%s", error.text);
    if (bptt_program_open(&f->spec, backend, &f->program, &error) != BPTT_OK) {
        bptt_spec_free(&f->spec);
        ck_assert_int_eq(spec->unroll, BPTT_UNROLL_FULL);
        assert_says(&error, "unroll = 'full' would spell out");
        return false;
    }
    const size_t tokens = (size_t)(spec->T * spec->batch);
    f->model = f->program.model;
    f->memory = oracle_memory_new(f->model);
    f->net = oracle_net_new(&f->spec);
    f->gradient = oracle_doubles(f->net->count);
    f->h = oracle_doubles(f->net->batch * f->net->hidden);
    f->x = calloc(tokens, sizeof *f->x);
    f->y = calloc(tokens, sizeof *f->y);
    ck_assert(f->x != NULL && f->y != NULL);
    uint64_t state = f->spec.seed;
    oracle_tokens(&state, tokens, f->net->vocab, 0, f->x, f->y);
    f->model->init(f->model, f->memory, f->spec.seed);
    ck_assert(oracle_read(f->net, f->model, f->memory, f->model->param, f->net->params));
    return true;
}

static struct fixture open_fixture(const bptt_spec *spec)
{
    struct fixture f;
    ck_assert(try_fixture(&f, spec, BPTT_BACKEND_TCC));
    return f;
}

static void close_fixture(struct fixture *f)
{
    bptt_program_close(&f->program);
    bptt_spec_free(&f->spec);
    free(f->memory);
    oracle_net_free(f->net);
    free(f->gradient);
    free(f->h);
    free(f->x);
    free(f->y);
}

static bptt_spec small_spec(void)
{
    return (bptt_spec){.name = "net",
                       .hidden = 5,
                       .vocab = 6,
                       .T = 8,
                       .K = 4,
                       .batch = 2,
                       .threads = 1,
                       .accumulate = 1,
                       .dtype = BPTT_F64,
                       .carry = true,
                       .optimizer = {.kind = BPTT_SGD, .rate = 0.1},
                       .init = {BPTT_INIT_UNIFORM, 0.6},
                       .seed = 7};
}

static size_t first_of(const struct fixture *f, uint32_t chunk)
{
    return (size_t)(chunk * f->spec.K * f->spec.batch);
}

static double run_gradient(const struct fixture *f, uint32_t chunk)
{
    return f->model->gradient(f->model, f->memory, &(bptt_rows){.x = f->x + first_of(f, chunk), .y = f->y + first_of(f, chunk)},
                              chunk);
}

static double run_loss(const struct fixture *f, uint32_t chunk)
{
    return f->model->loss(f->model, f->memory, &(bptt_rows){.x = f->x + first_of(f, chunk), .y = f->y + first_of(f, chunk)},
                          chunk);
}

static double progress_at(const struct fixture *f, int which)
{
    double progress[BPTT_PROGRESS] = {0};
    memcpy(progress, (const char *)f->memory + f->model->progress, f->model->progress_count * sizeof *progress);
    return progress[which];
}

/* Whether an update follows the chunk that was just learned from. */
static bool is_due(const struct fixture *f, uint32_t chunk)
{
    const bptt_model *m = f->model;
    return m->accumulate == 0 ||
           ((m->whole_sequence == 0 || chunk + 1 == m->chunks) && progress_at(f, BPTT_PENDING) >= m->accumulate);
}

/* Trains on the fixture's sequence, `updates` chunks from the `first`-th on; their losses go to `losses`. */
static void train(const struct fixture *f, uint32_t first, uint32_t updates, double *losses)
{
    for (uint32_t i = 0; i < updates; i++) {
        losses[i] = run_gradient(f, (first + i) % f->model->chunks);
        ck_assert(isfinite(losses[i]));
        if (is_due(f, (first + i) % f->model->chunks)) { ck_assert(isfinite(f->model->update(f->model, f->memory))); }
        if (f->model->observe != NULL) { f->model->observe(f->model, f->memory, losses[i]); }
    }
}

static void set_params(struct fixture *f)
{
    ck_assert(oracle_write(f->net, f->model, f->memory, f->model->param, f->net->params));
}

static void assert_report(oracle_report report, double tolerance, const char *what, const bptt_spec *spec)
{
    ck_assert_msg(report.worst <= tolerance, "%s: %s is off by %g (H %d V %d T %d K %d B %d, activation %d, unroll %d, simd %d)",
                  what, report.tensor, report.worst, (int)spec->hidden, (int)spec->vocab, (int)spec->T, (int)spec->K,
                  (int)spec->batch, spec->activation, spec->unroll, (int)spec->simd);
}

static void assert_gradient(const struct fixture *f, const double *expected, double tolerance, const char *what)
{
    assert_report(oracle_compare(f->net, expected, f->model, f->memory, f->model->grad), tolerance, what, &f->spec);
}

/* Parameters, moments, state and progress: all that training goes on from. */
static void assert_same_training(const struct fixture *a, const struct fixture *b)
{
    const bptt_model *m = a->model, *n = b->model;
    const size_t block = m->block * m->real_size;
    const char *p = a->memory, *q = b->memory;
    ck_assert_uint_eq(block, n->block * n->real_size);
    ck_assert_uint_eq(m->moment_count, n->moment_count);
    ck_assert_mem_eq(p + m->param, q + n->param, block);
    if (m->accumulate > 0) { ck_assert_mem_eq(p + m->grad, q + n->grad, block); }
    for (uint32_t i = 0; i < m->moment_count; i++) { ck_assert_mem_eq(p + m->moment[i], q + n->moment[i], block); }
    ck_assert_mem_eq(p + m->state, q + n->state, (size_t)m->batch * m->states[0].stride * m->real_size);
    ck_assert_uint_eq(m->progress_count, n->progress_count);
    ck_assert_mem_eq(p + m->progress, q + n->progress, m->progress_count * sizeof(double));
}

/* --- everything that the interface shows, on the edges and random sizes --------------------------------------------------------- */

struct tally {
    unsigned programs, chunks, skipped, too_long;
};

static void follow(const bptt_spec *spec, bptt_backend backend, unsigned i, struct tally *tally)
{
    struct fixture f;
    if (!try_fixture(&f, spec, backend)) {
        tally->too_long++;
        return;
    }
    const oracle_verdict verdict = oracle_follow(&f.spec, f.model, f.memory, f.spec.seed, 2);
    ck_assert_msg(verdict.worst <= (spec->dtype == BPTT_F64 ? 1e-11 : 2e-4),
                  "seed %llu case %u unroll %d simd %d: %s is off by %g", (unsigned long long)oracle_seed(), i, spec->unroll,
                  (int)spec->simd, verdict.where, verdict.worst);
    tally->programs++;
    tally->chunks += verdict.chunks;
    tally->skipped += verdict.skipped;
    close_fixture(&f);
}

static void follow_width(int64_t simd)
{
    if (simd > bptt_kernels_simd()) {
        printf("simd = %d: not on this CPU\n", (int)simd);
        return;
    }
    struct tally tally = {0};
    for (unsigned i = 0; i < oracle_edge_count() + RANDOM_SPECS; i++) {
        bptt_spec spec;
        oracle_random_spec(oracle_seed(), i, &spec);
        spec.simd = simd;
        EACH(u, unrolls)
        {
            spec.unroll = unrolls[u];
            follow(&spec, BPTT_BACKEND_TCC, i, &tally);
        }
    }
    ck_assert_uint_ge(tally.programs, 2 * (oracle_edge_count() + RANDOM_SPECS) + oracle_edge_count() / 2);
    ck_assert_uint_lt(tally.skipped, tally.chunks / 10);
}

START_TEST(test_tcc_follows_the_oracle)
{
    follow_width(widths[_i]);
}
END_TEST

/* Sizes at which the plan takes other ways: matrices beyond the first-level cache, several blocks of logits, tokens that do not occur,
 * gradients in several blocks of rows, panels of rows far apart that are packed. */
START_TEST(test_large_nets_follow_the_oracle)
{
    static const struct {
        int64_t hidden, vocab, K, batch;
    } sizes[] = {{90, 5, 5, 1}, {90, 40, 4, 2}, {18, 700, 4, 1}, {33, 300, 7, 17}, {70, 3, 30, 71}, {518, 515, 7, 48}};
    struct tally tally = {0};
    for (unsigned i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        bptt_spec spec = small_spec();
        spec.hidden = sizes[i / 2].hidden;
        spec.vocab = sizes[i / 2].vocab;
        spec.K = sizes[i / 2].K;
        spec.T = spec.K > spec.T ? spec.K + 1 : spec.T;
        spec.batch = sizes[i / 2].batch;
        spec.init.scale = 0.1;
        spec.optimizer = i % 4 < 2 ? (bptt_optimizer){.kind = BPTT_ADAGRAD, .rate = 0.1, .epsilon = 1e-10} : spec.optimizer;
        spec.unroll = unrolls[i % 2];
        follow(&spec, BPTT_BACKEND_TCC, i, &tally);
    }
    ck_assert_uint_eq(tally.programs, 2 * sizeof sizes / sizeof sizes[0]);
    ck_assert_uint_eq(tally.skipped, 0);
}
END_TEST

/* What a rate makes of the rules: nesterov, weight decay; with rows of tokens that do not occur, which decay too. */
START_TEST(test_forms_of_rules_follow_the_oracle)
{
    struct tally tally = {0};
    EACH(u, unrolls)
    {
        bptt_spec spec = small_spec();
        spec.vocab = 19;
        spec.optimizer = oracle_forms[_i];
        spec.unroll = unrolls[u];
        spec.clip = (bptt_clip){(bptt_clip_kind)u, 0.05};
        follow(&spec, BPTT_BACKEND_TCC, (unsigned)_i, &tally);
        spec.threads = spec.unroll == BPTT_UNROLL_FULL ? 1 : 2;
        spec.dtype = BPTT_F32;
        follow(&spec, BPTT_BACKEND_TCC, (unsigned)_i, &tally);
    }
    bptt_spec spec = small_spec();
    spec.optimizer = oracle_forms[_i];
    follow(&spec, BPTT_BACKEND_GENERIC, (unsigned)_i, &tally);
    ck_assert_uint_eq(tally.programs, 2 * sizeof unrolls / sizeof unrolls[0] + 1);
}
END_TEST

/* --- schedules -------------------------------------------------------------------------------------------------------------- */

static const bptt_backend both[] = {BPTT_BACKEND_TCC, BPTT_BACKEND_GENERIC};

/* A fixture on some backend, whose unroll is one that every size has. */
static struct fixture open_on(const bptt_spec *spec, bptt_backend backend)
{
    struct fixture f;
    ck_assert(try_fixture(&f, spec, backend));
    return f;
}

/* The factor of the updates from the first on, at the borders of the warm-up and of the schedule, written out by hand. */
START_TEST(test_schedule_values)
{
    static const struct {
        bptt_schedule schedule;
        double factors[9];
    } cases[] = {
        {{.kind = BPTT_SCHEDULE_CONSTANT, .warmup = 4}, {0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1}},
        {{.kind = BPTT_SCHEDULE_CONSTANT, .warmup = 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}},
        {{.kind = BPTT_SCHEDULE_STEP, .every = 2, .factor = 0.5}, {1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625}},
        {{.kind = BPTT_SCHEDULE_STEP, .every = 3, .factor = 0.5, .warmup = 2}, {0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25}},
        {{.kind = BPTT_SCHEDULE_EXPONENTIAL, .factor = 0.5, .warmup = 2},
         {0.5, 1, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625}},
        {{.kind = BPTT_SCHEDULE_COSINE, .steps = 4, .floor = 0.5},
         {1, 0.926776695296637, 0.75, 0.573223304703363, 0.5, 0.5, 0.5, 0.5, 0.5}},
        {{.kind = BPTT_SCHEDULE_COSINE, .steps = 2, .warmup = 2}, {0.5, 1, 1, 0.5, 0, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        bptt_spec spec = small_spec();
        spec.schedule = cases[i / 2].schedule;
        struct fixture f = open_on(&spec, both[i % 2]);
        for (uint32_t n = 0; n < 9; n++) {
            ck_assert_double_eq_tol(f.model->rate(f.model, f.memory), 0.1 * cases[i / 2].factors[n], 1e-15);
            (void)run_gradient(&f, n % 2);
            ck_assert(oracle_read(f.net, f.model, f.memory, f.model->param, f.net->params));
            ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
            (void)oracle_update(&spec, n + 1, f.net->count, f.net->params, f.gradient, (double *[2]){f.gradient, f.gradient});
            (void)f.model->update(f.model, f.memory);
            assert_report(oracle_compare(f.net, f.net->params, f.model, f.memory, f.model->param), 1e-14, "update", &spec);
        }
        close_fixture(&f);
    }
}
END_TEST

/* Without a schedule there is no rate to ask for. */
START_TEST(test_constant_rate_is_the_specs)
{
    const bptt_spec spec = small_spec();
    struct fixture f = open_fixture(&spec);
    ck_assert(f.model->rate == NULL && f.model->observe == NULL);
    ck_assert_uint_eq(f.model->progress_count, 3);
    close_fixture(&f);
}
END_TEST

/* More than `patience` losses in a row that are not better by `threshold`, then the count begins anew; a loss that is not a number
 * is not better. */
START_TEST(test_plateau)
{
    static const struct {
        double loss, reduction;
    } seen[] = {{4, 1},     {3, 1},     {3, 1},   {2.8, 1}, {2.5, 1},  {2.4, 1},  {2.4, 1},    {2.3, 0.5}, {2.3, 0.5},
                {2.2, 0.5}, {1.9, 0.5}, {9, 0.5}, {9, 0.5}, {9, 0.25}, {1, 0.25}, {NAN, 0.25}, {1, 0.25},  {HUGE_VAL, 0.125}};
    for (size_t backend = 0; backend < 2; backend++) {
        bptt_spec spec = small_spec();
        spec.schedule =
            (bptt_schedule){.kind = BPTT_SCHEDULE_PLATEAU, .factor = 0.5, .patience = 2, .threshold = 0.1, .warmup = 2};
        struct fixture f = open_on(&spec, both[backend]);
        ck_assert_double_eq(f.model->rate(f.model, f.memory), 0.05);
        EACH(i, seen)
        {
            f.model->observe(f.model, f.memory, seen[i].loss);
            const double warm = i < 1 ? 0.5 : 1;
            ck_assert_msg(f.model->rate(f.model, f.memory) == 0.1 * warm * seen[i].reduction, "loss %zu: rate %g", i,
                          f.model->rate(f.model, f.memory));
            (void)run_gradient(&f, 0);
            (void)f.model->update(f.model, f.memory);
        }
        close_fixture(&f);
    }
}
END_TEST

/* --- the first weights -------------------------------------------------------------------------------------------------------------- */

/* Element (row, col) of a tensor of the fixture's parameters. */
static double weight(const struct fixture *f, const char *tensor, size_t row, size_t col)
{
    return f->net->params[oracle_index(f->net, tensor, row, col)];
}

/* How far the rows, or columns, of a matrix times its transpose are from scale^2 times the unit matrix. */
static double off_orthogonal(const struct fixture *f, const char *tensor, size_t rows, size_t cols, double scale)
{
    const bool wide = rows < cols;
    double worst = 0;
    for (size_t a = 0; a < (wide ? rows : cols); a++) {
        for (size_t b = 0; b <= a; b++) {
            double sum = 0;
            for (size_t i = 0; i < (wide ? cols : rows); i++) {
                sum +=
                    wide ? weight(f, tensor, a, i) * weight(f, tensor, b, i) : weight(f, tensor, i, a) * weight(f, tensor, i, b);
            }
            worst = fmax(worst, fabs(sum - (a == b ? scale * scale : 0)));
        }
    }
    return worst;
}

START_TEST(test_first_weights)
{
    for (size_t i = 0; i < 4; i++) {
        bptt_spec spec = small_spec();
        spec.hidden = 40;
        spec.vocab = i % 2 == 0 ? 70 : 20; /* more rows than columns, and the other way round */
        spec.dtype = i < 2 ? BPTT_F32 : BPTT_F64;
        spec.init = (bptt_init){BPTT_INIT_ORTHOGONAL, 2};
        spec.init_recurrent = (bptt_init){BPTT_INIT_SAME, 0};
        const size_t H = (size_t)spec.hidden, V = (size_t)spec.vocab;
        const double tolerance = spec.dtype == BPTT_F32 ? 4e-6 : 1e-13; /* of 2 squared */
        struct fixture f = open_on(&spec, both[_i]);
        ck_assert_double_le(off_orthogonal(&f, "W_hh", H, H, 2), tolerance);
        ck_assert_double_le(off_orthogonal(&f, "W_xh", V, H, 2), tolerance);
        ck_assert_double_le(off_orthogonal(&f, "W_hy", H, V, 2), tolerance);
        close_fixture(&f);

        spec.init = (bptt_init){BPTT_INIT_XAVIER, 1};
        spec.init_recurrent = (bptt_init){BPTT_INIT_IDENTITY, 0.75};
        f = open_on(&spec, both[_i]);
        const double bound = sqrt(6.0 / (double)(H + V));
        double largest = 0, square = 0;
        for (size_t v = 0; v < V; v++) {
            for (size_t h = 0; h < H; h++) {
                largest = fmax(largest, fabs(weight(&f, "W_xh", v, h)));
                square += pow(weight(&f, "W_hy", h, v), 2);
            }
        }
        ck_assert_double_le(largest, bound * (1 + 1e-7));
        ck_assert_double_ge(largest, bound * 0.98);
        ck_assert_double_eq_tol(square / (double)(H * V), bound * bound / 3, 0.1 * bound * bound);
        for (size_t a = 0; a < H; a++) {
            for (size_t b = 0; b < H; b++) { ck_assert_double_eq(weight(&f, "W_hh", a, b), a == b ? 0.75 : 0); }
        }
        close_fixture(&f);
    }
}
END_TEST

/* Every way for both fields, as the oracle draws them, in every unroll. */
START_TEST(test_inits_follow_the_oracle)
{
    struct tally tally = {0};
    for (int own = BPTT_INIT_SAME; own <= BPTT_INIT_IDENTITY; own++) {
        bptt_spec spec = small_spec();
        spec.init = (bptt_init){(bptt_init_kind)_i, 0.5};
        spec.init_recurrent = (bptt_init){(bptt_init_kind)own, 0.7};
        spec.unroll = unrolls[own % 3];
        follow(&spec, BPTT_BACKEND_TCC, (unsigned)_i, &tally);
        follow(&spec, BPTT_BACKEND_GENERIC, (unsigned)_i, &tally);
    }
    ck_assert_uint_eq(tally.programs, 12);
}
END_TEST

/* --- gradients of several chunks -------------------------------------------------------------------------------------------------- */

static size_t count_labels(const struct fixture *f, const uint32_t *y, size_t count)
{
    size_t labels = 0;
    for (size_t i = 0; i < count; i++) { labels += y[i] < f->net->vocab; }
    return labels;
}

/* Trains on sequences, adding up what each chunk gives by the oracle; at the updates their mean over all labels, or their sum. */
static void accumulate(const bptt_spec *spec, bptt_backend backend, const char *what)
{
    struct fixture f = open_on(spec, backend);
    double *sums = oracle_doubles(f.net->count);
    double *const moments[2] = {oracle_doubles(f.net->count), oracle_doubles(f.net->count)};
    const bool mean = spec->reduction == BPTT_MEAN;
    double labels = 0;
    int64_t units = 0;
    uint64_t updates = 0, state = 99;
    for (uint32_t n = 0; n < 5 * f.model->chunks; n++) {
        const uint32_t chunk = n % f.model->chunks;
        const size_t steps = chunk + 1 < f.model->chunks ? (size_t)spec->K : (size_t)(spec->T - chunk * spec->K);
        const size_t count = steps * (size_t)spec->batch;
        if (chunk == 0) { oracle_tokens(&state, (size_t)(spec->T * spec->batch), f.net->vocab, 3, f.x, f.y); }
        const uint32_t *x = f.x + first_of(&f, chunk), *y = f.y + first_of(&f, chunk);
        ck_assert(oracle_read(f.net, f.model, f.memory, f.model->param, f.net->params));
        ck_assert(oracle_read_state(f.net, f.model, f.memory, f.h));
        const double expected = oracle_bptt(f.net, steps, x, y, f.h, f.gradient, NULL);
        const double all = (double)count_labels(&f, y, count);
        for (size_t i = 0; i < f.net->count; i++) { sums[i] += f.gradient[i] * (mean ? all : 1); }
        labels += all;
        ck_assert_double_eq_tol(run_gradient(&f, chunk), expected, 1e-11 * (1 + expected));
        assert_gradient(&f, sums, 1e-11, what);
        ck_assert_double_eq(progress_at(&f, BPTT_LABELS), mean ? labels : progress_at(&f, BPTT_LABELS));
        units += spec->update == BPTT_UPDATE_CHUNK || chunk + 1 == f.model->chunks;
        ck_assert_int_eq(units == spec->accumulate, is_due(&f, chunk));
        if (units < spec->accumulate) { continue; }
        for (size_t i = 0; i < f.net->count; i++) { sums[i] /= mean ? labels : 1; }
        const double norm = oracle_update(spec, ++updates, f.net->count, f.net->params, sums, moments);
        ck_assert_double_eq_tol(f.model->update(f.model, f.memory), norm, 1e-11 * norm);
        assert_report(oracle_compare(f.net, f.net->params, f.model, f.memory, f.model->param), 1e-11, what, spec);
        ck_assert_double_eq(progress_at(&f, BPTT_PENDING), 0);
        ck_assert_double_eq(progress_at(&f, BPTT_UPDATES), (double)updates);
        memset(sums, 0, f.net->count * sizeof *sums);
        units = 0;
        labels = 0;
    }
    ck_assert_uint_ge(updates, 1);
    free(sums);
    free(moments[0]);
    free(moments[1]);
    close_fixture(&f);
}

START_TEST(test_accumulation)
{
    static const int64_t horizons[] = {4, 10, 3};
    for (unsigned i = 0; i < 48; i++) {
        char what[64];
        bptt_spec spec = small_spec();
        spec.T = 10;
        spec.K = horizons[i % 3]; /* 10: full BPTT */
        spec.batch = 3;
        spec.update = (bptt_update_kind)(i % 2);
        spec.accumulate = 1 + i / 2 % 3;
        if (!(spec.accumulate > 1 || (spec.update == BPTT_UPDATE_SEQUENCE && spec.K < spec.T))) { spec.accumulate = 4; }
        spec.reduction = (bptt_reduction)(i / 3 % 2);
        spec.optimizer = oracle_optimizers[i % ORACLE_OPTIMIZERS];
        spec.clip = (bptt_clip){(bptt_clip_kind)(i / 4 % 3), 0.05};
        spec.unroll = unrolls[_i % 3];
        spec.threads = spec.unroll == BPTT_UNROLL_FULL || i % 5 < 3 ? 1 : 2;
        if (spec.unroll != BPTT_UNROLL_FULL && i % 7 == 0) {
            spec.vocab = 70, spec.hidden = 33;
        } /* blocks, rows that do not occur */
        (void)snprintf(what, sizeof what, "case %u", i);
        accumulate(&spec, _i == 3 ? BPTT_BACKEND_GENERIC : BPTT_BACKEND_TCC, what);
    }
}
END_TEST

/* Frozen weights: the gradient of a sequence whose chunks are added up is the sum of the untied oracle's chunks. */
START_TEST(test_sequence_is_the_untied_sum)
{
    for (int64_t K = 1; K < 7; K++) {
        bptt_spec spec = small_spec();
        spec.hidden = 3;
        spec.T = 7;
        spec.K = K;
        spec.reduction = BPTT_SUM;
        spec.update = BPTT_UPDATE_SEQUENCE;
        spec.unroll = unrolls[_i];
        struct fixture f = open_fixture(&spec);
        double *chunks = oracle_doubles(f.model->chunks * f.net->count);
        oracle_untied(f.net, 7, (size_t)K, f.x, f.y, NULL, chunks);
        for (uint32_t c = 0; c < f.model->chunks; c++) {
            (void)run_gradient(&f, c);
            for (size_t i = 0; i < f.net->count; i++) { f.gradient[i] += chunks[c * f.net->count + i]; }
        }
        assert_gradient(&f, f.gradient, 1e-6, "sum of the untied chunks");
        free(chunks);
        close_fixture(&f);
    }
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

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    for (const char *from = path; from != NULL; from = strchr(from, ':')) {
        char file[512];
        from += *from == ':';
        (void)snprintf(file, sizeof file, "%.*s/%s", (int)strcspn(from, ":"), from, program);
        if (access(file, X_OK) == 0) { return true; }
    }
    return false;
}

/* The system's compilers: some edges and random sizes, each with another unroll and width. */
START_TEST(test_cc_follows_the_oracle)
{
    static const char *const compilers[] = {"gcc", "clang"};
    const char *compiler = compilers[_i];
    if (!in_path(compiler)) {
        ck_assert_str_ne(compiler, "gcc");
        printf("%s: not found\n", compiler);
        return;
    }
    ck_assert_int_eq(setenv("BPTT_CC", compiler, 1), 0);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", scratch_folder, 1), 0);
    struct tally tally = {0};
    for (unsigned n = 0; n < 6; n++) {
        const unsigned i = n < 3 ? 5 * n + 2 : oracle_edge_count() + n + 10 * (unsigned)_i;
        bptt_spec spec;
        oracle_random_spec(oracle_seed(), i, &spec);
        spec.dtype = n % 2 == 0 ? BPTT_F32 : BPTT_F64;
        spec.unroll = unrolls[n < 3 ? 2 - n : n % 2]; /* all loops spelled out is slow to compile: once, small */
        spec.simd = widths[n % 4] <= bptt_kernels_simd() ? widths[n % 4] : 0;
        follow(&spec, BPTT_BACKEND_CC, i, &tally);
    }
    ck_assert_uint_eq(tally.programs, 6);
    ck_assert_uint_le(tally.skipped, tally.chunks / 2);
}
END_TEST

/* --- the generated gradient by its definitions ------------------------------------------------------------------------------- */

typedef void derivative(const oracle_net *, size_t, const uint32_t *, const uint32_t *, const double *, double *);

/* Full BPTT of small nets, from a state that is not zero, against one way to compute the whole derivative. */
static void compare_whole(derivative *way, double tolerance, const char *what)
{
    for (unsigned i = 0; i < 36; i++) {
        bptt_spec spec = small_spec();
        spec.hidden = 1 + i % 4;
        spec.vocab = 2 + i % 5;
        spec.T = spec.K = 1 + i % 7;
        spec.batch = 1 + i % 3;
        spec.activation = (bptt_activation)(i / 2 % 3);
        spec.reduction = (bptt_reduction)(i % 2);
        spec.unroll = unrolls[i / 3 % 3];
        spec.simd = i % 2 == 0 ? 0 : 4;
        spec.seed = oracle_seed() + i;
        struct fixture f = open_fixture(&spec);
        for (size_t j = 0; j < f.net->batch * f.net->hidden; j++) { f.h[j] = 0.1 * (double)(j % 7) - 0.2; }
        if (oracle_nearest_kink(f.net, (size_t)spec.T, f.x, f.h) > 1e-4) {
            ck_assert(oracle_write_state(f.net, f.model, f.memory, f.h));
            const double expected = oracle_loss(f.net, (size_t)spec.T, f.x, f.y, f.h, NULL);
            ck_assert_double_eq_tol(run_gradient(&f, 0), expected, 1e-12 * (1 + expected));
            way(f.net, (size_t)spec.T, f.x, f.y, f.h, f.gradient);
            assert_gradient(&f, f.gradient, tolerance, what);
        } else {
            ck_assert_int_eq(spec.activation, BPTT_RELU);
        }
        close_fixture(&f);
    }
}

START_TEST(test_central_differences)
{
    compare_whole(oracle_central, 1e-6, "against central differences");
}
END_TEST

START_TEST(test_path_sum)
{
    compare_whole(oracle_path_sum, 1e-11, "against the path sum");
}
END_TEST

/* Frozen weights: each chunk's gradient is the untied sum over that chunk alone, whatever state the sequence began with. */
START_TEST(test_truncation_is_the_untied_sum)
{
    const int64_t T = 7;
    for (int64_t K = 1; K <= T; K++) {
        bptt_spec spec = small_spec();
        spec.hidden = 3;
        spec.T = T;
        spec.K = K;
        spec.activation = (bptt_activation)_i;
        spec.reduction = K % 2 == 0 ? BPTT_SUM : BPTT_MEAN;
        spec.unroll = unrolls[K % 3];
        struct fixture f = open_fixture(&spec);
        f.y[3] = UINT32_MAX;
        for (size_t i = 0; i < f.net->batch * f.net->hidden; i++) { f.h[i] = 0.1 * (double)i; }
        ck_assert_double_gt(oracle_nearest_kink(f.net, (size_t)T, f.x, f.h), 1e-4);
        double *untied = oracle_doubles((size_t)T * f.net->count);
        oracle_untied(f.net, (size_t)T, (size_t)K, f.x, f.y, f.h, untied);
        ck_assert(oracle_write_state(f.net, f.model, f.memory, f.h));
        ck_assert_int_eq(f.model->chunks, (T + K - 1) / K);
        for (uint32_t chunk = 0; chunk < f.model->chunks; chunk++) {
            (void)run_gradient(&f, chunk);
            assert_gradient(&f, untied + chunk * f.net->count, 1e-7, "against the untied sum");
        }
        free(untied);
        close_fixture(&f);
    }
}
END_TEST

/* The comparison notices when h_t -> h_{t-1} is cut from the backward pass, in the tensors that the edge reaches and no others. */
START_TEST(test_a_cut_edge_is_noticed)
{
    EACH(u, unrolls)
    {
        bptt_spec spec = small_spec();
        spec.unroll = unrolls[u];
        struct fixture f = open_fixture(&spec);
        (void)run_gradient(&f, 0);
        (void)oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
        assert_gradient(&f, f.gradient, 1e-12, "whole");
        f.net->cut = true;
        (void)oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
        const oracle_report report = oracle_compare(f.net, f.gradient, f.model, f.memory, f.model->grad);
        for (size_t i = 0; i < ORACLE_TENSORS; i++) {
            const bool output = strcmp(f.net->tensors[i].name, "W_hy") == 0 || strcmp(f.net->tensors[i].name, "b_y") == 0;
            ck_assert_msg(output ? report.error[i] < 1e-12 : report.error[i] > 1e-3, "%s is off by %g", f.net->tensors[i].name,
                          report.error[i]);
        }
        close_fixture(&f);
    }
}
END_TEST

/* The textbook's figures: 0.9 * 0.8 a step leaves 0.373 after 3 steps, 0.0019 after 19, 1e-14 after 99. */
START_TEST(test_vanishing_gradient)
{
    EACH(u, unrolls)
    {
        for (int dtype = BPTT_F32; dtype <= BPTT_F64; dtype++) {
            bptt_spec spec;
            oracle_vanishing_spec(&spec);
            spec.dtype = (bptt_dtype)dtype;
            spec.unroll = unrolls[u];
            struct fixture f;
            if (!try_fixture(&f, &spec, BPTT_BACKEND_TCC)) { continue; }
            oracle_vanishing_case(f.net, f.x, f.y);
            set_params(&f);
            (void)run_gradient(&f, 0);
            ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
            ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 3), 0.373, 0.0005);
            ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 19), 0.0019, 0.00005);
            ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 99), 1e-14, 0.3e-14);
            for (size_t k = 0; k < ORACLE_VANISHING_STEPS; k++) {
                const double ratio = oracle_vanishing_ratio(f.net, f.gradient, k) / pow(0.72, (double)k);
                ck_assert_double_eq_tol(ratio, 1, dtype == BPTT_F64 ? 1e-12 : 1e-4);
            }
            close_fixture(&f);
        }
    }
}
END_TEST

/* --- properties --------------------------------------------------------------------------------------------------------------------- */

START_TEST(test_zero_weights_give_ln_v)
{
    for (int i = 0; i < 12; i++) {
        bptt_spec spec = small_spec();
        spec.vocab = 2 + 13 * i;
        spec.dtype = (bptt_dtype)(i % 2);
        spec.reduction = (bptt_reduction)(i / 2 % 2);
        spec.activation = (bptt_activation)(i % 3);
        spec.unroll = unrolls[i / 4];
        spec.init.scale = 0;
        struct fixture f = open_fixture(&spec);
        const double labels = spec.reduction == BPTT_SUM ? 8 : 1, expected = labels * log((double)spec.vocab);
        const double tolerance = (spec.dtype == BPTT_F64 ? 1e-13 : 1e-6) * expected;
        ck_assert_double_eq_tol(run_loss(&f, 0), expected, tolerance);
        ck_assert_double_eq_tol(run_gradient(&f, 1), expected, tolerance);
        close_fixture(&f);
    }
}
END_TEST

/* Forward: T steps at once are twice T / 2 steps with the state carried, loss and state. */
START_TEST(test_halves_make_the_whole)
{
    bptt_spec spec = small_spec();
    spec.K = spec.T;
    spec.reduction = BPTT_SUM;
    struct fixture whole = open_fixture(&spec);
    spec.K = spec.T = 4;
    struct fixture halves = open_fixture(&spec);
    const double expected = run_loss(&whole, 0),
                 first = halves.model->loss(halves.model, halves.memory, &(bptt_rows){.x = whole.x, .y = whole.y}, 0),
                 second = halves.model->loss(halves.model, halves.memory, &(bptt_rows){.x = whole.x + 8, .y = whole.y + 8}, 0);
    ck_assert_double_eq_tol(first + second, expected, 1e-13 * expected);
    ck_assert(oracle_read_state(whole.net, whole.model, whole.memory, whole.h));
    ck_assert(oracle_read_state(halves.net, halves.model, halves.memory, halves.h));
    ck_assert_mem_eq(whole.h, halves.h, 10 * sizeof *whole.h);
    close_fixture(&whole);
    close_fixture(&halves);
}
END_TEST

/* Training: a sequence of two chunks is two sequences of one chunk with the state carried, bit for bit. */
START_TEST(test_two_chunks_are_two_sequences)
{
    for (int kind = 0; kind < ORACLE_OPTIMIZERS; kind++) {
        bptt_spec spec = small_spec();
        spec.optimizer = oracle_optimizers[kind];
        struct fixture one = open_fixture(&spec);
        spec.T = spec.K;
        struct fixture two = open_fixture(&spec);
        for (uint32_t n = 0; n < 6; n++) {
            const size_t first = first_of(&one, n % 2);
            const double expected = run_gradient(&one, n % 2);
            ck_assert_double_eq(
                two.model->gradient(two.model, two.memory, &(bptt_rows){.x = one.x + first, .y = one.y + first}, 0), expected);
            ck_assert_double_eq(two.model->update(two.model, two.memory), one.model->update(one.model, one.memory));
        }
        assert_same_training(&one, &two);
        close_fixture(&one);
        close_fixture(&two);
    }
}
END_TEST

/* 2N updates are N, save, load into another program, N, bit for bit; N ends inside a sequence. */
static void resume(const bptt_spec *spec)
{
    enum { N = 5 };
    const char *path = scratch("resume.safetensors");
    bptt_error error = {""};
    double expected[2 * N], losses[2 * N];
    struct fixture whole = open_fixture(spec), part = open_fixture(spec);
    train(&whole, 0, 2 * N, expected);
    train(&part, 0, N, losses);
    const bptt_cursor saved = {.step = N, .chunk = N % part.model->chunks, .position = 17, .tokens = 99};
    ck_assert_msg(bptt_checkpoint_save(path, &part.spec, part.model, part.memory, &saved, &error) == BPTT_OK, "%s", error.text);
    close_fixture(&part);

    bptt_spec read;
    bptt_cursor cursor;
    ck_assert_msg(bptt_checkpoint_spec(path, &read, &error) == BPTT_OK, "%s", error.text);
    part = open_fixture(&read);
    bptt_spec_free(&read);
    part.model->init(part.model, part.memory, spec->seed + 1);
    ck_assert_msg(bptt_checkpoint_load(path, &part.spec, part.model, part.memory, &cursor, &error) == BPTT_OK, "%s", error.text);
    ck_assert_uint_eq(cursor.step, N);
    train(&part, (uint32_t)cursor.chunk, N, losses + N);
    ck_assert_mem_eq(losses, expected, sizeof losses);
    assert_same_training(&whole, &part);
    close_fixture(&whole);
    close_fixture(&part);
    ck_assert_int_eq(unlink(path), 0);
}

START_TEST(test_resume_is_exact)
{
    for (int dtype = BPTT_F32; dtype <= BPTT_F64; dtype++) {
        bptt_spec spec = small_spec();
        spec.T = 10; /* chunks of 4, 4 and 2 */
        spec.dtype = (bptt_dtype)dtype;
        spec.optimizer = oracle_optimizers[_i];
        spec.clip = (bptt_clip){BPTT_CLIP_NORM, 0.5};
        resume(&spec);
        spec.hidden = 17;
        spec.carry = false;
        spec.unroll = BPTT_UNROLL_NONE;
        spec.schedule = (bptt_schedule){.kind = BPTT_SCHEDULE_PLATEAU, .factor = 0.5, .threshold = 0.5, .warmup = 3};
        resume(&spec);
        spec.accumulate = 3; /* N = 5 chunks: in the middle of a group */
        resume(&spec);
        spec.schedule = (bptt_schedule){.kind = BPTT_SCHEDULE_CONSTANT};
        spec.update = BPTT_UPDATE_SEQUENCE;
        spec.accumulate = 1 + dtype;
        resume(&spec);
    }
}
END_TEST

/* --- the same bits -------------------------------------------------------------------------------------------------------------------- */

/* Loops over time and a line for each step are the same arithmetic; sums spelled out may round otherwise. */
START_TEST(test_unrolls_agree)
{
    unsigned spelled = 0;
    for (unsigned i = 0; i < oracle_edge_count() + RANDOM_SPECS; i++) {
        bptt_spec spec;
        double losses[3][8];
        struct fixture f[3] = {{.model = NULL}};
        oracle_random_spec(oracle_seed(), i, &spec);
        spec.simd = 0;
        EACH(u, unrolls)
        {
            spec.unroll = unrolls[u];
            if (!try_fixture(&f[u], &spec, BPTT_BACKEND_TCC)) {
                ck_assert_uint_eq(u, 2);
                continue;
            }
            train(&f[u], 0, 8, losses[u]);
        }
        ck_assert_mem_eq(losses[0], losses[1], sizeof losses[0]);
        assert_same_training(&f[0], &f[1]);
        close_fixture(&f[0]);
        close_fixture(&f[1]);
        if (f[2].model == NULL) { continue; }
        spelled++;
        for (size_t n = 0; n < 8; n++) {
            const double tolerance = (spec.dtype == BPTT_F64 ? 1e-8 : 1e-2) * (1 + losses[0][n]);
            ck_assert_double_eq_tol(losses[0][n], losses[2][n], tolerance);
        }
        close_fixture(&f[2]);
    }
    ck_assert_uint_ge(spelled, oracle_edge_count() / 2);
}
END_TEST

START_TEST(test_runs_repeat_bit_for_bit)
{
    for (unsigned i = 0; i < 20; i++) {
        bptt_spec spec;
        double losses[2][8];
        oracle_random_spec(oracle_seed(), oracle_edge_count() + i, &spec);
        spec.unroll = BPTT_UNROLL_AUTO;
        spec.simd = 0;
        struct fixture a = open_fixture(&spec), b = open_fixture(&spec);
        train(&a, 0, 8, losses[0]);
        memset(b.memory, 0xA5, b.model->bytes); /* init leaves nothing of what was there */
        b.model->init(b.model, b.memory, b.spec.seed);
        train(&b, 0, 8, losses[1]);
        ck_assert_mem_eq(losses[0], losses[1], sizeof losses[0]);
        ck_assert_mem_eq(a.memory, b.memory, a.model->bytes);
        close_fixture(&a);
        close_fixture(&b);
    }
}
END_TEST

/* --- labels and tokens ------------------------------------------------------------------------------------------------------------------- */

/* A label of V or more counts for nothing, whichever it is; the mean is over those that count. */
START_TEST(test_ignored_labels)
{
    for (int i = 0; i < 12; i++) {
        bptt_spec spec = small_spec();
        spec.reduction = (bptt_reduction)(i % 2);
        spec.dtype = (bptt_dtype)(i / 2 % 2);
        spec.unroll = unrolls[i / 4];
        struct fixture f = open_fixture(&spec), g = open_fixture(&spec);
        for (size_t k = 0; k < 8; k += 3) {
            f.y[k] = UINT32_MAX;
            g.y[k] = (uint32_t)spec.vocab;
        }
        const double loss = run_gradient(&f, 0), expected = oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
        ck_assert_double_eq(run_gradient(&g, 0), loss);
        ck_assert_mem_eq(f.memory, g.memory, f.model->bytes);
        ck_assert_double_eq_tol(loss, expected, spec.dtype == BPTT_F64 ? 1e-13 : 1e-5);
        assert_gradient(&f, f.gradient, spec.dtype == BPTT_F64 ? 1e-12 : 1e-4, "some labels");

        for (size_t k = 8; k < 16; k++) { f.y[k] = UINT32_MAX - (uint32_t)k; }
        ck_assert_double_eq(run_gradient(&f, 1), 0);
        ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
        for (size_t k = 0; k < f.net->count; k++) { ck_assert_double_eq(f.gradient[k], 0); }
        close_fixture(&f);
        close_fixture(&g);
    }
}
END_TEST

/* The last token, as input and as label, at vocabularies about the vector's width: no other row of W_xh gets a gradient. */
START_TEST(test_last_token)
{
    static const int64_t vocabs[] = {2, 15, 16, 17, 31, 32, 33, 65, 257};
    EACH(v, vocabs)
    {
        EACH(u, unrolls)
        {
            bptt_spec spec = small_spec();
            spec.vocab = vocabs[v];
            spec.unroll = unrolls[u];
            struct fixture f;
            if (!try_fixture(&f, &spec, BPTT_BACKEND_TCC)) { continue; }
            const size_t H = f.net->hidden, last = f.net->vocab - 1;
            for (size_t k = 0; k < 16; k++) { f.x[k] = f.y[k] = (uint32_t)last; }
            (void)run_gradient(&f, 0);
            (void)oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
            assert_gradient(&f, f.gradient, 1e-12, "last token");
            ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
            for (size_t k = 0; k < last * H; k++) { ck_assert_double_eq(f.gradient[k], 0); }
            ck_assert_double_ne(f.gradient[last * H], 0);
            ck_assert(isfinite(f.model->update(f.model, f.memory)));
            ck_assert(oracle_padding_clean(f.model, f.memory, f.model->param));
            close_fixture(&f);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proof");
    TCase *tcase = tcase_create("generated code");
    tcase_set_timeout(tcase, 600); /* under valgrind */
    tcase_add_unchecked_fixture(tcase, scratch_open, remove_all);
    tcase_add_loop_test(tcase, test_tcc_follows_the_oracle, 0, sizeof widths / sizeof widths[0]);
    tcase_add_test(tcase, test_large_nets_follow_the_oracle);
    tcase_add_loop_test(tcase, test_cc_follows_the_oracle, 0, 2);
    tcase_add_test(tcase, test_central_differences);
    tcase_add_test(tcase, test_path_sum);
    tcase_add_loop_test(tcase, test_truncation_is_the_untied_sum, 0, BPTT_SIGMOID + 1);
    tcase_add_test(tcase, test_a_cut_edge_is_noticed);
    tcase_add_test(tcase, test_vanishing_gradient);
    tcase_add_test(tcase, test_zero_weights_give_ln_v);
    tcase_add_test(tcase, test_halves_make_the_whole);
    tcase_add_test(tcase, test_two_chunks_are_two_sequences);
    tcase_add_loop_test(tcase, test_forms_of_rules_follow_the_oracle, 0, ORACLE_FORMS);
    tcase_add_loop_test(tcase, test_accumulation, 0, 4);
    tcase_add_loop_test(tcase, test_sequence_is_the_untied_sum, 0, 3);
    tcase_add_loop_test(tcase, test_first_weights, 0, 2);
    tcase_add_loop_test(tcase, test_inits_follow_the_oracle, BPTT_INIT_UNIFORM, BPTT_INIT_IDENTITY + 1);
    tcase_add_test(tcase, test_schedule_values);
    tcase_add_test(tcase, test_constant_rate_is_the_specs);
    tcase_add_test(tcase, test_plateau);
    tcase_add_loop_test(tcase, test_resume_is_exact, 0, ORACLE_OPTIMIZERS);
    tcase_add_test(tcase, test_unrolls_agree);
    tcase_add_test(tcase, test_runs_repeat_bit_for_bit);
    tcase_add_test(tcase, test_ignored_labels);
    tcase_add_test(tcase, test_last_token);
    suite_add_tcase(suite, tcase);
    printf("seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
