/* bench.c: `bptt bench`, which measures one spec or the suite and prints a table or JSON.
 *
 * One spec: a line for each backend.  The suite: a line for each row, printed as soon as it is measured.  Depends on bench.h.
 */
#include "bench.h"

#include "json.h"
#include "options.h"
#include "tuning.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 32 }; /* of the suite; a set of them is an unsigned */

/* By place in bptt_bench.timings. */
static const char *const words[BPTT_TIMINGS] = {"generic", "tcc", "cc"};

/* What is printed about a timing.  Not a number: what needs a time that was not taken. */
typedef struct figures {
    double us, tokens, gflops, ratio, share, roofline, reached;
} figures;

/* 0 becomes NaN: a place that was not timed. */
static double seconds_of(const bptt_bench *b, int place)
{
    return b->timings[place].seconds > 0 ? b->timings[place].seconds : (double)NAN;
}

static figures figures_of(const bptt_limits *limits, const bptt_bench *b, int place)
{
    const double seconds = seconds_of(b, place);
    const double flops = (b->counts.flop_forward + b->counts.flop_backward + b->counts.flop_update) / seconds;
    const double cores = place == BPTT_TIMED_GENERIC ? 1 : (double)b->spec.threads;
    const double roofline = bptt_roofline_seconds(limits, &b->counts) / cores;
    return (figures){.us = seconds * 1e6,
                     .tokens = (double)(bptt_spec_chunk(&b->spec) * b->spec.batch) / seconds,
                     .gflops = flops * 1e-9,
                     .ratio = seconds_of(b, BPTT_TIMED_GENERIC) / seconds,
                     .share = flops / (limits->peak * cores),
                     .roofline = roofline * 1e6,
                     .reached = roofline / seconds};
}

/* --- JSON -------------------------------------------------------------------------------------------------------------------------- */

static void json_limits(bptt_json *json, const bptt_limits *limits)
{
    bptt_json_real(json, "peak_gflops", limits->peak * 1e-9);
    bptt_json_open(json, "bandwidths", '[');
    for (int l = 0; l < BPTT_LEVELS; l++) {
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "level", limits->levels[l].name);
        bptt_json_real(json, "bytes", limits->levels[l].bytes);
        bptt_json_real(json, "gb_per_s", limits->levels[l].bandwidth * 1e-9);
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

static void json_row(bptt_json *json, const char *name, const bptt_limits *limits, const bptt_bench *b, int place)
{
    const figures f = figures_of(limits, b, place);
    bptt_json_open(json, NULL, '{');
    bptt_json_text(json, "name", name);
    bptt_json_text(json, "backend", words[place]);
    bptt_json_text(json, "cell", bptt_spec_word("cell", (int)b->spec.cell));
    bptt_json_whole(json, "hidden", (uint64_t)b->spec.hidden);
    bptt_json_whole(json, "vocab", (uint64_t)b->spec.vocab);
    bptt_json_whole(json, "steps", (uint64_t)b->spec.T);
    bptt_json_whole(json, "horizon", (uint64_t)b->spec.K);
    bptt_json_whole(json, "batch", (uint64_t)b->spec.batch);
    bptt_json_real(json, "us_per_chunk", f.us);
    bptt_json_real(json, "tokens_per_s", f.tokens);
    bptt_json_real(json, "gflops", f.gflops);
    bptt_json_real(json, "ratio_to_generic", f.ratio);
    bptt_json_real(json, "share_of_peak", f.share);
    bptt_json_real(json, "roofline_us", f.roofline);
    bptt_json_real(json, "share_of_roofline", f.reached);
    bptt_json_real(json, "compile_ms", b->timings[place].compile_ms);
    bptt_json_whole(json, "code_bytes", b->timings[place].code_bytes);
    bptt_json_real(json, "cores", b->cores);
    bptt_json_close(json, '}');
}

/* `names` has the name of each bench; `name` is that of all. */
static void print_json(const char *name, const char *const *names, const bptt_limits *limits, const bptt_bench *benches,
                       size_t count)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_json_text(&json, "name", name);
    json_limits(&json, limits);
    bptt_json_open(&json, "rows", '[');
    for (size_t i = 0; i < count; i++) {
        for (int t = 0; t < BPTT_TIMINGS; t++) {
            if (benches[i].timings[t].seconds > 0) { json_row(&json, names[i], limits, &benches[i], t); }
        }
    }
    bptt_json_close(&json, ']');
    bptt_json_close(&json, '}');
}

/* --- tables ------------------------------------------------------------------------------------------------------------------------- */

static void print_limits(const bptt_limits *limits, bptt_dtype dtype)
{
    printf("one step = forward, backward, clip, update of one chunk, %s; limits of one core, measured now:\n",
           bptt_spec_word("dtype", (int)dtype));
    printf("multiply-adds %.1f GFLOP/s; reads ", limits->peak * 1e-9);
    for (int l = 0; l < BPTT_LEVELS; l++) {
        const bptt_level *level = &limits->levels[l];
        printf("%s%s", l > 0 ? ", " : "", level->name);
        if (isfinite(level->bytes)) { printf(" (%.0f KiB)", level->bytes / 1024); }
        printf(" %.*f", level->bandwidth < 1e11 ? 1 : 0, level->bandwidth * 1e-9);
    }
    printf(" GB/s\n\n");
}

/* Times of a core that others used too are longer than they should be, and the limits are not. */
static void print_busy(const bptt_bench *benches, size_t count)
{
    const double enough = 0.9;
    double least = enough;
    for (size_t i = 0; i < count; i++) { least = fmin(least, benches[i].cores); }
    if (least < enough) { printf("this machine is busy: only %.0f %% of a core was left, so shares are too low\n", 100 * least); }
}

/* A dash where there is no value. */
static void print_cell(int width, int decimals, double value, const char *unit)
{
    char text[64] = "-";
    if (isfinite(value)) { (void)snprintf(text, sizeof text, "%.*f%s", decimals, value, unit); }
    printf("%*s", width, text);
}

static void print_spec_table(const bptt_limits *limits, const bptt_bench *b)
{
    const bptt_spec *s = &b->spec;
    printf("%s: H %lld, V %lld, T %lld, K %lld, B %lld", s->name, (long long)s->hidden, (long long)s->vocab, (long long)s->T,
           (long long)s->K, (long long)s->batch);
    if (s->threads > 1) { printf(", %lld threads (generic: one); shares are of as many cores", (long long)s->threads); }
    printf("\n");
    print_limits(limits, s->dtype);
    printf("%-8s %12s %12s %9s %10s %8s %8s %11s %11s\n", "backend", "us/chunk", "tokens/s", "GFLOP/s", "x generic", "of peak",
           "of roof", "compile ms", "code bytes");
    for (int t = 0; t < BPTT_TIMINGS; t++) {
        const bptt_timing *timing = &b->timings[t];
        const figures f = figures_of(limits, b, t);
        printf("%-8s", words[t]);
        if (!(timing->seconds > 0)) {
            printf(" not run: %s\n", timing->missing.text);
            continue;
        }
        printf(" %12.2f %12.0f %9.2f ", f.us, f.tokens, f.gflops);
        print_cell(10, 2, f.ratio, "");
        printf(" %7.1f%% %7.1f%% %11.2f %11zu\n", 100 * f.share, 100 * f.reached, timing->compile_ms, timing->code_bytes);
    }
    printf("\nroofline: %.2f us/chunk for the counted FLOP and bytes (bptt help bench)\n",
           1e6 * bptt_roofline_seconds(limits, &b->counts));
    print_busy(b, 1);
}

static void print_suite_head(const bptt_limits *limits, bptt_dtype dtype)
{
    print_limits(limits, dtype);
    printf("%-30s%33s%13s%12s%22s\n", "", "us/chunk", "x generic", "of peak", "roofline, reached");
    printf("%-10s%5s%6s%5s%4s %10s %10s %10s %6s %5s %5s %5s %10s %5s %4s\n", "row", "H", "V", "T", "B", words[0], words[1],
           words[2], words[1], words[2], words[1], words[2], "us", words[1], words[2]);
}

static void print_us(double us)
{
    print_cell(11, us < 1000 ? 2 : us < 100000 ? 1 : 0, us, "");
}

static void print_suite_row(const char *name, const bptt_limits *limits, const bptt_bench *b)
{
    const bptt_spec *s = &b->spec;
    figures f[BPTT_TIMINGS];
    printf("%-10s%5lld%6lld%5lld%4lld", name, (long long)s->hidden, (long long)s->vocab, (long long)s->T, (long long)s->batch);
    for (int t = 0; t < BPTT_TIMINGS; t++) {
        f[t] = figures_of(limits, b, t);
        print_us(f[t].us);
    }
    const figures *tcc = &f[BPTT_TIMED_TCC], *cc = &f[BPTT_TIMED_CC];
    print_cell(7, 1, tcc->ratio, "");
    print_cell(6, 1, cc->ratio, "");
    print_cell(6, 0, 100 * tcc->share, "%");
    print_cell(6, 0, 100 * cc->share, "%");
    print_us(tcc->roofline);
    print_cell(6, 0, 100 * tcc->reached, "%");
    print_cell(5, 0, 100 * cc->reached, "%");
    printf("\n");
    (void)fflush(stdout); /* the next row may take long; main.c looks at the stream at the end */
}

/* Why a column has dashes: the first row's reason. */
static void print_missing(const bptt_bench *benches, size_t count)
{
    for (int t = 0; t < BPTT_TIMINGS; t++) {
        size_t without = 0;
        while (without + 1 < count && benches[without].timings[t].seconds > 0) { without++; }
        const bptt_timing *timing = &benches[without].timings[t];
        if (!(timing->seconds > 0)) { printf("%s not run: %s\n", words[t], timing->missing.text); }
    }
}

/* --- the command ---------------------------------------------------------------------------------------------------------------------- */

static bptt_status measure(bptt_bench *b, const bptt_options *options, bptt_error *error)
{
    return bptt_bench_measure(b, options->seed, options->seconds, error);
}

static bptt_status bench_spec(const bptt_options *options, bptt_error *error)
{
    bptt_limits limits;
    bptt_bench b = {.cores = 0};
    bptt_status status = bptt_options_spec(options, &b.spec, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_limits_measure(b.spec.dtype == BPTT_F64 ? 8 : 4, &limits, error);
    if (status == BPTT_OK) { status = measure(&b, options, error); }
    if (status == BPTT_OK && options->json) {
        const char *const names[] = {b.spec.name};
        print_json(b.spec.name, names, &limits, &b, 1);
    } else if (status == BPTT_OK) {
        print_spec_table(&limits, &b);
    }
    bptt_spec_free(&b.spec);
    return status;
}

/* Measures the rows of the suite that are in `chosen`; `names` and `benches` get them without gaps, *count how many. */
static bptt_status measure_suite(const bptt_options *options, unsigned chosen, const char **names, bptt_bench *benches,
                                 size_t *count, bptt_limits *limits, bptt_error *error)
{
    bptt_status status = BPTT_OK;
    for (size_t row = 0; bptt_suite_words[row] != NULL && status == BPTT_OK; row++) {
        if ((chosen >> row & 1u) == 0) { continue; }
        bptt_bench *b = &benches[*count];
        status = bptt_suite_spec(row, options->overrides, options->override_count, &b->spec, error);
        if (status == BPTT_OK && options->tuned) { status = bptt_tuning_load(&b->spec, error); }
        if (status != BPTT_OK) { break; }
        names[(*count)++] = bptt_suite_words[row];
        if (*count == 1) {
            status = bptt_limits_measure(b->spec.dtype == BPTT_F64 ? 8 : 4, limits, error);
            if (status == BPTT_OK && !options->json) { print_suite_head(limits, b->spec.dtype); }
        }
        if (status == BPTT_OK) { status = measure(b, options, error); }
        if (status == BPTT_OK && !options->json) { print_suite_row(bptt_suite_words[row], limits, b); }
    }
    return status;
}

static bptt_status bench_suite(const bptt_options *options, bptt_error *error)
{
    unsigned chosen = 0;
    bptt_limits limits = {0};
    const char *names[MAX_ROWS];
    size_t count = 0;
    bptt_status status = bptt_suite_choose(options->rows, &chosen, error);
    if (status != BPTT_OK) { return status; }
    bptt_bench *benches = calloc(MAX_ROWS, sizeof *benches);
    if (benches == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a benchmark"); }
    status = measure_suite(options, chosen, names, benches, &count, &limits, error);
    if (status == BPTT_OK && options->json) { print_json("suite", names, &limits, benches, count); }
    if (status == BPTT_OK && !options->json) {
        print_missing(benches, count);
        print_busy(benches, count);
    }
    for (size_t i = 0; i < count; i++) { bptt_spec_free(&benches[i].spec); }
    free(benches);
    return status;
}

bptt_status bptt_command_bench(const bptt_options *options, bptt_error *error)
{
    const bool suite = options->suite || options->rows != NULL;
    if (suite && options->operand != NULL) {
        return bptt_fail(error, BPTT_USAGE, "%s takes no SPEC; leave out '%s'", options->suite ? "--suite" : "--rows",
                         options->operand);
    }
    return options->operand != NULL ? bench_spec(options, error) : bench_suite(options, error);
}
