/* peer_task.h: what each peer is given for a row of `bptt bench`'s suite. */
#ifndef BPTT_PEER_TASK_H
#define BPTT_PEER_TASK_H

#include "peer.h"

/* Row `row` is the suite's of that place (bptt_suite_words).  Makes sizes, weights and tokens, the same every time.  Up to 256
 * symbols: the bytes of a text, the most frequent first, all rare ones as the last symbol.  More: numbers drawn as words are,
 * P(n) ~ 1 / (n + 2.7) (Zipf, Mandelbrot).  Close it even after a failure. */
bptt_status peer_task_open(size_t row, const char *text_path, peer_task *task, bptt_error *error);
void peer_task_close(peer_task *task);

#endif
