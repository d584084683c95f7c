/* check.c: `bptt check`, the gradients of the user's own spec against others that were reached in other ways.
 *
 *   differences   generated code in double against central differences of the reference's loss, chunk by chunk.  A chunk starts
 *                 from a state that is a constant, so its truncated gradient is the plain derivative of its own loss; of blocks
 *                 that is so in the first one alone, of a uniform horizon where it is all of the sequence.
 *   reference     generated code in the spec's dtype, by libtcc and by the system's compiler, against the reference in double
 *   loops         the text with time unrolled against the text with loops
 *   start         zero weights: ln V a label
 *
 * The reference is the generic loops where they exist, else the graph, interpreted.  Depends on backend.h, these two and the limits
 * of graph.h; knows nothing of nodes, plan or text.
 */
#include "../gen/graph.h"
#include "backend.h"
#include "generic.h"
#include "interpreted.h"
#include "json.h"
#include "machine.h"
#include "options.h"
#include "rows.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ELEMENTS = 24, MOST_ROWS = 5 * BPTT_MAX_PARAMS + 8 }; /* five comparisons of each tensor, and a few */

/* A spec that runs on some backend. */
typedef struct runner {
    bptt_spec spec;
    bptt_program program;
    void *memory;
} runner;

typedef struct check_row {
    char what[96];
    double error, tolerance;
} check_row;

typedef struct check {
    bptt_spec spec;
    runner reference; /* in double */
    const char *name; /* of the reference */
    bool kinks;       /* its loss has some, as with relu */
    bptt_rows wide;   /* a sequence, reals in double */
    bptt_rows own;    /* the same numbers in the spec's dtype */
    check_row rows[MOST_ROWS];
    size_t count;
    uint64_t random;
    bptt_error missing; /* why cc was not compared; "" when it was */
} check;

/* --- runners ------------------------------------------------------------------------------------------------------------------------- */

static void close_runner(runner *r)
{
    free(r->memory);
    bptt_program_close(&r->program);
    bptt_spec_free(&r->spec);
}

/* `spec` with another dtype and unroll, ready to run, without dropout, whose masks the reference does not draw.  On failure nothing is
 * held. */
static bptt_status open_runner(runner *r, const bptt_spec *spec, bptt_dtype dtype, bptt_unroll unroll, bptt_backend backend,
                               bptt_error *error)
{
    memset(r, 0, sizeof *r);
    /* An update after each chunk: what is compared is the gradient of a chunk's loss. */
    static const bptt_override each[] = {{"update", 6, "chunk"}, {"accumulate", 10, "1"}, {"dropout", 7, "0"}};
    bptt_status status = bptt_spec_parse(spec->text, strlen(spec->text), spec->source, each, 3, &r->spec, error);
    if (status != BPTT_OK) { return status; }
    r->spec.dtype = dtype;
    r->spec.unroll = unroll;
    status = bptt_spec_seal(&r->spec, error);
    if (status == BPTT_OK) {
        status = backend == BPTT_BACKEND_GENERIC && !bptt_generic_has(&r->spec)
                     ? bptt_interpreted_open(&r->spec, &r->program, error)
                     : bptt_program_open(&r->spec, backend, &r->program, error);
    }
    if (status == BPTT_OK) {
        r->memory = bptt_memory_new(r->program.model);
        if (r->memory == NULL) {
            status = bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", r->program.model->bytes);
        }
    }
    if (status != BPTT_OK) {
        close_runner(r);
        return status;
    }
    r->program.model->init(r->program.model, r->memory, r->spec.seed);
    return BPTT_OK;
}

/* Element (i, j) of a tensor of a block. */
static void *element(const runner *r, size_t block, const bptt_tensor *t, uint32_t i, uint32_t j)
{
    return (char *)r->memory + block + (t->offset + (size_t)i * t->stride + j) * r->program.model->real_size;
}

static double get(const runner *r, size_t block, const bptt_tensor *t, uint32_t i, uint32_t j)
{
    const void *at = element(r, block, t, i, j);
    return r->program.model->real_size == 8 ? *(const double *)at : (double)*(const float *)at;
}

static void set(const runner *r, size_t block, const bptt_tensor *t, uint32_t i, uint32_t j, double value)
{
    void *at = element(r, block, t, i, j);
    if (r->program.model->real_size == 8) {
        *(double *)at = value;
    } else {
        *(float *)at = (float)value;
    }
}

/* Copies tensors between two models of one network, whatever their layouts and dtypes. */
static void copy_tensors(const runner *to, size_t to_block, const runner *from, size_t from_block, const bptt_tensor *to_tensors,
                         const bptt_tensor *from_tensors, uint32_t count)
{
    for (uint32_t n = 0; n < count; n++) {
        for (uint32_t i = 0; i < to_tensors[n].rows; i++) {
            for (uint32_t j = 0; j < to_tensors[n].cols; j++) {
                set(to, to_block, &to_tensors[n], i, j, get(from, from_block, &from_tensors[n], i, j));
            }
        }
    }
}

/* Parameters and state. */
static void copy_model(const runner *to, const runner *from)
{
    const bptt_model *a = to->program.model, *b = from->program.model;
    copy_tensors(to, a->param, from, b->param, a->tensors, b->tensors, a->tensor_count);
    /* what more there is, a window of blocks, is its own */
    const uint32_t states = a->state_count < b->state_count ? a->state_count : b->state_count;
    copy_tensors(to, a->state, from, b->state, a->states, b->states, states);
    a->refresh(a, to->memory);
}

/* --- results --------------------------------------------------------------------------------------------------------------------------- */

static void add_row(check *c, const char *what, double error, double tolerance)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->rows[i].what, what) == 0) { /* another chunk of the same comparison */
            if (!(error <= c->rows[i].error)) { c->rows[i].error = error; }
            return;
        }
    }
    check_row *row = &c->rows[c->count++];
    (void)snprintf(row->what, sizeof row->what, "%s", what);
    row->error = error;
    row->tolerance = tolerance;
}

static uint32_t draw(check *c, uint64_t below)
{
    return (uint32_t)(bptt_random(&c->random) % below);
}

/* Largest |element| of a tensor: what errors are measured by. */
static double scale_of(const runner *r, size_t block, const bptt_tensor *t)
{
    double most = 0;
    for (uint32_t i = 0; i < t->rows; i++) {
        for (uint32_t j = 0; j < t->cols; j++) { most = fmax(most, fabs(get(r, block, t, i, j))); }
    }
    return most;
}

/* --- comparisons ------------------------------------------------------------------------------------------------------------------------- */

/* Central difference of the reference's loss by one parameter, from its present state, which is left as it was; *noise: what of it may
 * be the losses' last bits, of which a large one has much to lose. */
static double difference(const check *c, const bptt_tensor *t, uint32_t i, uint32_t j, const bptt_rows *rows, uint32_t chunk,
                         void *state, size_t state_bytes, double *noise)
{
    const double step = c->kinks ? 1e-7 : 1e-5; /* few of them within reach */
    const bptt_model *m = c->reference.program.model;
    const double middle = get(&c->reference, m->param, t, i, j);
    double loss[2];
    for (int side = 0; side < 2; side++) {
        set(&c->reference, m->param, t, i, j, middle + (side == 0 ? step : -step));
        m->refresh(m, c->reference.memory);
        loss[side] = m->loss(m, c->reference.memory, rows, chunk);
        memcpy((char *)c->reference.memory + m->state, state, state_bytes);
    }
    set(&c->reference, m->param, t, i, j, middle);
    m->refresh(m, c->reference.memory);
    *noise = 8 * DBL_EPSILON * (fabs(loss[0]) + fabs(loss[1])) / (2 * step);
    return (loss[0] - loss[1]) / (2 * step);
}

/* Some elements of every tensor, chosen at random among those of tokens that occur. */
static bptt_status compare_differences(check *c, const runner *r, const bptt_rows *rows, uint32_t chunk, size_t tokens,
                                       bptt_error *error)
{
    const bptt_model *m = c->reference.program.model, *generated = r->program.model;
    const size_t state_bytes = bptt_state_bytes(m);
    void *state = malloc(state_bytes);
    if (state == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a state of %zu bytes", state_bytes); }
    memcpy(state, (char *)c->reference.memory + m->state, state_bytes);
    for (uint32_t n = 0; n < m->tensor_count; n++) {
        const bptt_tensor *t = &m->tensors[n], *g = &generated->tensors[n];
        const double scale = fmax(scale_of(r, generated->grad, g), 1e-3);
        double worst = 0;
        for (int k = 0; k < ELEMENTS; k++) {
            /* Of what is read by token only rows of tokens that occur can differ from 0; they come first, now and then another. */
            uint32_t i = draw(c, t->rows), j = draw(c, t->cols);
            if (rows->x != NULL && t->rows == m->vocab && k % 4 != 0) { i = rows->x[draw(c, tokens)]; }
            double noise = 0;
            const double expected = difference(c, t, i, j, rows, chunk, state, state_bytes, &noise);
            const double off = (fabs(get(r, generated->grad, g, i, j) - expected) - noise) / scale;
            if (!(off <= worst)) { worst = off; } /* also what is not a number */
        }
        char what[96];
        (void)snprintf(what, sizeof what, "d%s: tcc f64 against differences", t->name);
        add_row(c, what, worst, c->kinks ? 1e-4 : 1e-6);
    }
    free(state);
    return BPTT_OK;
}

/* Every element of every tensor against the reference's gradient. */
static void compare_gradients(check *c, const runner *r, const char *label, double tolerance)
{
    const bptt_model *m = c->reference.program.model, *generated = r->program.model;
    for (uint32_t n = 0; n < m->tensor_count; n++) {
        const bptt_tensor *t = &m->tensors[n], *g = &generated->tensors[n];
        const double scale = fmax(scale_of(&c->reference, m->grad, t), 1e-6);
        double worst = 0;
        for (uint32_t i = 0; i < t->rows; i++) {
            for (uint32_t j = 0; j < t->cols; j++) {
                const double off = fabs(get(r, generated->grad, g, i, j) - get(&c->reference, m->grad, t, i, j)) / scale;
                if (!(off <= worst)) { worst = off; }
            }
        }
        char what[96];
        (void)snprintf(what, sizeof what, "d%s: %s against %s", t->name, label, c->name);
        add_row(c, what, worst, tolerance);
    }
}

/* Whether a chunk's gradient is the plain derivative of its loss. */
static bool is_derivative(const bptt_spec *spec, uint32_t chunk)
{
    switch (spec->truncation) {
    case BPTT_TRUNCATION_BLOCK:
        return chunk == 0;
    case BPTT_TRUNCATION_UNIFORM:
        return spec->K == spec->T;
    default:
        return true;
    }
}

/* Biases that start at 0 put units right at a kink, and the larger of two values on both: a difference means nothing there. */
static void move_biases(const runner *r, uint64_t seed)
{
    const bptt_model *m = r->program.model;
    for (uint32_t n = 0; n < m->tensor_count; n++) {
        const bptt_tensor *t = &m->tensors[n];
        for (uint32_t j = 0; j < t->cols && t->rank == 1; j++) {
            const double by = 0.01 + 0.09 * (double)(bptt_random(&seed) % 1024) / 1024;
            set(r, m->param, t, 0, j, get(r, m->param, t, 0, j) + (bptt_random(&seed) % 2 == 0 ? by : -by));
        }
    }
    m->refresh(m, r->memory);
}

/* One sequence, chunk by chunk: `r` starts each chunk from the reference's parameters and state. */
static bptt_status follow(check *c, const runner *r, const char *label, double tolerance, bool differences, bptt_error *error)
{
    const bptt_model *m = c->reference.program.model, *generated = r->program.model;
    const bool wide = r->spec.dtype == BPTT_F64;
    char what[96];
    (void)snprintf(what, sizeof what, "loss: %s against %s", label, c->name);
    generated->init(generated, r->memory, c->spec.seed);
    move_biases(r, c->spec.seed);
    copy_model(&c->reference, r); /* weights are drawn by generated code: the interpreter draws none */
    for (uint32_t chunk = 0; chunk < m->chunks; chunk++) {
        const size_t steps = chunk + 1 < m->chunks ? m->chunk_steps : m->steps - (size_t)chunk * m->chunk_steps,
                     tokens = steps * m->batch;
        copy_model(r, &c->reference);
        const size_t row = (size_t)chunk * m->chunk_steps * m->batch;
        const bptt_rows rows = bptt_rows_from(&c->reference.spec, &c->wide, row);
        const bptt_rows own = wide ? rows : bptt_rows_from(&c->spec, &c->own, row);
        const double loss = generated->gradient(generated, r->memory, &own, chunk);
        /* the first and the last chunk are differenced: the last one may be shorter */
        if (differences && is_derivative(&c->spec, chunk) && (chunk == 0 || chunk + 1 == m->chunks)) {
            bptt_status status = compare_differences(c, r, &rows, chunk, tokens, error);
            if (status != BPTT_OK) { return status; }
        }
        const double expected = m->gradient(m, c->reference.memory, &rows, chunk);
        add_row(c, what, fabs(loss - expected) / (1e-3 + fabs(expected)), tolerance);
        compare_gradients(c, r, label, tolerance);
    }
    return BPTT_OK;
}

/* Zero weights know nothing: every label costs ln V.  What a cell of the spec's own makes of them is its business. */
static void compare_start(check *c, const runner *r)
{
    const bptt_model *m = r->program.model;
    const size_t labels = bptt_rows_labels(&c->reference.spec, &c->wide, 0, (size_t)m->chunk_steps * m->batch);
    if (c->spec.equations != NULL || !bptt_spec_labels(&c->spec) || c->spec.loss_at.kind != BPTT_STEPS_ALL) { return; }
    memset((char *)r->memory + m->param, 0, m->block * m->real_size);
    m->refresh(m, r->memory);
    m->reset(m, r->memory);
    double loss = m->loss(m, r->memory, &c->wide, 0);
    if (c->spec.reduction == BPTT_SUM) { loss /= (double)labels; }
    add_row(c, "zero weights: loss against ln V", fabs(loss - log((double)m->vocab)) / log((double)m->vocab), 1e-12);
}

static bptt_status run_all(check *c, bptt_error *error)
{
    static const struct {
        const char *label;
        int dtype; /* -1: the spec's */
        bptt_unroll unroll;
        bptt_backend backend;
    } cases[] = {{"tcc f64", BPTT_F64, BPTT_UNROLL_TIME, BPTT_BACKEND_TCC},
                 {"tcc f64 loops", BPTT_F64, BPTT_UNROLL_NONE, BPTT_BACKEND_TCC},
                 {"tcc", -1, BPTT_UNROLL_AUTO, BPTT_BACKEND_TCC},
                 {"cc", -1, BPTT_UNROLL_AUTO, BPTT_BACKEND_CC}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bptt_dtype dtype = cases[i].dtype < 0 ? c->spec.dtype : (bptt_dtype)cases[i].dtype;
        runner r;
        bptt_status status = open_runner(&r, &c->spec, dtype, cases[i].unroll, cases[i].backend, error);
        if (status != BPTT_OK && cases[i].backend == BPTT_BACKEND_CC) { /* a machine without a compiler is not at fault */
            c->missing = *error;
            continue;
        }
        if (status != BPTT_OK) { return status; }
        status = follow(c, &r, cases[i].label, dtype == BPTT_F64 ? 1e-10 : 1e-3, i == 0, error);
        if (i == 0 && status == BPTT_OK) { compare_start(c, &r); }
        close_runner(&r);
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

/* --- the table --------------------------------------------------------------------------------------------------------------------------- */

static const char without_dropout[] = "dropout, which is off here";

static bool passes(const check_row *row)
{
    return row->error <= row->tolerance;
}

static void print_table(const check *c, size_t failed)
{
    size_t width = 44;
    for (size_t i = 0; i < c->count; i++) { width = strlen(c->rows[i].what) > width ? strlen(c->rows[i].what) : width; }
    printf("%-*s %10s %10s\n", (int)width, "comparison (worst over chunks and elements)", "error", "allowed");
    for (size_t i = 0; i < c->count; i++) {
        const check_row *row = &c->rows[i];
        printf("%-*s %10.2e %10.0e  %s\n", (int)width, row->what, row->error, row->tolerance, passes(row) ? "ok" : "MISMATCH");
    }
    if (c->missing.text[0] != '\0') { printf("not compared: %s\n", c->missing.text); }
    if (bptt_spec_drops(&c->spec)) { printf("not compared: %s\n", without_dropout); }
    printf("%zu comparisons, %zu failed\n", c->count, failed);
}

static void print_json(const check *c, size_t failed)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_json_text(&json, "name", c->spec.name);
    bptt_json_whole(&json, "failed", failed);
    bptt_json_open(&json, "rows", '[');
    for (size_t i = 0; i < c->count; i++) {
        bptt_json_open(&json, NULL, '{');
        bptt_json_text(&json, "comparison", c->rows[i].what);
        bptt_json_real(&json, "error", c->rows[i].error);
        bptt_json_real(&json, "tolerance", c->rows[i].tolerance);
        bptt_json_text(&json, "result", passes(&c->rows[i]) ? "ok" : "mismatch");
        bptt_json_close(&json, '}');
    }
    bptt_json_close(&json, ']');
    bptt_json_open(&json, "not_compared", '[');
    if (c->missing.text[0] != '\0') { bptt_json_text(&json, NULL, c->missing.text); }
    if (bptt_spec_drops(&c->spec)) { bptt_json_text(&json, NULL, without_dropout); }
    bptt_json_close(&json, ']');
    bptt_json_close(&json, '}');
}

static bptt_status prepare(check *c, uint64_t seed, bptt_error *error)
{
    c->random = seed;
    bptt_status status = open_runner(&c->reference, &c->spec, BPTT_F64, BPTT_UNROLL_AUTO, BPTT_BACKEND_GENERIC, error);
    if (status != BPTT_OK) { return status; }
    const bool generic = bptt_generic_has(&c->reference.spec);
    c->name = generic ? "generic f64" : "the graph, interpreted in double";
    c->kinks = generic ? c->spec.activation == BPTT_RELU : bptt_interpreted_has_kinks(&c->reference.program);
    status = bptt_rows_draw(&c->reference.spec, (size_t)c->spec.T, seed, &c->wide, error);
    return status == BPTT_OK ? bptt_rows_draw(&c->spec, (size_t)c->spec.T, seed, &c->own, error) : status;
}

bptt_status bptt_command_check(const bptt_options *options, bptt_error *error)
{
    check *c = calloc(1, sizeof *c);
    if (c == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a check"); }
    size_t failed = 0;
    bptt_status status = bptt_options_spec(options, &c->spec, error);
    if (status == BPTT_OK) {
        status = prepare(c, options->seed, error);
        if (status == BPTT_OK) { status = run_all(c, error); }
        for (size_t i = 0; i < c->count; i++) { failed += !passes(&c->rows[i]); }
        if (status == BPTT_OK && options->json) {
            print_json(c, failed);
        } else if (status == BPTT_OK) {
            print_table(c, failed);
        }
        if (c->reference.spec.text != NULL) { close_runner(&c->reference); }
        bptt_spec_free(&c->spec);
    }
    bptt_rows_free(&c->wide);
    bptt_rows_free(&c->own);
    free(c);
    if (status == BPTT_OK && failed > 0) {
        return bptt_fail(error, BPTT_FAILED, failed == 1 ? "%zu comparison does not match" : "%zu comparisons do not match",
                         failed);
    }
    return status;
}
