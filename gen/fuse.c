/* fuse.c: the second half of the plan's pass fuse: chains with a carry between them become one, and what only a chain of element-wise
 * operations itself reads needs no memory.
 *
 * The first half, lower_actions.c, joined neighbours into chains.  Depends on plan.h.
 */
#include "plan.h"

#include <string.h>

static bool is_in(const bptt_ref *ref, int slot)
{
    return ref->kind == BPTT_REF_SLOT && ref->index == slot;
}

static bool meets(const bptt_plan *plan, const bptt_ref *ref, const bptt_ref *out)
{
    return ref->kind == BPTT_REF_SLOT && bptt_slots_meet(plan, ref->index, out->index);
}

/* Does one chain write what the other one touches? */
static bool disturbs(const bptt_plan *plan, const bptt_action *writer, const bptt_action *other)
{
    for (int w = 0; w < writer->element_count; w++) {
        const bptt_ref *out = &writer->elements[w].out;
        for (int e = 0; e < other->element_count; e++) {
            const bptt_element *element = &other->elements[e];
            if (meets(plan, &element->out, out) || meets(plan, &element->a, out) || meets(plan, &element->b, out)) {
                return true;
            }
        }
    }
    return false;
}

static bool same_rows(const bptt_action *a, const bptt_action *b)
{
    return a->kind == BPTT_CHAIN && b->kind == BPTT_CHAIN && a->region == b->region && a->level == b->level &&
           a->forward == b->forward && a->cols == b->cols;
}

/* A chain goes on behind one that hands something to the step before, when that one can as well come after both. */
static void join_chains(bptt_plan *plan)
{
    for (int a = 0; a + 2 < plan->action_count; a++) {
        bptt_action *chain = &plan->actions[a], *carry = chain + 1, *next = chain + 2;
        if (!same_rows(chain, carry) || !same_rows(chain, next) || chain->into_previous || next->into_previous ||
            !carry->into_previous || disturbs(plan, carry, next) || disturbs(plan, next, carry) ||
            chain->element_count + next->element_count > BPTT_MAX_ELEMENTS) {
            continue;
        }
        memcpy(chain->elements + chain->element_count, next->elements, (size_t)next->element_count * sizeof *next->elements);
        chain->element_count += next->element_count;
        chain->flop += next->flop;
        const size_t used = strlen(chain->note);
        (void)snprintf(chain->note + used, sizeof chain->note - used, ", %s", next->note);
        memmove(next, next + 1, (size_t)(plan->action_count - a - 3) * sizeof *next);
        plan->action_count--;
    }
}

/* A value that only its own chain reads needs no slot. */
static bool in_chain_only(const bptt_plan *plan, int chain, int slot, int shift)
{
    if (plan->slots[slot].host >= 0 || bptt_is_host(plan, slot)) { return false; } /* others touch it under another name */
    for (int s = 0; s < plan->graph->state_count; s++) {
        if (plan->refs[plan->graph->states[s].next].index == slot) { return false; }
    }
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        const bptt_ref refs[3] = {action->out, action->in, action->adjoint};
        for (int i = 0; i < 3; i++) {
            if (is_in(&refs[i], slot)) { return false; }
        }
        for (int e = 0; e < action->element_count && a != chain; e++) {
            const bptt_element *element = &action->elements[e];
            if (is_in(&element->out, slot) || is_in(&element->a, slot) || is_in(&element->b, slot)) { return false; }
        }
    }
    return shift == 0;
}

static void make_temp(bptt_action *action, bptt_ref *ref, int slot, int temp)
{
    if (is_in(ref, slot)) { *ref = (bptt_ref){BPTT_REF_TEMP, temp, 0}; }
    if (action->temp_count <= temp) { action->temp_count = temp + 1; }
}

void bptt_plan_fuse(bptt_plan *plan)
{
    join_chains(plan);
    for (int a = 0; a < plan->action_count; a++) {
        bptt_action *action = &plan->actions[a];
        for (int e = 0; e + 1 < action->element_count; e++) {
            bptt_ref out = action->elements[e].out;
            if (out.kind != BPTT_REF_SLOT || !in_chain_only(plan, a, out.index, out.shift)) { continue; }
            int temp = action->temp_count;
            for (int i = 0; i < action->element_count; i++) {
                make_temp(action, &action->elements[i].out, out.index, temp);
                make_temp(action, &action->elements[i].a, out.index, temp);
                make_temp(action, &action->elements[i].b, out.index, temp);
            }
        }
    }
}
