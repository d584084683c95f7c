/* test_safetensors.c: the container, written and read back, and everything a hostile file may try. */
#include "../runtime/safetensors.h"
#include "scratch.h"

#include <time.h>

static bptt_error error;

/* A file of `header` and `data_length` bytes 0, 1, 2, ... */
static void put_file(const char *path, const void *header, size_t header_length, size_t data_length)
{
    const uint64_t length = header_length;
    unsigned char *bytes = calloc(8 + header_length + data_length + 1, 1);
    ck_assert_ptr_nonnull(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, header_length);
    for (size_t i = 0; i < data_length; i++) { bytes[8 + header_length + i] = (unsigned char)i; }
    scratch_put(path, bytes, 8 + header_length + data_length);
    free(bytes);
}

/* What must hold of any file that was accepted, whoever made it. */
static void assert_sound(const bptt_st_file *file)
{
    size_t total = 0;
    for (size_t i = 0; i < file->count; i++) {
        const bptt_st_tensor *tensor = &file->tensors[i];
        const unsigned char *data = tensor->data;
        size_t bytes = tensor->dtype == BPTT_ST_F32 ? 4 : 8;
        ck_assert_uint_le(tensor->rank, 4);
        for (unsigned k = 0; k < tensor->rank; k++) { bytes *= tensor->shape[k]; }
        ck_assert_uint_eq(bytes, tensor->bytes);
        ck_assert(data >= file->buffer + 8 && data + bytes <= file->buffer + file->length);
        ck_assert_ptr_eq(bptt_st_find(file, tensor->name), tensor);
        total += bytes;
    }
    uint64_t header = 0;
    memcpy(&header, file->buffer, 8);
    ck_assert_uint_eq(8 + header + total, file->length);
}

/* Reads; when refused, the one line names the file.  Returns whether it was accepted. */
static bool read_soundly(const char *path)
{
    bptt_st_file file;
    if (bptt_st_read(path, &file, &error) != BPTT_OK) {
        assert_says(&error, path);
        ck_assert_ptr_null(file.buffer);
        return false;
    }
    assert_sound(&file);
    bptt_st_free(&file);
    return true;
}

/* Three tensors and awkward metadata. */
static const char *const sample_keys[] = {"plain", "quote\"\\/", ""};
static const char *const sample_values[] = {"", "tab\t line\n bell\a \xc3\xa9 \"", "v"};
static const float sample_floats[6] = {1, -0.0F, 3.5F, 1e-40F, -2, 7};
static const double sample_double = -1.0 / 3;
static const int64_t sample_integers[2] = {INT64_MIN, INT64_MAX};

static void write_sample(const char *path)
{
    const bptt_st_tensor tensors[] = {
        {.name = (char[]){"w"}, .rank = 2, .shape = {2, 3}, .bytes = 24, .data = sample_floats},
        {.name = (char[]){"empty"}, .rank = 3, .shape = {2, 0, 3}, .bytes = 0, .data = sample_floats},
        {.name = (char[]){"one \"x\"\n"}, .dtype = BPTT_ST_F64, .rank = 0, .bytes = 8, .data = &sample_double},
        {.name = (char[]){"i"}, .dtype = BPTT_ST_I64, .rank = 4, .shape = {1, 2, 1, 1}, .bytes = 16, .data = sample_integers},
    };
    bptt_status status = bptt_st_write(path, tensors, 4, sample_keys, sample_values, 3, &error);
    ck_assert_msg(status == BPTT_OK, "%s", error.text);
}

START_TEST(test_round_trip)
{
    bptt_st_file file;
    size_t first = 0;
    write_sample(scratch("a"));
    write_sample(scratch("b"));
    unsigned char *bytes = scratch_get(scratch("a"), &first);
    assert_file_is(scratch("b"), bytes, first);
    free(bytes);
    ck_assert_int_eq(bptt_st_read(scratch("a"), &file, &error), BPTT_OK);
    assert_sound(&file);
    ck_assert_uint_eq(file.count, 4);
    ck_assert_uint_eq(file.metadata_count, 3);
    for (size_t i = 0; i < 3; i++) { ck_assert_str_eq(bptt_st_metadata(&file, sample_keys[i]), sample_values[i]); }
    ck_assert_ptr_null(bptt_st_metadata(&file, "none"));
    ck_assert_ptr_null(bptt_st_find(&file, "none"));
    const bptt_st_tensor *w = bptt_st_find(&file, "w");
    const bptt_st_tensor *one = bptt_st_find(&file, "one \"x\"\n");
    const bptt_st_tensor *i = bptt_st_find(&file, "i");
    ck_assert(w != NULL && one != NULL && i != NULL);
    ck_assert(same_bytes(w->data, sample_floats, 24));
    ck_assert(same_bytes(one->data, &sample_double, 8));
    ck_assert(same_bytes(i->data, sample_integers, 16));
    ck_assert_uint_eq(w->shape[1], 3);
    ck_assert_uint_eq(i->rank, 4);
    bptt_st_free(&file);
    (void)scratch_files(1);
}
END_TEST

/* The bytes themselves, so that other readers of the format stay served: header padded with spaces to a multiple of 8. */
START_TEST(test_golden_bytes)
{
    static const char key[] = "format";
    static const char value[] = "pt";
    static const char golden[] = "\x60\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"out.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}    "
                                 "\0\0\x80\x3f\0\0\0\xc0";
    const float data[2] = {1, -2};
    const bptt_st_tensor tensor = {.name = (char[]){"out.bias"}, .rank = 1, .shape = {2}, .bytes = 8, .data = data};
    const char *const keys[] = {key};
    const char *const values[] = {value};
    ck_assert_int_eq(bptt_st_write(scratch("g"), &tensor, 1, keys, values, 1, &error), BPTT_OK);
    assert_file_is(scratch("g"), golden, sizeof golden - 1);
    ck_assert_int_eq(bptt_st_write(scratch("g"), NULL, 0, NULL, NULL, 0, &error), BPTT_OK);
    assert_file_is(scratch("g"), "\x08\0\0\0\0\0\0\0{}      ", 16);
    ck_assert(read_soundly(scratch("g")));
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_writer_refusals)
{
    const float data[2] = {1, 2};
    const char *path = scratch("kept");
    bptt_st_tensor tensors[2] = {
        {.name = (char[]){"a"}, .rank = 1, .shape = {1}, .bytes = 4, .data = data},
        {.name = (char[]){"a"}, .rank = 1, .shape = {1}, .bytes = 4, .data = data},
    };
    const char *const keys[] = {"k", "k"};
    scratch_put(path, "precious", 8);
    ck_assert_int_eq(bptt_st_write(path, tensors, 2, NULL, NULL, 0, &error), BPTT_FAILED);
    assert_says(&error, "tensor 'a' occurs twice");
    tensors[1].name[0] = '\0';
    ck_assert_int_eq(bptt_st_write(path, tensors, 2, NULL, NULL, 0, &error), BPTT_FAILED);
    assert_says(&error, "a tensor is called ''");
    tensors[0].bytes = 8;
    ck_assert_int_eq(bptt_st_write(path, tensors, 1, NULL, NULL, 0, &error), BPTT_FAILED);
    assert_says(&error, "tensor 'a': shape and size do not agree");
    ck_assert_int_eq(bptt_st_write(path, NULL, 0, keys, keys, 2, &error), BPTT_FAILED);
    assert_says(&error, "metadata 'k' occurs twice");
    assert_file_is(path, "precious", 8);
    ck_assert_int_eq(scratch_files(1), 1);
}
END_TEST

/* ---- hostile ---- */

#define T(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* Each header goes before 8 bytes of data. */
static const struct {
    const char *header, *message; /* NULL: accepted */
} headers[] = {
    {"{" T("a", "F32", "[2]", "[0,8]") "}", NULL},
    {"{" T("b", "F32", "[1]", "[4,8]") "," T("a", "F32", "[1]", "[0,4]") "}  \n\t\r ", NULL},
    {"{" T("z", "F32", "[0]", "[4,4]") "," T("b", "F32", "[1]", "[4,8]") "," T("a", "F32", "[1,1]", "[0,4]") "}", NULL},
    {"{" T("a", "F64", "[]", "[0,8]") ",\"__metadata__\":{}}", NULL},
    {"{ \"a\" : {\"shape\": [2], \"data_offsets\":[0, 8],\"dtype\" :\"F32\"} }", NULL},
    {"", "the header does not begin with '{'"},
    {" {}", "the header does not begin with '{'"},
    {"[]", "the header does not begin with '{'"},
    {"{}", "8 trailing bytes that belong to no tensor"},
    {"{" T("a", "F32", "[2]", "[0,8]") "", "the header breaks off"},
    {"{" T("a", "F32", "[2]", "[0,8]") "}}", "closes a bracket that is not open"},
    {"{" T("a", "F32", "[2]", "[0,8]") "}{}", "the header is not JSON (at byte 62 of the file)"},
    {"{" T("a", "F32", "[2]", "[0,8]") "} x", "the header is not JSON"},
    {"{" T("a", "F32", "[2]", "[0,8]") ",}", "the header is not JSON"},
    {"{\"a", "the header breaks off"},
    {"{\"a\\\"}", "the header breaks off"},
    {"{a:1}", "the header is not JSON"},
    {"{\"a\x01\":1}", "holds a control character"},
    {"{\v}", "holds a control character"},
    {"{\"a\nb\":1}", "holds a control character"},
    {"{" T("a\\u0000b", "F32", "[2]", "[0,8]") "}", "holds a NUL"},
    {"{\"a\":{\"shape\":[[1]]}}", "nested too deeply"},
    {"{\"a\":1}", "tensor 'a': is not an object"},
    {"{\"a\":null}", "tensor 'a': is not an object"},
    {"{\"a\":{}}", "tensor 'a': no dtype"},
    {"{\"a\":{\"dtype\":\"F32\"}}", "tensor 'a': no shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "tensor 'a': no data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "tensor 'a': duplicate key 'dtype'"},
    {"{\"a\":{\"Dtype\":\"F32\"}}", "tensor 'a': unknown key 'Dtype'"},
    {"{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor 'a': dtype is not a string"},
    {"{" T("a", "BF16", "[4]", "[0,8]") "}", "tensor 'a': dtype BF16; F32, F64 and I64 are supported"},
    {"{" T("a", "f32", "[2]", "[0,8]") "}", "tensor 'a': dtype f32"},
    {"{" T("", "F32", "[2]", "[0,8]") "}", "a tensor is called ''"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", "tensor 'a' occurs twice"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("\\u0061", "F32", "[1]", "[4,8]") "}", "tensor 'a' occurs twice"},
    {"{" T("a", "F32", "2", "[0,8]") "}", "shape is not a list"},
    {"{" T("a", "F32", "{}", "[0,8]") "}", "shape is not a list"},
    {"{" T("a", "F32", "[\"2\"]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[-2]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[2.5]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[1e999]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[9007199254740993]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[true]", "[0,8]") "}", "shape is not made of whole numbers"},
    {"{" T("a", "F32", "[1,1,1,1,2]", "[0,8]") "}", "more than 4 dimensions"},
    {"{" T("a", "F32", "[4503599627370496,4503599627370496]", "[0,8]") "}", "shape overflows"},
    {"{" T("a", "F32", "[4294967296,1073741824]", "[0,0]") "}", "shape overflows"},
    {"{" T("a", "F32", "[4503599627370496,4503599627370496,0]", "[0,0]") "}", "shape overflows"},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", "tensor 'a' has 4 bytes of data, its shape and dtype need 8"},
    {"{" T("a", "F32", "[1]", "[0,8]") "}", "tensor 'a' has 8 bytes of data, its shape and dtype need 4"},
    {"{" T("a", "F32", "[3]", "[0,12]") "}", "tensor 'a' ends at byte 12 of the data, which has 8"},
    {"{" T("a", "F32", "[0]", "[4503599627370496,4503599627370496]") "}", "tensor 'a' ends at byte 4503599627370496"},
    {"{" T("a", "F32", "[2]", "[8,0]") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "[-8,0]") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "[0,8,8]") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "[]") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "[0,18446744073709551624]") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "{\"x\":0,\"y\":8}") "}", "data_offsets is not [begin, end]"},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[1]", "[4,8]") "}", "tensor 'b': overlaps another one"},
    {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[0,4]") "}", "overlaps another one"},
    {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[0]", "[4,4]") "}", "tensor 'b': overlaps another one"},
    {"{" T("b", "F32", "[1]", "[4,8]") "}", "tensor 'b': a gap before its data"},
    {"{" T("b", "F32", "[1]", "[0,4]") "}", "4 trailing bytes"},
    {"{\"__metadata__\":[]}", "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"a\":1}}", "metadata 'a' is not a string"},
    {"{\"__metadata__\":{\"a\":{}}}", "metadata 'a' is not a string"},
    {"{\"__metadata__\":{\"a\":\"1\",\"b\":\"\",\"a\":\"2\"}}", "metadata 'a' occurs twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "__metadata__ occurs twice"},
};

START_TEST(test_hostile_header)
{
    const char *path = scratch("h");
    const char *header = headers[_i].header;
    put_file(path, header, strlen(header), 8);
    bool accepted = read_soundly(path);
    ck_assert_msg(accepted == (headers[_i].message == NULL), "%s", header);
    if (headers[_i].message != NULL) { assert_says(&error, headers[_i].message); }
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_hostile_lengths)
{
    static const struct {
        uint64_t length;
        const char *message;
    } cases[] = {
        {0, "the header does not begin with '{'"},
        {9, "truncated (a header of 9 bytes in a file of 16)"},
        {100000000, "truncated (a header of 100000000 bytes in a file of 16)"},
        {100000001, "not a safetensors file (a header of 100000001 bytes; at most 100000000)"},
        {UINT64_MAX, "not a safetensors file"},
        {UINT64_MAX - 7, "not a safetensors file"},
        {UINT64_C(1) << 63, "not a safetensors file"},
    };
    unsigned char bytes[16] = "        {}      ";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(bytes, &cases[i].length, 8);
        scratch_put(scratch("l"), bytes, sizeof bytes);
        ck_assert(!read_soundly(scratch("l")));
        assert_says(&error, cases[i].message);
    }
    for (size_t length = 0; length < 8; length++) {
        scratch_put(scratch("l"), bytes, length);
        ck_assert(!read_soundly(scratch("l")));
        assert_says(&error, "not a safetensors file");
    }
    (void)scratch_files(1);
}
END_TEST

/* Headers that would cost cJSON its stack or gigabytes of memory are turned away before it sees them. */
START_TEST(test_hostile_sizes)
{
    enum { SIZE = 4000000 };
    static char text[SIZE];
    memset(text, '[', SIZE);
    text[0] = '{';
    put_file(scratch("deep"), text, SIZE, 0);
    ck_assert(!read_soundly(scratch("deep")));
    assert_says(&error, "nested too deeply");
    for (size_t i = 0; i < SIZE; i++) { text[i] = i % 2 == 0 ? ',' : '1'; }
    text[0] = '{';
    put_file(scratch("wide"), text, SIZE, 0);
    ck_assert(!read_soundly(scratch("wide")));
    assert_says(&error, "more than a million values");
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_truncated_at_every_length)
{
    size_t length = 0;
    write_sample(scratch("whole"));
    unsigned char *bytes = scratch_get(scratch("whole"), &length);
    for (size_t cut = 0; cut < length; cut++) {
        scratch_put(scratch("cut"), bytes, cut);
        ck_assert_msg(!read_soundly(scratch("cut")), "accepted at %zu of %zu bytes", cut, length);
    }
    scratch_put(scratch("cut"), bytes, length + 1); /* scratch_get ends with a NUL */
    ck_assert(!read_soundly(scratch("cut")));
    assert_says(&error, "1 trailing bytes");
    free(bytes);
    (void)scratch_files(1);
}
END_TEST

/* A flip may leave a file that is sound but says something else ("w" becomes "v"); checkpoint.c has a digest against that. */
START_TEST(test_every_bit_flipped)
{
    size_t length = 0;
    uint64_t header = 0;
    size_t refused = 0;
    write_sample(scratch("whole"));
    unsigned char *bytes = scratch_get(scratch("whole"), &length);
    memcpy(&header, bytes, 8);
    for (size_t bit = 0; bit < 8 * (8 + header); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        scratch_put(scratch("flip"), bytes, length);
        refused += !read_soundly(scratch("flip"));
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    ck_assert_uint_gt(refused, 4 * header);
    free(bytes);
    (void)scratch_files(1);
}
END_TEST

START_TEST(test_random_damage)
{
    static const char pieces[] = "{}[]\",:0123456789eE+-.\\u \n\xff";
    size_t length = 0;
    uint64_t seed = (uint64_t)time(NULL);
    printf("test_random_damage: seed %llu\n", (unsigned long long)seed);
    write_sample(scratch("whole"));
    unsigned char *bytes = scratch_get(scratch("whole"), &length);
    unsigned char *damaged = malloc(length);
    ck_assert_ptr_nonnull(damaged);
    for (int round = 0; round < 5000; round++) {
        memcpy(damaged, bytes, length);
        for (size_t i = 0; i < 1 + scratch_random(&seed) % 4; i++) {
            damaged[8 + scratch_random(&seed) % (length - 8)] =
                (unsigned char)pieces[scratch_random(&seed) % (sizeof pieces - 1)];
        }
        scratch_put(scratch("damaged"), damaged, length);
        (void)read_soundly(scratch("damaged"));
    }
    free(damaged);
    free(bytes);
    (void)scratch_files(1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *cases = tcase_create("safetensors");
    tcase_add_unchecked_fixture(cases, scratch_open, scratch_close);
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_round_trip);
    tcase_add_test(cases, test_golden_bytes);
    tcase_add_test(cases, test_writer_refusals);
    tcase_add_loop_test(cases, test_hostile_header, 0, (int)(sizeof headers / sizeof headers[0]));
    tcase_add_test(cases, test_hostile_lengths);
    tcase_add_test(cases, test_hostile_sizes);
    tcase_add_test(cases, test_truncated_at_every_length);
    tcase_add_test(cases, test_every_bit_flipped);
    tcase_add_test(cases, test_random_damage);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
