/* test_cells.c: cells given as text, end to end: trace, derive, plan, emit, libtcc.
 *
 * The loss and the gradient of the generated code are compared with the graphs run node by node through time, and the gradient with
 * central differences of the generated loss.  What the plan cannot do it must refuse.  Depends on Check, oracle.h, interpret.h and the
 * tcc backend.
 */
#include "../gen/compile.h"
#include "../gen/embedded.h"
#include "cell.h"

/* --- its loss and its gradient ------------------------------------------------------------------------------------------------------ */

/* The number of the masks that a gradient of the chunk will use. */
static double masks_of(const built *b, uint32_t chunk)
{
    const double *progress = block_of(b, b->code.model->progress);
    return bptt_spec_drops(b->plan->spec) ? 1 + progress[BPTT_UPDATES] * b->code.model->chunks + chunk : 0;
}

/* One stream of a chunk by the graphs themselves, from the state that the model holds now: returns its loss and adds its gradient to
 * one that lies like the model's. */
static double loss_by_graph(const built *b, size_t stream, const bptt_rows *rows, size_t steps, uint32_t chunk, double *gradient)
{
    const bptt_graph *g = &b->graph;
    const size_t B = b->code.model->batch;
    interpreter *at = calloc(steps, sizeof *at);
    ck_assert_ptr_nonnull(at);
    const bool starts = chunk == 0 && !b->plan->spec->carry;
    double loss = 0;
    for (size_t t = 0; t < steps; t++) {
        at[t] = start_of(b, stream);
        for (int s = 0; s < g->state_count && t > 0; s++) { copy_node(&at[t - 1], g->states[s].next, &at[t], g->states[s].node); }
        at[t].masks = masks_of(b, chunk);
        at[t].seed = b->plan->spec->seed;
        at[t].row = t * B + stream;
        at[t].starts = (rows->reset != NULL && rows->reset[t * B + stream] != 0) || (starts && t == 0);
        give_leaf(&at[t], BPTT_OP_INPUT_REAL, rows->v, t * B + stream);
        give_leaf(&at[t], BPTT_OP_TARGET_REAL, rows->d, t * B + stream);
        interpret(&at[t], 0, g->forward, rows->x[t * B + stream], rows->y[t * B + stream]);
        loss += at[t].value[g->loss][0];
    }
    for (size_t t = steps; t-- > 0;) {
        for (int s = 0; s < g->state_count && t + 1 < steps; s++) {
            if (g->states[s].outgoing >= 0) { copy_node(&at[t + 1], g->states[s].outgoing, &at[t], g->states[s].carry); }
        }
        interpret(&at[t], g->forward, g->count, rows->x[t * B + stream], rows->y[t * B + stream]);
        for (int p = 0; p < g->param_count; p++) {
            const bptt_node *node = &g->nodes[g->params[p].node];
            for (size_t i = 0; i < node_size(node); i++) {
                gradient[place_of(&b->code.model->tensors[p], node, i)] += at[t].value[g->params[p].gradient][i];
            }
        }
    }
    for (size_t t = 0; t < steps; t++) { interpreter_free(&at[t]); }
    free(at);
    return loss;
}

/* Every parameter by central differences of the generated loss, over one and two steps (error of the fourth order); the states are
 * put back before each call. */
static double worst_gradient_error(built *b, const bptt_rows *rows, uint32_t chunk, const char **where)
{
    static const double sides[] = {-2, -1, 1, 2}, weights[] = {1, -8, 8, -1};
    const double step = 0x1p-11;
    const bptt_model *model = b->code.model;
    /* only a gradient drops anything; its masks are the same in every call until there is an update */
    double (*const loss)(const bptt_model *, void *, const bptt_rows *, uint32_t) =
        bptt_spec_drops(b->plan->spec) ? model->gradient : model->loss;
    const size_t work = model->bytes - model->state;
    unsigned char *start = malloc(work);
    ck_assert_ptr_nonnull(start);
    memcpy(start, b->memory + model->state, work);
    (void)model->gradient(model, b->memory, rows, chunk);
    double worst = 0, *gradient = calloc(model->block, sizeof *gradient);
    ck_assert_ptr_nonnull(gradient);
    memcpy(gradient, block_of(b, model->grad), model->block * sizeof *gradient);
    for (uint32_t p = 0; p < model->tensor_count; p++) {
        const bptt_tensor *tensor = &model->tensors[p];
        for (size_t i = 0; i < (size_t)tensor->rows * tensor->cols; i++) {
            const size_t at = tensor->offset + i / tensor->cols * tensor->stride + i % tensor->cols;
            double *w = block_of(b, model->param) + at, kept = *w, difference = 0;
            for (int side = 0; side < 4; side++) {
                *w = kept + sides[side] * step;
                model->refresh(model, b->memory);
                memcpy(b->memory + model->state, start, work);
                difference += weights[side] * loss(model, b->memory, rows, chunk);
            }
            *w = kept;
            const double slope = difference / (12 * step), wrong = fabs(gradient[at] - slope) / (1 + fabs(slope));
            if (!(wrong <= worst)) {
                worst = wrong;
                *where = tensor->name;
            }
        }
    }
    model->refresh(model, b->memory);
    memcpy(b->memory + model->state, start, work);
    free(gradient);
    free(start);
    return worst;
}

static void check_chunk(built *b, const bptt_rows *rows, const bptt_rows *known, uint32_t chunk, double tolerance,
                        const char *what)
{
    const bptt_model *model = b->code.model;
    const size_t left = model->steps - (size_t)chunk * model->horizon, steps = left < model->horizon ? left : model->horizon;
    double *gradient = calloc(model->block, sizeof *gradient), expected = 0, worst = 0;
    ck_assert_ptr_nonnull(gradient);
    const char *where = "";
    if (tolerance > 0) {
        worst = worst_gradient_error(b, rows, chunk, &where);
        ck_assert_msg(worst < tolerance, "%s, chunk %u: gradient of %s is %g off", what, (unsigned)chunk, where, worst);
    }
    for (size_t stream = 0; stream < model->batch; stream++) {
        expected += loss_by_graph(b, stream, known, steps, chunk, gradient);
    }
    const double share = share_of(b, known, steps), loss = model->gradient(model, b->memory, rows, chunk);
    expected *= share;
    ck_assert_msg(fabs(loss - expected) <= 1e-11 * (1 + fabs(expected)), "%s, chunk %u: loss %.15g, expected %.15g", what,
                  (unsigned)chunk, loss, expected);
    for (size_t i = 0; i < model->block; i++) { /* padding included */
        const double found = block_of(b, model->grad)[i], wanted = gradient[i] * share;
        if (fabs(found - wanted) <= 1e-10 * (1 + fabs(wanted))) { continue; }
        ck_abort_msg("%s, chunk %u: gradient [%zu] %.15g, expected %.15g", what, (unsigned)chunk, i, found, wanted);
    }
    free(gradient);
}

static void check_case(const char *cell, const bptt_spec *spec, int simd, double tolerance, uint64_t *random)
{
    sequence s, masked;
    char what[2000];
    (void)snprintf(what, sizeof what, "%s-- %s, H %lld V %lld D %lld Q %lld T %lld K %lld B %lld threads %lld simd %d unroll %s",
                   cell, bptt_spec_word("loss", (int)spec->loss), (long long)spec->hidden, (long long)spec->vocab,
                   (long long)spec->inputs, (long long)spec->outputs, (long long)spec->T, (long long)spec->K,
                   (long long)spec->batch, (long long)spec->threads, simd, bptt_spec_word("unroll", (int)spec->unroll));
    built b;
    build(spec, cell, simd, &b);
    fill(&b, random);
    draw_sequence(&s, spec, random);
    masked = s;
    mask_sequence(&masked, spec);
    for (uint32_t chunk = 0; chunk < b.code.model->chunks; chunk++) {
        const size_t first = (size_t)chunk * (size_t)(spec->K * spec->batch);
        const bptt_rows rows = rows_at(&s, spec, first), known = rows_at(&masked, spec, first);
        check_chunk(&b, &rows, &known, chunk, tolerance, what);
    }
    built_free(&b);
}

/* H, V (and D and Q) where they are present, T, K, B. */
static void resize(bptt_spec *spec, const int64_t *sizes)
{
    spec->hidden = sizes[0];
    spec->T = sizes[2];
    spec->K = sizes[3];
    spec->batch = sizes[4];
    if (spec->vocab > 0) { spec->vocab = sizes[1]; }
    if (spec->tie) { spec->embedding = spec->hidden; }
    if (spec->inputs > 0) { spec->inputs = sizes[1]; }
    if (spec->outputs > 0) { spec->outputs = sizes[1]; }
}

/* Every way of unrolling, chunks that do and do not divide the sequence, one stream and three, sizes below and above a vector.
 * `like` has the rest of the spec: V, D and Q are present where they are there. */
static void check_cell(const char *cell, const bptt_spec *like, double tolerance)
{
    static const int64_t sizes[][5] = {{3, 4, 5, 2, 1}, {5, 5, 4, 4, 3}, {1, 2, 2, 1, 1}, {9, 3, 3, 2, 3}};
    const int simd[] = {1, bptt_kernels_simd(), 4, bptt_kernels_simd()};
    uint64_t random = oracle_seed();
    for (int i = 0; i < 4; i++) {
        bptt_spec spec = *like;
        resize(&spec, sizes[i]);
        if (spec.outputs > 0 && i < 2) { spec.outputs = 2 * i + 1; }
        for (int unroll = BPTT_UNROLL_TIME; unroll <= BPTT_UNROLL_NONE; unroll++) {
            spec.unroll = (bptt_unroll)unroll;
            spec.threads = 1;
            check_case(cell, &spec, simd[i], tolerance, &random);
            spec.threads = spec.batch - i / 2; /* 3: a stream each; 2: not the same number */
            if (spec.threads > 1 && unroll != BPTT_UNROLL_FULL) { check_case(cell, &spec, simd[i], 0, &random); }
        }
    }
}

/* The same cell on top of itself, twice and three times, layers of different sizes. */
static void check_layers(const char *cell, const bptt_spec *like)
{
    static const int64_t sizes[][6] = {{2, 3, 4, 5, 2, 1}, {3, 2, 5, 3, 5, 3}};
    const int simd[] = {4, bptt_kernels_simd()};
    uint64_t random = oracle_seed();
    for (int i = 0; i < 2; i++) {
        bptt_spec spec = *like;
        resize(&spec, sizes[i] + 1);
        spec.layers = spec.size_count = (int)sizes[i][0];
        for (int n = 0; n < spec.size_count; n++) { spec.sizes[n] = spec.hidden + (n + 1) % spec.size_count; }
        for (int unroll = BPTT_UNROLL_TIME; unroll <= BPTT_UNROLL_NONE; unroll++) {
            spec.unroll = (bptt_unroll)unroll;
            spec.threads = 1;
            check_case(cell, &spec, simd[i], unroll == BPTT_UNROLL_TIME ? 1e-7 : 0, &random);
            spec.threads = spec.batch;
            if (spec.threads > 1 && unroll != BPTT_UNROLL_FULL) { check_case(cell, &spec, simd[i], 0, &random); }
        }
    }
}

/* --- cells that go through ----------------------------------------------------------------------------------------------------- */

#define PARAMS "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nh = state(hidden)\n"
#define GATE(z)                                                                                                                  \
    "W" z " = matrix(hidden, input, 'W" z "')\nU" z " = matrix(hidden, hidden, 'U" z "')\nb" z " = vector(hidden, 'b" z "')\n"

static const char *const good_cells[] = {
    PARAMS "a = W * x + U * h + b\nh = tanh(a)\n",
    PARAMS "h = h + tanh(W * x + U * h + b)\n",
    PARAMS "h = W * x + U * h + b\n",
    PARAMS "h = h + W * x + b + U * (U * h)\n",
    PARAMS GATE("z") "z = sigmoid(Wz * x + Uz * h + bz)\nn = tanh(W * x + U * h + b)\nh = z * h + (n - z * n)\n",
    /* gru */
    PARAMS GATE("z") GATE("r") "z = sigmoid(Wz * x + Uz * h + bz)\nr = sigmoid(Wr * x + Ur * h + br)\n"
                               "n = tanh(W * x + b + r * (U * h))\nh = n - z * n + z * h\n",
    PARAMS GATE("z") GATE("r") "z = sigmoid(Wz * x + Uz * h + bz)\nr = sigmoid(Wr * x + Ur * h + br)\n"
                               "n = tanh(W * x + U * (r * h) + b)\nh = n - z * n + z * h\n",
    /* lstm */
    GATE("i") GATE("f") GATE("g") GATE("o") "h = state(hidden)\nc = state(hidden)\n"
                                            "i = sigmoid(Wi * x + Ui * h + bi)\nf = sigmoid(Wf * x + Uf * h + bf)\ng = tanh(Wg * "
                                            "x + Ug * h + bg)\nq = sigmoid(Wo * x + Uo * h + bo)\n"
                                            "c = f * c + i * g\nh = q * tanh(c)\n",
    /* c next equals sums of both states: one node is both outgoing carries */
    PARAMS "c = state(hidden)\nc = c + h\nh = tanh(W * x + U * c + b)\n",
    PARAMS "SIMD = W * x + U * h + b\nmemset = sigmoid(SIMD)\ntimes_U = SIMD * memset\nh = tanh(times_U)\n",
    PARAMS "c = state(hidden)\ns = c + h\nc = tanh(s)\nh = tanh(W * x + U * c + b)\n",
    PARAMS "c = state(hidden)\ns = c + h\nc = W * x + U * s + b\nh = tanh(s)\n",
    /* output through a value that is not a state; its previous state reaches the loss */
    PARAMS "Wo = matrix(hidden, hidden, 'Wo')\ns = state(hidden)\ns0 = s\ns = tanh(W * x + U * s + b)\nh = Wo * s0\n",
    "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nWo = matrix(hidden, hidden, "
    "'Wo')\n"
    "s = state(hidden)\ns0 = s\ns = tanh(W * x + U * s + b)\noutput = Wo * s0 + s0 * s\n",
    /* only HEAD gives the outgoing carry */
    "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\nWo = matrix(hidden, hidden, 'Wo')\n"
    "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = Wo * s0 + s0 * s\n",
    "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\nWo = matrix(hidden, hidden, 'Wo')\n"
    "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = Wo * s0\n",
    "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\n"
    "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = tanh(s0)\n",
    "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\n"
    "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = -s0\n",
    "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\n"
    "s = state(hidden)\noutput = s\ns = tanh(W * x + b)\n",
    /* a token straight to the output */
    PARAMS "Wo = matrix(hidden, input, 'Wo')\n"
           "s = state(hidden)\ns = tanh(W * x + U * s + b)\nh = s + Wo * x\n",
    "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nWs = matrix(hidden, hidden, 'Ws')\nb = vector(hidden, "
    "'b')\nWo = matrix(hidden, input, 'Wo')\n"
    "s = state(hidden)\ns = tanh(W * x + U * s + b)\noutput = tanh(Ws * s + Wo * x)\n",
    /* one matrix twice */
    PARAMS "h = tanh(W * x + U * tanh(U * h) + b)\n",
    PARAMS "v = tanh(W * x + b)\nh = tanh(U * v + U * h)\n",
    PARAMS "v = tanh(W * x + b)\nh = tanh(U * (v + h))\nh2 = h\n",
    PARAMS "s = state(hidden)\ns = tanh(W * x + U * s + b)\nh = tanh(U * s + b)\n",
    /* input layer before */
    PARAMS
    "E = matrix(hidden, hidden, 'E')\ns = sigmoid(W * x)\ne = relu(s) + relu(-s)\nv = tanh(E * e + b)\nh = tanh(v + U * h)\n",
    /* elementwise chains */
    PARAMS "a = W * x + U * h + b\nh = tanh(tanh(a) * sigmoid(a) - tanh(-a) * h + sigmoid(a * a) - (h - a) * a)\n",
    PARAMS "a = W * x + U * h + b\nh = a + a\n",
    PARAMS "a = W * x + U * h + b\nh = tanh(a) * tanh(a) - h * h\n",
    PARAMS "p = U * h\nh = tanh(W * x + p + b) + p * p\n",
    PARAMS "p = U * h\nh = tanh(W * x + b) - p\n",
    PARAMS "p = U * h\nh = p - (W * x + b)\n",
    PARAMS "h = (W * x + b) + (U * h + h)\n",
    PARAMS "h = (U * h + h) + (W * x + b)\n",
    PARAMS "h = tanh(U * h + (h + h)) + (W * x + b) * h\n",
    /* numbers, and ops that make of padding what is not a number */
    PARAMS "z = sigmoid(W * x + U * h + b)\nh = (1 - z) * h + 0.5 * z + (z + 1) / 3\n",
    PARAMS "a = W * x + U * h + b\nh = tanh(a) / (h * h + 0.5) - 1 / (2 + sigmoid(a))\n",
    PARAMS "a = W * x + U * h + b\nv = log(a * a + 0.5)\nw = sqrt(exp(v) + 0.2)\nh = tanh(v / w)\n",
    PARAMS "a = W * x + U * h + b\nv = exp(tanh(a))\nw = v / exp(h)\nh = tanh(h * w * 0.25 - v)\n",
    PARAMS "a = W * x + U * h + b\ns = sigmoid(a)\nh = abs(s) * abs(-s) + max(a, a - s) * 0.5 - min(a, a - s) + max(-0.1, "
           "min(1.1, s)) * min(s, -1) + max(s, 2)\n",
    PARAMS "c = state(hidden)\nc = 0.5 * c + sigmoid(U * h)\nh = tanh(W * x + b + 0.25 * c / (c + 1))\n",
    PARAMS "c = state(hidden)\nc = exp(0.4 * c) * 0.5\nh = exp(-exp(W * x + U * h + b) * c)\n",
    /* parameters as operands, sums with several biases or none but them, a token twice */
    PARAMS "h = tanh(W * x + U * h) * b\n",
    PARAMS "h = tanh(W * x + U * h) + b\n",
    PARAMS "c = vector(hidden, 'c')\nd = vector(hidden, 'd')\nh = tanh(W * x + d + b + U * h + b + c)\n",
    PARAMS "b2 = vector(hidden, 'b2')\nh = tanh(W * x + U * h + (b + b2)) - b * b2\n",
    PARAMS "W2 = matrix(hidden, input, 'W2')\nh = tanh(W * x + W2 * x + W * x + U * h + b)\n",
    PARAMS "W2 = matrix(hidden, input, 'W2')\nh = tanh(W * x + U * h) * (W2 * x + W * x + b)\n",
    PARAMS "h = tanh(W * x + U * h) + tanh(b)\n",
    PARAMS "h = tanh(W * x + U * h) - b\n",
    PARAMS "h = tanh(b - (W * x + U * h)) * sigmoid(-b) + b * b * 0.5\n",
    PARAMS "s = sigmoid(b)\nh = s * h + (1 - s) * tanh(W * x + U * h)\n",
    PARAMS "p = vector(hidden, 'p')\nq = vector(hidden, 'q')\nc = state(hidden)\ni = sigmoid(W * x + U * h + p * c + b)\n"
           "c = c + i * tanh(U * h + b)\ng = sigmoid(W * x + q * c)\nh = g * tanh(c)\n",
    PARAMS "Wo = matrix(hidden, hidden, 'Wo')\ns = state(hidden)\ns = tanh(W * x + U * s) * b\nh = b * tanh(Wo * s) + b\n",
    /* rows as a whole */
    PARAMS "a = W * x + U * h + b\nh = softmax(a) * h + softmax(U * tanh(a))\n",
    PARAMS "h = tanh(W * x + U * h) * softmax(b) + softmax(h)\n",
    PARAMS "S = matrix(7, input, 'S')\nT = matrix(7, 7, 'T')\nO = matrix(hidden, 7, 'O')\nd = vector(7, 'd')\ns = state(7)\n"
           "a = S * x + T * s + d\ns = concat(tanh(slice(a, 3, 7)), sigmoid(slice(a, 1, 2)))\n"
           "h = tanh(W * x + U * h + b + O * s)\n",
    PARAMS "S = matrix(6, input, 'S')\nO = matrix(hidden, 12, 'O')\nc = vector(6, 'c')\ns = state(6)\n"
           "s0 = s\nv = S * x + c\ns = concat(slice(v, 4, 6), slice(s0, 1, 2), slice(c, 2, 2)) * v\n"
           "h = tanh(U * h + W * x + b + O * concat(softmax(s), s0))\n",
    PARAMS "s = state(2)\nV = matrix(2, hidden, 'V')\nR = matrix(hidden, 4, 'R')\ns0 = s\ns = tanh(V * h)\n"
           "h = tanh(W * x + U * h + b) + R * concat(s, s0)\n",
    /* parts that are whole vectors: gates that are slices of one product; the last part with padding */
    PARAMS "G = matrix(37, input, 'G')\nR = matrix(37, 8, 'R')\nc = vector(37, 'c')\np = vector(8, 'p')\ns = state(8)\n"
           "O = matrix(hidden, 21, 'O')\na = G * x + R * s + c\ns0 = s\n"
           "s = sigmoid(slice(a, 1, 8) + p * s) * s + sigmoid(slice(a, 9, 16)) * tanh(slice(a, 17, 24))\n"
           "h = tanh(W * x + U * h + b + O * concat(s * tanh(slice(a, 25, 32)), s0 * p, tanh(slice(a, 33, 37))))\n",
    /* slices in another order; the same one twice; of a value that is itself a part; that meet */
    PARAMS "G = matrix(16, hidden, 'G')\nO = matrix(hidden, 16, 'O')\nv = tanh(G * h)\n"
           "h = tanh(W * x + U * h + b + O * concat(slice(v, 9, 16), slice(v, 1, 8)))\n",
    PARAMS "G = matrix(24, hidden, 'G')\nO = matrix(hidden, 8, 'O')\nv = G * h\nu = sigmoid(slice(v, 9, 24))\n"
           "w = slice(u, 1, 8)\nh = tanh(W * x + U * h + b + O * (w * tanh(w) + slice(u, 9, 16) * slice(v, 1, 8)))\n",
    PARAMS "G = matrix(24, hidden, 'G')\nO = matrix(hidden, 16, 'O')\nv = G * h\n"
           "h = tanh(W * x + U * h + b + O * (tanh(slice(v, 1, 16)) * sigmoid(slice(v, 9, 24))))\n",
    /* an adjoint that is kept whole and read in slices, of which one is the carry */
    PARAMS "P = matrix(8, 16, 'P')\nQ = matrix(16, hidden, 'Q')\nO = matrix(hidden, 16, 'O')\np = vector(8, 'p')\n"
           "s = state(16)\nv = concat(P * s, tanh(slice(s, 9, 16)) + tanh(p * p)) * (Q * h)\n"
           "s = tanh(Q * h)\nh = tanh(W * x + U * h + b + O * sigmoid(v))\n",
    PARAMS "P = matrix(8, hidden, 'P')\nO = matrix(hidden, 16, 'O')\ns = state(8)\ns0 = s\ns = tanh(P * h)\n"
           "h = tanh(W * x + U * h + b) + O * concat(s, s0)\n",
    /* joined from a product, from a sum, from softmax; read twice */
    PARAMS "P = matrix(8, hidden, 'P')\nQ = matrix(8, input, 'Q')\nO = matrix(hidden, 32, 'O')\n"
           "v = concat(P * h, Q * x + P * h, softmax(P * h), tanh(Q * x))\nh = tanh(W * x + U * h + b + O * (v * tanh(v)))\n",
    /* an output of another size than the state's */
    PARAMS "s = state(2)\nV = matrix(2, hidden, 'V')\ns0 = s\ns = tanh(V * h)\nh = tanh(W * x + U * h + b)\n"
           "output = concat(s, h, s0)\n",
    /* two layers */
    PARAMS GATE("2") "V2 = matrix(hidden, hidden, 'V2')\ng = state(hidden)\ng = tanh(V2 * tanh(W2 * x + b2) + U2 * g)\nh = "
                     "tanh(W * x + U * h + b + g)\n",
    "W = matrix(hidden, input, 'W')\nU = matrix(7, 7, 'U')\nb = vector(7, 'b')\nA = matrix(7, hidden, 'A')\nC = matrix(hidden, "
    "7, 'C')\ns = state(7)\n"
    "s = tanh(A * tanh(W * x) + U * s + b)\noutput = C * s\n",
    /* state never read; two states swapped by addition */
    PARAMS "s = state(hidden)\ns = tanh(U * h)\nh = tanh(W * x + b)\n",
    PARAMS "c = state(hidden)\nc0 = c\nc = h + tanh(W * x + b)\nh = c0 + tanh(U * c0)\n",
    PARAMS "c = state(hidden)\nc0 = c\nh0 = h\nc = h0 + h0\nh = c0 + tanh(W * x + U * c0 + b)\n",
    /* names */
    PARAMS "dh = W * x + U * h + b\nint = dh * dh\nh = tanh(int)\n",
    "m = matrix(hidden, input, 'W')\nt = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nh = state(hidden)\nrow = m * x + "
    "t * h + b\nh = tanh(row)\n",
};

START_TEST(good_cell)
{
    const bptt_spec tokens = interpret_spec(1, 1, 1, 1, 1), reals = interpret_real_spec(1, 1, 1, 1, 1, 1, BPTT_SQUARED_ERROR);
    check_cell(good_cells[_i], &tokens, 1e-8);
    check_layers(good_cells[_i], &tokens);
    check_cell(good_cells[_i], &reals, 1e-8);
    check_layers(good_cells[_i], &reals);
}
END_TEST

/* The cells that ship. */
START_TEST(shipped_cell)
{
    static const char *const names[] = {"cells/rnn.lua", "cells/gru.lua", "cells/lstm.lua"};
    const bptt_spec tokens = interpret_spec(1, 1, 1, 1, 1), reals = interpret_real_spec(1, 1, 1, 1, 1, 1, BPTT_SQUARED_ERROR);
    check_cell(bptt_embedded(names[_i]), &tokens, 1e-8);
    check_layers(bptt_embedded(names[_i]), &tokens);
    check_cell(bptt_embedded(names[_i]), &reals, 1e-8);
    check_layers(bptt_embedded(names[_i]), &reals);
}
END_TEST

/* Documents that start anywhere, and states that start from a trained vector: every cell that ships, and some that are odd. */
START_TEST(cell_with_starts)
{
    static const char *const odd[] = {
        PARAMS "c = state(hidden)\nc = c + h\nh = tanh(W * x + U * c + b)\n",
        "W = matrix(hidden, input, 'W')\nb = vector(hidden, 'b')\nWo = matrix(hidden, hidden, 'Wo')\n"
        "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = Wo * s0 + s0 * s\n",
        PARAMS "h = h + tanh(W * x + U * h + b)\n",
    };
    static const char *const names[] = {"cells/rnn.lua", "cells/gru.lua", "cells/lstm.lua"};
    const char *cell = _i % 6 < 3 ? bptt_embedded(names[_i % 6]) : odd[_i % 6 - 3];
    bptt_spec spec = interpret_spec(1, 1, 1, 1, 1);
    spec.h0 = _i / 6 == 0 ? BPTT_H0_ZERO : BPTT_H0_LEARNED;
    spec.resets = _i / 6 != 1;
    spec.carry = _i / 6 != 1 && _i % 2 == 0;
    check_cell(cell, &spec, 1e-8);
    check_layers(cell, &spec);
}
END_TEST

/* A chunk with documents is its documents one after the other: the same sum of losses and of gradients.  What is dropped before one
 * may be anything. */
START_TEST(documents_stand_alone)
{
    static const char *const names[] = {"cells/rnn.lua", "cells/gru.lua", "cells/lstm.lua"};
    enum { T = 9, B = 2 };
    static const size_t starts[] = {0, 1, 4, T}; /* of documents, in both streams */
    uint64_t random = oracle_seed();
    bptt_spec spec = interpret_spec(5, 4, T, T, B);
    spec.resets = true;
    spec.h0 = _i < 3 ? BPTT_H0_ZERO : BPTT_H0_LEARNED;
    built b, alone;
    sequence s;
    build(&spec, bptt_embedded(names[_i % 3]), 4, &b);
    fill(&b, &random);
    draw_sequence(&s, &spec, &random);
    memset(s.reset, 0, sizeof s.reset);
    const bptt_model *model = b.code.model;
    double loss = 0, *gradient = calloc(model->block, sizeof *gradient);
    ck_assert_ptr_nonnull(gradient);
    for (size_t d = 0; d + 1 < sizeof starts / sizeof starts[0]; d++) {
        spec.T = spec.K = (int64_t)(starts[d + 1] - starts[d]);
        for (size_t i = 0; i < B; i++) { s.reset[starts[d] * B + i] = 1; }
        build(&spec, bptt_embedded(names[_i % 3]), 4, &alone);
        memcpy(block_of(&alone, alone.code.model->param), block_of(&b, model->param), model->block * sizeof *gradient);
        alone.code.model->refresh(alone.code.model, alone.memory);
        const bptt_rows rows = rows_at(&s, &spec, starts[d] * B);
        loss += alone.code.model->gradient(alone.code.model, alone.memory, &rows, 0);
        for (size_t i = 0; i < model->block; i++) { gradient[i] += block_of(&alone, alone.code.model->grad)[i]; }
        built_free(&alone);
    }
    for (size_t i = 0; i < model->states[0].stride; i++) { block_of(&b, model->state)[i] = i % 2 == 0 ? (double)NAN : HUGE_VAL; }
    const double found = model->gradient(model, b.memory, &(bptt_rows){.x = s.x, .y = s.y, .reset = s.reset}, 0);
    ck_assert_double_eq_tol(found, loss, 1e-11 * (1 + fabs(loss)));
    for (size_t i = 0; i < model->block; i++) {
        ck_assert_double_eq_tol(block_of(&b, model->grad)[i], gradient[i], 1e-11 * (1 + fabs(gradient[i])));
    }
    free(gradient);
    built_free(&b);
}
END_TEST

/* h_0 that is given: start writes the rows of every state, and chunk 0 leaves them. */
START_TEST(given_start)
{
    enum { H = 5, B = 2 };
    uint64_t random = oracle_seed();
    bptt_spec spec = interpret_spec(H, 4, 3, 3, B);
    spec.h0 = BPTT_H0_GIVEN;
    spec.carry = false;
    built b;
    sequence s;
    build(&spec, bptt_embedded("cells/lstm.lua"), 4, &b);
    fill(&b, &random);
    draw_sequence(&s, &spec, &random);
    const bptt_rows rows = rows_at(&s, &spec, 0);
    double *unused = calloc(b.code.model->block, sizeof *unused), expected = 0;
    ck_assert_ptr_nonnull(unused);
    for (size_t stream = 0; stream < B; stream++) { expected += loss_by_graph(&b, stream, &rows, 3, 0, unused); }
    ck_assert_double_eq_tol(b.code.model->gradient(b.code.model, b.memory, &rows, 0), expected, 1e-11 * (1 + expected));
    ck_assert_ptr_nonnull(strstr(b.unit.header, "void net_start(net *m, const net_real *h0);"));
    free(unused);
    built_free(&b);
}
END_TEST

/* Dropout: the gradient is that of the masked network, with the mask that tests/interpret.h computes for itself, for every way to
 * unroll, width of vectors and number of threads. */
START_TEST(cell_with_dropout)
{
    static const char *const names[] = {"cells/rnn.lua", "cells/gru.lua", "cells/lstm.lua"};
    bptt_spec spec = _i < 2 ? interpret_spec(1, 1, 1, 1, 1) : interpret_real_spec(1, 1, 1, 1, 1, 1, BPTT_SQUARED_ERROR);
    spec.embedding = _i == 1 ? 3 : 0;
    spec.dropout = (bptt_dropout){.input = 0.25, .between = 0.5, .output = 0.375};
    if (_i == 3) { spec.dropout.input = spec.dropout.output = 0; }
    spec.resets = _i == 1;
    spec.seed = (uint64_t)1 << 40;
    check_cell(bptt_embedded(names[_i % 3]), &spec, 1e-8);
    check_layers(bptt_embedded(names[_i % 3]), &spec);
}
END_TEST

/* The shares that are dropped, pairs side by side, and other masks for other chunks and sites: a kernel by itself. */
START_TEST(masks_are_random)
{
    enum { ROWS = 400, COLS = 100, STRIDE = 112 };
    typedef void kernel(double *, ptrdiff_t, const double *, ptrdiff_t, double, double, uint64_t, uint32_t, ptrdiff_t, ptrdiff_t,
                        ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);
    const int widths[] = {1, 4, bptt_kernels_simd()};
    double *ones = calloc(2 * ROWS * STRIDE, sizeof *ones), *first = ones + ROWS * STRIDE;
    double *out = calloc(ROWS * STRIDE, sizeof *out);
    ck_assert(ones != NULL && out != NULL);
    for (size_t i = 0; i < ROWS * STRIDE; i++) { ones[i] = i % STRIDE == 3 ? (double)NAN : 1; }
    for (size_t w = 0; w < 3; w++) {
        size_t count = 0;
        const bptt_kernel *kernels = bptt_kernels(8, widths[w], &count);
        kernel *drop = NULL;
        for (size_t k = 0; k < count; k++) {
            if (strcmp(kernels[k].name, "bptt_row_dropout") == 0) { drop = (kernel *)(uintptr_t)kernels[k].function; }
        }
        ck_assert(drop != NULL);
        for (int other = 0; other < 4; other++) { /* chunk, site, seed, row */
            const double p = 0.25;
            size_t dropped = 0, pairs = 0, same = 0, wrong = 0;
            drop(out, STRIDE, ones, STRIDE, p, 7 + (other == 1), 5 + (other == 3), other == 2, 0, 0, 1, 1, ROWS, COLS);
            for (size_t r = 0; r < ROWS; r++) {
                for (size_t j = 0; j < STRIDE; j++) {
                    const double v = out[r * STRIDE + j];
                    wrong += !(j >= COLS ? v == 0 || j >= (COLS + 15) / 16 * 16
                               : j == 3  ? v == 0 || isnan(v)
                                         : v == 0 || v == 1 / (1 - p));
                    dropped += j < COLS && v == 0;
                    pairs += j < COLS && j > 0 && v == 0 && out[r * STRIDE + j - 1] == 0;
                    same += j < COLS && (v == 0) == (first[r * STRIDE + j] == 0);
                }
            }
            ck_assert_uint_eq(wrong, 0);
            const double n = ROWS * COLS, share = other == 0 ? 1 : p * p + (1 - p) * (1 - p);
            ck_assert_double_eq_tol((double)dropped / n, p, 4 * sqrt(p * (1 - p) / n));
            ck_assert_double_eq_tol((double)pairs / (n - ROWS), p * p, 5 * sqrt(p * p / n));
            if (w == 0 && other == 0) { memcpy(first, out, ROWS * STRIDE * sizeof *out); }
            if (w > 0 || other > 0) { ck_assert_double_eq_tol((double)same / n, share, other == 0 ? 1e-12 : 5 * sqrt(0.25 / n)); }
        }
        drop(out, STRIDE, ones + 4, STRIDE, 0.25, 0, 5, 0, 0, 0, 1, 1, ROWS, 90);
        for (size_t j = 0; j < 90; j++) { ck_assert_double_eq(out[j], 1); } /* off */
        for (int stream = 0; stream < 5; stream += 3) { /* streams 0 to 2, and 3 and 4, of 5: rows of the whole's masks */
            const ptrdiff_t streams = stream == 0 ? 3 : 2;
            drop(out, STRIDE, ones, STRIDE, 0.25, 7, 5, 0, stream, streams, streams, 5, ROWS / 5 * streams - streams, COLS);
            for (ptrdiff_t r = 0; r < ROWS / 5 * streams - streams; r++) {
                const double *whole = first + ((r / streams + 1) * 5 + stream + r % streams) * STRIDE;
                size_t same = 0;
                for (size_t j = 0; j < COLS; j++) { same += (out[r * STRIDE + (ptrdiff_t)j] == 0) == (whole[j] == 0); }
                ck_assert_uint_eq(same, COLS);
            }
        }
    }
    free(ones);
    free(out);
}
END_TEST

/* Cells too steep or with too many kinks for central differences; some make of their padding what is not a number. */
static const char *const steep_cells[] = {
    PARAMS "a = W * x + U * h + b\nv = a / (abs(a) + 1)\nh = U * v / exp(h)\n",
    PARAMS "a = W * x + U * h + b\nh = max(a, h) * 0.5 - min(a, -0.3) + max(0, min(1, 0.2 * a + 0.5))\n",
    PARAMS "a = W * x + U * h + b\nh = max(a, a) - min(h, h) + max(a, h) * min(a, h)\n",
    PARAMS "v = W * x + b\nw = U * h + b\nh = tanh(v / w)\n",
    PARAMS "v = W * x + b\nw = U * h\nr = v / w\nh = tanh(U * r) * tanh(log(w * w))\n",
    PARAMS "w = U * h\nh = tanh(sqrt(abs(w)) + W * x + b) + tanh(0.1 / w)\n",
    PARAMS "c = state(hidden)\nc = log(abs(c)) - 0.125\nh = tanh(W * x + U * h + b) * tanh(c)\n",
    PARAMS "c = state(hidden)\nc = c + sigmoid(c)\nv = exp(c)\nh = tanh(W * x + U * h + b) * 0.5 / v\n",
    PARAMS "v = exp(exp(exp(W * x)))\nh = exp(exp(tanh(U * h + b))) / v\n",
};

START_TEST(steep_cell)
{
    const bptt_spec tokens = interpret_spec(1, 1, 1, 1, 1), reals = interpret_real_spec(1, 1, 1, 1, 1, 1, BPTT_SQUARED_ERROR);
    check_cell(steep_cells[_i], &tokens, 0);
    check_cell(steep_cells[_i], &reals, 0);
}
END_TEST

/* What a chain leaves in padding may grow from step to step; the gradient's padding stays 0. */
START_TEST(padding_stays_clean)
{
    static const char *const cells[] = {
        PARAMS "c = state(hidden)\nc = c + 0.25 * exp(c) + 0.1 * (U * h + b)\nh = tanh(W * x + U * h + b) * exp(-0.1 * c)\n",
        PARAMS "v = exp(U * h + b)\nh = tanh(W * x + exp(v) + b)\n",
        PARAMS "G = matrix(7, hidden, 'G')\nv = G * h + 0.5\nO = matrix(hidden, 2, 'O')\n" /* 1 / 0 in the padding of a part */
               "h = tanh(W * x + U * h + b + 1 / (slice(v, 3, 7) - 0.5) + O * slice(v, 1, 2))\n",
    };
    uint64_t random = oracle_seed();
    for (int i = 0; i < 9; i++) {
        bptt_spec spec = interpret_spec(5, 4, 8, 4, 2);
        spec.unroll = (bptt_unroll)(BPTT_UNROLL_TIME + i % 3);
        built b;
        build(&spec, cells[i / 3], 4, &b);
        const bptt_model *model = b.code.model;
        fill(&b, &random);
        uint32_t x[16], y[16];
        oracle_tokens(&random, 16, 4, 5, x, y);
        for (int times = 0; times < 20; times++) {
            for (uint32_t p = 0; p < model->state_count; p++) { /* only padding may grow */
                double *state = block_of(&b, model->state) + model->states[p].offset;
                for (uint32_t r = 0; r < 2 * 5; r++) { state[r / 5 * model->states[p].stride + r % 5] = 0.25; }
            }
            (void)model->gradient(model, b.memory, &(bptt_rows){.x = x, .y = y}, 0);
            ck_assert_msg(oracle_padding_clean(model, b.memory, model->grad), "%s, unroll %d, call %d", cells[i / 3], i % 3,
                          times);
        }
        built_free(&b);
    }
}
END_TEST

/* --- cells that a plan cannot express ------------------------------------------------------------------------------------------- */

/* Sizes of hidden vectors and tokens are equal here, so that shapes alone refuse nothing. */
#define NO_TOKEN "U = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nh = state(hidden)\n"

static const char *const refused[][2] = {
    {NO_TOKEN "h = tanh(x + U * h + b)\n", "cell.lua:4: 'add' takes computed vectors; a parameter or token is none"},
    {NO_TOKEN "h = tanh(U * h + b + y)\n", "cell.lua:4: nothing is called 'y' here"},
    {NO_TOKEN "h = tanh(U * h + b) * x\n", "cell.lua:4: 'mul' takes computed vectors; a parameter or token is none"},
    {PARAMS "local v = h\nfor i = 1, 260 do v = tanh(U * v) + v end\nh = v + W * x + b\n",
     "cell.lua: more than 384 values to keep"},
    {PARAMS "local v = W * x + b\nfor i = 1, 520 do v = v + U * h end\nh = v\n", "cell.lua: more than 768 actions in a step"},
    {PARAMS "h = tanh(W * x + U * h + b)\nh2 = h + x\nk = h\n",
     "cell.lua:6: 'add' takes computed vectors; a parameter or token is none"},
    {PARAMS "E = matrix(hidden, hidden, 'E')\nh = tanh(W * x + (U + E) * h + b)\n",
     "cell.lua:6: add takes vectors, not a matrix"},
    {PARAMS "h = tanh(W * y + U * h + b)\n", "cell.lua:5: nothing is called 'y' here"},
    {PARAMS "h = tanh(W * x + U * b + h)\n", "cell.lua:5: 'matvec' takes computed vectors; a parameter or token is none"},
};

START_TEST(refused_cell)
{
    bptt_spec spec = interpret_spec(4, 4, 5, 2, 1);
    built b;
    ck_assert_int_eq(plan_cell(&spec, refused[_i][0], 4, &b), BPTT_FAILED);
    ck_assert_str_eq(error.text, refused[_i][1]);
    ck_assert_ptr_null(b.plan);
    built_free(&b);
}
END_TEST

/* --- inputs, outputs and losses ------------------------------------------------------------------------------------------------ */

static const struct {
    int64_t V, D, Q;
    bptt_loss loss;
    bptt_output_activation g;
    double smoothing;
    int64_t E; /* -1: tied, so as many as H */
} data_cases[] = {
    {1, 0, 0, BPTT_CROSS_ENTROPY, BPTT_OUTPUT_IDENTITY, 0.1, 0},
    {1, 0, 0, BPTT_CROSS_ENTROPY, BPTT_OUTPUT_IDENTITY, 0, 4},
    {1, 0, 0, BPTT_CROSS_ENTROPY, BPTT_OUTPUT_IDENTITY, 0.3, -1},
    {1, 0, 1, BPTT_SQUARED_ERROR, BPTT_OUTPUT_IDENTITY, 0, 3},

    {0, 1, 1, BPTT_SQUARED_ERROR, BPTT_OUTPUT_IDENTITY, 0, 0},
    {0, 1, 1, BPTT_SQUARED_ERROR, BPTT_OUTPUT_SIGMOID, 0, 0},
    {0, 1, 1, BPTT_SQUARED_ERROR, BPTT_OUTPUT_TANH, 0, 0},
    {0, 1, 1, BPTT_BINARY_CROSS_ENTROPY, BPTT_OUTPUT_IDENTITY, 0, 0},
    {1, 0, 1, BPTT_SQUARED_ERROR, BPTT_OUTPUT_IDENTITY, 0, 0},
    {1, 1, 0, BPTT_CROSS_ENTROPY, BPTT_OUTPUT_IDENTITY, 0, 0},
};
enum { DATA_CASES = sizeof data_cases / sizeof data_cases[0] };

START_TEST(inputs_outputs_and_losses)
{
    bptt_spec spec = interpret_spec(1, data_cases[_i].V, 1, 1, 1);
    spec.inputs = data_cases[_i].D;
    spec.outputs = data_cases[_i].Q;
    spec.loss = data_cases[_i].loss;
    spec.output_activation = data_cases[_i].g;
    spec.smoothing = data_cases[_i].smoothing;
    spec.tie = data_cases[_i].E < 0;
    spec.embedding = data_cases[_i].E;
    for (int reduction = BPTT_MEAN; reduction <= BPTT_SUM; reduction++) {
        spec.reduction = (bptt_reduction)reduction;
        check_cell(PARAMS "h = tanh(W * x + U * h + b)\n", &spec, 1e-8);
        check_cell(PARAMS "h = sigmoid(W * x + U * h + b)\n", &spec, 1e-8); /* whose padding is not 0 */
    }
}
END_TEST

/* The output layer runs where there is a loss alone; a chunk may have none. */
START_TEST(loss_at_some_steps)
{
    static const bptt_steps steps[] = {{.kind = BPTT_STEPS_LAST},
                                       {.kind = BPTT_STEPS_LIST, .count = 1, .stretches = {{1, 1}}},
                                       {.kind = BPTT_STEPS_LIST, .count = 2, .stretches = {{1, 1}, {3, 3}}},
                                       {.kind = BPTT_STEPS_LIST, .count = 1, .stretches = {{2, 3}}}};
    static const int64_t sizes[][5] = {{3, 4, 5, 2, 1}, {5, 5, 4, 4, 3}, {9, 3, 3, 2, 3}, {2, 3, 9, 2, 2}};
    static const char *const cells[] = {
        PARAMS "h = tanh(W * x + U * h + b)\n",
        PARAMS "Wo = matrix(hidden, input, 'Wo')\ns = state(hidden)\ns = tanh(W * x + U * s + b)\nh = s + Wo * x\n",
        PARAMS "s = state(hidden)\ns = tanh(W * x + U * s + b)\nh = s * tanh(U * s)\n",
    };
    uint64_t random = oracle_seed();
    for (int i = 0; i < 4 * 3 * 3; i++) {
        const int64_t *size = sizes[i % 4];
        bptt_spec spec = interpret_spec(size[0], size[1], size[2], size[3], size[4]);
        if (_i % 2 != 0) { spec = interpret_real_spec(size[0], 2, 3, size[2], size[3], size[4], BPTT_SQUARED_ERROR); }
        spec.output_activation = _i % 2 != 0 ? BPTT_OUTPUT_TANH : BPTT_OUTPUT_IDENTITY;
        spec.loss_at = steps[_i / 2];
        spec.reduction = i % 2 == 0 ? BPTT_MEAN : BPTT_SUM;
        spec.unroll = (bptt_unroll)(BPTT_UNROLL_TIME + i / 4 % 3);
        check_case(cells[i / 12], &spec, i % 3 == 0 ? 1 : bptt_kernels_simd(), true, &random);
        spec.threads = spec.batch;
        if (spec.threads > 1 && spec.unroll != BPTT_UNROLL_FULL) { check_case(cells[i / 12], &spec, 4, false, &random); }
    }
}
END_TEST

/* Real inputs and outputs where tokens and logits cannot be. */
START_TEST(real_cell)
{
    static const char *const cells[] = {
        PARAMS "h = tanh(W * x + U * h + b)\ng0 = h * h\n",
        PARAMS "h = tanh(W * (x * x) + U * h + b - W * tanh(x))\n",
        PARAMS "h = tanh(W * x + W * x + U * h + b)\n",
        "W = matrix(hidden, input, 'W')\nb = vector(input, 'b')\ns = state(input)\nR = matrix(input, input, 'R')\n"
        "s = tanh(R * s + x + b)\noutput = W * (s - x)\n",
        "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\ns = state(hidden)\n"
        "s = tanh(W * x + U * s)\noutput = s * (W * x)\n",
    };
    const bptt_spec spec = interpret_real_spec(1, 1, 1, 1, 1, 1, _i % 2 == 0 ? BPTT_SQUARED_ERROR : BPTT_BINARY_CROSS_ENTROPY);
    check_cell(cells[_i / 2], &spec, 1e-8);
}
END_TEST

/* --- random cells ---------------------------------------------------------------------------------------------------------------- */

enum { RANDOM_CELLS = 150 };

START_TEST(random_cell_is_right)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    cell_text c = {.random = &random};
    random_cell(&c);
    static const int64_t sizes[][5] = {{3, 4, 5, 2, 1}, {5, 5, 4, 4, 3}, {9, 3, 3, 2, 3}, {4, 3, 4, 2, 2}, {16, 3, 3, 2, 2}};
    const int64_t *size = sizes[pick(&c, 5)];
    bptt_spec spec = interpret_spec(size[0], size[1], size[2], size[3], size[4]);
    spec.unroll = (bptt_unroll)(BPTT_UNROLL_TIME + (int)pick(&c, 3));
    spec.threads = spec.unroll == BPTT_UNROLL_FULL ? 1 : 1 + (int64_t)pick(&c, (unsigned)spec.batch);
    const int simd = (const int[]){1, 4, bptt_kernels_simd()}[pick(&c, 3)];
    check_case(c.text, &spec, simd, 0, &random);
}
END_TEST

int main(void)
{
    printf("test_cells: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("cells");
    TCase *cells = tcase_create("cells");
    tcase_set_timeout(cells, 120);
    tcase_add_loop_test(cells, good_cell, 0, (int)(sizeof good_cells / sizeof good_cells[0]));
    tcase_add_loop_test(cells, shipped_cell, 0, 3);
    tcase_add_loop_test(cells, cell_with_starts, 0, 18);
    tcase_add_loop_test(cells, documents_stand_alone, 0, 6);
    tcase_add_test(cells, given_start);
    tcase_add_loop_test(cells, cell_with_dropout, 0, 4);
    tcase_add_test(cells, masks_are_random);
    tcase_add_loop_test(cells, steep_cell, 0, (int)(sizeof steep_cells / sizeof steep_cells[0]));
    tcase_add_test(cells, padding_stays_clean);
    tcase_add_loop_test(cells, refused_cell, 0, (int)(sizeof refused / sizeof refused[0]));
    tcase_add_loop_test(cells, inputs_outputs_and_losses, 0, DATA_CASES);
    tcase_add_loop_test(cells, real_cell, 0, 10);
    tcase_add_loop_test(cells, loss_at_some_steps, 0, 8);
    tcase_add_loop_test(cells, random_cell_is_right, 0, RANDOM_CELLS);
    suite_add_tcase(suite, cells);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
