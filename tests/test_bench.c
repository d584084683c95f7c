/* test_bench.c: the roofline against sums done by hand, the suite's rows, what is measured of the machine.
 *
 * No speed is judged here.  Depends on Check and runtime/bench.h.
 */
#include "../runtime/bench.h"
#include "../runtime/generate.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bptt_error error;

/* 100 FLOP a second; L1 of 10 bytes at 20 bytes a second, L2 of 40 at 10, no L3, memory at 2. */
static const bptt_limits limits = {100, {{"L1", 10, 20}, {"L2", 40, 10}, {"L3", 0, 5}, {"memory", HUGE_VAL, 2}}};

static const struct {
    bptt_work work;
    double seconds;
} works[] = {
    {{1, 0, 0}, 0},
    {{1, 200, 0}, 2},
    {{1, 0, 5}, 0.25},
    {{1, 0, 10}, 0.5},
    {{1, 0, 30}, 0.5 + 2},     /* 10 from L1, 20 from L2 */
    {{1, 0, 50}, 0.5 + 4},     /* full caches */
    {{1, 0, 60}, 0.5 + 4 + 5}, /* 10 from memory */
    {{1, 100, 30}, 2.5},       /* bound by bytes */
    {{1, 300, 30}, 3},         /* bound by FLOP */
    {{7, 100, 30}, 7 * 2.5},   /* each call reads again */
    {{0.5, 300, 30}, 0.5 * 3}, /* half a block */
};
enum { WORKS = sizeof works / sizeof *works };

START_TEST(test_one_work)
{
    bptt_counts counts = {.work_count = 1, .works = {works[_i].work}};
    ck_assert_double_eq_tol(bptt_roofline_seconds(&limits, &counts), works[_i].seconds, 1e-12);
}
END_TEST

/* Works follow one another: what one is bound by hides nothing of the next. */
START_TEST(test_all_works)
{
    bptt_counts counts = {.work_count = WORKS};
    double seconds = 0;
    for (size_t i = 0; i < WORKS; i++) {
        counts.works[i] = works[i].work;
        seconds += works[i].seconds;
    }
    ck_assert_double_eq_tol(bptt_roofline_seconds(&limits, &counts), seconds, 1e-12);
}
END_TEST

START_TEST(test_limits)
{
    const int real_size = _i == 0 ? 4 : 8;
    bptt_limits here;
    ck_assert_int_eq(bptt_limits_measure(real_size, &here, &error), BPTT_OK);
    ck_assert(isfinite(here.peak) && here.peak > 0);
    for (int l = 0; l < BPTT_LEVELS; l++) {
        ck_assert(isfinite(here.levels[l].bandwidth) && here.levels[l].bandwidth > 0);
        ck_assert(here.levels[l].bytes > 0 && isinf(here.levels[l].bytes) == (l == BPTT_LEVELS - 1));
    }
}
END_TEST

/* The rows are those of the issues: name, cell, H, V, T, B; a chunk is a sequence. */
static const struct {
    const char *name;
    bptt_cell cell;
    int64_t H, V, T, B;
} rows[] = {
    {"tiny", BPTT_CELL_RNN, 16, 16, 16, 1},      {"small", BPTT_CELL_RNN, 32, 65, 25, 1},
    {"classic", BPTT_CELL_RNN, 100, 65, 25, 1},  {"default", BPTT_CELL_RNN, 128, 65, 64, 1},
    {"stream", BPTT_CELL_RNN, 64, 65, 50, 8},    {"batch", BPTT_CELL_RNN, 128, 65, 64, 32},
    {"wide", BPTT_CELL_RNN, 256, 65, 64, 32},    {"wider", BPTT_CELL_RNN, 512, 65, 64, 32},
    {"huge1", BPTT_CELL_RNN, 1024, 65, 64, 1},   {"words", BPTT_CELL_RNN, 1024, 10000, 20, 32},
    {"gru128", BPTT_CELL_GRU, 128, 65, 64, 1},   {"gru128x32", BPTT_CELL_GRU, 128, 65, 64, 32},
    {"gru256", BPTT_CELL_GRU, 256, 65, 64, 1},   {"gru256x32", BPTT_CELL_GRU, 256, 65, 64, 32},
    {"lstm128", BPTT_CELL_LSTM, 128, 65, 64, 1}, {"lstm128x32", BPTT_CELL_LSTM, 128, 65, 64, 32},
    {"lstm256", BPTT_CELL_LSTM, 256, 65, 64, 1}, {"lstm256x32", BPTT_CELL_LSTM, 256, 65, 64, 32},
};
enum { ROWS = sizeof rows / sizeof *rows };

START_TEST(test_suite_rows)
{
    for (size_t r = 0; r < ROWS; r++) {
        bptt_spec spec;
        ck_assert_str_eq(bptt_suite_words[r], rows[r].name);
        ck_assert_msg(bptt_suite_spec(r, NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
        ck_assert(spec.hidden == rows[r].H && spec.vocab == rows[r].V && spec.T == rows[r].T && spec.batch == rows[r].B);
        ck_assert(spec.cell == rows[r].cell && spec.layers == 1);
        ck_assert(spec.K == spec.T && spec.activation == BPTT_TANH && spec.dtype == BPTT_F32);
        ck_assert(spec.optimizer.kind == BPTT_ADAGRAD && spec.clip.kind == BPTT_CLIP_NORM && spec.clip.limit == 5);
        bptt_spec_free(&spec);
    }
    ck_assert_ptr_null(bptt_suite_words[ROWS]);
}
END_TEST

START_TEST(test_suite_choice)
{
    unsigned chosen = 0;
    ck_assert_int_eq(bptt_suite_choose(NULL, &chosen, &error), BPTT_OK);
    ck_assert_uint_eq(chosen, (1u << ROWS) - 1);
    ck_assert_int_eq(bptt_suite_choose("words,tiny,words", &chosen, &error), BPTT_OK);
    ck_assert_uint_eq(chosen, 1u | 1u << 9);
    static const char *const bad[][2] = {{"tiny,defalut", "unknown row 'defalut' (did you mean 'default'?)"},
                                         {"tiny,", "unknown row ''"},
                                         {",", "unknown row ''"},
                                         {"wid,xyzzy", "unknown row 'wid' (did you mean 'wide'?)"},
                                         {"xyzzy", "unknown row 'xyzzy'"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(bptt_suite_choose(bad[i][0], &chosen, &error), BPTT_USAGE);
        ck_assert_str_eq(error.text, bad[i][1]);
    }
}
END_TEST

/* Cells that the generic loops are not of are timed without them, and it is said why. */
START_TEST(test_without_generic)
{
    static const char *const cells[] = {"rnn", "gru", "lstm"};
    const bptt_override overrides[] = {{"cell", 4, cells[_i]}, {"hidden", 6, "5"}, {"T", 1, "3"}};
    bptt_bench bench = {.cores = 0};
    ck_assert_msg(bptt_suite_spec(0, overrides, 3, &bench.spec, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_bench_measure(&bench, 1, 1e-3, &error) == BPTT_OK, "%s", error.text);
    const bptt_timing *generic = &bench.timings[BPTT_TIMED_GENERIC], *tcc = &bench.timings[BPTT_TIMED_TCC];
    ck_assert(tcc->seconds > 0 && tcc->compile_ms > 0);
    ck_assert_str_eq(tcc->missing.text, "");
    ck_assert(_i == 0 ? generic->seconds > 0 : generic->seconds == 0);
    ck_assert_str_eq(
        generic->missing.text,
        _i == 0
            ? ""
            : "suite_tiny: the generic backend has loops for one layer of cell rnn alone, without resets, learned h0 or dropout");
    bptt_spec_free(&bench.spec);
}
END_TEST

/* What a chunk is bound by: more steps read W_hh more often, more sequences do not. */
static double bytes_of(const char *T, const char *batch, const char *vocab, const char *optimizer)
{
    const bptt_override overrides[] = {
        {"T", 1, T}, {"batch", 5, batch}, {"hidden", 6, "256"}, {"vocab", 5, vocab}, {"optimizer", 9, optimizer}};
    bptt_spec spec;
    bptt_unit unit;
    ck_assert_int_eq(bptt_suite_spec(0, overrides, 5, &spec, &error), BPTT_OK);
    ck_assert_int_eq(bptt_compile_here(&spec, &unit, &error), BPTT_OK);
    const double bytes = unit.counts.bytes_moved;
    bptt_unit_free(&unit);
    bptt_spec_free(&spec);
    return bytes;
}

START_TEST(test_bytes)
{
    const double matrix = 256.0 * 256 * 4, one = bytes_of("10", "1", "2", "adagrad");
    ck_assert_double_ge(bytes_of("20", "1", "2", "adagrad") - one, 2 * 10 * matrix);
    ck_assert_double_le(bytes_of("20", "1", "2", "adagrad") - one, 3 * 10 * matrix);
    ck_assert_double_le(bytes_of("10", "2", "2", "adagrad") - one, 2 * matrix);
}
END_TEST

/* Adagrad leaves 90 of 100 rows of W_xh and of its moment alone, RMSprop none. */
START_TEST(test_bytes_of_sparse_update)
{
    const double row = (256.0 + 16) * 4, all = bytes_of("10", "1", "100", "rmsprop"); /* 256 reals and a line between rows */
    ck_assert_double_eq_tol(all - bytes_of("10", "1", "100", "adagrad"), 2 * 90 * row, 1e-6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *cases = tcase_create("all");
    tcase_set_timeout(cases, 300); /* under valgrind a buffer of four caches takes long to fill */
    tcase_add_loop_test(cases, test_one_work, 0, WORKS);
    tcase_add_test(cases, test_all_works);
    tcase_add_loop_test(cases, test_limits, 0, 2);
    tcase_add_test(cases, test_suite_rows);
    tcase_add_test(cases, test_suite_choice);
    tcase_add_loop_test(cases, test_without_generic, 0, 3);
    tcase_add_test(cases, test_bytes);
    tcase_add_test(cases, test_bytes_of_sparse_update);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
