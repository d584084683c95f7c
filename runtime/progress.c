/* progress.c: one redrawn line, or plain lines.  See progress.h. */
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const double REDRAW = 0.1, PLAIN_EVERY = 5.0; /* seconds */

void bptt_progress_open(bptt_progress *progress, bool quiet, double now)
{
    *progress = (bptt_progress){.on = !quiet, .terminal = isatty(STDERR_FILENO) == 1};
    progress->next = now + (progress->terminal ? REDRAW : PLAIN_EVERY);
}

bool bptt_progress_due(const bptt_progress *progress, double now)
{
    return progress->on && now >= progress->next;
}

/* 75 -> "1m15s"; "" when the time is not known. */
static void format_left(double seconds, char *text, size_t size)
{
    if (!(seconds >= 0.0 && seconds < 8640000.0)) {
        text[0] = '\0';
        return;
    }
    unsigned whole = (unsigned)ceil(seconds);
    if (whole >= 3600) {
        (void)snprintf(text, size, "  %uh%02um left", whole / 3600, whole / 60 % 60);
    } else if (whole >= 60) {
        (void)snprintf(text, size, "  %um%02us left", whole / 60, whole % 60);
    } else {
        (void)snprintf(text, size, "  %us left", whole);
    }
}

/* Fits 80 columns as long as a run takes less than an hour and the rate is not shown. */
static void format_line(const bptt_progress_values *values, char *text, size_t size)
{
    char left[32], rate[32] = "";
    if (values->rate > 0.0) { (void)snprintf(rate, sizeof rate, "  rate %.3g", values->rate); }
    format_left(values->seconds_left, left, sizeof left);
    bool many = values->tokens_per_second >= 1e5;
    char bits[32] = "", loss[32] = "none"; /* of steps in which nothing counted */
    if (isfinite(values->loss)) { (void)snprintf(loss, sizeof loss, "%.4g", values->loss); }
    if (isfinite(values->bits)) { (void)snprintf(bits, sizeof bits, "  %.4g bits/char", values->bits); }
    (void)snprintf(text, size, "step %" PRIu64 "  %.0f%s tokens/s  loss %s%s  grad %.3g%s%s", values->step,
                   many ? values->tokens_per_second / 1e3 : values->tokens_per_second, many ? "k" : "", loss, bits,
                   values->grad_norm, left, rate);
}

static int window_width(void)
{
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0) { return 80; }
    return window.ws_col;
}

static void draw(bptt_progress *progress, const char *line)
{
    if (!progress->terminal) {
        (void)fprintf(stderr, "%s\n", line);
        return;
    }
    /* One column stays free: writing the last one makes some terminals wrap. */
    int room = window_width() - 1;
    int length = (int)strlen(line) < room ? (int)strlen(line) : room;
    int erase = progress->drawn < room ? progress->drawn : room;
    (void)fprintf(stderr, "\r%.*s%*s", length, line, erase > length ? erase - length : 0, "");
    (void)fflush(stderr);
    progress->drawn = length;
}

void bptt_progress_show(bptt_progress *progress, const bptt_progress_values *values, double now)
{
    char line[256];
    format_line(values, line, sizeof line);
    draw(progress, line);
    progress->shown = values->step;
    progress->next = now + (progress->terminal ? REDRAW : PLAIN_EVERY);
}

void bptt_progress_note(bptt_progress *progress, const char *text)
{
    (void)fprintf(stderr, "%sbptt: %s\n", progress->drawn > 0 ? "\n" : "", text);
    progress->drawn = 0;
}

void bptt_progress_close(bptt_progress *progress, const bptt_progress_values *values, double now)
{
    if (!progress->on) { return; }
    if (progress->terminal || values->step != progress->shown) { bptt_progress_show(progress, values, now); }
    if (progress->terminal) { (void)fputc('\n', stderr); }
    progress->on = false;
}
