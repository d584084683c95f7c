/* lower_actions.c: the actions of each phase.
 *
 * Gather: W times a token is a row of W'.  Fuse: neighbouring element-wise nodes become one chain.  The terms of an accumulator are
 * added each in its own phase.  Depends on lower.h; decides neither offsets nor tiles.
 */
#include "lower.h"

#include <stdio.h>
#include <string.h>

static bptt_action *add_action(lowering *l, bptt_action_kind kind, int phase, int n)
{
    bptt_action *action = bptt_insert_action(l->plan, l->plan->action_count, kind, bptt_phase_region(l->plan, phase),
                                             bptt_phase_level(l->plan, phase), l->error);
    if (action != NULL) { action->forward = bptt_is_forward(l, n); }
    return action;
}

/* "a[t]", "a" where all steps have one, and "a[t][0:128]" for what lies in rows of it. */
static const char *symbol(const lowering *l, int n, char *text, size_t size)
{
    const facts *f = &l->of[n];
    (void)bptt_graph_label(l->graph, f->whole < 0 ? n : f->whole, text, size);
    if (f->constant) { text[strcspn(text, "[")] = '\0'; }
    if (f->whole < 0) { return text; }
    const size_t used = strlen(text);
    const long long first = f->column, rows = node_at(l, n)->rows;
    (void)snprintf(text + used, size - used, "[%lld:%lld]", first, first + rows);
    return text;
}

/* One term of accumulator `root` that is a product: a gather where its operand is a token. */
static bptt_status lower_product(lowering *l, int n, int root, int phase)
{
    const bptt_node *node = node_at(l, n), *operand = node_at(l, node->b);
    const bool gather = operand->op == BPTT_OP_INPUT, turned = node->op == BPTT_OP_MATVEC_T;
    bptt_action *action = add_action(l, gather ? BPTT_GATHER : BPTT_PRODUCT, phase, n);
    if (action == NULL) { return BPTT_FAILED; }
    int slot = l->of[root].slot;
    action->param = node_at(l, node->a)->symbol;
    action->turned = turned;
    action->into_previous = bptt_is_direct_carry(l, root);
    action->out = ref_of(l, root);
    if (!gather) { action->in = ref_of(l, node->b); }
    action->cols = node->rows;
    action->depth = operand->rows;
    action->fill = l->written[slot] || action->into_previous ? BPTT_FILL_ADD
                   : l->bias[slot] >= 0                      ? BPTT_FILL_BIAS
                                                             : BPTT_FILL_ZERO;
    if (action->fill == BPTT_FILL_BIAS) { action->bias = l->bias[slot]; }
    action->flop = gather ? (double)node->rows : 2.0 * (double)node->rows * (double)operand->rows;
    l->written[slot] = true;
    char label[3][64], bias[64] = "";
    if (action->bias >= 0) { (void)snprintf(bias, sizeof bias, " + %s", node_at(l, l->graph->params[action->bias].node)->name); }
    (void)snprintf(action->note, sizeof action->note, "%s %s %s%s %s%s",
                   action->into_previous ? "carry to t-1" : symbol(l, root, label[0], sizeof label[0]),
                   action->fill == BPTT_FILL_ADD ? "+=" : "=", symbol(l, node->a, label[1], sizeof label[1]), turned ? "'" : "",
                   symbol(l, node->b, label[2], sizeof label[2]), bias);
    (void)snprintf(action->name, sizeof action->name, "%s_%s",
                   turned   ? "back"
                   : gather ? "gather"
                            : "times",
                   node_at(l, node->a)->name);
    return BPTT_OK;
}

/* Appends to the chain that the last action is, when it runs over the same rows; else begins one. */
static bptt_status lower_element(lowering *l, int phase, int n, bool previous, bptt_element element, const char *note)
{
    bptt_plan *plan = l->plan;
    bptt_action *last = plan->action_count > 0 ? &plan->actions[plan->action_count - 1] : NULL;
    if (last == NULL || last->kind != BPTT_CHAIN || bptt_phase(plan, last->region, last->level) != phase ||
        last->into_previous != previous || last->forward != bptt_is_forward(l, n) || last->cols != node_at(l, n)->rows ||
        last->element_count == BPTT_MAX_ELEMENTS) {
        last = add_action(l, BPTT_CHAIN, phase, n);
        if (last == NULL) { return BPTT_FAILED; }
        last->cols = node_at(l, n)->rows;
        last->into_previous = previous;
        (void)snprintf(last->name, sizeof last->name, "chain_%d", plan->action_count);
    }
    last->elements[last->element_count++] = element;
    last->flop += (double)node_at(l, n)->rows;
    size_t used = strlen(last->note);
    (void)snprintf(last->note + used, sizeof last->note - used, "%s%s", used > 0 ? ", " : "", note);
    return BPTT_OK;
}

static void describe_element(const lowering *l, int n, char *note, size_t size)
{
    char label[3][64] = {"", "", ""};
    const bptt_node *node = node_at(l, n);
    if (node->b >= 0) { (void)symbol(l, node->b, label[2], sizeof label[2]); }
    if (bptt_op_has_value(node->op)) { (void)bptt_number_text(node->value, label[2], sizeof label[2]); }
    (void)snprintf(note, size, "%s = %s(%s%s%s)", symbol(l, n, label[0], sizeof label[0]), bptt_op_name(node->op),
                   symbol(l, node->a, label[1], sizeof label[1]), label[2][0] == '\0' ? "" : ", ", label[2]);
}

/* An operation on whole rows. */
static bptt_status lower_row(lowering *l, int n, int phase)
{
    const bptt_node *node = node_at(l, n);
    bptt_action *action = add_action(l, BPTT_ROW, phase, n);
    if (action == NULL) { return BPTT_FAILED; }
    action->elements[0] = (bptt_element){node->op, ref_of(l, n), ref_of(l, node->a), {BPTT_REF_NONE, 0, 0}, node->value};
    if (node->b >= 0) { action->elements[0].b = ref_of(l, node->b); }
    action->element_count = 1;
    action->cols = node->rows;
    action->depth = node_at(l, node->a)->rows;
    action->site = node->symbol;
    action->flop = node->op != BPTT_OP_SOFTMAX && node->op != BPTT_OP_SOFTMAX_ADJOINT ? 0 : 4.0 * (double)node->rows;
    describe_element(l, n, action->note, sizeof action->note);
    return BPTT_OK;
}

/* A term of an accumulator that is a value of its own, or a second bias: out += value.  There was a product, or a carry, before. */
static bptt_status lower_added_value(lowering *l, int n, int root, int phase)
{
    char note[BPTT_EQUATION_MAX], label[2][64];
    (void)snprintf(note, sizeof note, "%s += %s", symbol(l, root, label[0], sizeof label[0]),
                   symbol(l, n, label[1], sizeof label[1]));
    const bool previous = bptt_is_direct_carry(l, root);
    bptt_element element = {BPTT_OP_ADD, ref_of(l, root), ref_of(l, root), ref_of(l, n), 0};
    return lower_element(l, phase, root, previous, element, note);
}

/* Where a carry is handed to step t - 1: no other phase knows a step before. */
static int handing_phase(const lowering *l, int n)
{
    return bptt_phase(l->plan, BPTT_REGION_BACK, bptt_highest_level(l, l->of[n].outgoing));
}

/* Terms of one accumulator that belong in `phase`: its products, or else the values that are added to them. */
static bptt_status lower_terms(lowering *l, int n, int root, int phase, bool products)
{
    const bptt_node *node = node_at(l, n);
    if (node->op == BPTT_OP_ADD && l->of[n].root == root) {
        bptt_status status = lower_terms(l, node->a, root, phase, products);
        return status != BPTT_OK ? status : lower_terms(l, node->b, root, phase, products);
    }
    if (is_product(l, n) && l->of[n].root == root) {
        const int own = bptt_is_direct_carry(l, root) ? handing_phase(l, root) : l->of[n].phase;
        return products && own == phase ? lower_product(l, n, root, phase) : BPTT_OK;
    }
    if ((!has_value(l, n) && node->op != BPTT_OP_PARAM) || n == root) { return BPTT_OK; } /* a carry */
    const int own = bptt_is_direct_carry(l, root) ? handing_phase(l, root) : l->of[root].phase;
    if (products || own != phase) { return BPTT_OK; }
    if (node->op == BPTT_OP_PARAM && l->bias[l->of[root].slot] == node->symbol) { /* added with the first term, once */
        l->bias[l->of[root].slot] = -1;
        return BPTT_OK;
    }
    return lower_added_value(l, n, root, phase);
}

/* Does something that is handed to step t - 1 go into the carry of a state before its own level is reached? */
static bool is_early_carry(const lowering *l, int s)
{
    const int n = l->graph->states[s].outgoing;
    return n >= 0 && bptt_highest_level(l, l->of[n].outgoing) > l->level[s];
}

/* The carries' slots start at zero where nothing else is written first: at the end of `phase`, the one before their level's. */
static bptt_status zero_carries(lowering *l, int phase)
{
    const bool uniform = l->plan->spec->truncation == BPTT_TRUNCATION_UNIFORM; /* a lag begins with carries, whatever the level */
    for (int s = 0; s < l->graph->state_count; s++) {
        const int carry = l->graph->states[s].carry, home = l->of[carry].root;
        const bool last = bptt_phase(l->plan, BPTT_REGION_BACK, l->level[s]) == phase + 1;
        const bool early = phase == bptt_phase(l->plan, BPTT_REGION_HEAD, 0) && (uniform || is_early_carry(l, s));
        if (l->written[l->of[home].slot] || (!last && !early)) { continue; } /* another term came first, or will */
        bptt_action *action = add_action(l, BPTT_ZERO, phase, carry);
        if (action == NULL) { return BPTT_FAILED; }
        action->out = ref_of(l, home);
        action->cols = node_at(l, home)->rows;
        (void)snprintf(action->note, sizeof action->note, "carry = 0");
        l->written[l->of[home].slot] = true;
    }
    return BPTT_OK;
}

/* Real inputs, as rows of a slot. */
static bptt_status lower_input(lowering *l, int n)
{
    bptt_action *action = add_action(l, BPTT_COPY, BPTT_REGION_INPUT, n);
    if (action == NULL) { return BPTT_FAILED; }
    action->out = ref_of(l, n);
    action->cols = node_at(l, n)->rows;
    char label[64];
    (void)snprintf(action->note, sizeof action->note, "%s = v", symbol(l, n, label, sizeof label));
    return BPTT_OK;
}

static void describe_loss(bptt_op op, const char *o, char *note, size_t size)
{
    if (op == BPTT_OP_CROSS_ENTROPY) {
        (void)snprintf(note, size, "loss -= log softmax(%s)[y[t]], d%s = softmax(%s) - onehot(y[t])", o, o, o);
    } else if (op == BPTT_OP_SQUARED_ERROR) {
        (void)snprintf(note, size, "loss += |%s - d[t]|^2, d%s = 2 (%s - d[t])", o, o, o);
    } else {
        (void)snprintf(note, size, "loss += sum of log(1 + exp %s) - d[t] %s, d%s = sigmoid(%s) - d[t]", o, o, o, o);
    }
}

/* Where the gradient that the loss `n` hands back lies; nowhere when nothing is trained by it. */
static bptt_ref gradient_of_loss(const lowering *l, int n)
{
    const bptt_node *node = node_at(l, n);
    for (int other = l->graph->forward; other < l->graph->count; other++) {
        if (is_loss(l, other) && node_at(l, other)->a == node->a) { return ref_of(l, other); }
    }
    return (bptt_ref){BPTT_REF_NONE, 0, 0};
}

static bptt_status lower_loss(lowering *l, int n)
{
    const bptt_node *node = node_at(l, n);
    const bool logits = node->op == BPTT_OP_CROSS_ENTROPY;
    const int head = bptt_phase(l->plan, BPTT_REGION_HEAD, 0);
    if ((logits && l->of[node->a].uses != 2) || l->of[n].phase != head) {
        return bptt_fail(l->error, BPTT_FAILED, "%s: logits may be used by the loss alone", l->graph->source);
    }
    bptt_action *action = add_action(l, BPTT_LOSS, head, n);
    if (action == NULL) { return BPTT_FAILED; }
    action->loss = node->op;
    action->smoothing = logits ? l->graph->smoothing : 0;
    action->in = ref_of(l, node->a);
    if (!logits) { action->out = gradient_of_loss(l, n); } /* softmax works in place */
    action->cols = node_at(l, node->a)->rows;
    action->flop = 4.0 * (double)action->cols;
    char label[64];
    describe_loss(node->op, symbol(l, node->a, label, sizeof label), action->note, sizeof action->note);
    return BPTT_OK;
}

/* A sum over rows runs when all of them are there. */
static int summing_phase(const lowering *l, int n, bool scatter)
{
    const int phase = l->of[n].phase;
    const bptt_region region = bptt_phase_region(l->plan, phase);
    const bool wait = region == BPTT_REGION_BACK || (scatter && region == BPTT_REGION_HEAD);
    return wait ? bptt_phase(l->plan, BPTT_REGION_TAIL, bptt_phase_level(l->plan, phase)) : phase;
}

/* Gradient terms of one parameter that belong in `phase`. */
static bptt_status lower_gradient(lowering *l, int p, int n, int phase, bool *first)
{
    const bptt_node *node = node_at(l, n), *param = node_at(l, l->graph->params[p].node);
    if (param->cols > 0 && node->op == BPTT_OP_ADD) {
        bptt_status status = lower_gradient(l, p, node->a, phase, first);
        return status != BPTT_OK ? status : lower_gradient(l, p, node->b, phase, first);
    }
    /* A bias' gradient is the adjoint itself, summed over rows when that is complete. */
    const bool matrix = param->cols > 0, scatter = matrix && takes_token(l, n);
    if (summing_phase(l, n, scatter) != phase) { return BPTT_OK; }
    bptt_action *action = add_action(l, !matrix ? BPTT_COLUMN_SUM : scatter ? BPTT_SCATTER : BPTT_GRADIENT, phase, n);
    if (action == NULL) { return BPTT_FAILED; }
    action->param = p;
    action->cols = param->rows;
    action->depth = -1;
    const bool product = matrix || l->of[n].summed;
    action->adjoint = ref_of(l, product ? node->a : n);
    if (product && !scatter) { action->in = ref_of(l, node->b); }
    /* where not every step has a loss, HEAD may have no rows: then the gradient is cleared beforehand */
    const bool cleared = phase == bptt_phase(l->plan, BPTT_REGION_HEAD, 0) && l->plan->spec->loss_at.kind != BPTT_STEPS_ALL;
    action->fill = *first && !cleared ? BPTT_FILL_ZERO : BPTT_FILL_ADD;
    *first = false;
    action->flop = (matrix && !scatter ? 2.0 * (double)param->cols : l->of[n].summed ? 2.0 : 1.0) * (double)param->rows;
    char label[2][64];
    (void)snprintf(action->note, sizeof action->note, "d%s %s sum over t of %s%s%s%s", param->name,
                   action->fill == BPTT_FILL_ADD ? "+=" : "=", symbol(l, product ? node->a : n, label[0], sizeof label[0]),
                   product ? " " : "", product ? symbol(l, node->b, label[1], sizeof label[1]) : "", matrix ? "'" : "");
    (void)snprintf(action->name, sizeof action->name, "%s_%s", scatter ? "scatter" : "grad", param->name);
    return BPTT_OK;
}

/* A value of its own that is also the outgoing carry is added to the carry of step t - 1. */
static bptt_status lower_outgoing(lowering *l, int n, int phase)
{
    if (l->of[n].outgoing == 0 || bptt_is_direct_carry(l, n) || phase != handing_phase(l, n)) { return BPTT_OK; }
    char note[BPTT_EQUATION_MAX], label[64];
    (void)snprintf(note, sizeof note, "carry to t-1 += %s", symbol(l, n, label, sizeof label));
    bptt_status status = BPTT_OK;
    for (int s = 0; s < l->graph->state_count && status == BPTT_OK; s++) {
        if (l->graph->states[s].outgoing != n) { continue; }
        bptt_ref to = bptt_home_of_carry(l, s, -1);
        status = lower_element(l, phase, n, true, (bptt_element){BPTT_OP_ADD, to, to, ref_of(l, n), 0}, note);
    }
    return status;
}

/* Not a part that lies in its whole. */
static bool needs_copy(const lowering *l, int n)
{
    const bptt_node *node = node_at(l, n);
    return has_value(l, n) && (node->op != BPTT_OP_SLICE || l->of[n].whole != node->a);
}

static bptt_status lower_node(lowering *l, int n, int phase)
{
    const bptt_node *node = node_at(l, n);
    bptt_status status = BPTT_OK;
    if (is_loss(l, n) && !is_adjoint(l, n) && l->of[n].phase == phase) {
        status = lower_loss(l, n);
    } else if (node->op == BPTT_OP_INPUT_REAL && l->of[n].phase == phase && has_value(l, n)) {
        status = lower_input(l, n);
    } else if (l->of[n].root == n) {
        status = lower_terms(l, n, n, phase, true);
        if (status == BPTT_OK) { status = lower_terms(l, n, n, phase, false); }
    } else if (bptt_op_kind_of(node->op) == BPTT_KIND_ELEMENT && has_value(l, n) && l->of[n].phase == phase) {
        char note[BPTT_EQUATION_MAX];
        describe_element(l, n, note, sizeof note);
        bptt_element element = {node->op, ref_of(l, n), ref_of(l, node->a), {BPTT_REF_NONE, 0, 0}, node->value};
        if (node->b >= 0) { element.b = ref_of(l, node->b); }
        status = lower_element(l, phase, n, false, element, note);
    } else if (bptt_op_kind_of(node->op) == BPTT_KIND_ROW && needs_copy(l, n) && l->of[n].phase == phase) {
        status = lower_row(l, n, phase);
    }
    return status == BPTT_OK ? lower_outgoing(l, n, phase) : status;
}

/* Everything of one phase; node order is an order of execution. */
bptt_status bptt_lower_phase(lowering *l, int phase, bool *first_gradient)
{
    bptt_status status = BPTT_OK;
    for (int n = 0; n < l->graph->count && status == BPTT_OK; n++) { status = lower_node(l, n, phase); }
    if (status == BPTT_OK) { status = zero_carries(l, phase); }
    for (int p = 0; p < l->graph->param_count && status == BPTT_OK; p++) {
        status = lower_gradient(l, p, l->graph->params[p].gradient, phase, &first_gradient[p]);
    }
    return status;
}
