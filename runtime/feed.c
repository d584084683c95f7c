/* feed.c: streams cut into sequences of T and these into chunks.  See feed.h. */
#include "feed.h"

#include <math.h>

/* Sequences of the file are sequences of T steps, each from a state of zero. */
static bptt_status open_sequences(bptt_feed *feed, const char *what, bptt_error *error)
{
    const bptt_spec *spec = feed->spec;
    const bptt_data *data = feed->data;
    const size_t length = data->length - data->forecast;
    if (spec->carry) {
        return bptt_fail(error, BPTT_FAILED, "%s: has sequences that each begin anew; expected carry = false", what);
    }
    if (length > (size_t)spec->T) {
        return bptt_fail(error, BPTT_FAILED, "%s: has sequences of %zu steps; expected at most T = %lld", what, length,
                         (long long)spec->T);
    }
    bptt_stream_open_sequences(&feed->stream, data->count / data->length, length, (size_t)spec->T, (size_t)spec->batch);
    return BPTT_OK;
}

bptt_status bptt_feed_open(bptt_feed *feed, const bptt_spec *spec, const bptt_data *data, const char *what, bptt_error *error)
{
    const size_t batch = (size_t)spec->batch;
    if (spec->h0 == BPTT_H0_GIVEN) {
        return bptt_fail(error, BPTT_FAILED,
                         "%s: h0 = \"given\" is for callers of the emitted code, by %s_start; a file of data has none; expected "
                         "\"zero\" or \"learned\"",
                         spec->source, spec->name);
    }
    const int64_t most = bptt_spec_chunk(spec);
    *feed = (bptt_feed){.spec = spec, .data = data, .chunks = (uint32_t)((spec->T + most - 1) / most)};
    bptt_status status = data->length > 0 ? open_sequences(feed, what, error)
                         : data->tokens != NULL
                             ? bptt_stream_open(&feed->stream, data->tokens, data->count, batch, what, error)
                             : bptt_stream_open_rows(&feed->stream, bptt_data_predictions(data), batch, what, error);
    return status == BPTT_OK ? bptt_rows_new(spec, (size_t)most, &feed->rows, error) : status;
}

/* The row of the data, or NULL: none, to row `at` of the chunk.  Returns the labels that count. */
static size_t give_row(bptt_feed *feed, const double *row, size_t at)
{
    const bptt_spec *spec = feed->spec;
    const size_t D = (size_t)spec->inputs, Q = (size_t)spec->outputs, columns = feed->data->columns;
    const size_t first = bptt_spec_tokens(spec) ? 1 : 0;
    size_t labels = 0;
    if (first > 0) { ((uint32_t *)(uintptr_t)feed->rows.x)[at] = row != NULL ? (uint32_t)row[0] : 0; }
    for (size_t i = 0; i < D; i++) { bptt_rows_put(spec, feed->rows.v, at * D + i, row != NULL ? row[first + i] : 0); }
    if (bptt_spec_labels(spec)) {
        const bool counts = row != NULL && !isnan(row[first + D]);
        ((uint32_t *)(uintptr_t)feed->rows.y)[at] = counts ? (uint32_t)row[first + D] : BPTT_NO_LABEL;
        labels += counts;
    }
    const double *targets = row == NULL ? NULL : feed->data->forecast ? row + columns + first : row + first + D;
    for (size_t i = 0; i < Q; i++) {
        const double target = targets != NULL ? targets[i] : (double)NAN;
        bptt_rows_put(spec, feed->rows.d, at * Q + i, target);
        labels += isnan(target) ? 0 : 1;
    }
    return labels;
}

/* The row that a prediction reads: a sequence of the file that is forecast has one row more than predictions. */
static size_t row_of(const bptt_feed *feed, size_t prediction)
{
    const size_t length = feed->stream.length;
    return feed->data->length > 0 ? prediction / length * feed->data->length + prediction % length : prediction;
}

static size_t next_rows(bptt_feed *feed, size_t steps)
{
    const bptt_data *data = feed->data;
    const size_t B = feed->stream.batch, longest = bptt_stream_steps(&feed->stream);
    size_t labels = 0;
    for (size_t i = 0; i < steps * B; i++) {
        size_t prediction = 0;
        const bool inside = bptt_stream_at(&feed->stream, i % B, feed->stream.position + i / B, &prediction);
        labels += give_row(feed, inside ? data->reals + row_of(feed, prediction) * data->columns : NULL, i);
    }
    feed->stream.position = steps < longest - feed->stream.position ? feed->stream.position + steps : longest;
    return labels;
}

/* Labels of the rows at steps that have a loss; the model does not look at the others. */
static size_t count_labels(const bptt_feed *feed, size_t steps)
{
    int64_t stretches[BPTT_MAX_STRETCHES][2];
    const bptt_spec *spec = feed->spec;
    const int count = bptt_spec_loss_steps(spec, stretches);
    const int64_t before = (int64_t)feed->next * bptt_spec_chunk(spec);
    size_t labels = 0;
    for (int s = 0; s < count; s++) {
        const int64_t from = stretches[s][0] - before, to = stretches[s][1] - before;
        for (int64_t t = from > 0 ? from : 0; t < to && t < (int64_t)steps; t++) {
            labels += bptt_rows_labels(spec, &feed->rows, (size_t)(t * spec->batch), (size_t)spec->batch);
        }
    }
    return labels;
}

static bool is_separator(const bptt_feed *feed, size_t row)
{
    const bptt_data *data = feed->data;
    if (!bptt_spec_tokens(feed->spec)) { return false; }
    const int64_t token = data->tokens != NULL ? (int64_t)data->tokens[row] : (int64_t)data->reals[row * data->columns];
    return token + 1 == feed->spec->separator;
}

/* Flags the next `steps` steps that start a document. */
static void mark_starts(const bptt_feed *feed, size_t steps)
{
    const bptt_stream *stream = &feed->stream;
    uint8_t *reset = (uint8_t *)(uintptr_t)feed->rows.reset;
    for (size_t i = 0; i < steps * stream->batch; i++) {
        const size_t at = stream->position + i / stream->batch;
        size_t prediction = 0;
        const bool inside = bptt_stream_at(stream, i % stream->batch, at, &prediction);
        const bool first = stream->sequences > 0 ? at % stream->steps == 0 : at == 0;
        reset[i] = first || (inside && is_separator(feed, row_of(feed, prediction) - 1));
    }
}

bool bptt_feed_next(bptt_feed *feed)
{
    const int64_t most = bptt_spec_chunk(feed->spec), rest = feed->spec->T - (int64_t)feed->next * most;
    const size_t steps = (size_t)(rest < most ? rest : most);
    if (bptt_feed_done(feed)) { return false; }
    if (feed->spec->resets) { mark_starts(feed, steps); }
    feed->labels = feed->data->tokens != NULL ? bptt_stream_next(&feed->stream, steps, (uint32_t *)(uintptr_t)feed->rows.x,
                                                                 (uint32_t *)(uintptr_t)feed->rows.y)
                                              : next_rows(feed, steps);
    if (feed->spec->loss_at.kind != BPTT_STEPS_ALL) { feed->labels = count_labels(feed, steps); }
    feed->chunk = feed->next;
    feed->next = (feed->next + 1) % feed->chunks;
    return true;
}

bool bptt_feed_done(const bptt_feed *feed)
{
    return feed->stream.position >= bptt_stream_steps(&feed->stream);
}

uint64_t bptt_feed_tokens(const bptt_feed *feed)
{
    const bptt_stream *stream = &feed->stream;
    if (bptt_feed_done(feed)) { return stream->predictions; }
    /* Stream lengths differ by at most one, so before the last step all of them are whole. */
    if (stream->sequences == 0) { return stream->position * stream->batch; }
    uint64_t tokens = 0;
    for (size_t b = 0; b < stream->batch; b++) { /* before the last sequences are begun, all are there */
        const size_t group = stream->position / stream->steps, step = stream->position % stream->steps;
        const bool last = group * stream->batch + b < stream->sequences;
        tokens += group * stream->length + (!last ? 0 : step < stream->length ? step : stream->length);
    }
    return tokens;
}

void bptt_feed_rewind(bptt_feed *feed)
{
    feed->stream.position = 0;
    feed->next = 0;
}

void bptt_feed_close(bptt_feed *feed)
{
    bptt_rows_free(&feed->rows);
    *feed = (bptt_feed){0};
}

double bptt_loss_sum(const bptt_spec *spec, double loss, size_t labels)
{
    return spec->reduction == BPTT_MEAN ? loss * (double)labels : loss;
}
