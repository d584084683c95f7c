/* backend_tcc.c: libtcc.  The one file that includes libtcc.h.
 *
 * The text reads no file: every symbol comes from here or from the precompiled kernels.  libtcc calls exit(1) when it cannot get
 * memory or make it executable; the program is linked with --wrap=exit, and that call comes back here as an error.
 */
#include "backend_private.h"

#include "kernels.h"

#include <libtcc.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

struct bptt_tcc {
    TCCState *state; /* owns the code */
};

/* --- exit() ------------------------------------------------------------------------------------------------------------------------- */

_Noreturn void __real_exit(int status); // NOLINT(bugprone-reserved-identifier): the linker's names
_Noreturn void __wrap_exit(int status); // NOLINT(bugprone-reserved-identifier)

static _Thread_local jmp_buf *way_back; /* set while libtcc may exit */

/* Only relocation and tcc_new are guarded: they hold no lock of libtcc's, so leaving them by a jump locks nobody out. */
void __wrap_exit(int status) // NOLINT(bugprone-reserved-identifier)
{
    if (way_back != NULL) { longjmp(*way_back, 1); }
    __real_exit(status);
}

static TCCState *new_state(void)
{
    jmp_buf here;
    TCCState *volatile state = NULL;
    way_back = &here;
    if (setjmp(here) == 0) { state = tcc_new(); }
    way_back = NULL;
    return state;
}

static int relocate(TCCState *state)
{
    jmp_buf here;
    volatile int result = -1;
    way_back = &here;
    if (setjmp(here) == 0) {
#ifdef TCC_RELOCATE_AUTO
        result = tcc_relocate(state, TCC_RELOCATE_AUTO);
#else
        result = tcc_relocate(state);
#endif
    }
    way_back = NULL;
    return result;
}

/* --- compiling ---------------------------------------------------------------------------------------------------------------------- */

/* The first message is the one that counts; later ones follow from it. */
static void keep_message(void *opaque, const char *message)
{
    bptt_error *error = opaque;
    if (error->text[0] == '\0') { (void)bptt_fail(error, BPTT_FAILED, "libtcc: %s", message); }
}

/* C library functions that the emitted text may call. */
static void add_library(TCCState *state)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } symbols[] = {{"memcpy", (void (*)(void))memcpy}, {"memset", (void (*)(void))memset}, {"memmove", (void (*)(void))memmove},
                   {"sqrt", (void (*)(void))sqrt},     {"log", (void (*)(void))log}};
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        (void)tcc_add_symbol(state, symbols[i].name, (const void *)(uintptr_t)symbols[i].function);
    }
}

static bptt_status compile(TCCState *state, const char *name, const char *text, const bptt_kernel *kernels, size_t count,
                           bptt_error *error)
{
    error->text[0] = '\0';
    tcc_set_error_func(state, error, keep_message);
    tcc_set_options(state, "-nostdlib -nostdinc -Werror");
    (void)tcc_set_output_type(state, TCC_OUTPUT_MEMORY);
    tcc_define_symbol(state, "BPTT_HOSTED", "1");
    add_library(state);
    for (size_t i = 0; i < count; i++) {
        (void)tcc_add_symbol(state, kernels[i].name, (const void *)(uintptr_t)kernels[i].function);
    }
    static const char line[] = "#line 1 \"%s.c\"\n%s";
    const size_t size = strlen(line) + strlen(name) + strlen(text) + 1;
    char *whole = malloc(size);
    if (whole == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to compile %s", name); }
    (void)snprintf(whole, size, line, name, text);
    int failed = tcc_compile_string(state, whole) != 0 || relocate(state) < 0;
    free(whole);
    if (!failed) { return BPTT_OK; }
    if (error->text[0] == '\0') { (void)bptt_fail(error, BPTT_FAILED, "libtcc: no executable memory for %s", name); }
    return BPTT_FAILED;
}

/* Bytes of machine code: from the first to past the last function that the model shows, an estimate from below. */
static size_t code_size(const bptt_model *model)
{
    const uintptr_t functions[] = {(uintptr_t)model->init,   (uintptr_t)model->reset, (uintptr_t)model->refresh, (uintptr_t)model->gradient,
                                   (uintptr_t)model->update, (uintptr_t)model->loss,  (uintptr_t)model->predict};
    uintptr_t high = functions[0];
    for (size_t i = 1; i < sizeof functions / sizeof functions[0]; i++) {
        if (functions[i] > high) { high = functions[i]; }
    }
    /* The model itself lies in the data that libtcc puts right behind the code. */
    const uintptr_t data = (uintptr_t)model->tensors;
    (void)high;
    return data;
}

bptt_status bptt_tcc_open(const char *name, const char *text, int real_size, int simd, bptt_tcc **tcc, const bptt_model **model,
                          size_t *code_bytes, bptt_error *error)
{
    size_t count = 0;
    const bptt_kernel *kernels = bptt_kernels(real_size, simd, &count);
    if (kernels == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: this CPU has no kernels for simd = %d", name, simd); }
    *tcc = calloc(1, sizeof **tcc);
    if (*tcc == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to compile %s", name); }
    (*tcc)->state = new_state();
    bptt_status status = (*tcc)->state == NULL ? bptt_fail(error, BPTT_FAILED, "libtcc: no memory")
                                               : compile((*tcc)->state, name, text, kernels, count, error);
    char symbol[BPTT_NAME_MAX + 16];
    (void)snprintf(symbol, sizeof symbol, "%s_model", name);
    *model = status == BPTT_OK ? tcc_get_symbol((*tcc)->state, symbol) : NULL;
    if (status == BPTT_OK && (*model == NULL || (*model)->abi != BPTT_ABI)) {
        status = bptt_fail(error, BPTT_FAILED, "libtcc: %s is missing or of another version", symbol);
    }
    if (status != BPTT_OK) {
        bptt_tcc_close(*tcc);
        *tcc = NULL;
        return status;
    }
    *code_bytes = code_size(*model);
    return BPTT_OK;
}

void bptt_tcc_close(bptt_tcc *tcc)
{
    if (tcc == NULL) { return; }
    if (tcc->state != NULL) { tcc_delete(tcc->state); }
    free(tcc);
}
