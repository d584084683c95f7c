/* backend.h: turns a checked spec into a running model, by one of four backends.
 *
 *   tcc      emitted C, compiled in this process by libtcc; kernels bound to the precompiled ones
 *   cc       the same text, compiled by the system's compiler, cached by digest, loaded
 *   auto     starts on tcc, swaps to cc at a chunk border when the compiler is done
 *   generic  plain loops with run-time sizes: the baseline and an oracle
 *
 * The compiler is $BPTT_CC, else $CC (each may hold arguments), else cc, gcc or clang in PATH; it has $BPTT_CC_SECONDS, 120 unless
 * set.  Objects are kept in $XDG_CACHE_HOME/bptt or ~/.cache/bptt.
 *
 * A program is code (shared by any number of memories); a memory is one model's struct.  Callers see bptt_model alone.
 * A program of a spec with several threads has the team that does the parts of their work, for one memory at a time; generic has
 * one thread.
 *
 * Depends on gen/ (spec to text) and templates/abi.h.
 */
#ifndef BPTT_BACKEND_H
#define BPTT_BACKEND_H

#include "../gen/spec.h"
#include "../templates/abi.h"

typedef enum bptt_backend { BPTT_BACKEND_TCC, BPTT_BACKEND_CC, BPTT_BACKEND_AUTO, BPTT_BACKEND_GENERIC } bptt_backend;

/* Words of the backends in enum order, ended by NULL. */
extern const char *const bptt_backend_words[];

typedef struct bptt_program {
    const bptt_model *model; /* valid until the program is closed; auto may replace it in bptt_program_poll */
    const char *backend;     /* word of the backend that `model` runs on now */
    double compile_ms;       /* time from text to code, milliseconds; 0 for generic */
    size_t code_bytes;       /* machine code of the model itself, 0 for generic (or not known) */
    const char *notice;      /* auto: why it stays on tcc, a line to tell the user once; NULL: nothing to tell */
    void *hidden;            /* the backend's own */
    void (*close)(struct bptt_program *program);
} bptt_program;

/* Opens `spec` on `backend`.  The caller owns *program and closes it with bptt_program_close.  SIGINT, SIGTERM and SIGHUP while
 * it waits for the compiler end that first, leave nothing behind and then do what they would have done; BPTT_STOPPED when the
 * caller's own handlers come back.  Refuses more threads than there are CPUs. */
bptt_status bptt_program_open(const bptt_spec *spec, bptt_backend backend, bptt_program *program, bptt_error *error);
/* For auto, between chunks: replaces program->model by the compiled one when it is ready (memories stay valid as they are).
 * Returns true when it did; sets program->notice when it will never be. */
bool bptt_program_poll(bptt_program *program);
void bptt_program_close(bptt_program *program);

/* Bytes of the carried state, from the start of the state block to its end. */
size_t bptt_state_bytes(const bptt_model *model);

/* Zeroed, 64-byte aligned memory of model->bytes, not yet initialised (call model->init); free with free().  NULL: no memory. */
void *bptt_memory_new(const bptt_model *model);

#endif
