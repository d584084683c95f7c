/* lower_slots.c: where values lie, as lowering begins.
 *
 * A sum with a product or carry in it is an accumulator: each term is added to one slot, in the phase where the term itself belongs.
 * A state's values share a slot, and an element-wise result overwrites what nobody else reads.  Depends on lower.h; decides neither
 * offsets nor rows.
 */
#include "lower.h"

#include <stdio.h>
#include <string.h>

/* Marks the terms of the sum at `n` as belonging to accumulator `root`. */
static bool claim_terms(lowering *l, int n, int root, bool dry)
{
    const int operands[2] = {node_at(l, n)->a, node_at(l, n)->b};
    bool accumulates = false;
    for (int i = 0; i < 2; i++) {
        const bptt_op op = node_at(l, operands[i])->op;
        const bool own = l->of[operands[i]].uses == 1;
        if (!own || !(op == BPTT_OP_ADD || op == BPTT_OP_CARRY || is_product(l, operands[i]))) { continue; }
        accumulates = (op == BPTT_OP_ADD ? claim_terms(l, operands[i], root, dry) : true) || accumulates;
        if (!dry) { l->of[operands[i]].root = root; }
    }
    return accumulates;
}

/* Finds the accumulators: from the outermost sum inwards, so that a sum of sums is one. */
void bptt_find_accumulators(lowering *l)
{
    for (int n = l->graph->count - 1; n >= 0; n--) {
        const bptt_node *node = node_at(l, n);
        if (node->cols > 0 || l->of[n].root >= 0) { continue; }
        if (node->op == BPTT_OP_ADD && claim_terms(l, n, n, true)) {
            (void)claim_terms(l, n, n, false);
            l->of[n].root = n;
        } else if (is_product(l, n) || node->op == BPTT_OP_CARRY) {
            l->of[n].root = n;
        }
    }
}

/* Is the operand a factor that is read again, at other lags or in later chunks, while the result is not? */
static bool outlives(const lowering *l, int n, int operand)
{
    return l->plan->spec->truncation != BPTT_TRUNCATION_CHUNK && l->of[n].linear && !l->of[operand].linear;
}

/* The gradient of a vector that was multiplied with a value: what is summed over rows need not be kept.  Not under uniform, which sums
 * adjoints over lags first; where blocks overlap it was not tried. */
static void find_summed(lowering *l)
{
    for (int p = 0; p < l->graph->param_count && l->plan->spec->truncation == BPTT_TRUNCATION_CHUNK; p++) {
        const int n = l->graph->params[p].gradient;
        const bptt_node *node = node_at(l, n);
        if (node->op != BPTT_OP_MUL || l->of[n].uses != 1 || !has_value(l, n)) { continue; }
        const facts *a = &l->of[node->a], *b = &l->of[node->b];
        l->of[n].summed = a->linear && !b->linear && !b->constant && has_value(l, node->a) && has_value(l, node->b);
    }
}

/* Element-wise results overwrite an operand that nobody else reads; so does the gradient that a loss hands back. */
static void share_slots(lowering *l)
{
    for (int n = 0; n < l->graph->count; n++) {
        const bptt_node *node = node_at(l, n);
        if (is_loss(l, n) && is_adjoint(l, n) && l->of[node->a].uses == 2) { l->of[node->a].into = n; }
        if (bptt_op_kind_of(node->op) != BPTT_KIND_ELEMENT || !has_value(l, n) || l->of[n].root == n) { continue; }
        const int operands[2] = {node->a, node->b};
        for (int i = 0; i < 2; i++) {
            if (operands[i] < 0 || l->of[operands[i]].uses != 1 || !has_value(l, operands[i])) { continue; }
            if (outlives(l, n, operands[i]) || l->of[operands[i]].constant != l->of[n].constant) { continue; }
            const bptt_op op = node_at(l, operands[i])->op;
            if (op == BPTT_OP_STATE || op == BPTT_OP_INPUT_REAL || l->of[operands[i]].outgoing) { continue; }
            l->of[operands[i]].into = n;
            break;
        }
    }
    for (int n = l->graph->count - 1; n >= 0; n--) { l->of[n].owner = l->of[n].into >= 0 ? l->of[l->of[n].into].owner : n; }
}

static int add_slot(lowering *l, int n)
{
    bptt_plan *plan = l->plan;
    if (plan->slot_count == BPTT_MAX_SLOTS) {
        bptt_fail(l->error, BPTT_FAILED, "%s: more than %d values to keep", l->graph->source, BPTT_MAX_SLOTS);
        return -1;
    }
    const bptt_node *node = node_at(l, n);
    bptt_slot *slot = &plan->slots[plan->slot_count];
    if (node->name[0] != '\0') {
        (void)snprintf(slot->name, sizeof slot->name, "%s", node->name);
    } else {
        (void)snprintf(slot->name, sizeof slot->name, "n%d", n);
    }
    slot->kind = BPTT_ROWS_CHUNK; /* until the pass place knows better */
    slot->cols = node->rows;
    slot->host = -1;
    l->bias[plan->slot_count] = -1;
    return plan->slot_count++;
}

/* A state's values before and after a step lie one row block apart in one slot. */
static bptt_status give_state_slots(lowering *l)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        const bptt_state *state = &l->graph->states[s];
        int slot = add_slot(l, state->node);
        if (slot < 0) { return BPTT_FAILED; }
        l->plan->slots[slot].kind = BPTT_ROWS_STATE;
        l->of[state->node].slot = slot;
        l->of[state->next].slot = slot;
        l->of[state->next].shift = 1;
    }
    return BPTT_OK;
}

/* Is the outgoing carry an accumulator that nobody else reads?  Then its terms go straight to step t - 1. */
bool bptt_is_direct_carry(const lowering *l, int n)
{
    const facts *f = &l->of[n];
    if (!f->outgoing || f->root != n || f->uses != 1) { return false; }
    for (int s = 0; s < l->graph->state_count; s++) {
        if (l->of[l->graph->states[s].carry].root == n) { return false; }
    }
    return true;
}

/* Where the carry of state s lies: step t reads its row block t, step t + 1 has added to it; uniform: to its twin. */
bptt_ref bptt_home_of_carry(const lowering *l, int s, int shift)
{
    const int home = l->of[l->graph->states[s].carry].root, slot = l->of[home].slot;
    const bool twin = shift < 0 && l->plan->next[slot] > 0;
    return (bptt_ref){BPTT_REF_SLOT, twin ? l->plan->next[slot] : slot, l->of[home].shift + shift};
}

static void link_carries(lowering *l)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        int n = l->graph->states[s].outgoing;
        if (n < 0 || !bptt_is_direct_carry(l, n)) { continue; }
        bptt_ref to = bptt_home_of_carry(l, s, -1);
        l->of[n].slot = to.index;
        l->of[n].shift = to.shift;
    }
}

/* Uniform: while a lag reads its carries, those of the next lag gather elsewhere. */
static bptt_status give_twins(lowering *l)
{
    bptt_plan *plan = l->plan;
    for (int s = 0; s < l->graph->state_count && plan->spec->truncation == BPTT_TRUNCATION_UNIFORM; s++) {
        const int home = l->of[l->graph->states[s].carry].root, slot = l->of[home].slot;
        if (plan->next[slot] > 0) { continue; }
        const int twin = add_slot(l, home);
        if (twin < 0) { return BPTT_FAILED; }
        char name[BPTT_SYMBOL_MAX];
        memcpy(name, plan->slots[slot].name, sizeof name);
        (void)snprintf(plan->slots[twin].name, sizeof name, "next_%.20s", name);
        plan->slots[twin].linear = true;
        plan->next[slot] = twin;
    }
    return BPTT_OK;
}

/* A slot is called after the value that comes first; a state's keeps its name. */
static void rename_slot(bptt_slot *slot, const char *name)
{
    if (slot->kind == BPTT_ROWS_STATE || name[0] == '\0') { return; }
    if (slot->later[0] == '\0') { memcpy(slot->later, slot->name, sizeof slot->later); }
    memcpy(slot->name, name, sizeof slot->name);
}

/* The first bias of a sum is added with its first term; others are values that are added. */
static void find_bias(lowering *l, int n, int root)
{
    const bptt_node *node = node_at(l, n);
    int *bias = &l->bias[l->of[root].slot];
    if (node->op == BPTT_OP_ADD && l->of[n].root == root) {
        find_bias(l, node->a, root);
        find_bias(l, node->b, root);
    } else if (node->op == BPTT_OP_PARAM && *bias < 0) {
        *bias = node->symbol;
    }
}

/* Slots that are columns of others. */
static void give_columns(lowering *l)
{
    for (int n = 0; n < l->graph->count; n++) {
        const facts *f = &l->of[n];
        if (f->whole < 0) { continue; }
        l->plan->slots[f->slot].host = l->of[f->whole].slot;
        l->plan->slots[f->slot].column = f->column;
    }
}

bptt_status bptt_give_slots(lowering *l)
{
    bptt_status status = give_state_slots(l);
    find_summed(l);
    share_slots(l);
    if (status == BPTT_OK) { bptt_find_parts(l); }
    for (int n = l->graph->count - 1; n >= 0 && status == BPTT_OK; n--) {
        facts *f = &l->of[n];
        if (!has_value(l, n) || f->slot >= 0 || bptt_is_direct_carry(l, n)) { continue; }
        if (f->into >= 0) {
            f->slot = l->of[f->into].slot;
            f->shift = l->of[f->into].shift;
            rename_slot(&l->plan->slots[f->slot], node_at(l, n)->name);
        } else {
            f->slot = add_slot(l, n);
            if (f->slot < 0) {
                status = BPTT_FAILED;
            } else if (f->constant) {
                l->plan->slots[f->slot].kind = BPTT_ROWS_ONE;
            }
        }
    }
    if (status == BPTT_OK) { status = give_twins(l); }
    if (status == BPTT_OK) { link_carries(l); }
    for (int n = 0; n < l->graph->count && status == BPTT_OK; n++) {
        if (l->of[n].slot >= 0 && l->of[n].linear) { l->plan->slots[l->of[n].slot].linear = true; }
        if (l->of[n].root == n && has_value(l, n)) { find_bias(l, n, n); }
    }
    if (status == BPTT_OK) { give_columns(l); }
    return status;
}
