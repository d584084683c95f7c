/* count.c: the plan's pass count: parameters, bytes of the struct, FLOP and bytes of every piece of work in a chunk.
 *
 * FLOP are those of the equations; bytes are those of this plan, with its padding and its blocks.  Depends on plan.h.
 */
#include "plan.h"

_Static_assert(BPTT_MAX_WORKS >= BPTT_MAX_ACTIONS + 4,
               "the actions, sums of parts, the gradient's norm, the update, the turned copies");

static void add_part(bptt_counts *counts, const char *name, size_t bytes)
{
    if (bytes == 0) { return; }
    counts->parts[counts->part_count++] = (bptt_part){name, bytes};
    counts->struct_bytes += bytes;
}

static void count_struct(bptt_plan *plan)
{
    bptt_counts *counts = &plan->counts;
    const size_t real = (size_t)plan->real_size;
    size_t kept = 0;
    for (int s = 0; s < plan->slot_count; s++) {
        if (plan->slots[s].host >= 0) { continue; }
        if (plan->slots[s].kind == BPTT_ROWS_STATE || plan->slots[s].kind == BPTT_ROWS_CHUNK) { kept += plan->slots[s].size; }
    }
    if (kept > plan->work_size) { kept = plan->work_size; } /* slots may share memory */
    const size_t parts = (size_t)plan->threads, work = plan->work_size * real;
    add_part(counts, "parameters", plan->block_size * real);
    add_part(counts, "gradients", plan->block_size * real);
    add_part(counts, "moments", plan->block_size * real * (size_t)plan->moments);
    add_part(counts, "turned weights", plan->turned_size * real);
    add_part(counts, "states and activations", (parts * kept + plan->carried_size) * real);
    add_part(counts, "blocks", parts * (work - kept * real));
    add_part(counts, "gradients of parts", parts * plan->own_size * real);
    add_part(counts, "inputs of a chunk", parts * (bptt_part_bytes(plan) - work - plan->own_size * real));
    add_part(counts, "progress", (size_t)plan->progress * sizeof(double));
}

/* --- works -------------------------------------------------------------------------------------------------------------------- */

static void add_work(bptt_counts *counts, double calls, double flop, double bytes)
{
    if (calls <= 0) { return; }
    counts->works[counts->work_count++] = (bptt_work){calls, flop, bytes};
    counts->bytes_moved += calls * bytes;
}

/* The places that an action touches, each once; returns how many. */
static int places_of(const bptt_action *action, bptt_ref places[3 + 3 * BPTT_MAX_ELEMENTS])
{
    bptt_ref all[3 + 3 * BPTT_MAX_ELEMENTS] = {action->out, action->in, action->adjoint};
    int used = 3, count = 0;
    for (int e = 0; e < action->element_count; e++) {
        all[used++] = action->elements[e].out;
        all[used++] = action->elements[e].a;
        all[used++] = action->elements[e].b;
    }
    for (int i = 0; i < used; i++) {
        bool seen = all[i].kind != BPTT_REF_SLOT;
        for (int j = 0; j < count && !seen; j++) { seen = places[j].index == all[i].index && places[j].shift == all[i].shift; }
        if (!seen) { places[count++] = all[i]; }
    }
    return count;
}

/* Reals of the parameters, or of their gradients, that one call with `rows` rows touches. */
static double parameter_reals(const bptt_plan *plan, const bptt_action *action, double rows)
{
    if (action->param < 0) { return 0; }
    const bptt_tensor_plan *tensor = &plan->params[action->param];
    const double width = (double)bptt_padded(plan, action->cols);
    const bool by_token = action->kind == BPTT_GATHER || (action->kind == BPTT_SCATTER && action->fill == BPTT_FILL_ADD);
    if (by_token && rows < (double)tensor->rows) { return rows * width; }
    const double turned = (double)action->depth * (double)(action->packed ? action->cols : tensor->turned_stride);
    return action->turned ? turned : (double)tensor->rows * width;
}

/* The steps that have a loss, as a share of all. */
static double share_with_loss(const bptt_spec *spec)
{
    int64_t stretches[BPTT_MAX_STRETCHES][2], steps = 0;
    const int count = bptt_spec_loss_steps(spec, stretches);
    for (int i = 0; i < count; i++) { steps += stretches[i][1] - stretches[i][0]; }
    return (double)steps / (double)spec->T;
}

/* Steps of a chunk that an action is done for: in a full window, and at every lag. */
static double steps_of(const bptt_plan *plan, const bptt_action *action)
{
    const bool back = action->region == BPTT_REGION_BACK || action->region == BPTT_REGION_TAIL;
    const double lags = back && plan->spec->truncation == BPTT_TRUNCATION_UNIFORM ? (double)plan->spec->K : 1;
    if (action->begins && bptt_in_time(plan, action)) { return 1; }
    const double share = action->region == BPTT_REGION_HEAD ? share_with_loss(plan->spec) : 1;
    const double steps = share * (double)(back ? plan->window : plan->steps);
    return lags * (steps - (lags - 1) / 2) - (action->into_previous ? lags : 0);
}

static void count_action(bptt_plan *plan, const bptt_action *action)
{
    bptt_ref places[3 + 3 * BPTT_MAX_ELEMENTS];
    const double steps = steps_of(plan, action);
    const double all = action->region == BPTT_REGION_REFRESH ? 1 : steps * (double)plan->spec->batch;
    const double rows = (double)bptt_call_rows(plan, action);
    const int count = places_of(action, places);
    double reals = parameter_reals(plan, action, rows);
    if (action->bias >= 0 && (action->fill == BPTT_FILL_BIAS || action->kind == BPTT_SCATTER)) {
        reals += (double)bptt_padded(plan, action->cols);
    }
    for (int e = 0; e < action->element_count; e++) {
        const bptt_element *element = &action->elements[e];
        if (element->a.kind == BPTT_REF_PARAM) { reals += (double)bptt_padded(plan, action->cols); }
        if (element->b.kind == BPTT_REF_PARAM) { reals += (double)bptt_padded(plan, action->cols); }
    }
    for (int i = 0; i < count; i++) { reals += rows * (double)bptt_padded(plan, plan->slots[places[i].index].cols); }
    /* a block that is not full counts as the part of a call that it is */
    add_work(&plan->counts, all / rows, rows * action->flop, reals * plan->real_size);
    *(action->forward ? &plan->counts.flop_forward : &plan->counts.flop_backward) += all * action->flop;
}

/* Reals of parameters that an update leaves alone: rows of tokens that cannot all occur in one chunk. */
static double skipped_reals(const bptt_plan *plan)
{
    const double tokens = (double)plan->window * (double)plan->spec->batch;
    double reals = 0;
    for (int p = 0; p < plan->graph->param_count; p++) {
        const bptt_tensor_plan *tensor = &plan->params[p];
        const double rest = (double)tensor->rows - tokens;
        if (tensor->leader == p && tensor->sparse && rest > 0) { reals += rest * (double)tensor->stride; }
    }
    return reals;
}

static void count_update(bptt_plan *plan)
{
    static const double flop[] = {
        [BPTT_SGD] = 2, [BPTT_MOMENTUM] = 4, [BPTT_ADAGRAD] = 6, [BPTT_RMSPROP] = 8, [BPTT_ADAM] = 12, [BPTT_ADAMW] = 13};
    const bptt_optimizer *rule = &plan->spec->optimizer;
    bptt_counts *counts = &plan->counts;
    const double decay = rule->weight_decay > 0 && rule->kind != BPTT_ADAMW ? 2 : 0, ahead = rule->nesterov != 0 ? 2 : 0;
    const double norm = 2.0 * (double)counts->parameters;
    const double update = (flop[rule->kind] + decay + ahead) * (double)counts->parameters;
    const double block = (double)plan->block_size * plan->real_size;
    add_work(counts, 1, norm, block);
    /* the gradient, parameters and moments; it takes a look at the gradient to see that a row is zero */
    const double touched = block - skipped_reals(plan) * plan->real_size;
    add_work(counts, 1, update, block + (1 + plan->moments) * touched);
    if (plan->turned_size > 0) { add_work(counts, 1, 0, 2.0 * (double)plan->turned_size * plan->real_size); }
    counts->flop_update = norm + update;
}

void bptt_plan_count(bptt_plan *plan)
{
    for (int p = 0; p < plan->graph->param_count; p++) {
        plan->counts.parameters += (size_t)(plan->params[p].rows * plan->params[p].cols);
    }
    count_struct(plan);
    for (int a = 0; a < plan->action_count; a++) { count_action(plan, &plan->actions[a]); }
    const double own = (double)plan->own_size * plan->real_size;
    add_work(&plan->counts, own > 0 ? 1 : 0, 0, (plan->threads + 1) * own);
    count_update(plan);
}
