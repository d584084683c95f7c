/* generic.c: plain loops with run-time sizes behind the bptt_model interface.  See generic.h.
 *
 * This file lays out the memory and draws the weights; generic_body.h holds the loops, once for float and once for double.
 * Depends on gen/spec.h, templates/abi.h and libm.  Refuses to allocate after bptt_generic_new.
 */
#include "generic.h"

#include "../gen/compile.h"
#include "machine.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

enum { E, W_XH, W_HH, B_H, W_HY, B_Y, TENSORS }; /* E: embedding; tied with it, W_HY is not there */

struct generic {
    bptt_model model;                    /* first: a bptt_model of ours is cast back */
    bptt_tensor tensors[TENSORS], state; /* those that are there */
    int at[TENSORS];                     /* where each is in tensors; -1: not there */
    size_t input, output;                /* reals of x, or V where it is a token; of o */
    bptt_loss loss;
    bptt_output_activation g;
    double smoothing;
    bool tie;
    int stretch_count; /* of steps with a loss */
    int64_t stretches[BPTT_MAX_STRETCHES][2];
    bptt_activation activation;
    bptt_reduction reduction;
    bool carry;
    bptt_optimizer optimizer;
    bptt_schedule schedule;
    bptt_clip clip;
    bptt_init init, init_recurrent;
    char name[BPTT_NAME_MAX], digest[BPTT_DIGEST_SIZE];
    size_t h, p,
        d; /* workspace, bytes from the start: states [K + 1][B][H], logits to dO [K][B][V or Q], dA of two steps [2][B][H] */
};

static const struct generic *generic_of(const bptt_model *self)
{
    return (const struct generic *)self;
}

static double *progress_of(const bptt_model *self, void *memory)
{
    return (double *)(void *)((char *)memory + self->progress);
}

static size_t chunk_steps(const struct generic *net, uint32_t chunk)
{
    const size_t horizon = net->model.horizon, rest = net->model.steps - chunk * horizon;
    return rest < horizon ? rest : horizon;
}

/* How an update changes the gradient on its way to the rule; the gradient itself stays as it is. */
struct cut {
    double scale, limit, decay; /* average and clip by norm; clip by value, infinite: none; weight decay */
};

/* Whether the gradient of a chunk is the first since the last update; counts it, and its labels, when gradients are added up. */
static bool begin_gradient(const struct generic *net, double *progress, uint32_t chunk, size_t labels)
{
    if (net->model.accumulate == 0) { return true; }
    const bool first = progress[BPTT_PENDING] < 1;
    progress[BPTT_PENDING] += first || chunk == 0 || net->model.whole_sequence == 0 ? 1 : 0;
    progress[BPTT_LABELS] += (double)labels;
    return first;
}

/* Whether step t of a chunk has a loss. */
static bool has_loss(const struct generic *net, uint32_t chunk, size_t t)
{
    const int64_t step = (int64_t)chunk * net->model.horizon + (int64_t)t;
    for (int i = 0; i < net->stretch_count; i++) {
        if (step >= net->stretches[i][0] && step < net->stretches[i][1]) { return true; }
    }
    return false;
}

/* The schedules of spec.h. */
static double schedule_factor(const bptt_schedule *s, double n)
{
    switch (s->kind) {
    case BPTT_SCHEDULE_STEP:
        return pow(s->factor, floor(n / s->every));
    case BPTT_SCHEDULE_EXPONENTIAL:
        return pow(s->factor, n);
    case BPTT_SCHEDULE_COSINE:
        return n < s->steps ? s->floor + (1 - s->floor) / 2 * (1 + cos(acos(-1.0) * n / s->steps)) : s->floor;
    default:
        return 1;
    }
}

static double rate(const bptt_model *self, const void *memory)
{
    const struct generic *net = generic_of(self);
    const double *progress = progress_of(self, (void *)(uintptr_t)memory), n = progress[BPTT_UPDATES], w = net->schedule.warmup;
    const double factor = n < w ? (n + 1) / w : schedule_factor(&net->schedule, n - w);
    return net->optimizer.rate * factor * progress[BPTT_REDUCTION];
}

static void observe(const bptt_model *self, void *memory, double loss)
{
    const bptt_schedule *s = &generic_of(self)->schedule;
    double *progress = progress_of(self, memory);
    const bool better = loss < progress[BPTT_BEST] * (1 - s->threshold);
    if (better) { progress[BPTT_BEST] = loss; }
    progress[BPTT_BAD] = better ? 0 : progress[BPTT_BAD] + 1;
    if (progress[BPTT_BAD] > s->patience) {
        progress[BPTT_BAD] = 0;
        progress[BPTT_REDUCTION] *= s->factor;
    }
}

static double draw_weight(const bptt_init *init, uint64_t *state)
{
    if (init->kind != BPTT_INIT_NORMAL) { return init->scale * (2 * bptt_random_unit(state) - 1); }
    for (;;) { /* Marsaglia's polar method; the second value of the pair is dropped to keep no memory between draws */
        const double a = 2 * bptt_random_unit(state) - 1, b = 2 * bptt_random_unit(state) - 1, s = a * a + b * b;
        if (s > 0 && s < 1) { return init->scale * a * sqrt(-2 * log(s) / s); }
    }
}

#define real    float
#define F(name) name##_f32
#include "generic_body.h"
#undef real
#undef F

#define real    double
#define F(name) name##_f64
#include "generic_body.h"
#undef real
#undef F

/* Fails for a size that a 32-bit field of the descriptor cannot hold. */
static bool set_size(uint32_t *field, int64_t size)
{
    if (size < 1 || size > UINT32_MAX) { return false; }
    *field = (uint32_t)size;
    return true;
}

static bool set_sizes(struct generic *net, const bptt_spec *spec)
{
    bptt_model *model = &net->model;
    model->vocab = (uint32_t)spec->vocab; /* these are at most INT32_MAX */
    model->inputs = (uint32_t)spec->inputs;
    model->targets = (uint32_t)spec->outputs;
    net->input = (size_t)bptt_spec_input_size(spec);
    net->output = (size_t)bptt_spec_output_size(spec);
    net->stretch_count = bptt_spec_loss_steps(spec, net->stretches);
    if (!set_size(&model->hidden, spec->hidden) || !set_size(&model->steps, spec->T) || !set_size(&model->horizon, spec->K) ||
        !set_size(&model->batch, spec->batch)) {
        return false;
    }
    model->chunk_steps = model->horizon;
    model->chunks = (uint32_t)((spec->T + spec->K - 1) / spec->K);
    return model->horizon <= model->steps;
}

/* The tensor table and the size of its block. */
static bool set_tensors(struct generic *net, uint32_t embedding)
{
    const uint32_t H = net->model.hidden, input = (uint32_t)net->input, output = (uint32_t)net->output;
    const bptt_tensor tensors[TENSORS] = {
        [E] = {.name = "E",
               .file = "embedding.weight",
               .rank = 2,
               .rows = net->model.vocab,
               .cols = embedding,
               .parts = 1,
               .table = 1},
        [W_XH] = {.name = "W_xh", .file = "rnn.weight_ih_l0", .rank = 2, .rows = input, .cols = H, .parts = 1},
        [W_HH] = {.name = "W_hh", .file = "rnn.weight_hh_l0", .rank = 2, .rows = H, .cols = H, .parts = 1},
        [B_H] = {.name = "b_h", .file = "rnn.bias_ih_l0", .twin = "rnn.bias_hh_l0", .rank = 1, .rows = 1, .cols = H, .parts = 1},
        [W_HY] = {.name = "W_hy", .file = "out.weight", .rank = 2, .rows = H, .cols = output, .parts = 1},
        [B_Y] = {.name = "b_y", .file = "out.bias", .rank = 1, .rows = 1, .cols = output, .parts = 1},
    };
    size_t end = 0;
    for (int i = 0; i < TENSORS; i++) {
        const bool there = i == E ? embedding > 0 : i == W_HY ? !net->tie : true;
        net->at[i] = there ? (int)net->model.tensor_count++ : -1;
        if (!there) { continue; }
        bptt_tensor *tensor = &net->tensors[net->at[i]];
        *tensor = tensors[i];
        size_t count;
        tensor->stride = tensor->cols;
        tensor->offset = end;
        if (__builtin_mul_overflow((size_t)tensor->rows, (size_t)tensor->cols, &count)) { return false; }
        if (__builtin_add_overflow(end, count, &end)) { return false; }
    }
    net->state = (bptt_tensor){.name = "h", .file = "h", .rank = 2, .rows = net->model.batch, .cols = H, .stride = H, .parts = 1};
    net->model.parameters = net->model.block = end;
    return true;
}

/* Appends a section [a][b][c] of elements of `size` bytes, aligned to 64 bytes; *offset is where it begins. */
static bool add_section(size_t *end, size_t *offset, size_t a, size_t b, size_t c, size_t size)
{
    size_t bytes;
    *offset = *end;
    if (__builtin_mul_overflow(a, b, &bytes) || __builtin_mul_overflow(bytes, c, &bytes)) { return false; }
    if (__builtin_mul_overflow(bytes, size, &bytes) || __builtin_add_overflow(bytes, 63, &bytes)) { return false; }
    return !__builtin_add_overflow(*end, bytes & ~(size_t)63, end);
}

static bool set_layout(struct generic *net)
{
    bptt_model *model = &net->model;
    const size_t H = model->hidden, K = model->horizon, B = model->batch, size = model->real_size;
    size_t *end = &model->bytes;
    bool fits =
        add_section(end, &model->param, model->block, 1, 1, size) && add_section(end, &model->grad, model->block, 1, 1, size);
    for (uint32_t i = 0; i < model->moment_count; i++) {
        fits = fits && add_section(end, &model->moment[i], model->block, 1, 1, size);
    }
    return fits && add_section(end, &model->state, B, H, 1, size) &&
           add_section(end, &model->progress, BPTT_PROGRESS, 1, 1, sizeof(double)) &&
           add_section(end, &net->h, K + 1, B, H, size) && add_section(end, &net->p, K * B, net->output, 1, size) &&
           add_section(end, &net->d, 2, B, H, size);
}

bool bptt_generic_has(const bptt_spec *spec)
{
    return spec->cell == BPTT_CELL_RNN && spec->equations == NULL && spec->layers <= 1 &&
           (spec->embedding == 0 || spec->inputs == 0) && spec->h0 == BPTT_H0_ZERO && !spec->resets && !bptt_spec_drops(spec) &&
           spec->truncation == BPTT_TRUNCATION_CHUNK;
}

const bptt_model *bptt_generic_new(const bptt_spec *spec)
{
    static const uint32_t moments[] = {
        [BPTT_MOMENTUM] = 1, [BPTT_ADAGRAD] = 1, [BPTT_RMSPROP] = 1, [BPTT_ADAM] = 2, [BPTT_ADAMW] = 2};
    if (!bptt_generic_has(spec)) { return NULL; }
    struct generic *net = calloc(1, sizeof *net);
    if (net == NULL) { return NULL; }
    net->activation = spec->activation;
    net->reduction = spec->reduction;
    net->loss = spec->loss;
    net->g = spec->output_activation;
    net->smoothing = spec->smoothing;
    net->tie = spec->tie;
    net->carry = spec->carry;
    net->optimizer = spec->optimizer;
    net->schedule = spec->schedule;
    net->clip = spec->clip;
    net->init = spec->init;
    net->init_recurrent = spec->init_recurrent.kind != BPTT_INIT_SAME ? spec->init_recurrent : spec->init;
    memcpy(net->name, spec->name, sizeof net->name);
    memcpy(net->digest, spec->digest, sizeof net->digest);

    bptt_model *model = &net->model;
    model->abi = BPTT_ABI;
    model->real_size = spec->dtype == BPTT_F64 ? sizeof(double) : sizeof(float);
    model->name = net->name;
    model->digest = net->digest;
    model->state_count = 1;
    model->moment_count = moments[spec->optimizer.kind];
    if (bptt_accumulates(spec)) { model->accumulate = (uint32_t)spec->accumulate; }
    model->whole_sequence = model->accumulate > 0 && spec->update == BPTT_UPDATE_SEQUENCE;
    model->progress_count = (uint32_t)bptt_progress_count(spec);
    model->rate = rate;
    if (spec->schedule.kind == BPTT_SCHEDULE_PLATEAU) { model->observe = observe; }
    model->tensors = net->tensors;
    model->states = &net->state;
    if (!set_sizes(net, spec) || !set_tensors(net, (uint32_t)spec->embedding) || !set_layout(net)) {
        free(net);
        return NULL;
    }
    if (spec->dtype == BPTT_F64) {
        bind_f64(model);
    } else {
        bind_f32(model);
    }
    return model;
}

void bptt_generic_free(const bptt_model *model)
{
    free((void *)(uintptr_t)model);
}
