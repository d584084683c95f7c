/* tile.c: the plan's pass tile: how many rows and vectors of a product are kept in registers at once.
 *
 * The model: one step over the depth of an r x v tile costs r v multiply-adds and loads v vectors and r scalars; too few
 * accumulators leave the multiply-add pipeline waiting.  Sizes are known, so remainders are weighed too.  Depends on plan.h.
 */
#include "plan.h"

enum { MAX_ROWS = 14, MAX_VECTORS = 8 }; /* what templates/kernels.lua has kernels for */

/* Accumulators that leave registers for the operands. */
static int budget(const bptt_plan *plan)
{
    return plan->simd == 16 ? 28 : 12;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Cycles of one step over the depth, in multiply-adds of a vector.  The loads hide behind the multiply-adds, but not wholly: their
 * operands come from the second-level cache once a matrix is large. */
static double tile_cost(int rows, int vectors)
{
    enum { PIPELINE = 8 }; /* multiply-adds under way: 4 cycles x 2 ports */
    const double accumulators = rows * vectors, loads = 0.75 * vectors + 0.5 * rows;
    return larger(larger(accumulators, loads), 0.5 * PIPELINE) + 0.3 * loads;
}

static double rows_cost(int64_t rows, int tile_rows, int vectors)
{
    if (vectors == 0) { return 0; }
    const int64_t whole = rows / tile_rows, rest = rows % tile_rows;
    const double cost = (double)whole * tile_cost(tile_rows, vectors);
    return rest == 0 ? cost : cost + tile_cost((int)rest, vectors) + 0.5;
}

/* The cheapest tile for `rows` x `vectors` vectors; ties go to the larger one. */
static bptt_tile choose_tile(const bptt_plan *plan, int64_t rows, int64_t vectors)
{
    bptt_tile best = {1, 0, 1, 0};
    double best_cost = -1;
    for (int v = 1; v <= MAX_VECTORS && v <= vectors; v++) {
        for (int r = 1; r <= MAX_ROWS && r <= rows && r * v <= budget(plan); r++) {
            const int64_t panels = vectors / v;
            const double cost = (double)panels * rows_cost(rows, r, v) + rows_cost(rows, r, (int)(vectors % v));
            if (best_cost >= 0 && cost > best_cost) { continue; }
            best_cost = cost;
            best = (bptt_tile){r, (int)(rows % r), v, (int)(vectors % v)};
        }
    }
    return best;
}

/* Rows of C that a call of the action's product has, most of the time. */
static int64_t usual_rows(const bptt_plan *plan, const bptt_action *action)
{
    if (action->kind == BPTT_GRADIENT) { return plan->params[action->param].rows; }
    switch (action->region) {
    case BPTT_REGION_STEP:
    case BPTT_REGION_BACK:
        return plan->spec->batch;
    case BPTT_REGION_HEAD:
        return plan->block;
    default:
        return plan->spec->K * plan->spec->batch;
    }
}

/* Steps that follow each other read the same matrix.  When it is too large for the first-level cache, the end that one step has
 * just read is where the next one begins. */
static bool should_alternate(const bptt_plan *plan, const bptt_action *action)
{
    enum { FIRST_LEVEL_BYTES = 24576 };
    const bptt_tensor_plan *matrix = &plan->params[action->param];
    const double bytes = (double)matrix->rows * (double)matrix->stride * plan->real_size;
    return action->kind == BPTT_PRODUCT && (action->region == BPTT_REGION_STEP || action->region == BPTT_REGION_BACK) &&
           plan->unroll != BPTT_UNROLL_FULL && bytes > FIRST_LEVEL_BYTES;
}

/* Multiply-adds that unroll = "full" spells out: each product once per number of rows it is called with. */
static double spelled_out(const bptt_plan *plan)
{
    double total = 0;
    const double batch = (double)plan->spec->batch, rows = (double)(plan->spec->K + plan->rest) * batch;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (action->kind != BPTT_PRODUCT && action->kind != BPTT_GRADIENT) { continue; }
        const bool step = action->region == BPTT_REGION_STEP || action->region == BPTT_REGION_BACK;
        total += action->flop / 2 * (step ? batch : rows + batch);
    }
    return total;
}

bptt_status bptt_plan_tile(bptt_plan *plan, bptt_error *error)
{
    enum { SPELLED_OUT_AT_MOST = 100000 };
    if (plan->unroll == BPTT_UNROLL_FULL && spelled_out(plan) > SPELLED_OUT_AT_MOST) {
        return bptt_fail(error, BPTT_FAILED,
                         "%s: unroll = 'full' would spell out %.0f multiply-adds, at most %d are (use unroll = 'time')",
                         plan->spec->source, spelled_out(plan), SPELLED_OUT_AT_MOST);
    }
    for (int a = 0; a < plan->action_count; a++) {
        bptt_action *action = &plan->actions[a];
        if (action->kind != BPTT_PRODUCT && action->kind != BPTT_GRADIENT) { continue; }
        int64_t vectors = (action->cols + plan->lanes - 1) / plan->lanes;
        action->tile = choose_tile(plan, usual_rows(plan, action), vectors);
        action->alternates = should_alternate(plan, action);
    }
    return BPTT_OK;
}
