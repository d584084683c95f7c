/* feed.h: the data as the chunks that a model takes, one after the other: what training, evaluation and `bptt grad` share.
 *
 * Depends on data.h, the spec and the bptt_rows of the bptt_model interface.  Knows T, K, B and which steps have a loss; knows
 * nothing of parameters.
 */
#ifndef BPTT_FEED_H
#define BPTT_FEED_H

#include "rows.h"

typedef struct bptt_feed {
    const bptt_spec *spec; /* borrowed */
    const bptt_data *data; /* borrowed */
    bptt_stream stream;
    uint32_t chunks; /* of a sequence */
    uint32_t next;   /* number of the chunk that bptt_feed_next reads; may be set to resume */
    uint32_t chunk;  /* number of the chunk in rows */
    bptt_rows rows;  /* [steps of the chunk][B]; their memory is the feed's */
    size_t labels;   /* of these rows: labels, or numbers of targets, that count */
} bptt_feed;

/* `spec` and `data` must stay; `what` names the data in messages.  With resets in the spec a document starts at the first step of
 * every stream or sequence and behind every separator.  On success the caller closes the feed.  Refuses a spec whose h0 is given, which
 * only callers of the emitted code can. */
bptt_status bptt_feed_open(bptt_feed *feed, const bptt_spec *spec, const bptt_data *data, const char *what, bptt_error *error);
/* Reads the next chunk; false: the epoch is at its end.  A chunk may have no label that counts. */
bool bptt_feed_next(bptt_feed *feed);
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
