/* backend.c: opens and closes programs, and swaps their code.  See backend.h.
 *
 * Depends on the compiler (gen/compile.h), the loaders behind backend_private.h, kernels.h and generic.h.  Knows no libtcc, no
 * process and no file.
 */
#include "backend.h"

#include "../gen/compile.h"
#include "backend_private.h"
#include "generic.h"
#include "machine.h"
#include "team.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *const bptt_backend_words[] = {"tcc", "cc", "auto", "generic", NULL};

/* Auto looks in the cache before it compiles; a compiler that has not told its version by then is not waited for. */
static const double version_ms = 200, signal_ms = 50; /* how long a signal may wait */

/* What a program of emitted code hides. */
typedef struct session {
    char name[BPTT_NAME_MAX], digest[BPTT_DIGEST_SIZE];
    bptt_unit unit; /* freed as soon as nobody compiles */
    bptt_text text;
    bptt_code tcc, cc;
    bptt_cc *compiler;                      /* NULL: not at work */
    bptt_error notice;                      /* why it is not, when it should be */
    bptt_team *team;                        /* NULL: threads = 1 */
    bptt_model models[BPTT_BACKEND_CC + 1]; /* the codes' own, with the team */
    uint32_t real_size;
    int simd;
} session;

/* --- sessions --------------------------------------------------------------------------------------------------------------- */

bptt_status bptt_code_check(const bptt_model *model, const bptt_text *text, bptt_error *error)
{
    if (model->abi != BPTT_ABI) {
        return bptt_fail(error, BPTT_FAILED, "%s: the code has ABI %u; expected %d", text->name, (unsigned)model->abi, BPTT_ABI);
    }
    if (strcmp(model->name, text->name) != 0 || strcmp(model->digest, text->digest) != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: the code is of another spec (%s %s; expected %s)", text->name, model->name,
                         model->digest, text->digest);
    }
    return BPTT_OK;
}

static void release_code(bptt_code *code)
{
    if (code->model != NULL) { code->release(code->owner); }
    memset(code, 0, sizeof *code);
}

static void session_close(session *s)
{
    bptt_cc_free(s->compiler);
    release_code(&s->cc);
    release_code(&s->tcc);
    bptt_unit_free(&s->unit);
    bptt_team_free(s->team);
    free(s);
}

static session *session_open(const bptt_spec *spec, bptt_error *error)
{
    session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "%s: no memory", spec->name);
        return NULL;
    }
    memcpy(s->name, spec->name, sizeof s->name);
    memcpy(s->digest, spec->digest, sizeof s->digest);
    s->simd = spec->simd != 0 ? (int)spec->simd : bptt_kernels_simd();
    s->real_size = spec->dtype == BPTT_F64 ? sizeof(double) : sizeof(float);
    if (bptt_compile(spec, s->simd, bptt_machine_memory(), &s->unit, error) != BPTT_OK) {
        free(s);
        return NULL;
    }
    s->text = (bptt_text){.name = s->name, .digest = s->digest, .header = s->unit.header, .source = s->unit.source};
    if (spec->threads > 1) {
        s->team = bptt_team_new((int)spec->threads, error);
        if (s->team == NULL) {
            session_close(s);
            return NULL;
        }
    }
    return s;
}

static void session_run(session *s, bptt_backend backend, bptt_program *program)
{
    const bptt_code *code = backend == BPTT_BACKEND_CC ? &s->cc : &s->tcc;
    bptt_model *model = &s->models[code == &s->cc ? BPTT_BACKEND_CC : BPTT_BACKEND_TCC];
    *model = *code->model;
    model->team = s->team;
    program->model = model;
    program->backend = bptt_backend_words[backend];
    program->compile_ms = code->compile_ms;
    program->code_bytes = code->code_bytes;
}

static bool is_over(bptt_cc_stage stage)
{
    return stage == BPTT_CC_READY || stage == BPTT_CC_FAILED;
}

/* The compiler's work is over, well or badly. */
static void compiler_done(session *s)
{
    bptt_cc_free(s->compiler);
    s->compiler = NULL;
}

static bptt_status stopped(bptt_error *error)
{
    return bptt_fail(error, BPTT_STOPPED, "cc: stopped by a signal, nothing was made");
}

/* --- the backends ----------------------------------------------------------------------------------------------------------- */

static bptt_status open_tcc(session *s, bptt_program *program, bptt_error *error)
{
    s->text.kernels = bptt_kernels((int)s->real_size, s->simd, &s->text.kernel_count);
    if (s->text.kernels == NULL) {
        return bptt_fail(error, BPTT_FAILED, "simd = %d: this machine's widest is %d", s->simd, bptt_kernels_simd());
    }
    bptt_status status = bptt_tcc_compile(&s->text, &s->tcc, error);
    if (status == BPTT_OK) { session_run(s, BPTT_BACKEND_TCC, program); }
    return status;
}

/* Starts the compiler unless it runs, and waits for it.  Signals are held from before the start: nobody else would end it. */
static bptt_status wait_for_cc(session *s, bptt_program *program, bptt_error *error)
{
    bptt_signals signals;
    bptt_cc_stage stage = BPTT_CC_FAILED;
    bptt_signals_hold(&signals);
    if (s->compiler == NULL) { s->compiler = bptt_cc_start(&s->text, false, error); }
    while (s->compiler != NULL) {
        stage = bptt_cc_advance(s->compiler, signal_ms, &s->cc, error);
        if (is_over(stage) || bptt_signals_came()) { compiler_done(s); }
    }
    bptt_signals_release(&signals);
    if (stage == BPTT_CC_FAILED) { return BPTT_FAILED; }
    if (stage != BPTT_CC_READY) { return stopped(error); }
    session_run(s, BPTT_BACKEND_CC, program);
    return BPTT_OK;
}

/* Auto when libtcc cannot do it: the compiler must.  Both reasons are told when it cannot either. */
static bptt_status fall_back(session *s, const bptt_error *tcc_error, bptt_program *program, bptt_error *error)
{
    bptt_error cc_error = *error;
    bptt_status status = s->compiler != NULL ? wait_for_cc(s, program, &cc_error) : BPTT_FAILED;
    if (status == BPTT_OK) { return BPTT_OK; }
    return bptt_fail(error, status, "%.500s; %.500s", tcc_error->text, cc_error.text);
}

static void give_notice(session *s, const bptt_error *reason, bptt_program *program)
{
    (void)bptt_fail(&s->notice, BPTT_FAILED, "stays on tcc: %s", reason->text);
    program->notice = s->notice.text;
}

/* Starts the compiler and waits until it has told its version, or will not.  A signal ends it first; false: one came. */
static bool ask_compiler(session *s, bptt_cc_stage *stage, bptt_error *error)
{
    const double deadline = bptt_seconds() + version_ms * 1e-3;
    bptt_signals signals;
    bptt_signals_hold(&signals);
    *stage = BPTT_CC_FAILED;
    s->compiler = bptt_cc_start(&s->text, true, error);
    while (s->compiler != NULL) {
        *stage = bptt_cc_advance(s->compiler, signal_ms, &s->cc, error);
        if (is_over(*stage)) { compiler_done(s); }
        if (*stage != BPTT_CC_ASKING || bptt_signals_came() || bptt_seconds() >= deadline) { break; }
    }
    const bool came = bptt_signals_came();
    if (came && s->compiler != NULL) { compiler_done(s); }
    bptt_signals_release(&signals);
    return !came;
}

static bptt_status open_auto(session *s, bptt_program *program, bptt_error *error)
{
    bptt_cc_stage stage = BPTT_CC_FAILED;
    if (!ask_compiler(s, &stage, error)) { return stopped(error); }
    if (stage == BPTT_CC_READY) {
        session_run(s, BPTT_BACKEND_CC, program);
        return BPTT_OK;
    }
    bptt_error tcc_error;
    if (open_tcc(s, program, &tcc_error) != BPTT_OK) { return fall_back(s, &tcc_error, program, error); }
    if (stage == BPTT_CC_FAILED) { give_notice(s, error, program); }
    return BPTT_OK;
}

static void close_session(bptt_program *program)
{
    session_close(program->hidden);
}

static void close_generic(bptt_program *program)
{
    bptt_generic_free(program->model);
}

static bptt_status open_generic(const bptt_spec *spec, bptt_program *program, bptt_error *error)
{
    if (spec->truncation != BPTT_TRUNCATION_CHUNK) {
        return bptt_fail(error, BPTT_FAILED, "%s: the generic backend has loops for truncation = \"chunk\" alone", spec->name);
    }
    if (!bptt_generic_has(spec)) {
        return bptt_fail(
            error, BPTT_FAILED,
            "%s: the generic backend has loops for one layer of cell rnn alone, without resets, learned h0 or dropout",
            spec->name);
    }
    const bptt_model *model = bptt_generic_new(spec);
    if (model == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory for the generic backend", spec->name); }
    program->model = model;
    program->backend = bptt_backend_words[BPTT_BACKEND_GENERIC];
    program->close = close_generic;
    return BPTT_OK;
}

/* --- programs --------------------------------------------------------------------------------------------------------------- */

bptt_status bptt_program_open(const bptt_spec *spec, bptt_backend backend, bptt_program *program, bptt_error *error)
{
    static bptt_status (*const openers[])(session *, bptt_program *, bptt_error *) = {
        [BPTT_BACKEND_TCC] = open_tcc,
        [BPTT_BACKEND_CC] = wait_for_cc,
        [BPTT_BACKEND_AUTO] = open_auto,
    };
    memset(program, 0, sizeof *program);
    if (backend == BPTT_BACKEND_GENERIC) { return open_generic(spec, program, error); }
    const int cpus = bptt_machine_cpus();
    if (spec->threads > cpus) {
        return bptt_fail(error, BPTT_FAILED, "threads = %d: this machine has %d CPU%s", (int)spec->threads, cpus,
                         cpus > 1 ? "s" : "");
    }
    session *s = session_open(spec, error);
    if (s == NULL) { return BPTT_FAILED; }
    bptt_status status = openers[backend](s, program, error);
    if (status != BPTT_OK) {
        session_close(s);
        memset(program, 0, sizeof *program);
        return status;
    }
    if (s->compiler == NULL) { bptt_unit_free(&s->unit); }
    program->hidden = s;
    program->close = close_session;
    return BPTT_OK;
}

bool bptt_program_poll(bptt_program *program)
{
    session *s = program->hidden;
    if (s == NULL || s->compiler == NULL) { return false; }
    bptt_error error = {""};
    bptt_cc_stage stage = bptt_cc_advance(s->compiler, 0, &s->cc, &error);
    if (!is_over(stage)) { return false; }
    compiler_done(s);
    bptt_unit_free(&s->unit);
    if (stage == BPTT_CC_READY) {
        session_run(s, BPTT_BACKEND_CC, program);
    } else {
        give_notice(s, &error, program);
    }
    return stage == BPTT_CC_READY;
}

void bptt_program_close(bptt_program *program)
{
    if (program->close != NULL) { program->close(program); }
    memset(program, 0, sizeof *program);
}

size_t bptt_state_bytes(const bptt_model *model)
{
    size_t end = 0;
    for (uint32_t s = 0; s < model->state_count; s++) {
        const bptt_tensor *state = &model->states[s];
        size_t last = state->offset + (size_t)state->rows * state->stride;
        end = last > end ? last : end;
    }
    return end * model->real_size;
}

void *bptt_memory_new(const bptt_model *model)
{
    /* The rows of a wide matrix lie on a page each, and a processor remembers the places of few: a large model gets large pages.
     * They come at once, too, where small ones cost a fault each. */
    enum { ALIGNMENT = 64, PAGE = 2 << 20 };
    const size_t unit = model->bytes < PAGE ? ALIGNMENT : PAGE;
    if (model->bytes > SIZE_MAX - unit) { return NULL; }
    const size_t bytes = (model->bytes + unit - 1) / unit * unit;
    void *memory = aligned_alloc(unit, bytes);
    if (memory == NULL) { return NULL; }
    if (unit == PAGE) { (void)madvise(memory, bytes, MADV_HUGEPAGE); } /* where refused, small pages do */
    return memset(memory, 0, bytes);
}
