/* test_backend.c: the four backends on real specs, and everything that can go wrong around a compiler.
 *
 * Compilers are played by small shell scripts where one has to fail, hang or be watched.  Each test has a folder of its own that
 * is both its cache and its TMPDIR.  BPTT_TEST_SEED chooses other tokens.
 */
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static const char tiny[] = "return {name = 'net', hidden = 5, vocab = 7, T = 7, K = 3, batch = 2, seed = 3}";
static char *old_path;
static uint64_t test_seed = 20240611;
static char folder[400]; /* of this test */

/* --- fixtures --------------------------------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void set(const char *variable, const char *value)
{
    ck_assert_int_eq(value != NULL ? setenv(variable, value, 1) : unsetenv(variable), 0);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* valgrind knows fewer instructions than the machine that -march=native means. */
static bool under_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
}

static void use_plain_compiler(void)
{
    static const char script[] = "#!/bin/sh\nexec /usr/bin/cc \"$@\" -march=x86-64\n";
    char path[1024];
    if (!exists(scratch("cc"))) {
        scratch_put(scratch("cc"), script, sizeof script - 1);
        ck_assert_int_eq(chmod(scratch("cc"), 0700), 0);
    }
    (void)snprintf(path, sizeof path, "%s:%s", scratch_folder, old_path);
    set("PATH", path);
}

static void fresh_folder(void)
{
    (void)snprintf(folder, sizeof folder, "%s/XXXXXX", scratch_folder);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    set("XDG_CACHE_HOME", folder);
    set("TMPDIR", folder);
    set("PATH", old_path);
    if (under_valgrind()) { use_plain_compiler(); }
    set("BPTT_CC", NULL);
    set("CC", NULL);
    set("BPTT_CC_SECONDS", NULL);
}

/* Path of `name` in the test's folder; good until the fourth call after it. */
static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Entries of a folder whose names end in `end`; the last one's path goes to `found`, when that is asked for. */
static int entries(const char *path, const char *end, char found[1024])
{
    DIR *list = opendir(path);
    if (list == NULL) { return 0; }
    int count = 0;
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        size_t length = strlen(entry->d_name), tail = strlen(end);
        if (entry->d_name[0] == '.' || length < tail || strcmp(entry->d_name + length - tail, end) != 0) { continue; }
        count++;
        if (found != NULL) { (void)snprintf(found, 1024, "%s/%s", path, entry->d_name); }
    }
    ck_assert_int_eq(closedir(list), 0);
    return count;
}

/* The cache holds `objects` objects and nothing else, and no temporary folder is left. */
static void assert_tidy(int objects)
{
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", NULL), objects);
    ck_assert_int_eq(entries(in_folder("bptt"), "", NULL), objects);
    DIR *list = opendir(folder);
    ck_assert_ptr_nonnull(list);
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        ck_assert_msg(strncmp(entry->d_name, "bptt-", 5) != 0, "%s is left", entry->d_name);
    }
    ck_assert_int_eq(closedir(list), 0);
}

/* Makes a script the compiler.  It logs its arguments to the file "log"; then `body` runs, in which $real is a real compiler. */
static void use_script(const char *body)
{
    char text[2048];
    int length = snprintf(text, sizeof text, "#!/bin/sh\ndir='%s'\nreal=cc\necho \"$*\" >> \"$dir/log\"\n%s\n", folder, body);
    ck_assert(length > 0 && (size_t)length < sizeof text);
    const char *path = in_folder("compiler");
    scratch_put(path, text, (size_t)length);
    ck_assert_int_eq(chmod(path, 0700), 0);
    set("BPTT_CC", path);
}

#define VERSION_FIRST "[ \"$1\" = --version ] && { echo script 1; exit 0; }\n"

/* How often the script was asked to compile. */
static int compiles(void)
{
    FILE *log = fopen(in_folder("log"), "r");
    if (log == NULL) { return 0; }
    char *line = NULL;
    size_t size = 0;
    int count = 0;
    while (getline(&line, &size, log) > 0) { count += strstr(line, "-shared") != NULL; }
    free(line);
    ck_assert_int_eq(fclose(log), 0);
    return count;
}

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

static bptt_spec spec_of(const char *text)
{
    bptt_spec spec;
    bptt_error error = {""};
    ck_assert_msg(bptt_spec_parse(text, strlen(text), "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

/* --- training --------------------------------------------------------------------------------------------------------------- */

/* A program with a memory, on tokens that depend on the chunk's number alone. */
typedef struct run {
    bptt_spec spec;
    bptt_program program;
    void *memory;
    uint32_t *x, *y;
    unsigned done;
} run;

static run run_open(const char *text, bptt_backend backend)
{
    run r = {.spec = spec_of(text)};
    bptt_error error = {""};
    ck_assert_msg(bptt_program_open(&r.spec, backend, &r.program, &error) == BPTT_OK, "%s", error.text);
    size_t tokens = (size_t)(r.spec.K * r.spec.batch);
    r.memory = bptt_memory_new(r.program.model);
    r.x = calloc(tokens, sizeof *r.x);
    r.y = calloc(tokens, sizeof *r.y);
    ck_assert(r.memory != NULL && r.x != NULL && r.y != NULL);
    r.program.model->init(r.program.model, r.memory, r.spec.seed);
    return r;
}

static void run_close(run *r)
{
    bptt_program_close(&r->program);
    bptt_spec_free(&r->spec);
    free(r->memory);
    free(r->x);
    free(r->y);
}

static double run_step(run *r)
{
    const bptt_model *model = r->program.model;
    uint64_t state = test_seed + r->done;
    for (int64_t i = 0; i < r->spec.K * r->spec.batch; i++) {
        r->x[i] = (uint32_t)(scratch_random(&state) % (uint64_t)r->spec.vocab);
        r->y[i] = (uint32_t)((r->x[i] + 1) % (uint32_t)r->spec.vocab);
    }
    double loss = model->gradient(model, r->memory, &(bptt_rows){.x = r->x, .y = r->y}, r->done % model->chunks);
    ck_assert(isfinite(model->update(model, r->memory)));
    r->done++;
    return loss;
}

static void assert_close(double a, double b, double limit)
{
    ck_assert_msg(fabs(a - b) <= limit * (1 + fabs(b)), "%.17g and %.17g", a, b);
}

/* The error of opening. */
static bptt_error refusal(const char *text, bptt_backend backend)
{
    bptt_spec spec = spec_of(text);
    bptt_program program;
    bptt_error error = {""};
    ck_assert_int_eq(bptt_program_open(&spec, backend, &program, &error), BPTT_FAILED);
    ck_assert_ptr_null(program.model);
    bptt_program_close(&program); /* harmless */
    bptt_spec_free(&spec);
    ck_assert_ptr_null(strchr(error.text, '\n'));
    return error;
}

/* --- the backends ----------------------------------------------------------------------------------------------------------- */

static void compare_backends(const char *text, double limit)
{
    run reference = run_open(text, BPTT_BACKEND_GENERIC);
    double losses[12];
    for (size_t i = 0; i < 12; i++) { losses[i] = run_step(&reference); }
    for (bptt_backend backend = BPTT_BACKEND_TCC; backend <= BPTT_BACKEND_AUTO; backend++) {
        run r = run_open(text, backend);
        for (size_t i = 0; i < 12; i++) { assert_close(run_step(&r), losses[i], limit); }
        const char *word = backend == BPTT_BACKEND_TCC ? "tcc" : "cc"; /* auto finds in the cache what cc left there */
        ck_assert_str_eq(r.program.backend, word);
        ck_assert(r.program.compile_ms > 0);
        ck_assert_uint_gt(r.program.code_bytes, 500);
        ck_assert_uint_lt(r.program.code_bytes, 1000000);
        ck_assert(!bptt_program_poll(&r.program));
        run_close(&r);
    }
    ck_assert_str_eq(reference.program.backend, "generic");
    ck_assert(reference.program.compile_ms == 0 && reference.program.code_bytes == 0);
    ck_assert(!bptt_program_poll(&reference.program));
    run_close(&reference);
}

START_TEST(test_backends_agree)
{
    compare_backends(tiny, 1e-5);
    compare_backends("return {name = 'wide', hidden = 33, vocab = 40, T = 4, batch = 3, optimizer = 'adam'}", 1e-5);
    compare_backends("return {name = 'exact', hidden = 6, vocab = 5, T = 4, batch = 3, dtype = 'f64'}", 1e-12);
    assert_tidy(3);
}
END_TEST

START_TEST(test_every_width)
{
    run reference = run_open(tiny, BPTT_BACKEND_GENERIC);
    double first = run_step(&reference), second = run_step(&reference);
    run_close(&reference);
    static const int widths[] = {1, 4, 8, 16};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "local s = (function() %s end)() s.simd = %d return s", tiny, widths[i]);
        if (widths[i] > bptt_kernels_simd()) {
            char expected[80];
            (void)snprintf(expected, sizeof expected, "simd = %d: this machine's widest is %d", widths[i], bptt_kernels_simd());
            bptt_error error = refusal(text, BPTT_BACKEND_TCC);
            ck_assert_str_eq(error.text, expected);
            continue;
        }
        run r = run_open(text, BPTT_BACKEND_TCC);
        assert_close(run_step(&r), first, 1e-5);
        assert_close(run_step(&r), second, 1e-5);
        run_close(&r);
    }
}
END_TEST

START_TEST(test_many_programs_at_once)
{
    run runs[6];
    for (size_t i = 0; i < 6; i++) { runs[i] = run_open(tiny, i % 2 == 0 ? BPTT_BACKEND_TCC : BPTT_BACKEND_CC); }
    for (int step = 0; step < 3; step++) {
        double loss = run_step(&runs[0]);
        for (size_t i = 1; i < 6; i++) { assert_close(run_step(&runs[i]), loss, 1e-5); }
    }
    run_close(&runs[0]);
    double loss = run_step(&runs[2]); /* others' code stays */
    assert_close(run_step(&runs[1]), loss, 1e-5);
    for (size_t i = 1; i < 6; i++) { run_close(&runs[i]); }
}
END_TEST

START_TEST(test_memory)
{
    static const size_t sizes[] = {1, 63, 64, 65, 100000, (1 << 23) - 1, 1 << 23, (1 << 23) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bptt_model model = {.bytes = sizes[i]};
        unsigned char *memory = bptt_memory_new(&model);
        ck_assert_ptr_nonnull(memory);
        ck_assert_uint_eq((uintptr_t)memory % 64, 0);
        unsigned char any = 0; /* one assertion for all: each writes to a file */
        for (size_t j = 0; j < sizes[i]; j++) { any |= memory[j]; }
        ck_assert_uint_eq(any, 0);
        free(memory);
    }
    bptt_model huge = {.bytes = SIZE_MAX};
    ck_assert_ptr_null(bptt_memory_new(&huge));
}
END_TEST

/* --- libtcc ----------------------------------------------------------------------------------------------------------------- */

#define NET_HEADER                                                                                                               \
    "typedef unsigned uint32_t; typedef unsigned long long uint64_t; typedef __SIZE_TYPE__ size_t;\n"                            \
    "typedef struct { uint32_t abi, real_size; const char *name, *digest; } bptt_model;\n"
#define NET_MODEL "const bptt_model net_model = {2, 4, \"net\", \"d1\"};\n"

static bptt_error tcc_refusal(const char *header, const char *source)
{
    bptt_text text = {.name = "net", .digest = "d1", .header = header, .source = source};
    bptt_code code;
    bptt_error error = {""};
    ck_assert_int_eq(bptt_tcc_compile(&text, &code, &error), BPTT_FAILED);
    ck_assert_ptr_null(code.model);
    return error;
}

static void assert_tcc_works(void)
{
    bptt_text text = {.name = "net", .digest = "d1", .header = NET_HEADER, .source = NET_MODEL};
    bptt_code code;
    bptt_error error = {""};
    ck_assert_msg(bptt_tcc_compile(&text, &code, &error) == BPTT_OK, "%s", error.text);
    ck_assert_str_eq(code.model->digest, "d1");
    code.release(code.owner);
}

START_TEST(test_tcc_errors)
{
    static const struct {
        const char *header, *source, *expected;
    } cases[] = {
        {NET_HEADER, "\n\nint f(void) { return y; }\n", "tcc: net.c:3: error: 'y' undeclared"},
        {NET_HEADER "int 5;\n", NET_MODEL, "tcc: net.h:3: error: "},
        {NET_HEADER, "int f(void) { return g(); }\n" NET_MODEL, "tcc: net.c:1: "}, /* a warning, and enough */
        {NET_HEADER, "int g(void); int f(void) { return g(); }\n" NET_MODEL, "undefined symbol 'g'"},
        {NET_HEADER, "#include <stdio.h>\n", "tcc: net.c:1: error: include file 'stdio.h' not found"},
        {NET_HEADER, "static int x;\n", "tcc: the text defines no model"},
        {NET_HEADER, "const bptt_model net_model = {1, 4, \"net\", \"d1\"};", "net: the code has ABI 1; expected 2"},
        {NET_HEADER, "const bptt_model net_model = {2, 4, \"net\", \"d2\"};", "net: the code is of another spec"},
        {NET_HEADER, "#ifndef BPTT_HOSTED\n" NET_MODEL "#endif\n", "tcc: the text defines no model"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bptt_error error = tcc_refusal(cases[i].header, cases[i].source);
        assert_says(&error, cases[i].expected);
        assert_tcc_works();
    }
}
END_TEST

/* Pages that are written are not executed, and the other way round. */
START_TEST(test_code_is_never_writable)
{
    run r = run_open(tiny, BPTT_BACKEND_TCC);
    run_step(&r);
    void (*function)(const bptt_model *, void *) = r.program.model->reset;
    uintptr_t code = 0;
    memcpy(&code, &function, sizeof code);
    FILE *maps = fopen("/proc/self/maps", "r");
    ck_assert_ptr_nonnull(maps);
    char *line = NULL;
    size_t size = 0;
    bool seen = false;
    while (getline(&line, &size, maps) > 0) {
        unsigned long long from = 0, to = 0;
        char rights[5] = "";
        ck_assert_int_eq(sscanf(line, "%llx-%llx %4s", &from, &to, rights), 3);
        ck_assert_msg(rights[1] != 'w' || rights[2] != 'x' || under_valgrind(), "%s", line);
        if (code >= from && code < to) {
            seen = true;
            ck_assert_str_eq(rights, "r-xp");
        }
    }
    ck_assert(seen);
    free(line);
    ck_assert_int_eq(fclose(maps), 0);
    run_close(&r);
}
END_TEST

/* Runs `action` in a child and returns its exit status.  libtcc's own exit(1) would show as 1. */
enum { RETURNED_OK = 42, RETURNED_ERROR = 43, RETURNED_LANDED = 44, SKIPPED = 45 };
static int in_child(int (*action)(long), long argument)
{
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) { _exit(action(argument)); }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static int forbid_executable_memory(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) { return -1; }
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int without_executable_memory(long unused)
{
    (void)unused;
    if (forbid_executable_memory() != 0) { return SKIPPED; }
    bptt_text text = {.name = "net", .digest = "d1", .header = NET_HEADER, .source = NET_MODEL};
    bptt_code code;
    bptt_error error = {""};
    if (bptt_tcc_compile(&text, &code, &error) == BPTT_OK) { return RETURNED_OK; }
    return strcmp(error.text, "tcc: this system forbids making memory executable") == 0 ? RETURNED_ERROR : 0;
}

START_TEST(test_executable_memory_forbidden)
{
    int end = in_child(without_executable_memory, 0);
    if (end == SKIPPED) {
        puts("test_executable_memory_forbidden: no seccomp here, skipped");
        return;
    }
    ck_assert_int_eq(end, RETURNED_ERROR);
}
END_TEST

/* Takes all memory there is, but for `room` bytes in blocks that libtcc's own requests fit in; a list, each block begins with the
 * next one's address. */
static void **take_memory(size_t room)
{
    void **kept = NULL, **taken = NULL;
    for (size_t i = 0; i < room / 4096; i++) {
        void **block = malloc(4096);
        if (block == NULL) { break; }
        *block = kept;
        kept = block;
    }
    for (size_t size = 1 << 20; size >= 16; size /= 2) {
        for (void **block = malloc(size); block != NULL; block = malloc(size)) {
            *block = taken;
            taken = block;
        }
    }
    while (kept != NULL) {
        void **next = *kept;
        free(kept);
        kept = next;
    }
    return taken;
}

/* Compiles with `room` bytes of memory.  Afterwards, with all of it, a failure must not have left libtcc locked.  RETURNED_LANDED:
 * libtcc wanted to exit. */
static int with_little_memory(long room)
{
    enum { SLACK = 1 << 23 };
    struct rlimit old;
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%zu", &pages) != 1 || fclose(file) != 0) { return SKIPPED; }
    if (getrlimit(RLIMIT_AS, &old) != 0) { return SKIPPED; }
    struct rlimit small = {.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + SLACK, .rlim_max = old.rlim_max};
    bptt_text text = {.name = "net", .digest = "d1", .header = NET_HEADER, .source = NET_MODEL};
    bptt_code code;
    bptt_error error = {""}, second = {""};
    if (setrlimit(RLIMIT_AS, &small) != 0) { return SKIPPED; }
    void **taken = take_memory((size_t)room);
    bptt_status status = bptt_tcc_compile(&text, &code, &error);
    for (void **next; taken != NULL; taken = next) {
        next = *taken;
        free(taken);
    }
    if (setrlimit(RLIMIT_AS, &old) != 0) { return 0; }
    (void)alarm(10); /* a lock left behind */
    if (bptt_tcc_compile(&text, &code, &second) != BPTT_OK) { return 0; }
    if (status == BPTT_OK) { return RETURNED_OK; }
    return strncmp(error.text, "tcc: error: memory full", 23) == 0 ? RETURNED_LANDED : RETURNED_ERROR;
}

/* Limits of address space mean something else to a program that is being watched. */
static bool watched(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer) || under_valgrind();
#else
    return under_valgrind();
#endif
}

START_TEST(test_out_of_memory_returns)
{
    if (watched()) {
        puts("test_out_of_memory_returns: not under a sanitizer or valgrind, skipped");
        return;
    }
    int ends[SKIPPED + 1] = {0};
    for (long room = 0; room < 1 << 22; room += room < 1 << 15 ? 2048 : room / 5) {
        int end = in_child(with_little_memory, room);
        ck_assert_msg(end >= RETURNED_OK && end <= SKIPPED, "with %ld bytes: exit status %d", room, end);
        ends[end]++;
    }
    ck_assert_int_gt(ends[RETURNED_OK], 0);
    ck_assert_int_gt(ends[RETURNED_ERROR], 0);
    ck_assert_int_gt(ends[RETURNED_LANDED], 0);
    ck_assert_int_eq(ends[SKIPPED], 0);
}
END_TEST

/* --- the system's compiler -------------------------------------------------------------------------------------------------- */

START_TEST(test_compiled_once)
{
    use_script("exec $real \"$@\"");
    run first = run_open(tiny, BPTT_BACKEND_CC);
    run second = run_open(tiny, BPTT_BACKEND_CC);
    run third = run_open(tiny, BPTT_BACKEND_AUTO);
    ck_assert_int_eq(compiles(), 1);
    double loss = run_step(&first);
    ck_assert(run_step(&second) == loss);
    ck_assert(run_step(&third) == loss);
    ck_assert_str_eq(third.program.backend, "cc");
    run_close(&first);
    run_close(&second);
    run_close(&third);
    assert_tidy(1);
    /* Other text, other compiler arguments: other objects. */
    run other = run_open("return {name = 'net', hidden = 6, vocab = 7, T = 7}", BPTT_BACKEND_CC);
    run_close(&other);
    ck_assert_int_eq(compiles(), 2);
    char command[600];
    (void)snprintf(command, sizeof command, "%s  -DOTHER\t", in_folder("compiler"));
    set("BPTT_CC", NULL);
    set("CC", command);
    other = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&other);
    ck_assert_int_eq(compiles(), 3);
    assert_tidy(3);
}
END_TEST

static void damage(const char *object, int how)
{
    size_t length = 0;
    unsigned char *bytes = scratch_get(object, &length);
    switch (how) {
    case 0:
        bytes[length / 2] ^= 1;
        break;
    case 1:
        length -= 1;
        break;
    case 2:
        length /= 2;
        break;
    case 3:
        length = 0;
        break;
    case 4:
        bytes[length - 1] ^= 1;
        break;
    default:
        memset(bytes, 'x', length);
        break;
    }
    scratch_put(object, bytes, length);
    free(bytes);
}

START_TEST(test_damaged_object_is_rebuilt)
{
    use_script("exec $real \"$@\"");
    run r = run_open(tiny, BPTT_BACKEND_CC);
    double loss = run_step(&r);
    run_close(&r);
    for (int how = 0; how < 6; how++) {
        char object[1024];
        ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
        damage(object, how);
        r = run_open(tiny, how % 2 == 0 ? BPTT_BACKEND_CC : BPTT_BACKEND_AUTO);
        while (strcmp(r.program.backend, "cc") != 0) {
            (void)bptt_program_poll(&r.program);
            pause_ms(5);
        }
        ck_assert_int_eq(compiles(), how + 2);
        ck_assert(run_step(&r) == loss);
        run_close(&r);
    }
    assert_tidy(1);
}
END_TEST

/* A whole object in another one's place, a link and a folder there are not taken either. */
START_TEST(test_wrong_object_is_rebuilt)
{
    use_script("exec $real \"$@\"");
    char object[1024], other[1024];
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
    (void)snprintf(other, sizeof other, "%s", in_folder("moved"));
    ck_assert_int_eq(rename(object, other), 0);
    ck_assert_int_eq(symlink(other, object), 0);
    r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(compiles(), 2);
    ck_assert_int_eq(unlink(other), 0);

    r = run_open("return {name = 'net', hidden = 6, vocab = 7, T = 7}", BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(unlink(object), 0);
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", other), 1);
    ck_assert_int_eq(rename(other, object), 0);
    r = run_open(tiny, BPTT_BACKEND_CC);
    ck_assert_uint_eq(r.program.model->hidden, 5);
    run_close(&r);
    ck_assert_int_eq(compiles(), 4);
}
END_TEST

/* Cuts the seal off the one object in the cache, puts `length` other bytes (NULL: its own) there and seals them as it was. */
static void reseal(const char *object, const void *bytes, size_t length)
{
    unsigned char *old = NULL;
    if (bytes == NULL) {
        old = scratch_get(object, &length);
        length -= strlen("\nbptt object ") + 32;
        bytes = old;
    }
    scratch_put(object, bytes, length);
    free(old);
    char recipe[33] = "";
    const char *slash = strrchr(object, '/');
    ck_assert_ptr_nonnull(slash);
    memcpy(recipe, slash + 1, 32);
    bptt_error error = {""};
    ck_assert_msg(bptt_cache_seal(object, recipe, &error) == BPTT_OK, "%s", error.text);
}

/* Even what bears the right seal is not taken when it is no library, none of ours, or another model's. */
START_TEST(test_sealed_object_is_rebuilt)
{
    static const char library[] = "cc -shared -o '%s' -x c - <<'end'\nint x;\nend";
    char object[1024], other[1024], command[1200];
    use_script("exec $real \"$@\"");
    run r = run_open("return {name = 'net', hidden = 6, vocab = 7, T = 7}", BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
    (void)snprintf(other, sizeof other, "%s", in_folder("other"));
    ck_assert_int_eq(rename(object, other), 0);
    r = run_open(tiny, BPTT_BACKEND_CC);
    double loss = run_step(&r);
    run_close(&r);
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
    for (int how = 0; how < 4; how++) {
        switch (how) {
        case 0:
            reseal(object, NULL, 0);
            break;
        case 1:
            reseal(object, "garbage", 7);
            break;
        case 2:
            (void)snprintf(command, sizeof command, library, object);
            ck_assert_int_eq(system(command), 0);
            reseal(object, NULL, 0);
            break;
        default:
            ck_assert_int_eq(rename(other, object), 0);
            reseal(object, NULL, 0);
            break;
        }
        r = run_open(tiny, BPTT_BACKEND_CC);
        ck_assert_int_eq(compiles(), 2 + how); /* the first is good: no more than it was */
        ck_assert(run_step(&r) == loss);
        run_close(&r);
    }
    assert_tidy(1);
}
END_TEST

static int open_and_step(long gate)
{
    char go = 0;
    if (read((int)gate, &go, 1) < 0) { return 1; } /* until the parent closes the other end */
    bptt_spec spec = spec_of(tiny);
    bptt_program program;
    bptt_error error;
    if (bptt_program_open(&spec, BPTT_BACKEND_CC, &program, &error) != BPTT_OK) { return 2; }
    int end = program.model->hidden == 5 ? RETURNED_OK : 3;
    bptt_program_close(&program);
    bptt_spec_free(&spec);
    return end;
}

START_TEST(test_two_processes_at_once)
{
    enum { PROCESSES = 3 };
    use_script("exec $real \"$@\"");
    int gate[2];
    ck_assert_int_eq(pipe(gate), 0);
    pid_t children[PROCESSES];
    (void)fflush(NULL);
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0) {
            (void)close(gate[1]);
            _exit(open_and_step(gate[0]));
        }
    }
    ck_assert_int_eq(close(gate[1]), 0);
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), RETURNED_OK);
    }
    ck_assert_int_eq(close(gate[0]), 0);
    ck_assert_int_ge(compiles(), 1);
    assert_tidy(1);
}
END_TEST

/* Auto without a compiler: tcc, for good, and one notice that says why. */
static void assert_auto_stays(const char *why)
{
    run r = run_open(tiny, BPTT_BACKEND_AUTO);
    int notices = 0;
    for (int i = 0; i < 50 || (notices == 0 && i < 2000); i++) {
        if (r.program.notice != NULL) {
            notices++;
            ck_assert_msg(strncmp(r.program.notice, "stays on tcc: cc: ", 18) == 0, "%s", r.program.notice);
            ck_assert_msg(strstr(r.program.notice, why) != NULL, "expected \"%s\" in \"%s\"", why, r.program.notice);
            r.program.notice = NULL;
        }
        (void)run_step(&r);
        ck_assert(!bptt_program_poll(&r.program));
        pause_ms(5);
    }
    ck_assert_int_eq(notices, 1);
    ck_assert_str_eq(r.program.backend, "tcc");
    run_close(&r);
}

START_TEST(test_no_compiler)
{
    set("BPTT_CC", "/nonexistent");
    bptt_error error = refusal(tiny, BPTT_BACKEND_CC);
    ck_assert_str_eq(error.text, "cc: BPTT_CC=/nonexistent: no such program; expected a C compiler");
    assert_auto_stays("/nonexistent: no such program");
    set("BPTT_CC", folder); /* not a program */
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "no such program");
    set("BPTT_CC", "");
    set("CC", " ");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "cc: CC= : no such program");
    set("CC", NULL);
    set("PATH", "");
    error = refusal(tiny, BPTT_BACKEND_CC);
    ck_assert_str_eq(error.text, "cc: no C compiler: none of cc, gcc, clang is in PATH; install one or set BPTT_CC");
    assert_auto_stays("no C compiler");
    set("PATH", NULL);
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "no C compiler");
    /* The current folder is not searched. */
    scratch_put(in_folder("cc"), "#!/bin/sh\n", 10);
    ck_assert_int_eq(chmod(in_folder("cc"), 0700), 0);
    ck_assert_int_eq(chdir(folder), 0);
    set("PATH", ":.:");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "no C compiler");
    ck_assert_int_eq(chdir("/"), 0);
    assert_tidy(0);
}
END_TEST

START_TEST(test_compiler_fails)
{
    set("BPTT_CC", "false");
    bptt_error error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "false failed without a message, status 1");
    assert_auto_stays("status 1");
    use_script(VERSION_FIRST "echo 'note: hm'; echo 'net.c:3:1: error: bad \033[31m' >&2; echo 'error: more'; exit 1");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "compiler: net.c:3:1: error: bad ?[31m");
    ck_assert_ptr_null(strstr(error.text, "more"));
    assert_auto_stays("compiler: net.c:3:1: error: bad ?[31m");
    use_script(VERSION_FIRST "kill -SEGV $$");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "was ended by signal 11");
    use_script(VERSION_FIRST "exit 0");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "compiler made nothing");
    assert_auto_stays("compiler made nothing");
    /* Not an object at all: the last argument but three is its name. */
    use_script(VERSION_FIRST "while [ \"$1\" != -o ]; do shift; done; echo garbage > \"$2\"");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "cannot load what ");
    assert_auto_stays("cannot load what ");
    scratch_put(in_folder("compiler"), "not a program", 13);
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error,
                under_valgrind() ? "status 127" : "compiler: cannot run it: "); /* valgrind has a posix_spawn of its own */
    assert_tidy(0);
}
END_TEST

/* The real compiler's message, without the name of our folder. */
START_TEST(test_compiler_reports_a_line)
{
    bptt_text text = {.name = "net", .digest = "d1", .header = NET_HEADER, .source = "#include \"net.h\"\n\nint x = y;\n"};
    bptt_code code;
    bptt_error error = {""};
    bptt_cc *cc = bptt_cc_start(&text, false, &error);
    ck_assert_ptr_nonnull(cc);
    bptt_cc_stage stage;
    do {
        stage = bptt_cc_advance(cc, 1000, &code, &error);
    } while (stage == BPTT_CC_ASKING || stage == BPTT_CC_BUILDING);
    ck_assert_int_eq(stage, BPTT_CC_FAILED);
    assert_says(&error, ": net.c:3:9: error: ");
    ck_assert_int_eq(bptt_cc_advance(cc, 0, &code, &error), BPTT_CC_FAILED);
    bptt_cc_free(cc);
    assert_tidy(0);
}
END_TEST

START_TEST(test_flood_of_messages)
{
    use_script(VERSION_FIRST
               "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo \"$i " /* some 300 kB */
               "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; done; exit 3");
    bptt_error error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, ": 1 xxxx");
    use_script("yes; exit 1"); /* without end, and instead of a version */
    set("BPTT_CC_SECONDS", "0.5");
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "took longer than 0.5 seconds");
}
END_TEST

/* Waits for the file "pid" that a script writes. */
static pid_t script_pid(void)
{
    int pid = 0;
    for (int i = 0; i < 1000 && pid == 0; i++) {
        FILE *file = fopen(in_folder("pid"), "r");
        if (file != NULL) {
            if (fscanf(file, "%d", &pid) != 1) { pid = 0; }
            ck_assert_int_eq(fclose(file), 0);
        }
        if (pid == 0) { pause_ms(10); }
    }
    ck_assert_int_gt(pid, 1);
    return pid;
}

/* It has ended, though maybe nobody has reaped it. */
static bool ended(pid_t pid)
{
    char path[64], state = 'Z';
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) { return true; }
    bool known = fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    ck_assert_int_eq(fclose(file), 0);
    return !known || state == 'Z' || state == 'X';
}

static void assert_ends(pid_t pid)
{
    for (int i = 0; i < 500 && !ended(pid); i++) { pause_ms(10); }
    ck_assert(ended(pid));
}

#define HANG "sleep 1000 & echo $! > \"$dir/pid\"; wait"

START_TEST(test_compiler_hangs)
{
    set("BPTT_CC_SECONDS", "0.3");
    use_script(VERSION_FIRST HANG);
    double started = bptt_clock_ms();
    bptt_error error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "took longer than 0.3 seconds and was stopped");
    ck_assert(bptt_clock_ms() - started < 20000);
    assert_ends(script_pid()); /* the helper of the compiler, too */
    assert_auto_stays("longer than 0.3 seconds");
    use_script(HANG); /* already when asked for its version */
    error = refusal(tiny, BPTT_BACKEND_CC);
    assert_says(&error, "took longer than 0.3 seconds and was stopped");
    assert_auto_stays("longer than 0.3 seconds");
    assert_tidy(0);
}
END_TEST

START_TEST(test_closing_ends_the_compiler)
{
    static const char *const scripts[] = {VERSION_FIRST HANG, HANG};
    for (size_t i = 0; i < 2; i++) {
        use_script(scripts[i]);
        double started = bptt_clock_ms();
        run r = run_open(tiny, BPTT_BACKEND_AUTO);
        pid_t helper = script_pid();
        ck_assert(!bptt_program_poll(&r.program));
        ck_assert(!ended(helper));
        run_close(&r);
        ck_assert(bptt_clock_ms() - started < 20000);
        assert_ends(helper);
        assert_tidy(0);
        ck_assert_int_eq(unlink(in_folder("pid")), 0);
    }
}
END_TEST

static void note_nothing(int number)
{
    (void)number;
}

/* Opens with what the test's folder holds as the compiler.  `handling`: 0 as usual, 1 a handler that returns, 2 ignored. */
static int open_under_signals(bptt_backend backend, long handling)
{
    static void (*const handlers[])(int) = {SIG_DFL, note_nothing, SIG_IGN};
    (void)signal(SIGINT, handlers[handling]);
    (void)signal(SIGTERM, SIG_DFL); /* Check has handlers of its own */
    (void)signal(SIGHUP, SIG_DFL);
    bptt_spec spec = spec_of(tiny);
    bptt_program program;
    bptt_error error = {""};
    bptt_status status = bptt_program_open(&spec, backend, &program, &error);
    bool kept = signal(SIGINT, SIG_DFL) == handlers[handling];
    bptt_spec_free(&spec);
    if (status == BPTT_OK || !kept) { return 0; }
    return status == BPTT_STOPPED ? RETURNED_ERROR : RETURNED_LANDED;
}

static int status_after(bptt_backend backend, int signal_number, long handling)
{
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) { _exit(open_under_signals(backend, handling)); }
    pid_t helper = script_pid();
    int status = 0;
    ck_assert_int_eq(kill(child, signal_number), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    assert_ends(helper);
    assert_tidy(0);
    ck_assert_int_eq(unlink(in_folder("pid")), 0);
    return status;
}

/* Ctrl-C while the compiler works: it ends, its folder goes, and the signal does what it would have done. */
START_TEST(test_signal_ends_the_compiler)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    use_script(VERSION_FIRST HANG);
    for (size_t i = 0; i < 3; i++) {
        int status = status_after(BPTT_BACKEND_CC, numbers[i], 0);
        ck_assert(WIFSIGNALED(status));
        ck_assert_int_eq(WTERMSIG(status), numbers[i]);
    }
    int status = status_after(BPTT_BACKEND_CC, SIGINT, 1);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), RETURNED_ERROR);
    set("BPTT_CC_SECONDS", "1");
    status = status_after(BPTT_BACKEND_CC, SIGINT, 2);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), RETURNED_LANDED); /* only its time was over */
}
END_TEST

/* The same in the moment that auto waits for the compiler's version. */
START_TEST(test_signal_while_auto_asks)
{
    use_script(HANG);
    int status = status_after(BPTT_BACKEND_AUTO, SIGTERM, 0);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGTERM);
    status = status_after(BPTT_BACKEND_AUTO, SIGINT, 1);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), RETURNED_ERROR);
}
END_TEST

START_TEST(test_bad_time_limit)
{
    static const char *const bad[] = {"0", "-1", "abc", "1s", "nan", "1e9", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        set("BPTT_CC_SECONDS", bad[i]);
        bptt_spec spec;
        bptt_program program;
        bptt_error error = {""};
        static const char text[] = "return {name = 'net', hidden = 2, vocab = 2, T = 2}";
        ck_assert_int_eq(bptt_spec_parse(text, sizeof text - 1, "t.lua", NULL, 0, &spec, &error), BPTT_OK);
        ck_assert_int_eq(bptt_program_open(&spec, BPTT_BACKEND_CC, &program, &error), BPTT_FAILED);
        char expected[128];
        (void)snprintf(expected, sizeof expected, "BPTT_CC_SECONDS = %s: expected seconds, more than 0 and at most 86400",
                       bad[i]);
        ck_assert_ptr_nonnull(strstr(error.text, expected));
        bptt_spec_free(&spec);
    }
}
END_TEST

/* A real compiler has temporary files of its own, in a folder that we take away with it. */
START_TEST(test_closing_leaves_no_temporary_file)
{
    run r = run_open("return {name = 'net', hidden = 64, vocab = 64, T = 300, K = 299, batch = 3}", BPTT_BACKEND_AUTO);
    pause_ms(100);
    run_close(&r);
    pause_ms(100);
    assert_tidy(0);
    ck_assert_int_eq(entries(folder, ".s", NULL) + entries(folder, ".o", NULL), 0);
}
END_TEST

/* Whatever the umask: nobody else may write what we will load. */
START_TEST(test_object_is_private)
{
    use_script("exec $real \"$@\"");
    mode_t mask = umask(0);
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    (void)umask(mask);
    char object[1024];
    struct stat info;
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
    ck_assert_int_eq(stat(object, &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0600);
    ck_assert_int_eq(chmod(object, 0622), 0);
    r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(compiles(), 2);
}
END_TEST

/* A parent that ignores SIGCHLD never learns how the compiler ended. */
START_TEST(test_ignored_children)
{
    ck_assert(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    run r = run_open(tiny, BPTT_BACKEND_CC);
    ck_assert_str_eq(r.program.backend, "cc");
    run_close(&r);
    ck_assert(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
    assert_tidy(1);
}
END_TEST

START_TEST(test_native_refused)
{
    use_script("case \"$*\" in *-march=native*) echo \"error: bad value 'native' for '-march=' switch\" >&2; exit 1;; esac\n"
               "exec $real \"$@\"");
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_step(&r);
    run_close(&r);
    ck_assert_int_eq(compiles(), 2);
    r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(compiles(), 2);
    assert_tidy(1);
}
END_TEST

/* No file of ours, no signal blocked, English messages; nothing of the command goes through a shell. */
START_TEST(test_what_a_compiler_inherits)
{
    use_script(
        "ls -l /proc/$$/fd > \"$dir/fds\"; echo \"$LC_ALL\" > \"$dir/locale\"; grep SigBlk /proc/self/status > \"$dir/signals\"\n"
        "exec $real \"$@\"");
    int leak = open("/dev/zero", O_RDONLY);
    ck_assert_int_ge(leak, 0);
    sigset_t signals;
    ck_assert_int_eq(sigemptyset(&signals), 0);
    ck_assert_int_eq(sigaddset(&signals, SIGUSR1), 0);
    ck_assert_int_eq(sigprocmask(SIG_BLOCK, &signals, NULL), 0);
    char command[600];
    (void)snprintf(command, sizeof command, "%s -DA=$(touch${IFS}%s/hit) -DB=`x` -DC=;", in_folder("compiler"), folder);
    set("BPTT_CC", command);
    set("LC_ALL", "de_DE.UTF-8");
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(close(leak), 0);
    ck_assert(!exists(in_folder("hit")));
    size_t length = 0;
    char *text = (char *)scratch_get(in_folder("fds"), &length);
    ck_assert_ptr_nonnull(strstr(text, "/dev/null"));
    ck_assert_ptr_null(strstr(text, "/dev/zero"));
    free(text);
    assert_file_is(in_folder("locale"), "C\n", 2);
    assert_file_is(in_folder("signals"), "SigBlk:\t0000000000000000\n", 25);
}
END_TEST

/* --- the cache's folder ----------------------------------------------------------------------------------------------------- */

static void assert_private(void)
{
    use_script("exec $real \"$@\"");
    for (int i = 1; i <= 2; i++) {
        run r = run_open(tiny, BPTT_BACKEND_CC);
        run_step(&r);
        run_close(&r);
        ck_assert_int_eq(compiles(), i); /* not cached */
    }
    assert_tidy(0);
}

START_TEST(test_folder_that_others_can_write)
{
    ck_assert_int_eq(mkdir(in_folder("bptt"), 0700), 0);
    ck_assert_int_eq(chmod(in_folder("bptt"), 0777), 0);
    assert_private();
}
END_TEST

START_TEST(test_folder_that_is_a_link)
{
    ck_assert_int_eq(mkdir(in_folder("elsewhere"), 0700), 0);
    ck_assert_int_eq(symlink("elsewhere", in_folder("bptt")), 0);
    assert_private();
    ck_assert_int_eq(entries(in_folder("elsewhere"), "", NULL), 0);
}
END_TEST

START_TEST(test_folder_of_somebody_else)
{
    if (geteuid() != 0) { return; } /* nobody else can give one away */
    ck_assert_int_eq(mkdir(in_folder("bptt"), 0755), 0);
    ck_assert_int_eq(chown(in_folder("bptt"), 12345, 12345), 0);
    assert_private();
}
END_TEST

START_TEST(test_no_folder)
{
    set("XDG_CACHE_HOME", "/proc/self/nothing");
    assert_private();
    ck_assert_int_eq(unlink(in_folder("log")), 0);
    set("XDG_CACHE_HOME", "/dev/null/x");
    assert_private();
    ck_assert_int_eq(unlink(in_folder("log")), 0);
    set("XDG_CACHE_HOME", "relative");
    set("HOME", NULL);
    assert_private();
    set("TMPDIR", "/proc/self/nothing");
    bptt_error error = refusal(tiny, BPTT_BACKEND_CC);
    ck_assert_str_eq(error.text, "cc: no folder to compile in: neither the cache nor TMPDIR can be written");
    assert_auto_stays("no folder to compile in");
}
END_TEST

START_TEST(test_file_in_place_of_the_folder)
{
    scratch_put(in_folder("bptt"), "x", 1);
    assert_private();
    assert_file_is(in_folder("bptt"), "x", 1);
}
END_TEST

/* What cannot be put there is used all the same. */
START_TEST(test_folder_in_place_of_the_object)
{
    use_script("exec $real \"$@\"");
    char object[1024], inside[1100];
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert_int_eq(entries(in_folder("bptt"), ".so", object), 1);
    (void)snprintf(inside, sizeof inside, "%s/x", object);
    ck_assert_int_eq(unlink(object), 0);
    ck_assert_int_eq(mkdir(object, 0700), 0);
    scratch_put(inside, "x", 1);
    for (int i = 2; i <= 3; i++) {
        r = run_open(tiny, BPTT_BACKEND_CC);
        (void)run_step(&r);
        run_close(&r);
        ck_assert_int_eq(compiles(), i);
    }
    assert_file_is(inside, "x", 1);
    assert_tidy(1);
}
END_TEST

START_TEST(test_folder_is_made)
{
    set("XDG_CACHE_HOME", NULL);
    set("HOME", in_folder("a/b"));
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    struct stat info;
    ck_assert_int_eq(stat(in_folder("a/b/.cache/bptt"), &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);
    ck_assert_int_eq(entries(in_folder("a/b/.cache/bptt"), ".so", NULL), 1);
}
END_TEST

START_TEST(test_old_objects_go)
{
    static const char *const names[] = {"bptt/old.so", "bptt/bptt-old/net.c", "bptt/new.so"};
    ck_assert_int_eq(mkdir(in_folder("bptt"), 0700), 0);
    ck_assert_int_eq(mkdir(in_folder("bptt/bptt-old"), 0700), 0);
    for (size_t i = 0; i < 3; i++) { scratch_put(in_folder(names[i]), "x", 1); }
    struct timespec times[2] = {{.tv_sec = time(NULL) - 40L * 24 * 3600}, {.tv_sec = time(NULL) - 40L * 24 * 3600}};
    ck_assert_int_eq(utimensat(AT_FDCWD, in_folder("bptt/old.so"), times, 0), 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, in_folder("bptt/bptt-old"), times, 0), 0);
    run r = run_open(tiny, BPTT_BACKEND_CC);
    run_close(&r);
    ck_assert(!exists(in_folder("bptt/old.so")));
    ck_assert(!exists(in_folder("bptt/bptt-old")));
    ck_assert(exists(in_folder("bptt/new.so")));
    assert_tidy(2);
}
END_TEST

/* --- auto ------------------------------------------------------------------------------------------------------------------- */

static void assert_same_layout(const bptt_model *a, const bptt_model *b)
{
    ck_assert_uint_eq(a->bytes, b->bytes);
    ck_assert_uint_eq(a->block, b->block);
    ck_assert_uint_eq(a->param, b->param);
    ck_assert_uint_eq(a->grad, b->grad);
    ck_assert_uint_eq(a->state, b->state);
    ck_assert_uint_eq(a->progress, b->progress);
    ck_assert_uint_eq(a->tensor_count, b->tensor_count);
    for (uint32_t i = 0; i < a->tensor_count; i++) {
        ck_assert_str_eq(a->tensors[i].name, b->tensors[i].name);
        ck_assert_uint_eq(a->tensors[i].offset, b->tensors[i].offset);
        ck_assert_uint_eq(a->tensors[i].stride, b->tensors[i].stride);
    }
}

START_TEST(test_auto_swaps_while_training)
{
    enum { BEFORE = 20, AFTER = 20 };
    static const char text[] = "return {name = 'net', hidden = 20, vocab = 9, T = 10, K = 4, batch = 2, optimizer = 'adam'}";
    use_script(VERSION_FIRST "while [ ! -e \"$dir/go\" ]; do sleep 0.02; done; exec $real \"$@\"");
    run reference = run_open(text, BPTT_BACKEND_TCC), r = run_open(text, BPTT_BACKEND_AUTO);
    for (int i = 0; i < BEFORE; i++) {
        ck_assert(run_step(&r) == run_step(&reference));
        ck_assert(!bptt_program_poll(&r.program));
    }
    ck_assert_str_eq(r.program.backend, "tcc");
    const bptt_model *old = r.program.model;
    const double old_ms = r.program.compile_ms;
    unsigned char *copy = malloc(old->bytes);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, r.memory, old->bytes);
    scratch_put(in_folder("go"), "", 0);
    double started = bptt_clock_ms();
    while (!bptt_program_poll(&r.program)) {
        ck_assert(bptt_clock_ms() - started < 60000);
        pause_ms(5);
    }
    ck_assert_str_eq(r.program.backend, "cc");
    ck_assert_ptr_ne(r.program.model, old);
    ck_assert(r.program.compile_ms > old_ms);
    ck_assert_int_eq(memcmp(copy, r.memory, old->bytes), 0);
    assert_same_layout(old, r.program.model);
    for (int i = 0; i < AFTER; i++) { assert_close(run_step(&r), run_step(&reference), 1e-5); }
    ck_assert(!bptt_program_poll(&r.program));
    /* Who still holds the old code may go on with it. */
    double by_new = r.program.model->loss(r.program.model, r.memory, &(bptt_rows){.x = r.x, .y = r.y}, 0);
    assert_close(old->loss(old, reference.memory, &(bptt_rows){.x = reference.x, .y = reference.y}, 0), by_new, 1e-5);
    free(copy);
    run_close(&r);
    run_close(&reference);
    assert_tidy(1);
}
END_TEST

/* libtcc cannot, so the compiler must; when it cannot either, both say why. */
static int auto_without_tcc(long compiler_works)
{
    if (!compiler_works) { set("BPTT_CC", "/nonexistent"); }
    if (forbid_executable_memory() != 0) { return SKIPPED; }
    bptt_spec spec = spec_of(tiny);
    bptt_program program;
    bptt_error error = {""};
    bptt_status status = bptt_program_open(&spec, BPTT_BACKEND_AUTO, &program, &error);
    bool both = strcmp(error.text, "tcc: this system forbids making memory executable; "
                                   "cc: BPTT_CC=/nonexistent: no such program; expected a C compiler") == 0;
    int end = 0;
    if (compiler_works && status == BPTT_OK && strcmp(program.backend, "cc") == 0) { end = RETURNED_OK; }
    if (!compiler_works && status == BPTT_FAILED && both) { end = RETURNED_ERROR; }
    bptt_program_close(&program);
    bptt_spec_free(&spec);
    return end;
}

START_TEST(test_auto_without_tcc)
{
    int works = in_child(auto_without_tcc, 1), fails = in_child(auto_without_tcc, 0);
    if (works == SKIPPED) {
        puts("test_auto_without_tcc: no seccomp here, skipped");
        return;
    }
    ck_assert_int_eq(works, RETURNED_OK);
    ck_assert_int_eq(fails, RETURNED_ERROR);
}
END_TEST

/* --- the command ------------------------------------------------------------------------------------------------------------ */

/* Runs `bptt train` on `backend` in the test's folder; its standard error goes to the file "err".  Returns the exit status. */
static int train(const char *backend)
{
    char command[4096], tokens[200];
    for (size_t i = 0; i < sizeof tokens; i++) { tokens[i] = (char)(i % 7); }
    scratch_put(in_folder("net.lua"), tiny, sizeof tiny - 1);
    scratch_put(in_folder("tokens"), tokens, sizeof tokens);
    const char *binary = getenv("BPTT");
    ck_assert_msg(binary != NULL, "BPTT must name the binary");
    (void)snprintf(command, sizeof command,
                   "cd '%s' && rm -f out.safetensors && '%s' train net.lua --data tokens --seconds 0.7 --backend %s --out "
                   "out.safetensors > out 2> err",
                   folder, binary, backend);
    int status = system(command);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* How many lines of "err" hold `part`. */
static int lines_with(const char *part)
{
    size_t length = 0;
    char *text = (char *)scratch_get(in_folder("err"), &length), *rest = NULL;
    int count = 0;
    for (const char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        count += strstr(line, part) != NULL;
    }
    free(text);
    return count;
}

/* Whatever the compiler does, `auto` trains and says so once, and `cc` says so and fails. */
START_TEST(test_training_with_a_bad_compiler)
{
    static const struct {
        const char *script, *says;
    } cases[] = {
        {NULL, "BPTT_CC=/nonexistent: no such program"},
        {VERSION_FIRST "exit 1", "compiler failed without a message, status 1"},
        {VERSION_FIRST "exit 0", "compiler made nothing"},
        {VERSION_FIRST HANG, "compiler took longer than 0.3 seconds and was stopped"},
        {HANG, "compiler took longer than 0.3 seconds and was stopped"},
    };
    set("BPTT_CC_SECONDS", "0.3");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].script != NULL) {
            use_script(cases[i].script);
        } else {
            set("BPTT_CC", "/nonexistent");
        }
        ck_assert_int_eq(train("cc"), BPTT_FAILED);
        ck_assert_int_eq(lines_with(""), 1);
        ck_assert_int_eq(lines_with(cases[i].says), 1);
        ck_assert(!exists(in_folder("out.safetensors")));
        ck_assert_int_eq(train("auto"), BPTT_OK);
        ck_assert_int_eq(lines_with("bptt: stays on tcc: cc: "), 1);
        ck_assert_int_eq(lines_with(cases[i].says), 1);
        ck_assert(exists(in_folder("out.safetensors")));
        assert_tidy(0);
    }
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------------------------- */

static void add(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *group = tcase_create(name);
    tcase_add_unchecked_fixture(group, scratch_open, remove_all);
    tcase_add_checked_fixture(group, fresh_folder, NULL);
    tcase_set_timeout(group, 120);
    for (size_t i = 0; i < count; i++) { tcase_add_test(group, tests[i]); }
    suite_add_tcase(suite, group);
}
#define ADD(suite, name, tests) add(suite, name, tests, sizeof(tests) / sizeof(tests)[0])

int main(void)
{
    const TTest *const backends[] = {test_backends_agree, test_every_width, test_many_programs_at_once, test_memory};
    const TTest *const tcc[] = {test_tcc_errors, test_code_is_never_writable, test_executable_memory_forbidden,
                                test_out_of_memory_returns};
    const TTest *const cc[] = {test_compiled_once,
                               test_damaged_object_is_rebuilt,
                               test_wrong_object_is_rebuilt,
                               test_sealed_object_is_rebuilt,
                               test_two_processes_at_once,
                               test_no_compiler,
                               test_compiler_fails,
                               test_compiler_reports_a_line,
                               test_flood_of_messages,
                               test_compiler_hangs,
                               test_closing_ends_the_compiler,
                               test_signal_ends_the_compiler,
                               test_signal_while_auto_asks,
                               test_bad_time_limit,
                               test_closing_leaves_no_temporary_file,
                               test_object_is_private,
                               test_ignored_children,
                               test_native_refused,
                               test_what_a_compiler_inherits};
    const TTest *const cache[] = {
        test_folder_that_others_can_write, test_folder_that_is_a_link,         test_folder_of_somebody_else, test_no_folder,
        test_file_in_place_of_the_folder,  test_folder_in_place_of_the_object, test_folder_is_made,          test_old_objects_go};
    const TTest *const automatic[] = {test_auto_swaps_while_training, test_auto_without_tcc};
    const TTest *const command[] = {test_training_with_a_bad_compiler};
    const char *path = getenv("PATH"), *seed = getenv("BPTT_TEST_SEED");
    old_path = strdup(path != NULL ? path : "/usr/bin:/bin");
    if (old_path == NULL) { return EXIT_FAILURE; }
    if (seed != NULL) { test_seed = strtoull(seed, NULL, 10); }
    printf("seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)test_seed);
    Suite *suite = suite_create("backend");
    ADD(suite, "backends", backends);
    ADD(suite, "tcc", tcc);
    ADD(suite, "cc", cc);
    ADD(suite, "cache", cache);
    ADD(suite, "auto", automatic);
    ADD(suite, "command", command);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    free(old_path);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
