/* ops.c: the operations of a step graph: for each its shape and, right under it, its adjoint.
 *
 * To add one: a line in BPTT_OPS (graph.h), a shape rule and an adjoint rule here, its C in templates/kernels.lua.
 * Source of the rules: reverse-mode differentiation, e.g. Griewank and Walther, Evaluating Derivatives, table 3.  Depends on graph.h.
 */
#include "graph.h"

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
    default: /* element by element; sums of gradients may be matrices */
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
    case BPTT_OP_CROSS_ENTROPY: /* y = -log softmax(a)[b]:  da = softmax(a) - onehot(b); dy is 1 (d < 0) */
        return give(graph, adjoint, a, BPTT_OP_CROSS_ENTROPY_ADJOINT, a, b, error);
    case BPTT_OP_SQUARED_ERROR: /* y = sum of (a - b) (a - b):  da = 2 (a - b) */
        return give(graph, adjoint, a, BPTT_OP_SQUARED_ERROR_ADJOINT, a, b, error);
    case BPTT_OP_BINARY_CROSS_ENTROPY: /* y = sum of log(1 + exp a) - b a:  da = sigmoid(a) - b */
        return give(graph, adjoint, a, BPTT_OP_BINARY_CROSS_ENTROPY_ADJOINT, a, b, error);
    default: /* leaves end the walk; adjoint ops are not differentiated again */
        return BPTT_OK;
    }
}
