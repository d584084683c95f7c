/* test_programs.c: programs made of the emitted files, with real compilers: C++, two models, every vector width, sanitizers, the
 * example and its Makefile.
 *
 * What the numbers must be is test_proof.c's matter.
 */
#include "emitted.h"

#include "../runtime/backend.h"
#include "../runtime/data.h"
#include "../runtime/kernels.h"

#include <math.h>

/* --- users of a model --------------------------------------------------------------------------------------------------------- */

/* Uses every function of a model called net, in C99 and C++11: prints some results, fails when it does not learn. */
static const char consumer[] =
    "#include \"net.h\"\n"
    "#include <math.h>\n"
    "#include <stdio.h>\n"
    "#ifdef NET_STRIDE\n"
    "enum { CHUNK = NET_STRIDE * NET_BATCH };\n"
    "#else\n"
    "enum { CHUNK = NET_HORIZON * NET_BATCH };\n"
    "#endif\n"
    "enum { ROWS = NET_STEPS * NET_BATCH };\n"
    "static net model;\n"
    "#ifdef NET_INPUTS\n"
    "static net_real in[ROWS][NET_INPUTS];\n"
    "#define IN(row) in[row]\n"
    "#else\n"
    "static net_token in[ROWS];\n"
    "#define IN(row) (in + (row))\n"
    "#endif\n"
    "#ifdef NET_TARGETS\n"
    "enum { WIDTH = NET_TARGETS };\n"
    "static net_real out[ROWS][NET_TARGETS];\n"
    "#define OUT(row) out[row]\n"
    "#else\n"
    "enum { WIDTH = NET_VOCAB };\n"
    "static net_token out[ROWS];\n"
    "#define OUT(row) (out + (row))\n"
    "#endif\n"
    "static net_real p[NET_BATCH * WIDTH];\n"
    "#ifdef NET_RESETS\n"
    "static uint8_t reset[ROWS];\n"
    "#define RESET(row) , (row) % 2 == 0 ? reset + (row) : 0\n"
    "#else\n"
    "#define RESET(row)\n"
    "#endif\n"
    "int main(void)\n"
    "{\n"
    "    double first = 0, last = 0, sum = 0;\n"
    "    for (unsigned i = 0; i < ROWS; i++) {\n"
    "#ifdef NET_INPUTS\n"
    "        for (unsigned j = 0; j < NET_INPUTS; j++) { in[i][j] = (net_real)((i + 2 * j) % 7) / 7; }\n"
    "#else\n"
    "        in[i] = (i * i + i / 3) % NET_VOCAB;\n"
    "#endif\n"
    "#ifdef NET_TARGETS\n"
    "        for (unsigned j = 0; j < NET_TARGETS; j++) {\n"
    "            out[i][j] = (i + j) % 5 == 4 ? (net_real)NAN : (net_real)((i * 3 + j) % 4) / 8;\n"
    "        }\n"
    "#else\n"
    "        out[i] = i % 5 == 4 ? NET_VOCAB : (i * i + i / 3 + 1) % NET_VOCAB;\n"
    "#endif\n"
    "    }\n"
    "#ifdef NET_RESETS\n"
    "    for (int i = 0; i < ROWS; i++) { reset[i] = i % 5 == 2; }\n"
    "#endif\n"
    "    net_init(&model, NET_SEED);\n"
    "    net_refresh(&model);\n"
    "    for (int i = 0; i < 25; i++) {\n"
    "        last = net_train(&model, IN(0), OUT(0) RESET(0));\n"
    "        if (i == 0) { first = last; }\n"
    "    }\n"
    "    net_reset(&model);\n"
    "    printf(\"%.12g %.12g\", first, last);\n"
    "    for (unsigned chunk = 0; chunk < NET_CHUNKS; chunk++) {\n"
    "        const double loss = net_loss(&model, IN(chunk * CHUNK), OUT(chunk * CHUNK) RESET(chunk * CHUNK), chunk);\n"
    "        const double before = net_gradient(&model, IN(chunk * CHUNK), OUT(chunk * CHUNK) RESET(chunk * CHUNK), chunk);\n"
    "        printf(\" %.12g %.12g %.12g\", loss, before, net_update(&model));\n"
    "    }\n"
    "#ifdef NET_START\n"
    "    static net_real h0[NET_START];\n"
    "    for (int i = 0; i < NET_START; i++) { h0[i] = (net_real)i / NET_START; }\n"
    "    net_start(&model, h0);\n"
    "    for (int i = 0; i < NET_START; i++) { /* the rows are there, in the order of the states */\n"
    "        const int state = i / (NET_BATCH * NET_HIDDEN), row = i / NET_HIDDEN % NET_BATCH;\n"
    "        const bptt_tensor *const s = &net_model.states[state];\n"
    "        const net_real *const at = (const net_real *)(const void *)((const char *)&model + net_model.state);\n"
    "        if (at[s->offset + (size_t)row * s->stride + (size_t)(i % NET_HIDDEN)] < h0[i]) { return 2; }\n"
    "        if (at[s->offset + (size_t)row * s->stride + (size_t)(i % NET_HIDDEN)] > h0[i]) { return 2; }\n"
    "    }\n"
    "#endif\n"
    "    net_predict(&model, IN(0) RESET(0), p);\n"
    "    for (int i = 0; i < NET_BATCH * WIDTH; i++) { sum += (double)p[i]; }\n"
    "    printf(\" %.12g %.12g\\n\", (double)p[NET_BATCH * WIDTH - 1], sum);\n"
    "#ifdef NET_TARGETS\n"
    "    return last < first && sum - sum == 0 ? 0 : 1;\n"
    "#else\n"
    "    return last < first && sum > 0.999 * NET_BATCH && sum < 1.001 * NET_BATCH ? 0 : 1;\n"
    "#endif\n"
    "}\n";

/* Compiles and runs the consumer of the model `source` in the folder; what it printed is in `output`. */
static void train_with(char *compiler, const char *flags, const char *source)
{
    COMPILE(compiler, flags, "-o", in_folder("consumer"), in_folder("consumer.c"), in_folder(source), "-lm");
    const int status = RUN(in_folder("consumer"));
    ck_assert_msg(status == 0, "%s %s: status %d: %.900s", compiler, flags, status, output);
}

START_TEST(test_cxx_program)
{
    char *gcc = find("gcc"), *cxx = find("g++");
    ck_assert_ptr_nonnull(gcc);
    put("consumer.c", consumer);
    for (size_t i = 0; i < MODELS && cxx != NULL; i += 4) {
        emit("net", models[i]);
        COMPILE(gcc, STRICT " -O1 -c", "-o", in_folder("net.o"), in_folder("net.c"));
        COMPILE(cxx, STRICT_CXX " -O1 -c -x c++", "-o", in_folder("consumer.o"), in_folder("consumer.c"));
        COMPILE(cxx, "-o", in_folder("consumer"), in_folder("consumer.o"), in_folder("net.o"), "-lm");
        ck_assert_int_eq(RUN(in_folder("consumer")), 0);
    }
}
END_TEST

/* Two models in one file of a program, f32 and f64. */
START_TEST(test_two_models)
{
    static const char text[] =
        "#include \"small.h\"\n"
        "#include \"wide.h\"\n"
        "static small a;\n"
        "static wide b;\n"
        "int main(void)\n"
        "{\n"
        "    static const uint32_t x[8] = {0, 1, 2, 3, 0, 1, 2, 3}, y[8] = {1, 2, 3, 0, 1, 2, 3, 0};\n"
        "    const bptt_model *const models[] = {&small_model, &wide_model};\n"
        "    small_init(&a, 1);\n"
        "    wide_init(&b, 1);\n"
        "    const double a0 = small_train(&a, x, y), b0 = wide_train(&b, x, y);\n"
        "    double a1 = a0, b1 = b0;\n"
        "    for (int i = 0; i < 40; i++) {\n"
        "        a1 = small_train(&a, x, y);\n"
        "        b1 = wide_train(&b, x, y);\n"
        "    }\n"
        "    return a1 < a0 / 2 && b1 < b0 / 2 && models[0]->real_size == 4 && models[1]->real_size == 8 ? 0 : 1;\n"
        "}\n";
    char *compiler = c_compiler(_i);
    if (compiler == NULL) { return; }
    put("two.c", text);
    emit("small", "hidden = 6, vocab = 4, T = 8, K = 3");
    emit("wide", "hidden = 20, vocab = 4, T = 4, batch = 2, dtype = 'f64', optimizer = {'adam', rate = 0.03}");
    COMPILE(compiler, STRICT " -O1", "-o", in_folder("two"), in_folder("two.c"), in_folder("small.c"), in_folder("wide.c"),
            "-lm");
    ck_assert_int_eq(RUN(in_folder("two")), 0);
}
END_TEST

/* NAME_train adds up and updates as a caller who reads the header would. */
START_TEST(test_train_adds_up)
{
    static const char text[] =
        "#include \"sum.h\"\n"
        "#include <string.h>\n"
        "static sum a, b;\n"
        "int main(void)\n"
        "{\n"
        "    static const uint32_t x[8] = {0, 1, 2, 3, 0, 1, 2, 3}, y[8] = {1, 2, 9, 0, 1, 2, 3, 0};\n"
        "    int updates = 0, units = 0;\n"
        "    sum_init(&a, 1);\n"
        "    sum_init(&b, 1);\n"
        "    for (int i = 0; i < 5; i++) {\n"
        "        (void)sum_train(&a, x, y);\n"
        "        for (uint32_t chunk = 0; chunk < SUM_CHUNKS; chunk++) {\n"
        "            (void)sum_gradient(&b, x + 3 * chunk, y + 3 * chunk, chunk);\n"
        "            if (!sum_model.whole_sequence || chunk + 1 == SUM_CHUNKS) { units++; }\n"
        "            if (units < (int)sum_model.accumulate) { continue; }\n"
        "            (void)sum_update(&b);\n"
        "            units = 0;\n"
        "            updates++;\n"
        "        }\n"
        "    }\n"
        "    return memcmp(a.param, b.param, sizeof a.param) == 0 && a.progress[0] == updates ? updates : 99;\n"
        "}\n";
    static const struct {
        const char *rule;
        int updates; /* of 15 chunks, 5 sequences */
    } cases[] = {
        {"accumulate = 2", 7}, {"update = 'sequence'", 5}, {"update = 'sequence', accumulate = 2, reduction = 'sum'", 2}};
    char *compiler = c_compiler(_i);
    if (compiler == NULL) { return; }
    put("sum_test.c", text);
    EACH(i, cases)
    {
        char spec[200];
        (void)snprintf(spec, sizeof spec, "hidden = 6, vocab = 4, T = 8, K = 3, optimizer = 'adam', %s", cases[i].rule);
        emit("sum", spec);
        COMPILE(compiler, STRICT " -O1", "-o", in_folder("sum_test"), in_folder("sum_test.c"), in_folder("sum.c"), "-lm");
        ck_assert_int_eq(RUN(in_folder("sum_test")), cases[i].updates);
    }
}
END_TEST

/* One text at every width that a compiler may give it, down to plain C: the same numbers within rounding. */
static size_t read_numbers(double *numbers, size_t most)
{
    size_t count = 0;
    char *end = output;
    for (char *at = output; count < most; at = end) {
        numbers[count] = strtod(at, &end);
        if (end == at) { break; }
        count++;
    }
    return count;
}

static void compare_numbers(const double *expected, size_t count, double tolerance, const char *what)
{
    double numbers[64];
    ck_assert_uint_eq(read_numbers(numbers, 64), count);
    for (size_t i = 0; i < count; i++) {
        const double allowed = tolerance * (fabs(expected[i]) + 0.01);
        ck_assert_msg(fabs(numbers[i] - expected[i]) <= allowed, "%s: number %zu is %.12g, expected %.12g", what, i, numbers[i],
                      expected[i]);
    }
}

/* The model for a compiler without vectors: gcc, once its headers are read. */
static const char plain[] = "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n"
                            "#undef __GNUC__\n#include \"net.c\"\n"
                            "typedef char no_vectors[LANES == 1 ? 1 : -1];\n";

START_TEST(test_every_width_computes_the_same)
{
    static const char *const dtypes[] = {"f32", "f64"};
    static const char *const data[] = {"vocab = 45", "inputs = 3, outputs = 19, output_activation = 'sigmoid'",
                                       "inputs = 3, outputs = 19, loss = 'binary_cross_entropy', loss_at = {2, 3, 7}",
                                       "vocab = 45, embedding = 37, tie = true, smoothing = 0.1",
                                       /* plain steps: Adagrad's drive rounding apart */
                                       "vocab = 45, h0 = 'learned', resets = true, layers = 2, dropout = 0.25, optimizer = "
                                       "{'sgd', rate = 0.1}",
                                       "vocab = 45, h0 = 'learned', resets = true, layers = 2, dropout = 0.25, optimizer = "
                                       "{'sgd', rate = 0.1}, threads = 2, truncation = 'block', stride = 2"};
    static const struct {
        const char *flags, *source;
        int simd; /* what the CPU must have */
    } ways[] = {{"-std=c99 -O2", "plain.c", 1},
                {"-std=c99 -O0", "net.c", 1},
                {"-std=c99 -O2 -mavx2 -mfma", "net.c", 8},
                {"-std=c99 -O2 -mavx2 -mfma -mavx512f", "net.c", 16},
                {"-std=c99 -O3 -march=native", "net.c", 1}};
    char fields[280];
    double expected[64];
    (void)snprintf(fields, sizeof fields, "hidden = 37, %s, T = 7, K = 3, batch = 3, simd = 16, dtype = '%s'", data[_i / 2],
                   dtypes[_i % 2]);
    const double tolerance = _i % 2 == 0 ? 2e-3 : 1e-9;
    const size_t chunks = strstr(fields, "stride = 2") != NULL ? 4 : 3;
    char *gcc = find("gcc"), *tcc = find("tcc");
    emit("net", fields);
    put("consumer.c", consumer);
    put("plain.c", plain);
    train_with(gcc, "-std=c99 -O2", "net.c");
    const size_t count = read_numbers(expected, 64);
    ck_assert_uint_eq(count, 2 + 3 * chunks + 2);
    EACH(i, ways)
    {
        if (ways[i].simd > bptt_kernels_simd()) { continue; }
        train_with(gcc, ways[i].flags, ways[i].source);
        compare_numbers(expected, count, tolerance, ways[i].flags);
    }
    char *clang = find("clang");
    if (clang != NULL) {
        train_with(clang, "-std=c99 -O2", "net.c");
        compare_numbers(expected, count, tolerance, "clang");
    }
    if (tcc != NULL) {
        train_with(tcc, "-Wall -Werror", "net.c");
        compare_numbers(expected, count, tolerance, "tcc");
    }
}
END_TEST

enum { SHARES = 4 };

/* What sanitizers cannot see under libtcc, in its twin; a share of the models. */
START_TEST(test_sanitizers_are_silent)
{
    char *compilers[] = {find("gcc"), find("clang")}; /* each sees what the other does not */
    put("consumer.c", consumer);
    for (size_t i = (size_t)_i; i < MODELS; i += SHARES) {
        emit("net", models[i]);
        for (size_t c = 0; c < 2; c++) {
            if (compilers[c] == NULL) { continue; }
            train_with(compilers[c], "-std=c99 -g -fsanitize=address,undefined -fno-sanitize-recover=all", "net.c");
            ck_assert_msg(strchr(output, '\n') == output + strlen(output) - 1, "%s: %.900s", models[i],
                          output); /* its one line and no more */
        }
    }
}
END_TEST

/* --- the example and its Makefile --------------------------------------------------------------------------------------------------- */

/* A text of `length` bytes below 50, in which much can be learnt. */
static void put_text(const char *name, size_t length)
{
    char *text = calloc(length + 1, 1);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < length; i++) { text[i] = (char)(1 + (i * i / 7 + i) % 11 + (i % 200 < 100 ? 0 : 30)); }
    scratch_put(in_folder(name), text, length);
    free(text);
}

/* Runs the example for four epochs; their losses. */
static void run_example(double losses[4])
{
    const int status = RUN(in_folder("net"), in_folder("text"), "4");
    ck_assert_msg(status == 0, "%.900s", output);
    char *rest = output;
    for (int i = 0; i < 4; i++) {
        int epoch, used = 0;
        ck_assert_msg(sscanf(rest, "epoch %d: loss %lf nats a token\n%n", &epoch, &losses[i], &used) == 2, "%.900s", output);
        ck_assert_int_eq(epoch, i + 1);
        rest += used;
    }
    ck_assert_str_eq(rest, "");
}

/* The same epochs by the program's own reader and the tcc backend. */
static void train_here(const char *fields, double losses[4])
{
    bptt_spec spec = spec_of("net", fields);
    const bptt_data_options options = {.token_bytes = 1};
    bptt_data data;
    bptt_stream stream;
    bptt_program program;
    bptt_error error = {""};
    ck_assert(bptt_data_load(in_folder("text"), &spec, &options, &data, &error) == BPTT_OK);
    ck_assert(bptt_stream_open(&stream, data.tokens, data.count, (size_t)spec.batch, "text", &error) == BPTT_OK);
    ck_assert_msg(bptt_program_open(&spec, BPTT_BACKEND_TCC, &program, &error) == BPTT_OK, "%s", error.text);
    const bptt_model *m = program.model;
    void *memory = bptt_memory_new(m);
    uint32_t x[64], y[64];
    ck_assert(memory != NULL && spec.K * spec.batch <= 64);
    m->init(m, memory, spec.seed);
    for (int epoch = 0; epoch < 4; epoch++) {
        losses[epoch] = 0;
        m->reset(m, memory);
        stream.position = 0;
        for (uint32_t chunk = 0;; chunk = (chunk + 1) % m->chunks) {
            const uint32_t steps = chunk + 1 < m->chunks ? m->chunk_steps : m->steps - chunk * m->chunk_steps;
            const size_t labels = bptt_stream_next(&stream, steps, x, y);
            if (labels == 0) { break; }
            const double loss = m->gradient(m, memory, &(bptt_rows){.x = x, .y = y}, chunk);
            losses[epoch] += spec.reduction == BPTT_MEAN ? loss * (double)labels : loss;
            ck_assert(isfinite(m->update(m, memory)));
        }
        losses[epoch] /= (double)stream.predictions;
    }
    free(memory);
    bptt_program_close(&program);
    bptt_data_free(&data);
    bptt_spec_free(&spec);
}

/* Streams are cut evenly and the state goes on, so the example computes what `bptt train` does. */
START_TEST(test_example_learns)
{
    static const char *const examples[] = {
        "hidden = 24, vocab = 256, T = 16, reduction = 'mean'",
        "hidden = 24, vocab = 50, T = 14, K = 6, batch = 3, reduction = 'mean'",
        "hidden = 24, vocab = 50, T = 16, batch = 3, reduction = 'sum', carry = false",
        "hidden = 24, vocab = 50, T = 14, K = 9, truncation = 'block', stride = 4, batch = 3",
        "hidden = 24, vocab = 50, T = 16, K = 9, truncation = 'uniform', batch = 3",
        "hidden = 24, T = 16, batch = 3, vocab = (function() local s = '' for i = 41, 1, -1 do "
        "s = s .. string.char(i) end return s end)()"};
    double losses[4], expected[4];
    char *make = find("make");
    ck_assert_ptr_nonnull(make);
    emit("net", examples[_i]);
    put_text("text", 1 + 3 * (14 * 16 * 5 + 12)); /* sequences that end with whole chunks and a remainder */
    const int status = RUN(make, "-C", folder, "CC=gcc");
    ck_assert_msg(status == 0 && strstr(output, "warning") == NULL, "%.900s", output);
    run_example(losses);
    train_here(examples[_i], expected);
    ck_assert_double_lt(losses[3], 0.7 * losses[0]);
    for (int i = 0; i < 4; i++) { ck_assert_double_eq_tol(losses[i], expected[i], 2e-3); }
    ck_assert_int_eq(RUN(make, "-C", folder, "clean"), 0);
    ck_assert_int_ne(access(in_folder("net"), F_OK), 0);
}
END_TEST

/* Runs the example on the text `name`; it must refuse and say why. */
static void assert_refuses(const char *name, char *epochs, const char *why)
{
    const int status = RUN(in_folder("net"), in_folder(name), epochs);
    ck_assert_int_eq(status, 1);
    ck_assert_msg(strstr(output, why) != NULL, "expected \"%s\" in \"%s\"", why, output);
}

START_TEST(test_example_refuses)
{
    emit("net", "hidden = 4, vocab = 40, T = 4, batch = 3, activation = 'relu', optimizer = {'sgd', rate = 1e30}, clip = 'none'");
    COMPILE(find("gcc"), STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
    put_text("short", 3);
    put_text("low", 50); /* all below 40 */
    put_text("high", 200);
    ck_assert_int_eq(RUN(in_folder("net")), 1);
    ck_assert_ptr_nonnull(strstr(output, "usage: ./net FILE [EPOCHS]"));
    assert_refuses("nowhere", NULL, "cannot open the file");
    assert_refuses("low", "0", "usage");
    assert_refuses("short", NULL, "the file is too short for 3 streams");
    assert_refuses("low", "9", "training diverged");
    assert_refuses("high", NULL, "the file has a token that is not below 40");
}
END_TEST

/* Larger vocabularies: little-endian 16-bit and 32-bit numbers. */
START_TEST(test_example_reads_numbers)
{
    static const struct {
        const char *fields, *what;
        int bytes, top;
    } cases[] = {{"hidden = 3, vocab = 300, T = 4", "16-bit", 2, 299}, {"hidden = 3, vocab = 70000, T = 4", "32-bit", 4, 69999}};
    char *gcc = find("gcc");
    EACH(i, cases)
    {
        unsigned char text[4 * 21] = {0};
        const size_t length = (size_t)cases[i].bytes * 21;
        emit("net", cases[i].fields);
        COMPILE(gcc, STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
        for (int t = 0; t < 21; t++) {
            for (int k = 0; k < cases[i].bytes; k++) {
                text[t * cases[i].bytes + k] = (unsigned char)((unsigned)(cases[i].top - t % 2) >> 8 * k);
            }
        }
        scratch_put(in_folder("text"), text, length);
        double losses[4];
        run_example(losses);
        ck_assert_double_lt(losses[3], 0.9 * losses[0]);
        text[length - (size_t)cases[i].bytes]++; /* top + 1 */
        scratch_put(in_folder("text"), text, length);
        assert_refuses("text", NULL, "not below");
    }
}
END_TEST

/* The mean is over what counts: a sequence that ends before its loss adds nothing.  A header is no row. */
START_TEST(test_example_counts)
{
    enum { ROWS = 6, COLUMNS = 2 };
    static const unsigned char header[128] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1};
    unsigned char bytes[sizeof header + ROWS * COLUMNS * sizeof(float)];
    float rows[ROWS][COLUMNS];
    double losses[2] = {0};
    for (int t = 0; t < ROWS; t++) { rows[t][0] = 0.1F * (float)t, rows[t][1] = 1.0F + (float)t; }
    emit("net", "hidden = 3, inputs = 1, outputs = 1, T = 4, loss_at = 'last', optimizer = {'sgd', rate = 1e-20}");
    COMPILE(find("gcc"), STRICT " -O1", "-o", in_folder("net"), in_folder("net_main.c"), in_folder("net.c"), "-lm");
    for (int i = 0; i < 2; i++) {
        scratch_put(in_folder("rows"), (const char *)rows, (size_t)(i == 0 ? 4 : ROWS) * sizeof rows[0]);
        ck_assert_int_eq(RUN(in_folder("net"), in_folder("rows")), 0);
        ck_assert_int_eq(sscanf(output, "epoch 1: loss %lf a number", &losses[i]), 1);
    }
    ck_assert_double_gt(losses[0], 1);
    ck_assert_double_eq(losses[0], losses[1]);
    scratch_put(in_folder("rows"), (const char *)rows, 3 * sizeof rows[0]);
    assert_refuses("rows", NULL, "no target where the network has a loss");
    memcpy(bytes, header, sizeof header);
    memcpy(bytes + sizeof header, rows, sizeof rows);
    scratch_put(in_folder("rows"), (const char *)bytes, sizeof bytes);
    assert_refuses("rows", NULL, "nothing but rows of 2 floats");
    scratch_put(in_folder("rows"), (const char *)rows, sizeof rows - 1);
    assert_refuses("rows", NULL, "nothing but rows of 2 floats");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("programs");
    TCase *tcase = emitted_case(suite, "programs");
    tcase_add_test(tcase, test_cxx_program);
    tcase_add_loop_test(tcase, test_two_models, 0, 2);
    tcase_add_loop_test(tcase, test_train_adds_up, 0, 2);
    tcase_add_loop_test(tcase, test_every_width_computes_the_same, 0, 12);
    tcase_add_loop_test(tcase, test_sanitizers_are_silent, 0, SHARES);
    tcase_add_loop_test(tcase, test_example_learns, 0, 6);
    tcase_add_test(tcase, test_example_refuses);
    tcase_add_test(tcase, test_example_reads_numbers);
    tcase_add_test(tcase, test_example_counts);
    return emitted_run(suite);
}
