/* test_reals.c: files of numbers, good and hostile, and the rows that a model is fed from them.  Depends on Check and scratch.h. */
#include "../runtime/feed.h"
#include "interpret.h"
#include "scratch.h"

#include <locale.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bptt_error error;

static const char *write_file(const char *name, const void *bytes, size_t length)
{
    const char *path = scratch(name);
    ck_assert_int_eq(bptt_file_write(path, bytes, length, &error), BPTT_OK);
    return path;
}

static const char *write_text(const char *text)
{
    return write_file("table.csv", text, strlen(text));
}

/* The message of a refusal, without the folder's path. */
static const char *refusal(const char *path, bptt_reals_format format, size_t columns)
{
    bptt_reals reals;
    error.text[0] = '\0';
    ck_assert_int_eq(bptt_reals_load(path, format, columns, &reals, &error), BPTT_FAILED);
    ck_assert_ptr_null(reals.values);
    ck_assert(strncmp(error.text, path, strlen(path)) == 0);
    return error.text + strlen(path);
}

/* --- CSV ------------------------------------------------------------------------------------------------------------------------- */

static void assert_table(const bptt_reals *reals, size_t count, size_t columns, size_t length, const double *values)
{
    ck_assert_uint_eq(reals->count, count);
    ck_assert_uint_eq(reals->columns, columns);
    ck_assert_uint_eq(reals->length, length);
    for (size_t i = 0; i < count * columns; i++) {
        ck_assert(isnan(values[i]) ? isnan(reals->values[i]) : reals->values[i] == values[i]);
    }
}

static const char *const good_csv[] = {
    "1,2\n3,-4.5e1\n",
    "1,2\n3,-4.5e1",
    "1,2\r\n3,-4.5e1\r\n",
    "a,b\n1,2\n3,-4.5e1\n",
    " 1 ,\t2\n3, -45\n\n\n",
    "\xef\xbb\xbf"
    "1,2\n3,-45\n",
    "a 1,b2\r\n1,2\r\n3,-45",
    "1.0,+2\n.3e1,-45.\n",
};

START_TEST(csv)
{
    static const double values[] = {1, 2, 3, -45};
    bptt_reals reals;
    ck_assert_msg(bptt_reals_load(write_text(good_csv[_i]), BPTT_REALS_AUTO, 9, &reals, &error) == BPTT_OK, "%s", error.text);
    assert_table(&reals, 2, 2, 0, values);
    free(reals.values);
}
END_TEST

START_TEST(csv_without_some_numbers)
{
    const double values[] = {1, (double)NAN, (double)NAN, 2};
    bptt_reals reals;
    ck_assert_int_eq(bptt_reals_load(write_text("1,nan\n,2\n"), BPTT_REALS_AUTO, 0, &reals, &error), BPTT_OK);
    assert_table(&reals, 2, 2, 0, values);
    free(reals.values);
}
END_TEST

/* A comma locale makes no difference. */
START_TEST(csv_in_a_locale)
{
    const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8"};
    for (size_t i = 0; i < COUNT(names) && setlocale(LC_ALL, names[i]) == NULL; i++) {}
    bptt_reals reals;
    ck_assert_int_eq(bptt_reals_load(write_text("0.5,1.25\n"), BPTT_REALS_AUTO, 0, &reals, &error), BPTT_OK);
    (void)setlocale(LC_ALL, "C");
    assert_table(&reals, 1, 2, 0, (const double[]){0.5, 1.25});
    free(reals.values);
}
END_TEST

static const struct {
    const char *text, *message;
} bad_csv[] = {
    {"1,2\n3,x\n", ":2: column 2: 'x' is not a number"},
    {"1,x\n", ":1: column 2: 'x' is not a number"},
    {"1,2\n3\n", ":2: has less than the 2 columns of the lines before"},
    {"1,2\n3,4,5\n", ":2: has more than the 2 columns of the lines before"},
    {"1,2\n\n3,4\n", ":2: is empty"},
    {"\n1\n", ":1: is empty"},
    {"a,b\n", ": has no line of numbers"},
    {"a,b\nc,d\n", ":2: column 1: 'c' is not a number"},
    {"\n\n", ": has no line of numbers"},
    {"", ": is empty"},
    {"1\n0x10\n", ":2: column 1: '0x10' is not a number"},
    {"1\ninf\n", ":2: column 1: 'inf' is not a number"},
    {"1\n1e\n", ":2: column 1: '1e' is not a number"},
    {"1\n1 2\n", ":2: column 1: '1 2' is not a number"},
    {"1\n\"2\"\n", ":2: column 1: '\"2\"' is not a number"},
    {"1\n1;2\n", ":2: column 1: '1;2' is not a number"},
    {"1\n\x1b[31m\n", ":2: column 1: '?[31m' is not a number"},
    {"1\n0000000000000000000000000000000000000000000000000000000000000000000000000001\n",
     ":2: column 1: '0000000000000000000000000000000000000000' is not a number"},
};

START_TEST(csv_refused)
{
    ck_assert_str_eq(refusal(write_text(bad_csv[_i].text), BPTT_REALS_AUTO, 0), bad_csv[_i].message);
}
END_TEST

START_TEST(csv_with_a_zero_byte)
{
    ck_assert_str_eq(refusal(write_file("zero.csv", "1\n1\0\n", 5), BPTT_REALS_CSV, 0), ":2: column 1: '1?' is not a number");
}
END_TEST

/* --- .npy ------------------------------------------------------------------------------------------------------------------------- */

/* A .npy file of a header and `size` bytes of numbers, 1, 2, 3, ... as floats.  Returns its length. */
static size_t make_npy(unsigned char *bytes, int version, const char *header, size_t size)
{
    const size_t length = strlen(header), field = version == 1 ? 2 : 4, start = 8 + field + length;
    memset(bytes, 0, start);
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (unsigned char)version;
    bytes[8] = (unsigned char)length;
    bytes[9] = (unsigned char)(length >> 8);
    memcpy(bytes + 8 + field, header, length);
    for (size_t i = 0; i < size / 4; i++) {
        const float value = (float)i + 1;
        memcpy(bytes + start + 4 * i, &value, 4);
    }
    return start + size;
}

START_TEST(npy)
{
    static const double values[] = {1, 2, 3, 4, 5, 6};
    static const struct {
        int version;
        const char *header;
        size_t columns, length;
    } cases[] = {
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }          \n", 2, 0},
        {2, "{'shape':(2,3),'fortran_order':False,'descr':'<f4'}\n", 3, 0},
        {3, "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (3, 1, 2)}", 2, 1},
    };
    unsigned char bytes[300];
    for (size_t i = 0; i < COUNT(cases); i++) {
        bptt_reals reals;
        const size_t length = make_npy(bytes, cases[i].version, cases[i].header, sizeof values / 2);
        ck_assert_msg(bptt_reals_load(write_file("a.npy", bytes, length), BPTT_REALS_AUTO, 0, &reals, &error) == BPTT_OK, "%s",
                      error.text);
        assert_table(&reals, 6 / cases[i].columns, cases[i].columns, cases[i].length, values);
        free(reals.values);
    }
}
END_TEST

#define HEADER(descr, order, shape) "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }\n"
#define DAMAGED                     ": a .npy file whose header is damaged"
static const struct {
    const char *header;
    size_t size;
    const char *message;
} bad_npy[] = {
    {HEADER("<f4", "True", "(3, 2)"), 24,
     ": a .npy file whose header says Fortran order; expected C order (numpy.ascontiguousarray)"},
    {HEADER(">f4", "False", "(3, 2)"), 24,
     ": a .npy file whose header has another type of numbers than little-endian floats, <f4 or <f8"},
    {HEADER("<i4", "False", "(3, 2)"), 24,
     ": a .npy file whose header has another type of numbers than little-endian floats, <f4 or <f8"},
    {HEADER("|O", "False", "(3, 2)"), 24,
     ": a .npy file whose header has another type of numbers than little-endian floats, <f4 or <f8"},
    {HEADER("<f4", "False", "(3, 2)"), 20, ": has 20 bytes of numbers; its header says [1][3][2] of 4 bytes each"},
    {HEADER("<f4", "False", "(3, 2)"), 28, ": has 28 bytes of numbers; its header says [1][3][2] of 4 bytes each"},
    {HEADER("<f8", "False", "(3, 2)"), 24, ": has 24 bytes of numbers; its header says [1][3][2] of 8 bytes each"},
    {HEADER("<f4", "False", "(4294967296, 4294967296)"), 0,
     ": has 0 bytes of numbers; its header says [1][4294967296][4294967296] of 4 bytes each"},
    {HEADER("<f4", "False", "(4611686018427387904, 4)"), 0,
     ": has 0 bytes of numbers; its header says [1][4611686018427387904][4] of 4 bytes each"},
    {HEADER("<f4", "False", "(99999999999999999999, 4)"), 0, ": a .npy file whose header has a shape that is none"},
    {HEADER("<f4", "False", "(0, 2)"), 0, ": is empty"},
    {HEADER("<f4", "False", "(3,)"), 12,
     ": a .npy file whose header has less than two dimensions; expected [rows][columns] or [sequences][rows][columns]"},
    {HEADER("<f4", "False", "()"), 4,
     ": a .npy file whose header has less than two dimensions; expected [rows][columns] or [sequences][rows][columns]"},
    {HEADER("<f4", "False", "(1, 1, 1, 1)"), 4,
     ": a .npy file whose header has more than three dimensions; expected [rows][columns] or [sequences][rows][columns]"},
    {HEADER("<f4", "False", "(-1, 2)"), 0, ": a .npy file whose header has a shape that is none"},
    {HEADER("<f4", "False", "(3 2)"), 24, ": a .npy file whose header has a shape that is none"},
    {HEADER("<f4", "False", "3"), 24, ": a .npy file whose header has no shape"},
    {"{'descr': '<f4', 'shape': (3, 2)}", 24, DAMAGED},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)", 24, DAMAGED},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (3, 2)}", 24, DAMAGED},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'more': 1}", 24, DAMAGED},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)} x", 24, DAMAGED},
    {"", 24, DAMAGED},
    {"{", 24, DAMAGED},
    {"{'descr", 24, DAMAGED},
};

START_TEST(npy_refused)
{
    unsigned char bytes[400];
    const size_t length = make_npy(bytes, 1, bad_npy[_i].header, bad_npy[_i].size);
    ck_assert_str_eq(refusal(write_file("b.npy", bytes, length), BPTT_REALS_AUTO, 0), bad_npy[_i].message);
}
END_TEST

/* Every prefix of a good file is refused, and so is a header length beyond the end. */
START_TEST(npy_cut_off)
{
    unsigned char bytes[300];
    const size_t length = make_npy(bytes, 1, HEADER("<f4", "False", "(3, 2)"), 24);
    for (size_t n = 6; n < length; n++) { (void)refusal(write_file("cut.npy", bytes, n), BPTT_REALS_NPY, 0); }
    bytes[9] = 0xff;
    ck_assert_str_eq(refusal(write_file("cut.npy", bytes, length), BPTT_REALS_NPY, 0), ": a .npy file that is cut off");
    bytes[6] = 4;
    ck_assert_str_eq(refusal(write_file("cut.npy", bytes, length), BPTT_REALS_NPY, 0),
                     ": a .npy file of version 4; expected 1 to 3");
    ck_assert_str_eq(refusal(write_text("1,2\n"), BPTT_REALS_NPY, 0), ": is no .npy file");
}
END_TEST

/* Bytes changed at random: refused or read, never more than that. */
START_TEST(npy_at_random)
{
    uint64_t random = 7;
    for (int i = 0; i < 2000; i++) {
        unsigned char bytes[300];
        const size_t length = make_npy(bytes, 1 + i % 3, HEADER("<f4", "False", "(3, 2)"), 24);
        for (int flips = 1 + i % 3; flips > 0; flips--) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            bytes[(random >> 33) % (length - 24)] = (unsigned char)(random >> 20);
        }
        bptt_reals reals;
        if (bptt_reals_load(write_file("r.npy", bytes, length), BPTT_REALS_NPY, 0, &reals, &error) == BPTT_OK) {
            ck_assert_uint_le(reals.count * reals.columns, 6);
            free(reals.values);
        }
    }
}
END_TEST

START_TEST(raw)
{
    static const float values[] = {1, 2, 3, 4, 5, 6};
    bptt_reals reals;
    const char *path = write_file("raw", values, sizeof values);
    ck_assert_int_eq(bptt_reals_load(path, BPTT_REALS_F32, 3, &reals, &error), BPTT_OK);
    assert_table(&reals, 2, 3, 0, (const double[]){1, 2, 3, 4, 5, 6});
    free(reals.values);
    ck_assert_str_eq(refusal(path, BPTT_REALS_F32, 4), ": has 24 bytes, not a multiple of 16, a row of 4 floats");
    ck_assert_str_eq(refusal(write_file("raw", "", 0), BPTT_REALS_F32, 4), ": is empty");
}
END_TEST

/* --- what a spec makes of it ------------------------------------------------------------------------------------------------------ */

static bptt_data load(const bptt_spec *spec, const char *text)
{
    const bptt_data_options options = {.token_bytes = 1};
    bptt_data data;
    ck_assert_msg(bptt_data_load(write_text(text), spec, &options, &data, &error) == BPTT_OK, "%s", error.text);
    return data;
}

static const struct {
    int64_t V, D, E, Q;
    const char *text, *message;
} bad_data[] = {
    {0, 1, 0, 2, "1,2\n", ": has 2 columns; expected 3: 1 inputs, then 2 targets"},
    {0, 2, 0, 1, "1\n", ": has 1 columns; expected 3: 2 inputs, then 1 targets (none: the next inputs)"},
    {0, 1, 0, 1, "1\n", ": has nothing to predict: one row"},
    {0, 1, 0, 1, "1,2\nnan,3\n", ": row 2, column 1: nan is not a number, and an input"},
    {0, 1, 0, 1, "1,2\n1,1e39\n", ": row 2, column 2: 1e+39 is more than a float holds"},
    {0, 1, 0, 1, "1,2\n1e999,1\n", ": row 2, column 1: inf is more than a float holds"},
    {3, 1, 0, 0, "1,2\n1,3\n", ": row 2, column 2: 3 is no token below vocab"},
    {3, 1, 0, 0, "1,0.5\n", ": row 1, column 2: 0.5 is no token below vocab"},
    {3, 1, 0, 0, "1,-1\n", ": row 1, column 2: -1 is no token below vocab"},
    {3, 0, 0, 1, "3,1\n", ": row 1, column 1: 3 is no token below vocab"},
    {3, 0, 0, 1, ",1\n", ": row 1, column 1: nan is not a number, and an input"},
    {3, 1, 2, 0, "t,v,y\n2,0.5,2\n3,0.5,2\n", ": row 2, column 1: 3 is no token below vocab"},
    {3, 1, 2, 0, "1.5,0.5,2\n", ": row 1, column 1: 1.5 is no token below vocab"},
    {3, 1, 2, 0, "1,0.5\n", ": has 2 columns; expected 3: a token, 1 inputs, then a label, 0 targets"},
};

START_TEST(data_refused)
{
    bptt_spec spec = interpret_spec(1, bad_data[_i].V, 4, 4, 1);
    spec.inputs = bad_data[_i].D;
    spec.embedding = bad_data[_i].E;
    spec.outputs = bad_data[_i].Q;
    spec.dtype = BPTT_F32;
    const bptt_data_options options = {.token_bytes = 1};
    const char *path = write_text(bad_data[_i].text);
    bptt_data data;
    ck_assert_int_eq(bptt_data_load(path, &spec, &options, &data, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text + strlen(path), bad_data[_i].message);
    ck_assert_ptr_null(data.reals);
}
END_TEST

static double at(const void *reals, size_t i)
{
    return ((const double *)reals)[i];
}

/* Two streams of a table with targets: rows 0 1 | 2 3 4. */
START_TEST(streams)
{
    bptt_spec spec = interpret_real_spec(1, 1, 2, 3, 2, 2, BPTT_SQUARED_ERROR);
    bptt_data data = load(&spec, "0,10,20\n1,11,\n2,12,22\n3,13,23\n4,14,24\n");
    bptt_feed feed;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_OK);
    ck_assert_uint_eq(feed.stream.predictions, 5);
    ck_assert(bptt_feed_next(&feed));
    static const double v[] = {0, 2, 1, 3};
    for (size_t i = 0; i < 4; i++) { ck_assert(at(feed.rows.v, i) == v[i]); }
    ck_assert_uint_eq(feed.labels, 7);
    ck_assert(at(feed.rows.d, 0) == 10 && at(feed.rows.d, 3) == 22 && at(feed.rows.d, 4) == 11 && isnan(at(feed.rows.d, 5)));
    ck_assert_uint_eq(bptt_feed_tokens(&feed), 4);
    ck_assert(bptt_feed_next(&feed)); /* one step: T is 3 */
    ck_assert_uint_eq(feed.chunk, 1);
    ck_assert_uint_eq(feed.labels, 2);
    ck_assert(isnan(at(feed.rows.d, 0)) && at(feed.rows.v, 0) == 0 && at(feed.rows.v, 1) == 4 && at(feed.rows.d, 3) == 24);
    ck_assert(bptt_feed_done(&feed) && !bptt_feed_next(&feed));
    ck_assert_uint_eq(bptt_feed_tokens(&feed), 5);
    bptt_feed_close(&feed);
    bptt_data_free(&data);
}
END_TEST

/* A token, its reals and a label, in two streams; then with targets that are the next reals. */
START_TEST(tokens_and_reals)
{
    bptt_spec spec = interpret_spec(1, 6, 2, 2, 2);
    spec.embedding = 3;
    spec.inputs = 2;
    bptt_data data = load(&spec, "token,a,b,label\n0,1,2,5\n1,3,4,\n2,5,6,4\n3,7,8,0\n");
    bptt_feed feed;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_OK);
    ck_assert(bptt_feed_next(&feed));
    static const uint32_t x[] = {0, 2, 1, 3}, y[] = {5, 4, BPTT_NO_LABEL, 0};
    static const double v[] = {1, 2, 5, 6, 3, 4, 7, 8};
    ck_assert_mem_eq(feed.rows.x, x, sizeof x);
    ck_assert_mem_eq(feed.rows.y, y, sizeof y);
    for (size_t i = 0; i < 8; i++) { ck_assert(at(feed.rows.v, i) == v[i]); }
    ck_assert_uint_eq(feed.labels, 3);
    bptt_feed_close(&feed);
    bptt_data_free(&data);
    spec.batch = spec.outputs = 1;
    data = load(&spec, "0,1,2\n1,3,4\n2,5,6\n");
    ck_assert(data.forecast);
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_OK);
    ck_assert(bptt_feed_next(&feed));
    ck_assert(at(feed.rows.d, 0) == 3 && at(feed.rows.d, 1) == 5 && feed.rows.x[1] == 1 && feed.rows.y == NULL);
    bptt_feed_close(&feed);
    bptt_data_free(&data);
}
END_TEST

/* Documents start at the first step of each stream and behind a separator, also where a stream was resumed. */
START_TEST(document_starts)
{
    static const uint32_t tokens[] = {1, 2, 0, 1, 0, 2, 1, 0, 2, 1}; /* predictions of two streams: 0 .. 3 and 4 .. 8 */
    bptt_spec spec = interpret_spec(1, 3, 3, 2, 2);
    bptt_data data = {.tokens = (uint32_t *)(uintptr_t)tokens, .count = 10};
    static const char *const expected[] = {"1101", "00", "1001"}; /* [step][stream]; the last step is of stream 1 alone */
    spec.resets = true;
    spec.separator = 0 + 1;
    bptt_feed feed;
    for (size_t from = 0; from < 3; from += 2) {
        ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "text", &error), BPTT_OK);
        feed.stream.position = from == 0 ? 0 : 3;
        for (size_t c = from; bptt_feed_next(&feed); c++) {
            for (size_t i = 0; expected[c][i] != '\0'; i++) {
                ck_assert_msg(feed.rows.reset[i] == (expected[c][i] == '1'), "chunk %zu, row %zu: %d", c, i, feed.rows.reset[i]);
            }
        }
        bptt_feed_close(&feed);
    }
    spec.h0 = BPTT_H0_GIVEN;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "text", &error), BPTT_FAILED);
    ck_assert_str_eq(error.text,
                     "net.lua: h0 = \"given\" is for callers of the emitted code, by net_start; a file of data has none; "
                     "expected \"zero\" or \"learned\"");
}
END_TEST

/* Without targets the next row's first inputs are wanted. */
START_TEST(forecast)
{
    bptt_spec spec = interpret_real_spec(1, 2, 1, 3, 3, 1, BPTT_SQUARED_ERROR);
    bptt_data data = load(&spec, "1,5\n2,6\n3,7\n");
    ck_assert(data.forecast);
    bptt_feed feed;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_OK);
    ck_assert(bptt_feed_next(&feed));
    ck_assert_uint_eq(feed.labels, 2);
    ck_assert(at(feed.rows.v, 0) == 1 && at(feed.rows.v, 3) == 6 && at(feed.rows.d, 0) == 2 && at(feed.rows.d, 1) == 3);
    ck_assert(isnan(at(feed.rows.d, 2)));
    bptt_feed_close(&feed);
    bptt_data_free(&data);
}
END_TEST

/* Three sequences of two steps in sequences of T = 3, two at a time; a loss at steps 2 and 3 alone. */
START_TEST(sequences)
{
    static const double values[] = {1, 11, 2, 12, 3, 13, 4, 14, 5, 15, 6, 16};
    bptt_spec spec = interpret_real_spec(1, 1, 1, 3, 3, 2, BPTT_SQUARED_ERROR);
    bptt_data data = {.reals = (double *)(uintptr_t)values, .count = 6, .columns = 2, .length = 2};
    bptt_feed feed;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "table: has sequences that each begin anew; expected carry = false");
    spec.carry = false;
    spec.loss_at = (bptt_steps){.kind = BPTT_STEPS_LIST, .count = 1, .stretches = {{2, 3}}};
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_OK);
    ck_assert(bptt_feed_next(&feed));
    static const double v[] = {1, 3, 2, 4, 0, 0};
    for (size_t i = 0; i < 6; i++) { ck_assert(at(feed.rows.v, i) == v[i]); }
    ck_assert_uint_eq(feed.labels, 2);
    ck_assert(at(feed.rows.d, 2) == 12 && at(feed.rows.d, 3) == 14 && isnan(at(feed.rows.d, 4)));
    ck_assert_uint_eq(bptt_feed_tokens(&feed), 4);
    ck_assert(bptt_feed_next(&feed));
    ck_assert(at(feed.rows.v, 0) == 5 && at(feed.rows.v, 1) == 0 && isnan(at(feed.rows.d, 1)));
    ck_assert_uint_eq(feed.labels, 1);
    ck_assert_uint_eq(feed.chunk, 0);
    ck_assert(bptt_feed_done(&feed) && !bptt_feed_next(&feed));
    ck_assert_uint_eq(bptt_feed_tokens(&feed), 6);
    bptt_feed_close(&feed);
    data.length = 6;
    spec.T = 5;
    ck_assert_int_eq(bptt_feed_open(&feed, &spec, &data, "table", &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "table: has sequences of 6 steps; expected at most T = 5");
}
END_TEST

START_TEST(split)
{
    static const double values[12] = {0};
    bptt_data data = {.reals = (double *)(uintptr_t)values, .count = 6, .columns = 2, .length = 2}, first, last;
    ck_assert_int_eq(bptt_data_split(&data, 0.5, "table", &first, &last, &error), BPTT_OK);
    ck_assert_uint_eq(first.count, 4); /* whole sequences */
    ck_assert_uint_eq(last.count, 2);
    ck_assert_ptr_eq(last.reals, values + 8);
    ck_assert_int_eq(bptt_data_split(&data, 0.1, "table", &first, &last, &error), BPTT_FAILED);
    ck_assert_str_eq(error.text, "table: --valid-fraction 0.1 of 6 rows holds out 0; both parts need at least a sequence");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reals");
    TCase *files = tcase_create("files"), *feeds = tcase_create("feeds");
    tcase_add_unchecked_fixture(files, scratch_open, scratch_close);
    tcase_add_unchecked_fixture(feeds, scratch_open, scratch_close);
    tcase_set_timeout(files, 60);
    tcase_add_loop_test(files, csv, 0, (int)COUNT(good_csv));
    tcase_add_test(files, csv_without_some_numbers);
    tcase_add_test(files, csv_in_a_locale);
    tcase_add_loop_test(files, csv_refused, 0, (int)COUNT(bad_csv));
    tcase_add_test(files, csv_with_a_zero_byte);
    tcase_add_test(files, npy);
    tcase_add_loop_test(files, npy_refused, 0, (int)COUNT(bad_npy));
    tcase_add_test(files, npy_cut_off);
    tcase_add_test(files, npy_at_random);
    tcase_add_test(files, raw);
    tcase_add_loop_test(feeds, data_refused, 0, (int)COUNT(bad_data));
    tcase_add_test(feeds, streams);
    tcase_add_test(feeds, tokens_and_reals);
    tcase_add_test(feeds, document_starts);
    tcase_add_test(feeds, forecast);
    tcase_add_test(feeds, sequences);
    tcase_add_test(feeds, split);
    suite_add_tcase(suite, files);
    suite_add_tcase(suite, feeds);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
