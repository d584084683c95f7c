/* backend_tcc.c: emitted text to code inside this process, by libtcc.  See backend_private.h.
 *
 * The one file that includes libtcc.h.  libtcc reads no file, finds no symbol but those bound here, and keeps to four rules that
 * its code imposes: options before output type before text; one compile at a time; nothing compiled from its error callback; its
 * calls of exit, mprotect and stderr come to us, since tcc.o is made with (see the Makefile)
 *
 *     objcopy --redefine-sym exit=bptt_tcc_exit --redefine-sym mprotect=bptt_tcc_mprotect --redefine-sym stderr=bptt_tcc_stderr
 *
 * The code lies in pages that are written first and executed afterwards, never both; emitted text has no variables of its own.
 * Refuses vector widths that this CPU lacks (through the kernels it is given) and text with a warning.
 */
#include "backend_private.h"

#include <errno.h>
#include <libtcc.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* --- what libtcc calls instead of libc -------------------------------------------------------------------------------------- */

_Noreturn void bptt_tcc_exit(int status);
int bptt_tcc_mprotect(void *address, size_t length, int protection);
extern FILE *bptt_tcc_stderr;

/* Where an exit of libtcc on this thread lands; NULL outside bptt_tcc_compile. */
static _Thread_local jmp_buf *landing;

_Noreturn void bptt_tcc_exit(int status)
{
    if (landing != NULL) { longjmp(*landing, 1); }
    exit(status);
}

/* Its own request is for pages that are writable and executable at once. */
int bptt_tcc_mprotect(void *address, size_t length, int protection)
{
#ifdef TCC_RELOCATE_AUTO
    (void)address, (void)length, (void)protection;
    return 0; /* our pages: link_code does it */
#else
    return mprotect(address, length, protection);
#endif
}

/* Takes the message before an exit; a callback gets all others. */
FILE *bptt_tcc_stderr;

/* --- what emitted code may call --------------------------------------------------------------------------------------------- */

/* tcc spells these conversions as calls. */
static float float_of_u64(uint64_t value)
{
    return (float)value;
}

static double double_of_u64(uint64_t value)
{
    return (double)value;
}

static uint64_t u64_of_float(float value)
{
    return (uint64_t)value;
}

static uint64_t u64_of_double(double value)
{
    return (uint64_t)value;
}

#define SAME_NAME(function) #function, (void (*)(void))(function)
static const bptt_kernel library[] = {
    {SAME_NAME(memcpy)},
    {SAME_NAME(memset)},
    {SAME_NAME(memmove)},
    {SAME_NAME(sqrt)},
    {SAME_NAME(sqrtf)},
    {SAME_NAME(log)},
    {SAME_NAME(logf)},
    {SAME_NAME(exp)},
    {SAME_NAME(expf)},
    {SAME_NAME(tanh)},
    {SAME_NAME(tanhf)},
    {SAME_NAME(fabs)},
    {SAME_NAME(fabsf)},
    {SAME_NAME(pow)},
    {SAME_NAME(cos)},
    {"__floatundisf", (void (*)(void))float_of_u64},
    {"__floatundidf", (void (*)(void))double_of_u64},
    {"__fixunssfdi", (void (*)(void))u64_of_float},
    {"__fixunsdfdi", (void (*)(void))u64_of_double},
};

/* --- one compile ------------------------------------------------------------------------------------------------------------ */

typedef struct tcc_code {
    TCCState *state;
    void *pages; /* the code; NULL: in the state's own memory */
    size_t size;
} tcc_code;

typedef struct work {
    const bptt_text *text;
    char *joined; /* header and source */
    char *symbol; /* NAME_model */
    tcc_code *code;
    const bptt_model *model;
    size_t code_bytes;
    char message[512]; /* the first one; "" none */
    char last_words[256];
    bool locked; /* libtcc holds its global lock */
} work;

static void keep_first(void *opaque, const char *message)
{
    work *w = opaque;
    if (w->message[0] != '\0') { return; }
    const char *newline = strrchr(message, '\n'); /* the error itself comes last, after where it was included from */
    const char *text = newline != NULL ? newline + 1 : message;
    if (strncmp(text, "tcc: ", 5) == 0) { text += 5; } /* we say that ourselves */
    (void)snprintf(w->message, sizeof w->message, "%s", text);
}

static bool bind(work *w, const bptt_kernel *functions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (tcc_add_symbol(w->code->state, functions[i].name, (const void *)functions[i].function) < 0) { return false; }
    }
    return true;
}

#ifdef TCC_RELOCATE_AUTO
/* Links into pages of our own.  `_etext` is the end of the functions, which come first.  Nothing points into the state then. */
static bool link_code(work *w)
{
    tcc_code *code = w->code;
    int size = tcc_relocate(code->state, NULL);
    if (size <= 0) { return false; }
    void *pages = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        keep_first(w, "no memory for the code");
        return false;
    }
    code->pages = pages;
    code->size = (size_t)size;
    if (tcc_relocate(code->state, pages) < 0) { return false; }
    if (mprotect(pages, code->size, PROT_READ | PROT_EXEC) != 0) {
        keep_first(w, "this system forbids making memory executable");
        return false;
    }
    const char *end = tcc_get_symbol(code->state, "_etext");
    w->code_bytes = end != NULL ? (size_t)(end - (const char *)pages) : code->size;
    w->model = tcc_get_symbol(code->state, w->symbol);
    tcc_delete(code->state);
    code->state = NULL;
    return true;
}
#else
/* Newer libtcc manages the pages itself and does not tell how many. */
static bool link_code(work *w)
{
    if (tcc_relocate(w->code->state) < 0) { return false; }
    w->model = tcc_get_symbol(w->code->state, w->symbol);
    return true;
}
#endif

/* Everything in it may end in bptt_tcc_exit. */
static bool compile(work *w)
{
    tcc_code *code = w->code;
    code->state = tcc_new();
    if (code->state == NULL) { return false; }
    tcc_set_error_func(code->state, w, keep_first);
    tcc_set_options(code->state, "-nostdlib -nostdinc -Werror");
    tcc_set_output_type(code->state, TCC_OUTPUT_MEMORY);
    tcc_define_symbol(code->state, "BPTT_HOSTED", "1");
    w->locked = true;
    bool compiled = tcc_compile_string(code->state, w->joined) == 0;
    w->locked = false;
    if (!compiled || !bind(w, library, sizeof library / sizeof *library) || !bind(w, w->text->kernels, w->text->kernel_count) ||
        !link_code(w)) {
        return false;
    }
    if (w->model == NULL) { keep_first(w, "the text defines no model"); }
    return w->model != NULL;
}

static void release(void *owner)
{
    tcc_code *code = owner;
    if (code->state != NULL) { tcc_delete(code->state); }
    if (code->pages != NULL) { (void)munmap(code->pages, code->size); }
    free(code);
}

/* As compile; an exit becomes a failure.  The state is then in no known condition and stays behind. */
static bool compile_or_land(work *w)
{
    static bool lost; /* libtcc's lock, with an exit in the middle of a compile: another one would wait for ever */
    if (lost) {
        keep_first(w, "out of use since it ran out of memory");
        return false;
    }
    jmp_buf here;
    if (setjmp(here) != 0) {
        landing = NULL;
        lost = w->locked;
        w->code->state = NULL;
        return false;
    }
    landing = &here;
    bool compiled = compile(w);
    landing = NULL;
    return compiled;
}

/* One at a time, which is all that libtcc can do; this also covers its first call, which would race. */
static bool compile_alone(work *w)
{
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    (void)pthread_mutex_lock(&turn);
    bptt_tcc_stderr = fmemopen(w->last_words, sizeof w->last_words, "w");
    bool compiled = bptt_tcc_stderr != NULL && compile_or_land(w);
    if (bptt_tcc_stderr != NULL) { (void)fclose(bptt_tcc_stderr); }
    bptt_tcc_stderr = stderr;
    (void)pthread_mutex_unlock(&turn);
    w->last_words[strcspn(w->last_words, "\n")] = '\0';
    if (!compiled) { keep_first(w, w->last_words[0] != '\0' ? w->last_words : "no memory"); }
    return compiled;
}

bptt_status bptt_tcc_compile(const bptt_text *text, bptt_code *code, bptt_error *error)
{
    memset(code, 0, sizeof *code);
    const double started = bptt_clock_ms();
    work w = {.text = text, .code = calloc(1, sizeof *w.code)};
    bool named = asprintf(&w.symbol, "%s_model", text->name) >= 0;
    bool joined = asprintf(&w.joined, "#line 1 \"%s.h\"\n%s\n#line 1 \"%s.c\"\n%s", text->name, text->header, text->name,
                           text->source) >= 0;
    bptt_status status = BPTT_OK;
    if (w.code == NULL || !named || !joined) {
        status = bptt_fail(error, BPTT_FAILED, "tcc: no memory");
    } else if (!compile_alone(&w)) {
        status = bptt_fail(error, BPTT_FAILED, "tcc: %s", w.message);
    } else {
        status = bptt_code_check(w.model, text, error);
    }
    if (named) { free(w.symbol); }
    if (joined) { free(w.joined); }
    if (status != BPTT_OK) {
        if (w.code != NULL) { release(w.code); }
        return status;
    }
    *code = (bptt_code){w.model, bptt_clock_ms() - started, w.code_bytes, w.code, release};
    return BPTT_OK;
}
