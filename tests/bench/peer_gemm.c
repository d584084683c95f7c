/* peer_gemm.c: the network as loops over somebody's sgemm, the products hoisted out of time where they can be.
 *
 * Two peers: OpenBLAS (cblas_sgemm, cblas_sgemv where there is one row) and oneDNN's dnnl_sgemm.
 */
#include "peer_net.h"

#include <cblas.h>
#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

/* C[m][n] = A B + beta C, rows dense; A is [m][k], or [k][m] when `turn_a`; B is [k][n], or [n][k] when `turn_b`. */
typedef void gemm_function(bool turn_a, bool turn_b, size_t m, size_t n, size_t k, const float *A, const float *B, float beta,
                           float *C);

typedef struct loops {
    peer_net net;
    gemm_function *gemm;
    uint64_t next;
} loops;

static void openblas_gemm(bool turn_a, bool turn_b, size_t m, size_t n, size_t k, const float *A, const float *B, float beta,
                          float *C)
{
    const int M = (int)m, N = (int)n, K = (int)k;
    if (m == 1) {
        const int rows = turn_b ? N : K, cols = turn_b ? K : N;
        cblas_sgemv(CblasRowMajor, turn_b ? CblasNoTrans : CblasTrans, rows, cols, 1, B, cols, A, 1, beta, C, 1);
        return;
    }
    cblas_sgemm(CblasRowMajor, turn_a ? CblasTrans : CblasNoTrans, turn_b ? CblasTrans : CblasNoTrans, M, N, K, 1, A,
                turn_a ? M : K, B, turn_b ? K : N, beta, C, N);
}

static void onednn_gemm(bool turn_a, bool turn_b, size_t m, size_t n, size_t k, const float *A, const float *B, float beta,
                        float *C)
{
    (void)dnnl_sgemm(turn_a ? 'T' : 'N', turn_b ? 'T' : 'N', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1, A,
                     (dnnl_dim_t)(turn_a ? m : k), B, (dnnl_dim_t)(turn_b ? k : n), beta, C, (dnnl_dim_t)n);
}

static bptt_status peer_open(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error)
{
    loops *l = *self = calloc(1, sizeof *l);
    if (l == NULL || !peer_net_open(&l->net, task)) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    l->gemm = strcmp(kind->argument, "openblas") == 0 ? openblas_gemm : onednn_gemm;
    openblas_set_num_threads(1);
    return BPTT_OK;
}

static double step(void *self, const uint32_t *x, const uint32_t *y)
{
    loops *l = self;
    peer_net *net = &l->net;
    gemm_function *gemm = l->gemm;
    const size_t H = net->task->hidden, V = net->task->vocab, T = net->task->steps, B = net->task->batch, n = B * H;
    const peer_block *w = &net->param, *g = &net->grad;
    float *h = net->h + n; /* h + (t - 1) n is the state before step t */
    peer_net_begin(net, x);

    peer_gather(net->rows, H, w->W_xh, w->b_h, x, h);
    for (size_t t = 0; t < T; t++) {
        if (t > 0) { gemm(false, false, B, H, H, h + (t - 1) * n, w->W_hh, 1, h + t * n); }
        peer_tanh(n, h + t * n);
    }
    peer_spread(net->rows, V, w->b_y, net->o);
    gemm(false, false, net->rows, V, H, h, w->W_hy, 1, net->o);
    const double loss = peer_softmax(net->rows, V, y, net->o);

    gemm(false, true, net->rows, H, V, net->o, w->W_hy, 0, net->d);
    for (size_t t = T; t-- > 0;) {
        if (t + 1 < T) { gemm(false, true, B, H, H, net->d + (t + 1) * n, w->W_hh, 1, net->d + t * n); }
        peer_tanh_backward(n, h + t * n, net->d + t * n);
    }
    gemm(true, false, H, V, net->rows, h, net->o, 0, g->W_hy);
    gemm(true, false, H, H, net->rows, net->h, net->d, 0, g->W_hh);
    peer_column_sum(net->rows, V, net->o, g->b_y);
    peer_column_sum(net->rows, H, net->d, g->b_h);
    peer_net_zero_rows(net);
    peer_scatter(net->rows, H, net->d, x, g->W_xh);
    peer_net_update(net, true);
    return loss;
}

static bptt_status peer_run(void *self, long steps, peer_result *result, bptt_error *error)
{
    loops *l = self;
    (void)error;
    peer_steps(l->net.task, &l->next, steps, step, l, result);
    return BPTT_OK;
}

static void peer_close(void *self)
{
    loops *l = self;
    if (l == NULL) { return; }
    peer_net_close(&l->net);
    free(l);
}

const peer_system peer_gemm = {peer_open, peer_run, NULL, peer_close};
