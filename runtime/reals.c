/* reals.c: CSV, .npy and bare floats to a table of doubles.  See reals.h. */
#include "reals.h"

#include "file.h"

#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const bptt_reals_words[] = {"auto", "csv", "npy", "f32", NULL};

static bptt_status no_memory(const char *path, size_t count, bptt_error *error)
{
    return bptt_fail(error, BPTT_FAILED, "%s: no memory for %zu numbers", path, count);
}

/* ---- little-endian floats ---- */

static uint64_t little(const unsigned char *bytes, size_t size)
{
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) { value = value << 8 | bytes[i]; }
    return value;
}

static double float_at(const unsigned char *bytes, size_t size)
{
    const uint64_t wide = little(bytes, size);
    const uint32_t narrow = (uint32_t)wide;
    float f;
    double d;
    memcpy(&f, &narrow, sizeof f);
    memcpy(&d, &wide, sizeof d);
    return size == sizeof f ? (double)f : d;
}

/* The values of reals->count rows, which `bytes` holds. */
static bptt_status read_floats(const char *path, const unsigned char *bytes, size_t size, bptt_reals *reals, bptt_error *error)
{
    const size_t count = reals->count * reals->columns;
    reals->values = calloc(count, sizeof *reals->values);
    if (reals->values == NULL) { return no_memory(path, count, error); }
    for (size_t i = 0; i < count; i++) { reals->values[i] = float_at(bytes + i * size, size); }
    return BPTT_OK;
}

static bptt_status read_raw(const char *path, const unsigned char *bytes, size_t length, size_t columns, bptt_reals *reals,
                            bptt_error *error)
{
    const size_t row = columns * sizeof(float);
    if (length % row != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu bytes, not a multiple of %zu, a row of %zu floats", path, length, row,
                         columns);
    }
    *reals = (bptt_reals){.count = length / row, .columns = columns};
    return read_floats(path, bytes, sizeof(float), reals, error);
}

/* ---- .npy ---- */

/* Source: numpy.lib.format, "Format Version 1.0" to "3.0".  The header is a literal of Python, of which this is read:
 * {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } with its keys in any order. */
typedef struct npy {
    const char *path;
    const char *at, *end; /* of the header */
    size_t size;          /* of a number */
    size_t shape[3];
    int rank;
    bool descr, order, shaped; /* keys seen */
    bptt_error *error;
} npy;

static bptt_status bad_header(const npy *n, const char *what)
{
    return bptt_fail(n->error, BPTT_FAILED, "%s: a .npy file whose header %s", n->path, what);
}

static void skip_blanks(npy *n)
{
    while (n->at < n->end && (*n->at == ' ' || *n->at == '\n')) { n->at++; }
}

/* Takes the character, after blanks. */
static bool take(npy *n, char c)
{
    skip_blanks(n);
    if (n->at == n->end || *n->at != c) { return false; }
    n->at++;
    return true;
}

/* Takes a word that begins and ends with the same quote. */
static bool take_quoted(npy *n, const char *word)
{
    skip_blanks(n);
    const size_t length = strlen(word);
    if ((size_t)(n->end - n->at) < length + 2 || (n->at[0] != '\'' && n->at[0] != '"')) { return false; }
    if (memcmp(n->at + 1, word, length) != 0 || n->at[length + 1] != n->at[0]) { return false; }
    n->at += length + 2;
    return true;
}

static bool take_word(npy *n, const char *word)
{
    skip_blanks(n);
    const size_t length = strlen(word);
    if ((size_t)(n->end - n->at) < length || memcmp(n->at, word, length) != 0) { return false; }
    n->at += length;
    return true;
}

static bool take_size(npy *n, size_t *size)
{
    skip_blanks(n);
    const char *start = n->at;
    for (*size = 0; n->at < n->end && *n->at >= '0' && *n->at <= '9'; n->at++) {
        if (__builtin_mul_overflow(*size, (size_t)10, size)) { return false; }
        if (__builtin_add_overflow(*size, (size_t)(*n->at - '0'), size)) { return false; }
    }
    return n->at > start;
}

static bptt_status read_shape(npy *n)
{
    if (!take(n, '(')) { return bad_header(n, "has no shape"); }
    for (n->rank = 0; !take(n, ')'); n->rank++) {
        if (n->rank == 3) {
            return bad_header(n, "has more than three dimensions; expected [rows][columns] or [sequences][rows][columns]");
        }
        if (!take_size(n, &n->shape[n->rank])) { return bad_header(n, "has a shape that is none"); }
        skip_blanks(n);
        if (!take(n, ',') && (n->at == n->end || *n->at != ')')) { return bad_header(n, "has a shape that is none"); }
    }
    if (n->rank < 2) {
        return bad_header(n, "has less than two dimensions; expected [rows][columns] or [sequences][rows][columns]");
    }
    n->shaped = true;
    return BPTT_OK;
}

static bptt_status read_entry(npy *n)
{
    if (take_quoted(n, "descr") && take(n, ':')) {
        n->size = take_quoted(n, "<f4") ? 4 : take_quoted(n, "<f8") ? 8 : 0;
        n->descr = true;
        return n->size > 0 ? BPTT_OK : bad_header(n, "has another type of numbers than little-endian floats, <f4 or <f8");
    }
    if (take_quoted(n, "fortran_order") && take(n, ':')) {
        n->order = take_word(n, "False");
        return n->order ? BPTT_OK : bad_header(n, "says Fortran order; expected C order (numpy.ascontiguousarray)");
    }
    if (take_quoted(n, "shape") && take(n, ':')) { return read_shape(n); }
    return bad_header(n, "is damaged");
}

static bptt_status read_header(npy *n)
{
    if (!take(n, '{')) { return bad_header(n, "is damaged"); }
    for (bool more = true; !take(n, '}');) {
        if (!more) { return bad_header(n, "is damaged"); }
        bptt_status status = read_entry(n);
        if (status != BPTT_OK) { return status; }
        more = take(n, ',');
    }
    skip_blanks(n);
    if (n->at != n->end || !n->descr || !n->order || !n->shaped) { return bad_header(n, "is damaged"); }
    return BPTT_OK;
}

static const char npy_magic[] = "\x93NUMPY";
enum { NPY_MAGIC = 6 };

static bptt_status read_npy(const char *path, const unsigned char *bytes, size_t length, bptt_reals *reals, bptt_error *error)
{
    npy n = {.path = path, .error = error};
    if (length < NPY_MAGIC + 2 || memcmp(bytes, npy_magic, NPY_MAGIC) != 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: is no .npy file", path);
    }
    const unsigned version = bytes[NPY_MAGIC];
    const size_t field = version == 1 ? 2 : 4, start = NPY_MAGIC + 2 + field;
    if (version < 1 || version > 3) {
        return bptt_fail(error, BPTT_FAILED, "%s: a .npy file of version %u; expected 1 to 3", path, version);
    }
    const uint64_t header = length < start ? UINT64_MAX : little(bytes + NPY_MAGIC + 2, field);
    if (length < start || header > length - start) {
        return bptt_fail(error, BPTT_FAILED, "%s: a .npy file that is cut off", path);
    }
    n.at = (const char *)bytes + start;
    n.end = n.at + header;
    bptt_status status = read_header(&n);
    if (status != BPTT_OK) { return status; }

    const size_t sequences = n.rank == 3 ? n.shape[0] : 1, rows = n.shape[n.rank - 2], columns = n.shape[n.rank - 1];
    size_t count = 0, values = 0, size = 0;
    const bool fits = !__builtin_mul_overflow(sequences, rows, &count) && !__builtin_mul_overflow(count, columns, &values) &&
                      !__builtin_mul_overflow(values, n.size, &size);
    if (!fits || size != length - start - header) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %zu bytes of numbers; its header says [%zu][%zu][%zu] of %zu bytes each",
                         path, length - start - (size_t)header, sequences, rows, columns, n.size);
    }
    *reals = (bptt_reals){.count = count, .columns = columns, .length = n.rank == 3 ? rows : 0};
    return values == 0 ? bptt_fail(error, BPTT_FAILED, "%s: is empty", path)
                       : read_floats(path, bytes + start + header, n.size, reals, error);
}

/* ---- CSV ---- */

enum { LONGEST_CELL = 63 };

typedef struct csv {
    const char *path;
    const char *at, *end;
    size_t line, capacity;
    locale_t c;
    bptt_reals *reals;
    bptt_error *error;
} csv;

/* A number, or nothing at all, between blanks.  Hexadecimal, "inf" and what a locale makes of a number are none. */
static bool parse_cell(const csv *f, const char *start, const char *end, double *value)
{
    char text[LONGEST_CELL + 1], *rest = NULL;
    while (start < end && (*start == ' ' || *start == '\t')) { start++; }
    while (end > start && (end[-1] == ' ' || end[-1] == '\t')) { end--; }
    const size_t length = (size_t)(end - start);
    if (length > LONGEST_CELL) { return false; }
    memcpy(text, start, length);
    text[length] = '\0';
    *value = (double)NAN;
    if (length == 0 || strcmp(text, "nan") == 0 || strcmp(text, "NaN") == 0) { return true; }
    if (strspn(text, "0123456789.eE+-") != length) { return false; }
    *value = strtod_l(text, &rest, f->c);
    return *rest == '\0';
}

/* The cell at `at`, which ends at the returned place: a comma or the end of the line. */
static const char *end_of_cell(const char *at, const char *end)
{
    const char *comma = memchr(at, ',', (size_t)(end - at));
    return comma != NULL ? comma : end;
}

/* A first line of names has no cell that is a number. */
static bool is_names(const csv *f, const char *line, const char *end)
{
    for (const char *at = line;;) {
        const char *stop = end_of_cell(at, end);
        double value;
        if (parse_cell(f, at, stop, &value)) { return false; }
        if (stop == end) { return true; }
        at = stop + 1;
    }
}

static bptt_status add_value(csv *f, size_t index, double value)
{
    if (index == f->capacity) {
        const size_t capacity = f->capacity == 0 ? 1024 : 2 * f->capacity;
        double *values = capacity > SIZE_MAX / sizeof *values ? NULL : realloc(f->reals->values, capacity * sizeof *values);
        if (values == NULL) { return no_memory(f->path, capacity, f->error); }
        f->reals->values = values;
        f->capacity = capacity;
    }
    f->reals->values[index] = value;
    return BPTT_OK;
}

static bptt_status read_line(csv *f, const char *line, const char *end)
{
    bptt_reals *reals = f->reals;
    size_t column = 0;
    for (const char *at = line;; column++) {
        const char *stop = end_of_cell(at, end);
        double value = 0;
        if (!parse_cell(f, at, stop, &value)) {
            char text[41];
            size_t shown = 0;
            for (; shown < sizeof text - 1 && at + shown < stop; shown++) {
                text[shown] = '?';
                if (at[shown] >= ' ' && at[shown] <= '~') { text[shown] = at[shown]; }
            }
            text[shown] = '\0';
            return bptt_fail(f->error, BPTT_FAILED, "%s:%zu: column %zu: '%s' is not a number", f->path, f->line, column + 1,
                             text);
        }
        bptt_status status = add_value(f, reals->count * reals->columns + column, value);
        if (status != BPTT_OK) { return status; }
        if (reals->count > 0 && column >= reals->columns) { break; }
        if (stop == end) { break; }
        at = stop + 1;
    }
    if (reals->count == 0) { reals->columns = column + 1; }
    if (column + 1 != reals->columns) {
        return bptt_fail(f->error, BPTT_FAILED, "%s:%zu: has %s than the %zu columns of the lines before", f->path, f->line,
                         column + 1 < reals->columns ? "less" : "more", reals->columns);
    }
    reals->count++;
    return BPTT_OK;
}

static bool only_line_ends(const char *at, const char *end)
{
    while (at < end && (*at == '\n' || *at == '\r')) { at++; }
    return at == end;
}

static bptt_status read_lines(csv *f)
{
    for (f->line = 1; f->at < f->end && !only_line_ends(f->at, f->end); f->line++) {
        const char *newline = memchr(f->at, '\n', (size_t)(f->end - f->at)), *line = f->at;
        const char *end = newline != NULL ? newline : f->end;
        f->at = newline != NULL ? newline + 1 : f->end;
        if (end > line && end[-1] == '\r') { end--; }
        if (end == line) { return bptt_fail(f->error, BPTT_FAILED, "%s:%zu: is empty", f->path, f->line); }
        if (f->line == 1 && is_names(f, line, end)) { continue; }
        bptt_status status = read_line(f, line, end);
        if (status != BPTT_OK) { return status; }
    }
    return f->reals->count > 0 ? BPTT_OK : bptt_fail(f->error, BPTT_FAILED, "%s: has no line of numbers", f->path);
}

static bptt_status read_csv(const char *path, const unsigned char *bytes, size_t length, bptt_reals *reals, bptt_error *error)
{
    const size_t mark = length >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    csv f = {.path = path, .at = (const char *)bytes + mark, .end = (const char *)bytes + length, .reals = reals, .error = error};
    f.c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (f.c == (locale_t)0) { return bptt_fail(error, BPTT_FAILED, "%s: not enough memory", path); }
    bptt_status status = read_lines(&f);
    freelocale(f.c);
    return status;
}

bptt_status bptt_reals_load(const char *path, bptt_reals_format format, size_t columns, bptt_reals *reals, bptt_error *error)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    *reals = (bptt_reals){.values = NULL};
    bptt_status status = bptt_file_read(path, SIZE_MAX, &bytes, &length, error);
    if (status == BPTT_OK && length == 0) { status = bptt_fail(error, BPTT_FAILED, "%s: is empty", path); }
    if (status == BPTT_OK && format == BPTT_REALS_AUTO) {
        format = length >= NPY_MAGIC && memcmp(bytes, npy_magic, NPY_MAGIC) == 0 ? BPTT_REALS_NPY : BPTT_REALS_CSV;
    }
    if (status == BPTT_OK) {
        status = format == BPTT_REALS_NPY   ? read_npy(path, bytes, length, reals, error)
                 : format == BPTT_REALS_F32 ? read_raw(path, bytes, length, columns, reals, error)
                                            : read_csv(path, bytes, length, reals, error);
    }
    free(bytes);
    if (status != BPTT_OK) {
        free(reals->values);
        *reals = (bptt_reals){.values = NULL};
    }
    return status;
}
