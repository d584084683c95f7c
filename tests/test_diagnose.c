/* test_diagnose.c: the interpreter of runtime/ against generated code and differences, and the figures of a diagnosis against
 * networks whose figures are known: the textbook's vanishing gradient, scaled rotations, cut gradients.
 *
 * Depends on Check, oracle.h and the tcc backend; the cells are texts.  BPTT_TEST_SEED chooses other numbers.
 */
#include "../gen/compile.h"
#include "../gen/emit.h"
#include "../gen/plan.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "../runtime/diagnose.h"
#include "../runtime/rows.h"
#include "../runtime/watch.h"
#include "interpret.h"
#include "oracle.h"

static bptt_error error;

/* --- cells ----------------------------------------------------------------------------------------------------------------------- */

#define PARAMS "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nh = state(hidden)\n"
#define GATE(z)                                                                                                                  \
    "W" z " = matrix(hidden, input, 'W" z "')\nU" z " = matrix(hidden, hidden, 'U" z "')\nb" z " = vector(hidden, 'b" z "')\n"
#define RNN PARAMS "a = W * x + U * h + b\nh = tanh(a)\n"

static const char *const cells[] = {
    RNN,
    PARAMS "h = h + tanh(W * x + U * h + b)\n",
    PARAMS "h = sigmoid(W * x + U * h + b) - relu(h)\n",
    PARAMS "p = U * h\nh = tanh(exp(-(p * p)) + W * x + b) - p\n",
    PARAMS "h = tanh(W * x + U * tanh(U * h) + b)\n",
    PARAMS GATE("z") GATE("r") "z = sigmoid(Wz * x + Uz * h + bz)\nr = sigmoid(Wr * x + Ur * h + br)\n"
                               "n = tanh(W * x + b + r * (U * h))\nh = n - z * n + z * h\n",
    GATE("i") GATE("f") GATE("g") GATE("o") "h = state(hidden)\nc = state(hidden)\n"
                                            "i = sigmoid(Wi * x + Ui * h + bi)\nf = sigmoid(Wf * x + Uf * h + bf)\n"
                                            "g = tanh(Wg * x + Ug * h + bg)\nq = sigmoid(Wo * x + Uo * h + bo)\n"
                                            "c = f * c + i * g\nh = q * tanh(c)\n",
    PARAMS "c = state(hidden)\nc = c + h\nh = tanh(W * x + U * c + b)\n",
    PARAMS "Wo = matrix(hidden, hidden, 'Wo')\ns = state(hidden)\ns0 = s\ns = tanh(W * x + U * s + b)\nh = Wo * s0\n",
    PARAMS GATE("2") "V2 = matrix(hidden, hidden, 'V2')\ng = state(hidden)\ng = tanh(V2 * tanh(W2 * x + b2) + U2 * g)\n"
                     "h = tanh(W * x + U * h + b + g)\n",
    "W = matrix(hidden, input, 'W')\nU = matrix(7, 7, 'U')\nb = vector(7, 'b')\nA = matrix(7, hidden, 'A')\n"
    "C = matrix(hidden, 7, 'C')\ns = state(7)\ns = tanh(A * tanh(W * x) + U * s + b)\noutput = C * s\n",
    PARAMS "s = state(hidden)\ns = tanh(U * h)\nh = tanh(W * x + b)\n",
};
enum { CELLS = sizeof cells / sizeof *cells };

static double draw(uint64_t *random)
{
    return (double)(oracle_random(random) >> 11) * 0x1.4p-53 - 0.625;
}

/* Specs that read, compute and lose in other ways, each with the overrides below. */
static const char *const specs[] = {
    "return {name = 'net', cell = 'lstm', layers = 2, vocab = 6}",
    "return {name = 'net', cell = 'gru', layers = 2, hidden = {5, 4}, vocab = 6, loss_at = 'last'}",
    "specs/mgu.lua",
    "specs/peephole.lua",
    "specs/residual.lua",
    "return {name = 'net', cell = 'gru', inputs = 3, outputs = 2, output_activation = 'sigmoid'}",
    "return {name = 'net', inputs = 3, outputs = 4, loss = 'binary_cross_entropy', loss_at = {2, 3, 7, 8, 9}}",
    "return {name = 'net', vocab = 6, embedding = 5, hidden = 5, tie = true, smoothing = 0.1}",
    "return {name = 'net', vocab = 6, embedding = 3, inputs = 2}",
    "return {name = 'net', vocab = 6, cell = function()\n"
    "W, U, b, p = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), vector(hidden)\n"
    "h, s = state(hidden), state(hidden)\n"
    "a = W * x + U * h + b\n"
    "s = softmax(concat(slice(a, 3, hidden), slice(s, 1, 2)))\n"
    "m = max(a, min(s, p)) / (1 + abs(h)) - 0.5 / (2 + relu(a))\n"
    "h = tanh(m) + 0.25 * sqrt(1 + a * a) - log(1 + exp(h)) * max(a, 0.125)\nend}",
};
enum { SPECS = sizeof specs / sizeof *specs };

static void open_spec(int which, bptt_spec *spec)
{
    const bptt_override overrides[] = {{"T", 1, "9"},           {"K", 1, "9"},       {"batch", 5, "1"},
                                       {"reduction", 9, "sum"}, {"dtype", 5, "f64"}, {"hidden", 6, "5"}};
    const char *text = specs[which];
    const size_t count = sizeof overrides / sizeof *overrides - (strstr(text, "hidden = {") != NULL);
    const bptt_status status = strncmp(text, "specs/", 6) == 0
                                   ? bptt_spec_load(text, overrides, count, spec, &error)
                                   : bptt_spec_parse(text, strlen(text), "net.lua", overrides, count, spec, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

/* Cell number `which`, or after these a spec; close_graph. */
static void open_any(int which, bptt_spec *spec, bptt_graph *graph, bptt_interpreter *it)
{
    if (which < CELLS) {
        *spec = interpret_spec(6, 5, 9, 9, 1);
        spec->threads = 1;
        ck_assert_msg(bptt_trace_text(spec, cells[which], "cell.lua", graph, &error) == BPTT_OK, "%s", error.text);
    } else {
        open_spec(which - CELLS, spec);
        ck_assert_msg(bptt_trace(spec, graph, &error) == BPTT_OK, "%s", error.text);
    }
    ck_assert_msg(bptt_derive(graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_interpreter_open(it, graph, (size_t)spec->T, &error) == BPTT_OK, "%s", error.text);
}

static void close_graph(bptt_graph *graph, bptt_interpreter *it)
{
    bptt_interpreter_close(it);
    bptt_graph_free(graph);
}

static void close_any(int which, bptt_spec *spec, bptt_graph *graph, bptt_interpreter *it)
{
    close_graph(graph, it);
    if (which >= CELLS) { bptt_spec_free(spec); }
}

/* Rows of one sequence, some without a label or target: `rows` as the model reads them, `of` as the interpreter does. */
static bptt_sequence draw_sequence(const bptt_spec *spec, uint64_t seed, bptt_rows *rows, bptt_rows *of)
{
    const size_t T = (size_t)spec->T;
    ck_assert_msg(bptt_rows_draw(spec, T, seed, rows, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_rows_new(spec, T, of, &error) == BPTT_OK, "%s", error.text);
    for (size_t i = 2; rows->y != NULL && i < T; i += 5) { ((uint32_t *)(uintptr_t)rows->y)[i] = UINT32_MAX; }
    for (size_t i = 3; rows->d != NULL && i < T * (size_t)spec->outputs; i += 5) { bptt_rows_put(spec, rows->d, i, (double)NAN); }
    (void)bptt_rows_sequence(spec, rows, 0, 0, T, of);
    return (bptt_sequence){.steps = T, .x = of->x, .y = of->y, .v = of->v, .d = of->d};
}

static void fill_params(bptt_interpreter *it, uint64_t *random)
{
    for (int p = 0; p < it->graph->param_count; p++) {
        const size_t size = node_size(&it->graph->nodes[it->graph->params[p].node]);
        for (size_t i = 0; i < size; i++) { it->params[p][i] = draw(random); }
    }
}

/* --- the interpreter against the code that libtcc compiles ---------------------------------------------------------------------- */

typedef struct code {
    bptt_plan *plan;
    bptt_unit unit;
    bptt_code code;
    unsigned char *memory;
} code;

static void compile(const bptt_spec *spec, const bptt_graph *graph, code *c)
{
    memset(c, 0, sizeof *c);
    bptt_status status = bptt_plan_make(spec, graph, bptt_kernels_simd(), 1u << 30, &c->plan, &error);
    if (status == BPTT_OK) { status = bptt_emit(c->plan, &c->unit, &error); }
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    bptt_text text = {.name = spec->name, .digest = spec->digest, .header = c->unit.header, .source = c->unit.source};
    text.kernels = bptt_kernels(c->plan->real_size, bptt_kernels_simd(), &text.kernel_count);
    ck_assert_msg(bptt_tcc_compile(&text, &c->code, &error) == BPTT_OK, "%s", error.text);
    c->memory = bptt_memory_new(c->code.model);
    ck_assert_ptr_nonnull(c->memory);
    c->code.model->init(c->code.model, c->memory, 1);
}

static void discard(code *c)
{
    free(c->memory);
    c->code.release(c->code.owner);
    bptt_unit_free(&c->unit);
    bptt_plan_free(c->plan);
}

/* Element i, in the graph's order, of parameter p in a block of the model. */
static double *real_of(const code *c, const bptt_graph *graph, size_t block, int p, size_t i)
{
    const bptt_node *node = &graph->nodes[graph->params[p].node];
    const bptt_tensor *tensor = &c->code.model->tensors[p];
    const size_t cols = node->cols > 0 ? (size_t)node->cols : 1;
    return (double *)(void *)(c->memory + block) + tensor->offset + i % cols * tensor->stride + i / cols;
}

static double worst_difference(const code *c, const bptt_interpreter *it, const double *gradient)
{
    double worst = 0;
    for (int p = 0; p < it->graph->param_count; p++) {
        for (size_t i = 0; i < node_size(&it->graph->nodes[it->graph->params[p].node]); i++) {
            const double found = *real_of(c, it->graph, c->code.model->grad, p, i), wanted = gradient[it->param_at[p] + i];
            const double wrong = fabs(found - wanted) / (1 + fabs(wanted));
            if (!(wrong <= worst)) { worst = wrong; }
        }
    }
    return worst;
}

START_TEST(test_interpreter_equals_generated_code)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    bptt_spec spec;
    bptt_graph graph;
    bptt_interpreter it;
    bptt_rows rows, own;
    code c;
    open_any(_i, &spec, &graph, &it);
    compile(&spec, &graph, &c);
    fill_params(&it, &random);
    for (int p = 0; p < graph.param_count; p++) {
        for (size_t i = 0; i < node_size(&graph.nodes[graph.params[p].node]); i++) {
            *real_of(&c, &graph, c.code.model->param, p, i) = it.params[p][i];
        }
    }
    c.code.model->refresh(c.code.model, c.memory);
    double losses[9], carry[64] = {0}, loss = 0, *gradient = oracle_doubles(it.param_size);
    ck_assert_uint_le(it.state_size, 64);
    const bptt_sequence sequence = draw_sequence(&spec, random, &rows, &own);
    ck_assert_uint_eq(sequence.steps, 9);
    bptt_interpret_forward(&it, &sequence, NULL, losses);
    for (size_t t = sequence.steps; t-- > 0;) {
        loss += losses[t];
        bptt_interpret_back(&it, t, true, carry, NULL, carry, gradient);
    }
    ck_assert_double_gt(loss, 0);
    ck_assert_double_eq_tol(c.code.model->gradient(c.code.model, c.memory, &rows, 0), loss, 1e-11 * (1 + loss));
    const double worst = worst_difference(&c, &it, gradient);
    ck_assert_msg(worst < 1e-11, "seed %llu: %g off\n%s", (unsigned long long)oracle_seed(), worst,
                  _i < CELLS ? cells[_i] : specs[_i - CELLS]);
    free(gradient);
    bptt_rows_free(&rows);
    bptt_rows_free(&own);
    discard(&c);
    close_any(_i, &spec, &graph, &it);
}
END_TEST

/* --- Jacobians ------------------------------------------------------------------------------------------------------------------- */

/* u . J v = v . J' u, and J v is the central difference of the state map. */
START_TEST(test_tangents)
{
    enum { MOST = 64 };
    uint64_t random = oracle_seed() + (uint64_t)_i;
    bptt_spec spec;
    bptt_graph graph;
    bptt_interpreter it;
    bptt_rows rows, own;
    open_any(_i, &spec, &graph, &it);
    fill_params(&it, &random);
    bptt_sequence one = draw_sequence(&spec, random, &rows, &own);
    one.steps = 1;
    const size_t S = it.state_size;
    ck_assert_uint_le(S, MOST);
    double losses[1], start[MOST], moved[MOST], sides[2][MOST], v[MOST], u[MOST], Jv[MOST], Ju[MOST], left = 0, right = 0;
    for (size_t i = 0; i < S; i++) {
        start[i] = draw(&random);
        v[i] = draw(&random);
        u[i] = draw(&random);
    }
    const double step = 1e-6;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < S; i++) { moved[i] = start[i] + (side == 0 ? -step : step) * v[i]; }
        bptt_interpret_forward(&it, &one, moved, losses);
        bptt_interpret_state(&it, 0, sides[side]);
    }
    bptt_interpret_forward(&it, &one, start, losses);
    bptt_interpret_tangent(&it, 0, v, Jv);
    bptt_interpret_cotangent(&it, 0, u, Ju);
    for (size_t i = 0; i < S; i++) {
        ck_assert_double_eq_tol(Jv[i], (sides[1][i] - sides[0][i]) / (2 * step), 1e-8);
        left += u[i] * Jv[i];
        right += v[i] * Ju[i];
    }
    ck_assert_double_eq_tol(left, right, 1e-13);
    bptt_rows_free(&rows);
    bptt_rows_free(&own);
    close_any(_i, &spec, &graph, &it);
}
END_TEST

/* --- diagnoses of known networks ------------------------------------------------------------------------------------------------- */

enum { W_XH, W_HH, B_H, W_HY, B_Y };

typedef struct rig {
    bptt_spec spec;
    bptt_graph graph;
    bptt_interpreter it;
    bptt_diagnosis d;
    const uint8_t *starts; /* of documents, in the data; NULL: none */
} rig;

static void open_rig(rig *r, bptt_spec spec)
{
    r->spec = spec;
    r->starts = NULL;
    ck_assert_msg(bptt_trace(&spec, &r->graph, &error) == BPTT_OK && bptt_derive(&r->graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_interpreter_open(&r->it, &r->graph, (size_t)spec.T, &error) == BPTT_OK, "%s", error.text);
    static const char *const names[] = {"W_xh", "W_hh", "b_h", "W_hy", "b_y"};
    ck_assert_int_eq(r->graph.param_count, 5);
    for (int p = 0; p < 5; p++) { ck_assert_str_eq(r->graph.nodes[r->graph.params[p].node].name, names[p]); }
}

static void diagnose(rig *r, size_t sequences, const uint32_t *x, const uint32_t *y)
{
    const bptt_diagnose_task task = {.sequences = sequences,
                                     .steps = (size_t)r->spec.T,
                                     .horizon = (size_t)r->spec.K,
                                     .stride = r->spec.truncation == BPTT_TRUNCATION_UNIFORM ? 1 : (size_t)r->spec.stride,
                                     .carry = r->spec.carry,
                                     .mean = r->spec.reduction == BPTT_MEAN,
                                     .seed = 1,
                                     .x = x,
                                     .y = y,
                                     .starts = r->starts};
    ck_assert_msg(bptt_diagnose(&r->it, &task, &r->d, &error) == BPTT_OK, "%s", error.text);
    bptt_diagnosis_judge(&r->d, &r->spec);
}

static void close_rig(rig *r)
{
    bptt_diagnosis_free(&r->d);
    close_graph(&r->graph, &r->it);
}

/* A product of reflections, times `scale`: every singular value is `scale`. */
static void put_rotation(double *matrix, size_t n, double scale, uint64_t *random)
{
    memset(matrix, 0, n * n * sizeof *matrix);
    for (size_t i = 0; i < n; i++) { matrix[i * n + i] = scale; }
    for (int reflection = 0; reflection < 4; reflection++) {
        double v[32], square = 0;
        for (size_t i = 0; i < n; i++) {
            v[i] = draw(random);
            square += v[i] * v[i];
        }
        for (size_t i = 0; i < n; i++) {
            double dot = 0;
            for (size_t j = 0; j < n; j++) { dot += matrix[i * n + j] * v[j]; }
            for (size_t j = 0; j < n; j++) { matrix[i * n + j] -= 2 * dot / square * v[j]; }
        }
    }
}

/* tanh around h = 0, where it is the identity: no input reaches h, so J = W_hh exactly. */
static void open_rotation(rig *r, double scale, int64_t T, int64_t K)
{
    uint64_t random = oracle_seed();
    open_rig(r, interpret_spec(12, 4, T, K, 1));
    put_rotation(r->it.params[W_HH], 12, scale, &random);
    for (size_t i = 0; i < 4 * 12; i++) { r->it.params[W_HY][i] = draw(&random); }
}

static void some_tokens(uint32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++) { tokens[i] = (uint32_t)(i * i / 3 % 4); }
}

/* |W_hy' (p - y)| where h = 0 and so p = 1/4. */
static double first_norm(const rig *r, uint32_t label)
{
    double square = 0;
    for (size_t j = 0; j < 12; j++) {
        double sum = 0;
        for (size_t v = 0; v < 4; v++) { sum += r->it.params[W_HY][v * 12 + j] * (0.25 - (v == label)); }
        square += sum * sum;
    }
    return sqrt(square);
}

START_TEST(test_rotation_has_the_known_norms_and_verdict)
{
    static const struct {
        double scale;
        bptt_health health;
    } cases[] = {{0.5, BPTT_VANISHING}, {1.0, BPTT_HEALTHY}, {1.5, BPTT_EXPLODING}};
    enum { T = 20, N = 3 };
    uint32_t tokens[N * T + 1];
    some_tokens(tokens, N * T + 1);
    rig r;
    open_rotation(&r, cases[_i].scale, T, T);
    r.spec.reduction = BPTT_MEAN;
    diagnose(&r, N, tokens, tokens + 1);
    ck_assert_double_eq_tol(r.d.state_norms[T - 1], r.d.heat[(T - 1) * T] / T, 1e-13);
    ck_assert_uint_eq(r.d.jacobian_count, 6); /* 1 2 4 8 16 20 */
    for (size_t j = 0; j < r.d.jacobian_count; j++) {
        const bptt_jacobian *jacobian = &r.d.jacobians[j];
        const double norm = pow(cases[_i].scale, (double)jacobian->steps);
        ck_assert_double_eq_tol(jacobian->norm / norm, 1, 1e-12);
        ck_assert_double_eq_tol(jacobian->least / norm, 1, 1e-12);
        ck_assert_double_eq_tol(jacobian->most / norm, 1, 1e-12);
        ck_assert_double_eq_tol(jacobian->rate, cases[_i].scale, 1e-12);
        ck_assert_uint_eq(jacobian->converged, N);
    }
    for (size_t row = 0; row < r.d.rows; row++) {
        const double *heat = r.d.heat + row * T;
        double first = 0;
        for (size_t q = 0; q < N; q++) { first += first_norm(&r, tokens[q * T + row + 1]) / N; }
        ck_assert_double_eq_tol(heat[0], first, 1e-12);
        for (size_t lag = 0; lag < T; lag++) {
            ck_assert_int_eq(isnan(heat[lag]), lag > r.d.loss_steps[row]);
            if (lag <= row) { ck_assert_double_eq_tol(heat[lag] / heat[0] / pow(cases[_i].scale, (double)lag), 1, 1e-12); }
        }
    }
    ck_assert_msg(r.d.health == cases[_i].health, "%s: %s", bptt_health_word(r.d.health), r.d.reason);
    ck_assert_uint_eq(r.d.memory, cases[_i].scale < 1 ? 6 : T - 1); /* 0.5^6 = 0.0156, 0.5^7 = 0.0078 */
    close_rig(&r);
}
END_TEST

/* The largest singular value of a matrix that is none's multiple of a rotation, by another way: the trace of (A'A)^(2^n). */
static double norm_by_squaring(const double *a, size_t n)
{
    double square[12 * 12], next[12 * 12], scale = 0;
    for (size_t i = 0; i < n * n; i++) {
        square[i] = 0;
        for (size_t k = 0; k < n; k++) { square[i] += a[k * n + i / n] * a[k * n + i % n]; }
    }
    double exponent = 1;
    for (int round = 0; round < 30; round++) {
        double trace = 0;
        for (size_t i = 0; i < n; i++) { trace += square[i * n + i]; }
        scale += log(trace) / exponent;
        for (size_t i = 0; i < n * n; i++) { square[i] /= trace; }
        for (size_t i = 0; i < n * n; i++) {
            next[i] = 0;
            for (size_t k = 0; k < n; k++) { next[i] += square[i / n * n + k] * square[k * n + i % n]; }
        }
        memcpy(square, next, sizeof square);
        exponent *= 2;
    }
    return exp(scale / 2);
}

START_TEST(test_power_iteration_finds_the_largest_singular_value)
{
    uint64_t random = oracle_seed();
    uint32_t tokens[5];
    some_tokens(tokens, 5);
    rig r;
    open_rig(&r, interpret_spec(12, 4, 4, 4, 1));
    double *W = r.it.params[W_HH], power[12 * 12], next[12 * 12];
    for (size_t i = 0; i < 12 * 12; i++) { power[i] = W[i] = draw(&random); }
    diagnose(&r, 1, tokens, tokens + 1);
    for (size_t j = 0; j < 3; j++) { /* W, W^2, W^4 */
        ck_assert_double_eq_tol(r.d.jacobians[j].norm / norm_by_squaring(power, 12), 1, 1e-4);
        for (size_t i = 0; i < 12 * 12; i++) {
            next[i] = 0;
            for (size_t k = 0; k < 12; k++) { next[i] += power[i / 12 * 12 + k] * power[k * 12 + i % 12]; }
        }
        memcpy(power, next, sizeof power);
    }
    close_rig(&r);
}
END_TEST

START_TEST(test_textbook_vanishing_gradient)
{
    enum { T = ORACLE_VANISHING_STEPS };
    bptt_spec spec;
    uint32_t x[T], y[T];
    rig r;
    oracle_vanishing_spec(&spec);
    oracle_net *net = oracle_net_new(&spec);
    oracle_vanishing_case(net, x, y);
    open_rig(&r, spec);
    for (size_t token = 0; token < T; token++) {
        r.it.params[W_XH][token] = net->params[oracle_index(net, "W_xh", token, 0)];
        r.it.params[W_HY][token] = net->params[oracle_index(net, "W_hy", 0, token)];
    }
    r.it.params[W_HH][0] = net->params[oracle_index(net, "W_hh", 0, 0)];
    diagnose(&r, 1, x, y);
    const double *last = r.d.heat + (r.d.rows - 1) * T;
    for (size_t k = 0; k < T; k++) {
        const double expected = pow(0.72, (double)k);
        ck_assert_double_eq_tol(last[k] / last[0] / expected, 1, 1e-10);
        ck_assert_double_eq_tol(r.d.lags[k] / r.d.lags[0] / expected, 1, 1e-10); /* one loss alone counts */
        ck_assert_double_eq_tol(r.d.state_norms[T - 1 - k] / last[k], 1, 1e-10);
    }
    ck_assert_double_eq_tol(r.d.jacobians[1].norm, 0.72 * 0.72, 1e-10);
    ck_assert_int_eq(r.d.health, BPTT_VANISHING);
    ck_assert_uint_eq(r.d.labels, 1);
    close_rig(&r);
    oracle_net_free(net);
}
END_TEST

/* --- truncation ------------------------------------------------------------------------------------------------------------------- */

/* The truncated gradient is that of textbook BPTT chunk by chunk, each from the state that the one before it left. */
START_TEST(test_truncation_report)
{
    enum { T = 11, K = 3, H = 4, V = 5 };
    uint64_t random = oracle_seed();
    uint32_t x[T], y[T];
    rig r;
    open_rig(&r, interpret_spec(H, V, T, K, 1));
    fill_params(&r.it, &random);
    oracle_net *net = oracle_net_new(&r.spec);
    for (size_t i = 0; i < V * H; i++) {
        net->params[oracle_index(net, "W_xh", i % V, i / V)] = r.it.params[W_XH][i];
        net->params[oracle_index(net, "W_hy", i % H, i / H)] = r.it.params[W_HY][i];
    }
    for (size_t i = 0; i < H * H; i++) { net->params[oracle_index(net, "W_hh", i % H, i / H)] = r.it.params[W_HH][i]; }
    for (size_t i = 0; i < H; i++) { net->params[oracle_index(net, "b_h", 0, i)] = r.it.params[B_H][i]; }
    for (size_t i = 0; i < V; i++) { net->params[oracle_index(net, "b_y", 0, i)] = r.it.params[B_Y][i]; }
    oracle_tokens(&random, T, V, 0, x, y);
    diagnose(&r, 1, x, y);

    double *full = oracle_doubles(net->count), *cut = oracle_doubles(net->count), *part = oracle_doubles(net->count);
    double h[H] = {0}, loss = oracle_bptt(net, T, x, y, NULL, full, NULL), dot = 0, a = 0, b = 0;
    for (size_t t = 0; t < T; t += K) {
        (void)oracle_bptt(net, T - t < K ? T - t : K, x + t, y + t, h, part, h);
        for (size_t i = 0; i < net->count; i++) { cut[i] += part[i]; }
    }
    for (size_t i = 0; i < net->count; i++) {
        dot += full[i] * cut[i];
        a += full[i] * full[i];
        b += cut[i] * cut[i];
    }
    ck_assert_double_eq_tol(r.d.loss, loss / T, 1e-12);
    ck_assert_double_eq_tol(r.d.norm, sqrt(a), 1e-11);
    ck_assert_double_eq_tol(r.d.norm_at_horizon, sqrt(b), 1e-11);
    ck_assert_uint_eq(r.d.truncation_count, 6); /* 1 2 3 4 8 11 */
    const bptt_truncation *at = &r.d.truncations[2], *whole = &r.d.truncations[5];
    ck_assert_uint_eq(at->K, K);
    ck_assert_double_eq_tol(at->cosine, dot / sqrt(a * b), 1e-12);
    ck_assert_double_eq_tol(at->ratio, sqrt(b / a), 1e-12);
    ck_assert_double_le(at->worst_cosine, at->cosine + 1e-12);
    ck_assert_uint_eq(whole->K, T);
    ck_assert_double_eq_tol(whole->cosine, 1, 1e-14);
    ck_assert_double_eq_tol(whole->ratio, 1, 1e-14);
    ck_assert_double_eq_tol(whole->worst_cosine, 1, 1e-14);
    free(full);
    free(cut);
    free(part);
    oracle_net_free(net);
    close_rig(&r);
}
END_TEST

/* Whether the loss of step s keeps step t, from 0, at K, as README has it. */
static bool keeps(const bptt_spec *spec, size_t K, size_t s, size_t t)
{
    const size_t T = (size_t)spec->T, n = (size_t)spec->stride;
    if (spec->truncation == BPTT_TRUNCATION_UNIFORM) { return s - t < K; }
    if (n == 0 || K < n) { return s / K == t / K; }
    const size_t end = (s / n + 1) * n < T ? (s / n + 1) * n : T;
    return end < K + t + 1;
}

/* Every mode at every K is the sum over the pairs that it keeps, each loss followed back alone; a document within cuts them all. */
START_TEST(test_truncation_in_every_mode)
{
    enum { T = 13, H = 4, V = 5, P = 5 };
    uint64_t random = oracle_seed();
    uint32_t x[T], y[T];
    uint8_t starts[T] = {[6] = 1};
    rig r;
    bptt_spec spec = interpret_spec(H, V, T, 5, 1);
    spec.truncation = (bptt_truncation_mode)(_i % 3);
    spec.stride = _i % 3 == 1 ? 4 : 0; /* does not divide T */
    spec.resets = _i >= 3;
    open_rig(&r, spec);
    r.starts = spec.resets ? starts : NULL;
    fill_params(&r.it, &random);
    oracle_tokens(&random, T, V, 0, x, y);
    y[2] = UINT32_MAX;
    diagnose(&r, 1, x, y);
    const bptt_sequence sequence = {.steps = T, .x = x, .y = y, .starts = r.starts};
    double losses[T], *full = oracle_doubles(r.it.param_size), *cut = oracle_doubles(r.it.param_size), carry[H];
    bptt_interpret_forward(&r.it, &sequence, NULL, losses);
    for (size_t k = r.d.truncation_count; k-- > 0;) { /* the last one is T */
        const size_t K = r.d.truncations[k].K;
        double dot = 0, a = 0, b = 0;
        memset(cut, 0, r.it.param_size * sizeof *cut);
        for (size_t s = 0; s < T; s++) {
            memset(carry, 0, sizeof carry);
            for (size_t t = s + 1; t-- > 0 && keeps(&spec, K, s, t);) {
                bptt_interpret_back(&r.it, t, t == s, carry, NULL, carry, cut);
            }
        }
        if (K == T) { memcpy(full, cut, r.it.param_size * sizeof *cut); }
        for (size_t i = 0; i < r.it.param_size; i++) {
            dot += full[i] * cut[i];
            a += full[i] * full[i];
            b += cut[i] * cut[i];
        }
        ck_assert_double_eq_tol(r.d.truncations[k].cosine, dot / sqrt(a * b), 1e-12);
        ck_assert_double_eq_tol(r.d.truncations[k].ratio, sqrt(b / a), 1e-12);
        if (K == 5) { ck_assert_double_eq_tol(r.d.norm_at_horizon, sqrt(b), 1e-11); }
        if (K == T) { ck_assert_double_eq_tol(r.d.norm, sqrt(b), 1e-11); }
    }
    free(full);
    free(cut);
    close_rig(&r);
}
END_TEST

/* A network that forgets at once needs K = 1 alone. */
START_TEST(test_no_recurrence_needs_one_step)
{
    uint64_t random = oracle_seed();
    uint32_t tokens[17];
    some_tokens(tokens, 17);
    rig r;
    open_rig(&r, interpret_spec(6, 4, 8, 8, 1));
    fill_params(&r.it, &random);
    memset(r.it.params[W_HH], 0, 36 * sizeof(double));
    diagnose(&r, 2, tokens, tokens + 1);
    ck_assert_uint_eq(r.d.enough, 1);
    ck_assert_double_eq_tol(r.d.truncations[0].cosine, 1, 1e-14);
    ck_assert_uint_eq(r.d.memory, 0);
    ck_assert_double_eq(r.d.jacobians[0].norm, 0);
    ck_assert_double_eq(r.d.rate, 0);
    ck_assert_int_eq(r.d.health, BPTT_VANISHING);
    ck_assert_ptr_nonnull(strstr(r.d.advice[r.d.advice_count - 1], "K = 1 would do in place of 8"));
    close_rig(&r);
}
END_TEST

/* --- saturation, carry, edges ---------------------------------------------------------------------------------------------------- */

START_TEST(test_saturated_and_dead_units)
{
    uint32_t tokens[9];
    some_tokens(tokens, 9);
    bptt_spec spec = interpret_spec(4, 4, 4, 4, 1);
    for (int relu = 0; relu < 2; relu++) {
        rig r;
        spec.activation = relu ? BPTT_RELU : BPTT_TANH;
        open_rig(&r, spec);
        const double biases[] = {-9, 9, 9, 0.1};
        memcpy(r.it.params[B_H], biases, sizeof biases);
        diagnose(&r, 2, tokens, tokens + 1);
        ck_assert_uint_eq(r.d.activity_count, 1);
        ck_assert_double_eq_tol(r.d.activities[0].low, 0.25, 1e-12);
        ck_assert_double_eq_tol(r.d.activities[0].high, relu ? 0 : 0.5, 1e-12);
        ck_assert_double_eq_tol(r.d.activities[0].dead, relu ? 0.25 : 0.75, 1e-12);
        close_rig(&r);
    }
}
END_TEST

/* Two sequences with the state carried lose what one of double length loses; without, they differ. */
START_TEST(test_carry)
{
    uint64_t random;
    uint32_t tokens[13];
    double loss[3];
    some_tokens(tokens, 13);
    for (int i = 0; i < 3; i++) {
        bptt_spec spec = interpret_spec(6, 4, i == 0 ? 12 : 6, 6, 1);
        spec.carry = i < 2;
        rig r;
        random = oracle_seed();
        open_rig(&r, spec);
        fill_params(&r.it, &random);
        diagnose(&r, i == 0 ? 1 : 2, tokens, tokens + 1);
        loss[i] = r.d.loss;
        close_rig(&r);
    }
    ck_assert_double_eq_tol(loss[0], loss[1], 1e-13);
    ck_assert_double_gt(fabs(loss[0] - loss[2]), 1e-6);
}
END_TEST

START_TEST(test_long_sequences_follow_some_losses)
{
    enum { T = 300 };
    static uint32_t tokens[T + 1];
    some_tokens(tokens, T + 1);
    rig r;
    open_rotation(&r, 0.99, T, 7);
    diagnose(&r, 1, tokens, tokens + 1);
    ck_assert_uint_eq(r.d.rows, BPTT_DIAGNOSE_ROWS);
    ck_assert_uint_eq(r.d.loss_steps[r.d.rows - 1], T - 1);
    for (size_t row = 1; row < r.d.rows; row++) { ck_assert_uint_gt(r.d.loss_steps[row], r.d.loss_steps[row - 1]); }
    ck_assert_double_eq_tol(r.d.jacobians[r.d.jacobian_count - 1].rate, 0.99, 1e-12);
    close_rig(&r);
}
END_TEST

START_TEST(test_one_step)
{
    uint32_t tokens[] = {1, 2};
    rig r;
    open_rotation(&r, 1, 1, 1);
    diagnose(&r, 1, tokens, tokens + 1);
    ck_assert_int_eq(r.d.health, BPTT_HEALTHY);
    ck_assert_uint_eq(r.d.truncation_count, 1);
    ck_assert_uint_eq(r.d.jacobian_count, 1);
    close_rig(&r);
}
END_TEST

/* What is not finite is told, whatever an activation makes of it. */
START_TEST(test_not_finite)
{
    enum { T = 400 };
    static uint32_t tokens[T + 1];
    bptt_spec spec = interpret_spec(4, 4, T, T, 1);
    spec.activation = BPTT_RELU;
    rig r;
    open_rig(&r, spec);
    for (size_t i = 0; i < 4 * 4; i++) {
        r.it.params[W_HH][i] = 100;
        r.it.params[W_XH][i] = r.it.params[W_HY][i] = 1;
    }
    diagnose(&r, 1, tokens, tokens + 1);
    ck_assert(!r.d.finite);
    ck_assert_int_eq(r.d.health, BPTT_EXPLODING);
    ck_assert_uint_eq(r.d.enough, 0);
    close_rig(&r);
}
END_TEST

START_TEST(test_unknown_op_is_refused)
{
    bptt_spec spec = interpret_spec(3, 4, 4, 4, 1);
    bptt_graph graph;
    bptt_interpreter it;
    ck_assert(bptt_trace_text(&spec, RNN, "cell.lua", &graph, &error) == BPTT_OK && bptt_derive(&graph, &error) == BPTT_OK);
    ck_assert_int_eq(bptt_interpreter_open(&it, &graph, 4, &error), BPTT_OK);
    bptt_interpreter_close(&it);
    graph.nodes[graph.count - 1].op = BPTT_OP_NEG; /* of a matrix: its gradient is no sum of outer products */
    graph.nodes[graph.count - 1].cols = 3;
    ck_assert_int_eq(bptt_interpreter_open(&it, &graph, 4, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "cell.lua: the interpreter has no rule for 'neg'");
    bptt_graph_free(&graph);
}
END_TEST

/* --- the watch over a training --------------------------------------------------------------------------------------------------- */

/* Windows of steps, each with its norm and loss; of window 1 one step in ten has `spike` times the norm.  Returns what was said. */
static const char *watched(const double norms[3], const double losses[3], double spike, bool mean, unsigned *times)
{
    bptt_watch watch = {0};
    const char *said = NULL;
    *times = 0;
    for (unsigned i = 0; i < 3 * BPTT_WATCH_WINDOW; i++) {
        const unsigned window = i / BPTT_WATCH_WINDOW;
        const double labels = 20, unit = mean ? 1 : labels;
        const bptt_step step = {.labels = 20,
                                .loss_sum = labels * losses[window],
                                .grad_norm = unit * norms[window] * (window == 1 && i % 10 == 0 ? spike : 1)};
        const char *what = bptt_watch_step(&watch, &step, mean);
        if (what == NULL) { continue; }
        said = what;
        ++*times;
    }
    return said;
}

START_TEST(test_watch)
{
    static const struct {
        double norms[3], losses[3], spike;
        const char *said;
    } cases[] = {
        {{1, 1, 1}, {3, 3, 3}, 1, NULL},
        {{1, 50, 50}, {3, 3, 3}, 1, NULL},
        {{1, 101, 1000}, {3, 3, 3}, 1, "explodes"},
        {{0.5, 0.5, 0.5}, {3, 2, 1}, 150, "explodes"}, /* spikes in a tenth of the steps */
        {{1e-6, 1e-2, 0.5}, {3, 2, 1}, 1, NULL},       /* left a plateau */
        {{1, 1e-2, 1e-4}, {3, 2, 2}, 1, "vanishes"},   /* and nothing was learned */
        {{1, 1e-2, 1e-4}, {3, 1, 0.01}, 1, NULL},      /* all was learned */
        {{1, 1e-2, 1.1e-3}, {3, 2, 2}, 1, NULL},
        {{1e-8, 1e-8, 1e-8}, {3, 3, 3}, 1, "vanishes"}, /* from the start */
        {{0, 0, 0}, {3, 3, 3}, 1, "vanishes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int mean = 0; mean < 2; mean++) {
            unsigned times = 0;
            const char *said = watched(cases[i].norms, cases[i].losses, cases[i].spike, mean != 0, &times);
            ck_assert_msg((said == NULL) == (cases[i].said == NULL) && times == (said != NULL), "case %zu: %s", i, said);
            if (said != NULL) { ck_assert_str_eq(said, cases[i].said); }
        }
    }
}
END_TEST

int main(void)
{
    printf("test_diagnose: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("diagnose");
    TCase *engine = tcase_create("interpreter"), *figures = tcase_create("figures");
    tcase_set_timeout(engine, 60);
    tcase_set_timeout(figures, 60);
    tcase_add_loop_test(engine, test_interpreter_equals_generated_code, 0, CELLS + SPECS);
    tcase_add_loop_test(engine, test_tangents, 0, CELLS + SPECS);
    tcase_add_test(engine, test_unknown_op_is_refused);
    tcase_add_loop_test(figures, test_rotation_has_the_known_norms_and_verdict, 0, 3);
    tcase_add_loop_test(figures, test_truncation_in_every_mode, 0, 6);
    const TTest *const tests[] = {test_power_iteration_finds_the_largest_singular_value,
                                  test_textbook_vanishing_gradient,
                                  test_truncation_report,
                                  test_no_recurrence_needs_one_step,
                                  test_saturated_and_dead_units,
                                  test_carry,
                                  test_long_sequences_follow_some_losses,
                                  test_one_step,
                                  test_not_finite,
                                  test_watch};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) { tcase_add_test(figures, tests[i]); }
    suite_add_tcase(suite, engine);
    suite_add_tcase(suite, figures);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
