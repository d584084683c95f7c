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
    return F(at)(memory, block) + net->tensors[which].offset;
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

/* One step of all streams: h[B][H] from the tokens and the state before, then the logits o[B][V]. */
static void F(step)(const struct generic *net, const void *memory, const uint32_t *x, const real *before, real *h, real *o)
{
    const size_t B = net->model.batch, H = net->model.hidden, V = net->model.vocab, param = net->model.param;
    const real *W_xh = F(tensor)(net, memory, param, W_XH), *b_h = F(tensor)(net, memory, param, B_H);
    for (size_t b = 0; b < B; b++) {
        const real *row = W_xh + x[b] * H;
        for (size_t j = 0; j < H; j++) { h[b * H + j] = b_h[j] + row[j]; }
    }
    F(multiply)(B, H, H, before, F(tensor)(net, memory, param, W_HH), h);
    F(activate)(net->activation, B * H, h);
    for (size_t b = 0; b < B; b++) { memcpy(o + b * V, F(tensor)(net, memory, param, B_Y), V * sizeof(real)); }
    F(multiply)(B, H, V, h, F(tensor)(net, memory, param, W_HY), o);
}

/* o[V] becomes softmax(o).  Returns the loss -log p[y], or 0 when y >= V. */
static double F(softmax)(size_t V, real *o, uint32_t y)
{
    real max = o[0], sum = 0;
    for (size_t v = 1; v < V; v++) { max = o[v] > max ? o[v] : max; }
    const real label = y < V ? o[y] : 0;
    for (size_t v = 0; v < V; v++) {
        o[v] = exp(o[v] - max);
        sum += o[v];
    }
    for (size_t v = 0; v < V; v++) { o[v] /= sum; }
    return y < V ? (double)(log(sum) + max - label) : 0;
}

/* Runs the chunk forward: workspace h[0 .. steps] and p[0 .. steps - 1] are filled, the state advances.  Returns the summed loss. */
static double F(forward)(const struct generic *net, void *memory, const uint32_t *x, const uint32_t *y, uint32_t chunk)
{
    const size_t B = net->model.batch, H = net->model.hidden, V = net->model.vocab, steps = chunk_steps(net, chunk);
    real *state = F(at)(memory, net->model.state), *h = F(at)(memory, net->h), *p = F(at)(memory, net->p);
    if (chunk == 0 && !net->carry) { memset(state, 0, B * H * sizeof(real)); }
    memcpy(h, state, B * H * sizeof(real));
    double loss = 0;
    for (size_t t = 0; t < steps; t++) {
        F(step)(net, memory, x + t * B, h + t * B * H, h + (t + 1) * B * H, p + t * B * V);
        for (size_t b = 0; b < B; b++) { loss += F(softmax)(V, p + (t * B + b) * V, y[t * B + b]); }
    }
    memcpy(state, h + steps * B * H, B * H * sizeof(real));
    return loss;
}

/* One step of the backward sweep: from dO[B][V] and dA[B][H] of the step after (`after`), adds to the gradients, leaves this
 * step's dA in `d`. */
static void F(step_backward)(const struct generic *net, void *memory, const uint32_t *x, const real *h, const real *dO,
                             const real *after, real *d)
{
    const size_t B = net->model.batch, H = net->model.hidden, V = net->model.vocab;
    const size_t param = net->model.param, grad = net->model.grad;
    const real *before = h - B * H;
    real *dW_xh = F(tensor)(net, memory, grad, W_XH), *db_h = F(tensor)(net, memory, grad, B_H);
    real *db_y = F(tensor)(net, memory, grad, B_Y);

    memset(d, 0, B * H * sizeof(real));
    F(multiply_transposed)(B, H, V, dO, F(tensor)(net, memory, param, W_HY), d);
    F(multiply_transposed)(B, H, H, after, F(tensor)(net, memory, param, W_HH), d);
    F(activate_backward)(net->activation, B * H, h, d);

    F(multiply_outer)(B, H, V, h, dO, F(tensor)(net, memory, grad, W_HY));
    F(multiply_outer)(B, H, H, before, d, F(tensor)(net, memory, grad, W_HH));
    for (size_t b = 0; b < B; b++) {
        F(axpy)(H, 1, d + b * H, dW_xh + x[b] * H);
        F(axpy)(H, 1, d + b * H, db_h);
        F(axpy)(V, 1, dO + b * V, db_y);
    }
}

/* p becomes dO = (p - y) * weight, and 0 where there is no label. */
static void F(loss_backward)(size_t rows, size_t V, const uint32_t *y, real weight, real *p)
{
    for (size_t r = 0; r < rows; r++, p += V) {
        if (y[r] >= V) {
            memset(p, 0, V * sizeof(real));
            continue;
        }
        p[y[r]] -= 1;
        for (size_t v = 0; v < V; v++) { p[v] *= weight; }
    }
}

static double F(gradient)(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    const struct generic *net = generic_of(self);
    const uint32_t *x = rows->x, *y = rows->y;
    const size_t B = self->batch, H = self->hidden, V = self->vocab, steps = chunk_steps(net, chunk);
    const double weight = loss_weight(net, steps * B, y), loss = F(forward)(net, memory, x, y, chunk);
    real *h = F(at)(memory, net->h), *dO = F(at)(memory, net->p);
    real *d = F(at)(memory, net->d), *after = d + B * H;

    const bool first = begin_gradient(net, progress_of(self, memory), chunk, count_labels(net, steps * B, y));
    if (first) { memset(F(at)(memory, self->grad), 0, self->block * sizeof(real)); }
    memset(after, 0, B * H * sizeof(real)); /* nothing comes back from beyond the chunk: the truncation */
    F(loss_backward)(steps * B, V, y, self->accumulate > 0 ? 1 : (real)weight, dO);
    for (size_t t = steps; t-- > 0;) {
        F(step_backward)(net, memory, x + t * B, h + (t + 1) * B * H, dO + t * B * V, after, d);
        real *swap = after;
        after = d;
        d = swap;
    }
    return loss * weight;
}

static double F(loss)(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    const struct generic *net = generic_of(self);
    return F(forward)(net, memory, rows->x, rows->y, chunk) * loss_weight(net, chunk_steps(net, chunk) * self->batch, rows->y);
}

static void F(predict)(const bptt_model *self, void *memory, const bptt_rows *rows, void *outputs)
{
    const struct generic *net = generic_of(self);
    const size_t B = self->batch, H = self->hidden, V = self->vocab;
    real *state = F(at)(memory, self->state), *h = F(at)(memory, net->h), *p = outputs;
    F(step)(net, memory, rows->x, state, h, p);
    memcpy(state, h, B * H * sizeof(real));
    for (size_t b = 0; b < B; b++) { (void)F(softmax)(V, p + b * V, UINT32_MAX); }
}

/* Clips g[n], whose 2-norm is `norm`, in place. */
static void F(clip)(const bptt_clip *clip, double norm, size_t n, real *g)
{
    const real limit = (real)clip->limit;
    if (clip->kind == BPTT_CLIP_NORM && norm > clip->limit) {
        const real scale = (real)(clip->limit / norm);
        for (size_t i = 0; i < n; i++) { g[i] *= scale; }
    }
    if (clip->kind == BPTT_CLIP_VALUE) {
        for (size_t i = 0; i < n; i++) { g[i] = g[i] > limit ? limit : g[i] < -limit ? -limit : g[i]; }
    }
}

/* The rules of spec.h for n parameters; m and s are the first and second moment block of those that have them. */
static void F(apply)(const bptt_optimizer *rule, double now, const double *progress, size_t n, real *restrict p,
                     const real *restrict g, real *restrict m, real *restrict s)
{
    const real rate = (real)now, epsilon = (real)rule->epsilon, momentum = (real)rule->momentum;
    const real decay = (real)rule->decay, rest = (real)(1 - rule->decay), keep = (real)(1 - now * rule->weight_decay);
    const real beta1 = (real)rule->beta1, rest1 = (real)(1 - rule->beta1), bias1 = (real)(1 - progress[1]);
    const real beta2 = (real)rule->beta2, rest2 = (real)(1 - rule->beta2), bias2 = (real)(1 - progress[2]);
    switch (rule->kind) {
    case BPTT_SGD:
        for (size_t i = 0; i < n; i++) { p[i] -= rate * g[i]; }
        break;
    case BPTT_MOMENTUM:
        for (size_t i = 0; i < n; i++) {
            m[i] = momentum * m[i] + g[i];
            p[i] -= rate * (rule->nesterov != 0 ? g[i] + momentum * m[i] : m[i]);
        }
        break;
    case BPTT_ADAGRAD:
        for (size_t i = 0; i < n; i++) {
            m[i] += g[i] * g[i];
            p[i] -= rate * g[i] / (sqrt(m[i]) + epsilon);
        }
        break;
    case BPTT_RMSPROP:
        for (size_t i = 0; i < n; i++) {
            m[i] = decay * m[i] + rest * (g[i] * g[i]);
            p[i] -= rate * g[i] / (sqrt(m[i]) + epsilon);
        }
        break;
    case BPTT_ADAM:
    case BPTT_ADAMW:
        for (size_t i = 0; i < n; i++) {
            m[i] = beta1 * m[i] + rest1 * g[i];
            s[i] = beta2 * s[i] + rest2 * (g[i] * g[i]);
            const real step = rate * (m[i] / bias1) / (sqrt(s[i] / bias2) + epsilon);
            p[i] = (rule->kind == BPTT_ADAMW ? keep * p[i] : p[i]) - step;
        }
        break;
    }
}

static double F(update)(const bptt_model *self, void *memory)
{
    const struct generic *net = generic_of(self);
    real *g = F(at)(memory, self->grad);
    double sum = 0;
    for (size_t i = 0; i < self->block; i++) { sum += (double)g[i] * (double)g[i]; }
    double *progress = progress_of(self, memory);
    const bool averages = self->accumulate > 0 && net->reduction == BPTT_MEAN;
    const double share = !averages ? 1 : progress[BPTT_LABELS] > 0 ? 1 / progress[BPTT_LABELS] : 0, norm = share * sqrt(sum);
    if (!isfinite(norm)) { return norm; }

    for (size_t i = 0; i < self->block && averages; i++) { g[i] *= (real)share; }
    progress[BPTT_LABELS] = progress[BPTT_PENDING] = 0;
    const double now = rate(self, memory);
    progress[0] += 1;
    progress[1] *= net->optimizer.beta1;
    progress[2] *= net->optimizer.beta2;
    F(clip)(&net->clip, norm, self->block, g);
    if (net->optimizer.kind != BPTT_ADAMW && net->optimizer.weight_decay > 0) {
        F(axpy)(self->block, (real)net->optimizer.weight_decay, F(at)(memory, self->param), g);
    }
    F(apply)
    (&net->optimizer, now, progress, self->block, F(at)(memory, self->param), g, F(at)(memory, self->moment[0]),
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
        const bptt_tensor *tensor = &net->tensors[which];
        if (tensor->rank != 2) { continue; }
        F(first_weights)
        (which == W_HH ? &net->init_recurrent : &net->init, tensor->rows, tensor->cols,
         F(tensor)(net, memory, self->param, which), &seed);
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
