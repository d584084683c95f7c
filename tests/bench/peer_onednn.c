/* peer_onednn.c: oneDNN's vanilla_rnn, lbr_gru and lstm, forward training and backward, with its products for the output layer.
 *
 * lbr_gru ("linear before reset") is PyTorch's gru, second bias of the candidate and all, with gates in the order z, r, n.
 * The primitive takes its input as a dense row, but a token is a row of W_xh.  There are two honest ways round that:
 *   one-hot   the input is the one-hot row itself, V wide; the primitive multiplies by W_xh
 *   gathered  the input is the row of W_xh that the token picks, G H wide, through an identity
 * For each the weights may stay rows or take the format that the primitive would like (a reorder a step, since the update needs
 * rows), and the output layer may be matmul or inner_product.  Opening the peer times them all on the task and keeps the fastest.
 * PEERS_VERBOSE=1 prints these times.  (peer_gemm.c is the peer that does without the RNN primitives.)
 * The first state is given although it is zero: without one, 2.6 computes a wrong gradient of W_hh.
 * Primitives, memories and reorders are made once.  Depends on dnnl.h, C API, 2.6.
 */
#include "peer_net.h"

#include "../../runtime/machine.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { ONE_HOT, GATHERED } input_way;

typedef struct arrangement {
    input_way input;
    bool any;   /* the primitive chooses the format of its weights */
    bool inner; /* output layer: inner_product, else matmul */
    const char *text;
} arrangement;

static const arrangement arrangements[] = {
    {ONE_HOT, false, false, "one-hot, rows, matmul"},        {ONE_HOT, false, true, "one-hot, rows, inner_product"},
    {ONE_HOT, true, false, "one-hot, own format, matmul"},   {ONE_HOT, true, true, "one-hot, own format, inner_product"},
    {GATHERED, false, false, "gathered, rows, matmul"},      {GATHERED, false, true, "gathered, rows, inner_product"},
    {GATHERED, true, false, "gathered, own format, matmul"}, {GATHERED, true, true, "gathered, own format, inner_product"},
};
enum { ARRANGEMENTS = sizeof arrangements / sizeof arrangements[0], MAX_OPS = 32, MAX_ARGS = 20, MAX_MEMORIES = 96 };

typedef struct op {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MAX_ARGS];
    int count;
} op;

/* A weight in a primitive's format. */
typedef struct copy {
    const float *data;
    dnnl_memory_t memory;
    dnnl_memory_desc_t desc;
} copy;

typedef struct onednn {
    peer_net net;
    uint64_t next;
    const arrangement *way;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_status_t status; /* the first failure; nothing is done after it */
    const char *at;       /* where it was */
    op ops[MAX_OPS];
    int count, forward; /* ops[0 .. forward - 1] come before the softmax, the others after it */
    dnnl_memory_t memories[MAX_MEMORIES];
    int memory_count;
    copy copies[8];
    int copy_count;
    dnnl_memory_t workspace;
    float *input, *input_adjoint; /* [T B][input width] */
    float *zero_state;            /* lstm: c before the first step [B][H] */
    float *state_adjoint;         /* of the states before the first step, h and c [2][B][H] */
    float *identity, *ignored;    /* gathered: the input's weights [G H][G H] and their gradient */
    uint32_t *hot;                /* one-hot: the tokens that `input` holds */
} onednn;

/* ---- descriptors, memories ---- */

static bool ok(onednn *d, dnnl_status_t status, const char *at)
{
    if (d->status == dnnl_success && status != dnnl_success) {
        d->status = status;
        d->at = at;
    }
    return d->status == dnnl_success;
}

/* f32, dense in the order of `tag`. */
static dnnl_memory_desc_t describe(onednn *d, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc;
    memset(&desc, 0, sizeof desc);
    (void)ok(d, dnnl_memory_desc_init_by_tag(&desc, rank, dims, dnnl_f32, tag), "a memory descriptor");
    return desc;
}

static dnnl_memory_t new_memory(onednn *d, const dnnl_memory_desc_t *desc, void *data)
{
    dnnl_memory_t memory = NULL;
    if (d->memory_count == MAX_MEMORIES) { (void)ok(d, dnnl_out_of_memory, "MAX_MEMORIES"); }
    if (d->status != dnnl_success) { return NULL; }
    if (ok(d, dnnl_memory_create(&memory, desc, d->engine, data), "a memory")) { d->memories[d->memory_count++] = memory; }
    return memory;
}

/* ---- primitives ---- */

typedef enum { DATA, WEIGHT, CONSTANT, RESULT } argument_role;

/* An argument as our code holds it. */
typedef struct argument {
    int index; /* DNNL_ARG_... */
    argument_role role;
    float *data;
    dnnl_memory_desc_t desc;
} argument;

static op *new_op(onednn *d, const_dnnl_primitive_desc_t pd)
{
    if (d->count == MAX_OPS) { (void)ok(d, dnnl_out_of_memory, "MAX_OPS"); }
    if (d->status != dnnl_success) { return NULL; }
    op *o = &d->ops[d->count];
    if (!ok(d, dnnl_primitive_create(&o->primitive, pd), "a primitive")) { return NULL; }
    d->count++;
    return o;
}

static void give(op *o, int index, dnnl_memory_t memory)
{
    o->args[o->count++] = (dnnl_exec_arg_t){index, memory};
}

static void add_reorder(onednn *d, const dnnl_memory_desc_t *from, dnnl_memory_t source, const dnnl_memory_desc_t *to,
                        dnnl_memory_t target)
{
    dnnl_primitive_desc_t pd = NULL;
    if (d->status != dnnl_success) { return; }
    if (!ok(d, dnnl_reorder_primitive_desc_create(&pd, from, d->engine, to, d->engine, NULL), "a reorder")) { return; }
    op *o = new_op(d, pd);
    if (o != NULL) {
        give(o, DNNL_ARG_FROM, source);
        give(o, DNNL_ARG_TO, target);
    }
    (void)dnnl_primitive_desc_destroy(pd);
}

/* The memory to be given for `a` when the primitive wants it as `wanted`; a reorder goes before the primitive when it must.
 * A reordered result comes back through *later, to be reordered after it. */
static dnnl_memory_t bind(onednn *d, const argument *a, const dnnl_memory_desc_t *wanted, dnnl_memory_t *later)
{
    if (dnnl_memory_desc_equal(&a->desc, wanted)) { return new_memory(d, wanted, a->data); }
    for (int i = 0; i < d->copy_count && a->role == WEIGHT; i++) {
        if (d->copies[i].data == a->data && dnnl_memory_desc_equal(&d->copies[i].desc, wanted)) { return d->copies[i].memory; }
    }
    dnnl_memory_t own = new_memory(d, wanted, DNNL_MEMORY_ALLOCATE);
    if (a->role == RESULT) {
        *later = own;
        return own;
    }
    add_reorder(d, &a->desc, new_memory(d, &a->desc, a->data), wanted, own);
    if (a->role == WEIGHT && d->copy_count < 8) { d->copies[d->copy_count++] = (copy){a->data, own, *wanted}; }
    if (a->role == CONSTANT && d->status == dnnl_success) { /* once is enough */
        op *o = &d->ops[--d->count];
        (void)ok(d, dnnl_primitive_execute(o->primitive, d->stream, o->count, o->args), "a reorder");
        (void)dnnl_stream_wait(d->stream);
        (void)dnnl_primitive_destroy(o->primitive);
        *o = (op){.primitive = NULL};
    }
    return own;
}

/* Appends the primitive and its reorders; takes pd.  `workspace`: it has one. */
static void add_primitive(onednn *d, dnnl_primitive_desc_t pd, const argument *arguments, int count, bool workspace)
{
    dnnl_memory_t given[MAX_ARGS] = {NULL}, later[MAX_ARGS] = {NULL};
    for (int i = 0; i < count && d->status == dnnl_success; i++) {
        const dnnl_memory_desc_t *wanted = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[i].index);
        given[i] = bind(d, &arguments[i], wanted, &later[i]);
    }
    op *o = new_op(d, pd);
    for (int i = 0; i < count && o != NULL; i++) { give(o, arguments[i].index, given[i]); }
    if (workspace && o != NULL) { give(o, DNNL_ARG_WORKSPACE, d->workspace); }
    for (int i = 0; i < count && d->status == dnnl_success; i++) {
        if (later[i] == NULL) { continue; }
        const dnnl_memory_desc_t *own = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[i].index);
        add_reorder(d, own, later[i], &arguments[i].desc, new_memory(d, &arguments[i].desc, arguments[i].data));
    }
    (void)dnnl_primitive_desc_destroy(pd);
}

static dnnl_primitive_desc_t choose(onednn *d, const_dnnl_op_desc_t desc, const_dnnl_primitive_desc_t hint, const char *what)
{
    dnnl_primitive_desc_t pd = NULL;
    if (d->status == dnnl_success) { (void)ok(d, dnnl_primitive_desc_create(&pd, desc, NULL, d->engine, hint), what); }
    return pd;
}

/* ---- the recurrence ---- */

typedef struct rnn_shapes {
    dnnl_memory_desc_t src, state, dst, layer, iter, bias, any_layer, any_iter;
    dnnl_primitive_desc_t forward;
    argument_role layer_role;
    float *W_layer, *dW_layer;
} rnn_shapes;

static size_t input_width(const onednn *d)
{
    return d->way->input == ONE_HOT ? d->net.task->vocab : d->net.width;
}

static rnn_shapes make_shapes(onednn *d)
{
    const peer_task *task = d->net.task;
    const dnnl_dim_t H = (dnnl_dim_t)task->hidden, T = (dnnl_dim_t)task->steps, B = (dnnl_dim_t)task->batch;
    const dnnl_dim_t S = (dnnl_dim_t)input_width(d), G = (dnnl_dim_t)task->gates;
    const dnnl_dims_t src = {T, B, S}, dst = {T, B, H}, layer = {1, 1, S, G, H}, iter = {1, 1, H, G, H},
                      bias = {1, 1, (dnnl_dim_t)task->biases, H}, state = {1, 1, B, H};
    const bool one_hot = d->way->input == ONE_HOT;
    rnn_shapes s = {.forward = NULL};
    s.src = describe(d, 3, src, dnnl_abc);
    s.state = describe(d, 4, state, dnnl_abcd);
    s.dst = describe(d, 3, dst, dnnl_abc);
    s.layer = describe(d, 5, layer, dnnl_abcde);
    s.iter = describe(d, 5, iter, dnnl_abcde);
    s.bias = describe(d, 4, bias, dnnl_abcd);
    s.any_layer = describe(d, 5, layer, dnnl_format_tag_any);
    s.any_iter = describe(d, 5, iter, dnnl_format_tag_any);
    s.layer_role = one_hot ? WEIGHT : CONSTANT;
    s.W_layer = one_hot ? d->net.param.W_xh : d->identity;
    s.dW_layer = one_hot ? d->net.grad.W_xh : d->ignored;
    return s;
}

/* The forward primitive of the task's cell, its weights as `layer` and `iter` say. */
static dnnl_status_t describe_forward(bptt_cell cell, const rnn_shapes *s, const dnnl_memory_desc_t *layer,
                                      const dnnl_memory_desc_t *iter, dnnl_rnn_desc_t *desc)
{
    const dnnl_prop_kind_t kind = dnnl_forward_training;
    const dnnl_rnn_direction_t to = dnnl_unidirectional_left2right;
    switch (cell) {
    case BPTT_CELL_GRU:
        return dnnl_lbr_gru_forward_desc_init(desc, kind, to, &s->src, &s->state, layer, iter, &s->bias, &s->dst, NULL, 0);
    case BPTT_CELL_LSTM:
        return dnnl_lstm_forward_desc_init(desc, kind, to, &s->src, &s->state, &s->state, layer, iter, &s->bias, &s->dst, NULL,
                                           NULL, 0);
    case BPTT_CELL_RNN:
        break;
    }
    return dnnl_vanilla_rnn_forward_desc_init(desc, kind, dnnl_eltwise_tanh, to, &s->src, &s->state, layer, iter, &s->bias,
                                              &s->dst, NULL, 0, 0, 0);
}

/* The backward primitive chooses the format of its weights; their gradients are rows. */
static dnnl_status_t describe_backward(bptt_cell cell, const rnn_shapes *s, dnnl_rnn_desc_t *desc)
{
    const dnnl_rnn_direction_t to = dnnl_unidirectional_left2right;
    const dnnl_memory_desc_t *layer = &s->any_layer, *iter = &s->any_iter, *state = &s->state;
    switch (cell) {
    case BPTT_CELL_GRU:
        return dnnl_lbr_gru_backward_desc_init(desc, dnnl_backward, to, &s->src, state, layer, iter, &s->bias, &s->dst, NULL,
                                               &s->src, state, &s->layer, &s->iter, &s->bias, &s->dst, NULL, 0);
    case BPTT_CELL_LSTM:
        return dnnl_lstm_backward_desc_init(desc, dnnl_backward, to, &s->src, state, state, layer, iter, &s->bias, &s->dst, NULL,
                                            NULL, &s->src, state, state, &s->layer, &s->iter, &s->bias, &s->dst, NULL, NULL, 0);
    case BPTT_CELL_RNN:
        break;
    }
    return dnnl_vanilla_rnn_backward_desc_init(desc, dnnl_backward, dnnl_eltwise_tanh, to, &s->src, state, layer, iter, &s->bias,
                                               &s->dst, NULL, &s->src, state, &s->layer, &s->iter, &s->bias, &s->dst, NULL, 0, 0,
                                               0);
}

static void add_rnn_forward(onednn *d, rnn_shapes *s)
{
    const bptt_cell cell = d->net.task->spec.cell;
    const bool any = d->way->any;
    dnnl_rnn_desc_t desc;
    (void)ok(d, describe_forward(cell, s, any ? &s->any_layer : &s->layer, any ? &s->any_iter : &s->iter, &desc), "rnn forward");
    s->forward = choose(d, &desc, NULL, "rnn forward");
    if (d->status != dnnl_success) { return; }
    d->workspace = new_memory(d, dnnl_primitive_desc_query_md(s->forward, dnnl_query_workspace_md, 0), DNNL_MEMORY_ALLOCATE);
    const argument arguments[] = {
        {DNNL_ARG_SRC_LAYER, DATA, d->input, s->src},
        {DNNL_ARG_SRC_ITER, DATA, d->net.h, s->state},
        {DNNL_ARG_WEIGHTS_LAYER, s->layer_role, s->W_layer, s->layer},
        {DNNL_ARG_WEIGHTS_ITER, WEIGHT, d->net.param.W_hh, s->iter},
        {DNNL_ARG_BIAS, DATA, d->net.param.b_h, s->bias},
        {DNNL_ARG_DST_LAYER, RESULT, d->net.h + d->net.task->batch * d->net.task->hidden, s->dst},
        {DNNL_ARG_SRC_ITER_C, DATA, d->zero_state, s->state}, /* lstm */
    };
    const int count = sizeof arguments / sizeof arguments[0] - (cell == BPTT_CELL_LSTM ? 0 : 1);
    dnnl_primitive_desc_t pd = NULL;
    (void)ok(d, dnnl_primitive_desc_clone(&pd, s->forward), "rnn forward");
    add_primitive(d, pd, arguments, count, true);
}

static void add_rnn_backward(onednn *d, rnn_shapes *s)
{
    const bptt_cell cell = d->net.task->spec.cell;
    const size_t n = d->net.task->batch * d->net.task->hidden;
    dnnl_rnn_desc_t desc;
    (void)ok(d, describe_backward(cell, s, &desc), "rnn backward");
    dnnl_primitive_desc_t pd = choose(d, &desc, s->forward, "rnn backward");
    const argument arguments[] = {
        {DNNL_ARG_SRC_LAYER, DATA, d->input, s->src},
        {DNNL_ARG_SRC_ITER, DATA, d->net.h, s->state},
        {DNNL_ARG_WEIGHTS_LAYER, s->layer_role, s->W_layer, s->layer},
        {DNNL_ARG_WEIGHTS_ITER, WEIGHT, d->net.param.W_hh, s->iter},
        {DNNL_ARG_BIAS, DATA, d->net.param.b_h, s->bias},
        {DNNL_ARG_DST_LAYER, DATA, d->net.h + n, s->dst},
        {DNNL_ARG_DIFF_DST_LAYER, DATA, d->net.d, s->dst},
        {DNNL_ARG_DIFF_SRC_LAYER, RESULT, d->input_adjoint, s->src},
        {DNNL_ARG_DIFF_SRC_ITER, RESULT, d->state_adjoint, s->state},
        {DNNL_ARG_DIFF_WEIGHTS_LAYER, RESULT, s->dW_layer, s->layer},
        {DNNL_ARG_DIFF_WEIGHTS_ITER, RESULT, d->net.grad.W_hh, s->iter},
        {DNNL_ARG_DIFF_BIAS, RESULT, d->net.grad.b_h, s->bias},
        {DNNL_ARG_SRC_ITER_C, DATA, d->zero_state, s->state}, /* lstm, and the next */
        {DNNL_ARG_DIFF_SRC_ITER_C, RESULT, d->state_adjoint + n, s->state},
    };
    const int count = sizeof arguments / sizeof arguments[0] - (cell == BPTT_CELL_LSTM ? 0 : 2);
    add_primitive(d, pd, arguments, count, true);
}

/* ---- the output layer ---- */

typedef struct matrix {
    float *data;
    size_t rows, cols;
    bool turned; /* it is the transpose of [cols][rows] at `data` */
} matrix;

static argument matrix_argument(onednn *d, int index, argument_role role, matrix m)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)m.rows, (dnnl_dim_t)m.cols};
    return (argument){index, role, m.data, describe(d, 2, dims, m.turned ? dnnl_ba : dnnl_ab)};
}

static void add_matmul(onednn *d, matrix a, matrix b, float *bias, matrix c)
{
    dnnl_matmul_desc_t desc;
    const argument arguments[] = {
        matrix_argument(d, DNNL_ARG_SRC, DATA, a),
        matrix_argument(d, DNNL_ARG_WEIGHTS, DATA, b),
        matrix_argument(d, DNNL_ARG_DST, RESULT, c),
        matrix_argument(d, DNNL_ARG_BIAS, DATA, (matrix){bias, 1, c.cols, false}),
    };
    (void)ok(d,
             dnnl_matmul_desc_init(&desc, &arguments[0].desc, &arguments[1].desc, bias == NULL ? NULL : &arguments[3].desc,
                                   &arguments[2].desc),
             "matmul");
    add_primitive(d, choose(d, &desc, NULL, "matmul"), arguments, bias == NULL ? 3 : 4, false);
}

/* The output layer in oneDNN's names: source h, weights [V][H], which are the transpose of W_hy, destination o. */
typedef struct inner_shapes {
    argument h, W, bias, o, dh, dW, db, dO;
    dnnl_memory_desc_t any_W, any_h, any_o;
    dnnl_primitive_desc_t forward;
} inner_shapes;

static inner_shapes make_inner(onednn *d)
{
    const size_t H = d->net.task->hidden, V = d->net.task->vocab, rows = d->net.rows;
    const dnnl_dims_t W = {(dnnl_dim_t)V, (dnnl_dim_t)H}, bias = {(dnnl_dim_t)V}, h = {(dnnl_dim_t)rows, (dnnl_dim_t)H};
    const dnnl_dims_t o = {(dnnl_dim_t)rows, (dnnl_dim_t)V};
    inner_shapes s = {.forward = NULL};
    s.h = matrix_argument(d, DNNL_ARG_SRC, DATA, (matrix){d->net.h + d->net.task->batch * H, rows, H, false});
    s.W = matrix_argument(d, DNNL_ARG_WEIGHTS, WEIGHT, (matrix){d->net.param.W_hy, V, H, true});
    s.o = matrix_argument(d, DNNL_ARG_DST, RESULT, (matrix){d->net.o, rows, V, false});
    s.bias = (argument){DNNL_ARG_BIAS, DATA, d->net.param.b_y, describe(d, 1, bias, dnnl_a)};
    s.dh = matrix_argument(d, DNNL_ARG_DIFF_SRC, RESULT, (matrix){d->net.d, rows, H, false});
    s.dW = matrix_argument(d, DNNL_ARG_DIFF_WEIGHTS, RESULT, (matrix){d->net.grad.W_hy, V, H, true});
    s.dO = matrix_argument(d, DNNL_ARG_DIFF_DST, DATA, (matrix){d->net.o, rows, V, false});
    s.db = (argument){DNNL_ARG_DIFF_BIAS, RESULT, d->net.grad.b_y, describe(d, 1, bias, dnnl_a)};
    s.any_W = describe(d, 2, W, dnnl_format_tag_any);
    s.any_h = describe(d, 2, h, dnnl_format_tag_any);
    s.any_o = describe(d, 2, o, dnnl_format_tag_any);
    return s;
}

static void add_inner_forward(onednn *d, inner_shapes *s)
{
    dnnl_inner_product_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    (void)ok(d,
             dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_training, &s->any_h, &s->any_W, &s->bias.desc, &s->any_o),
             "inner_product");
    s->forward = choose(d, &desc, NULL, "inner_product");
    if (d->status != dnnl_success) { return; }
    (void)ok(d, dnnl_primitive_desc_clone(&pd, s->forward), "inner_product");
    add_primitive(d, pd, (argument[]){s->h, s->W, s->bias, s->o}, 4, false);
}

static void add_inner_backward(onednn *d, inner_shapes *s)
{
    dnnl_inner_product_desc_t desc;
    (void)ok(d, dnnl_inner_product_backward_data_desc_init(&desc, &s->any_h, &s->any_W, &s->any_o), "inner_product backward");
    dnnl_primitive_desc_t pd = choose(d, &desc, s->forward, "inner_product backward");
    add_primitive(d, pd, (argument[]){s->dh, s->W, s->dO}, 3, false);
    (void)ok(d, dnnl_inner_product_backward_weights_desc_init(&desc, &s->any_h, &s->any_W, &s->db.desc, &s->any_o),
             "inner_product backward");
    pd = choose(d, &desc, s->forward, "inner_product backward");
    add_primitive(d, pd, (argument[]){s->h, s->dW, s->db, s->dO}, 4, false);
}

/* ---- one arrangement ---- */

static void add_all(onednn *d)
{
    const size_t H = d->net.task->hidden, V = d->net.task->vocab, rows = d->net.rows;
    const matrix h = {d->net.h + d->net.task->batch * H, rows, H, false}, o = {d->net.o, rows, V, false};
    const matrix W = {d->net.param.W_hy, H, V, false}, dh = {d->net.d, rows, H, false}, dW = {d->net.grad.W_hy, H, V, false};
    rnn_shapes shapes = make_shapes(d);
    inner_shapes inner = make_inner(d);

    add_rnn_forward(d, &shapes);
    if (d->way->inner) {
        add_inner_forward(d, &inner);
    } else {
        add_matmul(d, h, W, d->net.param.b_y, o);
    }
    d->forward = d->count;
    if (d->way->inner) {
        add_inner_backward(d, &inner);
    } else {
        add_matmul(d, o, (matrix){W.data, V, H, true}, NULL, dh);
        add_matmul(d, (matrix){h.data, H, rows, true}, o, NULL, dW);
    }
    add_rnn_backward(d, &shapes);
    (void)dnnl_primitive_desc_destroy(shapes.forward);
    (void)dnnl_primitive_desc_destroy(inner.forward);
}

static bool open_buffers(onednn *d)
{
    const size_t n = d->net.task->batch * d->net.task->hidden, width = d->net.width;
    d->input = peer_floats(d->net.rows * input_width(d));
    d->input_adjoint = peer_floats(d->net.rows * input_width(d));
    d->zero_state = peer_floats(n);
    d->state_adjoint = peer_floats(2 * n);
    d->identity = peer_floats(width * width);
    d->ignored = peer_floats(width * width);
    d->hot = calloc(d->net.rows, sizeof *d->hot);
    if (d->input == NULL || d->input_adjoint == NULL || d->zero_state == NULL || d->state_adjoint == NULL ||
        d->identity == NULL || d->ignored == NULL || d->hot == NULL) {
        return false;
    }
    for (size_t i = 0; i < width; i++) { d->identity[i * width + i] = 1; }
    return true;
}

/* PyTorch's r, z, n become z, r, n.  (All biases are 0.) */
static void order_gates(const peer_net *net)
{
    const size_t H = net->task->hidden, rows = net->task->vocab + H; /* W_hh follows W_xh */
    for (size_t row = 0; row < rows; row++) {
        float *r = net->param.W_xh + row * net->width, *z = r + H;
        for (size_t j = 0; j < H; j++) {
            const float kept = r[j];
            r[j] = z[j];
            z[j] = kept;
        }
    }
}

static bptt_status open_way(onednn *d, const peer_task *task, const arrangement *way, bptt_error *error)
{
    *d = (onednn){.way = way};
    if (!peer_net_open(&d->net, task)) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    if (task->spec.cell == BPTT_CELL_GRU) { order_gates(&d->net); }
    if (!open_buffers(d)) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    (void)ok(d, dnnl_engine_create(&d->engine, dnnl_cpu, 0), "an engine");
    if (d->engine != NULL) {
        (void)ok(d, dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags), "a stream");
        add_all(d);
    }
    if (d->status == dnnl_success) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "oneDNN: %s, %s: status %d", way->text, d->at, (int)d->status);
}

static void close_way(onednn *d)
{
    for (int i = 0; i < d->count; i++) { (void)dnnl_primitive_destroy(d->ops[i].primitive); }
    for (int i = 0; i < d->memory_count; i++) { (void)dnnl_memory_destroy(d->memories[i]); }
    if (d->stream != NULL) { (void)dnnl_stream_destroy(d->stream); }
    if (d->engine != NULL) { (void)dnnl_engine_destroy(d->engine); }
    peer_net_close(&d->net);
    free(d->input);
    free(d->input_adjoint);
    free(d->zero_state);
    free(d->state_adjoint);
    free(d->identity);
    free(d->ignored);
    free(d->hot);
}

/* ---- a step ---- */

static void execute(onednn *d, int from, int to)
{
    for (int i = from; i < to; i++) {
        (void)ok(d, dnnl_primitive_execute(d->ops[i].primitive, d->stream, d->ops[i].count, d->ops[i].args), "a step");
    }
    (void)ok(d, dnnl_stream_wait(d->stream), "a step");
}

static void set_input(onednn *d, const uint32_t *x)
{
    const size_t V = d->net.task->vocab;
    if (d->way->input == GATHERED) {
        peer_gather(d->net.rows, d->net.width, d->net.param.W_xh, NULL, x, d->input);
        return;
    }
    for (size_t r = 0; r < d->net.rows; r++) {
        d->input[r * V + d->hot[r]] = 0;
        d->input[r * V + x[r]] = 1;
        d->hot[r] = x[r];
    }
}

/* The primitive adds to the gradients of its weights. */
static void clear_gradients(onednn *d)
{
    const size_t H = d->net.task->hidden, V = d->net.task->vocab;
    const peer_block *g = &d->net.grad;
    memset(g->W_hh, 0, H * d->net.width * sizeof(float));
    memset(g->b_h, 0, d->net.task->biases * H * sizeof(float));
    if (d->way->input == ONE_HOT) {
        memset(g->W_xh, 0, V * d->net.width * sizeof(float));
    } else {
        peer_net_zero_rows(&d->net);
    }
}

static double step(void *self, const uint32_t *x, const uint32_t *y)
{
    onednn *d = self;
    const size_t V = d->net.task->vocab;
    peer_net_begin(&d->net, x);
    set_input(d, x);
    execute(d, 0, d->forward);
    const double loss = peer_softmax(d->net.rows, V, y, d->net.o);
    if (!d->way->inner) { peer_column_sum(d->net.rows, V, d->net.o, d->net.grad.b_y); }
    clear_gradients(d);
    execute(d, d->forward, d->count);
    if (d->way->input == GATHERED) { peer_scatter(d->net.rows, d->net.width, d->input_adjoint, x, d->net.grad.W_xh); }
    peer_net_update(&d->net, d->way->input == GATHERED);
    return loss;
}

/* ---- the peer ---- */

/* Seconds of a step; a large number for an arrangement that makes no sense here or that the library refuses. */
static double try_way(onednn *d, const peer_task *task, const arrangement *way)
{
    const double never = 1e30;
    const bool silly = (way->input == ONE_HOT && task->vocab > 4 * task->hidden);
    bptt_error error;
    if (silly) { return never; }
    if (open_way(d, task, way, &error) != BPTT_OK) {
        close_way(d);
        return never;
    }
    double best = never, total = 0;
    for (int i = 0; i < 2 || (total < 0.05 && i < 10000); i++) {
        peer_result result = {0};
        peer_steps(task, &d->next, 1, step, d, &result);
        best = result.seconds < best ? result.seconds : best;
        total += result.seconds;
    }
    if (getenv("PEERS_VERBOSE") != NULL) { (void)fprintf(stderr, "onednn: %-40s %12.2f us\n", way->text, best * 1e6); }
    close_way(d);
    return best;
}

static bptt_status peer_open(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error)
{
    (void)kind;
    onednn *d = *self = calloc(1, sizeof *d);
    if (d == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    int best = 0;
    double least = 1e31;
    for (int i = 0; i < ARRANGEMENTS; i++) {
        const double seconds = try_way(d, task, &arrangements[i]);
        if (seconds < least) {
            least = seconds;
            best = i;
        }
    }
    return open_way(d, task, &arrangements[best], error);
}

static bptt_status peer_run(void *self, long steps, peer_result *result, bptt_error *error)
{
    onednn *d = self;
    peer_steps(d->net.task, &d->next, steps, step, d, result);
    return d->status == dnnl_success ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "oneDNN: %s failed: %d", d->at, (int)d->status);
}

static const char *peer_arrangement(const void *self)
{
    return ((const onednn *)self)->way->text;
}

static void peer_close(void *self)
{
    onednn *d = self;
    if (d == NULL) { return; }
    close_way(d);
    free(d);
}

const peer_system peer_onednn = {peer_open, peer_run, peer_arrangement, peer_close};
