/* watch.h: says once in a training when its gradient vanishes or explodes.
 *
 * Looks at windows of 100 steps and compares them with the first one, since what a norm should be depends on the network, the loss and
 * its reduction.  Depends on trainer.h for what a step gave; prints nothing.
 *
 *   explodes   in a tenth of a window's steps or more the norm before clipping is over 100 times the first window's (geometric) mean,
 *              and over 1: a network that leaves a plateau multiplies its norm too, but from next to nothing
 *   vanishes   in all of a window's steps the norm is under a thousandth of that mean, or under 1e-7, while the loss is above half of
 *              the first window's: a network that has learned its data has small gradients too, and that is no alarm
 *
 * 1 and 1e-7 are of the gradient of the mean loss of a label; of a sum they are multiplied by the labels.
 */
#ifndef BPTT_WATCH_H
#define BPTT_WATCH_H

#include "trainer.h"

enum { BPTT_WATCH_WINDOW = 100 };

/* Starts as {0}. */
typedef struct bptt_watch {
    bool said;
    bool begun;         /* the first window is complete */
    double norm, loss;  /* its mean norm and its loss per label */
    double now;         /* mean norm of the last complete window */
    unsigned steps;     /* of the window that is open, and: */
    unsigned high, low; /* steps over 100 times, under a thousandth */
    double logs, loss_sum, labels;
} bptt_watch;

/* Counts a step.  `mean`: the loss is a mean over labels, else their sum.  Returns "vanishes" or "explodes" once, else NULL. */
const char *bptt_watch_step(bptt_watch *watch, const bptt_step *step, bool mean);

#endif
