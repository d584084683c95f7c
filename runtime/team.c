/* team.c: a pool of threads that wait for rounds of work.  See team.h.
 *
 * A round begins when `round` changes and is over when `left` is 0.  Everybody does his own part and then what others have not
 * begun, so nobody waits for a thread that sleeps or has no core; no result depends on who does a part.
 *
 * The mutex and the conditions are for those who sleep: each counts itself in `idle` or sets `waiting` before it looks a last time,
 * and who changes what it looks at then looks there.
 */
#include "team.h"

#include "machine.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct team team;

typedef struct member {
    team *of;
    int part;
    pthread_t thread;
    _Alignas(64) atomic_uint taken; /* the last round in which somebody took the part */
} member;

struct team {
    bptt_team face; /* first: a pointer to it is one to the team */
    void (*work)(void *job, int part);
    void *job;
    int parts;
    atomic_bool quit;
    _Alignas(64) atomic_uint round;
    atomic_int idle;              /* members asleep */
    _Alignas(64) atomic_int left; /* parts that are not done */
    atomic_bool waiting;          /* the caller is asleep */
    _Alignas(64) pthread_mutex_t mutex;
    pthread_cond_t begun, done;
    member members[]; /* the first is the caller */
};

/* --- waiting ---------------------------------------------------------------------------------------------------------------- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool has_begun(team *t, unsigned last)
{
    return atomic_load(&t->round) != last;
}

static bool is_done(team *t, unsigned ignored)
{
    (void)ignored;
    return atomic_load(&t->left) == 0;
}

/* Waits actively for a while: longer than the caller needs between two rounds, shorter than sleep and waking would hurt. */
static bool spin(team *t, bool (*ready)(team *, unsigned), unsigned last)
{
    enum { ROUNDS_A_LOOK = 64 };
    static const double patience = 50e-6;
    const double until = bptt_seconds() + patience;
    do {
        for (int i = 0; i < ROUNDS_A_LOOK; i++) {
            if (ready(t, last)) { return true; }
            relax();
        }
    } while (bptt_seconds() < until);
    return false;
}

/* The number of a round after `last`. */
static unsigned wait_for_round(team *t, unsigned last)
{
    if (!spin(t, has_begun, last)) {
        (void)pthread_mutex_lock(&t->mutex);
        (void)atomic_fetch_add(&t->idle, 1);
        while (!has_begun(t, last)) { (void)pthread_cond_wait(&t->begun, &t->mutex); }
        (void)atomic_fetch_sub(&t->idle, 1);
        (void)pthread_mutex_unlock(&t->mutex);
    }
    return atomic_load(&t->round);
}

static void wait_for_parts(team *t)
{
    if (spin(t, is_done, 0)) { return; }
    (void)pthread_mutex_lock(&t->mutex);
    atomic_store(&t->waiting, true);
    while (!is_done(t, 0)) { (void)pthread_cond_wait(&t->done, &t->mutex); }
    atomic_store(&t->waiting, false);
    (void)pthread_mutex_unlock(&t->mutex);
}

/* Wakes those who sleep on `condition`, if `there` says that somebody does. */
static void wake(team *t, bool there, pthread_cond_t *condition)
{
    if (!there) { return; }
    (void)pthread_mutex_lock(&t->mutex);
    (void)pthread_cond_broadcast(condition);
    (void)pthread_mutex_unlock(&t->mutex);
}

/* --- rounds ------------------------------------------------------------------------------------------------------------------- */

static void begin(team *t)
{
    atomic_store(&t->left, t->parts);
    (void)atomic_fetch_add(&t->round, 1);
    wake(t, atomic_load(&t->idle) > 0, &t->begun);
}

/* Does a part unless somebody took it.  Until it is done the round is not over, so work and job stay as they are. */
static void try_part(team *t, int part, unsigned round)
{
    unsigned before = round - 1;
    if (!atomic_compare_exchange_strong(&t->members[part].taken, &before, round)) { return; }
    t->work(t->job, part);
    if (atomic_fetch_sub(&t->left, 1) == 1) { wake(t, atomic_load(&t->waiting), &t->done); }
}

static void do_parts(team *t, int own, unsigned round)
{
    for (int i = 0; i < t->parts; i++) { try_part(t, (own + i) % t->parts, round); }
}

static void *serve(void *argument)
{
    const member *me = argument;
    team *t = me->of;
    for (unsigned round = 0;;) {
        round = wait_for_round(t, round);
        if (atomic_load(&t->quit)) { return NULL; }
        do_parts(t, me->part, round);
    }
}

static void run(bptt_team *face, void (*work)(void *job, int part), void *job)
{
    team *t = (team *)(void *)face;
    t->work = work;
    t->job = job;
    begin(t);
    do_parts(t, 0, atomic_load(&t->round));
    wait_for_parts(t);
}

/* --- the team ------------------------------------------------------------------------------------------------------------------- */

/* Signals are for the thread that was there before. */
static int start(member *m)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    int failed = pthread_sigmask(SIG_BLOCK, &all, &before);
    if (failed != 0) { return failed; }
    failed = pthread_create(&m->thread, NULL, serve, m);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

bptt_team *bptt_team_new(int parts, bptt_error *error)
{
    const size_t bytes = sizeof(team) + (size_t)parts * sizeof(member);
    team *t = aligned_alloc(_Alignof(team), (bytes + _Alignof(team) - 1) / _Alignof(team) * _Alignof(team));
    if (t == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "no memory for %d threads", parts);
        return NULL;
    }
    memset(t, 0, bytes);
    t->face.run = run;
    (void)pthread_mutex_init(&t->mutex, NULL);
    (void)pthread_cond_init(&t->begun, NULL);
    (void)pthread_cond_init(&t->done, NULL);
    for (t->parts = 1; t->parts < parts; t->parts++) {
        member *m = &t->members[t->parts];
        m->of = t;
        m->part = t->parts;
        const int failed = start(m);
        if (failed != 0) {
            (void)bptt_fail(error, BPTT_FAILED, "cannot start thread %d of %d: %s", t->parts + 1, parts, strerror(failed));
            bptt_team_free(&t->face);
            return NULL;
        }
    }
    return &t->face;
}

void bptt_team_free(bptt_team *face)
{
    if (face == NULL) { return; }
    team *t = (team *)(void *)face;
    atomic_store(&t->quit, true);
    begin(t);
    for (int part = 1; part < t->parts; part++) { (void)pthread_join(t->members[part].thread, NULL); }
    (void)pthread_mutex_destroy(&t->mutex);
    (void)pthread_cond_destroy(&t->begun);
    (void)pthread_cond_destroy(&t->done);
    free(t);
}
