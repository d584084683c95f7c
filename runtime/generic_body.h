/* generic_body.h: the text of generic.c for one type of real.
 *
 * Included once with `real` = float and once with `real` = double; `F(name)` gives each copy its own names.  <tgmath.h> picks
 * the functions of the type.  Matrices are dense rows: A[rows][inner] etc., every inner loop has unit stride.
 */

static real *F(at)(const void *memory, size_t bytes)
{
    return (real *)(void *)((char *)(uintptr_t)memory + bytes);
}

/* Tensor `which` of the parameter-shaped block that begins `block` bytes into the memory. */
static real *F(tensor)(const struct generic *net, const void *memory, size_t block, int which)
{
    return F(at)(memory, block) + net->tensors[net->at[which]].offset;
}

/* y[n] += a x[n] */
static void F(axpy)(size_t n, real a, const real *restrict x, real *restrict y)
{
    for (size_t i = 0; i < n; i++) { y[i] += a * x[i]; }
}

/* Partial sums, because a compiler may not reorder one sum; the order is fixed by n alone. */
static real F(dot)(size_t n, const real *restrict x, const real *restrict y)
{
    enum { LANES = 8 };
    real sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) { sums[lane] += x[i + lane] * y[i + lane]; }
    }
    real sum = 0;
    for (; i < n; i++) { sum += x[i] * y[i]; }
    for (size_t lane = 0; lane < LANES; lane++) { sum += sums[lane]; }
    return sum;
}

/* out[rows][n] += in[rows][m] W[m][n] */
static void F(multiply)(size_t rows, size_t m, size_t n, const real *in, const real *W, real *out)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < m; i++) { F(axpy)(n, in[r * m + i], W + i * n, out + r * n); }
    }
}

/* in[rows][m] += out[rows][n] W[m][n]' */
static void F(multiply_transposed)(size_t rows, size_t m, size_t n, const real *out, const real *W, real *in)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < m; i++) { in[r * m + i] += F(dot)(n, out + r * n, W + i * n); }
    }
}

/* W[m][n] += in[rows][m]' out[rows][n] */
static void F(multiply_outer)(size_t rows, size_t m, size_t n, const real *in, const real *out, real *W)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < m; i++) { F(axpy)(n, in[r * m + i], out + r * n, W + i * n); }
    }
}

/* a = phi(a).  relu is written so that a NaN stays one. */
static void F(activate)(bptt_activation activation, size_t n, real *a)
{
    switch (activation) {
    case BPTT_TANH:
        for (size_t i = 0; i < n; i++) { a[i] = tanh(a[i]); }
        break;
    case BPTT_RELU:
        for (size_t i = 0; i < n; i++) { a[i] = a[i] < 0 ? 0 : a[i]; }
        break;
    case BPTT_SIGMOID:
        for (size_t i = 0; i < n; i++) { a[i] = 1 / (1 + exp(-a[i])); }
        break;
    case BPTT_IDENTITY:
        break;
    }
}

/* dA = dH * phi'(a), in place; phi' is a function of h = phi(a) for all of them. */
static void F(activate_backward)(bptt_activation activation, size_t n, const real *restrict h, real *restrict d)
{
    switch (activation) {
    case BPTT_TANH:
        for (size_t i = 0; i < n; i++) { d[i] *= 1 - h[i] * h[i]; }
        break;
    case BPTT_RELU:
        for (size_t i = 0; i < n; i++) { d[i] = h[i] > 0 ? d[i] : 0; }
        break;
    case BPTT_SIGMOID:
        for (size_t i = 0; i < n; i++) { d[i] *= h[i] * (1 - h[i]); }
        break;
    case BPTT_IDENTITY:
        break;
    }
}

/* h[B][H] += W_xh x of the rows from `row` on; an embedding's rows are x. */
static void F(input)(const struct generic *net, const void *memory, const bptt_rows *rows, size_t row, real *h)
{
    const size_t B = net->model.batch, H = net->model.hidden, D = net->model.inputs, param = net->model.param;
    const real *W_xh = F(tensor)(net, memory, param, W_XH);
    if (D > 0) { F(multiply)(B, D, H, (const real *)rows->v + row * D, W_xh, h); }
    for (size_t b = 0; b < B && D == 0; b++) {
        const size_t x = rows->x[row + b];
        if (net->at[E] < 0) {
            F(axpy)(H, 1, W_xh + x * H, h + b * H);
        } else {
            F(multiply)(1, net->input, H, F(tensor)(net, memory, param, E) + x * net->input, W_xh, h + b * H);
        }
    }
}

/* One step of all streams: h[B][H] from the rows from `row` on and the state before, then the logits o[B][O]. */
static void F(step)(const struct generic *net, const void *memory, const bptt_rows *rows, size_t row, const real *before, real *h,
                    real *o)
{
    const size_t B = net->model.batch, H = net->model.hidden, O = net->output, param = net->model.param;
    for (size_t b = 0; b < B; b++) { memcpy(h + b * H, F(tensor)(net, memory, param, B_H), H * sizeof(real)); }
    F(input)(net, memory, rows, row, h);
    F(multiply)(B, H, H, before, F(tensor)(net, memory, param, W_HH), h);
    F(activate)(net->activation, B * H, h);
    for (size_t b = 0; b < B; b++) { memcpy(o + b * O, F(tensor)(net, memory, param, B_Y), O * sizeof(real)); }
    if (net->tie) {
        F(multiply_transposed)(B, O, H, h, F(tensor)(net, memory, param, E), o);
    } else {
        F(multiply)(B, H, O, h, F(tensor)(net, memory, param, W_HY), o);
    }
}

/* o[V] becomes softmax(o).  Returns the loss -log p[y], smoothed, or 0 when y >= V. */
static double F(softmax)(const struct generic *net, size_t V, real *o, uint32_t y)
{
    real max = o[0], sum = 0;
    for (size_t v = 1; v < V; v++) { max = o[v] > max ? o[v] : max; }
    const real label = y < V ? o[y] : 0;
    double depth = 0; /* of all logits below the largest */
    for (size_t v = 0; v < V && net->smoothing > 0; v++) { depth += (double)(max - o[v]); }
    for (size_t v = 0; v < V; v++) {
        o[v] = exp(o[v] - max);
        sum += o[v];
    }
    for (size_t v = 0; v < V; v++) { o[v] /= sum; }
    if (y >= V) { return 0; }
    if (!(net->smoothing > 0)) { return (double)(log(sum) + max - label); }
    return (double)log(sum) + (1 - net->smoothing) * (double)(max - label) + net->smoothing / (double)V * depth;
}

/* o[Q] becomes g(o), or sigmoid(o) for a binary cross entropy.  Returns the loss; a target that is not a number has none. */
static double F(real_loss)(const struct generic *net, size_t Q, real *o, const real *d)
{
    double loss = 0;
    for (size_t i = 0; i < Q; i++) {
        const double target = d != NULL ? (double)d[i] : (double)NAN, logit = (double)o[i];
        const bool binary = net->loss == BPTT_BINARY_CROSS_ENTROPY;
        if (binary || net->g == BPTT_OUTPUT_SIGMOID) {
            o[i] = 1 / (1 + exp(-o[i]));
        } else if (net->g == BPTT_OUTPUT_TANH) {
            o[i] = tanh(o[i]);
        }
        if (isnan(target)) { continue; }
        const double error = (double)o[i] - target;
        loss += binary ? (logit > 0 ? logit : 0) - target * logit + log1p(exp(-fabs(logit))) : error * error;
    }
    return loss;
}

/* o[B][O] becomes the outputs; returns their loss at the rows from `row` on; rows NULL: there is none. */
static double F(step_loss)(const struct generic *net, const bptt_rows *rows, size_t row, real *o)
{
    const size_t B = net->model.batch, O = net->output;
    double loss = 0;
    for (size_t b = 0; b < B; b++) {
        if (net->loss == BPTT_CROSS_ENTROPY) {
            loss += F(softmax)(net, O, o + b * O, rows != NULL ? rows->y[row + b] : UINT32_MAX);
        } else {
            loss += F(real_loss)(net, O, o + b * O, rows != NULL ? (const real *)rows->d + (row + b) * O : NULL);
        }
    }
    return loss;
}

/* Labels, or numbers of targets, that count. */
static size_t F(count_losses)(const struct generic *net, const bptt_rows *rows, uint32_t chunk)
{
    const size_t B = net->model.batch, Q = net->model.targets, steps = chunk_steps(net, chunk);
    size_t count = 0;
    for (size_t i = 0; i < steps * B; i++) {
        if (!has_loss(net, chunk, i / B)) { continue; }
        if (Q == 0) { count += rows->y[i] < net->model.vocab; }
        for (size_t j = 0; j < Q; j++) { count += isnan(((const real *)rows->d)[i * Q + j]) ? 0 : 1; }
    }
    return count;
}

/* What the loss of each counts for. */
static double F(loss_weight)(const struct generic *net, const bptt_rows *rows, uint32_t chunk)
{
    if (net->reduction == BPTT_SUM) { return 1; }
    const size_t count = F(count_losses)(net, rows, chunk);
    return count > 0 ? 1 / (double)count : 0;
}

/* Runs the chunk forward: workspace h[0 .. steps] and p[0 .. steps - 1] are filled, the state advances.  Returns the summed loss. */
static double F(forward)(const struct generic *net, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    const size_t B = net->model.batch, H = net->model.hidden, O = net->output, steps = chunk_steps(net, chunk);
    real *state = F(at)(memory, net->model.state), *h = F(at)(memory, net->h), *p = F(at)(memory, net->p);
    if (chunk == 0 && !net->carry) { memset(state, 0, B * H * sizeof(real)); }
    memcpy(h, state, B * H * sizeof(real));
    double loss = 0;
    for (size_t t = 0; t < steps; t++) {
        F(step)(net, memory, rows, t * B, h + t * B * H, h + (t + 1) * B * H, p + t * B * O);
        if (has_loss(net, chunk, t)) { loss += F(step_loss)(net, rows, t * B, p + t * B * O); }
    }
    memcpy(state, h + steps * B * H, B * H * sizeof(real));
    return loss;
}

/* The gradients of what made x: from dA[B][H]. */
static void F(input_backward)(const struct generic *net, void *memory, const bptt_rows *rows, size_t row, const real *d)
{
    const size_t B = net->model.batch, H = net->model.hidden, D = net->model.inputs, size = net->input;
    const size_t param = net->model.param, grad = net->model.grad;
    real *dW_xh = F(tensor)(net, memory, grad, W_XH);
    if (D > 0) { F(multiply_outer)(B, D, H, (const real *)rows->v + row * D, d, dW_xh); }
    for (size_t b = 0; b < B && D == 0; b++) {
        const size_t x = rows->x[row + b];
        if (net->at[E] < 0) {
            F(axpy)(H, 1, d + b * H, dW_xh + x * H);
            continue;
        }
        F(multiply_outer)(1, size, H, F(tensor)(net, memory, param, E) + x * size, d + b * H, dW_xh);
        F(multiply_transposed)
        (1, size, H, d + b * H, F(tensor)(net, memory, param, W_XH), F(tensor)(net, memory, grad, E) + x * size);
    }
}

/* One step of the backward sweep: from dO[B][O] and dA[B][H] of the step after (`after`), adds to the gradients, leaves this
 * step's dA in `d`. */
static void F(step_backward)(const struct generic *net, void *memory, const bptt_rows *rows, size_t row, const real *h,
                             const real *dO, const real *after, real *d)
{
    const size_t B = net->model.batch, H = net->model.hidden, O = net->output;
    const size_t param = net->model.param, grad = net->model.grad;
    const real *before = h - B * H;
    real *db_h = F(tensor)(net, memory, grad, B_H), *db_y = F(tensor)(net, memory, grad, B_Y);

    memset(d, 0, B * H * sizeof(real));
    if (net->tie) {
        F(multiply)(B, O, H, dO, F(tensor)(net, memory, param, E), d);
        F(multiply_outer)(B, O, H, dO, h, F(tensor)(net, memory, grad, E));
    } else {
        F(multiply_transposed)(B, H, O, dO, F(tensor)(net, memory, param, W_HY), d);
        F(multiply_outer)(B, H, O, h, dO, F(tensor)(net, memory, grad, W_HY));
    }
    F(multiply_transposed)(B, H, H, after, F(tensor)(net, memory, param, W_HH), d);
    F(activate_backward)(net->activation, B * H, h, d);

    F(multiply_outer)(B, H, H, before, d, F(tensor)(net, memory, grad, W_HH));
    F(input_backward)(net, memory, rows, row, d);
    for (size_t b = 0; b < B; b++) {
        F(axpy)(H, 1, d + b * H, db_h);
        F(axpy)(O, 1, dO + b * O, db_y);
    }
}

/* Outputs p[V] become dO = (p - y) * weight, and 0 where there is no label. */
static void F(label_backward)(const struct generic *net, size_t V, uint32_t y, real weight, real *p)
{
    const real even = (real)(net->smoothing / (double)V);
    if (y >= V) {
        memset(p, 0, V * sizeof(real));
        return;
    }
    p[y] -= (real)(1 - net->smoothing);
    for (size_t v = 0; v < V; v++) { p[v] = (p[v] - even) * weight; }
}

/* Outputs p[Q] become the gradient by the logits, and 0 where there is no target. */
static void F(target_backward)(const struct generic *net, size_t Q, const real *d, real weight, real *p)
{
    const bool binary = net->loss == BPTT_BINARY_CROSS_ENTROPY;
    for (size_t i = 0; i < Q; i++) {
        const real slope = net->g == BPTT_OUTPUT_SIGMOID ? p[i] * (1 - p[i]) : net->g == BPTT_OUTPUT_TANH ? 1 - p[i] * p[i] : 1;
        const real error = isnan(d[i]) ? 0 : p[i] - d[i];
        p[i] = weight * (binary ? error : 2 * error * slope);
    }
}

static void F(loss_backward)(const struct generic *net, const bptt_rows *rows, uint32_t chunk, real weight, real *p)
{
    const size_t B = net->model.batch, O = net->output, count = chunk_steps(net, chunk) * B;
    for (size_t r = 0; r < count; r++, p += O) {
        if (!has_loss(net, chunk, r / B)) {
            memset(p, 0, O * sizeof(real));
        } else if (net->loss == BPTT_CROSS_ENTROPY) {
            F(label_backward)(net, O, rows->y[r], weight, p);
        } else {
            F(target_backward)(net, O, (const real *)rows->d + r * O, weight, p);
        }
    }
}

static double F(gradient)(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    const struct generic *net = generic_of(self);
    const size_t B = self->batch, H = self->hidden, steps = chunk_steps(net, chunk);
    const double weight = F(loss_weight)(net, rows, chunk), loss = F(forward)(net, memory, rows, chunk);
    real *h = F(at)(memory, net->h), *dO = F(at)(memory, net->p);
    real *d = F(at)(memory, net->d), *after = d + B * H;

    const bool first = begin_gradient(net, progress_of(self, memory), chunk, F(count_losses)(net, rows, chunk));
    if (first) { memset(F(at)(memory, self->grad), 0, self->block * sizeof(real)); }
    memset(after, 0, B * H * sizeof(real)); /* nothing comes back from beyond the chunk: the truncation */
    F(loss_backward)(net, rows, chunk, self->accumulate > 0 ? 1 : (real)weight, dO);
    for (size_t t = steps; t-- > 0;) {
        F(step_backward)(net, memory, rows, t * B, h + (t + 1) * B * H, dO + t * B * net->output, after, d);
        real *swap = after;
        after = d;
        d = swap;
    }
    return loss * weight;
}

static double F(loss)(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    const struct generic *net = generic_of(self);
    return F(forward)(net, memory, rows, chunk) * F(loss_weight)(net, rows, chunk);
}

static void F(predict)(const bptt_model *self, void *memory, const bptt_rows *rows, void *outputs)
{
    const struct generic *net = generic_of(self);
    const size_t B = self->batch, H = self->hidden;
    real *state = F(at)(memory, self->state), *h = F(at)(memory, net->h);
    F(step)(net, memory, rows, 0, state, h, outputs);
    memcpy(state, h, B * H * sizeof(real));
    (void)F(step_loss)(net, NULL, 0, outputs);
}

/* What an update takes in place of the element g of the gradient; p is its parameter. */
static inline real F(cut_one)(const struct cut *cut, real g, real p)
{
    const real scaled = (real)cut->scale * g, most = (real)cut->limit;
    return (scaled > most ? most : scaled < -most ? -most : scaled) + (real)cut->decay * p;
}

/* The rules of spec.h for n parameters; m and s are the first and second moment block of those that have them. */
static void F(apply)(const bptt_optimizer *rule, double now, const double *progress, const struct cut *cut, size_t n,
                     real *restrict p, const real *restrict g, real *restrict m, real *restrict s)
{
    const real rate = (real)now, epsilon = (real)rule->epsilon, momentum = (real)rule->momentum;
    const real decay = (real)rule->decay, rest = (real)(1 - rule->decay), keep = (real)(1 - now * rule->weight_decay);
    const real beta1 = (real)rule->beta1, rest1 = (real)(1 - rule->beta1), bias1 = (real)(1 - progress[1]);
    const real beta2 = (real)rule->beta2, rest2 = (real)(1 - rule->beta2), bias2 = (real)(1 - progress[2]);
    switch (rule->kind) {
    case BPTT_SGD:
        for (size_t i = 0; i < n; i++) { p[i] -= rate * F(cut_one)(cut, g[i], p[i]); }
        break;
    case BPTT_MOMENTUM:
        for (size_t i = 0; i < n; i++) {
            const real d = F(cut_one)(cut, g[i], p[i]);
            m[i] = momentum * m[i] + d;
            p[i] -= rate * (rule->nesterov != 0 ? d + momentum * m[i] : m[i]);
        }
        break;
    case BPTT_ADAGRAD:
        for (size_t i = 0; i < n; i++) {
            const real d = F(cut_one)(cut, g[i], p[i]);
            m[i] += d * d;
            p[i] -= rate * d / (sqrt(m[i]) + epsilon);
        }
        break;
    case BPTT_RMSPROP:
        for (size_t i = 0; i < n; i++) {
            const real d = F(cut_one)(cut, g[i], p[i]);
            m[i] = decay * m[i] + rest * (d * d);
            p[i] -= rate * d / (sqrt(m[i]) + epsilon);
        }
        break;
    case BPTT_ADAM:
    case BPTT_ADAMW:
        for (size_t i = 0; i < n; i++) {
            const real d = F(cut_one)(cut, g[i], p[i]);
            m[i] = beta1 * m[i] + rest1 * d;
            s[i] = beta2 * s[i] + rest2 * (d * d);
            const real step = rate * (m[i] / bias1) / (sqrt(s[i] / bias2) + epsilon);
            p[i] = (rule->kind == BPTT_ADAMW ? keep * p[i] : p[i]) - step;
        }
        break;
    }
}

static double F(update)(const bptt_model *self, void *memory)
{
    const struct generic *net = generic_of(self);
    const real *g = F(at)(memory, self->grad);
    double sum = 0;
    for (size_t i = 0; i < self->block; i++) { sum += (double)g[i] * (double)g[i]; }
    double *progress = progress_of(self, memory);
    const bool averages = self->accumulate > 0 && net->reduction == BPTT_MEAN;
    const double share = !averages ? 1 : progress[BPTT_LABELS] > 0 ? 1 / progress[BPTT_LABELS] : 0, norm = share * sqrt(sum);
    if (!isfinite(norm)) { return norm; }

    progress[BPTT_LABELS] = progress[BPTT_PENDING] = 0;
    const double now = rate(self, memory);
    progress[0] += 1;
    progress[1] *= net->optimizer.beta1;
    progress[2] *= net->optimizer.beta2;
    const bptt_clip *clip = &net->clip;
    const bptt_optimizer *rule = &net->optimizer;
    const struct cut cut = {.scale = clip->kind == BPTT_CLIP_NORM && norm > clip->limit ? share * (clip->limit / norm) : share,
                            .limit = clip->kind == BPTT_CLIP_VALUE ? clip->limit : HUGE_VAL,
                            .decay = rule->kind == BPTT_ADAMW ? 0 : rule->weight_decay};
    F(apply)
    (rule, now, progress, &cut, self->block, F(at)(memory, self->param), g, F(at)(memory, self->moment[0]),
     F(at)(memory, self->moment[1]));
    return norm;
}

/* The vectors of w (`count`, `next` apart, of n elements `step` apart) become orthonormal, each in the order of its draw. */
static void F(orthogonalize)(size_t count, size_t next, size_t n, size_t step, real *w, uint64_t *state)
{
    const bptt_init normal = {BPTT_INIT_NORMAL, 1};
    for (size_t k = 0; k < count; k++) {
        real *v = w + k * next;
        double square = 0;
        while (!(square > 0x1p-40)) {
            for (size_t i = 0; i < n; i++) { v[i * step] = (real)draw_weight(&normal, state); }
            for (size_t j = 0; j < 2 * k; j++) { /* twice is enough */
                const real *other = w + j % k * next;
                double along = 0;
                for (size_t i = 0; i < n; i++) { along += (double)v[i * step] * (double)other[i * step]; }
                for (size_t i = 0; i < n; i++) { v[i * step] = (real)((double)v[i * step] - along * (double)other[i * step]); }
            }
            square = 0;
            for (size_t i = 0; i < n; i++) { square += (double)v[i * step] * (double)v[i * step]; }
        }
        for (size_t i = 0; i < n; i++) { v[i * step] = (real)((double)v[i * step] / sqrt(square)); }
    }
}

/* The first weights of a matrix [rows][cols], which is zero. */
static void F(first_weights)(const bptt_init *init, size_t rows, size_t cols, real *w, uint64_t *state)
{
    const bool wide = rows < cols;
    bptt_init draw = *init;
    if (init->kind == BPTT_INIT_IDENTITY) {
        for (size_t i = 0; i < rows && i < cols; i++) { w[i * cols + i] = (real)init->scale; }
        return;
    }
    if (init->kind == BPTT_INIT_ORTHOGONAL) {
        F(orthogonalize)(wide ? rows : cols, wide ? cols : 1, wide ? cols : rows, wide ? 1 : cols, w, state);
        for (size_t i = 0; i < rows * cols; i++) { w[i] = (real)(init->scale * (double)w[i]); }
        return;
    }
    if (init->kind == BPTT_INIT_XAVIER) { draw.scale *= sqrt(6 / (double)(rows + cols)); }
    for (size_t i = 0; i < rows * cols; i++) { w[i] = (real)draw_weight(&draw, state); }
}

static void F(init)(const bptt_model *self, void *memory, uint64_t seed)
{
    const struct generic *net = generic_of(self);
    memset(memory, 0, self->bytes);
    double *progress = progress_of(self, memory);
    progress[BPTT_POWER1] = progress[BPTT_POWER2] = progress[BPTT_REDUCTION] = 1;
    progress[BPTT_BEST] = DBL_MAX;
    for (int which = 0; which < TENSORS; which++) {
        if (net->at[which] < 0 || net->tensors[net->at[which]].rank != 2) { continue; }
        const bptt_tensor *tensor = &net->tensors[net->at[which]];
        F(first_weights)
        (which == W_HH ? &net->init_recurrent : &net->init, tensor->rows, tensor->cols,
         F(at)(memory, self->param) + tensor->offset, &seed);
    }
}

static void F(reset)(const bptt_model *self, void *memory)
{
    memset(F(at)(memory, self->state), 0, (size_t)self->batch * self->hidden * sizeof(real));
}

/* There are no derived copies of the parameters. */
static void F(refresh)(const bptt_model *self, void *memory)
{
    (void)self;
    (void)memory;
}

static void F(bind)(bptt_model *model)
{
    model->init = F(init);
    model->reset = F(reset);
    model->refresh = F(refresh);
    model->gradient = F(gradient);
    model->update = F(update);
    model->loss = F(loss);
    model->predict = F(predict);
}
