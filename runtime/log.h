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
    uint64_t every;              /* steps of a line */
    uint64_t steps, labels;      /* since the last line */
    double loss_sum, flush_next; /* the same; time of the next flush */
} bptt_log;

/* `path` NULL: no log, and all else does nothing.  `append` keeps what is there and writes a header to an empty file alone. */
bptt_status bptt_log_open(bptt_log *log, const char *path, bool append, uint64_t every, bptt_error *error);
/* Counts a step, writes a line when it completes one.  `seconds`: since training started. */
bptt_status bptt_log_step(bptt_log *log, const bptt_trainer *trainer, const bptt_step *step, double seconds, bptt_error *error);
bptt_status bptt_log_close(bptt_log *log, bptt_error *error);

#endif
