/* test_npz.c: numpy's archives, written and read back, one of numpy's own, and what a hostile file may try. */
#include "../runtime/npz.h"
#include "scratch.h"

#include <math.h>
#include <zlib.h>

static bptt_error error;

static void check_ok(bptt_status status)
{
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

static void assert_refused(const char *path, const char *message)
{
    bptt_st_file file;
    ck_assert_int_eq(bptt_npz_read(path, &file, &error), BPTT_FAILED);
    assert_says(&error, path);
    assert_says(&error, message);
    ck_assert_ptr_null(file.buffer);
}

static const bptt_st_tensor *find(const bptt_st_file *file, const char *name, bptt_st_dtype dtype, unsigned rank, uint64_t rows,
                                  uint64_t cols)
{
    const bptt_st_tensor *tensor = bptt_st_find(file, name);
    ck_assert_msg(tensor != NULL, "%s is missing", name);
    ck_assert_int_eq(tensor->dtype, dtype);
    ck_assert_uint_eq(tensor->rank, rank);
    ck_assert_uint_eq(tensor->shape[0], rows);
    ck_assert_uint_eq(tensor->shape[1], cols);
    return tensor;
}

/* ---- numpy's ---- */

/* numpy 1.24: savez_compressed(file, **{"a.w": asfortranarray(arange(1., 13.).reshape(4, 3)),
 * "b": array([0.5, -2., -0., 3e-45], "f4"), "n": array(7)}) */
static const unsigned char from_numpy[] = {
    80,  75,  3,   4,   20,  0,   0,   0,   8,   0,   0,   0,   33,  0,   231, 220, 156, 43,  105, 0,   0,   0,   224, 0,   0,
    0,   7,   0,   20,  0,   97,  46,  119, 46,  110, 112, 121, 1,   0,   16,  0,   224, 0,   0,   0,   0,   0,   0,   0,   105,
    0,   0,   0,   0,   0,   0,   0,   155, 236, 23,  234, 27,  16,  201, 200, 80,  198, 80,  173, 158, 146, 90,  156, 92,  164,
    110, 165, 160, 110, 147, 102, 161, 174, 163, 160, 158, 150, 95,  84,  82,  148, 152, 23,  159, 95,  148, 146, 10,  18,  15,
    41,  42,  77,  5,   10,  23,  103, 36,  22,  164, 2,   185, 26,  38,  58,  10,  198, 154, 58,  10,  181, 10,  228, 3,   46,
    6,   48,  248, 96,  15,  161, 5,   28,  32,  180, 12,  148, 86,  129, 210, 12,  80,  90,  4,   74,  43,  64,  105, 53,  40,
    205, 1,   165, 37,  160, 180, 18,  148, 214, 112, 0,   0,   80,  75,  3,   4,   20,  0,   0,   0,   8,   0,   0,   0,   33,
    0,   199, 32,  233, 177, 80,  0,   0,   0,   144, 0,   0,   0,   5,   0,   20,  0,   98,  46,  110, 112, 121, 1,   0,   16,
    0,   144, 0,   0,   0,   0,   0,   0,   0,   80,  0,   0,   0,   0,   0,   0,   0,   155, 236, 23,  234, 27,  16,  201, 200,
    80,  198, 80,  173, 158, 146, 90,  156, 92,  164, 110, 165, 160, 110, 147, 102, 162, 174, 163, 160, 158, 150, 95,  84,  82,
    148, 152, 23,  159, 95,  148, 146, 10,  18,  119, 75,  204, 41,  78,  5,   138, 23,  103, 36,  22,  164, 2,   249, 26,  38,
    58,  154, 58,  10,  181, 10,  20,  0,   46,  6,   6,   6,   123, 32,  62,  0,   196, 13,  76,  64,  2,   0,   80,  75,  3,
    4,   20,  0,   0,   0,   8,   0,   0,   0,   33,  0,   35,  184, 240, 108, 70,  0,   0,   0,   136, 0,   0,   0,   5,   0,
    20,  0,   110, 46,  110, 112, 121, 1,   0,   16,  0,   136, 0,   0,   0,   0,   0,   0,   0,   70,  0,   0,   0,   0,   0,
    0,   0,   155, 236, 23,  234, 27,  16,  201, 200, 80,  198, 80,  173, 158, 146, 90,  156, 92,  164, 110, 165, 160, 110, 147,
    105, 161, 174, 163, 160, 158, 150, 95,  84,  82,  148, 152, 23,  159, 95,  148, 146, 10,  18,  119, 75,  204, 41,  78,  5,
    138, 23,  103, 36,  22,  164, 2,   249, 26,  154, 58,  10,  181, 10,  20,  1,   46,  118, 6,   8,   0,   0,   80,  75,  1,
    2,   20,  3,   20,  0,   0,   0,   8,   0,   0,   0,   33,  0,   231, 220, 156, 43,  105, 0,   0,   0,   224, 0,   0,   0,
    7,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   128, 1,   0,   0,   0,   0,   97,  46,  119, 46,  110, 112, 121,
    80,  75,  1,   2,   20,  3,   20,  0,   0,   0,   8,   0,   0,   0,   33,  0,   199, 32,  233, 177, 80,  0,   0,   0,   144,
    0,   0,   0,   5,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   128, 1,   162, 0,   0,   0,   98,  46,  110, 112,
    121, 80,  75,  1,   2,   20,  3,   20,  0,   0,   0,   8,   0,   0,   0,   33,  0,   35,  184, 240, 108, 70,  0,   0,   0,
    136, 0,   0,   0,   5,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   128, 1,   41,  1,   0,   0,   110, 46,  110,
    112, 121, 80,  75,  5,   6,   0,   0,   0,   0,   3,   0,   3,   0,   155, 0,   0,   0,   166, 1,   0,   0,   0,   0};

static void check_numpy(const bptt_st_file *file)
{
    static const double w[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const float b[] = {0.5F, -2, -0.0F, 3e-45F};
    static const int64_t n = 7;
    ck_assert_uint_eq(file->count, 3);
    ck_assert(same_bytes(find(file, "a.w", BPTT_ST_F64, 2, 4, 3)->data, w, sizeof w));
    ck_assert(same_bytes(find(file, "b", BPTT_ST_F32, 1, 4, 0)->data, b, sizeof b));
    ck_assert(same_bytes(find(file, "n", BPTT_ST_I64, 0, 0, 0)->data, &n, sizeof n));
}

START_TEST(test_from_numpy)
{
    bptt_st_file file;
    scratch_put(scratch("z"), from_numpy, sizeof from_numpy);
    ck_assert(bptt_npz_like(scratch("z")));
    check_ok(bptt_npz_read(scratch("z"), &file, &error));
    check_numpy(&file);
    /* Ours of the same arrays, read back. */
    check_ok(bptt_npz_write(scratch("ours"), file.tensors, file.count, &error));
    bptt_st_free(&file);
    check_ok(bptt_npz_read(scratch("ours"), &file, &error));
    check_numpy(&file);
    bptt_st_free(&file);
    (void)scratch_files(1);
}
END_TEST

/* No flipped bit may go unnoticed: refused, or of no consequence (a date, say).  No length but the whole is taken. */
START_TEST(test_damage)
{
    bptt_st_file file;
    unsigned char *bytes = NULL;
    size_t length = sizeof from_numpy, refused = 0;
    scratch_put(scratch("z"), from_numpy, sizeof from_numpy);
    if (_i == 1) {
        check_ok(bptt_npz_read(scratch("z"), &file, &error));
        check_ok(bptt_npz_write(scratch("z"), file.tensors, file.count, &error));
        bptt_st_free(&file);
    }
    bytes = scratch_get(scratch("z"), &length);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_put(scratch("flip"), bytes, length);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (bptt_npz_read(scratch("flip"), &file, &error) != BPTT_OK) {
            refused++;
            continue;
        }
        check_numpy(&file);
        bptt_st_free(&file);
    }
    ck_assert_uint_gt(refused, 4 * length);
    for (size_t cut = 0; cut < length; cut++) {
        scratch_put(scratch("cut"), bytes, cut);
        assert_refused(scratch("cut"), "");
    }
    free(bytes);
    (void)scratch_files(1);
}
END_TEST

/* ---- hostile files ---- */

static void put(unsigned char *to, uint32_t value, size_t count)
{
    for (size_t i = 0; i < count; i++) { to[i] = (unsigned char)(value >> 8 * i); }
}

/* An archive of one stored entry, whose checksum is right. */
static size_t make_archive(unsigned char *to, const char *name, const void *bytes, size_t length)
{
    const size_t name_length = strlen(name), size = 30 + name_length + length;
    memset(to, 0, size + 46 + name_length + 22);
    unsigned char *const line = to + size, *const end = line + 46 + name_length;
    put(to, 0x04034b50, 4);
    put(line, 0x02014b50, 4);
    put(end, 0x06054b50, 4);
    put(to + 26, (uint32_t)name_length, 2);
    put(line + 28, (uint32_t)name_length, 2);
    memcpy(to + 30, name, name_length);
    memcpy(line + 46, name, name_length);
    memcpy(to + 30 + name_length, bytes, length);
    put(line + 16, (uint32_t)crc32_z(crc32_z(0, NULL, 0), bytes, length), 4);
    put(line + 20, (uint32_t)length, 4);
    put(line + 24, (uint32_t)length, 4);
    put(end + 8, 1, 2);
    put(end + 10, 1, 2);
    put(end + 12, (uint32_t)(46 + name_length), 4);
    put(end + 16, (uint32_t)size, 4);
    return (size_t)(end + 22 - to);
}

/* An array with this dictionary and 24 bytes of data. */
static size_t make_array(unsigned char to[512], int version, const char *dictionary)
{
    const size_t length = strlen(dictionary), head = version == 1 ? 10 : 12;
    memset(to, 0, 512);
    memcpy(to, "\x93NUMPY", 6);
    to[6] = (unsigned char)version;
    put(to + 8, (uint32_t)length, head - 8);
    memcpy(to + head, dictionary, length);
    return head + length + 24;
}

static const struct {
    const char *dictionary, *message; /* NULL: good */
} dictionaries[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", NULL},
    {"{'shape':(6,),'descr':'<f4','fortran_order':True}", NULL},
    {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 3), }\n", NULL},
    {"", "its header is not a dictionary"},
    {"[]", "its header is not a dictionary"},
    {"{", "not one of an array"},
    {"{}", "not one of an array"},
    {"{'descr': '<f4', 'fortran_order': False}", "not one of an array"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", "not one of an array"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", "not one of an array"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} x", "not one of an array"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (6,)}", "not one of an array"},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (6,)}", "its dtype is not one of"},
    {"{'descr': '<f2', 'fortran_order': False, 'shape': (12,)}", "its dtype is not one of"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "its dtype is not one of"},
    {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (6,)}", "neither True nor False"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (6", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,6)}", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551622,)}", "its shape is not"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387910,)}", "does not agree with its size"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", "does not agree with its size"},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2, 3)}", "in Fortran order, with more than two"},
};

START_TEST(test_dictionaries)
{
    unsigned char array[512], archive[1024];
    bptt_st_file file;
    for (int version = 1; version <= 3; version++) {
        const size_t length = make_array(array, version, dictionaries[_i].dictionary);
        scratch_put(scratch("z"), archive, make_archive(archive, "x.npy", array, length));
        if (dictionaries[_i].message != NULL) {
            assert_refused(scratch("z"), dictionaries[_i].message);
            continue;
        }
        check_ok(bptt_npz_read(scratch("z"), &file, &error));
        ck_assert_uint_eq(file.tensors[0].bytes, 24);
        bptt_st_free(&file);
    }
    (void)scratch_files(1);
}
END_TEST

/* One field of a good archive changed at a time. */
START_TEST(test_fields)
{
    enum { NAME = 5 };
    unsigned char array[512], archive[1024];
    const size_t length = make_array(array, 1, dictionaries[0].dictionary), line = 30 + NAME + length, end = line + 46 + NAME;
    const struct {
        size_t offset, count;
        uint32_t value;
        const char *message;
    } changes[] = {
        {line + 8, 2, 1, "encrypted"},
        {line + 10, 2, 12, "unknown compression"},
        {line + 10, 2, 8, "its head does not agree"},
        {8, 2, 8, "its head does not agree"},
        {26, 2, 4, "its head does not agree"},
        {28, 2, 0xffff, "its head does not agree"},
        {line + 16, 4, 1, "wrong checksum"},
        {line + 20, 4, 1, "its sizes cannot be"},
        {line + 24, 4, 0xffffffff, "4 GiB"},
        {line + 28, 2, 600, "the archive's directory is damaged"},
        {line + 42, 4, 0xfffffffe, "begins beyond the archive"},
        {line + 42, 4, 1, "its head does not agree"},
        {line + 46, 1, 0x1b, "control characters"},
        {line + 46 + NAME - 1, 1, 'z', "does not end in .npy"},
        {end + 4, 2, 1, "several files"},
        {end + 10, 2, 2, "several files"},
        {end + 12, 4, 46, "the archive's directory is damaged"},
        {end + 16, 4, 0xfffffff0, "is not where its end says"},
        {end + 16, 4, 0xffffffff, "zip64"},
        {30 + NAME + 6, 1, 9, "wrong checksum"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const size_t whole = make_archive(archive, "x.npy", array, length);
        put(archive + changes[i].offset, changes[i].value, changes[i].count);
        scratch_put(scratch("z"), archive, whole);
        assert_refused(scratch("z"), changes[i].message);
    }
    array[6] = 9;
    scratch_put(scratch("z"), archive, make_archive(archive, "x.npy", array, length));
    assert_refused(scratch("z"), "'x.npy': an unknown version");
    scratch_put(scratch("z"), archive, make_archive(archive, "model/data.pkl", array, length));
    assert_refused(scratch("z"), "a file of torch.save; save the state_dict with safetensors or numpy.savez");
    scratch_put(scratch("z"), archive, make_archive(archive, "x.npy", "numpy", 5));
    assert_refused(scratch("z"), "not an array in .npy format");
    scratch_put(scratch("z"), archive, make_archive(archive, ".npy", array, length));
    assert_refused(scratch("z"), "");
    (void)scratch_files(1);
}
END_TEST

/* A claim of gigabytes costs none: what deflate cannot reach is refused before memory is taken. */
START_TEST(test_bomb)
{
    unsigned char archive[256];
    const size_t whole = make_archive(archive, "x.npy", "0123456789", 10), line = 30 + 5 + 10;
    put(archive + 8, 8, 2);
    put(archive + line + 10, 8, 2);
    put(archive + line + 24, 0xfffffff0, 4);
    scratch_put(scratch("z"), archive, whole);
    assert_refused(scratch("z"), "its sizes cannot be");
    put(archive + line + 24, 10000, 4);
    scratch_put(scratch("z"), archive, whole);
    assert_refused(scratch("z"), "cannot be unpacked");
    (void)scratch_files(1);
}
END_TEST

/* ---- writing ---- */

START_TEST(test_write)
{
    static char names[3][8] = {"a", "b.c", "d"};
    static const float values[] = {1, -0.0F, 3, 4, 5, 6};
    const bptt_st_tensor tensors[] = {{names[0], BPTT_ST_F32, 2, {2, 3}, 24, values},
                                      {names[1], BPTT_ST_F32, 4, {1, 2, 1, 3}, 24, values},
                                      {names[2], BPTT_ST_F32, 1, {0}, 0, values}};
    bptt_st_file file;
    size_t length = 0;
    check_ok(bptt_npz_write(scratch("z"), tensors, 3, &error));
    check_ok(bptt_npz_write(scratch("again"), tensors, 3, &error));
    unsigned char *bytes = scratch_get(scratch("z"), &length);
    assert_file_is(scratch("again"), bytes, length);
    free(bytes);
    check_ok(bptt_npz_read(scratch("z"), &file, &error));
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(file.tensors[i].name, names[i]);
        ck_assert_uint_eq(file.tensors[i].rank, tensors[i].rank);
        ck_assert(same_bytes(file.tensors[i].shape, tensors[i].shape, sizeof tensors[i].shape));
        ck_assert(same_bytes(file.tensors[i].data, values, tensors[i].bytes));
    }
    bptt_st_free(&file);
    ck_assert_int_eq(bptt_npz_write("/nowhere/z", tensors, 3, &error), BPTT_FAILED);
    assert_says(&error, "/nowhere/z");
    check_ok(bptt_npz_write(scratch("none"), NULL, 0, &error));
    check_ok(bptt_npz_read(scratch("none"), &file, &error));
    ck_assert_uint_eq(file.count, 0);
    bptt_st_free(&file);
    (void)scratch_files(1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("npz");
    TCase *cases = tcase_create("npz");
    tcase_add_unchecked_fixture(cases, scratch_open, scratch_close);
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_from_numpy);
    tcase_add_loop_test(cases, test_damage, 0, 2);
    tcase_add_loop_test(cases, test_dictionaries, 0, (int)(sizeof dictionaries / sizeof *dictionaries));
    tcase_add_test(cases, test_fields);
    tcase_add_test(cases, test_bomb);
    tcase_add_test(cases, test_write);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
