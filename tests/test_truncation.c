/* test_truncation.c: which pairs of a loss and an earlier step a gradient keeps, in every mode of truncation.
 *
 * The untied oracle gives every step a copy of the weights of its own.  The adjoint of each loss alone runs back on the step graph, and
 * each copy's gradient counts where the mode's formula keeps the pair; that oracle itself is compared with central differences of the
 * copies.  Depends on cell.h.
 */
#include "../gen/embedded.h"
#include "scratch.h"

#include "cell.h"

#include <ftw.h>

/* --- the untied oracle ------------------------------------------------------------------------------------------------------------ */

enum { MOST_STEPS = 16 };

/* What is wrong on purpose, in the model's data or in the oracle: a comparison must then fail. */
static enum { NOTHING, RESETS_IGNORED, WINDOW_FORGETS, ONE_STEP_MORE, OTHER_MASKS } wrong;

/* Of the loss at step s and the weights of step t, both from 0. */
static bool keeps(const bptt_spec *spec, int64_t s, int64_t t)
{
    const int64_t n = spec->stride, end = n == 0 ? 0 : (s / n + 1) * n < spec->T ? (s / n + 1) * n : spec->T;
    if (t > s) { return false; }
    const int64_t K = spec->K + (wrong == ONE_STEP_MORE);
    switch (spec->truncation) {
    case BPTT_TRUNCATION_BLOCK:
        return end - K <= t;
    case BPTT_TRUNCATION_UNIFORM:
        return s - t < K;
    default:
        return s / spec->K == t / spec->K;
    }
}

/* A stream of a sequence: the step graph at every step so far. */
typedef struct stream {
    interpreter at[MOST_STEPS];
    size_t steps;
    double masks; /* their number in this sequence */
} stream;

/* The step's inputs, and whether it starts a sequence or a document: then its state is h_0, a weight of this step. */
static void give_data(const bptt_spec *spec, stream *r, size_t t, const sequence *q, size_t row)
{
    r->at[t].starts = (spec->resets && q->reset[row] != 0) || (t == 0 && !spec->carry && bptt_spec_restarts(spec));
    give_leaf(&r->at[t], BPTT_OP_INPUT_REAL, q->v, row);
    give_leaf(&r->at[t], BPTT_OP_TARGET_REAL, q->d, row);
}

static void run_step(const built *b, stream *r, size_t t, const sequence *q, size_t row)
{
    const bptt_graph *g = &b->graph;
    for (int s = 0; s < g->state_count && t > 0; s++) {
        copy_node(&r->at[t - 1], g->states[s].next, &r->at[t], g->states[s].node);
    }
    interpret(&r->at[t], 0, g->forward, q->x[row], q->y[row]);
}

/* Adds what the loss of step s gives to the copies of the weights that are kept, to a gradient that lies like the model's. */
static void add_pairs(const built *b, stream *r, size_t s, const sequence *q, size_t which, double *gradient)
{
    const bptt_graph *g = &b->graph;
    const bptt_model *model = b->code.model;
    for (size_t t = s + 1; t-- > 0 && keeps(b->plan->spec, (int64_t)s, (int64_t)t);) {
        interpreter *it = &r->at[t];
        for (int k = 0; k < g->state_count; k++) {
            double *carry = it->value[g->states[k].carry];
            if (t == s || g->states[k].outgoing < 0) {
                memset(carry, 0, node_size(&g->nodes[g->states[k].carry]) * sizeof *carry);
            } else {
                copy_node(&r->at[t + 1], g->states[k].outgoing, it, g->states[k].carry);
            }
        }
        const size_t row = t * model->batch + which;
        it->row += wrong == OTHER_MASKS && t < s; /* on the way back alone */
        const double none[REALS] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN};
        give_leaf(it, BPTT_OP_TARGET_REAL, t == s ? q->d : none, t == s ? row : 0);
        interpret(it, g->forward, g->count, q->x[row], t == s ? q->y[row] : UINT32_MAX);
        for (int p = 0; p < g->param_count; p++) {
            const bptt_node *node = &g->nodes[g->params[p].node];
            for (size_t i = 0; i < node_size(node); i++) {
                gradient[place_of(&model->tensors[p], node, i)] += it->value[g->params[p].gradient][i];
            }
        }
    }
}

static size_t chunk_first(const bptt_model *model, uint32_t chunk)
{
    return (size_t)chunk * model->chunk_steps;
}

static size_t chunk_steps(const bptt_model *model, uint32_t chunk)
{
    const size_t left = model->steps - chunk_first(model, chunk);
    return left < model->chunk_steps ? left : model->chunk_steps;
}

static bptt_rows rows_of(const bptt_spec *spec, const sequence *q, size_t first)
{
    return rows_at(q, spec, first * (size_t)spec->batch);
}

/* Dropout: where chunks go back over their own steps alone, these have numbers and rows of their own; else sequences have. */
static void give_masks(const built *b, stream *r, size_t t, size_t first, size_t row, uint32_t chunk)
{
    const bptt_spec *spec = b->plan->spec;
    const double *progress = block_of(b, b->code.model->progress);
    const bool own = spec->truncation == BPTT_TRUNCATION_CHUNK;
    if (!bptt_spec_drops(spec)) { return; }
    double before = progress[BPTT_UPDATES];
    if (bptt_accumulates(spec)) { before = before * (double)(spec->accumulate + 1) + progress[BPTT_PENDING]; }
    if (own || chunk == 0) { r->masks = 1 + before * b->code.model->chunks + (own ? chunk : 0); }
    r->at[t].masks = r->masks;
    r->at[t].seed = spec->seed;
    r->at[t].row = row - (own ? first * b->code.model->batch : 0);
}

/* One chunk by the oracle: steps run with the present weights; so do adjoints, on what the steps left. */
static double run_chunk(const built *b, stream *streams, const sequence *q, uint32_t chunk, double *gradient)
{
    const bptt_model *model = b->code.model;
    const size_t first = chunk_first(model, chunk), end = first + chunk_steps(model, chunk);
    double loss = 0;
    for (size_t k = 0; k < model->batch; k++) {
        stream *r = &streams[k];
        for (; r->steps < end; r->steps++) {
            const size_t row = r->steps * model->batch + k;
            r->at[r->steps] = start_of(b, k);
            give_data(b->plan->spec, r, r->steps, q, row);
            give_masks(b, r, r->steps, first, row, chunk);
            run_step(b, r, r->steps, q, row);
            loss += r->at[r->steps].value[b->graph.loss][0];
        }
        for (size_t t = 0; t < first; t++) { /* the present weights, in every copy */
            for (int p = 0; p < b->graph.param_count; p++) {
                const int node = b->graph.params[p].node;
                copy_node(&r->at[first], node, &r->at[t], node);
            }
        }
        for (size_t s = first; s < end; s++) { add_pairs(b, r, s, q, k, gradient); }
    }
    return loss;
}

/* --- comparisons ------------------------------------------------------------------------------------------------------------------- */

static const char *starts_of(const bptt_spec *spec)
{
    static const char *const words[] = {"zero", "learned", "given"};
    return words[spec->h0];
}

static void describe_case(const char *cell, const bptt_spec *spec, int simd, char *what, size_t size)
{
    (void)snprintf(
        what, size,
        "%s-- %s, H %lld V %lld D %lld Q %lld T %lld K %lld stride %lld B %lld layers %lld threads %lld simd %d unroll "
        "%s h0 %s%s%s%s%s%s",
        cell, bptt_spec_word("truncation", (int)spec->truncation), (long long)spec->hidden, (long long)spec->vocab,
        (long long)spec->inputs, (long long)spec->outputs, (long long)spec->T, (long long)spec->K, (long long)spec->stride,
        (long long)spec->batch, (long long)spec->layers, (long long)spec->threads, simd,
        bptt_spec_word("unroll", (int)spec->unroll), starts_of(spec), spec->resets ? " resets" : "", spec->carry ? " carry" : "",
        spec->loss_at.kind == BPTT_STEPS_LAST ? " last" : "", bptt_spec_drops(spec) ? " dropout" : "",
        spec->update == BPTT_UPDATE_SEQUENCE ? " update sequence" : "");
}

static unsigned compared, different; /* chunks */

static double largest(const double *values, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) { most = fmax(most, isfinite(values[i]) ? fabs(values[i]) : (double)INFINITY); }
    return most;
}

/* `gradient`: of the losses' sum, since the last update where gradients are added up. */
static void compare(const built *b, const double *gradient, double loss, double expected, const bptt_rows *rows, uint32_t chunk,
                    const char *what)
{
    const bptt_model *model = b->code.model;
    const double share = share_of(b, rows, chunk_steps(model, chunk));
    const double scale = bptt_accumulates(b->plan->spec) ? 1 : share, rounding = 1e-13 * scale * largest(gradient, model->block);
    compared++;
    if (fabs(loss - expected * share) > 1e-11 * (1 + fabs(expected))) {
        ck_assert_msg(wrong != NOTHING, "%s, chunk %u: loss %.15g, expected %.15g", what, (unsigned)chunk, loss,
                      expected * share);
        different++;
        return;
    }
    for (size_t i = 0; i < model->block; i++) { /* padding included */
        const double found = block_of(b, model->grad)[i], wanted = gradient[i] * scale;
        if (fabs(found - wanted) <= 1e-10 * (1 + fabs(wanted)) + rounding) { continue; }
        ck_assert_msg(wrong != NOTHING, "%s, chunk %u: gradient [%zu] %.15g, expected %.15g", what, (unsigned)chunk, i, found,
                      wanted);
        different++;
        return;
    }
}

/* The window's note of where sequences start, if it has one, is lost. */
static void forget_starts(const built *b)
{
    const bptt_model *model = b->code.model;
    for (uint32_t s = 0; s < model->state_count; s++) {
        const bptt_tensor *table = &model->states[s];
        if (strcmp(table->name, "window.restarts") != 0) { continue; }
        for (uint32_t i = 0; i < table->rows; i++) { block_of(b, model->state)[table->offset + i * table->stride] = 0; }
    }
}

/* The gradient's loss; where nothing is dropped, that is also the loss of the pass forward alone. */
static double run_model(const built *b, const bptt_rows *rows, uint32_t chunk, const char *what)
{
    const bptt_model *model = b->code.model;
    unsigned char *before = malloc(model->bytes);
    ck_assert_ptr_nonnull(before);
    memcpy(before, b->memory, model->bytes);
    const double forward = model->loss(model, b->memory, rows, chunk);
    memcpy(b->memory, before, model->bytes);
    free(before);
    const double loss = model->gradient(model, b->memory, rows, chunk);
    ck_assert_msg(bptt_spec_drops(b->plan->spec) || fabs(forward - loss) <= 1e-12 * (1 + fabs(loss)),
                  "%s, chunk %u: loss %.15g, of the gradient %.15g", what, (unsigned)chunk, forward, loss);
    return loss;
}

/* A sequence, chunk by chunk; `updates`: the weights change on the way.  False: a random cell blew up, no digits to compare. */
static bool follow_sequence(built *b, uint64_t *random, bool updates, const char *what)
{
    const bptt_model *model = b->code.model;
    const bptt_spec *spec = b->plan->spec;
    const bool sums = bptt_accumulates(spec);
    bool moderate = true;
    sequence q, masked; /* without labels where there is no loss, for the oracle, which knows labels alone */
    draw_sequence(&q, spec, random);
    masked = q;
    mask_sequence(&masked, spec);
    stream *streams = calloc(model->batch, sizeof *streams);
    double *gradient = calloc(model->block, sizeof *gradient);
    ck_assert(streams != NULL && gradient != NULL);
    if (!spec->carry && spec->h0 != BPTT_H0_GIVEN) { model->reset(model, b->memory); }
    for (uint32_t chunk = 0; chunk < model->chunks && moderate; chunk++) {
        const bptt_rows known = rows_of(spec, &masked, chunk_first(model, chunk));
        bptt_rows rows = rows_of(spec, &q, chunk_first(model, chunk));
        if (wrong == RESETS_IGNORED) { rows.reset = NULL; }
        if (wrong == WINDOW_FORGETS) { forget_starts(b); }
        if (!sums) { memset(gradient, 0, model->block * sizeof *gradient); }
        const double expected = run_chunk(b, streams, &masked, chunk, gradient);
        moderate = fmax(fabs(expected), largest(gradient, model->block)) < 1e6;
        if (!moderate) { break; }
        const double loss = run_model(b, &rows, chunk, what);
        compare(b, gradient, loss, expected, &known, chunk, what);
        if (sums ? chunk + 1 == model->chunks : updates) { (void)model->update(model, b->memory); }
    }
    for (size_t k = 0; k < model->batch; k++) {
        for (size_t t = 0; t < streams[k].steps; t++) { interpreter_free(&streams[k].at[t]); }
    }
    free(streams);
    free(gradient);
    return moderate;
}

static void check_case(const char *cell, const bptt_spec *spec, int simd, bool updates, uint64_t *random)
{
    char what[5000];
    describe_case(cell, spec, simd, what, sizeof what);
    built b;
    build(spec, cell, simd, &b);
    fill(&b, random);
    compared = different = 0;
    for (int n = 0; n < 2 && follow_sequence(&b, random, updates, what); n++) {}
    built_free(&b);
}

/* How a sequence's first state, and those of documents within it, come about. */
static const struct {
    bptt_h0 h0;
    bool resets, carry;
} starts[] = {
    {BPTT_H0_ZERO, false, true},   {BPTT_H0_ZERO, true, true},     {BPTT_H0_ZERO, true, false},   {BPTT_H0_LEARNED, false, false},
    {BPTT_H0_LEARNED, true, true}, {BPTT_H0_LEARNED, true, false}, {BPTT_H0_GIVEN, false, false}, {BPTT_H0_ZERO, false, false},
};
enum { STARTS = sizeof starts / sizeof starts[0] };

static void give_starts(bptt_spec *spec, unsigned i)
{
    spec->h0 = starts[i].h0;
    spec->resets = starts[i].resets;
    spec->carry = starts[i].carry;
}

/* Lengths at random, none of which divides another. */
static void draw_lengths(bptt_spec *spec, uint64_t *random)
{
    const bool block = spec->truncation == BPTT_TRUNCATION_BLOCK;
    do {
        spec->T = 5 + (int64_t)(oracle_random(random) % 8);
        spec->K = 2 + (int64_t)(oracle_random(random) % (uint64_t)(spec->T - 2));
        spec->stride = block ? 2 + (int64_t)(oracle_random(random) % (uint64_t)(spec->K - 1)) : 0;
    } while (spec->T % spec->K == 0 || (block && spec->T % spec->stride == 0));
}

static const struct {
    bptt_truncation_mode mode;
    int64_t T, K, stride;
} lengths[] = {
    {BPTT_TRUNCATION_CHUNK, 7, 3, 0},   {BPTT_TRUNCATION_BLOCK, 7, 3, 2},   {BPTT_TRUNCATION_BLOCK, 9, 5, 2},
    {BPTT_TRUNCATION_BLOCK, 8, 3, 3},   {BPTT_TRUNCATION_BLOCK, 6, 4, 1},   {BPTT_TRUNCATION_BLOCK, 5, 1, 1},
    {BPTT_TRUNCATION_BLOCK, 6, 6, 4},   {BPTT_TRUNCATION_BLOCK, 7, 7, 2},   {BPTT_TRUNCATION_BLOCK, 10, 7, 5},
    {BPTT_TRUNCATION_BLOCK, 1, 1, 1},   {BPTT_TRUNCATION_UNIFORM, 7, 3, 0}, {BPTT_TRUNCATION_UNIFORM, 6, 6, 0},
    {BPTT_TRUNCATION_UNIFORM, 5, 1, 0}, {BPTT_TRUNCATION_UNIFORM, 1, 1, 0}, {BPTT_TRUNCATION_UNIFORM, 9, 2, 0},
};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static void give_lengths(bptt_spec *spec, int i)
{
    spec->truncation = lengths[i].mode;
    spec->T = lengths[i].T;
    spec->K = lengths[i].K;
    spec->stride = lengths[i].stride;
}

/* Every mode and edge, streams, unroll, widths, starts, reduction. */
static void check_cell(const char *cell, const bptt_spec *like, bool updates)
{
    static const int64_t sizes[][3] = {{3, 4, 1}, {5, 5, 3}, {9, 3, 2}};
    uint64_t random = oracle_seed();
    for (int i = 0; i < LENGTHS; i++) {
        bptt_spec spec = *like;
        give_lengths(&spec, i);
        spec.hidden = sizes[i % 3][0];
        spec.batch = sizes[i % 3][2];
        if (spec.vocab > 0) { spec.vocab = sizes[i % 3][1]; }
        spec.unroll = i % 2 == 0 ? BPTT_UNROLL_TIME : BPTT_UNROLL_NONE;
        if (spec.hidden == 3 && i % 4 != 0) { spec.unroll = BPTT_UNROLL_FULL; }
        give_starts(&spec, (unsigned)i % STARTS);
        spec.loss_at.kind = i % 3 == 0 ? BPTT_STEPS_LAST : BPTT_STEPS_ALL;
        spec.reduction = i % 5 == 0 ? BPTT_MEAN : BPTT_SUM;
        check_case(cell, &spec, (const int[]){1, 4, bptt_kernels_simd()}[i % 3], updates, &random);
        ck_assert_uint_eq(compared, 2 * (unsigned)((spec.T + bptt_spec_chunk(&spec) - 1) / bptt_spec_chunk(&spec)));
    }
}

static const char *const shipped[] = {"cells/rnn.lua", "cells/gru.lua", "cells/lstm.lua"};

START_TEST(shipped_cell)
{
    const char *cell = bptt_embedded(shipped[_i % 3]);
    bptt_spec spec = _i < 6 ? interpret_spec(1, 2, 1, 1, 1) : interpret_real_spec(1, 2, 3, 1, 1, 1, BPTT_SQUARED_ERROR);
    spec.layers = 1 + _i / 3 % 2;
    check_cell(cell, &spec, false);
}
END_TEST

/* What steps left when they ran, adjoints with the weights of now (Williams and Peng 1990). */
START_TEST(weights_change_between_blocks)
{
    const bptt_spec spec = interpret_spec(1, 2, 1, 1, 1);
    check_cell(bptt_embedded(shipped[_i]), &spec, true);
}
END_TEST

/* --- starts, inside of sequences too ------------------------------------------------------------------------------------------------ */

#define OWN                                                                                                                      \
    "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nV = matrix(hidden, hidden, 'V')\nb = vector(hidden, "      \
    "'b')\n"                                                                                                                     \
    "h = state(hidden)\nc = state(hidden)\nh0 = h\nf = sigmoid(W * x + U * h + b)\nc = f * c + (1 - f) * tanh(V * h0)\n"         \
    "h = tanh(W * x + c)\noutput = h + V * h0\n"

static const struct {
    const char *name; /* of an embedded cell; NULL: one of its own */
    int64_t layers;
} kinds[] = {{"cells/rnn.lua", 1}, {"cells/gru.lua", 1}, {"cells/lstm.lua", 1}, {NULL, 1},
             {"cells/rnn.lua", 2}, {"cells/gru.lua", 2}, {"cells/lstm.lua", 2}};

static const char *text_of(const char *name)
{
    return name == NULL ? OWN : bptt_embedded(name);
}

/* Any way to unroll; all spelled out where that is not much. */
static bptt_unroll draw_unroll(const bptt_spec *spec, uint64_t *random)
{
    const bool small = spec->hidden <= 3 && spec->threads <= 1 && spec->T * spec->batch <= 16;
    return (bptt_unroll[]){BPTT_UNROLL_TIME, BPTT_UNROLL_NONE, BPTT_UNROLL_FULL}[oracle_random(random) % (small ? 3 : 2)];
}

/* A kind of cell in a mode, from a start; lengths and sizes at random. */
static bptt_spec draw_spec(int kind, bptt_truncation_mode mode, unsigned start, uint64_t *random)
{
    bptt_spec spec = interpret_spec((const int64_t[]){3, 5, 9}[oracle_random(random) % 3],
                                    2 + (int64_t)(oracle_random(random) % 4), 1, 1, 1 + (int64_t)(oracle_random(random) % 3));
    spec.truncation = mode;
    draw_lengths(&spec, random);
    spec.layers = kinds[kind].layers;
    spec.reduction = oracle_random(random) % 2 == 0 ? BPTT_MEAN : BPTT_SUM;
    spec.accumulate = 1;
    spec.seed = oracle_random(random);
    if (oracle_random(random) % 3 == 0) { spec.dropout.output = 0.375; }
    if (oracle_random(random) % 3 == 0 && spec.layers > 1) { spec.dropout.between = 0.5; }
    if (oracle_random(random) % 3 == 0) { spec.embedding = 3; }
    if (oracle_random(random) % 2 == 0 && spec.embedding > 0) { spec.dropout.input = 0.25; }
    spec.threads = 1 + (int64_t)(oracle_random(random) % (uint64_t)spec.batch);
    spec.unroll = draw_unroll(&spec, random);
    give_starts(&spec, start);
    return spec;
}

/* Every kind of cell, mode and start, one update a chunk and one a sequence. */
START_TEST(any_start)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    for (unsigned start = 0; start < STARTS; start++) {
        for (int mode = BPTT_TRUNCATION_CHUNK; mode <= BPTT_TRUNCATION_UNIFORM; mode++) {
            for (int update = BPTT_UPDATE_CHUNK; update <= BPTT_UPDATE_SEQUENCE; update++) {
                bptt_spec spec = draw_spec(_i, (bptt_truncation_mode)mode, start, &random);
                spec.update = (bptt_update_kind)update;
                const int simd = (const int[]){1, 4, bptt_kernels_simd()}[oracle_random(&random) % 3];
                check_case(text_of(kinds[_i].name), &spec, simd, true, &random);
                ck_assert_uint_eq(compared, 2 * (unsigned)((spec.T + bptt_spec_chunk(&spec) - 1) / bptt_spec_chunk(&spec)));
            }
        }
    }
}
END_TEST

/* The comparison fails where a reset is ignored, where the way back alone forgets those of its window, where an edge more is kept, and
 * where the way back has other masks than the way there. */
START_TEST(what_is_wrong_is_seen)
{
    const int kind = _i < 12 ? _i % 4 : 4 + _i % 3; /* masks between layers */
    uint64_t random = oracle_seed();
    for (int mode = BPTT_TRUNCATION_BLOCK; mode <= BPTT_TRUNCATION_UNIFORM; mode++) {
        const unsigned start = _i >= 8 ? 0 : _i % 2 == 0 ? 1 : 4; /* with resets where they matter */
        bptt_spec spec = draw_spec(kind, (bptt_truncation_mode)mode, start, &random);
        wrong = (const int[]){RESETS_IGNORED, WINDOW_FORGETS, ONE_STEP_MORE, OTHER_MASKS}[_i / 4];
        spec.dropout.between = wrong == OTHER_MASKS ? 0.5 : 0;
        spec.T = 12; /* some reset is where it matters */
        spec.K = 5;
        spec.stride = mode == BPTT_TRUNCATION_BLOCK ? 2 : 0;
        spec.batch = 3;
        check_case(text_of(kinds[kind].name), &spec, 4, false, &random);
        const bool matters = wrong != WINDOW_FORGETS || mode == BPTT_TRUNCATION_BLOCK; /* which has a window */
        ck_assert_msg(matters == (different > 0), "%u of %u chunks differ", different, compared);
        wrong = NOTHING;
    }
}
END_TEST

/* What predict gives, step by step, is what losses are of; documents start anywhere. */
START_TEST(one_step_at_a_time)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    bptt_spec spec = draw_spec(_i % 3 + 4, _i < 3 ? BPTT_TRUNCATION_BLOCK : BPTT_TRUNCATION_UNIFORM, 4, &random);
    built b;
    sequence q;
    build(&spec, text_of(kinds[_i % 3 + 4].name), 4, &b);
    fill(&b, &random);
    draw_sequence(&q, &spec, &random);
    const bptt_model *model = b.code.model;
    const size_t B = model->batch;
    stream *streams = calloc(B, sizeof *streams);
    double *outputs = calloc(B * model->vocab, sizeof *outputs);
    ck_assert(streams != NULL && outputs != NULL);
    for (size_t k = 0; k < B; k++) {
        for (size_t t = 0; t < model->steps; t++) { streams[k].at[t] = start_of(&b, k); }
    }
    for (size_t t = 0; t < model->steps; t++) {
        const bptt_rows rows = rows_of(&spec, &q, t);
        model->predict(model, b.memory, &rows, outputs);
        for (size_t k = 0; k < B; k++) {
            const size_t row = t * B + k;
            give_data(&spec, &streams[k], t, &q, row);
            q.y[row] %= model->vocab;
            run_step(&b, &streams[k], t, &q, row);
            const double loss = streams[k].at[t].value[b.graph.loss][0];
            ck_assert_double_eq_tol(outputs[k * model->vocab + q.y[row]], exp(-loss), 1e-12);
        }
    }
    for (size_t k = 0; k < B; k++) {
        for (size_t t = 0; t < model->steps; t++) { interpreter_free(&streams[k].at[t]); }
    }
    free(streams);
    free(outputs);
    built_free(&b);
}
END_TEST

/* --- the oracle itself, and its relatives -------------------------------------------------------------------------------------------- */

/* The losses of a stream's steps with weight i of parameter p moved at step t alone. */
static void losses_beside(const built *b, const sequence *q, size_t t, int p, size_t i, double by, double *losses)
{
    stream r = {.steps = 0};
    for (; r.steps < b->code.model->steps; r.steps++) {
        r.at[r.steps] = start_of(b, 0);
        if (r.steps == t) { r.at[t].value[b->graph.params[p].node][i] += by; }
        give_data(b->plan->spec, &r, r.steps, q, r.steps);
        run_step(b, &r, r.steps, q, r.steps);
        losses[r.steps] = r.at[r.steps].value[b->graph.loss][0];
    }
    for (size_t n = 0; n < r.steps; n++) { interpreter_free(&r.at[n]); }
}

/* Every copy of every weight, differenced; the pairs that are kept, added up; against the generated gradient. */
START_TEST(differences_of_untied_weights)
{
    const char *cell = bptt_embedded(shipped[_i % 3]);
    bptt_spec spec = interpret_spec(2, 3, 5, 3, 1);
    spec.truncation = _i % 6 < 3 ? BPTT_TRUNCATION_BLOCK : BPTT_TRUNCATION_UNIFORM;
    spec.stride = _i % 6 < 3 ? 2 : 0;
    give_starts(&spec, (const unsigned[]){0, 1, 5, 6}[_i / 6]);
    uint64_t random = oracle_seed() + (uint64_t)_i;
    built b;
    build(&spec, cell, 4, &b);
    fill(&b, &random);
    sequence q;
    draw_sequence(&q, &spec, &random);
    q.reset[3] = 1; /* inside of windows and horizons, if it counts */
    const bptt_model *model = b.code.model;
    double *wanted = calloc(model->chunks * model->block, sizeof *wanted);
    ck_assert_ptr_nonnull(wanted);
    for (int p = 0; p < b.graph.param_count; p++) {
        const bptt_node *node = &b.graph.nodes[b.graph.params[p].node];
        for (size_t i = 0; i < node_size(node); i++) {
            for (size_t t = 0; t < model->steps; t++) {
                static const double sides[] = {-2, -1, 1, 2}, weights[] = {1, -8, 8, -1};
                const double step = 0x1p-9;
                double slope[MOST_STEPS] = {0}, losses[MOST_STEPS];
                for (int side = 0; side < 4; side++) {
                    losses_beside(&b, &q, t, p, i, sides[side] * step, losses);
                    for (size_t s = 0; s < model->steps; s++) { slope[s] += weights[side] * losses[s] / (12 * step); }
                }
                for (size_t s = t; s < model->steps; s++) {
                    if (!keeps(&spec, (int64_t)s, (int64_t)t)) { continue; }
                    wanted[s / model->chunk_steps * model->block + place_of(&model->tensors[p], node, i)] += slope[s];
                }
            }
        }
    }
    for (uint32_t chunk = 0; chunk < model->chunks; chunk++) {
        const bptt_rows rows = rows_of(&spec, &q, chunk_first(model, chunk));
        (void)model->gradient(model, b.memory, &rows, chunk);
        for (size_t i = 0; i < model->block; i++) {
            const double one = block_of(&b, model->grad)[i], other = wanted[chunk * model->block + i];
            ck_assert_msg(fabs(one - other) <= 1e-8 * (1 + fabs(other)), "chunk %u [%zu]: %.12g, differences %.12g",
                          (unsigned)chunk, i, one, other);
        }
    }
    free(wanted);
    built_free(&b);
}
END_TEST

/* Textbook BPTT(h; h') of a tanh network with one sequence, sums of losses and plain steps down the gradient: nothing of graph or plan. */
enum { TH = 3, TV = 4, TT = 11, TK = 5, TS = 2 };
typedef struct textbook {
    double W[TH][TV], U[TH][TH], b[TH], Y[TV][TH], c[TV]; /* weights */
} textbook;

static void textbook_block(textbook *w, double h[TT + 1][TH], const sequence *q, int first, int end, double rate, textbook *g)
{
    double p[TT][TV], carry[TH] = {0};
    for (int t = first; t < end; t++) {
        double sum = 0;
        for (int i = 0; i < TH; i++) {
            double a = w->b[i] + w->W[i][q->x[t]];
            for (int j = 0; j < TH; j++) { a += w->U[i][j] * h[t][j]; }
            h[t + 1][i] = tanh(a);
        }
        for (int v = 0; v < TV; v++) {
            double o = w->c[v];
            for (int j = 0; j < TH; j++) { o += w->Y[v][j] * h[t + 1][j]; }
            p[t][v] = exp(o);
            sum += p[t][v];
        }
        for (int v = 0; v < TV; v++) { p[t][v] = q->y[t] < TV ? p[t][v] / sum - (q->y[t] == (uint32_t)v) : 0; }
    }
    memset(g, 0, sizeof *g);
    for (int t = end - 1; t >= 0 && t >= end - TK; t--) {
        double da[TH];
        for (int i = 0; i < TH; i++) {
            double dh = carry[i];
            for (int v = 0; v < TV && t >= first; v++) { dh += w->Y[v][i] * p[t][v]; }
            da[i] = dh * (1 - h[t + 1][i] * h[t + 1][i]); /* h as it was, U and Y as they are now */
        }
        for (int i = 0; i < TH; i++) {
            carry[i] = 0;
            for (int j = 0; j < TH; j++) {
                carry[i] += w->U[j][i] * da[j];
                g->U[i][j] += da[i] * h[t][j];
            }
            g->W[i][q->x[t]] += da[i];
            g->b[i] += da[i];
        }
        for (int v = 0; v < TV && t >= first; v++) {
            for (int j = 0; j < TH; j++) { g->Y[v][j] += p[t][v] * h[t + 1][j]; }
            g->c[v] += p[t][v];
        }
    }
    double *to = &w->W[0][0], *from = &g->W[0][0];
    for (size_t i = 0; i < sizeof *w / sizeof *to; i++) { to[i] -= rate * from[i]; }
}

/* Between the model's parameters and the textbook's. */
static void exchange(const built *b, textbook *w, bool give)
{
    double *const at[] = {&w->W[0][0], &w->U[0][0], w->b, &w->Y[0][0], w->c};
    ck_assert_int_eq(b->graph.param_count, 5);
    for (int p = 0; p < 5; p++) {
        const bptt_node *node = &b->graph.nodes[b->graph.params[p].node];
        for (size_t i = 0; i < node_size(node); i++) {
            double *own = block_of(b, b->code.model->param) + place_of(&b->code.model->tensors[p], node, i);
            if (give) {
                at[p][i] = *own;
            } else {
                ck_assert_msg(fabs(at[p][i] - *own) <= 1e-11, "parameter %d [%zu]: %.15g, the textbook's %.15g", p, i, *own,
                              at[p][i]);
            }
        }
    }
}

START_TEST(textbook_with_updates_between_blocks)
{
    bptt_spec spec = interpret_spec(TH, TV, TT, TK, 1);
    spec.truncation = BPTT_TRUNCATION_BLOCK;
    spec.stride = TS;
    uint64_t random = oracle_seed();
    built b;
    build(&spec, bptt_embedded(shipped[0]), bptt_kernels_simd(), &b);
    fill(&b, &random);
    const bptt_model *model = b.code.model;
    textbook w, g;
    exchange(&b, &w, true);
    double h[TT + 1][TH];
    memcpy(h[0], block_of(&b, model->state) + model->states[0].offset, sizeof h[0]);
    for (int n = 0; n < 3; n++) {
        sequence q;
        draw_sequence(&q, &spec, &random);
        for (uint32_t chunk = 0; chunk < model->chunks; chunk++) {
            const int first = (int)chunk * TS, end = first + TS < TT ? first + TS : TT;
            const bptt_rows rows = rows_of(&spec, &q, (size_t)first);
            (void)model->gradient(model, b.memory, &rows, chunk);
            (void)model->update(model, b.memory);
            textbook_block(&w, h, &q, first, end, spec.optimizer.rate, &g);
            exchange(&b, &w, false);
        }
        memcpy(h[0], h[TT], sizeof h[0]);
    }
    built_free(&b);
}
END_TEST

/* What goes on from chunk to chunk is in the table of states: put into another model, training goes on bit for bit. */
START_TEST(states_are_all_that_goes_on)
{
    bptt_spec spec = interpret_spec(5, 4, 9, 5, 2);
    spec.truncation = _i == 0 ? BPTT_TRUNCATION_BLOCK : BPTT_TRUNCATION_UNIFORM;
    spec.stride = _i == 0 ? 2 : 0;
    uint64_t random = oracle_seed();
    built a, b;
    build(&spec, bptt_embedded(shipped[2]), bptt_kernels_simd(), &a);
    build(&spec, bptt_embedded(shipped[2]), bptt_kernels_simd(), &b);
    fill(&a, &random);
    const bptt_model *model = a.code.model;
    sequence q;
    draw_sequence(&q, &spec, &random);
    for (uint32_t chunk = 0; chunk < model->chunks; chunk++) {
        const bptt_rows rows = rows_of(&spec, &q, chunk_first(model, chunk));
        fill(&b, &random);
        memcpy(b.memory + model->param, a.memory + model->param, model->block * sizeof(double));
        model->refresh(model, b.memory);
        for (uint32_t s = 0; s < model->state_count; s++) {
            for (uint32_t i = 0; i < model->states[s].rows; i++) {
                const size_t at = model->states[s].offset + i * model->states[s].stride;
                memcpy(block_of(&b, model->state) + at, block_of(&a, model->state) + at, model->states[s].cols * sizeof(double));
            }
        }
        const double one = model->gradient(model, a.memory, &rows, chunk), other = model->gradient(model, b.memory, &rows, chunk);
        ck_assert(one == other);
        ck_assert_mem_eq(a.memory + model->grad, b.memory + model->grad, model->block * sizeof(double));
        (void)model->update(model, a.memory);
    }
    built_free(&a);
    built_free(&b);
}
END_TEST

/* Tokens of a window that no sequence had, from a checkpoint that was tampered with, are not believed. */
START_TEST(strange_tokens)
{
    static const double tokens[] = {-1, 4, 1e300, (double)NAN, (double)-INFINITY};
    bptt_spec spec = interpret_spec(5, 4, 6, 4, 1);
    spec.truncation = BPTT_TRUNCATION_BLOCK;
    spec.stride = 2;
    uint64_t random = oracle_seed();
    built b;
    build(&spec, bptt_embedded(shipped[0]), 4, &b);
    fill(&b, &random);
    const bptt_model *model = b.code.model;
    const bptt_tensor *window = &model->states[model->state_count - 1];
    ck_assert_str_eq(window->name, "window.tokens");
    sequence q;
    draw_sequence(&q, &spec, &random);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        bptt_rows rows = rows_of(&spec, &q, 0);
        (void)model->gradient(model, b.memory, &rows, 0);
        for (uint32_t r = 0; r < window->rows; r++) {
            block_of(&b, model->state)[window->offset + r * window->stride] = tokens[i];
        }
        unsigned char *before = malloc(model->bytes);
        ck_assert_ptr_nonnull(before);
        memcpy(before, b.memory, model->bytes);
        rows = rows_of(&spec, &q, 2);
        (void)model->gradient(model, b.memory, &rows, 1);
        ck_assert_mem_eq(before, b.memory, model->grad);
        free(before);
    }
    built_free(&b);
}
END_TEST

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about;
    (void)type;
    (void)where;
    return remove(path);
}

static void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Numbers of the system's compiler. */
START_TEST(any_cell_by_gcc)
{
    uint64_t random = oracle_seed();
    ck_assert_int_eq(setenv("BPTT_CC", "gcc", 1), 0);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", scratch_folder, 1), 0);
    by_compiler = true;
    for (int mode = BPTT_TRUNCATION_BLOCK; mode <= BPTT_TRUNCATION_UNIFORM; mode++) {
        const bptt_spec spec = draw_spec(_i, (bptt_truncation_mode)mode, 4, &random);
        check_case(text_of(kinds[_i].name), &spec, bptt_kernels_simd(), true, &random);
    }
    by_compiler = false;
}
END_TEST

#define W "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\n"

static const char *const cells[] = {
    W "h = state(hidden)\na = W * x + U * h + b\nh = h + 0.5 * tanh(a)\n",
    W "h = state(hidden)\na = W * x + U * h + b\nh = max(tanh(a), 0.5 * h) / (1.5 + a * a) - min(h, a) + abs(a) * 0.25\n",
    W "c = state(hidden)\nh = state(hidden)\nc = c + h\nh = tanh(W * x + U * c + b)\n",
    W "s = state(hidden)\ns0 = s\ns = tanh(W * x + U * s + b)\noutput = U * s0 + s0 * s\n",
    W "V = matrix(hidden, input, 'V')\ns = state(hidden)\ns = tanh(W * x + U * s + b)\noutput = max(s, tanh(U * s + V * x))\n",
    W "s = state(hidden)\ns0 = s\ns = tanh(W * x + b)\noutput = tanh(U * s0)\n",
    W "h = state(hidden)\np = softmax(W * x + U * h + b)\nh = concat(slice(p, 2, hidden), slice(h, 1, 1))\n",
    W "h = state(hidden)\nz = sigmoid(W * x + U * h + b)\nn = tanh(U * (z * h) + b)\nh = (1 - z) * h + z * n\n",
};

START_TEST(other_cell)
{
    const bptt_spec spec = interpret_spec(1, 2, 1, 1, 1);
    check_cell(cells[_i], &spec, false);
}
END_TEST

enum { RANDOM_CELLS = 200 };

START_TEST(random_cell_with_random_lengths)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    cell_text c = {.random = &random};
    if (_i % 4 != 0) { random_cell(&c); }
    const int64_t T = 1 + pick(&c, 12), K = 1 + pick(&c, (unsigned)T);
    bptt_spec spec = interpret_spec((const int64_t[]){3, 5, 9}[pick(&c, 3)], 2 + pick(&c, 4), T, K, 1 + pick(&c, 3));
    spec.truncation = (bptt_truncation_mode)pick(&c, 3);
    if (spec.truncation == BPTT_TRUNCATION_BLOCK) { spec.stride = 1 + pick(&c, (unsigned)K); }
    spec.layers = c.length > 0 ? 1 : 1 + pick(&c, 2);
    give_starts(&spec, pick(&c, STARTS));
    if (c.length > 0 && spec.h0 == BPTT_H0_LEARNED) { spec.h0 = BPTT_H0_ZERO; } /* a state that none reads trains none */
    spec.accumulate = 1;
    spec.update = (bptt_update_kind)pick(&c, 2);
    if (pick(&c, 3) == 0) { spec.dropout.output = 0.25; }
    spec.threads = 1 + pick(&c, (unsigned)spec.batch);
    spec.unroll = draw_unroll(&spec, &random);
    if (pick(&c, 3) == 0) { spec.loss_at.kind = BPTT_STEPS_LAST; }
    const int simd = (const int[]){1, 4, bptt_kernels_simd()}[pick(&c, 3)];
    check_case(c.length > 0 ? c.text : bptt_embedded(shipped[pick(&c, 3)]), &spec, simd, false, &random);
    if (c.length == 0) { ck_assert_uint_gt(compared, 0); }
}
END_TEST

int main(void)
{
    printf("test_truncation: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("truncation");
    TCase *pairs = tcase_create("pairs");
    tcase_set_timeout(pairs, 120);
    tcase_add_unchecked_fixture(pairs, scratch_open, remove_all);
    tcase_add_loop_test(pairs, shipped_cell, 0, 9);
    tcase_add_loop_test(pairs, weights_change_between_blocks, 0, 3);
    tcase_add_loop_test(pairs, differences_of_untied_weights, 0, 24);
    tcase_add_loop_test(pairs, any_start, 0, (int)(sizeof kinds / sizeof kinds[0]));
    tcase_add_loop_test(pairs, what_is_wrong_is_seen, 0, 15);
    tcase_add_loop_test(pairs, one_step_at_a_time, 0, 6);
    tcase_add_test(pairs, textbook_with_updates_between_blocks);
    tcase_add_loop_test(pairs, states_are_all_that_goes_on, 0, 2);
    tcase_add_test(pairs, strange_tokens);
    tcase_add_loop_test(pairs, any_cell_by_gcc, 0, (int)(sizeof kinds / sizeof kinds[0]));
    tcase_add_loop_test(pairs, other_cell, 0, (int)(sizeof cells / sizeof cells[0]));
    tcase_add_loop_test(pairs, random_cell_with_random_lengths, 0, RANDOM_CELLS);
    suite_add_tcase(suite, pairs);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
