/* peer_bptt.c: our own backends as peers, through the interface that `bptt train` uses. */
#include "peer_net.h"

#include "../../runtime/backend.h"

#include <stdlib.h>
#include <string.h>

typedef struct ours {
    const peer_task *task;
    bptt_program program;
    void *memory;
    uint64_t next;
} ours;

/* Of all blocks of the tensor, side by side; NULL: a bias. */
static const float *first_values(const peer_task *task, const char *file)
{
    if (strcmp(file, "rnn.weight_ih_l0") == 0) { return task->W_xh; }
    if (strcmp(file, "rnn.weight_hh_l0") == 0) { return task->W_hh; }
    if (strcmp(file, "out.weight") == 0) { return task->W_hy; }
    return NULL;
}

/* The biases start at 0 by init's definition. */
static void set_weights(const ours *o)
{
    const bptt_model *model = o->program.model;
    float *param = (float *)(void *)((char *)o->memory + model->param);
    model->init(model, o->memory, 1);
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const bptt_tensor *tensor = &model->tensors[t];
        const float *values = first_values(o->task, tensor->file);
        if (values == NULL) { continue; }
        for (size_t row = 0; row < tensor->rows; row++) {
            const size_t from = (row * tensor->parts + tensor->part) * tensor->cols;
            memcpy(param + tensor->offset + row * tensor->stride, values + from, tensor->cols * sizeof(float));
        }
    }
    model->refresh(model, o->memory);
}

static bptt_status peer_open(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error)
{
    ours *o = *self = calloc(1, sizeof *o);
    if (o == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    o->task = task;
    bptt_status status = bptt_program_open(&task->spec, (bptt_backend)kind->backend, &o->program, error);
    if (status != BPTT_OK) { return status; }
    o->memory = bptt_memory_new(o->program.model);
    if (o->memory == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", o->program.model->bytes);
    }
    set_weights(o);
    return BPTT_OK;
}

static double step(void *self, const uint32_t *x, const uint32_t *y)
{
    ours *o = self;
    const bptt_model *model = o->program.model;
    const double loss = model->gradient(model, o->memory, &(bptt_rows){.x = x, .y = y}, 0);
    (void)model->update(model, o->memory);
    return loss;
}

static bptt_status peer_run(void *self, long steps, peer_result *result, bptt_error *error)
{
    ours *o = self;
    (void)error;
    peer_steps(o->task, &o->next, steps, step, o, result);
    return BPTT_OK;
}

static void peer_close(void *self)
{
    ours *o = self;
    if (o == NULL) { return; }
    if (o->program.model != NULL) { bptt_program_close(&o->program); }
    free(o->memory);
    free(o);
}

const peer_system peer_bptt = {peer_open, peer_run, NULL, peer_close};
