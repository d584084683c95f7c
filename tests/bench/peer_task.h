/* peer_task.h: the ten rows of the comparison, and what each peer is given for one. */
#ifndef BPTT_PEER_TASK_H
#define BPTT_PEER_TASK_H

#include "peer.h"

typedef struct peer_row {
    const char *name;
    int hidden, vocab, steps, batch;
} peer_row;

/* Ended by a NULL name. */
extern const peer_row peer_rows[];

/* Makes sizes, weights and tokens, the same every time.  Up to 256 symbols: the bytes of a text, the most frequent first, all
 * rare ones as the last symbol.  More: numbers drawn as words are, P(n) ~ 1 / (n + 2.7) (Zipf, Mandelbrot).  Close it even after a
 * failure. */
bptt_status peer_task_open(const peer_row *row, const char *text_path, peer_task *task, bptt_error *error);
void peer_task_close(peer_task *task);

#endif
