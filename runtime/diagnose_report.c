/* diagnose_report.c: a diagnosis as text or as JSON.  Steps are counted from 1, as in the formulas. */
#include "diagnose.h"
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COLUMNS = 8, MOST_LINES = 16 };

/* --- text -------------------------------------------------------------------------------------------------------------------- */

/* What a loss is of. */
static const char *label_word(const bptt_spec *spec)
{
    return bptt_spec_labels(spec) ? "label" : "target";
}

static void print_head(const bptt_diagnosis *d, const bptt_diagnosis_source *source)
{
    const bptt_spec *spec = source->spec;
    printf("%s  H %lld  T %zu  K %zu\n", spec->name, (long long)spec->hidden, d->steps, d->horizon);
    printf("data        %s, its first %zu sequence%s of T steps as one stream, %s; figures are means over them\n", source->data,
           d->sequences, d->sequences == 1 ? "" : "s",
           spec->carry                   ? "the state carried on"
           : spec->h0 == BPTT_H0_LEARNED ? "each from the learned h_0"
                                         : "each from a zero state");
    if (source->weights != NULL) {
        printf("weights     %s\n", source->weights);
    } else {
        printf("weights     initial, from seed %llu: untrained (--weights CKPT for trained ones)\n",
               (unsigned long long)spec->seed);
    }
    printf("loss        %.6g %s per %s (%zu %ss)\n", d->loss, spec->loss == BPTT_SQUARED_ERROR ? "squared error" : "nats",
           label_word(spec), d->labels, label_word(spec));
}

static void print_norms(const bptt_diagnosis *d, const bptt_spec *spec)
{
    printf("gradient    norm %.4g", d->norm);
    if (d->horizon < d->steps) { printf(", truncated at K = %zu %.4g", d->horizon, d->norm_at_horizon); }
    printf("  (L: the %s over a sequence's %ss; before clipping)\n", spec->reduction == BPTT_MEAN ? "mean" : "sum",
           label_word(spec));
    for (int p = 0; p < d->graph->param_count; p++) {
        printf("  d%-20s %.4g\n", d->graph->nodes[d->graph->params[p].node].name, d->norms[p]);
    }
}

/* `count` values from number `first` on, eight a line; of long lists every n-th. */
static void print_list(const char *title, const double *values, size_t count, size_t first)
{
    const size_t most = (size_t)COLUMNS * MOST_LINES, every = (count + most - 1) / most;
    printf("\n%s", title);
    if (every > 1) { printf(" (every %zu; all with --json)", every); }
    size_t shown = 0;
    for (size_t i = 0; i < count; i += every, shown++) {
        if (shown % COLUMNS == 0) { printf("\n  %6zu", i + first); }
        printf(" %9.3g", values[i]);
    }
    printf("\n");
}

static void print_jacobians(const bptt_diagnosis *d)
{
    printf("\nproduct of the recurrent Jacobians over n steps, spectral norm (mean of %zu windows, least, most; by power "
           "iteration)\n"
           "       n      norm     least      most    a step  converged\n",
           d->sequences);
    for (size_t j = 0; j < d->jacobian_count; j++) {
        const bptt_jacobian *i = &d->jacobians[j];
        printf("  %6zu %9.3g %9.3g %9.3g %9.4g  %u of %u, %u iterations at most\n", i->steps, i->norm, i->least, i->most, i->rate,
               i->converged, i->windows, i->iterations);
    }
}

static void print_activities(const bptt_diagnosis *d)
{
    if (d->activity_count == 0) { return; }
    printf(
        "\nsaturated units (tanh beyond 0.99, sigmoid beyond 0.01 and 0.99, relu exactly 0)      low      high   in all steps\n");
    for (size_t a = 0; a < d->activity_count; a++) {
        const bptt_activity *activity = &d->activities[a];
        char name[64];
        printf("  %-24s %-52s %7.2f %% %7.2f %% %7.2f %%\n", bptt_graph_label(d->graph, activity->node, name, sizeof name),
               bptt_op_name(d->graph->nodes[activity->node].op), 100 * activity->low, 100 * activity->high, 100 * activity->dead);
    }
}

static const char *param_name(const bptt_diagnosis *d, int p)
{
    return p < 0 ? NULL : d->graph->nodes[d->graph->params[p].node].name;
}

/* A figure of a table; "-" where there is none. */
static void print_share(double value)
{
    if (isfinite(value)) {
        printf(" %9.4f", value);
    } else {
        printf(" %9s", "-");
    }
}

/* What the spec's mode of truncation makes of K. */
static void print_mode(const bptt_diagnosis *d, const bptt_spec *spec)
{
    switch (spec->truncation) {
    case BPTT_TRUNCATION_BLOCK:
        printf("blocks of %zu steps, K steps back from the end of each; below K = %zu, chunks of K steps", d->stride, d->stride);
        break;
    case BPTT_TRUNCATION_UNIFORM:
        printf("uniform, K steps back from each loss");
        break;
    default:
        printf("chunks of K steps");
    }
}

static void print_truncations(const bptt_diagnosis *d, const bptt_spec *spec)
{
    printf("\ngradient truncated at K against the full one (");
    print_mode(d, spec);
    printf(")\n       K    cosine     ratio     worst tensor\n");
    for (size_t k = 0; k < d->truncation_count; k++) {
        const bptt_truncation *t = &d->truncations[k];
        printf("  %6zu", t->K);
        print_share(t->cosine);
        print_share(t->ratio);
        print_share(t->worst_cosine);
        printf(" %s%s%s\n", t->worst < 0 ? "" : param_name(d, t->worst), t->K == d->horizon ? "   <- K of the spec" : "",
               t->K == d->enough ? "   <- the smallest that keeps 0.95" : "");
    }
}

void bptt_diagnosis_print(const bptt_diagnosis *d, const bptt_diagnosis_source *source)
{
    print_head(d, source);
    print_norms(d, source->spec);
    print_list("|dL/dh_t| by t", d->state_norms, d->steps, 1);
    print_list("|dL_s/dh_{s-lag}| by lag, mean over s", d->lags, d->steps, 0);
    print_jacobians(d);
    print_activities(d);
    print_truncations(d, source->spec);
    printf("\nmemory      %s%zu steps: the largest lag with a mean |dL_s/dh_{s-lag}| of 1 %% of the peak or more (1/e: %zu)\n",
           d->memory + 1 == d->steps ? "at least " : "", d->memory, d->memory_e);
    printf("verdict     %s: %s\n", bptt_health_word(d->health), d->reason);
    for (size_t a = 0; a < d->advice_count; a++) { printf("%s%s\n", a == 0 ? "try         " : "            ", d->advice[a]); }
}

/* --- JSON -------------------------------------------------------------------------------------------------------------------- */

static void json_reals(bptt_json *json, const char *key, const double *values, size_t count)
{
    bptt_json_open(json, key, '[');
    for (size_t i = 0; i < count; i++) { bptt_json_real(json, NULL, values[i]); }
    bptt_json_close(json, ']');
}

static void json_head(bptt_json *json, const bptt_diagnosis *d, const bptt_diagnosis_source *source)
{
    bptt_json_text(json, "name", source->spec->name);
    bptt_json_text(json, "digest", source->spec->digest);
    bptt_json_text(json, "data", source->data);
    bptt_json_text(json, "weights", source->weights);
    bptt_json_whole(json, "seed", source->spec->seed);
    bptt_json_whole(json, "hidden", (uint64_t)source->spec->hidden);
    bptt_json_whole(json, "steps", d->steps);
    bptt_json_whole(json, "horizon", d->horizon);
    bptt_json_whole(json, "sequences", d->sequences);
    bptt_json_whole(json, "labels", d->labels);
    bptt_json_real(json, "loss", d->loss);
    bptt_json_real(json, "norm", d->norm);
    bptt_json_real(json, "norm_at_horizon", d->norm_at_horizon);
    bptt_json_open(json, "tensors", '[');
    for (int p = 0; p < d->graph->param_count; p++) {
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "name", param_name(d, p));
        bptt_json_real(json, "norm", d->norms[p]);
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

static void json_lags(bptt_json *json, const bptt_diagnosis *d)
{
    json_reals(json, "state_norms", d->state_norms, d->steps);
    bptt_json_open(json, "loss_steps", '[');
    for (size_t r = 0; r < d->rows; r++) { bptt_json_whole(json, NULL, d->loss_steps[r] + 1); }
    bptt_json_close(json, ']');
    bptt_json_open(json, "heat", '[');
    for (size_t r = 0; r < d->rows; r++) { json_reals(json, NULL, d->heat + r * d->steps, d->loss_steps[r] + 1); }
    bptt_json_close(json, ']');
    json_reals(json, "lags", d->lags, d->steps);
    bptt_json_whole(json, "memory", d->memory);
    bptt_json_whole(json, "memory_1e", d->memory_e);
    bptt_json_real(json, "rate", d->rate);
}

static void json_jacobians(bptt_json *json, const bptt_diagnosis *d)
{
    bptt_json_open(json, "jacobians", '[');
    for (size_t j = 0; j < d->jacobian_count; j++) {
        const bptt_jacobian *i = &d->jacobians[j];
        bptt_json_open(json, NULL, '{');
        bptt_json_whole(json, "steps", i->steps);
        bptt_json_real(json, "norm", i->norm);
        bptt_json_real(json, "least", i->least);
        bptt_json_real(json, "most", i->most);
        bptt_json_real(json, "rate", i->rate);
        bptt_json_whole(json, "windows", i->windows);
        bptt_json_whole(json, "converged", i->converged);
        bptt_json_whole(json, "iterations", i->iterations);
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

static void json_truncations(bptt_json *json, const bptt_diagnosis *d, const bptt_spec *spec)
{
    bptt_json_text(json, "truncation", bptt_spec_word("truncation", (int)spec->truncation));
    if (spec->truncation == BPTT_TRUNCATION_BLOCK) {
        bptt_json_whole(json, "stride", d->stride);
    } else {
        bptt_json_text(json, "stride", NULL);
    }
    bptt_json_open(json, "truncations", '[');
    for (size_t k = 0; k < d->truncation_count; k++) {
        const bptt_truncation *t = &d->truncations[k];
        bptt_json_open(json, NULL, '{');
        bptt_json_whole(json, "horizon", t->K);
        bptt_json_real(json, "cosine", t->cosine);
        bptt_json_real(json, "ratio", t->ratio);
        bptt_json_real(json, "worst_cosine", t->worst_cosine);
        bptt_json_text(json, "worst", param_name(d, t->worst));
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
    if (d->enough > 0) {
        bptt_json_whole(json, "enough", d->enough);
    } else {
        bptt_json_text(json, "enough", NULL);
    }
}

static void json_activities(bptt_json *json, const bptt_diagnosis *d)
{
    bptt_json_open(json, "activations", '[');
    for (size_t a = 0; a < d->activity_count; a++) {
        const bptt_activity *activity = &d->activities[a];
        char name[64];
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "node", bptt_graph_label(d->graph, activity->node, name, sizeof name));
        bptt_json_text(json, "op", bptt_op_name(d->graph->nodes[activity->node].op));
        bptt_json_real(json, "low", activity->low);
        bptt_json_real(json, "high", activity->high);
        bptt_json_real(json, "dead", activity->dead);
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

void bptt_diagnosis_json(const bptt_diagnosis *d, const bptt_diagnosis_source *source)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    json_head(&json, d, source);
    json_lags(&json, d);
    json_jacobians(&json, d);
    json_truncations(&json, d, source->spec);
    json_activities(&json, d);
    bptt_json_text(&json, "verdict", bptt_health_word(d->health));
    bptt_json_text(&json, "reason", d->reason);
    bptt_json_open(&json, "advice", '[');
    for (size_t a = 0; a < d->advice_count; a++) { bptt_json_text(&json, NULL, d->advice[a]); }
    bptt_json_close(&json, ']');
    bptt_json_close(&json, '}');
}
