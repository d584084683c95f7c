/* peers.c: `make bench-peers`: the same network trained by every peer, in alternating rounds, as one table and a CSV.
 *
 *     peers [--rows "tiny small"] [--systems "tcc onednn"] [--seconds S] [--text FILE] [--out FOLDER]
 *
 * All peers of a row must reach the same loss after the same 20 steps before any is timed.  A step's time is the median of the
 * rounds; a row's peers take turns within a round, so that a busy machine slows all alike.
 */
#include "peer_task.h"

#include "../../runtime/backend.h"
#include "../../runtime/bench.h"
#include "../../runtime/machine.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 7, CHECK_STEPS = 20, MOST_PEERS = 8 };

/* Relative, of the loss after CHECK_STEPS steps. */
static const double TOLERANCE = 1e-4;
/* Seconds that the check of one peer may take. */
static const double PATIENCE = 30;

const peer_kind peer_kinds[] = {
    {"tcc", "bptt, compiled in the process", NULL, BPTT_BACKEND_TCC, peer_bptt_open, peer_bptt_run, peer_bptt_arrangement,
     peer_bptt_close},
    {"cc", "bptt, compiled by the system's compiler", NULL, BPTT_BACKEND_CC, peer_bptt_open, peer_bptt_run, peer_bptt_arrangement,
     peer_bptt_close},
    {"generic", "bptt's plain loops", NULL, BPTT_BACKEND_GENERIC, peer_bptt_open, peer_bptt_run, peer_bptt_arrangement,
     peer_bptt_close},
    {"onednn", "oneDNN, the fastest of its arrangements", NULL, 0, peer_onednn_open, peer_onednn_run, peer_onednn_arrangement,
     peer_onednn_close},
    {"1dnngemm", "C loops over oneDNN's dnnl_sgemm", "onednn", 0, peer_gemm_open, peer_gemm_run, peer_gemm_arrangement,
     peer_gemm_close},
    {"openblas", "C loops over OpenBLAS's cblas_sgemm", "openblas", 0, peer_gemm_open, peer_gemm_run, peer_gemm_arrangement,
     peer_gemm_close},
    {NULL},
};

typedef struct settings {
    const char *rows, *systems, *text, *out;
    double seconds; /* for each peer of each row */
} settings;

typedef struct contender {
    const peer_kind *kind;
    void *self;
    double loss;
    double rounds[ROUNDS];
    double seconds; /* of a step, median; 0: not timed */
} contender;

typedef struct match {
    peer_task task;
    contender contenders[MOST_PEERS]; /* in the order of peer_kinds */
    double spread;                    /* largest relative difference of a loss after CHECK_STEPS steps */
} match;

/* ---- the check ---- */

/* Runs the steps of the check; leaves `taken` false when that would try our patience. */
static bptt_status check_one(contender *c, bool *taken, bptt_error *error)
{
    peer_result result = {0};
    *taken = false;
    bptt_status status = c->kind->run(c->self, 1, &result, error);
    if (status != BPTT_OK || result.seconds * CHECK_STEPS > PATIENCE) { return status; }
    *taken = true;
    status = c->kind->run(c->self, CHECK_STEPS - 1, &result, error);
    c->loss = result.loss;
    c->seconds = result.seconds / (CHECK_STEPS - 1); /* a first estimate */
    return status;
}

static void drop(contender *c)
{
    c->kind->close(c->self);
    *c = (contender){.kind = c->kind};
}

static bptt_status check_all(match *m, bptt_error *error)
{
    const contender *first = NULL;
    for (contender *c = m->contenders; c < m->contenders + MOST_PEERS; c++) {
        bool taken = false;
        if (c->self == NULL) { continue; }
        bptt_status status = check_one(c, &taken, error);
        if (status != BPTT_OK) { return status; }
        if (!taken) {
            printf("%-8s %s left out: %d steps would take more than %.0f s\n", m->task.name, c->kind->name, CHECK_STEPS,
                   PATIENCE);
            drop(c);
            continue;
        }
        first = first == NULL ? c : first;
        const double difference = fabs(c->loss - first->loss) / first->loss;
        m->spread = difference > m->spread ? difference : m->spread;
        if (!(difference <= TOLERANCE)) {
            return bptt_fail(error, BPTT_FAILED, "%s: loss %.9g on %s, but %.9g on %s after %d steps: not timed", m->task.name,
                             first->loss, first->kind->name, c->loss, c->kind->name, CHECK_STEPS);
        }
    }
    return BPTT_OK;
}

/* ---- the clock ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bptt_status time_all(match *m, double seconds, bptt_error *error)
{
    for (int round = 0; round < ROUNDS; round++) {
        for (contender *c = m->contenders; c < m->contenders + MOST_PEERS; c++) {
            if (c->self == NULL) { continue; }
            const double steps = seconds / ROUNDS / c->seconds;
            const long whole = steps < 1 ? 1 : (long)steps;
            peer_result result = {0};
            bptt_status status = c->kind->run(c->self, whole, &result, error);
            if (status != BPTT_OK) { return status; }
            c->rounds[round] = result.seconds / (double)whole;
        }
    }
    for (contender *c = m->contenders; c < m->contenders + MOST_PEERS; c++) {
        qsort(c->rounds, ROUNDS, sizeof(double), by_value);
        c->seconds = c->rounds[ROUNDS / 2];
    }
    return BPTT_OK;
}

/* ---- the table ---- */

static double seconds_of(const match *m, const char *name)
{
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        if (strcmp(peer_kinds[i].name, name) == 0) { return m->contenders[i].seconds; }
    }
    return 0;
}

typedef struct ratio {
    const char *title, *over, *under;
} ratio;

static const ratio ratios[] = {
    {"1dnn:tcc", "onednn", "tcc"},
    {"1dnn:cc", "onednn", "cc"},
    {"torch:tcc", "torch", "tcc"},
    {"tcc/cc", "cc", "tcc"},
};
enum { RATIOS = sizeof ratios / sizeof ratios[0] };

static void print_head(void)
{
    printf("\n%-8s", "us/step");
    for (int i = 0; peer_kinds[i].name != NULL; i++) { printf(" %9s", peer_kinds[i].name); }
    printf(" |");
    for (int i = 0; i < RATIOS; i++) { printf(" %9s", ratios[i].title); }
    printf(" | %6s %6s | %8s\n", "tcc", "cc", "spread");
}

static void print_cell(double value, const char *format)
{
    char text[32] = "-";
    if (value > 0 && isfinite(value)) { (void)snprintf(text, sizeof text, format, value); }
    printf(" %9s", text);
}

static void print_row(const match *m, double peak)
{
    printf("%-8s", m->task.name);
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const double us = m->contenders[i].seconds * 1e6;
        print_cell(us, us < 100 ? "%.2f" : us < 1000 ? "%.1f" : "%.0f");
    }
    printf(" |");
    for (int i = 0; i < RATIOS; i++) {
        const double under = seconds_of(m, ratios[i].under);
        print_cell(under > 0 ? seconds_of(m, ratios[i].over) / under : 0, "%.2f");
    }
    const double tcc = seconds_of(m, "tcc"), cc = seconds_of(m, "cc");
    printf(" | %5.1f%% %5.1f%% | %8.1e", tcc > 0 ? 100 * m->task.flop / tcc / peak : 0,
           cc > 0 ? 100 * m->task.flop / cc / peak : 0, m->spread);
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const contender *c = &m->contenders[i];
        const char *arrangement = c->self == NULL ? NULL : c->kind->arrangement(c->self);
        if (arrangement != NULL) { printf("  %s: %s", c->kind->name, arrangement); }
    }
    printf("\n");
    (void)fflush(stdout);
}

static void write_rows(FILE *csv, const match *m, double peak)
{
    const peer_task *t = &m->task;
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const double s = m->contenders[i].seconds;
        if (!(s > 0)) { continue; }
        (void)fprintf(csv, "%s,%zu,%zu,%zu,%zu,%s,%.3f,%.3f,%.4f,%.0f,%.0f\n", t->name, t->hidden, t->vocab, t->steps, t->batch,
                      peer_kinds[i].name, s * 1e6, t->flop / s * 1e-9, t->flop / s / peak, t->flop, t->bytes);
    }
}

/* ---- one row, all rows ---- */

/* Is `word` among the blank- or comma-separated words of `list`?  An empty list holds every word. */
static bool listed(const char *list, const char *word)
{
    const size_t length = strlen(word);
    if (list == NULL || *list == '\0') { return true; }
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
        const bool begins = at == list || strchr(" ,", at[-1]) != NULL, ends = strchr(" ,", at[length]) != NULL;
        if (begins && ends) { return true; }
    }
    return false;
}

static bptt_status open_all(match *m, const settings *options, bptt_error *error)
{
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        contender *c = &m->contenders[i];
        c->kind = &peer_kinds[i];
        if (!listed(options->systems, c->kind->name)) { continue; }
        bptt_status status = c->kind->open(c->kind, &m->task, &c->self, error);
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

static bptt_status run_row(const peer_row *row, const settings *options, double peak, FILE *csv, bptt_error *error)
{
    match m = {.spread = 0};
    bptt_status status = peer_task_open(row, options->text, &m.task, error);
    if (status == BPTT_OK) { status = open_all(&m, options, error); }
    if (status == BPTT_OK) { status = check_all(&m, error); }
    if (status == BPTT_OK) { status = time_all(&m, options->seconds, error); }
    if (status == BPTT_OK) {
        print_row(&m, peak);
        write_rows(csv, &m, peak);
    }
    for (int i = 0; i < MOST_PEERS; i++) {
        if (m.contenders[i].self != NULL) { drop(&m.contenders[i]); }
    }
    peer_task_close(&m.task);
    return status;
}

static bptt_status run_all(const settings *options, bptt_error *error)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/peers.csv", options->out);
    FILE *csv = fopen(path, "w");
    if (csv == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: cannot be written", path); }
    (void)fprintf(csv, "name,H,V,T,B,system,us_per_step,gflops,share_of_peak,flop,bytes\n");
    const double peak = bptt_peak_flops(sizeof(float));
    bptt_status status = BPTT_OK;
    print_head();
    for (int i = 0; peer_rows[i].name != NULL && status == BPTT_OK; i++) {
        if (listed(options->rows, peer_rows[i].name)) { status = run_row(&peer_rows[i], options, peak, csv, error); }
    }
    const bool failed = ferror(csv) != 0;
    if ((fclose(csv) != 0 || failed) && status == BPTT_OK) {
        return bptt_fail(error, BPTT_FAILED, "%s: cannot be written", path);
    }
    return status;
}

static bool read_options(int count, char **words, settings *o)
{
    const struct {
        const char *name, **value;
    } texts[] = {{"--rows", &o->rows}, {"--systems", &o->systems}, {"--text", &o->text}, {"--out", &o->out}};
    for (int i = 1; i < count; i += 2) {
        bool known = false;
        if (i + 1 == count) { return false; }
        for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
            if (strcmp(words[i], texts[t].name) != 0) { continue; }
            *texts[t].value = words[i + 1];
            known = true;
        }
        if (strcmp(words[i], "--seconds") == 0) {
            o->seconds = strtod(words[i + 1], NULL);
            known = o->seconds > 0;
        }
        if (!known) { return false; }
    }
    return true;
}

int main(int count, char **words)
{
    settings options = {.text = "/usr/share/common-licenses/GPL-3", .out = "build/bench", .seconds = 1};
    bptt_error error;
    if (!read_options(count, words, &options)) {
        (void)fprintf(stderr, "usage: peers [--rows WORDS] [--systems WORDS] [--seconds S] [--text FILE] [--out FOLDER]\n");
        return BPTT_USAGE;
    }
    /* one core for everybody, also for the children; libgomp has read its environment already */
    omp_set_num_threads(1);
    (void)setenv("OMP_NUM_THREADS", "1", 1);
    (void)setenv("OPENBLAS_NUM_THREADS", "1", 1);
    bptt_status status = run_all(&options, &error);
    if (status != BPTT_OK) { (void)fprintf(stderr, "peers: %s\n", error.text); }
    return (int)status;
}
