/* trainer.c: one step after the other.  See trainer.h. */
#include "trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- the carried state, kept and put back ---- */

static void keep_state(bptt_trainer *trainer)
{
    const bptt_model *model = trainer->program->model;
    memcpy(trainer->state, (const char *)trainer->memory + model->state, bptt_state_bytes(model));
    memcpy(trainer->progress, (const char *)trainer->memory + model->progress, model->progress_count * sizeof(double));
}

/* Back to the last kept state and to the cursor. */
static void go_back(bptt_trainer *trainer)
{
    const bptt_model *model = trainer->program->model;
    memcpy((char *)trainer->memory + model->state, trainer->state, bptt_state_bytes(model));
    memcpy((char *)trainer->memory + model->progress, trainer->progress, model->progress_count * sizeof(double));
    trainer->feed.next = (uint32_t)trainer->cursor.chunk;
    trainer->feed.stream.position = trainer->cursor.position;
}

/* ---- open, resume, close ---- */

static void digest_data(const bptt_data *data, char *digest)
{
    XXH128_canonical_t canonical;
    const bool text = data->tokens != NULL;
    const size_t bytes = text ? data->count * sizeof *data->tokens : data->count * data->columns * sizeof *data->reals;
    const void *numbers = text ? (const void *)data->tokens : (const void *)data->reals;
    /* the same numbers in sequences of another length are other data */
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(numbers, bytes, data->length));
    for (size_t i = 0; i < sizeof canonical.digest; i++) { (void)snprintf(digest + 2 * i, 3, "%02x", canonical.digest[i]); }
}

bptt_status bptt_trainer_open(bptt_trainer *trainer, const bptt_spec *spec, bptt_program *program, const bptt_data *data,
                              const char *what, bptt_error *error)
{
    const bptt_model *model = program->model;
    *trainer = (bptt_trainer){.spec = spec, .program = program};
    bptt_status status = bptt_feed_open(&trainer->feed, spec, data, what, error);
    if (status != BPTT_OK) { return status; }
    trainer->memory = bptt_memory_new(model);
    trainer->state = calloc(1, bptt_state_bytes(model) + 1);
    if (trainer->memory == NULL || trainer->state == NULL) {
        bptt_trainer_close(trainer);
        return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", model->bytes);
    }
    model->init(model, trainer->memory, spec->seed);
    trainer->cursor.tokens = data->count;
    digest_data(data, trainer->cursor.data_digest);
    return BPTT_OK;
}

bptt_status bptt_trainer_resume(bptt_trainer *trainer, const char *path, bptt_error *error)
{
    bptt_cursor cursor;
    bptt_status status = bptt_checkpoint_load(path, trainer->spec, trainer->program->model, trainer->memory, &cursor, error);
    if (status != BPTT_OK) { return status; }
    if (cursor.step == 0 && cursor.data_digest[0] == '\0') { /* imported: trained on nothing yet */
        cursor.tokens = trainer->cursor.tokens;
        memcpy(cursor.data_digest, trainer->cursor.data_digest, sizeof cursor.data_digest);
    }
    if (cursor.tokens != trainer->cursor.tokens || strcmp(cursor.data_digest, trainer->cursor.data_digest) != 0) {
        return bptt_fail(error, BPTT_FAILED,
                         "%s: was trained on other data (%" PRIu64 " tokens, digest %s) than this (%" PRIu64
                         " tokens, digest %s)",
                         path, cursor.tokens, cursor.data_digest, trainer->cursor.tokens, trainer->cursor.data_digest);
    }
    if (cursor.chunk >= trainer->feed.chunks || cursor.position >= bptt_stream_steps(&trainer->feed.stream)) {
        return bptt_fail(error, BPTT_FAILED, "%s: stands at step %" PRIu64 " of a stream, chunk %" PRIu64 ", beyond the data",
                         path, cursor.position, cursor.chunk);
    }
    trainer->cursor = cursor;
    trainer->feed.next = (uint32_t)cursor.chunk;
    trainer->feed.stream.position = cursor.position;
    return BPTT_OK;
}

void bptt_trainer_close(bptt_trainer *trainer)
{
    free(trainer->memory);
    free(trainer->state);
    bptt_feed_close(&trainer->feed);
    *trainer = (bptt_trainer){.memory = NULL};
}

/* ---- numbers that are not finite ---- */

static double real_at(const bptt_model *model, const void *memory, size_t block, size_t index)
{
    const char *start = (const char *)memory + block;
    return model->real_size == sizeof(float) ? (double)((const float *)(const void *)start)[index]
                                             : ((const double *)(const void *)start)[index];
}

/* The first tensor of a parameter-shaped block that holds a number which is not finite; NULL: none. */
static const char *not_finite(const bptt_model *model, const void *memory, size_t block)
{
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const bptt_tensor *tensor = &model->tensors[t];
        for (size_t row = 0; row < tensor->rows; row++) {
            for (size_t col = 0; col < tensor->cols; col++) {
                if (!isfinite(real_at(model, memory, block, tensor->offset + row * tensor->stride + col))) {
                    return tensor->name;
                }
            }
        }
    }
    return NULL;
}

static bptt_status fail_not_finite(const bptt_trainer *trainer, uint64_t step, const char *what, const char *tensor,
                                   bptt_error *error)
{
    if (trainer->cursor.step == 0) {
        return bptt_fail(error, BPTT_FAILED,
                         "step %" PRIu64 ": %s%s is not finite before any update: look at the cell's equations "
                         "(a division by 0, sqrt at 0, log of 0?) and at the data",
                         step, what, tensor);
    }
    return bptt_fail(error, BPTT_FAILED, "step %" PRIu64 ": %s%s is not finite; lower the %s rate (now %g)%s", step, what, tensor,
                     bptt_spec_word("optimizer", (int)trainer->spec->optimizer.kind), bptt_trainer_rate(trainer),
                     trainer->spec->clip.kind == BPTT_CLIP_NORM ? "" : " or clip the gradient (clip={norm=5})");
}

/* ---- step and save ---- */

/* One of what the model counts. */
static double progress_now(const bptt_trainer *trainer, int which)
{
    double progress[BPTT_PROGRESS] = {0};
    const bptt_model *model = trainer->program->model;
    memcpy(progress, (const char *)trainer->memory + model->progress, model->progress_count * sizeof(double));
    return progress[which];
}

/* Whether an update follows the chunk that was just learned from.  The end of an epoch ends a sequence, too. */
static bool is_due(const bptt_trainer *trainer)
{
    const bptt_model *model = trainer->program->model;
    const bptt_feed *feed = &trainer->feed;
    if (model->accumulate == 0) { return true; }
    const bool ends = model->whole_sequence == 0 || feed->next == 0 || bptt_feed_done(feed);
    return ends && progress_now(trainer, BPTT_PENDING) >= model->accumulate;
}

/* What the coming update multiplies the gradient by: sums become a mean, where gradients are added up. */
static double share_of(const bptt_trainer *trainer)
{
    if (trainer->program->model->accumulate == 0 || trainer->spec->reduction != BPTT_MEAN) { return 1; }
    const double labels = progress_now(trainer, BPTT_LABELS);
    return labels > 0 ? 1 / labels : 0;
}

/* Gradient of the next chunk, and update. */
static bptt_status learn(bptt_trainer *trainer, bptt_step *step, bptt_error *error)
{
    const bptt_model *model = trainer->program->model;
    bptt_feed *feed = &trainer->feed;
    uint64_t number = trainer->cursor.step + 1;
    (void)bptt_feed_next(feed);
    step->labels = feed->labels;
    trainer->share = (double)NAN;
    double loss = model->gradient(model, trainer->memory, &feed->rows, feed->chunk);
    if (!isfinite(loss)) { return fail_not_finite(trainer, number, "the loss", "", error); }
    step->loss_sum = bptt_loss_sum(trainer->spec, loss, step->labels);
    step->rate = bptt_trainer_rate(trainer);
    step->grad_norm = trainer->norm;
    if (!is_due(trainer)) { return BPTT_OK; }
    step->updated = true;
    trainer->share = share_of(trainer);
    step->grad_norm = trainer->norm = model->update(model, trainer->memory);
    if (isfinite(step->grad_norm)) { return BPTT_OK; }
    const char *tensor = not_finite(model, trainer->memory, model->grad);
    if (tensor == NULL) { return fail_not_finite(trainer, number, "the gradient norm", "", error); }
    return fail_not_finite(trainer, number, "the gradient of ", tensor, error);
}

bptt_status bptt_trainer_chunk(bptt_trainer *trainer, bptt_step *step, bptt_error *error)
{
    keep_state(trainer);
    step->updated = false;
    bptt_status status = learn(trainer, step, error);
    if (status != BPTT_OK) {
        go_back(trainer);
        trainer->lost = trainer->program->model->accumulate > 0 && trainer->progress[BPTT_PENDING] > 0;
        return status;
    }
    bptt_feed *feed = &trainer->feed;
    bptt_cursor *cursor = &trainer->cursor;
    if (bptt_feed_done(feed)) {
        bptt_feed_rewind(feed);
        trainer->program->model->reset(trainer->program->model, trainer->memory);
        cursor->epoch++;
    }
    if (step->updated) { cursor->step++; }
    cursor->position = feed->stream.position;
    cursor->chunk = feed->next;
    (void)bptt_program_poll(trainer->program);
    return BPTT_OK;
}

/* An update leaves the gradient as it was: not clipped, and a sum where gradients are added up. */
double bptt_trainer_clipped(const bptt_trainer *trainer, double norm)
{
    const bptt_clip *clip = &trainer->spec->clip;
    const bptt_model *model = trainer->program->model;
    if (clip->kind != BPTT_CLIP_VALUE) { return clip->kind == BPTT_CLIP_NORM ? fmin(norm, clip->limit) : norm; }
    if (isnan(trainer->share)) { return trainer->share; }
    double sum = 0;
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const bptt_tensor *tensor = &model->tensors[t];
        for (size_t row = 0; row < tensor->rows; row++) {
            for (size_t col = 0; col < tensor->cols; col++) {
                const size_t at = tensor->offset + row * tensor->stride + col;
                const double g = trainer->share * real_at(model, trainer->memory, model->grad, at);
                const double cut = fmin(fabs(g), clip->limit);
                sum += cut * cut;
            }
        }
    }
    return sqrt(sum);
}

bptt_status bptt_trainer_check(bptt_trainer *trainer, bptt_error *error)
{
    const bptt_model *model = trainer->program->model;
    if (trainer->lost) {
        return bptt_fail(error, BPTT_FAILED, "step %" PRIu64 ": the gradients since the last update are lost",
                         trainer->cursor.step);
    }
    const char *tensor = not_finite(model, trainer->memory, model->param);
    if (tensor != NULL) { return fail_not_finite(trainer, trainer->cursor.step, "the parameter ", tensor, error); }
    for (uint32_t m = 0; m < model->moment_count; m++) {
        tensor = not_finite(model, trainer->memory, model->moment[m]);
        if (tensor != NULL) { return fail_not_finite(trainer, trainer->cursor.step, "a moment of ", tensor, error); }
    }
    /* Parameters may be finite and yet so large that all they can give is infinity. */
    keep_state(trainer);
    (void)bptt_feed_next(&trainer->feed);
    double loss = model->loss(model, trainer->memory, &trainer->feed.rows, trainer->feed.chunk);
    go_back(trainer);
    return isfinite(loss) ? BPTT_OK : fail_not_finite(trainer, trainer->cursor.step + 1, "the loss", "", error);
}

bptt_status bptt_trainer_save(const bptt_trainer *trainer, const char *path, bptt_error *error)
{
    return bptt_checkpoint_save(path, trainer->spec, trainer->program->model, trainer->memory, &trainer->cursor, error);
}

double bptt_trainer_rate(const bptt_trainer *trainer)
{
    const bptt_model *model = trainer->program->model;
    return model->rate != NULL ? model->rate(model, trainer->memory) : trainer->spec->optimizer.rate;
}

uint64_t bptt_trainer_tokens(const bptt_trainer *trainer)
{
    return trainer->cursor.epoch * trainer->feed.stream.predictions + bptt_feed_tokens(&trainer->feed);
}
