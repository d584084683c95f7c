/* bench_suite.c: the specs that `bptt bench` runs by default, by name.  See bench.h.
 *
 * First cell rnn, from a net of a few vectors to one that fits no cache, batch 1 and more; then the cells with gates.
 * tests/bench compares these rows with other systems.  Depends on spec.h.
 */
#include "bench.h"

#include "../gen/suggest.h"

#include <string.h>

/* Name, cell, H, V, T, B of every row. */
#define SUITE(X)                                                                                                                 \
    X(tiny, rnn, 16, 16, 16, 1)                                                                                                  \
    X(small, rnn, 32, 65, 25, 1)                                                                                                 \
    X(classic, rnn, 100, 65, 25, 1)                                                                                              \
    X(default, rnn, 128, 65, 64, 1)                                                                                              \
    X(stream, rnn, 64, 65, 50, 8)                                                                                                \
    X(batch, rnn, 128, 65, 64, 32)                                                                                               \
    X(wide, rnn, 256, 65, 64, 32)                                                                                                \
    X(wider, rnn, 512, 65, 64, 32)                                                                                               \
    X(huge1, rnn, 1024, 65, 64, 1)                                                                                               \
    X(words, rnn, 1024, 10000, 20, 32)                                                                                           \
    X(gru128, gru, 128, 65, 64, 1)                                                                                               \
    X(gru128x32, gru, 128, 65, 64, 32)                                                                                           \
    X(gru256, gru, 256, 65, 64, 1)                                                                                               \
    X(gru256x32, gru, 256, 65, 64, 32)                                                                                           \
    X(lstm128, lstm, 128, 65, 64, 1)                                                                                             \
    X(lstm128x32, lstm, 128, 65, 64, 32)                                                                                         \
    X(lstm256, lstm, 256, 65, 64, 1)                                                                                             \
    X(lstm256x32, lstm, 256, 65, 64, 32)

#define SUITE_WORD(name, cell, H, V, T, B) #name,
const char *const bptt_suite_words[] = {SUITE(SUITE_WORD) NULL};

#define SUITE_TEXT(name, cell, H, V, T, B)                                                                                       \
    "return {name = 'suite_" #name "', cell = '" #cell "', hidden = " #H ", vocab = " #V ", T = " #T ", batch = " #B             \
    ", optimizer = 'adagrad', clip = {norm = 5}, forget_bias = 0}",
static const char *const texts[] = {SUITE(SUITE_TEXT)};

bptt_status bptt_suite_spec(size_t row, const bptt_override *overrides, size_t count, bptt_spec *spec, bptt_error *error)
{
    return bptt_spec_parse(texts[row], strlen(texts[row]), bptt_suite_words[row], overrides, count, spec, error);
}

static bptt_status choose(const char *name, size_t length, unsigned *rows, bptt_error *error)
{
    bptt_suggestion near = {.word = name, .length = length};
    for (unsigned r = 0; bptt_suite_words[r] != NULL; r++) {
        if (strlen(bptt_suite_words[r]) == length && memcmp(bptt_suite_words[r], name, length) == 0) {
            *rows |= 1u << r;
            return BPTT_OK;
        }
        bptt_suggest(&near, bptt_suite_words[r]);
    }
    const int shown = length < 80 ? (int)length : 80;
    if (near.best == NULL) { return bptt_fail(error, BPTT_USAGE, "unknown row '%.*s'", shown, name); }
    return bptt_fail(error, BPTT_USAGE, "unknown row '%.*s' (did you mean '%s'?)", shown, name, near.best);
}

bptt_status bptt_suite_choose(const char *names, unsigned *rows, bptt_error *error)
{
    *rows = 0;
    for (unsigned r = 0; names == NULL && bptt_suite_words[r] != NULL; r++) { *rows |= 1u << r; }
    bptt_status status = BPTT_OK;
    for (const char *name = names; name != NULL && status == BPTT_OK;) {
        const size_t length = strcspn(name, ",");
        status = choose(name, length, rows, error);
        name = name[length] == ',' ? name + length + 1 : NULL;
    }
    return status;
}
