/* diagnose_plot.c: a diagnosis as pictures, by gnuplot.  See diagnose.h; what is drawn is in diagnose.gp, which the program carries.
 *
 * gnuplot is run without a shell and without its user's settings, in a private folder of temporary files.  The script that it reads is
 * numbers, the spec's name (an identifier) and that folder's quoted path; the pictures are then written where they belong.
 */
#include "diagnose.h"

#include "backend_private.h"
#include "file.h"

#include "../gen/embedded.h"

#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const double limit_ms = 120e3, signal_ms = 50;
static const double decades = 10; /* most that an axis shows */
enum { PICTURE_MAX = 1 << 26 };

static char *find_gnuplot(bptt_error *error)
{
    char *path = bptt_find_program("gnuplot");
    if (path == NULL) {
        (void)bptt_fail(error, BPTT_FAILED,
                        "--plot needs gnuplot, which is not in PATH; Debian and Ubuntu: apt-get install gnuplot-nox");
    }
    return path;
}

bptt_status bptt_diagnosis_plot_check(const char *prefix, bptt_error *error)
{
    char *gnuplot = find_gnuplot(error), *copy = strdup(prefix);
    bptt_status status = gnuplot != NULL ? BPTT_OK : BPTT_FAILED;
    if (copy == NULL && status == BPTT_OK) { status = bptt_fail(error, BPTT_FAILED, "--plot %s: no memory", prefix); }
    if (status == BPTT_OK && access(dirname(copy), W_OK | X_OK) != 0) {
        status = bptt_fail(error, BPTT_FAILED, "--plot %s: cannot write to the folder: %s", prefix, strerror(errno));
    }
    free(copy);
    free(gnuplot);
    return status;
}

/* --- data and script --------------------------------------------------------------------------------------------------------- */

static FILE *open_in(const char *folder, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0) { return NULL; }
    FILE *file = fopen(path, "we");
    free(path);
    return file;
}

static bool close_file(FILE *file)
{
    const bool good = ferror(file) == 0;
    return fclose(file) == 0 && good;
}

/* "NaN" for what a plot leaves out; also for what is not above 0 where the axis is logarithmic. */
static void put_real(FILE *file, double value, bool logarithmic)
{
    if (isfinite(value) && (!logarithmic || value > 0)) {
        (void)fprintf(file, " %.9g", value);
    } else {
        (void)fputs(" NaN", file);
    }
}

static bool write_list(const char *folder, const char *name, const double *values, size_t count, size_t first)
{
    FILE *file = open_in(folder, name);
    if (file == NULL) { return false; }
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(file, "%zu", i + first);
        put_real(file, values[i], true);
        (void)fputc('\n', file);
    }
    return close_file(file);
}

/* What has vanished altogether is as dark as the scale goes.  One row is written twice: gnuplot takes no image of less. */
static bool write_heat(const char *folder, const bptt_diagnosis *d)
{
    FILE *file = open_in(folder, "heat.dat");
    if (file == NULL) { return false; }
    const size_t rows = d->rows == 1 ? 2 : d->rows;
    for (size_t i = 0; i < rows * d->steps; i++) {
        const double heat = d->heat[i % (d->rows * d->steps)];
        put_real(file, heat >= 0 ? fmax(heat, 1e-300) : (double)NAN, true);
        if ((i + 1) % d->steps == 0) { (void)fputc('\n', file); }
    }
    return close_file(file);
}

/* Rows of the heat map lie side by side, whatever steps they are of: labels tell. */
static void put_heat_labels(FILE *file, const bptt_diagnosis *d)
{
    enum { MOST_LABELS = 10 };
    size_t every = 1;
    for (int i = 0; d->rows / every > MOST_LABELS; i++) { every = i % 3 == 1 ? every / 2 * 5 : every * 2; } /* 1, 2, 5, 10, ... */
    (void)fputs("heat_labels = 'set ytics (", file);
    for (size_t r = every; r <= d->rows; r += every) {
        (void)fprintf(file, "%s\"%zu\" %zu", r > every ? ", " : "", d->loss_steps[r - 1] + 1, r);
    }
    (void)fputs(")'\n", file);
}

static bool write_jacobians(const char *folder, const bptt_diagnosis *d)
{
    FILE *file = open_in(folder, "jacobian.dat");
    if (file == NULL) { return false; }
    for (size_t j = 0; j < d->jacobian_count; j++) {
        (void)fprintf(file, "%zu", d->jacobians[j].steps);
        put_real(file, d->jacobians[j].norm, true);
        put_real(file, d->jacobians[j].least, true);
        put_real(file, d->jacobians[j].most, true);
        (void)fputc('\n', file);
    }
    return close_file(file);
}

static bool write_cuts(const char *folder, const bptt_diagnosis *d)
{
    FILE *file = open_in(folder, "cuts.dat");
    if (file == NULL) { return false; }
    for (size_t k = 0; k < d->truncation_count; k++) {
        (void)fprintf(file, "%zu", d->truncations[k].K);
        put_real(file, d->truncations[k].cosine, false);
        put_real(file, d->truncations[k].ratio, false);
        put_real(file, d->truncations[k].worst_cosine, false);
        (void)fputc('\n', file);
    }
    return close_file(file);
}

/* NAME_least and NAME_most: a range of a logarithmic axis that holds the values, in whole decades: two at least, few at most. */
static void put_range(FILE *file, const char *name, const double *values, size_t count)
{
    double least = HUGE_VAL, most = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i]) || !(values[i] > 0)) { continue; }
        least = fmin(least, values[i]);
        most = fmax(most, values[i]);
    }
    if (!(most > 0)) { least = most = 1; }
    const double top = fmin(ceil(log10(most)), 300), bottom = fmax(floor(log10(least)), -300);
    const double lowest = fmin(fmax(bottom, top - decades), top - 2);
    (void)fprintf(file, "%s_least = 1e%.0f\n%s_most = 1e%.0f\n", name, lowest, name, top);
}

static void put_jacobian_range(FILE *file, const bptt_diagnosis *d)
{
    double values[2 * BPTT_DIAGNOSE_LENGTHS + 1] = {1}; /* a line is drawn there */
    for (size_t j = 0; j < d->jacobian_count; j++) {
        values[2 * j + 1] = d->jacobians[j].least;
        values[2 * j + 2] = d->jacobians[j].most;
    }
    put_range(file, "jacobian", values, 2 * d->jacobian_count + 1);
}

/* Cosines and ratios, on a plain axis. */
static void put_ratio_range(FILE *file, const bptt_diagnosis *d)
{
    double least = 0, most = 1;
    for (size_t k = 0; k < d->truncation_count; k++) {
        const bptt_truncation *t = &d->truncations[k];
        if (isfinite(t->worst_cosine)) { least = fmin(least, t->worst_cosine); }
        if (isfinite(t->ratio)) { most = fmin(fmax(most, t->ratio), 10); }
    }
    (void)fprintf(file, "ratio_least = %.9g\nratio_most = %.9g\n", 1.05 * least, 1.3 * most);
}

static bool write_script(const char *folder, const bptt_diagnosis *d, const bptt_diagnosis_source *source)
{
    FILE *file = open_in(folder, "script.gp");
    if (file == NULL) { return false; }
    (void)fputs("folder = '", file); /* in single quotes nothing is special but ', which is doubled */
    for (const char *c = folder; *c != '\0'; c++) { (void)fputs(*c == '\'' ? "''" : (char[2]){*c, '\0'}, file); }
    (void)fprintf(file, "'\nname = '%s'\nweights = '%s'\nH = %lld\nT = %zu\nK = %zu\nN = %zu\nrows = %zu\nmemory = %zu\n",
                  source->spec->name, source->weights != NULL ? "given weights" : "initial weights",
                  (long long)source->spec->hidden, d->steps, d->horizon, d->sequences, d->rows, d->memory);
    (void)fprintf(file, "peak = %.9g\ngrows = %d\n", isfinite(d->peak) ? d->peak : 0, d->rate > 1);
    put_range(file, "norm", d->state_norms, d->steps);
    put_range(file, "lag", d->lags, d->steps);
    put_range(file, "heat", d->heat, d->rows * d->steps);
    put_heat_labels(file, d);
    put_jacobian_range(file, d);
    put_ratio_range(file, d);
    (void)fputs(bptt_embedded("runtime/diagnose.gp"), file);
    return close_file(file);
}

static bptt_status write_all(const char *folder, const bptt_diagnosis *d, const bptt_diagnosis_source *source, bptt_error *error)
{
    errno = 0;
    const bool good = write_list(folder, "states.dat", d->state_norms, d->steps, 1) &&
                      write_list(folder, "lags.dat", d->lags, d->steps, 0) && write_heat(folder, d) &&
                      write_jacobians(folder, d) && write_cuts(folder, d) && write_script(folder, d, source);
    return good ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "%s: cannot write there: %s", folder, strerror(errno));
}

/* --- gnuplot ------------------------------------------------------------------------------------------------------------------- */

static bptt_status run_gnuplot(char *gnuplot, const char *folder, bptt_error *error)
{
    char *script = NULL;
    if (asprintf(&script, "%s/script.gp", folder) < 0) { return bptt_fail(error, BPTT_FAILED, "no memory to run %s", gnuplot); }
    char *argv[] = {gnuplot, "-d", script, NULL};
    bptt_process process;
    bptt_status status = bptt_process_start(&process, argv, folder, limit_ms, false, error);
    if (status == BPTT_OK) {
        while (!bptt_process_wait(&process, signal_ms) && !bptt_signals_came()) {}
        const bool ended = process.pid == 0 && !process.late;
        bptt_process_stop(&process);
        if (!ended) {
            status = bptt_fail(error, BPTT_FAILED, "%s: did not finish", gnuplot);
        } else if (process.status != -1 && (!WIFEXITED(process.status) || WEXITSTATUS(process.status) != 0)) {
            status = bptt_fail(error, BPTT_FAILED, "%s failed: %.400s", gnuplot, process.text);
        }
    }
    free(script);
    return status;
}

/* A picture from the folder to PREFIX-NAME. */
static bptt_status deliver(const char *folder, const char *name, const char *prefix, bptt_error *error)
{
    char *from = NULL, *to = NULL;
    unsigned char *bytes = NULL;
    size_t length = 0;
    bptt_status status = BPTT_OK;
    if (asprintf(&from, "%s/%s", folder, name) < 0) { from = NULL; }
    if (asprintf(&to, "%s-%s", prefix, name) < 0) { to = NULL; }
    if (from == NULL || to == NULL) { status = bptt_fail(error, BPTT_FAILED, "no memory for the path of %s", name); }
    if (status == BPTT_OK) { status = bptt_file_read(from, PICTURE_MAX, &bytes, &length, error); }
    if (status == BPTT_OK) { status = bptt_file_write(to, bytes, length, error); }
    free(bytes);
    free(from);
    free(to);
    return status;
}

static bptt_status plot_in(const char *folder, char *gnuplot, const bptt_diagnosis *d, const bptt_diagnosis_source *source,
                           const char *prefix, bptt_error *error)
{
    static const char *const names[] = {"heat.svg", "heat.png", "curves.svg", "curves.png"};
    bptt_status status = write_all(folder, d, source, error);
    if (status == BPTT_OK) { status = run_gnuplot(gnuplot, folder, error); }
    for (size_t i = 0; i < sizeof names / sizeof *names && status == BPTT_OK; i++) {
        status = deliver(folder, names[i], prefix, error);
    }
    return status;
}

bptt_status bptt_diagnosis_plot(const bptt_diagnosis *d, const bptt_diagnosis_source *source, const char *prefix,
                                bptt_error *error)
{
    char *gnuplot = find_gnuplot(error);
    if (gnuplot == NULL) { return BPTT_FAILED; }
    bptt_signals signals;
    bptt_signals_hold(&signals);
    char *folder = bptt_cache_workplace(NULL);
    bptt_status status = BPTT_OK;
    if (folder == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "cannot make a folder of temporary files for gnuplot: %s", strerror(errno));
    } else {
        status = plot_in(folder, gnuplot, d, source, prefix, error);
        bptt_cache_discard(folder);
    }
    bptt_signals_release(&signals);
    free(folder);
    free(gnuplot);
    return status;
}
