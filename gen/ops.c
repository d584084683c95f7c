/* ops.c: the operations of a step graph: for each its shape and, right under it, its adjoint.
 *
 * To add one: a line in BPTT_OPS (graph.h), a shape rule and an adjoint rule here, its C in templates/kernels.lua.
 * Source of the rules: reverse-mode differentiation, e.g. Griewank and Walther, Evaluating Derivatives, table 3.  Depends on graph.h.
 */
#include "graph.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    bptt_op_kind kind;
    int arity;
} table[BPTT_OP_COUNT] = {
#define X(id, name, kind, arity) {name, BPTT_KIND_##kind, arity},
    BPTT_OPS(X)
#undef X
};

const char *bptt_op_name(bptt_op op)
{
    return table[op].name;
}

bptt_op_kind bptt_op_kind_of(bptt_op op)
{
    return table[op].kind;
}

int bptt_op_arity(bptt_op op)
{
    return table[op].arity;
}

bool bptt_op_has_value(bptt_op op)
{
    switch (op) {
    case BPTT_OP_SCALE:
    case BPTT_OP_SHIFT:
    case BPTT_OP_OVER:
    case BPTT_OP_FLOOR:
    case BPTT_OP_STEP:
    case BPTT_OP_SLICE:
    case BPTT_OP_PLACE:
    case BPTT_OP_DROPOUT:
        return true;
    default:
        return false;
    }
}

/* --- values ------------------------------------------------------------------------------------------------------------ */

static double of_two(bptt_op op, double a, double b)
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
        return a < b ? a : b < a ? b : a + (b - a);
    case BPTT_OP_MAX:
        return a < b ? b : b < a ? a : a + (b - a);
    case BPTT_OP_AT_LEAST:
        return a < b ? 0 : 1;
    case BPTT_OP_ABS_ADJOINT:
        return b > 0 ? a : b < 0 ? -a : a * b;
    case BPTT_OP_TANH_ADJOINT:
        return a * (1 - b * b);
    case BPTT_OP_SIGMOID_ADJOINT:
        return a * (b * (1 - b));
    case BPTT_OP_RELU_ADJOINT:
        return b > 0 ? a : 0;
    default:
        return (double)NAN;
    }
}

double bptt_op_result(bptt_op op, double a, double b, double value)
{
    switch (op) {
    case BPTT_OP_SCALE:
        return value * a;
    case BPTT_OP_SHIFT:
        return a + value;
    case BPTT_OP_OVER:
        return value / a;
    case BPTT_OP_FLOOR:
        return a < value ? value : a;
    case BPTT_OP_STEP:
        return a < value ? 0 : 1;
    case BPTT_OP_NEG:
        return -a;
    case BPTT_OP_ABS:
        return fabs(a);
    case BPTT_OP_SQRT:
        return sqrt(a);
    case BPTT_OP_LOG:
        return log(a);
    case BPTT_OP_EXP:
        return exp(a);
    case BPTT_OP_TANH:
        return tanh(a);
    case BPTT_OP_SIGMOID:
        return 1 / (1 + exp(-a));
    case BPTT_OP_RELU:
        return a < 0 ? 0 : a;
    default:
        return of_two(op, a, b);
    }
}

/* --- shapes ------------------------------------------------------------------------------------------------------------ */

static const char *shape_text(const bptt_node *node, char *text, size_t size)
{
    if (node->cols > 0) {
        (void)snprintf(text, size, "matrix [%lld][%lld]", (long long)node->rows, (long long)node->cols);
    } else {
        (void)snprintf(text, size, "vector [%lld]", (long long)node->rows);
    }
    return text;
}

static bptt_status shape_error(bptt_op op, const bptt_node *a, const bptt_node *b, bptt_error *error)
{
    char first[64], second[64];
    shape_text(a, first, sizeof first);
    if (table[op].arity == 1) { return bptt_fail(error, BPTT_FAILED, "%s does not fit %s", table[op].name, first); }
    return bptt_fail(error, BPTT_FAILED, "%s does not fit %s and %s", table[op].name, first,
                     shape_text(b, second, sizeof second));
}

/* An operation of one operand has it as `b` too. */
static bptt_status shape_of(bptt_op op, const bptt_node *a, const bptt_node *b, bptt_node *result, bptt_error *error)
{
    bool fits = false;
    switch (op) {
    case BPTT_OP_MATVEC:
        fits = a->cols > 0 && b->cols == 0 && a->cols == b->rows;
        result->rows = a->rows;
        break;
    case BPTT_OP_MATVEC_T:
        fits = a->cols > 0 && b->cols == 0 && a->rows == b->rows;
        result->rows = a->cols;
        break;
    case BPTT_OP_OUTER:
        fits = a->cols == 0 && b->cols == 0;
        result->rows = a->rows;
        result->cols = b->rows;
        break;
    case BPTT_OP_CROSS_ENTROPY:
        fits = a->cols == 0 && b->op == BPTT_OP_TARGET && a->rows == b->rows;
        result->rows = 1;
        break;
    case BPTT_OP_SQUARED_ERROR:
    case BPTT_OP_BINARY_CROSS_ENTROPY:
        fits = a->cols == 0 && b->op == BPTT_OP_TARGET_REAL && a->rows == b->rows;
        result->rows = 1;
        break;
    default: /* element by element, or vectors as they are; sums of gradients may be matrices */
        fits = a->rows == b->rows && a->cols == b->cols && (a->cols == 0 || op == BPTT_OP_ADD);
        result->rows = a->rows;
        result->cols = a->cols;
    }
    return fits ? BPTT_OK : shape_error(op, a, b, error);
}

int bptt_graph_apply(bptt_graph *graph, bptt_op op, int a, int b, bptt_error *error)
{
    bptt_node node = {.op = op, .a = a, .b = b, .symbol = -1};
    if (shape_of(op, &graph->nodes[a], &graph->nodes[b < 0 ? a : b], &node, error) != BPTT_OK) { return -1; }
    return bptt_graph_add(graph, &node, error);
}

int bptt_graph_apply_value(bptt_graph *graph, bptt_op op, int a, double value, bptt_error *error)
{
    const int node = bptt_graph_apply(graph, op, a, -1, error);
    if (node >= 0) { graph->nodes[node].value = value; }
    return node;
}

int bptt_graph_apply_part(bptt_graph *graph, bptt_op op, int a, int64_t first, int64_t rows, bptt_error *error)
{
    const bptt_node *whole = &graph->nodes[a];
    const int64_t end = first + (op == BPTT_OP_SLICE ? rows : whole->rows), most = op == BPTT_OP_SLICE ? whole->rows : rows;
    if (whole->cols > 0 || first < 0 || rows < 1 || rows > INT32_MAX || end > most) {
        bptt_fail(error, BPTT_FAILED, "%s: rows %lld to %lld of a vector of %lld", table[op].name, (long long)first + 1,
                  (long long)end, (long long)most);
        return -1;
    }
    const bptt_node node = {.op = op, .a = a, .b = -1, .rows = rows, .symbol = -1, .value = (double)first};
    return bptt_graph_add(graph, &node, error);
}

/* --- adjoints ---------------------------------------------------------------------------------------------------------- */

/* Does a change of the node change anything that is trained? */
static bool wants_adjoint(const bptt_graph *graph, int node)
{
    bptt_op op = graph->nodes[node].op;
    return op != BPTT_OP_INPUT && op != BPTT_OP_INPUT_REAL && op != BPTT_OP_TARGET && op != BPTT_OP_TARGET_REAL;
}

/* adjoint[operand] += op(a, b) */
static bptt_status give(bptt_graph *graph, int *adjoint, int operand, bptt_op op, int a, int b, bptt_error *error)
{
    if (!wants_adjoint(graph, operand)) { return BPTT_OK; }
    int part = op == BPTT_OP_COUNT ? a : bptt_graph_apply(graph, op, a, b, error);
    if (part >= 0 && adjoint[operand] >= 0) { part = bptt_graph_apply(graph, BPTT_OP_ADD, adjoint[operand], part, error); }
    if (part < 0) { return BPTT_FAILED; }
    adjoint[operand] = part;
    return BPTT_OK;
}

/* adjoint[operand] += a, a node that exists already */
static bptt_status pass(bptt_graph *graph, int *adjoint, int operand, int a, bptt_error *error)
{
    return give(graph, adjoint, operand, BPTT_OP_COUNT, a, -1, error);
}

/* adjoint[operand] += factor op(a, b) */
static bptt_status give_scaled(bptt_graph *graph, int *adjoint, int operand, double factor, bptt_op op, int a, int b,
                               bptt_error *error)
{
    if (!wants_adjoint(graph, operand)) { return BPTT_OK; }
    int part = bptt_graph_apply(graph, op, a, b, error);
    if (part >= 0) {
        part = factor == -1 ? bptt_graph_apply(graph, BPTT_OP_NEG, part, -1, error)
                            : bptt_graph_apply_value(graph, BPTT_OP_SCALE, part, factor, error);
    }
    return part < 0 ? BPTT_FAILED : pass(graph, adjoint, operand, part, error);
}

/* y = a / b:  da = dy / b,  db = -da y */
static bptt_status divide_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const int a = graph->nodes[n].a, b = graph->nodes[n].b;
    const int da = bptt_graph_apply(graph, BPTT_OP_DIV, d, b, error);
    if (da < 0 || pass(graph, adjoint, a, da, error) != BPTT_OK) { return BPTT_FAILED; }
    return give_scaled(graph, adjoint, b, -1, BPTT_OP_MUL, da, n, error);
}

/* y is the larger, or the smaller, of a and b, which takes dy; a where they are equal:  da = dy (a >= b),  db = dy - da */
static bptt_status choose_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const int a = graph->nodes[n].a, b = graph->nodes[n].b;
    const bool larger = graph->nodes[n].op == BPTT_OP_MAX;
    const int takes = bptt_graph_apply(graph, BPTT_OP_AT_LEAST, larger ? a : b, larger ? b : a, error);
    const int da = takes < 0 ? -1 : bptt_graph_apply(graph, BPTT_OP_MUL, d, takes, error);
    if (da < 0 || pass(graph, adjoint, a, da, error) != BPTT_OK) { return BPTT_FAILED; }
    return give(graph, adjoint, b, BPTT_OP_SUB, d, da, error);
}

/* The ops of one operand and a number c. */
static bptt_status value_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const bptt_node node = graph->nodes[n]; /* a copy: the array moves as it grows */
    switch (node.op) {
    case BPTT_OP_SHIFT: /* y = a + c:  da = dy */
        return pass(graph, adjoint, node.a, d, error);
    case BPTT_OP_SCALE: { /* y = c a:  da = c dy */
        const int da = bptt_graph_apply_value(graph, BPTT_OP_SCALE, d, node.value, error);
        return da < 0 ? BPTT_FAILED : pass(graph, adjoint, node.a, da, error);
    }
    case BPTT_OP_OVER: { /* y = c / a:  da = -(dy / a) y */
        const int part = bptt_graph_apply(graph, BPTT_OP_DIV, d, node.a, error);
        return part < 0 ? BPTT_FAILED : give_scaled(graph, adjoint, node.a, -1, BPTT_OP_MUL, part, n, error);
    }
    case BPTT_OP_FLOOR: { /* y = max(a, c):  da = dy (a >= c) */
        const int takes = bptt_graph_apply_value(graph, BPTT_OP_STEP, node.a, node.value, error);
        return takes < 0 ? BPTT_FAILED : give(graph, adjoint, node.a, BPTT_OP_MUL, d, takes, error);
    }
    default: /* STEP, an adjoint op */
        return BPTT_OK;
    }
}

/* y = slice(a) or y = place(a): each takes the other's dy, at the same rows. */
static bptt_status part_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const bptt_node node = graph->nodes[n];
    const bptt_op other = node.op == BPTT_OP_SLICE ? BPTT_OP_PLACE : BPTT_OP_SLICE;
    const int da = bptt_graph_apply_part(graph, other, d, (int64_t)node.value, graph->nodes[node.a].rows, error);
    return da < 0 ? BPTT_FAILED : pass(graph, adjoint, node.a, da, error);
}

/* y = m a, m the mask of a site:  da = m dy, the same mask */
static bptt_status dropout_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const bptt_node node = graph->nodes[n];
    if (!wants_adjoint(graph, node.a)) { return BPTT_OK; }
    const int da = bptt_graph_apply_value(graph, BPTT_OP_DROPOUT, d, node.value, error);
    if (da < 0) { return BPTT_FAILED; }
    graph->nodes[da].symbol = node.symbol;
    return pass(graph, adjoint, node.a, da, error);
}

bptt_status bptt_op_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error)
{
    const int a = graph->nodes[n].a, b = graph->nodes[n].b;
    bptt_status status = BPTT_OK;
    switch (graph->nodes[n].op) {
    case BPTT_OP_MATVEC: /* y = W v:  dW = dy v',  dv = W' dy */
        status = give(graph, adjoint, a, BPTT_OP_OUTER, d, b, error);
        return status != BPTT_OK ? status : give(graph, adjoint, b, BPTT_OP_MATVEC_T, a, d, error);
    case BPTT_OP_MATVEC_T: /* y = W' v:  dW = v dy',  dv = W dy */
        status = give(graph, adjoint, a, BPTT_OP_OUTER, b, d, error);
        return status != BPTT_OK ? status : give(graph, adjoint, b, BPTT_OP_MATVEC, a, d, error);
    case BPTT_OP_ADD: /* y = a + b:  da = dy,  db = dy */
        status = pass(graph, adjoint, a, d, error);
        return status != BPTT_OK ? status : pass(graph, adjoint, b, d, error);
    case BPTT_OP_SUB: /* y = a - b:  da = dy,  db = -dy */
        status = pass(graph, adjoint, a, d, error);
        return status != BPTT_OK ? status : give(graph, adjoint, b, BPTT_OP_NEG, d, -1, error);
    case BPTT_OP_MUL: /* y = a b:  da = dy b,  db = dy a */
        status = give(graph, adjoint, a, BPTT_OP_MUL, d, b, error);
        return status != BPTT_OK ? status : give(graph, adjoint, b, BPTT_OP_MUL, d, a, error);
    case BPTT_OP_DIV:
        return divide_backward(graph, n, d, adjoint, error);
    case BPTT_OP_MIN:
    case BPTT_OP_MAX:
        return choose_backward(graph, n, d, adjoint, error);
    case BPTT_OP_ABS: /* y = |a|:  da = dy sign(a) */
        return give(graph, adjoint, a, BPTT_OP_ABS_ADJOINT, d, a, error);
    case BPTT_OP_SQRT: /* y = sqrt a:  da = dy / y / 2 */
        return give_scaled(graph, adjoint, a, 0.5, BPTT_OP_DIV, d, n, error);
    case BPTT_OP_LOG: /* y = log a:  da = dy / a */
        return give(graph, adjoint, a, BPTT_OP_DIV, d, a, error);
    case BPTT_OP_NEG: /* y = -a:  da = -dy */
        return give(graph, adjoint, a, BPTT_OP_NEG, d, -1, error);
    case BPTT_OP_EXP: /* y = exp a:  da = dy y */
        return give(graph, adjoint, a, BPTT_OP_MUL, d, n, error);
    case BPTT_OP_TANH: /* y = tanh a:  da = dy (1 - y y) */
        return give(graph, adjoint, a, BPTT_OP_TANH_ADJOINT, d, n, error);
    case BPTT_OP_SIGMOID: /* y = 1 / (1 + exp(-a)):  da = dy y (1 - y) */
        return give(graph, adjoint, a, BPTT_OP_SIGMOID_ADJOINT, d, n, error);
    case BPTT_OP_RELU: /* y = max(a, 0):  da = y > 0 ? dy : 0 */
        return give(graph, adjoint, a, BPTT_OP_RELU_ADJOINT, d, n, error);
    case BPTT_OP_SOFTMAX: /* y = softmax a:  da = y (dy - dy'y) */
        return give(graph, adjoint, a, BPTT_OP_SOFTMAX_ADJOINT, d, n, error);
    case BPTT_OP_SLICE:
    case BPTT_OP_PLACE:
        return part_backward(graph, n, d, adjoint, error);
    case BPTT_OP_DROPOUT:
        return dropout_backward(graph, n, d, adjoint, error);
    case BPTT_OP_KEEP: /* y = starts ? 0 : a:  da = starts ? 0 : dy */
        return give(graph, adjoint, a, BPTT_OP_KEEP, d, -1, error);
    case BPTT_OP_START: /* y = starts ? a : 0:  da = starts ? dy : 0 */
        return give(graph, adjoint, a, BPTT_OP_START, d, -1, error);
    case BPTT_OP_RESTART: /* y = starts ? b : a:  da = starts ? 0 : dy,  db = starts ? dy : 0 */
        status = give(graph, adjoint, a, BPTT_OP_KEEP, d, -1, error);
        return status != BPTT_OK ? status : give(graph, adjoint, b, BPTT_OP_START, d, -1, error);
    case BPTT_OP_CROSS_ENTROPY: /* y = -log softmax(a)[b]:  da = softmax(a) - onehot(b); dy is 1 (d < 0) */
        return give(graph, adjoint, a, BPTT_OP_CROSS_ENTROPY_ADJOINT, a, b, error);
    case BPTT_OP_SQUARED_ERROR: /* y = sum of (a - b) (a - b):  da = 2 (a - b) */
        return give(graph, adjoint, a, BPTT_OP_SQUARED_ERROR_ADJOINT, a, b, error);
    case BPTT_OP_BINARY_CROSS_ENTROPY: /* y = sum of log(1 + exp a) - b a:  da = sigmoid(a) - b */
        return give(graph, adjoint, a, BPTT_OP_BINARY_CROSS_ENTROPY_ADJOINT, a, b, error);
    default: /* leaves end the walk; adjoint ops are not differentiated again */
        return bptt_op_has_value(graph->nodes[n].op) ? value_backward(graph, n, d, adjoint, error) : BPTT_OK;
    }
}
