/* data.c: bytes to tokens, tokens to streams.  See data.h.
 *
 * Depends on file.h and the spec's alphabet.  Refuses to drop or change a symbol unless it was told to.
 */
#include "data.h"
#include "file.h"

#include <inttypes.h>
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
    *data = (bptt_data){NULL, 0};
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

bptt_status bptt_data_load(const char *path, const bptt_spec *spec, const bptt_data_options *options, bptt_data *data,
                           bptt_error *error)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    *data = (bptt_data){NULL, 0};
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
    *data = (bptt_data){NULL, 0};
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

size_t bptt_stream_steps(const bptt_stream *stream)
{
    return stream->predictions / stream->batch + (stream->predictions % stream->batch != 0);
}

/* First prediction of stream b: b * predictions / batch, rounded down, without overflow since b <= batch < 2^32. */
static size_t first_of(const bptt_stream *stream, size_t b)
{
    return b * (stream->predictions / stream->batch) + b * (stream->predictions % stream->batch) / stream->batch;
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
