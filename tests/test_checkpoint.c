/* test_checkpoint.c: a model's numbers to a file and back, on a made-up model with padded rows, two moments and a state.
 *
 * The model is real_size bytes wide, 3 inputs, 2 outputs; rows are 4 reals apart.  Its padding holds a mark that must survive.
 * Cells of several gates are real models, trained, saved and resumed.
 */
#include "../runtime/checkpoint.h"
#include "../runtime/safetensors.h"
#include "../runtime/trainer.h"
#include "scratch.h"

#include <math.h>

enum { BLOCK = 20, STATE = 8, REALS = 4 * BLOCK + STATE + 4, MARK = 99 };

static const bptt_tensor tensors[] = {
    {.name = "W_xh", .file = "rnn.weight_ih_l0", .rank = 2, .rows = 3, .cols = 2, .stride = 4, .offset = 0, .parts = 1},
    {.name = "b_h",
     .file = "rnn.bias_ih_l0",
     .twin = "rnn.bias_hh_l0",
     .rank = 1,
     .rows = 1,
     .cols = 3,
     .stride = 4,
     .offset = 12,
     .parts = 1},
    {.name = "b_y", .file = "out.bias", .rank = 1, .rows = 1, .cols = 1, .stride = 4, .offset = 16, .parts = 1},
};
static const bptt_tensor states[] = {{.name = "h", .rank = 2, .rows = 2, .cols = 3, .stride = 4, .parts = 1}};

static int refreshed;
static void refresh(const bptt_model *self, void *memory)
{
    (void)self;
    (void)memory;
    refreshed++;
}

static bptt_error error;
static bptt_spec spec;
static bptt_cursor cursor;
static bptt_model model;
static double memory[REALS]; /* wide enough for both widths */

static double get(const void *block, size_t index)
{
    return model.real_size == 4 ? (double)((const float *)block)[index] : ((const double *)block)[index];
}

static void put(void *block, size_t index, double value)
{
    if (model.real_size == 4) {
        ((float *)block)[index] = (float)value;
    } else {
        ((double *)block)[index] = value;
    }
}

static void *at(size_t offset)
{
    return (char *)memory + offset;
}

/* Reads a spec in text; fails the test when it is wrong. */
static void parse(const char *text, bptt_spec *parsed)
{
    bptt_status status = bptt_spec_parse(text, strlen(text), "test", NULL, 0, parsed, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

/* Numbers that no two elements share, so that a swap is seen; -0 and a tiny number among them. */
static void open_model(uint32_t real_size)
{
    const size_t block = BLOCK * (size_t)real_size;
    parse("return {name = 'net', hidden = 3, vocab = 2, T = 6, K = 2, batch = 2, optimizer = 'adam'}", &spec);
    model = (bptt_model){.abi = BPTT_ABI,
                         .real_size = real_size,
                         .name = "net",
                         .digest = spec.digest,
                         .chunks = 3,
                         .bytes = sizeof memory,
                         .block = BLOCK,
                         .tensor_count = 3,
                         .state_count = 1,
                         .moment_count = 2,
                         .tensors = tensors,
                         .states = states,
                         .param = 32,
                         .grad = 32 + block,
                         .moment = {32 + 2 * block, 32 + 3 * block},
                         .state = 32 + 4 * block,
                         .progress = 0,
                         .progress_count = 3,
                         .refresh = refresh};
    for (size_t i = 0; i < 4 * BLOCK + STATE; i++) { put(at(32), i, MARK); }
    const size_t blocks[] = {model.param, model.grad, model.moment[0], model.moment[1]};
    for (size_t b = 0; b < 4; b++) {
        for (size_t t = 0; t < 3; t++) {
            for (size_t i = 0; i < (size_t)tensors[t].rows * tensors[t].cols; i++) {
                size_t index = tensors[t].offset + i / tensors[t].cols * 4 + i % tensors[t].cols;
                put(at(blocks[b]), index, (double)(100 * b + 10 * t + i) + 1.0 / 3);
            }
        }
    }
    for (size_t i = 0; i < 6; i++) { put(at(model.state), i / 3 * 4 + i % 3, 500.0 + (double)i); }
    put(at(model.param), 12, -0.0);
    put(at(model.param), 13, 1e-40);
    put(at(model.moment[0]), 16, (double)INFINITY);
    memcpy(memory, (double[]){7, 0.478, 1e-300}, 24);
    cursor = (bptt_cursor){7, 1, UINT64_MAX, 2, 12345, "0123456789abcdef0123456789abcdef"};
}

static void save(const char *path)
{
    bptt_status status = bptt_checkpoint_save(path, &spec, &model, memory, &cursor, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

/* Wipes all but padding, as another process would find it; gradients are not part of a checkpoint. */
static void wipe(void)
{
    const size_t blocks[] = {model.param, model.moment[0], model.moment[1]};
    for (size_t b = 0; b < 3; b++) {
        for (size_t i = 0; i < BLOCK; i++) {
            if (get(at(blocks[b]), i) != MARK) { put(at(blocks[b]), i, -1); }
        }
    }
    for (size_t i = 0; i < STATE; i++) {
        if (get(at(model.state), i) != MARK) { put(at(model.state), i, -1); }
    }
    memset(memory, 0, 24);
}

/* The fields, since the bytes between them are anything. */
static bool same_cursor(const bptt_cursor *a, const bptt_cursor *b)
{
    return a->step == b->step && a->epoch == b->epoch && a->position == b->position && a->chunk == b->chunk &&
           a->tokens == b->tokens && strcmp(a->data_digest, b->data_digest) == 0;
}

/* Loads what must be refused; neither memory nor cursor may change. */
static void assert_refused(const char *path, const char *message)
{
    double before[REALS];
    bptt_cursor cursor_before = cursor;
    memcpy(before, memory, sizeof memory);
    refreshed = 0;
    ck_assert_int_eq(bptt_checkpoint_load(path, &spec, &model, memory, &cursor, &error), BPTT_FAILED);
    assert_says(&error, path);
    assert_says(&error, message);
    ck_assert(same_bytes(before, memory, sizeof memory));
    ck_assert(same_cursor(&cursor_before, &cursor));
    ck_assert_int_eq(refreshed, 0);
}

START_TEST(test_round_trip)
{
    double before[REALS];
    bptt_cursor saved;
    size_t length = 0;
    open_model(_i == 0 ? 4 : 8);
    memcpy(before, memory, sizeof memory);
    saved = cursor;
    save(scratch("ck"));
    save(scratch("again"));
    unsigned char *bytes = scratch_get(scratch("ck"), &length);
    assert_file_is(scratch("again"), bytes, length);
    free(bytes);
    wipe();
    memset(&cursor, 0, sizeof cursor);
    ck_assert(!same_bytes(before, memory, sizeof memory));
    refreshed = 0;
    bptt_status status = bptt_checkpoint_load(scratch("ck"), &spec, &model, memory, &cursor, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(refreshed, 1);
    ck_assert(same_bytes(before, memory, sizeof memory)); /* bit for bit, -0 and padding too */
    ck_assert(same_cursor(&saved, &cursor));
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

static const bptt_st_tensor *find(const bptt_st_file *file, const char *name, const char *dtype, size_t rank, uint64_t rows,
                                  uint64_t cols)
{
    const bptt_st_tensor *tensor = bptt_st_find(file, name);
    ck_assert_msg(tensor != NULL, "%s is missing", name);
    ck_assert_str_eq(bptt_st_dtype_word(tensor->dtype), dtype);
    ck_assert_uint_eq(tensor->rank, rank);
    ck_assert_uint_eq(tensor->shape[0], rows);
    ck_assert_uint_eq(tensor->shape[1], cols);
    return tensor;
}

/* What another program sees: PyTorch's names, [outputs][inputs]. */
START_TEST(test_names_and_shapes)
{
    bptt_st_file file;
    open_model(8);
    save(scratch("ck"));
    ck_assert_int_eq(bptt_st_read(scratch("ck"), &file, &error), BPTT_OK);
    ck_assert_uint_eq(file.count, 1 + 4 + 3 + 3 + 1);
    double w[6];
    double v[6];
    double twin[3];
    memcpy(w, find(&file, "rnn.weight_ih_l0", "F64", 2, 2, 3)->data, sizeof w);
    memcpy(v, find(&file, "moment2.rnn.weight_ih_l0", "F64", 2, 2, 3)->data, sizeof v);
    memcpy(twin, find(&file, "rnn.bias_hh_l0", "F64", 1, 3, 0)->data, sizeof twin);
    for (size_t in = 0; in < 3; in++) {
        ck_assert(twin[in] == 0 && !signbit(twin[in]));
        for (size_t out = 0; out < 2; out++) {
            ck_assert_double_eq(w[out * 3 + in], get(at(model.param), in * 4 + out));
            ck_assert_double_eq(v[out * 3 + in], get(at(model.moment[1]), in * 4 + out));
        }
    }
    double h[6];
    memcpy(h, find(&file, "state.h", "F64", 2, 2, 3)->data, sizeof h);
    for (size_t i = 0; i < 6; i++) { ck_assert_double_eq(h[i], 500.0 + (double)i); }
    (void)find(&file, "rnn.bias_ih_l0", "F64", 1, 3, 0);
    (void)find(&file, "out.bias", "F64", 1, 1, 0);
    (void)find(&file, "moment1.rnn.bias_ih_l0", "F64", 1, 3, 0);
    ck_assert(same_bytes(find(&file, "progress", "F64", 1, 3, 0)->data, memory, 24));
    ck_assert_str_eq(bptt_st_metadata(&file, "format"), "bptt");
    ck_assert_str_eq(bptt_st_metadata(&file, "spec"), spec.text);
    ck_assert_str_eq(bptt_st_metadata(&file, "digest"), spec.digest);
    ck_assert_str_eq(bptt_st_metadata(&file, "position"), "18446744073709551615");
    ck_assert_str_eq(bptt_st_metadata(&file, "training_data"), cursor.data_digest);
    bptt_st_free(&file);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_spec_from_checkpoint)
{
    bptt_spec read;
    open_model(4);
    save(scratch("ck"));
    bptt_status status = bptt_checkpoint_spec(scratch("ck"), &read, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    ck_assert_str_eq(read.text, spec.text);
    ck_assert_str_eq(read.digest, spec.digest);
    ck_assert_int_eq(read.K, 2);
    bptt_spec_free(&read);
    ck_assert_int_eq(bptt_weights_save(scratch("w"), &model, memory, model.param, 0, &error), BPTT_OK);
    ck_assert_int_eq(bptt_checkpoint_spec(scratch("w"), &read, &error), BPTT_FAILED);
    assert_says(&error, "w: not a bptt checkpoint");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* No bit of the whole file may change unnoticed: either it is refused or everything loads as it was. */
START_TEST(test_every_bit_flipped)
{
    size_t length = 0;
    size_t refused = 0;
    open_model(4);
    save(scratch("ck"));
    const bptt_cursor saved = cursor;
    double before[REALS];
    memcpy(before, memory, sizeof memory);
    unsigned char *bytes = scratch_get(scratch("ck"), &length);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_put(scratch("flip"), bytes, length);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        refused += bptt_checkpoint_load(scratch("flip"), &spec, &model, memory, &cursor, &error) != BPTT_OK;
        ck_assert_msg(same_bytes(before, memory, sizeof memory), "bit %zu changed the model", bit);
        ck_assert_msg(same_cursor(&saved, &cursor), "bit %zu changed the cursor", bit);
    }
    /* White space is where a flip could be harmless, but the padding's spaces are two bits away from tab and line feed. */
    ck_assert_uint_eq(refused, 8 * length);
    free(bytes);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_truncated_at_every_length)
{
    size_t length = 0;
    open_model(4);
    save(scratch("ck"));
    unsigned char *bytes = scratch_get(scratch("ck"), &length);
    for (size_t cut = 0; cut < length; cut++) {
        scratch_put(scratch("cut"), bytes, cut);
        assert_refused(scratch("cut"), "");
    }
    free(bytes);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_wrong_digest_says_so)
{
    size_t length = 0;
    open_model(4);
    save(scratch("ck"));
    unsigned char *bytes = scratch_get(scratch("ck"), &length);
    bytes[length - 1] ^= 1;
    scratch_put(scratch("ck"), bytes, length);
    free(bytes);
    assert_refused(scratch("ck"), "wrong digest");
    ck_assert_int_eq(bptt_weights_load(scratch("ck"), &model, memory, &error), BPTT_FAILED);
    assert_says(&error, "wrong digest");
    bptt_spec other;
    ck_assert_int_eq(bptt_checkpoint_spec(scratch("ck"), &other, &error), BPTT_FAILED);
    assert_says(&error, "wrong digest");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_another_spec)
{
    open_model(4);
    save(scratch("ck"));
    bptt_spec_free(&spec);
    parse("return {name = 'net', hidden = 30, vocab = 2, T = 6, K = 2, batch = 2, optimizer = 'adam'}", &spec);
    assert_refused(scratch("ck"), "made by another spec: 'net' (");
    assert_says(&error, "), not 'net' (");
    assert_says(&error, "\"    hidden = 3,\", here \"    hidden = 30,\"");
    bptt_spec_free(&spec);
    parse("return {name = 'other', hidden = 3, vocab = 2, T = 6, K = 2, batch = 2, optimizer = 'adam'}", &spec);
    assert_refused(scratch("ck"), "), not 'other' (");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* A checkpoint whose digest is right but whose tensors are another model's: the spec cannot tell, the shapes do. */
START_TEST(test_other_tensors)
{
    static bptt_tensor changed[3];
    open_model(4);
    save(scratch("ck"));
    memcpy(changed, tensors, sizeof changed);
    model.tensors = changed;
    changed[0].rows = 2;
    assert_refused(scratch("ck"), "tensor 'moment1.rnn.weight_ih_l0' has shape [2][3], expected [2][2]");
    changed[0].rows = 3;
    changed[2].rank = 2;
    assert_refused(scratch("ck"), "tensor 'moment1.out.bias' has shape [1], expected [1][1]");
    changed[2].rank = 1;
    changed[1].twin = "rnn.bias_zz";
    assert_refused(scratch("ck"), "missing tensor 'rnn.bias_zz'");
    changed[1].twin = tensors[1].twin;
    model.chunks = 2;
    assert_refused(scratch("ck"), "metadata 'chunk' is 2, expected less than 2");
    model.chunks = 3;
    model.real_size = 8;
    assert_refused(scratch("ck"), "has dtype F32, expected F64");
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* What could not be loaded is not written either, and the last good file stays. */
START_TEST(test_not_finite)
{
    size_t length = 0;
    open_model(4);
    const char *path = scratch("ck");
    const size_t where[] = {model.param + 20, model.param + 48, model.moment[1] + 48, model.state + 20};
    const char *const names[] = {"'rnn.weight_ih_l0': element 4 is", "'rnn.bias_ih_l0': element 0 is",
                                 "'moment2.rnn.bias_ih_l0': element 0 is", "'state.h': element 4 is"};
    save(path);
    unsigned char *bytes = scratch_get(path, &length);
    for (size_t i = 0; i < 4; i++) {
        float *value = at(where[i]);
        const float before = *value;
        *value = NAN;
        ck_assert_int_eq(bptt_checkpoint_save(path, &spec, &model, memory, &cursor, &error), BPTT_FAILED);
        assert_says(&error, names[i]);
        assert_says(&error, "not a number");
        *value = -INFINITY;
        if (i < 2) {
            ck_assert_int_eq(bptt_checkpoint_save(path, &spec, &model, memory, &cursor, &error), BPTT_FAILED);
            assert_says(&error, names[i]);
            assert_says(&error, "infinite");
        }
        *value = before;
        assert_file_is(path, bytes, length);
    }
    memory[1] = (double)NAN;
    ck_assert_int_eq(bptt_checkpoint_save(path, &spec, &model, memory, &cursor, &error), BPTT_FAILED);
    assert_says(&error, "'progress': element 1 is not a number");
    static const double forged[][2] = {{0, 1e300}, {0, -1}, {0, 0.5}, {1, 1.5}, {2, -0.5}};
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        const size_t element = (size_t)forged[i][0];
        double now[3] = {7, 0.5, 0.25};
        now[element] = forged[i][1];
        memcpy(memory, now, sizeof now);
        ck_assert_int_eq(bptt_checkpoint_save(path, &spec, &model, memory, &cursor, &error), BPTT_FAILED);
        assert_says(&error, "which no training comes to");
    }
    assert_file_is(path, bytes, length);
    ck_assert_int_eq(scratch_files(1), 1);
    free(bytes);
    bptt_spec_free(&spec);
}
END_TEST

/* ---- weights ---- */

enum { FOREIGN = 5 };

/* A state_dict as another program writes it: W_xh = 1 .. 6 [2][3], biases 10 20 30 and 1 2 3, one tensor that is not ours. */
static void put_foreign(const char *path, const bptt_st_dtype dtype, size_t count, bptt_st_tensor made[FOREIGN])
{
    static const double numbers[] = {1, 2, 3, 4, 5, 6, 10, 20, 30, 1, 2, 3, 7, 0};
    static float narrow[14];
    const size_t size = dtype == BPTT_ST_F32 ? 4 : 8;
    const char *data = dtype == BPTT_ST_F32 ? (const char *)narrow : (const char *)numbers;
    for (size_t i = 0; i < 14; i++) { narrow[i] = (float)numbers[i]; }
    static char names[FOREIGN][20] = {"rnn.weight_ih_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0", "out.bias", "other"};
    const size_t starts[FOREIGN] = {0, 6, 9, 12, 13};
    const uint64_t shapes[FOREIGN][2] = {{2, 3}, {3, 0}, {3, 0}, {1, 0}, {1, 1}};
    for (size_t i = 0; i < FOREIGN; i++) {
        unsigned rank = shapes[i][1] > 0 ? 2 : 1;
        size_t bytes = size * shapes[i][0] * (rank == 2 ? shapes[i][1] : 1);
        made[i] = (bptt_st_tensor){names[i], dtype, rank, {shapes[i][0], shapes[i][1]}, bytes, data + starts[i] * size};
    }
    ck_assert_int_eq(bptt_st_write(path, made, count, NULL, NULL, 0, &error), BPTT_OK);
}

START_TEST(test_weights_from_elsewhere)
{
    static const double summed[] = {11, 22, 33};
    bptt_st_tensor made[FOREIGN];
    double before[REALS];
    open_model((_i & 1) == 0 ? 4 : 8);
    put_foreign(scratch("w"), (_i & 2) == 0 ? BPTT_ST_F32 : BPTT_ST_F64, FOREIGN, made);
    memcpy(before, memory, sizeof memory);
    refreshed = 0;
    bptt_status status = bptt_weights_load(scratch("w"), &model, memory, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(refreshed, 1);
    for (size_t i = 0; i < 6; i++) { ck_assert_double_eq(get(at(model.param), i % 3 * 4 + i / 3), (double)i + 1); }
    for (size_t i = 0; i < 3; i++) { ck_assert_double_eq(get(at(model.param), 12 + i), summed[i]); }
    ck_assert_double_eq(get(at(model.param), 16), 7);
    ck_assert_double_eq(get(at(model.param), 2), MARK);
    ck_assert(same_bytes(at(model.grad), (char *)before + model.grad, sizeof memory - model.grad));
    ck_assert(same_bytes(memory, before, model.param));
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_weights_refusals)
{
    bptt_st_tensor made[FOREIGN];
    double before[REALS];
    const char *path = scratch("w");
    open_model(4);
    memcpy(before, memory, sizeof memory);
    put_foreign(path, BPTT_ST_F64, 3, made);
    ck_assert_int_eq(bptt_weights_load(path, &model, memory, &error), BPTT_FAILED);
    assert_says(&error, "w: missing tensor 'out.bias'");
    put_foreign(path, BPTT_ST_I64, FOREIGN, made);
    ck_assert_int_eq(bptt_weights_load(path, &model, memory, &error), BPTT_FAILED);
    assert_says(&error, "tensor 'rnn.weight_ih_l0' has dtype I64, expected F32 or F64");
    put_foreign(path, BPTT_ST_F64, FOREIGN, made);
    const uint64_t shape[2] = {made[0].shape[1], made[0].shape[0]};
    memcpy(made[0].shape, shape, sizeof shape);
    ck_assert_int_eq(bptt_st_write(path, made, FOREIGN, NULL, NULL, 0, &error), BPTT_OK);
    ck_assert_int_eq(bptt_weights_load(path, &model, memory, &error), BPTT_FAILED);
    assert_says(&error, "tensor 'rnn.weight_ih_l0' has shape [3][2], expected [2][3]");
    put_foreign(path, BPTT_ST_F64, FOREIGN, made);
    const double large[3] = {0, 1e39, 0}; /* a fine double, not a float */
    made[2].data = large;
    ck_assert_int_eq(bptt_st_write(path, made, FOREIGN, NULL, NULL, 0, &error), BPTT_OK);
    ck_assert_int_eq(bptt_weights_load(path, &model, memory, &error), BPTT_FAILED);
    assert_says(&error, "tensor 'rnn.bias_ih_l0': element 1 is infinite");
    ck_assert(same_bytes(before, memory, sizeof memory));
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_weights_save)
{
    bptt_st_file file;
    double ih[3];
    double hh[3];
    open_model(8);
    ck_assert_int_eq(bptt_weights_save(scratch("g"), &model, memory, model.grad, _i, &error), BPTT_OK);
    ck_assert_int_eq(bptt_st_read(scratch("g"), &file, &error), BPTT_OK);
    ck_assert_uint_eq(file.count, 4);
    memcpy(ih, find(&file, "rnn.bias_ih_l0", "F64", 1, 3, 0)->data, sizeof ih);
    memcpy(hh, find(&file, "rnn.bias_hh_l0", "F64", 1, 3, 0)->data, sizeof hh);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_double_eq(ih[i], get(at(model.grad), 12 + i));
        ck_assert_double_eq(hh[i], _i != 0 ? ih[i] : 0);
    }
    bptt_st_free(&file);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* A checkpoint serves as weights, also for a model of the other width. */
START_TEST(test_weights_from_checkpoint)
{
    open_model(4);
    save(scratch("ck"));
    const double expected = get(at(model.param), 1);
    bptt_spec_free(&spec);
    open_model(8);
    ck_assert_double_ne(get(at(model.param), 1), expected);
    ck_assert_int_eq(bptt_weights_load(scratch("ck"), &model, memory, &error), BPTT_OK);
    ck_assert_double_eq(get(at(model.param), 1), expected);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* ---- tensors in parts ---- */

/* The made-up model with other tensors: two gates of 2 outputs each; the second has two biases, the first one with a twin. */
static const bptt_tensor gates[] = {
    {.name = "W_1", .file = "rnn.weight_ih", .rank = 2, .rows = 3, .cols = 2, .stride = 4, .offset = 0, .part = 1, .parts = 2},
    {.name = "W_2", .file = "rnn.weight_ih", .rank = 2, .rows = 1, .cols = 2, .stride = 4, .offset = 12, .part = 0, .parts = 2},
};

/* Parts of different shapes, a part twice, a part missing: the model's own table is checked before a file is looked at. */
START_TEST(test_wrong_parts)
{
    static bptt_tensor changed[2];
    open_model(4);
    memcpy(changed, gates, sizeof changed);
    model.tensors = changed;
    model.tensor_count = 2;
    const char *const messages[] = {"tensor 'moment1.rnn.weight_ih': the model has another shape for part 1 of 2 (W_2)",
                                    "tensor 'moment1.rnn.weight_ih': the model has twice part 2 of 2 (W_2)",
                                    "tensor 'rnn.weight_ih': the model has 1 of its 2 parts",
                                    "tensor 'moment1.rnn.weight_ih': the model has another shape for part 3 of 2 (W_2)"};
    for (size_t i = 0; i < 4; i++) {
        if (i == 1) { changed[1] = (bptt_tensor){"W_2", "rnn.weight_ih", NULL, 2, 3, 2, 4, 0, 1, 2, 0}; }
        if (i == 2) { model.tensor_count = 1; }
        if (i == 3) { changed[1].part = 2, model.tensor_count = 2; }
        ck_assert_int_eq(bptt_checkpoint_save(scratch("ck"), &spec, &model, memory, &cursor, &error), BPTT_FAILED);
        assert_says(&error, messages[i]);
        ck_assert_int_eq(scratch_files(0), 0);
    }
    bptt_spec_free(&spec);
}
END_TEST

/* Blocks of outputs lie one after the other; a bias that is a second one in some parts only is whole in the file of weights. */
START_TEST(test_parts_in_the_file)
{
    static const bptt_tensor parts[] = {
        {.name = "W_1", .file = "w", .rank = 2, .rows = 3, .cols = 2, .stride = 4, .offset = 0, .part = 1, .parts = 2},
        {"b_0", "ih", "hh", 1, 1, 2, 4, 12, 0, 3, 0},
        {"b_2", "ih", NULL, 1, 1, 2, 4, 16, 2, 3, 0},
        {"c_2", "hh", NULL, 1, 1, 2, 4, 20, 2, 3, 0},
        {"b_1", "ih", "hh", 1, 1, 2, 4, 24, 1, 3, 0},
        {.name = "W_0", .file = "w", .rank = 2, .rows = 3, .cols = 2, .stride = 4, .offset = 28, .part = 0, .parts = 2},
    };
    static const float weights[] = {28, 32, 36, 29, 33, 37, 0, 4, 8, 1, 5, 9}, ih[] = {12, 13, 24, 25, 16, 17},
                       hh[] = {0, 0, 0, 0, 20, 21};
    bptt_st_file file;
    float numbers[48] = {0}; /* the last of them the progress */
    open_model(4);
    for (size_t i = 0; i < 40; i++) { numbers[i] = (float)i; }
    model.tensors = parts;
    model.tensor_count = 6;
    model.moment_count = 1;
    model.param = model.moment[0] = model.state = 0;
    model.progress = 40 * sizeof *numbers;
    bptt_status status = bptt_checkpoint_save(scratch("ck"), &spec, &model, numbers, &cursor, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
    ck_assert_int_eq(bptt_st_read(scratch("ck"), &file, &error), BPTT_OK);
    ck_assert_uint_eq(file.count, 1 + 3 + 3 + 1);
    ck_assert(same_bytes(find(&file, "w", "F32", 2, 4, 3)->data, weights, sizeof weights));
    ck_assert(same_bytes(find(&file, "ih", "F32", 1, 6, 0)->data, ih, sizeof ih));
    ck_assert(same_bytes(find(&file, "hh", "F32", 1, 6, 0)->data, hh, sizeof hh));
    ck_assert(same_bytes(find(&file, "moment1.hh", "F32", 1, 6, 0)->data, hh, sizeof hh));
    bptt_st_free(&file);
    ck_assert_int_eq(bptt_weights_save(scratch("g"), &model, numbers, 0, 1, &error), BPTT_OK);
    ck_assert_int_eq(bptt_st_read(scratch("g"), &file, &error), BPTT_OK);
    float copies[] = {12, 13, 24, 25, 20, 21}, loaded[40] = {0};
    ck_assert(same_bytes(find(&file, "hh", "F32", 1, 6, 0)->data, copies, sizeof copies));
    bptt_st_free(&file);
    /* Two biases of a gate are added up, the third part's are two parameters. */
    ck_assert_int_eq(bptt_weights_load(scratch("g"), &model, loaded, &error), BPTT_OK);
    ck_assert_double_eq((double)loaded[13], 26);
    ck_assert_double_eq((double)loaded[17], 17);
    ck_assert_double_eq((double)loaded[21], 21);
    ck_assert_double_eq((double)loaded[25], 50);
    ck_assert_double_eq((double)loaded[37], 37);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* ---- real cells ---- */

static void check_ok(bptt_status status)
{
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

static void train_steps(const bptt_spec *of, const bptt_data *data, const char *from, const char *to, unsigned steps)
{
    bptt_program program;
    bptt_trainer trainer;
    bptt_step step;
    check_ok(bptt_program_open(of, BPTT_BACKEND_TCC, &program, &error));
    check_ok(bptt_trainer_open(&trainer, of, &program, data, "data", &error));
    if (from != NULL) { check_ok(bptt_trainer_resume(&trainer, from, &error)); }
    for (unsigned i = 0; i < steps; i++) { check_ok(bptt_trainer_chunk(&trainer, &step, &error)); }
    check_ok(bptt_trainer_save(&trainer, to, &error));
    bptt_trainer_close(&trainer);
    bptt_program_close(&program);
}

/* A window's values come back without their padding: here 1.5, by which a chain divides. */
START_TEST(test_resume_divides_by_padding)
{
    static const char text[] =
        "return {name = 'net', hidden = 3, vocab = 5, T = 9, K = 6, truncation = 'block', stride = 3, cell = "
        "function()\n"
        "W, U, b, h = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), state(hidden)\n"
        "h = tanh(W * x + U * h + b) / (1.5 + abs(U * h))\nend}";
    enum { TOKENS = 100, N = 4 };
    uint32_t tokens[TOKENS];
    uint64_t random = 1;
    size_t length = 0;
    for (size_t i = 0; i < TOKENS; i++) { tokens[i] = (uint32_t)(scratch_random(&random) % 5); }
    parse(text, &spec);
    const bptt_data data = {.tokens = tokens, .count = TOKENS};
    train_steps(&spec, &data, NULL, scratch("whole"), 2 * N);
    train_steps(&spec, &data, NULL, scratch("half"), N);
    train_steps(&spec, &data, scratch("half"), scratch("resumed"), N);
    unsigned char *bytes = scratch_get(scratch("whole"), &length);
    assert_file_is(scratch("resumed"), bytes, length);
    free(bytes);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

/* 2N chunks are N chunks, a save, a load and N chunks, bit for bit: in the middle of sequences, windows and steps. */
START_TEST(test_resume_cells)
{
    enum { TOKENS = 200, N = 7 };
    static const char *const cells[] = {"lstm", "gru"};
    static const char *const modes[] = {"", ", truncation = 'block', stride = 3", ", truncation = 'uniform'"};
    const char *const mode = modes[_i < 8 ? 0 : _i / 4 - 1], *const sums =
                                                                 _i % 8 < 6 ? "" : ", update = 'sequence', accumulate = 2";
    char text[400];
    uint32_t tokens[TOKENS];
    uint64_t random = 1;
    size_t length = 0;
    for (size_t i = 0; i < TOKENS; i++) { tokens[i] = (uint32_t)(scratch_random(&random) % 5); }
    (void)snprintf(
        text, sizeof text,
        "return {name = 'net', cell = '%s', layers = %d, hidden = 6, vocab = 5, T = 10, K = 4, batch = 2, carry = true, "
        "dtype = '%s', optimizer = 'adam'%s%s%s}",
        cells[_i % 2], 1 + _i / 2 % 2, _i < 4 ? "f32" : "f64",
        _i < 4 ? "" : ", h0 = 'learned', resets = true, separator = 3, dropout = 0.25", mode, sums);
    parse(text, &spec);
    const bptt_data data = {.tokens = tokens, .count = TOKENS};
    train_steps(&spec, &data, NULL, scratch("whole"), 2 * N);
    train_steps(&spec, &data, NULL, scratch("half"), N);
    train_steps(&spec, &data, scratch("half"), scratch("resumed"), N);
    unsigned char *bytes = scratch_get(scratch("whole"), &length);
    assert_file_is(scratch("resumed"), bytes, length);
    free(bytes);
    bptt_st_file file;
    check_ok(bptt_st_read(scratch("half"), &file, &error));
    const char *const dtype = _i < 4 ? "F32" : "F64";
    const uint64_t rows = 6 * (_i % 2 == 0 ? 4 : 3);
    (void)find(&file, "rnn.weight_ih_l0", dtype, 2, rows, 5);
    (void)find(&file, "rnn.weight_hh_l0", dtype, 2, rows, 6);
    (void)find(&file, "moment2.rnn.bias_ih_l0", dtype, 1, rows, 0);
    (void)find(&file, "rnn.bias_hh_l0", dtype, 1, rows, 0);
    ck_assert((bptt_st_find(&file, "moment1.rnn.bias_hh_l0") != NULL) == (_i % 2 == 1));
    if (_i / 2 % 2 == 1) { (void)find(&file, "moment1.rnn.weight_ih_l1", dtype, 2, rows, 6); }
    bptt_st_free(&file);
    bptt_spec_free(&spec);
    (void)scratch_files(1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *cases = tcase_create("checkpoint");
    tcase_add_unchecked_fixture(cases, scratch_open, scratch_close);
    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, test_round_trip, 0, 2);
    tcase_add_test(cases, test_names_and_shapes);
    tcase_add_test(cases, test_spec_from_checkpoint);
    tcase_add_test(cases, test_every_bit_flipped);
    tcase_add_test(cases, test_truncated_at_every_length);
    tcase_add_test(cases, test_wrong_digest_says_so);
    tcase_add_test(cases, test_another_spec);
    tcase_add_test(cases, test_other_tensors);
    tcase_add_test(cases, test_not_finite);
    tcase_add_loop_test(cases, test_weights_from_elsewhere, 0, 4);
    tcase_add_test(cases, test_weights_refusals);
    tcase_add_loop_test(cases, test_weights_save, 0, 2);
    tcase_add_test(cases, test_weights_from_checkpoint);
    tcase_add_test(cases, test_wrong_parts);
    tcase_add_test(cases, test_parts_in_the_file);
    tcase_add_loop_test(cases, test_resume_cells, 0, 16);
    tcase_add_test(cases, test_resume_divides_by_padding);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
