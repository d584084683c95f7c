/* train.c: `bptt train`: limits, progress, checkpoints, signals and the report around the steps of trainer.h.
 *
 * Depends on trainer.h, evaluate.h, log.h and progress.h.  Touches no file before everything that was given has been read and
 * found good.
 */
#include "evaluate.h"
#include "json.h"
#include "log.h"
#include "machine.h"
#include "options.h"
#include "progress.h"
#include "safetensors.h"
#include "trainer.h"
#include "tuning.h"
#include "watch.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECENT = 1000 }; /* steps that the training loss is the mean of */

typedef struct run {
    const bptt_options *options;
    bptt_spec spec;
    bptt_program program;
    bptt_trainer trainer;
    bptt_data all, held_out_file; /* owned: --data, --valid */
    bptt_data data, held_out;     /* borrowed from these; held_out.count == 0: none */
    const char *held_out_name;
    char *out;  /* checkpoint to write; owned */
    bool saved; /* `out` holds a checkpoint of this training */
    bptt_log log;
    bptt_progress progress;
    bptt_watch watch;
    bptt_step recent[RECENT]; /* ring: step n of this run is at (n - 1) % RECENT */
    bptt_step begun;          /* the step under way: its chunks so far */
    uint64_t steps, chunks;   /* of this run */
    uint64_t first_tokens;    /* learned from in earlier runs */
    double started, seconds;
    bool stopped;  /* by a signal */
    bool diverged; /* a number was not finite */
} run;

/* ---- signals ---- */

static volatile sig_atomic_t signalled;

static void note_signal(int number)
{
    (void)number;
    signalled = 1;
}

static bool ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

/* SA_RESETHAND: a second signal ends the process at once.  What the caller had ignored stays so, as nohup and a shell's & want it.
 * A reader of the progress who goes away ends no training; SIGPIPE is the caller's again behind it. */
static void watch_signals(bool on)
{
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    static void (*pipe_before)(int) = SIG_DFL;
    struct sigaction action = {.sa_handler = on ? note_signal : SIG_DFL, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        if (!ignored(stops[i])) { (void)sigaction(stops[i], &action, NULL); }
    }
    if (on) { pipe_before = signal(SIGPIPE, SIG_IGN); }
    if (!on) { (void)signal(SIGPIPE, pipe_before); }
}

/* ---- what is given ---- */

/* The spec of the operand, or else of the checkpoint, with the overrides. */
static bptt_status read_spec(const bptt_options *options, bptt_spec *spec, bptt_error *error)
{
    if (options->operand != NULL) { return bptt_options_spec(options, spec, error); }
    if (options->resume == NULL) { return bptt_fail(error, BPTT_USAGE, "SPEC is missing (or --resume CKPT)"); }
    bptt_spec stored;
    bptt_status status = bptt_checkpoint_spec(options->resume, &stored, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_spec_parse(stored.text, strlen(stored.text), options->resume, options->overrides, options->override_count, spec,
                             error);
    bptt_spec_free(&stored);
    return status == BPTT_OK && options->tuned ? bptt_tuning_load(spec, error) : status;
}

/* Cuts the last part of the data off. */
static bptt_status hold_out(run *r, bptt_error *error)
{
    r->held_out_name = "the held-out part";
    return bptt_data_split(&r->all, r->options->valid_fraction, r->options->data, &r->data, &r->held_out, error);
}

static bptt_status read_data(run *r, bptt_error *error)
{
    const bptt_options *options = r->options;
    bptt_data_options rules = bptt_options_data(options);
    bptt_status status = bptt_data_load(options->data, &r->spec, &rules, &r->all, error);
    if (status != BPTT_OK) { return status; }
    r->data = r->all;
    if (options->valid_fraction > 0.0) { return hold_out(r, error); }
    if (options->valid == NULL) { return BPTT_OK; }
    status = bptt_data_load(options->valid, &r->spec, &rules, &r->held_out_file, error);
    if (status != BPTT_OK) { return status; }
    r->held_out = r->held_out_file;
    r->held_out_name = options->valid;
    return BPTT_OK;
}

/* Finds out now, not after hours of training, that the checkpoint cannot be written. */
static bptt_status check_out(const char *path, bptt_error *error)
{
    struct stat info;
    const bool there = stat(path, &info) == 0;
    if (there && !S_ISREG(info.st_mode)) {
        return bptt_fail(error, BPTT_FAILED, "%s: cannot write a checkpoint there: not a file", path);
    }
    if (there && access(path, W_OK) != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: cannot write a checkpoint there: %s", path, strerror(errno));
    }
    if (there && info.st_size > 0 && !bptt_checkpoint_like(path)) {
        return bptt_fail(error, BPTT_FAILED, "%s: is there and is no checkpoint: not overwritten", path);
    }
    char *copy = there ? realpath(path, NULL) : strdup(path); /* a link's target is what will be written */
    if (copy == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    bool good = access(dirname(copy), W_OK | X_OK) == 0;
    free(copy);
    return good ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "%s: cannot write a checkpoint there: %s", path, strerror(errno));
}

static bptt_status choose_out(run *r, bptt_error *error)
{
    const bptt_options *options = r->options;
    const char *given = options->out != NULL ? options->out : options->resume;
    r->out = given != NULL ? strdup(given) : NULL;
    if (given == NULL && asprintf(&r->out, "%s.safetensors", r->spec.name) < 0) { r->out = NULL; }
    if (r->out == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for the checkpoint's path"); }
    r->saved = options->resume != NULL && strcmp(r->out, options->resume) == 0;
    bptt_status status = bptt_options_files(options, r->out, error);
    return status == BPTT_OK ? check_out(r->out, error) : status;
}

/* Finds out now that the held-out data cannot be evaluated, which is done in one stream. */
static bptt_status check_held_out(const run *r, bptt_error *error)
{
    if (r->held_out.count == 0) { return BPTT_OK; }
    bptt_spec spec = r->spec;
    spec.batch = 1;
    bptt_feed feed;
    bptt_status status = bptt_feed_open(&feed, &spec, &r->held_out, r->held_out_name, error);
    if (status == BPTT_OK) { bptt_feed_close(&feed); }
    return status;
}

static bptt_status check_schedule(const run *r, bptt_error *error)
{
    const bool watches = r->spec.schedule.kind == BPTT_SCHEDULE_PLATEAU;
    if (watches && r->held_out.count == 0) {
        return bptt_fail(error, BPTT_USAGE,
                         "schedule \"plateau\" watches the loss on held-out data: give --valid or --valid-fraction");
    }
    if (!watches && r->options->valid_every > 0) {
        return bptt_fail(error, BPTT_USAGE, "--valid-every is for the schedule \"plateau\"; this one is \"%s\"",
                         bptt_spec_word("schedule", (int)r->spec.schedule.kind));
    }
    return BPTT_OK;
}

static bptt_status prepare(run *r, bptt_error *error)
{
    const bptt_options *options = r->options;
    bptt_status status = read_spec(options, &r->spec, error);
    if (status == BPTT_OK) { status = choose_out(r, error); }
    if (status == BPTT_OK) { status = read_data(r, error); }
    if (status == BPTT_OK) { status = check_held_out(r, error); }
    if (status == BPTT_OK) { status = check_schedule(r, error); }
    if (status == BPTT_OK) { status = bptt_program_open(&r->spec, (bptt_backend)options->backend, &r->program, error); }
    if (status == BPTT_OK) { status = bptt_trainer_open(&r->trainer, &r->spec, &r->program, &r->data, options->data, error); }
    if (status == BPTT_OK && options->resume != NULL) { status = bptt_trainer_resume(&r->trainer, options->resume, error); }
    if (status == BPTT_OK) { status = bptt_log_open(&r->log, options->log, options->resume != NULL, options->log_every, error); }
    return status;
}

static void release(run *r)
{
    bptt_error ignored;
    (void)bptt_log_close(&r->log, &ignored); /* open here only after a failure that has been reported */
    bptt_trainer_close(&r->trainer);
    if (r->program.model != NULL) { bptt_program_close(&r->program); }
    bptt_data_free(&r->all);
    bptt_data_free(&r->held_out_file);
    bptt_spec_free(&r->spec);
    free(r->out);
}

/* ---- figures ---- */

static uint64_t run_tokens(const run *r)
{
    return bptt_trainer_tokens(&r->trainer) - r->first_tokens;
}

/* Steps that recent_loss is the mean of. */
static uint64_t recent_steps(const run *r)
{
    return r->steps < RECENT ? r->steps : RECENT;
}

/* Nats per token over the last steps; of the step under way before the first; NaN before its first chunk. */
static double recent_loss(const run *r)
{
    double sum = r->steps == 0 ? r->begun.loss_sum : 0.0, labels = r->steps == 0 ? (double)r->begun.labels : 0.0;
    for (uint64_t i = 0; i < recent_steps(r); i++) {
        sum += r->recent[i].loss_sum;
        labels += (double)r->recent[i].labels;
    }
    return sum / labels;
}

static double tokens_per_second(const run *r)
{
    return r->seconds > 0.0 ? (double)run_tokens(r) / r->seconds : 0.0;
}

static uint64_t epoch_limit(const bptt_options *options)
{
    return options->epochs > 0 ? options->epochs : 1;
}

static double seconds_left(const run *r)
{
    const bptt_options *options = r->options;
    if (options->seconds > 0.0) { return options->seconds - r->seconds; }
    if (options->steps > 0 && r->steps == 0) { return (double)NAN; }
    if (options->steps > 0) { return (double)(options->steps - r->trainer.cursor.step) / (double)r->steps * r->seconds; }
    double all = (double)epoch_limit(options) * (double)r->trainer.feed.stream.predictions;
    return (all - (double)bptt_trainer_tokens(&r->trainer)) / tokens_per_second(r);
}

static bptt_progress_values values(const run *r)
{
    double loss = recent_loss(r);
    const bptt_step *last = &r->recent[(r->steps + RECENT - 1) % RECENT];
    const bptt_schedule *schedule = &r->spec.schedule;
    const bool changes = schedule->kind != BPTT_SCHEDULE_CONSTANT || schedule->warmup > 0;
    return (bptt_progress_values){.step = r->trainer.cursor.step,
                                  .tokens_per_second = tokens_per_second(r),
                                  .loss = loss,
                                  .bits = bptt_spec_labels(&r->spec) ? bptt_bits(loss) : (double)NAN,
                                  .grad_norm = last->grad_norm,
                                  .rate = changes ? last->rate : 0.0,
                                  .seconds_left = seconds_left(r)};
}

/* ---- the loop ---- */

static bool reached_limit(const run *r)
{
    const bptt_options *options = r->options;
    if (options->steps > 0) { return r->trainer.cursor.step >= options->steps; }
    if (options->seconds > 0.0) { return r->seconds >= options->seconds; }
    return r->trainer.cursor.epoch >= epoch_limit(options);
}

static bptt_status save(run *r, bptt_error *error)
{
    if (bptt_trainer_check(&r->trainer, error) != BPTT_OK) {
        r->diverged = true;
        return BPTT_FAILED;
    }
    bptt_status status = bptt_trainer_save(&r->trainer, r->out, error);
    if (status == BPTT_OK) { r->saved = true; }
    return status;
}

static bptt_status evaluate(run *r, bptt_evaluation *evaluation, bptt_error *error)
{
    bool generic = r->options->backend == BPTT_BACKEND_GENERIC;
    bptt_companion companion;
    bptt_status status = bptt_companion_open(&companion, &r->spec, generic ? BPTT_BACKEND_GENERIC : BPTT_BACKEND_TCC, error);
    if (status != BPTT_OK) { return status; }
    bptt_companion_copy(&companion, r->program.model, r->trainer.memory);
    status = bptt_evaluate(&companion, &r->held_out, r->held_out_name, evaluation, error);
    bptt_companion_close(&companion);
    return status;
}

/* Shows a plateau schedule the loss on the held-out data, where it is due: by the number of the step or epoch alone, so that a
 * training that is resumed does the same. */
static bptt_status observe(run *r, bool updated, uint64_t epoch_before, bptt_error *error)
{
    const bptt_model *model = r->program.model;
    const bptt_cursor *cursor = &r->trainer.cursor;
    const uint64_t every = r->options->valid_every;
    if (model->observe == NULL || !(every > 0 ? updated && cursor->step % every == 0 : cursor->epoch > epoch_before)) {
        return BPTT_OK;
    }
    bptt_evaluation held_out = {0};
    bptt_status status = evaluate(r, &held_out, error);
    if (status == BPTT_OK) { model->observe(model, r->trainer.memory, held_out.loss); }
    return status;
}

/* A word as a shell reads it back. */
static void print_quoted(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        (void)fputs(word, out);
        return;
    }
    (void)fputc('\'', out);
    for (const char *c = word; *c != '\0'; c++) { (void)fputs(*c == '\'' ? "'\\''" : (char[2]){*c, '\0'}, out); }
    (void)fputc('\'', out);
}

/* The gradient vanishes or explodes: says so, and how to see where. */
static void warn(run *r, const char *what)
{
    const bptt_options *options = r->options;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) { return; } /* no memory for a hint */
    (void)fprintf(out, "step %" PRIu64 ": the gradient %s: mean norm %.3g in the last %d steps, %.3g in the first; see where",
                  r->trainer.cursor.step, what, r->watch.now, BPTT_WATCH_WINDOW, r->watch.norm);
    (void)fprintf(out, r->saved ? ": " : " (once the checkpoint is saved): ");
    print_quoted(out, options->argv[0]);
    (void)fputs(" diagnose ", out);
    print_quoted(out, r->out);
    (void)fputs(" --data ", out);
    print_quoted(out, options->data);
    if (options->tokens > 0) { (void)fprintf(out, " --tokens u%d", 8 << options->tokens); }
    if (options->reals != BPTT_REALS_AUTO) { (void)fprintf(out, " --reals %s", bptt_reals_words[options->reals]); }
    if (options->unknown == BPTT_UNKNOWN_SKIP) { (void)fputs(" --unknown skip", out); }
    if (options->unknown == BPTT_UNKNOWN_MAP) {
        (void)fputs(" --unknown ", out);
        print_quoted(out, (char[6]){'m', 'a', 'p', '=', (char)options->map, '\0'});
    }
    if (fclose(out) == 0) { bptt_progress_note(&r->progress, text); }
    free(text);
}

/* Adds a chunk to the step under way, which an update ends. */
static void count(run *r, const bptt_step *chunk)
{
    bptt_step step = *chunk;
    step.labels += r->begun.labels;
    step.loss_sum += r->begun.loss_sum;
    r->chunks++;
    r->begun = step;
    if (!step.updated) { return; }
    r->begun = (bptt_step){0};
    r->recent[r->steps++ % RECENT] = step;
    const char *what = bptt_watch_step(&r->watch, &step, r->spec.reduction == BPTT_MEAN);
    if (what != NULL) { warn(r, what); }
}

/* One chunk and what follows from it. */
static bptt_status advance(run *r, double *next_save, bptt_error *error)
{
    bptt_step chunk = {0};
    const uint64_t epoch = r->trainer.cursor.epoch;
    bptt_status status = bptt_trainer_chunk(&r->trainer, &chunk, error);
    if (status != BPTT_OK) {
        r->diverged = true;
        return status;
    }
    status = observe(r, chunk.updated, epoch, error);
    if (r->program.notice != NULL) { bptt_progress_note(&r->progress, r->program.notice); }
    r->program.notice = NULL; /* once */
    count(r, &chunk);
    double now = bptt_seconds();
    r->seconds = now - r->started;
    if (status == BPTT_OK) { status = bptt_log_chunk(&r->log, &r->trainer, &chunk, r->seconds, error); }
    if (bptt_progress_due(&r->progress, now)) {
        bptt_progress_values shown = values(r);
        bptt_progress_show(&r->progress, &shown, now);
    }
    if (status == BPTT_OK && now >= *next_save) {
        status = save(r, error);
        *next_save = bptt_seconds() + r->options->checkpoint_every;
        if (status != BPTT_OK && !r->diverged) { /* a disk may have room again before the end; the old checkpoint is as it was */
            bptt_error note;
            (void)bptt_fail(&note, status, "not saved now: %s", error->text);
            bptt_progress_note(&r->progress, note.text);
            status = BPTT_OK;
        }
    }
    return status;
}

/* After a number that is not finite: the last good checkpoint stays as it is; when there is no file, the model before the failed
 * step becomes one, if it is good itself. */
static void keep_last_good(run *r, bptt_error *error)
{
    char reason[sizeof error->text];
    memcpy(reason, error->text, sizeof reason);
    bptt_error ignored;
    const char *kept = r->saved ? "is the last good checkpoint" : "was not written";
    bool none = !r->saved && access(r->out, F_OK) != 0;
    if (none && save(r, &ignored) == BPTT_OK) { kept = "holds the model before that step"; }
    (void)bptt_fail(error, BPTT_FAILED, "%.700s; %.200s %s", reason, r->out, kept);
}

/* Saves and closes whatever came before; the first error is the one that counts. */
static bptt_status finish(run *r, bptt_status status, bptt_error *error)
{
    bptt_error second;
    if (!r->diverged) {
        bptt_status saved = save(r, status == BPTT_OK ? error : &second);
        status = status == BPTT_OK ? saved : status;
    }
    if (r->diverged) { keep_last_good(r, error); }
    bptt_status closed = bptt_log_close(&r->log, status == BPTT_OK ? error : &second);
    return status == BPTT_OK ? closed : status;
}

static bptt_status loop(run *r, bptt_error *error)
{
    r->started = bptt_seconds();
    r->first_tokens = bptt_trainer_tokens(&r->trainer);
    double next_save = r->options->checkpoint_every > 0.0 ? r->started + r->options->checkpoint_every : HUGE_VAL;
    bptt_progress_open(&r->progress, r->options->quiet, r->started);
    watch_signals(true);
    bptt_status status = BPTT_OK;
    while (status == BPTT_OK && !signalled && !reached_limit(r)) { status = advance(r, &next_save, error); }
    r->stopped = signalled && !reached_limit(r);
    if (r->chunks > 0) {
        bptt_progress_values last = values(r);
        bptt_progress_close(&r->progress, &last, bptt_seconds());
    }
    status = finish(r, status, error);
    watch_signals(false);
    return status;
}

/* ---- the report ---- */

static void report_text(const run *r, const bptt_evaluation *held_out)
{
    const bptt_cursor *cursor = &r->trainer.cursor;
    double epochs = (double)bptt_trainer_tokens(&r->trainer) / (double)r->trainer.feed.stream.predictions;
    if (r->chunks == 0) {
        printf("nothing to do  already at step %" PRIu64 ", %.2f epochs (--steps and --epochs are totals)\n", cursor->step,
               epochs);
    } else {
        printf("trained     %" PRIu64 " steps to step %" PRIu64 " (%.2f epochs) in %.2f s, %.0f tokens/s on %s", r->steps,
               cursor->step, epochs, r->seconds, tokens_per_second(r), r->program.backend);
        if (r->program.model->threads > 1) { printf(" with %u threads", (unsigned)r->program.model->threads); }
        printf("\n");
        const bool text = bptt_spec_labels(&r->spec);
        char bits[64] = " per number";
        if (text) { (void)snprintf(bits, sizeof bits, " nats, %.5g bits per character", bptt_bits(recent_loss(r))); }
        if (isnan(recent_loss(r))) {
            printf("training    nothing to learn from in the last %" PRIu64 " steps: no %s where the spec has a loss\n",
                   recent_steps(r), text ? "label" : "target");
        } else {
            printf("training    loss %.5g%s (mean of the last %" PRIu64 " steps)\n", recent_loss(r), bits, recent_steps(r));
        }
    }
    if (held_out != NULL && !held_out->text) {
        printf("held out    loss %.5g per number (%" PRIu64 " numbers)\n", held_out->loss, held_out->tokens);
    } else if (held_out != NULL) {
        printf("held out    loss %.4f nats, %.4f bits per character, perplexity %.3f (%" PRIu64 " tokens)\n", held_out->loss,
               held_out->bits, held_out->perplexity, held_out->tokens);
    }
    printf("checkpoint  %s\n", r->out);
}

static void report_json(const run *r, const bptt_evaluation *held_out)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_json_text(&json, "name", r->spec.name);
    bptt_json_text(&json, "digest", r->spec.digest);
    bptt_json_text(&json, "backend", r->program.backend);
    bptt_json_whole(&json, "steps", r->trainer.cursor.step);
    bptt_json_whole(&json, "epochs", r->trainer.cursor.epoch);
    bptt_json_whole(&json, "tokens", bptt_trainer_tokens(&r->trainer));
    bptt_json_whole(&json, "run_steps", r->steps);
    bptt_json_whole(&json, "run_tokens", run_tokens(r));
    bptt_json_real(&json, "seconds", r->seconds);
    bptt_json_real(&json, "tokens_per_second", tokens_per_second(r));
    bptt_json_real(&json, "loss", recent_loss(r));
    if (bptt_spec_labels(&r->spec)) { bptt_json_real(&json, "bits_per_character", bptt_bits(recent_loss(r))); }
    bptt_json_whole(&json, "loss_steps", recent_steps(r));
    if (held_out == NULL) {
        bptt_json_text(&json, "held_out", NULL);
    } else {
        bptt_json_open(&json, "held_out", '{');
        bptt_evaluation_json(held_out, &json);
        bptt_json_close(&json, '}');
    }
    bptt_json_text(&json, "checkpoint", r->out);
    bptt_json_text(&json, "stopped", r->stopped ? "signal" : "limit");
    bptt_json_close(&json, '}');
}

static bptt_status report(run *r, bptt_error *error)
{
    bptt_evaluation held_out = {0};
    bool evaluated = r->held_out.count > 0 && !r->stopped;
    if (evaluated) {
        bptt_status status = evaluate(r, &held_out, error);
        if (status != BPTT_OK) { return status; }
    }
    (r->options->json ? report_json : report_text)(r, evaluated ? &held_out : NULL);
    return BPTT_OK;
}

/* ---- how to go on ---- */

/* The same command line with --resume replaced; NULL: no memory. */
static char *command_to_resume(const run *r)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) { return NULL; }
    for (int i = 0; i < r->options->argc; i++) {
        const char *word = r->options->argv[i];
        if (strcmp(word, "--resume") == 0) {
            i++;
        } else if (strncmp(word, "--resume=", 9) != 0) {
            if (i > 0) { (void)fputc(' ', out); }
            print_quoted(out, word);
        }
        if (i != 1) { continue; }
        (void)fputs(" --resume ", out); /* before a --, behind which no option stands */
        print_quoted(out, r->out);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static bptt_status say_stopped(const run *r, bptt_error *error)
{
    char *command = command_to_resume(r);
    bool fits = command != NULL && strlen(command) + strlen(r->out) < sizeof error->text - 128;
    (void)bptt_fail(error, BPTT_STOPPED, "stopped after step %" PRIu64 ", saved in %.400s; go on with: %s",
                    r->trainer.cursor.step, r->out, fits ? command : "the same command and --resume with that file");
    free(command);
    return BPTT_STOPPED;
}

bptt_status bptt_command_train(const bptt_options *options, bptt_error *error)
{
    run *r = calloc(1, sizeof *r);
    if (r == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory"); }
    r->options = options;
    bptt_status status = prepare(r, error);
    if (status == BPTT_OK) { status = loop(r, error); }
    if (status == BPTT_OK) { status = report(r, error); }
    if (status == BPTT_OK && r->stopped) { status = say_stopped(r, error); }
    release(r);
    free(r);
    return status;
}
