/* test_data.c: runtime/data.c, tokens from bytes and the streams that training reads. */
#include "../runtime/data.h"
#include "scratch.h"

#include <time.h>

static bptt_error error;
static const bptt_data_options plain = {.token_bytes = 1};

static bptt_spec with_vocab(int64_t vocab)
{
    return (bptt_spec){.vocab = vocab};
}

static bptt_spec with_alphabet(const char *alphabet)
{
    bptt_spec spec = {.vocab = (int64_t)strlen(alphabet), .alphabet_size = (int)strlen(alphabet)};
    memcpy(spec.alphabet, alphabet, strlen(alphabet));
    return spec;
}

/* Encodes and compares the tokens with `expected`, one a digit. */
static void assert_tokens(const char *bytes, size_t length, const bptt_spec *spec, const bptt_data_options *options,
                          const char *expected)
{
    bptt_data data;
    bptt_status status = bptt_data_encode((const unsigned char *)bytes, length, "text", spec, options, &data, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    ck_assert_uint_eq(data.count, strlen(expected));
    for (size_t i = 0; i < data.count; i++) { ck_assert_uint_eq(data.tokens[i], (uint32_t)(expected[i] - '0')); }
    bptt_data_free(&data);
    ck_assert_ptr_null(data.tokens);
}

static void assert_refused(const char *bytes, size_t length, const bptt_spec *spec, const bptt_data_options *options,
                           bptt_status status, const char *message)
{
    bptt_data data;
    ck_assert_int_eq(bptt_data_encode((const unsigned char *)bytes, length, "text", spec, options, &data, &error), status);
    ck_assert_str_eq(error.text, message);
    ck_assert_ptr_null(data.tokens);
    ck_assert_uint_eq(data.count, 0);
}

START_TEST(test_alphabet)
{
    const bptt_spec spec = with_alphabet("xa\xc3\n");
    const bptt_data_options skip = {.token_bytes = 1, .unknown = BPTT_UNKNOWN_SKIP};
    const bptt_data_options map = {.token_bytes = 1, .unknown = BPTT_UNKNOWN_MAP, .map = 'a'};
    const bptt_data_options lost = {.token_bytes = 1, .unknown = BPTT_UNKNOWN_MAP, .map = 'q'};
    assert_tokens("ax\n\xc3", 4, &spec, &plain, "1032");
    assert_tokens("", 0, &spec, &plain, "");
    assert_tokens("a?x\0", 4, &spec, &skip, "10");
    assert_tokens("a?x\0", 4, &spec, &map, "1101");
    assert_refused("axq", 3, &spec, &plain, BPTT_FAILED,
                   "text: byte 'q' at offset 2 is not in the alphabet (use --unknown skip or --unknown map=C)");
    assert_refused("a\xff", 2, &spec, &plain, BPTT_FAILED,
                   "text: byte 0xff at offset 1 is not in the alphabet (use --unknown skip or --unknown map=C)");
    assert_refused("a", 1, &spec, &lost, BPTT_USAGE, "--unknown map=C: 'q' is itself not in the alphabet");
}
END_TEST

START_TEST(test_numbers)
{
    const bptt_spec spec = with_vocab(5);
    const bptt_spec wide = with_vocab(65536);
    const bptt_spec huge = with_vocab(INT64_C(4294967295));
    const bptt_spec letters = with_alphabet("ab");
    const bptt_data_options two = {.token_bytes = 2};
    const bptt_data_options four = {.token_bytes = 4};
    const bptt_data_options three = {.token_bytes = 3};
    const bptt_data_options skip = {.token_bytes = 2, .unknown = BPTT_UNKNOWN_SKIP};
    assert_tokens("\0\4\1", 3, &spec, &plain, "041");
    assert_tokens("\1\0\4\0", 4, &spec, &two, "14");
    assert_tokens("\3\0\0\0\0\0\0\0", 8, &spec, &four, "30");
    assert_refused("\0\5", 2, &spec, &plain, BPTT_FAILED,
                   "text: byte 0x05 at offset 1 is not below vocab = 5 (use --unknown skip or --unknown map=C)");
    assert_refused("\1\0\0", 3, &spec, &two, BPTT_FAILED, "text: has 3 bytes, not a multiple of 2");
    assert_refused("\1\0\0\0\1\0", 6, &spec, &four, BPTT_FAILED, "text: has 6 bytes, not a multiple of 4");
    assert_refused("\1\0\0\1", 4, &spec, &two, BPTT_FAILED, "text: token 256 at byte 2 is not below vocab = 5");
    assert_refused("\0\0\0\0\x70\x11\1\0", 8, &wide, &four, BPTT_FAILED,
                   "text: token 70000 at byte 4 is not below vocab = 65536");
    assert_refused("\xff\xff\xff\xff", 4, &huge, &four, BPTT_FAILED,
                   "text: token 4294967295 at byte 0 is not below vocab = 4294967295");
    assert_refused("\1\0", 2, &letters, &two, BPTT_USAGE,
                   "text: tokens of 2 bytes need a vocab that is a number, this spec has an alphabet");
    assert_refused("\1\0", 2, &spec, &three, BPTT_USAGE, "text: tokens of 3 bytes; 1, 2 and 4 are supported");
    assert_refused("\1\0", 2, &spec, &skip, BPTT_USAGE, "text: --unknown is for bytes, not for tokens of 2 bytes");
}
END_TEST

START_TEST(test_load)
{
    const bptt_spec spec = with_alphabet("ab");
    const bptt_data_options skip = {.token_bytes = 1, .unknown = BPTT_UNKNOWN_SKIP};
    const char *path = scratch("text");
    bptt_data data;
    scratch_put(path, "abba", 4);
    ck_assert_int_eq(bptt_data_load(path, &spec, &plain, &data, &error), BPTT_OK);
    ck_assert_uint_eq(data.count, 4);
    ck_assert_uint_eq(data.tokens[1], 1);
    bptt_data_free(&data);
    scratch_put(path, "", 0);
    ck_assert_int_eq(bptt_data_load(path, &spec, &plain, &data, &error), BPTT_FAILED);
    assert_says(&error, "text: is empty");
    scratch_put(path, "123", 3);
    ck_assert_int_eq(bptt_data_load(path, &spec, &skip, &data, &error), BPTT_FAILED);
    assert_says(&error, "text: none of its 3 bytes is in the alphabet");
    ck_assert_ptr_null(data.tokens);
    ck_assert_int_eq(bptt_data_load(path, &spec, &plain, &data, &error), BPTT_FAILED);
    assert_says(&error, "text: byte '1' at offset 0");
    ck_assert_int_eq(bptt_data_load(scratch("none"), &spec, &plain, &data, &error), BPTT_FAILED);
    assert_says(&error, "none: cannot open");
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_stream_by_hand)
{
    const uint32_t tokens[] = {10, 11, 12, 13, 14, 15};
    const uint32_t none = BPTT_NO_LABEL;
    uint32_t x[4] = {0};
    uint32_t y[4] = {0};
    bptt_stream stream;
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, 6, 2, "text", &error), BPTT_OK);
    ck_assert_uint_eq(bptt_stream_steps(&stream), 3); /* predictions 0 1 | 2 3 4 */
    ck_assert_uint_eq(bptt_stream_next(&stream, 2, x, y), 4);
    ck_assert(same_bytes(x, (uint32_t[]){10, 12, 11, 13}, sizeof x));
    ck_assert(same_bytes(y, (uint32_t[]){11, 13, 12, 14}, sizeof y));
    ck_assert_uint_eq(stream.position, 2);
    ck_assert_uint_eq(bptt_stream_next(&stream, 2, x, y), 1);
    ck_assert(same_bytes(x, (uint32_t[]){0, 14, 0, 0}, sizeof x));
    ck_assert(same_bytes(y, (uint32_t[]){none, 15, none, none}, sizeof y));
    ck_assert_uint_eq(stream.position, 3);
    x[0] = 77;
    ck_assert_uint_eq(bptt_stream_next(&stream, 2, x, y), 0);
    ck_assert_uint_eq(x[0], 77);
    stream.position = SIZE_MAX; /* a damaged cursor */
    ck_assert_uint_eq(bptt_stream_next(&stream, 2, x, y), 0);
    stream.position = 0;
    ck_assert_uint_eq(bptt_stream_next(&stream, 1, x, y), 2);
}
END_TEST

START_TEST(test_stream_refusals)
{
    const uint32_t tokens[4] = {0};
    bptt_stream stream;
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, 4, 4, "text", &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "text: has 4 tokens; batch = 4 needs at least 5");
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, 0, 1, "text", &error), BPTT_FAILED);
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, 4, 0, "text", &error), BPTT_FAILED);
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, SIZE_MAX, SIZE_MAX - 1, "text", &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "text: cannot be cut into 18446744073709551614 streams");
}
END_TEST

/* One epoch of a random cut.  Token i is i, so a label tells which prediction it is. */
static void run_epoch(size_t predictions, size_t batch, uint64_t *seed)
{
    enum { STEPS = 9 };
    uint32_t *tokens = calloc(predictions + 1, sizeof *tokens);
    unsigned char *seen = calloc(predictions + 1, 1);
    uint32_t *x = calloc(STEPS * batch, sizeof *x);
    uint32_t *y = calloc(STEPS * batch, sizeof *y);
    ck_assert(tokens != NULL && seen != NULL && x != NULL && y != NULL);
    for (size_t i = 0; i <= predictions; i++) { tokens[i] = (uint32_t)i; }
    bptt_stream stream;
    ck_assert_int_eq(bptt_stream_open(&stream, tokens, predictions + 1, batch, "text", &error), BPTT_OK);
    size_t total = 0;
    for (size_t steps = 1 + scratch_random(seed) % STEPS, labels = 1; labels > 0; steps = 1 + scratch_random(seed) % STEPS) {
        size_t counted = 0, wrong = 0;
        memset(y, 0xff, STEPS * batch * sizeof *y);
        labels = bptt_stream_next(&stream, steps, x, y);
        for (size_t i = 0; i < steps * batch; i++) {
            if (y[i] == BPTT_NO_LABEL) { continue; }
            wrong += y[i] != x[i] + 1 || seen[x[i]]++ != 0;
            /* Within a stream the predictions follow one another, or the carried state would belong to another place. */
            wrong += i >= batch && x[i] != x[i - batch] + 1;
            counted++;
        }
        ck_assert_uint_eq(wrong, 0);
        ck_assert_uint_eq(counted, labels);
        total += labels;
    }
    ck_assert_uint_eq(total, predictions);
    ck_assert_uint_eq(stream.position, bptt_stream_steps(&stream));
    free(tokens);
    free(seen);
    free(x);
    free(y);
}

START_TEST(test_each_prediction_once)
{
    uint64_t seed = (uint64_t)time(NULL);
    printf("test_each_prediction_once: seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 2000; round++) {
        size_t batch = 1 + scratch_random(&seed) % 17;
        run_epoch(batch + scratch_random(&seed) % 200, batch, &seed);
    }
}
END_TEST

/* b * predictions would overflow here; only the counts are looked at, no token is read. */
START_TEST(test_huge_counts)
{
    const uint32_t token = 0;
    bptt_stream stream;
    ck_assert_int_eq(bptt_stream_open(&stream, &token, SIZE_MAX, UINT32_MAX, "text", &error), BPTT_OK);
    ck_assert_uint_eq(bptt_stream_steps(&stream), SIZE_MAX / UINT32_MAX);
    ck_assert_int_eq(bptt_stream_open(&stream, &token, SIZE_MAX, UINT32_MAX - 1, "text", &error), BPTT_OK);
    ck_assert_uint_eq(bptt_stream_steps(&stream), (SIZE_MAX - 1) / (UINT32_MAX - 1) + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data");
    TCase *cases = tcase_create("data");
    tcase_add_unchecked_fixture(cases, scratch_open, scratch_close);
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_alphabet);
    tcase_add_test(cases, test_numbers);
    tcase_add_test(cases, test_load);
    tcase_add_test(cases, test_stream_by_hand);
    tcase_add_test(cases, test_stream_refusals);
    tcase_add_test(cases, test_each_prediction_once);
    tcase_add_test(cases, test_huge_counts);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
