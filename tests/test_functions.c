/* test_functions.c: tanh, exp, sigmoid, log and sqrt of the precompiled kernels against libm: within the ulp that ulp.h promises;
 * the other element-wise kernels at the edges of their domains.
 *
 * Depends on Check, ulp.h and oracle.h (random numbers).  A sample; tests/slow_ulp.c tries every float.
 */
#include "oracle.h"
#include "ulp.h"

#include <check.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>

/* A loop test's number: function, size of a real, library. */
enum { CASES = ULP_FUNCTIONS * 2 * ULP_LIBRARIES };

typedef struct subject {
    int function, real_size, simd;
    ulp_kernel *kernel; /* NULL: not for this CPU */
} subject;

static subject subject_of(int i)
{
    subject s = {i % ULP_FUNCTIONS, i / ULP_FUNCTIONS % 2 == 0 ? 4 : 8, ulp_simd[i / ULP_FUNCTIONS / 2], NULL};
    s.kernel = ulp_find(s.function, s.real_size, s.simd);
    if (bptt_kernels(s.real_size, s.simd, &(size_t){0}) != NULL) { ck_assert_ptr_nonnull(s.kernel); }
    return s;
}

/* The kernel's value at x, which is a float where the kernel's reals are.  A kernel computes whole vectors. */
static double value_at(const subject *s, double x)
{
    union {
        float f32[16];
        double f64[16];
    } in, out;
    for (int i = 0; i < 16; i++) {
        if (s->real_size == 4) {
            in.f32[i] = (float)x;
        } else {
            in.f64[i] = x;
        }
    }
    s->kernel(&out, &in, s->simd);
    return s->real_size == 4 ? (double)out.f32[s->simd - 1] : out.f64[s->simd - 1];
}

static void assert_within(const subject *s, double x)
{
    x = s->real_size == 4 ? (double)(float)x : x;
    const double y = value_at(s, x);
    const double ulp = s->real_size == 4 ? ulp_error_f32((float)y, (double)ulp_truth_long(s->function, x))
                                         : ulp_error_f64(y, ulp_truth_long(s->function, x));
    if (!(ulp <= ulp_functions[s->function].limit)) { /* Check notes every assertion in a file, which takes longer */
        ck_abort_msg("%s, %d bytes, simd %d: %.3f ulp at %a: %a", ulp_functions[s->function].name, s->real_size, s->simd, ulp, x,
                     y);
    }
}

/* x, its nearest neighbours, and -x with its own. */
static void assert_around(const subject *s, double x)
{
    const double step = s->real_size == 4 ? (double)FLT_EPSILON : DBL_EPSILON;
    for (int i = -8; i <= 8; i++) {
        assert_within(s, x + x * step * i / 2);
        assert_within(s, -x - x * step * i / 2);
    }
}

START_TEST(every_exponent)
{
    const subject s = subject_of(_i);
    if (s.kernel == NULL) { return; }
    for (int exponent = s.real_size == 4 ? -149 : -1074; exponent < (s.real_size == 4 ? 128 : 1024); exponent++) {
        const double x = ldexp(1, exponent);
        assert_around(&s, x);
        for (int i = 1; i < 16; i++) { assert_within(&s, (i % 2 == 0 ? -x : x) * (1 + i / 16.0)); }
    }
}
END_TEST

/* Where one piece of a function ends, the results become subnormal, 0 or infinity, or reach a power of two. */
START_TEST(thresholds)
{
    static const double points[] = {10,
                                    20,
                                    104,
                                    746,
                                    0x1.62e42ep6,
                                    0x1.62e42fefa39efp9,
                                    0x1.5d589ep6,
                                    0x1.9fe368p6,
                                    0x1.74385446d71c3p9,
                                    0x1.6232bdd7abcd2p9,
                                    0.25541281188299536,
                                    0.54930614433405489};
    const subject s = subject_of(_i);
    if (s.kernel == NULL) { return; }
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) { assert_around(&s, points[i]); }
    for (int i = 1; i < 480; i++) { assert_around(&s, i * 0.69314718055994531 / 16); }     /* pieces of tanh */
    for (int i = 0; i < 1080; i++) { assert_around(&s, (i + 0.5) * 0.69314718055994531); } /* pieces of exp */
}
END_TEST

START_TEST(random_inputs)
{
    static const double ranges[] = {0.6, 1.5, 12, 25, 110, 750};
    const subject s = subject_of(_i);
    if (s.kernel == NULL) { return; }
    uint64_t random = oracle_seed() + (uint64_t)_i;
    for (int i = 0; i < 120000; i++) {
        const double unit = (double)(int64_t)oracle_random(&random) * 0x1p-63;
        assert_within(&s, unit * ranges[i % 6]);
    }
}
END_TEST

START_TEST(special_values)
{
    static const double at_infinity[ULP_FUNCTIONS][2] = {
        [ULP_TANH] = {-1, 1}, [ULP_EXP] = {0, (double)INFINITY}, [ULP_SIGMOID] = {0, 1}};
    static const double at_zero[ULP_FUNCTIONS] = {[ULP_TANH] = 0, [ULP_EXP] = 1, [ULP_SIGMOID] = 0.5};
    const subject s = subject_of(_i);
    if (s.kernel == NULL || s.function == ULP_LOG || s.function == ULP_SQRT) { return; } /* see edges */
    const double infinity = (double)INFINITY, largest = s.real_size == 4 ? (double)FLT_MAX : DBL_MAX;
    ck_assert(isnan(value_at(&s, (double)NAN)));
    ck_assert(isnan(value_at(&s, -(double)NAN)));
    for (int sign = 0; sign < 2; sign++) {
        ck_assert_double_eq(value_at(&s, sign == 0 ? -infinity : infinity), at_infinity[s.function][sign]);
        ck_assert_double_eq(value_at(&s, sign == 0 ? -largest : largest), at_infinity[s.function][sign]);
        const double zero = value_at(&s, sign == 0 ? -0.0 : 0.0);
        ck_assert_double_eq(zero, at_zero[s.function]);
        ck_assert_int_eq(signbit(zero) != 0, sign == 0 && s.function == ULP_TANH);
    }
}
END_TEST

/* Users square tanh and subtract it from 1. */
START_TEST(never_beyond_one)
{
    const subject s = subject_of(_i);
    if (s.kernel == NULL || (s.function != ULP_TANH && s.function != ULP_SIGMOID)) { return; }
    for (double x = 5; x < 40; x += 0x1p-9) {
        if (value_at(&s, x) > 1 || value_at(&s, -x) < (s.function == ULP_TANH ? -1 : 0)) { ck_abort_msg("beyond 1 at %a", x); }
    }
}
END_TEST

/* --- edges --------------------------------------------------------------------------------------------------------------------- */

#define NOT (double)NAN
#define INF (double)INFINITY

/* op(a, b), exactly; b is the number of an op that has one. */
static const struct edge {
    const char *kernel;
    char operands; /* 1, 2: vectors; n: a vector and a number */
    double a, b, result;
} edges[] = {
    {"bptt_log", '1', 0, 0, -INF},
    {"bptt_log", '1', -0.0, 0, -INF},
    {"bptt_log", '1', 1, 0, 0},
    {"bptt_log", '1', INF, 0, INF},
    {"bptt_log", '1', -1, 0, NOT},
    {"bptt_log", '1', -INF, 0, NOT},
    {"bptt_log", '1', NOT, 0, NOT},
    {"bptt_sqrt", '1', 0, 0, 0},
    {"bptt_sqrt", '1', -0.0, 0, -0.0},
    {"bptt_sqrt", '1', INF, 0, INF},
    {"bptt_sqrt", '1', -1, 0, NOT},
    {"bptt_sqrt", '1', NOT, 0, NOT},
    {"bptt_sqrt", '1', 4, 0, 2},
    {"bptt_abs", '1', -0.0, 0, 0},
    {"bptt_abs", '1', -INF, 0, INF},
    {"bptt_abs", '1', -3, 0, 3},
    {"bptt_abs", '1', 3, 0, 3},
    {"bptt_abs", '1', NOT, 0, NOT},
    {"bptt_div", '2', 1, 0, INF},
    {"bptt_div", '2', 1, -0.0, -INF},
    {"bptt_div", '2', 0, 0, NOT},
    {"bptt_div", '2', INF, INF, NOT},
    {"bptt_div", '2', 3, INF, 0},
    {"bptt_div", '2', 3, -4, -0.75},
    {"bptt_min", '2', 1, 2, 1},
    {"bptt_min", '2', 2, 1, 1},
    {"bptt_min", '2', INF, -INF, -INF},
    {"bptt_min", '2', -3, -3, -3},
    {"bptt_min", '2', NOT, 1, NOT},
    {"bptt_min", '2', 1, NOT, NOT},
    {"bptt_min", '2', INF, INF, INF},
    {"bptt_max", '2', 1, 2, 2},
    {"bptt_max", '2', 2, 1, 2},
    {"bptt_max", '2', INF, -INF, INF},
    {"bptt_max", '2', -3, -3, -3},
    {"bptt_max", '2', NOT, 1, NOT},
    {"bptt_max", '2', 1, NOT, NOT},
    {"bptt_max", '2', -INF, -INF, -INF},
    {"bptt_at_least", '2', 1, 1, 1},
    {"bptt_at_least", '2', 1, 2, 0},
    {"bptt_at_least", '2', 2, 1, 1},
    {"bptt_at_least", '2', -0.0, 0, 1},
    {"bptt_at_least", '2', 0, INF, 0},
    {"bptt_abs_adjoint", '2', 3, 2, 3},
    {"bptt_abs_adjoint", '2', 3, -2, -3},
    {"bptt_abs_adjoint", '2', 3, 0, 0},
    {"bptt_abs_adjoint", '2', 3, -INF, -3},
    {"bptt_abs_adjoint", '2', 3, NOT, NOT},
    {"bptt_scale", 'n', 3, -0.5, -1.5},
    {"bptt_scale", 'n', INF, 0, NOT},
    {"bptt_scale", 'n', NOT, 0, NOT},
    {"bptt_shift", 'n', 3, -0.5, 2.5},
    {"bptt_shift", 'n', -INF, 1, -INF},
    {"bptt_shift", 'n', NOT, 1, NOT},
    {"bptt_over", 'n', 4, 3, 0.75},
    {"bptt_over", 'n', 0, 1, INF},
    {"bptt_over", 'n', -0.0, 1, -INF},
    {"bptt_over", 'n', 0, 0, NOT},
    {"bptt_over", 'n', INF, 1, 0},
    {"bptt_over", 'n', NOT, 1, NOT},
    {"bptt_floor", 'n', 1, 2, 2},
    {"bptt_floor", 'n', 3, 2, 3},
    {"bptt_floor", 'n', -INF, 2, 2},
    {"bptt_floor", 'n', INF, 2, INF},
    {"bptt_floor", 'n', NOT, 2, NOT},
    {"bptt_step", 'n', 2, 2, 1},
    {"bptt_step", 'n', 1, 2, 0},
    {"bptt_step", 'n', INF, 2, 1},
    {"bptt_step", 'n', -INF, 2, 0},
};

static void run_f32(const struct edge *e, void (*kernel)(void), float *out, ptrdiff_t n)
{
    float a[16], b[16];
    for (int i = 0; i < 16; i++) {
        a[i] = (float)e->a;
        b[i] = (float)e->b;
    }
    if (e->operands == '1') { ((void (*)(float *, const float *, ptrdiff_t))kernel)(out, a, n); }
    if (e->operands == '2') { ((void (*)(float *, const float *, const float *, ptrdiff_t))kernel)(out, a, b, n); }
    if (e->operands == 'n') { ((void (*)(float *, const float *, float, ptrdiff_t))kernel)(out, a, b[0], n); }
}

static void run_f64(const struct edge *e, void (*kernel)(void), double *out, ptrdiff_t n)
{
    double a[16], b[16];
    for (int i = 0; i < 16; i++) {
        a[i] = e->a;
        b[i] = e->b;
    }
    if (e->operands == '1') { ((void (*)(double *, const double *, ptrdiff_t))kernel)(out, a, n); }
    if (e->operands == '2') { ((void (*)(double *, const double *, const double *, ptrdiff_t))kernel)(out, a, b, n); }
    if (e->operands == 'n') { ((void (*)(double *, const double *, double, ptrdiff_t))kernel)(out, a, b[0], n); }
}

START_TEST(edge)
{
    const struct edge *e = &edges[_i];
    for (int library = 0; library < 2 * ULP_LIBRARIES; library++) {
        const int real_size = library % 2 == 0 ? 4 : 8, simd = ulp_simd[library / 2];
        void (*kernel)(void) = ulp_kernel_named(e->kernel, real_size, simd);
        if (kernel == NULL) { /* this CPU cannot run the library */
            ck_assert_ptr_null(bptt_kernels(real_size, simd, &(size_t){0}));
            continue;
        }
        float f32[16] = {0};
        double f64[16] = {0};
        if (real_size == 4) { run_f32(e, kernel, f32, simd); }
        if (real_size == 8) { run_f64(e, kernel, f64, simd); }
        for (int i = 0; i < simd; i++) {
            const double found = real_size == 4 ? (double)f32[i] : f64[i];
            const bool right =
                isnan(e->result) ? isnan(found) != 0 : found == e->result && !signbit(found) == !signbit(e->result);
            ck_assert_msg(right, "%s(%g, %g), %d bytes, simd %d: %g, expected %g", e->kernel, e->a, e->b, real_size, simd, found,
                          e->result);
        }
    }
}
END_TEST

/* Rows that are not whole vectors, with rubbish in their padding; the largest numbers, infinity, not a number. */
START_TEST(softmax_of_rows)
{
    enum { COLS = 5, STRIDE = 16, ROWS = 5 };
    static const double rows[ROWS][COLS] = {{0, 0, 0, 0, 0},
                                            {1.7e308, -1.7e308, 0, 1, 1.7e308},
                                            {-INF, 0, -INF, -INF, 0},
                                            {1, 2, NOT, 3, 4},
                                            {-800, -800, -1600, -800, -800}};
    static const double expected[ROWS][COLS] = {{0.2, 0.2, 0.2, 0.2, 0.2},
                                                {0.5, 0, 0, 0, 0.5},
                                                {0, 0.5, 0, 0, 0.5},
                                                {NOT, NOT, NOT, NOT, NOT},
                                                {0.25, 0.25, 0, 0.25, 0.25}};
    double in[ROWS][STRIDE], out[ROWS][STRIDE];
    void (*kernel)(void) = ulp_kernel_named("bptt_row_softmax", 8, ulp_simd[_i]);
    if (kernel == NULL) { return; }
    for (int i = 0; i < ROWS * STRIDE; i++) {
        const int row = i / STRIDE, col = i % STRIDE;
        in[row][col] = col < COLS ? rows[row][col] : i % 2 == 0 ? NOT : 1e300;
        out[row][col] = 77;
    }
    const ptrdiff_t stride = 8, lanes = ulp_simd[_i] > 1 ? ulp_simd[_i] / 2 : 1, padded = (COLS + lanes - 1) / lanes * lanes;
    for (int r = 0; r < ROWS; r++) {
        ((void (*)(double *, ptrdiff_t, const double *, ptrdiff_t, ptrdiff_t, ptrdiff_t))kernel)(out[r], stride, in[r], stride, 1,
                                                                                                 COLS);
        for (int j = 0; j < STRIDE; j++) {
            const double right = j < COLS ? expected[r][j] : j < padded ? 0 : 77;
            if (isnan(expected[r][0]) && j < padded) { continue; }
            ck_assert_double_eq(out[r][j], right);
        }
        if (isnan(expected[r][0])) { ck_assert(isnan(out[r][0]) && isnan(out[r][COLS - 1])); }
    }
}
END_TEST

/* What a saturated softmax hands back is 0 or a normal number, also times the mean's scale over a million labels. */
START_TEST(losses_hand_back_normal_numbers)
{
    enum { COLS = 128 };
    float o[COLS];
    void (*kernel)(void) = ulp_kernel_named("bptt_cross_entropy", 4, ulp_simd[_i]);
    if (kernel == NULL) { return; }
    for (int j = 0; j < COLS; j++) { o[j] = (float)-j; }
    const uint32_t label = 0;
    (void)((double (*)(float *, ptrdiff_t, const uint32_t *, ptrdiff_t, ptrdiff_t, float, int))kernel)(o, COLS, &label, 1, COLS,
                                                                                                       0x1p-20F, 1);
    int zeros = 0;
    for (int j = 0; j < COLS; j++) {
        zeros += fpclassify(o[j]) == FP_ZERO;
        ck_assert_msg(fpclassify(o[j]) == FP_ZERO || fpclassify(o[j]) == FP_NORMAL, "o = -%d: %g", j, (double)o[j]);
    }
    ck_assert_int_ge(zeros, COLS - 80);
    ck_assert_int_le(zeros, COLS - 60);
}
END_TEST

int main(void)
{
    printf("test_functions: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("functions");
    TCase *functions = tcase_create("functions");
    tcase_set_timeout(functions, 60);
    tcase_add_loop_test(functions, every_exponent, 0, CASES);
    tcase_add_loop_test(functions, thresholds, 0, CASES);
    tcase_add_loop_test(functions, random_inputs, 0, CASES);
    tcase_add_loop_test(functions, special_values, 0, CASES);
    tcase_add_loop_test(functions, never_beyond_one, 0, CASES);
    tcase_add_loop_test(functions, softmax_of_rows, 0, ULP_LIBRARIES);
    tcase_add_loop_test(functions, losses_hand_back_normal_numbers, 0, ULP_LIBRARIES);
    tcase_add_loop_test(functions, edge, 0, (int)(sizeof edges / sizeof edges[0]));
    suite_add_tcase(suite, functions);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
