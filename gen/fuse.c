/* fuse.c: the second half of the plan's pass fuse: what only a chain of element-wise operations itself reads needs no memory.
 *
 * The first half, lower.c, joined neighbours into chains.  Depends on plan.h.
 */
#include "plan.h"

static bool is_in(const bptt_ref *ref, int slot)
{
    return ref->kind == BPTT_REF_SLOT && ref->index == slot;
}

/* A value that only its own chain reads needs no slot. */
static bool in_chain_only(const bptt_plan *plan, int chain, int slot, int shift)
{
    if (plan->slots[slot].host >= 0) { return false; } /* a stacked product touches it */
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
