/* fuse.c: the second half of the plan's pass fuse: chains with a carry between them become one, a carry that is one value is left where
 * the step before finds it, what only a chain of element-wise operations itself reads needs no memory, and rows that are scattered are
 * added up on the way.
 *
 * The first half, lower_actions.c, joined neighbours into chains.  Depends on plan.h.
 */
#include "plan.h"

#include <string.h>

/* Does one chain write what the other one touches? */
static bool disturbs(const bptt_plan *plan, const bptt_action *writer, const bptt_action *other)
{
    for (int w = 0; w < writer->element_count; w++) {
        if (bptt_touches(plan, other, writer->elements[w].out.index)) { return true; }
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
        bptt_remove_action(plan, a + 2);
    }
}

/* --- carries -------------------------------------------------------------------------------------------------------------------- */

/* An element of a chain. */
typedef struct spot {
    int action, element; /* action -1: none */
} spot;

static bool stands_alone(const bptt_plan *plan, int slot)
{
    return plan->slots[slot].host < 0 && !bptt_is_host(plan, slot);
}

/* Is the slot, but for action `skip`, touched by chains of the hand's BACK alone, and by all of them but `hand` at their own step?
 * last: the last of these elements; count: how many. */
static bool is_of_step(const bptt_plan *plan, int slot, int skip, int hand, spot *last, int *count)
{
    *last = (spot){-1, 0};
    *count = 0;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a], *by = &plan->actions[hand];
        if (a == skip || a == hand) { continue; }
        if (bptt_is_slot(&action->out, slot) || bptt_is_slot(&action->in, slot) || bptt_is_slot(&action->adjoint, slot)) {
            return false;
        }
        for (int e = 0; e < action->element_count; e++) {
            const bptt_element *element = &action->elements[e];
            if (!bptt_has_slot(element, slot)) { continue; }
            const bool own = (!bptt_is_slot(&element->out, slot) || element->out.shift == 0) &&
                             (!bptt_is_slot(&element->a, slot) || element->a.shift == 0) &&
                             (!bptt_is_slot(&element->b, slot) || element->b.shift == 0);
            if (!own || action->into_previous || !same_rows(action, by)) { return false; }
            *last = (spot){a, e};
            ++*count;
        }
    }
    return true;
}

/* The action that sets the slot to 0 in HEAD; -1: none. */
static int find_zero(const bptt_plan *plan, int slot)
{
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (action->kind == BPTT_ZERO && action->region == BPTT_REGION_HEAD && bptt_is_slot(&action->out, slot)) { return a; }
    }
    return -1;
}

/* The element that makes what chain `hand` adds to the carry of step t - 1, if that is all that the carry gets, and is made when the
 * step has read its own: then the carry can lie in one place for all steps. */
static spot made_in_place(const bptt_plan *plan, int hand, int *zero)
{
    const spot none = {-1, 0};
    const bptt_action *action = &plan->actions[hand];
    const bptt_element *sum = &action->elements[0];
    if (action->kind != BPTT_CHAIN || action->region != BPTT_REGION_BACK || !action->into_previous ||
        action->element_count != 1) {
        return none;
    }
    if (sum->op != BPTT_OP_ADD || sum->b.kind != BPTT_REF_SLOT || sum->b.shift != 0 || bptt_is_slot(&sum->b, sum->out.index)) {
        return none;
    }
    const int carry = sum->out.index, value = sum->b.index;
    *zero = find_zero(plan, carry);
    if (*zero < 0 || !stands_alone(plan, carry) || !stands_alone(plan, value)) { return none; }
    spot last, made;
    int reads, count;
    if (!is_of_step(plan, carry, *zero, hand, &last, &reads) || !is_of_step(plan, value, hand, hand, &made, &count)) {
        return none;
    }
    const bool in_time = last.action < made.action || (last.action == made.action && last.element <= made.element);
    return count == 1 && in_time && made.action < hand &&
                   bptt_is_slot(&plan->actions[made.action].elements[made.element].out, value)
               ? made
               : none;
}

/* Calls the value that is handed on what it is now: "n5[t] = ..." becomes "carry to t-1 = ...", where `sum` is "carry to t-1 += n5[t]". */
static void name_carry(char *note, size_t size, const char *sum)
{
    const char *sign = strstr(sum, " += ");
    char label[BPTT_EQUATION_MAX], rest[BPTT_NOTE_MAX];
    (void)snprintf(label, sizeof label, "%s = ", sign == NULL ? sum : sign + 4);
    char *at = strstr(note, label);
    while (at != NULL && at != note && at[-1] != ' ') { at = strstr(at + 1, label); }
    if (sign == NULL || at == NULL) { return; }
    (void)snprintf(rest, sizeof rest, "%s", at + strlen(label));
    (void)snprintf(at, size - (size_t)(at - note), "%.*s = %s", (int)(sign - sum), sum, rest);
}

/* A carry that is one value, as that of lstm's c: a step leaves it where the step before finds it.  What was a sum for each step is one
 * row block, which is 0 when BACK begins. */
static void leave_carries(bptt_plan *plan)
{
    if (plan->spec->truncation != BPTT_TRUNCATION_CHUNK) { return; }
    for (int hand = 0; hand < plan->action_count; hand++) {
        int zero = -1;
        const spot made = made_in_place(plan, hand, &zero);
        if (made.action < 0) { continue; }
        bptt_action *chain = &plan->actions[made.action];
        chain->elements[made.element].out.index = plan->actions[hand].elements[0].out.index;
        name_carry(chain->note, sizeof chain->note, plan->actions[hand].note);
        bptt_action begin = plan->actions[zero];
        begin.region = chain->region;
        begin.level = chain->level;
        begin.begins = true;
        bptt_remove_action(plan, hand);
        int first = zero; /* to the beginning of its new phase */
        for (; plan->actions[first + 1].region != begin.region || plan->actions[first + 1].level != begin.level; first++) {
            plan->actions[first] = plan->actions[first + 1];
        }
        plan->actions[first] = begin;
        hand--;
    }
}

/* --- temporaries ---------------------------------------------------------------------------------------------------------------- */

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
            if (bptt_is_slot(&refs[i], slot)) { return false; }
        }
        for (int e = 0; e < action->element_count && a != chain; e++) {
            if (bptt_has_slot(&action->elements[e], slot)) { return false; }
        }
    }
    return shift == 0;
}

static void make_temp(bptt_action *action, bptt_ref *ref, int slot, int temp)
{
    if (bptt_is_slot(ref, slot)) { *ref = (bptt_ref){BPTT_REF_TEMP, temp, 0}; }
    if (action->temp_count <= temp) { action->temp_count = temp + 1; }
}

/* --- sums ----------------------------------------------------------------------------------------------------------------------- */

static bool is_sum_of(const bptt_action *sum, const bptt_action *scatter)
{
    const bptt_ref *a = &sum->adjoint, *b = &scatter->adjoint;
    return sum->kind == BPTT_COLUMN_SUM && sum->in.kind == BPTT_REF_NONE && sum->fill == scatter->fill &&
           sum->cols == scatter->cols && a->index == b->index && a->shift == b->shift;
}

/* The gradient of a bias of rows whose table is sought by a token: one pass over the rows does both. */
static void sum_scattered(bptt_plan *plan)
{
    for (int s = 0; s < plan->action_count; s++) {
        bptt_action *scatter = &plan->actions[s];
        const int rows = scatter->adjoint.index;
        for (int a = s + 1; a < plan->action_count && scatter->kind == BPTT_SCATTER && scatter->bias < 0; a++) {
            const bptt_action sum = plan->actions[a];
            if (sum.region != scatter->region || sum.level != scatter->level || bptt_writes(plan, &sum, rows)) { break; }
            if (!is_sum_of(&sum, scatter)) { continue; }
            scatter->bias = sum.param;
            scatter->flop += sum.flop;
            const size_t used = strlen(scatter->note);
            (void)snprintf(scatter->note + used, sizeof scatter->note - used, ", %s", sum.note);
            bptt_remove_action(plan, a);
        }
    }
}

void bptt_plan_fuse(bptt_plan *plan)
{
    join_chains(plan);
    leave_carries(plan);
    sum_scattered(plan);
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
