/* bench_measure.c: the backends side by side on one spec.  See bench.h.
 *
 * Every backend must give the same loss and gradient in the first step on the same tokens before it is timed.  (Later steps prove
 * nothing: at a high rate training is chaotic, and rounding decides.  `bptt check` compares every element.)  Rounds alternate between
 * the backends and the median counts, so that a busy machine slows all alike.  Depends on backend.h and generate.h (counts).
 */
#include "bench.h"

#include "backend.h"
#include "generate.h"
#include "machine.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 9 };

typedef struct contender {
    bptt_program program;
    int place; /* in bptt_bench.timings */
    void *memory;
    double loss, norm;      /* of the last step: loss, norm of the gradient */
    double first;           /* seconds of the first step */
    double seconds[ROUNDS]; /* of a step */
} contender;

typedef struct contest {
    const bptt_spec *spec;
    contender contenders[BPTT_TIMINGS];
    size_t count;
    bptt_rows rows; /* one chunk */
} contest;

/* A chunk with an update of its own, even where a spec adds up the gradients of several. */
static void one_step(const contest *c, contender *one)
{
    const bptt_model *model = one->program.model;
    one->loss = model->gradient(model, one->memory, &c->rows, 0);
    one->norm = model->update(model, one->memory);
}

/* --- before ---------------------------------------------------------------------------------------------------------------------- */

static bptt_status open_contender(contest *c, int place, bptt_error *error)
{
    static const bptt_backend backends[BPTT_TIMINGS] = {BPTT_BACKEND_GENERIC, BPTT_BACKEND_TCC, BPTT_BACKEND_CC};
    contender *one = &c->contenders[c->count];
    one->place = place;
    bptt_status status = bptt_program_open(c->spec, backends[place], &one->program, error);
    if (status != BPTT_OK) { return status; }
    one->memory = bptt_memory_new(one->program.model);
    if (one->memory == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", one->program.model->bytes);
        bptt_program_close(&one->program);
        return status;
    }
    one->program.model->init(one->program.model, one->memory, c->spec->seed);
    c->count++;
    return BPTT_OK;
}

/* A machine without a compiler is not at fault, nor is a cell that the generic loops are not of. */
static bptt_status open_all(contest *c, bptt_timing *timings, bptt_error *error)
{
    for (int place = 0; place < BPTT_TIMINGS; place++) {
        bptt_status status = open_contender(c, place, error);
        if (status != BPTT_OK && place == BPTT_TIMED_TCC) { return status; }
        if (status != BPTT_OK) { timings[place].missing = *error; }
    }
    return BPTT_OK;
}

static bool differ(double a, double b, double tolerance)
{
    return !(fabs(a - b) <= tolerance * (1 + fabs(a)));
}

/* The same loss and gradient, or there is nothing to time. */
static bptt_status compare(contest *c, bptt_error *error)
{
    const double tolerance = c->spec->dtype == BPTT_F64 ? 1e-10 : 1e-4;
    const contender *first = &c->contenders[0];
    for (size_t i = 0; i < c->count; i++) {
        contender *one = &c->contenders[i];
        const double start = bptt_seconds();
        one_step(c, one);
        one->first = bptt_seconds() - start;
        if (differ(first->loss, one->loss, tolerance) || differ(first->norm, one->norm, tolerance)) {
            return bptt_fail(error, BPTT_FAILED, "%s: loss %.9g, gradient %.9g on %s, but %.9g, %.9g on %s: not timed",
                             c->spec->name, first->loss, first->norm, first->program.backend, one->loss, one->norm,
                             one->program.backend);
        }
    }
    return BPTT_OK;
}

/* --- timing ---------------------------------------------------------------------------------------------------------------------- */

static double time_steps(const contest *c, contender *one, double at_least)
{
    double start = bptt_seconds(), elapsed = 0;
    long steps = 0;
    do {
        one_step(c, one);
        steps++;
        elapsed = bptt_seconds() - start;
    } while (elapsed < at_least);
    return elapsed / (double)steps;
}

/* All rounds, but for one whose steps are so long that they would take many times `seconds`: that has as many as fit, one at least. */
static int rounds_of(const contender *one, double seconds)
{
    enum { PATIENCE = 5 };
    const double fit = PATIENCE * seconds / one->first;
    return fit >= ROUNDS ? ROUNDS : fit < 1 ? 1 : (int)fit;
}

/* Returns how many cores the process had meanwhile. */
static double time_all(contest *c, double seconds)
{
    const double start = bptt_seconds();
    const clock_t cpu = clock();
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < c->count; i++) {
            contender *one = &c->contenders[i];
            if (round < rounds_of(one, seconds)) { one->seconds[round] = time_steps(c, one, seconds / ROUNDS); }
        }
    }
    return (double)(clock() - cpu) / CLOCKS_PER_SEC / (bptt_seconds() - start);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bptt_timing timing_of(contender *one, double seconds)
{
    const int rounds = rounds_of(one, seconds);
    qsort(one->seconds, (size_t)rounds, sizeof(double), by_value);
    return (bptt_timing){
        .seconds = one->seconds[rounds / 2], .compile_ms = one->program.compile_ms, .code_bytes = one->program.code_bytes};
}

static bptt_status count_work(bptt_bench *bench, bptt_error *error)
{
    bptt_unit unit;
    bptt_status status = bptt_compile_here(&bench->spec, &unit, error);
    if (status != BPTT_OK) { return status; }
    bench->counts = unit.counts;
    bptt_unit_free(&unit);
    return BPTT_OK;
}

bptt_status bptt_bench_measure(bptt_bench *bench, uint64_t seed, double seconds, bptt_error *error)
{
    contest c = {.spec = &bench->spec};
    memset(bench->timings, 0, sizeof bench->timings);
    bptt_status status = count_work(bench, error);
    if (status == BPTT_OK) { status = bptt_rows_draw(c.spec, (size_t)bptt_spec_chunk(c.spec), seed, &c.rows, error); }
    if (status == BPTT_OK) { status = open_all(&c, bench->timings, error); }
    if (status == BPTT_OK) { status = compare(&c, error); }
    if (status == BPTT_OK) { bench->cores = time_all(&c, seconds); }
    for (size_t i = 0; i < c.count; i++) {
        contender *one = &c.contenders[i];
        if (status == BPTT_OK) { bench->timings[one->place] = timing_of(one, seconds); }
        free(one->memory);
        bptt_program_close(&one->program);
    }
    bptt_rows_free(&c.rows);
    return status;
}
