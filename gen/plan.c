/* plan.c: runs the passes and prints what came out.  See plan.h. */
#include "plan.h"

#include "../templates/abi.h"

#include <stdlib.h>
#include <string.h>

enum { UNROLL_STEPS_AT_MOST = 512 }; /* auto: beyond that straight-line code is bound by instruction fetch and loops win */

const char *bptt_region_name(bptt_region region)
{
    static const char *const names[] = {"refresh", "input", "step", "head", "back", "tail", "sum"};
    return names[region];
}

int bptt_phase_count(const bptt_plan *plan)
{
    return 4 * plan->levels + 2 + (plan->spec->truncation == BPTT_TRUNCATION_UNIFORM ? 1 : 0);
}

int bptt_phase(const bptt_plan *plan, bptt_region region, int level)
{
    const int head = 2 * plan->levels + 1;
    switch (region) {
    case BPTT_REGION_REFRESH:
        return 0;
    case BPTT_REGION_INPUT:
    case BPTT_REGION_STEP:
        return 1 + 2 * level + (region == BPTT_REGION_STEP);
    case BPTT_REGION_HEAD:
        return head;
    case BPTT_REGION_SUM:
        return 2 * head;
    default:
        return head + 1 + 2 * (plan->levels - 1 - level) + (region == BPTT_REGION_TAIL);
    }
}

bptt_region bptt_phase_region(const bptt_plan *plan, int phase)
{
    const int head = 2 * plan->levels + 1;
    if (phase == 0) { return BPTT_REGION_REFRESH; }
    if (phase == head) { return BPTT_REGION_HEAD; }
    if (phase >= 2 * head) { return BPTT_REGION_SUM; }
    if (phase < head) { return phase % 2 == 1 ? BPTT_REGION_INPUT : BPTT_REGION_STEP; }
    return (phase - head) % 2 == 1 ? BPTT_REGION_BACK : BPTT_REGION_TAIL;
}

int bptt_phase_level(const bptt_plan *plan, int phase)
{
    const int head = 2 * plan->levels + 1;
    if (phase == 0 || phase == head || phase >= 2 * head) { return 0; }
    return phase < head ? (phase - 1) / 2 : plan->levels - 1 - (phase - head - 1) / 2;
}

const char *bptt_action_name(bptt_action_kind kind)
{
    static const char *const names[] = {"copy", "gather", "product",  "chain",   "row",       "loss",
                                        "zero", "clear",  "gradient", "scatter", "column_sum"};
    return names[kind];
}

static int moments_of(const bptt_spec *spec)
{
    switch (spec->optimizer.kind) {
    case BPTT_SGD:
        return 0;
    case BPTT_ADAM:
    case BPTT_ADAMW:
        return 2;
    default:
        return 1;
    }
}

int64_t bptt_padded(const bptt_plan *plan, int64_t cols)
{
    return (cols + plan->lanes - 1) / plan->lanes * plan->lanes;
}

int bptt_progress_count(const bptt_spec *spec)
{
    if (bptt_spec_drops(spec)) { return BPTT_PROGRESS; }
    return spec->schedule.kind == BPTT_SCHEDULE_PLATEAU ? BPTT_MASKS : bptt_accumulates(spec) ? BPTT_BEST : BPTT_LABELS;
}

bool bptt_accumulates(const bptt_spec *spec)
{
    return spec->accumulate > 1 || (spec->update == BPTT_UPDATE_SEQUENCE && bptt_spec_chunk(spec) < spec->T);
}

static void place_progress(bptt_plan *plan)
{
    const int unit = plan->simd > 8 ? plan->simd / 2 : 4;
    plan->progress_count = bptt_progress_count(plan->spec);
    const int used = plan->progress_count + (plan->threads > 1 ? 1 : 0); /* the team's pointer lies among the padding */
    plan->progress = (used + unit - 1) / unit * unit;
}

bool bptt_is_host(const bptt_plan *plan, int slot)
{
    bool found = false;
    for (int s = 0; s < plan->slot_count; s++) { found = found || plan->slots[s].host == slot; }
    return found;
}

bool bptt_is_slot(const bptt_ref *ref, int slot)
{
    return ref->kind == BPTT_REF_SLOT && ref->index == slot;
}

bool bptt_has_slot(const bptt_element *element, int slot)
{
    return bptt_is_slot(&element->out, slot) || bptt_is_slot(&element->a, slot) || bptt_is_slot(&element->b, slot);
}

bptt_action *bptt_insert_action(bptt_plan *plan, int at, bptt_action_kind kind, bptt_region region, int level, bptt_error *error)
{
    if (plan->action_count == BPTT_MAX_ACTIONS) {
        (void)bptt_fail(error, BPTT_FAILED, "%s: more than %d actions in a step", plan->graph->source, BPTT_MAX_ACTIONS);
        return NULL;
    }
    bptt_action *action = &plan->actions[at];
    memmove(action + 1, action, (size_t)(plan->action_count++ - at) * sizeof *action);
    *action = (bptt_action){.kind = kind, .region = region, .level = level, .param = -1, .bias = -1};
    return action;
}

void bptt_remove_action(bptt_plan *plan, int at)
{
    bptt_action *action = &plan->actions[at];
    memmove(action, action + 1, (size_t)(--plan->action_count - at) * sizeof *action);
}

/* Has what lies there columns in common with a slot?  Members of one host have none. */
static bool meets(const bptt_plan *plan, const bptt_ref *ref, int slot)
{
    const int at = ref->index;
    return ref->kind == BPTT_REF_SLOT && (at == slot || plan->slots[at].host == slot || plan->slots[slot].host == at);
}

bool bptt_writes(const bptt_plan *plan, const bptt_action *action, int slot)
{
    if (meets(plan, &action->out, slot) || (action->kind == BPTT_LOSS && meets(plan, &action->in, slot))) { return true; }
    for (int e = 0; e < action->element_count; e++) {
        if (meets(plan, &action->elements[e].out, slot)) { return true; }
    }
    return false;
}

bool bptt_touches(const bptt_plan *plan, const bptt_action *action, int slot)
{
    if (bptt_writes(plan, action, slot) || meets(plan, &action->in, slot) || meets(plan, &action->adjoint, slot)) { return true; }
    for (int e = 0; e < action->element_count; e++) {
        if (meets(plan, &action->elements[e].a, slot) || meets(plan, &action->elements[e].b, slot)) { return true; }
    }
    return false;
}

bool bptt_sums_over_rows(const bptt_action *action)
{
    return action->kind == BPTT_GRADIENT || action->kind == BPTT_SCATTER || action->kind == BPTT_COLUMN_SUM;
}

bool bptt_in_time(const bptt_plan *plan, const bptt_action *action)
{
    const bool back = action->region == BPTT_REGION_BACK && plan->spec->truncation != BPTT_TRUNCATION_UNIFORM;
    return action->region == BPTT_REGION_STEP || back;
}

int64_t bptt_call_rows(const bptt_plan *plan, const bptt_action *action)
{
    const int64_t step = plan->streams;
    if (bptt_in_time(plan, action)) { return step; }
    switch (action->region) {
    case BPTT_REGION_REFRESH:
        return 1;
    case BPTT_REGION_INPUT:
        return plan->steps * step;
    case BPTT_REGION_HEAD:
        return plan->block;
    case BPTT_REGION_TAIL:
        if (plan->tail_block > 0) { return plan->tail_block; }
        /* fall through */
    default:
        return plan->window * step;
    }
}

/* The pass accumulate: sums over rows are added to those of the chunks before; what a part has of its own is a chunk's. */
static void accumulate(bptt_plan *plan)
{
    for (int a = 0; a < plan->action_count && plan->accumulates; a++) {
        bptt_action *action = &plan->actions[a];
        if (bptt_sums_over_rows(action) && !plan->params[action->param].own) { action->fill = BPTT_FILL_ADD; }
    }
}

bptt_status bptt_plan_make(const bptt_spec *spec, const bptt_graph *graph, int simd, size_t memory_limit, bptt_plan **result,
                           bptt_error *error)
{
    bptt_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a plan"); }
    plan->spec = spec;
    plan->graph = graph;
    plan->real_size = spec->dtype == BPTT_F64 ? 8 : 4;
    plan->simd = spec->simd > 0 ? (int)spec->simd : simd;
    plan->lanes = 4 * plan->simd / plan->real_size;
    if (plan->lanes < 1) { plan->lanes = 1; }
    plan->steps = bptt_spec_chunk(spec);
    plan->window = spec->truncation == BPTT_TRUNCATION_BLOCK ? spec->K : plan->steps;
    plan->chunks = (spec->T + plan->steps - 1) / plan->steps;
    plan->rest = spec->T % plan->steps;
    plan->unroll = spec->unroll != BPTT_UNROLL_AUTO                   ? spec->unroll
                   : plan->steps + plan->rest <= UNROLL_STEPS_AT_MOST ? BPTT_UNROLL_TIME
                                                                      : BPTT_UNROLL_NONE;
    plan->threads = spec->threads > 1 ? (int)spec->threads : 1;
    plan->streams = (spec->batch + plan->threads - 1) / plan->threads;
    plan->line = 64 / plan->real_size > plan->lanes ? 64 / plan->real_size : plan->lanes;
    plan->moments = moments_of(spec);
    plan->accumulates = bptt_accumulates(spec);
    place_progress(plan);
    bptt_status status = bptt_plan_lower(plan, error);
    if (status == BPTT_OK) { status = bptt_plan_stack(plan, error); }
    if (status == BPTT_OK) { status = bptt_plan_overlay(plan, error); }
    if (status == BPTT_OK) {
        bptt_plan_fuse(plan);
        status = bptt_plan_truncate(plan, error);
    }
    if (status == BPTT_OK) { status = bptt_plan_clear(plan, error); }
    if (status == BPTT_OK) { status = bptt_plan_place(plan, memory_limit, error); }
    if (status == BPTT_OK) {
        accumulate(plan);
        status = bptt_plan_tile(plan, error);
    }
    if (status != BPTT_OK) {
        bptt_plan_free(plan);
        return status;
    }
    bptt_plan_count(plan);
    *result = plan;
    return BPTT_OK;
}

void bptt_plan_free(bptt_plan *plan)
{
    if (plan == NULL) { return; }
    free(plan->refs);
    free(plan);
}

/* --- the printed plan ----------------------------------------------------------------------------------------------------------- */

/* "step", or "step 1" where there are levels. */
static const char *phase_text(const bptt_plan *plan, int phase, char text[32])
{
    const bptt_region region = bptt_phase_region(plan, phase);
    if (plan->levels == 1 || region == BPTT_REGION_HEAD || region == BPTT_REGION_REFRESH) { return bptt_region_name(region); }
    (void)snprintf(text, 32, "%s %d", bptt_region_name(region), bptt_phase_level(plan, phase));
    return text;
}

static void print_slots(const bptt_plan *plan, FILE *out)
{
    static const char *const kinds[] = {"K+1 steps", "K steps", "block", "one step", "one row"};
    fprintf(out, "slots: reals of the workspace\n");
    for (int s = 0; s < plan->slot_count; s++) {
        const bptt_slot *slot = &plan->slots[s];
        char first[32], last[32];
        if (slot->size == 0) { continue; }
        fprintf(out, "  %2d %-12s %-9s rows %-6lld cols %-5lld stride %-5lld at %-8zu size %-8zu %s..%s\n", s, slot->name,
                kinds[slot->kind], (long long)bptt_slot_row_count(plan, slot), (long long)slot->cols, (long long)slot->stride,
                slot->offset, slot->size, phase_text(plan, slot->first, first), phase_text(plan, slot->last, last));
    }
}

static void print_actions(const bptt_plan *plan, FILE *out)
{
    char text[32];
    int last = -1;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        const int phase = bptt_phase(plan, action->region, action->level);
        if (phase != last) { fprintf(out, "%s:\n", phase_text(plan, phase, text)); }
        last = phase;
        fprintf(out, "  %-10s %s", bptt_action_name(action->kind), action->note);
        if (action->kind == BPTT_PRODUCT || action->kind == BPTT_GRADIENT) {
            fprintf(out, "   [tile %d+%d x %d+%d%s]", action->tile.rows, action->tile.rest_rows, action->tile.vectors,
                    action->tile.rest_vectors, action->packed ? ", packed" : "");
        }
        fprintf(out, "%s\n", action->into_previous ? "   (t > 0)" : "");
    }
}

void bptt_plan_print(const bptt_plan *plan, FILE *out)
{
    const bptt_spec *spec = plan->spec;
    fprintf(out, "plan: H %lld V %lld T %lld K %lld B %lld, %lld chunks, last of %lld steps, unroll %s, vectors of %d reals\n",
            (long long)spec->hidden, (long long)spec->vocab, (long long)spec->T, (long long)spec->K, (long long)spec->batch,
            (long long)plan->chunks, (long long)(plan->rest > 0 ? plan->rest : plan->steps),
            bptt_spec_word("unroll", (int)plan->unroll), plan->lanes);
    if (plan->threads > 1) {
        fprintf(out, "threads: %d, with up to %lld sequences each; slots, blocks and rows are those of a part\n", plan->threads,
                (long long)plan->streams);
    }
    fprintf(out, "parameters: [inputs][outputs]\n");
    for (int p = 0; p < plan->graph->param_count; p++) {
        const bptt_tensor_plan *tensor = &plan->params[p];
        fprintf(out, "  %2d %-12s rows %-6lld cols %-5lld stride %-5lld at %zu%s%s\n", p,
                plan->graph->nodes[plan->graph->params[p].node].name, (long long)tensor->rows, (long long)tensor->cols,
                (long long)tensor->stride, tensor->offset, tensor->turned ? ", turned copy kept" : "",
                plan->threads == 1 ? ""
                : tensor->own      ? ", a gradient in each part"
                                   : ", each part a range of the gradient");
    }
    print_slots(plan, out);
    fprintf(out, "head blocks of %lld rows\n", (long long)plan->block);
    if (plan->tail_block > 0) { fprintf(out, "tail blocks of %lld rows\n", (long long)plan->tail_block); }
    print_actions(plan, out);
    const bptt_counts *counts = &plan->counts;
    fprintf(out, "counts: %zu parameters, %zu bytes, FLOP per chunk %.0f forward, %.0f backward, %.0f update\n",
            counts->parameters, counts->struct_bytes, counts->flop_forward, counts->flop_backward, counts->flop_update);
}
