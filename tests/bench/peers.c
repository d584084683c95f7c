/* peers.c: `make bench-peers`: the same network trained by every peer, in alternating rounds, as one table and a CSV.
 *
 *     peers [--rows "tiny small"] [--systems "tcc onednn"] [--seconds S] [--text FILE] [--out FOLDER]
 *
 * All peers of a row must reach the same loss after the same 20 steps before any is timed.  A step's time is the median of the
 * rounds; the peers of a row take turns in each round.  What counts is processor time, since all of them run on one thread and
 * other programs may want the core.  Each run writes FOLDER/peers.csv and machine.csv anew.  Run it from the folder of the Makefile,
 * where the Python peers are found.
 */
#include "peer_report.h"

#include "../../runtime/backend.h"
#include "../../runtime/bench.h"
#include "../../runtime/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 15, CHECK_STEPS = 20 };

/* Relative, of the loss after CHECK_STEPS steps. */
static const double TOLERANCE = 1e-5;
/* Seconds that the check of one peer may take. */
static const double PATIENCE = 30;

const peer_kind peer_kinds[] = {
    {"tcc", "bptt, compiled in the process by libtcc", &peer_bptt, NULL, BPTT_BACKEND_TCC, true},
    {"cc", "bptt, compiled by the system's compiler", &peer_bptt, NULL, BPTT_BACKEND_CC, true},
    {"generic", "bptt's plain loops, run-time sizes, -O3", &peer_bptt, NULL, BPTT_BACKEND_GENERIC, false},
    {"onednn", "oneDNN, its primitives vanilla_rnn, lbr_gru, lstm in the fastest of eight arrangements", &peer_onednn, NULL, 0,
     true},
    {"1dnngemm", "C loops over oneDNN's dnnl_sgemm, no RNN primitive", &peer_gemm, "onednn", 0, false},
    {"openblas", "the same C loops over cblas_sgemm and cblas_sgemv", &peer_gemm, "openblas", 0, false},
    {"torch", "PyTorch, nn.RNN, nn.GRU, nn.LSTM", &peer_process, "tests/bench/peer_torch.py", 0, true},
    {"numpy", "numpy, the usual loop over time", &peer_process, "tests/bench/peer_numpy.py", 0, false},
    {NULL, NULL, NULL, NULL, 0, false},
};
_Static_assert(sizeof peer_kinds / sizeof peer_kinds[0] == PEER_MOST + 1, "PEER_MOST counts the peers");

typedef struct settings {
    const char *rows, *systems, *text, *out;
    double seconds; /* for each peer of each row */
} settings;

/* ---- the check ---- */

/* Runs the steps of the check: their loss, and a first estimate of a step's seconds.  *loss is 0 when that would take too long. */
static bptt_status check_one(const peer_kind *kind, void *peer, double *loss, double *seconds, bptt_error *error)
{
    peer_result result = {0};
    *loss = 0;
    bptt_status status = kind->system->run(peer, 1, &result, error);
    if (status != BPTT_OK || result.seconds * CHECK_STEPS > PATIENCE) { return status; }
    status = kind->system->run(peer, CHECK_STEPS - 1, &result, error);
    *loss = result.loss;
    *seconds = result.seconds / (CHECK_STEPS - 1);
    return status;
}

static void drop(peer_match *m, int i)
{
    peer_kinds[i].system->close(m->peers[i]);
    m->peers[i] = NULL;
    m->seconds[i] = 0;
}

static bptt_status check_all(peer_match *m, peer_report *report, bptt_error *error)
{
    const char *name = m->task.name, *first_name = NULL;
    double first = 0;
    for (int i = 0; i < PEER_MOST; i++) {
        double loss = 0;
        if (m->peers[i] == NULL) { continue; }
        bptt_status status = check_one(&peer_kinds[i], m->peers[i], &loss, &m->seconds[i], error);
        if (status != BPTT_OK) { return status; }
        if (loss == 0) {
            peer_report_remark(report, "%-10s  %s left out, %d steps would take more than %.0f s", name, peer_kinds[i].name,
                               CHECK_STEPS, PATIENCE);
            drop(m, i);
            continue;
        }
        if (first_name == NULL) {
            first_name = peer_kinds[i].name;
            first = loss;
        }
        const double difference = fabs(loss - first) / first;
        if (!(difference <= TOLERANCE)) {
            return bptt_fail(error, BPTT_FAILED, "%s: loss %.9g on %s, but %.9g on %s after %d steps: not timed", name, first,
                             first_name, loss, peer_kinds[i].name, CHECK_STEPS);
        }
        m->spread = difference > m->spread ? difference : m->spread;
    }
    return BPTT_OK;
}

/* ---- the clock ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bptt_status time_all(peer_match *m, double seconds, bptt_error *error)
{
    double rounds[PEER_MOST][ROUNDS] = {{0}};
    for (int round = 0; round < ROUNDS; round++) {
        for (int turn = 0; turn < PEER_MOST; turn++) {
            const int i = (round + turn) % PEER_MOST; /* nobody always follows the same one */
            if (m->peers[i] == NULL) { continue; }
            const double wanted = seconds / ROUNDS / m->seconds[i];
            const long steps = wanted < 1 ? 1 : (long)wanted;
            peer_result result = {0};
            bptt_status status = peer_kinds[i].system->run(m->peers[i], steps, &result, error);
            if (status != BPTT_OK) { return status; }
            rounds[i][round] = result.seconds / (double)steps;
        }
    }
    for (int i = 0; i < PEER_MOST; i++) {
        qsort(rounds[i], ROUNDS, sizeof(double), by_value);
        m->seconds[i] = rounds[i][ROUNDS / 2];
    }
    return BPTT_OK;
}

/* ---- one row, all rows ---- */

/* Is `word` among the words of `list`?  An empty list holds every word. */
static bool listed(const char *list, const char *word)
{
    const size_t length = strlen(word);
    const char *at = list;
    if (list[strspn(list, " ,")] == '\0') { return true; }
    while (*(at += strspn(at, " ,")) != '\0') {
        const size_t size = strcspn(at, " ,");
        if (size == length && memcmp(at, word, size) == 0) { return true; }
        at += size;
    }
    return false;
}

static bptt_status open_all(peer_match *m, const peer_report *report, bptt_error *error)
{
    for (int i = 0; i < PEER_MOST; i++) {
        if (!report->shown[i] || (m->task.gates > 1 && !peer_kinds[i].gated)) { continue; }
        bptt_status status = peer_kinds[i].system->open(&peer_kinds[i], &m->task, &m->peers[i], error);
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

static bptt_status run_row(size_t row, const settings *s, peer_report *report, bptt_error *error)
{
    peer_match m = {.spread = 0};
    bptt_status status = peer_task_open(row, s->text, &m.task, error);
    if (status == BPTT_OK) { status = open_all(&m, report, error); }
    if (status == BPTT_OK) { status = check_all(&m, report, error); }
    if (status == BPTT_OK) { status = time_all(&m, s->seconds, error); }
    if (status == BPTT_OK) { peer_report_row(report, &m); }
    for (int i = 0; i < PEER_MOST; i++) {
        if (m.peers[i] != NULL) { drop(&m, i); }
    }
    peer_task_close(&m.task);
    return status;
}

static bptt_status run_all(const settings *s, bptt_error *error)
{
    static peer_report report;
    bptt_error ignored;
    for (int i = 0; i < PEER_MOST; i++) { report.shown[i] = listed(s->systems, peer_kinds[i].name); }
    bptt_status status = peer_report_begin(&report, s->out, error);
    for (size_t i = 0; bptt_suite_words[i] != NULL && status == BPTT_OK; i++) {
        if (listed(s->rows, bptt_suite_words[i])) { status = run_row(i, s, &report, error); }
    }
    bptt_status end = peer_report_end(&report, status == BPTT_OK ? error : &ignored);
    return status != BPTT_OK ? status : end;
}

/* ---- options ---- */

static bool known_row(const char *word, size_t length)
{
    for (const char *const *name = bptt_suite_words; *name != NULL; name++) {
        if (strlen(*name) == length && memcmp(*name, word, length) == 0) { return true; }
    }
    return false;
}

static bool known_system(const char *word, size_t length)
{
    for (const peer_kind *kind = peer_kinds; kind->name != NULL; kind++) {
        if (strlen(kind->name) == length && memcmp(kind->name, word, length) == 0) { return true; }
    }
    return false;
}

/* Says which word of the list is not known. */
static bool check_words(const char *list, const char *what, bool (*known)(const char *, size_t))
{
    while (*(list += strspn(list, " ,")) != '\0') {
        const size_t length = strcspn(list, " ,");
        if (!known(list, length)) {
            (void)fprintf(stderr, "peers: no %s '%.*s'\n", what, (int)length, list);
            return false;
        }
        list += length;
    }
    return true;
}

static bool read_options(int count, char **words, settings *s)
{
    const struct {
        const char *name, **value;
    } texts[] = {{"--rows", &s->rows}, {"--systems", &s->systems}, {"--text", &s->text}, {"--out", &s->out}};
    for (int i = 1; i < count; i += 2) {
        bool known = false;
        for (size_t t = 0; t < sizeof texts / sizeof texts[0] && i + 1 < count; t++) {
            if (strcmp(words[i], texts[t].name) != 0) { continue; }
            *texts[t].value = words[i + 1];
            known = true;
        }
        if (strcmp(words[i], "--seconds") == 0 && i + 1 < count) {
            s->seconds = strtod(words[i + 1], NULL);
            known = s->seconds > 0 && s->seconds < 1e6;
        }
        if (!known) {
            (void)fprintf(stderr, "usage: peers [--rows WORDS] [--systems WORDS] [--seconds S] [--text FILE] [--out FOLDER]\n");
            return false;
        }
    }
    return check_words(s->rows, "row", known_row) && check_words(s->systems, "system", known_system);
}

/* One thread for everybody, also for the children, and the kernels for this CPU: OpenBLAS 0.3.21, which PyTorch and numpy go by too, takes
 * a CPU newer than itself for one of 2004.  The libraries have read their environment already: begin again. */
static void set_environment(char **words)
{
    const char *threads = getenv("OMP_NUM_THREADS");
    if (threads != NULL && strcmp(threads, "1") == 0) { return; }
    (void)setenv("OMP_NUM_THREADS", "1", 1);
    (void)setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (bptt_kernels_simd() == 16) { (void)setenv("OPENBLAS_CORETYPE", "SkylakeX", 0); }
    (void)execv("/proc/self/exe", words);
    (void)fprintf(stderr, "peers: cannot limit the libraries to one thread; set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1\n");
    exit(BPTT_FAILED);
}

int main(int count, char **words)
{
    settings s = {.rows = "", .systems = "", .text = "/usr/share/common-licenses/GPL-3", .out = "build/bench", .seconds = 1};
    bptt_error error;
    if (!read_options(count, words, &s)) { return BPTT_USAGE; }
    set_environment(words);
    bptt_status status = run_all(&s, &error);
    if (status != BPTT_OK) { (void)fprintf(stderr, "peers: %s\n", error.text); }
    return (int)status;
}
