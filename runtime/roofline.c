/* roofline.c: what this core can do at most, measured with two precompiled kernels, and what a chunk needs of it.  See bench.h.
 *
 * The best of several tries counts: a busy machine is never faster than an idle one.  Depends on kernels.h and machine.h.
 */
#include "bench.h"

#include "kernels.h"
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* One of the library's kernels that only measuring needs. */
static void (*find_kernel(int real_size, const char *name))(void)
{
    size_t count = 0;
    const bptt_kernel *kernels = bptt_kernels(real_size, bptt_kernels_simd(), &count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(kernels[i].name, name) == 0) { return kernels[i].function; }
    }
    return NULL;
}

double bptt_peak_flops(int real_size)
{
    enum { VECTORS = 14, ITERATIONS = 20000, TRIES = 25 };
    void (*peak)(void *, ptrdiff_t) = (void (*)(void *, ptrdiff_t))find_kernel(real_size, "bptt_peak");
    double values[VECTORS * 16] = {0}, best = 0;
    const double flop = 2.0 * VECTORS * ITERATIONS * (4.0 * bptt_kernels_simd() / real_size);
    for (int i = 0; i < TRIES; i++) {
        double start = bptt_seconds();
        peak(values, ITERATIONS);
        best = fmax(best, flop / (bptt_seconds() - start));
    }
    return best;
}

/* --- caches ---------------------------------------------------------------------------------------------------------------------- */

/* A word of /sys about cache `index` of the first core; "" when there is none. */
static void read_cache_fact(int index, const char *fact, char word[32])
{
    char path[96];
    word[0] = '\0';
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, fact);
    FILE *file = fopen(path, "re");
    if (file == NULL) { return; }
    if (fscanf(file, "%31s", word) != 1) { word[0] = '\0'; }
    (void)fclose(file);
}

/* Bytes of the cache of level 1, 2 or 3: as the kernel has it; else as the C library has it, which on some machines tells the sum
 * over all cores; else a usual size. */
static double cache_bytes(int level)
{
    static const int names[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    static const double usual[] = {32 << 10, 1 << 20, 16 << 20};
    enum { CACHES = 8 };
    for (int i = 0; i < CACHES; i++) {
        char word[32];
        read_cache_fact(i, "type", word);
        if (strcmp(word, "Data") != 0 && strcmp(word, "Unified") != 0) { continue; }
        read_cache_fact(i, "level", word);
        if (strtol(word, NULL, 10) != level) { continue; }
        read_cache_fact(i, "size", word); /* "32K" */
        const double bytes = strtod(word, NULL) * (strchr(word, 'M') != NULL ? 0x1p20 : strchr(word, 'K') != NULL ? 0x1p10 : 1);
        if (bytes > 0) { return bytes; }
    }
    const long bytes = sysconf(names[level - 1]);
    return bytes > 0 ? (double)bytes : usual[level - 1];
}

/* Bytes per second when `bytes` of the buffer are read again and again. */
static double read_bandwidth(int real_size, const void *buffer, double bytes)
{
    enum { VECTORS = 8, TRIES = 7, UNIT = VECTORS * 64, AT_LEAST = 32 << 20 };
    typedef void stream_function(void *, const void *, ptrdiff_t, ptrdiff_t);
    stream_function *stream = (stream_function *)find_kernel(real_size, "bptt_stream");
    double sums[VECTORS * 16], best = 0;
    const ptrdiff_t whole = (ptrdiff_t)bytes / UNIT * UNIT, rounds = AT_LEAST / whole + 1;
    for (int i = 0; i < TRIES; i++) {
        double start = bptt_seconds();
        stream(sums, buffer, whole / real_size, rounds);
        best = fmax(best, (double)(whole * rounds) / (bptt_seconds() - start));
    }
    return best;
}

/* A buffer of half a cache's size stays there and not in the one before; four times the last cache is memory. */
bptt_status bptt_limits_measure(int real_size, bptt_limits *limits, bptt_error *error)
{
    static const char *const names[BPTT_LEVELS] = {"L1", "L2", "L3", "memory"};
    enum { MEMORY = BPTT_LEVELS - 1, PAGE = 2 << 20, BYTE = 1 /* in fours and eights a small normal real */ };
    double largest = 0;
    for (int l = 0; l < MEMORY; l++) {
        limits->levels[l] = (bptt_level){.name = names[l], .bytes = cache_bytes(l + 1)};
        largest = fmax(largest, limits->levels[l].bytes);
    }
    limits->levels[MEMORY] = (bptt_level){.name = names[MEMORY], .bytes = HUGE_VAL};
    const size_t size = ((size_t)largest * 4 + PAGE - 1) / PAGE * PAGE;
    void *buffer = aligned_alloc(PAGE, size);
    if (buffer == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for %zu bytes to measure bandwidths with", size); }
    (void)madvise(buffer, size, MADV_HUGEPAGE); /* as models have it */
    memset(buffer, BYTE, size);                 /* pages of their own, not one page of zeros */
    for (int l = 0; l < BPTT_LEVELS; l++) {
        const double bytes = l == MEMORY ? (double)size : limits->levels[l].bytes / 2;
        limits->levels[l].bandwidth = read_bandwidth(real_size, buffer, bytes);
    }
    free(buffer);
    limits->peak = bptt_peak_flops(real_size);
    return BPTT_OK;
}

/* --- the roofline ---------------------------------------------------------------------------------------------------------------- */

static double seconds_to_read(const bptt_limits *limits, double bytes)
{
    double seconds = 0;
    for (int l = 0; l < BPTT_LEVELS; l++) {
        const double here = fmin(bytes, limits->levels[l].bytes);
        seconds += here / limits->levels[l].bandwidth;
        bytes -= here;
    }
    return seconds;
}

double bptt_roofline_seconds(const bptt_limits *limits, const bptt_counts *counts)
{
    double seconds = 0;
    for (size_t w = 0; w < counts->work_count; w++) {
        const bptt_work *work = &counts->works[w];
        seconds += work->calls * fmax(work->flop / limits->peak, seconds_to_read(limits, work->bytes));
    }
    return seconds;
}
