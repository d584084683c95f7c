/* cell.h: cells given as text, compiled for tests; their start, their data, and cells at random.
 *
 * Depends on Check, oracle.h, interpret.h and the tcc backend.
 */
#ifndef BPTT_TESTS_CELL_H
#define BPTT_TESTS_CELL_H

#include "../gen/emit.h"
#include "../gen/plan.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "interpret.h"
#include "oracle.h"

#include <stdarg.h>

static bptt_error error;

/* --- a cell, compiled ------------------------------------------------------------------------------------------------------------ */

typedef struct built {
    bptt_graph graph;
    bptt_plan *plan;
    bptt_unit unit;
    bptt_code code;
    unsigned char *memory;
} built;

static inline void built_free(built *b)
{
    free(b->memory);
    if (b->code.model != NULL) { b->code.release(b->code.owner); }
    bptt_unit_free(&b->unit);
    bptt_plan_free(b->plan);
    bptt_graph_free(&b->graph);
}

static inline bptt_status plan_cell(const bptt_spec *spec, const char *cell, int simd, built *b)
{
    memset(&error, 0, sizeof error);
    memset(b, 0, sizeof *b);
    bptt_status status = bptt_trace_text(spec, cell, "cell.lua", &b->graph, &error);
    if (status == BPTT_OK) { status = bptt_derive(&b->graph, &error); }
    if (status == BPTT_OK) { status = bptt_plan_make(spec, &b->graph, simd, 1u << 30, &b->plan, &error); }
    return status;
}

/* True: the system's compiler, which BPTT_CC names, in place of libtcc. */
static bool by_compiler;

static inline bptt_status compile_outside(const bptt_text *text, bptt_code *code)
{
    bptt_cc *cc = bptt_cc_start(text, false, &error);
    if (cc == NULL) { return BPTT_FAILED; }
    bptt_cc_stage stage = BPTT_CC_ASKING;
    while (stage == BPTT_CC_ASKING || stage == BPTT_CC_BUILDING) { stage = bptt_cc_advance(cc, 1e6, code, &error); }
    bptt_cc_free(cc);
    return stage == BPTT_CC_READY ? BPTT_OK : BPTT_FAILED;
}

static inline void build(const bptt_spec *spec, const char *cell, int simd, built *b)
{
    bptt_status status = plan_cell(spec, cell, simd, b);
    if (status == BPTT_OK) { status = bptt_emit(b->plan, &b->unit, &error); }
    bptt_text text = {.name = spec->name, .digest = spec->digest, .header = b->unit.header, .source = b->unit.source};
    text.kernels = bptt_kernels(b->plan != NULL ? b->plan->real_size : 8, simd, &text.kernel_count);
    if (status == BPTT_OK) {
        status = by_compiler ? compile_outside(&text, &b->code) : bptt_tcc_compile(&text, &b->code, &error);
    }
    ck_assert_msg(status == BPTT_OK, "%s\n%s", error.text, cell);
    const bool copies = spec->truncation == BPTT_TRUNCATION_BLOCK; /* row by row, what its window was given */
    if (spec->unroll == BPTT_UNROLL_FULL && spec->loss_at.kind == BPTT_STEPS_ALL && !copies) {
        ck_assert_msg(oracle_is_spelled_out(b->unit.source), "a loop is left in %s", cell);
    }
    b->memory = bptt_memory_new(b->code.model);
    ck_assert_ptr_nonnull(b->memory);
}

/* --- its start, its data --------------------------------------------------------------------------------------------------------- */

static inline double *block_of(const built *b, size_t bytes)
{
    return (double *)(void *)(b->memory + bytes);
}

/* A parameter of the model, stored [inputs][outputs], to or from the graph's [outputs][inputs]. */
static inline size_t place_of(const bptt_tensor *tensor, const bptt_node *node, size_t i)
{
    const size_t cols = node->cols > 0 ? (size_t)node->cols : 1;
    return tensor->offset + i % cols * tensor->stride + i / cols;
}

/* The values of a leaf at a row of [..][B][width]. */
static inline void give_leaf(const interpreter *it, bptt_op op, const double *values, size_t row)
{
    for (int n = 0; n < it->graph->count; n++) {
        const bptt_node *node = &it->graph->nodes[n];
        if (node->op == op) { memcpy(it->value[n], values + row * node_size(node), node_size(node) * sizeof *values); }
    }
}

static inline interpreter start_of(const built *b, size_t stream)
{
    const bptt_model *model = b->code.model;
    const bptt_graph *g = &b->graph;
    interpreter it = interpreter_new(g);
    for (int p = 0; p < g->param_count; p++) {
        const bptt_node *node = &g->nodes[g->params[p].node];
        for (size_t i = 0; i < node_size(node); i++) {
            it.value[g->params[p].node][i] = block_of(b, model->param)[place_of(&model->tensors[p], node, i)];
        }
    }
    for (int s = 0; s < g->state_count; s++) {
        const bptt_tensor *state = &model->states[s];
        memcpy(it.value[g->states[s].node], block_of(b, model->state) + state->offset + stream * state->stride,
               state->cols * sizeof(double));
    }
    return it;
}

static inline void copy_node(const interpreter *from, int node, const interpreter *to, int copy)
{
    memcpy(to->value[copy], from->value[node], node_size(&from->graph->nodes[node]) * sizeof(double));
}

/* A start from which no loss is flat: parameters (biases too) and states at random. */
static inline void fill(built *b, uint64_t *random)
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

/* What a label or a target of the chunk counts for. */
static inline double share_of(const built *b, const bptt_rows *rows, size_t steps)
{
    const bptt_model *model = b->code.model;
    const size_t values = steps * model->batch * (model->targets > 0 ? model->targets : 1);
    size_t count = 0;
    if (b->plan->spec->reduction == BPTT_SUM) { return 1; }
    for (size_t i = 0; i < values; i++) {
        const bool counts = model->targets > 0 ? !isnan(((const double *)rows->d)[i]) : rows->y[i] < model->vocab;
        count += counts;
    }
    return count > 0 ? 1.0 / (double)count : 0;
}

/* A sequence of whatever a spec reads. */
enum { TOKENS = 64, REALS = 6 };
typedef struct sequence {
    uint32_t x[TOKENS], y[TOKENS];
    double v[TOKENS * REALS], d[TOKENS * REALS];
    uint8_t reset[TOKENS];
} sequence;

/* The graphs know nothing of loss_at: where there is no loss they get no label.  The model gets one that it must not look at. */
static inline void mask_sequence(sequence *s, const bptt_spec *spec)
{
    int64_t stretches[BPTT_MAX_STRETCHES][2];
    const int count = bptt_spec_loss_steps(spec, stretches);
    for (int64_t t = 0; t < spec->T; t++) {
        bool has_loss = false;
        for (int i = 0; i < count; i++) { has_loss = has_loss || (t >= stretches[i][0] && t < stretches[i][1]); }
        for (int64_t i = t * spec->batch; !has_loss && i < (t + 1) * spec->batch; i++) { s->y[i] = UINT32_MAX; }
        for (int64_t i = t * spec->batch * spec->outputs; !has_loss && i < (t + 1) * spec->batch * spec->outputs; i++) {
            s->d[i] = (double)NAN;
        }
    }
}

/* About one label or target in five counts for nothing. */
static inline void draw_sequence(sequence *s, const bptt_spec *spec, uint64_t *random)
{
    const size_t tokens = (size_t)(spec->T * spec->batch);
    ck_assert(tokens <= TOKENS && spec->inputs <= REALS && spec->outputs <= REALS);
    memset(s, 0, sizeof *s);
    if (spec->vocab > 0) { oracle_tokens(random, tokens, (size_t)spec->vocab, 5, s->x, s->y); }
    for (size_t i = 0; i < TOKENS && spec->resets; i++) {
        s->reset[i] = (uint8_t)(oracle_random(random) % 4 == 0 ? 1u << i % 8 : 0u);
    }
    for (size_t i = 0; i < TOKENS * REALS; i++) {
        s->v[i] = (double)(oracle_random(random) >> 11) * 0x1p-52 - 1;
        s->d[i] = oracle_random(random) % 5 == 0 ? (double)NAN : (double)(oracle_random(random) >> 11) * 0x1p-53;
    }
}

static inline bptt_rows rows_at(const sequence *s, const bptt_spec *spec, size_t row)
{
    return (bptt_rows){.x = s->x + row,
                       .v = s->v + row * (size_t)spec->inputs,
                       .y = s->y + row,
                       .d = s->d + row * (size_t)spec->outputs,
                       .reset = s->reset + row};
}

/* --- random cells ---------------------------------------------------------------------------------------------------------------- */

typedef struct cell_text {
    char text[4000];
    size_t length;
    bool declared[3][3]; /* matrices over hidden, over tokens, biases */
    int values;          /* v0, v1, ... so far */
    uint64_t *random;
} cell_text;

static inline unsigned pick(const cell_text *c, unsigned n)
{
    return (unsigned)(oracle_random(c->random) % n);
}

static inline void put(char *text, size_t size, size_t *length, const char *format, ...) BPTT_PRINTF(4, 5);
static inline void put(char *text, size_t size, size_t *length, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(text + *length, size - *length, format, arguments);
    va_end(arguments);
    ck_assert(added >= 0 && (size_t)added < size - *length);
    *length += (size_t)added;
}

/* The name of a vector that there is. */
static inline const char *any_value(const cell_text *c, char *name)
{
    unsigned i = pick(c, (unsigned)c->values + 3);
    if (i < 3) { return i == 2 ? "s" : "h"; }
    (void)snprintf(name, 16, "v%u", i - 3);
    return name;
}

/* The name of a parameter, declared when it is new. */
static inline const char *any_param(cell_text *c, unsigned kind, char *name)
{
    static const char *const declarations[] = {"M%u = matrix(hidden, hidden, 'M%u')\n", "X%u = matrix(hidden, input, 'X%u')\n",
                                               "b%u = vector(hidden, 'b%u')\n"};
    unsigned i = pick(c, 3);
    if (!c->declared[kind][i]) {
        char line[64];
        (void)snprintf(line, sizeof line, kind == 0 ? declarations[0] : kind == 1 ? declarations[1] : declarations[2], i, i);
        put(c->text, sizeof c->text, &c->length, "%s", line);
    }
    c->declared[kind][i] = true;
    (void)snprintf(name, 16, "%c%u", "MXb"[kind], i);
    return name;
}

/* One term of a sum. */
static inline void put_term(cell_text *c, char *line, size_t size, size_t *length)
{
    char a[16], b[16];
    const unsigned kind = pick(c, 16);
    if (kind < 2) {
        put(line, size, length, kind == 0 ? "%s * x" : "%s", any_param(c, 1 + kind, a));
    } else if (kind < 5) {
        const char *matrix = any_param(c, 0, a);
        put(line, size, length, "%s * %s", matrix, any_value(c, b));
    } else if (kind < 7) {
        const char *value = pick(c, 4) == 0 ? any_param(c, 2, a) : any_value(c, a);
        put(line, size, length, "%s * %s", value, any_value(c, b));
    } else if (kind == 7) {
        put(line, size, length, "%s(%s)", pick(c, 2) == 0 ? "tanh" : "sigmoid", any_value(c, a));
    } else if (kind < 10) {
        put(line, size, length, kind == 8 ? "%s" : "(s - %s)", any_value(c, a));
    } else if (kind == 10) {
        static const char *const pairs[] = {"max(%s, %s)", "min(%s, %s)", "%s / (1.5 + sigmoid(%s))"};
        const char *first = pick(c, 4) == 0 ? any_param(c, 2, a) : any_value(c, a);
        put(line, size, length, pairs[pick(c, 3)], first, any_value(c, b)); /* NOLINT */
    } else if (kind == 15) {
        const char *first = any_value(c, a);
        put(line, size, length, "concat(slice(%s, 2, hidden), slice(%s, 1, 1))", first, any_value(c, b));
    } else if (kind == 14) {
        put(line, size, length, "softmax(%s)", any_value(c, a));
    } else {
        static const char *const single[] = {"abs(%s)",
                                             "log(1.25 + sigmoid(%s))",
                                             "sqrt(0.5 + sigmoid(%s))",
                                             "0.75 / (2 - tanh(%s))",
                                             "(1 - %s)",
                                             "%s * 0.5",
                                             "max(0.25, %s)",
                                             "min(%s, 0.5)",
                                             "(%s + 2) / 3"};
        put(line, size, length, single[pick(c, 9)], any_value(c, a));
    }
}

/* An equation; `more` are terms that it ends with. */
static inline void put_line(cell_text *c, const char *name, bool computed, const char *more)
{
    char line[1000], a[16], b[16];
    size_t length = 0;
    const char *around = (const char *[]){"", "tanh", "sigmoid", "tanh", "-"}[pick(c, 5)];
    const char *matrix = any_param(c, 0, a);
    put(line, sizeof line, &length, "%s = %s(%s * %s", name, computed && around[0] == '\0' ? "tanh" : around, matrix,
        any_value(c, b));
    for (unsigned terms = pick(c, 4); terms > 0; terms--) {
        put(line, sizeof line, &length, " + ");
        put_term(c, line, sizeof line, &length);
    }
    put(c->text, sizeof c->text, &c->length, "%s%s)\n", line, more);
}

/* The value that comes next: of gates that are slices of one product, or of what is joined. */
static inline void put_parts(cell_text *c)
{
    static const char *const gates[] = {"tanh(slice(w%d, 1, hidden)) * sigmoid(slice(w%d, hidden + 1, 2 * hidden) + %s)",
                                        "slice(w%d, hidden + 1, 2 * hidden) * tanh(slice(w%d, 1, hidden) - %s)",
                                        "tanh(slice(w%d, 2, hidden + 1)) + slice(w%d, 1, hidden) * %s"};
    static const char *const joined[] = {"concat(tanh(%s), %s)", "concat(%s, sigmoid(%s) * 0.5)", "concat(%s * 2, %s * 3)"};
    const int v = c->values;
    char a[16], b[16];
    put(c->text, sizeof c->text, &c->length, "G%d = matrix(%s, 'G%d')\n", v,
        v % 2 == 0 ? "2 * hidden, hidden" : "hidden, 2 * hidden", v);
    if (v % 2 == 0) {
        put(c->text, sizeof c->text, &c->length, "w%d = G%d * %s\nv%d = ", v, v, any_value(c, a), v);
        put(c->text, sizeof c->text, &c->length, gates[pick(c, 3)], v, v, any_value(c, a)); /* NOLINT */
    } else {
        put(c->text, sizeof c->text, &c->length, "v%d = G%d * ", v, v);
        const char *first = any_value(c, a);
        put(c->text, sizeof c->text, &c->length, joined[pick(c, 3)], first, any_value(c, b)); /* NOLINT */
    }
    put(c->text, sizeof c->text, &c->length, "\n");
}

static inline void random_cell(cell_text *c)
{
    const bool h_is_state = pick(c, 3) > 0;
    put(c->text, sizeof c->text, &c->length, h_is_state ? "h = state(hidden)\ns = state(hidden)\n" : "s = state(hidden)\n");
    if (!h_is_state) { put(c->text, sizeof c->text, &c->length, "g = state(hidden)\nlocal h = g\n"); }
    const unsigned lines = 2 + pick(c, 4);
    unsigned s_at = pick(c, lines), h_at = pick(c, lines);
    for (unsigned i = 0; i < lines; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "v%d", c->values);
        if (pick(c, 3) == 0) {
            put_parts(c);
        } else {
            put_line(c, name, false, "");
        }
        c->values++;
        if (i == s_at) { put_line(c, "s", true, ""); }
        if (i == h_at && !h_is_state) { put_line(c, "g", true, ""); }
    }
    char all[200] = "";
    size_t length = 0;
    for (int v = 0; v < c->values; v++) { put(all, sizeof all, &length, pick(c, 2) == 0 ? " + v%d" : " + s * v%d", v); }
    put_line(c, h_is_state ? "h" : "output", true, all);
}

#endif
