/* evaluate.c: companions, exact evaluation, and `bptt eval`.  See evaluate.h. */
#include "evaluate.h"

#include "checkpoint.h"
#include "feed.h"
#include "options.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- companions ---- */

bptt_status bptt_companion_open(bptt_companion *companion, const bptt_spec *spec, bptt_backend backend, bptt_error *error)
{
    static const bptt_override one_stream[] = {{"batch", 5, "1"}, {"threads", 7, "1"}};
    *companion = (bptt_companion){.memory = NULL};
    bptt_status status = bptt_spec_parse(spec->text, strlen(spec->text), spec->source, one_stream, 2, &companion->spec, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_program_open(&companion->spec, backend, &companion->program, error);
    if (status != BPTT_OK) {
        bptt_spec_free(&companion->spec);
        return status;
    }
    const bptt_model *model = companion->program.model;
    companion->memory = bptt_memory_new(model);
    if (companion->memory == NULL) {
        bptt_companion_close(companion);
        return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", model->bytes);
    }
    model->init(model, companion->memory, companion->spec.seed);
    return BPTT_OK;
}

bptt_status bptt_companion_load(bptt_companion *companion, const char *checkpoint, bptt_backend backend, bptt_error *error)
{
    bptt_spec spec;
    bptt_status status = bptt_checkpoint_spec(checkpoint, &spec, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_companion_open(companion, &spec, backend, error);
    bptt_spec_free(&spec);
    if (status != BPTT_OK) { return status; }
    status = bptt_weights_load(checkpoint, companion->program.model, companion->memory, error);
    if (status != BPTT_OK) {
        bptt_companion_close(companion);
        return status;
    }
    companion->program.model->reset(companion->program.model, companion->memory); /* h_0 came with the weights */
    return BPTT_OK;
}

/* The tensor called `name`; backends may list them in different orders. */
static const bptt_tensor *find_tensor(const bptt_model *model, const char *name)
{
    const bptt_tensor *tensor = model->tensors;
    while (strcmp(tensor->name, name) != 0) { tensor++; }
    return tensor;
}

void bptt_companion_copy(bptt_companion *companion, const bptt_model *model, const void *memory)
{
    const bptt_model *own = companion->program.model;
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const bptt_tensor *from = &model->tensors[i], *to = find_tensor(own, from->name);
        for (uint32_t row = 0; row < from->rows; row++) {
            size_t source = from->offset + (size_t)row * from->stride, target = to->offset + (size_t)row * to->stride;
            memcpy((char *)companion->memory + own->param + target * own->real_size,
                   (const char *)memory + model->param + source * model->real_size, (size_t)from->cols * model->real_size);
        }
    }
    own->refresh(own, companion->memory);
}

void bptt_companion_close(bptt_companion *companion)
{
    free(companion->memory);
    bptt_program_close(&companion->program);
    bptt_spec_free(&companion->spec);
    companion->memory = NULL;
}

/* ---- evaluation ---- */

double bptt_bits(double loss)
{
    return loss / log(2.0);
}

bptt_status bptt_evaluate(bptt_companion *companion, const bptt_data *data, const char *what, bptt_evaluation *evaluation,
                          bptt_error *error)
{
    const bptt_model *model = companion->program.model;
    bptt_feed feed;
    bptt_status status = bptt_feed_open(&feed, &companion->spec, data, what, error);
    if (status != BPTT_OK) { return status; }
    model->reset(model, companion->memory);
    double sum = 0.0;
    uint64_t tokens = 0;
    while (isfinite(sum) && bptt_feed_next(&feed)) {
        double loss = model->loss(model, companion->memory, &feed.rows, feed.chunk);
        sum += bptt_loss_sum(&companion->spec, loss, feed.labels);
        tokens += feed.labels;
    }
    bptt_feed_close(&feed);
    if (!isfinite(sum)) {
        return bptt_fail(error, BPTT_FAILED, "%s: the loss is not finite within the first %" PRIu64 " tokens", what, tokens);
    }
    if (tokens == 0) { return bptt_fail(error, BPTT_FAILED, "%s: has nothing to predict where the spec has a loss", what); }
    double loss = sum / (double)tokens;
    *evaluation = (bptt_evaluation){.tokens = tokens, .loss = loss, .bits = bptt_bits(loss), .perplexity = exp(loss)};
    evaluation->text = bptt_spec_labels(&companion->spec);
    return BPTT_OK;
}

void bptt_evaluation_json(const bptt_evaluation *evaluation, bptt_json *json)
{
    bptt_json_whole(json, "tokens", evaluation->tokens);
    bptt_json_real(json, "loss", evaluation->loss);
    if (!evaluation->text) { return; }
    bptt_json_real(json, "bits_per_character", evaluation->bits);
    bptt_json_real(json, "perplexity", evaluation->perplexity);
}

/* ---- the command ---- */

static void print_evaluation(const bptt_evaluation *evaluation, bool as_json)
{
    if (!as_json && !evaluation->text) {
        printf("numbers             %" PRIu64 "\nloss                %.9g per number\n", evaluation->tokens, evaluation->loss);
        return;
    }
    if (!as_json) {
        printf("tokens              %" PRIu64 "\nloss                %.9g nats per token\n"
               "bits per character  %.6f\nperplexity          %.6g\n",
               evaluation->tokens, evaluation->loss, evaluation->bits, evaluation->perplexity);
        return;
    }
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_evaluation_json(evaluation, &json);
    bptt_json_close(&json, '}');
}

bptt_status bptt_command_eval(const bptt_options *options, bptt_error *error)
{
    bptt_companion companion;
    bptt_status status = bptt_companion_load(&companion, options->operand, (bptt_backend)options->backend, error);
    if (status != BPTT_OK) { return status; }
    bptt_data_options rules = bptt_options_data(options);
    bptt_data data = {0};
    bptt_evaluation evaluation = {0};
    status = bptt_data_load(options->data, &companion.spec, &rules, &data, error);
    if (status == BPTT_OK) { status = bptt_evaluate(&companion, &data, options->data, &evaluation, error); }
    if (status == BPTT_OK) { print_evaluation(&evaluation, options->json); }
    bptt_data_free(&data);
    bptt_companion_close(&companion);
    return status;
}
