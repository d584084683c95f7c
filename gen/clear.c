/* clear.c: the plan's pass clear: keeps the padding of rows from doing harm.
 *
 * A row is padded to whole vectors, and chains work on padding as on data.  What begins as 0 there (parameters, products, states)
 * stays 0 for most ops, becomes another number for some (sigmoid, 1 - v) and not a number for others (0 / 0, log 0).  No product
 * reads padding as a term; but gradients are written in whole vectors, so that the padding of an adjoint lands in a gradient's, and
 * the gradient's norm counts that.  So does the padding of a value, when a gradient's columns are the value's: of an embedding that
 * is tied.  And what is kept for later chunks comes from a checkpoint without its padding.  So: the padding of these is 0 in memory,
 * any other value's finite.  This pass runs the plan on one element of padding, and puts a CLEAR behind each chain that would break the
 * rule.  Depends on plan.h.
 */
#include "plan.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* NAN: unknown, or not a number. */
typedef struct padding {
    double before[BPTT_MAX_SLOTS]; /* a state's before the step; where sums write no padding, any slot's before the chunk */
    double now[BPTT_MAX_SLOTS];
    struct {
        int action, element;
    } last[BPTT_MAX_SLOTS];                          /* of a chain that wrote the slot; action -1: none did */
    bool clear[BPTT_MAX_ACTIONS][BPTT_MAX_ELEMENTS]; /* what this element stores is cleared behind the chain */
} padding;

/* The slot whose padding is behind the columns of this one: the last member of a host has the host's. */
static int padded_slot(const bptt_plan *plan, int slot)
{
    const bptt_slot *member = &plan->slots[slot];
    if (member->host < 0) { return slot; }
    const int64_t end = member->column + bptt_padded(plan, member->cols);
    return end == bptt_padded(plan, plan->slots[member->host].cols) ? member->host : slot;
}

static double read_padding(const bptt_plan *plan, const padding *p, const double *temps, const bptt_ref *ref)
{
    if (ref->kind == BPTT_REF_TEMP) { return temps[ref->index]; }
    if (ref->kind != BPTT_REF_SLOT) { return 0; }
    const bool previous = plan->slots[ref->index].kind == BPTT_ROWS_STATE && ref->shift == 0;
    const int slot = padded_slot(plan, ref->index);
    return previous ? p->before[slot] : p->now[slot];
}

static bool is_kept(const bptt_plan *plan, int slot)
{
    const int host = plan->slots[slot].host;
    return plan->slots[slot].kept || (host >= 0 && plan->slots[host].kept);
}

static bool harmful(const bptt_plan *plan, const bptt_action *action, int slot, double value)
{
    return action->forward && !is_kept(plan, slot) ? !(fabs(value) <= (double)FLT_MAX) : value != 0;
}

/* What a gradient takes its columns from; true: some of it has to be cleared where it is written. */
static bool run_sum(const bptt_plan *plan, int rows, padding *p)
{
    bool found = false;
    for (int s = 0; s < plan->slot_count; s++) {
        const int slot = padded_slot(plan, s);
        if ((s != rows && plan->slots[s].host != rows) || p->now[slot] == 0 || p->last[slot].action < 0) { continue; }
        found = p->clear[p->last[slot].action][p->last[slot].element] = true;
    }
    return found;
}

static void run_chain(const bptt_plan *plan, int a, padding *p)
{
    const bptt_action *action = &plan->actions[a];
    double temps[BPTT_MAX_ELEMENTS] = {0};
    for (int e = 0; e < action->element_count; e++) {
        const bptt_element *element = &action->elements[e];
        const double x = read_padding(plan, p, temps, &element->a), y = read_padding(plan, p, temps, &element->b);
        const double value = bptt_op_result(element->op, x, y, element->value);
        const int out = element->out.index;
        double *const place = element->out.kind == BPTT_REF_TEMP ? &temps[out] : &p->now[padded_slot(plan, out)];
        *place = value;
        if (element->out.kind == BPTT_REF_SLOT) {
            p->last[padded_slot(plan, out)].action = a;
            p->last[padded_slot(plan, out)].element = e;
        }
    }
    bool seen[BPTT_MAX_SLOTS] = {false};
    for (int e = action->element_count - 1; e >= 0; e--) { /* the last one that writes a slot counts */
        const bptt_ref *out = &action->elements[e].out;
        const int slot = out->kind == BPTT_REF_SLOT ? padded_slot(plan, out->index) : 0;
        if (out->kind != BPTT_REF_SLOT || seen[slot]) { continue; }
        seen[slot] = true;
        p->clear[a][e] = p->clear[a][e] || harmful(plan, action, slot, p->now[slot]);
        if (p->clear[a][e]) { p->now[slot] = 0; }
    }
}

/* One chunk; true: once more, since a later one would begin with other padding than assumed, and now assumes anything, or since more
 * has to be cleared than was. */
static bool run_chunk(const bptt_plan *plan, padding *p)
{
    const bool writes_none = plan->unroll == BPTT_UNROLL_FULL;
    bool changed = false;
    memcpy(p->now, p->before, sizeof p->now);
    for (int s = 0; s < plan->slot_count; s++) { p->last[s].action = -1; }
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (action->kind == BPTT_CHAIN) {
            run_chain(plan, a, p);
        } else if (bptt_sums_over_rows(action)) {
            changed = run_sum(plan, action->adjoint.index, p) || changed;
        } else if (action->kind == BPTT_ROW) { /* knows where its rows end */
            p->now[padded_slot(plan, action->elements[0].out.index)] = 0;
        } else if (action->out.kind == BPTT_REF_SLOT && !(writes_none && action->kind == BPTT_PRODUCT) &&
                   action->fill != BPTT_FILL_ADD) {
            p->now[padded_slot(plan, action->out.index)] = 0;
        } else if (action->kind == BPTT_LOSS) {
            p->now[padded_slot(plan, action->in.index)] = 0;
        }
    }
    for (int s = 0; s < plan->slot_count; s++) {
        const bool kept = writes_none || plan->slots[s].kind == BPTT_ROWS_STATE;
        if (!kept || isnan(p->before[s]) || p->now[s] == p->before[s]) { continue; }
        p->before[s] = (double)NAN;
        changed = true;
    }
    return changed;
}

/* Puts a CLEAR behind action `a` for what its element `e` stores. */
static bptt_status insert_clear(bptt_plan *plan, int a, int e, bptt_error *error)
{
    const bptt_action *chain = &plan->actions[a];
    bptt_action *clear = bptt_insert_action(plan, a + 1, BPTT_CLEAR, chain->region, chain->level, error);
    if (clear == NULL) { return BPTT_FAILED; }
    clear->forward = chain->forward;
    clear->begins = chain->begins;
    clear->later = chain->later;
    clear->into_previous = chain->into_previous;
    clear->out = chain->elements[e].out;
    clear->cols = chain->cols;
    (void)snprintf(clear->note, sizeof clear->note, "padding of %s = 0", plan->slots[clear->out.index].name);
    return BPTT_OK;
}

bptt_status bptt_plan_clear(bptt_plan *plan, bptt_error *error)
{
    padding p = {.before = {0}};
    while (run_chunk(plan, &p)) {}
    bptt_status status = BPTT_OK;
    for (int a = plan->action_count - 1; a >= 0 && status == BPTT_OK; a--) {
        if (plan->actions[a].cols % plan->lanes == 0) { continue; }
        for (int e = 0; e < plan->actions[a].element_count && status == BPTT_OK; e++) {
            if (p.clear[a][e]) { status = insert_clear(plan, a, e, error); }
        }
    }
    return status;
}
