/* grad.c: `bptt grad`, the loss and gradients of the first chunk of a file, for comparison with other systems.
 *
 * Depends on backend.h, feed.h and checkpoint.h.  Updates nothing and clips nothing.
 */
#include "backend.h"
#include "checkpoint.h"
#include "feed.h"
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* With 9 or 17 digits a float or a double reads back as it was. */
static bptt_status first_chunk(const bptt_options *options, const bptt_spec *spec, const bptt_model *model, void *memory,
                               const bptt_data *data, bptt_error *error)
{
    model->init(model, memory, 0);
    bptt_status status = bptt_weights_load(options->weights, model, memory, error);
    if (status != BPTT_OK) { return status; }
    bptt_feed feed;
    status = bptt_feed_open(&feed, spec, data, options->data, error);
    if (status != BPTT_OK) { return status; }
    (void)bptt_feed_next(&feed);
    double loss = model->gradient(model, memory, &feed.rows, feed.chunk);
    bptt_feed_close(&feed);
    if (!isfinite(loss)) { return bptt_fail(error, BPTT_FAILED, "%s: the loss is not finite", options->weights); }
    status = bptt_weights_save(options->out, model, memory, model->grad, 1, error);
    if (status == BPTT_OK) { printf("loss %.*g\n", model->real_size == sizeof(float) ? 9 : 17, loss); }
    return status;
}

static bptt_status with_model(const bptt_options *options, const bptt_spec *spec, const bptt_data *data, bptt_error *error)
{
    bptt_program program;
    bptt_status status = bptt_program_open(spec, (bptt_backend)options->backend, &program, error);
    if (status != BPTT_OK) { return status; }
    void *memory = bptt_memory_new(program.model);
    if (memory == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", program.model->bytes);
    } else {
        status = first_chunk(options, spec, program.model, memory, data, error);
    }
    free(memory);
    bptt_program_close(&program);
    return status;
}

/* The spec with an update after each chunk: the gradient of the first chunk is then that of its loss, whatever is added up in
 * training. */
static bptt_status one_chunk_spec(const bptt_options *options, bptt_spec *spec, bptt_error *error)
{
    static const bptt_override each[] = {{"update", 6, "chunk"}, {"accumulate", 10, "1"}};
    bptt_spec given;
    bptt_status status = bptt_options_spec(options, &given, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_spec_parse(given.text, strlen(given.text), given.source, each, 2, spec, error);
    bptt_spec_free(&given);
    return status;
}

bptt_status bptt_command_grad(const bptt_options *options, bptt_error *error)
{
    bptt_spec spec;
    bptt_status status = one_chunk_spec(options, &spec, error);
    if (status != BPTT_OK) { return status; }
    bptt_data_options rules = bptt_options_data(options);
    bptt_data data = {0};
    status = bptt_data_load(options->data, &spec, &rules, &data, error);
    if (status == BPTT_OK) { status = with_model(options, &spec, &data, error); }
    bptt_data_free(&data);
    bptt_spec_free(&spec);
    return status;
}
