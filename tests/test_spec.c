/* test_spec.c: the first stage: good specs, every message, overrides, canonical text, hostile specs.
 *
 * Run from the root of the tree (it loads specs/).  Texts are compared exactly.
 */
#include "../gen/lines.h"
#include "../gen/sandbox.h"
#include "../gen/spec.h"
#include "../gen/suggest.h"

#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A spec of four lines; what is added begins on line 6. */
#define BASE       "return {\n name = 'a',\n hidden = 4,\n vocab = 8,\n T = 6,\n"
#define WITH(more) BASE more "\n}\n"

static bptt_error error;

static bptt_status parse(const char *text, bptt_spec *spec)
{
    memset(&error, 0, sizeof error);
    return bptt_spec_parse(text, strlen(text), "s.lua", NULL, 0, spec, &error);
}

static bptt_spec good(const char *text)
{
    bptt_spec spec;
    ck_assert_msg(parse(text, &spec) == BPTT_OK, "%s", error.text);
    return spec;
}

static void bad(const char *text, const char *message)
{
    bptt_spec spec;
    ck_assert_int_eq(parse(text, &spec), BPTT_FAILED);
    ck_assert_str_eq(error.text, message);
}

/* `sets`: up to four "key=value", ended by NULL. */
static bptt_status parse_set(const char *text, const char *const *sets, bptt_spec *spec)
{
    bptt_override overrides[4];
    size_t count = 0;
    for (; sets[count] != NULL; count++) {
        const char *equals = strchr(sets[count], '=');
        overrides[count] = (bptt_override){sets[count], (size_t)(equals - sets[count]), equals + 1};
    }
    memset(&error, 0, sizeof error);
    return bptt_spec_parse(text, strlen(text), "s.lua", overrides, count, spec, &error);
}

/* ---- good specs ---- */

START_TEST(defaults)
{
    bptt_spec spec = good(WITH(""));
    ck_assert_str_eq(spec.text, "return {\n"
                                "    name = \"a\",\n"
                                "    cell = \"rnn\",\n"
                                "    activation = \"tanh\",\n"
                                "    hidden = 4,\n"
                                "    vocab = 8,\n"
                                "    T = 6,\n"
                                "    K = 6,\n"
                                "    batch = 1,\n"
                                "    dtype = \"f32\",\n"
                                "    loss = \"cross_entropy\",\n"
                                "    reduction = \"mean\",\n"
                                "    carry = true,\n"
                                "    optimizer = {\"adagrad\", rate = 0.1, epsilon = 1e-10},\n"
                                "    clip = {norm = 5},\n"
                                "    init = {uniform = 0.5},\n"
                                "    seed = 1,\n"
                                "    unroll = \"auto\",\n"
                                "    simd = \"auto\",\n"
                                "    threads = 1,\n"
                                "}\n");
    ck_assert_str_eq(spec.source, "s.lua");
    ck_assert_int_eq(spec.simd, 0);
    ck_assert_int_eq(spec.alphabet_size, 0);
    ck_assert_uint_eq(strlen(spec.digest), 32);
    bptt_spec_free(&spec);
}
END_TEST

START_TEST(every_field)
{
    bptt_spec spec =
        good("return {name = 'a_1', cell = 'rnn', activation = 'relu', hidden = 65536, vocab = 'b\\0a\\255', T = 7.0, "
             "K = 3, batch = 2, dtype = 'f64', loss = 'cross_entropy', reduction = 'sum', carry = false, "
             "optimizer = {'adam', rate = 1, beta2 = 0.5}, clip = {value = 2}, init = {normal = 0.25}, "
             "seed = math.maxinteger, unroll = 'none', simd = 16, threads = 2}");
    ck_assert_str_eq(spec.name, "a_1");
    ck_assert_int_eq(spec.activation, BPTT_RELU);
    ck_assert_int_eq(spec.hidden, 65536);
    ck_assert_int_eq(spec.vocab, 4);
    ck_assert_int_eq(spec.alphabet_size, 4);
    ck_assert_mem_eq(spec.alphabet, "b\0a\377", 4);
    ck_assert_int_eq(spec.T, 7);
    ck_assert_int_eq(spec.K, 3);
    ck_assert_int_eq(spec.batch, 2);
    ck_assert_int_eq(spec.dtype, BPTT_F64);
    ck_assert_int_eq(spec.reduction, BPTT_SUM);
    ck_assert(!spec.carry);
    ck_assert_int_eq(spec.optimizer.kind, BPTT_ADAM);
    ck_assert(spec.optimizer.rate == 1 && spec.optimizer.beta1 == 0.9 && spec.optimizer.beta2 == 0.5);
    ck_assert(spec.optimizer.epsilon == 1e-8 && spec.optimizer.momentum == 0 && spec.optimizer.decay == 0);
    ck_assert(spec.clip.kind == BPTT_CLIP_VALUE && spec.clip.limit == 2);
    ck_assert(spec.init.kind == BPTT_INIT_NORMAL && spec.init.scale == 0.25);
    ck_assert(spec.seed == INT64_MAX);
    ck_assert_int_eq(spec.unroll, BPTT_UNROLL_NONE);
    ck_assert_int_eq(spec.simd, 16);
    ck_assert_int_eq(spec.threads, 2);
    bptt_spec_free(&spec);
}
END_TEST

/* What is added to BASE, and the line of the canonical text that must come of it. */
static const struct {
    const char *text, *line;
} readings[] = {
    {WITH("optimizer = 'sgd'"), "    optimizer = {\"sgd\", rate = 0.1},\n"},
    {WITH("optimizer = 'momentum'"), "    optimizer = {\"momentum\", rate = 0.01, momentum = 0.9},\n"},
    {WITH("optimizer = 'adagrad'"), "    optimizer = {\"adagrad\", rate = 0.1, epsilon = 1e-10},\n"},
    {WITH("optimizer = 'rmsprop'"), "    optimizer = {\"rmsprop\", rate = 0.01, decay = 0.99, epsilon = 1e-08},\n"},
    {WITH("optimizer = 'adam'"), "    optimizer = {\"adam\", rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-08},\n"},
    {WITH("optimizer = 'adamw'"),
     "    optimizer = {\"adamw\", rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-08, weight_decay = 0.01},\n"},
    {WITH("optimizer = {'adamw', weight_decay = 0}"), "epsilon = 1e-08, weight_decay = 0},\n"},
    {WITH("optimizer = {'sgd', weight_decay = 0}"), "    optimizer = {\"sgd\", rate = 0.1},\n"},
    {WITH("optimizer = {'sgd', weight_decay = 1e-4}"), "    optimizer = {\"sgd\", rate = 0.1, weight_decay = 0.0001},\n"},
    {WITH("optimizer = {'momentum', nesterov = false}"), "    optimizer = {\"momentum\", rate = 0.01, momentum = 0.9},\n"},
    {WITH("optimizer = {'momentum', nesterov = true}"),
     "    optimizer = {\"momentum\", rate = 0.01, momentum = 0.9, nesterov = true},\n"},
    {WITH("optimizer = {'sgd', rate = 1/3}"), "    optimizer = {\"sgd\", rate = 0.3333333333333333},\n"},
    {WITH("optimizer = {'sgd', rate = 0.1 + 0.2}"), "    optimizer = {\"sgd\", rate = 0.30000000000000004},\n"},
    {WITH("schedule = {'step', every = 10, factor = 0.5}"), "    schedule = {\"step\", every = 10, factor = 0.5},\n"},
    {WITH("schedule = {'step', every = 10.0}"), "    schedule = {\"step\", every = 10, factor = 0.1},\n"},
    {WITH("schedule = {'constant', warmup = 5}"), "    schedule = {\"constant\", warmup = 5},\n"},
    {WITH("schedule = {'exponential', factor = 0.999, warmup = 0}"), "    schedule = {\"exponential\", factor = 0.999},\n"},
    {WITH("schedule = {'cosine', steps = 1e4}"), "    schedule = {\"cosine\", steps = 10000},\n"},
    {WITH("schedule = {'cosine', steps = 7, floor = 0.1, warmup = 3}"),
     "    schedule = {\"cosine\", steps = 7, floor = 0.1, warmup = 3},\n"},
    {WITH("schedule = 'plateau'"), "    schedule = {\"plateau\", factor = 0.1, patience = 10, threshold = 0.0001},\n"},
    {WITH("update = 'sequence'"), "    update = \"sequence\",\n"},
    {WITH("accumulate = 3"), "    accumulate = 3,\n"},
    {WITH("init = {xavier = 1}"), "    init = {xavier = 1},\n"},
    {WITH("init = {identity = 0.5}"), "    init = {identity = 0.5},\n"},
    {WITH("init_recurrent = {uniform = 0.5}"), "    init_recurrent = {uniform = 0.5},\n"},
    {WITH("init_recurrent = {identity = 1.0}"), "    init_recurrent = {identity = 1},\n"},
    {WITH("forget_bias = -2"), "    forget_bias = -2,\n"},
    {WITH("clip = false"), "    clip = \"none\",\n"},
    {WITH("clip = 'none'"), "    clip = \"none\",\n"},
    {WITH("clip = {value = 1e-30}"), "    clip = {value = 1e-30},\n"},
    {WITH("init = {uniform = 0}"), "    init = {uniform = 0},\n"},
    {WITH("init = {uniform = -0.0}"), "    init = {uniform = 0},\n"},
    {WITH("seed = 0"), "    seed = 0,\n"},
    {WITH("seed = 2^53"), "    seed = 9007199254740992,\n"},
    {WITH("simd = 1"), "    simd = 1,\n"},
    {"return {name = 'a', T = 1, vocab = 2, hidden = {3, 4}}", "    hidden = {3, 4},\n    layers = 2,\n"},
    {"return {name = 'a', T = 1, vocab = 2, hidden = {3}}", "    hidden = 3,\n"},
    {WITH("outputs = 2"), "    outputs = 2,\n"},
    {WITH("loss_at = 'last'"), "    loss_at = \"last\",\n"},
    {WITH("loss_at = {1, 2, 5}"), "    loss_at = {1, 2, 5},\n"},
    {WITH("outputs = 2"), "    loss = \"squared_error\",\n"},
    {WITH("outputs = 2, output_activation = 'tanh'"), "    output_activation = \"tanh\",\n"},
    {WITH("batch = 64, threads = 64"), "    threads = 64,\n"},
    {WITH("simd = 'auto'"), "    simd = \"auto\",\n"},
    {WITH("K = 6"), "    K = 6,\n"},
    {WITH("vocab = 'a\"\\\\\\n\\0010'"), "    vocab = \"a\\034\\092\\010\\0010\",\n"},
    {WITH("batch = nil"), "    batch = 1,\n"},
    {WITH("batch = #('xyz'):rep(3)"), "    batch = 9,\n"},
    {WITH("batch = select('#', table.unpack({1, 2, 3}))"), "    batch = 3,\n"},
    {WITH("batch = utf8.len('\\u{20ac}\\u{20ac}')"), "    batch = 2,\n"},
    {WITH("batch = tonumber(('12abc'):match('%d+'))"), "    batch = 12,\n"},
    {WITH("name = string.format('%s%d', 'n', 3)"), "    name = \"n3\",\n"},
    {WITH("batch = (function() local t = {3, 1, 2} table.sort(t) return t[1] * 100 + t[2] * 10 + t[3] end)()"),
     "    batch = 123,\n"},
    {WITH("batch = (function() local t = table.move({1, 2, 3}, 2, 3, 1) return t[1] * 10 + t[2] end)()"), "    batch = 23,\n"},
    {WITH("batch = (function() local n = 0 for _ in ('a b c'):gmatch('%a') do n = n + 1 end return n end)()"),
     "    batch = 3,\n"},
    {WITH("batch = 1 + #string.rep('', math.maxinteger)"), "    batch = 1,\n"},
};

START_TEST(reading)
{
    bptt_spec spec = good(readings[_i].text);
    ck_assert_msg(strstr(spec.text, readings[_i].line) != NULL, "expected %s in %s", readings[_i].line, spec.text);
    bptt_spec_free(&spec);
}
END_TEST

START_TEST(random_is_the_same_each_time)
{
    const char *text = "local n = 0 for i = 1, 20 do n = n * 3 + math.random(0, 2) end return {name = 'a', hidden = 4, vocab = "
                       "8, T = 6, seed = n}";
    bptt_spec a = good(text);
    bptt_spec b = good(text);
    ck_assert_uint_eq(a.seed, b.seed);
    ck_assert_str_eq(a.digest, b.digest);
    bptt_spec_free(&a);
    bptt_spec_free(&b);
}
END_TEST

START_TEST(shipped_specs)
{
    static const struct {
        const char *path;
        int64_t hidden, vocab, T, batch;
        int alphabet_size;
    } specs[] = {{"specs/tiny.lua", 16, 16, 16, 1, 0},         {"specs/charrnn.lua", 128, 97, 64, 32, 97},
                 {"specs/words.lua", 1024, 10000, 20, 32, 0},  {"specs/mgu.lua", 128, 97, 64, 32, 97},
                 {"specs/residual.lua", 128, 97, 64, 32, 97},  {"specs/peephole.lua", 128, 97, 64, 32, 97},
                 {"specs/irnn.lua", 128, 256, 64, 16, 0},      {"specs/tasks/adding.lua", 24, 0, 50, 32, 0},
                 {"specs/tasks/copy.lua", 24, 4, 20, 32, 0},   {"specs/tasks/mackey_glass.lua", 16, 0, 50, 8, 0},
                 {"specs/tasks/parity.lua", 16, 2, 16, 32, 0}, {"specs/tasks/reber.lua", 24, 8, 48, 16, 8},
                 {"specs/tasks/sine.lua", 16, 0, 40, 32, 0},   {"specs/tasks/text.lua", 40, 97, 50, 8, 97}};
    bptt_spec spec;
    ck_assert_msg(bptt_spec_load(specs[_i].path, NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    ck_assert_str_eq(spec.source, specs[_i].path);
    ck_assert_int_eq(spec.hidden, specs[_i].hidden);
    ck_assert_int_eq(spec.vocab, specs[_i].vocab);
    ck_assert_int_eq(spec.T, specs[_i].T);
    ck_assert_int_eq(spec.batch, specs[_i].batch);
    ck_assert_int_eq(spec.alphabet_size, specs[_i].alphabet_size);
    bptt_spec_free(&spec);
}
END_TEST

/* ---- messages ---- */

#define ALL_FIELDS                                                                                                               \
    "name, cell, activation, hidden, layers, vocab, inputs, embedding, outputs, T, K, truncation, stride, batch, dtype, loss, "  \
    "output_activation, "                                                                                                        \
    "loss_at, tie, smoothing, reduction, carry, h0, resets, separator, dropout, optimizer, schedule, update, accumulate, clip, " \
    "init, init_recurrent, "                                                                                                     \
    "forget_bias, seed, unroll, simd, threads"
#define SIZES      "an integer from 1 to 65536, or a list of up to 8, one a layer"
#define INITS      "{uniform = number}, {normal = number}, {xavier = number}, {orthogonal = number} or {identity = number}"
#define OPTIMIZERS "\"sgd\", \"momentum\", \"adagrad\", \"rmsprop\", \"adam\" or \"adamw\""

static const struct {
    const char *text, *message;
} faults[] = {
    /* names of fields */
    {WITH("hiden = 3"), "s.lua:6: unknown field 'hiden' (did you mean 'hidden'?)"},
    {WITH("Hidden = 3"), "s.lua:6: unknown field 'Hidden' (did you mean 'hidden'?)"},
    {WITH("hiddne = 3"), "s.lua:6: unknown field 'hiddne' (did you mean 'hidden'?)"},
    {WITH("\n\n k = 3"), "s.lua:8: unknown field 'k' (did you mean 'K'?)"},
    {WITH("['optimiser'] = 3"), "s.lua:6: unknown field 'optimiser' (did you mean 'optimizer'?)"},
    {WITH("lr = 3"), "s.lua:6: unknown field 'lr'; the fields are " ALL_FIELDS},
    {WITH("['hidden\\0x'] = 3"), "s.lua:1: unknown field 'hidden\\000x' (did you mean 'hidden'?)"},
    {WITH("zz1 = 1, aa1 = 1"), "s.lua:6: unknown field 'aa1'; the fields are " ALL_FIELDS},
    {WITH("7, 8"), "s.lua:1: entry [1]: expected named fields only, name = value"},
    {WITH("[2.5] = 1"), "s.lua:1: entry [2.5]: expected named fields only, name = value"},
    {WITH("[true] = 1"), "s.lua:1: entry [true]: expected named fields only, name = value"},
    {WITH("[{}] = 1"), "s.lua:1: entry [a table]: expected named fields only, name = value"},
    /* what is returned */
    {"", "s.lua:1: the spec returns nothing, expected a table of fields"},
    {"local x = 1\nx = 2\n", "s.lua:2: the spec returns nothing, expected a table of fields"},
    {"\n return nil", "s.lua:2: the spec returns nothing, expected a table of fields"},
    {"return 'x'", "s.lua:1: the spec returns a string, expected a table of fields"},
    {"return function() end", "s.lua:1: the spec returns a function, expected a table of fields"},
    {"\nreturn {}", "s.lua:2: field 'name' is missing: expected a C identifier of at most 40 characters"},
    {"return {name = 'a', hidden = 1, T = 1}",
     "s.lua:1: vocab is missing: inputs are tokens; expected vocab, or inputs = D for reals"},
    /* what goes in and comes out */
    {"return {name = 'a', hidden = 1, T = 1, inputs = 3}",
     "s.lua:1: vocab is missing: outputs are tokens; expected vocab, or outputs = Q for reals"},
    {WITH("inputs = 1, outputs = 1"),
     "s.lua:4: vocab with inputs and outputs, which are reals: nothing is a token; expected no vocab"},
    {WITH("inputs = -1"), "s.lua:6: inputs = -1: expected an integer from 0 to 65536"},
    {WITH("vocab = 1"), "s.lua:4: vocab = 1: expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {WITH("loss = 'squared_error'"),
     "s.lua:6: loss = \"squared_error\" with labels, since there are no outputs; expected \"cross_entropy\", or outputs = Q"},
    {WITH("outputs = 2, loss = 'cross_entropy'"), "s.lua:6: loss = \"cross_entropy\" with outputs, which are reals; expected "
                                                  "\"squared_error\" or \"binary_cross_entropy\""},
    {WITH("outputs = 2, loss = 'binary_cross_entropy', output_activation = 'tanh'"),
     "s.lua:6: output_activation = \"tanh\" with loss = \"binary_cross_entropy\", which takes logits; expected \"identity\""},
    {WITH("tie = true, embedding = 3"),
     "s.lua:6: tie = true with embedding = 3, hidden = 4: one matrix for both needs embedding = hidden"},
    {WITH("tie = true"), "s.lua:6: tie = true with embedding = 0, hidden = 4: one matrix for both needs embedding = hidden"},
    {WITH("tie = true, embedding = 4, outputs = 2"),
     "s.lua:6: tie = true with embedding = 4, hidden = 4: one matrix for both needs labels, no outputs"},
    {WITH("smoothing = 0.1, outputs = 2"),
     "s.lua:6: smoothing with loss = \"squared_error\": expected \"cross_entropy\", whose labels it smooths"},
    {WITH("loss_at = {}"), "s.lua:6: loss_at = a table: expected \"all\" or \"last\", or a list of steps, like {1, 2, 5}"},
    {WITH("loss_at = 'first'"), "s.lua:6: loss_at = \"first\": expected \"all\" or \"last\", or a list of steps, like {1, 2, 5}"},
    {WITH("loss_at = {1, 7}"), "s.lua:6: loss_at: step 7 is beyond T = 6"},
    {WITH("loss_at = {2, 2}"), "s.lua:6: loss_at[2] = 2: expected a step, from 1 and rising"},
    {WITH("loss_at = {0}"), "s.lua:6: loss_at[1] = 0: expected a step, from 1 and rising"},
    {WITH("loss_at = {1.5}"), "s.lua:6: loss_at[1] = 1.5: expected a step, from 1 and rising"},
    {WITH("smoothing = 1"), "s.lua:6: smoothing = 1: expected a number from 0 to 0.999999"},
    /* integers */
    {WITH("batch = 0"), "s.lua:6: batch = 0: expected an integer from 1 to 65536"},
    {WITH("batch = 65537"), "s.lua:6: batch = 65537: expected an integer from 1 to 65536"},
    {WITH("batch = -1"), "s.lua:6: batch = -1: expected an integer from 1 to 65536"},
    {WITH("batch = 1.5"), "s.lua:6: batch = 1.5: expected an integer from 1 to 65536"},
    {WITH("batch = 0/0"), "s.lua:6: batch = nan: expected an integer from 1 to 65536"},
    {WITH("batch = -(0/0)"), "s.lua:6: batch = nan: expected an integer from 1 to 65536"},
    {WITH("batch = 1/0"), "s.lua:6: batch = inf: expected an integer from 1 to 65536"},
    {WITH("batch = -1/0"), "s.lua:6: batch = -inf: expected an integer from 1 to 65536"},
    {WITH("batch = 1e300"), "s.lua:6: batch = 1e+300: expected an integer from 1 to 65536"},
    {WITH("batch = '3'"), "s.lua:6: batch = \"3\": expected an integer from 1 to 65536"},
    {WITH("batch = true"), "s.lua:6: batch = true: expected an integer from 1 to 65536"},
    {WITH("batch = {3}"), "s.lua:6: batch = a table: expected an integer from 1 to 65536"},
    {WITH("batch = print"), "s.lua:6: unknown name 'print'"},
    {WITH("batch = next"), "s.lua:6: batch = a function: expected an integer from 1 to 65536"},
    {WITH("hidden = 65537"), "s.lua:3: hidden = 65537: expected " SIZES},
    {WITH("seed = -1"), "s.lua:6: seed = -1: expected an integer from 0 to 9223372036854775807"},
    {WITH("seed = 2^63"), "s.lua:6: seed = 9.223372036854776e+18: expected an integer from 0 to 9223372036854775807"},
    {WITH("simd = 2"), "s.lua:6: simd = 2: expected \"auto\", 1, 4, 8 or 16"},
    {WITH("simd = 0"), "s.lua:6: simd = 0: expected \"auto\", 1, 4, 8 or 16"},
    {WITH("simd = '4'"), "s.lua:6: simd = \"4\": expected \"auto\", 1, 4, 8 or 16"},
    /* K and sizes */
    {WITH("threads = 0"), "s.lua:6: threads = 0: expected an integer from 1 to 64"},
    {WITH("batch = 80, threads = 65"), "s.lua:6: threads = 65: expected an integer from 1 to 64"},
    {WITH("threads = 'auto'"), "s.lua:6: threads = \"auto\": expected an integer from 1 to 64"},
    {WITH("threads = 2"), "s.lua:6: threads = 2 is more than batch = 1, expected threads from 1 to batch"},
    {WITH("batch = 3, threads = 4"), "s.lua:6: threads = 4 is more than batch = 3, expected threads from 1 to batch"},
    {WITH("batch = 2, threads = 2, unroll = 'full'"),
     "s.lua:6: threads = 2 with unroll = 'full', which is for one thread; expected unroll = 'time'"},
    {WITH("truncation = 'blocks'"), "s.lua:6: truncation = \"blocks\": expected \"chunk\", \"block\" or \"uniform\""},
    {WITH("truncation = 'block'"), "s.lua:6: truncation = \"block\" without stride; expected stride from 1 to K = 6"},
    {WITH("K = 4, truncation = 'block', stride = 5"),
     "s.lua:6: stride = 5 with truncation = \"block\"; expected stride from 1 to K = 4"},
    {WITH("stride = 2"), "s.lua:6: stride = 2 with truncation = \"chunk\"; expected truncation = \"block\""},
    {WITH("truncation = 'uniform', stride = 2"),
     "s.lua:6: stride = 2 with truncation = \"uniform\"; expected truncation = \"block\""},
    {WITH("K = 7"), "s.lua:6: K = 7 is more than T = 6, expected K from 1 to T"},
    {WITH("K = 0"), "s.lua:6: K = 0: expected an integer from 1 to 65536"},
    {"return {name = 'a', vocab = 2147483647, T = 1,\nhidden = 65536}",
     "s.lua:2: hidden * vocab = 65536 * 2147483647 reals take 562949953159168 bytes, expected at most 281474976710656"},
    {"return {name = 'a', vocab = 2147483647, hidden = 2, dtype = 'f64',\nT = 65536, batch = 65536}",
     "s.lua:2: T * batch * vocab = 65536 * 65536 * 2147483647 reals take 73786976260478468096 bytes, expected at most "
     "281474976710656"},
    /* words */
    {WITH("cell = 'lstn'"),
     "s.lua:6: cell = \"lstn\": expected \"rnn\", \"gru\" or \"lstm\", or a function of equations, function() ... end"},
    {"return {name = 'a', T = 1, vocab = 2, hidden = {}}", "s.lua:1: hidden = a table: expected " SIZES},
    {"return {name = 'a', T = 1, vocab = 2, hidden = {1, 'two'}}", "s.lua:1: hidden = \"two\": expected " SIZES},
    {WITH("hidden = {1, 2}, layers = 3"), "s.lua:6: layers = 3, but hidden has 2 sizes, expected as many"},
    {WITH("activation = 'gelu'"), "s.lua:6: activation = \"gelu\": expected \"tanh\", \"relu\", \"sigmoid\" or \"identity\""},
    {WITH("activation = 'tanh\\0'"),
     "s.lua:6: activation = \"tanh\\000\": expected \"tanh\", \"relu\", \"sigmoid\" or \"identity\""},
    {WITH("dtype = 32"), "s.lua:6: dtype = 32: expected \"f32\" or \"f64\""},
    {WITH("unroll = false"), "s.lua:6: unroll = false: expected \"auto\", \"time\", \"full\" or \"none\""},
    {WITH("carry = 'yes'"), "s.lua:6: carry = \"yes\": expected true or false"},
    {WITH("carry = 1"), "s.lua:6: carry = 1: expected true or false"},
    /* vocab */
    {WITH("vocab = 1"), "s.lua:4: vocab = 1: expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {"return {name = 'a', hidden = 1, T = 1,\n vocab = 2^31}",
     "s.lua:2: vocab = 2147483648: expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {"return {name = 'a', hidden = 1, T = 1, vocab = 'x'}",
     "s.lua:1: vocab = \"x\": expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {"return {name = 'a', hidden = 1, T = 1, vocab = ''}",
     "s.lua:1: vocab = \"\": expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {"return {name = 'a', hidden = 1, T = 1, vocab = {'a', 'b'}}",
     "s.lua:1: vocab = a table: expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes"},
    {"return {name = 'a', hidden = 1, T = 1,\n\nvocab = 'abca'}", "s.lua:3: vocab: byte \"a\" (97) comes twice in the alphabet"},
    {"return {name = 'a', hidden = 1, T = 1, vocab = 'a\\27b\\27'}",
     "s.lua:1: vocab: byte \"\\027\" (27) comes twice in the alphabet"},
    {"return {name = 'a', hidden = 1, T = 1, vocab = ('x'):rep(300)}",
     "s.lua:1: vocab: byte \"x\" (120) comes twice in the alphabet"},
    {WITH("vocab = alphabet_of('x')"), "s.lua:6: alphabet_of(\"x\"): refused, this spec is not a file"},
    /* tables of numbers */
    {WITH("optimizer = 'adm'"), "s.lua:6: optimizer = \"adm\": expected " OPTIMIZERS ", or one "
                                "with its rates, like {\"adam\", rate = 0.001}"},
    {WITH("optimizer = {rate = 1}"),
     "s.lua:6: optimizer[1] = nothing: expected " OPTIMIZERS " first, like {\"adam\", rate = 0.001}"},
    {WITH("optimizer = {[2] = 'adam'}"),
     "s.lua:6: optimizer[1] = nothing: expected " OPTIMIZERS " first, like {\"adam\", rate = 0.001}"},
    {WITH("optimizer = {'adam', 3}"),
     "s.lua:6: optimizer[2]: expected the word and named rates only, like {\"adam\", rate = 0.01}"},
    {WITH("optimizer = {'adam',\n\n rat = 3}"), "s.lua:8: optimizer: unknown rate 'rat' (did you mean 'rate'?)"},
    {WITH("optimizer = {'adam', decay = 3}"),
     "s.lua:6: optimizer: unknown rate 'decay'; \"adam\" has rate, beta1, beta2, epsilon, weight_decay"},
    {WITH("optimizer = {'adam', ['rate\\0'] = 3}"), "s.lua:6: optimizer: unknown rate 'rate\\000' (did you mean 'rate'?)"},
    {WITH("optimizer = {'adam',\n rate = 0}"), "s.lua:7: optimizer.rate = 0: expected a number from 1e-30 to 1e+30"},
    {WITH("optimizer = {'adam', rate = 0/0}"), "s.lua:6: optimizer.rate = nan: expected a number from 1e-30 to 1e+30"},
    {WITH("optimizer = {'adam', rate = 1/0}"), "s.lua:6: optimizer.rate = inf: expected a number from 1e-30 to 1e+30"},
    {WITH("optimizer = {'adam', rate = '1'}"), "s.lua:6: optimizer.rate = \"1\": expected a number from 1e-30 to 1e+30"},
    {WITH("optimizer = {'adam', beta1 = 1}"), "s.lua:6: optimizer.beta1 = 1: expected a number from 0 to 0.9999999"},
    {WITH("optimizer = {'adam', epsilon = 0}"), "s.lua:6: optimizer.epsilon = 0: expected a number from 1e-30 to 1"},
    {WITH("optimizer = {'adamw', weigth_decay = 1}"),
     "s.lua:6: optimizer: unknown rate 'weigth_decay' (did you mean 'weight_decay'?)"},
    {WITH("optimizer = {'adam', weight_decay = -1}"), "s.lua:6: optimizer.weight_decay = -1: expected a number from 0 to 1e+30"},
    {WITH("optimizer = {'momentum', nesterov = 1}"), "s.lua:6: optimizer.nesterov = 1: expected true or false"},
    {WITH("optimizer = {'sgd', nesterov = true}"), "s.lua:6: optimizer: unknown rate 'nesterov'; \"sgd\" has rate, weight_decay"},
    {WITH("schedule = 'cosin'"), "s.lua:6: schedule = \"cosin\": expected \"constant\", \"step\", \"exponential\", \"cosine\" or "
                                 "\"plateau\", or one with its "
                                 "numbers, like {\"step\", every = 1000, factor = 0.5}"},
    {WITH("schedule = 'step'"), "s.lua:6: schedule.every is missing: expected an integer from 1 to 1000000000"},
    {WITH("schedule = {'exponential'}"), "s.lua:6: schedule.factor is missing: expected a number from 1e-30 to 1"},
    {WITH("schedule = {'step', evry = 3}"), "s.lua:6: schedule: unknown number 'evry' (did you mean 'every'?)"},
    {WITH("schedule = {'cosine', steps = 3, factor = 1}"),
     "s.lua:6: schedule: unknown number 'factor'; \"cosine\" has steps, floor, warmup"},
    {WITH("schedule = {'step', every = 0}"), "s.lua:6: schedule.every = 0: expected an integer from 1 to 1000000000"},
    {WITH("schedule = {'step', every = 2.5}"), "s.lua:6: schedule.every = 2.5: expected an integer from 1 to 1000000000"},
    {WITH("schedule = {'constant', warmup = -1}"), "s.lua:6: schedule.warmup = -1: expected an integer from 0 to 1000000000"},
    {WITH("schedule = {'cosine', steps = 3, floor = 2}"), "s.lua:6: schedule.floor = 2: expected a number from 0 to 1"},
    {WITH("schedule = {'step', 3}"),
     "s.lua:6: schedule[2]: expected the word and named numbers only, like {\"step\", warmup = 100}"},
    {WITH("update = 'chunks'"), "s.lua:6: update = \"chunks\": expected \"chunk\" or \"sequence\""},
    {WITH("accumulate = 0"), "s.lua:6: accumulate = 0: expected an integer from 1 to 65536"},
    {WITH("acumulate = 2"), "s.lua:6: unknown field 'acumulate' (did you mean 'accumulate'?)"},
    {WITH("init = {identty = 1}"), "s.lua:6: init = a table: expected " INITS},
    {WITH("init = 'same'"), "s.lua:6: init = \"same\": expected " INITS},
    {WITH("init_recurrent = 'none'"), "s.lua:6: init_recurrent = \"none\": expected \"same\", " INITS},
    {WITH("init_recurrent = false"), "s.lua:6: init_recurrent = false: expected \"same\", " INITS},
    {WITH("init_recurrent = {orthogonal = -1}"), "s.lua:6: init_recurrent.orthogonal = -1: expected a number from 0 to 1e+30"},
    {WITH("forget_bias = '1'"), "s.lua:6: forget_bias = \"1\": expected a number from -1e+30 to 1e+30"},
    {WITH("forget_bais = 1"), "s.lua:6: unknown field 'forget_bais' (did you mean 'forget_bias'?)"},
    {WITH("clip = 5"), "s.lua:6: clip = 5: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = true"), "s.lua:6: clip = true: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = {}"), "s.lua:6: clip = a table: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = {5}"), "s.lua:6: clip = a table: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = {none = 5}"), "s.lua:6: clip = a table: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = {norm = 1, value = 1}"), "s.lua:6: clip = a table: expected \"none\", {norm = number} or {value = number}"},
    {WITH("clip = {norm = -1}"), "s.lua:6: clip.norm = -1: expected a number from 1e-30 to 1e+30"},
    {WITH("clip = {norm = {}}"), "s.lua:6: clip.norm = a table: expected a number from 1e-30 to 1e+30"},
    {WITH("init = 'none'"), "s.lua:6: init = \"none\": expected " INITS},
    {WITH("init = false"), "s.lua:6: init = false: expected " INITS},
    {WITH("init = {normal = -1}"), "s.lua:6: init.normal = -1: expected a number from 0 to 1e+30"},
    /* Lua's own */
    {"return {\n name = }", "s.lua:2: unexpected symbol near '}'"},
    {"return {\n name = 'x", "s.lua:2: unfinished string near <eof>"},
    {"x = = 1", "s.lua:1: unexpected symbol near '='"},
    {"\n\nreturn {hidden = nothing.x}", "s.lua:3: unknown name 'nothing'"},
    {"\nerror('my own')", "s.lua:2: my own"},
    {"\nerror('my own', 0)", "s.lua:2: my own"},
    {"\nerror({})", "s.lua:2: the error is a table, expected a text"},
    {"\nerror()", "s.lua:2: the error is a nil, expected a text"},
    {"error('a\\nb\\27[31m')", "s.lua:1: a?b?[31m"},
    {"\nassert(false)", "s.lua:2: assertion failed!"},
};

START_TEST(fault)
{
    bad(faults[_i].text, faults[_i].message);
}
END_TEST

/* Where a key is set, by the shape of the text. */
static const struct {
    const char *text;
    int line;
} places[] = {
    {"return {\n\n batch = 0}", 3},
    {"batch = 1\nreturn {\n batch = 0}", 3},
    {"local batch = 0\nreturn {\n batch = batch}", 3},
    {"local s = {}\ns.batch = 0\nreturn s", 2},
    {"local s = {\nbatch = 0}\nreturn s", 2},
    {"local batch\nreturn f()", 2},
    {"-- batch = 1\n--[[ batch = 2\n]] return {\n x = 'batch = 3', y = [[\nbatch = 4]], z = batch == 5,\nbatch = 0}", 6},
    {"--[==[ ]] \n ]==] return {batch\n=\n0}", 2},
    {"return {x = {batch = 1},\n batch = 0}", 2},
    {"return {x = {\nbatch = 1}}", 2},
    {"return {f = function()\n batch = 1 return {batch = 2} end,\n batch = 0}", 3},
    {"if x then return {batch = 1} end\nfor i = 1, 2 do end while x do end repeat until x\nreturn {\nbatch = 0}", 4},
    {"return {a = 1e-5, b = 0x1p4, c = 'it\\'s', [\"batch\"] = 0}", 1},
    {"return {\r\n\r\nbatch = 0}", 3},
    {"return {\r\rbatch = 0}", 3},
    {"local x\n\n", 1},
    {"'batch = ", 1},
    {"[[ batch = ", 1},
    {"", 1},
};

START_TEST(place)
{
    bptt_span text = {places[_i].text, strlen(places[_i].text)};
    ck_assert_int_eq(bptt_line_of(text, (bptt_span){"batch", 5}, (bptt_span){NULL, 0}), places[_i].line);
}
END_TEST

START_TEST(place_of_a_part)
{
    const char *lua = "return {\nclip = {norm = 1},\ninit = {\nuniform = 1,\nnorm = 2},\nrate = 3}";
    bptt_span text = {lua, strlen(lua)};
    ck_assert_int_eq(bptt_line_of(text, (bptt_span){"init", 4}, (bptt_span){"norm", 4}), 5);
    ck_assert_int_eq(bptt_line_of(text, (bptt_span){"clip", 4}, (bptt_span){"norm", 4}), 2);
    ck_assert_int_eq(bptt_line_of(text, (bptt_span){"init", 4}, (bptt_span){"rate", 4}), 3);
}
END_TEST

START_TEST(long_source_in_full)
{
    bptt_spec spec;
    char name[201];
    char message[400];
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(bptt_spec_parse("\nx = =", 6, name, NULL, 0, &spec, &error), BPTT_FAILED);
    (void)snprintf(message, sizeof message, "%s:2: unexpected symbol near '='", name);
    ck_assert_str_eq(error.text, message);
    ck_assert_int_eq(bptt_spec_parse("\nx.y.z = 1", 10, name, NULL, 0, &spec, &error), BPTT_FAILED);
    (void)snprintf(message, sizeof message, "%s:2: unknown name 'x'", name);
    ck_assert_str_eq(error.text, message);
}
END_TEST

/* ---- names ---- */

START_TEST(names_refused)
{
    static const char *const names[] = {
        "double",   "main",   "memcpy",   "tanh", "tanhf",   "expl",   "class", "and",
        "restrict", "size_t", "NULL",     "NAN",  "linux",   "strlen", "free",  "printf",
        "bptt",     "bptt_x", "_x",       "__x",  "1a",      "a-b",    "a b",   "\xc3\xa4",
        "",         "a.b",    "uint32_t", "my_t", "nullptr", "int",    "y0",    "typeof",
        "this",     "m",      "model",    "SIMD", "true",    "a\n",    "index", "a1234567890123456789012345678901234567890"};
    char text[200];
    bptt_spec spec;
    for (size_t i = 0; i < COUNT(names); i++) {
        (void)snprintf(text, sizeof text, "return {name = [==[%s]==], hidden = 1, vocab = 2, T = 1}", names[i]);
        ck_assert_msg(parse(text, &spec) == BPTT_FAILED, "'%s' was accepted", names[i]);
        ck_assert_msg(strstr(error.text, "expected a C identifier of at most 40 characters; ") != NULL, "%s", error.text);
    }
    bad("return {\nname = 'double', hidden = 1, vocab = 2, T = 1}",
        "s.lua:2: name = \"double\": expected a C identifier of at most 40 characters; it is a word of C, C++, their libraries "
        "or "
        "the emitted file");
    bad("return {name = 'a\\0b', hidden = 1, vocab = 2, T = 1}", "s.lua:1: name = \"a\\000b\": expected a C identifier of at "
                                                                 "most 40 characters; it must begin with a letter and go on with "
                                                                 "letters, digits and _");
    bad("return {name = 3, hidden = 1, vocab = 2, T = 1}", "s.lua:1: name = 3: expected a C identifier of at most 40 characters");
}
END_TEST

START_TEST(names_accepted)
{
    static const char *const names[] = {"a",       "f",      "l",       "RNN",
                                        "charrnn", "Double", "doubles", "model_2",
                                        "t",       "tan_h",  "x_",      "a123456789012345678901234567890123456789"};
    char text[200];
    for (size_t i = 0; i < COUNT(names); i++) {
        (void)snprintf(text, sizeof text, "return {name = '%s', hidden = 1, vocab = 2, T = 1}", names[i]);
        bptt_spec spec = good(text);
        ck_assert_str_eq(spec.name, names[i]);
        bptt_spec_free(&spec);
    }
}
END_TEST

START_TEST(suggestions)
{
    static const char *const pairs[][2] = {{"hiden", "hidden"}, {"HIDDEN", "hidden"}, {"hdiden", "hidden"},
                                           {"hdn", NULL},       {"", NULL},           {"x", NULL}};
    for (size_t i = 0; i < COUNT(pairs); i++) {
        bptt_suggestion near = {pairs[i][0], strlen(pairs[i][0]), NULL, 0};
        bptt_suggest(&near, "vocab");
        bptt_suggest(&near, "hidden");
        bptt_suggest(&near, "batch");
        ck_assert_pstr_eq(near.best, pairs[i][1]);
    }
    char word[200];
    memset(word, 'a', sizeof word);
    bptt_suggestion far = {word, sizeof word, NULL, 0};
    bptt_suggest(&far, "hidden");
    ck_assert_ptr_null(far.best);
}
END_TEST

/* ---- overrides ---- */

static const struct {
    const char *sets[4];
    const char *line; /* of the canonical text; all at once where there are several */
} overrides_good[] = {
    {{"hidden=9", NULL}, "    hidden = 9,\n"},
    {{"hidden=0x10", NULL}, "    hidden = 16,\n"},
    {{"hidden=2^5", NULL}, "    hidden = 32,\n"},
    {{"hidden=9", "hidden=10", NULL}, "    hidden = 10,\n"},
    {{"name=foo", NULL}, "    name = \"foo\",\n"},
    {{"name='foo'", NULL}, "    name = \"foo\",\n"},
    {{"activation=relu", NULL}, "    activation = \"relu\",\n"},
    {{"carry=false", NULL}, "    carry = false,\n"},
    {{"clip={norm=1}", NULL}, "    clip = {norm = 1},\n"},
    {{"clip=none", NULL}, "    clip = \"none\",\n"},
    {{"clip=false", NULL}, "    clip = \"none\",\n"},
    {{"optimizer={\"adam\", rate=0.5}", NULL},
     "    optimizer = {\"adam\", rate = 0.5, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-08},\n"},
    {{"vocab=abc", NULL}, "    vocab = \"abc\",\n"},
    {{"T=3", NULL}, "    T = 3,\n    K = 3,\n"},
    {{"T=9", "K=2", NULL}, "    T = 9,\n    K = 2,\n"},
    {{"hidden=100", NULL}, "    init = {uniform = 0.1},\n"},
    {{"simd=8", NULL}, "    simd = 8,\n"},
};

START_TEST(override_good)
{
    bptt_spec spec;
    ck_assert_msg(parse_set(WITH(""), overrides_good[_i].sets, &spec) == BPTT_OK, "%s", error.text);
    ck_assert_msg(strstr(spec.text, overrides_good[_i].line) != NULL, "expected %s in %s", overrides_good[_i].line, spec.text);
    bptt_spec_free(&spec);
}
END_TEST

static const struct {
    const char *sets[4];
    const char *message;
} overrides_bad[] = {
    {{"hiden=3", NULL}, "--set hiden=3: unknown field 'hiden' (did you mean 'hidden'?)"},
    {{"lr=3", NULL}, "--set lr=3: unknown field 'lr'; the fields are " ALL_FIELDS},
    {{"=3", NULL}, "--set =3: unknown field ''; the fields are " ALL_FIELDS},
    {{"hidden=0", NULL}, "--set hidden=0: expected " SIZES},
    {{"hidden=", NULL}, "--set hidden=: expected " SIZES},
    {{"hidden=nil", NULL}, "--set hidden=nil: expected " SIZES},
    {{"hidden=many", NULL}, "--set hidden=many: expected " SIZES},
    {{"hidden=3 4", NULL}, "--set hidden=3 4: <eof> expected near '4'"},
    {{"hidden=1; x = 2", NULL}, "--set hidden=1; x = 2: <eof> expected near 'x'"},
    {{"clip={norm=", NULL}, "--set clip={norm=: unexpected symbol near <eof>"},
    {{"clip={norm=0}", NULL}, "--set clip={norm=0}: clip.norm = 0: expected a number from 1e-30 to 1e+30"},
    {{"hidden=os.exit()", NULL}, "--set hidden=os.exit(): unknown name 'os'"},
    {{"hidden=hidden.x", NULL}, "--set hidden=hidden.x: unknown name 'hidden'"},
    {{"hidden=(function() while true do end end)()", NULL},
     "--set hidden=(function() while true do end end)(): limit of 10000000 instructions exceeded (an endless loop?)"},
    {{"threads=2", NULL}, "--set threads=2: threads = 2 is more than batch = 1, expected threads from 1 to batch"},
    {{"batch=2", "threads=2", "unroll=full", NULL},
     "--set threads=2: threads = 2 with unroll = 'full', which is for one thread; expected unroll = 'time'"},
    {{"K=7", NULL}, "--set K=7: K = 7 is more than T = 6, expected K from 1 to T"},
    {{"T=4", NULL}, "--set T=4: K = 5 is more than T = 4, expected K from 1 to T"},
    {{"name=while", NULL},
     "--set name=while: expected a C identifier of at most 40 characters; it is a word of C, C++, their libraries or the emitted "
     "file"},
    {{"vocab=aa", NULL}, "--set vocab=aa: vocab: byte \"a\" (97) comes twice in the alphabet"},
    {{"vocab=2147483647", "hidden=65536", NULL},
     "--set hidden=65536: hidden * vocab = 65536 * 2147483647 reals take 562949953159168 bytes, expected at most "
     "281474976710656"},
    {{"name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL},
     "--set name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...: expected a C identifier of "
     "at "
     "most 40 characters; it has more than 40 characters, or none"},
};

START_TEST(override_bad)
{
    bptt_spec spec;
    ck_assert_int_eq(parse_set(WITH("K = 5"), overrides_bad[_i].sets, &spec), BPTT_USAGE);
    ck_assert_str_eq(error.text, overrides_bad[_i].message);
}
END_TEST

START_TEST(override_mends_the_file)
{
    static const char *const sets[] = {"hidden=5", "batch=2", NULL};
    bptt_spec spec;
    ck_assert_msg(parse_set("string.format = nil math.sqrt = nil return {name = 'a', hidden = 'x', vocab = 2, T = 1}", sets,
                            &spec) == BPTT_OK,
                  "%s", error.text);
    ck_assert_int_eq(spec.hidden, 5);
    ck_assert_int_eq(spec.batch, 2);
    bptt_spec_free(&spec);
}
END_TEST

/* ---- canonical text ---- */

static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static double draw_number(double low, double high)
{
    return low + (high - low) * ((double)draw(1u << 31) / (double)(1u << 31));
}

static void draw_alphabet(bptt_spec *spec)
{
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++) { bytes[i] = (unsigned char)i; }
    spec->alphabet_size = (int)(2 + draw(255));
    for (int i = 0; i < spec->alphabet_size; i++) {
        int other = i + (int)draw((uint64_t)(256 - i));
        spec->alphabet[i] = bytes[other];
        bytes[other] = bytes[i];
    }
    spec->vocab = spec->alphabet_size;
}

static void draw_spec(bptt_spec *spec)
{
    *spec = (bptt_spec){.name = "network", .hidden = (int64_t)(1 + draw(1000)), .vocab = (int64_t)(2 + draw(100000))};
    spec->T = (int64_t)(1 + draw(500));
    spec->K = 1 + (int64_t)draw((uint64_t)spec->T);
    spec->batch = (int64_t)(1 + draw(64));
    spec->activation = (bptt_activation)draw(3);
    spec->dtype = (bptt_dtype)draw(2);
    spec->reduction = (bptt_reduction)draw(2);
    spec->carry = draw(2) != 0;
    spec->optimizer = (bptt_optimizer){.kind = (bptt_optimizer_kind)draw(6), .rate = draw_number(1e-5, 1)};
    bptt_optimizer *o = &spec->optimizer;
    if (o->kind == BPTT_MOMENTUM) { o->momentum = draw_number(0, 0.999); }
    if (o->kind == BPTT_RMSPROP) { o->decay = draw_number(0, 0.999); }
    if (o->kind >= BPTT_ADAM) { o->beta1 = draw_number(0, 0.999), o->beta2 = draw_number(0, 0.999); }
    if (o->kind == BPTT_MOMENTUM) { o->nesterov = (double)draw(2); }
    if (draw(2) == 0) { o->weight_decay = draw_number(0, 1); }
    if (o->kind >= BPTT_ADAGRAD) { o->epsilon = draw_number(1e-30, 1e-3); }
    spec->schedule = (bptt_schedule){.kind = (bptt_schedule_kind)draw(5), .warmup = (double)draw(3)};
    bptt_schedule *s = &spec->schedule;
    if (s->kind == BPTT_SCHEDULE_STEP) { s->every = (double)(1 + draw(10000)); }
    if (s->kind == BPTT_SCHEDULE_COSINE) { s->steps = (double)(1 + draw(1000000000)), s->floor = draw_number(0, 1); }
    if (s->kind == BPTT_SCHEDULE_PLATEAU) { s->patience = (double)draw(20), s->threshold = draw_number(0, 0.1); }
    if (s->every + s->patience + s->threshold > 0 || s->kind == BPTT_SCHEDULE_EXPONENTIAL) { s->factor = draw_number(1e-6, 1); }
    spec->update = (bptt_update_kind)draw(2);
    spec->accumulate = 1 + (int64_t)draw(3);
    spec->clip = (bptt_clip){(bptt_clip_kind)draw(3), 0};
    if (spec->clip.kind != BPTT_CLIP_NONE) { spec->clip.limit = draw_number(1e-3, 1e9); }
    spec->init = (bptt_init){(bptt_init_kind)(1 + draw(5)), draw_number(0, 2)};
    spec->init_recurrent = (bptt_init){(bptt_init_kind)draw(6), 0};
    if (spec->init_recurrent.kind != BPTT_INIT_SAME) { spec->init_recurrent.scale = draw_number(0, 2); }
    spec->forget_bias = draw(2) == 0 ? 1 : draw_number(-9, 9);
    spec->seed = draw(1u << 31) << draw(33);
    spec->unroll = (bptt_unroll)draw(4);
    spec->threads = spec->unroll == BPTT_UNROLL_FULL ? 1 : 1 + (int64_t)draw((uint64_t)spec->batch);
    spec->resets = draw(2) != 0;
    spec->h0 = (bptt_h0)draw(spec->resets || spec->carry ? 1 : 3);
    if (draw(2) != 0) { spec->dropout.output = draw_number(0, 0.9); }
    spec->truncation = (bptt_truncation_mode)draw(3);
    if (spec->truncation == BPTT_TRUNCATION_BLOCK) { spec->stride = 1 + (int64_t)draw((uint64_t)spec->K); }
    spec->simd = (int64_t[]){0, 1, 4, 8, 16}[draw(5)];
    if (draw(2) != 0) { draw_alphabet(spec); }
}

/* Spec -> text -> spec -> text, for random specs. */
static void round_trips(uint64_t seed)
{
    printf("round trips: seed %" PRIu64 "\n", seed);
    random_state = seed;
    for (int i = 0; i < 100; i++) {
        bptt_spec drawn;
        draw_spec(&drawn);
        ck_assert_int_eq(bptt_spec_seal(&drawn, &error), BPTT_OK);
        bptt_spec read = good(drawn.text);
        ck_assert_str_eq(read.text, drawn.text);
        ck_assert_str_eq(read.digest, drawn.digest);
        ck_assert_mem_eq(&read.optimizer, &drawn.optimizer, sizeof read.optimizer);
        ck_assert(read.init.scale == drawn.init.scale && read.clip.limit == drawn.clip.limit && read.seed == drawn.seed);
        ck_assert_mem_eq(read.alphabet, drawn.alphabet, sizeof read.alphabet);
        bptt_spec_free(&read);
        bptt_spec_free(&drawn);
    }
}

START_TEST(text_round_trip)
{
    round_trips(20240607);
}
END_TEST

/* Makes a folder with glibc's binary form of a locale whose decimal sign is a comma: magic, count and offsets of six items. */
static void write_comma_locale(const char *folder)
{
    static const unsigned char items[] = {',', 0, '.', 0, 3, 3, 0, 0, ',', 0, 0, 0, '.', 0, 0, 0, 'A', 'N', 'S', 'I', 0, 0, 0, 0};
    const uint32_t head[] = {0x20031115 ^ (uint32_t)LC_NUMERIC, 6, 32, 34, 36, 40, 44, 48};
    char path[300];
    (void)snprintf(path, sizeof path, "%s/comma", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/comma/LC_NUMERIC", folder);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(head, 1, sizeof head, file), sizeof head);
    ck_assert_uint_eq(fwrite(items, 1, sizeof items, file), sizeof items);
    ck_assert_int_eq(fclose(file), 0);
}

static char folder[256];

static void make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%.200s/bptt-spec-XXXXXX", parent == NULL ? "/tmp" : parent);
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[300];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(text_under_a_comma_locale)
{
    bptt_spec plain = good(WITH(
        "optimizer = {'sgd', rate = 0.125}, batch = tonumber('1.5') * 2, seed = string.format('%.1f', 2.5) == '2.5' and 7 or 8"));
    write_comma_locale(folder);
    ck_assert_int_eq(setenv("LOCPATH", folder, 1), 0);
    if (setlocale(LC_NUMERIC, "comma") == NULL) {
        printf("no comma locale: this C library has another format\n");
        bptt_spec_free(&plain);
        return;
    }
    char shown[8];
    (void)snprintf(shown, sizeof shown, "%.1f", 0.5);
    ck_assert_str_eq(shown, "0,5");
    bptt_spec comma = good(WITH(
        "optimizer = {'sgd', rate = 0.125}, batch = tonumber('1.5') * 2, seed = string.format('%.1f', 2.5) == '2.5' and 7 or 8"));
    ck_assert_str_eq(comma.text, plain.text);
    ck_assert_uint_eq(comma.seed, 7);
    ck_assert(comma.optimizer.rate == 0.125);
    bptt_spec_free(&comma);
    bptt_spec_free(&plain);
    round_trips(77);
    bad(WITH("batch = 1.5"), "s.lua:6: batch = 1.5: expected an integer from 1 to 65536");
    (void)snprintf(shown, sizeof shown, "%.1f", 0.5);
    ck_assert_str_eq(shown, "0,5"); /* left as it was */
}
END_TEST

START_TEST(digest)
{
    bptt_spec base = good(WITH(""));
    bptt_spec spelled = good(WITH("unroll = 'none', simd = 4"));
    bptt_spec one = good(WITH("batch = 2")), two = good(WITH("batch = 2, threads = 2"));
    ck_assert_str_eq(base.digest, spelled.digest);
    ck_assert_str_ne(base.text, spelled.text);
    ck_assert_str_eq(one.digest, two.digest);
    ck_assert_str_ne(one.text, two.text);
    static const char *const others[] = {WITH("seed = 2"),      WITH("batch = 2"),         WITH("K = 5"),
                                         WITH("carry = false"), WITH("clip = false"),      WITH("name = 'b'"),
                                         WITH("vocab = 9"),     WITH("optimizer = 'sgd'"), WITH("dtype = 'f64'")};
    for (size_t i = 0; i < COUNT(others); i++) {
        bptt_spec other = good(others[i]);
        ck_assert_str_ne(base.digest, other.digest);
        bptt_spec_free(&other);
    }
    bptt_spec_free(&base);
    bptt_spec_free(&spelled);
    bptt_spec_free(&one);
    bptt_spec_free(&two);
}
END_TEST

/* A digest that changes makes every checkpoint of older versions unreadable. */
START_TEST(digest_is_pinned)
{
    bptt_spec spec = good(WITH(""));
    ck_assert_str_eq(spec.digest, "0135504c531baca1b66b69df4d55bf10");
    bptt_spec_free(&spec);
}
END_TEST

START_TEST(seal_after_a_change)
{
    bptt_spec spec = good(WITH(""));
    bptt_spec wide = good(WITH("batch = 3"));
    spec.batch = 3;
    ck_assert_int_eq(bptt_spec_seal(&spec, &error), BPTT_OK);
    ck_assert_str_eq(spec.text, wide.text);
    ck_assert_str_eq(spec.digest, wide.digest);
    spec.seed = UINT64_MAX;
    ck_assert_int_eq(bptt_spec_seal(&spec, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "seed = 18446744073709551615: expected at most 9223372036854775807");
    ck_assert_str_eq(spec.text, wide.text);
    bptt_spec_free(&spec);
    bptt_spec_free(&wide);
}
END_TEST

START_TEST(words_and_help)
{
    ck_assert_str_eq(bptt_spec_word("activation", BPTT_RELU), "relu");
    ck_assert_str_eq(bptt_spec_word("optimizer", BPTT_ADAM), "adam");
    ck_assert_str_eq(bptt_spec_word("clip", BPTT_CLIP_VALUE), "value");
    ck_assert_ptr_null(bptt_spec_word("activation", 4));
    ck_assert_ptr_null(bptt_spec_word("activation", -1));
    ck_assert_ptr_null(bptt_spec_word("hidden", 0));
    ck_assert_ptr_null(bptt_spec_word("nothing", 0));
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ck_assert_ptr_nonnull(out);
    bptt_spec_help(out);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_ptr_nonnull(strstr(text, "\nhidden      hidden units, H, of every layer or of each: " SIZES "; required\n"));
    ck_assert_ptr_nonnull(strstr(text,
                                 "\nclip        limit of the gradient's norm or of its elements: \"none\", {norm = number} or "
                                 "{value = number}; default {norm = 5}\n"));
    ck_assert_ptr_nonnull(strstr(text, "\n  {\"rmsprop\", rate = 0.01, decay = 0.99, epsilon = 1e-08, weight_decay = 0}\n"));
    free(text);
}
END_TEST

/* ---- files ---- */

static const char *in_folder(const char *name)
{
    static char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *bytes, size_t length)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

static bptt_status load(const char *name, bptt_spec *spec)
{
    memset(&error, 0, sizeof error);
    return bptt_spec_load(in_folder(name), NULL, 0, spec, &error);
}

/* The message of a spec `text` in a file, less the folder. */
static void bad_file(const char *text, const char *message)
{
    bptt_spec spec;
    write_file("x.lua", text, strlen(text));
    ck_assert_int_eq(load("x.lua", &spec), BPTT_FAILED);
    ck_assert_str_eq(error.text + strlen(folder) + 1, message);
}

START_TEST(file_not_there)
{
    bptt_spec spec;
    ck_assert_int_eq(bptt_spec_load("nowhere/x.lua", NULL, 0, &spec, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "nowhere/x.lua: No such file or directory");
    ck_assert_int_eq(bptt_spec_load("specs", NULL, 0, &spec, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "specs: a folder, expected a Lua file");
    ck_assert_int_eq(bptt_spec_load("/dev/zero", NULL, 0, &spec, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "/dev/zero: not a regular file");
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    ck_assert_int_eq(load("pipe", &spec), BPTT_FAILED);
    ck_assert_str_eq(error.text + strlen(folder) + 1, "pipe: not a regular file");
}
END_TEST

START_TEST(file_too_large)
{
    bptt_spec spec;
    static const char start[] = "return {name = 'a', hidden = 1, vocab = 2, T = 1}";
    size_t size = (1 << 20) + 1;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    memset(text, ' ', size);
    memcpy(text, start, sizeof start - 1);
    write_file("x.lua", text, size);
    ck_assert_int_eq(load("x.lua", &spec), BPTT_FAILED);
    ck_assert_str_eq(error.text + strlen(folder) + 1, "x.lua: larger than 1 MiB");
    write_file("x.lua", text, size - 1);
    ck_assert_int_eq(load("x.lua", &spec), BPTT_OK);
    bptt_spec_free(&spec);
    free(text);
}
END_TEST

START_TEST(file_good)
{
    bptt_spec spec;
    const char *text = "return {name = 'a', hidden = 1, T = 1, vocab = alphabet_of('sub/data')}";
    ck_assert_int_eq(mkdir(in_folder("sub"), 0700), 0);
    write_file("sub/data", "hello\n\0\377hello", 13);
    write_file("x.lua", text, strlen(text));
    ck_assert_msg(load("x.lua", &spec) == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(spec.vocab, 7);
    ck_assert_mem_eq(spec.alphabet, "\0\nehlo\377", 7);
    bptt_spec copy = good(spec.text); /* the canonical text needs no file */
    ck_assert_str_eq(copy.digest, spec.digest);
    bptt_spec_free(&copy);
    bptt_spec_free(&spec);
}
END_TEST

#define USING(file) "return {name = 'a', hidden = 1, T = 1,\nvocab = alphabet_of(" file ")}"

START_TEST(alphabet_stays_in_the_folder)
{
    ck_assert_int_eq(mkdir(in_folder("sub"), 0700), 0);
    write_file("data", "ab", 2);
    write_file("empty", "", 0);
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    ck_assert_int_eq(symlink("/etc/passwd", in_folder("out")), 0);
    ck_assert_int_eq(symlink("/etc", in_folder("etc")), 0);
    ck_assert_int_eq(symlink(".", in_folder("here")), 0);
    ck_assert_int_eq(symlink("data", in_folder("link")), 0);
    bad_file(USING("'/etc/passwd'"), "x.lua:2: alphabet_of(\"/etc/passwd\"): expected a file in the spec's folder or below it");
    bad_file(USING("'../data'"), "x.lua:2: alphabet_of(\"../data\"): expected a file in the spec's folder or below it");
    bad_file(USING("'sub/../data'"), "x.lua:2: alphabet_of(\"sub/../data\"): expected a file in the spec's folder or below it");
    bad_file(USING("'..'"), "x.lua:2: alphabet_of(\"..\"): expected a file in the spec's folder or below it");
    bad_file(USING("'out'"), "x.lua:2: alphabet_of(\"out\"): leads out of the spec's folder");
    bad_file(USING("'etc/passwd'"), "x.lua:2: alphabet_of(\"etc/passwd\"): leads out of the spec's folder");
    bad_file(USING("'here'"), "x.lua:2: alphabet_of(\"here\"): leads out of the spec's folder");
    bad_file(USING("'sub'"), "x.lua:2: alphabet_of(\"sub\"): not a regular file");
    bad_file(USING("'pipe'"), "x.lua:2: alphabet_of(\"pipe\"): not a regular file");
    bad_file(USING("'nothing'"), "x.lua:2: alphabet_of(\"nothing\"): No such file or directory");
    bad_file(USING("''"), "x.lua:2: alphabet_of(\"\"): expected the name of a file");
    bad_file(USING("'data\\0x'"), "x.lua:2: alphabet_of(\"data\"): the name holds a zero byte");
    bad_file(USING("{}"), "x.lua:2: bad argument #1 to 'alphabet_of' (string expected, got table)");
    bad_file(USING("'empty'"),
             "x.lua:2: vocab = \"\": expected an integer from 2 to 2147483647, or a string of 2 to 256 distinct bytes");
    bptt_spec spec;
    static const char *const accepted[] = {USING("'link'"), USING("'./data'"), USING("'here/data'"), USING("'here/..data'")};
    write_file("..data", "ba", 2);
    for (size_t i = 0; i < COUNT(accepted); i++) {
        write_file("x.lua", accepted[i], strlen(accepted[i]));
        ck_assert_msg(load("x.lua", &spec) == BPTT_OK, "%s", error.text);
        ck_assert_mem_eq(spec.alphabet, "ab", 2);
        bptt_spec_free(&spec);
    }
}
END_TEST

/* ---- hostile specs ---- */

#define INSTRUCTIONS "limit of 10000000 instructions exceeded (an endless loop?)"
#define MEMORY       "memory limit of 64 MiB exceeded"

static const struct {
    const char *text, *message;
} attacks[] = {
    /* what is not there */
    {"os.exit(3)", "s.lua:1: unknown name 'os'"},
    {"io.open('/etc/passwd')", "s.lua:1: unknown name 'io'"},
    {"debug.sethook()", "s.lua:1: unknown name 'debug'"},
    {"package.loadlib('x', 'y')", "s.lua:1: unknown name 'package'"},
    {"coroutine.wrap(print)", "s.lua:1: unknown name 'coroutine'"},
    {"require 'os'", "s.lua:1: unknown name 'require'"},
    {"load('return 1')", "s.lua:1: unknown name 'load'"},
    {"loadstring('return 1')", "s.lua:1: unknown name 'loadstring'"},
    {"loadfile('/etc/passwd')", "s.lua:1: unknown name 'loadfile'"},
    {"dofile('/etc/passwd')", "s.lua:1: unknown name 'dofile'"},
    {"pcall(error)", "s.lua:1: unknown name 'pcall'"},
    {"xpcall(error, error)", "s.lua:1: unknown name 'xpcall'"},
    {"print('x')", "s.lua:1: unknown name 'print'"},
    {"warn('@on')", "s.lua:1: unknown name 'warn'"},
    {"collectgarbage('stop')", "s.lua:1: unknown name 'collectgarbage'"},
    {"setmetatable({}, {__gc = function() while true do end end})", "s.lua:1: unknown name 'setmetatable'"},
    {"getmetatable('').__index = nil", "s.lua:1: unknown name 'getmetatable'"},
    {"_G.x = 1", "s.lua:1: unknown name '_G'"},
    {"string.dump(function() end)", "s.lua:1: attempt to call a nil value (field 'dump')"},
    {"('x').dump(next)", "s.lua:1: attempt to call a nil value (field 'dump')"},
    {"math.randomseed()", "s.lua:1: attempt to call a nil value (field 'randomseed')"},
    {"\33Lua\x54", "s.lua:1: this is precompiled Lua; expected text"},
    /* time */
    {"\nwhile true do end", "s.lua:2: " INSTRUCTIONS},
    {"\n::top:: goto top", "s.lua:2: " INSTRUCTIONS},
    {"repeat until false", "s.lua:1: " INSTRUCTIONS},
    {"for i = 1, math.huge do end", "s.lua:1: " INSTRUCTIONS},
    {"local function f() return f() end\nf()", "s.lua:1: " INSTRUCTIONS},
    {"string.gsub('x', 'x', function() while true do end end)", "s.lua:1: " INSTRUCTIONS},
    {"table.sort({3, 2, 1}, function() while true do end end)", "s.lua:1: " INSTRUCTIONS},
    {"table.move({}, 1, math.maxinteger - 1, 2)", "s.lua:1: " INSTRUCTIONS},
    {"local s = ('a'):rep(1 << 20)\nlocal t = {}\nfor i = 1, 1 << 12 do t[i] = s .. (i % 2 == 0 and 'a' or 'b') if i > 16 then "
     "t[i] = t[i - 16] end end\n"
     "table.sort(t)",
     "s.lua:4: " INSTRUCTIONS},
    {"string.rep('a', 30):find(('a?'):rep(30) .. ('a'):rep(30))",
     "s.lua:1: matching this pattern on 30 bytes may take too long; use a shorter text or fewer repetitions"},
    {"string.rep('a', 2000):match(('.-'):rep(10) .. 'b')",
     "s.lua:1: matching this pattern on 2000 bytes may take too long; use a shorter text or fewer repetitions"},
    {"string.rep('a', 20000):gsub('.-.-b', '')",
     "s.lua:1: matching this pattern on 20000 bytes may take too long; use a shorter text or fewer repetitions"},
    {"for x in string.rep('a', 20000):gmatch('.*.*b') do end",
     "s.lua:1: matching this pattern on 20000 bytes may take too long; use a shorter text or fewer repetitions"},
    {"string.rep('a', 1 << 20):find(('a'):rep(1 << 19) .. 'b', 1, true)",
     "s.lua:1: matching this pattern on 1048576 bytes may take too long; use a shorter text or fewer repetitions"},
    {"string.rep('(', 20000):find('%b()%b()%1')",
     "s.lua:1: matching this pattern on 20000 bytes may take too long; use a shorter text or fewer repetitions"},
    /* memory */
    {"\nlocal s = string.rep('x', 1 << 30)", "s.lua:2: " MEMORY},
    {"local s = 'x'\nwhile true do\n s = s .. s\nend", "s.lua:3: " MEMORY},
    {"local t = {}\nfor i = 1, 1e9 do\n t[i] = i\nend", "s.lua:3: " MEMORY},
    {"\nlocal s = string.format('%s', ('x'):rep(1 << 25)) .. ('y'):rep(1 << 25)", "s.lua:2: " MEMORY},
    {"string.pack('c2147483647', 'x')", "s.lua:1: " MEMORY},
    {"string.rep('x', math.maxinteger)", "s.lua:1: resulting string too large"},
    {"table.concat({}, 'x', 1, math.maxinteger)", "s.lua:1: invalid value (nil) at index 1 in table for 'concat'"},
    {"table.unpack({}, 1, 1e8)", "s.lua:1: too many results to unpack"},
    /* depth */
    {"local function f() return 1 + f() end\nf()", "s.lua:1: " MEMORY},
    {"local function f() local a, b, c, d, e, g, h return 1 + f() end\nf()", "s.lua:1: stack overflow"},
    {"local function f() return (string.gsub('x', 'x', f)) end\nf()", "s.lua:1: C stack overflow"},
};

START_TEST(attack)
{
    bptt_spec spec;
    ck_assert_int_eq(parse(attacks[_i].text, &spec), BPTT_FAILED);
    const char *message = attacks[_i].message;
    size_t length = strstr(message, "overflow") != NULL ? strlen(message) : sizeof error.text; /* Lua adds details there */
    ck_assert_msg(strncmp(error.text, message, length) == 0, "%s\nexpected %s", error.text, message);
}
END_TEST

/* One long instruction after another: only the clock stops this. */
START_TEST(attack_on_the_clock)
{
    bad("local a = ('a'):rep(15 << 20)\nlocal b = a .. 'b'\na = a .. 'c'\nfor i = 1, 1e6 do local c = a < b end",
        "s.lua:4: limit of 10 seconds exceeded");
}
END_TEST

START_TEST(nested_syntax)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 8);
    ck_assert_ptr_nonnull(text);
    memcpy(text, "return ", 7);
    memset(text + 7, '{', DEPTH);
    text[DEPTH + 7] = '\0';
    bptt_spec spec;
    ck_assert_int_eq(parse(text, &spec), BPTT_FAILED);
    ck_assert_msg(strncmp(error.text, "s.lua:1: C stack overflow", 25) == 0, "%s", error.text);
    free(text);
}
END_TEST

START_TEST(zero_bytes_in_the_text)
{
    static const char text[] = "return {name = 'a', hidden = 1, T = 1, vocab = 'a\0b'} --\0";
    bptt_spec spec;
    ck_assert_int_eq(bptt_spec_parse(text, sizeof text - 1, "s.lua", NULL, 0, &spec, &error), BPTT_OK);
    ck_assert_mem_eq(spec.alphabet, "a\0b", 3);
    bptt_spec_free(&spec);
    ck_assert_int_eq(bptt_spec_parse("\0", 1, "s.lua", NULL, 0, &spec, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "s.lua:1: unexpected symbol");
}
END_TEST

/* A spec that keeps `count` strings of about 64 KiB and one of `rest` bytes: whether it loads; else memory is what failed. */
static bool loads_keeping(int count, int rest)
{
    bptt_spec spec;
    char text[300];
    (void)snprintf(text, sizeof text,
                   "pad = ('x'):rep(65000) kept = {} for i = 1, %d do kept[i] = pad .. i end kept[0] = pad:sub(1, %d)\n"
                   "return {name = 'a', hidden = 1, vocab = 2, T = 1}",
                   count, rest);
    if (parse(text, &spec) == BPTT_OK) {
        bptt_spec_free(&spec);
        return true;
    }
    ck_assert_msg(strstr(error.text, ": " MEMORY) != NULL, "%s", error.text);
    return false;
}

/* Memory that runs out anywhere, also while the host reads the fields, is a message and nothing else. */
START_TEST(memory_kept_to_the_brim)
{
    int most = 500;
    for (int step = 512; step > 0; step /= 2) {
        if (loads_keeping(most + step, 0)) { most += step; }
    }
    int loaded = 0;
    for (int rest = 0; rest < 65000; rest += 1000) { loaded += loads_keeping(most, rest); }
    ck_assert_int_gt(loaded, 0);
    ck_assert_int_lt(loaded, 65);
}
END_TEST

START_TEST(many_unknown_fields)
{
    bad("local t = {name = 'a', hidden = 1, vocab = 2, T = 1}\nfor i = 1, 1e5 do t['k' .. i] = i end\nreturn t",
        "s.lua:3: unknown field 'k1'; the fields are " ALL_FIELDS);
}
END_TEST

/* ---- the sandbox by itself ---- */

static int call_again(lua_State *L)
{
    bptt_error inner;
    bptt_sandbox *sandbox = lua_touserdata(L, 1);
    lua_pushvalue(L, 2);
    lua_pushinteger(L, bptt_sandbox_call(sandbox, 0, 0, &inner));
    lua_pushstring(L, inner.text);
    return 2;
}

START_TEST(sandbox_keeps_its_stack)
{
    bptt_sandbox *sandbox = bptt_sandbox_new();
    ck_assert_ptr_nonnull(sandbox);
    lua_State *L = bptt_sandbox_state(sandbox);
    ck_assert_int_eq(bptt_sandbox_compile(sandbox, "x = =", 5, "c", &error), BPTT_FAILED);
    ck_assert_int_eq(lua_gettop(L), 0);
    ck_assert_int_eq(bptt_sandbox_compile(sandbox, "error('e')", 10, "c", &error), BPTT_OK);
    ck_assert_int_eq(bptt_sandbox_call(sandbox, 0, 1, &error), BPTT_FAILED);
    ck_assert_int_eq(lua_gettop(L), 0);
    ck_assert_int_eq(bptt_sandbox_compile(sandbox, "local a, b = ... return b, a, 3", 31, "c", &error), BPTT_OK);
    lua_pushinteger(L, 1);
    lua_pushinteger(L, 2);
    ck_assert_int_eq(bptt_sandbox_call(sandbox, 2, LUA_MULTRET, &error), BPTT_OK);
    ck_assert_int_eq(lua_gettop(L), 3);
    ck_assert_int_eq(lua_tointeger(L, 1), 2);
    lua_settop(L, 0);
    bptt_sandbox_free(sandbox);
    bptt_sandbox_free(NULL);
}
END_TEST

START_TEST(sandbox_call_within_a_call)
{
    bptt_sandbox *sandbox = bptt_sandbox_new();
    lua_State *L = bptt_sandbox_state(sandbox);
    lua_pushcfunction(L, call_again);
    lua_pushlightuserdata(L, sandbox);
    ck_assert_int_eq(bptt_sandbox_compile(sandbox, "\nerror('inner')", 15, "c", &error), BPTT_OK);
    ck_assert_int_eq(bptt_sandbox_call(sandbox, 2, 2, &error), BPTT_OK);
    ck_assert_int_eq(lua_tointeger(L, 1), BPTT_FAILED);
    ck_assert_str_eq(lua_tostring(L, 2), "c:2: inner");
    bptt_sandbox_free(sandbox);
}
END_TEST

START_TEST(sandbox_limits_add_up)
{
    bptt_sandbox *sandbox = bptt_sandbox_new();
    const char *text = "for i = 1, 3e6 do end";
    int calls = 0;
    for (; calls < 100; calls++) {
        ck_assert_int_eq(bptt_sandbox_compile(sandbox, text, strlen(text), "c", &error), BPTT_OK);
        if (bptt_sandbox_call(sandbox, 0, 0, &error) != BPTT_OK) { break; }
    }
    ck_assert_int_eq(calls, 3);
    ck_assert_str_eq(error.text, "c:1: " INSTRUCTIONS);
    bptt_sandbox_free(sandbox);
}
END_TEST

#define LOOP(tcase, test, table) tcase_add_loop_test(tcase, test, 0, (int)COUNT(table))

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 240); /* for valgrind */
    suite_add_tcase(suite, tcase);
    return tcase;
}

static void add_readings(Suite *suite)
{
    TCase *tcase = add_case(suite, "readings");
    tcase_add_test(tcase, defaults);
    tcase_add_test(tcase, every_field);
    LOOP(tcase, reading, readings);
    tcase_add_test(tcase, random_is_the_same_each_time);
    tcase_add_loop_test(tcase, shipped_specs, 0, 14);
    LOOP(tcase, override_good, overrides_good);
    tcase_add_test(tcase, override_mends_the_file);
}

static void add_messages(Suite *suite)
{
    TCase *tcase = add_case(suite, "messages");
    LOOP(tcase, fault, faults);
    LOOP(tcase, place, places);
    tcase_add_test(tcase, place_of_a_part);
    tcase_add_test(tcase, long_source_in_full);
    tcase_add_test(tcase, names_refused);
    tcase_add_test(tcase, names_accepted);
    tcase_add_test(tcase, suggestions);
    LOOP(tcase, override_bad, overrides_bad);
}

static void add_texts(Suite *suite)
{
    TCase *tcase = add_case(suite, "texts");
    tcase_add_test(tcase, text_round_trip);
    tcase_add_test(tcase, digest);
    tcase_add_test(tcase, digest_is_pinned);
    tcase_add_test(tcase, seal_after_a_change);
    tcase_add_test(tcase, words_and_help);
    TCase *files = add_case(suite, "files");
    tcase_add_checked_fixture(files, make_folder, remove_folder);
    tcase_add_test(files, text_under_a_comma_locale);
    tcase_add_test(files, file_not_there);
    tcase_add_test(files, file_too_large);
    tcase_add_test(files, file_good);
    tcase_add_test(files, alphabet_stays_in_the_folder);
}

static void add_hostile(Suite *suite)
{
    TCase *tcase = add_case(suite, "hostile");
    LOOP(tcase, attack, attacks);
    tcase_add_test(tcase, attack_on_the_clock);
    tcase_add_test(tcase, nested_syntax);
    tcase_add_test(tcase, zero_bytes_in_the_text);
    tcase_add_test(tcase, memory_kept_to_the_brim);
    tcase_add_test(tcase, many_unknown_fields);
    tcase_add_test(tcase, sandbox_keeps_its_stack);
    tcase_add_test(tcase, sandbox_call_within_a_call);
    tcase_add_test(tcase, sandbox_limits_add_up);
}

/* ---- a cell of the spec's own ---- */

#define CELL(text) BASE " cell = " text ",\n}\n"

/* Equations are cut out where the function stands; the canonical text gives them back, with the same digest. */
static const struct {
    const char *text, *equations;
    int line;
} own_cells[] = {
    {CELL("function() h = state(hidden) h = tanh(h) end"), " h = state(hidden) h = tanh(h) ", 6},
    {CELL("function()\n  h = state(hidden)\n  h = tanh(h)\nend"), "\n  h = state(hidden)\n  h = tanh(h)\n", 6},
    {CELL("function --[[ function() end ]]\n (--[[)]] )\n\tx = 1\n end"), "\n\tx = 1\n ", 7},
    {CELL("function() -- end\r\n s = ' end ' .. [[\nend]] --[==[ end ]] ]==] .. \"\\\" end\"\r\nend"),
     " -- end\n s = ' end ' .. [[\nend]] --[==[ end ]] ]==] .. \"\\\" end\"\n", 6},
    {CELL("function()\n for i = 1, 2 do if i > 1 then local f = function(a) return a end else repeat until true end end\n while "
          "false do end do end\nend"),
     "\n for i = 1, 2 do if i > 1 then local f = function(a) return a end else repeat until true end end\n while false do end do "
     "end\n",
     6},
    {"local function cell()\n a = 1\nend\n" BASE "cell = cell }", "\n a = 1\n", 1},
    {"function cell() a = 1 end -- function() end\nlocal t = {}\n" BASE "cell = cell }", " a = 1 ", 1},
    {"local t = {} function t.cell()\n end return {name = 'a', hidden = 4, vocab = 8, T = 6, cell = t.cell}", "\n ", 1},
};

START_TEST(own_cell)
{
    bptt_spec spec = good(own_cells[_i].text);
    ck_assert_str_eq(spec.equations, own_cells[_i].equations);
    ck_assert_int_eq(spec.equations_line, own_cells[_i].line);
    bptt_spec copy = good(spec.text);
    ck_assert_str_eq(copy.equations, spec.equations);
    ck_assert_str_eq(copy.text, spec.text);
    ck_assert_str_eq(copy.digest, spec.digest);
    bptt_spec plain;
    ck_assert_int_eq(parse_set(own_cells[_i].text, (const char *const[]){"cell=rnn", NULL}, &plain), BPTT_OK);
    ck_assert_ptr_null(plain.equations);
    ck_assert_str_ne(plain.digest, spec.digest);
    bptt_spec_free(&plain);
    bptt_spec_free(&copy);
    bptt_spec_free(&spec);
}
END_TEST

static const char *const refused_cells[][2] = {
    {CELL("function() a = 1 end, activation = (function() return 'tanh' end)()"),
     "s.lua:6: cell: more than one function begins on line 6 and ends on line 6; give it lines of its own"},
    {"local n = 3\n" BASE " cell = function() h = state(n) end }",
     "s.lua:7: cell: the function uses 'n' from outside; write the number in the cell"},
    {CELL("function(a) end"),
     "s.lua:6: cell: a function with parameters, expected function() ... end; x, hidden, ... are names in it"},
    {CELL("function(...) end"),
     "s.lua:6: cell: a function with parameters, expected function() ... end; x, hidden, ... are names in it"},
    {CELL("string.rep"), "s.lua:6: cell: this function is not written in the spec"},
    {CELL("string.dump(function() end)"), "s.lua:6: attempt to call a nil value (field 'dump')"},
    {CELL("function() a = '\xc3\xa9' end"), "s.lua:6: cell: byte 195 in the function, expected printable ASCII"},
    {CELL("function() a = '\001' end"), "s.lua:6: cell: byte 1 in the function, expected printable ASCII"},
    {CELL("{}"),
     "s.lua:6: cell = a table: expected \"rnn\", \"gru\" or \"lstm\", or a function of equations, function() ... end"},
    {CELL("true"), "s.lua:6: cell = true: expected \"rnn\", \"gru\" or \"lstm\", or a function of equations, function() ... end"},
    {CELL("\"\\27Lua\""),
     "s.lua:6: cell = \"\\027Lua\": expected \"rnn\", \"gru\" or \"lstm\", or a function of equations, function() ... end"},
};

START_TEST(refused_own_cell)
{
    bad(refused_cells[_i][0], refused_cells[_i][1]);
}
END_TEST

START_TEST(own_cell_is_not_an_override)
{
    bptt_spec spec;
    ck_assert_int_eq(parse_set(WITH(""), (const char *const[]){"cell=function() end", NULL}, &spec), BPTT_USAGE);
    ck_assert_str_eq(error.text, "--set cell=function() end: a function is written in the spec itself");
}
END_TEST

/* At most 64 KiB, so that a checkpoint's spec is never too large to read. */
START_TEST(large_own_cell)
{
    for (int over = 0; over < 3; over++) {
        const size_t size = over == 2 ? 1000000 : 65536 + (size_t)over;
        char *text = malloc(size + 200);
        ck_assert_ptr_nonnull(text);
        int head = sprintf(text, BASE " cell = function()");
        memset(text + head, ' ', size);
        (void)sprintf(text + head + size, "end }");
        char message[100];
        (void)snprintf(message, sizeof message, "s.lua:6: cell: a function of %zu bytes, expected at most 65536", size);
        if (over > 0) {
            bad(text, message);
        } else {
            bptt_spec spec = good(text), copy = good(spec.text);
            ck_assert_str_eq(spec.digest, copy.digest);
            bptt_spec_free(&spec);
            bptt_spec_free(&copy);
        }
        free(text);
    }
}
END_TEST

static void add_own_cells(Suite *suite)
{
    TCase *cells = tcase_create("own cells");
    tcase_add_loop_test(cells, own_cell, 0, (int)COUNT(own_cells));
    tcase_add_loop_test(cells, refused_own_cell, 0, (int)COUNT(refused_cells));
    tcase_add_test(cells, own_cell_is_not_an_override);
    tcase_add_test(cells, large_own_cell);
    suite_add_tcase(suite, cells);
}

int main(void)
{
    Suite *suite = suite_create("spec");
    add_own_cells(suite);
    add_readings(suite);
    add_messages(suite);
    add_texts(suite);
    add_hostile(suite);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
