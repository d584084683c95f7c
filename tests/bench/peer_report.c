/* peer_report.c: table, CSV, and the machine's own figures.  See peer_report.h. */
#include "peer_report.h"

#include "../../runtime/bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- the machine ---- */

static bptt_status write_machine(const char *folder, const bptt_limits *limits, bptt_error *error)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/machine.csv", folder);
    FILE *file = fopen(path, "w");
    if (file == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: cannot be written", path); }
    (void)fprintf(file, "what,giga_per_second\npeak,%.2f\n", limits->peak * 1e-9);
    for (int l = 0; l < BPTT_LEVELS; l++) {
        (void)fprintf(file, "%s,%.1f\n", limits->levels[l].name, limits->levels[l].bandwidth * 1e-9);
    }
    return fclose(file) == 0 ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "%s: cannot be written", path);
}

/* ---- the table ---- */

typedef struct ratio {
    const char *over, *under;
} ratio;

static const ratio ratios[] = {{"onednn", "tcc"}, {"onednn", "cc"}, {"openblas", "cc"},
                               {"torch", "tcc"},  {"torch", "cc"},  {"generic", "cc"}};
static const char *const ours[] = {"tcc", "cc"};
enum { RATIOS = sizeof ratios / sizeof ratios[0], OURS = sizeof ours / sizeof ours[0] };

static int number_of(const char *name)
{
    int i = 0;
    while (strcmp(peer_kinds[i].name, name) != 0) { i++; }
    return i;
}

static bool has(const peer_report *report, const char *name)
{
    return report->shown[number_of(name)];
}

static bool has_ratio(const peer_report *report, const ratio *r)
{
    return has(report, r->over) && has(report, r->under);
}

static void print_cell(int width, const char *format, double value)
{
    char text[32] = "-";
    if (value > 0 && isfinite(value)) { (void)snprintf(text, sizeof text, format, value); }
    printf(" %*s |", width, text);
}

static void print_head(const peer_report *report)
{
    char title[32];
    int columns = 2;
    printf("| %-10s | %-19s |", "row", "H, V, T, B");
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        if (!report->shown[i]) { continue; }
        printf(" %8s |", peer_kinds[i].name);
        columns++;
    }
    for (int i = 0; i < RATIOS; i++) {
        if (!has_ratio(report, &ratios[i])) { continue; }
        (void)snprintf(title, sizeof title, "%s : %s", ratios[i].over, ratios[i].under);
        printf(" %14s |", title);
        columns++;
    }
    for (int i = 0; i < OURS; i++) {
        if (!has(report, ours[i])) { continue; }
        (void)snprintf(title, sizeof title, "%s/peak", ours[i]);
        printf(" %8s |", title);
        columns++;
    }
    printf("\n|");
    for (int i = 0; i < columns; i++) { printf("---|"); }
    printf("\n");
}

static void print_row(const peer_report *report, const peer_match *m)
{
    char sizes[64];
    (void)snprintf(sizes, sizeof sizes, "%zu, %zu, %zu, %zu", m->task.hidden, m->task.vocab, m->task.steps, m->task.batch);
    printf("| %-10s | %-19s |", m->task.name, sizes);
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const double us = m->seconds[i] * 1e6;
        if (report->shown[i]) { print_cell(8, us < 10 ? "%.2f" : us < 100 ? "%.1f" : "%.0f", us); }
    }
    for (int i = 0; i < RATIOS; i++) {
        const double under = m->seconds[number_of(ratios[i].under)], over = m->seconds[number_of(ratios[i].over)];
        if (has_ratio(report, &ratios[i])) { print_cell(14, over < 100 * under ? "%.2f" : "%.0f", under > 0 ? over / under : 0); }
    }
    for (int i = 0; i < OURS; i++) {
        const double seconds = m->seconds[number_of(ours[i])];
        if (has(report, ours[i])) { print_cell(8, "%.0f %%", seconds > 0 ? 100 * m->task.flop / seconds / report->peak : 0); }
    }
    printf("\n");
    (void)fflush(stdout);
}

static void write_rows(const peer_report *report, const peer_match *m)
{
    const peer_task *t = &m->task;
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const double s = m->seconds[i];
        if (!(s > 0)) { continue; }
        (void)fprintf(report->csv, "%s,%zu,%zu,%zu,%zu,%s,%.3f,%.3f,%.4f,%.0f,%.0f,%s\n", t->name, t->hidden, t->vocab, t->steps,
                      t->batch, peer_kinds[i].name, s * 1e6, t->flop / s * 1e-9, t->flop / s / report->peak, t->flop, t->bytes,
                      bptt_spec_word("cell", (int)t->spec.cell));
    }
    (void)fflush(report->csv); /* what is measured stays, whatever a later row does */
}

static void remark_on(peer_report *report, const peer_match *m)
{
    char way[96] = "";
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        const peer_system *system = peer_kinds[i].system;
        if (m->peers[i] == NULL || system->arrangement == NULL) { continue; }
        (void)snprintf(way, sizeof way, "; %s: %s", peer_kinds[i].name, system->arrangement(m->peers[i]));
    }
    peer_report_remark(report, "%-10s  losses within %.0e%s", m->task.name, m->spread, way);
}

/* ---- all of it ---- */

bptt_status peer_report_begin(peer_report *report, const char *folder, bptt_error *error)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/peers.csv", folder);
    bptt_limits limits = {0};
    bptt_status status = bptt_limits_measure(sizeof(float), &limits, error);
    report->peak = limits.peak;
    if (status == BPTT_OK) { status = write_machine(folder, &limits, error); }
    if (status != BPTT_OK) { return status; }
    report->csv = fopen(path, "w");
    if (report->csv == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: cannot be written", path); }
    (void)fprintf(report->csv, "name,H,V,T,B,system,us_per_step,gflops,share_of_peak,flop,bytes,cell\n");
    printf("microseconds of processor time per step (forward, backward, clip, update), f32, one core of %.1f GFLOP/s\n\n",
           report->peak * 1e-9);
    print_head(report);
    return BPTT_OK;
}

void peer_report_row(peer_report *report, const peer_match *match)
{
    print_row(report, match);
    write_rows(report, match);
    remark_on(report, match);
}

void peer_report_remark(peer_report *report, const char *format, ...)
{
    const size_t used = strlen(report->remarks), size = sizeof report->remarks - 1;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(report->remarks + used, size - used, format, arguments);
    va_end(arguments);
    strcat(report->remarks, "\n");
}

bptt_status peer_report_end(peer_report *report, bptt_error *error)
{
    printf("\n");
    for (int i = 0; peer_kinds[i].name != NULL; i++) {
        if (report->shown[i]) { printf("%-8s  %s\n", peer_kinds[i].name, peer_kinds[i].what); }
    }
    printf("\n%s", report->remarks);
    if (report->csv == NULL) { return BPTT_OK; }
    const bool failed = ferror(report->csv) != 0;
    return fclose(report->csv) == 0 && !failed ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "peers.csv: cannot be written");
}
