/* stack.c: the plan's pass stack: products of one operand, the gates of a cell, become one product.
 *
 * The results of such products lie side by side in one slot, their host; the parameters lie side by side as columns of one matrix.
 * Then the sums W_i' da_i + W_f' da_f + ... are one product too, and so are the gradients, since adjoints lie as what they are the
 * adjoints of.  What cannot lie so stays as it is: every product is right by itself.  Depends on plan.h; decides no offsets.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 32 }; /* members of a host */
_Static_assert(MOST *BPTT_EQUATION_MAX <= BPTT_NOTE_MAX, "the equations of a host fit a note");

/* Slots side by side. */
typedef struct host {
    int slots[MOST];
    int count, groups;
} host;

/* Products of one operand; in the end in the order of their host's slots. */
typedef struct group {
    int actions[MOST];
    int count, host;
} group;

typedef struct stacking {
    bptt_plan *plan;
    host hosts[BPTT_MAX_SLOTS];
    group groups[BPTT_MAX_SLOTS];
    int host_count, group_count;
    int host_of[BPTT_MAX_SLOTS];    /* of a slot, -1 */
    bool removed[BPTT_MAX_ACTIONS]; /* went into another action */
    bool grouped[BPTT_MAX_ACTIONS];
} stacking;

/* --- what an action touches ------------------------------------------------------------------------------------------------------- */

static bool same_ref(const bptt_ref *a, const bptt_ref *b)
{
    return a->kind == b->kind && (a->kind == BPTT_REF_NONE || (a->index == b->index && a->shift == b->shift));
}

static bool same_time(const bptt_action *a, const bptt_action *b)
{
    return a->region == b->region && a->level == b->level && a->forward == b->forward && a->into_previous == b->into_previous;
}

/* --- groups and hosts -------------------------------------------------------------------------------------------------------------- */

/* Actions of a kind on a parameter. */
static int count_on(const bptt_plan *plan, int param, bptt_action_kind kind, bool turned)
{
    int count = 0;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        count += action->param == param && action->kind == kind && action->turned == turned;
    }
    return count;
}

static bool has_host(const bptt_plan *plan, int slot)
{
    return plan->slots[slot].host >= 0 || bptt_is_host(plan, slot);
}

/* Is it the only use of its parameter in the forward step, outside HEAD, with a result that a host may hold? */
static bool can_stack(const bptt_plan *plan, const bptt_action *action)
{
    if ((action->kind != BPTT_PRODUCT && action->kind != BPTT_GATHER) || action->turned || !action->forward) { return false; }
    const int uses = count_on(plan, action->param, BPTT_PRODUCT, false) + count_on(plan, action->param, BPTT_GATHER, false);
    return uses == 1 && action->region != BPTT_REGION_HEAD && action->out.shift == 0 &&
           plan->slots[action->out.index].kind != BPTT_ROWS_STATE && !has_host(plan, action->out.index);
}

static bool same_operand(const bptt_action *a, const bptt_action *b)
{
    return a->kind == b->kind && same_time(a, b) && a->depth == b->depth && same_ref(&a->in, &b->in);
}

static void find_groups(stacking *s)
{
    bptt_plan *plan = s->plan;
    for (int a = 0; a < plan->action_count && s->group_count < BPTT_MAX_SLOTS; a++) {
        if (s->grouped[a] || !can_stack(plan, &plan->actions[a])) { continue; }
        group *g = &s->groups[s->group_count];
        *g = (group){.host = -1};
        for (int b = a; b < plan->action_count && g->count < MOST; b++) {
            const bptt_action *other = &plan->actions[b];
            if (s->grouped[b] || !can_stack(plan, other) || !same_operand(&plan->actions[a], other)) { continue; }
            bool twice = false;
            for (int i = 0; i < g->count; i++) { twice = twice || plan->actions[g->actions[i]].out.index == other->out.index; }
            if (twice) { continue; }
            g->actions[g->count++] = b;
            s->grouped[b] = true;
        }
        if (g->count > 1) { s->group_count++; }
    }
}

static int place_in(const host *h, int slot)
{
    for (int i = 0; i < h->count; i++) {
        if (h->slots[i] == slot) { return i; }
    }
    return -1;
}

/* The one host that some of the group's results lie in already; -1: none; -2: several, or no room. */
static int host_for(const stacking *s, const group *g)
{
    int found = -1, fresh = 0;
    for (int i = 0; i < g->count; i++) {
        const int number = s->host_of[s->plan->actions[g->actions[i]].out.index];
        if (number < 0) { fresh++; }
        if (number >= 0 && found >= 0 && number != found) { return -2; }
        if (number >= 0) { found = number; }
    }
    return found >= 0 && s->hosts[found].count + fresh > MOST ? -2 : found;
}

/* Moves what the group shares with the host to the host's end: two groups can always lie so that each is one piece. */
static void bring_last(const stacking *s, host *h, const group *g)
{
    host sorted = *h;
    sorted.count = 0;
    for (int shared = 0; shared < 2; shared++) {
        for (int i = 0; i < h->count; i++) {
            bool in_group = false;
            for (int k = 0; k < g->count; k++) {
                in_group = in_group || s->plan->actions[g->actions[k]].out.index == h->slots[i];
            }
            if (in_group == (shared == 1)) { sorted.slots[sorted.count++] = h->slots[i]; }
        }
    }
    *h = sorted;
}

static void find_hosts(stacking *s)
{
    for (int i = 0; i < s->group_count; i++) {
        group *g = &s->groups[i];
        int number = host_for(s, g);
        if (number == -2) { continue; }
        if (number == -1) { number = s->host_count++; }
        host *h = &s->hosts[number];
        if (h->groups == 1) { bring_last(s, h, g); }
        for (int k = 0; k < g->count; k++) {
            const int slot = s->plan->actions[g->actions[k]].out.index;
            if (place_in(h, slot) >= 0) { continue; }
            h->slots[h->count++] = slot;
            s->host_of[slot] = number;
        }
        h->groups++;
        g->host = number;
    }
}

/* Sorts the group as its host lies.  False: it does not lie there in one piece. */
static bool sort_group(const stacking *s, group *g)
{
    const host *h = &s->hosts[g->host];
    for (int i = 1; i < g->count; i++) {
        for (int k = i; k > 0; k--) {
            const int a = g->actions[k - 1], b = g->actions[k];
            if (place_in(h, s->plan->actions[a].out.index) < place_in(h, s->plan->actions[b].out.index)) { break; }
            g->actions[k - 1] = b;
            g->actions[k] = a;
        }
    }
    const int first = place_in(h, s->plan->actions[g->actions[0]].out.index);
    const int last = place_in(h, s->plan->actions[g->actions[g->count - 1]].out.index);
    return last - first == g->count - 1;
}

/* --- adjoints ------------------------------------------------------------------------------------------------------------------------ */

/* The slot of the adjoint of what lies in `slot`, by the gradients of the products that write it; -1: there is none, or not one. */
static int adjoint_of(const stacking *s, int slot)
{
    const bptt_plan *plan = s->plan;
    int found = -1;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *product = &plan->actions[a];
        if (!can_stack(plan, product) || product->out.index != slot) { continue; }
        for (int b = 0; b < plan->action_count; b++) {
            const bptt_action *sum = &plan->actions[b];
            if (sum->param != product->param || (sum->kind != BPTT_GRADIENT && sum->kind != BPTT_SCATTER)) { continue; }
            if (sum->adjoint.shift != 0 || (found >= 0 && sum->adjoint.index != found)) { return -1; }
            found = sum->adjoint.index;
        }
    }
    return found;
}

/* May a host hold the slot?  Not if it is a state's, or handed from step to step, or cleared by itself, or written in whole rows. */
static bool is_free(const stacking *s, int slot)
{
    if (s->host_of[slot] >= 0 || s->plan->slots[slot].kind == BPTT_ROWS_STATE || has_host(s->plan, slot)) { return false; }
    for (int a = 0; a < s->plan->action_count; a++) {
        const bptt_action *action = &s->plan->actions[a];
        const bool alone = action->into_previous || action->kind == BPTT_ROW || action->kind == BPTT_ZERO;
        if (alone && bptt_writes(s->plan, action, slot)) { return false; }
    }
    return true;
}

/* A host for the adjoints of what lies in `h`, in the same order, if they can lie so. */
static void add_adjoint_host(stacking *s, const host *h)
{
    host made = {.count = h->count, .groups = 1};
    for (int i = 0; i < h->count; i++) {
        made.slots[i] = adjoint_of(s, h->slots[i]);
        if (made.slots[i] < 0 || !is_free(s, made.slots[i])) { return; }
        for (int k = 0; k < i; k++) {
            if (made.slots[k] == made.slots[i]) { return; }
        }
    }
    for (int i = 0; i < made.count; i++) { s->host_of[made.slots[i]] = s->host_count; }
    s->hosts[s->host_count++] = made;
}

/* --- parameters ---------------------------------------------------------------------------------------------------------------------- */

/* The parameters side by side, each padded. */
static void join_params(bptt_plan *plan, const int *params, int count)
{
    int64_t column = 0;
    for (int i = 0; i < count; i++) {
        plan->params[params[i]].leader = params[0];
        plan->params[params[i]].column = column;
        column += bptt_padded(plan, plan->graph->nodes[plan->graph->params[params[i]].node].rows);
    }
    for (int i = 0; i < count; i++) { plan->params[params[i]].stride = column; }
}

static void join_group(stacking *s, const group *g)
{
    int params[MOST];
    for (int i = 0; i < g->count; i++) { params[i] = s->plan->actions[g->actions[i]].param; }
    join_params(s->plan, params, g->count);
}

/* The biases of a host's slots, if each has one of its own. */
static void join_biases(stacking *s, const host *h)
{
    int params[MOST] = {0};
    for (int i = 0; i < h->count; i++) {
        int found = 0;
        for (int a = 0; a < s->plan->action_count; a++) {
            const bptt_action *action = &s->plan->actions[a];
            if (action->bias < 0 || action->out.index != h->slots[i] || action->turned) { continue; }
            params[i] = action->bias;
            found++;
        }
        int uses = 0;
        for (int a = 0; a < s->plan->action_count && found == 1; a++) { uses += s->plan->actions[a].bias == params[i]; }
        if (found != 1 || uses != 1) { return; }
    }
    join_params(s->plan, params, h->count);
}

/* --- actions that become one --------------------------------------------------------------------------------------------------------- */

/* Does `param` lie right behind `before`? */
static bool follows(const bptt_plan *plan, int before, int param)
{
    const bptt_tensor_plan *a = &plan->params[before], *b = &plan->params[param];
    const int64_t cols = plan->graph->nodes[plan->graph->params[before].node].rows;
    return a->leader == b->leader && b->column == a->column + bptt_padded(plan, cols);
}

static bool slot_follows(const stacking *s, const bptt_ref *before, const bptt_ref *ref)
{
    const int number = s->host_of[before->index];
    if (number < 0 || s->host_of[ref->index] != number || before->shift != ref->shift) { return false; }
    return place_in(&s->hosts[number], ref->index) == place_in(&s->hosts[number], before->index) + 1;
}

/* Can `next` be the next piece of what `last` is a piece of? */
static bool continues(const stacking *s, const bptt_action *last, const bptt_action *next)
{
    const bptt_plan *plan = s->plan;
    if (last->kind != next->kind || last->turned != next->turned || !same_time(last, next)) { return false; }
    if (last->param < 0 || next->param < 0 || !follows(plan, last->param, next->param)) { return false; }
    switch (last->kind) {
    case BPTT_PRODUCT:
        if (last->turned) { return same_ref(&last->out, &next->out) && slot_follows(s, &last->in, &next->in); }
        /* fall through */
    case BPTT_GATHER:
        if (last->fill != next->fill || !same_ref(&last->in, &next->in) || !slot_follows(s, &last->out, &next->out)) {
            return false;
        }
        return last->fill != BPTT_FILL_BIAS || follows(plan, last->bias, next->bias);
    case BPTT_GRADIENT:
    case BPTT_SCATTER:
    case BPTT_COLUMN_SUM:
        if (last->kind == BPTT_COLUMN_SUM && last->in.kind != BPTT_REF_NONE) { return false; } /* of as many columns as `in` */
        return last->fill == next->fill && same_ref(&last->in, &next->in) && slot_follows(s, &last->adjoint, &next->adjoint);
    default:
        return false;
    }
}

/* Would a piece mean something else at `to`, the place of another piece?  Pieces of a sum W' da go to the last one, all else to the
 * first. */
static bool can_move(const stacking *s, int from, int to, const bool *pieces)
{
    const bptt_action *piece = &s->plan->actions[from];
    for (int a = from < to ? from : to; a <= (from < to ? to : from); a++) {
        const bptt_action *between = &s->plan->actions[a];
        if (pieces[a] || s->removed[a]) { continue; }
        if (piece->out.kind == BPTT_REF_SLOT && bptt_touches(s->plan, between, piece->out.index)) { return false; }
        if (piece->in.kind == BPTT_REF_SLOT && bptt_writes(s->plan, between, piece->in.index)) { return false; }
        if (piece->adjoint.kind == BPTT_REF_SLOT && bptt_writes(s->plan, between, piece->adjoint.index)) { return false; }
    }
    return true;
}

/* "times_W_hi" and "W_ho": "times_W_hi_to_W_ho" */
static void name_merged(const bptt_plan *plan, bptt_action *merged, const bptt_action *last)
{
    const char *name = plan->graph->nodes[plan->graph->params[last->param].node].name;
    const size_t used = strlen(merged->name);
    if (used > 0) { (void)snprintf(merged->name + used, sizeof merged->name - used, "_to_%s", name); }
}

static void merge(stacking *s, const int *list, int count, int to)
{
    bptt_plan *plan = s->plan;
    bptt_action merged = plan->actions[list[0]];
    const bool sum = merged.turned;
    int first = list[0];
    for (int i = 1; i < count; i++) {
        const bptt_action *piece = &plan->actions[list[i]];
        const int64_t before = bptt_padded(plan, sum ? merged.depth : merged.cols);
        if (sum) {
            merged.depth = before + piece->depth;
        } else {
            merged.cols = before + piece->cols;
        }
        merged.flop += piece->flop;
        const size_t used = strlen(merged.note);
        (void)snprintf(merged.note + used, sizeof merged.note - used, ", %s", piece->note);
        if (list[i] < first) { first = list[i]; }
    }
    merged.fill = sum ? plan->actions[first].fill : merged.fill; /* what the sum begins with */
    merged.bias = sum ? plan->actions[first].bias : merged.bias;
    name_merged(plan, &merged, &plan->actions[list[count - 1]]);
    for (int i = 0; i < count; i++) { s->removed[list[i]] = true; }
    s->removed[to] = false;
    plan->actions[to] = merged;
}

/* Collects the pieces that begin with action `a` and makes them one. */
static void merge_from(stacking *s, int a)
{
    bool pieces[BPTT_MAX_ACTIONS] = {false};
    int list[MOST], count = 1, to = a;
    list[0] = a;
    pieces[a] = true;
    for (bool more = true; more && count < MOST;) {
        more = false;
        for (int b = 0; b < s->plan->action_count && !more; b++) {
            if (s->removed[b] || pieces[b] || !continues(s, &s->plan->actions[list[count - 1]], &s->plan->actions[b])) {
                continue;
            }
            list[count++] = b;
            pieces[b] = more = true;
        }
    }
    for (int i = 0; i < count; i++) {
        const bool later = s->plan->actions[a].turned;
        if (later ? list[i] > to : list[i] < to) { to = list[i]; }
    }
    for (int i = 0; i < count; i++) {
        if (!can_move(s, list[i], to, pieces)) { return; }
    }
    if (count > 1) { merge(s, list, count, to); }
}

/* Is it the first piece of something? */
static bool begins_piece(const stacking *s, int a)
{
    for (int b = 0; b < s->plan->action_count; b++) {
        if (b != a && !s->removed[b] && continues(s, &s->plan->actions[b], &s->plan->actions[a])) { return false; }
    }
    return true;
}

static void merge_all(stacking *s)
{
    for (int a = 0; a < s->plan->action_count; a++) {
        const bptt_action *action = &s->plan->actions[a];
        if (!s->removed[a] && action->param >= 0 && begins_piece(s, a)) { merge_from(s, a); }
    }
}

/* Chains that were apart only because a product stood between them. */
static bool can_join(const bptt_action *last, const bptt_action *next)
{
    return last->kind == BPTT_CHAIN && next->kind == BPTT_CHAIN && same_time(last, next) && last->cols == next->cols &&
           last->element_count + next->element_count <= BPTT_MAX_ELEMENTS;
}

static void close_ranks(stacking *s)
{
    bptt_plan *plan = s->plan;
    int count = 0;
    for (int a = 0; a < plan->action_count; a++) {
        if (s->removed[a]) { continue; }
        const bptt_action next = plan->actions[a]; /* a copy: ranks close over where it was */
        bptt_action *last = count > 0 ? &plan->actions[count - 1] : NULL;
        if (last == NULL || !can_join(last, &next)) {
            plan->actions[count++] = next;
            continue;
        }
        memcpy(last->elements + last->element_count, next.elements, (size_t)next.element_count * sizeof *next.elements);
        last->element_count += next.element_count;
        last->flop += next.flop;
        const size_t used = strlen(last->note);
        (void)snprintf(last->note + used, sizeof last->note - used, ", %s", next.note);
    }
    plan->action_count = count;
}

/* A slot for every host. */
static bptt_status add_host_slots(stacking *s, bptt_error *error)
{
    bptt_plan *plan = s->plan;
    for (int i = 0; i < s->host_count; i++) {
        const host *h = &s->hosts[i];
        if (plan->slot_count == BPTT_MAX_SLOTS) {
            return bptt_fail(error, BPTT_FAILED, "%s: more than %d values to keep", plan->graph->source, BPTT_MAX_SLOTS);
        }
        bptt_slot *slot = &plan->slots[plan->slot_count];
        *slot = (bptt_slot){.kind = BPTT_ROWS_CHUNK, .host = -1};
        memcpy(slot->name, plan->slots[h->slots[0]].name, sizeof slot->name);
        for (int k = 0; k < h->count; k++) {
            bptt_slot *member = &plan->slots[h->slots[k]];
            slot->linear = slot->linear || member->linear;
            member->host = plan->slot_count;
            member->column = slot->cols;
            slot->cols += bptt_padded(plan, member->cols);
        }
        plan->slot_count++;
    }
    return BPTT_OK;
}

bptt_status bptt_plan_stack(bptt_plan *plan, bptt_error *error)
{
    stacking *s = calloc(1, sizeof *s);
    if (s == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to stack products"); }
    s->plan = plan;
    for (int p = 0; p < plan->graph->param_count; p++) { plan->params[p].leader = p; }
    for (int i = 0; i < BPTT_MAX_SLOTS; i++) { s->host_of[i] = -1; }
    find_groups(s);
    find_hosts(s);
    const int forward = s->host_count;
    for (int i = 0; i < forward; i++) { add_adjoint_host(s, &s->hosts[i]); }
    for (int i = 0; i < s->group_count; i++) {
        if (s->groups[i].host >= 0 && sort_group(s, &s->groups[i])) { join_group(s, &s->groups[i]); }
    }
    for (int i = 0; i < forward; i++) { join_biases(s, &s->hosts[i]); }
    merge_all(s);
    if (s->host_count > 0) { close_ranks(s); }
    bptt_status status = add_host_slots(s, error);
    free(s);
    return status;
}
