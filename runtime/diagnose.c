/* diagnose.c: `bptt diagnose`, what happens to the gradient on a user's own data.
 *
 * The weights are those that the generated code would train: drawn by it from the seed, or loaded into it.  From there on the step
 * graph itself is run (interpret.h).  Depends on diagnose.h, feed.h, evaluate.h (the companion model) and
 * checkpoint.h.
 */
#include "diagnose.h"

#include "checkpoint.h"
#include "evaluate.h"
#include "feed.h"
#include "options.h"
#include "safetensors.h"

#include <string.h>

/* A parameter of the model, stored [inputs][outputs], to the graph's [outputs][inputs]. */
static void take_tensor(const bptt_companion *from, const bptt_tensor *tensor, double *to)
{
    const bptt_model *model = from->program.model;
    const char *block = (const char *)from->memory + model->param;
    for (size_t row = 0; row < tensor->rows; row++) {
        for (size_t col = 0; col < tensor->cols; col++) {
            const void *at = block + (tensor->offset + row * tensor->stride + col) * model->real_size;
            to[col * tensor->rows + row] = model->real_size == sizeof(float) ? (double)*(const float *)at : *(const double *)at;
        }
    }
}

static bptt_status take_params(const bptt_companion *from, bptt_interpreter *it, bptt_error *error)
{
    const bptt_model *model = from->program.model;
    for (int p = 0; p < it->graph->param_count; p++) {
        const bptt_node *node = &it->graph->nodes[it->graph->params[p].node];
        const size_t inputs = node->cols > 0 ? (size_t)node->cols : 1;
        uint32_t t = 0;
        while (t < model->tensor_count && strcmp(model->tensors[t].name, node->name) != 0) { t++; }
        if (t == model->tensor_count || model->tensors[t].rows != inputs || model->tensors[t].cols != (size_t)node->rows) {
            return bptt_fail(error, BPTT_FAILED, "%s: the model has no parameter '%s' of %lld x %zu", from->spec.source,
                             node->name, (long long)node->rows, inputs);
        }
        take_tensor(from, &model->tensors[t], it->params[p]);
    }
    return BPTT_OK;
}

/* The weights of `path`, or those of the seed. */
static bptt_status fetch_params(const bptt_spec *spec, const char *path, bptt_interpreter *it, bptt_error *error)
{
    bptt_companion companion;
    bptt_status status = bptt_companion_open(&companion, spec, BPTT_BACKEND_TCC, error);
    if (status != BPTT_OK) { return status; }
    if (path != NULL) { status = bptt_weights_load(path, companion.program.model, companion.memory, error); }
    if (status == BPTT_OK) { status = take_params(&companion, it, error); }
    bptt_companion_close(&companion);
    return status;
}

static bptt_status trace(const bptt_spec *spec, bptt_graph *graph, bptt_error *error)
{
    bptt_status status = bptt_trace(spec, graph, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_derive(graph, error);
    if (status != BPTT_OK) { bptt_graph_free(graph); }
    return status;
}

static bptt_status show(const bptt_options *options, bptt_diagnosis *diagnosis, const bptt_diagnosis_source *source,
                        bptt_error *error)
{
    bptt_diagnosis_judge(diagnosis, source->spec);
    (options->json ? bptt_diagnosis_json : bptt_diagnosis_print)(diagnosis, source);
    return options->plot != NULL ? bptt_diagnosis_plot(diagnosis, source, options->plot, error) : BPTT_OK;
}

/* The spec with one sequence at a time, all of its steps in one chunk, reals in double: as the interpreter reads. */
static bptt_spec one_sequence(const bptt_spec *spec)
{
    bptt_spec one = *spec;
    one.batch = 1;
    one.K = one.T;
    one.truncation = BPTT_TRUNCATION_CHUNK;
    one.stride = 0;
    one.dtype = BPTT_F64;
    return one;
}

/* The first sequences of the data that have all T steps, or all of those that the file cuts; rows[sequences * T]. */
static bptt_status read_rows(const bptt_options *options, const bptt_spec *one, const bptt_data *data, size_t *sequences,
                             bptt_rows *rows, bptt_error *error)
{
    const size_t T = (size_t)one->T, predictions = bptt_data_predictions(data);
    const size_t whole = data->length > 0 ? data->count / data->length : predictions / T;
    if (whole == 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu %s; a sequence of T = %zu steps needs %zu (or --set T=...)",
                         options->data, data->count, data->tokens != NULL ? "tokens" : "rows", T, T + data->count - predictions);
    }
    bptt_feed feed;
    bptt_status status = bptt_feed_open(&feed, one, data, options->data, error);
    if (status != BPTT_OK) { return status; }
    *sequences = whole < options->sequences ? whole : options->sequences;
    status = bptt_rows_new(one, *sequences * T, rows, error);
    size_t labels = 0;
    for (size_t q = 0; status == BPTT_OK && q < *sequences && bptt_feed_next(&feed); q++) {
        const bptt_rows to = bptt_rows_from(one, rows, q * T);
        labels += bptt_rows_sequence(one, &feed.rows, 0, 0, T, &to);
        if (one->resets) { memcpy((uint8_t *)(uintptr_t)to.reset, feed.rows.reset, T); }
    }
    bptt_feed_close(&feed);
    if (status == BPTT_OK && labels == 0) {
        bptt_rows_free(rows);
        return bptt_fail(error, BPTT_FAILED, "%s: has no label or target in its first %zu sequences", options->data, *sequences);
    }
    return status;
}

static bptt_status measure(const bptt_options *options, const bptt_diagnosis_source *source, const bptt_graph *graph,
                           const bptt_diagnose_task *task, bptt_error *error)
{
    bptt_interpreter it;
    bptt_diagnosis diagnosis;
    bptt_status status = bptt_interpreter_open(&it, graph, task->steps, error);
    if (status != BPTT_OK) { return status; }
    status = fetch_params(source->spec, source->weights, &it, error);
    if (status == BPTT_OK) { status = bptt_diagnose(&it, task, &diagnosis, error); }
    if (status == BPTT_OK) {
        status = show(options, &diagnosis, source, error);
        bptt_diagnosis_free(&diagnosis);
    }
    bptt_interpreter_close(&it);
    return status;
}

static bptt_status with_graph(const bptt_options *options, const bptt_diagnosis_source *source, const bptt_graph *graph,
                              const bptt_data *data, bptt_error *error)
{
    const bptt_spec *spec = source->spec, one = one_sequence(spec);
    bptt_diagnose_task task = {.steps = (size_t)spec->T, .horizon = (size_t)spec->K, .carry = spec->carry, .seed = spec->seed};
    bptt_rows rows = {.x = NULL};
    bptt_status status = read_rows(options, &one, data, &task.sequences, &rows, error);
    if (status != BPTT_OK) { return status; }
    task.stride = spec->truncation == BPTT_TRUNCATION_UNIFORM ? 1 : (size_t)spec->stride;
    task.starts = rows.reset;
    task.mean = spec->reduction == BPTT_MEAN;
    task.x = rows.x;
    task.y = rows.y;
    task.v = rows.v;
    task.d = rows.d;
    task.inputs = (size_t)spec->inputs;
    task.targets = (size_t)spec->outputs;
    status = measure(options, source, graph, &task, error);
    bptt_rows_free(&rows);
    return status;
}

static bptt_status with_spec(const bptt_options *options, const bptt_diagnosis_source *source, bptt_error *error)
{
    bptt_data_options rules = bptt_options_data(options);
    bptt_data data = {0};
    bptt_graph graph;
    bptt_spec plain = *source->spec; /* nothing is dropped, as in evaluation */
    plain.dropout = (bptt_dropout){0};
    bptt_status status = bptt_data_load(options->data, source->spec, &rules, &data, error);
    if (status == BPTT_OK && (status = trace(&plain, &graph, error)) == BPTT_OK) {
        status = with_graph(options, source, &graph, &data, error);
        bptt_graph_free(&graph);
    }
    bptt_data_free(&data);
    return status;
}

bptt_status bptt_command_diagnose(const bptt_options *options, bptt_error *error)
{
    const bool stored = bptt_st_like(options->operand);
    if (stored && options->override_count > 0) {
        return bptt_fail(error, BPTT_USAGE, "--set and --seed change a spec, and %s is a checkpoint", options->operand);
    }
    bptt_spec spec;
    bptt_status status = options->plot != NULL ? bptt_diagnosis_plot_check(options->plot, error) : BPTT_OK;
    if (status != BPTT_OK) { return status; }
    status = stored ? bptt_checkpoint_spec(options->operand, &spec, error) : bptt_options_spec(options, &spec, error);
    if (status != BPTT_OK) { return status; }
    const bptt_diagnosis_source source = {.spec = &spec,
                                          .data = options->data,
                                          .weights = options->weights == NULL && stored ? options->operand : options->weights};
    status = with_spec(options, &source, error);
    bptt_spec_free(&spec);
    return status;
}
