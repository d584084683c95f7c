/* diagnose_judge.c: figures -> a verdict and what to try.  The rules are in diagnose.h; every sentence carries its figures. */
#include "diagnose.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static const double blown = 10;         /* peak over the value at the shortest lag */
static const double many = 0.2;         /* saturated share that is worth a word */
static const double cut_through = 0.95; /* cosine below which the spec's K loses too much */

const char *bptt_health_word(bptt_health health)
{
    static const char *const words[] = {
        [BPTT_HEALTHY] = "healthy", [BPTT_VANISHING] = "vanishing", [BPTT_EXPLODING] = "exploding"};
    return words[health];
}

static void advise(bptt_diagnosis *d, const char *format, ...) BPTT_PRINTF(2, 3);
static void advise(bptt_diagnosis *d, const char *format, ...)
{
    if (d->advice_count == BPTT_ADVICE_MAX) { return; }
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(d->advice[d->advice_count++], sizeof d->advice[0], format, arguments);
    va_end(arguments);
}

/* The shortest lag that has a gradient: a loss may read the state before its step alone. */
static size_t first_lag(const bptt_diagnosis *d)
{
    size_t lag = 0;
    while (lag + 1 < d->steps && !(d->lags[lag] > 0)) { lag++; }
    return lag;
}

static void decide(bptt_diagnosis *d)
{
    const size_t first = first_lag(d), last = d->steps - 1;
    size_t top = 0;
    for (size_t lag = 0; lag < d->steps; lag++) { top = d->lags[lag] == d->peak ? lag : top; }
    if (!d->finite) {
        d->health = BPTT_EXPLODING;
        (void)snprintf(d->reason, sizeof d->reason, "a loss or a gradient is not finite");
    } else if (!(d->peak > 0)) {
        d->health = BPTT_VANISHING;
        (void)snprintf(d->reason, sizeof d->reason, "no loss has a gradient by any state");
    } else if (d->peak > blown * d->lags[first]) {
        d->health = BPTT_EXPLODING;
        (void)snprintf(d->reason, sizeof d->reason, "|dL_s/dh_{s-lag}| grows to %.3g at lag %zu, %.3g times its %.3g at lag %zu",
                       d->peak, top, d->peak / d->lags[first], d->lags[first], first);
    } else if (2 * (d->memory + 1) < d->steps) {
        d->health = BPTT_VANISHING;
        (void)snprintf(d->reason, sizeof d->reason,
                       "|dL_s/dh_{s-lag}| is below 1 %% of its peak beyond lag %zu of %zu; it goes on by %.3g a step", d->memory,
                       last, d->rate);
    } else {
        d->health = BPTT_HEALTHY;
        (void)snprintf(d->reason, sizeof d->reason, "|dL_s/dh_{s-lag}| is at least 1 %% of its peak up to lag %zu of %zu",
                       d->memory, last);
    }
}

/* Whether a sigmoid is in the cell; that of an output is no gate. */
static bool has_gates(const bptt_diagnosis *d)
{
    const int output = d->graph->nodes[d->graph->loss].a;
    for (size_t a = 0; a < d->activity_count; a++) {
        const int node = d->activities[a].node;
        if (node != output && d->graph->nodes[node].op == BPTT_OP_SIGMOID) { return true; }
    }
    return false;
}

static void advise_units(bptt_diagnosis *d)
{
    for (size_t a = 0; a < d->activity_count; a++) {
        const bptt_activity *activity = &d->activities[a];
        char name[64];
        (void)bptt_graph_label(d->graph, activity->node, name, sizeof name);
        if (d->graph->nodes[activity->node].op == BPTT_OP_RELU) {
            if (activity->dead < many) { continue; }
            advise(d, "%.0f %% of the units of %s are 0 in every step: a smaller rate, or tanh", 100 * activity->dead, name);
        } else if (activity->low + activity->high >= many) {
            advise(d, "%.0f %% of %s is saturated and passes no gradient: smaller weights or inputs, a smaller rate",
                   100 * (activity->low + activity->high), name);
        }
    }
}

/* Gates keep the state as far as their bias says, where the spec can say it. */
static void advise_vanishing(bptt_diagnosis *d, const bptt_spec *spec)
{
    const bptt_init *now = spec->init_recurrent.kind != BPTT_INIT_SAME ? &spec->init_recurrent : &spec->init;
    const bool gates = has_gates(d), keeps = now->kind == BPTT_INIT_ORTHOGONAL || now->kind == BPTT_INIT_IDENTITY;
    if (gates && spec->equations != NULL) {
        advise(d, "a larger bias of the gate that keeps the state");
    } else if (gates && spec->cell == BPTT_CELL_LSTM) {
        advise(d, "a larger forget_bias (now %.3g)", spec->forget_bias);
    }
    if (!gates) { advise(d, "a cell with gates (GRU, LSTM) or with a path past the nonlinearity (h = h + ...)"); }
    if (!gates || spec->cell == BPTT_CELL_GRU) {
        advise(d, "recurrent weights that start %slarger: now %s of scale %.3g",
               keeps ? "" : "orthogonal or as the identity, or ", bptt_spec_word("init", (int)now->kind), now->scale);
    }
}

static void advise_exploding(bptt_diagnosis *d, const bptt_spec *spec)
{
    char norm[64] = "";
    if (isfinite(d->norm)) { (void)snprintf(norm, sizeof norm, "; here its norm is %.3g", d->norm); }
    if (spec->clip.kind == BPTT_CLIP_NONE) {
        advise(d, "clip the gradient: clip = {norm = 5}%s", norm);
    } else {
        advise(d, "clip the gradient shorter than {%s = %.3g}%s", spec->clip.kind == BPTT_CLIP_NORM ? "norm" : "value",
               spec->clip.limit, norm);
    }
    advise(d, "a smaller rate (now %.3g)", spec->optimizer.rate);
    advise(d, "recurrent weights that start smaller or orthogonal");
}

/* The K of the spec against the smallest that keeps the direction. */
static void advise_horizon(bptt_diagnosis *d)
{
    const bptt_truncation *now = NULL, *enough = NULL;
    for (size_t k = 0; k < d->truncation_count; k++) {
        if (d->truncations[k].K == d->horizon) { now = &d->truncations[k]; }
        if (d->truncations[k].K == d->enough) { enough = &d->truncations[k]; }
    }
    if (enough == NULL || now == NULL || !(enough->cosine >= cut_through)) { return; }
    char stride[40] = "";
    if (enough->K < d->stride) { (void)snprintf(stride, sizeof stride, ", stride = %zu", enough->K); }
    if (enough->K < now->K) {
        advise(d, "K = %zu%s would do in place of %zu: cosine %.3f with the full gradient, %.3g times its length", enough->K,
               stride, now->K, enough->cosine, enough->ratio);
    } else if (enough->K > now->K) {
        advise(d, "K = %zu: at the spec's %zu the gradient has cosine %.3f with the full one, %.3g times its length", enough->K,
               now->K, now->cosine, now->ratio);
    }
}

void bptt_diagnosis_judge(bptt_diagnosis *d, const bptt_spec *spec)
{
    decide(d);
    d->advice_count = 0;
    if (d->health == BPTT_VANISHING) { advise_vanishing(d, spec); }
    if (d->health == BPTT_EXPLODING) { advise_exploding(d, spec); }
    advise_units(d);
    advise_horizon(d);
}
