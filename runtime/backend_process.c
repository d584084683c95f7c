/* backend_process.c: runs a program beside this one, with a time limit.  See backend_private.h.
 *
 * Its group is not the terminal's, so a Ctrl-C does not reach it: bptt_signals_hold lets its starter end it first.  Depends on
 * POSIX and glibc's posix_spawn.  Refuses to use a shell, to search PATH, and to let a child inherit our files.
 */
#include "backend_private.h"

#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { NICENESS = 10, READS_AT_ONCE = 64 };

double bptt_clock_ms(void)
{
    return 1e3 * bptt_seconds();
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Our environment with messages in English, since we look for "error" in them, and with temporary files where `temporary` says
 * ("TMPDIR=...", NULL: as it is).  The array alone is new. */
static char **child_environment(char *temporary)
{
    size_t count = 0;
    while (environ[count] != NULL) { count++; }
    char **copy = calloc(count + 3, sizeof *copy);
    if (copy == NULL) { return NULL; }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool ours = starts_with(environ[i], "LC_ALL=") || starts_with(environ[i], "LANGUAGE=") ||
                    (temporary != NULL && starts_with(environ[i], "TMPDIR="));
        if (!ours) { copy[kept++] = environ[i]; }
    }
    copy[kept++] = "LC_ALL=C";
    copy[kept] = temporary;
    return copy;
}

/* Output to `pipe`, no input, nothing else open.  stdin comes last: `pipe` itself may be descriptor 0. */
static int plan_files(posix_spawn_file_actions_t *files, int pipe)
{
    int failed = posix_spawn_file_actions_adddup2(files, pipe, STDOUT_FILENO);
    if (failed == 0) { failed = posix_spawn_file_actions_adddup2(files, pipe, STDERR_FILENO); }
    if (failed == 0) { failed = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0); }
    if (failed == 0) { failed = posix_spawn_file_actions_addclosefrom_np(files, STDERR_FILENO + 1); }
    return failed;
}

/* A group of its own, so that a compiler and all its helpers end together; no signal blocked, none ignored. */
static int plan_group(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int failed = posix_spawnattr_setpgroup(attributes, 0);
    if (failed == 0) { failed = posix_spawnattr_setsigmask(attributes, &none); }
    if (failed == 0) { failed = posix_spawnattr_setsigdefault(attributes, &all); }
    if (failed == 0) {
        failed = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    }
    return failed;
}

static int spawn(pid_t *pid, char *const *argv, const char *folder, int pipe)
{
    char *temporary = NULL;
    if (folder != NULL && asprintf(&temporary, "TMPDIR=%s", folder) < 0) { return ENOMEM; }
    char **environment = child_environment(temporary);
    if (environment == NULL) {
        free(temporary);
        return ENOMEM;
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int failed = posix_spawn_file_actions_init(&files);
    if (failed == 0) {
        failed = posix_spawnattr_init(&attributes);
        if (failed == 0) {
            failed = plan_files(&files, pipe);
            if (failed == 0) { failed = plan_group(&attributes); }
            if (failed == 0) { failed = posix_spawn(pid, argv[0], &files, &attributes, argv, environment); }
            (void)posix_spawnattr_destroy(&attributes);
        }
        (void)posix_spawn_file_actions_destroy(&files);
    }
    free(environment);
    free(temporary);
    return failed;
}

bptt_status bptt_process_start(bptt_process *process, char *const *argv, const char *folder, double limit_ms, bool background,
                               bptt_error *error)
{
    memset(process, 0, sizeof *process);
    process->output = -1;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) { return bptt_fail(error, BPTT_FAILED, "%s: no pipe: %s", argv[0], strerror(errno)); }
    pid_t pid = 0;
    int failed = fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 ? spawn(&pid, argv, folder, ends[1]) : errno;
    (void)close(ends[1]);
    if (failed != 0) {
        (void)close(ends[0]);
        return bptt_fail(error, BPTT_FAILED, "%s: cannot run it: %s", argv[0], strerror(failed));
    }
    if (background) { (void)setpriority(PRIO_PGRP, (id_t)pid, NICENESS); } /* a wish: it compiles either way */
    process->pid = pid;
    process->output = ends[0];
    process->deadline = bptt_clock_ms() + limit_ms;
    return BPTT_OK;
}

static void close_output(bptt_process *process)
{
    if (process->output >= 0) { (void)close(process->output); }
    process->output = -1;
}

/* Reads what is there, so that the program never waits for us, and keeps the beginning.  A flood is left for the next time. */
static void drain(bptt_process *process)
{
    char rest[4096];
    for (int i = 0; process->output >= 0 && i < READS_AT_ONCE; i++) {
        size_t room = sizeof process->text - 1 - process->length;
        ssize_t got =
            room > 0 ? read(process->output, process->text + process->length, room) : read(process->output, rest, sizeof rest);
        if (got < 0 && errno == EINTR) { continue; }
        if (got < 0 && errno == EAGAIN) { return; }
        if (got <= 0) { close_output(process); }
        if (got > 0 && room > 0) { process->length += (size_t)got; }
    }
}

/* Sleeps until output comes, the pipe closes (which is when most programs end) or a few milliseconds passed. */
static void doze(const bptt_process *process, double ms)
{
    struct pollfd watched = {.fd = process->output, .events = POLLIN};
    double longest = process->output >= 0 ? 20 : 1;
    (void)poll(&watched, 1, (int)(ms < longest ? ms : longest) + 1);
}

bool bptt_process_wait(bptt_process *process, double wait_ms)
{
    const double until = bptt_clock_ms() + wait_ms;
    while (process->pid != 0) {
        drain(process);
        pid_t ended = waitpid(process->pid, &process->status, WNOHANG);
        if (ended < 0 && errno == ECHILD) { process->status = -1; } /* somebody ignores SIGCHLD: how it ended is not known */
        if (ended != 0) {
            process->pid = 0;
            drain(process);
            close_output(process);
            return true;
        }
        double now = bptt_clock_ms();
        if (now >= process->deadline) {
            process->late = true;
            bptt_process_stop(process);
            return true;
        }
        if (now >= until) { return false; }
        doze(process, (until < process->deadline ? until : process->deadline) - now);
    }
    return true;
}

void bptt_process_stop(bptt_process *process)
{
    if (process->pid != 0) {
        /* Not reaped yet, so the number is still its own. */
        (void)kill(-process->pid, SIGKILL);
        (void)kill(process->pid, SIGKILL);
        while (waitpid(process->pid, &process->status, 0) < 0 && errno == EINTR) {}
        process->pid = 0;
    }
    close_output(process);
}

/* --- signals ---------------------------------------------------------------------------------------------------------------- */

static const int held[] = {SIGINT, SIGTERM, SIGHUP};
enum { HELD = sizeof held / sizeof *held };
static volatile sig_atomic_t came; /* its number; 0: none */

static void note_signal(int number)
{
    came = number;
}

void bptt_signals_hold(bptt_signals *signals)
{
    struct sigaction action = {.sa_handler = note_signal};
    (void)sigemptyset(&action.sa_mask);
    came = 0;
    for (size_t i = 0; i < HELD; i++) {
        (void)sigaction(held[i], &action, &signals->old[i]);
        bool ignored = (signals->old[i].sa_flags & SA_SIGINFO) == 0 && signals->old[i].sa_handler == SIG_IGN;
        if (ignored) { (void)sigaction(held[i], &signals->old[i], NULL); } /* nohup means what it says */
    }
}

bool bptt_signals_came(void)
{
    return came != 0;
}

void bptt_signals_release(const bptt_signals *signals)
{
    for (size_t i = 0; i < HELD; i++) { (void)sigaction(held[i], &signals->old[i], NULL); }
    if (came != 0) { (void)raise(came); }
}
