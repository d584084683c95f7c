/* test_interop.c: bptt export and bptt import, and the two together: what leaves must come back as it was.
 *
 * The commands run in the test's own process, on made-up weights and tokens.  $CC compiles the C headers.
 */
#include "../runtime/checkpoint.h"
#include "../runtime/evaluate.h"
#include "../runtime/npz.h"
#include "../runtime/options.h"
#include "../runtime/trainer.h"
#include "scratch.h"

enum { TOKENS = 300, V = 5, HIDDEN = 6 };

static bptt_error error;

static void check_ok(bptt_status status)
{
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

/* Runs `bptt WORDS`; a word that begins with @ is a file in the folder.  What it prints goes to the file out. */
static bptt_status bptt(const char *words)
{
    char copy[1024], paths[8][512], *argv[32] = {"bptt"};
    int argc = 1, used = 0;
    bptt_options options;
    (void)snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        ck_assert_int_lt(argc, 31);
        argv[argc++] = word;
        if (word[0] != '@') { continue; }
        (void)snprintf(paths[used], sizeof paths[used], "%s/%s", scratch_folder, word + 1);
        argv[argc - 1] = paths[used++];
    }
    ck_assert_ptr_nonnull(freopen(scratch("out"), "w", stdout));
    bptt_status status = bptt_options_parse(argc, argv, &options, &error);
    if (status == BPTT_OK) { status = options.command->run(&options, &error); }
    bptt_options_free(&options);
    ck_assert_int_eq(fflush(stdout), 0);
    return status;
}

static void refused(const char *words, const char *message)
{
    ck_assert_int_ne(bptt(words), BPTT_OK);
    assert_says(&error, message);
}

static void printed(const char *part)
{
    size_t length = 0;
    char *text = (char *)scratch_get(scratch("out"), &length);
    ck_assert_msg(strstr(text, part) != NULL, "expected \"%s\" in \"%s\"", part, text);
    free(text);
}

/* ---- cells ---- */

static const struct {
    const char *cell, *dtype;
    int layers, gates;
} cases[] = {{"rnn", "f32", 1, 1}, {"gru", "f32", 1, 3}, {"lstm", "f32", 1, 4},
             {"rnn", "f64", 2, 1}, {"gru", "f64", 2, 3}, {"lstm", "f32", 2, 4}};
enum { CASES = sizeof cases / sizeof *cases };

static void put_spec(const char *path, int i)
{
    char text[512];
    const int length = snprintf(text, sizeof text,
                                "return {name = 'net', cell = '%s', layers = %d, dtype = '%s', hidden = %d, vocab = %d, T = 10, "
                                "K = 4, batch = 2, optimizer = 'adam', seed = 3}\n",
                                cases[i].cell, cases[i].layers, cases[i].dtype, HIDDEN, V);
    scratch_put(path, text, (size_t)length);
}

static void load_spec(bptt_spec *spec, int i)
{
    put_spec(scratch("net.lua"), i);
    check_ok(bptt_spec_load(scratch("net.lua"), NULL, 0, spec, &error));
}

static bptt_data random_data(uint32_t tokens[TOKENS])
{
    uint64_t random = 1;
    for (size_t i = 0; i < TOKENS; i++) { tokens[i] = (uint32_t)(scratch_random(&random) % V); }
    return (bptt_data){.tokens = tokens, .count = TOKENS};
}

/* A checkpoint of a few steps. */
static void put_checkpoint(const char *path, const bptt_spec *spec)
{
    uint32_t tokens[TOKENS];
    const bptt_data data = random_data(tokens);
    bptt_program program;
    bptt_trainer trainer;
    bptt_step step;
    check_ok(bptt_program_open(spec, BPTT_BACKEND_TCC, &program, &error));
    check_ok(bptt_trainer_open(&trainer, spec, &program, &data, "data", &error));
    for (int i = 0; i < 9; i++) { check_ok(bptt_trainer_chunk(&trainer, &step, &error)); }
    check_ok(bptt_trainer_save(&trainer, path, &error));
    bptt_trainer_close(&trainer);
    bptt_program_close(&program);
}

static double loss_of(const char *path)
{
    uint32_t tokens[TOKENS];
    const bptt_data data = random_data(tokens);
    bptt_companion companion;
    bptt_evaluation evaluation;
    check_ok(bptt_companion_load(&companion, path, BPTT_BACKEND_TCC, &error));
    check_ok(bptt_evaluate(&companion, &data, "data", &evaluation, &error));
    bptt_companion_close(&companion);
    return evaluation.loss;
}

static const bptt_st_tensor *find(const bptt_st_file *file, const char *name)
{
    const bptt_st_tensor *tensor = bptt_st_find(file, name);
    ck_assert_msg(tensor != NULL, "%s is missing", name);
    return tensor;
}

/* Every tensor of `some` is in `all`, to the bit. */
static void assert_same_tensors(const bptt_st_file *some, const bptt_st_file *all)
{
    for (size_t i = 0; i < some->count; i++) {
        const bptt_st_tensor *a = &some->tensors[i], *b = find(all, a->name);
        ck_assert_int_eq(a->dtype, b->dtype);
        ck_assert(same_bytes(a->shape, b->shape, sizeof a->shape));
        ck_assert_msg(same_bytes(a->data, b->data, a->bytes), "%s differs", a->name);
    }
}

/* ---- out and in ---- */

START_TEST(test_export_is_exact)
{
    bptt_spec spec;
    bptt_st_file checkpoint, exported;
    load_spec(&spec, _i);
    put_checkpoint(scratch("ck"), &spec);
    check_ok(bptt_st_read(scratch("ck"), &checkpoint, &error));
    for (int npz = 0; npz < 2; npz++) {
        check_ok(bptt(npz ? "export @ck --to npz -o @w" : "export @ck --to safetensors -o @w"));
        check_ok(npz ? bptt_npz_read(scratch("w"), &exported, &error) : bptt_st_read(scratch("w"), &exported, &error));
        ck_assert_uint_eq(exported.count, (size_t)(4 * cases[_i].layers + 2));
        assert_same_tensors(&exported, &checkpoint);
        ck_assert_uint_eq(find(&exported, "rnn.weight_hh_l0")->shape[0], (uint64_t)(cases[_i].gates * HIDDEN));
        ck_assert_uint_eq(find(&exported, "rnn.weight_hh_l0")->shape[1], HIDDEN);
        bptt_st_free(&exported);
    }
    bptt_st_free(&checkpoint);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* Weights come back to the bit, everything else is as at the start of a training; training goes on from there with any data. */
START_TEST(test_import_of_an_export)
{
    bptt_spec spec, stored;
    bptt_st_file before, after;
    load_spec(&spec, _i);
    put_checkpoint(scratch("ck"), &spec);
    const double loss = loss_of(scratch("ck"));
    for (int npz = 0; npz < 2; npz++) {
        check_ok(bptt(npz ? "export @ck --to npz -o @w" : "export @ck --to safetensors -o @w"));
        check_ok(bptt("import @w --spec @net.lua -o @new"));
        printed("checkpoint  ");
        ck_assert_double_eq(loss_of(scratch("new")), loss);
        check_ok(bptt_checkpoint_spec(scratch("new"), &stored, &error));
        ck_assert_str_eq(stored.digest, spec.digest);
        bptt_spec_free(&stored);
        check_ok(bptt_weights_read(scratch("w"), &before, &error));
        check_ok(bptt_st_read(scratch("new"), &after, &error));
        assert_same_tensors(&before, &after);
        ck_assert_str_eq(bptt_st_metadata(&after, "step"), "0");
        const bptt_st_tensor *moment = find(&after, "moment2.rnn.weight_hh_l0"),
                             *state = find(&after, cases[_i].layers > 1 ? "state.h_l1" : "state.h");
        for (size_t b = 0; b < moment->bytes; b++) { ck_assert_uint_eq(((const unsigned char *)moment->data)[b], 0); }
        for (size_t b = 0; b < state->bytes; b++) { ck_assert_uint_eq(((const unsigned char *)state->data)[b], 0); }
        bptt_st_free(&before);
        bptt_st_free(&after);
    }
    unsigned char bytes[TOKENS];
    uint32_t tokens[TOKENS];
    (void)random_data(tokens);
    for (size_t i = 0; i < TOKENS; i++) { bytes[i] = (unsigned char)tokens[i]; }
    scratch_put(scratch("text"), bytes, sizeof bytes);
    check_ok(bptt("train --resume @new --data @text --steps 3 --backend tcc -q"));
    check_ok(bptt("train --resume @new --data @text --steps 6 --backend tcc -q"));
    bytes[0] ^= 1;
    scratch_put(scratch("text"), bytes, sizeof bytes);
    refused("train --resume @new --data @text --steps 9 --backend tcc -q", "was trained on other data");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* ---- other people's files ---- */

enum { GATES = 3, MOST = 12 };

/* A state_dict of a GRU and a Linear under any names; names[i] == NULL: left out.  Numbers count up from tensor to tensor. */
static void put_state_dict(const char *const names[MOST], int npz)
{
    static const uint64_t shapes[MOST][2] = {{GATES * HIDDEN, V},
                                             {GATES * HIDDEN, HIDDEN},
                                             {GATES * HIDDEN},
                                             {GATES * HIDDEN},
                                             {V, HIDDEN},
                                             {V},
                                             {V, HIDDEN},
                                             {V},
                                             {2, 2},
                                             {GATES * HIDDEN, HIDDEN}};
    static double numbers[MOST][GATES * HIDDEN * HIDDEN];
    bptt_st_tensor made[MOST];
    size_t count = 0;
    for (size_t i = 0; i < MOST; i++) {
        if (names[i] == NULL) { continue; }
        bptt_st_tensor *t = &made[count++];
        *t = (bptt_st_tensor){(char *)(uintptr_t)names[i],
                              BPTT_ST_F64,
                              shapes[i][1] > 0 ? 2 : 1,
                              {shapes[i][0], shapes[i][1]},
                              8 * shapes[i][0] * (shapes[i][1] > 0 ? shapes[i][1] : 1),
                              numbers[i]};
        for (size_t n = 0; n < t->bytes / 8; n++) { numbers[i][n] = (double)(1 + i) + (double)n / 256; }
    }
    check_ok(npz ? bptt_npz_write(scratch("w"), made, count, &error)
                 : bptt_st_write(scratch("w"), made, count, NULL, NULL, 0, &error));
}

START_TEST(test_too_many_tensors)
{
    enum { COUNT = (1 << 14) + 1 };
    static bptt_st_tensor made[COUNT];
    static char names[COUNT][24];
    static float number;
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "m%zu.weight_ih_l0", i);
        made[i] = (bptt_st_tensor){names[i], BPTT_ST_F32, 1, {1}, sizeof number, &number};
    }
    put_spec(scratch("net.lua"), 0);
    check_ok(bptt_st_write(scratch("w"), made, COUNT, NULL, NULL, 0, &error));
    refused("import @w --spec @net.lua -o @ck", "has 16385 tensors; expected at most 16384");
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_modules)
{
    const char *names[MOST] = {"encoder.gru.weight_ih_l0",
                               "encoder.gru.weight_hh_l0",
                               "encoder.gru.bias_ih_l0",
                               "encoder.gru.bias_hh_l0",
                               "fc.weight",
                               "fc.bias"};
    bptt_st_file file;
    put_spec(scratch("net.lua"), 1);
    put_state_dict(names, _i);
    check_ok(bptt("import @w --spec @net.lua -o @new"));
    printed("encoder.gru read as rnn\nfc read as out\n");
    check_ok(bptt_st_read(scratch("new"), &file, &error));
    float ih[GATES * HIDDEN], hh[GATES * HIDDEN], out[V * HIDDEN];
    memcpy(ih, find(&file, "rnn.bias_ih_l0")->data, sizeof ih);
    memcpy(hh, find(&file, "rnn.bias_hh_l0")->data, sizeof hh);
    memcpy(out, find(&file, "out.weight")->data, sizeof out);
    for (size_t i = 0; i < sizeof ih / sizeof *ih; i++) { /* gates have one bias, the candidate has two */
        const double number = (double)i / 256, gate = i < 2 * HIDDEN;
        ck_assert_double_eq((double)ih[i], gate ? 3 + 4 + 2 * number : 3 + number);
        ck_assert_double_eq((double)hh[i], gate ? 0 : 4 + number);
    }
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) { ck_assert_double_eq((double)out[i], 5 + (double)i / 256); }
    bptt_st_free(&file);
    /* What the network has no use for is left aside; a second layer is not. */
    names[8] = "norm.scale";
    put_state_dict(names, _i);
    check_ok(bptt("import @w --spec @net.lua -o @new"));
    printed("left aside  1 other tensors");
    names[9] = "encoder.gru.weight_ih_l1";
    put_state_dict(names, _i);
    refused("import @w --spec @net.lua -o @new", "has a tensor 'rnn.weight_ih_l1', the network of");
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_maps)
{
    const char *names[MOST] = {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0",
                               "a.weight",         "a.bias",           "b.weight",       "b.bias"};
    bptt_st_file file;
    put_spec(scratch("net.lua"), 1);
    put_state_dict(names, _i);
    refused("import @w --spec @net.lua -o @new", "'out' may be 'a' or 'b': say which with --map b=out");
    check_ok(bptt("import @w --spec @net.lua --map b=out -o @new"));
    check_ok(bptt_st_read(scratch("new"), &file, &error));
    float bias[V];
    memcpy(bias, find(&file, "out.bias")->data, sizeof bias);
    ck_assert_double_eq((double)bias[0], 8);
    bptt_st_free(&file);
    check_ok(bptt("import @w --spec @net.lua --map a.weight=out.weight --map b.bias=out.bias -o @new"));
    refused("import @w --spec @net.lua --map c=out -o @new", "--map c=out: no tensor is called 'c', none 'c.*'");
    refused("import @w --spec @net.lua --map a=b -o @new", "occurs twice");
    refused("import @w --spec @net.lua --map out -o @new", "--map takes FROM=TO, not 'out'");
    refused("import @w --spec @net.lua --map out= -o @new", "--map takes FROM=TO, not 'out='");
    names[4] = names[6] = NULL;
    put_state_dict(names, _i);
    refused("import @w --spec @net.lua -o @new", "missing tensor 'out.weight' (no module has what 'out' needs; --map FROM=out?)");
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_refusals)
{
    const char *names[MOST] = {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0",
                               "rnn.bias_hh_l0",   "out.weight",       "out.bias"};
    bptt_spec spec;
    put_spec(scratch("net.lua"), 1);
    put_state_dict(names, 0);
    refused("import @w --spec @net.lua --set cell=lstm -o @new", "tensor 'rnn.weight_ih_l0' has shape [18][5], expected [24][5]");
    refused("import @w --spec @net.lua --set layers=2 -o @new", "missing tensor 'rnn.weight_ih_l1'");
    refused("import @w --spec @w -o @new", "is a checkpoint; expected a spec");
    refused("import @w -o @new", "--spec SPEC is missing");
    refused("import @w --spec @net.lua", "--out CKPT is missing");
    refused("import @w --spec @net.lua -o @w", "the same file is read");
    refused("import @w --spec @net.lua -o @net.lua", "the same file is read");
    refused("import @net.lua --spec @net.lua -o @new", "");
    refused("export @w --to npz", "not a bptt checkpoint");
    refused("export @w --to zip", "--to takes one of safetensors, npz, c-header, not 'zip'");
    ck_assert_int_ne(access(scratch("new"), F_OK), 0);
    /* A checkpoint of another spec is a file of weights. */
    load_spec(&spec, 1);
    put_checkpoint(scratch("ck"), &spec);
    check_ok(bptt("import @ck --spec @net.lua --set T=7 --set K=7 --set batch=3 --set dtype=f64 -o @new"));
    ck_assert_double_eq_tol(loss_of(scratch("new")), loss_of(scratch("ck")), 1e-6);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* ---- the C header ---- */

/* A program of the emitted model and the header compiles without a warning, and what it loads is what the checkpoint has. */
START_TEST(test_c_header)
{
    static const char program[] = "#include \"net.h\"\n#include \"net_weights.h\"\n#include <stdio.h>\n"
                                  "static net m;\n"
                                  "int main(void)\n{\n    net_init(&m, 0);\n    if (net_load(&m) != 0) { return 1; }\n"
                                  "    return fwrite(m.param, sizeof m.param, 1, stdout) == 1 ? 0 : 2;\n}\n";
    static const char alone[] = "#include \"net_weights.h\"\nint main(void) { return net_weights[0].count == 0; }\n";
    const char *cc = getenv("CC");
    char command[2048];
    bptt_spec spec;
    size_t length = 0;
    load_spec(&spec, _i % CASES);
    if (_i == CASES) { /* a table is stored as files hold it */
        static const char text[] = "return {name = 'net', hidden = 5, vocab = 7, embedding = 4, T = 10, K = 4, batch = 2}\n";
        bptt_spec_free(&spec);
        scratch_put(scratch("net.lua"), text, sizeof text - 1);
        check_ok(bptt_spec_load(scratch("net.lua"), NULL, 0, &spec, &error));
    }
    put_checkpoint(scratch("ck"), &spec);
    check_ok(bptt("export @ck --to c-header -o @net_weights.h"));
    check_ok(bptt("gen @net.lua -o @"));
    scratch_put(scratch("main.c"), program, sizeof program - 1);
    scratch_put(scratch("alone.c"), alone, sizeof alone - 1);
    (void)snprintf(command, sizeof command,
                   "cd %s && flags='-std=c99 -Wall -Wextra -pedantic -Wconversion -Werror' && "
                   "%s $flags -o alone alone.c && ./alone && %s $flags -o main main.c net.c -lm && ./main > params",
                   scratch_folder, cc != NULL ? cc : "cc", cc != NULL ? cc : "cc");
    ck_assert_int_eq(system(command), 0);
    bptt_program model;
    bptt_cursor cursor;
    check_ok(bptt_program_open(&spec, BPTT_BACKEND_TCC, &model, &error));
    void *memory = bptt_memory_new(model.model);
    ck_assert_ptr_nonnull(memory);
    model.model->init(model.model, memory, 1);
    check_ok(bptt_checkpoint_load(scratch("ck"), &spec, model.model, memory, &cursor, &error));
    unsigned char *params = scratch_get(scratch("params"), &length);
    ck_assert_uint_eq(length, model.model->block * model.model->real_size);
    ck_assert(same_bytes(params, (const char *)memory + model.model->param, length));
    free(params);
    free(memory);
    bptt_program_close(&model);
    /* Another network of that name is told from it. */
    check_ok(bptt("gen @net.lua --set hidden=7 -o @"));
    ck_assert_int_ne(system(command), 0);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_default_names)
{
    bptt_spec spec;
    load_spec(&spec, 0);
    put_checkpoint(scratch("ck"), &spec);
    ck_assert_int_eq(chdir(scratch_folder), 0);
    const char *const formats[] = {"safetensors", "npz", "c-header"}, *const files[] = {"safetensors", "npz", "h"};
    for (size_t i = 0; i < 3; i++) {
        char words[64], name[64];
        (void)snprintf(words, sizeof words, "export @ck --to %s", formats[i]);
        (void)snprintf(name, sizeof name, "net_weights.%s", files[i]);
        check_ok(bptt(words));
        printed(name);
        ck_assert_int_eq(access(name, R_OK), 0);
    }
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* What inspect says of gates: which part of which tensor. */
START_TEST(test_inspect)
{
    bptt_spec spec;
    load_spec(&spec, 4);
    put_checkpoint(scratch("ck"), &spec);
    check_ok(bptt("inspect @ck"));
    printed("b_hn_l1  rnn.bias_hh_l1[3/3]           [6]\n");
    printed("  moment1.rnn.weight_hh_l1     F64 [18, 6]\n");
    check_ok(bptt("inspect @ck --json"));
    printed("{\"name\": \"W_xz_l0\", \"file\": \"rnn.weight_ih_l0\", \"part\": 2, \"parts\": 3, \"shape\": [6, 5]}");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interop");
    TCase *all = tcase_create("interop");
    tcase_add_unchecked_fixture(all, scratch_open, scratch_close);
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, test_export_is_exact, 0, CASES);
    tcase_add_loop_test(all, test_import_of_an_export, 0, CASES);
    tcase_add_test(all, test_too_many_tensors);
    tcase_add_loop_test(all, test_modules, 0, 2);
    tcase_add_loop_test(all, test_maps, 0, 2);
    tcase_add_test(all, test_refusals);
    tcase_add_loop_test(all, test_c_header, 0, CASES + 1);
    tcase_add_test(all, test_default_names);
    tcase_add_test(all, test_inspect);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
