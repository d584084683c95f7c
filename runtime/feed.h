/* feed.h: the data as the chunks that a model takes, one after the other: what training, evaluation and `bptt grad` share.
 *
 * Depends on data.h and the bptt_model interface.  Knows T, K and B; knows nothing of losses or parameters.
 */
#ifndef BPTT_FEED_H
#define BPTT_FEED_H

#include "data.h"

#include "../templates/abi.h"

typedef struct bptt_feed {
    bptt_stream stream;
    size_t steps, horizon; /* T, K */
    uint32_t chunks;       /* of a sequence */
    uint32_t next;         /* number of the chunk that bptt_feed_next reads; may be set to resume */
    uint32_t chunk;        /* number of the chunk in rows */
    bptt_rows rows;        /* [steps of the chunk][B] */
    uint32_t *x, *y;       /* their memory; owned */
} bptt_feed;

/* `data` must stay; `what` names it in messages.  On success the caller closes the feed. */
bptt_status bptt_feed_open(bptt_feed *feed, const bptt_model *model, const bptt_data *data, const char *what, bptt_error *error);
/* Reads the next chunk.  Returns the labels that count; 0 at the end of the epoch. */
size_t bptt_feed_next(bptt_feed *feed);
/* True when the epoch has no step left. */
bool bptt_feed_done(const bptt_feed *feed);
/* Predictions of this epoch handed out so far. */
uint64_t bptt_feed_tokens(const bptt_feed *feed);
/* Back to the first step of the data and of a sequence. */
void bptt_feed_rewind(bptt_feed *feed);
void bptt_feed_close(bptt_feed *feed);

/* The sum of the losses of a chunk, from what the model returned for it. */
double bptt_loss_sum(const bptt_spec *spec, double loss, size_t labels);

#endif
