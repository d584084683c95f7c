/* backend_cc.c: emitted text to code by the system's compiler.  See backend_private.h.
 *
 * A small state machine, so that a model can train on other code meanwhile: ask the compiler's version, look in the cache, else
 * compile in a private folder, load, publish.  Depends on a C compiler when it runs.  Refuses to pass anything through a shell
 * and to load an object that is not whole or not the asked model's.
 */
#include "backend_private.h"
#include "machine.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 120 };

static char *const flags[] = {"-std=c99", "-O3", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-fPIC", "-shared"};
enum { FLAGS = sizeof flags / sizeof *flags, NATIVE = 2 };

struct bptt_cc {
    const bptt_text *text;
    bool background;
    bool portable;  /* the compiler refused -march=native */
    char *command;  /* the compiler and its own arguments, cut into words */
    char *compiler; /* its path */
    char **argv;    /* compiler, its own arguments, then room for ours */
    size_t words;
    double started, limit_ms;
    bptt_process process;
    bptt_cc_stage stage;
    char recipe[33];     /* digest of everything that makes the object what it is */
    char *cache;         /* folder; NULL: none */
    char *cached;        /* the object's place there */
    char *workplace;     /* folder; NULL: not building */
    char *unit, *object; /* files in it */
};

/* --- which compiler --------------------------------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

/* The path of a program, sought as a shell would, but never in the current folder.  NULL: not there. */
char *bptt_find_program(const char *name)
{
    if (strchr(name, '/') != NULL) { return is_program(name) ? strdup(name) : NULL; }
    for (const char *folder = getenv("PATH"); folder != NULL && *folder != '\0';) {
        size_t length = strcspn(folder, ":");
        char *path = NULL;
        if (folder[0] == '/' && length < 1 << 20 && asprintf(&path, "%.*s/%s", (int)length, folder, name) >= 0) {
            if (is_program(path)) { return path; }
            free(path);
        }
        folder += length + (folder[length] == ':');
    }
    return NULL;
}

/* Cuts `command` at blanks into the first words of argv, which has room for what we add. */
static bool split(bptt_cc *cc, const char *command)
{
    cc->command = strdup(command);
    cc->argv = calloc(strlen(command) / 2 + 2 + FLAGS + 6, sizeof *cc->argv);
    if (cc->command == NULL || cc->argv == NULL) { return false; }
    char *rest = NULL;
    for (char *word = strtok_r(cc->command, " \t", &rest); word != NULL; word = strtok_r(NULL, " \t", &rest)) {
        cc->argv[cc->words++] = word;
    }
    return true;
}

static bool use_compiler(bptt_cc *cc, const char *variable, const char *command, bptt_error *error)
{
    if (!split(cc, command)) {
        (void)bptt_fail(error, BPTT_FAILED, "cc: no memory");
        return false;
    }
    cc->compiler = cc->words > 0 ? bptt_find_program(cc->argv[0]) : NULL;
    if (cc->compiler == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "cc: %s=%s: no such program; expected a C compiler", variable, command);
        return false;
    }
    cc->argv[0] = cc->compiler;
    return true;
}

static bool choose_compiler(bptt_cc *cc, bptt_error *error)
{
    static const char *const variables[] = {"BPTT_CC", "CC"};
    static const char *const usual[] = {"cc", "gcc", "clang"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *command = getenv(variables[i]);
        if (command != NULL && *command != '\0') { return use_compiler(cc, variables[i], command, error); }
    }
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        char *path = bptt_find_program(usual[i]);
        bool found = path != NULL;
        free(path);
        if (found) { return use_compiler(cc, "PATH", usual[i], error); }
    }
    (void)bptt_fail(error, BPTT_FAILED, "cc: no C compiler: none of cc, gcc, clang is in PATH; install one or set BPTT_CC");
    return false;
}

/* --- what identifies the result --------------------------------------------------------------------------------------------- */

static bptt_status write_recipe(bptt_cc *cc, bptt_error *error)
{
    char *machine = bptt_machine_describe(); /* -march=native means another thing on another one */
    const char **parts = calloc(4 + cc->words + FLAGS, sizeof *parts);
    bool done = false;
    if (machine != NULL && parts != NULL) {
        size_t count = 0;
        parts[count++] = cc->text->header;
        parts[count++] = cc->text->source;
        parts[count++] = machine;
        parts[count++] = cc->process.text; /* what the compiler said of its version */
        for (size_t i = 0; i < cc->words; i++) { parts[count++] = cc->argv[i]; }
        for (size_t i = 0; i < FLAGS; i++) { parts[count++] = flags[i]; }
        done = bptt_digest(parts, count, cc->recipe);
    }
    free(parts);
    free(machine);
    return done ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "cc: no memory");
}

/* --- loading ---------------------------------------------------------------------------------------------------------------- */

static void release(void *handle)
{
    (void)dlclose(handle);
}

static bptt_status load(const bptt_cc *cc, const char *object, bptt_code *code, bptt_error *error)
{
    memset(code, 0, sizeof *code);
    if (!bptt_cache_verify(object, cc->recipe, &code->code_bytes)) {
        return bptt_fail(error, BPTT_FAILED, "cc: %s: not there or damaged", object);
    }
    char *symbol = NULL;
    if (asprintf(&symbol, "%s_model", cc->text->name) < 0) { return bptt_fail(error, BPTT_FAILED, "cc: no memory"); }
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    const bptt_model *model = handle != NULL ? dlsym(handle, symbol) : NULL;
    free(symbol);
    if (model == NULL) {
        const char *reason = dlerror();
        (void)bptt_fail(error, BPTT_FAILED, "cc: cannot load what %s made: %s", cc->compiler, reason != NULL ? reason : "?");
    }
    if (model == NULL || bptt_code_check(model, cc->text, error) != BPTT_OK) {
        if (handle != NULL) { release(handle); }
        return BPTT_FAILED;
    }
    code->model = model;
    code->compile_ms = bptt_clock_ms() - cc->started;
    code->owner = handle;
    code->release = release;
    return BPTT_OK;
}

/* --- compiling -------------------------------------------------------------------------------------------------------------- */

static void clear_up(bptt_cc *cc)
{
    if (cc->workplace != NULL) { bptt_cache_discard(cc->workplace); }
    free(cc->workplace);
    free(cc->unit);
    free(cc->object);
    cc->workplace = cc->unit = cc->object = NULL;
}

/* FOLDER/NAME + suffix, freshly written with `content` unless that is NULL; NULL: not done. */
static char *place_file(const char *folder, const char *name, const char *suffix, const char *content)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s%s", folder, name, suffix) < 0) { return NULL; }
    if (content == NULL) { return path; }
    FILE *file = fopen(path, "wxe");
    bool written = file != NULL && fputs(content, file) >= 0;
    if (file != NULL) { written = fclose(file) == 0 && written; }
    if (written) { return path; }
    free(path);
    return NULL;
}

/* A private folder with NAME.h and NAME.c in it. */
static bptt_status prepare(bptt_cc *cc, bptt_error *error)
{
    const bptt_text *text = cc->text;
    cc->workplace = bptt_cache_workplace(cc->cache);
    if (cc->workplace == NULL) {
        return bptt_fail(error, BPTT_FAILED, "cc: no folder to compile in: neither the cache nor TMPDIR can be written");
    }
    char *header = place_file(cc->workplace, text->name, ".h", text->header);
    cc->unit = place_file(cc->workplace, text->name, ".c", text->source);
    cc->object = place_file(cc->workplace, text->name, ".so", NULL);
    bool placed = header != NULL && cc->unit != NULL && cc->object != NULL;
    free(header);
    return placed ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "cc: %s: cannot write: %s", cc->workplace, strerror(errno));
}

static bptt_status start_compiler(bptt_cc *cc, bptt_error *error)
{
    size_t count = cc->words;
    for (size_t i = 0; i < FLAGS; i++) {
        if (i != NATIVE || !cc->portable) { cc->argv[count++] = flags[i]; }
    }
    char *const last[] = {"-o", cc->object, cc->unit, "-lm", NULL};
    memcpy(cc->argv + count, last, sizeof last);
    cc->stage = BPTT_CC_BUILDING;
    return bptt_process_start(&cc->process, cc->argv, cc->workplace, cc->limit_ms, cc->background, error);
}

/* The first line of the compiler's output that speaks of an error, or the first line.  In place, without our folder's name. */
static const char *first_complaint(bptt_cc *cc)
{
    char *text = cc->process.text;
    char *found = strstr(text, "error");
    if (found == NULL) { found = text + strspn(text, "\n"); }
    while (found > text && found[-1] != '\n') { found--; }
    found[strcspn(found, "\n")] = '\0';
    size_t prefix = strlen(cc->workplace);
    return strncmp(found, cc->workplace, prefix) == 0 && found[prefix] == '/' ? found + prefix + 1 : found;
}

static bptt_status fail_compile(bptt_cc *cc, bptt_error *error)
{
    const char *complaint = first_complaint(cc);
    int status = cc->process.status;
    if (*complaint != '\0') { return bptt_fail(error, BPTT_FAILED, "cc: %s: %s", cc->compiler, complaint); }
    if (WIFSIGNALED(status)) {
        return bptt_fail(error, BPTT_FAILED, "cc: %s was ended by signal %d", cc->compiler, WTERMSIG(status));
    }
    return bptt_fail(error, BPTT_FAILED, "cc: %s failed without a message, status %d", cc->compiler, WEXITSTATUS(status));
}

static bptt_status after_version(bptt_cc *cc, bptt_code *code, bptt_error *error)
{
    bptt_status status = write_recipe(cc, error);
    if (status != BPTT_OK) { return status; }
    cc->cache = bptt_cache_folder();
    cc->cached = cc->cache != NULL ? place_file(cc->cache, cc->recipe, ".so", NULL) : NULL;
    if (cc->cached != NULL && load(cc, cc->cached, code, error) == BPTT_OK) {
        cc->stage = BPTT_CC_READY;
        return BPTT_OK;
    }
    status = prepare(cc, error);
    return status == BPTT_OK ? start_compiler(cc, error) : status;
}

static bptt_status after_compile(bptt_cc *cc, bptt_code *code, bptt_error *error)
{
    /* Where somebody ignores SIGCHLD nobody learns how it ended; then the object speaks for it. */
    bool made = cc->process.status == -1 ? access(cc->object, R_OK) == 0
                                         : WIFEXITED(cc->process.status) && WEXITSTATUS(cc->process.status) == 0;
    if (!made && !cc->portable && (strstr(cc->process.text, "march") != NULL || strstr(cc->process.text, "native") != NULL)) {
        cc->portable = true;
        return start_compiler(cc, error);
    }
    if (!made) { return fail_compile(cc, error); }
    if (access(cc->object, R_OK) != 0) { return bptt_fail(error, BPTT_FAILED, "cc: %s made nothing", cc->compiler); }
    bptt_status status = bptt_cache_seal(cc->object, cc->recipe, error);
    if (status == BPTT_OK) { status = load(cc, cc->object, code, error); }
    if (status != BPTT_OK) { return status; }
    /* Loaded, so it is good: others may have it.  Where that fails, it was for this run alone. */
    if (cc->cached != NULL && rename(cc->object, cc->cached) == 0) { bptt_cache_sweep(cc->cache); }
    clear_up(cc);
    cc->stage = BPTT_CC_READY;
    return BPTT_OK;
}

/* --- the machine ------------------------------------------------------------------------------------------------------------ */

/* How long a compiler may take. */
static bptt_status read_limit(double *limit_ms, bptt_error *error)
{
    enum { MOST = 86400 };
    const char *words = getenv("BPTT_CC_SECONDS");
    char *end = NULL;
    const double seconds = words != NULL ? strtod(words, &end) : LIMIT_SECONDS;
    if (words != NULL && (end == words || *end != '\0' || !(seconds > 0 && seconds <= MOST))) {
        return bptt_fail(error, BPTT_FAILED, "BPTT_CC_SECONDS = %.40s: expected seconds, more than 0 and at most %d", words,
                         MOST);
    }
    *limit_ms = seconds * 1e3;
    return BPTT_OK;
}

bptt_cc *bptt_cc_start(const bptt_text *text, bool background, bptt_error *error)
{
    double limit_ms = 0;
    if (read_limit(&limit_ms, error) != BPTT_OK) { return NULL; }
    bptt_cc *cc = calloc(1, sizeof *cc);
    if (cc == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "cc: no memory");
        return NULL;
    }
    cc->text = text;
    cc->background = background;
    cc->started = bptt_clock_ms();
    cc->limit_ms = limit_ms;
    cc->process.output = -1;
    if (choose_compiler(cc, error)) {
        cc->argv[cc->words] = "--version";
        if (bptt_process_start(&cc->process, cc->argv, NULL, cc->limit_ms, false, error) == BPTT_OK) { return cc; }
    }
    bptt_cc_free(cc);
    return NULL;
}

bptt_cc_stage bptt_cc_advance(bptt_cc *cc, double wait_ms, bptt_code *code, bptt_error *error)
{
    bool runs = cc->stage == BPTT_CC_ASKING || cc->stage == BPTT_CC_BUILDING;
    if (!runs || !bptt_process_wait(&cc->process, wait_ms)) { return cc->stage; }
    bptt_status status;
    if (cc->process.late) {
        status =
            bptt_fail(error, BPTT_FAILED, "cc: %s took longer than %g seconds and was stopped", cc->compiler, cc->limit_ms / 1e3);
    } else {
        status = cc->stage == BPTT_CC_ASKING ? after_version(cc, code, error) : after_compile(cc, code, error);
    }
    if (status != BPTT_OK) { cc->stage = BPTT_CC_FAILED; }
    return cc->stage;
}

void bptt_cc_free(bptt_cc *cc)
{
    if (cc == NULL) { return; }
    bptt_process_stop(&cc->process);
    clear_up(cc);
    free(cc->cached);
    free(cc->cache);
    free(cc->argv);
    free(cc->command);
    free(cc->compiler);
    free(cc);
}
