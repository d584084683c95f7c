/* peer_task.c: sizes, first weights and tokens of a row.  See peer_task.h. */
#include "peer_task.h"

#include "../../runtime/bench.h"
#include "../../runtime/file.h"
#include "../../runtime/generate.h"
#include "../../runtime/machine.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CHUNKS = 64, WORDS_SEEN = 40000, MOST_TEXT = 1 << 24 };

/* ---- sizes ---- */

/* At a rate of 0.1 the first steps are chaotic: after 20 of them rounding has moved the loss by up to 40 %.  At this rate all
 * systems agree, and a step takes as long. */
static bptt_status make_spec(size_t row, bptt_spec *spec, bptt_error *error)
{
    static const bptt_override overrides[] = {{"carry", 5, "false"}, {"optimizer", 9, "{'adagrad', rate = 0.001}"}};
    return bptt_suite_spec(row, overrides, sizeof overrides / sizeof overrides[0], spec, error);
}

static bptt_status count_work(peer_task *task, bptt_error *error)
{
    bptt_unit unit;
    bptt_status status = bptt_compile_here(&task->spec, &unit, error);
    if (status != BPTT_OK) { return status; }
    task->flop = unit.counts.flop_forward + unit.counts.flop_backward + unit.counts.flop_update;
    task->bytes = unit.counts.bytes_moved;
    bptt_unit_free(&unit);
    return BPTT_OK;
}

/* ---- weights ---- */

static float *draw(size_t count, double scale, uint64_t *state)
{
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count && values != NULL; i++) { values[i] = (float)(scale * (2 * bptt_random_unit(state) - 1)); }
    return values;
}

/* ---- tokens ---- */

typedef struct token_text {
    uint32_t *tokens;
    size_t count;
} token_text;

static unsigned rank_of(const size_t *counts, unsigned byte)
{
    unsigned rank = 0;
    for (unsigned other = 0; other < 256; other++) {
        rank += counts[other] > counts[byte] || (counts[other] == counts[byte] && other < byte);
    }
    return rank;
}

static bptt_status read_text(const char *path, size_t vocab, token_text *out, bptt_error *error)
{
    size_t counts[256] = {0};
    uint32_t symbol[256];
    unsigned char *bytes = NULL;
    bptt_status status = bptt_file_read(path, MOST_TEXT, &bytes, &out->count, error);
    if (status != BPTT_OK) { return status; }
    for (size_t i = 0; i < out->count; i++) { counts[bytes[i]]++; }
    for (unsigned byte = 0; byte < 256; byte++) {
        const unsigned rank = rank_of(counts, byte);
        symbol[byte] = rank < vocab ? rank : (uint32_t)vocab - 1;
    }
    out->tokens = calloc(out->count + 1, sizeof *out->tokens);
    for (size_t i = 0; i < out->count && out->tokens != NULL; i++) { out->tokens[i] = symbol[bytes[i]]; }
    free(bytes);
    return out->tokens != NULL ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "no memory for %s", path);
}

static bptt_status draw_words(size_t vocab, token_text *out, bptt_error *error)
{
    uint64_t state = 1;
    double *sums = malloc(vocab * sizeof *sums);
    *out = (token_text){malloc(WORDS_SEEN * sizeof *out->tokens), WORDS_SEEN};
    if (sums == NULL || out->tokens == NULL) {
        free(sums);
        return bptt_fail(error, BPTT_FAILED, "no memory for %d words", WORDS_SEEN);
    }
    double total = 0;
    for (size_t n = 0; n < vocab; n++) { sums[n] = total += 1 / ((double)n + 2.7); }
    for (size_t i = 0; i < WORDS_SEEN; i++) {
        const double at = bptt_random_unit(&state) * total;
        size_t low = 0, high = vocab - 1; /* the first n with sums[n] > at */
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (sums[middle] > at) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        out->tokens[i] = (uint32_t)low;
    }
    free(sums);
    return BPTT_OK;
}

/* Cuts the text into B streams side by side, and these into chunks of T. */
static bptt_status cut(peer_task *task, const token_text *text, bptt_error *error)
{
    const size_t T = task->steps, B = task->batch, stream = (text->count - 1) / B;
    task->chunks = stream / T < MOST_CHUNKS ? stream / T : MOST_CHUNKS;
    if (task->chunks == 0) { return bptt_fail(error, BPTT_FAILED, "%zu tokens are too few for %s", text->count, task->name); }
    task->x = malloc(task->chunks * T * B * sizeof *task->x);
    task->y = malloc(task->chunks * T * B * sizeof *task->y);
    if (task->x == NULL || task->y == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for %zu tokens", text->count); }
    for (size_t t = 0; t < task->chunks * T; t++) {
        for (size_t b = 0; b < B; b++) {
            task->x[t * B + b] = text->tokens[b * stream + t];
            task->y[t * B + b] = text->tokens[b * stream + t + 1];
        }
    }
    return BPTT_OK;
}

/* ---- open, close ---- */

bptt_status peer_task_open(size_t row, const char *text_path, peer_task *task, bptt_error *error)
{
    static const size_t gates[] = {[BPTT_CELL_RNN] = 1, [BPTT_CELL_GRU] = 3, [BPTT_CELL_LSTM] = 4};
    *task = (peer_task){.name = bptt_suite_words[row]};
    bptt_status status = make_spec(row, &task->spec, error);
    if (status == BPTT_OK) { status = count_work(task, error); }
    if (status != BPTT_OK) { return status; }
    const size_t H = task->hidden = (size_t)task->spec.hidden, V = task->vocab = (size_t)task->spec.vocab;
    task->steps = (size_t)task->spec.T;
    task->batch = (size_t)task->spec.batch;
    task->gates = gates[task->spec.cell];
    task->biases = task->gates + (task->spec.cell == BPTT_CELL_GRU);
    uint64_t state = 1;
    task->W_xh = draw(V * task->gates * H, task->spec.init.scale, &state);
    task->W_hh = draw(H * task->gates * H, task->spec.init.scale, &state);
    task->W_hy = draw(H * V, task->spec.init.scale, &state);
    if (task->W_xh == NULL || task->W_hh == NULL || task->W_hy == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for the weights of %s", task->name);
    }
    token_text text = {NULL, 0};
    status = V <= 256 ? read_text(text_path, V, &text, error) : draw_words(V, &text, error);
    if (status == BPTT_OK) { status = cut(task, &text, error); }
    free(text.tokens);
    return status;
}

void peer_task_close(peer_task *task)
{
    bptt_spec_free(&task->spec);
    free(task->W_xh);
    free(task->W_hh);
    free(task->W_hy);
    free(task->x);
    free(task->y);
    *task = (peer_task){.name = NULL};
}
