/* backend.c: opens a spec on one of the four backends.  See backend.h; the compilers are in backend_tcc.c and backend_cc.c. */
#include "backend_private.h"

#include "generic.h"
#include "kernels.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const bptt_backend_words[] = {"tcc", "cc", "auto", "generic", NULL};

/* What a program owns. */
typedef struct parts {
    const bptt_model *generic;
    bptt_tcc *tcc;
    bptt_cc *cc;
    bool waiting;        /* auto: the compiler is still at work */
    double started_ms;
} parts;

static double now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static size_t physical_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : SIZE_MAX / 2;
}

bptt_status bptt_program_text(const bptt_spec *spec, char **text, int *simd, bptt_error *error)
{
    const int widest = bptt_kernels_simd();
    if (spec->simd > widest) {
        return bptt_fail(error, BPTT_FAILED, "%s: simd = %d: this machine's widest is %d", spec->source, (int)spec->simd, widest);
    }
    *simd = spec->simd > 0 ? (int)spec->simd : widest;
    bptt_unit unit;
    bptt_status status = bptt_compile(spec, *simd, physical_memory(), &unit, error);
    if (status != BPTT_OK) { return status; }
    size_t header = strlen(unit.header), source = strlen(unit.source);
    *text = malloc(header + source + 1);
    if (*text == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "no memory for the text of %s", spec->name);
    } else {
        memcpy(*text, unit.header, header);
        memcpy(*text + header, unit.source, source + 1);
    }
    bptt_unit_free(&unit);
    return status;
}

/* --- the four ways -------------------------------------------------------------------------------------------------------------- */

static bptt_status open_generic(const bptt_spec *spec, bptt_program *program, parts *own, bptt_error *error)
{
    own->generic = bptt_generic_new(spec);
    if (own->generic == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory for the generic loops", spec->name); }
    program->model = own->generic;
    program->backend = bptt_backend_words[BPTT_BACKEND_GENERIC];
    return BPTT_OK;
}

static bptt_status open_tcc(const bptt_spec *spec, const char *text, int simd, bptt_program *program, parts *own, bptt_error *error)
{
    const double start = now_ms();
    const int real_size = spec->dtype == BPTT_F64 ? 8 : 4;
    bptt_status status = bptt_tcc_open(spec->name, text, real_size, simd, &own->tcc, &program->model, &program->code_bytes, error);
    program->compile_ms = now_ms() - start;
    program->backend = bptt_backend_words[BPTT_BACKEND_TCC];
    return status;
}

static void take_cc(bptt_program *program, const parts *own, const bptt_model *model, size_t code_bytes)
{
    program->model = model;
    program->code_bytes = code_bytes;
    program->compile_ms = now_ms() - own->started_ms;
    program->backend = bptt_backend_words[BPTT_BACKEND_CC];
}

static bptt_status open_cc(const bptt_spec *spec, const char *text, bptt_program *program, parts *own, bptt_error *error)
{
    const bptt_model *model = NULL;
    size_t code_bytes = 0;
    own->started_ms = now_ms();
    bptt_status status = bptt_cc_start(spec->name, spec->digest, text, false, &own->cc, error);
    if (status == BPTT_OK) { status = bptt_cc_poll(own->cc, true, &model, &code_bytes, error); }
    if (status == BPTT_OK) { take_cc(program, own, model, code_bytes); }
    return status;
}

/* The compiler in the background, libtcc meanwhile; without a compiler libtcc alone, without libtcc the compiler alone. */
static bptt_status open_auto(const bptt_spec *spec, const char *text, int simd, bptt_program *program, parts *own, bptt_error *error)
{
    bptt_error cc_error, tcc_error;
    own->started_ms = now_ms();
    bptt_status started = bptt_cc_start(spec->name, spec->digest, text, true, &own->cc, &cc_error);
    own->waiting = started == BPTT_OK;
    if (own->waiting && bptt_program_poll(program)) { return BPTT_OK; } /* it was in the cache */
    if (open_tcc(spec, text, simd, program, own, &tcc_error) == BPTT_OK) { return BPTT_OK; }
    const bptt_model *model = NULL;
    size_t code_bytes = 0;
    if (own->waiting && bptt_cc_poll(own->cc, true, &model, &code_bytes, &cc_error) == BPTT_OK) {
        own->waiting = false;
        take_cc(program, own, model, code_bytes);
        return BPTT_OK;
    }
    return bptt_fail(error, BPTT_FAILED, "libtcc: %.400s; compiler: %.400s", tcc_error.text, cc_error.text);
}

static void close_program(bptt_program *program)
{
    parts *own = program->hidden;
    bptt_generic_free(own->generic);
    bptt_tcc_close(own->tcc);
    bptt_cc_close(own->cc);
    free(own);
}

bptt_status bptt_program_open(const bptt_spec *spec, bptt_backend backend, bptt_program *program, bptt_error *error)
{
    memset(program, 0, sizeof *program);
    parts *own = calloc(1, sizeof *own);
    if (own == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to run %s", spec->name); }
    program->hidden = own;
    program->close = close_program;
    char *text = NULL;
    int simd = 0;
    bptt_status status = BPTT_OK;
    if (backend != BPTT_BACKEND_GENERIC) { status = bptt_program_text(spec, &text, &simd, error); }
    if (status == BPTT_OK) {
        status = backend == BPTT_BACKEND_GENERIC ? open_generic(spec, program, own, error)
                 : backend == BPTT_BACKEND_TCC   ? open_tcc(spec, text, simd, program, own, error)
                 : backend == BPTT_BACKEND_CC    ? open_cc(spec, text, program, own, error)
                                                 : open_auto(spec, text, simd, program, own, error);
    }
    free(text);
    if (status != BPTT_OK) { bptt_program_close(program); }
    return status;
}

bool bptt_program_poll(bptt_program *program)
{
    parts *own = program->hidden;
    if (own == NULL || !own->waiting) { return false; }
    const bptt_model *model = NULL;
    size_t code_bytes = 0;
    bptt_error error;
    bptt_status status = bptt_cc_poll(own->cc, false, &model, &code_bytes, &error);
    if (status == BPTT_OK && model == NULL) { return false; }
    own->waiting = false;
    if (status != BPTT_OK) { return false; } /* libtcc goes on alone */
    take_cc(program, own, model, code_bytes);
    return true;
}

void bptt_program_close(bptt_program *program)
{
    if (program->close != NULL) { program->close(program); }
    memset(program, 0, sizeof *program);
}

void *bptt_memory_new(const bptt_model *model)
{
    enum { ALIGNMENT = 64 };
    if (model->bytes > SIZE_MAX - ALIGNMENT) { return NULL; }
    size_t bytes = (model->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, bytes);
    if (memory != NULL) { memset(memory, 0, bytes); }
    return memory;
}
