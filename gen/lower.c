/* lower.c: the plan's passes hoist and gather, and the first half of fuse: graph nodes become actions in phases.
 *
 * Hoist: a node runs outside a level's time loop unless it is on the way from a state of that level to another.  Gather: W times a
 * token is a row of W'.  Fuse: neighbouring element-wise nodes become one chain.  A sum with a product or carry in it is an
 * accumulator: each term is added to one slot, in the phase where the term itself belongs.  Depends on plan.h; decides neither
 * offsets nor tiles.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* Bit s: state s. */
typedef uint32_t state_set;
_Static_assert(BPTT_MAX_STATES <= 32, "a bit for every state");

/* What the pass knows of each node while it works. */
typedef struct facts {
    int phase;
    int uses;           /* by other nodes, as next value, as outgoing carry, as a bias' gradient */
    state_set from;     /* it depends on these states; an adjoint: on their carries */
    state_set feeds;    /* the next values of these depend on it; an adjoint: their outgoing carries */
    int root;           /* accumulator that it is a term of, else -1 */
    int into;           /* it shares the slot of this later node, else -1 */
    state_set outgoing; /* it is the outgoing carry of these */
    bool linear;        /* an adjoint: linear in those of the losses and of the step after */
    int slot;           /* -1 */
    int shift;
} facts;

typedef struct lowering {
    bptt_plan *plan;
    const bptt_graph *graph;
    facts *of;
    int level[BPTT_MAX_STATES];   /* of each state */
    bool written[BPTT_MAX_SLOTS]; /* has the accumulator got its first term? */
    int bias[BPTT_MAX_SLOTS];     /* bias still to be added, -1 */
    bptt_error *error;
} lowering;

static const bptt_node *node_at(const lowering *l, int n)
{
    return &l->graph->nodes[n];
}

static bool is_adjoint(const lowering *l, int n)
{
    return n >= l->graph->forward;
}

static bool is_product(const lowering *l, int n)
{
    return node_at(l, n)->op == BPTT_OP_MATVEC || node_at(l, n)->op == BPTT_OP_MATVEC_T;
}

/* A product with a token, or its gradient: HEAD, which works on blocks of rows, sees no tokens. */
static bool takes_token(const lowering *l, int n)
{
    const int b = node_at(l, n)->b;
    return bptt_op_kind_of(node_at(l, n)->op) == BPTT_KIND_PRODUCT && node_at(l, b)->op == BPTT_OP_INPUT;
}

/* A loss, or the gradient that it hands back. */
static bool is_loss(const lowering *l, int n)
{
    return bptt_op_kind_of(node_at(l, n)->op) == BPTT_KIND_LOSS;
}

/* --- facts ------------------------------------------------------------------------------------------------------------------- */

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
static int highest_level(const lowering *l, state_set set)
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

/* Where all operands are there. */
static int phase_behind(const lowering *l, int n)
{
    const int a = node_at(l, n)->a, b = node_at(l, n)->b;
    const int first = a >= 0 ? l->of[a].phase : 0, second = b >= 0 ? l->of[b].phase : 0;
    return first > second ? first : second;
}

/* Hoist: the phase of a node. */
static int phase_of(const lowering *l, int n)
{
    const facts *f = &l->of[n];
    const bptt_plan *plan = l->plan;
    const int head = bptt_phase(plan, BPTT_REGION_HEAD, 0);
    if (is_early_factor(l, n)) { return phase_behind(l, n); }
    if (is_adjoint(l, n)) {
        if (f->from == 0) { return head; }
        const int level = lowest_level(l, f->from);
        return bptt_phase(plan, reaches_level(l, f->feeds, level) ? BPTT_REGION_BACK : BPTT_REGION_TAIL, level);
    }
    if (takes_token(l, n) || node_at(l, n)->op == BPTT_OP_INPUT_REAL) { return bptt_phase(plan, BPTT_REGION_INPUT, 0); }
    if (f->feeds == 0) { return head; }
    const int level = highest_level(l, f->from);
    if (f->from != 0 && reaches_level(l, f->feeds, level)) { return bptt_phase(plan, BPTT_REGION_STEP, level); }
    return bptt_phase(plan, BPTT_REGION_INPUT, lowest_level(l, f->feeds));
}

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
static void find_accumulators(lowering *l)
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

/* --- values and slots ---------------------------------------------------------------------------------------------------------- */

static bool has_value(const lowering *l, int n)
{
    const bptt_node *node = node_at(l, n);
    if (node->cols > 0 || (is_loss(l, n) && !is_adjoint(l, n))) { return false; }
    if (bptt_op_kind_of(node->op) == BPTT_KIND_LEAF && node->op != BPTT_OP_STATE && node->op != BPTT_OP_CARRY) {
        return node->op == BPTT_OP_INPUT_REAL && l->of[n].uses > 0;
    }
    return l->of[n].root < 0 || l->of[n].root == n; /* a term lives in its accumulator alone */
}

/* Is the operand a factor that is read again, at other lags or in later chunks, while the result is not? */
static bool outlives(const lowering *l, int n, int operand)
{
    return l->plan->spec->truncation != BPTT_TRUNCATION_CHUNK && l->of[n].linear && !l->of[operand].linear;
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
            if (outlives(l, n, operands[i])) { continue; }
            const bptt_op op = node_at(l, operands[i])->op;
            if (op == BPTT_OP_STATE || op == BPTT_OP_INPUT_REAL || l->of[operands[i]].outgoing) { continue; }
            l->of[operands[i]].into = n;
            break;
        }
    }
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
static bool is_direct_carry(const lowering *l, int n)
{
    const facts *f = &l->of[n];
    if (!f->outgoing || f->root != n || f->uses != 1) { return false; }
    for (int s = 0; s < l->graph->state_count; s++) {
        if (l->of[l->graph->states[s].carry].root == n) { return false; }
    }
    return true;
}

/* Where the carry of state s lies: step t reads its row block t, step t + 1 has added to it; uniform: to its twin. */
static bptt_ref home_of_carry(const lowering *l, int s, int shift)
{
    const int home = l->of[l->graph->states[s].carry].root, slot = l->of[home].slot;
    const bool twin = shift < 0 && l->plan->next[slot] > 0;
    return (bptt_ref){BPTT_REF_SLOT, twin ? l->plan->next[slot] : slot, l->of[home].shift + shift};
}

static void link_carries(lowering *l)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        int n = l->graph->states[s].outgoing;
        if (n < 0 || !is_direct_carry(l, n)) { continue; }
        bptt_ref to = home_of_carry(l, s, -1);
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

static bptt_status give_slots(lowering *l)
{
    bptt_status status = give_state_slots(l);
    for (int n = l->graph->count - 1; n >= 0 && status == BPTT_OK; n--) {
        facts *f = &l->of[n];
        if (!has_value(l, n) || f->slot >= 0 || is_direct_carry(l, n)) { continue; }
        if (f->into >= 0) {
            f->slot = l->of[f->into].slot;
            f->shift = l->of[f->into].shift;
            rename_slot(&l->plan->slots[f->slot], node_at(l, n)->name);
        } else {
            f->slot = add_slot(l, n);
            if (f->slot < 0) { status = BPTT_FAILED; }
        }
    }
    if (status == BPTT_OK) { status = give_twins(l); }
    if (status == BPTT_OK) { link_carries(l); }
    for (int n = 0; n < l->graph->count && status == BPTT_OK; n++) {
        if (l->of[n].slot >= 0 && l->of[n].linear) { l->plan->slots[l->of[n].slot].linear = true; }
    }
    return status;
}

/* --- actions ------------------------------------------------------------------------------------------------------------------- */

static bptt_ref ref_of(const lowering *l, int n)
{
    if (node_at(l, n)->op == BPTT_OP_PARAM) { return (bptt_ref){BPTT_REF_PARAM, node_at(l, n)->symbol, 0}; }
    return (bptt_ref){BPTT_REF_SLOT, l->of[n].slot, l->of[n].shift};
}

/* Part of a pass without gradients: the forward step; where blocks overlap, all that later ones read of it. */
static bool is_forward(const lowering *l, int n)
{
    return !is_adjoint(l, n) || is_early_factor(l, n);
}

static bptt_action *add_action(lowering *l, bptt_action_kind kind, int phase, int n)
{
    bptt_plan *plan = l->plan;
    if (plan->action_count == BPTT_MAX_ACTIONS) {
        bptt_fail(l->error, BPTT_FAILED, "%s: more than %d actions in a step", l->graph->source, BPTT_MAX_ACTIONS);
        return NULL;
    }
    bptt_action *action = &plan->actions[plan->action_count++];
    *action = (bptt_action){.kind = kind, .forward = is_forward(l, n), .param = -1, .bias = -1};
    action->region = bptt_phase_region(plan, phase);
    action->level = bptt_phase_level(plan, phase);
    return action;
}

static const char *symbol(const lowering *l, int n, char *text, size_t size)
{
    return bptt_graph_label(l->graph, n, text, size);
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
    action->into_previous = is_direct_carry(l, root);
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
        last->into_previous != previous || last->forward != is_forward(l, n) || last->cols != node_at(l, n)->rows ||
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
    const bool previous = is_direct_carry(l, root);
    bptt_element element = {BPTT_OP_ADD, ref_of(l, root), ref_of(l, root), ref_of(l, n), 0};
    return lower_element(l, phase, root, previous, element, note);
}

/* Where a carry is handed to step t - 1: no other phase knows a step before. */
static int handing_phase(const lowering *l, int n)
{
    return bptt_phase(l->plan, BPTT_REGION_BACK, highest_level(l, l->of[n].outgoing));
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
        const int own = is_direct_carry(l, root) ? handing_phase(l, root) : l->of[n].phase;
        return products && own == phase ? lower_product(l, n, root, phase) : BPTT_OK;
    }
    if ((!has_value(l, n) && node->op != BPTT_OP_PARAM) || n == root) { return BPTT_OK; } /* a carry */
    const int own = is_direct_carry(l, root) ? handing_phase(l, root) : l->of[root].phase;
    if (products || own != phase) { return BPTT_OK; }
    if (node->op == BPTT_OP_PARAM && l->bias[l->of[root].slot] == node->symbol) { /* added with the first term, once */
        l->bias[l->of[root].slot] = -1;
        return BPTT_OK;
    }
    return lower_added_value(l, n, root, phase);
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

/* Does something that is handed to step t - 1 go into the carry of a state before its own level is reached? */
static bool is_early_carry(const lowering *l, int s)
{
    const int n = l->graph->states[s].outgoing;
    return n >= 0 && highest_level(l, l->of[n].outgoing) > l->level[s];
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
    action->adjoint = ref_of(l, matrix ? node->a : n);
    if (matrix && !scatter) { action->in = ref_of(l, node->b); }
    /* where not every step has a loss, HEAD may have no rows: then the gradient is cleared beforehand */
    const bool cleared = phase == bptt_phase(l->plan, BPTT_REGION_HEAD, 0) && l->plan->spec->loss_at.kind != BPTT_STEPS_ALL;
    action->fill = *first && !cleared ? BPTT_FILL_ZERO : BPTT_FILL_ADD;
    *first = false;
    action->flop = (matrix && !scatter ? 2.0 * (double)param->cols : 1.0) * (double)param->rows;
    char label[2][64];
    (void)snprintf(action->note, sizeof action->note, "d%s %s sum over t of %s%s%s%s", param->name,
                   action->fill == BPTT_FILL_ADD ? "+=" : "=", symbol(l, matrix ? node->a : n, label[0], sizeof label[0]),
                   matrix ? " " : "", matrix ? symbol(l, node->b, label[1], sizeof label[1]) : "", matrix ? "'" : "");
    (void)snprintf(action->name, sizeof action->name, "%s_%s", scatter ? "scatter" : "grad", param->name);
    return BPTT_OK;
}

/* A value of its own that is also the outgoing carry is added to the carry of step t - 1. */
static bptt_status lower_outgoing(lowering *l, int n, int phase)
{
    if (l->of[n].outgoing == 0 || is_direct_carry(l, n) || phase != handing_phase(l, n)) { return BPTT_OK; }
    char note[BPTT_EQUATION_MAX], label[64];
    (void)snprintf(note, sizeof note, "carry to t-1 += %s", symbol(l, n, label, sizeof label));
    bptt_status status = BPTT_OK;
    for (int s = 0; s < l->graph->state_count && status == BPTT_OK; s++) {
        if (l->graph->states[s].outgoing != n) { continue; }
        bptt_ref to = home_of_carry(l, s, -1);
        status = lower_element(l, phase, n, true, (bptt_element){BPTT_OP_ADD, to, to, ref_of(l, n), 0}, note);
    }
    return status;
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
    } else if (bptt_op_kind_of(node->op) == BPTT_KIND_ROW && l->of[n].phase == phase) {
        status = lower_row(l, n, phase);
    }
    return status == BPTT_OK ? lower_outgoing(l, n, phase) : status;
}

/* Everything of one phase; node order is an order of execution. */
static bptt_status lower_phase(lowering *l, int phase, bool *first_gradient)
{
    bptt_status status = BPTT_OK;
    for (int n = 0; n < l->graph->count && status == BPTT_OK; n++) { status = lower_node(l, n, phase); }
    if (status == BPTT_OK) { status = zero_carries(l, phase); }
    for (int p = 0; p < l->graph->param_count && status == BPTT_OK; p++) {
        status = lower_gradient(l, p, l->graph->params[p].gradient, phase, &first_gradient[p]);
    }
    return status;
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

/* Two actions on one parameter may want one name. */
static void make_names_unique(bptt_plan *plan)
{
    for (int a = 0; a < plan->action_count; a++) {
        int same = 1;
        for (int b = a + 1; b < plan->action_count; b++) {
            bptt_action *other = &plan->actions[b];
            if (plan->actions[a].name[0] == '\0' || strcmp(plan->actions[a].name, other->name) != 0) { continue; }
            size_t length = strlen(other->name);
            (void)snprintf(other->name + length, sizeof other->name - length, "_%d", ++same);
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
    for (int n = 0; n < l->graph->count; n++) { l->of[n].phase = phase_of(l, n); }
    find_accumulators(l);
    share_slots(l);
    status = check_operands(l);
    if (status == BPTT_OK) { status = give_slots(l); }
    for (int n = 0; n < l->graph->count && status == BPTT_OK; n++) {
        if (l->of[n].root == n && has_value(l, n)) { find_bias(l, n, n); }
    }
    for (int phase = 0; phase < bptt_phase_count(l->plan) && status == BPTT_OK; phase++) {
        status = lower_phase(l, phase, first_gradient);
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
    for (size_t n = 0; n < count; n++) { l.of[n] = (facts){.root = -1, .into = -1, .slot = -1}; }
    bptt_status status = lower_all(&l);
    for (size_t n = 0; n < count; n++) {
        if (l.of[n].slot >= 0) { plan->refs[n] = ref_of(&l, (int)n); }
    }
    free(l.of);
    make_names_unique(plan);
    return status;
}
