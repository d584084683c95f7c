/* test_generic.c: the oracles against each other, and the generic loops against the oracles.
 *
 * First the ladder of design.md section 6 among the oracles themselves, then runtime/generic.c on random sizes and the edges, then
 * properties that need no reference.  BPTT_TEST_SEED chooses other random cases.
 */
#include "../runtime/generic.h"
#include "oracle.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A spec, its generic model and an oracle net, with tokens for one sequence. */
struct fixture {
    bptt_spec spec;
    const bptt_model *model;
    void *memory;
    oracle_net *net;
    double *gradient, *h;
    uint32_t *x, *y;
};

static struct fixture open_fixture(const bptt_spec *spec)
{
    struct fixture f = {.spec = *spec, .model = bptt_generic_new(spec), .net = oracle_net_new(spec)};
    const size_t tokens = (size_t)(spec->T * spec->batch);
    ck_assert_ptr_nonnull(f.model);
    f.memory = oracle_memory_new(f.model);
    f.gradient = oracle_doubles(f.net->count);
    f.h = oracle_doubles((size_t)(spec->batch * spec->hidden));
    f.x = calloc(tokens, sizeof *f.x);
    f.y = calloc(tokens, sizeof *f.y);
    ck_assert(f.x != NULL && f.y != NULL);
    uint64_t state = spec->seed;
    oracle_tokens(&state, tokens, f.net->vocab, 0, f.x, f.y);
    f.model->init(f.model, f.memory, spec->seed);
    oracle_init(f.net, spec, spec->seed, f.net->params);
    return f;
}

static void close_fixture(struct fixture *f)
{
    bptt_generic_free(f->model);
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
                       .digest = "0",
                       .hidden = 5,
                       .vocab = 6,
                       .T = 8,
                       .K = 4,
                       .batch = 2,
                       .dtype = BPTT_F64,
                       .carry = true,
                       .optimizer = {.kind = BPTT_SGD, .rate = 0.1},
                       .init = {BPTT_INIT_UNIFORM, 0.6},
                       .seed = 7};
}

static double run_gradient(const struct fixture *f, uint32_t chunk)
{
    const size_t first = (size_t)(chunk * f->spec.K * f->spec.batch);
    return f->model->gradient(f->model, f->memory, &(bptt_rows){.x = f->x + first, .y = f->y + first}, chunk);
}

static double run_loss(const struct fixture *f, uint32_t chunk)
{
    const size_t first = (size_t)(chunk * f->spec.K * f->spec.batch);
    return f->model->loss(f->model, f->memory, &(bptt_rows){.x = f->x + first, .y = f->y + first}, chunk);
}

static void assert_report(oracle_report report, double tolerance, const char *what, uint64_t seed, unsigned i)
{
    ck_assert_msg(report.worst <= tolerance, "%s: %s is off by %g (seed %llu, case %u)", what, report.tensor, report.worst,
                  (unsigned long long)seed, i);
}

/* ---- the oracles against each other ---- */

/* A small random net with random weights, biases and h0, away from relu's kink. */
struct small {
    oracle_net *net;
    size_t T, K;
    double *h0, *a, *b;
    uint32_t *x, *y;
};

static struct small open_small(uint64_t seed, unsigned i)
{
    bptt_spec spec;
    oracle_random_spec(seed, i, &spec);
    spec.hidden = 1 + spec.hidden % 4;
    spec.vocab = 2 + spec.vocab % 4;
    spec.T = 1 + spec.T % 7;
    spec.K = 1 + spec.K % spec.T;
    spec.activation = (bptt_activation)(i % 3);
    struct small s = {.net = oracle_net_new(&spec), .T = (size_t)spec.T, .K = (size_t)spec.K};
    const size_t tokens = s.T * s.net->batch, states = s.net->batch * s.net->hidden;
    s.h0 = oracle_doubles(states);
    s.a = oracle_doubles(s.T * s.net->count);
    s.b = oracle_doubles(s.T * s.net->count);
    s.x = calloc(tokens, sizeof *s.x);
    s.y = calloc(tokens, sizeof *s.y);
    ck_assert(s.x != NULL && s.y != NULL);
    uint64_t state = spec.seed;
    do {
        oracle_tokens(&state, tokens, s.net->vocab, 4, s.x, s.y);
        for (size_t k = 0; k < s.net->count; k++) { s.net->params[k] = ldexp((double)(oracle_random(&state) >> 11), -53) - 0.5; }
        for (size_t k = 0; k < states; k++) { s.h0[k] = ldexp((double)(oracle_random(&state) >> 11), -53); }
    } while (oracle_nearest_kink(s.net, s.T, s.x, s.h0) < 1e-4);
    return s;
}

static void close_small(struct small *s)
{
    oracle_net_free(s->net);
    free(s->h0);
    free(s->a);
    free(s->b);
    free(s->x);
    free(s->y);
}

START_TEST(test_bptt_is_the_derivative)
{
    const uint64_t seed = oracle_seed();
    for (unsigned i = 0; i < 60; i++) {
        struct small s = open_small(seed, i);
        const double loss = oracle_bptt(s.net, s.T, s.x, s.y, s.h0, s.a, NULL);
        ck_assert_double_eq(loss, oracle_loss(s.net, s.T, s.x, s.y, s.h0, NULL));
        oracle_central(s.net, s.T, s.x, s.y, s.h0, s.b);
        assert_report(oracle_compare_flat(s.net, s.a, s.b), 1e-6, "BPTT against central differences", seed, i);
        close_small(&s);
    }
}
END_TEST

START_TEST(test_bptt_is_the_path_sum)
{
    const uint64_t seed = oracle_seed();
    for (unsigned i = 0; i < 60; i++) {
        struct small s = open_small(seed, i);
        (void)oracle_bptt(s.net, s.T, s.x, s.y, s.h0, s.a, NULL);
        oracle_path_sum(s.net, s.T, s.x, s.y, s.h0, s.b);
        assert_report(oracle_compare_flat(s.net, s.a, s.b), 1e-12, "BPTT against the path sum", seed, i);
        close_small(&s);
    }
}
END_TEST

/* BPTT chunk by chunk, the state carried, is the truncated gradient by definition. */
START_TEST(test_chunks_are_the_untied_sum)
{
    const uint64_t seed = oracle_seed();
    for (unsigned i = 0; i < 45; i++) {
        struct small s = open_small(seed, i);
        const size_t B = s.net->batch;
        oracle_untied(s.net, s.T, s.K, s.x, s.y, s.h0, s.b);
        for (size_t first = 0; first < s.T; first += s.K) {
            const size_t steps = s.T - first < s.K ? s.T - first : s.K;
            (void)oracle_bptt(s.net, steps, s.x + first * B, s.y + first * B, s.h0, s.a, s.h0);
            assert_report(oracle_compare_flat(s.net, s.a, s.b + first / s.K * s.net->count), 1e-6, "chunk against untied", seed,
                          i);
        }
        close_small(&s);
    }
}
END_TEST

/* The untied oracle can tell: with a loss on step 2 alone, K = 1 keeps less than K = 2. */
START_TEST(test_untied_tells_truncation)
{
    bptt_spec spec = small_spec();
    spec.batch = 1;
    oracle_net *net = oracle_net_new(&spec);
    oracle_init(net, &spec, 3, net->params);
    const uint32_t x[] = {0, 1}, y[] = {UINT32_MAX, 2};
    double *full = oracle_doubles(net->count), *cut = oracle_doubles(2 * net->count), *central = oracle_doubles(net->count);
    oracle_untied(net, 2, 2, x, y, NULL, full);
    oracle_untied(net, 2, 1, x, y, NULL, cut);
    oracle_central(net, 2, x, y, NULL, central);
    assert_report(oracle_compare_flat(net, central, full), 1e-8, "K = T", 0, 0);
    const size_t row = oracle_index(net, "W_xh", 0, 0);
    ck_assert_double_gt(fabs(full[row]), 1e-3);
    ck_assert_double_eq(cut[row], 0);
    ck_assert_double_eq(cut[net->count + row], 0);
    free(full);
    free(cut);
    free(central);
    oracle_net_free(net);
}
END_TEST

static void no_refresh(const bptt_model *self, void *memory)
{
    (void)self;
    (void)memory;
}

/* Emitted models pad their rows: the oracle reads and writes through the table alone, and sees dirt between the rows. */
START_TEST(test_padded_tables)
{
    bptt_spec spec = small_spec();
    oracle_net *net = oracle_net_new(&spec);
    bptt_tensor tensors[] = {{.name = "W_hy", .rows = 5, .cols = 6, .stride = 8, .offset = 0},
                             {.name = "W_xh", .rows = 6, .cols = 5, .stride = 8, .offset = 40},
                             {.name = "W_hh", .rows = 5, .cols = 5, .stride = 8, .offset = 88},
                             {.name = "b_h", .rows = 1, .cols = 5, .stride = 8, .offset = 128},
                             {.name = "b_y", .rows = 1, .cols = 6, .stride = 8, .offset = 136}};
    const bptt_model model = {
        .real_size = 4, .block = 144, .tensor_count = 5, .tensors = tensors, .param = 64, .refresh = no_refresh};
    float memory[16 + 144] = {0};
    double *flat = oracle_doubles(net->count);
    for (size_t i = 0; i < net->count; i++) { flat[i] = (double)(i + 1); }
    ck_assert(oracle_write(net, &model, memory, model.param, flat));
    ck_assert_double_eq((double)memory[16 + 88 + 2 * 8 + 3], flat[oracle_index(net, "W_hh", 2, 3)]);
    ck_assert_double_eq(oracle_compare(net, flat, &model, memory, model.param).worst, 0);
    ck_assert(oracle_padding_clean(&model, memory, model.param));
    memory[16 + 88 + 2 * 8 + 5] = 1;
    ck_assert(!oracle_padding_clean(&model, memory, model.param));

    memory[16 + 128] = NAN;
    const oracle_report report = oracle_compare(net, flat, &model, memory, model.param);
    ck_assert_str_eq(report.tensor, "b_h");
    ck_assert(isinf(report.worst));
    tensors[1].rows = 5;
    ck_assert(isinf(oracle_compare(net, flat, &model, memory, model.param).worst));
    free(flat);
    oracle_net_free(net);
}
END_TEST

/* ---- generic against the oracles ---- */

static void follow_all(bptt_dtype dtype, double tolerance)
{
    const uint64_t seed = oracle_seed();
    unsigned chunks = 0, skipped = 0;
    for (unsigned i = 0; i < oracle_edge_count() + 120; i++) {
        bptt_spec spec;
        oracle_random_spec(seed, i, &spec);
        spec.dtype = dtype;
        const bptt_model *model = bptt_generic_new(&spec);
        ck_assert_ptr_nonnull(model);
        void *memory = oracle_memory_new(model);
        const oracle_verdict verdict = oracle_follow(&spec, model, memory, spec.seed, 2);
        ck_assert_msg(verdict.worst <= tolerance, "seed %llu case %u: %s is off by %g", (unsigned long long)seed, i,
                      verdict.where, verdict.worst);
        chunks += verdict.chunks;
        skipped += verdict.skipped;
        free(memory);
        bptt_generic_free(model);
    }
    ck_assert_uint_lt(skipped, chunks / 10);
}

START_TEST(test_f64_follows_the_oracle)
{
    follow_all(BPTT_F64, 1e-12);
}
END_TEST

START_TEST(test_f32_follows_the_oracle)
{
    follow_all(BPTT_F32, 2e-4);
}
END_TEST

/* Frozen weights: every chunk's gradient is the untied sum over that chunk, whatever state the sequence began with. */
START_TEST(test_chunks_follow_the_untied_oracle)
{
    for (int activation = 0; activation <= BPTT_SIGMOID; activation++) {
        for (int64_t K = 1; K <= 7; K++) {
            bptt_spec spec = small_spec();
            spec.hidden = 3;
            spec.T = 7;
            spec.K = K;
            spec.activation = (bptt_activation)activation;
            spec.reduction = K % 2 == 0 ? BPTT_SUM : BPTT_MEAN;
            struct fixture f = open_fixture(&spec);
            f.y[3] = UINT32_MAX;
            for (size_t i = 0; i < f.net->batch * f.net->hidden; i++) { f.h[i] = 0.1 * (double)i; }
            ck_assert_double_gt(oracle_nearest_kink(f.net, 7, f.x, f.h), 1e-4);
            double *untied = oracle_doubles(7 * f.net->count);
            oracle_untied(f.net, 7, (size_t)K, f.x, f.y, f.h, untied);
            ck_assert(oracle_write_state(f.net, f.model, f.memory, f.h));
            for (uint32_t chunk = 0; chunk < f.model->chunks; chunk++) {
                (void)run_gradient(&f, chunk);
                assert_report(oracle_compare(f.net, untied + chunk * f.net->count, f.model, f.memory, f.model->grad), 1e-7,
                              "generic against untied", spec.seed, (unsigned)K);
            }
            free(untied);
            close_fixture(&f);
        }
    }
}
END_TEST

/* The suite notices when h_t -> h_{t-1} is cut from the backward pass. */
START_TEST(test_a_cut_edge_is_noticed)
{
    bptt_spec spec = small_spec();
    struct fixture f = open_fixture(&spec);
    (void)run_gradient(&f, 0);
    (void)oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
    assert_report(oracle_compare(f.net, f.gradient, f.model, f.memory, f.model->grad), 1e-12, "whole", spec.seed, 0);
    f.net->cut = true;
    (void)oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL);
    const oracle_report report = oracle_compare(f.net, f.gradient, f.model, f.memory, f.model->grad);
    ck_assert_double_gt(report.error[0], 1e-3); /* W_xh, W_hh, b_h differ ... */
    ck_assert_double_gt(report.error[1], 1e-3);
    ck_assert_double_gt(report.error[2], 1e-3);
    ck_assert_double_lt(report.error[3], 1e-12); /* ... the output layer does not see the edge */
    ck_assert_double_lt(report.error[4], 1e-12);
    close_fixture(&f);
}
END_TEST

/* Five updates on the oracle's own track, never corrected from the model's values. */
START_TEST(test_five_updates)
{
    for (int kind = 0; kind < ORACLE_OPTIMIZERS; kind++) {
        bptt_spec spec = small_spec();
        spec.optimizer = oracle_optimizers[kind];
        struct fixture f = open_fixture(&spec);
        double *const moments[2] = {oracle_doubles(f.net->count), oracle_doubles(f.net->count)};
        for (unsigned n = 1; n <= 5; n++) {
            const size_t first = n % 2 == 1 ? 0 : 8;
            const double loss = run_gradient(&f, (n - 1) % 2), norm = f.model->update(f.model, f.memory);
            const double expected = oracle_bptt(f.net, 4, f.x + first, f.y + first, f.h, f.gradient, f.h);
            ck_assert_double_eq_tol(loss, expected, 1e-11);
            ck_assert_double_eq_tol(norm, oracle_update(&spec, n, f.net->count, f.net->params, f.gradient, moments), 1e-11);
            assert_report(oracle_compare(f.net, f.net->params, f.model, f.memory, f.model->param), 1e-9, "parameters", n,
                          (unsigned)kind);
        }
        free(moments[0]);
        free(moments[1]);
        close_fixture(&f);
    }
}
END_TEST

/* ---- properties of generic ---- */

START_TEST(test_vanishing_gradient)
{
    for (int dtype = BPTT_F32; dtype <= BPTT_F64; dtype++) {
        bptt_spec spec;
        oracle_vanishing_spec(&spec);
        spec.dtype = (bptt_dtype)dtype;
        struct fixture f = open_fixture(&spec);
        oracle_vanishing_case(f.net, f.x, f.y);
        ck_assert(oracle_write(f.net, f.model, f.memory, f.model->param, f.net->params));
        (void)run_gradient(&f, 0);
        ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
        ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 3), 0.373, 0.0005);
        ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 19), 0.0019, 0.00005);
        ck_assert_double_eq_tol(oracle_vanishing_ratio(f.net, f.gradient, 99), 1e-14, 0.3e-14);
        for (size_t k = 0; k < 100; k++) {
            const double ratio = oracle_vanishing_ratio(f.net, f.gradient, k) / pow(0.72, (double)k);
            ck_assert_double_eq_tol(ratio, 1, dtype == BPTT_F64 ? 1e-12 : 1e-4);
        }
        close_fixture(&f);
    }
}
END_TEST

START_TEST(test_zero_weights_give_ln_v)
{
    for (int activation = 0; activation <= BPTT_SIGMOID; activation++) {
        bptt_spec spec = small_spec();
        spec.activation = (bptt_activation)activation;
        spec.init.scale = 0;
        struct fixture f = open_fixture(&spec);
        ck_assert_double_eq_tol(run_loss(&f, 0), log(6), 1e-15);
        close_fixture(&f);
        spec.reduction = BPTT_SUM;
        f = open_fixture(&spec);
        ck_assert_double_eq_tol(run_gradient(&f, 1), 8 * log(6), 1e-13);
        close_fixture(&f);
    }
}
END_TEST

START_TEST(test_ignored_labels)
{
    bptt_spec spec = small_spec();
    struct fixture f = open_fixture(&spec);
    const double one_all = run_gradient(&f, 0);
    ck_assert_double_gt(one_all, 0);
    /* No label at all: no loss, no gradient, but the state moves as before. */
    double *moved = oracle_doubles(10);
    ck_assert(oracle_read_state(f.net, f.model, f.memory, moved));
    f.model->reset(f.model, f.memory);
    for (size_t i = 0; i < 8; i++) { f.y[i] = i % 2 == 0 ? 6 : UINT32_MAX; }
    ck_assert_double_eq(run_gradient(&f, 0), 0);
    ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
    for (size_t i = 0; i < f.net->count; i++) { ck_assert_double_eq(f.gradient[i], 0); }
    ck_assert(oracle_read_state(f.net, f.model, f.memory, f.h));
    ck_assert_mem_eq(f.h, moved, 10 * sizeof *moved);
    /* One label: the mean is that label's loss, and the gradient comes from it alone. */
    f.model->reset(f.model, f.memory);
    f.y[5] = 3;
    ck_assert_double_eq_tol(run_gradient(&f, 0), oracle_bptt(f.net, 4, f.x, f.y, NULL, f.gradient, NULL), 1e-13);
    assert_report(oracle_compare(f.net, f.gradient, f.model, f.memory, f.model->grad), 1e-12, "one label", spec.seed, 0);
    ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
    double sum = 0;
    for (size_t v = 0; v < 6; v++) { sum += f.gradient[oracle_index(f.net, "b_y", 0, v)]; }
    ck_assert_double_eq_tol(sum, 0, 1e-15);
    ck_assert_double_lt(f.gradient[oracle_index(f.net, "b_y", 0, 3)], -0.5);
    free(moved);
    close_fixture(&f);
}
END_TEST

START_TEST(test_rows_of_absent_tokens_get_nothing)
{
    bptt_spec spec = small_spec();
    struct fixture f = open_fixture(&spec);
    for (size_t i = 0; i < 8; i++) { f.x[i] = i % 2 == 0 ? 1 : 4; }
    (void)run_gradient(&f, 0);
    ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
    for (size_t token = 0; token < 6; token++) {
        for (size_t j = 0; j < 5; j++) {
            const double g = f.gradient[oracle_index(f.net, "W_xh", token, j)];
            ck_assert((g != 0) == (token == 1 || token == 4));
        }
    }
    close_fixture(&f);
}
END_TEST

/* One sequence of 2n steps, whole, in two chunks, and as two sequences of n with the state carried: one loss, one final state. */
START_TEST(test_split_with_carried_state)
{
    bptt_spec spec = small_spec();
    spec.reduction = BPTT_SUM;
    struct fixture chunks = open_fixture(&spec);
    spec.K = 8;
    struct fixture whole = open_fixture(&spec);
    spec.T = spec.K = 4;
    struct fixture halves = open_fixture(&spec);
    const double expected = run_loss(&whole, 0), first = run_loss(&chunks, 0);
    ck_assert_double_eq_tol(first + run_loss(&chunks, 1), expected, 1e-12);
    ck_assert_double_eq(halves.model->loss(halves.model, halves.memory, &(bptt_rows){.x = whole.x, .y = whole.y}, 0), first);
    ck_assert_double_eq_tol(
        first + halves.model->loss(halves.model, halves.memory, &(bptt_rows){.x = whole.x + 8, .y = whole.y + 8}, 0), expected,
        1e-12);

    const size_t bytes = 10 * sizeof(double);
    ck_assert(oracle_read_state(whole.net, whole.model, whole.memory, whole.h));
    ck_assert(oracle_read_state(chunks.net, chunks.model, chunks.memory, chunks.h));
    ck_assert(oracle_read_state(halves.net, halves.model, halves.memory, halves.h));
    ck_assert_mem_eq(chunks.h, whole.h, bytes);
    ck_assert_mem_eq(halves.h, whole.h, bytes);
    close_fixture(&chunks);
    close_fixture(&whole);
    close_fixture(&halves);
}
END_TEST

/* carry = false: chunk 0 begins at zero, chunk 1 goes on from chunk 0 all the same. */
START_TEST(test_carry)
{
    bptt_spec spec = small_spec();
    struct fixture on = open_fixture(&spec);
    spec.carry = false;
    struct fixture off = open_fixture(&spec);
    const double first = run_loss(&off, 0), second = run_loss(&off, 1);
    ck_assert_double_eq(run_loss(&off, 0), first);
    ck_assert_double_eq(run_gradient(&off, 1), second);
    ck_assert_double_eq(run_gradient(&off, 0), first);
    off.model->reset(off.model, off.memory);
    ck_assert_double_ne(run_loss(&off, 1), second);

    ck_assert_double_eq(run_loss(&on, 0), first);
    ck_assert_double_eq(run_loss(&on, 1), second);
    ck_assert_double_ne(run_loss(&on, 0), first);
    on.model->reset(on.model, on.memory);
    ck_assert_double_eq(run_loss(&on, 0), first);
    close_fixture(&on);
    close_fixture(&off);
}
END_TEST

static double norm_of(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) { sum += values[i] * values[i]; }
    return sqrt(sum);
}

/* sgd with rate 1: the step that the parameters take is the clipped gradient. */
START_TEST(test_clip)
{
    for (int kind = BPTT_CLIP_NONE; kind <= BPTT_CLIP_VALUE; kind++) {
        bptt_spec spec = small_spec();
        spec.optimizer.rate = 1;
        spec.clip = (bptt_clip){(bptt_clip_kind)kind, 0.05};
        struct fixture f = open_fixture(&spec);
        (void)run_gradient(&f, 0);
        ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
        const double before = norm_of(f.gradient, f.net->count);
        ck_assert_double_gt(before, 0.1);
        ck_assert_double_eq_tol(f.model->update(f.model, f.memory), before, 1e-14);
        double *taken = oracle_doubles(f.net->count), largest = 0;
        ck_assert(oracle_read(f.net, f.model, f.memory, f.model->param, taken));
        for (size_t i = 0; i < f.net->count; i++) {
            taken[i] = f.net->params[i] - taken[i];
            largest = fmax(largest, fabs(taken[i]));
            const double cut = fmax(-0.05, fmin(0.05, f.gradient[i])), scaled = f.gradient[i] * 0.05 / before;
            const double expected = kind == BPTT_CLIP_VALUE ? cut : kind == BPTT_CLIP_NORM ? scaled : f.gradient[i];
            ck_assert_double_eq_tol(taken[i], expected, 1e-15);
        }
        if (kind == BPTT_CLIP_NORM) { ck_assert_double_eq_tol(norm_of(taken, f.net->count), 0.05, 1e-14); }
        if (kind == BPTT_CLIP_VALUE) { ck_assert_double_eq_tol(largest, 0.05, 1e-15); }
        free(taken);
        close_fixture(&f);
    }
}
END_TEST

/* Below the limit a clip changes no bit. */
START_TEST(test_clip_below_the_limit)
{
    bptt_spec spec = small_spec();
    struct fixture plain = open_fixture(&spec);
    for (int kind = BPTT_CLIP_NORM; kind <= BPTT_CLIP_VALUE; kind++) {
        spec.clip = (bptt_clip){(bptt_clip_kind)kind, 100};
        struct fixture clipped = open_fixture(&spec);
        plain.model->init(plain.model, plain.memory, spec.seed);
        (void)run_gradient(&plain, 0);
        (void)run_gradient(&clipped, 0);
        ck_assert_double_eq(plain.model->update(plain.model, plain.memory), clipped.model->update(clipped.model, clipped.memory));
        ck_assert_mem_eq(plain.memory, clipped.memory, plain.model->bytes);
        close_fixture(&clipped);
    }
    close_fixture(&plain);
}
END_TEST

START_TEST(test_gradient_not_finite)
{
    const double poison[] = {(double)NAN, HUGE_VAL, -HUGE_VAL};
    for (int kind = 0; kind < ORACLE_OPTIMIZERS; kind++) {
        for (int clip = 0; clip <= BPTT_CLIP_VALUE; clip++) {
            bptt_spec spec = small_spec();
            spec.dtype = clip == 0 ? BPTT_F32 : BPTT_F64;
            spec.optimizer = oracle_optimizers[kind];
            spec.clip = (bptt_clip){(bptt_clip_kind)clip, 1};
            struct fixture f = open_fixture(&spec);
            void *copy = oracle_memory_new(f.model);
            (void)run_gradient(&f, 0);
            (void)f.model->update(f.model, f.memory);
            (void)run_gradient(&f, 1);
            for (size_t i = 0; i < 3; i++) {
                ck_assert(oracle_read(f.net, f.model, f.memory, f.model->grad, f.gradient));
                f.gradient[i * f.net->count / 3] = poison[i];
                ck_assert(oracle_write(f.net, f.model, f.memory, f.model->grad, f.gradient));
                memcpy(copy, f.memory, f.model->bytes);
                ck_assert(!isfinite(f.model->update(f.model, f.memory)));
                ck_assert_mem_eq(copy, f.memory, f.model->bytes);
            }
            free(copy);
            close_fixture(&f);
        }
    }
}
END_TEST

/* A NaN in any weight that is used shows in the loss and the norm; relu and the softmax's maximum must not swallow it. */
START_TEST(test_nan_is_not_swallowed)
{
    for (int activation = 0; activation <= BPTT_SIGMOID; activation++) {
        for (size_t tensor = 0; tensor < ORACLE_TENSORS; tensor++) {
            bptt_spec spec = small_spec();
            spec.activation = (bptt_activation)activation;
            struct fixture f = open_fixture(&spec);
            f.x[0] = 0; /* the poisoned row of W_xh */
            f.net->params[f.net->tensors[tensor].offset] = (double)NAN;
            ck_assert(oracle_write(f.net, f.model, f.memory, f.model->param, f.net->params));
            ck_assert(isnan(run_loss(&f, 0)));
            ck_assert(isnan(run_gradient(&f, 1)));
            ck_assert(!isfinite(f.model->update(f.model, f.memory)));
            close_fixture(&f);
        }
    }
}
END_TEST

/* Large logits overflow neither the loss nor the probabilities. */
START_TEST(test_large_logits)
{
    bptt_spec spec = small_spec();
    spec.dtype = BPTT_F32;
    spec.batch = 1;
    spec.init.scale = 0;
    struct fixture f = open_fixture(&spec);
    f.net->params[oracle_index(f.net, "b_y", 0, 2)] = 1e4;
    ck_assert(oracle_write(f.net, f.model, f.memory, f.model->param, f.net->params));
    for (size_t t = 0; t < 8; t++) { f.y[t] = t < 4 ? 2 : 0; }
    ck_assert_double_eq(run_gradient(&f, 0), 0);
    ck_assert_double_eq(run_gradient(&f, 1), 1e4);
    float p[6];
    f.model->predict(f.model, f.memory, &(bptt_rows){.x = f.x}, p);
    for (size_t v = 0; v < 6; v++) { ck_assert_double_eq((double)p[v], v == 2 ? 1 : 0); }
    close_fixture(&f);
}
END_TEST

/* The published first output of SplitMix64 from seed 0 is 0xE220A8397B1DCDAF. */
START_TEST(test_init)
{
    bptt_spec spec = small_spec();
    spec.hidden = 60;
    spec.vocab = 50;
    spec.seed = 0;
    struct fixture f = open_fixture(&spec);
    const double u = (double)(UINT64_C(0xE220A8397B1DCDAF) >> 11) / 9007199254740992.0;
    ck_assert(oracle_read(f.net, f.model, f.memory, f.model->param, f.gradient));
    ck_assert_double_eq(f.gradient[0], 0.6 * (2 * u - 1));
    close_fixture(&f);

    spec.init = (bptt_init){BPTT_INIT_NORMAL, 0.25};
    f = open_fixture(&spec);
    ck_assert(oracle_read(f.net, f.model, f.memory, f.model->param, f.gradient));
    const size_t count = 50 * 60 + 60 * 60;
    double sum = 0;
    for (size_t i = 0; i < count; i++) { sum += f.gradient[i]; }
    ck_assert_double_eq_tol(sum / (double)count, 0, 0.01);
    ck_assert_double_eq_tol(norm_of(f.gradient, count) / sqrt((double)count), 0.25, 0.01);
    close_fixture(&f);
}
END_TEST

/* Two memories of one model share nothing, and init forgets everything. */
START_TEST(test_runs_repeat_bit_for_bit)
{
    bptt_spec spec = small_spec();
    spec.optimizer = oracle_optimizers[BPTT_ADAM];
    struct fixture f = open_fixture(&spec);
    void *other = oracle_memory_new(f.model);
    f.model->init(f.model, other, spec.seed);
    for (int run = 0; run < 2; run++) {
        for (uint32_t i = 0; i < 6; i++) {
            (void)run_gradient(&f, i % 2);
            (void)f.model->update(f.model, f.memory);
        }
        if (run == 0) {
            void *swap = f.memory;
            f.memory = other;
            other = swap;
        }
    }
    ck_assert_mem_eq(f.memory, other, f.model->bytes);
    f.model->init(f.model, f.memory, spec.seed);
    memset(other, 0, f.model->bytes);
    f.model->init(f.model, other, spec.seed);
    ck_assert_mem_eq(f.memory, other, f.model->bytes);
    free(other);
    close_fixture(&f);
}
END_TEST

/* gradient changes neither parameters nor moments nor progress; loss leaves the gradients alone, too. */
START_TEST(test_gradient_changes_no_parameter)
{
    bptt_spec spec = small_spec();
    spec.optimizer = oracle_optimizers[BPTT_ADAM];
    struct fixture f = open_fixture(&spec);
    void *copy = oracle_memory_new(f.model);
    const size_t block = f.model->block * sizeof(double);
    (void)run_gradient(&f, 0);
    (void)f.model->update(f.model, f.memory);
    memcpy(copy, f.memory, f.model->bytes);
    (void)run_loss(&f, 1);
    ck_assert_mem_eq((char *)copy + f.model->grad, (char *)f.memory + f.model->grad, block);
    (void)run_gradient(&f, 1);
    ck_assert_mem_ne((char *)copy + f.model->grad, (char *)f.memory + f.model->grad, block);
    ck_assert_mem_eq((char *)copy + f.model->param, (char *)f.memory + f.model->param, block);
    ck_assert_mem_eq((char *)copy + f.model->moment[0], (char *)f.memory + f.model->moment[0], block);
    ck_assert_mem_eq((char *)copy + f.model->moment[1], (char *)f.memory + f.model->moment[1], block);
    ck_assert_mem_eq((char *)copy + f.model->progress, (char *)f.memory + f.model->progress, 3 * sizeof(double));
    free(copy);
    close_fixture(&f);
}
END_TEST

/* ---- the descriptor ---- */

START_TEST(test_descriptor)
{
    static const bptt_tensor TENSORS[] = {
        {"W_xh", "rnn.weight_ih_l0", NULL, 2, 6, 5, 5, 0, 0, 1, 0},
        {"W_hh", "rnn.weight_hh_l0", NULL, 2, 5, 5, 5, 30, 0, 1, 0},
        {"b_h", "rnn.bias_ih_l0", "rnn.bias_hh_l0", 1, 1, 5, 5, 55, 0, 1, 0},
        {"W_hy", "out.weight", NULL, 2, 5, 6, 6, 60, 0, 1, 0},
        {"b_y", "out.bias", NULL, 1, 1, 6, 6, 90, 0, 1, 0},
    };
    bptt_spec spec = small_spec();
    spec.T = 9;
    spec.optimizer = oracle_optimizers[BPTT_ADAM];
    const bptt_model *model = bptt_generic_new(&spec);
    ck_assert_ptr_nonnull(model);
    ck_assert_uint_eq(model->abi, BPTT_ABI);
    ck_assert_str_eq(model->name, "net");
    ck_assert_str_eq(model->digest, "0");
    ck_assert_uint_eq(model->real_size, 8);
    ck_assert_uint_eq(model->chunks, 3);
    ck_assert_uint_eq(model->parameters, 96);
    ck_assert_uint_eq(model->block, 96);
    ck_assert_uint_eq(model->tensor_count, 5);
    for (size_t i = 0; i < 5; i++) {
        const bptt_tensor *a = &TENSORS[i], *b = &model->tensors[i];
        ck_assert_str_eq(a->name, b->name);
        ck_assert_str_eq(a->file, b->file);
        ck_assert_pstr_eq(a->twin, b->twin);
        ck_assert(a->rank == b->rank && a->rows == b->rows && a->cols == b->cols && a->stride == b->stride &&
                  a->offset == b->offset);
    }
    ck_assert_uint_eq(model->state_count, 1);
    ck_assert_str_eq(model->states[0].name, "h");
    ck_assert(model->states[0].rows == 2 && model->states[0].cols == 5 && model->states[0].offset == 0);
    const size_t sections[] = {model->param, model->grad,     model->moment[0], model->moment[1],
                               model->state, model->progress, model->bytes};
    const size_t reals[] = {96, 96, 96, 96, 10, 3};
    for (size_t i = 0; i < 6; i++) {
        ck_assert_uint_eq(sections[i] % 64, 0);
        ck_assert_uint_ge(sections[i + 1], sections[i] + reals[i] * sizeof(double));
    }
    bptt_generic_free(model);
}
END_TEST

START_TEST(test_impossible_sizes)
{
    const int64_t huge = UINT32_MAX;
    const struct {
        int64_t H, V, T, K, B;
    } sizes[] = {{0, 2, 1, 1, 1},
                 {1, 2, 1, 1, 0},
                 {huge + 1, 2, 1, 1, 1},
                 {1, -1, 1, 1, 1},
                 {huge, huge, 1, 1, 1},
                 {1, 2, huge, huge, huge},
                 {huge / 2, 2, 9, 9, huge},
                 {4, 4, 2, 3, 1},
                 {4, 2147483645, 2147483647, 2147483647, 2147483648}}; /* products that wrap to small ones */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bptt_spec spec = small_spec();
        spec.hidden = sizes[i].H;
        spec.vocab = sizes[i].V;
        spec.T = sizes[i].T;
        spec.K = sizes[i].K;
        spec.batch = sizes[i].B;
        ck_assert_msg(bptt_generic_new(&spec) == NULL, "sizes %zu were taken", i);
    }
}
END_TEST

static void add_tests(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 300); /* under valgrind */
    for (size_t i = 0; i < count; i++) { tcase_add_test(tcase, tests[i]); }
    suite_add_tcase(suite, tcase);
}

#define ADD(suite, name, tests) add_tests(suite, name, tests, sizeof(tests) / sizeof(tests)[0])

int main(void)
{
    const TTest *const oracles[] = {test_bptt_is_the_derivative, test_bptt_is_the_path_sum, test_chunks_are_the_untied_sum,
                                    test_untied_tells_truncation, test_padded_tables};
    const TTest *const against[] = {test_f64_follows_the_oracle, test_f32_follows_the_oracle,
                                    test_chunks_follow_the_untied_oracle, test_a_cut_edge_is_noticed, test_five_updates};
    const TTest *const properties[] = {test_vanishing_gradient,
                                       test_zero_weights_give_ln_v,
                                       test_ignored_labels,
                                       test_rows_of_absent_tokens_get_nothing,
                                       test_split_with_carried_state,
                                       test_carry,
                                       test_clip,
                                       test_clip_below_the_limit,
                                       test_gradient_not_finite,
                                       test_nan_is_not_swallowed,
                                       test_large_logits,
                                       test_init,
                                       test_runs_repeat_bit_for_bit,
                                       test_gradient_changes_no_parameter};
    const TTest *const descriptor[] = {test_descriptor, test_impossible_sizes};
    Suite *suite = suite_create("generic");
    ADD(suite, "oracles", oracles);
    ADD(suite, "against the oracles", against);
    ADD(suite, "properties", properties);
    ADD(suite, "descriptor", descriptor);
    printf("seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
