/* slow_ulp.c: tanh, exp and sigmoid of every float, and of many doubles, in every precompiled library that this CPU runs.
 *
 * Depends on ulp.h and threads.  Not of `make check`: `make check-slow` takes minutes.  Prints the largest error and where it is;
 * exits with 1 if one is above what is promised.
 */
#include "ulp.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RUN = 4096, MOST_THREADS = 64, SAMPLES = 1 << 24 }; /* SAMPLES: of doubles, in each thread */

typedef struct worst {
    double ulp, x;
} worst;

typedef struct work {
    pthread_t thread;
    uint64_t first, last; /* floats by their bits */
    uint64_t random;
    worst f32[ULP_FUNCTIONS][ULP_LIBRARIES], f64[ULP_FUNCTIONS][ULP_LIBRARIES];
} work;

static void note(worst *w, double ulp, double x)
{
    if (ulp > w->ulp) { *w = (worst){ulp, x}; }
}

static void try_floats(work *w, int function, uint64_t first)
{
    float in[RUN], out[RUN];
    double truth[RUN];
    for (int i = 0; i < RUN; i++) {
        const uint32_t bits = (uint32_t)(first + (uint64_t)i);
        memcpy(&in[i], &bits, sizeof bits);
        truth[i] = ulp_truth(function, (double)in[i]);
    }
    for (int s = 0; s < ULP_LIBRARIES; s++) {
        ulp_kernel *const kernel = ulp_find(function, 4, ulp_simd[s]);
        if (kernel == NULL) { continue; }
        kernel(out, in, RUN);
        for (int i = 0; i < RUN; i++) { note(&w->f32[function][s], ulp_error_f32(out[i], truth[i]), (double)in[i]); }
    }
}

/* All bit patterns, and three ranges where the functions bend. */
static double draw(uint64_t *state)
{
    static const double ranges[] = {750, 20, 1};
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t bits = *state ^ *state >> 29, kind = *state >> 62;
    double x;
    memcpy(&x, &bits, sizeof x);
    return kind == 3 ? x : (double)(int64_t)(bits << 2) * 0x1p-63 * ranges[kind];
}

static void try_doubles(work *w, int function)
{
    double in[RUN], out[RUN];
    long double truth[RUN];
    for (int i = 0; i < RUN; i++) {
        in[i] = draw(&w->random);
        truth[i] = ulp_truth_long(function, in[i]);
    }
    for (int s = 0; s < ULP_LIBRARIES; s++) {
        ulp_kernel *const kernel = ulp_find(function, 8, ulp_simd[s]);
        if (kernel == NULL) { continue; }
        kernel(out, in, RUN);
        for (int i = 0; i < RUN; i++) { note(&w->f64[function][s], ulp_error_f64(out[i], truth[i]), in[i]); }
    }
}

static void *run(void *argument)
{
    work *w = argument;
    for (int function = 0; function < ULP_FUNCTIONS; function++) {
        for (uint64_t first = w->first; first < w->last; first += RUN) { try_floats(w, function, first); }
        for (int i = 0; i < SAMPLES; i += RUN) { try_doubles(w, function); }
    }
    return NULL;
}

static int print(const char *type, int function, int simd, worst w)
{
    const int fails = !(w.ulp > 0 && w.ulp <= ulp_functions[function].limit); /* 0: nothing was tried */
    printf("%-8s %s simd %-2d  %6.3f ulp at % .9e (%a)%s\n", ulp_functions[function].name, type, simd, w.ulp, w.x, w.x,
           fails ? "  FAILED" : "");
    return fails;
}

int main(void)
{
    static work works[MOST_THREADS];
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const uint64_t threads = cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : (uint64_t)cores, runs = (1ull << 32) / RUN;
    int fails = 0;
    for (uint64_t t = 0; t < threads; t++) {
        works[t].first = runs * t / threads * RUN;
        works[t].last = runs * (t + 1) / threads * RUN;
        works[t].random = t + 1;
        if (pthread_create(&works[t].thread, NULL, run, &works[t]) != 0) {
            perror("pthread_create");
            return 1;
        }
    }
    for (uint64_t t = 0; t < threads; t++) { pthread_join(works[t].thread, NULL); }
    for (int function = 0; function < ULP_FUNCTIONS; function++) {
        for (int s = 0; s < ULP_LIBRARIES; s++) {
            if (bptt_kernels(4, ulp_simd[s], &(size_t){0}) == NULL) { continue; }
            worst *const f32 = &works[0].f32[function][s], *const f64 = &works[0].f64[function][s];
            for (uint64_t t = 1; t < threads; t++) {
                note(f32, works[t].f32[function][s].ulp, works[t].f32[function][s].x);
                note(f64, works[t].f64[function][s].ulp, works[t].f64[function][s].x);
            }
            fails += print("f32", function, ulp_simd[s], *f32) + print("f64", function, ulp_simd[s], *f64);
        }
    }
    printf("every float, and %d doubles a function, in each library: %d above the limit\n", (int)threads * SAMPLES, fails);
    return fails != 0;
}
