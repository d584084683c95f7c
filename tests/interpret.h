/* interpret.h: runs a step graph node by node in double, for tests.
 *
 * What each op means is written here a second time, from its comment in gen/graph.h.  Depends on graph.h and Check; knows neither
 * plan nor text.  The caller sets the values of parameters, states, carries, real inputs and real targets.
 */
#ifndef BPTT_TESTS_INTERPRET_H
#define BPTT_TESTS_INTERPRET_H

#include "../gen/graph.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct interpreter {
    const bptt_graph *graph;
    double **value; /* of each node: a vector, or a matrix [rows][cols] */
    bool starts;    /* the step starts a sequence: KEEP, START and RESTART ask */
    double masks;   /* of dropout: their number, 0: none; the spec's seed, the row in the chunk */
    uint64_t seed, row;
} interpreter;

static inline size_t node_size(const bptt_node *node)
{
    return (size_t)(node->rows * (node->cols > 0 ? node->cols : 1));
}

static inline interpreter interpreter_new(const bptt_graph *graph)
{
    interpreter it = {.graph = graph, .value = calloc((size_t)graph->count, sizeof *it.value)};
    bool complete = it.value != NULL;
    for (int n = 0; n < graph->count && complete; n++) { /* blocks of their own, whose ends sanitizers see */
        it.value[n] = calloc(node_size(&graph->nodes[n]), sizeof **it.value);
        complete = it.value[n] != NULL;
    }
    ck_assert(complete);
    return it;
}

static inline void interpreter_free(interpreter *it)
{
    for (int n = 0; n < it->graph->count; n++) { free(it->value[n]); }
    free(it->value);
}

static inline void interpret_product(const interpreter *it, const bptt_node *node, double *out)
{
    const double *a = it->value[node->a], *b = it->value[node->b];
    const bptt_node *matrix = &it->graph->nodes[node->a];
    for (int64_t i = 0; i < node->rows; i++) {
        if (node->op == BPTT_OP_OUTER) {
            for (int64_t j = 0; j < node->cols; j++) { out[i * node->cols + j] = a[i] * b[j]; }
            continue;
        }
        out[i] = 0;
        for (int64_t j = 0; j < it->graph->nodes[node->b].rows; j++) {
            out[i] += (node->op == BPTT_OP_MATVEC ? a[i * matrix->cols + j] : a[j * matrix->cols + i]) * b[j];
        }
    }
}

/* The ops of one operand and a number. */
static inline double interpret_with_number(bptt_op op, double a, double c)
{
    switch (op) {
    case BPTT_OP_SCALE:
        return c * a;
    case BPTT_OP_SHIFT:
        return c + a;
    case BPTT_OP_OVER:
        return c / a;
    case BPTT_OP_FLOOR:
        return fmax(a, c);
    case BPTT_OP_STEP:
        return a >= c;
    default:
        ck_abort_msg("op %s has no meaning in tests/interpret.h", bptt_op_name(op));
    }
}

static inline uint64_t interpret_hash(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* Whether dropout drops an element, as templates/kernels/row.c says. */
static inline bool interpret_drops(const interpreter *it, const bptt_node *node, uint64_t column)
{
    const uint64_t golden = UINT64_C(0x9E3779B97F4A7C15);
    const uint64_t key = interpret_hash(interpret_hash(it->seed + golden) + (uint64_t)it->masks) + ((uint64_t)node->symbol << 40);
    const uint64_t z = interpret_hash(key + it->row * golden);
    uint32_t x = (uint32_t)column * 0x9E3779B1u + (uint32_t)z;
    x = (x ^ x >> 16) * 0x7feb352du;
    x ^= (uint32_t)(z >> 32);
    x = (x ^ x >> 15) * 0x846ca68bu;
    x ^= x >> 16;
    return it->masks > 0 && (double)(x >> 9) * 0x1p-23 < node->value;
}

static inline void interpret_row(const interpreter *it, const bptt_node *node, double *out)
{
    const double *a = it->value[node->a], *v = node->b < 0 ? NULL : it->value[node->b];
    const int64_t rows = it->graph->nodes[node->a].rows, first = (int64_t)node->value;
    double sum = 0;
    switch (node->op) {
    case BPTT_OP_SOFTMAX:
        for (int64_t i = 0; i < rows; i++) { sum += exp(a[i]); }
        for (int64_t i = 0; i < rows; i++) { out[i] = exp(a[i]) / sum; }
        break;
    case BPTT_OP_SOFTMAX_ADJOINT: /* through the Jacobian */
        for (int64_t i = 0; i < rows; i++) {
            out[i] = 0;
            for (int64_t j = 0; j < rows; j++) { out[i] += a[j] * v[j] * ((i == j) - v[i]); }
        }
        break;
    case BPTT_OP_SLICE:
        for (int64_t i = 0; i < node->rows; i++) { out[i] = a[first + i]; }
        break;
    case BPTT_OP_PLACE:
        for (int64_t i = 0; i < node->rows; i++) { out[i] = i >= first && i - first < rows ? a[i - first] : 0; }
        break;
    case BPTT_OP_DROPOUT:
        for (int64_t i = 0; i < rows; i++) {
            const double kept = it->masks > 0 ? a[i] / (1 - node->value) : a[i];
            out[i] = interpret_drops(it, node, (uint64_t)i) ? 0 : kept;
        }
        break;
    case BPTT_OP_KEEP:
    case BPTT_OP_START:
        for (int64_t i = 0; i < rows; i++) { out[i] = it->starts == (node->op == BPTT_OP_START) ? a[i] : 0; }
        break;
    case BPTT_OP_RESTART:
        for (int64_t i = 0; i < rows; i++) { out[i] = it->starts ? v[i] : a[i]; }
        break;
    default:
        ck_abort_msg("op %s has no meaning in tests/interpret.h", bptt_op_name(node->op));
    }
}

static inline double interpret_element(bptt_op op, double a, double b)
{
    switch (op) {
    case BPTT_OP_ADD:
        return a + b;
    case BPTT_OP_SUB:
        return a - b;
    case BPTT_OP_MUL:
        return a * b;
    case BPTT_OP_DIV:
        return a / b;
    case BPTT_OP_MIN:
        return fmin(a, b);
    case BPTT_OP_MAX:
        return fmax(a, b);
    case BPTT_OP_AT_LEAST:
        return a >= b;
    case BPTT_OP_ABS:
        return fabs(a);
    case BPTT_OP_ABS_ADJOINT:
        return a * (double)((b > 0) - (b < 0));
    case BPTT_OP_SQRT:
        return sqrt(a);
    case BPTT_OP_LOG:
        return log(a);
    case BPTT_OP_NEG:
        return -a;
    case BPTT_OP_EXP:
        return exp(a);
    case BPTT_OP_TANH:
        return tanh(a);
    case BPTT_OP_TANH_ADJOINT:
        return a * (1 - b * b);
    case BPTT_OP_SIGMOID:
        return 1 / (1 + exp(-a));
    case BPTT_OP_SIGMOID_ADJOINT:
        return a * b * (1 - b);
    case BPTT_OP_RELU:
        return a > 0 ? a : 0;
    case BPTT_OP_RELU_ADJOINT:
        return b > 0 ? a : 0;
    default:
        ck_abort_msg("op %s has no meaning in tests/interpret.h", bptt_op_name(op));
    }
}

/* A target that is not a number has neither loss nor gradient. */
static inline void interpret_real_loss(const interpreter *it, const bptt_node *node, double *out)
{
    const double *u = it->value[node->a], *d = it->value[node->b];
    const bool squared = node->op == BPTT_OP_SQUARED_ERROR || node->op == BPTT_OP_SQUARED_ERROR_ADJOINT;
    const bool adjoint = node->op == BPTT_OP_SQUARED_ERROR_ADJOINT || node->op == BPTT_OP_BINARY_CROSS_ENTROPY_ADJOINT;
    if (!adjoint) { out[0] = 0; }
    for (int64_t i = 0; i < it->graph->nodes[node->a].rows; i++) {
        const double slope = isnan(d[i]) ? 0 : squared ? 2 * (u[i] - d[i]) : 1 / (1 + exp(-u[i])) - d[i];
        const double loss = isnan(d[i]) ? 0 : squared ? (u[i] - d[i]) * (u[i] - d[i]) : log1p(exp(u[i])) - d[i] * u[i];
        if (adjoint) {
            out[i] = slope;
        } else {
            out[0] += loss;
        }
    }
}

/* A label that is not below V has neither loss nor gradient. */
static inline void interpret_loss(const interpreter *it, const bptt_node *node, uint32_t y, double *out)
{
    if (it->graph->nodes[node->b].op == BPTT_OP_TARGET_REAL) {
        interpret_real_loss(it, node, out);
        return;
    }
    const double *logits = it->value[node->a];
    const int64_t V = it->graph->nodes[node->a].rows;
    double most = logits[0], sum = 0;
    for (int64_t i = 1; i < V; i++) { most = fmax(most, logits[i]); }
    for (int64_t i = 0; i < V; i++) { sum += exp(logits[i] - most); }
    const bool loss = node->op == BPTT_OP_CROSS_ENTROPY;
    if (loss) { out[0] = 0; }
    for (int64_t i = 0; i < V; i++) {
        const double even = it->graph->smoothing / (double)V;
        const double wanted = y < (uint64_t)V ? (i == (int64_t)y) * (1 - it->graph->smoothing) + even : 0;
        if (loss) {
            out[0] += wanted * (most + log(sum) - logits[i]);
        } else {
            out[i] = y < (uint64_t)V ? exp(logits[i] - most) / sum - wanted : 0;
        }
    }
}

/* Nodes [first, last) of one step of one sequence. */
static inline void interpret(const interpreter *it, int first, int last, uint32_t x, uint32_t y)
{
    for (int n = first; n < last; n++) {
        const bptt_node *node = &it->graph->nodes[n];
        double *out = it->value[n];
        switch (bptt_op_kind_of(node->op)) {
        case BPTT_KIND_LEAF:
            if (node->op != BPTT_OP_INPUT && node->op != BPTT_OP_TARGET) { break; }
            for (int64_t i = 0; i < node->rows; i++) { out[i] = i == (int64_t)(node->op == BPTT_OP_INPUT ? x : y); }
            break;
        case BPTT_KIND_PRODUCT:
            interpret_product(it, node, out);
            break;
        case BPTT_KIND_ELEMENT:
            for (size_t i = 0; i < node_size(node); i++) {
                const double a = it->value[node->a][i];
                out[i] = bptt_op_has_value(node->op) ? interpret_with_number(node->op, a, node->value)
                                                     : interpret_element(node->op, a, node->b < 0 ? 0 : it->value[node->b][i]);
            }
            break;
        case BPTT_KIND_ROW:
            interpret_row(it, node, out);
            break;
        case BPTT_KIND_LOSS:
            interpret_loss(it, node, y, out);
            break;
        }
    }
}

/* A checked spec of these sizes, for cells given as text: f64, losses summed, state carried. */
static inline bptt_spec interpret_spec(int64_t H, int64_t V, int64_t T, int64_t K, int64_t B)
{
    static char source[] = "net.lua", text[] = "return {}\n";
    bptt_spec spec = {.name = "net", .digest = "0", .hidden = H, .vocab = V, .T = T, .K = K, .batch = B, .dtype = BPTT_F64};
    spec.reduction = BPTT_SUM;
    spec.carry = true;
    spec.optimizer = (bptt_optimizer){.kind = BPTT_SGD, .rate = 0.125};
    spec.init = (bptt_init){BPTT_INIT_UNIFORM, 0.8};
    spec.seed = 1;
    spec.source = source;
    spec.text = text;
    return spec;
}

/* The same with D real inputs and Q real targets. */
static inline bptt_spec interpret_real_spec(int64_t H, int64_t D, int64_t Q, int64_t T, int64_t K, int64_t B, bptt_loss loss)
{
    bptt_spec spec = interpret_spec(H, 0, T, K, B);
    spec.inputs = D;
    spec.outputs = Q;
    spec.loss = loss;
    return spec;
}

#endif
