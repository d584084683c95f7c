/* log.h: the CSV log of training.
 *
 * Depends on trainer.h.  Every write is checked; what was written is flushed once a second and at the end.
 */
#ifndef BPTT_LOG_H
#define BPTT_LOG_H

#include "trainer.h"

typedef struct bptt_log {
    FILE *file; /* NULL: no log */
    const char *path;
    uint64_t every;                              /* a line for each step that is a multiple of it */
    uint64_t labels;                             /* since the last line; 0: nothing is open */
    bool text;                                   /* the loss is of labels, so there are bits */
    double loss_sum;                             /* the same */
    uint64_t step, epoch, tokens;                /* of the last step */
    double seconds, grad_norm, rate, flush_next; /* the same; time of the next flush */
    const bptt_trainer *trainer;                 /* borrowed; asked for the clipped norm when a line needs it */
    double clipped_norm;
    bool measured; /* clipped_norm is the last update's */
} bptt_log;

/* `path` NULL: no log, and all else does nothing.  `append` keeps the lines that are there and writes a header to
 * an empty file alone. */
bptt_status bptt_log_open(bptt_log *log, const char *path, bool append, uint64_t every, bptt_error *error);
/* Counts a chunk; writes a line, the mean since the last one, when it ends a step whose number is a multiple of `every`.  `seconds`:
 * since training started. */
bptt_status bptt_log_chunk(bptt_log *log, const bptt_trainer *trainer, const bptt_step *chunk, double seconds, bptt_error *error);
/* Writes what is left over as a last line, and closes.  Its clipped norm is empty when that gradient is gone. */
bptt_status bptt_log_close(bptt_log *log, bptt_error *error);

#endif
