/* feed.c: streams cut into sequences of T and chunks of K.  See feed.h. */
#include "feed.h"

#include <stdlib.h>

bptt_status bptt_feed_open(bptt_feed *feed, const bptt_model *model, const bptt_data *data, const char *what, bptt_error *error)
{
    *feed = (bptt_feed){.steps = model->steps, .horizon = model->horizon, .chunks = model->chunks};
    bptt_status status = bptt_stream_open(&feed->stream, data->tokens, data->count, model->batch, what, error);
    if (status != BPTT_OK) { return status; }
    /* Two 32-bit factors: the product fits a size_t. */
    size_t tokens = (size_t)model->horizon * model->batch;
    feed->x = calloc(tokens, sizeof *feed->x);
    feed->y = calloc(tokens, sizeof *feed->y);
    if (feed->x == NULL || feed->y == NULL) {
        bptt_feed_close(feed);
        return bptt_fail(error, BPTT_FAILED, "no memory for a chunk of %zu tokens", tokens);
    }
    feed->rows = (bptt_rows){.x = feed->x, .y = feed->y};
    return BPTT_OK;
}

size_t bptt_feed_next(bptt_feed *feed)
{
    size_t rest = feed->steps - feed->next * feed->horizon;
    size_t labels = bptt_stream_next(&feed->stream, rest < feed->horizon ? rest : feed->horizon, feed->x, feed->y);
    if (labels == 0) { return 0; }
    feed->chunk = feed->next;
    feed->next = (feed->next + 1) % feed->chunks;
    return labels;
}

bool bptt_feed_done(const bptt_feed *feed)
{
    return feed->stream.position >= bptt_stream_steps(&feed->stream);
}

uint64_t bptt_feed_tokens(const bptt_feed *feed)
{
    /* Stream lengths differ by at most one, so before the last step all of them are whole. */
    return bptt_feed_done(feed) ? feed->stream.predictions : feed->stream.position * feed->stream.batch;
}

void bptt_feed_rewind(bptt_feed *feed)
{
    feed->stream.position = 0;
    feed->next = 0;
}

void bptt_feed_close(bptt_feed *feed)
{
    free(feed->x);
    free(feed->y);
    *feed = (bptt_feed){0};
}

double bptt_loss_sum(const bptt_spec *spec, double loss, size_t labels)
{
    return spec->reduction == BPTT_MEAN ? loss * (double)labels : loss;
}
