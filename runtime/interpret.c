/* interpret.c: see interpret.h.
 *
 * To add an op: an element-wise one is a case of `derivatives` (its value is bptt_op_result), a loss two cases of one of the losses,
 * a row op a case of `run_row` and its tangent in `move_node`, a product its three rules (value, tangent, and its part of a
 * gradient if it is a matrix).
 */
#include "interpret.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a node is needed for: the adjoints of states; those of parameters; the tangent of the next states. */
enum { FOR_STATES = 1, FOR_PARAMS = 2, MOVES = 4 };

static const bptt_node *node_of(const bptt_interpreter *it, int n)
{
    return &it->graph->nodes[n];
}

static size_t size_of(const bptt_node *node)
{
    return (size_t)node->rows * (node->cols > 0 ? (size_t)node->cols : 1);
}

/* Where the value of a node lies: parameters once, forward nodes step by step, adjoints for one step. */
static double *value_at(const bptt_interpreter *it, size_t t, int n)
{
    const bptt_node *node = node_of(it, n);
    if (node->op == BPTT_OP_PARAM) { return it->params[node->symbol]; }
    return n < it->graph->forward ? it->values + t * it->step_size + it->offset[n] : it->adjoints + it->offset[n];
}

/* --- what each op means ------------------------------------------------------------------------------------------------------ */

/* The derivatives of y = op(a, b) by a and b.  Where y has a kink they are those that gen/ops.c takes.  False: no rule, as of the
 * ops that occur in adjoints alone. */
static bool derivatives(const bptt_node *node, double a, double b, double y, double *da, double *db)
{
    *da = *db = 0;
    switch (node->op) {
    case BPTT_OP_ADD:
        return *da = 1, *db = 1, true;
    case BPTT_OP_SUB:
        return *da = 1, *db = -1, true;
    case BPTT_OP_MUL:
        return *da = b, *db = a, true;
    case BPTT_OP_DIV:
        return *da = 1 / b, *db = -y / b, true;
    case BPTT_OP_MIN:
        return *da = b >= a, *db = 1 - *da, true;
    case BPTT_OP_MAX:
        return *da = a >= b, *db = 1 - *da, true;
    case BPTT_OP_SCALE:
        return *da = node->value, true;
    case BPTT_OP_SHIFT:
        return *da = 1, true;
    case BPTT_OP_OVER:
        return *da = -y / a, true;
    case BPTT_OP_FLOOR:
        return *da = a >= node->value, true;
    case BPTT_OP_AT_LEAST:
    case BPTT_OP_STEP:
        return true; /* flat but for a jump */
    case BPTT_OP_NEG:
        return *da = -1, true;
    case BPTT_OP_ABS:
        return *da = (a > 0) - (a < 0), true;
    case BPTT_OP_SQRT:
        return *da = 0.5 / y, true;
    case BPTT_OP_LOG:
        return *da = 1 / a, true;
    case BPTT_OP_EXP:
        return *da = y, true;
    case BPTT_OP_TANH:
        return *da = 1 - y * y, true;
    case BPTT_OP_SIGMOID:
        return *da = y * (1 - y), true;
    case BPTT_OP_RELU:
        return *da = a > 0, true;
    default:
        return false;
    }
}

/* log(sum exp u), the largest taken out first. */
static double log_sum_exp(const double *u, size_t count)
{
    double most = u[0];
    for (size_t i = 1; i < count; i++) { most = fmax(most, u[i]); }
    double sum = exp(u[0] - most);
    for (size_t i = 1; i < count; i++) { sum += exp(u[i] - most); }
    return most + log(sum);
}

/* The cross entropy of the logits `u` against a label, smoothed, or its adjoint; 0 without a label. */
static void label_loss(const bptt_interpreter *it, const bptt_node *node, size_t t, const double *u, double *y)
{
    const size_t count = (size_t)node_of(it, node->a)->rows, label = it->sequence.y[t];
    const bool adjoint = node->op == BPTT_OP_CROSS_ENTROPY_ADJOINT;
    memset(y, 0, size_of(node) * sizeof *y);
    if (label >= count) { return; }
    const double all = log_sum_exp(u, count), even = it->graph->smoothing / (double)count;
    for (size_t i = 0; i < count; i++) {
        const double wanted = (i == label ? 1 - it->graph->smoothing : 0) + even;
        if (adjoint) {
            y[i] = exp(u[i] - all) - wanted;
        } else if (wanted > 0) { /* a logit of minus infinity that is not wanted costs nothing */
            y[0] += wanted * (all - u[i]);
        }
    }
}

/* A sum over real targets, or its adjoint; one that is not a number adds nothing. */
static void target_loss(const bptt_interpreter *it, const bptt_node *node, size_t t, const double *u, double *y)
{
    const size_t count = (size_t)node_of(it, node->a)->rows;
    const double *targets = it->sequence.d + t * count;
    memset(y, 0, size_of(node) * sizeof *y);
    for (size_t i = 0; i < count; i++) {
        const double d = targets[i];
        if (isnan(d)) { continue; }
        switch (node->op) {
        case BPTT_OP_SQUARED_ERROR:
            y[0] += (u[i] - d) * (u[i] - d);
            break;
        case BPTT_OP_SQUARED_ERROR_ADJOINT:
            y[i] = 2 * (u[i] - d);
            break;
        case BPTT_OP_BINARY_CROSS_ENTROPY:
            y[0] += (u[i] > 0 ? u[i] : 0) + log1p(exp(-fabs(u[i]))) - d * u[i];
            break;
        default:
            y[i] = 1 / (1 + exp(-u[i])) - d;
        }
    }
}

/* A loss of the prediction `u` in step t, or its adjoint. */
static void loss(const bptt_interpreter *it, const bptt_node *node, size_t t, const double *u, double *y)
{
    const bool labels = node->op == BPTT_OP_CROSS_ENTROPY || node->op == BPTT_OP_CROSS_ENTROPY_ADJOINT;
    (labels ? label_loss : target_loss)(it, node, t, u, y);
}

/* Eight sums side by side, which a compiler makes vectors of; their order is fixed. */
static double dot(const double *a, const double *b, size_t count)
{
    enum { LANES = 8 };
    double sums[LANES] = {0}, rest = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t l = 0; l < LANES; l++) { sums[l] += a[i + l] * b[i + l]; }
    }
    for (; i < count; i++) { rest += a[i] * b[i]; }
    return rest + (((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])));
}

/* y = W v, or W' v, of a matrix [rows][cols].  Rows whose factor is 0 are left out: a loss that does not count costs nothing. */
static void multiply(bptt_op op, const double *matrix, size_t rows, size_t cols, const double *v, double *y)
{
    if (op == BPTT_OP_MATVEC) {
        for (size_t i = 0; i < rows; i++) { y[i] = dot(matrix + i * cols, v, cols); }
        return;
    }
    memset(y, 0, cols * sizeof *y);
    for (size_t i = 0; i < rows; i++) {
        const double factor = v[i], *row = matrix + i * cols;
        if (factor == 0) { continue; }
        for (size_t j = 0; j < cols; j++) { y[j] += factor * row[j]; }
    }
}

static bool starts(const bptt_interpreter *it, size_t t)
{
    return (t == 0 && it->fresh) || (it->sequence.starts != NULL && it->sequence.starts[t] != 0);
}

/* y of a ROW op of u, of `count` rows, and of v (a softmax, or h_0).  SLICE, PLACE, KEEP and START are linear: they take tangents as
 * values. */
static void run_row(const bptt_node *node, size_t count, bool begins, const double *u, const double *v, double *y)
{
    const size_t rows = (size_t)node->rows, first = node->op == BPTT_OP_SOFTMAX ? 0 : (size_t)node->value;
    double all;
    switch (node->op) {
    case BPTT_OP_SOFTMAX:
        all = log_sum_exp(u, count);
        for (size_t i = 0; i < rows; i++) { y[i] = exp(u[i] - all); }
        return;
    case BPTT_OP_SOFTMAX_ADJOINT:
        all = dot(u, v, count);
        for (size_t i = 0; i < rows; i++) { y[i] = v[i] * (u[i] - all); }
        return;
    case BPTT_OP_SLICE:
        memcpy(y, u + first, rows * sizeof *y);
        return;
    case BPTT_OP_KEEP:
    case BPTT_OP_START:
        for (size_t i = 0; i < rows; i++) { y[i] = begins == (node->op == BPTT_OP_START) ? u[i] : 0; }
        return;
    case BPTT_OP_RESTART:
        memcpy(y, begins ? v : u, rows * sizeof *y);
        return;
    default:
        memset(y, 0, rows * sizeof *y);
        memcpy(y + first, u, count * sizeof *y);
    }
}

/* --- opening ----------------------------------------------------------------------------------------------------------------- */

/* Matrices are parameters, or sums of outer products. */
static bool is_known(const bptt_node *node)
{
    switch (bptt_op_kind_of(node->op)) {
    case BPTT_KIND_LEAF:
    case BPTT_KIND_PRODUCT:
        return true;
    case BPTT_KIND_ELEMENT:
        return node->cols == 0 || node->op == BPTT_OP_ADD;
    case BPTT_KIND_ROW:
    case BPTT_KIND_LOSS:
        return node->cols == 0 && node->op != BPTT_OP_DROPOUT;
    }
    return false;
}

static bptt_status check_ops(const bptt_interpreter *it, bptt_error *error)
{
    for (int n = 0; n < it->graph->count; n++) {
        const bptt_node *node = node_of(it, n);
        if (is_known(node)) { continue; }
        return bptt_fail(error, BPTT_FAILED, "%s: the interpreter has no rule for '%s'", it->graph->source,
                         bptt_op_name(node->op));
    }
    return BPTT_OK;
}

/* Marks what node n needs, itself first; operands come before their users. */
static void mark_operands(bptt_interpreter *it, unsigned char use)
{
    for (int n = it->graph->count - 1; n >= 0; n--) {
        const bptt_node *node = node_of(it, n);
        if ((it->uses[n] & use) == 0) { continue; }
        if (node->a >= 0) { it->uses[node->a] |= use; }
        if (node->b >= 0) { it->uses[node->b] |= use; }
    }
}

static void mark_uses(bptt_interpreter *it)
{
    const bptt_graph *g = it->graph;
    for (int s = 0; s < g->state_count; s++) {
        if (g->states[s].outgoing >= 0) { it->uses[g->states[s].outgoing] |= FOR_STATES; }
        it->uses[g->states[s].adjoint] |= FOR_STATES;
        it->uses[g->states[s].next] |= MOVES;
    }
    for (int p = 0; p < g->param_count; p++) { it->uses[g->params[p].gradient] |= FOR_PARAMS; }
    mark_operands(it, FOR_STATES);
    mark_operands(it, FOR_PARAMS);
    mark_operands(it, MOVES);
    for (int n = 0; n < g->forward; n++) { /* of those that reach a next state, the ones that a state reaches */
        const bptt_node *node = node_of(it, n);
        const bool reached = node->op == BPTT_OP_STATE || (node->a >= 0 && (it->uses[node->a] & MOVES) != 0) ||
                             (node->b >= 0 && (it->uses[node->b] & MOVES) != 0);
        if (!reached) { it->uses[n] = (unsigned char)(it->uses[n] & ~MOVES); }
    }
}

static bptt_status place_nodes(bptt_interpreter *it, size_t *adjoint_size, bptt_error *error)
{
    const bptt_graph *g = it->graph;
    const size_t count = (unsigned)g->count;
    it->offset = calloc(count, sizeof *it->offset);
    it->uses = calloc(count, sizeof *it->uses);
    if (it->offset == NULL || it->uses == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for %d nodes", g->count); }
    *adjoint_size = 0;
    for (int n = 0; n < g->count; n++) {
        const bptt_node *node = node_of(it, n);
        if (node->cols > 0 || node->op == BPTT_OP_PARAM) { continue; } /* no value in a step */
        size_t *end = n < g->forward ? &it->step_size : adjoint_size;
        it->offset[n] = *end;
        *end += size_of(node);
    }
    return BPTT_OK;
}

static double *reals(size_t count)
{
    return calloc(count + 1, sizeof(double));
}

static bptt_status allocate(bptt_interpreter *it, size_t adjoint_size, bptt_error *error)
{
    const bptt_graph *g = it->graph;
    bool good = true;
    for (int p = 0; p < g->param_count && good; p++) {
        const size_t size = size_of(node_of(it, g->params[p].node));
        it->params[p] = reals(size);
        it->param_at[p] = it->param_size;
        it->param_size += size;
        good = it->params[p] != NULL;
    }
    for (int s = 0; s < g->state_count; s++) { it->state_size += (size_t)node_of(it, g->states[s].node)->rows; }
    if (it->step_size <= SIZE_MAX / sizeof(double) / (it->steps + 1)) { it->values = reals(it->steps * it->step_size); }
    it->adjoints = reals(adjoint_size);
    it->tangents = reals(it->step_size);
    if (good && it->values != NULL && it->adjoints != NULL && it->tangents != NULL) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "no memory for the values of %zu steps of %zu reals", it->steps, it->step_size);
}

bptt_status bptt_interpreter_open(bptt_interpreter *it, const bptt_graph *graph, size_t steps, bptt_error *error)
{
    *it = (bptt_interpreter){.graph = graph, .steps = steps};
    size_t adjoint_size = 0;
    bptt_status status = check_ops(it, error);
    if (status == BPTT_OK) { status = place_nodes(it, &adjoint_size, error); }
    if (status == BPTT_OK) { status = allocate(it, adjoint_size, error); }
    if (status == BPTT_OK) {
        mark_uses(it);
    } else {
        bptt_interpreter_close(it);
    }
    return status;
}

void bptt_interpreter_close(bptt_interpreter *it)
{
    for (int p = 0; p < BPTT_MAX_PARAMS; p++) { free(it->params[p]); }
    free(it->offset);
    free(it->uses);
    free(it->values);
    free(it->adjoints);
    free(it->tangents);
    *it = (bptt_interpreter){.graph = NULL};
}

/* --- one node ---------------------------------------------------------------------------------------------------------------- */

/* Tokens are one-hot vectors: a matrix times one is a column. */
static void run_product(const bptt_interpreter *it, size_t t, const bptt_node *node, double *y)
{
    const bptt_node *matrix = node_of(it, node->a);
    const double *values = value_at(it, t, node->a);
    const size_t rows = (size_t)matrix->rows, cols = (size_t)matrix->cols;
    if (node->op == BPTT_OP_MATVEC && node_of(it, node->b)->op == BPTT_OP_INPUT) {
        for (size_t i = 0; i < rows; i++) { y[i] = values[i * cols + it->sequence.x[t]]; }
        return;
    }
    multiply(node->op, values, rows, cols, value_at(it, t, node->b), y);
}

/* What the sequence gives in step t: a one-hot vector, or reals. */
static void run_leaf(const bptt_interpreter *it, size_t t, const bptt_node *node, double *y)
{
    const size_t rows = (size_t)node->rows;
    const bptt_sequence *from = &it->sequence;
    switch (node->op) {
    case BPTT_OP_INPUT:
    case BPTT_OP_TARGET:
        for (size_t i = 0; i < rows; i++) { y[i] = i == (node->op == BPTT_OP_INPUT ? from->x : from->y)[t]; }
        return;
    case BPTT_OP_INPUT_REAL:
    case BPTT_OP_TARGET_REAL:
        memcpy(y, (node->op == BPTT_OP_INPUT_REAL ? from->v : from->d) + t * rows, rows * sizeof *y);
        return;
    default: /* PARAM, STATE, CARRY are there */
        return;
    }
}

/* A node that is no matrix; `counts`: losses do. */
static void run_node(const bptt_interpreter *it, size_t t, int n, bool counts)
{
    const bptt_node *node = node_of(it, n);
    double *y = value_at(it, t, n);
    if (bptt_op_kind_of(node->op) == BPTT_KIND_LEAF) {
        run_leaf(it, t, node, y);
        return;
    }
    const double *a = value_at(it, t, node->a), *b = node->b < 0 ? a : value_at(it, t, node->b);
    switch (bptt_op_kind_of(node->op)) {
    case BPTT_KIND_PRODUCT:
        run_product(it, t, node, y);
        return;
    case BPTT_KIND_ELEMENT:
        for (size_t i = 0; i < (size_t)node->rows; i++) { y[i] = bptt_op_result(node->op, a[i], b[i], node->value); }
        return;
    case BPTT_KIND_ROW:
        run_row(node, (size_t)node_of(it, node->a)->rows, starts(it, t), a, b, y);
        return;
    case BPTT_KIND_LOSS:
        if (!counts) {
            memset(y, 0, size_of(node) * sizeof *y);
        } else {
            loss(it, node, t, a, y);
        }
        return;
    case BPTT_KIND_LEAF:
        return;
    }
}

/* --- forward ------------------------------------------------------------------------------------------------------------------ */

/* State s of the cell, for a walk over all: its part of a state begins at *at (0 before the first) and has *size reals. */
static const bptt_state *next_state(const bptt_interpreter *it, int s, size_t *at, size_t *size)
{
    *at += s > 0 ? *size : 0;
    *size = (size_t)node_of(it, it->graph->states[s].node)->rows;
    return &it->graph->states[s];
}

const double *bptt_interpret_value(const bptt_interpreter *it, size_t t, int node)
{
    return value_at(it, t, node);
}

void bptt_interpret_state(const bptt_interpreter *it, size_t t, double *state)
{
    size_t at = 0, size = 0;
    for (int s = 0; s < it->graph->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        memcpy(state + at, value_at(it, t, of->next), size * sizeof *state);
    }
}

/* The states before step t, from the step before it or from `start`. */
static void enter_step(const bptt_interpreter *it, size_t t, const double *start)
{
    size_t at = 0, size = 0;
    for (int s = 0; s < it->graph->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        double *to = value_at(it, t, of->node);
        const double *from = t > 0 ? value_at(it, t - 1, of->next) : start != NULL ? start + at : NULL;
        if (from != NULL) {
            memcpy(to, from, size * sizeof *to);
        } else {
            memset(to, 0, size * sizeof *to);
        }
    }
}

void bptt_interpret_forward(bptt_interpreter *it, const bptt_sequence *sequence, const double *start, double *losses)
{
    it->sequence = *sequence;
    it->fresh = start == NULL;
    for (size_t t = 0; t < sequence->steps; t++) {
        enter_step(it, t, start);
        for (int n = 0; n < it->graph->forward; n++) { run_node(it, t, n, true); }
        losses[t] = *value_at(it, t, it->graph->loss);
    }
}

/* --- back --------------------------------------------------------------------------------------------------------------------- */

/* gradient += the value of `node`.  A matrix is a sum of outer products, which are added one by one. */
static void add_gradient(const bptt_interpreter *it, size_t t, int n, double *gradient)
{
    const bptt_node *node = node_of(it, n);
    if (node->cols > 0 && node->op == BPTT_OP_ADD) {
        add_gradient(it, t, node->a, gradient);
        add_gradient(it, t, node->b, gradient);
        return;
    }
    const size_t rows = (size_t)node->rows, cols = (size_t)node->cols;
    const double *a = value_at(it, t, node->cols > 0 ? node->a : n);
    if (cols == 0) {
        for (size_t i = 0; i < rows; i++) { gradient[i] += a[i]; }
        return;
    }
    const double *b = value_at(it, t, node->b);
    const bool token = node_of(it, node->b)->op == BPTT_OP_INPUT;
    for (size_t i = 0; i < rows; i++) {
        double *row = gradient + i * cols;
        if (a[i] == 0) { continue; }
        if (token) { row[it->sequence.x[t]] += a[i]; }
        for (size_t j = 0; j < cols && !token; j++) { row[j] += a[i] * b[j]; }
    }
}

/* Adjoint nodes -> a state, `outgoing` or `total`. */
static void leave_step(const bptt_interpreter *it, size_t t, bool outgoing, double *state)
{
    size_t at = 0, size = 0;
    for (int s = 0; s < it->graph->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        const int node = outgoing ? of->outgoing : of->adjoint;
        if (node >= 0) {
            memcpy(state + at, value_at(it, t, node), size * sizeof *state);
        } else {
            memset(state + at, 0, size * sizeof *state);
        }
    }
}

void bptt_interpret_back(bptt_interpreter *it, size_t t, bool counts, const double *carry, double *total, double *outgoing,
                         double *gradient)
{
    const bptt_graph *g = it->graph;
    const int wanted = gradient != NULL ? FOR_STATES | FOR_PARAMS : FOR_STATES;
    size_t at = 0, size = 0;
    for (int s = 0; s < g->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        memcpy(value_at(it, t, of->carry), carry + at, size * sizeof *carry);
    }
    for (int n = g->forward; n < g->count; n++) {
        if ((it->uses[n] & wanted) != 0 && node_of(it, n)->cols == 0) { run_node(it, t, n, counts); }
    }
    if (total != NULL) { leave_step(it, t, false, total); }
    for (int p = 0; p < g->param_count && gradient != NULL; p++) {
        add_gradient(it, t, g->params[p].gradient, gradient + it->param_at[p]);
    }
    leave_step(it, t, true, outgoing);
}

void bptt_interpret_cotangent(bptt_interpreter *it, size_t t, const double *u, double *result)
{
    bptt_interpret_back(it, t, false, u, NULL, result, NULL);
}

/* --- tangents ----------------------------------------------------------------------------------------------------------------- */

/* Whether operand `n` has a tangent; else it is 0. */
static bool moves(const bptt_interpreter *it, int n)
{
    return n >= 0 && (it->uses[n] & MOVES) != 0;
}

static double *tangent_of(const bptt_interpreter *it, int n)
{
    return it->tangents + it->offset[n];
}

/* Forward mode: dy = y'(a) da + y'(b) db. */
static void move_node(const bptt_interpreter *it, size_t t, int n)
{
    const bptt_node *node = node_of(it, n), *of = node_of(it, node->a);
    const bool a_moves = moves(it, node->a), b_moves = moves(it, node->b);
    double *dy = tangent_of(it, n), by_a, by_b;
    const double *da = tangent_of(it, node->a), *db = node->b < 0 ? da : tangent_of(it, node->b), *y = value_at(it, t, n);
    const double *a = value_at(it, t, node->a), *b = node->b < 0 ? a : value_at(it, t, node->b);
    if (bptt_op_kind_of(node->op) == BPTT_KIND_PRODUCT) { /* a matrix is a parameter and stays */
        multiply(node->op, a, (size_t)of->rows, (size_t)of->cols, db, dy);
        return;
    }
    if (bptt_op_kind_of(node->op) == BPTT_KIND_ROW) {
        bptt_node rule = *node;
        if (node->op == BPTT_OP_SOFTMAX) { rule.op = BPTT_OP_SOFTMAX_ADJOINT; } /* its Jacobian is symmetric */
        if (node->op == BPTT_OP_RESTART) { rule.op = BPTT_OP_KEEP; }            /* h_0 stays */
        run_row(&rule, (size_t)of->rows, starts(it, t), da, y, dy);
        return;
    }
    for (size_t i = 0; i < (size_t)node->rows; i++) {
        (void)derivatives(node, a[i], b[i], y[i], &by_a, &by_b);
        dy[i] = (a_moves ? by_a * da[i] : 0) + (b_moves ? by_b * db[i] : 0);
    }
}

void bptt_interpret_tangent(bptt_interpreter *it, size_t t, const double *v, double *result)
{
    const bptt_graph *g = it->graph;
    size_t at = 0, size = 0;
    for (int s = 0; s < g->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        memcpy(tangent_of(it, of->node), v + at, size * sizeof *v);
    }
    for (int n = 0; n < g->forward; n++) {
        if (moves(it, n) && node_of(it, n)->op != BPTT_OP_STATE) { move_node(it, t, n); }
    }
    at = size = 0;
    for (int s = 0; s < g->state_count; s++) {
        const bptt_state *of = next_state(it, s, &at, &size);
        if (moves(it, of->next)) {
            memcpy(result + at, tangent_of(it, of->next), size * sizeof *result);
        } else {
            memset(result + at, 0, size * sizeof *result);
        }
    }
}
