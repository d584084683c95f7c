/* interpreted.c: see interpreted.h.  Memory: parameters and gradients, each [inputs][outputs] as the interface has them, then the
 * states [B][size] one after the other; all without padding. */
#include "interpreted.h"

#include "interpret.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>

typedef struct interpreted {
    bptt_model model; /* first: its functions are given this address */
    const bptt_spec *spec;
    bptt_spec one; /* the same with one sequence, borrowed */
    bptt_graph graph;
    bptt_interpreter it; /* of one chunk of one sequence, with blocks of one sequence so far; holds a copy of the parameters */
    bptt_tensor tensors[BPTT_MAX_PARAMS], states[BPTT_MAX_STATES];
    size_t room;     /* steps that it runs at most */
    bptt_rows rows;  /* what it reads, [B][room] */
    uint8_t *starts; /* [B][room] */
    double *losses, *start, *carry,
        *flat;     /* [room]; [B] states before the first of these; an adjoint; a gradient, as `it` has it */
    double *state; /* one */
} interpreted;

static interpreted *net_of(const bptt_model *self)
{
    return (interpreted *)(uintptr_t)self;
}

static double *block_of(void *memory, size_t bytes)
{
    return (double *)(void *)((char *)memory + bytes);
}

/* --- memory <-> interpreter -------------------------------------------------------------------------------------------------- */

/* Between [inputs][outputs] and the interpreter's [outputs][inputs]. */
static void transpose(const double *from, size_t rows, size_t cols, double *to)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) { to[j * rows + i] = from[i * cols + j]; }
    }
}

static void refresh(const bptt_model *self, void *memory)
{
    const double *block = block_of(memory, self->param);
    for (uint32_t p = 0; p < self->tensor_count; p++) {
        const bptt_tensor *tensor = &self->tensors[p];
        transpose(block + tensor->offset, tensor->rows, tensor->cols, net_of(self)->it.params[p]);
    }
}

static void reset(const bptt_model *self, void *memory)
{
    memset((char *)memory + self->state, 0, bptt_state_bytes(self));
}

static void init(const bptt_model *self, void *memory, uint64_t seed)
{
    (void)seed;
    memset(memory, 0, self->bytes);
    refresh(self, memory);
}

/* The state of sequence b from memory to `state`, or back. */
static void move_state(const bptt_model *self, void *memory, size_t b, double *state, bool back)
{
    for (uint32_t s = 0; s < self->state_count; s++) {
        const bptt_tensor *tensor = &self->states[s];
        double *at = block_of(memory, self->state) + tensor->offset + b * tensor->stride;
        memcpy(back ? at : state, back ? state : at, tensor->cols * sizeof *state);
        state += tensor->cols;
    }
}

/* --- chunks -------------------------------------------------------------------------------------------------------------------- */

/* Back from the steps of a chunk, which begin at step `first` of those that were run: from each loss by itself where the horizon is
 * uniform, else from the end of the chunk. */
static void run_back(interpreted *net, size_t first, size_t steps, double *gradient)
{
    const size_t K = (size_t)net->spec->K, unit = net->spec->truncation == BPTT_TRUNCATION_UNIFORM ? 1 : steps - first;
    for (size_t from = first; from < steps; from += unit) {
        const size_t end = from + unit;
        memset(net->carry, 0, net->it.state_size * sizeof *net->carry);
        for (size_t t = end; t-- > 0 && t + K >= end;) {
            bptt_interpret_back(&net->it, t, t >= from, net->carry, NULL, net->carry, gradient);
        }
    }
}

/* All sequences of a chunk forward, and back where there is a `gradient` to add to.  With blocks they run again from their first step,
 * with the present parameters.  Returns the sum of the losses. */
static double run_chunk(interpreted *net, void *memory, const bptt_rows *rows, uint32_t chunk, double *gradient, size_t *labels)
{
    const bptt_model *self = &net->model;
    const size_t before = (size_t)chunk * self->chunk_steps, rest = self->steps - before, S = net->it.state_size;
    const size_t steps = rest < self->chunk_steps ? rest : self->chunk_steps;
    const size_t first = net->spec->truncation == BPTT_TRUNCATION_BLOCK ? before : 0;
    double sum = 0;
    *labels = 0;
    for (size_t b = 0; b < self->batch; b++) {
        const bptt_rows all = bptt_rows_from(&net->one, &net->rows, b * net->room), to = bptt_rows_from(&net->one, &all, first);
        uint8_t *const starts = net->starts + b * net->room;
        double *const start = net->start + b * S;
        const bptt_sequence sequence = {first + steps, all.x, all.y, all.v, all.d, starts};
        *labels += bptt_rows_sequence(net->spec, rows, b, before, steps, &to);
        for (size_t t = 0; t < steps; t++) { starts[first + t] = rows->reset != NULL && rows->reset[t * self->batch + b] != 0; }
        if (chunk == 0 && !net->spec->carry) { starts[0] = 1; }
        if (first == 0) { move_state(self, memory, b, start, false); }
        bptt_interpret_forward(&net->it, &sequence, start, net->losses);
        bptt_interpret_state(&net->it, sequence.steps - 1, net->state);
        move_state(self, memory, b, net->state, true);
        double part = 0; /* by itself: less is rounded, which differences of the loss would see */
        for (size_t t = first; t < sequence.steps; t++) { part += net->losses[t]; }
        sum += part;
        if (gradient != NULL) { run_back(net, first, sequence.steps, gradient); }
    }
    return sum;
}

/* What sums are multiplied with in the spec's reduction. */
static double share_of(const bptt_spec *spec, size_t labels)
{
    return spec->reduction == BPTT_MEAN && labels > 0 ? 1 / (double)labels : 1;
}

static double loss(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    interpreted *net = net_of(self);
    size_t labels = 0;
    if (chunk == 0 && !net->spec->carry) { reset(self, memory); }
    const double sum = run_chunk(net, memory, rows, chunk, NULL, &labels);
    return sum * share_of(net->spec, labels);
}

static double gradient(const bptt_model *self, void *memory, const bptt_rows *rows, uint32_t chunk)
{
    interpreted *net = net_of(self);
    double *block = block_of(memory, self->grad);
    size_t labels = 0;
    if (chunk == 0 && !net->spec->carry) { reset(self, memory); }
    memset(net->flat, 0, net->it.param_size * sizeof *net->flat);
    const double sum = run_chunk(net, memory, rows, chunk, net->flat, &labels);
    for (size_t i = 0; i < net->it.param_size; i++) { net->flat[i] *= share_of(net->spec, labels); }
    for (uint32_t p = 0; p < self->tensor_count; p++) {
        const bptt_tensor *tensor = &self->tensors[p];
        transpose(net->flat + net->it.param_at[p], tensor->cols, tensor->rows, block + tensor->offset);
    }
    return sum * share_of(net->spec, labels);
}

/* --- opening ------------------------------------------------------------------------------------------------------------------- */

static void set_tensors(interpreted *net)
{
    bptt_model *model = &net->model;
    const bptt_graph *g = &net->graph;
    for (int p = 0; p < g->param_count; p++) {
        const bptt_node *node = &g->nodes[g->params[p].node];
        const uint32_t inputs = node->cols > 0 ? (uint32_t)node->cols : 1, outputs = (uint32_t)node->rows;
        net->tensors[p] = (bptt_tensor){.name = node->name, .rank = node->cols > 0 ? 2 : 1, .rows = inputs, .cols = outputs};
        net->tensors[p].file = g->params[p].file;
        net->tensors[p].stride = outputs;
        net->tensors[p].offset = net->it.param_at[p];
    }
    size_t at = 0;
    for (int s = 0; s < g->state_count; s++) {
        const bptt_node *node = &g->nodes[g->states[s].node];
        net->states[s] = (bptt_tensor){.name = node->name, .rank = 2, .rows = model->batch, .cols = (uint32_t)node->rows};
        net->states[s].stride = (uint32_t)node->rows;
        net->states[s].offset = at;
        at += (size_t)node->rows * model->batch;
    }
    model->tensors = net->tensors;
    model->tensor_count = (uint32_t)g->param_count;
    model->states = net->states;
    model->state_count = (uint32_t)g->state_count;
    model->parameters = model->block = net->it.param_size;
    model->grad = model->block * sizeof(double);
    model->state = 2 * model->grad;
    model->bytes = model->state + (at + 1) * sizeof(double);
}

static void set_model(interpreted *net)
{
    const bptt_spec *spec = net->spec;
    bptt_model *model = &net->model;
    *model = (bptt_model){.abi = BPTT_ABI, .real_size = sizeof(double), .name = spec->name, .digest = spec->digest};
    model->hidden = (uint32_t)spec->hidden;
    model->vocab = (uint32_t)spec->vocab;
    model->steps = (uint32_t)spec->T;
    model->horizon = (uint32_t)spec->K;
    model->chunk_steps = (uint32_t)bptt_spec_chunk(spec);
    model->batch = (uint32_t)spec->batch;
    model->inputs = (uint32_t)spec->inputs;
    model->targets = (uint32_t)spec->outputs;
    model->chunks = (model->steps + model->chunk_steps - 1) / model->chunk_steps;
    model->init = init;
    model->reset = reset;
    model->refresh = refresh;
    model->gradient = gradient;
    model->loss = loss;
    set_tensors(net);
}

bool bptt_interpreted_has_kinks(const bptt_program *program)
{
    const bptt_graph *g = &((const interpreted *)program->hidden)->graph;
    bool found = false;
    for (int n = 0; n < g->forward && !found; n++) {
        switch (g->nodes[n].op) {
        case BPTT_OP_RELU:
        case BPTT_OP_ABS:
        case BPTT_OP_MIN:
        case BPTT_OP_MAX:
        case BPTT_OP_FLOOR:
            found = true;
            break;
        default:
            break;
        }
    }
    return found;
}

static void close_interpreted(bptt_program *program)
{
    interpreted *net = program->hidden;
    bptt_interpreter_close(&net->it);
    bptt_graph_free(&net->graph);
    bptt_rows_free(&net->rows);
    free(net->starts);
    free(net->losses);
    free(net->start);
    free(net->state);
    free(net->carry);
    free(net->flat);
    free(net);
}

static bptt_status allocate(interpreted *net, bptt_error *error)
{
    const size_t B = (size_t)net->spec->batch, S = net->it.state_size + 1;
    net->one = *net->spec;
    net->one.batch = 1;
    net->starts = calloc(B * net->room, sizeof *net->starts);
    net->losses = calloc(net->room, sizeof(double));
    net->start = calloc(B * S, sizeof(double));
    net->state = calloc(S, sizeof(double));
    net->carry = calloc(S, sizeof(double));
    net->flat = calloc(net->it.param_size + 1, sizeof(double));
    if (net->starts == NULL || net->losses == NULL || net->start == NULL || net->state == NULL || net->carry == NULL ||
        net->flat == NULL) {
        return bptt_fail(error, BPTT_FAILED, "%s: no memory to interpret %zu parameters", net->spec->name, net->it.param_size);
    }
    return bptt_rows_new(&net->one, B * net->room, &net->rows, error);
}

bptt_status bptt_interpreted_open(const bptt_spec *spec, bptt_program *program, bptt_error *error)
{
    interpreted *net = calloc(1, sizeof *net);
    if (net == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory to interpret its graph", spec->name); }
    *program = (bptt_program){.model = &net->model, .backend = "interpreter", .hidden = net, .close = close_interpreted};
    net->spec = spec;
    net->room = (size_t)(spec->truncation == BPTT_TRUNCATION_CHUNK ? spec->K : spec->T);
    bptt_status status = bptt_trace(spec, &net->graph, error);
    if (status == BPTT_OK) { status = bptt_derive(&net->graph, error); }
    if (status == BPTT_OK) { status = bptt_interpreter_open(&net->it, &net->graph, net->room, error); }
    if (status == BPTT_OK) { status = allocate(net, error); }
    if (status == BPTT_OK) {
        set_model(net);
    } else {
        bptt_program_close(program);
        *program = (bptt_program){.model = NULL};
    }
    return status;
}
