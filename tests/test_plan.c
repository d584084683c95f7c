/* test_plan.c: the plan: what it decides for the rnn cell, and that what it makes of any cell is that cell's gradient.
 *
 * Cells given as text go end to end: the loss of the generated code is compared with the graph run node by node, its gradient with
 * central differences of that loss.  What the plan cannot do it must refuse.  Depends on Check, oracle.h and the tcc backend.
 */
#include "../gen/compile.h"
#include "../gen/emit.h"
#include "../gen/plan.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "interpret.h"
#include "oracle.h"

static bptt_error error;

/* --- a cell, compiled ------------------------------------------------------------------------------------------------------------ */

typedef struct built {
    bptt_graph graph;
    bptt_plan *plan;
    bptt_unit unit;
    bptt_code code;
    unsigned char *memory;
} built;

static void built_free(built *b)
{
    free(b->memory);
    if (b->code.model != NULL) { b->code.release(b->code.owner); }
    bptt_unit_free(&b->unit);
    bptt_plan_free(b->plan);
    bptt_graph_free(&b->graph);
}

static bptt_status plan_cell(const bptt_spec *spec, const char *cell, int simd, built *b)
{
    memset(&error, 0, sizeof error);
    memset(b, 0, sizeof *b);
    bptt_status status = bptt_trace_text(spec, cell, "cell.lua", &b->graph, &error);
    if (status == BPTT_OK) { status = bptt_derive(&b->graph, &error); }
    if (status == BPTT_OK) { status = bptt_plan_make(spec, &b->graph, simd, 1u << 30, &b->plan, &error); }
    return status;
}

static void build(const bptt_spec *spec, const char *cell, int simd, built *b)
{
    bptt_status status = plan_cell(spec, cell, simd, b);
    if (status == BPTT_OK) { status = bptt_emit(b->plan, &b->unit, &error); }
    bptt_text text = {.name = spec->name, .digest = spec->digest, .header = b->unit.header, .source = b->unit.source};
    text.kernels = bptt_kernels(b->plan != NULL ? b->plan->real_size : 8, simd, &text.kernel_count);
    if (status == BPTT_OK) { status = bptt_tcc_compile(&text, &b->code, &error); }
    ck_assert_msg(status == BPTT_OK, "%s\n%s", error.text, cell);
    b->memory = bptt_memory_new(b->code.model);
    ck_assert_ptr_nonnull(b->memory);
}

/* --- its loss and its gradient ------------------------------------------------------------------------------------------------------ */

static double *block_of(const built *b, size_t bytes)
{
    return (double *)(void *)(b->memory + bytes);
}

/* The loss of a chunk by the graph itself, from the states that the model holds now. */
static double loss_by_graph(const built *b, const uint32_t *x, const uint32_t *y, int64_t steps)
{
    const bptt_model *model = b->code.model;
    const bptt_graph *g = &b->graph;
    interpreter it = interpreter_new(g);
    double loss = 0;
    for (int p = 0; p < g->param_count; p++) {
        const bptt_node *node = &g->nodes[g->params[p].node];
        const bptt_tensor *tensor = &model->tensors[p];
        for (size_t i = 0; i < node_size(node); i++) {
            size_t cols = node->cols > 0 ? (size_t)node->cols : 1, output = i / cols, input = i % cols;
            it.value[g->params[p].node][i] = block_of(b, model->param)[tensor->offset + input * tensor->stride + output];
        }
    }
    for (size_t stream = 0; stream < model->batch; stream++) {
        for (int s = 0; s < g->state_count; s++) {
            const bptt_tensor *state = &model->states[s];
            memcpy(it.value[g->states[s].node], block_of(b, model->state) + state->offset + stream * state->stride,
                   state->cols * sizeof(double));
        }
        for (int64_t t = 0; t < steps; t++) {
            const size_t at = (size_t)t * model->batch + stream;
            interpret(&it, 0, g->forward, x[at], y[at]);
            loss += it.value[g->loss][0];
            for (int s = 0; s < g->state_count; s++) {
                memcpy(it.value[g->states[s].node], it.value[g->states[s].next],
                       node_size(&g->nodes[g->states[s].node]) * sizeof(double));
            }
        }
    }
    interpreter_free(&it);
    return loss;
}

/* Every parameter by central differences of the generated loss; the states are put back before each call. */
static double worst_gradient_error(built *b, const uint32_t *x, const uint32_t *y, uint32_t chunk, const char **where)
{
    const double step = 0x1p-16;
    const bptt_model *model = b->code.model;
    const size_t work = model->bytes - model->state;
    unsigned char *start = malloc(work);
    ck_assert_ptr_nonnull(start);
    memcpy(start, b->memory + model->state, work);
    (void)model->gradient(model, b->memory, x, y, chunk);
    double worst = 0;
    for (uint32_t p = 0; p < model->tensor_count; p++) {
        const bptt_tensor *tensor = &model->tensors[p];
        for (size_t i = 0; i < (size_t)tensor->rows * tensor->cols; i++) {
            size_t at = tensor->offset + i / tensor->cols * tensor->stride + i % tensor->cols;
            double *w = block_of(b, model->param) + at, kept = *w, loss[2];
            for (int side = 0; side < 2; side++) {
                *w = side == 0 ? kept - step : kept + step;
                model->refresh(model, b->memory);
                memcpy(b->memory + model->state, start, work);
                loss[side] = model->loss(model, b->memory, x, y, chunk);
            }
            *w = kept;
            double expected = (loss[1] - loss[0]) / (2 * step), wrong = fabs(block_of(b, model->grad)[at] - expected);
            if (!(wrong <= worst)) { *where = tensor->name; }
            if (!(wrong <= worst)) { worst = wrong; }
        }
    }
    model->refresh(model, b->memory);
    memcpy(b->memory + model->state, start, work);
    free(start);
    return worst;
}

/* A start from which no loss is flat: parameters (biases too) and states at random. */
static void fill(built *b, uint64_t *random)
{
    const bptt_model *model = b->code.model;
    model->init(model, b->memory, 1);
    for (uint32_t p = 0; p < model->tensor_count + model->state_count; p++) {
        const bool is_state = p >= model->tensor_count;
        const bptt_tensor *tensor = is_state ? &model->states[p - model->tensor_count] : &model->tensors[p];
        double *block = block_of(b, is_state ? model->state : model->param) + tensor->offset;
        for (uint32_t i = 0; i < tensor->rows; i++) {
            for (uint32_t j = 0; j < tensor->cols; j++) {
                block[i * tensor->stride + j] = (double)(oracle_random(random) >> 11) * 0x1.4p-53 - 0.625;
            }
        }
    }
    model->refresh(model, b->memory);
}

static void check_case(const char *cell, const bptt_spec *spec, int simd, uint64_t *random)
{
    enum { TOKENS = 64 };
    uint32_t x[TOKENS], y[TOKENS];
    built b;
    build(spec, cell, simd, &b);
    const bptt_model *model = b.code.model;
    fill(&b, random);
    ck_assert_int_le(spec->T * spec->batch, TOKENS);
    oracle_tokens(random, (size_t)(spec->T * spec->batch), (size_t)spec->vocab, 5, x, y);
    for (uint32_t chunk = 0; chunk < model->chunks; chunk++) {
        const size_t first = (size_t)chunk * (size_t)(spec->K * spec->batch);
        const int64_t left = spec->T - (int64_t)chunk * spec->K;
        const char *where = "";
        const double worst = worst_gradient_error(&b, x + first, y + first, chunk, &where);
        const double expected = loss_by_graph(&b, x + first, y + first, left < spec->K ? left : spec->K);
        const double loss = model->gradient(model, b.memory, x + first, y + first, chunk);
        ck_assert_msg(fabs(loss - expected) <= 1e-11 * (1 + expected) && worst < 2e-8,
                      "H %lld T %lld K %lld B %lld simd %d unroll %d chunk %u: loss %.12g, expected %.12g; gradient of %s is %g off:\n%s",
                      (long long)spec->hidden, (long long)spec->T, (long long)spec->K, (long long)spec->batch, simd, (int)spec->unroll,
                      (unsigned)chunk, loss, expected, where, worst, cell);
        ck_assert(oracle_padding_clean(model, b.memory, model->grad));
    }
    built_free(&b);
}

static void check_cell(const char *cell)
{
    static const int64_t sizes[][5] = {{3, 4, 5, 2, 1}, {5, 5, 4, 4, 3}, {9, 3, 3, 2, 3}, {1, 2, 2, 1, 1}};
    uint64_t random = oracle_seed();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bptt_spec spec = interpret_spec(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4]);
        for (int unroll = BPTT_UNROLL_TIME; unroll <= BPTT_UNROLL_NONE; unroll++) {
            spec.unroll = (bptt_unroll)unroll;
            check_case(cell, &spec, 1, &random);
            check_case(cell, &spec, bptt_kernels_simd(), &random);
        }
    }
}

#include "/tmp/gentests/cells.h"

#include "/tmp/gentests/bad.h"
START_TEST(bad_cell)
{
    bptt_spec spec = interpret_spec(4, 4, 5, 2, 1);
    built b;
    bptt_status status = plan_cell(&spec, bad_cells[_i][0], 4, &b);
    printf("%d: %d %s\n", _i, status, error.text);
}
END_TEST
static const size_t good_count = sizeof good_cells / sizeof good_cells[0];

START_TEST(good_cell)
{
    check_cell(good_cells[_i]);
}
END_TEST

int main(void)
{
    printf("test_plan: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("plan");
    TCase *cells = tcase_create("cells");
    tcase_set_timeout(cells, 60);
    tcase_add_loop_test(cells, good_cell, 0, (int)good_count);
tcase_add_loop_test(cells, bad_cell, 0, sizeof bad_cells / sizeof bad_cells[0]);    suite_add_tcase(suite, cells);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
