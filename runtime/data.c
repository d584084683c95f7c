/* data.c: bytes to tokens, tokens to streams.  See data.h.
 *
 * Depends on file.h and the spec's alphabet.  Refuses to drop or change a symbol unless it was told to.
 */
#include "data.h"
#include "file.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 256 };

static const char no_memory[] = "%s: no memory for %zu tokens";

/* "'x'", or "0xc3" for what cannot be shown. */
static const char *print_byte(unsigned char byte, char text[8])
{
    (void)snprintf(text, 8, byte > 0x20 && byte < 0x7f ? "'%c'" : "0x%02x", byte);
    return text;
}

/* The token of every byte; BPTT_NO_LABEL for those that have none. */
static void fill_ids(const bptt_spec *spec, uint32_t ids[BYTES])
{
    for (int i = 0; i < BYTES; i++) { ids[i] = spec->alphabet_size == 0 && i < spec->vocab ? (uint32_t)i : BPTT_NO_LABEL; }
    for (int i = 0; i < spec->alphabet_size; i++) { ids[spec->alphabet[i]] = (uint32_t)i; }
}

static bptt_status check_options(const char *what, const bptt_spec *spec, const bptt_data_options *options, const uint32_t *ids,
                                 bptt_error *error)
{
    char shown[8];
    if (options->token_bytes != 1 && options->token_bytes != 2 && options->token_bytes != 4) {
        return bptt_fail(error, BPTT_USAGE, "%s: tokens of %d bytes; 1, 2 and 4 are supported", what, options->token_bytes);
    }
    if (options->token_bytes != 1 && spec->alphabet_size > 0) {
        return bptt_fail(error, BPTT_USAGE, "%s: tokens of %d bytes need a vocab that is a number, this spec has an alphabet",
                         what, options->token_bytes);
    }
    if (options->token_bytes != 1 && options->unknown != BPTT_UNKNOWN_ERROR) {
        return bptt_fail(error, BPTT_USAGE, "%s: --unknown is for bytes, not for tokens of %d bytes", what, options->token_bytes);
    }
    if (options->unknown == BPTT_UNKNOWN_MAP && ids[options->map] == BPTT_NO_LABEL) {
        return bptt_fail(error, BPTT_USAGE, "--unknown map=C: %s is itself not in the alphabet", print_byte(options->map, shown));
    }
    return BPTT_OK;
}

static bptt_status fail_byte(const char *what, unsigned char byte, size_t offset, const bptt_spec *spec, bptt_error *error)
{
    char shown[8];
    char why[64] = "in the alphabet";
    if (spec->alphabet_size == 0) { (void)snprintf(why, sizeof why, "below vocab = %" PRId64, spec->vocab); }
    return bptt_fail(error, BPTT_FAILED, "%s: byte %s at offset %zu is not %s (use --unknown skip or --unknown map=C)", what,
                     print_byte(byte, shown), offset, why);
}

static bptt_status encode_bytes(const unsigned char *bytes, size_t length, const char *what, const bptt_spec *spec,
                                const uint32_t *ids, const bptt_data_options *options, bptt_data *data, bptt_error *error)
{
    for (size_t i = 0; i < length; i++) {
        uint32_t id = ids[bytes[i]];
        if (id == BPTT_NO_LABEL && options->unknown == BPTT_UNKNOWN_ERROR) { return fail_byte(what, bytes[i], i, spec, error); }
        if (id == BPTT_NO_LABEL && options->unknown == BPTT_UNKNOWN_SKIP) { continue; }
        data->tokens[data->count++] = id != BPTT_NO_LABEL ? id : ids[options->map];
    }
    return BPTT_OK;
}

static bptt_status encode_numbers(const unsigned char *bytes, size_t length, const char *what, const bptt_spec *spec,
                                  size_t width, bptt_data *data, bptt_error *error)
{
    if (length % width != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu bytes, not a multiple of %zu", what, length, width);
    }
    for (size_t at = 0; at < length; at += width) {
        uint32_t token = 0;
        for (size_t k = width; k-- > 0;) { token = token << 8 | bytes[at + k]; }
        if (token >= (uint64_t)spec->vocab) {
            return bptt_fail(error, BPTT_FAILED, "%s: token %" PRIu32 " at byte %zu is not below vocab = %" PRId64, what, token,
                             at, spec->vocab);
        }
        data->tokens[data->count++] = token;
    }
    return BPTT_OK;
}

bptt_status bptt_data_encode(const unsigned char *bytes, size_t length, const char *what, const bptt_spec *spec,
                             const bptt_data_options *options, bptt_data *data, bptt_error *error)
{
    uint32_t ids[BYTES];
    *data = (bptt_data){.tokens = NULL};
    fill_ids(spec, ids);
    bptt_status status = check_options(what, spec, options, ids, error);
    if (status != BPTT_OK) { return status; }
    const size_t width = (size_t)options->token_bytes;
    data->tokens = calloc(length / width + 1, sizeof *data->tokens);
    if (data->tokens == NULL) { return bptt_fail(error, BPTT_FAILED, no_memory, what, length / width); }
    status = width == 1 ? encode_bytes(bytes, length, what, spec, ids, options, data, error)
                        : encode_numbers(bytes, length, what, spec, width, data, error);
    if (status != BPTT_OK) { bptt_data_free(data); }
    return status;
}

/* ---- reals ---- */

bool bptt_data_is_text(const bptt_spec *spec)
{
    return spec->inputs == 0 && bptt_spec_labels(spec);
}

/* Columns of a row: token, inputs, label, targets. */
static size_t columns_of(const bptt_spec *spec)
{
    return (size_t)(bptt_spec_tokens(spec) + spec->inputs + bptt_spec_labels(spec) + spec->outputs);
}

/* What is wrong with a number, NULL: nothing. */
static const char *fault_of(const bptt_spec *spec, size_t column, double value)
{
    const size_t inputs = (size_t)(bptt_spec_tokens(spec) + spec->inputs);
    const bool token = (bptt_spec_tokens(spec) && column == 0) || (bptt_spec_labels(spec) && column == inputs);
    const double most = spec->dtype == BPTT_F64 ? DBL_MAX : (double)FLT_MAX;
    if (isnan(value)) { return column < inputs ? "not a number, and an input" : NULL; }
    if (!(fabs(value) <= most)) { return spec->dtype == BPTT_F64 ? "infinite" : "more than a float holds"; }
    if (token && !(value >= 0 && value < (double)spec->vocab && value == floor(value))) { return "no token below vocab"; }
    return NULL;
}

static bptt_status check_reals(const char *path, const bptt_spec *spec, const bptt_data *data, bptt_error *error)
{
    const size_t all = columns_of(spec);
    if (data->columns != all && !data->forecast) {
        return bptt_fail(error, BPTT_FAILED,
                         "%s: has %zu columns; expected %zu: %s%" PRId64 " inputs, then %s%" PRId64 " targets%s", path,
                         data->columns, all, bptt_spec_tokens(spec) ? "a token, " : "", spec->inputs,
                         bptt_spec_labels(spec) ? "a label, " : "", spec->outputs,
                         spec->outputs > 0 && spec->outputs <= spec->inputs ? " (none: the next inputs)" : "");
    }
    if (bptt_data_predictions(data) == 0) { return bptt_fail(error, BPTT_FAILED, "%s: has nothing to predict: one row", path); }
    for (size_t i = 0; i < data->count * data->columns; i++) {
        const size_t column = i % data->columns;
        const char *fault = fault_of(spec, column, data->reals[i]);
        if (fault != NULL) {
            return bptt_fail(error, BPTT_FAILED, "%s: row %zu, column %zu: %g is %s", path, i / data->columns + 1, column + 1,
                             data->reals[i], fault);
        }
    }
    return BPTT_OK;
}

static bptt_status load_reals(const char *path, const bptt_spec *spec, const bptt_data_options *options, bptt_data *data,
                              bptt_error *error)
{
    bptt_reals reals;
    if (options->token_bytes > 1 || options->unknown != BPTT_UNKNOWN_ERROR) {
        return bptt_fail(error, BPTT_USAGE,
                         "%s: --tokens and --unknown are for specs that read a text; this one reads rows of numbers", path);
    }
    bptt_status status = bptt_reals_load(path, options->reals, columns_of(spec), &reals, error);
    if (status != BPTT_OK) { return status; }
    *data = (bptt_data){.reals = reals.values, .count = reals.count, .columns = reals.columns, .length = reals.length};
    data->forecast =
        spec->outputs > 0 && spec->outputs <= spec->inputs && reals.columns + (size_t)spec->outputs == columns_of(spec);
    status = check_reals(path, spec, data, error);
    if (status != BPTT_OK) { bptt_data_free(data); }
    return status;
}

size_t bptt_data_predictions(const bptt_data *data)
{
    const size_t labels_only = data->reals == NULL || data->forecast ? 1 : 0;
    const size_t length = data->length > 0 ? data->length : data->count;
    if (length <= labels_only) { return 0; }
    return (length - labels_only) * (data->count / length);
}

bptt_status bptt_data_split(const bptt_data *data, double fraction, const char *what, bptt_data *first, bptt_data *last,
                            bptt_error *error)
{
    size_t count = (size_t)((double)data->count * fraction);
    if (data->length > 0) { count -= count % data->length; }
    *first = *last = *data;
    first->count -= count;
    last->count = count;
    if (last->tokens != NULL) { last->tokens += first->count; }
    if (last->reals != NULL) { last->reals += first->count * data->columns; }
    if (count > 0 && first->count > 0 && bptt_data_predictions(first) > 0 && bptt_data_predictions(last) > 0) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s: --valid-fraction %g of %zu %s holds out %zu; both parts need at least %s", what,
                     fraction, data->count, data->tokens != NULL ? "tokens" : "rows", count,
                     data->length > 0 ? "a sequence" : "2");
}

/* ---- files ---- */

bptt_status bptt_data_load(const char *path, const bptt_spec *spec, const bptt_data_options *options, bptt_data *data,
                           bptt_error *error)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    if (!bptt_data_is_text(spec)) { return load_reals(path, spec, options, data, error); }
    if (options->reals != BPTT_REALS_AUTO) {
        return bptt_fail(error, BPTT_USAGE, "%s: --reals is for specs with inputs or outputs; this one reads tokens", path);
    }
    *data = (bptt_data){.tokens = NULL};
    bptt_status status = bptt_file_read(path, SIZE_MAX, &bytes, &length, error);
    if (status == BPTT_OK && length == 0) { status = bptt_fail(error, BPTT_FAILED, "%s: is empty", path); }
    if (status == BPTT_OK) { status = bptt_data_encode(bytes, length, path, spec, options, data, error); }
    free(bytes);
    if (status == BPTT_OK && data->count == 0) {
        bptt_data_free(data);
        status = bptt_fail(error, BPTT_FAILED, "%s: none of its %zu bytes is in the alphabet", path, length);
    }
    return status;
}

void bptt_data_free(bptt_data *data)
{
    free(data->tokens);
    free(data->reals);
    *data = (bptt_data){.tokens = NULL};
}

bptt_status bptt_stream_open(bptt_stream *stream, const uint32_t *tokens, size_t count, size_t batch, const char *what,
                             bptt_error *error)
{
    if (batch == 0 || batch > UINT32_MAX) {
        return bptt_fail(error, BPTT_FAILED, "%s: cannot be cut into %zu streams", what, batch);
    }
    if (count <= batch) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu tokens; batch = %zu needs at least %zu", what, count, batch, batch + 1);
    }
    *stream = (bptt_stream){.tokens = tokens, .predictions = count - 1, .batch = batch};
    return BPTT_OK;
}

bptt_status bptt_stream_open_rows(bptt_stream *stream, size_t predictions, size_t batch, const char *what, bptt_error *error)
{
    if (predictions < batch) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu steps to learn from; batch = %zu needs at least as many", what,
                         predictions, batch);
    }
    *stream = (bptt_stream){.predictions = predictions, .batch = batch};
    return BPTT_OK;
}

void bptt_stream_open_sequences(bptt_stream *stream, size_t sequences, size_t length, size_t steps, size_t batch)
{
    *stream = (bptt_stream){
        .predictions = sequences * length, .batch = batch, .sequences = sequences, .length = length, .steps = steps};
}

size_t bptt_stream_steps(const bptt_stream *stream)
{
    if (stream->sequences > 0) {
        return (stream->sequences / stream->batch + (stream->sequences % stream->batch != 0)) * stream->steps;
    }
    return stream->predictions / stream->batch + (stream->predictions % stream->batch != 0);
}

/* First prediction of stream b: b * predictions / batch, rounded down, without overflow since b <= batch < 2^32. */
static size_t first_of(const bptt_stream *stream, size_t b)
{
    return b * (stream->predictions / stream->batch) + b * (stream->predictions % stream->batch) / stream->batch;
}

bool bptt_stream_at(const bptt_stream *stream, size_t b, size_t position, size_t *prediction)
{
    if (stream->sequences > 0) {
        const size_t sequence = position / stream->steps * stream->batch + b, step = position % stream->steps;
        *prediction = sequence * stream->length + step;
        return sequence < stream->sequences && step < stream->length;
    }
    const size_t first = first_of(stream, b);
    *prediction = first + position;
    return position < first_of(stream, b + 1) - first;
}

size_t bptt_stream_next(bptt_stream *stream, size_t steps, uint32_t *x, uint32_t *y)
{
    const size_t batch = stream->batch;
    const size_t longest = bptt_stream_steps(stream);
    if (stream->position >= longest) { return 0; }
    size_t labels = 0;
    for (size_t b = 0; b < batch; b++) {
        const size_t first = first_of(stream, b);
        const size_t length = first_of(stream, b + 1) - first;
        const uint32_t *tokens = stream->tokens + first;
        for (size_t i = 0; i < steps; i++) {
            const size_t at = stream->position + i;
            const bool inside = at < length;
            x[i * batch + b] = inside ? tokens[at] : 0;
            y[i * batch + b] = inside ? tokens[at + 1] : BPTT_NO_LABEL;
            labels += inside;
        }
    }
    stream->position = steps < longest - stream->position ? stream->position + steps : longest;
    return labels;
}
