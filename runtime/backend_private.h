/* backend_private.h: what the backend_*.c files share.  Nobody else includes it, tests,
 * tuning.c (which keeps a file in the cache) and diagnose_plot.c (which runs gnuplot) apart.
 *
 *   backend.c          opens and closes programs, swaps
 *   backend_tcc.c      text to code by libtcc, in this process
 *   backend_cc.c       text to code by the system's compiler: which one, with what flags, step by step
 *   backend_process.c  runs a program with a time limit and without a shell
 *   backend_cache.c    the folder of compiled objects
 */
#ifndef BPTT_BACKEND_PRIVATE_H
#define BPTT_BACKEND_PRIVATE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../gen/status.h"
#include "../templates/abi.h"
#include "kernels.h"

/* What a loader is given: the emitted text and whom its model must claim to be.  Everything is borrowed. */
typedef struct bptt_text {
    const char *name, *digest;
    const char *header, *source; /* NAME.h, NAME.c */
    const bptt_kernel *kernels;  /* that the text calls when it is compiled in this process */
    size_t kernel_count;
} bptt_text;

/* What it makes of it. */
typedef struct bptt_code {
    const bptt_model *model; /* NULL: none */
    double compile_ms;
    size_t code_bytes; /* 0: not known */
    void *owner;
    void (*release)(void *owner);
} bptt_code;

/* Milliseconds of a clock that never goes back. */
double bptt_clock_ms(void);
/* Refuses a model that is not the one that `text` describes. */
bptt_status bptt_code_check(const bptt_model *model, const bptt_text *text, bptt_error *error);

/* --- libtcc ----------------------------------------------------------------------------------------------------------------- */

/* Compiles and links `text`; on success the caller releases *code. */
bptt_status bptt_tcc_compile(const bptt_text *text, bptt_code *code, bptt_error *error);

/* --- the system's compiler: one that works while we do something else ------------------------------------------------------- */

typedef struct bptt_cc bptt_cc;
typedef enum {
    BPTT_CC_ASKING,   /* the compiler is telling its version, which the cache needs */
    BPTT_CC_BUILDING, /* it compiles */
    BPTT_CC_READY,    /* the code was handed over */
    BPTT_CC_FAILED,   /* the error was */
} bptt_cc_stage;

/* Starts on `text`, which stays valid until bptt_cc_free.  `background`: at low priority.  NULL: *error says why. */
bptt_cc *bptt_cc_start(const bptt_text *text, bool background, bptt_error *error);
/* Goes on; comes back when the stage changed or `wait_ms` passed.  Fills *code at READY (the caller's to release), *error at
 * FAILED. */
bptt_cc_stage bptt_cc_advance(bptt_cc *cc, double wait_ms, bptt_code *code, bptt_error *error);
/* Ends the compiler if it still runs and leaves nothing behind.  NULL is fine. */
void bptt_cc_free(bptt_cc *cc);

/* --- a program that runs beside us ------------------------------------------------------------------------------------------ */

typedef struct bptt_process {
    pid_t pid;       /* 0: none runs */
    int output;      /* what it writes to stdout and stderr comes here; -1: closed */
    double deadline; /* on bptt_clock_ms */
    bool late;       /* it was stopped at its deadline */
    int status;      /* as of waitpid, once it has ended */
    size_t length;
    char text[1 << 14]; /* the beginning of its output, ended by NUL */
} bptt_process;

/* The path of `name`, from PATH unless it is one itself.  NULL: no such program, or no memory; the caller frees it. */
char *bptt_find_program(const char *name);
/* Runs argv[0], a path, with no file of ours but the pipe, in a process group of its own.  Its temporary files go to `folder`,
 * NULL: where ours go. */
bptt_status bptt_process_start(bptt_process *process, char *const *argv, const char *folder, double limit_ms, bool background,
                               bptt_error *error);
/* True once it has ended or was stopped at its deadline; false when `wait_ms` passed first. */
bool bptt_process_wait(bptt_process *process, double wait_ms);
/* Kills its whole group. */
void bptt_process_stop(bptt_process *process);

/* SIGINT, SIGTERM and SIGHUP, kept back while a program that must not be left behind runs.  One at a time. */
typedef struct bptt_signals {
    struct sigaction old[3];
} bptt_signals;

void bptt_signals_hold(bptt_signals *signals);
bool bptt_signals_came(void);
/* Gives them back as they were, and then sends the one that came again: without a handler that ends this process. */
void bptt_signals_release(const bptt_signals *signals);

/* --- compiled objects on disk ----------------------------------------------------------------------------------------------- */

/* $XDG_CACHE_HOME/bptt or $HOME/.cache/bptt, made when missing.  NULL when there is none that only this user can write. */
char *bptt_cache_folder(void);
/* A new private folder to build in: in `cache`, else (NULL, or not writable) among the temporary files.  NULL: cannot make one. */
char *bptt_cache_workplace(const char *cache);
/* Removes the folder and the files in it. */
void bptt_cache_discard(const char *folder);
/* Appends a digest of `recipe` and the object's bytes. */
bptt_status bptt_cache_seal(const char *object, const char *recipe, bptt_error *error);
/* Whether it is there, whole and made by `recipe`; *code_bytes is the size of its machine code. */
bool bptt_cache_verify(const char *object, const char *recipe, size_t *code_bytes);
#define BPTT_TUNING_SUFFIX ".tuning"
/* Removes what nobody has used for a month, but for tunings. */
void bptt_cache_sweep(const char *cache);

/* 128-bit digest of some strings, hexadecimal, into 33 bytes; false: no memory. */
bool bptt_digest(const char *const *strings, size_t count, char *hexadecimal);

#endif
