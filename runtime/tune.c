/* tune.c: `bptt tune`: which register tiles are fastest on this machine.
 *
 * Coordinate descent: a candidate (the plan's model names them, the likeliest first) replaces the tile of one product and runs whole
 * steps of training against the best choice so far, in turns on one memory, so that a busy machine slows both alike.  It must win
 * almost every round, and do so twice.  Depends on backend.h and tuning.h.
 */
#include "../gen/compile.h"
#include "backend.h"
#include "kernels.h"
#include "machine.h"
#include "options.h"
#include "rows.h"
#include "tuning.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 9 };
static const double CLEARLY = 0.99; /* a ratio of times below it is a win, when but one round was lost: noise rarely does that */

typedef struct tuner {
    bptt_spec spec;
    bptt_product products[BPTT_MAX_PRODUCTS]; /* the most work first */
    size_t count;
    bptt_tuning best;
    bptt_program program; /* with the best tiles so far */
    void *memory;         /* of every program: tiles change no layout */
    bptt_rows rows;       /* one chunk */
    int chunks;           /* timed at once */
    double deadline;      /* of bptt_seconds */
    size_t tried, candidates;
    bool diverged; /* an update was not made, so a time says nothing */
} tuner;

/* --- timing ----------------------------------------------------------------------------------------------------------------- */

/* Of this process alone, so that others may run meanwhile; with a team, of the clock on the wall, since a part may wait for another. */
static double seconds_of(const bptt_model *model)
{
    if (model->threads > 1) { return bptt_seconds(); }
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds of a chunk: gradient and update. */
static double time_chunks(tuner *t, const bptt_model *model, int chunks)
{
    const double start = seconds_of(model);
    for (int i = 0; i < chunks; i++) {
        (void)model->gradient(model, t->memory, &t->rows, 0);
        t->diverged = !isfinite(model->update(model, t->memory)) || t->diverged;
    }
    return (seconds_of(model) - start) / chunks;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Time of `model` by the time of `other`, the median of the rounds; 1 as soon as `model` has lost more than `losses` of them.  The
 * state of training is that of the seed at the start, whatever ran before. */
static double ratio(tuner *t, const bptt_model *model, const bptt_model *other, int losses)
{
    double ratios[ROUNDS];
    model->init(model, t->memory, t->spec.seed);
    (void)time_chunks(t, model, 1);
    for (int i = 0; i < ROUNDS; i++) {
        const bool first = i % 2 == 0;
        const double a = time_chunks(t, first ? model : other, t->chunks);
        const double b = time_chunks(t, first ? other : model, t->chunks);
        ratios[i] = first ? a / b : b / a;
        if (ratios[i] >= 1 && losses-- == 0) { return 1; }
    }
    qsort(ratios, ROUNDS, sizeof *ratios, ascending);
    return ratios[ROUNDS / 2];
}

/* --- the search ------------------------------------------------------------------------------------------------------------- */

static bptt_status open_with(tuner *t, bptt_tuning *tuning, bptt_program *program, bptt_error *error)
{
    t->spec.tuning = tuning;
    bptt_status status = bptt_program_open(&t->spec, BPTT_BACKEND_TCC, program, error);
    t->spec.tuning = NULL;
    return status;
}

/* Runs product p with its tile number c; takes it when it is clearly faster. */
static bptt_status try_tile(tuner *t, size_t p, int c, bptt_error *error)
{
    bptt_tuning tuning = t->best;
    bptt_program program;
    tuning.of[p].tile = t->products[p].tiles[c];
    bptt_status status = open_with(t, &tuning, &program, error);
    if (status != BPTT_OK) { return status; }
    t->tried++;
    for (int wins = 0; wins < 2; wins++) {
        if (ratio(t, program.model, t->program.model, 1) < CLEARLY) { continue; }
        bptt_program_close(&program);
        return BPTT_OK;
    }
    bptt_program_close(&t->program);
    t->program = program;
    t->best = tuning;
    return BPTT_OK;
}

static bool in_time(const tuner *t)
{
    return bptt_seconds() < t->deadline;
}

static bptt_status search(tuner *t, bptt_error *error)
{
    for (int c = 1; c < BPTT_MAX_TILES; c++) {
        for (size_t p = 0; p < t->count && in_time(t); p++) {
            if (c < t->products[p].tile_count && try_tile(t, p, c, error) != BPTT_OK) { return BPTT_FAILED; }
        }
    }
    return BPTT_OK;
}

/* --- before it -------------------------------------------------------------------------------------------------------------- */

static int more_work_first(const void *a, const void *b)
{
    const bptt_product *x = a, *y = b;
    return x->flop != y->flop ? (x->flop < y->flop) - (x->flop > y->flop) : strcmp(x->name, y->name);
}

/* The products, and the model's own tiles as the first choice. */
static bptt_status list_products(tuner *t, bptt_error *error)
{
    const int simd = t->spec.simd > 0 ? (int)t->spec.simd : bptt_kernels_simd();
    bptt_status status = bptt_products(&t->spec, simd, bptt_machine_memory(), t->products, &t->count, error);
    if (status != BPTT_OK) { return status; }
    qsort(t->products, t->count, sizeof *t->products, more_work_first);
    t->best.count = t->count;
    for (size_t p = 0; p < t->count; p++) {
        memcpy(t->best.of[p].product, t->products[p].name, sizeof t->products[p].name);
        t->best.of[p].tile = t->products[p].tiles[0];
        t->candidates += (size_t)t->products[p].tile_count - 1;
    }
    return BPTT_OK;
}

/* So many chunks at once that all candidates together take most of the time there is; winners run twice. */
static void choose_chunks(tuner *t, double seconds)
{
    const bptt_model *model = t->program.model;
    double chunk = time_chunks(t, model, 1);
    for (int i = 0; i < 2; i++) {
        double again = time_chunks(t, model, 1);
        chunk = again < chunk ? again : chunk;
    }
    const double chunks = 0.7 * seconds / (chunk * 2 * ROUNDS * (double)(t->candidates + 1));
    t->chunks = chunks < 1 ? 1 : chunks > 1e6 ? 1000000 : (int)chunks;
}

static bptt_status prepare(tuner *t, const bptt_options *options, bptt_error *error)
{
    t->deadline = bptt_seconds() + options->seconds;
    bptt_status status = list_products(t, error);
    if (status == BPTT_OK) {
        status = bptt_rows_draw(&t->spec, (size_t)bptt_spec_chunk(&t->spec), options->seed, &t->rows, error);
    }
    if (status == BPTT_OK) { status = open_with(t, &t->best, &t->program, error); }
    if (status != BPTT_OK) { return status; }
    t->memory = bptt_memory_new(t->program.model);
    if (t->memory == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", t->program.model->bytes);
    }
    t->program.model->init(t->program.model, t->memory, t->spec.seed);
    choose_chunks(t, options->seconds);
    return BPTT_OK;
}

/* --- after it --------------------------------------------------------------------------------------------------------------- */

static bptt_tuning models_choice(const tuner *t)
{
    bptt_tuning tuning = t->best;
    for (size_t p = 0; p < t->count; p++) { tuning.of[p].tile = t->products[p].tiles[0]; }
    return tuning;
}

/* What all of it gained, as a ratio of times; when it is nothing, the model's tiles are the choice. */
static bptt_status judge(tuner *t, double *gained, double *chunk, bptt_error *error)
{
    bptt_tuning before = models_choice(t);
    bptt_program program;
    bptt_status status = open_with(t, &before, &program, error);
    if (status != BPTT_OK) { return status; }
    const bool same = memcmp(&before, &t->best, sizeof before) == 0;
    *gained = same ? 1 : ratio(t, t->program.model, program.model, ROUNDS);
    if (*gained >= 1) {
        t->best = before;
        *gained = 1;
    }
    *chunk = time_chunks(t, *gained < 1 ? t->program.model : program.model, t->chunks);
    bptt_program_close(&program);
    return BPTT_OK;
}

static void print_report(const tuner *t, double gained, double chunk)
{
    const bptt_spec *s = &t->spec;
    printf("%s: H %lld, V %lld, T %lld, K %lld, B %lld, %s; tiles are rows x vectors\n\n", s->name, (long long)s->hidden,
           (long long)s->vocab, (long long)s->T, (long long)s->K, (long long)s->batch, bptt_spec_word("dtype", (int)s->dtype));
    printf("%-24s %8s %8s %8s %8s %8s\n", "product", "rows", "columns", "depth", "model", "best");
    for (size_t p = 0; p < t->count; p++) {
        const bptt_product *product = &t->products[p];
        const bptt_tile_size *model = &product->tiles[0], *best = &t->best.of[p].tile;
        char words[2][32];
        (void)snprintf(words[0], sizeof words[0], "%dx%d", model->rows, model->vectors);
        (void)snprintf(words[1], sizeof words[1], "%dx%d", best->rows, best->vectors);
        printf("%-24s %8lld %8lld %8lld %8s %8s\n", product->name, (long long)product->rows, (long long)product->cols,
               (long long)product->depth, words[0], words[1]);
    }
    if (t->count == 0) { printf("(none: unroll = 'full' spells products out)\n"); }
    printf("\na chunk takes %.1f us, %.1f %% less than with the model's tiles; %zu of %zu candidates tried\n", chunk * 1e6,
           100 * (1 - gained), t->tried, t->candidates);
    if (t->tried < t->candidates) { printf("the time was over before the rest: --seconds gives more\n"); }
}

static bptt_status tune(tuner *t, const bptt_options *options, bptt_error *error)
{
    double gained = 1, chunk = 0;
    char *path = bptt_tuning_path(&t->spec, error); /* not after all the work */
    if (path == NULL) { return BPTT_FAILED; }
    bptt_status status = prepare(t, options, error);
    if (status == BPTT_OK) { status = search(t, error); }
    if (status == BPTT_OK) { status = judge(t, &gained, &chunk, error); }
    if (status == BPTT_OK && t->diverged) {
        status = bptt_fail(error, BPTT_FAILED, "%s: training diverges, so its time says nothing; lower the rate", t->spec.source);
    }
    if (status == BPTT_OK) {
        print_report(t, gained, chunk);
        status = bptt_tuning_save(&t->spec, &t->best, error);
    }
    if (status == BPTT_OK) { printf("kept in %s; gen, train and bench use it with --tuned\n", path); }
    free(path);
    return status;
}

bptt_status bptt_command_tune(const bptt_options *options, bptt_error *error)
{
    tuner *t = calloc(1, sizeof *t);
    if (t == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to tune"); }
    bptt_status status = bptt_options_spec(options, &t->spec, error);
    if (status == BPTT_OK) {
        status = tune(t, options, error);
        bptt_program_close(&t->program);
        bptt_spec_free(&t->spec);
        free(t->memory);
        bptt_rows_free(&t->rows);
    }
    free(t);
    return status;
}
