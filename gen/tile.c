/* tile.c: the plan's pass tile: how many rows and vectors of a product are kept in registers at once.
 *
 * The model: one step over the depth of an r x v tile costs r v multiply-adds and loads v vectors and r scalars; too few
 * accumulators leave the multiply-add pipeline waiting.  Sizes are known, so remainders are weighed too.  Depends on plan.h.
 * Tiles that were measured on the machine (spec.tuning) go before the model's.
 */
#include "plan.h"

#include <string.h>

enum { MAX_ROWS = 14, MAX_VECTORS = 8, MAX_ACCUMULATORS = 28 }; /* what templates/kernels.lua has kernels for */

/* Vector registers of the machines that have vectors so wide. */
static int registers(const bptt_plan *plan)
{
    return plan->simd == 16 ? 32 : 16;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Time of one step over the depth, in multiply-adds of a vector: two a cycle.  The loads hide behind the multiply-adds, but not wholly:
 * their operands come from the second-level cache once a matrix is large.  Measured with every tile on AVX-512. */
static double tile_cost(bool outer, int rows, int vectors)
{
    enum { PIPELINE = 8, MOST_CHAINS = 4, FEW_ROWS = 3, HALF_LINE = 8 }; /* multiply-adds under way: 4 cycles x 2 ports */
    const int accumulators = rows * vectors, all = PIPELINE / accumulators;
    const int chains = outer || all < 1 ? 1 : all > MOST_CHAINS ? MOST_CHAINS : all; /* see templates/kernels/tile.c */
    const double loads = vectors + 0.5 * rows;
    /* Few rows wait for the second-level cache; and of a vector that is used two or three times, gcc makes as many loads. */
    const double work = rows <= FEW_ROWS ? 2.0 * accumulators : accumulators;
    const double split = outer && rows % HALF_LINE != 0 ? 0.5 : 0; /* now and then the rows of a term lie on two lines */
    return larger(larger(work, loads), (double)PIPELINE / chains) + 0.3 * loads + split;
}

static double rows_cost(bool outer, int64_t rows, int tile_rows, int vectors)
{
    if (vectors == 0) { return 0; }
    const int64_t whole = rows / tile_rows, rest = rows % tile_rows;
    const double cost = (double)whole * tile_cost(outer, tile_rows, vectors);
    return rest == 0 ? cost : cost + tile_cost(outer, (int)rest, vectors) + 0.5;
}

int64_t bptt_product_rows(const bptt_plan *plan, const bptt_action *action)
{
    if (action->kind != BPTT_GRADIENT) { return bptt_call_rows(plan, action); }
    const int64_t rows = plan->params[action->param].rows;
    return action->cut ? (rows + plan->threads - 1) / plan->threads : rows;
}

static int64_t vectors_of(const bptt_plan *plan, const bptt_action *action)
{
    return (action->cols + plan->lanes - 1) / plan->lanes;
}

/* Whether there is a kernel, work for it, and registers: for the accumulators, the vectors of a row and one operand. */
static bool is_possible(const bptt_plan *plan, const bptt_action *action, int rows, int vectors)
{
    return rows >= 1 && rows <= MAX_ROWS && rows <= bptt_product_rows(plan, action) && vectors >= 1 && vectors <= MAX_VECTORS &&
           vectors <= vectors_of(plan, action) && rows * vectors <= MAX_ACCUMULATORS &&
           rows * vectors + (rows > 1 ? vectors : 0) + 1 <= registers(plan); /* a single row uses each vector once */
}

static bptt_tile tile_of(const bptt_plan *plan, const bptt_action *action, int rows, int vectors)
{
    return (bptt_tile){rows, (int)(bptt_product_rows(plan, action) % rows), vectors, (int)(vectors_of(plan, action) % vectors)};
}

static double product_cost(const bptt_plan *plan, const bptt_action *action, const bptt_tile *tile)
{
    const int64_t rows = bptt_product_rows(plan, action), panels = vectors_of(plan, action) / tile->vectors;
    const bool outer = action->kind == BPTT_GRADIENT;
    return (double)panels * rows_cost(outer, rows, tile->rows, tile->vectors) +
           rows_cost(outer, rows, tile->rows, tile->rest_vectors);
}

int bptt_plan_tiles(const bptt_plan *plan, const bptt_action *action, bptt_tile *tiles, int room)
{
    double costs[BPTT_MAX_TILES] = {0};
    int count = 0;
    if (room > BPTT_MAX_TILES) { room = BPTT_MAX_TILES; }
    for (int v = 1; v <= MAX_VECTORS; v++) {
        for (int r = 1; r <= MAX_ROWS; r++) {
            if (!is_possible(plan, action, r, v)) { continue; }
            const bptt_tile tile = tile_of(plan, action, r, v);
            const double cost = product_cost(plan, action, &tile);
            int place = count;
            while (place > 0 && costs[place - 1] >= cost) { place--; } /* of equals, the larger goes first */
            if (place == room) { continue; }
            if (count < room) { count++; }
            memmove(tiles + place + 1, tiles + place, (size_t)(count - 1 - place) * sizeof *tiles);
            memmove(costs + place + 1, costs + place, (size_t)(count - 1 - place) * sizeof *costs);
            tiles[place] = tile;
            costs[place] = cost;
        }
    }
    return count;
}

/* --- the pass ------------------------------------------------------------------------------------------------------------------- */

static bool is_product(const bptt_action *action)
{
    return action->kind == BPTT_PRODUCT || action->kind == BPTT_GRADIENT;
}

bool bptt_has_tile(const bptt_plan *plan, const bptt_action *action)
{
    return is_product(action) && plan->unroll != BPTT_UNROLL_FULL;
}

/* Steps that follow each other read the same matrix.  When it is too large for the first-level cache, the end that one step has
 * just read is where the next one begins. */
static bool should_alternate(const bptt_plan *plan, const bptt_action *action)
{
    enum { FIRST_LEVEL_BYTES = 24576 };
    const double bytes = (double)action->depth * (double)bptt_padded(plan, action->cols) * plan->real_size;
    const int64_t times = plan->window - (action->into_previous ? 1 : 0);
    return bptt_has_tile(plan, action) && action->kind == BPTT_PRODUCT && bptt_in_time(plan, action) && times > 1 &&
           bytes > FIRST_LEVEL_BYTES;
}

/* May the product come before the action as well as behind it? */
static bool is_independent(const bptt_plan *plan, const bptt_action *product, const bptt_action *action)
{
    return !bptt_writes(plan, action, product->in.index) && !bptt_touches(plan, action, product->out.index);
}

static bool is_same_time(const bptt_action *a, const bptt_action *b)
{
    return a->region == b->region && a->level == b->level && a->into_previous == b->into_previous;
}

/* Products of a step that alternate read one matrix after the other, as if they were one: where they can, they stand together, and
 * where the sums run backwards, so do they. */
static void bring_together(bptt_plan *plan)
{
    for (int first = 0, next; first < plan->action_count; first = next) {
        next = first + 1;
        for (int a = next; plan->actions[first].alternates && a < plan->action_count; a++) {
            const bptt_action action = plan->actions[a];
            if (action.region != plan->actions[first].region || action.level != plan->actions[first].level) { break; }
            bool can = action.alternates && is_same_time(&action, &plan->actions[first]);
            for (int before = first; before < a && can; before++) { can = is_independent(plan, &action, &plan->actions[before]); }
            if (!can) { continue; }
            memmove(plan->actions + next + 1, plan->actions + next, (size_t)(a - next) * sizeof action);
            plan->actions[next] = action;
            plan->actions[next++].follows = true;
        }
    }
}

/* Where each term of a panel lies on a page of its own, and the panel is deep and read by tiles enough to pay for it. */
bool bptt_should_pack(const bptt_plan *plan, const bptt_action *action)
{
    enum { FAR_BYTES = 4096, DEEP = 128, MANY_ROWS = 320 };
    if (!bptt_has_tile(plan, action) || bptt_in_time(plan, action)) { return false; }
    const bool gradient = action->kind == BPTT_GRADIENT;
    const int64_t depth = gradient ? bptt_call_rows(plan, action) : action->depth;
    const int64_t stride = gradient         ? plan->slots[action->adjoint.index].stride
                           : action->turned ? bptt_padded(plan, action->cols)
                                            : plan->params[action->param].stride;
    return stride * plan->real_size >= FAR_BYTES && depth >= DEEP && bptt_product_rows(plan, action) >= MANY_ROWS;
}

/* Tile after tile reads the same vectors of a panel.  A panel that the second-level cache does not hold is taken in stretches. */
static void choose_terms(const bptt_plan *plan, bptt_action *action)
{
    enum { PANEL_BYTES = 327680, STRETCH_BYTES = 131072, PACKED_BYTES = 196608 };
    if (!bptt_has_tile(plan, action) || bptt_in_time(plan, action)) { return; }
    const int64_t depth = action->kind == BPTT_GRADIENT ? bptt_call_rows(plan, action) : action->depth;
    const int64_t term_bytes = (int64_t)action->tile.vectors * plan->lanes * plan->real_size;
    action->packed = bptt_should_pack(plan, action);
    if (action->packed) {
        const int64_t most = PACKED_BYTES / term_bytes, stretches = (depth + most - 1) / most;
        action->terms = (depth + stretches - 1) / stretches;
    } else if (depth * term_bytes > PANEL_BYTES) {
        action->terms = STRETCH_BYTES / term_bytes;
    }
}

/* Rows of all functions that a product over rows has on the way back: of every number that a window, or a lag, has. */
static double back_rows(const bptt_plan *plan)
{
    const double batch = (double)plan->spec->batch, steps = (double)plan->steps, K = (double)plan->spec->K;
    switch (plan->spec->truncation) {
    case BPTT_TRUNCATION_BLOCK: { /* one stride after the other, until it is full */
        const int64_t full = (plan->spec->K + plan->steps - 1) / plan->steps, windows = full * (full + 1) / 2;
        return ((double)windows * steps + (double)plan->rest) * batch;
    }
    case BPTT_TRUNCATION_UNIFORM:
        return (K + 1) * (steps - K / 2) * batch;
    default:
        return (steps + (double)plan->rest) * batch;
    }
}

/* Multiply-adds that unroll = "full" spells out: each product once per number of rows it is called with. */
static double spelled_out(const bptt_plan *plan)
{
    double total = 0;
    const double batch = (double)plan->spec->batch, rows = (double)(plan->steps + plan->rest) * batch;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (!is_product(action)) { continue; }
        const bool back = action->region == BPTT_REGION_BACK || action->region == BPTT_REGION_TAIL;
        total += action->flop / 2 * (bptt_in_time(plan, action) ? batch : (back ? back_rows(plan) : rows) + batch);
    }
    return total;
}

static bptt_action *find_product(bptt_plan *plan, const char *name)
{
    for (int a = 0; a < plan->action_count; a++) {
        if (bptt_has_tile(plan, &plan->actions[a]) && strcmp(plan->actions[a].name, name) == 0) { return &plan->actions[a]; }
    }
    return NULL;
}

/* The tiles come from a file, so each is looked at. */
static bptt_status obey_tuning(bptt_plan *plan, bptt_error *error)
{
    const bptt_tuning *tuning = plan->spec->tuning;
    for (size_t i = 0; i < tuning->count; i++) {
        const char *name = tuning->of[i].product;
        const bptt_tile_size *tile = &tuning->of[i].tile;
        bptt_action *action = find_product(plan, name);
        if (action == NULL) {
            return bptt_fail(error, BPTT_FAILED,
                             "%s: the tuning speaks of a product '%s' that is not there; run 'bptt tune' again",
                             plan->spec->source, name);
        }
        if (!is_possible(plan, action, tile->rows, tile->vectors)) {
            return bptt_fail(error, BPTT_FAILED, "%s: the tuning's tile %dx%d cannot be that of %s; run 'bptt tune' again",
                             plan->spec->source, tile->rows, tile->vectors, name);
        }
        action->tile = tile_of(plan, action, tile->rows, tile->vectors);
    }
    return BPTT_OK;
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
        if (!is_product(action)) { continue; }
        (void)bptt_plan_tiles(plan, action, &action->tile, 1);
        action->alternates = should_alternate(plan, action);
    }
    if (plan->spec->tuning != NULL && obey_tuning(plan, error) != BPTT_OK) { return BPTT_FAILED; }
    for (int a = 0; a < plan->action_count; a++) { choose_terms(plan, &plan->actions[a]); }
    bring_together(plan);
    return BPTT_OK;
}
