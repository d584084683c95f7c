/* test_command.c: the built binary as its users meet it: output, files, messages, exit statuses.
 *
 * The binary is the one that the environment variable BPTT names.  Every test works in a folder of its own, removed afterwards.
 */
#include <cjson/cJSON.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static char binary[PATH_MAX];

/* ---- files ---- */

static void write_bytes(const char *name, const void *bytes, size_t length)
{
    FILE *file = fopen(name, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

/* The whole file, ended by NUL; free it. */
static char *read_bytes(const char *name, size_t *length)
{
    FILE *file = fopen(name, "rb");
    ck_assert_msg(file != NULL, "%s: %s", name, strerror(errno));
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    long end = ftell(file);
    ck_assert_int_ge(end, 0);
    rewind(file);
    char *bytes = calloc((size_t)end + 1, 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)end, file), (size_t)end);
    ck_assert_int_eq(fclose(file), 0);
    if (length != NULL) { *length = (size_t)end; }
    return bytes;
}

static bool same_files(const char *a, const char *b)
{
    size_t m = 0, n = 0;
    char *x = read_bytes(a, &m), *y = read_bytes(b, &n);
    bool same = m == n && memcmp(x, y, m) == 0;
    free(x);
    free(y);
    return same;
}

static bool exists(const char *name)
{
    return access(name, F_OK) == 0;
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (const char *c = text; *c != '\0'; c++) { lines += *c == '\n'; }
    return lines;
}

/* ---- running the command ---- */

/* Runs `bptt ARGUMENTS` through the shell; output goes to the files out and err.  Returns the exit status. */
static int bptt(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int bptt(const char *format, ...)
{
    char arguments[2048], command[8192];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    (void)snprintf(command, sizeof command, "'%s' %s %s 2>err", binary, arguments, strchr(arguments, '>') == NULL ? ">out" : "");
    int status = system(command);
    ck_assert_msg(WIFEXITED(status), "killed: bptt %s", arguments);
    return WEXITSTATUS(status);
}

static void show_failure(const char *arguments, int status)
{
    char *err = read_bytes("err", NULL);
    ck_abort_msg("bptt %s: status %d: %s", arguments, status, err);
}

/* As bptt, and must succeed. */
#define OK(...)                                                                                                                  \
    do {                                                                                                                         \
        int status_ = bptt(__VA_ARGS__);                                                                                         \
        if (status_ != 0) { show_failure(#__VA_ARGS__, status_); }                                                               \
    } while (0)

/* The last command must have said exactly this on standard error. */
static void said(const char *line)
{
    char *err = read_bytes("err", NULL);
    ck_assert_str_eq(err, line);
    free(err);
}

static void said_part(const char *part)
{
    char *err = read_bytes("err", NULL);
    ck_assert_msg(strstr(err, part) != NULL, "expected '%s' in: %s", part, err);
    ck_assert_msg(count_lines(err) == 1, "expected one line: %s", err);
    free(err);
}

static void printed_part(const char *part)
{
    char *out = read_bytes("out", NULL);
    ck_assert_msg(strstr(out, part) != NULL, "expected '%s' in: %s", part, out);
    free(out);
}

static cJSON *printed_json(void)
{
    char *out = read_bytes("out", NULL);
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithOpts(out, &end, 0);
    ck_assert_msg(json != NULL, "not JSON: %s", out);
    ck_assert_str_eq(end, "\n");
    free(out);
    return json;
}

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "no number '%s'", key);
    return item->valuedouble;
}

/* One number of the JSON that the last command printed. */
static double printed_number(const char *key)
{
    cJSON *json = printed_json();
    double value = number(json, key);
    cJSON_Delete(json);
    return value;
}

/* ---- the folder of a test ---- */

enum { TEXT_LENGTH = 2000 };

static void set_up(void)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%s/bptt-command-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    write_text("net.lua",
               "return { name = 'net', hidden = 12, vocab = ' abcdefghijklmnopqrstuvwxyz.\\n', T = 10, K = 4, batch = 3,\n"
               "         optimizer = 'adam', seed = 3 }\n");
    static const char phrase[] = "the quick brown fox jumps over the lazy dog.\npack my box with five dozen liquor jugs.\n";
    char text[TEXT_LENGTH + 1];
    for (size_t i = 0; i < TEXT_LENGTH; i++) { text[i] = phrase[(i * (1 + i / 700)) % (sizeof phrase - 1)]; }
    text[TEXT_LENGTH] = '\0';
    write_text("text", text);
    write_text("empty", "");
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void tear_down(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- help and usage ---- */

START_TEST(test_help)
{
    static const char *const commands[] = {"gen",  "train", "eval",     "sample", "inspect",
                                           "grad", "check", "diagnose", "bench",  "tune"};
    OK("help");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) { printed_part(commands[i]); }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        OK("help %s", commands[i]);
        char start[32];
        (void)snprintf(start, sizeof start, "bptt %s ", commands[i]);
        printed_part(start);
        OK("%s --help", commands[i]);
        printed_part(start);
    }
    OK("help train");
    printed_part("--steps N");
    OK("help spec");
    printed_part("hidden");
    OK("--version");
    char *out = read_bytes("out", NULL);
    ck_assert_str_eq(out, "bptt 0.1.0\n");
    free(out);
}
END_TEST

static const struct {
    const char *arguments, *line;
} usage[] = {
    {"", "bptt: no command given; see 'bptt help'\n"},
    {"trian", "bptt: unknown command 'trian' (did you mean 'train'?); see 'bptt help'\n"},
    {"train net.lua --data text --step 3",
     "bptt train: unknown option '--step' (did you mean '--steps'?); see 'bptt help train'\n"},
    {"train net.lua --data text --xyzzy=3", "bptt train: unknown option '--xyzzy'; see 'bptt help train'\n"},
    {"train net.lua", "bptt train: --data FILE is missing; see 'bptt help train'\n"},
    {"train --data text", "bptt train: SPEC is missing (or --resume CKPT); see 'bptt help train'\n"},
    {"train net.lua --data", "bptt train: --data needs a value, FILE; see 'bptt help train'\n"},
    {"train net.lua net.lua --data text", "bptt train: unexpected 'net.lua'; see 'bptt help train'\n"},
    {"bench --rows tiny,defalut", "bptt bench: unknown row 'defalut' (did you mean 'default'?); see 'bptt help bench'\n"},
    {"bench net.lua --suite", "bptt bench: --suite takes no SPEC; leave out 'net.lua'; see 'bptt help bench'\n"},
    {"bench net.lua --rows tiny", "bptt bench: --rows takes no SPEC; leave out 'net.lua'; see 'bptt help bench'\n"},
    {"train net.lua --data text --steps 0",
     "bptt train: --steps takes a whole number of at least 1, not '0'; see 'bptt help train'\n"},
    {"train net.lua --data text --steps 1x",
     "bptt train: --steps takes a whole number of at least 1, not '1x'; see 'bptt help train'\n"},
    {"train net.lua --data text --steps ' 1'",
     "bptt train: --steps takes a whole number of at least 1, not ' 1'; see 'bptt help train'\n"},
    {"train net.lua --data text --steps -1",
     "bptt train: --steps takes a whole number of at least 1, not '-1'; see 'bptt help train'\n"},
    {"train net.lua --data text --steps 99999999999999999999",
     "bptt train: --steps takes a whole number of at least 1, not '99999999999999999999'; see 'bptt help train'\n"},
    {"train net.lua --data text --seconds nan",
     "bptt train: --seconds takes a number from 0.001 to 1e+09, not 'nan'; see 'bptt help train'\n"},
    {"train net.lua --data text --valid-fraction 1",
     "bptt train: --valid-fraction takes a number from 1e-06 to 0.999999, not '1'; see 'bptt help train'\n"},
    {"train net.lua --data text --steps 1 --epochs 1",
     "bptt train: --steps and --epochs exclude each other; see 'bptt help train'\n"},
    {"train net.lua --data text --valid text --valid-fraction 0.5",
     "bptt train: --valid and --valid-fraction exclude each other; see 'bptt help train'\n"},
    {"train net.lua --data text --backend gcc",
     "bptt train: --backend takes one of tcc, cc, auto, generic, not 'gcc'; see 'bptt help train'\n"},
    {"train net.lua --data text --tokens u64",
     "bptt train: --tokens takes one of u8, u16, u32, not 'u64'; see 'bptt help train'\n"},
    {"train net.lua --data text --unknown map=",
     "bptt train: --unknown takes error, skip or map=C with one byte C, not 'map='; see 'bptt help train'\n"},
    {"train net.lua --data text --set hidden", "bptt train: --set takes KEY=VALUE, not 'hidden'; see 'bptt help train'\n"},
    {"train net.lua --data text --quiet=1", "bptt train: --quiet takes no value; see 'bptt help train'\n"},
    {"train net.lua --data ''", "bptt train: --data takes a value that is not empty; see 'bptt help train'\n"},
    {"sample net.lua --temperature -1",
     "bptt sample: --temperature takes a number from 0 to 1e+06, not '-1'; see 'bptt help sample'\n"},
    {"sample", "bptt sample: CKPT is missing; see 'bptt help sample'\n"},
    {"gen net.lua", "bptt gen: give -o DIR for the files or --dump STAGE to print one stage; see 'bptt help gen'\n"},
    {"gen net.lua -o x --dump plan", "bptt gen: --out and --dump exclude each other; see 'bptt help gen'\n"},
    {"grad net.lua --data text -o g", "bptt grad: --weights FILE is missing; see 'bptt help grad'\n"},
    {"diagnose net.lua", "bptt diagnose: --data FILE is missing; see 'bptt help diagnose'\n"},
    {"diagnose net.lua --data text --sequences 0",
     "bptt diagnose: --sequences takes a whole number from 1 to 1e+06, not '0'; see 'bptt help diagnose'\n"},
    {"--version now", "bptt --version: unexpected 'now'; see 'bptt help --version'\n"},
};

START_TEST(test_usage)
{
    ck_assert_int_eq(bptt("%s", usage[_i].arguments), 2);
    said(usage[_i].line);
    char *out = read_bytes("out", NULL);
    ck_assert_str_eq(out, "");
    free(out);
}
END_TEST

START_TEST(test_full_disk)
{
    int status = bptt("help train >/dev/full");
    ck_assert_int_eq(status, 1);
    said("bptt: cannot write to standard output: No space left on device\n");
}
END_TEST

/* ---- training ---- */

START_TEST(test_train_report)
{
    OK("train net.lua --data text --steps 20 --backend generic --valid-fraction 0.1 --out a");
    printed_part("trained     20 steps to step 20");
    printed_part("training    loss ");
    printed_part("(mean of the last 20 steps)");
    printed_part("held out    loss ");
    printed_part("(199 tokens)");
    printed_part("checkpoint  a\n");
    said_part("step 20  ");
    OK("train net.lua --data text --steps 20 --backend generic --quiet");
    said("");
    ck_assert(exists("net.safetensors"));
}
END_TEST

START_TEST(test_train_json)
{
    OK("train net.lua --data text --epochs 2 --json --quiet --out a --valid text --backend generic");
    cJSON *json = printed_json();
    double predictions = TEXT_LENGTH - 1;
    /* 667 steps of the longest stream in sequences of 10 = chunks of 4, 4, 2; the last sequence has 7: 4, 3. */
    double steps = 2 * (66 * 3 + 2);
    ck_assert_double_eq(number(json, "steps"), steps);
    ck_assert_double_eq(number(json, "run_steps"), steps);
    ck_assert_double_eq(number(json, "epochs"), 2);
    ck_assert_double_eq(number(json, "tokens"), 2 * predictions);
    ck_assert_double_eq(number(json, "run_tokens"), 2 * predictions);
    ck_assert_double_eq(number(json, "loss_steps"), steps);
    ck_assert_double_gt(number(json, "tokens_per_second"), 0);
    ck_assert_double_gt(number(json, "seconds"), 0);
    ck_assert_double_eq_tol(number(json, "bits_per_character"), number(json, "loss") / log(2.0), 1e-12);
    ck_assert_double_lt(number(json, "loss"), log(29.0));
    const cJSON *held_out = cJSON_GetObjectItem(json, "held_out");
    ck_assert_double_eq(number(held_out, "tokens"), predictions);
    ck_assert_double_eq_tol(number(held_out, "perplexity"), exp(number(held_out, "loss")), 1e-9);
    ck_assert_str_eq(cJSON_GetObjectItem(json, "name")->valuestring, "net");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "backend")->valuestring, "generic");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "checkpoint")->valuestring, "a");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "stopped")->valuestring, "limit");
    ck_assert_uint_eq(strlen(cJSON_GetObjectItem(json, "digest")->valuestring), 32);
    double held_out_loss = number(held_out, "loss");
    cJSON_Delete(json);
    /* Evaluating the checkpoint that was written gives the same number: parameters were copied, then saved, exactly. */
    OK("eval a --data text --json --backend generic");
    ck_assert_double_eq(printed_number("loss"), held_out_loss);
    /* The default limit is one epoch. */
    OK("train net.lua --data text --json --quiet --out b --backend generic");
    ck_assert_double_eq(printed_number("epochs"), 1);
    ck_assert_double_eq(printed_number("tokens"), predictions);
}
END_TEST

START_TEST(test_train_seconds)
{
    OK("train net.lua --data text --seconds 0.3 --json --quiet --out a --backend generic");
    ck_assert_double_ge(printed_number("seconds"), 0.3);
    ck_assert_double_lt(printed_number("seconds"), 3.0);
}
END_TEST

static const char *const optimizers[] = {"sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"};
static const char *const backends[] = {"generic", "tcc"};
enum { OPTIMIZERS = 6, BACKENDS = 2 };

/* 2N = N + N, across a border of epochs and in the middle of a sequence, for every optimiser, alone and with the spec left out. */
START_TEST(test_resume_exact)
{
    const char *optimizer = optimizers[_i % OPTIMIZERS], *backend = backends[_i / OPTIMIZERS];
    char common[256];
    (void)snprintf(common, sizeof common, "--data text --quiet --backend %s --set optimizer=%s", backend, optimizer);
    OK("train net.lua %s --steps 410 --out whole", common);
    OK("train net.lua %s --steps 205 --out half", common);
    ck_assert(!same_files("whole", "half"));
    OK("train net.lua %s --steps 410 --resume half --out joined", common);
    ck_assert(same_files("whole", "joined"));
    OK("train %s --steps 410 --resume half", common);
    ck_assert(same_files("whole", "half"));
    OK("train %s --steps 410 --resume half", common);
    printed_part("nothing to do");
    ck_assert(same_files("whole", "half"));
}
END_TEST

START_TEST(test_resume_refused)
{
    OK("train net.lua --data text --quiet --backend generic --steps 5 --out a");
    OK("train net.lua --data text --quiet --backend generic --steps 5 --out copy");
    char *text = read_bytes("text", NULL);
    text[100] = text[100] == 'a' ? 'b' : 'a';
    write_text("other", text);
    free(text);
    ck_assert_int_eq(bptt("train net.lua --data other --quiet --backend generic --steps 9 --resume a"), 1);
    said_part("bptt: a: was trained on other data (2000 tokens, ");
    ck_assert_int_eq(bptt("train net.lua --data text --quiet --backend generic --steps 9 --resume a --set hidden=13"), 1);
    said_part("a: ");
    ck_assert_int_eq(bptt("train --data text --quiet --backend generic --steps 9 --resume a --set hidden=13"), 1);
    said_part("a: ");
    ck_assert_int_eq(bptt("train net.lua --data text --quiet --steps 9 --resume nowhere"), 1);
    said_part("nowhere");
    write_text("broken", "no checkpoint");
    ck_assert_int_eq(bptt("train net.lua --data text --quiet --steps 9 --resume broken"), 1);
    said_part("broken");
    ck_assert(same_files("a", "copy"));
}
END_TEST

/* Whatever is wrong with the input, the files that would be written stay as they are. */
START_TEST(test_outputs_untouched)
{
    static const char *const wrong[] = {
        "train nowhere.lua --data text",
        "train net.lua --data nowhere",
        "train net.lua --data empty",
        "train net.lua --data text --valid nowhere",
        "train net.lua --data text --valid empty",
        "train net.lua --data text --valid-fraction 0.0001",
        "train net.lua --data text --set hidden=0",
        "train net.lua --data text --resume empty",
        "train net.lua --data upper",
        "train net.lua --data text --tokens u16",
        "train net.lua --data text --set schedule=plateau",
    };
    write_text("upper", "the QUICK brown fox");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_text("model", "kept");
        write_text("log", "kept");
        int status = bptt("%s --quiet --steps 3 --backend generic --out model --log log", wrong[i]);
        ck_assert_msg(status == 1 || status == 2, "%s: status %d", wrong[i], status);
        char *err = read_bytes("err", NULL), *model = read_bytes("model", NULL), *log = read_bytes("log", NULL);
        ck_assert_msg(count_lines(err) == 1, "%s: %s", wrong[i], err);
        ck_assert_str_eq(model, "kept");
        ck_assert_str_eq(log, "kept");
        free(err);
        free(model);
        free(log);
    }
    ck_assert_int_eq(bptt("train net.lua --data text --out nowhere/model"), 1);
    said("bptt: nowhere/model: cannot write a checkpoint there: No such file or directory\n");
    ck_assert_int_eq(bptt("train net.lua --data text --out ."), 1);
    said("bptt: .: cannot write a checkpoint there: not a file\n");
    ck_assert_int_eq(bptt("train net.lua --data upper --steps 1"), 1);
    said_part("offset 4");
    OK("train net.lua --data upper --steps 1 --quiet --unknown skip");
    OK("train net.lua --data upper --steps 1 --quiet --unknown map=.");
    ck_assert_int_eq(bptt("train net.lua --data upper --steps 1 --quiet --unknown map=Q"), 2);
}
END_TEST

/* The column `rate` of a log's line; the first has number 1. */
static double logged_rate(const char *path, int line)
{
    char *rows = read_bytes(path, NULL), *row = rows;
    for (int i = 0; i < line; i++) {
        row = strchr(row, '\n');
        ck_assert_ptr_nonnull(row);
        row++;
    }
    row[strcspn(row, "\n")] = '\0';
    const double rate = strtod(strrchr(row, ',') + 1, NULL);
    free(rows);
    return rate;
}

/* A step is an update, after as many chunks as the spec says: --steps, --log-every and the schedule count the same. */
START_TEST(test_steps_are_updates)
{
    static const struct {
        const char *rule;
        int tokens; /* of a step: T = 10, K = 4, two streams */
    } rules[] = {{"--set update=sequence", 20},
                 {"--set update=sequence --set accumulate=3", 60},
                 {"--set update=sequence --set truncation=block --set stride=3", 20},
                 {"--set truncation=uniform --set accumulate=2", 40}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        OK("train net.lua --data text --quiet --json --set batch=2 --set 'schedule={\"step\", every=4, factor=0.5}' --set "
           "'optimizer={\"sgd\", rate=0.5}' %s --steps 9 --out a --log log --log-every 1",
           rules[i].rule);
        ck_assert_double_eq(printed_number("steps"), 9);
        ck_assert_double_eq(printed_number("run_steps"), 9);
        ck_assert_double_eq(printed_number("loss_steps"), 9);
        ck_assert_double_eq(printed_number("tokens"), 9 * rules[i].tokens);
        for (int step = 1; step <= 9; step++) {
            ck_assert_double_eq(logged_rate("log", step), step < 5 ? 0.5 : step < 9 ? 0.25 : 0.125);
        }
        OK("train --data text --quiet --json --resume a --steps 11 --out a --log log --log-every 1");
        ck_assert_double_eq(printed_number("run_steps"), 2);
        ck_assert_double_eq(printed_number("steps"), 11);
    }
}
END_TEST

/* Gradients of several chunks, or sequences, to an update: 2N = N + N bit for bit, wherever N is.  An epoch ends with a sequence that
 * is cut short, and with chunks or sequences that wait for an update. */
START_TEST(test_resume_in_a_group)
{
    static const char *const rules[] = {"--set accumulate=3", "--set update=sequence", "--set update=sequence --set accumulate=2",
                                        "--set accumulate=4 --set reduction=sum --set threads=2 --set batch=4"};
    char common[256];
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        (void)snprintf(common, sizeof common, "--data text --quiet --backend %s %s", backends[_i], rules[i]);
        OK("train net.lua %s --epochs 5 --out whole", common);
        OK("train net.lua %s --steps 7 --out half", common);
        OK("train net.lua %s --epochs 1 --resume half", common);
        OK("train net.lua %s --epochs 3 --resume half", common);
        OK("train net.lua %s --epochs 5 --resume half", common);
        ck_assert(same_files("whole", "half"));
    }
}
END_TEST

/* What bptt grad shows is the gradient of one chunk's loss, however many are added up in training. */
START_TEST(test_grad_of_one_chunk)
{
    OK("train net.lua --data text --steps 1 --quiet --out a --backend generic");
    OK("grad net.lua --weights a --data text --out one --backend %s", backends[_i]);
    OK("grad net.lua --weights a --data text --out two --set accumulate=3 --set update=sequence --backend %s", backends[_i]);
    ck_assert(same_files("one", "two"));
    OK("check net.lua --set accumulate=3 --set update=sequence");
}
END_TEST

/* A number that is not finite in the middle of a group: what was added up is lost, so nothing is saved. */
START_TEST(test_divergence_in_a_group)
{
    const char *common = "--data text --quiet --set 'optimizer={\"sgd\", rate=1e30}' --set activation=relu --set clip=none";
    ck_assert_int_eq(bptt("train net.lua %s --set accumulate=5 --steps 90 --out a --backend %s", common, backends[_i]), 1);
    said_part("is not finite");
    ck_assert(!exists("a") || bptt("inspect a") == 0);
}
END_TEST

START_TEST(test_log_of_a_schedule)
{
    OK("train net.lua --data text --steps 6 --quiet --backend %s --out a --log log.csv --set optimizer='{\"adam\", rate=0.5}' "
       "--set schedule='{\"step\", every=2, factor=0.5, warmup=2}'",
       backends[_i]);
    static const double rates[] = {0.25, 0.5, 0.5, 0.5, 0.25, 0.25};
    for (int n = 0; n < 6; n++) { ck_assert_double_eq(logged_rate("log.csv", n + 1), rates[n]); }
}
END_TEST

/* A threshold that no loss meets: the rate falls with every look at the held-out data, and so it does after a resume. */
START_TEST(test_plateau_schedule)
{
    const char *rule = "--set schedule='{\"plateau\", factor=0.5, patience=1, threshold=0.9}' --valid-fraction 0.1";
    char common[300];
    ck_assert_int_eq(bptt("train net.lua --data text --set schedule=plateau --steps 3"), 2);
    said("bptt train: schedule \"plateau\" watches the loss on held-out data: give --valid or --valid-fraction; see 'bptt help "
         "train'\n");
    ck_assert(!exists("net.safetensors"));
    ck_assert_int_eq(bptt("train net.lua --data text --valid text --valid-every 3 --steps 3"), 2);
    said("bptt train: --valid-every is for the schedule \"plateau\"; this one is \"constant\"; see 'bptt help train'\n");
    (void)snprintf(common, sizeof common, "--data text --quiet --backend %s %s", backends[_i], rule);
    OK("train net.lua %s --epochs 6 --out a --log a.csv --log-every 1000000", common);
    OK("train net.lua %s --steps 40 --out whole --valid-every 5 --log b.csv", common);
    /* looks after steps 5, 10, ...: the first is the best for ever, each second one after it halves the rate */
    ck_assert_double_eq(logged_rate("b.csv", 15), 0.001);
    ck_assert_double_eq(logged_rate("b.csv", 16), 0.0005);
    ck_assert_double_eq(logged_rate("b.csv", 25), 0.0005);
    ck_assert_double_eq(logged_rate("b.csv", 26), 0.00025);
    OK("train net.lua %s --steps 17 --out half --valid-every 5", common);
    OK("train net.lua %s --steps 40 --resume half --valid-every 5", common);
    ck_assert(same_files("whole", "half"));
    ck_assert_double_eq(logged_rate("a.csv", 1), 0.00025); /* epochs: 1 is the best, 3 and 5 halve */
}
END_TEST

START_TEST(test_log)
{
    OK("train net.lua --data text --steps 5 --quiet --backend generic --out a --log log.csv");
    char *rows = read_bytes("log.csv", NULL);
    static const char header[] = "step,epoch,tokens,seconds,loss,bits,grad_norm,clipped_norm,rate\n";
    ck_assert_int_eq(strncmp(rows, header, strlen(header)), 0);
    ck_assert_uint_eq(count_lines(rows), 6);
    unsigned long long step = 0, epoch = 9, tokens = 0;
    double seconds = -1, loss = 0, bits = 0, norm = 0, clipped = 0, rate = 0;
    int read = sscanf(rows + strlen(header), "%llu,%llu,%llu,%lf,%lf,%lf,%lf,%lf,%lf\n", &step, &epoch, &tokens, &seconds, &loss,
                      &bits, &norm, &clipped, &rate);
    ck_assert_int_eq(read, 9);
    ck_assert_double_eq(norm, clipped);
    ck_assert_uint_eq(step, 1);
    ck_assert_uint_eq(epoch, 0);
    ck_assert_uint_eq(tokens, 12);
    ck_assert_double_ge(seconds, 0);
    ck_assert_double_eq_tol(loss, log(29.0), 0.5);
    ck_assert_double_eq_tol(bits, loss / log(2.0), 1e-6);
    ck_assert_double_gt(norm, 0);
    ck_assert_double_gt(rate, 0);
    free(rows);
    OK("train net.lua --data text --steps 8 --quiet --backend generic --resume a --log log.csv");
    rows = read_bytes("log.csv", NULL);
    ck_assert_uint_eq(count_lines(rows), 9);
    ck_assert_ptr_null(strstr(rows + 1, "step"));
    ck_assert_ptr_nonnull(strstr(rows, "\n6,0,60,"));
    free(rows);
    OK("train net.lua --data text --steps 8 --quiet --backend generic --out b --log log.csv --log-every 4");
    rows = read_bytes("log.csv", NULL);
    ck_assert_uint_eq(count_lines(rows), 3);
    free(rows);
    /* what is left over is a line too, and a resumed run keeps to the same multiples */
    OK("train net.lua --data text --steps 6 --quiet --backend generic --out c --log c.csv --log-every 4");
    OK("train net.lua --data text --steps 9 --quiet --backend generic --resume c --log c.csv --log-every 4");
    rows = read_bytes("c.csv", NULL);
    ck_assert_uint_eq(count_lines(rows), 5);
    ck_assert(strstr(rows, "\n4,") != NULL && strstr(rows, "\n6,") != NULL);
    ck_assert(strstr(rows, "\n8,") != NULL && strstr(rows, "\n9,") != NULL);
    free(rows);
    ck_assert_int_eq(bptt("train net.lua --data text --steps 8 --quiet --backend generic --out c --log /dev/full"), 1);
    said("bptt: /dev/full: cannot write the log: No space left on device\n");
    /* The first line could not be flushed: training ends there, and what was learned is saved. */
    OK("train net.lua --data text --steps 1 --quiet --backend generic --out d");
    ck_assert(same_files("c", "d"));
}
END_TEST

/* ---- numbers that are not finite, signals ---- */

static const char diverge[] =
    "net.lua --data text --quiet --set activation=relu --set clip=none --set 'optimizer={\"sgd\",rate=%s}' "
    "--backend %s --checkpoint-every %s --steps %d --out %s";

/* bptt train with these; the format is a constant of this file. */
static int train_diverging(const char *rate, int backend, const char *every, int steps, const char *out)
{
    char arguments[512];
    (void)snprintf(arguments, sizeof arguments, diverge, rate, backends[backend], every, steps, out);
    return bptt("train %s", arguments);
}

START_TEST(test_not_finite)
{
    ck_assert_int_eq(train_diverging("1e30", _i, "0", 50, "a"), 1);
    said_part("bptt: step ");
    said_part(" is not finite; lower the sgd rate (now 1e+30) or clip the gradient (clip={norm=5}); a was not written");
    ck_assert(!exists("a"));
    /* a checkpoint of another run that is there stays as it was */
    OK("train net.lua --data text --steps 1 --backend generic --out b");
    OK("train net.lua --data text --steps 1 --backend generic --out c");
    ck_assert_int_eq(train_diverging("1e30", _i, "0", 50, "b"), 1);
    said_part("; b was not written");
    ck_assert(same_files("b", "c"));
}
END_TEST

START_TEST(test_bench)
{
    static const char *const keys[] = {"us_per_chunk", "tokens_per_s",      "gflops",     "ratio_to_generic", "share_of_peak",
                                       "roofline_us",  "share_of_roofline", "compile_ms", "code_bytes",       "cores"};
    OK("bench net.lua --seconds 0.02 --json");
    cJSON *json = printed_json();
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "rows");
    static const char *const words[] = {"generic", "tcc", "cc"};
    ck_assert_int_eq(cJSON_GetArraySize(rows), 3);
    for (int i = 0; i < 3; i++) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "backend")), words[i]);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const cJSON *value = cJSON_GetObjectItemCaseSensitive(row, keys[k]);
            ck_assert_msg(cJSON_IsNumber(value) && value->valuedouble >= 0, "%s of %s", keys[k], words[i]);
        }
    }
    cJSON_Delete(json);
    /* a chunk's tokens are those of its steps, whatever K */
    static const struct {
        const char *mode;
        double tokens;
    } modes[] = {{"chunk", 4 * 3}, {"block --set stride=2", 2 * 3}, {"uniform", 10 * 3}};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        OK("bench net.lua --seconds 0.02 --json --set truncation=%s", modes[m].mode);
        json = printed_json();
        rows = cJSON_GetObjectItemCaseSensitive(json, "rows");
        const cJSON *row = cJSON_GetArrayItem(rows, cJSON_GetArraySize(rows) - 1);
        const double us = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "us_per_chunk"));
        const double rate = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "tokens_per_s"));
        ck_assert_double_eq_tol(us * 1e-6 * rate, modes[m].tokens, 1e-6);
        cJSON_Delete(json);
    }
}
END_TEST

/* The rows that were asked for, in the suite's order, each with its name. */
START_TEST(test_bench_suite)
{
    OK("bench --suite --rows small,tiny --seconds 0.01 --json");
    cJSON *json = printed_json();
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "bandwidths")), 4);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "rows");
    ck_assert_int_eq(cJSON_GetArraySize(rows), 6);
    for (int i = 0; i < 6; i++) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        const double us = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "us_per_chunk"));
        const double roofline = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "roofline_us"));
        const double reached = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "share_of_roofline"));
        ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "name")), i < 3 ? "tiny" : "small");
        ck_assert_int_eq((int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(row, "hidden")), i < 3 ? 16 : 32);
        ck_assert(us > 0 && roofline > 0);
        ck_assert_double_eq_tol(roofline / us, reached, 1e-9);
    }
    cJSON_Delete(json);
    OK("bench --rows tiny --seconds 0.01 --set simd=4 --set dtype=f64");
    printed_part("f64; limits of one core");
    printed_part("\ntiny         16    16   16   1 ");
}
END_TEST

/* A cell without generic loops has no line of theirs, and no ratio to them. */
START_TEST(test_bench_gates)
{
    OK("bench --rows lstm128,gru128 --seconds 0.01 --json");
    cJSON *json = printed_json();
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "rows");
    ck_assert_int_eq(cJSON_GetArraySize(rows), 4);
    for (int i = 0; i < 4; i++) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "name")), i < 2 ? "gru128" : "lstm128");
        ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "cell")), i < 2 ? "gru" : "lstm");
        ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "backend")), i % 2 == 0 ? "tcc" : "cc");
        ck_assert(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(row, "ratio_to_generic")));
    }
    cJSON_Delete(json);
    ck_assert_int_eq(bptt("train net.lua --data text --steps 1 --backend generic --set cell=gru --out a"), 1);
    said("bptt: net: the generic backend has loops for one layer of cell rnn alone, without resets, learned h0 or dropout\n");
}
END_TEST

/* All rows without SPEC, and --set holds for each; without a compiler the others still are. */
START_TEST(test_bench_default)
{
    ck_assert_int_eq(setenv("BPTT_CC", "/nonexistent", 1), 0);
    OK("bench --seconds 0.001 --set hidden=8 --set vocab=9 --set T=2");
    char *out = read_bytes("out", NULL);
    int rows = 0;
    for (const char *c = strstr(out, "    8     9    2 "); c != NULL; c = strstr(c + 1, "    8     9    2 ")) { rows++; }
    ck_assert_int_eq(rows, 18);
    free(out);
    printed_part("\ngeneric not run: suite_gru128: ");
    printed_part("\ncc not run: ");
    ck_assert_int_eq(unsetenv("BPTT_CC"), 0);
}
END_TEST

/* Every comparison of the user's own spec is there and matches; without a compiler the others still are. */
START_TEST(test_check)
{
    OK("check net.lua --json");
    cJSON *json = printed_json();
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "rows"), *row = NULL;
    ck_assert_int_eq(cJSON_GetArraySize(rows), 30);
    cJSON_ArrayForEach(row, rows)
    {
        const cJSON *off = cJSON_GetObjectItemCaseSensitive(row, "error");
        const cJSON *allowed = cJSON_GetObjectItemCaseSensitive(row, "tolerance");
        ck_assert(cJSON_IsNumber(off) && off->valuedouble <= allowed->valuedouble);
    }
    cJSON_Delete(json);
    OK("check net.lua --set activation=relu --set K=2 --set reduction=sum --set carry=false");
    printed_part("30 comparisons, 0 failed");
    ck_assert_int_eq(setenv("BPTT_CC", "/nonexistent", 1), 0);
    OK("check net.lua");
    printed_part("24 comparisons, 0 failed");
    OK("bench net.lua --seconds 0.02");
    printed_part("cc       not run: ");
    ck_assert_int_eq(unsetenv("BPTT_CC"), 0);
}
END_TEST

/* A save that fails in the middle does not end training: the disk may have room again before the end. */
START_TEST(test_failed_save)
{
    char command[8192]; /* through a pipe: the limit holds for standard error too */
    (void)snprintf(command, sizeof command,
                   "{ (ulimit -f 1; exec '%s' train net.lua --data text --steps 60 --checkpoint-every 0.000001 --backend generic "
                   "--out big) 2>&1; echo \"status $?\"; } | cat > err",
                   binary);
    ck_assert_int_eq(system(command), 0); // NOLINT(cert-env33-c): the shell has the limit
    char *err = read_bytes("err", NULL);
    const char *first = strstr(err, "bptt: not saved now: big: ");
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_nonnull(strstr(first + 1, "bptt: not saved now: big: "));
    ck_assert_ptr_nonnull(strstr(err, "\nbptt: big: "));
    ck_assert_ptr_nonnull(strstr(err, "\nstatus 1\n"));
    ck_assert(!exists("big"));
    free(err);
}
END_TEST

/* No command line destroys what it reads, or a file that is not the program's own. */
START_TEST(test_foreign_files)
{
    write_text("mine", "kept");
    write_text("other.csv", "a,b\n1,2\n");
    ck_assert_int_eq(bptt("train net.lua --data text --out text"), 2);
    said_part("--out text: the same file is read");
    ck_assert_int_eq(bptt("train net.lua --data text --out ./net.lua"), 2);
    said_part("--out ./net.lua: the same file is read");
    ck_assert_int_eq(bptt("train net.lua --data text --log text"), 2);
    said_part("--log text: the same file is read");
    ck_assert_int_eq(bptt("train net.lua --data text --log x --out x"), 2);
    said_part("--log x: the checkpoint is written there");
    ck_assert_int_eq(bptt("train net.lua --data text --out mine"), 1);
    said_part("mine: is there and is no checkpoint: not overwritten");
    ck_assert_int_eq(bptt("train net.lua --data text --out new --log other.csv"), 1);
    said_part("other.csv: is there and is no log: not overwritten");
    char *kept = read_bytes("mine", NULL);
    ck_assert_str_eq(kept, "kept");
    free(kept);
    OK("train net.lua --data text --steps 1 --backend generic --out ck");
    ck_assert_int_eq(bptt("gen ck -o x"), 1);
    said_part("ck: is a checkpoint; expected a spec");
    OK("export ck --to safetensors -o weights");
    ck_assert_int_eq(bptt("train net.lua --data text --steps 1 --out weights"), 1);
    said_part("weights: is there and is no checkpoint: not overwritten");
    ck_assert_int_eq(mkfifo("pipe", 0600), 0);
    ck_assert_int_eq(system("timeout 5 sh -c 'cat weights >pipe' &"), 0);
    ck_assert_int_eq(bptt("import pipe --spec net.lua -o never"), 1);
    said_part("pipe: a pipe; expected a file, which can be read more than once");
    /* a path may be no UTF-8, but JSON is */
    OK("train net.lua --data text --steps 1 --backend generic --quiet --json --out \"$(printf 'x\\377\\303\\266')\"");
    printed_part("\"checkpoint\": \"x\\ufffd\xc3\xb6\"");
}
END_TEST

/* Without --out the checkpoint has a name all the same. */
START_TEST(test_foreign_files_by_default)
{
    OK("train net.lua --data text --steps 1 --backend generic --quiet --set name=mine");
    ck_assert_int_eq(bptt("train net.lua --data text --steps 1 --set name=mine --log mine.safetensors"), 2);
    said_part("--log mine.safetensors: the checkpoint is written there");
    ck_assert_int_eq(bptt("train net.lua --data mine.safetensors --tokens u8 --set vocab=256 --steps 1 --set name=mine"), 2);
    said_part("--out mine.safetensors: the same file is read");
    OK("train net.lua --data text --steps 2 --backend generic --quiet --set name=mine"); /* a checkpoint of its own */
}
END_TEST

/* A run that was killed leaves half a line in its log: what follows begins a line of its own. */
START_TEST(test_log_after_a_kill)
{
    OK("train net.lua --data text --steps 5 --quiet --backend generic --out a --log log.csv");
    char *rows = read_bytes("log.csv", NULL);
    const size_t last = (size_t)(strstr(rows, "\n5,0,") - rows) + 1;
    rows[last + 7] = '\0';
    write_text("log.csv", rows);
    OK("train net.lua --data text --steps 7 --quiet --backend generic --resume a --log log.csv");
    char *now = read_bytes("log.csv", NULL);
    rows[last] = '\0';
    ck_assert_int_eq(strncmp(now, rows, last), 0);
    ck_assert_int_eq(strncmp(now + last, "6,0,60,", 7), 0);
    ck_assert_uint_eq(count_lines(now), 7);
    free(rows);
    free(now);
}
END_TEST

/* The last line of a run that ends without a number: of the update before it, whose gradient is gone. */
START_TEST(test_log_after_divergence)
{
    static const char *const clips[] = {"{value=1e30}", "none"};
    char arguments[512];
    for (int i = 0; i < 2; i++) {
        (void)snprintf(arguments, sizeof arguments, diverge, "1e30", backends[_i], "0", 50, "a");
        ck_assert_int_eq(bptt("train %s --log log.csv --log-every 1000 --set clip=%s", arguments, clips[i]), 1);
        char *rows = read_bytes("log.csv", NULL);
        double norm = 0, clipped = 0;
        ck_assert_uint_eq(count_lines(rows), 2);
        const int read = sscanf(strchr(rows, '\n') + 1, "%*u,%*u,%*u,%*f,%*f,%*f,%lf,%lf", &norm, &clipped);
        ck_assert_int_eq(read, 1 + i);
        ck_assert(i == 0 || norm == clipped);
        free(rows);
        ck_assert_int_eq(unlink("log.csv"), 0);
    }
}
END_TEST

/* Saved after every step: what remains is the last model that was still good, not the one that the failed step started from. */
START_TEST(test_last_good)
{
    ck_assert_int_eq(train_diverging("1e7", _i, "1e-9", 50, "a"), 1);
    said_part("; a is the last good checkpoint");
    OK("inspect a --json");
    int good = (int)printed_number("step");
    ck_assert_int_ge(good, 1);
    ck_assert_int_eq(train_diverging("1e7", _i, "0", good, "b"), 0);
    ck_assert(same_files("a", "b"));
    ck_assert_int_eq(train_diverging("1e7", _i, "0", good + 1, "c"), 1);
    if (exists("c")) { ck_assert(same_files("a", "c")); } /* its loss was good, its gradient was not */
}
END_TEST

/* Starts training without a limit that matters; returns when its log shows progress. */
static pid_t start_training(void)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0666), out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (dup2(err, STDERR_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0) {
            (void)execl(binary, "bptt", "train", "net.lua", "--data", "text", "--seconds", "50", "--quiet", "--backend",
                        "generic", "--out", "a b", "--log", "log.csv", "--checkpoint-every", "0", (char *)NULL);
        }
        _exit(99);
    }
    struct stat info = {0};
    for (int i = 0; i < 1000 && (stat("log.csv", &info) != 0 || info.st_size < 200); i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    ck_assert_int_ge(info.st_size, 200);
    return child;
}

/* Trains five steps, one of its streams being a pipe that nobody reads; how it ended. */
static int train_without_reader(int stream, void (*on_pipe)(int))
{
    int ends[2], status = 0;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(close(ends[0]), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        const int other = stream == STDERR_FILENO ? STDOUT_FILENO : STDERR_FILENO;
        const int file = open("other", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        (void)signal(SIGPIPE, on_pipe);
        if (dup2(ends[1], stream) >= 0 && dup2(file, other) >= 0) {
            (void)execl(binary, "bptt", "train", "net.lua", "--data", "text", "--steps", "5", "--backend", "generic", "--out",
                        "a", stream == STDOUT_FILENO ? "--quiet" : NULL, (char *)NULL);
        }
        _exit(99);
    }
    ck_assert_int_eq(close(ends[1]), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

/* Nobody reads the progress: the training ends as it would have, and saves. */
START_TEST(test_progress_without_a_reader)
{
    const int status = train_without_reader(STDERR_FILENO, SIG_DFL);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK("inspect a --json");
    ck_assert_double_eq(printed_number("step"), 5);
}
END_TEST

/* Nobody reads the report: behind the training SIGPIPE is what the caller had made it. */
START_TEST(test_report_without_a_reader)
{
    int status = train_without_reader(STDOUT_FILENO, SIG_DFL);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    status = train_without_reader(STDOUT_FILENO, SIG_IGN);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    char *err = read_bytes("other", NULL);
    ck_assert_str_eq(err, "bptt: cannot write to standard output: Broken pipe\n");
    free(err);
}
END_TEST

/* What is over at once starts no compiler for a later swap. */
START_TEST(test_auto_is_for_training)
{
    OK("train net.lua --data text --steps 1 --backend generic --quiet --out a");
    write_text("compiler", "#!/bin/sh\n>started\nexit 1\n");
    ck_assert_int_eq(chmod("compiler", 0700), 0);
    ck_assert_int_eq(setenv("BPTT_CC", "./compiler", 1), 0);
    OK("sample a --backend auto -n 5");
    OK("eval a --data text --backend auto");
    OK("grad net.lua --data text --weights a --backend auto -o g");
    ck_assert(!exists("started"));
    ck_assert_int_eq(bptt("train net.lua --data text --steps 1 --backend cc --out b"),
                     1); /* it is the one that would be started */
    ck_assert(exists("started"));
    ck_assert_int_eq(unsetenv("BPTT_CC"), 0);
}
END_TEST

/* What a shell has a job ignore stays ignored. */
START_TEST(test_ignored_signal)
{
    (void)signal(SIGINT, SIG_IGN);
    pid_t child = start_training();
    ck_assert_int_eq(kill(child, SIGINT), 0);
    (void)nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, WNOHANG), 0);
    ck_assert_int_eq(kill(child, SIGTERM), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 130);
    (void)signal(SIGINT, SIG_DFL);
}
END_TEST

START_TEST(test_signal)
{
    static const int signals[] = {SIGINT, SIGTERM};
    pid_t child = start_training();
    ck_assert_int_eq(kill(child, signals[_i]), 0);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 130);
    printed_part("checkpoint  a b\n");
    unsigned long long steps = 0;
    char *err = read_bytes("err", NULL);
    ck_assert_msg(sscanf(err, "bptt: stopped after step %llu, saved in a b; ", &steps) == 1, "%s", err);
    const char *on = strstr(err, "; go on with: ");
    ck_assert_msg(on != NULL, "%s", err);
    ck_assert_ptr_nonnull(
        strstr(on, "bptt train --resume 'a b' net.lua --data text --seconds 50 --quiet --backend generic --out 'a b' "
                   "--log log.csv --checkpoint-every 0\n"));
    free(err);
    /* The log was flushed to its last line, and the checkpoint is that of an undisturbed run. */
    char *log = read_bytes("log.csv", NULL);
    ck_assert_uint_eq(count_lines(log), steps + 1);
    free(log);
    OK("train net.lua --data text --quiet --backend generic --steps %llu --out whole", steps);
    ck_assert(same_files("whole", "a b"));
}
END_TEST

/* Trains with a terminal of `columns` as standard error; returns what it was sent. */
static void train_on_terminal(unsigned short columns, char *seen, size_t size)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    struct winsize window = {.ws_row = 24, .ws_col = columns};
    int side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    ck_assert(side >= 0 && ioctl(side, TIOCSWINSZ, &window) == 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (dup2(side, STDERR_FILENO) >= 0 && freopen("out", "w", stdout) != NULL) {
            (void)close(terminal);
            (void)execl(binary, "bptt", "train", "net.lua", "--data", "text", "--seconds", "0.5", "--backend", "generic", "--out",
                        "a", (char *)NULL);
        }
        _exit(99);
    }
    (void)close(side);
    size_t used = 0;
    for (ssize_t got = 1; got > 0 && used<size - 1; used += got> 0 ? (size_t)got : 0) {
        got = read(terminal, seen + used, size - 1 - used);
    }
    seen[used] = '\0';
    (void)close(terminal);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* One line, redrawn a few times, never wider than the window. */
START_TEST(test_terminal)
{
    static const unsigned short widths[] = {80, 30};
    char seen[4096];
    train_on_terminal(widths[_i], seen, sizeof seen);
    size_t lines = 0;
    for (char *line = strtok(seen, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) {
        ck_assert_uint_lt(strlen(line), widths[_i]);
        ck_assert_int_eq(strncmp(line, "step ", 5), 0);
        lines++;
    }
    ck_assert_uint_ge(lines, 3);
    ck_assert_uint_le(lines, 7);
    if (widths[_i] == 80) { ck_assert_ptr_nonnull(strstr(seen, " left")); }
}
END_TEST

/* ---- the other commands ---- */

START_TEST(test_eval)
{
    OK("train net.lua --data text --steps 40 --quiet --backend generic --out a");
    double losses[BACKENDS];
    for (int i = 0; i < BACKENDS; i++) {
        OK("eval a --data text --json --backend %s", backends[i]);
        cJSON *json = printed_json();
        losses[i] = number(json, "loss");
        ck_assert_double_eq(number(json, "tokens"), TEXT_LENGTH - 1);
        ck_assert_double_eq_tol(number(json, "bits_per_character"), losses[i] / log(2.0), 1e-12);
        ck_assert_double_eq_tol(number(json, "perplexity"), exp(losses[i]), 1e-9);
        cJSON_Delete(json);
    }
    ck_assert_double_eq_tol(losses[0], losses[1], 1e-5);
    OK("eval a --data text");
    printed_part("bits per character  ");
    write_text("one", "a");
    ck_assert_int_eq(bptt("eval a --data one"), 1);
    said_part("one: ");
    ck_assert_int_eq(bptt("eval net.lua --data text"), 1);
    said_part("net.lua");
}
END_TEST

/* Weights of zero predict every token with probability 1 / V, however the text is cut. */
START_TEST(test_eval_uniform)
{
    OK("train net.lua --data text --steps 1 --quiet --backend generic --out a --set 'init={normal=1e-30}' "
       "--set 'optimizer={\"sgd\",rate=1e-30}'");
    OK("eval a --data text --json");
    ck_assert_double_eq_tol(printed_number("loss"), log(29.0), 1e-6);
    ck_assert_double_eq_tol(printed_number("perplexity"), 29.0, 1e-4);
}
END_TEST

/* The loss of a text does not depend on where it is cut, as long as the state is carried over the cuts. */
START_TEST(test_eval_cuts)
{
    static const char *const cuts[] = {"--set T=10 --set K=4", "--set T=10 --set K=10",     "--set T=1 --set K=1",
                                       "--set T=7 --set K=3",  "--set T=2500 --set K=2100", "--set T=10 --set carry=false"};
    double first = 0;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        OK("train net.lua --data text --steps 1 --quiet --backend generic --out a --set init={normal=0.5} "
           "--set 'optimizer={\"sgd\",rate=1e-30}' %s",
           cuts[i]);
        OK("eval a --data text --json");
        double loss = printed_number("loss");
        if (i == 0) { first = loss; }
        bool carried = strstr(cuts[i], "carry") == NULL;
        ck_assert_msg((fabs(loss - first) < 2e-6) == carried, "%s: %.9g against %.9g", cuts[i], loss, first);
    }
}
END_TEST

/* Draws from equal probabilities: every symbol about as often, and with --top-k 3 three symbols. */
START_TEST(test_draw)
{
    OK("train net.lua --data text --steps 1 --quiet --backend generic --out a --set 'init={normal=1e-30}' "
       "--set 'optimizer={\"sgd\",rate=1e-30}'");
    static const char *const kinds[] = {"", "--temperature 0.3", "--top-k 3"};
    static const size_t symbols[] = {29, 29, 3};
    for (size_t kind = 0; kind < 3; kind++) {
        OK("sample a -n 29000 --seed 5 %s", kinds[kind]);
        char *out = read_bytes("out", NULL);
        size_t counts[256] = {0}, seen = 0;
        for (const char *c = out; *c != '\0'; c++) { counts[(unsigned char)*c]++; }
        for (size_t i = 0; i < 256; i++) {
            if (counts[i] == 0) { continue; }
            seen++;
            /* Five standard deviations; the seed is fixed. */
            double expected = 29000.0 / (double)symbols[kind];
            ck_assert_double_eq_tol((double)counts[i], expected, 5.0 * sqrt(expected));
        }
        ck_assert_uint_eq(seen, symbols[kind]);
        free(out);
    }
}
END_TEST

/* A carriage return is a byte like any other. */
START_TEST(test_crlf)
{
    char text[1200];
    for (size_t i = 0; i < sizeof text; i++) { text[i] = "a\r\n"[i % 3]; }
    write_bytes("crlf", text, sizeof text);
    OK("train net.lua --set vocab=256 --data crlf --epochs 30 --quiet --backend generic --out a --json");
    ck_assert_double_eq(printed_number("tokens"), 30.0 * (sizeof text - 1));
    OK("sample a --temperature 0 -n 9 --prime 'a\r\n'");
    size_t length = 0;
    char *out = read_bytes("out", &length);
    ck_assert_uint_eq(length, 12);
    ck_assert_mem_eq(out, "a\r\na\r\na\r\na\r\n", 12);
    free(out);
    ck_assert_int_eq(bptt("train net.lua --data crlf --quiet"), 1);
    said_part("0x0d");
    said_part("offset 1 ");
}
END_TEST

static void keep_output(const char *name)
{
    ck_assert_int_eq(rename("out", name), 0);
}

START_TEST(test_sample)
{
    OK("train net.lua --data text --steps 100 --quiet --backend generic --out a");
    size_t length = 0;
    OK("sample a");
    free(read_bytes("out", &length));
    ck_assert_uint_eq(length, 300);
    keep_output("first");
    OK("sample a --seed 1 -n 300 --temperature 1");
    ck_assert(same_files("first", "out"));
    OK("sample a --seed 2");
    ck_assert(!same_files("first", "out"));
    OK("sample a --temperature 0 --seed 1 --prime 'the '");
    keep_output("cold");
    OK("sample a --top-k 1 --seed 2 --prime 'the '");
    ck_assert(same_files("cold", "out"));
    char *out = read_bytes("out", &length);
    ck_assert_uint_eq(length, 304);
    ck_assert_int_eq(strncmp(out, "the ", 4), 0);
    free(out);
    OK("sample a --top-k 29 --seed 1");
    ck_assert(same_files("first", "out"));
    OK("sample a -n 0");
    free(read_bytes("out", &length));
    ck_assert_uint_eq(length, 0);
    ck_assert_int_eq(bptt("sample a --prime 'the Fox'"), 2);
    said_part("offset 4");
    OK("sample a --prime 'the Fox' --unknown skip -n 0");
    printed_part("the ox");
    ck_assert_int_eq(bptt("sample a >/dev/full"), 1);
}
END_TEST

/* A vocabulary beyond bytes: numbers in, numbers out. */
START_TEST(test_numbers)
{
    uint16_t tokens[600];
    for (size_t i = 0; i < 600; i++) { tokens[i] = (uint16_t)(i % 3 == 0 ? 999 : i % 3); }
    write_bytes("tokens", tokens, sizeof tokens); /* little-endian, as are the machines that we test on */
    OK("train net.lua --set vocab=1000 --tokens u16 --data tokens --epochs 40 --quiet --backend generic --out a");
    OK("eval a --tokens u16 --data tokens --json");
    ck_assert_double_eq(printed_number("tokens"), 599);
    OK("sample a --prime '999 1' --temperature 0 -n 4");
    char *out = read_bytes("out", NULL);
    ck_assert_str_eq(out, "999 1 2 999 1 2\n");
    free(out);
    ck_assert_int_eq(bptt("sample a --prime '999 1000'"), 2);
    said("bptt sample: --prime: byte 4 is not a token id from 0 to 999; see 'bptt help sample'\n");
    ck_assert_int_eq(bptt("sample a --prime '99x'"), 2);
    said("bptt sample: --prime: byte 0 is not a token id from 0 to 999; see 'bptt help sample'\n");
}
END_TEST

START_TEST(test_inspect)
{
    double parameters = 29 * 12 + 12 * 12 + 12 + 12 * 29 + 29;
    OK("inspect net.lua --json");
    cJSON *json = printed_json();
    ck_assert_double_eq(number(json, "parameters"), parameters);
    double sum = 0;
    const cJSON *part = NULL;
    cJSON_ArrayForEach(part, cJSON_GetObjectItem(json, "parts"))
    {
        sum += number(part, "bytes");
    }
    ck_assert_double_eq(number(json, "struct_bytes"), sum);
    ck_assert_double_gt(number(json, "flop_forward"), 0);
    ck_assert_double_gt(number(json, "flop_backward"), 0);
    ck_assert_double_gt(number(json, "flop_update"), 0);
    ck_assert_double_gt(number(json, "text_bytes"), 1000);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "tensors")), 5);
    ck_assert_ptr_null(cJSON_GetObjectItem(json, "step"));
    cJSON_Delete(json);
    OK("inspect net.lua --set hidden=13");
    printed_part("H 13");
    OK("train net.lua --data text --steps 230 --quiet --backend generic --out a.safetensors");
    ck_assert_int_eq(rename("a.safetensors", "renamed"), 0);
    OK("inspect renamed --json");
    json = printed_json();
    ck_assert_double_eq(number(json, "parameters"), parameters);
    ck_assert_double_eq(number(json, "step"), 230);
    ck_assert_double_eq(number(json, "epoch"), 1);
    ck_assert_int_ge(cJSON_GetArraySize(cJSON_GetObjectItem(json, "file_tensors")), 6);
    cJSON_Delete(json);
    OK("inspect renamed");
    printed_part("rnn.weight_ih_l0");
    printed_part("step 230, epoch 1");
    ck_assert_int_eq(bptt("inspect renamed --set hidden=3"), 2);
    ck_assert_int_eq(bptt("inspect nowhere"), 1);
    said_part("nowhere");
}
END_TEST

START_TEST(test_gen)
{
    static const char *const files[] = {"net.c", "net.h", "net_main.c", "Makefile"};
    OK("gen net.lua -o deep/er/x");
    OK("gen net.lua -o y");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char a[64], b[64];
        (void)snprintf(a, sizeof a, "deep/er/x/%s", files[i]);
        (void)snprintf(b, sizeof b, "y/%s", files[i]);
        ck_assert_msg(same_files(a, b), "%s", files[i]);
    }
    static const char *const stages[] = {"spec", "graph", "adjoint", "plan"};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        size_t length = 0;
        OK("gen net.lua --dump %s", stages[i]);
        free(read_bytes("out", &length));
        ck_assert_uint_gt(length, 50);
    }
    ck_assert_int_ne(bptt("gen net.lua --dump plans"), 0);
    said_part("plans");
    ck_assert_int_eq(bptt("gen net.lua -o text"), 1);
    said_part("'text' is not a folder");
    /* what its user may have changed stays, what is generated does not */
    write_text("y/Makefile", "mine\n");
    write_text("y/net_main.c", "mine\n");
    write_text("y/net.c", "old\n");
    OK("gen net.lua -o y");
    printed_part("y/Makefile (there already, kept)");
    ck_assert(same_files("y/Makefile", "y/net_main.c"));
    ck_assert(same_files("y/net.c", "deep/er/x/net.c"));
    ck_assert_int_ne(bptt("gen net.lua -o z --set hidden=0"), 0);
    ck_assert(!exists("z"));
}
END_TEST

/* The arguments after `-o DIR` of the command in a file's banner, on one line; free them. */
static char *banner_arguments(const char *file)
{
    char *text = read_bytes(file, NULL), *from = strstr(text, " -o DIR ");
    ck_assert_ptr_nonnull(from);
    const char *end = strstr(from, "\n *\n");
    ck_assert_ptr_nonnull(end);
    char *arguments = calloc((size_t)(end - from) + 1, 1);
    ck_assert_ptr_nonnull(arguments);
    from += strlen(" -o DIR ");
    for (size_t n = 0; from < end; n++) {
        const bool broken = strncmp(from, "\n *   ", 6) == 0;
        arguments[n] = broken ? ' ' : *from;
        from += broken ? 6 : 1;
    }
    free(text);
    return arguments;
}

/* Models of all kinds. */
static const char *const models[] = {
    "net.lua",
    "net.lua --set name=other --set layers=2 --set hidden={9,5} --set cell=gru --set K=10",
    "net.lua --set hidden={9,5,7} --set cell=lstm --set forget_bias=-2 --set dropout={between=0.25} --seed 9",
    "net.lua --set activation=relu --set layers=3 --set embedding=4 --set dropout=0.1 --set unroll=none --set simd=4",
    "net.lua --set vocab=7 --set dtype=f64 --set unroll=full --set T=2 --set K=1 --set simd=1",
    "net.lua --set loss_at=last --set carry=false --set h0=learned --set smoothing=0.125",
    "net.lua --set T=200 --set K=20 --set h0=given --set reduction=sum --set loss_at="
    "{1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,31,32,33,34,35,36,37,38,39,101,102,103,104,105,106,107,108,109,110,111,113}",
    "net.lua --set resets=true --set separator='\".\"' --set threads=3",
    "quote.lua",
    "net.lua --set truncation=block --set stride=2 --set 'optimizer={\"momentum\", nesterov=true, weight_decay=0.1}'",
    "net.lua --set truncation=uniform --set 'optimizer={\"sgd\", rate=0.3}' --set clip={value=0.1}",
    "net.lua --set 'schedule={\"cosine\", steps=100, floor=0.1, warmup=7}' --set update=sequence --set clip=none",
    "net.lua --set 'schedule={\"plateau\", factor=0.3}' --set optimizer=adamw --set accumulate=3",
    "net.lua --set init={orthogonal=1.1} --set init_recurrent={identity=0.9} --set embedding=12 --set tie=true",
    "reals.lua",
    "reals.lua --set loss=squared_error --set output_activation=sigmoid --set inputs=5 --set seed=9223372036854775807",
    "full.lua",
    /* back to what a field is when no one gives it */
    "full.lua --set layers=1 --set truncation=chunk --set stride=0 --set accumulate=1 --set smoothing=0 --set schedule=constant",
    "full.lua --set hidden=11 --set layers=2 --set tie=false --set embedding=0 --set unroll=auto --set simd=auto --set "
    "loss_at=all",
    "own.lua --set hidden=5 --set layers=2",
    "net.lua --set cell=lstm --set unroll=full --set T=3 --set K=2",
    "net.lua --set cell=lstm --set layers=2 --set threads=2 --set hidden=40 --set optimizer=rmsprop --set clip={norm=1}",
    "reals.lua --set cell=lstm --set layers=3 --set embedding=4 --set vocab=7 --set dropout=0.2 --set batch=40 --set K=2",
};

static void write_models(void)
{
    write_text("quote.lua",
               "return { name = 'quote', hidden = 6, vocab = 'a\\'*/b', T = 5, resets = true, separator = '\\'' }\n");
    write_text("reals.lua",
               "return { name = 'reals', hidden = 6, inputs = 3, outputs = 2, T = 5, loss = 'binary_cross_entropy' }\n");
    write_text("full.lua", "return { name = 'full', cell = 'gru', hidden = 8, layers = 3, vocab = 9, embedding = 8, tie = true,\n"
                           "         T = 6, K = 4, truncation = 'block', stride = 2, accumulate = 2, smoothing = 0.1,\n"
                           "         loss_at = 'last', schedule = {'step', every = 10}, unroll = 'none', simd = 4, seed = 5 }\n");
    write_text("own.lua", "return { name = 'own', hidden = 6, vocab = 5, T = 4, cell = function()\n"
                          "    W, U, h = matrix(hidden, input), matrix(hidden, hidden), state(hidden)\n"
                          "    h = tanh(W * x + U * h)\n"
                          "end }\n");
}

/* Writes the files of a model to a folder; the model's name. */
static void gen_model(int model, const char *to, char name[32])
{
    OK("gen %s -o %s", models[model], to);
    char *out = read_bytes("out", NULL);
    ck_assert_int_eq(sscanf(out + strlen(to), "/%31[a-z].h", name), 1);
    free(out);
}

START_TEST(test_lines)
{
    static const char *const endings[] = {".h", ".c", "_main.c"};
    char name[32], path[64];
    write_models();
    gen_model(_i, "one", name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        (void)snprintf(path, sizeof path, "one/%s%s", name, endings[i]);
        char *text = read_bytes(path, NULL);
        for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
            const int length = (int)strcspn(line, "\n");
            ck_assert_msg(length <= 130 && (length == 0 || line[length - 1] != ' '), "%s: a line of %d: %.*s", models[_i], length,
                          length, line);
        }
        free(text);
    }
}
END_TEST

/* Made again as the banner says, a text is the same: no field that shapes it is missing there. */
START_TEST(test_banner)
{
    char name[32], spec[32], command[16384], a[64], b[64];
    write_models();
    gen_model(_i, "one", name);
    ck_assert_int_eq(sscanf(models[_i], "%31s", spec), 1);
    (void)snprintf(a, sizeof a, "one/%s.c", name);
    char *arguments = banner_arguments(a);
    (void)snprintf(command, sizeof command, "'%s' gen %s %s -o two > out", binary, spec, arguments);
    ck_assert_msg(system(command) == 0, "%s", command);
    for (const char *suffix = "ch"; *suffix != '\0'; suffix++) {
        (void)snprintf(a, sizeof a, "one/%s.%c", name, *suffix);
        (void)snprintf(b, sizeof b, "two/%s.%c", name, *suffix);
        ck_assert_msg(same_files(a, b), "%s: %s", models[_i], arguments);
    }
    free(arguments);
}
END_TEST

START_TEST(test_grad)
{
    double losses[BACKENDS];
    OK("train net.lua --data text --steps 10 --quiet --backend generic --out w");
    for (int i = 0; i < BACKENDS; i++) {
        OK("grad net.lua --weights w --data text -o g%d --backend %s", i, backends[i]);
        char *out = read_bytes("out", NULL);
        ck_assert_msg(sscanf(out, "loss %lf\n", &losses[i]) == 1, "%s", out);
        free(out);
    }
    ck_assert_double_eq_tol(losses[0], losses[1], 1e-5);
    size_t length = 0;
    char *bytes = read_bytes("g0", &length);
    ck_assert_uint_gt(length, 8 + 4 * (29 * 12 + 12 * 12 + 2 * 12 + 12 * 29 + 29));
    ck_assert_ptr_nonnull(strstr(bytes + 8, "rnn.weight_hh_l0"));
    free(bytes);
    ck_assert_int_eq(bptt("grad net.lua --weights text --data text -o g"), 1);
    ck_assert(!exists("g"));
    ck_assert_int_ne(bptt("grad net.lua --weights w --data text -o g --set hidden=9"), 0);
    ck_assert(!exists("g"));
}
END_TEST

/* ---- all ---- */

/* ---- the gradient ---- */

START_TEST(test_diagnose)
{
    OK("diagnose net.lua --data text");
    printed_part("from seed 3: untrained");
    printed_part("its first 8 sequences of T steps");
    printed_part("\nverdict     ");
    OK("diagnose net.lua --data text --json --seed 5 --sequences 3 --set carry=false");
    cJSON *json = printed_json();
    ck_assert(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "weights")));
    ck_assert_double_eq(number(json, "seed"), 5);
    ck_assert_double_eq(number(json, "steps"), 10);
    ck_assert_double_eq(number(json, "horizon"), 4);
    ck_assert_double_eq(number(json, "sequences"), 3);
    ck_assert_double_eq(number(json, "labels"), 30);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "state_norms")), 10);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "lags")), 10);
    const cJSON *heat = cJSON_GetObjectItemCaseSensitive(json, "heat");
    ck_assert_int_eq(cJSON_GetArraySize(heat), 10);
    for (int s = 0; s < 10; s++) { ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetArrayItem(heat, s)), s + 1); }
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "tensors")), 5);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "truncations")), 5); /* 1 2 4 8 10 */
    cJSON_Delete(json);
    /* the truncation report is of the spec's mode, whatever the steps of its chunks */
    const char *const modes[] = {"chunk", "block", "uniform"};
    const char *const headings[] = {"(chunks of K steps)",
                                    "(blocks of 3 steps, K steps back from the end of each; below K = 3, chunks of K steps)",
                                    "(uniform, K steps back from each loss)"};
    double norms[3], full[3];
    for (int m = 0; m < 3; m++) {
        char command[128];
        (void)snprintf(command, sizeof command, "diagnose net.lua --data text --sequences 3 --set truncation=%s%s", modes[m],
                       m == 1 ? " --set stride=3" : "");
        OK(command);
        printed_part(headings[m]);
        (void)snprintf(command + strlen(command), sizeof command - strlen(command), " --json");
        OK(command);
        json = printed_json();
        ck_assert_str_eq(cJSON_GetObjectItemCaseSensitive(json, "truncation")->valuestring, modes[m]);
        ck_assert_int_eq(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "stride")), m != 1);
        norms[m] = number(json, "norm_at_horizon");
        full[m] = number(json, "norm");
        cJSON_Delete(json);
    }
    ck_assert(full[0] == full[1] && full[1] == full[2]);
    ck_assert(norms[0] != norms[1] && norms[1] != norms[2] && norms[0] != norms[2]);
    /* nothing is dropped */
    OK("diagnose net.lua --data text --sequences 3 --json --set dropout=0.5");
    ck_assert(printed_number("norm") == full[0]);
    /* a short file has fewer sequences */
    write_text("short", "the quick brown fox jumps");
    OK("diagnose net.lua --data short --json");
    ck_assert_double_eq(printed_number("sequences"), 2);
}
END_TEST

/* The figures are those of the weights that `bptt grad` uses, and a checkpoint is a spec with weights. */
START_TEST(test_diagnose_weights)
{
    OK("train net.lua --data text --steps 30 --quiet --out a.safetensors");
    OK("diagnose net.lua --weights a.safetensors --data text --json --set K=10 --sequences 1 --set batch=1");
    const double loss = printed_number("loss");
    OK("diagnose net.lua --weights a.safetensors --data text --json");
    char *first = read_bytes("out", NULL);
    OK("diagnose a.safetensors --data text --json");
    char *second = read_bytes("out", NULL);
    ck_assert_str_eq(first, second);
    free(first);
    free(second);
    OK("grad net.lua --weights a.safetensors --data text --set K=10 --set batch=1 --out g");
    char *out = read_bytes("out", NULL);
    double expected = 0;
    ck_assert_int_eq(sscanf(out, "loss %lf", &expected), 1);
    ck_assert_double_eq_tol(loss, expected, 1e-5);
    free(out);
}
END_TEST

START_TEST(test_diagnose_refused)
{
    OK("train net.lua --data text --steps 1 --quiet --out a.safetensors");
    ck_assert_int_eq(bptt("diagnose net.lua --data nowhere"), 1);
    said_part("nowhere");
    ck_assert_int_eq(bptt("diagnose net.lua --data text --set T=3000 --set K=10"), 1);
    said("bptt: text: has 2000 tokens; a sequence of T = 3000 steps needs 3001 (or --set T=...)\n");
    ck_assert_int_eq(bptt("diagnose net.lua --data text --set hidden=13 --weights a.safetensors"), 1);
    said_part("tensor 'rnn.weight_ih_l0' has shape [12][29], expected [13][29]");
    ck_assert_int_eq(bptt("diagnose net.lua --data text --weights text"), 1);
    said_part("text: ");
    ck_assert_int_eq(bptt("diagnose a.safetensors --data text --set K=2"), 2);
    said_part("--set and --seed change a spec, and a.safetensors is a checkpoint");
    write_text("broken.lua", "return { hidden = }");
    ck_assert_int_eq(bptt("diagnose broken.lua --data text"), 1);
    said_part("broken.lua:1:");
}
END_TEST

/* A stand-in for gnuplot: copies its script away and makes the four pictures, or does what `body` says. */
static void put_gnuplot(const char *body)
{
    ck_assert(mkdir("bin", 0700) == 0 || errno == EEXIST);
    write_text("bin/gnuplot", body);
    ck_assert_int_eq(chmod("bin/gnuplot", 0700), 0);
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/bin:/usr/bin:/bin", folder);
    ck_assert_int_eq(setenv("PATH", path, 1), 0);
}

START_TEST(test_diagnose_plot)
{
    put_gnuplot("#!/bin/sh\n[ \"$1\" = -d ] || exit 1\ncd \"$(dirname \"$2\")\" || exit 1\n"
                "for f in script.gp states.dat lags.dat heat.dat jacobian.dat cuts.dat; do [ -s $f ] || exit 1; done\n"
                "for f in heat.svg heat.png curves.svg curves.png; do echo $f > $f; done\n");
    OK("diagnose net.lua --data text --plot pic");
    ck_assert(exists("pic-heat.svg") && exists("pic-heat.png") && exists("pic-curves.svg") && exists("pic-curves.png"));
    put_gnuplot("#!/bin/sh\necho 'no terminal' >&2\nexit 3\n");
    ck_assert_int_eq(bptt("diagnose net.lua --data text --plot other"), 1);
    said_part("gnuplot failed: no terminal");
    ck_assert(!exists("other-heat.svg"));
    ck_assert_int_eq(bptt("diagnose net.lua --data text --plot nowhere/pic"), 1);
    said("bptt: --plot nowhere/pic: cannot write to the folder: No such file or directory\n");
    ck_assert_int_eq(unlink("bin/gnuplot"), 0);
    ck_assert_int_eq(setenv("PATH", "/nowhere", 1), 0);
    ck_assert_int_eq(bptt("diagnose net.lua --data text --plot pic"), 1);
    said("bptt: --plot needs gnuplot, which is not in PATH; Debian and Ubuntu: apt-get install gnuplot-nox\n");
}
END_TEST

START_TEST(test_nothing_to_learn_from)
{
    write_text("reals.lua", "return {name = 'reals', hidden = 4, inputs = 2, outputs = 1, T = 4}");
    write_text("none.csv", "0.5,0.2,nan\n0.5,0.2,nan\n0.5,0.2,nan\n0.5,0.2,nan\n0.5,0.2,nan\n");
    OK("train reals.lua --data none.csv --epochs 1");
    printed_part("training    nothing to learn from in the last 2 steps: no target where the spec has a loss\n");
    said_part("loss none  grad 0");
}
END_TEST

/* The slope of sqrt where h is 0 is infinite, and the gradient then not a number: that matches nothing. */
START_TEST(test_check_not_a_number)
{
    write_text("own.lua", "return { name = 'own', hidden = 3, vocab = 4, T = 2, cell = function()\n"
                          "    W, U, h = matrix(hidden, input), matrix(hidden, hidden), state(hidden)\n"
                          "    h = tanh(W * x + sqrt(abs(U * h)))\nend }\n");
    ck_assert_int_eq(bptt("check own.lua"), 1);
    printed_part("dU: tcc f64 against differences");
    printed_part("MISMATCH");
    said_part(" comparisons do not match\n");
}
END_TEST

/* The heat map has a row for each step with a loss, labelled; of one row gnuplot makes no image. */
START_TEST(test_diagnose_plot_of_some_losses)
{
    put_gnuplot(
        "#!/bin/sh\nhere=$PWD\ncd \"$(dirname \"$2\")\" || exit 1\n"
        "for f in heat.svg heat.png curves.svg curves.png; do { grep '^heat_labels' script.gp; wc -l < heat.dat; } > $f; done\n");
    static const struct {
        const char *steps, *labels;
    } cases[] = {{"last", "heat_labels = 'set ytics (\"12\" 1)'\n2\n"},
                 {"{3,11}", "heat_labels = 'set ytics (\"3\" 1, \"11\" 2)'\n2\n"},
                 {"all", "heat_labels = 'set ytics (\"2\" 2, \"4\" 4, \"6\" 6, \"8\" 8, \"10\" 10, \"12\" 12)'\n12\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK("diagnose net.lua --data text --set T=12 --set K=12 --set loss_at=%s --plot pic", cases[i].steps);
        size_t length = 0;
        char *text = read_bytes("pic-heat.svg", &length);
        ck_assert_str_eq(text, cases[i].labels);
        free(text);
    }
}
END_TEST

/* The real one, where it is: the script is one that it accepts, also of figures that are not there. */
START_TEST(test_diagnose_gnuplot)
{
    if (system("command -v gnuplot > out 2>&1") != 0) { return; }
    static const char *const cases[] = {"", "--set T=1 --set K=1", "--set activation=relu --set init={uniform=40} --set T=600",
                                        "--set init={uniform=0}", "--set loss_at=last"};
    OK("diagnose net.lua --data text --plot pic %s", cases[_i]);
    size_t length = 0;
    char *picture = read_bytes("pic-heat.png", &length);
    ck_assert_uint_gt(length, 1000);
    ck_assert_mem_eq(picture, "\x89PNG", 4);
    free(picture);
    picture = read_bytes("pic-curves.svg", &length);
    ck_assert_ptr_nonnull(strstr(picture, "</svg>"));
    free(picture);
}
END_TEST

START_TEST(test_gradient_warning)
{
    char ab[2001];
    for (size_t i = 0; i < 2000; i++) { ab[i] = "ab"[i % 2]; }
    ab[2000] = '\0';
    write_text("ab", ab);
    /* no weight tells anything, and half of the tokens are a: the gradient is 0 from the start, and so it stays */
    OK("train net.lua --data ab --steps 300 --set vocab=ab --set T=2 --set K=2 --set batch=1 --set init={uniform=0} --out 'a b' "
       "--unknown skip");
    char *err = read_bytes("err", NULL);
    char *warning = strstr(err, "bptt: step 100: the gradient vanishes: ");
    ck_assert_msg(warning != NULL && strstr(warning + 40, "the gradient") == NULL, "%s", err);
    ck_assert_ptr_nonnull(strstr(warning, "bptt diagnose 'a b' --data ab --unknown skip\n"));
    free(err);
    OK("diagnose 'a b' --data ab --unknown skip");
    /* the same of reals, half of them 1 and half -1; --quiet is about progress, not about what went wrong */
    write_text("flip.lua", "return { name = 'flip', hidden = 4, inputs = 1, outputs = 1, T = 4, init = {uniform = 0} }\n");
    char flips[5 * 1000 + 1] = "";
    for (size_t i = 0; i < 1000; i++) { memcpy(flips + 5 * i, "1\n-1\n", 5); }
    write_text("flips.csv", flips);
    OK("train flip.lua --data flips.csv --reals csv --steps 120 --quiet --out d");
    said_part("the gradient vanishes: ");
    said_part("bptt diagnose d --data flips.csv --reals csv\n");
    OK("train net.lua --data text --steps 300 --out c");
    err = read_bytes("err", NULL);
    ck_assert_ptr_null(strstr(err, "the gradient"));
    free(err);
}
END_TEST

START_TEST(test_log_clipped)
{
    static const char *const clips[] = {"{norm=0.01}", "{value=0.001}"};
    for (int i = 0; i < 2; i++) {
        OK("train net.lua --data text --steps 1 --quiet --backend generic --out a --log log.csv --set clip=%s", clips[i]);
        char *rows = read_bytes("log.csv", NULL);
        double norm = 0, clipped = 0;
        ck_assert_int_eq(sscanf(strchr(rows, '\n') + 1, "1,0,12,%*f,%*f,%*f,%lf,%lf", &norm, &clipped), 2);
        ck_assert_double_gt(norm, 0.1);
        /* by value: at most as if each of the 12 (29 + 12 + 1) + 29 (12 + 1) elements were at the limit */
        ck_assert(i == 0 ? fabs(clipped - 0.01) < 1e-9 : clipped > 0.001 && clipped < 0.001 * sqrt(881));
        free(rows);
        ck_assert_int_eq(unlink("log.csv"), 0);
    }
}
END_TEST

/* What the update took: nothing is cut, so both norms are one, of a mean over chunks too; and weight decay is no part of it. */
START_TEST(test_log_clipped_of_sums)
{
    double clipped[2] = {0};
    for (int i = 0; i < 2; i++) {
        OK("train net.lua --data text --steps 2 --quiet --backend %s --out a --log log.csv --set accumulate=3 "
           "--set clip={value=1000}",
           backends[i]);
        double norm = 0, same = 0;
        char *rows = read_bytes("log.csv", NULL);
        ck_assert_int_eq(sscanf(strstr(rows, "\n2,") + 1, "2,0,%*u,%*f,%*f,%*f,%lf,%lf", &norm, &same), 2);
        ck_assert_double_eq_tol(same, norm, 1e-5 * norm);
        free(rows);
        OK("train net.lua --data text --steps 2 --quiet --backend %s --out b --log c.csv --log-every 9 "
           "--set optimizer='{\"sgd\", rate=0.01, weight_decay=0.5}' --set clip={value=0.001}",
           backends[i]);
        rows = read_bytes("c.csv", NULL);
        ck_assert_int_eq(sscanf(strstr(rows, "\n2,") + 1, "2,0,24,%*f,%*f,%*f,%*f,%lf", &clipped[i]), 1);
        free(rows);
        ck_assert_int_eq(unlink("log.csv") | unlink("c.csv"), 0);
    }
    ck_assert_double_eq_tol(clipped[0], clipped[1], 1e-5 * clipped[1]);
}
END_TEST

/* A table of reals through every command that takes one: forecasts, and targets with gaps. */
START_TEST(test_reals)
{
    write_text("wave.lua", "return { name = 'wave', hidden = 8, inputs = 2, outputs = 2, T = 10, K = 4, batch = 3,\n"
                           "         optimizer = {'adam', rate = 0.01} }\n");
    char table[20000] = "a,b\n";
    for (int i = 0; i < 400; i++) {
        const size_t used = strlen(table);
        (void)snprintf(table + used, sizeof table - used, "%.6f,%.6f\n", sin(0.2 * i), cos(0.3 * i));
    }
    write_text("table.csv", table);
    OK("train wave.lua --data table.csv --quiet --epochs 20 --out whole --log log --valid-fraction 0.2 --json");
    ck_assert_double_lt(printed_number("loss"), 0.5);
    OK("train wave.lua --data table.csv --quiet --epochs 10 --out half --valid-fraction 0.2");
    OK("train --data table.csv --quiet --epochs 20 --resume half --valid-fraction 0.2");
    ck_assert(same_files("whole", "half"));
    OK("eval whole --data table.csv --json");
    ck_assert_double_eq(printed_number("tokens"), 2 * 399);
    ck_assert_double_lt(printed_number("loss"), 0.05);
    OK("eval whole --data table.csv");
    printed_part(" per number");
    OK("grad wave.lua --data table.csv --weights whole -o gradients --backend generic");
    OK("diagnose whole --data table.csv");
    printed_part(" squared error per target (160 targets)");
    OK("diagnose wave.lua --data table.csv --json --set cell=gru --set layers=2 --set loss_at=last");
    ck_assert_double_eq(printed_number("labels"), 16);
    ck_assert_int_eq(bptt("sample whole"), 1);
    said_part("this model is for reals");
    ck_assert_int_eq(bptt("train wave.lua --data text --quiet"), 1);
    said_part(" is not a number");
    ck_assert_int_eq(bptt("train net.lua --data table.csv --reals csv --quiet"), 2);
    said_part("this one reads tokens");
    ck_assert_int_eq(bptt("train wave.lua --data table.csv --tokens u16 --quiet"), 2);
    said_part("this one reads rows of numbers");
    ck_assert_int_eq(bptt("train wave.lua --data table.csv --unknown skip --quiet"), 2);
    said_part("this one reads rows of numbers");
    write_text("row.csv", "1,2\n");
    ck_assert_int_eq(bptt("train wave.lua --data table.csv --valid row.csv --quiet --out never"), 1); /* before it trains */
    said_part("row.csv: ");
    ck_assert(!exists("never"));
    write_text("gaps.csv", "1,2,nan\n2,3,1\n1,2,\n2,1,0.5\n");
    OK("train wave.lua --set outputs=1 --set batch=1 --set loss=binary_cross_entropy --data gaps.csv --quiet --steps 5 --out "
       "gaps");
    OK("eval gaps --data gaps.csv --json");
    ck_assert_double_eq(printed_number("tokens"), 2);
    write_text("none.csv", "1,2,nan\n2,3,\n1,2,\n2,1,nan\n");
    ck_assert_int_eq(bptt("diagnose wave.lua --set outputs=1 --set T=2 --set K=1 --data none.csv"), 1);
    said_part("none.csv: has no label or target in its first 2 sequences");
}
END_TEST

/* Tokens with reals behind their embedding, through every command that takes a table. */
START_TEST(test_tokens_and_reals)
{
    write_text("both.lua", "return { name = 'both', hidden = 8, vocab = 4, embedding = 3, inputs = 2, T = 10, K = 5, batch = 2,\n"
                           "         optimizer = {'adam', rate = 0.02} }\n");
    char table[8000] = "token,a,b,label\n";
    for (int i = 0; i < 200; i++) { /* the label needs both */
        const size_t used = strlen(table);
        const int token = i * i % 7 % 4, sign = i % 3 == 0;
        (void)snprintf(table + used, sizeof table - used, "%d,%d,%.3f,%d\n", token, sign, 0.01 * i, (token + sign) % 4);
    }
    write_text("both.csv", table);
    OK("train both.lua --data both.csv --quiet --epochs 60 --out both --json");
    OK("eval both --data both.csv --json");
    ck_assert_double_eq(printed_number("tokens"), 200);
    ck_assert_double_lt(printed_number("loss"), 0.2);
    OK("grad both.lua --data both.csv --weights both -o gradients");
    OK("check both.lua");
    OK("diagnose both --data both.csv");
    printed_part(" nats per label (80 labels)");
    write_text("bad.csv", "token,a,b,label\n1,0,0,1\n4,0,0,1\n");
    ck_assert_int_eq(bptt("train both.lua --data bad.csv --quiet"), 1);
    said_part("bad.csv: row 2, column 1: 4 is no token below vocab");
}
END_TEST

/* Every kind of cell, input, output and loss against independent gradients. */
START_TEST(test_check_data)
{
    static const char *const fields[] = {
        "--set inputs=3 --set outputs=2 --set vocab=0",
        "--set inputs=3 --set outputs=2 --set vocab=0 --set output_activation=tanh --set loss_at={2,3,7}",
        "--set inputs=1 --set outputs=5 --set vocab=0 --set loss=binary_cross_entropy --set threads=2",
        "--set inputs=4 --set vocab=6 --set reduction=sum --set loss_at=last",
        "--set vocab=6 --set outputs=2 --set output_activation=sigmoid --set embedding=3",
        "--set vocab=6 --set embedding=12 --set tie=true --set smoothing=0.1",
        /* these have no generic loops */
        "--set cell=lstm --set layers=2 --set threads=2",
        "--set cell=gru --set inputs=3 --set outputs=2 --set vocab=0 --set reduction=sum --set carry=false --set K=3",
        "--set cell=gru --set vocab=6 --set embedding=3 --set inputs=2 --set loss_at=last",
        "--set layers=3 --set hidden={5,6,7} --set activation=relu",
        "--set cell=lstm --set vocab=6 --set resets=true --set K=3",
        "--set cell=gru --set vocab=6 --set resets=true --set h0=learned --set layers=2 --set threads=2",
        "--set vocab=6 --set h0=learned --set carry=false --set K=3",
        "--set vocab=6 --set truncation=block --set stride=3 --set K=5 --set resets=true --set h0=learned --set batch=2 --set "
        "threads=2",
        "--set cell=gru --set layers=2 --set inputs=3 --set outputs=2 --set vocab=0 --set truncation=block --set stride=2 --set "
        "K=6 "
        "--set carry=false --set loss_at={2,3,7}",
        "--set cell=lstm --set vocab=6 --set truncation=uniform --set K=3 --set resets=true --set batch=2 --set threads=2",
        "--set vocab=6 --set truncation=uniform --set h0=learned --set carry=false --set reduction=sum",
        "--set layers=2 --set dropout=0.1 --set batch=5 --set threads=2",
        "--set dropout=0.1",
    };
    OK("check net.lua %s", fields[_i]);
    printed_part(" comparisons, 0 failed");
    if (_i >= 17) { printed_part("not compared: dropout, which is off here\n"); }
    if (_i >= 6 && _i < 18) { printed_part("against the graph, interpreted in double"); }
}
END_TEST

START_TEST(test_check_own_cell)
{
    write_text("own.lua", "return { name = 'own', hidden = 6, vocab = 5, T = 7, K = 4, batch = 3, cell = function()\n"
                          "    W, U, b, p = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), vector(hidden)\n"
                          "    h, s = state(hidden), state(hidden)\n"
                          "    a = W * x + U * h + b\n"
                          "    s = softmax(concat(slice(a, 3, hidden), slice(s, 1, 2)))\n"
                          "    h = tanh(max(a, p) / (1 + abs(s)) - sqrt(1 + a * a))\n"
                          "end }\n");
    OK("check own.lua --json");
    ck_assert_double_eq(printed_number("failed"), 0);
    OK("check own.lua");
    printed_part("dp: cc against the graph, interpreted in double");
    OK("check own.lua --set dropout=0.5 --json");
    cJSON *json = printed_json();
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "not_compared")), 1);
    cJSON_Delete(json);
}
END_TEST

/* Where state and biases start at 0, both sides of a kink would meet in the first step. */
START_TEST(test_check_at_kinks)
{
    static const char *const equations[] = {"max(U * h + b, V * h + c)", "relu(U * h + b) + V * h + c",
                                            "abs(U * h + b) * (V * h + c)"};
    char text[400];
    (void)snprintf(text, sizeof text,
                   "return { name = 'own', hidden = 8, vocab = 9, T = 6, batch = 2, cell = function()\n"
                   "    W, U, V = matrix(hidden, input), matrix(hidden, hidden), matrix(hidden, hidden)\n"
                   "    b, c, h = vector(hidden), vector(hidden), state(hidden)\n"
                   "    h = tanh(W * x + %s)\nend }\n",
                   equations[_i]);
    write_text("own.lua", text);
    OK("check own.lua");
}
END_TEST

static Suite *command_suite(void)
{
    Suite *suite = suite_create("command");
    TCase *usual = tcase_create("command");
    tcase_add_checked_fixture(usual, set_up, tear_down);
    tcase_set_timeout(usual, 120);
    tcase_add_test(usual, test_help);
    tcase_add_loop_test(usual, test_usage, 0, sizeof usage / sizeof *usage);
    tcase_add_test(usual, test_full_disk);
    tcase_add_test(usual, test_train_report);
    tcase_add_test(usual, test_train_json);
    tcase_add_test(usual, test_train_seconds);
    tcase_add_loop_test(usual, test_resume_exact, 0, OPTIMIZERS * BACKENDS);
    tcase_add_test(usual, test_resume_refused);
    tcase_add_test(usual, test_outputs_untouched);
    tcase_add_test(usual, test_steps_are_updates);
    tcase_add_loop_test(usual, test_resume_in_a_group, 0, BACKENDS);
    tcase_add_loop_test(usual, test_grad_of_one_chunk, 0, BACKENDS);
    tcase_add_loop_test(usual, test_divergence_in_a_group, 0, BACKENDS);
    tcase_add_test(usual, test_log);
    tcase_add_loop_test(usual, test_log_of_a_schedule, 0, BACKENDS);
    tcase_add_loop_test(usual, test_plateau_schedule, 0, BACKENDS);
    tcase_add_loop_test(usual, test_not_finite, 0, BACKENDS);
    tcase_add_loop_test(usual, test_last_good, 0, BACKENDS);
    tcase_add_test(usual, test_foreign_files);
    tcase_add_test(usual, test_failed_save);
    tcase_add_test(usual, test_bench);
    tcase_add_test(usual, test_bench_suite);
    tcase_add_test(usual, test_bench_gates);
    tcase_add_test(usual, test_bench_default);
    tcase_add_test(usual, test_check);
    tcase_add_loop_test(usual, test_signal, 0, 2);
    tcase_add_loop_test(usual, test_terminal, 0, 2);
    tcase_add_test(usual, test_eval);
    tcase_add_test(usual, test_eval_uniform);
    tcase_add_test(usual, test_eval_cuts);
    tcase_add_test(usual, test_draw);
    tcase_add_test(usual, test_crlf);
    tcase_add_test(usual, test_sample);
    tcase_add_test(usual, test_numbers);
    tcase_add_test(usual, test_inspect);
    tcase_add_test(usual, test_gen);
    tcase_add_loop_test(usual, test_lines, 0, sizeof models / sizeof *models);
    tcase_add_loop_test(usual, test_banner, 0, sizeof models / sizeof *models);
    tcase_add_test(usual, test_grad);
    tcase_add_test(usual, test_diagnose);
    tcase_add_test(usual, test_diagnose_weights);
    tcase_add_test(usual, test_diagnose_refused);
    tcase_add_test(usual, test_diagnose_plot);
    tcase_add_loop_test(usual, test_check_at_kinks, 0, 3);
    tcase_add_test(usual, test_check_not_a_number);
    tcase_add_test(usual, test_diagnose_plot_of_some_losses);
    tcase_add_test(usual, test_nothing_to_learn_from);
    tcase_add_loop_test(usual, test_diagnose_gnuplot, 0, 5);
    tcase_add_test(usual, test_gradient_warning);
    tcase_add_test(usual, test_log_clipped);
    tcase_add_test(usual, test_log_clipped_of_sums);
    tcase_add_test(usual, test_log_after_a_kill);
    tcase_add_loop_test(usual, test_log_after_divergence, 0, 2);
    tcase_add_test(usual, test_progress_without_a_reader);
    tcase_add_test(usual, test_report_without_a_reader);
    tcase_add_test(usual, test_ignored_signal);
    tcase_add_test(usual, test_auto_is_for_training);
    tcase_add_test(usual, test_foreign_files_by_default);
    tcase_add_test(usual, test_reals);
    tcase_add_test(usual, test_tokens_and_reals);
    tcase_add_loop_test(usual, test_check_data, 0, 19);
    tcase_add_test(usual, test_check_own_cell);
    suite_add_tcase(suite, usual);
    return suite;
}

int main(void)
{
    const char *path = getenv("BPTT");
    if (path == NULL || realpath(path, binary) == NULL || access(binary, X_OK) != 0) {
        (void)fprintf(stderr, "test_command: set BPTT to the built program (now %s)\n", path == NULL ? "unset" : path);
        return EXIT_FAILURE;
    }
    SRunner *runner = srunner_create(command_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
