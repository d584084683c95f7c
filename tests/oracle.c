/* oracle.c: the formulas of design.md section 1, spelled out naively.  See oracle.h.
 *
 * Depends on spec.h and abi.h for types alone, and on libm.  Refuses to be fast, or to share a line with what it judges.
 */
#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the net ---- */

double *oracle_doubles(size_t count)
{
    double *values = calloc(count + 1, sizeof *values);
    if (values == NULL) { abort(); }
    return values;
}

oracle_net *oracle_net_new(const bptt_spec *spec)
{
    oracle_net *net = calloc(1, sizeof *net);
    if (net == NULL) { abort(); }
    const size_t H = (size_t)spec->hidden, V = (size_t)spec->vocab;
    const oracle_tensor tensors[ORACLE_TENSORS] = {
        {"W_xh", V, H, 0}, {"W_hh", H, H, 0}, {"b_h", 1, H, 0}, {"W_hy", H, V, 0}, {"b_y", 1, V, 0},
    };
    for (int i = 0; i < ORACLE_TENSORS; i++) {
        net->tensors[i] = tensors[i];
        net->tensors[i].offset = net->count;
        net->count += tensors[i].rows * tensors[i].cols;
    }
    net->hidden = H;
    net->vocab = V;
    net->batch = (size_t)spec->batch;
    net->activation = spec->activation;
    net->reduction = spec->reduction;
    net->params = oracle_doubles(net->count);
    return net;
}

void oracle_net_free(oracle_net *net)
{
    free(net->params);
    free(net);
}

/* The tensors of a flat vector by name; W is indexed [input][output]. */
struct view {
    double *W_xh, *W_hh, *b_h, *W_hy, *b_y;
};

static struct view view_of(const oracle_net *net, double *flat)
{
    const oracle_tensor *t = net->tensors;
    return (struct view){flat + t[0].offset, flat + t[1].offset, flat + t[2].offset, flat + t[3].offset, flat + t[4].offset};
}

static const oracle_tensor *find_tensor(const oracle_net *net, const char *name)
{
    for (int i = 0; i < ORACLE_TENSORS; i++) {
        if (strcmp(net->tensors[i].name, name) == 0) { return &net->tensors[i]; }
    }
    return NULL;
}

size_t oracle_index(const oracle_net *net, const char *name, size_t row, size_t col)
{
    const oracle_tensor *tensor = find_tensor(net, name);
    if (tensor == NULL || row >= tensor->rows || col >= tensor->cols) { abort(); }
    return tensor->offset + row * tensor->cols + col;
}

/* ---- forward ---- */

static double phi(const oracle_net *net, double a)
{
    switch (net->activation) {
    case BPTT_TANH:
        return tanh(a);
    case BPTT_RELU:
        return fmax(a, 0);
    case BPTT_SIGMOID:
        return 1 / (1 + exp(-a));
    case BPTT_IDENTITY:
        return a;
    }
    abort();
}

/* phi'(a) where phi(a) = h */
static double phi_slope(const oracle_net *net, double h)
{
    switch (net->activation) {
    case BPTT_TANH:
        return 1 - h * h;
    case BPTT_RELU:
        return h > 0 ? 1 : 0;
    case BPTT_SIGMOID:
        return h * (1 - h);
    case BPTT_IDENTITY:
        return 1;
    }
    abort();
}

/* a_t[j] of one stream with the weights `flat`, from the token and before[H]. */
static double preactivation(const oracle_net *net, double *flat, uint32_t x, const double *before, size_t j)
{
    const size_t H = net->hidden;
    const struct view w = view_of(net, flat);
    double a = w.W_xh[x * H + j] + w.b_h[j];
    for (size_t i = 0; i < H; i++) { a += w.W_hh[i * H + j] * before[i]; }
    return a;
}

/* One step of one stream: h[H] from the token and before[H], logits o[V]. */
static void step(const oracle_net *net, double *flat, uint32_t x, const double *before, double *h, double *o)
{
    const size_t H = net->hidden, V = net->vocab;
    const struct view w = view_of(net, flat);
    for (size_t j = 0; j < H; j++) { h[j] = phi(net, preactivation(net, flat, x, before, j)); }
    for (size_t v = 0; v < V; v++) {
        o[v] = w.b_y[v];
        for (size_t i = 0; i < H; i++) { o[v] += w.W_hy[i * V + v] * h[i]; }
    }
}

/* -log softmax(o)[y] = log sum_v exp(o_v - o_y), from above by the largest term. */
static double row_loss(size_t V, const double *o, size_t y)
{
    double max = 0;
    for (size_t v = 0; v < V; v++) { max = fmax(max, o[v] - o[y]); }
    double sum = exp(-max);
    for (size_t v = 0; v < V; v++) { sum += v == y ? 0 : exp(o[v] - o[y] - max); }
    return max + log(sum);
}

/* p[v] = exp(o_v) / sum_u exp(o_u), both times exp(-largest); p may be o. */
static void softmax(size_t V, const double *o, double *p)
{
    double largest = o[0], sum = 0;
    for (size_t v = 1; v < V; v++) { largest = fmax(largest, o[v]); }
    for (size_t v = 0; v < V; v++) { sum += p[v] = exp(o[v] - largest); }
    for (size_t v = 0; v < V; v++) { p[v] /= sum; }
}

/* What one label's loss counts for in the chunk whose labels are y[count]. */
static double label_weight(const oracle_net *net, size_t count, const uint32_t *y)
{
    size_t labels = 0;
    for (size_t i = 0; i < count; i++) { labels += y[i] < net->vocab ? 1 : 0; }
    if (labels == 0) { return 0; }
    return net->reduction == BPTT_MEAN ? 1 / (double)labels : 1;
}

/* All steps of stream b with the weights of each step: h[steps + 1][H] with h[0] given, o[steps][V].  `stride` is the distance
 * from one step's weights to the next: 0 when they are tied. */
static void run_stream(const oracle_net *net, double *flat, size_t stride, size_t steps, const uint32_t *x, size_t b, double *h,
                       double *o)
{
    const size_t H = net->hidden, V = net->vocab;
    for (size_t t = 0; t < steps; t++) {
        step(net, flat + t * stride, x[t * net->batch + b], h + t * H, h + (t + 1) * H, o + t * V);
    }
}

static void copy_state(const oracle_net *net, const double *h0, size_t b, double *h)
{
    for (size_t j = 0; j < net->hidden; j++) { h[j] = h0 == NULL ? 0 : h0[b * net->hidden + j]; }
}

double oracle_loss(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0, double *h_end)
{
    const size_t H = net->hidden, V = net->vocab, B = net->batch;
    const double weight = label_weight(net, steps * B, y);
    double *h = oracle_doubles((steps + 1) * H), *o = oracle_doubles(steps * V), loss = 0;
    for (size_t b = 0; b < B; b++) {
        copy_state(net, h0, b, h);
        run_stream(net, net->params, 0, steps, x, b, h, o);
        for (size_t t = 0; t < steps; t++) {
            if (y[t * B + b] < V) { loss += weight * row_loss(V, o + t * V, y[t * B + b]); }
        }
        if (h_end != NULL) { memcpy(h_end + b * H, h + steps * H, H * sizeof *h); }
    }
    free(h);
    free(o);
    return loss;
}

double oracle_nearest_kink(const oracle_net *net, size_t steps, const uint32_t *x, const double *h0)
{
    const size_t H = net->hidden, B = net->batch;
    double *h = oracle_doubles((steps + 1) * H), *o = oracle_doubles(steps * net->vocab), nearest = HUGE_VAL;
    for (size_t b = 0; b < B && net->activation == BPTT_RELU; b++) {
        copy_state(net, h0, b, h);
        run_stream(net, net->params, 0, steps, x, b, h, o);
        for (size_t i = 0; i < steps * H; i++) {
            const size_t t = i / H;
            nearest = fmin(nearest, fabs(preactivation(net, net->params, x[t * B + b], h + t * H, i % H)));
        }
    }
    free(h);
    free(o);
    return nearest;
}

void oracle_predict(const oracle_net *net, const uint32_t *x, double *h, double *probabilities)
{
    const size_t H = net->hidden, V = net->vocab;
    double *after = oracle_doubles(H), *o = oracle_doubles(V);
    for (size_t b = 0; b < net->batch; b++) {
        step(net, net->params, x[b], h + b * H, after, o);
        memcpy(h + b * H, after, H * sizeof *h);
        softmax(V, o, probabilities + b * V);
    }
    free(after);
    free(o);
}

/* ---- textbook BPTT ---- */

/* dO of one row: (p - onehot(y)) * weight, zero without a label.  o[V] is overwritten. */
static void logits_gradient(size_t V, double *o, uint32_t y, double weight)
{
    softmax(V, o, o);
    for (size_t v = 0; v < V; v++) { o[v] = y < V ? (o[v] - (v == y ? 1 : 0)) * weight : 0; }
}

/* Adds one weight step's share: dA of that step, the token and the state that went in. */
static void add_hidden_share(const oracle_net *net, double *gradient, uint32_t x, const double *before, const double *dA)
{
    const size_t H = net->hidden;
    const struct view g = view_of(net, gradient);
    for (size_t j = 0; j < H; j++) {
        g.W_xh[x * H + j] += dA[j];
        g.b_h[j] += dA[j];
        for (size_t i = 0; i < H; i++) { g.W_hh[i * H + j] += before[i] * dA[j]; }
    }
}

static void add_output_share(const oracle_net *net, double *gradient, const double *h, const double *dO)
{
    const size_t V = net->vocab;
    const struct view g = view_of(net, gradient);
    for (size_t v = 0; v < V; v++) {
        g.b_y[v] += dO[v];
        for (size_t i = 0; i < net->hidden; i++) { g.W_hy[i * V + v] += h[i] * dO[v]; }
    }
}

/* The backward sweep of stream b over h[steps + 1][H], dO[steps][V]. */
static void sweep(const oracle_net *net, size_t steps, const uint32_t *x, size_t b, const double *h, const double *dO,
                  double *gradient)
{
    const size_t H = net->hidden, V = net->vocab;
    const struct view w = view_of(net, net->params);
    double *dA = oracle_doubles(H), *after = oracle_doubles(H);
    for (size_t t = steps; t-- > 0;) {
        for (size_t i = 0; i < H; i++) {
            double dH = 0;
            for (size_t v = 0; v < V; v++) { dH += w.W_hy[i * V + v] * dO[t * V + v]; }
            for (size_t j = 0; j < H && !net->cut; j++) { dH += w.W_hh[i * H + j] * after[j]; }
            dA[i] = dH * phi_slope(net, h[(t + 1) * H + i]);
        }
        add_output_share(net, gradient, h + (t + 1) * H, dO + t * V);
        add_hidden_share(net, gradient, x[t * net->batch + b], h + t * H, dA);
        memcpy(after, dA, H * sizeof *after);
    }
    free(dA);
    free(after);
}

double oracle_bptt(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0, double *gradient,
                   double *h_end)
{
    const size_t H = net->hidden, V = net->vocab, B = net->batch;
    const double weight = label_weight(net, steps * B, y);
    double *h = oracle_doubles((steps + 1) * H), *o = oracle_doubles(steps * V);
    memset(gradient, 0, net->count * sizeof *gradient);
    for (size_t b = 0; b < B; b++) {
        copy_state(net, h0, b, h);
        run_stream(net, net->params, 0, steps, x, b, h, o);
        for (size_t t = 0; t < steps; t++) { logits_gradient(V, o + t * V, y[t * B + b], weight); }
        sweep(net, steps, x, b, h, o, gradient);
    }
    free(h);
    free(o);
    return oracle_loss(net, steps, x, y, h0, h_end);
}

/* ---- central differences ---- */

static const double DELTA = 1e-5;

void oracle_central(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0, double *gradient)
{
    for (size_t i = 0; i < net->count; i++) {
        const double value = net->params[i];
        net->params[i] = value + DELTA;
        const double above = oracle_loss(net, steps, x, y, h0, NULL);
        net->params[i] = value - DELTA;
        const double below = oracle_loss(net, steps, x, y, h0, NULL);
        net->params[i] = value;
        gradient[i] = (above - below) / (2 * DELTA);
    }
}

/* ---- the path sum ---- */

/* product[H][H] = product J_t, where J_t[a][b] = d h_t[a] / d h_{t-1}[b] = phi'_a W_hh[b][a]. */
static void times_jacobian(const oracle_net *net, const double *h_t, double *product)
{
    const size_t H = net->hidden;
    const struct view w = view_of(net, net->params);
    double *result = oracle_doubles(H * H);
    for (size_t r = 0; r < H; r++) {
        for (size_t c = 0; c < H; c++) {
            for (size_t a = 0; a < H; a++) {
                result[r * H + c] += product[r * H + a] * phi_slope(net, h_t[a]) * w.W_hh[c * H + a];
            }
        }
    }
    memcpy(product, result, H * H * sizeof *product);
    free(result);
}

/* The paths from loss step t to weight step s: dL_t/dh_t (J_t ... J_{s+1}) times the immediate dh_s/da_s. */
static void add_paths(const oracle_net *net, size_t t, size_t s, uint32_t x_s, const double *h, const double *dO,
                      double *gradient)
{
    const size_t H = net->hidden, V = net->vocab;
    const struct view w = view_of(net, net->params);
    double *product = oracle_doubles(H * H), *dA = oracle_doubles(H);
    for (size_t i = 0; i < H; i++) { product[i * H + i] = 1; }
    for (size_t r = t; r > s; r--) { times_jacobian(net, h + (r + 1) * H, product); }
    for (size_t j = 0; j < H; j++) {
        for (size_t i = 0; i < H; i++) {
            for (size_t v = 0; v < V; v++) { dA[j] += dO[t * V + v] * w.W_hy[i * V + v] * product[i * H + j]; }
        }
        dA[j] *= phi_slope(net, h[(s + 1) * H + j]);
    }
    add_hidden_share(net, gradient, x_s, h + s * H, dA);
    free(product);
    free(dA);
}

void oracle_path_sum(const oracle_net *net, size_t steps, const uint32_t *x, const uint32_t *y, const double *h0,
                     double *gradient)
{
    const size_t H = net->hidden, V = net->vocab, B = net->batch;
    const double weight = label_weight(net, steps * B, y);
    double *h = oracle_doubles((steps + 1) * H), *o = oracle_doubles(steps * V);
    memset(gradient, 0, net->count * sizeof *gradient);
    for (size_t b = 0; b < B; b++) {
        copy_state(net, h0, b, h);
        run_stream(net, net->params, 0, steps, x, b, h, o);
        for (size_t t = 0; t < steps; t++) {
            logits_gradient(V, o + t * V, y[t * B + b], weight);
            add_output_share(net, gradient, h + (t + 1) * H, o + t * V);
            for (size_t s = 0; s <= t; s++) { add_paths(net, t, s, x[s * B + b], h, o, gradient); }
        }
    }
    free(h);
    free(o);
}

/* ---- the untied oracle ---- */

/* Every loss term, terms[T][B], of the whole sequence with one copy of the weights a step; 0 where there is no label. */
static void untied_terms(const oracle_net *net, double *copies, size_t T, const uint32_t *x, const uint32_t *y, const double *h0,
                         double *terms)
{
    const size_t V = net->vocab, B = net->batch;
    double *h = oracle_doubles((T + 1) * net->hidden), *o = oracle_doubles(T * V);
    for (size_t b = 0; b < B; b++) {
        copy_state(net, h0, b, h);
        run_stream(net, copies, net->count, T, x, b, h, o);
        for (size_t t = 0; t < T; t++) { terms[t * B + b] = y[t * B + b] < V ? row_loss(V, o + t * V, y[t * B + b]) : 0; }
    }
    free(h);
    free(o);
}

void oracle_untied(const oracle_net *net, size_t T, size_t K, const uint32_t *x, const uint32_t *y, const double *h0,
                   double *gradients)
{
    const size_t B = net->batch, chunks = (T + K - 1) / K;
    double *copies = oracle_doubles(T * net->count), *above = oracle_doubles(T * B), *below = oracle_doubles(T * B);
    memset(gradients, 0, chunks * net->count * sizeof *gradients);
    for (size_t t = 0; t < T; t++) { memcpy(copies + t * net->count, net->params, net->count * sizeof *copies); }
    for (size_t s = 0; s < T; s++) {
        const size_t first = s / K * K, end = first + K < T ? first + K : T;
        const double weight = label_weight(net, (end - first) * B, y + first * B);
        for (size_t i = 0; i < net->count; i++) {
            double *element = &copies[s * net->count + i];
            *element = net->params[i] + DELTA;
            untied_terms(net, copies, T, x, y, h0, above);
            *element = net->params[i] - DELTA;
            untied_terms(net, copies, T, x, y, h0, below);
            *element = net->params[i];
            for (size_t t = first * B; t < end * B; t++) {
                gradients[s / K * net->count + i] += weight * (above[t] - below[t]) / (2 * DELTA);
            }
        }
    }
    free(copies);
    free(above);
    free(below);
}

/* ---- training ---- */

static uint64_t split_mix(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A uniform number in [-1, 1). */
static double symmetric(uint64_t *state)
{
    return 2 * ldexp((double)(split_mix(state) >> 11), -53) - 1;
}

/* Marsaglia's polar method, one number of the pair. */
static double gauss(uint64_t *state)
{
    for (;;) {
        const double a = symmetric(state), b = symmetric(state), s = a * a + b * b;
        if (s < 1 && s > 0) { return a * sqrt(-2 * log(s) / s); }
    }
}

/* The rows of a random matrix, or its columns where these are fewer, by the textbook's Gram-Schmidt: from each vector its shares of
 * the ones before are taken away; in long double, so once will do. */
static void draw_orthogonal(size_t rows, size_t cols, double scale, uint64_t *state, double *w)
{
    const size_t count = rows < cols ? rows : cols, n = rows < cols ? cols : rows;
    long double *q = calloc(count * n, sizeof *q), *v = calloc(n, sizeof *v);
    if (q == NULL || v == NULL) { abort(); }
    for (size_t k = 0; k < count; k++) {
        long double square = 0;
        for (size_t i = 0; i < n; i++) { v[i] = q[k * n + i] = (long double)gauss(state); }
        for (size_t j = 0; j < k; j++) {
            long double along = 0;
            for (size_t i = 0; i < n; i++) { along += v[i] * q[j * n + i]; }
            for (size_t i = 0; i < n; i++) { q[k * n + i] -= along * q[j * n + i]; }
        }
        for (size_t i = 0; i < n; i++) { square += q[k * n + i] * q[k * n + i]; }
        for (size_t i = 0; i < n; i++) {
            q[k * n + i] /= sqrtl(square);
            w[rows < cols ? k * cols + i : i * cols + k] = scale * (double)q[k * n + i];
        }
    }
    free(q);
    free(v);
}

void oracle_init(const oracle_net *net, const bptt_spec *spec, uint64_t seed, double *params)
{
    memset(params, 0, net->count * sizeof *params);
    for (size_t k = 0; k < ORACLE_TENSORS; k++) {
        const oracle_tensor *tensor = &net->tensors[k];
        const bool own = strcmp(tensor->name, "W_hh") == 0 && spec->init_recurrent.kind != BPTT_INIT_SAME;
        const bptt_init *init = own ? &spec->init_recurrent : &spec->init;
        double *w = params + tensor->offset;
        if (tensor->name[0] != 'W') { continue; }
        for (size_t i = 0; i < tensor->rows * tensor->cols; i++) {
            const bool diagonal = i / tensor->cols == i % tensor->cols;
            switch (init->kind) {
            case BPTT_INIT_NORMAL:
                w[i] = init->scale * gauss(&seed);
                break;
            case BPTT_INIT_XAVIER:
                w[i] = init->scale * sqrt(6.0 / (double)(tensor->rows + tensor->cols)) * symmetric(&seed);
                break;
            case BPTT_INIT_IDENTITY:
                w[i] = diagonal ? init->scale : 0;
                break;
            case BPTT_INIT_ORTHOGONAL:
                break;
            default:
                w[i] = init->scale * symmetric(&seed);
            }
        }
        if (init->kind == BPTT_INIT_ORTHOGONAL) { draw_orthogonal(tensor->rows, tensor->cols, init->scale, &seed, w); }
    }
}

static void clip_gradient(const bptt_clip *clip, double norm, size_t count, double *g)
{
    for (size_t i = 0; i < count; i++) {
        if (clip->kind == BPTT_CLIP_NORM && norm > clip->limit) { g[i] = g[i] / norm * clip->limit; }
        if (clip->kind == BPTT_CLIP_VALUE) { g[i] = fmax(-clip->limit, fmin(clip->limit, g[i])); }
    }
}

double oracle_schedule(const bptt_spec *spec, uint64_t n)
{
    const bptt_schedule *s = &spec->schedule;
    double factor = 1;
    if (n <= (uint64_t)s->warmup) { return (double)n / s->warmup; }
    const uint64_t done = n - 1 - (uint64_t)s->warmup;
    for (uint64_t i = 1; i <= done && s->kind == BPTT_SCHEDULE_EXPONENTIAL; i++) { factor *= s->factor; }
    for (uint64_t i = 1; i <= done && s->kind == BPTT_SCHEDULE_STEP; i++) {
        factor *= i % (uint64_t)s->every == 0 ? s->factor : 1;
    }
    if (s->kind == BPTT_SCHEDULE_COSINE) {
        const double half = asin(1) * fmin(1, (double)done / s->steps); /* (1 + cos 2a) / 2 = cos^2 a */
        factor = s->floor + (1 - s->floor) * pow(cos(half), 2);
    }
    return factor;
}

double oracle_update(const bptt_spec *spec, uint64_t n, size_t count, double *params, double *g, double *const m[2])
{
    const bptt_optimizer *rule = &spec->optimizer;
    const double rate = rule->rate * oracle_schedule(spec, n);
    double norm = 0;
    for (size_t i = 0; i < count; i++) { norm = hypot(norm, g[i]); }
    if (!isfinite(norm)) { return norm; }
    clip_gradient(&spec->clip, norm, count, g);
    for (size_t i = 0; i < count; i++) {
        double *first = &m[0][i], *second = &m[1][i], delta = 0;
        const double shrink = rule->kind == BPTT_ADAMW ? 1 - rate * rule->weight_decay : 1;
        if (rule->kind != BPTT_ADAMW) { g[i] += rule->weight_decay * params[i]; }
        switch (rule->kind) {
        case BPTT_SGD:
            delta = g[i];
            break;
        case BPTT_MOMENTUM:
            delta = *first = rule->momentum * *first + g[i];
            if (rule->nesterov != 0) { delta = g[i] + rule->momentum * *first; }
            break;
        case BPTT_ADAGRAD:
            *first += pow(g[i], 2);
            delta = g[i] / (sqrt(*first) + rule->epsilon);
            break;
        case BPTT_RMSPROP:
            *first = rule->decay * *first + (1 - rule->decay) * pow(g[i], 2);
            delta = g[i] / (sqrt(*first) + rule->epsilon);
            break;
        case BPTT_ADAM:
        case BPTT_ADAMW:
            *first = rule->beta1 * *first + (1 - rule->beta1) * g[i];
            *second = rule->beta2 * *second + (1 - rule->beta2) * pow(g[i], 2);
            delta = *first / (1 - pow(rule->beta1, (double)n));
            delta /= sqrt(*second / (1 - pow(rule->beta2, (double)n))) + rule->epsilon;
            break;
        }
        params[i] = params[i] * shrink - rate * delta;
    }
    return norm;
}

/* ---- any bptt_model ---- */

void *oracle_memory_new(const bptt_model *model)
{
    const size_t size = (model->bytes + 63) / 64 * 64;
    void *memory = aligned_alloc(64, size);
    if (memory == NULL) { abort(); }
    return memset(memory, 0, size);
}

static double get_real(const bptt_model *model, const void *memory, size_t block, size_t i)
{
    const char *at = (const char *)memory + block + i * model->real_size;
    double wide;
    float narrow;
    if (model->real_size == sizeof wide) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return (double)narrow;
}

static void set_real(const bptt_model *model, void *memory, size_t block, size_t i, double wide)
{
    char *at = (char *)memory + block + i * model->real_size;
    const float narrow = (float)wide;
    memcpy(at, model->real_size == sizeof wide ? (const void *)&wide : (const void *)&narrow, model->real_size);
}

/* The model's tensor of this name and shape, or NULL. */
static const bptt_tensor *match_tensor(const bptt_tensor *table, uint32_t count, const char *name, size_t rows, size_t cols)
{
    for (uint32_t i = 0; i < count; i++) {
        const bptt_tensor *t = &table[i];
        if (strcmp(t->name, name) == 0) { return t->rows == rows && t->cols == cols && t->stride >= cols ? t : NULL; }
    }
    return NULL;
}

/* Copies `flat` (dense rows of the tensors one after the other) into the model's tensors, or out of them. */
enum direction { INTO_MODEL, OUT_OF_MODEL };

static void copy_tensor(enum direction direction, const bptt_model *model, void *memory, size_t block, const bptt_tensor *t,
                        double *flat)
{
    for (size_t row = 0; row < t->rows; row++) {
        for (size_t col = 0; col < t->cols; col++) {
            const size_t at = t->offset + row * t->stride + col;
            double *value = &flat[row * t->cols + col];
            if (direction == OUT_OF_MODEL) {
                *value = get_real(model, memory, block, at);
            } else {
                set_real(model, memory, block, at, *value);
            }
        }
    }
}

static bool copy_block(enum direction direction, const oracle_net *net, const bptt_model *model, void *memory, size_t block,
                       double *flat)
{
    if (model->tensor_count != ORACLE_TENSORS) { return false; }
    for (int i = 0; i < ORACLE_TENSORS; i++) {
        const oracle_tensor *ours = &net->tensors[i];
        const bptt_tensor *t = match_tensor(model->tensors, model->tensor_count, ours->name, ours->rows, ours->cols);
        if (t == NULL) { return false; }
        copy_tensor(direction, model, memory, block, t, flat + ours->offset);
    }
    return true;
}

static bool copy_states(enum direction direction, const oracle_net *net, const bptt_model *model, void *memory, double *h)
{
    const bptt_tensor *t = match_tensor(model->states, model->state_count, "h", net->batch, net->hidden);
    if (t == NULL) { return false; }
    copy_tensor(direction, model, memory, model->state, t, h);
    return true;
}

bool oracle_read(const oracle_net *net, const bptt_model *model, const void *memory, size_t block, double *flat)
{
    return copy_block(OUT_OF_MODEL, net, model, (void *)(uintptr_t)memory, block, flat);
}

bool oracle_write(const oracle_net *net, const bptt_model *model, void *memory, size_t block, const double *flat)
{
    const bool ok = copy_block(INTO_MODEL, net, model, memory, block, (double *)(uintptr_t)flat);
    if (ok && block == model->param) { model->refresh(model, memory); }
    return ok;
}

bool oracle_read_state(const oracle_net *net, const bptt_model *model, const void *memory, double *h)
{
    return copy_states(OUT_OF_MODEL, net, model, (void *)(uintptr_t)memory, h);
}

bool oracle_write_state(const oracle_net *net, const bptt_model *model, void *memory, const double *h)
{
    return copy_states(INTO_MODEL, net, model, memory, (double *)(uintptr_t)h);
}

bool oracle_padding_clean(const bptt_model *model, const void *memory, size_t block)
{
    bool *used = calloc(model->block + 1, sizeof *used);
    if (used == NULL) { abort(); }
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const bptt_tensor *t = &model->tensors[i];
        for (size_t row = 0; row < t->rows; row++) { memset(used + t->offset + row * t->stride, true, t->cols); }
    }
    bool clean = true;
    for (size_t i = 0; i < model->block; i++) { clean = clean && (used[i] || get_real(model, memory, block, i) == 0); }
    free(used);
    return clean;
}

/* ---- comparison ---- */

static double largest(const double *values, size_t count)
{
    double max = 0;
    for (size_t i = 0; i < count; i++) { max = fmax(max, fabs(values[i])); }
    return max;
}

static double relative_error(double a, double b, double scale)
{
    if (!isfinite(a) || !isfinite(b)) { return HUGE_VAL; }
    if (a == b) { return 0; }
    return fabs(a - b) / (fabs(a) + fabs(b) + scale);
}

oracle_report oracle_compare_flat(const oracle_net *net, const double *expected, const double *actual)
{
    oracle_report report = {.tensor = net->tensors[0].name};
    const double floor = largest(expected, net->count) / 1000;
    for (int k = 0; k < ORACLE_TENSORS; k++) {
        const oracle_tensor *t = &net->tensors[k];
        const size_t count = t->rows * t->cols;
        const double scale = fmax(floor, largest(expected + t->offset, count));
        for (size_t i = t->offset; i < t->offset + count; i++) {
            report.error[k] = fmax(report.error[k], relative_error(expected[i], actual[i], scale));
        }
        if (report.error[k] > report.worst) {
            report.worst = report.error[k];
            report.tensor = t->name;
        }
    }
    return report;
}

oracle_report oracle_compare(const oracle_net *net, const double *expected, const bptt_model *model, const void *memory,
                             size_t block)
{
    double *actual = oracle_doubles(net->count);
    oracle_report report = {.worst = HUGE_VAL, .tensor = "(table)"};
    if (oracle_read(net, model, memory, block, actual)) { report = oracle_compare_flat(net, expected, actual); }
    free(actual);
    return report;
}

/* ---- oracle_follow ---- */

struct follow {
    const bptt_spec *spec;
    const bptt_model *model;
    void *memory;
    oracle_net *net;
    oracle_verdict verdict;
    unsigned sequence;
    uint32_t chunk;
    double *state, *expected, *grad, *moment[2];
};

static void note(struct follow *f, double error, const char *what, const char *tensor)
{
    if (!(error > f->verdict.worst)) { return; }
    f->verdict.worst = error;
    (void)snprintf(f->verdict.where, sizeof f->verdict.where, "sequence %u chunk %u: %s%s", f->sequence, (unsigned)f->chunk, what,
                   tensor);
}

static void note_block(struct follow *f, const double *expected, size_t block, const char *what)
{
    const oracle_report report = oracle_compare(f->net, expected, f->model, f->memory, block);
    note(f, report.worst, what, report.tensor);
    note(f, oracle_padding_clean(f->model, f->memory, block) ? 0 : HUGE_VAL, "padding behind ", what);
}

static void note_vector(struct follow *f, const double *expected, const double *actual, size_t count, const char *what)
{
    const double scale = largest(expected, count);
    for (size_t i = 0; i < count; i++) { note(f, relative_error(expected[i], actual[i], scale), what, ""); }
}

static void note_state(struct follow *f, const double *expected, const char *what)
{
    double *actual = oracle_doubles(f->net->batch * f->net->hidden);
    if (!oracle_read_state(f->net, f->model, f->memory, actual)) { note(f, HUGE_VAL, "state table", ""); }
    note_vector(f, expected, actual, f->net->batch * f->net->hidden, what);
    free(actual);
}

/* Loss, gradients and final state of one chunk. */
static void follow_chunk(struct follow *f, size_t steps, const uint32_t *x, const uint32_t *y)
{
    const oracle_net *net = f->net;
    double *after = oracle_doubles(net->batch * net->hidden);
    const bool fresh = f->chunk == 0 && !f->spec->carry;
    (void)oracle_read(net, f->model, f->memory, f->model->param, net->params);
    (void)oracle_read_state(net, f->model, f->memory, f->state);
    const double expected = oracle_bptt(net, steps, x, y, fresh ? NULL : f->state, f->expected, after);

    double loss = f->model->loss(f->model, f->memory, &(bptt_rows){.x = x, .y = y}, f->chunk);
    note(f, relative_error(expected, loss, 1), "loss()", "");
    note_state(f, after, "state after loss()");
    (void)oracle_write_state(net, f->model, f->memory, f->state);
    loss = f->model->gradient(f->model, f->memory, &(bptt_rows){.x = x, .y = y}, f->chunk);
    note(f, relative_error(expected, loss, 1), "loss of gradient()", "");
    note_state(f, after, "state after gradient()");
    f->verdict.chunks++;
    if (f->model->real_size == sizeof(float) && oracle_nearest_kink(net, steps, x, fresh ? NULL : f->state) < 1e-5) {
        f->verdict.skipped++;
    } else {
        note_block(f, f->expected, f->model->grad, "gradient of ");
    }
    free(after);
}

static void follow_update(struct follow *f, uint64_t n)
{
    const bptt_model *model = f->model;
    const bptt_optimizer *rule = &f->spec->optimizer;
    (void)oracle_read(f->net, model, f->memory, model->param, f->net->params);
    (void)oracle_read(f->net, model, f->memory, model->grad, f->grad);
    for (uint32_t i = 0; i < model->moment_count; i++) {
        (void)oracle_read(f->net, model, f->memory, model->moment[i], f->moment[i]);
    }
    const double expected = oracle_update(f->spec, n, f->net->count, f->net->params, f->grad, f->moment);
    const double norm = model->update(model, f->memory);
    note(f, relative_error(expected, norm, expected), "norm", "");
    const double next = model->rate == NULL ? rule->rate : model->rate(model, f->memory);
    note(f, relative_error(rule->rate * oracle_schedule(f->spec, n + 1), next, 0), "rate of the next update", "");
    note_block(f, f->net->params, model->param, "update of ");
    for (uint32_t i = 0; i < model->moment_count; i++) { note_block(f, f->moment[i], model->moment[i], "moment of "); }

    double progress[3];
    const double count = (double)n, wanted[3] = {count, pow(rule->beta1, count), pow(rule->beta2, count)};
    memcpy(progress, (const char *)f->memory + model->progress, sizeof progress);
    note_vector(f, wanted, progress, rule->kind >= BPTT_ADAM ? 3 : 1, "progress");
}

static void follow_predict(struct follow *f, const uint32_t *x)
{
    const oracle_net *net = f->net;
    const size_t count = net->batch * net->vocab;
    double *expected = oracle_doubles(count), *actual = oracle_doubles(count);
    void *raw = calloc(count, f->model->real_size);
    if (raw == NULL) { abort(); }
    (void)oracle_read(net, f->model, f->memory, f->model->param, net->params);
    (void)oracle_read_state(net, f->model, f->memory, f->state);
    oracle_predict(net, x, f->state, expected);
    f->model->predict(f->model, f->memory, &(bptt_rows){.x = x}, raw);
    for (size_t i = 0; i < count; i++) { actual[i] = get_real(f->model, raw, 0, i); }
    note_vector(f, expected, actual, count, "probabilities");
    note_state(f, f->state, "state after predict()");
    f->model->reset(f->model, f->memory);
    memset(f->state, 0, net->batch * net->hidden * sizeof *f->state);
    note_state(f, f->state, "state after reset()");
    free(expected);
    free(actual);
    free(raw);
}

static void follow_start(struct follow *f, uint64_t seed)
{
    const bptt_model *model = f->model;
    model->init(model, f->memory, seed);
    oracle_init(f->net, f->spec, seed, f->net->params);
    note_block(f, f->net->params, model->param, "init of ");
    note_state(f, f->state, "initial state");
    static const uint32_t moments[] = {0, 1, 1, 1, 2, 2};
    note(f, model->moment_count == moments[f->spec->optimizer.kind] ? 0 : HUGE_VAL, "number of moments", "");
    for (uint32_t i = 0; i < model->moment_count; i++) { note_block(f, f->moment[0], model->moment[i], "initial moment of "); }
}

oracle_verdict oracle_follow(const bptt_spec *spec, const bptt_model *model, void *memory, uint64_t seed, unsigned sequences)
{
    struct follow f = {.spec = spec, .model = model, .memory = memory, .net = oracle_net_new(spec)};
    const size_t T = (size_t)spec->T, K = (size_t)spec->K, B = (size_t)spec->batch;
    uint32_t *x = calloc(T, B * sizeof *x), *y = calloc(T, B * sizeof *y);
    if (x == NULL || y == NULL) { abort(); }
    f.state = oracle_doubles(B * f.net->hidden);
    f.expected = oracle_doubles(f.net->count);
    f.grad = oracle_doubles(f.net->count);
    f.moment[0] = oracle_doubles(f.net->count);
    f.moment[1] = oracle_doubles(f.net->count);

    uint64_t n = 0;
    follow_start(&f, seed);
    for (f.sequence = 0; f.sequence < sequences; f.sequence++) {
        oracle_tokens(&seed, T * B, f.net->vocab, f.sequence % 2 == 0 ? 0 : 3, x, y);
        for (f.chunk = 0; f.chunk * K < T; f.chunk++) {
            const size_t first = f.chunk * K, steps = T - first < K ? T - first : K;
            follow_chunk(&f, steps, x + first * B, y + first * B);
            follow_update(&f, ++n);
        }
    }
    follow_predict(&f, x);
    free(x);
    free(y);
    free(f.state);
    free(f.expected);
    free(f.grad);
    free(f.moment[0]);
    free(f.moment[1]);
    oracle_net_free(f.net);
    return f.verdict;
}

/* ---- random cases ---- */

uint64_t oracle_seed(void)
{
    const char *text = getenv("BPTT_TEST_SEED");
    return text != NULL ? strtoull(text, NULL, 0) : 20240229;
}

/* PCG, XSH-RR output, two draws joined: not the generator that the weights come from. */
uint64_t oracle_random(uint64_t *state)
{
    uint64_t result = 0;
    for (int half = 0; half < 2; half++) {
        const uint64_t old = *state;
        *state = old * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint32_t mixed = (uint32_t)(((old >> 18) ^ old) >> 27), turn = (uint32_t)(old >> 59);
        result = result << 32 | (mixed >> turn | mixed << (-turn & 31));
    }
    return result;
}

static size_t pick(uint64_t *state, size_t count)
{
    return (size_t)(oracle_random(state) % count);
}

void oracle_tokens(uint64_t *state, size_t count, size_t vocab, unsigned ignore_every, uint32_t *x, uint32_t *y)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = (uint32_t)pick(state, vocab);
        y[i] = (uint32_t)pick(state, vocab);
        if (ignore_every != 0 && pick(state, ignore_every) == 0) { y[i] = pick(state, 2) == 0 ? UINT32_MAX : (uint32_t)vocab; }
    }
}

const bptt_optimizer oracle_optimizers[ORACLE_OPTIMIZERS] = {
    {.kind = BPTT_SGD, .rate = 0.1},
    {.kind = BPTT_MOMENTUM, .rate = 0.05, .momentum = 0.9},
    {.kind = BPTT_ADAGRAD, .rate = 0.05, .epsilon = 1e-8},
    {.kind = BPTT_RMSPROP, .rate = 0.01, .decay = 0.95, .epsilon = 1e-8},
    {.kind = BPTT_ADAM, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
    {.kind = BPTT_ADAMW, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1},
};

const bptt_optimizer oracle_forms[ORACLE_FORMS] = {
    {.kind = BPTT_MOMENTUM, .rate = 0.05, .momentum = 0.9, .nesterov = 1},
    {.kind = BPTT_SGD, .rate = 0.1, .weight_decay = 0.2},
    {.kind = BPTT_MOMENTUM, .rate = 0.05, .momentum = 0.9, .weight_decay = 0.2},
    {.kind = BPTT_MOMENTUM, .rate = 0.05, .momentum = 0.9, .nesterov = 1, .weight_decay = 0.2},
    {.kind = BPTT_ADAGRAD, .rate = 0.05, .epsilon = 1e-8, .weight_decay = 0.2},
    {.kind = BPTT_RMSPROP, .rate = 0.01, .decay = 0.95, .epsilon = 1e-8, .weight_decay = 0.2},
    {.kind = BPTT_ADAM, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.2},
    {.kind = BPTT_ADAMW, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
};

static const bptt_clip CLIPS[] = {
    {BPTT_CLIP_NONE, 0}, {BPTT_CLIP_NORM, 0.05}, {BPTT_CLIP_NORM, 5}, {BPTT_CLIP_VALUE, 0.01}, {BPTT_CLIP_VALUE, 5},
};

static const bptt_schedule SCHEDULES[] = {
    {.kind = BPTT_SCHEDULE_CONSTANT},
    {.kind = BPTT_SCHEDULE_CONSTANT, .warmup = 2},
    {.kind = BPTT_SCHEDULE_STEP, .every = 3, .factor = 0.5, .warmup = 1},
    {.kind = BPTT_SCHEDULE_EXPONENTIAL, .factor = 0.7},
    {.kind = BPTT_SCHEDULE_COSINE, .steps = 7, .floor = 0.125, .warmup = 3},
    {.kind = BPTT_SCHEDULE_PLATEAU, .factor = 0.5, .patience = 3, .threshold = 1e-4, .warmup = 4},
};

static const struct {
    int64_t H, V, T, K, B;
} EDGES[] = {
    {1, 2, 1, 1, 1},   {1, 2, 4, 4, 1},   {1, 2, 5, 2, 3},   {1, 17, 3, 3, 2},  {16, 2, 6, 3, 1},  {3, 3, 1, 1, 4},
    {5, 7, 6, 1, 1},   {5, 7, 6, 6, 2},   {5, 7, 7, 3, 5},   {4, 4, 8, 7, 4},   {8, 8, 4, 2, 1},   {8, 8, 4, 4, 4},
    {7, 9, 5, 4, 3},   {9, 7, 5, 4, 1},   {16, 16, 4, 2, 2}, {15, 17, 3, 2, 5}, {17, 15, 3, 2, 1}, {32, 33, 3, 2, 1},
    {33, 31, 2, 2, 5}, {31, 65, 2, 1, 4}, {64, 64, 3, 3, 1}, {2, 2, 40, 20, 1}, {6, 5, 13, 5, 1},
};

unsigned oracle_edge_count(void)
{
    return sizeof EDGES / sizeof EDGES[0];
}

/* Half the time a size about a multiple of a vector's width. */
static int64_t pick_size(uint64_t *state, int64_t least)
{
    static const int64_t WIDTHS[] = {4, 8, 12, 16, 32};
    const int64_t near = WIDTHS[pick(state, 5)] + (int64_t)pick(state, 3) - 1;
    const int64_t any = least + (int64_t)pick(state, 40);
    return pick(state, 2) == 0 ? near : any;
}

void oracle_random_spec(uint64_t seed, unsigned i, bptt_spec *spec)
{
    uint64_t state = seed + UINT64_C(0x9E3779B97F4A7C15) * (i + 1);
    (void)oracle_random(&state);
    *spec = (bptt_spec){.name = "net", .digest = "0", .cell = BPTT_CELL_RNN, .loss = BPTT_CROSS_ENTROPY};
    spec->hidden = pick_size(&state, 1);
    spec->vocab = pick_size(&state, 2);
    spec->T = 1 + (int64_t)pick(&state, 12);
    spec->K = 1 + (int64_t)pick(&state, (size_t)spec->T);
    spec->batch = 1 + (int64_t)pick(&state, 5);
    if (i < oracle_edge_count()) {
        spec->hidden = EDGES[i].H;
        spec->vocab = EDGES[i].V;
        spec->T = EDGES[i].T;
        spec->K = EDGES[i].K;
        spec->batch = EDGES[i].B;
    }
    spec->activation = (bptt_activation)pick(&state, BPTT_SIGMOID + 1);
    spec->accumulate = 1;
    spec->dtype = (bptt_dtype)pick(&state, BPTT_F64 + 1);
    spec->reduction = (bptt_reduction)pick(&state, BPTT_SUM + 1);
    spec->carry = pick(&state, 2) == 0;
    const size_t rule = pick(&state, ORACLE_OPTIMIZERS + ORACLE_FORMS);
    spec->optimizer = rule < ORACLE_OPTIMIZERS ? oracle_optimizers[rule] : oracle_forms[rule - ORACLE_OPTIMIZERS];
    spec->clip = CLIPS[pick(&state, sizeof CLIPS / sizeof CLIPS[0])];
    spec->init.kind = (bptt_init_kind)(BPTT_INIT_UNIFORM + pick(&state, 2));
    spec->init.scale = (spec->init.kind == BPTT_INIT_NORMAL ? 0.7 : 1.2) / sqrt((double)spec->hidden);
    spec->seed = oracle_random(&state);
    spec->unroll = (bptt_unroll)pick(&state, BPTT_UNROLL_NONE + 1);
    spec->simd = (int64_t[]){0, 1, 4, 8, 16}[pick(&state, 5)];
    if (pick(&state, 3) == 0) { spec->init = (bptt_init){(bptt_init_kind)(BPTT_INIT_XAVIER + pick(&state, 2)), 0.9}; }
    if (pick(&state, 3) == 0) {
        spec->init_recurrent = (bptt_init){(bptt_init_kind)(BPTT_INIT_UNIFORM + pick(&state, BPTT_INIT_IDENTITY)), 0.6};
    }
    const size_t schedule = pick(&state, 2 * sizeof SCHEDULES / sizeof SCHEDULES[0]);
    if (schedule < sizeof SCHEDULES / sizeof SCHEDULES[0]) { spec->schedule = SCHEDULES[schedule]; }
}

/* ---- the vanishing gradient ---- */

void oracle_vanishing_spec(bptt_spec *spec)
{
    const int64_t steps = ORACLE_VANISHING_STEPS;
    *spec =
        (bptt_spec){.name = "net", .digest = "0", .cell = BPTT_CELL_RNN, .activation = BPTT_TANH, .hidden = 1, .vocab = steps};
    spec->T = spec->K = steps;
    spec->batch = 1;
    spec->dtype = BPTT_F64;
    spec->optimizer = oracle_optimizers[BPTT_SGD];
    spec->init = (bptt_init){BPTT_INIT_UNIFORM, 0.1};
}

void oracle_vanishing_case(oracle_net *net, uint32_t *x, uint32_t *y)
{
    const double w = 0.9, slope = 0.8, h = sqrt(1 - slope), a = atanh(h);
    for (uint32_t t = 0; t < ORACLE_VANISHING_STEPS; t++) {
        x[t] = t;
        y[t] = t + 1 < ORACLE_VANISHING_STEPS ? UINT32_MAX : 0;
        net->params[oracle_index(net, "W_xh", t, 0)] = t == 0 ? a : a - w * h;
    }
    net->params[oracle_index(net, "W_hh", 0, 0)] = w;
    net->params[oracle_index(net, "W_hy", 0, 0)] = 1;
}

double oracle_vanishing_ratio(const oracle_net *net, const double *gradient, size_t k)
{
    const size_t last = ORACLE_VANISHING_STEPS - 1;
    return gradient[oracle_index(net, "W_xh", last - k, 0)] / gradient[oracle_index(net, "W_xh", last, 0)];
}

bool oracle_is_spelled_out(const char *source)
{
    const char *from = strstr(source, "--- the steps of the network"), *to = strstr(source, "--- start ---");
    const char *over_chunks = strstr(source, "for (uint32_t chunk = 0;");
    if (from == NULL || to == NULL || over_chunks == NULL || strstr(from, "for (") != over_chunks) { return false; }
    const char *next = strstr(over_chunks + 1, "for ("), *other = strstr(from, "while (");
    return (next == NULL || next > to) && (other == NULL || other > to);
}
