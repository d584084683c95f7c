/* diagnose.h: what happens to the gradient on its way back through time, measured, judged and shown.
 *
 *   diagnose_measure.c  sequences -> figures
 *   diagnose_judge.c    figures -> a verdict and what to try
 *   diagnose_report.c   figures -> text or JSON
 *   diagnose_plot.c     figures -> SVG and PNG, by gnuplot
 *   diagnose.c          the command
 *
 * Depends on interpret.h; knows no cell by name, and no plan, text or backend but where diagnose.c fetches the weights.  All is
 * computed in double, sequence by sequence, with fixed weights: the same input gives the same bits.
 *
 * Notation.  h_t is the state after step t: all states of the cell one after the other.  L_s is the loss of step s, L the loss of a
 * sequence in the spec's reduction (sum, or mean over its labels).  Norms of vectors are 2-norms.
 */
#ifndef BPTT_DIAGNOSE_H
#define BPTT_DIAGNOSE_H

#include "interpret.h"

enum { BPTT_DIAGNOSE_LENGTHS = 34, BPTT_DIAGNOSE_ROWS = 128, BPTT_ADVICE_MAX = 8 };

/* J = dh_{t+n} / dh_t over n steps, one window of each sequence, the windows spread over it. */
typedef struct bptt_jacobian {
    size_t steps;                /* n */
    double norm;                 /* ||J||_2, geometric mean over the windows */
    double least, most;          /* over the windows */
    double rate;                 /* norm^(1/n) */
    unsigned windows, converged; /* converged: the power iteration ended within its tolerance */
    unsigned iterations;         /* most that a window took */
} bptt_jacobian;

/* The gradient of L truncated at K, beside the full one: g_K and g.  Means over the sequences.  It keeps the pairs of a loss and an
 * earlier step that the spec's mode of truncation keeps at that K; with blocks, those of chunks where K is not above the stride. */
typedef struct bptt_truncation {
    size_t K;
    double cosine;       /* g_K . g / (|g_K| |g|), all parameters */
    double ratio;        /* |g_K| / |g| */
    double worst_cosine; /* the least of the parameters' own mean cosines */
    int worst;           /* whose that is, -1: none has a gradient */
} bptt_truncation;

/* Units of a node that the gradient does not pass: shares of all its values. */
typedef struct bptt_activity {
    int node;
    double low, high; /* tanh < -0.99, > 0.99; sigmoid < 0.01, > 0.99; relu: low is exactly 0 */
    double dead;      /* share of the units that are so (relu: exactly 0) in every step of every sequence */
} bptt_activity;

typedef enum { BPTT_HEALTHY, BPTT_VANISHING, BPTT_EXPLODING } bptt_health;

typedef struct bptt_diagnosis {
    const bptt_graph *graph;  /* borrowed */
    size_t steps, horizon;    /* T, K of the spec */
    size_t stride;            /* of the task */
    size_t sequences, labels; /* labels, or numbers of targets, that count */
    double loss;              /* nats per label; per target the squared error, or nats */
    double *state_norms;      /* [T]: |dL/dh_t|, mean over the sequences */
    size_t rows;        /* steps with a loss that were followed back: all, or BPTT_DIAGNOSE_ROWS spread evenly, the last too */
    size_t *loss_steps; /* [rows] */
    double *heat;       /* [rows][T]: |dL_s/dh_{s-lag}|, mean over the sequences; NaN where lag > s */
    double *lags;       /* [T]: mean over the loss steps and sequences; NaN where no loss step reaches so far */
    double peak;        /* largest of lags */
    size_t memory;      /* effective memory horizon: the largest lag whose mean is at least 1 % of the peak */
    size_t memory_e;    /* the same for 1/e of the peak */
    double
        rate; /* growth of |dL_s/dh_{s-lag}| by lag, a step: exp of the slope of log lags, each weighted by its samples; 0: one lag has a gradient */
    bptt_jacobian jacobians[BPTT_DIAGNOSE_LENGTHS]; /* n = 1, 2, 4 ... T */
    size_t jacobian_count;
    bptt_truncation truncations[BPTT_DIAGNOSE_LENGTHS]; /* K = 1, 2, 4 ... T, and the spec's K */
    size_t truncation_count;
    size_t enough;             /* the smallest of these K from which on every cosine is at least 0.95; 0: no gradient */
    bptt_activity *activities; /* one for each tanh, sigmoid, relu of the step */
    size_t activity_count;
    double norm, norm_at_horizon;  /* |gradient of L|, mean over the sequences' gradients: full, and truncated at K */
    double norms[BPTT_MAX_PARAMS]; /* the full one, by parameter */
    bool finite;                   /* no loss or norm was infinite or not a number */
    /* judged */
    bptt_health health;
    char reason[256];
    char advice[BPTT_ADVICE_MAX][192]; /* what to try */
    size_t advice_count;
} bptt_diagnosis;

/* What to measure.  The sequences are one stream: x[sequences * T], v[sequences * T][inputs], y and d likewise, each NULL where the
 * network does not read it; without labels and targets of steps that have no loss. */
typedef struct bptt_diagnose_task {
    size_t sequences, steps, horizon; /* N, T, K */
    size_t stride;                    /* blocks of so many steps, from whose end K counts (uniform: 1); 0: chunks of K */
    bool carry;                       /* the state goes on from sequence to sequence; else each starts from h_0 */
    bool mean;                        /* L is the mean over the labels; else the sum */
    uint64_t seed;                    /* of the power iteration's first vectors */
    const uint32_t *x, *y;
    size_t inputs, targets; /* D, Q */
    const double *v, *d;
    const uint8_t *starts; /* not 0: a document starts; NULL: nowhere */
} bptt_diagnose_task;

/* Fills everything that is measured; the parameters are in `it`, which has room for T steps.  On success the caller frees it. */
bptt_status bptt_diagnose(bptt_interpreter *it, const bptt_diagnose_task *task, bptt_diagnosis *diagnosis, bptt_error *error);
void bptt_diagnosis_free(bptt_diagnosis *diagnosis);

/* Vanishing, exploding or healthy, by these rules, the first that holds:
 *   exploding  a figure is not finite; or the mean |dL_s/dh_{s-lag}| peaks at more than 10 times its value at the shortest lag
 *   vanishing  the effective memory horizon is less than half of the sequence: 2 (memory + 1) < T; or there is no gradient at all
 * and what to try, for a spec that has these fields. */
void bptt_diagnosis_judge(bptt_diagnosis *diagnosis, const bptt_spec *spec);
const char *bptt_health_word(bptt_health health);

/* Where the figures come from, for the reports. */
typedef struct bptt_diagnosis_source {
    const bptt_spec *spec;
    const char *data;
    const char *weights; /* NULL: drawn from the seed */
} bptt_diagnosis_source;

void bptt_diagnosis_print(const bptt_diagnosis *diagnosis, const bptt_diagnosis_source *source);
/* One object: name, digest, data, weights (null: initial), seed, hidden, steps, horizon, sequences, labels, loss, norm,
 * norm_at_horizon, tensors (name, norm), state_norms (by t), loss_steps, heat (a row for each of these: by lag, 0 .. s), lags,
 * memory, memory_1e, rate, jacobians (steps, norm, least, most, rate, windows, converged, iterations), truncation (the mode), stride
 * (null: not with blocks), truncations (horizon, cosine, ratio, worst_cosine, worst), enough, activations (node, op, low, high, dead),
 * verdict, reason, advice.  What is not a finite number is null. */
void bptt_diagnosis_json(const bptt_diagnosis *diagnosis, const bptt_diagnosis_source *source);
/* Writes PREFIX-heat.svg, .png and PREFIX-curves.svg, .png.  Errors: no gnuplot in PATH, gnuplot failed (its words), a file that
 * cannot be written. */
bptt_status bptt_diagnosis_plot(const bptt_diagnosis *diagnosis, const bptt_diagnosis_source *source, const char *prefix,
                                bptt_error *error);
/* Says at once, before anything is measured, what of this would fail: gnuplot or the folder is missing. */
bptt_status bptt_diagnosis_plot_check(const char *prefix, bptt_error *error);

#endif
