/* rows.c: what a model reads.  See rows.h. */
#include "rows.h"

#include "machine.h"

#include <math.h>
#include <stdlib.h>

static size_t real_size(const bptt_spec *spec)
{
    return spec->dtype == BPTT_F64 ? sizeof(double) : sizeof(float);
}

/* Zeros, [rows][width]; NULL with *good false: no memory. */
static void *zeros(size_t rows, int64_t width, size_t size, bool *good)
{
    size_t count = 0;
    if (width == 0 || !*good) { return NULL; }
    void *memory = __builtin_mul_overflow(rows, (size_t)width, &count) ? NULL : calloc(count, size);
    *good = memory != NULL;
    return memory;
}

bptt_status bptt_rows_new(const bptt_spec *spec, size_t steps, bptt_rows *rows, bptt_error *error)
{
    const size_t count = steps * (size_t)spec->batch; /* below 2^32 both */
    bool good = true;
    *rows = (bptt_rows){.x = zeros(count, bptt_spec_tokens(spec), sizeof(uint32_t), &good)};
    rows->v = zeros(count, spec->inputs, real_size(spec), &good);
    rows->y = zeros(count, bptt_spec_labels(spec), sizeof(uint32_t), &good);
    rows->d = zeros(count, spec->outputs, real_size(spec), &good);
    rows->reset = zeros(count, spec->resets, sizeof(uint8_t), &good);
    if (good) { return BPTT_OK; }
    bptt_rows_free(rows);
    return bptt_fail(error, BPTT_FAILED, "no memory for %zu steps of a sequence", count);
}

void bptt_rows_free(bptt_rows *rows)
{
    free((void *)(uintptr_t)rows->x);
    free((void *)(uintptr_t)rows->v);
    free((void *)(uintptr_t)rows->y);
    free((void *)(uintptr_t)rows->d);
    free((void *)(uintptr_t)rows->reset);
    *rows = (bptt_rows){.x = NULL};
}

bptt_status bptt_rows_draw(const bptt_spec *spec, size_t steps, uint64_t seed, bptt_rows *rows, bptt_error *error)
{
    const size_t count = steps * (size_t)spec->batch, D = (size_t)spec->inputs, Q = (size_t)spec->outputs;
    bptt_status status = bptt_rows_new(spec, steps, rows, error);
    if (status != BPTT_OK) { return status; }
    uint32_t *x = (uint32_t *)(uintptr_t)rows->x, *y = (uint32_t *)(uintptr_t)rows->y;
    for (size_t i = 0; i < count; i++) {
        if (x != NULL) { x[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)spec->vocab); }
        if (y != NULL) { y[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)spec->vocab); }
    }
    for (size_t i = 0; i < count * D; i++) { bptt_rows_put(spec, rows->v, i, (double)(bptt_random(&seed) >> 44) * 0x1p-19 - 1); }
    for (size_t i = 0; i < count * Q; i++) { bptt_rows_put(spec, rows->d, i, (double)(bptt_random(&seed) >> 44) * 0x1p-20); }
    for (size_t i = 0; i < count && spec->resets; i++) { ((uint8_t *)(uintptr_t)rows->reset)[i] = bptt_random(&seed) % 8 == 0; }
    return BPTT_OK;
}

static const void *real_from(const bptt_spec *spec, const void *reals, size_t index)
{
    return reals == NULL ? NULL : (const char *)reals + index * real_size(spec);
}

bptt_rows bptt_rows_from(const bptt_spec *spec, const bptt_rows *rows, size_t row)
{
    return (bptt_rows){.x = rows->x == NULL ? NULL : rows->x + row,
                       .v = real_from(spec, rows->v, row * (size_t)spec->inputs),
                       .y = rows->y == NULL ? NULL : rows->y + row,
                       .d = real_from(spec, rows->d, row * (size_t)spec->outputs),
                       .reset = rows->reset == NULL ? NULL : rows->reset + row};
}

/* Whether a step of a sequence, from 0, has a loss. */
static bool has_loss(const bptt_spec *spec, size_t step)
{
    int64_t stretches[BPTT_MAX_STRETCHES][2];
    const int count = bptt_spec_loss_steps(spec, stretches);
    for (int s = 0; s < count; s++) {
        if ((int64_t)step >= stretches[s][0] && (int64_t)step < stretches[s][1]) { return true; }
    }
    return false;
}

size_t bptt_rows_sequence(const bptt_spec *spec, const bptt_rows *rows, size_t b, size_t first, size_t steps, const bptt_rows *to)
{
    const size_t B = (size_t)spec->batch, D = (size_t)spec->inputs, Q = (size_t)spec->outputs;
    size_t labels = 0;
    for (size_t t = 0; t < steps; t++) {
        const size_t row = t * B + b;
        const bool counts = has_loss(spec, first + t);
        if (rows->x != NULL) { ((uint32_t *)(uintptr_t)to->x)[t] = rows->x[row]; }
        for (size_t i = 0; i < D; i++) { ((double *)(uintptr_t)to->v)[t * D + i] = bptt_rows_get(spec, rows->v, row * D + i); }
        if (rows->y != NULL) { ((uint32_t *)(uintptr_t)to->y)[t] = counts ? rows->y[row] : BPTT_NO_LABEL; }
        for (size_t i = 0; i < Q; i++) {
            ((double *)(uintptr_t)to->d)[t * Q + i] = counts ? bptt_rows_get(spec, rows->d, row * Q + i) : (double)NAN;
        }
        if (counts) { labels += bptt_rows_labels(spec, rows, row, 1); }
    }
    return labels;
}

void bptt_rows_put(const bptt_spec *spec, const void *reals, size_t index, double value)
{
    void *memory = (void *)(uintptr_t)reals;
    if (spec->dtype == BPTT_F64) {
        ((double *)memory)[index] = value;
    } else {
        ((float *)memory)[index] = (float)value;
    }
}

double bptt_rows_get(const bptt_spec *spec, const void *reals, size_t index)
{
    return spec->dtype == BPTT_F64 ? ((const double *)reals)[index] : (double)((const float *)reals)[index];
}

size_t bptt_rows_labels(const bptt_spec *spec, const bptt_rows *rows, size_t row, size_t count)
{
    const size_t Q = (size_t)spec->outputs;
    size_t labels = 0;
    for (size_t i = row; i < row + count; i++) {
        if (rows->y != NULL) { labels += rows->y[i] < (uint64_t)spec->vocab; }
        for (size_t j = 0; j < Q; j++) { labels += isnan(bptt_rows_get(spec, rows->d, i * Q + j)) ? 0 : 1; }
    }
    return labels;
}
