/* data.h: from a file's bytes to token ids or rows of reals, and from these to the streams that training reads.
 *
 * Depends on spec.h for the alphabet and on reals.h.  Refuses to shuffle, normalise or guess encodings.
 */
#ifndef BPTT_DATA_H
#define BPTT_DATA_H

#include "../gen/spec.h"
#include "reals.h"

/* What to do with a byte that is not in the spec's alphabet. */
typedef enum { BPTT_UNKNOWN_ERROR, BPTT_UNKNOWN_SKIP, BPTT_UNKNOWN_MAP } bptt_unknown;

typedef struct bptt_data_options {
    int token_bytes; /* 1: bytes (and any alphabet), 2: little-endian u16, 4: little-endian u32 */
    bptt_unknown unknown;
    unsigned char map; /* BPTT_UNKNOWN_MAP: read as this byte, which is in the alphabet */
    bptt_reals_format reals;
} bptt_data_options;

typedef struct bptt_data {
    uint32_t *tokens; /* each < V; owned; NULL: there are reals */
    double *reals;    /* [count][columns]: what a spec reads of a step, in the order token, inputs, label, targets; owned */
    size_t count;     /* tokens, or rows */
    size_t columns;
    size_t length; /* rows of each sequence, which begins with a state of zero; 0: there is one long sequence */
    bool forecast; /* there are no targets: they are the first inputs of the row that follows */
} bptt_data;

/* Whether the spec reads a text: tokens, of which each is the label of the one before. */
bool bptt_data_is_text(const bptt_spec *spec);

/* Reads the whole file.  Errors name the file and the byte offset of an offending symbol, or the row and column of a number.
 * Inputs must be finite; a label or target may be not a number: it counts for nothing. */
bptt_status bptt_data_load(const char *path, const bptt_spec *spec, const bptt_data_options *options, bptt_data *data,
                           bptt_error *error);
/* Bytes (a prime text) to tokens by the same rules; `what` names them in messages. */
bptt_status bptt_data_encode(const unsigned char *bytes, size_t length, const char *what, const bptt_spec *spec,
                             const bptt_data_options *options, bptt_data *data, bptt_error *error);
void bptt_data_free(bptt_data *data);

/* The last rows of the data, `fraction` of them (whole sequences, where there are such), apart: both borrow.  Fails when a part
 * has nothing to predict. */
bptt_status bptt_data_split(const bptt_data *data, double fraction, const char *what, bptt_data *first, bptt_data *last,
                            bptt_error *error);
/* Steps of all sequences that have a label or a target. */
size_t bptt_data_predictions(const bptt_data *data);

/* Cuts the count - 1 predictions (token i -> token i + 1) into B streams whose lengths differ by at most one and hands them out
 * step by step.  Each prediction comes exactly once in an epoch: streams that have ended are padded with token 0 and label
 * BPTT_NO_LABEL. */
#define BPTT_NO_LABEL UINT32_MAX
typedef struct bptt_stream {
    const uint32_t *tokens; /* borrowed */
    size_t predictions;     /* count - 1 */
    size_t batch;
    size_t position; /* steps handed out of this epoch, each stream the same; may be set to resume */
    /* of data with sequences of their own: how many, the predictions of each, the steps that each takes */
    size_t sequences, length, steps;
} bptt_stream;

/* Fails when there are fewer predictions than streams (the message says how many tokens are needed). */
bptt_status bptt_stream_open(bptt_stream *stream, const uint32_t *tokens, size_t count, size_t batch, const char *what,
                             bptt_error *error);
/* The same for any predictions, of rows 0 .. predictions - 1; `what` and `of` name them in messages. */
bptt_status bptt_stream_open_rows(bptt_stream *stream, size_t predictions, size_t batch, const char *what, bptt_error *error);
/* Sequences of `length` predictions, `batch` at a time, each followed by nothing up to `steps` steps. */
void bptt_stream_open_sequences(bptt_stream *stream, size_t sequences, size_t length, size_t steps, size_t batch);
/* The number of the prediction that stream b has at a position; false: none. */
bool bptt_stream_at(const bptt_stream *stream, size_t b, size_t position, size_t *prediction);
/* Steps of the longest stream. */
size_t bptt_stream_steps(const bptt_stream *stream);
/* Writes the next `steps` steps to x[steps][batch], y[steps][batch].  Returns the number of labels that count; 0 only at the end
 * of the epoch (nothing is written then; set position = 0 to begin the next). */
size_t bptt_stream_next(bptt_stream *stream, size_t steps, uint32_t *x, uint32_t *y);

#endif
