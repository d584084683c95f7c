/* test_tasks.c: that training works: each task of specs/tasks/ is learned, and is not when the gradient's way in time is cut.
 *
 * Each spec is trained by the command twice, from the same weights, with the same data in the same order and as many updates:
 * once as it stands, once with a K that cuts the edge from h_t to h_{t-1} where the task needs it.  Limits lie well between.
 * Run from the root of the tree.  Depends on the built program (the environment variable BPTT), on make_data beside this one, and
 * on runtime/ to read numbers and to ask a trained network for its answers.
 */
#include "../runtime/evaluate.h"
#include "../runtime/file.h"
#include "scratch.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <sys/wait.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define TEXT         "/usr/share/common-licenses/GPL-3"

static bptt_error error;

/* ---- commands ---- */

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
    char command[PATH_MAX + 2048];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(command, sizeof command, format, list);
    va_end(list);
    ck_assert(length > 0 && (size_t)length < sizeof command);
    int status = system(command);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "failed: %s", command);
}

/* The folder of this program and of make_data. */
static const char *built(void)
{
    static char own[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    ck_assert(length > 0);
    own[length] = '\0';
    *strrchr(own, '/') = '\0';
    return own;
}

/* `count` of the task's strings, numbers or sequences to the file. */
static void make_data(const char *task, int count, int seed, const char *file)
{
    run("'%s/make_data' %s %d %d > '%s'", built(), task, count, seed, file);
}

START_TEST(data_made)
{
    static const char *const tasks[] = {"reber", "sine", "mackey_glass", "adding", "copy", "parity"};
    size_t lengths[3];
    unsigned char *bytes[3];
    for (int i = 0; i < 3; i++) {
        make_data(tasks[_i], 40, i == 2 ? 6 : 5, scratch("made"));
        bytes[i] = scratch_get(scratch("made"), &lengths[i]);
    }
    ck_assert(lengths[0] == lengths[1] && same_bytes(bytes[0], bytes[1], lengths[0]));
    ck_assert(lengths[0] != lengths[2] || !same_bytes(bytes[0], bytes[2], lengths[0]));
    for (int i = 0; i < 3; i++) { free(bytes[i]); }
}
END_TEST

START_TEST(data_refused)
{
    static const char *const words[] = {"", "reber", "raber 3", "sine 0", "sine 3x", "sine -3", "sine 3 4 5", "sine 3 x"};
    run("'%s/make_data' %s 2> '%s'; test $? = 2", built(), words[_i], scratch("out"));
    run("'%s/make_data' sine 3 > /dev/full 2> '%s'; test $? = 1", built(), scratch("out"));
}
END_TEST

/* Trains specs/tasks/TASK.lua to the checkpoint `out` by `--data ...` and more words. */
static void train(const char *task, const char *out, const char *words)
{
    run("\"$BPTT\" train specs/tasks/%s.lua %s --backend tcc --quiet --out '%s' > '%s'", task, words, out, scratch("report"));
}

/* A number that `bptt eval` prints of the checkpoint. */
static double evaluated(const char *checkpoint, const char *data, const char *key)
{
    const char *out = scratch("out");
    run("\"$BPTT\" eval '%s' --data '%s' --json > '%s'", checkpoint, data, out);
    char *text = (char *)scratch_get(out, &(size_t){0});
    cJSON *json = cJSON_Parse(text);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    ck_assert_msg(cJSON_IsNumber(item), "no %s in %s", key, text);
    const double value = item->valuedouble;
    cJSON_Delete(json);
    free(text);
    return value;
}

/* The words that cut a task at K: as many updates as before, each after a whole sequence. */
#define CUT(K) " --set update=sequence --set K=" K

/* ---- losses ---- */

static const struct {
    const char *task;
    int size, epochs;
    const char *cut;
    double learned, not_learned; /* the held-out loss is below, and of the cut network above */
    bool series;                 /* both in shares of the loss of persistence */
} losses[] = {
    {"adding", 2000, 20, CUT("1"), 0.01, 0.15, false},       /* the variance is 1/6 */
    {"copy", 2000, 20, CUT("19"), 0.02, 1.3, false},         /* ln 4 = 1.386; T = 20: one step less than it takes */
    {"parity", 4000, 16, CUT("1"), 0.02, 0.5, false},        /* ln 2 = 0.693 */
    {"sine", 2000, 30, CUT("1"), 0.004, 0.01, true},         /**/
    {"mackey_glass", 2000, 800, CUT("1"), 0.03, 0.06, true}, /**/
};

/* The mean squared error of "as before", where the spec has a loss: at the end of sequences, or everywhere in a series. */
static double persistence(const char *file)
{
    bptt_reals reals;
    ck_assert_msg(bptt_reals_load(file, BPTT_REALS_AUTO, 1, &reals, &error) == BPTT_OK, "%s", error.text);
    const size_t every = reals.length > 0 ? reals.length : 1;
    double sum = 0;
    size_t count = 0;
    for (size_t last = reals.length > 0 ? every - 1 : 1; last < reals.count; last += every, count++) {
        sum += pow(reals.values[last] - reals.values[last - 1], 2);
    }
    free(reals.values);
    return sum / (double)count;
}

START_TEST(loss)
{
    const char *task = losses[_i].task, *data = scratch("data"), *fresh = scratch("fresh");
    char words[1024];
    double found[2];
    make_data(task, losses[_i].size, 1, data);
    make_data(task, 500, 2, fresh);
    const double unit = losses[_i].series ? persistence(fresh) : 1;
    for (int cut = 0; cut < 2; cut++) {
        (void)snprintf(words, sizeof words, "--data '%s/data' --epochs %d%s", scratch_folder, losses[_i].epochs,
                       cut ? losses[_i].cut : "");
        train(task, scratch("net"), words);
        (void)snprintf(words, sizeof words, "%s/fresh", scratch_folder);
        found[cut] = evaluated(scratch("net"), words, "loss") / unit;
    }
    printf("%s: %.3g, cut %.3g%s\n", task, found[0], found[1], losses[_i].series ? " of persistence" : "");
    ck_assert_msg(found[0] < losses[_i].learned, "%s: %g", task, found[0]);
    ck_assert_msg(found[1] > losses[_i].not_learned, "%s, cut: %g", task, found[1]);
}
END_TEST

/* ---- the embedded Reber grammar ---- */

/* Share of the file's strings whose last letter but one, the second, the network finds the likeliest. */
static double reber_accuracy(const char *checkpoint, const char *file)
{
    bptt_companion net;
    bptt_data data;
    ck_assert_msg(bptt_companion_load(&net, checkpoint, BPTT_BACKEND_TCC, &error) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_data_load(file, &net.spec, &(bptt_data_options){.token_bytes = 1}, &data, &error), BPTT_OK);
    const bptt_model *model = net.program.model;
    const uint32_t newline = (uint32_t)net.spec.vocab - 1;
    int strings = 0, right = 0;
    for (size_t i = 0, start = 0; i + 2 < data.count; i++) {
        float outputs[8];
        ck_assert_uint_eq(model->real_size, sizeof outputs[0]);
        model->predict(model, net.memory, &(bptt_rows){.x = &data.tokens[i]}, outputs);
        if (data.tokens[i] == newline) { start = i + 1; }
        if (i + 3 >= data.count || data.tokens[i + 3] != newline || i < start + 1) { continue; }
        uint32_t likeliest = 0;
        for (uint32_t v = 1; v <= newline; v++) { likeliest = outputs[v] > outputs[likeliest] ? v : likeliest; }
        ck_assert_uint_eq(data.tokens[i + 1], data.tokens[start + 1]);
        strings++;
        right += likeliest == data.tokens[start + 1];
    }
    bptt_data_free(&data);
    bptt_companion_close(&net);
    return (double)right / strings;
}

START_TEST(reber)
{
    double found[2];
    char words[1024];
    make_data("reber", 2000, 1, scratch("data"));
    make_data("reber", 500, 2, scratch("fresh"));
    for (int cut = 0; cut < 2; cut++) {
        (void)snprintf(words, sizeof words, "--data '%s/data' --epochs 20%s", scratch_folder, cut ? CUT("1") : "");
        train("reber", scratch("net"), words);
        found[cut] = reber_accuracy(scratch("net"), scratch("fresh"));
    }
    printf("reber: %.3g, cut %.3g\n", found[0], found[1]);
    ck_assert_msg(found[0] > 0.99, "reber: %g", found[0]);
    ck_assert_msg(found[1] < 0.9, "reber, cut: %g", found[1]);
}
END_TEST

/* ---- English ---- */

enum { BYTES = 128, CONTEXTS = 1 + BYTES + BYTES * BYTES };

/* What followed the last 0, 1 or 2 characters. */
static struct {
    uint32_t count[BYTES], total, kinds;
} contexts[CONTEXTS];

static size_t context(const unsigned char *next, int order)
{
    return order == 0 ? 0 : order == 1 ? 1U + next[-1] : 1U + BYTES + (size_t)next[-2] * BYTES + next[-1];
}

static void markov_learn(const unsigned char *text, size_t length)
{
    memset(contexts, 0, sizeof contexts);
    for (size_t i = 2; i < length; i++) {
        ck_assert(text[i] < BYTES);
        for (int order = 0; order <= 2; order++) {
            const size_t c = context(text + i, order);
            contexts[c].kinds += contexts[c].count[text[i]]++ == 0;
            contexts[c].total++;
        }
    }
}

/* Bits per character of the order-2 model: as counted, which no other order-2 model undercuts on the text that it was learned
 * from; or smoothed for another text, by Witten and Bell's method C (1991). */
static double markov_bits(const unsigned char *text, size_t length, bool smoothed)
{
    double bits = 0;
    for (size_t i = 2; i < length; i++) {
        double p = 1.0 / BYTES;
        for (int order = smoothed ? 0 : 2; order <= 2; order++) {
            const size_t c = context(text + i, order);
            const double kinds = smoothed ? contexts[c].kinds : 0;
            if (contexts[c].total > 0) { p = (contexts[c].count[text[i]] + kinds * p) / (contexts[c].total + kinds); }
        }
        bits -= log2(p);
    }
    return bits / (double)(length - 2);
}

START_TEST(english)
{
    size_t length = 0;
    unsigned char *text = scratch_get(TEXT, &length);
    markov_learn(text, length);
    const double markov = markov_bits(text, length, false);
    double found[2];
    for (int cut = 0; cut < 2; cut++) {
        train("text", scratch("net"), cut ? "--data " TEXT " --epochs 70" CUT("1") : "--data " TEXT " --epochs 70");
        found[cut] = evaluated(scratch("net"), TEXT, "bits_per_character");
    }
    free(text);
    printf("text: %.3f bits per character, cut %.3f, order-2 Markov model %.3f\n", found[0], found[1], markov);
    ck_assert_msg(found[0] < markov - 0.05, "text: %g", found[0]);
    ck_assert_msg(found[1] > markov + 0.05, "text, cut: %g", found[1]);
}
END_TEST

/* On text that neither saw a larger network is better too. */
START_TEST(held_out_english)
{
    size_t length = 0;
    unsigned char *text = scratch_get(TEXT, &length);
    const size_t first = length - length / 10;
    char words[1024];
    scratch_put(scratch("first"), text, first);
    scratch_put(scratch("last"), text + first, length - first);
    (void)snprintf(words, sizeof words,
                   "--data '%s/first' --epochs 12 --set cell=gru --set hidden=128"
                   " --set 'optimizer={\"adamw\",rate=3e-3,weight_decay=0.3}'",
                   scratch_folder);
    train("text", scratch("net"), words);
    const double found = evaluated(scratch("net"), scratch("last"), "bits_per_character");
    markov_learn(text, first);
    const double markov = markov_bits(text + first, length - first, true);
    free(text);
    printf("text, held out: %.3f bits per character, order-2 Markov model %.3f\n", found, markov);
    ck_assert_msg(found < markov - 0.08, "text, held out: %g", found);
}
END_TEST

int main(void)
{
    if (getenv("BPTT") == NULL) {
        (void)fprintf(stderr, "test_tasks: set BPTT to the built program\n");
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("tasks");
    TCase *tasks = tcase_create("tasks");
    tcase_add_unchecked_fixture(tasks, scratch_open, scratch_close);
    tcase_set_timeout(tasks, 600); /* a minute and more under sanitizers */
    tcase_add_loop_test(tasks, data_made, 0, 6);
    tcase_add_loop_test(tasks, data_refused, 0, 8);
    tcase_add_loop_test(tasks, loss, 0, (int)COUNT(losses));
    tcase_add_test(tasks, reber);
    tcase_add_test(tasks, english);
    tcase_add_test(tasks, held_out_english);
    suite_add_tcase(suite, tasks);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
