/* peer_process.c: a peer in a process of its own, a Python script that peer.py describes how to talk to. */
#include "peer.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct process {
    const char *script;
    pid_t pid;
    FILE *to, *from;
} process;

/* The child's ends of the pipes become its stdin and stdout.  0: failed; nothing is left open. */
static pid_t spawn(const char *script, int *to, int *from)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0) { return 0; }
    if (pipe2(out, O_CLOEXEC) != 0) {
        (void)close(in[0]);
        (void)close(in[1]);
        return 0;
    }
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0) {
            (void)execl("/usr/bin/python3", "python3", "-B", script, (char *)NULL); /* the one that Debian's packages are for */
        }
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    *to = in[1];
    *from = out[0];
    if (pid > 0) { return pid; }
    (void)close(*to);
    (void)close(*from);
    return 0;
}

static bool send_task(const process *p, const peer_task *t)
{
    const bptt_spec *spec = &t->spec;
    const size_t tokens = t->chunks * t->steps * t->batch, H = t->hidden, V = t->vocab, width = t->gates * H;
    const char *cell = bptt_spec_word("cell", (int)spec->cell);
    return fprintf(p->to, "%s %zu %zu %zu %zu %zu %zu %.17g %.17g %.17g\n", cell, t->gates, H, V, t->steps, t->batch, t->chunks,
                   spec->optimizer.rate, spec->optimizer.epsilon, spec->clip.limit) > 0 &&
           fwrite(t->W_xh, sizeof(float), V * width, p->to) == V * width &&
           fwrite(t->W_hh, sizeof(float), H * width, p->to) == H * width &&
           fwrite(t->W_hy, sizeof(float), H * V, p->to) == H * V && fwrite(t->x, sizeof *t->x, tokens, p->to) == tokens &&
           fwrite(t->y, sizeof *t->y, tokens, p->to) == tokens && fflush(p->to) == 0;
}

static bptt_status peer_open(const peer_kind *kind, const peer_task *task, void **self, bptt_error *error)
{
    int to = -1, from = -1;
    char line[16] = "";
    process *p = *self = calloc(1, sizeof *p);
    if (p == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a peer"); }
    p->script = kind->argument;
    (void)signal(SIGPIPE, SIG_IGN); /* a script that ended is found out by its answer */
    p->pid = spawn(p->script, &to, &from);
    if (p->pid == 0) { return bptt_fail(error, BPTT_FAILED, "%s: cannot be started", p->script); }
    p->to = fdopen(to, "w");
    p->from = fdopen(from, "r");
    if (p->to == NULL || p->from == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory for its pipes", p->script); }
    if (!send_task(p, task) || fgets(line, sizeof line, p->from) == NULL || strcmp(line, "ready\n") != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: does not start", p->script);
    }
    return BPTT_OK;
}

static bptt_status peer_run(void *self, long steps, peer_result *result, bptt_error *error)
{
    process *p = self;
    char line[128] = "", *end = line;
    const bool asked = fprintf(p->to, "%ld\n", steps) > 0 && fflush(p->to) == 0;
    if (!asked || fgets(line, sizeof line, p->from) == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: has ended", p->script); }
    result->seconds = strtod(line, &end);
    result->loss = strtod(end, &end);
    if (*end != '\n') { return bptt_fail(error, BPTT_FAILED, "%s: answered '%s'", p->script, line); }
    return BPTT_OK;
}

static void peer_close(void *self)
{
    process *p = self;
    if (p == NULL) { return; }
    if (p->to != NULL) { (void)fclose(p->to); }
    if (p->from != NULL) { (void)fclose(p->from); }
    if (p->pid > 0) { (void)waitpid(p->pid, NULL, 0); }
    free(p);
}

const peer_system peer_process = {peer_open, peer_run, NULL, peer_close};
