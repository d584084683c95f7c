/* watch.c: see watch.h. */
#include "watch.h"

#include <math.h>

static const double least = 1e-300; /* stands for 0, which has no logarithm */
static const double exploding = 100, much = 1, vanishing = 1e-3, nothing = 1e-7;

static const char *close_window(bptt_watch *watch)
{
    const char *what = NULL;
    const double loss = watch->loss_sum / watch->labels;
    const double mean = exp(watch->logs / BPTT_WATCH_WINDOW);
    watch->now = mean > 2 * least ? mean : 0;
    if (watch->low == BPTT_WATCH_WINDOW && (!watch->begun || loss > watch->loss / 2)) { what = "vanishes"; }
    if (watch->high >= BPTT_WATCH_WINDOW / 10) { what = "explodes"; }
    if (!watch->begun) {
        watch->begun = true;
        watch->norm = watch->now;
        watch->loss = loss;
    }
    watch->steps = watch->high = watch->low = 0;
    watch->logs = watch->loss_sum = watch->labels = 0;
    return what;
}

const char *bptt_watch_step(bptt_watch *watch, const bptt_step *step, bool mean)
{
    if (watch->said) { return NULL; }
    const double labels = (double)step->labels, unit = mean ? 1 : labels;
    watch->steps++;
    watch->logs += log(fmax(step->grad_norm, least));
    watch->loss_sum += step->loss_sum;
    watch->labels += labels;
    watch->high += watch->begun && step->grad_norm > fmax(exploding * watch->norm, much * unit);
    watch->low += step->grad_norm < fmax(watch->begun ? vanishing * watch->norm : 0, nothing * unit);
    const char *what = watch->steps == BPTT_WATCH_WINDOW ? close_window(watch) : NULL;
    watch->said = what != NULL;
    return what;
}
