/* count.c: one step of a row of the suite, for callgrind to count: `count ROW`.
 *
 * Runs the row on tcc with the AVX2 kernels (valgrind has no AVX-512), one step in `counted`, which tests/counts.sh
 * has callgrind look at alone.  Depends on runtime/bench.h and backend.h; measures nothing itself.
 * Status: 0 done, 77 this machine has no such kernels, 1 anything else.
 */
#include "../runtime/backend.h"
#include "../runtime/bench.h"
#include "../runtime/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77, MOST_TOKENS = 4096 };

/* What callgrind collects: a name to find, called once. */
__attribute__((noinline)) static double counted(const bptt_model *model, void *memory, const uint32_t *x, const uint32_t *y)
{
    const double loss = model->gradient(model, memory, &(bptt_rows){.x = x, .y = y}, 0);
    return loss + model->update(model, memory);
}

static bool has_kernels(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static int fail(const char *text)
{
    (void)fprintf(stderr, "count: %s\n", text);
    return EXIT_FAILURE;
}

static int run(const bptt_spec *spec, bptt_error *error)
{
    static uint32_t x[MOST_TOKENS], y[MOST_TOKENS];
    const size_t count = (size_t)(spec->K * spec->batch);
    if (count > MOST_TOKENS) { return fail("too many tokens in a chunk"); }
    uint64_t seed = 1;
    for (size_t i = 0; i < count; i++) {
        x[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)spec->vocab);
        y[i] = (uint32_t)(bptt_random(&seed) % (uint64_t)spec->vocab);
    }
    bptt_program program;
    if (bptt_program_open(spec, BPTT_BACKEND_TCC, &program, error) != BPTT_OK) { return fail(error->text); }
    void *memory = bptt_memory_new(program.model);
    double sum = HUGE_VAL;
    if (memory != NULL) {
        program.model->init(program.model, memory, spec->seed);
        sum = counted(program.model, memory, x, y);
    }
    free(memory);
    bptt_program_close(&program);
    return isfinite(sum) ? EXIT_SUCCESS : fail("no memory, or a loss that is not finite");
}

int main(int argc, char **argv)
{
    static const bptt_override avx2[] = {{"simd", 4, "8"}};
    bptt_error error;
    if (argc != 2) { return fail("usage: count ROW"); }
    if (!has_kernels()) { return SKIPPED; }
    for (size_t row = 0; bptt_suite_words[row] != NULL; row++) {
        if (strcmp(bptt_suite_words[row], argv[1]) != 0) { continue; }
        bptt_spec spec;
        if (bptt_suite_spec(row, avx2, 1, &spec, &error) != BPTT_OK) { return fail(error.text); }
        const int status = run(&spec, &error);
        bptt_spec_free(&spec);
        return status;
    }
    return fail("no such row");
}
