/* progress.h: the progress of training on standard error.
 *
 * On a terminal one line, redrawn at most ten times a second and cut to the window; elsewhere a plain line every few seconds and
 * a last one.  No colour, no cursor movement beyond the carriage return.  Depends on nothing of bptt.
 */
#ifndef BPTT_PROGRESS_H
#define BPTT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct bptt_progress {
    bool on, terminal;
    double next;    /* time of the next line */
    int drawn;      /* characters of the line that the terminal shows */
    uint64_t shown; /* step of the last line */
} bptt_progress;

typedef struct bptt_progress_values {
    uint64_t step;
    double tokens_per_second, loss;
    double bits; /* not a number: the loss is none of labels */
    double grad_norm;
    double rate;         /* of the last update; 0: it never changes, not shown */
    double seconds_left; /* negative: not known */
} bptt_progress_values;

/* `now` is bptt_seconds() of machine.h. */
void bptt_progress_open(bptt_progress *progress, bool quiet, double now);
/* True when it is time for a line. */
bool bptt_progress_due(const bptt_progress *progress, double now);
void bptt_progress_show(bptt_progress *progress, const bptt_progress_values *values, double now);
/* A line of its own between the others: what the user should know, though it goes on. */
void bptt_progress_note(bptt_progress *progress, const char *text);
/* Shows the last values and ends the line. */
void bptt_progress_close(bptt_progress *progress, const bptt_progress_values *values, double now);

#endif
