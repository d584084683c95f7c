/* test_plan.c: what the plan decides for the rnn cell: exact text for one, invariants for many.
 *
 * Depends on Check, oracle.h (random specs) and interpret.h (specs).  That the plan of any cell computes its gradient is
 * test_cells.c's business.
 */
#include "../gen/compile.h"
#include "../gen/plan.h"
#include "interpret.h"
#include "oracle.h"

enum { RANDOM_SPECS = 200 };

static bptt_error error;

/* The plan of the rnn cell; its graph goes with it. */
typedef struct planned {
    bptt_graph graph;
    bptt_plan *plan;
} planned;

static bptt_status make(const bptt_spec *spec, int simd, size_t memory_limit, planned *p)
{
    memset(&error, 0, sizeof error);
    p->plan = NULL;
    ck_assert_int_eq(bptt_trace(spec, &p->graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_derive(&p->graph, &error), BPTT_OK);
    return bptt_plan_make(spec, &p->graph, simd, memory_limit, &p->plan, &error);
}

static void drop(planned *p)
{
    bptt_plan_free(p->plan);
    bptt_graph_free(&p->graph);
}

static char *dump(const bptt_spec *spec, int simd, const char *stage)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    ck_assert_msg(bptt_dump(spec, simd, SIZE_MAX, stage, out, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

/* --- exact text ------------------------------------------------------------------------------------------------------------------- */

START_TEST(tiny_as_text)
{
    bptt_spec spec = interpret_spec(3, 5, 5, 2, 1);
    spec.dtype = BPTT_F32;
    char *text = dump(&spec, 4, "plan");
    ck_assert_str_eq(text,
                     "plan: H 3 V 5 T 5 K 2 B 1, 3 chunks, last of 1 steps, unroll time, vectors of 4 reals\n"
                     "parameters: [inputs][outputs]\n"
                     "   0 W_xh         rows 5      cols 3     stride 4     at 0\n"
                     "   1 W_hh         rows 3      cols 3     stride 4     at 20, turned copy kept\n"
                     "   2 b_h          rows 1      cols 3     stride 4     at 32\n"
                     "   3 W_hy         rows 3      cols 5     stride 8     at 36, turned copy kept\n"
                     "   4 b_y          rows 1      cols 5     stride 8     at 60\n"
                     "slots: reals of the workspace\n"
                     "   0 h            K+1 steps rows 3      cols 3     stride 4     at 0        size 12       input..tail\n"
                     "   1 dh           K steps   rows 2      cols 3     stride 4     at 12       size 8        head..tail\n"
                     "   2 o            block     rows 2      cols 5     stride 8     at 20       size 16       head..head\n"
                     "head blocks of 2 rows\n"
                     "input:\n"
                     "  gather     a[t] = W_xh x[t] + b_h\n"
                     "step:\n"
                     "  product    a[t] += W_hh h[t-1]   [tile 1+0 x 1+0]\n"
                     "  chain      h[t] = tanh(a[t])\n"
                     "head:\n"
                     "  product    o[t] = W_hy h[t] + b_y   [tile 2+0 x 2+0]\n"
                     "  loss       loss -= log softmax(o[t])[y[t]], do[t] = softmax(o[t]) - onehot(y[t])\n"
                     "  product    dh[t] = W_hy' do[t]   [tile 2+0 x 1+0]\n"
                     "  gradient   dW_hy = sum over t of do[t] h[t]'   [tile 3+0 x 2+0]\n"
                     "  column_sum db_y = sum over t of do[t]\n"
                     "back:\n"
                     "  chain      da[t] = tanh_adjoint(dh[t], h[t])\n"
                     "  product    carry to t-1 += W_hh' da[t]   [tile 1+0 x 1+0]   (t > 0)\n"
                     "tail:\n"
                     "  scatter    dW_xh = sum over t of da[t] x[t]', db_h = sum over t of da[t]\n"
                     "  gradient   dW_hh = sum over t of da[t] h[t-1]'   [tile 3+0 x 1+0]\n"
                     "counts: 47 parameters, 848 bytes, FLOP per chunk 148 forward, 202 backward, 188 update\n");
    free(text);
}
END_TEST

/* The same step graph and adjoint for every K, B and T; the plan alone differs. */
START_TEST(horizon_lives_in_the_plan)
{
    static const char *const stages[] = {"graph", "adjoint", "plan"};
    for (int s = 0; s < 3; s++) {
        bptt_spec full = interpret_spec(3, 5, 6, 6, 1), truncated = interpret_spec(3, 5, 6, 4, 1);
        char *a = dump(&full, 4, stages[s]), *b = dump(&truncated, 4, stages[s]);
        ck_assert_int_eq(strcmp(a, b) == 0, s < 2);
        free(a);
        free(b);
    }
}
END_TEST

START_TEST(stages_by_name)
{
    bptt_spec spec = interpret_spec(3, 5, 6, 6, 1);
    char *text = dump(&spec, 4, "spec");
    ck_assert_str_eq(text, spec.text);
    free(text);
    ck_assert_int_eq(bptt_dump(&spec, 4, SIZE_MAX, "plans", stdout, &error), BPTT_USAGE);
    ck_assert_str_eq(error.text, "--dump plans: expected spec, graph, adjoint or plan");
}
END_TEST

/* --- invariants ------------------------------------------------------------------------------------------------------------------- */

static bool overlap(size_t a, size_t a_size, size_t b, size_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

/* Whole vectors; a line more where the rows would lie a power of two apart. */
static bool is_stride(const bptt_plan *plan, int64_t stride, int64_t cols)
{
    const int64_t spare = stride - bptt_padded(plan, cols);
    return (stride - spare) * plan->real_size % 1024 == 0 ? spare * plan->real_size >= 64 && spare < 17 + plan->lanes
                                                          : spare == 0;
}

static void check_slots(const bptt_plan *plan)
{
    for (int s = 0; s < plan->slot_count; s++) {
        const bptt_slot *slot = &plan->slots[s];
        ck_assert_int_eq(slot->stride % plan->lanes, 0);
        const bptt_slot *home = slot->host < 0 ? slot : &plan->slots[slot->host];
        ck_assert(slot->stride == home->stride && is_stride(plan, home->stride, home->cols));
        ck_assert(slot->size == 0 || slot->size == (size_t)(bptt_slot_row_count(plan, slot) * slot->stride));
        ck_assert_uint_eq(slot->offset % (size_t)plan->lanes, 0);
        ck_assert_uint_le(slot->offset + slot->size, plan->work_size);
        for (int o = 0; o < s; o++) {
            const bptt_slot *other = &plan->slots[o];
            if (slot->host >= 0 || other->host >= 0) { continue; } /* in their host */
            const bool together = slot->first <= other->last && other->first <= slot->last;
            ck_assert(!together || !overlap(slot->offset, slot->size, other->offset, other->size));
        }
    }
}

/* What an action touches lies in a slot that is alive in its region, with the rows that it reads there. */
static void check_ref(const bptt_plan *plan, const bptt_ref *ref, const bptt_action *action)
{
    if (ref->kind == BPTT_REF_NONE) { return; }
    if (ref->kind == BPTT_REF_TEMP) {
        ck_assert(action->kind == BPTT_CHAIN && ref->index >= 0 && ref->index < action->temp_count);
        return;
    }
    ck_assert(ref->index >= 0 && ref->index < plan->slot_count);
    const bptt_slot *slot = &plan->slots[ref->index];
    ck_assert_uint_gt(slot->size, 0);
    const int phase = bptt_phase(plan, action->region, action->level);
    ck_assert(slot->first <= phase && phase <= slot->last);
    ck_assert(ref->shift == 0 || slot->kind == BPTT_ROWS_STATE || (ref->shift == -1 && action->into_previous));
    ck_assert(slot->kind != BPTT_ROWS_BLOCK || action->region == BPTT_REGION_HEAD);
    ck_assert(slot->kind != BPTT_ROWS_STEP || action->region == BPTT_REGION_STEP || action->region == BPTT_REGION_BACK);
}

static void check_tile(const bptt_plan *plan, const bptt_action *action)
{
    const bptt_spec *spec = plan->spec;
    const bptt_tile *tile = &action->tile;
    const bool in_time = action->region == BPTT_REGION_STEP || action->region == BPTT_REGION_BACK;
    const int64_t rows = action->kind == BPTT_GRADIENT        ? plan->params[action->param].rows
                         : in_time                            ? spec->batch
                         : action->region == BPTT_REGION_HEAD ? plan->block
                                                              : spec->K * spec->batch;
    const int64_t vectors = (action->cols + plan->lanes - 1) / plan->lanes;
    ck_assert(tile->rows >= 1 && tile->rows <= 14 && tile->vectors >= 1 && tile->vectors <= 8);
    ck_assert_int_le(tile->rows * tile->vectors, 28);
    ck_assert_int_eq(tile->rest_rows, rows % tile->rows);
    ck_assert_int_eq(tile->rest_vectors, vectors % tile->vectors);
    ck_assert(tile->rows <= rows && tile->vectors <= vectors);
}

static void check_actions(const bptt_plan *plan)
{
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (a > 0) {
            const bptt_action *before = &plan->actions[a - 1];
            ck_assert_int_ge(bptt_phase(plan, action->region, action->level), bptt_phase(plan, before->region, before->level));
        }
        ck_assert(!action->into_previous || action->region == BPTT_REGION_BACK);
        if (action->kind == BPTT_PRODUCT || action->kind == BPTT_GRADIENT) { check_tile(plan, action); }
        check_ref(plan, &action->out, action);
        check_ref(plan, &action->in, action);
        check_ref(plan, &action->adjoint, action);
        for (int e = 0; e < action->element_count; e++) {
            check_ref(plan, &action->elements[e].out, action);
            check_ref(plan, &action->elements[e].a, action);
            check_ref(plan, &action->elements[e].b, action);
        }
        for (int b = 0; b < a; b++) { ck_assert(action->name[0] == '\0' || strcmp(action->name, plan->actions[b].name) != 0); }
    }
}

static void check_params(const bptt_plan *plan)
{
    size_t end = 0, turned_end = 0;
    for (int p = 0; p < plan->graph->param_count; p++) {
        const bptt_tensor_plan *tensor = &plan->params[p];
        ck_assert_uint_eq(tensor->offset, end);
        ck_assert(is_stride(plan, tensor->stride, tensor->cols));
        ck_assert_int_eq(tensor->width, tensor->cols);
        end += (size_t)(tensor->rows * tensor->stride);
        if (!tensor->turned) { continue; }
        for (int o = 0; o < p; o++) {
            const bptt_tensor_plan *other = &plan->params[o];
            const size_t size = (size_t)(tensor->cols * tensor->turned_stride);
            ck_assert(!other->turned ||
                      !overlap(tensor->turned_offset, size, other->turned_offset, (size_t)(other->cols * other->turned_stride)));
        }
        ck_assert(is_stride(plan, tensor->turned_stride, tensor->rows));
        turned_end += (size_t)(tensor->cols * tensor->turned_stride);
    }
    ck_assert_uint_eq(plan->block_size, end);
    ck_assert_uint_eq(plan->turned_size, turned_end);
}

/* The works are all of the FLOP, and W_hh is read as often as there are steps. */
static void check_works(const bptt_plan *plan, double rows)
{
    const bptt_counts *counts = &plan->counts;
    const double B = (double)plan->spec->batch, K = (double)plan->spec->K, real = plan->real_size;
    const double flop = counts->flop_forward + counts->flop_backward + counts->flop_update;
    const bptt_tensor_plan *W_hh = &plan->params[1];
    const double matrix = (double)(W_hh->rows * bptt_padded(plan, W_hh->cols)), state = B * (double)bptt_padded(plan, W_hh->cols);
    double works = 0, moved = 0;
    int recurrences = 0;
    for (size_t w = 0; w < counts->work_count; w++) {
        const bptt_work *work = &counts->works[w];
        ck_assert(work->calls > 0 && work->calls <= rows && work->bytes > 0);
        works += work->calls * work->flop;
        moved += work->calls * work->bytes;
        /* h[t-1], a[t] and the matrix between them */
        recurrences += work->calls == K && work->bytes == (matrix + 2 * state) * real;
    }
    ck_assert_double_eq_tol(works, flop, 1e-9 * flop);
    ck_assert_double_eq_tol(moved, counts->bytes_moved, 1e-9 * moved);
    ck_assert_int_ge(recurrences, 1);
}

static void check_counts(const bptt_plan *plan)
{
    static const int moments[] = {
        [BPTT_SGD] = 0, [BPTT_MOMENTUM] = 1, [BPTT_ADAGRAD] = 1, [BPTT_RMSPROP] = 1, [BPTT_ADAM] = 2, [BPTT_ADAMW] = 2};
    const bptt_counts *counts = &plan->counts;
    const double H = (double)plan->spec->hidden, V = (double)plan->spec->vocab;
    const double rows = (double)plan->spec->K * (double)plan->spec->batch;
    ck_assert_int_eq(plan->moments, moments[plan->spec->optimizer.kind]);
    ck_assert_uint_eq(counts->parameters, (size_t)(H * V + H * H + H + H * V + V));
    /* gather, recurrence, tanh; logits; the loss: subtract, exp, sum, scale */
    ck_assert(counts->flop_forward == rows * (H + 2 * H * H + H + 2 * H * V + 4 * V));
    /* dh, dW_hy, db_y; tanh', carry to all but the first; dW_xh, dW_hh, db_h */
    const double carries = rows - (double)plan->spec->batch;
    ck_assert(counts->flop_backward == rows * (2 * H * V + 2 * H * V + V + H + H + 2 * H * H + H) + carries * (2 * H * H));
    check_works(plan, rows);
    size_t bytes = 0;
    for (size_t i = 0; i < counts->part_count; i++) { bytes += counts->parts[i].bytes; }
    ck_assert_uint_eq(counts->struct_bytes, bytes);
    const size_t reals = plan->block_size * (2 + (size_t)plan->moments) + plan->turned_size + plan->work_size;
    ck_assert_uint_eq(bytes, reals * (size_t)plan->real_size + counts->parts[counts->part_count - 1].bytes);
    ck_assert_str_eq(counts->parts[counts->part_count - 1].name, "progress");
    const size_t vector = plan->simd > 4 ? 4 * (size_t)plan->simd : 16;
    ck_assert_uint_eq(bytes % vector, 0);
    ck_assert_uint_eq(reals * (size_t)plan->real_size % vector, 0); /* progress is aligned too */
}

START_TEST(invariants)
{
    bptt_spec spec;
    oracle_random_spec(oracle_seed(), (unsigned)_i, &spec);
    static char source[] = "random";
    spec.source = source;
    planned p;
    bptt_status status = make(&spec, 8, SIZE_MAX, &p);
    if (status != BPTT_OK) { /* one reason alone */
        ck_assert_int_eq(spec.unroll, BPTT_UNROLL_FULL);
        ck_assert_msg(strncmp(error.text, "random: unroll = 'full' would spell out ", 40) == 0, "%s", error.text);
        drop(&p);
        return;
    }
    ck_assert_int_eq(p.plan->simd, spec.simd == 0 ? 8 : (int)spec.simd);
    ck_assert_int_eq(p.plan->chunks, (spec.T + spec.K - 1) / spec.K);
    ck_assert_int_eq(p.plan->rest, spec.T - spec.T / spec.K * spec.K);
    ck_assert_int_ne(p.plan->unroll, BPTT_UNROLL_AUTO);
    ck_assert(spec.unroll == BPTT_UNROLL_AUTO || spec.unroll == p.plan->unroll);
    ck_assert(p.plan->block >= spec.batch && p.plan->block <= spec.K * spec.batch);
    check_params(p.plan);
    check_slots(p.plan);
    check_actions(p.plan);
    check_counts(p.plan);
    drop(&p);
}
END_TEST

/* Large shapes, where tiles leave remainders and HEAD has many blocks. */
START_TEST(large_invariants)
{
    static const int64_t sizes[][5] = {{100, 87, 25, 25, 1},     {512, 65, 64, 64, 32}, {129, 131, 70, 64, 33},
                                       {17, 70000, 600, 513, 2}, {300, 4, 300, 7, 200}, {4096, 256, 8, 8, 1}};
    static const int simd[] = {1, 4, 8, 16};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int s = 0; s < 4; s++) {
            bptt_spec spec = interpret_spec(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4]);
            planned p;
            ck_assert_int_eq(make(&spec, simd[s], SIZE_MAX, &p), BPTT_OK);
            ck_assert(p.plan->block >= spec.batch && p.plan->block <= spec.K * spec.batch);
            check_params(p.plan);
            check_slots(p.plan);
            check_actions(p.plan);
            check_counts(p.plan);
            drop(&p);
        }
    }
}
END_TEST

/* --- what is decided ------------------------------------------------------------------------------------------------------------- */

/* Actions of a region that are products, gathers or sums over rows, and the columns and terms of the last one. */
static int works_in(const bptt_plan *plan, bptt_region region, int level, int64_t *cols, int64_t *depth)
{
    int count = 0;
    for (int a = 0; a < plan->action_count; a++) {
        const bptt_action *action = &plan->actions[a];
        if (action->kind == BPTT_CHAIN || action->kind == BPTT_ZERO || action->region != region || action->level != level) {
            continue;
        }
        *cols = action->cols;
        *depth = action->depth;
        count++;
    }
    return count;
}

/* A cell's gates are one product: forward, back, and in every gradient.  The GRU's candidate begins with a bias of its own. */
START_TEST(gates_are_stacked)
{
    static const bptt_cell cells[] = {BPTT_CELL_LSTM, BPTT_CELL_GRU};
    const int64_t G = _i == 0 ? 4 : 3;
    bptt_spec spec = interpret_spec(20, 10, 6, 3, 2);
    spec.cell = cells[_i];
    spec.layers = 2;
    bptt_graph graph;
    bptt_plan *plan;
    int64_t cols, depth;
    ck_assert_msg(bptt_trace(&spec, &graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_plan_make(&spec, &graph, 8, SIZE_MAX, &plan, &error), BPTT_OK);
    ck_assert_int_eq(plan->levels, 2);
    for (int p = 0; p < (int)G; p++) { ck_assert_int_eq(plan->params[p].width, (G - 1) * 20 + 20); } /* W_x of the gates */
    for (int level = 0; level < 2; level++) {
        ck_assert_int_eq(works_in(plan, BPTT_REGION_INPUT, level, &cols, &depth), 1);
        ck_assert_int_eq(cols, (G - 1) * 20 + 20);
        ck_assert_int_eq(works_in(plan, BPTT_REGION_STEP, level, &cols, &depth), _i == 0 ? 1 : 2);
        ck_assert_int_eq(works_in(plan, BPTT_REGION_BACK, level, &cols, &depth), 1);
        ck_assert_int_eq(depth, G * 20);
        /* dW_x, dW_h, db (of as many columns as dW_x, it comes with that of tokens), and what goes to the layer below */
        ck_assert_int_eq(works_in(plan, BPTT_REGION_TAIL, level, &cols, &depth), level > 0 ? 4 : _i == 0 ? 2 : 3);
    }
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
}
END_TEST

/* Gates that are slices of one product are planned like gates that the pass stack made one: nothing is copied, their adjoints are
 * joined where the gates lay.  Slices that do not begin at whole vectors are copied. */
START_TEST(slices_are_not_copied)
{
    static const char cell[] = "W = matrix(4 * hidden, input, 'W')\nU = matrix(4 * hidden, hidden, 'U')\nh = state(hidden)\n"
                               "c = state(hidden)\na = W * x + U * h\n"
                               "local function gate(n) return slice(a, (n - 1) * hidden + 1, n * hidden) end\n"
                               "c = sigmoid(gate(1)) * c + sigmoid(gate(2)) * tanh(gate(3))\nh = sigmoid(gate(4)) * tanh(c)\n";
    const int64_t H = _i == 0 ? 16 : 10;
    bptt_spec spec = interpret_spec(H, 10, 6, 3, 2);
    bptt_graph graph;
    bptt_plan *plan;
    ck_assert_msg(bptt_trace_text(&spec, cell, "cell.lua", &graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_plan_make(&spec, &graph, 8, SIZE_MAX, &plan, &error), BPTT_OK);
    int copies = 0, chains = 0, members = 0;
    for (int a = 0; a < plan->action_count; a++) {
        copies += plan->actions[a].kind == BPTT_ROW;
        chains += plan->actions[a].kind == BPTT_CHAIN && plan->actions[a].region == BPTT_REGION_STEP;
    }
    for (int s = 0; s < plan->slot_count; s++) { members += plan->slots[s].host >= 0; }
    ck_assert_int_eq(copies, _i == 0 ? 0 : 8);
    ck_assert_int_eq(members, _i == 0 ? 4 : 0);
    if (_i == 0) { ck_assert_int_eq(chains, 1); }
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
}
END_TEST

/* What depends on weights alone is one row, made when they change; but where blocks overlap a step keeps what it ran with, and a
 * product, a state or a row operation reads rows. */
START_TEST(constants_are_one_row)
{
    static const char cell[] = "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\n"
                               "h = state(hidden)\nkeep = sigmoid(b)\nlate = tanh(b)\n"
                               "h = keep * h + (1 - keep) * tanh(W * x + U * h + U * late)\n";
    static const bptt_truncation_mode modes[] = {BPTT_TRUNCATION_CHUNK, BPTT_TRUNCATION_UNIFORM, BPTT_TRUNCATION_BLOCK};
    bptt_spec spec = interpret_spec(16, 10, 6, 3, 2);
    spec.truncation = modes[_i];
    spec.stride = modes[_i] == BPTT_TRUNCATION_BLOCK ? 2 : 0;
    bptt_graph graph;
    bptt_plan *plan;
    ck_assert_msg(bptt_trace_text(&spec, cell, "cell.lua", &graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_plan_make(&spec, &graph, 8, SIZE_MAX, &plan, &error), BPTT_OK);
    int rows = 0, chains = 0;
    for (int s = 0; s < plan->slot_count; s++) {
        const bptt_slot *slot = &plan->slots[s];
        if (slot->kind != BPTT_ROWS_ONE || slot->size == 0) { continue; }
        ck_assert_str_ne(slot->name, "late");
        ck_assert_uint_le(slot->offset + slot->size, plan->turned_size);
        rows++;
    }
    for (int a = 0; a < plan->action_count; a++) { chains += plan->actions[a].region == BPTT_REGION_REFRESH; }
    ck_assert_int_eq(rows, modes[_i] == BPTT_TRUNCATION_BLOCK ? 0 : 2); /* keep, 1 - keep */
    ck_assert_int_eq(chains, rows / 2);
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
}
END_TEST

/* The gradient of a vector that was multiplied with a value is summed up without its rows being kept; not where lags are summed first,
 * nor where the vector is used twice. */
START_TEST(products_are_summed)
{
    static const char *const cells[] = {"h = tanh(W * x + U * h + b * h)\n", "h = tanh(W * x + U * h + b * h) * b\n"};
    char cell[200];
    (void)snprintf(cell, sizeof cell,
                   "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\n"
                   "h = state(hidden)\n%s",
                   cells[_i % 2]);
    bptt_spec spec = interpret_spec(16, 10, 6, 3, 2);
    spec.truncation = _i < 2 ? BPTT_TRUNCATION_CHUNK : BPTT_TRUNCATION_UNIFORM;
    bptt_graph graph;
    bptt_plan *plan;
    ck_assert_msg(bptt_trace_text(&spec, cell, "cell.lua", &graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_plan_make(&spec, &graph, 8, SIZE_MAX, &plan, &error), BPTT_OK);
    int products = 0;
    for (int a = 0; a < plan->action_count; a++) {
        products += plan->actions[a].kind == BPTT_COLUMN_SUM && plan->actions[a].in.kind == BPTT_REF_SLOT;
    }
    ck_assert_int_eq(products, _i == 0);
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
}
END_TEST

/* Whether a slot that others lie in holds adjoints alone. */
static bool has_adjoint_host(const bptt_plan *plan)
{
    for (int s = 0; s < plan->slot_count; s++) {
        const int host = plan->slots[s].host;
        if (host >= 0 && plan->slots[host].linear && plan->slots[host].size > 0) { return true; }
    }
    return false;
}

/* The adjoints of gates lie where the gates lay, but where those are read again: at other lags, or in the chunks to come. */
START_TEST(adjoints_lie_where_gates_lay)
{
    static const bptt_cell cells[] = {BPTT_CELL_LSTM, BPTT_CELL_GRU};
    static const struct {
        bptt_truncation_mode truncation;
        bptt_unroll unroll;
        bool apart;
    } cases[] = {{BPTT_TRUNCATION_CHUNK, BPTT_UNROLL_TIME, false},
                 {BPTT_TRUNCATION_CHUNK, BPTT_UNROLL_NONE, false},
                 {BPTT_TRUNCATION_CHUNK, BPTT_UNROLL_FULL, true},
                 {BPTT_TRUNCATION_BLOCK, BPTT_UNROLL_TIME, true},
                 {BPTT_TRUNCATION_UNIFORM, BPTT_UNROLL_TIME, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bptt_spec spec = interpret_spec(4, 4, 6, 3, 1);
        spec.cell = cells[_i];
        spec.truncation = cases[i].truncation;
        spec.stride = spec.truncation == BPTT_TRUNCATION_BLOCK ? 2 : 0;
        spec.unroll = cases[i].unroll;
        planned p;
        ck_assert_msg(make(&spec, 4, SIZE_MAX, &p) == BPTT_OK, "%s", error.text);
        ck_assert_int_eq(has_adjoint_host(p.plan), cases[i].apart);
        for (int s = 0; s < p.plan->slot_count; s++) { ck_assert_uint_lt(p.plan->slots[s].size, p.plan->work_size + 1); }
        drop(&p);
    }
}
END_TEST

/* The carry of lstm's c is one value, so it lies in one row block that begins as 0; that of h is a sum, and so is any carry where blocks
 * overlap or lags are added up. */
START_TEST(carry_of_one_value_is_one_block)
{
    static const bptt_truncation_mode modes[] = {BPTT_TRUNCATION_CHUNK, BPTT_TRUNCATION_BLOCK, BPTT_TRUNCATION_UNIFORM};
    bptt_spec spec = interpret_spec(4, 4, 6, 3, 2);
    spec.cell = BPTT_CELL_LSTM;
    spec.truncation = modes[_i];
    spec.stride = spec.truncation == BPTT_TRUNCATION_BLOCK ? 2 : 0;
    planned p;
    ck_assert_msg(make(&spec, 4, SIZE_MAX, &p) == BPTT_OK, "%s", error.text);
    int zeros = 0;
    for (int a = 0; a < p.plan->action_count; a++) {
        const bptt_action *action = &p.plan->actions[a];
        if (action->kind != BPTT_ZERO || action->region != BPTT_REGION_BACK || spec.truncation == BPTT_TRUNCATION_UNIFORM) {
            continue;
        }
        const bptt_slot *slot = &p.plan->slots[action->out.index];
        ck_assert(action->begins);
        ck_assert_str_eq(slot->name, "dc");
        ck_assert_int_eq(slot->kind, BPTT_ROWS_STEP);
        zeros++;
    }
    ck_assert_int_eq(zeros, spec.truncation == BPTT_TRUNCATION_CHUNK ? 1 : 0);
    drop(&p);
}
END_TEST

/* A step of gru has two products of h; too large for the first-level cache, they stand together and take turns. */
START_TEST(products_stand_together)
{
    bptt_spec spec = interpret_spec(_i == 0 ? 128 : 8, 5, 6, 6, 1);
    spec.cell = BPTT_CELL_GRU;
    planned p;
    ck_assert_msg(make(&spec, 16, SIZE_MAX, &p) == BPTT_OK, "%s", error.text);
    int together = 0;
    for (int a = 0; a < p.plan->action_count; a++) {
        const bptt_action *action = &p.plan->actions[a];
        if (!action->follows) { continue; }
        ck_assert_int_gt(a, 0);
        ck_assert(action->alternates && action[-1].alternates && action->region == BPTT_REGION_STEP);
        ck_assert_int_eq(action[-1].region, action->region);
        ck_assert_int_ne(action[-1].out.index, action->out.index);
        together++;
    }
    ck_assert_int_eq(together, _i == 0 ? 1 : 0);
    drop(&p);
}
END_TEST

/* The equations of a long chain are all there, and whole. */
START_TEST(notes_are_whole)
{
    bptt_spec spec = interpret_spec(8, 5, 6, 3, 2);
    spec.cell = BPTT_CELL_LSTM;
    planned p;
    int longest = 0;
    ck_assert_msg(make(&spec, 8, SIZE_MAX, &p) == BPTT_OK, "%s", error.text);
    for (int a = 0; a < p.plan->action_count; a++) {
        const bptt_action *action = &p.plan->actions[a];
        int equations = 0, open = 0;
        for (const char *c = action->note; *c != '\0'; c++) {
            equations += *c == '=';
            open += *c == '(' || *c == '[' ? 1 : *c == ')' || *c == ']' ? -1 : 0;
        }
        ck_assert_msg(open == 0, "cut: %s", action->note);
        if (action->kind == BPTT_CHAIN) { ck_assert_int_eq(equations, action->element_count); }
        if (equations > longest) { longest = equations; }
    }
    ck_assert_int_ge(longest, 9);
    drop(&p);
}
END_TEST

/* Logits live for a block of rows, not for the chunk: the memory of a large vocabulary does not grow with T. */
START_TEST(logits_live_in_a_block)
{
    bptt_spec spec = interpret_spec(16, 10000, 1000, 1000, 1);
    planned p;
    ck_assert_int_eq(make(&spec, 8, SIZE_MAX, &p), BPTT_OK);
    int blocks = 0;
    for (int s = 0; s < p.plan->slot_count; s++) {
        blocks += p.plan->slots[s].kind == BPTT_ROWS_BLOCK && p.plan->slots[s].size > 0;
    }
    ck_assert_int_eq(blocks, 1);
    ck_assert_int_eq(p.plan->block, 64);
    drop(&p);
}
END_TEST

/* Panels are packed where their rows lie far apart and many tiles read them; sums go in blocks where their rows fill a cache, a part's
 * or all; and threads cut sums that are larger than the rows which they are of. */
START_TEST(large_operands)
{
    static const struct {
        int64_t hidden, vocab, T, batch, threads;
        int packed;
        int64_t tail_block;
        int cut; /* of W_xh, W_hh, b_h, W_hy, b_y */
    } cases[] = {{160, 65, 64, 32, 1, 0, 512, 0},   {160, 65, 64, 32, 2, 0, 0, 0},   {160, 65, 64, 64, 2, 0, 512, 0},
                 {160, 65, 16, 32, 1, 0, 0, 0},     {160, 65, 16, 2, 2, 0, 0, 3},    {1024, 10000, 20, 32, 1, 4, 512, 0},
                 {1024, 10000, 20, 32, 2, 4, 0, 3}, {1024, 10000, 20, 1, 1, 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bptt_spec spec = interpret_spec(cases[i].hidden, cases[i].vocab, cases[i].T, cases[i].T, cases[i].batch);
        spec.threads = cases[i].threads;
        spec.dtype = BPTT_F32;
        planned p;
        ck_assert_int_eq(make(&spec, 16, SIZE_MAX, &p), BPTT_OK);
        int packed = 0, cut = 0;
        for (int a = 0; a < p.plan->action_count; a++) {
            const bptt_action *action = &p.plan->actions[a];
            packed += action->packed;
            cut += action->cut;
            ck_assert(!action->cut || (bptt_sums_over_rows(action) && !p.plan->params[action->param].own));
            ck_assert(!action->packed || (action->terms > 0 && !bptt_in_time(p.plan, action)));
            ck_assert(!action->packed || !action->turned || !p.plan->params[action->param].turned); /* no copy for nothing */
        }
        ck_assert_int_eq(packed, cases[i].packed);
        ck_assert_int_eq(p.plan->tail_block, cases[i].tail_block);
        ck_assert_int_eq(cut, cases[i].cut);
        drop(&p);
    }
}
END_TEST

START_TEST(auto_unrolls_short_chunks)
{
    static const struct {
        int64_t T, K;
        bptt_unroll unroll;
    } cases[] = {{512, 512, BPTT_UNROLL_TIME},
                 {513, 513, BPTT_UNROLL_NONE},
                 {1000, 500, BPTT_UNROLL_TIME},
                 {900, 500, BPTT_UNROLL_NONE},
                 {1, 1, BPTT_UNROLL_TIME}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bptt_spec spec = interpret_spec(2, 2, cases[i].T, cases[i].K, 1);
        planned p;
        ck_assert_int_eq(make(&spec, 1, SIZE_MAX, &p), BPTT_OK);
        ck_assert_int_eq(p.plan->unroll, cases[i].unroll);
        drop(&p);
    }
}
END_TEST

/* --- limits ------------------------------------------------------------------------------------------------------------------------ */

START_TEST(memory_limit)
{
    bptt_spec spec = interpret_spec(3, 5, 5, 2, 1);
    planned p;
    ck_assert_int_eq(make(&spec, 1, SIZE_MAX, &p), BPTT_OK);
    const size_t needs = (p.plan->block_size * 2 + p.plan->turned_size + p.plan->work_size) * sizeof(double);
    drop(&p);
    ck_assert_int_eq(make(&spec, 1, needs, &p), BPTT_OK);
    drop(&p);
    ck_assert_int_eq(make(&spec, 1, needs - 1, &p), BPTT_FAILED);
    char expected[200];
    (void)snprintf(expected, sizeof expected, "net.lua: the model needs %zu bytes (0.0 GiB), this machine has %zu (0.0 GiB)",
                   needs, needs - 1);
    ck_assert_str_eq(error.text, expected);
    ck_assert_ptr_null(p.plan);
    drop(&p);
}
END_TEST

/* The largest values that a spec may have: no size overflows on the way to the refusal, even where memory is not known. */
START_TEST(largest_sizes)
{
    for (int unroll = BPTT_UNROLL_AUTO; unroll <= BPTT_UNROLL_NONE; unroll++) {
        bptt_spec spec = interpret_spec(65536, INT32_MAX, 65536, 65536, 65536);
        spec.unroll = (bptt_unroll)unroll;
        planned p;
        ck_assert_int_eq(make(&spec, 16, SIZE_MAX, &p), BPTT_FAILED);
        ck_assert_msg(strncmp(error.text, "net.lua: the model needs ", 25) == 0, "%s", error.text);
        drop(&p);
    }
}
END_TEST

START_TEST(full_limit)
{
    bptt_spec spec = interpret_spec(20, 30, 30, 20, 2);
    spec.unroll = BPTT_UNROLL_FULL;
    planned p;
    ck_assert_int_eq(make(&spec, 1, SIZE_MAX, &p), BPTT_FAILED);
    /* logits, dh, dW_hy (600 each) and dW_hh (400) for 20 + 10 steps of 2 rows and for 2; two of 400 for the 2 rows of a step */
    ck_assert_str_eq(error.text,
                     "net.lua: unroll = 'full' would spell out 138000 multiply-adds, at most 100000 are (use unroll = 'time')");
    drop(&p);
    spec.unroll = BPTT_UNROLL_TIME;
    ck_assert_int_eq(make(&spec, 1, SIZE_MAX, &p), BPTT_OK);
    drop(&p);
}
END_TEST

int main(void)
{
    printf("test_plan: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("plan");
    TCase *texts = tcase_create("texts"), *rules = tcase_create("rules"), *limits = tcase_create("limits");
    tcase_add_test(texts, tiny_as_text);
    tcase_add_test(texts, horizon_lives_in_the_plan);
    tcase_add_test(texts, stages_by_name);
    tcase_add_loop_test(rules, invariants, 0, RANDOM_SPECS);
    tcase_add_test(rules, large_invariants);
    tcase_add_loop_test(rules, gates_are_stacked, 0, 2);
    tcase_add_loop_test(rules, slices_are_not_copied, 0, 2);
    tcase_add_loop_test(rules, constants_are_one_row, 0, 3);
    tcase_add_loop_test(rules, products_are_summed, 0, 4);
    tcase_add_loop_test(rules, adjoints_lie_where_gates_lay, 0, 2);
    tcase_add_loop_test(rules, carry_of_one_value_is_one_block, 0, 3);
    tcase_add_loop_test(rules, products_stand_together, 0, 2);
    tcase_add_test(rules, notes_are_whole);
    tcase_add_test(rules, logits_live_in_a_block);
    tcase_add_test(rules, large_operands);
    tcase_add_test(rules, auto_unrolls_short_chunks);
    tcase_add_test(limits, memory_limit);
    tcase_add_test(limits, largest_sizes);
    tcase_add_test(limits, full_limit);
    suite_add_tcase(suite, texts);
    suite_add_tcase(suite, rules);
    suite_add_tcase(suite, limits);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
