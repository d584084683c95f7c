/* log.c: see log.h. */
#include "log.h"

#include "evaluate.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bptt_status fail(const bptt_log *log, bptt_error *error)
{
    return bptt_fail(error, BPTT_FAILED, "%s: cannot write the log: %s", log->path, strerror(errno));
}

static const char header[] = "step,epoch,tokens,seconds,loss,bits,grad_norm,clipped_norm,rate\n";

/* A file that is there must be a log, or empty. */
static bool is_ours(const char *path)
{
    char line[sizeof header] = "";
    FILE *file = fopen(path, "re");
    if (file == NULL) { return true; }
    bool ours = fgets(line, sizeof line, file) == NULL || strcmp(line, header) == 0;
    (void)fclose(file);
    return ours;
}

/* A run that was killed may have left half a line, which the next one would go on with: cut off. */
static bptt_status cut_half_line(bptt_log *log, bptt_error *error)
{
    long at = 0, end = 0;
    rewind(log->file);
    for (int c = fgetc(log->file); c != EOF; c = fgetc(log->file)) {
        at++;
        if (c == '\n') { end = at; }
    }
    const bool read = ferror(log->file) == 0;
    return read && ftruncate(fileno(log->file), end) == 0 ? BPTT_OK : fail(log, error);
}

bptt_status bptt_log_open(bptt_log *log, const char *path, bool append, uint64_t every, bptt_error *error)
{
    *log = (bptt_log){.path = path, .every = every, .measured = true};
    if (path == NULL) { return BPTT_OK; }
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && !is_ours(path)) {
        return bptt_fail(error, BPTT_FAILED, "%s: is there and is no log: not overwritten", path);
    }
    log->file = fopen(path, append ? "a+e" : "we");
    if (log->file == NULL) { return fail(log, error); }
    if (append && stat(path, &info) == 0 && S_ISREG(info.st_mode) && cut_half_line(log, error) != BPTT_OK) { return BPTT_FAILED; }
    /* Opened for appending, the position is that of the end only after a seek. */
    bool empty = fseek(log->file, 0, SEEK_END) != 0 || ftell(log->file) <= 0;
    if (empty && fputs(header, log->file) < 0) { return fail(log, error); }
    return BPTT_OK;
}

/* By value, the norm after clipping takes as long as the update: only a line that is written asks for it. */
static void measure(bptt_log *log)
{
    if (!log->measured) { log->clipped_norm = bptt_trainer_clipped(log->trainer, log->grad_norm); }
    log->measured = true;
}

/* The open line, when there is one. */
static bptt_status write_line(bptt_log *log, bptt_error *error)
{
    if (log->labels == 0) { return BPTT_OK; }
    measure(log);
    double loss = log->loss_sum / (double)log->labels;
    char bits[32] = "", clipped[32] = "";
    if (log->text) { (void)snprintf(bits, sizeof bits, "%.9g", bptt_bits(loss)); }
    if (!isnan(log->clipped_norm)) { (void)snprintf(clipped, sizeof clipped, "%.9g", log->clipped_norm); }
    int written = fprintf(log->file, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.6f,%.9g,%s,%.9g,%s,%.9g\n", log->step, log->epoch,
                          log->tokens, log->seconds, loss, bits, log->grad_norm, clipped, log->rate);
    log->labels = 0;
    log->loss_sum = 0.0;
    return written < 0 ? fail(log, error) : BPTT_OK;
}

bptt_status bptt_log_chunk(bptt_log *log, const bptt_trainer *trainer, const bptt_step *chunk, double seconds, bptt_error *error)
{
    if (log->file == NULL) { return BPTT_OK; }
    log->loss_sum += chunk->loss_sum;
    log->labels += chunk->labels;
    log->step = trainer->cursor.step;
    log->epoch = trainer->cursor.epoch;
    log->tokens = bptt_trainer_tokens(trainer);
    log->seconds = seconds;
    log->grad_norm = chunk->grad_norm;
    log->text = bptt_spec_labels(trainer->spec);
    log->rate = chunk->rate;
    log->trainer = trainer;
    if (chunk->updated) { log->measured = false; }
    if (trainer->program->model->accumulate > 0) { measure(log); } /* the next gradient may come before the line's end */
    if (!chunk->updated || log->step % log->every != 0) { return BPTT_OK; }
    if (write_line(log, error) != BPTT_OK) { return BPTT_FAILED; }
    if (seconds < log->flush_next) { return BPTT_OK; }
    log->flush_next = seconds + 1.0;
    return fflush(log->file) == 0 ? BPTT_OK : fail(log, error);
}

bptt_status bptt_log_close(bptt_log *log, bptt_error *error)
{
    if (log->file == NULL) { return BPTT_OK; }
    bptt_status status = write_line(log, error);
    FILE *file = log->file;
    log->file = NULL;
    if (fclose(file) != 0 && status == BPTT_OK) { status = fail(log, error); }
    return status;
}
