/* peer_net.c: weights, element-wise work and the update rule of the peers written in C.  See peer_net.h. */
#include "peer_net.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* glibc has these for vectors too (libmvec, 4 ulp at most), yet its headers say so under -ffast-math alone. */
#pragma omp declare simd notinbranch
extern float expf(float);
#pragma omp declare simd notinbranch
extern float tanhf(float);

/* ---- memory ---- */

float *peer_floats(size_t count)
{
    enum { PAGE = 2 << 20, LARGE = 4 * PAGE }; /* large pages, as bptt gives its own models */
    const size_t unit = count * sizeof(float) < LARGE ? 64 : PAGE;
    const size_t bytes = (count * sizeof(float) + unit) / unit * unit;
    float *floats = aligned_alloc(unit, bytes);
    if (floats == NULL) { return NULL; }
    if (unit == PAGE) { (void)madvise(floats, bytes, MADV_HUGEPAGE); }
    return memset(floats, 0, bytes);
}

static bool open_block(const peer_net *net, peer_block *block)
{
    const size_t H = net->task->hidden, V = net->task->vocab, width = net->width;
    block->W_xh = peer_floats(net->count);
    if (block->W_xh == NULL) { return false; }
    block->W_hh = block->W_xh + V * width;
    block->W_hy = block->W_hh + H * width;
    block->b_h = block->W_hy + H * V;
    block->b_y = block->b_h + net->task->biases * H;
    return true;
}

bool peer_net_open(peer_net *net, const peer_task *task)
{
    const size_t H = task->hidden, V = task->vocab, rows = task->steps * task->batch, width = task->gates * H;
    *net = (peer_net){.task = task, .rows = rows, .width = width};
    net->count = V * width + H * width + H * V + task->biases * H + V;
    net->h = peer_floats((rows + task->batch) * H);
    net->o = peer_floats(rows * V);
    net->d = peer_floats(rows * H);
    net->touched = calloc(rows, sizeof *net->touched);
    net->last_seen = calloc(V, sizeof *net->last_seen);
    if (!open_block(net, &net->param) || !open_block(net, &net->grad) || !open_block(net, &net->moment)) { return false; }
    if (net->h == NULL || net->o == NULL || net->d == NULL || net->touched == NULL || net->last_seen == NULL) { return false; }
    memcpy(net->param.W_xh, task->W_xh, V * width * sizeof(float));
    memcpy(net->param.W_hh, task->W_hh, H * width * sizeof(float));
    memcpy(net->param.W_hy, task->W_hy, H * V * sizeof(float));
    return true;
}

void peer_net_close(peer_net *net)
{
    free(net->param.W_xh);
    free(net->grad.W_xh);
    free(net->moment.W_xh);
    free(net->h);
    free(net->o);
    free(net->d);
    free(net->touched);
    free(net->last_seen);
    *net = (peer_net){.task = NULL};
}

/* ---- a step ---- */

void peer_net_begin(peer_net *net, const uint32_t *x)
{
    net->step++;
    net->touched_count = 0;
    for (size_t r = 0; r < net->rows; r++) {
        if (net->last_seen[x[r]] == net->step) { continue; }
        net->last_seen[x[r]] = net->step;
        net->touched[net->touched_count++] = x[r];
    }
}

void peer_net_zero_rows(peer_net *net)
{
    const size_t width = net->width;
    for (size_t i = 0; i < net->touched_count; i++) {
        memset(net->grad.W_xh + net->touched[i] * width, 0, width * sizeof(float));
    }
}

static float sum_of_squares(size_t n, const float *g)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) { sum += g[i] * g[i]; }
    return sum;
}

static void adagrad(size_t n, float rate, float epsilon, float scale, const float *restrict gradient, float *restrict moment,
                    float *restrict param)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gradient[i] * scale;
        moment[i] += g * g;
        param[i] -= rate * g / (sqrtf(moment[i]) + epsilon);
    }
}

/* The squares are added up in parts of this size, in double, or a float's sum would lose digits. */
enum { PART = 4096 };

static double square_norm(size_t n, const float *g)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += PART) { sum += (double)sum_of_squares(n - i < PART ? n - i : PART, g + i); }
    return sum;
}

void peer_net_update(peer_net *net, bool sparse)
{
    const bptt_spec *spec = &net->task->spec;
    const size_t width = net->width, table = sparse ? net->task->vocab * width : 0, rest = net->count - table;
    const float rate = (float)spec->optimizer.rate, epsilon = (float)spec->optimizer.epsilon;
    float *p = net->param.W_xh, *g = net->grad.W_xh, *m = net->moment.W_xh;
    const size_t rows = sparse ? net->touched_count : 0;

    double square = square_norm(rest, g + table);
    for (size_t i = 0; i < rows; i++) { square += (double)sum_of_squares(width, g + net->touched[i] * width); }
    const double norm = sqrt(square);
    const float scale = norm > spec->clip.limit ? (float)(spec->clip.limit / norm) : 1;
    for (size_t i = 0; i < rows; i++) {
        const size_t at = net->touched[i] * width;
        adagrad(width, rate, epsilon, scale, g + at, m + at, p + at);
    }
    adagrad(rest, rate, epsilon, scale, g + table, m + table, p + table);
}

/* Time that the processor spent on us, all threads: another program's turns do not count. */
static double processor_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void peer_steps(const peer_task *task, uint64_t *next, long steps, double (*step)(void *, const uint32_t *, const uint32_t *),
                void *self, peer_result *result)
{
    const size_t chunk = task->steps * task->batch;
    const double start = processor_seconds();
    for (long i = 0; i < steps; i++) {
        const size_t at = (*next)++ % task->chunks * chunk;
        result->loss = step(self, task->x + at, task->y + at);
    }
    result->seconds = processor_seconds() - start;
}

/* ---- rows ---- */

void peer_gather(size_t rows, size_t width, const float *W, const float *bias, const uint32_t *x, float *out)
{
    for (size_t r = 0; r < rows; r++) {
        const float *restrict row = W + x[r] * width;
        float *restrict to = out + r * width;
        if (bias == NULL) {
            memcpy(to, row, width * sizeof(float));
            continue;
        }
        for (size_t j = 0; j < width; j++) { to[j] = row[j] + bias[j]; }
    }
}

void peer_scatter(size_t rows, size_t width, const float *d, const uint32_t *x, float *W)
{
    for (size_t r = 0; r < rows; r++) {
        const float *restrict from = d + r * width;
        float *restrict row = W + x[r] * width;
        for (size_t j = 0; j < width; j++) { row[j] += from[j]; }
    }
}

void peer_spread(size_t rows, size_t n, const float *row, float *out)
{
    for (size_t r = 0; r < rows; r++) { memcpy(out + r * n, row, n * sizeof(float)); }
}

void peer_column_sum(size_t rows, size_t n, const float *a, float *restrict sums)
{
    memset(sums, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        const float *restrict row = a + r * n;
        for (size_t j = 0; j < n; j++) { sums[j] += row[j]; }
    }
}

/* ---- elements ---- */

void peer_tanh(size_t n, float *a)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) { a[i] = tanhf(a[i]); }
}

void peer_tanh_backward(size_t n, const float *restrict h, float *restrict d)
{
    for (size_t i = 0; i < n; i++) { d[i] *= 1 - h[i] * h[i]; }
}

double peer_softmax(size_t rows, size_t V, const uint32_t *y, float *o)
{
    const float weight = 1 / (float)rows;
    double loss = 0;
    for (size_t r = 0; r < rows; r++, o += V) {
        float max = o[0], sum = 0;
#pragma omp simd reduction(max : max)
        for (size_t v = 0; v < V; v++) { max = o[v] > max ? o[v] : max; }
        const float label = o[y[r]];
#pragma omp simd reduction(+ : sum)
        for (size_t v = 0; v < V; v++) {
            o[v] = expf(o[v] - max);
            sum += o[v];
        }
        const float scale = weight / sum;
        for (size_t v = 0; v < V; v++) { o[v] *= scale; }
        o[y[r]] -= weight;
        loss += (double)(logf(sum) + max - label);
    }
    return loss / (double)rows;
}
