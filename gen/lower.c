/* lower.c: the plan's passes hoist and gather, and the first half of fuse: graph nodes become actions in phases.
 *
 * Hoist: a node runs outside a level's time loop unless it is on the way from a state of that level to another.  This file says when a
 * node runs, and refuses what a plan cannot express; lower_slots.c and lower_actions.c do the rest.  Depends on lower.h.
 */
#include "lower.h"

#include <stdlib.h>
#include <string.h>

static void use(lowering *l, int used)
{
    if (used >= 0) { l->of[used].uses++; }
}

static void count_uses(lowering *l)
{
    const bptt_graph *g = l->graph;
    for (int n = 0; n < g->count; n++) {
        use(l, node_at(l, n)->a);
        use(l, node_at(l, n)->b);
    }
    for (int s = 0; s < g->state_count; s++) {
        use(l, g->states[s].next);
        use(l, g->states[s].outgoing);
        if (g->states[s].outgoing >= 0) { l->of[g->states[s].outgoing].outgoing |= (state_set)1 << s; }
    }
    for (int p = 0; p < g->param_count; p++) { use(l, g->params[p].gradient); }
}

/* What depends on what, within one pass: what an adjoint reads of the forward step is there before the backward pass begins. */
static void find_dependences(lowering *l)
{
    const bptt_graph *g = l->graph;
    for (int n = 0; n < g->count; n++) {
        const bptt_node *node = node_at(l, n);
        if (node->op == BPTT_OP_STATE || node->op == BPTT_OP_CARRY) { l->of[n].from = (state_set)1 << node->symbol; }
        const int operands[2] = {node->a, node->b};
        for (int i = 0; i < 2; i++) {
            if (operands[i] < 0 || is_adjoint(l, operands[i]) != is_adjoint(l, n)) { continue; }
            l->of[n].from |= l->of[operands[i]].from;
            l->of[n].linear = l->of[n].linear || l->of[operands[i]].linear;
        }
        if (node->op == BPTT_OP_CARRY || (is_loss(l, n) && is_adjoint(l, n))) { l->of[n].linear = true; }
    }
    for (int s = 0; s < g->state_count; s++) {
        l->of[g->states[s].next].feeds |= (state_set)1 << s;
        if (g->states[s].outgoing >= 0) { l->of[g->states[s].outgoing].feeds |= (state_set)1 << s; }
    }
    for (int n = g->count - 1; n >= 0; n--) {
        const int operands[2] = {node_at(l, n)->a, node_at(l, n)->b};
        for (int i = 0; i < 2; i++) {
            if (operands[i] < 0 || is_adjoint(l, operands[i]) != is_adjoint(l, n)) { continue; }
            l->of[operands[i]].feeds |= l->of[n].feeds;
        }
    }
}

static bool has(state_set set, int s)
{
    return (set >> s & 1u) != 0;
}

/* Levels: one more than the highest of the states that a state depends on and that do not depend on it. */
static bptt_status find_levels(lowering *l)
{
    const int count = l->graph->state_count;
    state_set on[BPTT_MAX_STATES] = {0}; /* all that a state depends on, over any number of steps */
    for (int s = 0; s < count; s++) { on[s] = l->of[l->graph->states[s].next].from; }
    for (int by = 0; by < count; by++) {
        for (int s = 0; s < count; s++) { on[s] |= has(on[s], by) ? on[by] : 0; }
    }
    int highest = 0;
    for (int round = 0; round < count; round++) {
        for (int s = 0; s < count; s++) {
            for (int u = 0; u < count; u++) {
                if (has(on[s], u) && !has(on[u], s) && l->level[s] <= l->level[u]) { l->level[s] = l->level[u] + 1; }
            }
            if (l->level[s] > highest) { highest = l->level[s]; }
        }
    }
    l->plan->levels = highest + 1;
    if (highest < BPTT_MAX_LEVELS) { return BPTT_OK; }
    return bptt_fail(l->error, BPTT_FAILED, "%s: %d layers of states, at most %d are possible", l->graph->source, highest + 1,
                     BPTT_MAX_LEVELS);
}

/* Of the states in the set, which has some. */
int bptt_highest_level(const lowering *l, state_set set)
{
    int level = 0;
    for (int s = 0; s < l->graph->state_count; s++) {
        if (has(set, s) && l->level[s] > level) { level = l->level[s]; }
    }
    return level;
}

static int lowest_level(const lowering *l, state_set set)
{
    int level = l->plan->levels - 1;
    for (int s = 0; s < l->graph->state_count; s++) {
        if (has(set, s) && l->level[s] < level) { level = l->level[s]; }
    }
    return level;
}

static bool reaches_level(const lowering *l, state_set set, int level)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        if (has(set, s) && l->level[s] == level) { return true; }
    }
    return false;
}

/* What adjoints are multiplied with belongs to the step itself, where HEAD does not run over all steps that BACK runs over: where
 * steps have no loss, and where it has the rows of one block alone. */
static bool is_early_factor(const lowering *l, int n)
{
    const bptt_spec *spec = l->plan->spec;
    return is_adjoint(l, n) && !l->of[n].linear &&
           (spec->truncation != BPTT_TRUNCATION_CHUNK || spec->loss_at.kind != BPTT_STEPS_ALL);
}

bool bptt_is_forward(const lowering *l, int n)
{
    return !is_adjoint(l, n) || is_early_factor(l, n);
}

/* Is it a parameter, or found to depend on parameters alone? */
static bool is_constant(const lowering *l, int n)
{
    return n < 0 || (node_at(l, n)->op == BPTT_OP_PARAM && node_at(l, n)->cols == 0) || l->of[n].constant;
}

/* Does a node read the value n but in an element-wise operation, which takes one row for many? */
static bool needs_rows(const lowering *l, int n)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        if (l->graph->states[s].next == n) { return true; }
    }
    for (int m = 0; m < l->graph->count; m++) {
        const bool reads = node_at(l, m)->a == n || node_at(l, m)->b == n;
        if (reads && bptt_op_kind_of(node_at(l, m)->op) != BPTT_KIND_ELEMENT) { return true; }
    }
    return false;
}

/* Values of the forward step that depend on parameters alone need one row, made when these change.  Not where blocks overlap: there a
 * step keeps the values from when it ran. */
static void find_constants(lowering *l)
{
    if (l->plan->spec->truncation == BPTT_TRUNCATION_BLOCK) { return; }
    for (int n = 0; n < l->graph->forward; n++) {
        const bptt_node *node = node_at(l, n);
        l->of[n].constant = bptt_op_kind_of(node->op) == BPTT_KIND_ELEMENT && node->cols == 0 && is_constant(l, node->a) &&
                            is_constant(l, node->b) && !needs_rows(l, n);
    }
}

/* Where all operands are there. */
static int phase_behind(const lowering *l, int n)
{
    const int a = node_at(l, n)->a, b = node_at(l, n)->b;
    int phase = bptt_phase(l->plan, BPTT_REGION_INPUT, 0);
    if (a >= 0 && l->of[a].phase > phase) { phase = l->of[a].phase; }
    if (b >= 0 && l->of[b].phase > phase) { phase = l->of[b].phase; }
    return phase;
}

/* Hoist: the phase of a node. */
static int phase_of(const lowering *l, int n)
{
    const facts *f = &l->of[n];
    const bptt_plan *plan = l->plan;
    const int head = bptt_phase(plan, BPTT_REGION_HEAD, 0);
    if (f->constant) { return bptt_phase(plan, BPTT_REGION_REFRESH, 0); }
    if (is_early_factor(l, n)) { return phase_behind(l, n); }
    if (is_adjoint(l, n)) {
        if (f->from == 0) { return head; }
        const int level = lowest_level(l, f->from);
        return bptt_phase(plan, reaches_level(l, f->feeds, level) ? BPTT_REGION_BACK : BPTT_REGION_TAIL, level);
    }
    if (takes_token(l, n) || node_at(l, n)->op == BPTT_OP_INPUT_REAL) { return bptt_phase(plan, BPTT_REGION_INPUT, 0); }
    if (f->feeds == 0) { return head; }
    const int level = bptt_highest_level(l, f->from);
    if (f->from != 0 && reaches_level(l, f->feeds, level)) { return bptt_phase(plan, BPTT_REGION_STEP, level); }
    return bptt_phase(plan, BPTT_REGION_INPUT, lowest_level(l, f->feeds));
}

/* Can node `n` read its operand `from`?  As a value, or as the one thing beside it that the op takes. */
static bool can_read(const lowering *l, int n, int from, bool first)
{
    const bptt_node *node = node_at(l, n), *operand = node_at(l, from);
    if (node->cols > 0 && node->op == BPTT_OP_ADD) { return true; } /* a sum of gradients */
    if (is_product(l, n) && first) { return operand->op == BPTT_OP_PARAM; }
    if (takes_token(l, n) && !first) { return true; }
    if (is_loss(l, n)) { return first ? has_value(l, from) : bptt_op_kind_of(operand->op) == BPTT_KIND_LEAF; }
    const bptt_op_kind kind = bptt_op_kind_of(node->op);
    if ((kind == BPTT_KIND_ELEMENT || kind == BPTT_KIND_ROW) && operand->op == BPTT_OP_PARAM) { return operand->cols == 0; }
    return has_value(l, from) || (l->of[n].root >= 0 && node->op == BPTT_OP_ADD && l->of[from].root >= 0);
}

/* What a plan cannot express yet is refused, not miscompiled. */
static bptt_status check_operands(const lowering *l)
{
    for (int n = 0; n < l->graph->count; n++) {
        const bptt_node *node = node_at(l, n);
        if (is_loss(l, n) && !is_adjoint(l, n) && n != l->graph->loss) {
            return bptt_fail(l->error, BPTT_FAILED, "%s:%d: a second loss; a step has one", l->graph->source, node->line);
        }
        if ((node->a < 0 || can_read(l, n, node->a, true)) && (node->b < 0 || can_read(l, n, node->b, false))) { continue; }
        return bptt_fail(l->error, BPTT_FAILED, "%s:%d: '%s' takes computed vectors; a parameter or token is none",
                         l->graph->source, node->line, bptt_op_name(node->op));
    }
    return BPTT_OK;
}

/* Has an action before it the same name? */
static bool is_repeated(const bptt_plan *plan, int action)
{
    const char *name = plan->actions[action].name;
    bool found = false;
    for (int a = 0; a < action && name[0] != '\0'; a++) { found = found || strcmp(plan->actions[a].name, name) == 0; }
    return found;
}

/* Two actions on one parameter may want one name, and the number that tells them apart may be part of a third one's. */
static void make_names_unique(bptt_plan *plan)
{
    for (int a = 0; a < plan->action_count; a++) {
        bptt_action *action = &plan->actions[a];
        const size_t length = strlen(action->name);
        for (int number = 2; is_repeated(plan, a); number++) {
            (void)snprintf(action->name + length, sizeof action->name - length, "_%d", number);
        }
    }
}

static bptt_status lower_all(lowering *l)
{
    bool first_gradient[BPTT_MAX_PARAMS];
    for (int p = 0; p < BPTT_MAX_PARAMS; p++) { first_gradient[p] = true; }
    count_uses(l);
    find_dependences(l);
    bptt_status status = find_levels(l);
    if (status != BPTT_OK) { return status; }
    find_constants(l);
    for (int n = 0; n < l->graph->count; n++) { l->of[n].phase = phase_of(l, n); }
    bptt_find_accumulators(l);
    status = check_operands(l);
    if (status == BPTT_OK) { status = bptt_give_slots(l); }
    for (int phase = 0; phase < bptt_phase_count(l->plan) && status == BPTT_OK; phase++) {
        status = bptt_lower_phase(l, phase, first_gradient);
    }
    return status;
}

bptt_status bptt_plan_lower(bptt_plan *plan, bptt_error *error)
{
    lowering l = {.plan = plan, .graph = plan->graph, .error = error};
    size_t count = (size_t)plan->graph->count;
    l.of = malloc(count * sizeof *l.of);
    plan->refs = calloc(count, sizeof *plan->refs);
    if (l.of == NULL || plan->refs == NULL) {
        free(l.of);
        return bptt_fail(error, BPTT_FAILED, "no memory to plan %zu nodes", count);
    }
    for (size_t n = 0; n < count; n++) { l.of[n] = (facts){.root = -1, .into = -1, .whole = -1, .slot = -1}; }
    bptt_status status = lower_all(&l);
    for (size_t n = 0; n < count; n++) {
        if (l.of[n].slot >= 0) { plan->refs[n] = ref_of(&l, (int)n); }
    }
    free(l.of);
    make_names_unique(plan);
    return status;
}
