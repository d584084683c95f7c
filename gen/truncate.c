/* truncate.c: the plan's pass truncate: what the modes of truncation beside "chunk" add to the actions.  See plan.h.
 *
 * Block: marks what stays for the chunks to come.  Uniform: each lag begins with the carries that the one before handed on, and
 * sums over rows wait until the adjoints of all lags are added up.  Depends on plan.h.
 */
#include "plan.h"

#include <string.h>

typedef struct summed {
    int slot, sum; /* adjoints of every lag; these added up */
    int64_t cols;
} summed;

/* The slot that memory is given to. */
static int base_of(const bptt_plan *plan, int slot)
{
    return plan->slots[slot].host >= 0 ? plan->slots[slot].host : slot;
}

static void touch(const bptt_plan *plan, const bptt_ref *ref, bool touched[BPTT_MAX_SLOTS])
{
    if (ref->kind == BPTT_REF_SLOT) { touched[base_of(plan, ref->index)] = true; }
}

static void touch_all(const bptt_plan *plan, const bptt_action *action, bool touched[BPTT_MAX_SLOTS])
{
    touch(plan, &action->out, touched);
    touch(plan, &action->in, touched);
    touch(plan, &action->adjoint, touched);
    for (int e = 0; e < action->element_count; e++) {
        touch(plan, &action->elements[e].out, touched);
        touch(plan, &action->elements[e].a, touched);
        touch(plan, &action->elements[e].b, touched);
    }
}

/* What the way back reads of the way there, and what HEAD hands to it. */
static void mark_slots(bptt_plan *plan)
{
    bool before[BPTT_MAX_SLOTS] = {false}, head[BPTT_MAX_SLOTS] = {false}, after[BPTT_MAX_SLOTS] = {false};
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        const bool forward = action->region == BPTT_REGION_INPUT || action->region == BPTT_REGION_STEP;
        touch_all(plan, action, forward ? before : action->region == BPTT_REGION_HEAD ? head : after);
    }
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        if (slot->host >= 0 || slot->kind == BPTT_ROWS_ONE) { continue; }
        slot->fed = slot->linear && head[s] && after[s];
        const bool read = !slot->linear && (before[s] || head[s]) && after[s];
        slot->kept = plan->spec->truncation == BPTT_TRUNCATION_BLOCK && (read || slot->kind == BPTT_ROWS_STATE);
    }
    for (int s = 0; s < plan->slot_count; s++) {
        if (plan->slots[s].host >= 0) { plan->slots[s].kept = plan->slots[plan->slots[s].host].kept; }
    }
}

/* A number for each row of the window; -1: error. */
static int keep_numbers(bptt_plan *plan, const char *name, bptt_error *error)
{
    if (plan->slot_count == BPTT_MAX_SLOTS) {
        (void)bptt_fail(error, BPTT_FAILED, "%s: more than %d values to keep", plan->graph->source, BPTT_MAX_SLOTS);
        return -1;
    }
    bptt_slot *slot = &plan->slots[plan->slot_count];
    *slot = (bptt_slot){.kind = BPTT_ROWS_CHUNK, .cols = 1, .host = -1, .kept = true};
    (void)snprintf(slot->name, sizeof slot->name, "%s", name);
    return plan->slot_count++;
}

/* What the window's steps were given, where the way back asks for it: tokens, and where sequences started; as reals, since what goes
 * on from chunk to chunk is a table of reals. */
static bptt_status keep_inputs(bptt_plan *plan, bptt_error *error)
{
    enum { LINE = 16 }; /* tokens of a line of a cache: the struct stays a whole number of vectors */
    bool read = false;
    for (int a = 0; a < plan->action_count; a++) {
        read = read || (plan->actions[a].kind == BPTT_SCATTER && plan->actions[a].region == BPTT_REGION_TAIL);
    }
    if (read) {
        plan->token_slot = keep_numbers(plan, "tokens", error);
        plan->tokens = (plan->window * plan->streams + LINE - 1) / LINE * LINE;
    }
    if (bptt_spec_restarts(plan->spec)) { plan->start_slot = keep_numbers(plan, "restarts", error); }
    return plan->token_slot < 0 || plan->start_slot < 0 ? BPTT_FAILED : BPTT_OK;
}

static bptt_status insert_zero(bptt_plan *plan, int at, int slot, bool later, const char *note, bptt_error *error)
{
    const bptt_action *there = &plan->actions[at]; /* of the same phase */
    bptt_action *zero = bptt_insert_action(plan, at, BPTT_ZERO, there->region, there->level, error);
    if (zero == NULL) { return BPTT_FAILED; }
    zero->out = (bptt_ref){BPTT_REF_SLOT, slot, 0};
    zero->cols = plan->slots[slot].cols;
    zero->later = later;
    (void)snprintf(zero->note, sizeof zero->note, "%s", note);
    return BPTT_OK;
}

/* to += from */
static bptt_status insert_sum(bptt_plan *plan, int at, int to, int from, int64_t cols, bool later, bptt_error *error)
{
    const bptt_action *there = &plan->actions[at]; /* of the same phase */
    bptt_action *sum = bptt_insert_action(plan, at, BPTT_CHAIN, there->region, there->level, error);
    if (sum == NULL) { return BPTT_FAILED; }
    const bptt_ref a = {BPTT_REF_SLOT, to, 0}, b = {BPTT_REF_SLOT, from, 0};
    sum->elements[0] = (bptt_element){BPTT_OP_ADD, a, a, b, 0};
    sum->element_count = 1;
    sum->cols = cols;
    sum->later = later;
    sum->flop = (double)cols;
    (void)snprintf(sum->name, sizeof sum->name, "add_%.20s_%d", plan->slots[from].name, plan->action_count);
    (void)snprintf(sum->note, sizeof sum->note, "%s += %s", plan->slots[to].name, plan->slots[from].name);
    return BPTT_OK;
}

/* The first action behind HEAD. */
static int first_behind_head(const bptt_plan *plan)
{
    int a = 0;
    while (a < plan->action_count && plan->actions[a].region <= BPTT_REGION_HEAD) { a++; }
    return a;
}

/* A later lag has nothing from HEAD, and begins with what the lag before handed to the step before. */
static bptt_status begin_lags(bptt_plan *plan, bptt_error *error)
{
    const int first = first_behind_head(plan);
    int at = first;
    if (at == plan->action_count) { return BPTT_OK; }
    bptt_status status = BPTT_OK;
    for (int s = 0; s < plan->slot_count && status == BPTT_OK; s++) {
        if (plan->slots[s].fed) {
            status = insert_zero(plan, at++, s, true, "lag > 0: nothing from the loss of this step", error);
        }
    }
    for (int s = 0; s < plan->slot_count && status == BPTT_OK; s++) {
        if (plan->next[s] == 0) { continue; }
        status = insert_sum(plan, at++, s, plan->next[s], plan->slots[s].cols, true, error);
        if (status == BPTT_OK) { status = insert_zero(plan, at++, plan->next[s], false, "carry of the next lag = 0", error); }
    }
    for (int a = first; a < at; a++) { plan->actions[a].begins = true; }
    return status;
}

/* The slot where the adjoints that `action` sums over rows are added up over lags; -1: error.  `at`: its place, which may move. */
static int sum_over_lags(bptt_plan *plan, int *at, summed *done, int *count, bptt_error *error)
{
    const int slot = plan->actions[*at].adjoint.index;
    const int64_t cols = plan->actions[*at].cols;
    for (int i = 0; i < *count; i++) {
        if (done[i].slot == slot && done[i].cols == cols) { return done[i].sum; }
    }
    if (plan->slot_count == BPTT_MAX_SLOTS) {
        (void)bptt_fail(error, BPTT_FAILED, "%s: more than %d values to keep", plan->graph->source, BPTT_MAX_SLOTS);
        return -1;
    }
    const int sum = plan->slot_count++;
    plan->slots[sum] = (bptt_slot){.kind = BPTT_ROWS_CHUNK, .cols = cols, .host = -1, .linear = true};
    char name[BPTT_SYMBOL_MAX];
    memcpy(name, plan->slots[slot].name, sizeof name);
    (void)snprintf(plan->slots[sum].name, sizeof name, "sum_%.20s", name);
    if (insert_sum(plan, *at, sum, slot, cols, false, error) != BPTT_OK) { return -1; }
    /* It is zero when the lags begin: in HEAD, behind whatever is there. */
    int head = first_behind_head(plan);
    if (insert_zero(plan, head, sum, false, "sum over lags = 0", error) != BPTT_OK) { return -1; }
    plan->actions[head].region = BPTT_REGION_HEAD;
    plan->actions[head].level = 0;
    *at += 2;
    done[(*count)++] = (summed){slot, sum, cols};
    return sum;
}

/* Gradients wait for the adjoints of all lags, which they are linear in: one sum over rows instead of one a lag. */
static bptt_status end_lags(bptt_plan *plan, bptt_error *error)
{
    summed done[BPTT_MAX_SLOTS];
    int count = 0, waiting = 0;
    for (int a = first_behind_head(plan); a < plan->action_count - waiting; a++) {
        if (!bptt_sums_over_rows(&plan->actions[a])) { continue; }
        const int sum = sum_over_lags(plan, &a, done, &count, error);
        if (sum < 0) { return BPTT_FAILED; }
        bptt_action action = plan->actions[a];
        action.adjoint.index = sum;
        action.region = BPTT_REGION_SUM;
        action.level = 0;
        bptt_remove_action(plan, a);
        plan->actions[plan->action_count++] = action;
        waiting++;
        a--;
    }
    return BPTT_OK;
}

bptt_status bptt_plan_truncate(bptt_plan *plan, bptt_error *error)
{
    if (plan->spec->truncation == BPTT_TRUNCATION_CHUNK) { return BPTT_OK; }
    mark_slots(plan);
    if (plan->spec->truncation == BPTT_TRUNCATION_BLOCK) { return keep_inputs(plan, error); }
    bptt_status status = begin_lags(plan, error);
    return status == BPTT_OK ? end_lags(plan, error) : status;
}
