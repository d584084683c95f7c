/* overlay.c: the plan's pass overlay: the adjoints of a cell's gates lie where the gates lay.
 *
 * Gates are kept for all steps of a chunk, since the way back reads them, and so are their adjoints, since gradients sum over them: the
 * two largest slots of most cells.  But the way back is done with a step's gates when it has their adjoints, and by then nothing else
 * reads them: one slot serves for both.  What lay in the adjoint's slot before the adjoint was finished gets a slot of its own, of one
 * step.  Depends on plan.h; moves no action, and refuses whatever it does not fully understand.
 */
#include "plan.h"

#include <string.h>

enum { MOST = 64 }; /* members of a host */

/* An element of a chain, or an action as a whole (element 0): where something happens in the order of execution. */
typedef struct moment {
    int action, element;
} moment;

/* Slots side by side. */
typedef struct side_by_side {
    int host, slots[MOST], count;
} side_by_side;

static bool before(moment a, moment b)
{
    return a.action != b.action ? a.action < b.action : a.element < b.element;
}

/* The members of a host by their columns; none: it is no host, or has too many. */
static side_by_side members_of(const bptt_plan *plan, int host)
{
    side_by_side list = {.host = host, .count = 0};
    for (int64_t column = 0; column < plan->slots[host].cols;) {
        int member = -1;
        for (int s = 0; s < plan->slot_count; s++) {
            if (plan->slots[s].host == host && plan->slots[s].column == column) { member = s; }
        }
        if (member < 0 || list.count == MOST) { return (side_by_side){.count = 0}; }
        list.slots[list.count++] = member;
        column += bptt_padded(plan, plan->slots[member].cols);
    }
    return list;
}

static bool has(const side_by_side *list, const bptt_ref *ref)
{
    for (int i = 0; i < list->count; i++) {
        if (bptt_is_slot(ref, list->slots[i])) { return true; }
    }
    return bptt_is_slot(ref, list->host);
}

/* The last element that writes the slot, where it is one of a chain of BACK that works on its own step; else action -1. */
static moment finished(const bptt_plan *plan, int slot)
{
    moment last = {-1, 0};
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (bptt_is_slot(&action->out, slot)) { return (moment){-1, 0}; }
        for (int e = 0; e < action->element_count; e++) {
            if (!bptt_is_slot(&action->elements[e].out, slot)) { continue; }
            const bool own = action->kind == BPTT_CHAIN && action->region == BPTT_REGION_BACK && !action->into_previous;
            if (!own || action->cols != plan->slots[slot].cols) { return (moment){-1, 0}; }
            last = (moment){a, e};
        }
    }
    return last;
}

/* May the element at `now` touch these places, if `adjoint` is to lie where `gate` is from the moment `done` on? */
static bool agrees(const bptt_plan *plan, moment now, moment done, int gate, int adjoint)
{
    const bptt_action *action = &plan->actions[now.action], *last = &plan->actions[done.action];
    const bptt_element *element = &action->elements[now.element];
    const bptt_ref *const refs[3] = {&element->out, &element->a, &element->b};
    for (int i = 0; i < 3; i++) {
        const bool of_gate = bptt_is_slot(refs[i], gate), of_adjoint = bptt_is_slot(refs[i], adjoint);
        if ((of_gate || of_adjoint) && refs[i]->shift != 0) { return false; }
        if (of_gate && (before(done, now) || (i == 0 && action->region == BPTT_REGION_BACK))) { return false; }
        const bool same_time = action->region == last->region && action->level == last->level;
        if (of_adjoint && before(now, done) && (!same_time || action->into_previous || action->kind != BPTT_CHAIN)) {
            return false;
        }
    }
    return true;
}

/* May the adjoints lie where the gates are?  done: for each, when it is finished. */
static bool can_overlay(const bptt_plan *plan, const side_by_side *gates, const side_by_side *adjoints, moment done[MOST])
{
    moment first = {plan->action_count, 0}, last = {-1, 0};
    for (int i = 0; i < gates->count; i++) {
        const bptt_slot *gate = &plan->slots[gates->slots[i]], *adjoint = &plan->slots[adjoints->slots[i]];
        done[i] = finished(plan, adjoints->slots[i]);
        if (done[i].action < 0 || gate->cols != adjoint->cols || gate->linear || !adjoint->linear) { return false; }
        if (before(done[i], first)) { first = done[i]; }
        if (before(last, done[i])) { last = done[i]; }
    }
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        const bptt_ref *const refs[3] = {&action->out, &action->in, &action->adjoint}; /* of all members, it may be */
        const bool waits =
            plan->threads > 1 && action->region == BPTT_REGION_TAIL && bptt_sums_over_rows(action); /* for all parts */
        for (int i = 0; i < 3; i++) {
            if (has(gates, refs[i]) && (a >= first.action || waits)) { return false; }
            if (has(adjoints, refs[i]) && (a <= last.action || refs[i]->shift != 0)) { return false; }
        }
        for (int e = 0; e < action->element_count; e++) {
            if (bptt_has_slot(&action->elements[e], gates->host) || bptt_has_slot(&action->elements[e], adjoints->host)) {
                return false;
            }
            for (int i = 0; i < gates->count; i++) {
                if (!agrees(plan, (moment){a, e}, done[i], gates->slots[i], adjoints->slots[i])) { return false; }
            }
        }
    }
    return true;
}

static void move_ref(bptt_ref *ref, int from, int to)
{
    if (bptt_is_slot(ref, from)) { ref->index = to; }
}

/* A slot for what lay in the adjoint's before it was finished. */
static bptt_status add_unfinished(bptt_plan *plan, int adjoint, int *slot, bptt_error *error)
{
    if (plan->slot_count == BPTT_MAX_SLOTS) {
        return bptt_fail(error, BPTT_FAILED, "%s: more than %d values to keep", plan->graph->source, BPTT_MAX_SLOTS);
    }
    *slot = plan->slot_count++;
    plan->slots[*slot] = plan->slots[adjoint];
    plan->slots[*slot].host = -1;
    plan->slots[*slot].column = 0;
    return BPTT_OK;
}

static bptt_status move_adjoint(bptt_plan *plan, int gate, int adjoint, moment done, bptt_error *error)
{
    int unfinished = -1;
    const bptt_status status = add_unfinished(plan, adjoint, &unfinished, error);
    if (status != BPTT_OK) { return status; }
    for (int a = 0; a < plan->action_count; a++) {
        bptt_action *action = &plan->actions[a];
        move_ref(&action->in, adjoint, gate);
        move_ref(&action->adjoint, adjoint, gate);
        for (int e = 0; e < action->element_count; e++) {
            const moment now = {a, e};
            bptt_element *element = &action->elements[e];
            move_ref(&element->out, adjoint, before(now, done) ? unfinished : gate);
            move_ref(&element->a, adjoint, before(done, now) ? gate : unfinished);
            move_ref(&element->b, adjoint, before(done, now) ? gate : unfinished);
        }
    }
    const bptt_slot *was = &plan->slots[adjoint];
    memcpy(plan->slots[gate].later, was->later[0] != '\0' ? was->later : was->name, sizeof was->later);
    plan->slots[adjoint].host = -1; /* nothing lies there any more */
    return BPTT_OK;
}

/* What reads all adjoints of a host at once. */
static void move_host(bptt_plan *plan, int gates, int adjoints)
{
    for (int a = 0; a < plan->action_count; a++) {
        move_ref(&plan->actions[a].in, adjoints, gates);
        move_ref(&plan->actions[a].adjoint, adjoints, gates);
    }
}

bptt_status bptt_plan_overlay(bptt_plan *plan, bptt_error *error)
{
    /* Other modes read a step's gates at other lags or in later chunks; spelled-out sums write no padding, so nobody may leave some. */
    if (plan->spec->truncation != BPTT_TRUNCATION_CHUNK || plan->unroll == BPTT_UNROLL_FULL) { return BPTT_OK; }
    const int count = plan->slot_count;
    for (int h = 0; h < count; h++) {
        const side_by_side gates = members_of(plan, h);
        for (int d = 0; d < count && gates.count > 0; d++) {
            moment done[MOST];
            const side_by_side adjoints = members_of(plan, d);
            if (d == h || adjoints.count != gates.count || !can_overlay(plan, &gates, &adjoints, done)) { continue; }
            for (int i = 0; i < gates.count; i++) {
                const bptt_status status = move_adjoint(plan, gates.slots[i], adjoints.slots[i], done[i], error);
                if (status != BPTT_OK) { return status; }
            }
            move_host(plan, h, d);
            break;
        }
    }
    return BPTT_OK;
}
