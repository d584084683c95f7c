/* place.c: the plan's pass place: layouts, which rows a slot keeps, and where it lies.
 *
 * What only HEAD touches lives for one block of rows, what only one STEP or BACK touches for one step; all else is kept for the
 * whole chunk.  Slots whose lives do not meet share memory.  Depends on plan.h.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#define MOST 0x1p50 /* reals, and bytes: sums of sizes below it do not overflow, and no machine has more */

/* Reals of rows x stride, or MOST, which does not fit. */
static size_t area(int64_t rows, int64_t stride)
{
    return (double)rows * (double)stride < MOST ? (size_t)(rows * stride) : (size_t)MOST;
}

int64_t bptt_slot_row_count(const bptt_plan *plan, const bptt_slot *slot)
{
    switch (slot->kind) {
    case BPTT_ROWS_STATE:
        return (plan->window + 1) * plan->streams;
    case BPTT_ROWS_CHUNK:
        return plan->window * plan->streams;
    case BPTT_ROWS_BLOCK:
        return plan->block;
    case BPTT_ROWS_ONE:
        return 1;
    default:
        return plan->streams;
    }
}

/* Reals from row to row.  Rows that lie a power of two apart fall into few sets of a cache, where they drive each other out: such rows
 * are a line longer. */
static int64_t stride_of(const bptt_plan *plan, int64_t cols)
{
    enum { LINE_BYTES = 64, TOO_EVEN_BYTES = 1024 };
    const int64_t stride = bptt_padded(plan, cols);
    return stride * plan->real_size % TOO_EVEN_BYTES == 0 ? stride + bptt_padded(plan, LINE_BYTES / plan->real_size) : stride;
}

/* --- parameters ---------------------------------------------------------------------------------------------------------------- */

/* Whether a matrix is square and some product multiplies it by a state. */
static bool is_recurrent(const bptt_graph *graph, int p)
{
    const bptt_node *matrix = &graph->nodes[graph->params[p].node];
    bool found = false;
    for (int n = 0; n < graph->forward && matrix->cols == matrix->rows; n++) {
        const bptt_node *node = &graph->nodes[n];
        const bool reads = node->op == BPTT_OP_MATVEC && node->a == graph->params[p].node;
        found = found || (reads && bptt_graph_state_of(graph, node->b) >= 0);
    }
    return found;
}

static void place_params(bptt_plan *plan)
{
    const bptt_spec *spec = plan->spec;
    for (int p = 0; p < plan->graph->param_count; p++) {
        const bptt_node *node = &plan->graph->nodes[plan->graph->params[p].node];
        bptt_tensor_plan *tensor = &plan->params[p];
        const bool own = spec->init_recurrent.kind != BPTT_INIT_SAME && is_recurrent(plan->graph, p);
        tensor->init = own ? spec->init_recurrent : spec->init;
        tensor->rows = node->cols > 0 ? node->cols : 1;
        tensor->cols = node->rows;
        bptt_tensor_plan *leader = &plan->params[tensor->leader];
        if (tensor->column + tensor->cols > leader->width) { leader->width = tensor->column + tensor->cols; }
        if (tensor->leader != p) { continue; }
        tensor->stride = stride_of(plan, tensor->stride > 0 ? tensor->stride : tensor->cols);
        tensor->offset = plan->block_size;
        plan->block_size += area(tensor->rows, tensor->stride);
    }
    for (int p = 0; p < plan->graph->param_count; p++) {
        bptt_tensor_plan *tensor = &plan->params[p];
        tensor->offset = plan->params[tensor->leader].offset + (size_t)tensor->column;
        tensor->stride = plan->params[tensor->leader].stride;
        tensor->width = plan->params[tensor->leader].width;
    }
}

/* Second copies of the matrices that some action reads turned and does not pack. */
static void place_turned(bptt_plan *plan)
{
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (!action->turned || bptt_should_pack(plan, action)) { continue; }
        bptt_tensor_plan *leader = &plan->params[plan->params[action->param].leader];
        if (leader->turned) { continue; }
        leader->turned = true;
        leader->turned_stride = stride_of(plan, leader->rows);
        leader->turned_offset = plan->turned_size;
        plan->turned_size += area(leader->width, leader->turned_stride);
    }
    for (int p = 0; p < plan->graph->param_count; p++) {
        bptt_tensor_plan *tensor = &plan->params[p];
        const bptt_tensor_plan *leader = &plan->params[tensor->leader];
        tensor->turned = leader->turned;
        tensor->turned_stride = leader->turned_stride;
        tensor->turned_offset = leader->turned_offset + (size_t)(tensor->column * leader->turned_stride);
    }
}

static bool is_member(const bptt_plan *plan, int param, int leader)
{
    return param >= 0 && plan->params[param].leader == leader;
}

/* Which parameters an update may skip rows of.  What changes a parameter without a gradient (momentum, averages, decay)
 * may not. */
static void find_sparse(bptt_plan *plan)
{
    const bptt_optimizer_kind rule = plan->spec->optimizer.kind;
    if ((rule != BPTT_SGD && rule != BPTT_ADAGRAD) || plan->spec->optimizer.weight_decay > 0) { return; }
    if (plan->unroll == BPTT_UNROLL_FULL) { return; }
    for (int p = 0; p < plan->graph->param_count; p++) {
        bool gathered = false, dense = false;
        for (int a = 0; a < plan->action_count; a++) {
            const bptt_action *action = &plan->actions[a];
            if (!is_member(plan, action->param, plan->params[p].leader)) { continue; }
            gathered = gathered || action->kind == BPTT_SCATTER;
            dense = dense || action->kind == BPTT_GRADIENT;
        }
        plan->params[p].sparse = gathered && !dense;
    }
}

/* --- slots ----------------------------------------------------------------------------------------------------------------------- */

typedef struct usage {
    uint64_t phases; /* bit p: touched in phase p */
    bool shifted;    /* some step touches another step's rows */
} usage;

_Static_assert(4 * BPTT_MAX_LEVELS + 3 <= 64, "a bit for every phase");

static void touch(usage *of, const bptt_ref *ref, int phase)
{
    if (ref->kind != BPTT_REF_SLOT) { return; }
    of[ref->index].phases |= (uint64_t)1 << phase;
    of[ref->index].shifted = of[ref->index].shifted || ref->shift != 0;
}

static void find_usage(const bptt_plan *plan, usage *of)
{
    for (int i = 0; i < plan->action_count; i++) {
        const bptt_action *action = &plan->actions[i];
        const int phase = bptt_phase(plan, action->region, action->level);
        touch(of, &action->out, phase);
        touch(of, &action->in, phase);
        touch(of, &action->adjoint, phase);
        for (int e = 0; e < action->element_count; e++) {
            touch(of, &action->elements[e].out, phase);
            touch(of, &action->elements[e].a, phase);
            touch(of, &action->elements[e].b, phase);
        }
    }
}

/* A host is used as its members are, and they as it is. */
static void share_usage(const bptt_plan *plan, usage *of)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int s = 0; s < plan->slot_count; s++) {
            const int host = plan->slots[s].host;
            if (host < 0) { continue; }
            usage *to = &of[pass == 0 ? host : s];
            const usage *from = &of[pass == 0 ? s : host];
            *to = (usage){to->phases | from->phases, to->shifted || from->shifted};
        }
    }
}

static void choose_rows(const bptt_plan *plan, bptt_slot *slot, const usage *of)
{
    const int phases = bptt_phase_count(plan);
    for (int p = phases - 1; p >= 0; p--) {
        if ((of->phases >> p & 1u) != 0) { slot->first = p; }
    }
    for (int p = 0; p < phases; p++) {
        if ((of->phases >> p & 1u) != 0) { slot->last = p; }
    }
    if (slot->kind == BPTT_ROWS_ONE) { return; }
    if (slot->kind == BPTT_ROWS_STATE || slot->kept) { /* lives from chunk to chunk */
        slot->first = bptt_phase(plan, BPTT_REGION_INPUT, 0);
        slot->last = phases - 1;
        return;
    }
    const bool uniform = plan->spec->truncation == BPTT_TRUNCATION_UNIFORM;
    const bptt_region region = bptt_phase_region(plan, slot->first);
    const bool single = slot->first == slot->last && !of->shifted && !slot->kept;
    slot->kind = single && region == BPTT_REGION_HEAD                                                 ? BPTT_ROWS_BLOCK
                 : single && (region == BPTT_REGION_STEP || (region == BPTT_REGION_BACK && !uniform)) ? BPTT_ROWS_STEP
                                                                                                      : BPTT_ROWS_CHUNK;
}

/* About as many blocks as blocks of `size` rows make, but all of a size: the last one has as much to do. */
static int64_t even_blocks(int64_t rows, int64_t size, int64_t multiple)
{
    const int64_t about = (rows + size / 2) / size, blocks = about > 1 ? about : 1;
    return ((rows + blocks - 1) / blocks + multiple - 1) / multiple * multiple;
}

/* Rows of a HEAD block: so many that its widest slot stays near the core with the rows that feed it, in sixteens so that
 * tiles divide it.  Weights that no cache holds are read anew for each block: then blocks are larger. */
static int64_t choose_block(const bptt_plan *plan)
{
    enum { CACHE_BYTES = 65536, ROWS_AT_LEAST = 64, MULTIPLE = 16, SHARE_OF_WEIGHTS = 4 };
    const int64_t weights = (int64_t)plan->block_size * plan->real_size;
    const int64_t rows = plan->steps * plan->streams;
    int64_t widest = 1;
    for (int s = 0; s < plan->slot_count; s++) {
        if (plan->slots[s].kind == BPTT_ROWS_BLOCK && plan->slots[s].stride > widest) { widest = plan->slots[s].stride; }
    }
    const int64_t room = weights / SHARE_OF_WEIGHTS > CACHE_BYTES ? weights / SHARE_OF_WEIGHTS : CACHE_BYTES;
    int64_t block = room / (widest * plan->real_size) / MULTIPLE * MULTIPLE;
    if (block < ROWS_AT_LEAST) { block = ROWS_AT_LEAST; }
    block = even_blocks(rows, block, MULTIPLE);
    if (block < plan->streams) { block = plan->streams; } /* predict uses one block for its rows */
    return block < rows && plan->unroll != BPTT_UNROLL_FULL ? block : rows;
}

/* Rows of a TAIL block: what several sums read of them stays in the second-level cache from one sum to the next.  0 where all rows do. */
static int64_t choose_tail_block(const bptt_plan *plan)
{
    enum { CACHE_BYTES = 1048576, ROWS = 512 };
    int64_t widest = 0;
    bool can = plan->unroll != BPTT_UNROLL_FULL && plan->spec->truncation == BPTT_TRUNCATION_CHUNK;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (action->region != BPTT_REGION_TAIL || !bptt_sums_over_rows(action)) { continue; }
        const int64_t stride = plan->slots[action->adjoint.index].stride;
        widest = stride > widest ? stride : widest;
        can = can && !action->cut; /* waits for the other parts, and then all rows are there */
    }
    const int64_t rows = plan->steps * plan->streams;
    return can && rows > ROWS && rows * widest * plan->real_size > CACHE_BYTES ? ROWS : 0;
}

/* What comes after HEAD runs once a lag. */
static int begins(const bptt_plan *plan, const bptt_slot *slot)
{
    const int head = bptt_phase(plan, BPTT_REGION_HEAD, 0);
    const bool again = plan->spec->truncation == BPTT_TRUNCATION_UNIFORM && slot->first > head;
    return again ? head + 1 : slot->first;
}

/* Nor are sums that are cut done before all else is. */
static int ends(const bptt_plan *plan, const bptt_slot *slot)
{
    const int head = bptt_phase(plan, BPTT_REGION_HEAD, 0);
    const bool later = plan->threads > 1 || plan->spec->truncation == BPTT_TRUNCATION_UNIFORM;
    return later && slot->last > head ? bptt_phase_count(plan) - 1 : slot->last;
}

/* Spelled-out sums write no padding, so there nobody may leave some behind. */
static bool lives_meet(const bptt_plan *plan, const bptt_slot *a, const bptt_slot *b)
{
    return plan->unroll == BPTT_UNROLL_FULL || (begins(plan, a) <= ends(plan, b) && begins(plan, b) <= ends(plan, a));
}

/* First fit: the lowest offset at which `slot` meets no earlier slot that is alive with it. */
static void place_slot(bptt_plan *plan, int s)
{
    bptt_slot *slot = &plan->slots[s];
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int o = 0; o < s; o++) {
            const bptt_slot *other = &plan->slots[o];
            if (other->host < 0 && other->size > 0 && other->kind != BPTT_ROWS_ONE && lives_meet(plan, slot, other) &&
                offset < other->offset + other->size && other->offset < offset + slot->size) {
                offset = other->offset + other->size;
                moved = true;
            }
        }
    }
    slot->offset = offset;
    if (offset + slot->size > plan->work_size) { plan->work_size = offset + slot->size; }
}

/* A byte for each row of a chunk, or window, behind the slots, in whole vectors. */
static void place_restart(bptt_plan *plan)
{
    const int64_t reals = (plan->window * plan->streams + plan->real_size - 1) / plan->real_size;
    plan->restart = plan->work_size;
    if (bptt_spec_restarts(plan->spec)) { plan->work_size += (size_t)bptt_padded(plan, reals); }
}

/* What lies beside the parts while no chunk runs: the states, and in a window all that is kept. */
static void place_carried(bptt_plan *plan)
{
    const bool block = plan->spec->truncation == BPTT_TRUNCATION_BLOCK;
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        const bool state = slot->kind == BPTT_ROWS_STATE;
        if (slot->host >= 0 || !(state || slot->kept)) { continue; }
        slot->carried = plan->carried_size;
        plan->carried_size += area(((block ? plan->window : 0) + (state ? 1 : 0)) * plan->spec->batch, slot->stride);
    }
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        if (slot->host >= 0) { slot->carried = plan->slots[slot->host].carried + (size_t)slot->column; }
    }
}

/* Rounds up so that the struct, and a part of it, is a whole number of vectors, whatever a compiler knows of alignment. */
static void round_struct(bptt_plan *plan)
{
    const size_t unit = (size_t)(plan->simd > 4 ? plan->simd : 4) * 4 / (size_t)plan->real_size, line = (size_t)plan->line;
    size_t reals = plan->block_size * (2 + (size_t)plan->moments) + plan->turned_size;
    if (plan->threads == 1) {
        plan->work_size += (unit - (reals + plan->work_size) % unit) % unit;
        return;
    }
    plan->work_size += (line - (plan->work_size + plan->own_size) % line) % line;
    reals += plan->carried_size;
    plan->carried_size += (unit - reals % unit) % unit;
}

/* Of a row that a part is given: inputs, labels, targets, and whether a document starts. */
static size_t given_bytes(const bptt_spec *spec, int real_size)
{
    const size_t tokens = (size_t)bptt_spec_tokens(spec) + (size_t)bptt_spec_labels(spec);
    return (size_t)(spec->inputs + spec->outputs) * (size_t)real_size + tokens * sizeof(uint32_t) + (size_t)spec->resets;
}

size_t bptt_part_bytes(const bptt_plan *plan)
{
    const size_t reals = plan->work_size + plan->own_size, row = given_bytes(plan->spec, plan->real_size);
    return reals * (size_t)plan->real_size + (size_t)plan->tokens * sizeof(uint32_t) + (size_t)plan->given * row;
}

static bool fits(const bptt_plan *plan, size_t memory_limit, double *bytes)
{
    const double blocks = (2.0 + plan->moments) * (double)plan->block_size,
                 part = (double)plan->work_size + (double)plan->own_size;
    const double reals = blocks + (double)plan->turned_size + (double)plan->carried_size + plan->threads * part;
    const double given = (double)plan->given * (double)given_bytes(plan->spec, plan->real_size);
    *bytes = reals * plan->real_size + plan->threads * ((double)plan->tokens * sizeof(uint32_t) + given);
    return *bytes <= (double)memory_limit && *bytes < MOST;
}

/* --- threads --------------------------------------------------------------------------------------------------------------------- */

/* Reals that a sum reads of a row. */
static double summed_reals(const bptt_plan *plan, const bptt_action *action)
{
    const double in = action->in.kind == BPTT_REF_SLOT ? (double)plan->slots[action->in.index].cols : 0;
    return in + (double)plan->slots[action->adjoint.index].cols;
}

/* What one pass sums, a table's gradient and a bias's, is cut together. */
static void agree(bptt_plan *plan)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (int a = 0; a < plan->action_count; a++) {
            const bptt_action *action = &plan->actions[a];
            if (!bptt_sums_over_rows(action) || action->bias < 0) { continue; }
            bptt_tensor_plan *table = &plan->params[plan->params[action->param].leader];
            bptt_tensor_plan *bias = &plan->params[plan->params[action->bias].leader];
            changed = changed || table->own != bias->own;
            table->own = bias->own = table->own && bias->own;
        }
    }
}

/* Which sums are cut.  What parts read of each other's memory decides: rows, or sums. */
static void choose_sums(bptt_plan *plan)
{
    const double rows = (double)plan->window * (double)plan->spec->batch;
    for (int p = 0; p < plan->graph->param_count; p++) { plan->params[p].own = plan->threads > 1; }
    for (int a = 0; a < plan->action_count && plan->threads > 1; a++) {
        const bptt_action *action = &plan->actions[a];
        if (!bptt_sums_over_rows(action)) { continue; }
        bptt_tensor_plan *leader = &plan->params[plan->params[action->param].leader];
        const double sums = (double)plan->threads * (double)leader->rows * (double)leader->stride;
        leader->own = leader->own && sums <= rows * summed_reals(plan, action);
    }
    agree(plan);
    for (int a = 0; a < plan->action_count; a++) {
        bptt_action *action = &plan->actions[a];
        const int leader = bptt_sums_over_rows(action) ? plan->params[action->param].leader : -1;
        action->cut = plan->threads > 1 && leader >= 0 && !plan->params[leader].own;
    }
}

/* The gradients that each part has of its own. */
static void place_own(bptt_plan *plan)
{
    for (int p = 0; p < plan->graph->param_count; p++) {
        bptt_tensor_plan *tensor = &plan->params[p], *leader = &plan->params[tensor->leader];
        if (tensor == leader && tensor->own) {
            tensor->own_offset = plan->own_size;
            plan->own_size += area(tensor->rows, tensor->stride);
        }
    }
    for (int p = 0; p < plan->graph->param_count; p++) {
        bptt_tensor_plan *tensor = &plan->params[p];
        const bptt_tensor_plan *leader = &plan->params[tensor->leader];
        tensor->own = leader->own;
        tensor->own_offset = leader->own_offset + (size_t)tensor->column;
    }
}

/* Where the slots lie: members where their hosts do, which may come before or after them. */
static void place_slots(bptt_plan *plan, const usage *of)
{
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        slot->size = of[s].phases == 0 && !slot->kept ? 0 : area(bptt_slot_row_count(plan, slot), slot->stride);
        if (slot->kind == BPTT_ROWS_ONE) { /* depends on the weights alone, as the turned copies do */
            slot->offset = plan->turned_size;
            plan->turned_size += slot->size;
        } else if (slot->host < 0) {
            place_slot(plan, s);
        }
    }
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        if (slot->host < 0) { continue; }
        slot->offset = plan->slots[slot->host].offset + (size_t)slot->column;
        slot->size -= (size_t)slot->column;
    }
}

bptt_status bptt_plan_place(bptt_plan *plan, size_t memory_limit, bptt_error *error)
{
    enum { GIVEN_UNIT = 64 }; /* bytes of a line: so many rows of anything are whole lines */
    usage of[BPTT_MAX_SLOTS] = {{0}};
    place_params(plan);
    choose_sums(plan);
    place_own(plan);
    find_sparse(plan);
    find_usage(plan, of);
    share_usage(plan, of);
    for (int s = 0; s < plan->slot_count; s++) {
        bptt_slot *slot = &plan->slots[s];
        slot->stride = stride_of(plan, slot->host < 0 ? slot->cols : plan->slots[slot->host].cols);
        choose_rows(plan, slot, &of[s]);
    }
    plan->block = choose_block(plan);
    plan->tail_block = choose_tail_block(plan);
    place_turned(plan);
    place_slots(plan, of);
    place_restart(plan);
    if (plan->threads > 1) {
        plan->given = (plan->steps * plan->streams + GIVEN_UNIT - 1) / GIVEN_UNIT * GIVEN_UNIT;
        place_carried(plan);
    }
    round_struct(plan);
    double bytes = 0;
    if (!fits(plan, memory_limit, &bytes)) {
        return bptt_fail(error, BPTT_FAILED, "%s: the model needs %.0f bytes (%.1f GiB), this machine has %zu (%.1f GiB)",
                         plan->spec->source, bytes, bytes / 0x1p30, memory_limit, (double)memory_limit / 0x1p30);
    }
    return BPTT_OK;
}
