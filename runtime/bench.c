/* bench.c: `bptt bench`, the backends side by side on one spec.
 *
 * Every backend must give the same loss and gradient in the first step on the same tokens before it is timed.  (Later steps prove
 * nothing: at a high rate training is chaotic, and rounding decides.  `bptt check` compares every element.)  Rounds alternate between the backends and the median
 * counts, so that a busy machine slows all alike.  Depends on backend.h, generate.h (counts) and kernels.h (the peak).
 */
#include "bench.h"

#include "backend.h"
#include "generate.h"
#include "json.h"
#include "kernels.h"
#include "machine.h"
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 9 };

typedef struct contender {
    bptt_program program;
    void *memory;
    double loss, norm;      /* of the last step: loss, norm of the gradient */
    double seconds[ROUNDS]; /* of a chunk */
    double median;
} contender;

typedef struct bench {
    bptt_spec spec;
    bptt_unit unit;
    contender contenders[3];
    size_t count;
    uint32_t *x, *y;    /* one chunk */
    double peak;        /* FLOP per second */
    double limit;       /* seconds for each */
    bptt_error missing; /* why cc has no row; "" when it has */
} bench;

double bptt_peak_flops(int real_size)
{
    enum { VECTORS = 14, ITERATIONS = 20000, TRIES = 25 };
    size_t count = 0;
    const int simd = bptt_kernels_simd();
    const bptt_kernel *kernels = bptt_kernels(real_size, simd, &count);
    void (*peak)(void *, ptrdiff_t) = (void (*)(void *, ptrdiff_t))kernels[0].function;
    double values[VECTORS * 16] = {0}, best = 0;
    const double flop = 2.0 * VECTORS * ITERATIONS * (4.0 * simd / real_size);
    for (int i = 0; i < TRIES; i++) {
        double start = bptt_seconds();
        peak(values, ITERATIONS);
        double rate = flop / (bptt_seconds() - start);
        if (rate > best) { best = rate; }
    }
    return best;
}

/* --- the contenders ----------------------------------------------------------------------------------------------------------------- */

static void one_step(const bench *b, contender *c)
{
    const bptt_model *model = c->program.model;
    c->loss = model->gradient(model, c->memory, b->x, b->y, 0);
    c->norm = model->update(model, c->memory);
}

static bptt_status open_contender(bench *b, bptt_backend backend, bptt_error *error)
{
    contender *c = &b->contenders[b->count];
    bptt_status status = bptt_program_open(&b->spec, backend, &c->program, error);
    if (status != BPTT_OK) { return status; }
    b->count++;
    c->memory = bptt_memory_new(c->program.model);
    if (c->memory == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", c->program.model->bytes);
    }
    c->program.model->init(c->program.model, c->memory, b->spec.seed);
    return BPTT_OK;
}

static bptt_status make_tokens(bench *b, uint64_t seed, bptt_error *error)
{
    const size_t count = (size_t)(b->spec.K * b->spec.batch);
    b->x = malloc(count * sizeof *b->x);
    b->y = malloc(count * sizeof *b->y);
    if (b->x == NULL || b->y == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for %zu tokens", count); }
    for (size_t i = 0; i < count; i++) {
        b->x[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)b->spec.vocab);
        b->y[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)b->spec.vocab);
    }
    return BPTT_OK;
}

static bool differ(double a, double b, double tolerance)
{
    return !(fabs(a - b) <= tolerance * (1 + fabs(a)));
}

/* The same loss and gradient, or there is nothing to time. */
static bptt_status compare(bench *b, bptt_error *error)
{
    const double tolerance = b->spec.dtype == BPTT_F64 ? 1e-10 : 1e-4;
    const contender *first = &b->contenders[0];
    for (size_t i = 0; i < b->count; i++) {
        contender *c = &b->contenders[i];
        one_step(b, c);
        if (differ(first->loss, c->loss, tolerance) || differ(first->norm, c->norm, tolerance)) {
            return bptt_fail(error, BPTT_FAILED, "loss %.9g, gradient %.9g on %s, but %.9g, %.9g on %s: not timed", first->loss,
                             first->norm, first->program.backend, c->loss, c->norm, c->program.backend);
        }
    }
    return BPTT_OK;
}

/* --- timing --------------------------------------------------------------------------------------------------------------------------- */

static double time_steps(const bench *b, contender *c, double at_least)
{
    double start = bptt_seconds(), elapsed = 0;
    long steps = 0;
    do {
        one_step(b, c);
        steps++;
        elapsed = bptt_seconds() - start;
    } while (elapsed < at_least);
    return elapsed / (double)steps;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_all(bench *b)
{
    const double each = b->limit / ROUNDS;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < b->count; i++) { b->contenders[i].seconds[round] = time_steps(b, &b->contenders[i], each); }
    }
    for (size_t i = 0; i < b->count; i++) {
        qsort(b->contenders[i].seconds, ROUNDS, sizeof(double), by_value);
        b->contenders[i].median = b->contenders[i].seconds[ROUNDS / 2];
    }
}

/* --- the table --------------------------------------------------------------------------------------------------------------------------- */

typedef struct row {
    double us, tokens, gflops, ratio, share;
} row;

static row row_of(const bench *b, const contender *c)
{
    const double flops = (b->unit.counts.flop_forward + b->unit.counts.flop_backward + b->unit.counts.flop_update) / c->median;
    return (row){.us = c->median * 1e6,
                 .tokens = (double)(b->spec.K * b->spec.batch) / c->median,
                 .gflops = flops * 1e-9,
                 .ratio = b->contenders[0].median / c->median,
                 .share = flops / b->peak};
}

static void print_json(const bench *b)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_json_text(&json, "name", b->spec.name);
    bptt_json_real(&json, "peak_gflops", b->peak * 1e-9);
    bptt_json_open(&json, "rows", '[');
    for (size_t i = 0; i < b->count; i++) {
        const contender *c = &b->contenders[i];
        const row r = row_of(b, c);
        bptt_json_open(&json, NULL, '{');
        bptt_json_text(&json, "backend", c->program.backend);
        bptt_json_real(&json, "us_per_chunk", r.us);
        bptt_json_real(&json, "tokens_per_s", r.tokens);
        bptt_json_real(&json, "gflops", r.gflops);
        bptt_json_real(&json, "ratio_to_generic", r.ratio);
        bptt_json_real(&json, "share_of_peak", r.share);
        bptt_json_real(&json, "compile_ms", c->program.compile_ms);
        bptt_json_whole(&json, "code_bytes", c->program.code_bytes);
        bptt_json_close(&json, '}');
    }
    bptt_json_close(&json, ']');
    bptt_json_close(&json, '}');
}

static void print_table(const bench *b)
{
    const bptt_spec *s = &b->spec;
    printf("%s: H %lld, V %lld, T %lld, K %lld, B %lld, %s; one step = forward, backward, clip, update of one chunk\n", s->name,
           (long long)s->hidden, (long long)s->vocab, (long long)s->T, (long long)s->K, (long long)s->batch,
           bptt_spec_word("dtype", (int)s->dtype));
    printf("multiply-add peak of this core: %.1f GFLOP/s (measured)\n\n", b->peak * 1e-9);
    printf("%-8s %12s %12s %9s %11s %9s %11s %11s\n", "backend", "us/chunk", "tokens/s", "GFLOP/s", "x generic", "of peak",
           "compile ms", "code bytes");
    for (size_t i = 0; i < b->count; i++) {
        const contender *c = &b->contenders[i];
        const row r = row_of(b, c);
        printf("%-8s %12.2f %12.0f %9.2f %11.2f %8.1f%% %11.2f %11zu\n", c->program.backend, r.us, r.tokens, r.gflops, r.ratio,
               100 * r.share, c->program.compile_ms, c->program.code_bytes);
    }
    if (b->missing.text[0] != '\0') { printf("cc       not run: %s\n", b->missing.text); }
}

static bptt_status run(bench *b, const bptt_options *options, bptt_error *error)
{
    static const bptt_backend backends[] = {BPTT_BACKEND_GENERIC, BPTT_BACKEND_TCC, BPTT_BACKEND_CC};
    bptt_status status = bptt_compile_here(&b->spec, &b->unit, error);
    if (status == BPTT_OK) { status = make_tokens(b, options->seed, error); }
    for (size_t i = 0; i < sizeof backends / sizeof backends[0] && status == BPTT_OK; i++) {
        status = open_contender(b, backends[i], error);
        if (status != BPTT_OK && backends[i] == BPTT_BACKEND_CC) { /* a machine without a compiler is not at fault */
            b->missing = *error;
            status = BPTT_OK;
        }
    }
    if (status == BPTT_OK) { status = compare(b, error); }
    if (status != BPTT_OK) { return status; }
    b->peak = bptt_peak_flops(b->spec.dtype == BPTT_F64 ? 8 : 4);
    b->limit = options->seconds > 0 ? options->seconds : 1;
    time_all(b);
    if (options->json) {
        print_json(b);
    } else {
        print_table(b);
    }
    return BPTT_OK;
}

bptt_status bptt_command_bench(const bptt_options *options, bptt_error *error)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a benchmark"); }
    bptt_status status = bptt_options_spec(options, &b->spec, error);
    if (status == BPTT_OK) {
        status = run(b, options, error);
        for (size_t i = 0; i < b->count; i++) {
            free(b->contenders[i].memory);
            bptt_program_close(&b->contenders[i].program);
        }
        bptt_unit_free(&b->unit);
        bptt_spec_free(&b->spec);
        free(b->x);
        free(b->y);
    }
    free(b);
    return status;
}
