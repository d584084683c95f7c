/* diagnose_measure.c: sequences -> figures.  See diagnose.h.
 *
 * The norm of a product of Jacobians is found by power iteration on J'J: J v by forward mode (interpret.h's tangent rules), J' u by
 * the adjoint graph.  Tangent rules are exact where central differences are not: a product over many steps of a vanishing network is
 * far below the rounding error of a difference of states.  Vectors are brought back to length 1 after every step and the lengths'
 * logarithms summed, so nothing under- or overflows.
 */
#include "diagnose.h"

#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ITERATIONS = 1000 };
static const double tolerance = 1e-6; /* of a power iteration: relative change of the norm */
static const double kept = 0.95, faint = 0.01;

typedef struct measure {
    bptt_interpreter *it;
    const bptt_diagnose_task *task;
    bptt_diagnosis *d;
    size_t sequence;               /* the one in `it`, from 0 */
    double scale;                  /* of a step's loss in L */
    double *losses;                /* [T] */
    double *start, *carry, *total; /* [S] */
    double *full, *cut;            /* gradients, flat */
    double *arrived; /* blocks, [K's number][T][S]: adjoints that arrive from after step t, by the least K that keeps them */
    double *sum, *sum_at_horizon; /* of gradients of all sequences */
    unsigned char *alive;         /* units of the activities that were not saturated once, node by node */
    uint64_t random;
    double cosines[BPTT_DIAGNOSE_LENGTHS][BPTT_MAX_PARAMS + 1][2]; /* sum and count; the last one: all parameters */
} measure;

static double length_of(const double *v, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) { sum += v[i] * v[i]; }
    return sqrt(sum);
}

static void note_finite(bptt_diagnosis *d, double value)
{
    if (!isfinite(value)) { d->finite = false; }
}

/* 1, 2, 4 ... T, and `also` in its place unless 0.  Returns how many. */
static size_t lengths(size_t T, size_t also, size_t *list)
{
    size_t count = 0;
    for (size_t n = 1;; n = n > T / 2 ? T : 2 * n) {
        if (also != 0 && also < n && (count == 0 || also > list[count - 1])) { list[count++] = also; }
        list[count++] = n;
        if (n == T) { return count; }
    }
}

/* --- room -------------------------------------------------------------------------------------------------------------------- */

static bool is_activation(bptt_op op)
{
    return op == BPTT_OP_TANH || op == BPTT_OP_SIGMOID || op == BPTT_OP_RELU;
}

static size_t units_of(const bptt_graph *g, int node)
{
    return (size_t)g->nodes[node].rows;
}

/* The activations of a step; returns the units of all. */
static size_t find_activities(const bptt_graph *g, bptt_diagnosis *d)
{
    size_t units = 0;
    for (int n = 0; n < g->forward; n++) {
        if (!is_activation(g->nodes[n].op)) { continue; }
        if (d->activities != NULL) { d->activities[d->activity_count] = (bptt_activity){.node = n}; }
        d->activity_count++;
        units += units_of(g, n);
    }
    return units;
}

/* Labels, or numbers of targets, that count in step i of the stream. */
static size_t labels_at(const bptt_diagnose_task *task, size_t i)
{
    size_t labels = task->y != NULL && task->y[i] != UINT32_MAX;
    for (size_t j = 0; j < task->targets; j++) { labels += isnan(task->d[i * task->targets + j]) ? 0 : 1; }
    return labels;
}

/* Whether step t of some sequence has a loss. */
static bool has_loss(const bptt_diagnose_task *task, size_t t)
{
    bool found = false;
    for (size_t q = 0; q < task->sequences && !found; q++) { found = labels_at(task, q * task->steps + t) > 0; }
    return found;
}

static void choose_rows(const bptt_diagnose_task *task, bptt_diagnosis *d)
{
    size_t found = 0, at = 0, next = 0; /* steps with a loss in all, before t, and of them those that are rows */
    for (size_t t = 0; t < d->steps; t++) { found += has_loss(task, t); }
    if (found == 0) { return; }
    d->rows = found < BPTT_DIAGNOSE_ROWS ? found : BPTT_DIAGNOSE_ROWS;
    for (size_t t = 0; t < d->steps; t++) {
        if (!has_loss(task, t)) { continue; }
        if (at++ == (next + 1) * found / d->rows - 1) { d->loss_steps[next++] = t; }
    }
    for (size_t i = 0; i < d->rows * d->steps; i++) { d->heat[i] = i % d->steps <= d->loss_steps[i / d->steps] ? 0 : NAN; }
}

static bptt_status make_room(measure *m, bptt_error *error)
{
    bptt_diagnosis *d = m->d;
    const bptt_graph *g = m->it->graph;
    const size_t T = m->task->steps, S = m->it->state_size + 1, P = m->it->param_size + 1;
    const size_t units = find_activities(g, d);
    d->activities = calloc(d->activity_count + 1, sizeof *d->activities);
    d->activity_count = 0;
    const size_t rows = T < BPTT_DIAGNOSE_ROWS ? T : BPTT_DIAGNOSE_ROWS; /* at most */
    d->state_norms = calloc(T, sizeof(double));
    d->loss_steps = calloc(rows, sizeof *d->loss_steps);
    d->heat = calloc(rows * T, sizeof(double));
    d->lags = calloc(T, sizeof(double));
    double **const vectors[] = {&m->start, &m->carry, &m->total, &m->full, &m->cut, &m->sum, &m->sum_at_horizon};
    m->arrived = m->task->stride > 0 ? calloc(d->truncation_count, T * S * sizeof(double)) : calloc(1, 1); /* of blocks alone */
    bool good = m->arrived != NULL && d->activities != NULL && d->state_norms != NULL && d->loss_steps != NULL &&
                d->heat != NULL && d->lags != NULL;
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        *vectors[v] = calloc(v < 3 ? S : P, sizeof(double));
        good = good && *vectors[v] != NULL;
    }
    m->losses = calloc(T, sizeof(double));
    m->alive = calloc(units + 1, 1);
    if (!good || m->losses == NULL || m->alive == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory to diagnose %zu steps of %zu parameters", T, P - 1);
    }
    (void)find_activities(g, d);
    choose_rows(m->task, d);
    return BPTT_OK;
}

static void free_room(measure *m)
{
    double *const vectors[] = {m->start, m->carry, m->total, m->full, m->cut, m->sum, m->sum_at_horizon, m->losses, m->arrived};
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) { free(vectors[v]); }
    free(m->alive);
}

void bptt_diagnosis_free(bptt_diagnosis *d)
{
    free(d->state_norms);
    free(d->loss_steps);
    free(d->heat);
    free(d->lags);
    free(d->activities);
    *d = (bptt_diagnosis){.graph = NULL};
}

/* --- gradients --------------------------------------------------------------------------------------------------------------- */

/* The gradient of L, cut at the borders of chunks of K steps (0: nowhere).  With `norms`: adds |dL/dh_t|. */
static void gradient_of(measure *m, size_t K, double *gradient, double *norms)
{
    const size_t S = m->it->state_size, T = m->task->steps;
    memset(gradient, 0, m->it->param_size * sizeof *gradient);
    memset(m->carry, 0, S * sizeof *m->carry);
    for (size_t t = T; t-- > 0;) {
        if (K > 0 && (t + 1) % K == 0) { memset(m->carry, 0, S * sizeof *m->carry); }
        bptt_interpret_back(m->it, t, true, m->carry, m->total, m->carry, gradient);
        if (norms != NULL) { norms[t] += m->scale * length_of(m->total, S); }
    }
}

static void add_to(double *sum, const double *v, size_t count, double scale)
{
    for (size_t i = 0; i < count; i++) { sum[i] += scale * v[i]; }
}

static double *arrived_at(const measure *m, size_t k, size_t t)
{
    return m->arrived + (k * m->task->steps + t) * m->it->state_size;
}

/* Follows the losses of each block together from its end to the first step: what arrives n steps before the end counts where K >= n.
 * The uniform horizon is blocks of one step. */
static void follow_blocks(measure *m)
{
    const bptt_diagnosis *d = m->d;
    const size_t S = m->it->state_size, T = m->task->steps, stride = m->task->stride;
    memset(m->arrived, 0, d->truncation_count * T * S * sizeof *m->arrived);
    for (size_t first = 0; first < T; first += stride) {
        const size_t end = T - first < stride ? T : first + stride;
        size_t k = 0;
        memset(m->carry, 0, S * sizeof *m->carry);
        for (size_t t = end; t-- > 0;) {
            while (d->truncations[k].K < end - t) { k++; }
            add_to(arrived_at(m, k, t), m->carry, S, 1);
            bptt_interpret_back(m->it, t, t >= first, m->carry, NULL, m->carry, NULL);
        }
    }
}

/* Adds to m->cut, the gradient at the K before (which are blocks too, unless it is `least`), what number k of the K keeps beyond. */
static void widen_blocks(measure *m, size_t k, size_t least)
{
    const size_t S = m->it->state_size, T = m->task->steps;
    if (k == least) { memset(m->cut, 0, m->it->param_size * sizeof *m->cut); }
    for (size_t t = 0; t < T; t++) {
        memset(m->carry, 0, S * sizeof *m->carry);
        for (size_t j = k == least ? 0 : k; j <= k; j++) { add_to(m->carry, arrived_at(m, j, t), S, 1); }
        bptt_interpret_back(m->it, t, k == least, m->carry, NULL, m->carry, m->cut);
    }
}

/* Adds the cosine of the parts [from, to) of both gradients to a mean; it has none when the full one is 0. */
static double add_cosine(const measure *m, size_t from, size_t to, double *mean)
{
    const double full = length_of(m->full + from, to - from), cut = length_of(m->cut + from, to - from);
    double product = 0;
    for (size_t i = from; i < to; i++) { product += m->full[i] * m->cut[i]; }
    if (!(full > 0)) { return NAN; }
    mean[0] += cut > 0 ? product / full / cut : 0;
    mean[1] += 1;
    return cut / full;
}

/* The gradient at every K beside the full one. */
static void compare_truncations(measure *m)
{
    bptt_diagnosis *d = m->d;
    const bptt_interpreter *it = m->it;
    const int params = it->graph->param_count;
    size_t chunks = 0; /* blocks have no less than their stride */
    while (chunks < d->truncation_count && (d->stride == 0 || d->truncations[chunks].K < d->stride)) { chunks++; }
    if (chunks < d->truncation_count) { follow_blocks(m); }
    for (size_t k = 0; k < d->truncation_count; k++) {
        if (k < chunks) {
            gradient_of(m, d->truncations[k].K, m->cut, NULL);
        } else {
            widen_blocks(m, k, chunks);
        }
        if (d->truncations[k].K == d->horizon) { add_to(m->sum_at_horizon, m->cut, it->param_size, m->scale); }
        const double ratio = add_cosine(m, 0, it->param_size, m->cosines[k][params]);
        if (!isnan(ratio)) { d->truncations[k].ratio += ratio; }
        for (int p = 0; p < params; p++) {
            const size_t end = p + 1 < params ? it->param_at[p + 1] : it->param_size;
            (void)add_cosine(m, it->param_at[p], end, m->cosines[k][p]);
        }
    }
}

static void finish_truncations(measure *m)
{
    bptt_diagnosis *d = m->d;
    const int params = m->it->graph->param_count;
    for (size_t k = d->truncation_count; k-- > 0;) {
        bptt_truncation *truncation = &d->truncations[k];
        const double *all = m->cosines[k][params];
        truncation->cosine = all[0] / all[1]; /* 0 / 0: no sequence had a gradient */
        truncation->ratio /= all[1];
        truncation->worst = -1;
        truncation->worst_cosine = NAN;
        for (int p = 0; p < params; p++) {
            const double cosine = m->cosines[k][p][0] / m->cosines[k][p][1];
            if (isnan(cosine) || (truncation->worst >= 0 && cosine >= truncation->worst_cosine)) { continue; }
            truncation->worst = p;
            truncation->worst_cosine = cosine;
        }
        const bool unbroken = k + 1 == d->truncation_count || d->enough == truncation[1].K;
        if (unbroken && truncation->cosine >= kept) { d->enough = truncation->K; }
    }
}

static void finish_norms(measure *m)
{
    bptt_diagnosis *d = m->d;
    const bptt_interpreter *it = m->it;
    const double one = 1 / (double)d->sequences;
    d->norm = one * length_of(m->sum, it->param_size);
    d->norm_at_horizon = one * length_of(m->sum_at_horizon, it->param_size);
    for (int p = 0; p < it->graph->param_count; p++) {
        const size_t end = p + 1 < it->graph->param_count ? it->param_at[p + 1] : it->param_size;
        d->norms[p] = one * length_of(m->sum + it->param_at[p], end - it->param_at[p]);
    }
    note_finite(d, d->norm);
    for (size_t t = 0; t < d->steps; t++) { d->state_norms[t] *= one; }
}

/* --- each loss followed back ------------------------------------------------------------------------------------------------- */

static void follow_losses(measure *m)
{
    bptt_diagnosis *d = m->d;
    const size_t S = m->it->state_size;
    for (size_t r = 0; r < d->rows; r++) {
        const size_t s = d->loss_steps[r];
        memset(m->carry, 0, S * sizeof *m->carry);
        for (size_t lag = 0; lag <= s; lag++) {
            bptt_interpret_back(m->it, s - lag, lag == 0, m->carry, m->total, m->carry, NULL);
            d->heat[r * d->steps + lag] += length_of(m->total, S) / (double)d->sequences;
        }
    }
}

/* exp of the slope of log |dL_s/dh_{s-lag}| by lag, weighted by the number of loss steps. */
static double slope_of(const bptt_diagnosis *d, const double *weights)
{
    double w = 0, x = 0, y = 0, xx = 0, xy = 0;
    for (size_t lag = 0; lag < d->steps; lag++) {
        if (!(d->lags[lag] > 0) || !isfinite(d->lags[lag])) { continue; }
        const double at = (double)lag, value = log(d->lags[lag]);
        w += weights[lag];
        x += weights[lag] * at;
        y += weights[lag] * value;
        xx += weights[lag] * at * at;
        xy += weights[lag] * at * value;
    }
    const double spread = w * xx - x * x; /* 0: fewer than two lags have a gradient */
    if (!(spread > 0)) { return d->finite && d->steps > 1 ? 0 : (double)NAN; }
    return exp((w * xy - x * y) / spread);
}

static void finish_lags(measure *m)
{
    bptt_diagnosis *d = m->d;
    double *weights = m->losses; /* done with */
    for (size_t lag = 0; lag < d->steps; lag++) {
        double sum = 0, count = 0;
        for (size_t r = 0; r < d->rows; r++) {
            if (lag > d->loss_steps[r]) { continue; }
            sum += d->heat[r * d->steps + lag];
            count += 1;
        }
        d->lags[lag] = sum / count;
        weights[lag] = count;
        if (count > 0) { note_finite(d, d->lags[lag]); }
        d->peak = fmax(d->peak, d->lags[lag]);
    }
    for (size_t lag = 0; lag < d->steps; lag++) {
        if (d->peak > 0 && d->lags[lag] >= faint * d->peak) { d->memory = lag; }
        if (d->peak > 0 && d->lags[lag] >= exp(-1) * d->peak) { d->memory_e = lag; }
    }
    d->rate = slope_of(d, weights);
}

/* --- Jacobians ----------------------------------------------------------------------------------------------------------------- */

/* v to length 1; returns the logarithm of its length, -infinity for 0. */
static double normalise(double *v, size_t count)
{
    const double length = length_of(v, count);
    for (size_t i = 0; i < count && length > 0; i++) { v[i] /= length; }
    return log(length);
}

/* v -> J v or J' v over steps [from, from + n), made a unit vector; returns the logarithm of its length for a unit vector v. */
static double apply(measure *m, size_t from, size_t n, bool forward, double *v)
{
    const size_t S = m->it->state_size;
    double length = 0;
    for (size_t i = 0; i < n && isfinite(length); i++) {
        if (forward) {
            bptt_interpret_tangent(m->it, from + i, v, v);
        } else {
            bptt_interpret_cotangent(m->it, from + n - 1 - i, v, v);
        }
        length += normalise(v, S);
    }
    return length;
}

/* log ||J||_2 over steps [from, from + n). */
static double jacobian_norm(measure *m, size_t from, bptt_jacobian *jacobian)
{
    const size_t S = m->it->state_size;
    double *v = m->carry, norm = 0, before = NAN;
    for (size_t i = 0; i < S; i++) { v[i] = 2 * bptt_random_unit(&m->random) - 1; }
    (void)normalise(v, S);
    bool converged = false;
    unsigned iterations = 0;
    while (iterations < ITERATIONS && !converged) {
        iterations++;
        norm = apply(m, from, jacobian->steps, true, v);
        if (isfinite(norm)) { norm = apply(m, from, jacobian->steps, false, v); }
        converged = fabs(norm - before) < tolerance || norm == -HUGE_VAL;
        before = norm;
        if (!isfinite(norm)) { break; }
    }
    jacobian->converged += converged;
    if (iterations > jacobian->iterations) { jacobian->iterations = iterations; }
    return norm;
}

/* One window of the present sequence for each length; over the sequences they go from its first steps to its last. */
static void measure_jacobians(measure *m)
{
    bptt_diagnosis *d = m->d;
    for (size_t j = 0; j < d->jacobian_count; j++) {
        bptt_jacobian *jacobian = &d->jacobians[j];
        const size_t room = d->steps - jacobian->steps;
        const size_t from = d->sequences > 1 ? room * m->sequence / (d->sequences - 1) : room / 2;
        const double norm = d->finite ? jacobian_norm(m, from, jacobian) : (double)NAN, plain = exp(norm);
        jacobian->norm += norm / (double)d->sequences; /* a logarithm until all are there */
        jacobian->least = jacobian->windows == 0 ? plain : fmin(jacobian->least, plain);
        jacobian->most = jacobian->windows == 0 ? plain : fmax(jacobian->most, plain);
        jacobian->windows++;
    }
}

static void finish_jacobians(bptt_diagnosis *d)
{
    for (size_t j = 0; j < d->jacobian_count; j++) {
        bptt_jacobian *jacobian = &d->jacobians[j];
        jacobian->rate = exp(jacobian->norm / (double)jacobian->steps);
        jacobian->norm = exp(jacobian->norm);
        if (isnan(jacobian->norm)) { d->finite = false; }
    }
}

/* --- saturation ---------------------------------------------------------------------------------------------------------------- */

/* -1: low, 1: high, 0: neither. */
static int saturation(bptt_op op, double value)
{
    switch (op) {
    case BPTT_OP_TANH:
        return value > 0.99 ? 1 : value < -0.99 ? -1 : 0;
    case BPTT_OP_SIGMOID:
        return value > 0.99 ? 1 : value < 0.01 ? -1 : 0;
    default: /* relu */
        return value == 0 ? -1 : 0;
    }
}

static void watch_units(measure *m)
{
    bptt_diagnosis *d = m->d;
    unsigned char *alive = m->alive;
    for (size_t a = 0; a < d->activity_count; a++) {
        bptt_activity *activity = &d->activities[a];
        const size_t units = units_of(d->graph, activity->node);
        const double one = 1 / ((double)units * (double)d->steps * (double)d->sequences);
        for (size_t t = 0; t < d->steps; t++) {
            const double *values = bptt_interpret_value(m->it, t, activity->node);
            for (size_t i = 0; i < units; i++) {
                const int side = saturation(d->graph->nodes[activity->node].op, values[i]);
                activity->low += side < 0 ? one : 0;
                activity->high += side > 0 ? one : 0;
                if (side == 0) { alive[i] = 1; }
            }
        }
        alive += units;
    }
}

static void finish_units(const measure *m)
{
    const unsigned char *alive = m->alive;
    for (size_t a = 0; a < m->d->activity_count; a++) {
        bptt_activity *activity = &m->d->activities[a];
        const size_t units = units_of(m->d->graph, activity->node);
        for (size_t i = 0; i < units; i++) { activity->dead += alive[i] == 0 ? 1 / (double)units : 0; }
        alive += units;
    }
}

/* --- all ----------------------------------------------------------------------------------------------------------------------- */

/* Sequence q of the task. */
static bptt_sequence sequence_of(const bptt_diagnose_task *task, size_t q)
{
    const size_t first = q * task->steps;
    return (bptt_sequence){.steps = task->steps,
                           .x = task->x == NULL ? NULL : task->x + first,
                           .y = task->y == NULL ? NULL : task->y + first,
                           .v = task->v == NULL ? NULL : task->v + first * task->inputs,
                           .d = task->d == NULL ? NULL : task->d + first * task->targets,
                           .starts = task->starts == NULL ? NULL : task->starts + first};
}

static void measure_sequence(measure *m, size_t q)
{
    const bptt_diagnose_task *task = m->task;
    bptt_diagnosis *d = m->d;
    const bptt_sequence sequence = sequence_of(task, q);
    size_t labels = 0;
    m->sequence = q;
    bptt_interpret_forward(m->it, &sequence, task->carry && q > 0 ? m->start : NULL, m->losses);
    bptt_interpret_state(m->it, task->steps - 1, m->start);
    for (size_t t = 0; t < task->steps; t++) {
        d->loss += m->losses[t];
        note_finite(d, m->losses[t]);
        labels += labels_at(task, q * task->steps + t);
    }
    d->labels += labels;
    m->scale = task->mean && labels > 0 ? 1 / (double)labels : 1;
    watch_units(m);
    gradient_of(m, 0, m->full, d->state_norms);
    add_to(m->sum, m->full, m->it->param_size, m->scale);
    compare_truncations(m);
    follow_losses(m);
    measure_jacobians(m);
}

static void name_lengths(bptt_diagnosis *d)
{
    size_t list[BPTT_DIAGNOSE_LENGTHS];
    d->jacobian_count = lengths(d->steps, 0, list);
    for (size_t j = 0; j < d->jacobian_count; j++) { d->jacobians[j].steps = list[j]; }
    d->truncation_count = lengths(d->steps, d->horizon, list);
    for (size_t k = 0; k < d->truncation_count; k++) { d->truncations[k].K = list[k]; }
}

bptt_status bptt_diagnose(bptt_interpreter *it, const bptt_diagnose_task *task, bptt_diagnosis *d, bptt_error *error)
{
    *d = (bptt_diagnosis){.graph = it->graph, .steps = task->steps, .horizon = task->horizon, .sequences = task->sequences};
    d->stride = task->stride;
    d->finite = true;
    measure *m = calloc(1, sizeof *m);
    if (m == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory"); }
    *m = (measure){.it = it, .task = task, .d = d, .random = task->seed};
    name_lengths(d);
    bptt_status status = make_room(m, error);
    if (status == BPTT_OK) {
        for (size_t q = 0; q < task->sequences; q++) { measure_sequence(m, q); }
        d->loss /= (double)d->labels;
        finish_truncations(m);
        finish_norms(m);
        finish_lags(m);
        finish_jacobians(d);
        finish_units(m);
    }
    free_room(m);
    free(m);
    if (status != BPTT_OK) { bptt_diagnosis_free(d); }
    return status;
}
