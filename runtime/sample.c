/* sample.c: drawing tokens, and `bptt sample`.  See sample.h. */
#include "sample.h"

#include "machine.h"

#include "evaluate.h"
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- drawing ---- */

static int likelier_first(const void *a, const void *b, void *probabilities)
{
    const double *p = probabilities;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (p[i] != p[j]) { return p[i] > p[j] ? -1 : 1; }
    return i < j ? -1 : i > j;
}

static void keep_likeliest(double *p, uint32_t *order, size_t count, uint64_t top_k)
{
    for (size_t i = 0; i < count; i++) { order[i] = (uint32_t)i; }
    qsort_r(order, count, sizeof *order, likelier_first, p);
    for (size_t i = (size_t)top_k; i < count; i++) { p[order[i]] = 0.0; }
}

bptt_status bptt_draw(double *p, uint32_t *order, size_t count, double temperature, uint64_t top_k, uint64_t *state,
                      uint32_t *token, bptt_error *error)
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(p[i])) { return bptt_fail(error, BPTT_FAILED, "the model's probability of token %zu is not finite", i); }
        if (p[i] > p[best]) { best = i; }
    }
    *token = (uint32_t)best;
    if (temperature == 0.0) { return BPTT_OK; }
    if (top_k > 0 && top_k < count) { keep_likeliest(p, order, count, top_k); }
    double total = 0.0, most = p[best];
    for (size_t i = 0; i < count; i++) {
        if (temperature != 1.0 && p[i] > 0.0) { p[i] = exp((log(p[i]) - log(most)) / temperature); }
        total += p[i];
    }
    double left = bptt_random_unit(state) * total;
    /* Rounding may leave a rest after the last token: then the likeliest stands. */
    for (size_t i = 0; i < count; i++) {
        left -= p[i];
        if (p[i] > 0.0 && left < 0.0) {
            *token = (uint32_t)i;
            return BPTT_OK;
        }
    }
    return BPTT_OK;
}

/* ---- the writer: a companion and what drawing needs ---- */

enum { BYTE_TOKENS = 256 }; /* vocabularies up to here are bytes, larger ones numbers */

typedef struct writer {
    bptt_companion companion;
    void *reals; /* probabilities as the model gives them */
    double *p;   /* the same in double */
    uint32_t *order;
    uint64_t state; /* of the generator */
    uint8_t starts; /* the next token starts a document */
    bool terminal;
    unsigned char last; /* byte printed before */
    bool any;           /* something was printed before */
} writer;

static bptt_status writer_open(writer *w, const bptt_options *options, bptt_error *error)
{
    *w = (writer){.state = options->seed, .terminal = isatty(STDOUT_FILENO) == 1};
    bptt_status status = bptt_companion_load(&w->companion, options->operand, (bptt_backend)options->backend, error);
    if (status != BPTT_OK) { return status; }
    if (!bptt_data_is_text(&w->companion.spec) || w->companion.spec.loss_at.kind != BPTT_STEPS_ALL) {
        return bptt_fail(error, BPTT_FAILED, "%s: sample draws a token after each token, and this model is for %s",
                         options->operand, bptt_data_is_text(&w->companion.spec) ? "an output at some steps" : "reals");
    }
    const bptt_model *model = w->companion.program.model;
    w->reals = calloc(model->vocab, model->real_size);
    w->p = calloc(model->vocab, sizeof *w->p);
    w->order = calloc(model->vocab, sizeof *w->order);
    if (w->reals == NULL || w->p == NULL || w->order == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for %u probabilities", model->vocab);
    }
    return BPTT_OK;
}

static void writer_close(writer *w)
{
    free(w->reals);
    free(w->p);
    free(w->order);
    if (w->companion.memory != NULL) { bptt_companion_close(&w->companion); }
}

/* Feeds one token; leaves the probabilities of the next in w->p. */
static void feed(writer *w, uint32_t token)
{
    const bptt_model *model = w->companion.program.model;
    const bptt_rows rows = {.x = &token, .reset = w->companion.spec.resets ? &w->starts : NULL};
    model->predict(model, w->companion.memory, &rows, w->reals);
    w->starts = (int64_t)token + 1 == w->companion.spec.separator;
    for (uint32_t i = 0; i < model->vocab; i++) {
        w->p[i] = model->real_size == sizeof(float) ? (double)((const float *)w->reals)[i] : ((const double *)w->reals)[i];
    }
}

/* A stranger's model must not send escape sequences to a terminal.  0x80 .. 0x9f control some terminals too, alone or after 0xc2,
 * but are also the tail of most UTF-8 characters. */
static unsigned char harmless(unsigned char byte, unsigned char before)
{
    bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    bool upper_control = byte >= 0x80 && byte < 0xa0 && (before < 0x80 || before == 0xc2);
    return control || upper_control ? '?' : byte;
}

static void print_token(writer *w, uint32_t token)
{
    const bptt_spec *spec = &w->companion.spec;
    if (spec->vocab > BYTE_TOKENS) {
        printf("%s%u", w->any ? " " : "", token);
    } else {
        unsigned char byte = spec->alphabet_size > 0 ? spec->alphabet[token] : (unsigned char)token;
        if (w->terminal) { byte = harmless(byte, w->last); }
        putchar(byte);
        w->last = byte;
    }
    w->any = true;
}

/* ---- the prime ---- */

/* "12 7 300" for a model whose tokens are numbers. */
static bptt_status read_numbers(const char *text, int64_t vocab, bptt_data *data, bptt_error *error)
{
    data->tokens = calloc(strlen(text) / 2 + 1, sizeof *data->tokens);
    if (data->tokens == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for the prime"); }
    const char *c = text + strspn(text, " ");
    while (*c != '\0') {
        size_t digits = strspn(c, "0123456789");
        errno = 0;
        unsigned long long number = strtoull(c, NULL, 10);
        bool ended = c[digits] == ' ' || c[digits] == '\0';
        if (digits == 0 || !ended || errno != 0 || number >= (unsigned long long)vocab) {
            return bptt_fail(error, BPTT_USAGE, "--prime: byte %td is not a token id from 0 to %lld", c - text,
                             (long long)vocab - 1);
        }
        data->tokens[data->count++] = (uint32_t)number;
        c += digits;
        c += strspn(c, " ");
    }
    return BPTT_OK;
}

static bptt_status read_prime(const bptt_options *options, const bptt_spec *spec, bptt_data *prime, bptt_error *error)
{
    if (spec->vocab > BYTE_TOKENS) { return read_numbers(options->prime, spec->vocab, prime, error); }
    bptt_data_options rules = {.token_bytes = 1, .unknown = options->unknown, .map = options->map};
    bptt_status status =
        bptt_data_encode((const unsigned char *)options->prime, strlen(options->prime), "--prime", spec, &rules, prime, error);
    return status == BPTT_OK ? status : BPTT_USAGE; /* the command line holds it */
}

/* Where text starts when nothing is given: after a newline, when there is one. */
static uint32_t first_token(writer *w)
{
    const bptt_spec *spec = &w->companion.spec;
    for (int i = 0; i < spec->alphabet_size; i++) {
        if (spec->alphabet[i] == '\n') { return (uint32_t)i; }
    }
    if (spec->alphabet_size == 0 && spec->vocab > '\n' && spec->vocab <= BYTE_TOKENS) { return '\n'; }
    return (uint32_t)(bptt_random_unit(&w->state) * (double)spec->vocab);
}

static bptt_status start(writer *w, const bptt_options *options, bptt_error *error)
{
    bptt_data prime = {0};
    bptt_status status = BPTT_OK;
    if (options->prime != NULL) { status = read_prime(options, &w->companion.spec, &prime, error); }
    for (size_t i = 0; status == BPTT_OK && i < prime.count; i++) {
        print_token(w, prime.tokens[i]);
        feed(w, prime.tokens[i]);
    }
    if (status == BPTT_OK && prime.count == 0) { feed(w, first_token(w)); }
    bptt_data_free(&prime);
    return status;
}

/* ---- the command ---- */

static bptt_status write_sample(writer *w, const bptt_options *options, bptt_error *error)
{
    bptt_status status = start(w, options, error);
    uint32_t vocab = w->companion.program.model->vocab;
    for (uint64_t i = 0; status == BPTT_OK && i < options->count && ferror(stdout) == 0; i++) {
        uint32_t token = 0;
        status = bptt_draw(w->p, w->order, vocab, options->temperature, options->top_k, &w->state, &token, error);
        if (status == BPTT_OK) {
            print_token(w, token);
            feed(w, token);
        }
    }
    /* A terminal's prompt and a list of numbers want a line of their own; bytes go to a file as they are. */
    bool ends_line = w->companion.spec.vocab > BYTE_TOKENS || (w->terminal && w->last != '\n');
    if (status == BPTT_OK && w->any && ends_line) { putchar('\n'); }
    return status;
}

bptt_status bptt_command_sample(const bptt_options *options, bptt_error *error)
{
    writer w;
    bptt_status status = writer_open(&w, options, error);
    if (status == BPTT_OK) { status = write_sample(&w, options, error); }
    writer_close(&w);
    return status;
}
