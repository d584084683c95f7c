/* safetensors.c: the container's reader and writer.  See safetensors.h.
 *
 * Depends on cJSON for the header and on file.h.  The reader trusts nothing: a scan bounds what cJSON will build, cJSON builds
 * it, and then every field is checked.  Refuses what two readers could understand differently: duplicate keys, NUL in a string,
 * unknown keys, bytes that no tensor owns.
 */
#include "safetensors.h"
#include "file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and so must the machine be"
#endif

enum {
    LENGTH_BYTES = 8,       /* u64, length of the header */
    HEADER_MAX = 100000000, /* the format's own limit */
    DEPTH_MAX = 3,          /* header, tensor, shape */
    VALUES_MAX = 1 << 20,   /* cJSON needs 64 bytes for each, so 100 MB of "1,1,1" would take 3 GB */
    RANK_MAX = 4,
};
static const char metadata_key[] = "__metadata__";
static const uint64_t exact_max = UINT64_C(1) << 53; /* from here on a double, cJSON's only number, skips integers */

/* In the order of bptt_st_dtype. */
static const struct {
    const char *word;
    size_t bytes;
} dtypes[] = {{"F32", 4}, {"F64", 8}, {"I64", 8}};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

const char *bptt_st_dtype_word(bptt_st_dtype dtype)
{
    return dtypes[dtype].word;
}

bool bptt_st_size(const bptt_st_tensor *tensor, size_t *bytes)
{
    *bytes = dtypes[tensor->dtype].bytes;
    for (unsigned i = 0; i < tensor->rank; i++) {
        if (__builtin_mul_overflow(*bytes, tensor->shape[i], bytes)) { return false; }
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The first name (in sorted order) that occurs twice, or NULL.  Sorts `names`. */
static const char *find_twice(const char **names, size_t count)
{
    if (count < 2) { return NULL; }
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) { return names[i]; }
    }
    return NULL;
}

/* Names of both sides, reader and writer: not empty, not twice, nor the name that the format keeps to itself. */
static bptt_status check_names(const char *path, const bptt_st_tensor *tensors, size_t count, const char *const *keys,
                               size_t metadata_count, bptt_error *error)
{
    const char **names = calloc(count + metadata_count + 1, sizeof *names);
    if (names == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    bptt_status status = BPTT_OK;
    for (size_t i = 0; i < count; i++) {
        names[i] = tensors[i].name;
        if (names[i][0] == '\0' || strcmp(names[i], metadata_key) == 0) {
            status = bptt_fail(error, BPTT_FAILED, "%s: a tensor is called '%s'", path, names[i]);
        }
    }
    const char *twice = find_twice(names, count);
    if (twice != NULL) { status = bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s' occurs twice", path, twice); }
    for (size_t i = 0; i < metadata_count; i++) { names[i] = keys[i]; }
    twice = find_twice(names, metadata_count);
    if (twice != NULL) { status = bptt_fail(error, BPTT_FAILED, "%s: metadata '%.100s' occurs twice", path, twice); }
    free(names);
    return status;
}

bptt_status bptt_st_check_names(const bptt_st_file *file, bptt_error *error)
{
    return check_names(file->path, file->tensors, file->count, (const char *const *)file->keys, file->metadata_count, error);
}

/* ---- reading ---- */

/* What in a header forbids to hand it to cJSON, or NULL. */
static const char *header_fault(const unsigned char *text, size_t length)
{
    size_t depth = 0;
    size_t values = 0;
    bool quoted = false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        if (c < 0x20 && (quoted || (c != '\t' && c != '\n' && c != '\r'))) { return "holds a control character"; }
        if (quoted) {
            /* cJSON would end the string there, and "a\u0000b" would pass for "a". */
            if (c == '\\' && length - i > 5 && memcmp(text + i, "\\u0000", 6) == 0) { return "holds a NUL"; }
            i += c == '\\';
            quoted = c != '"';
            continue;
        }
        quoted = c == '"';
        values += c == ',' || c == '{' || c == '[';
        if (values > VALUES_MAX) { return "holds more than a million values"; }
        if (c == '{' || c == '[') { depth++; }
        if (depth > DEPTH_MAX) { return "is nested too deeply"; }
        if (c == '}' || c == ']') {
            if (depth == 0) { return "closes a bracket that is not open"; }
            depth--;
        }
    }
    return quoted || depth > 0 ? "breaks off" : NULL;
}

/* Parses the header's JSON: one object, then nothing but white space. */
static bptt_status parse_header(const char *path, const unsigned char *text, size_t length, cJSON **root, bptt_error *error)
{
    const char *fault = length == 0 || text[0] != '{' ? "does not begin with '{'" : header_fault(text, length);
    if (fault != NULL) { return bptt_fail(error, BPTT_FAILED, "%s: the header %s", path, fault); }
    const char *end = (const char *)text;
    *root = cJSON_ParseWithLengthOpts((const char *)text, length, &end, false);
    size_t at = (size_t)(end - (const char *)text);
    while (*root != NULL && at < length && (text[at] == ' ' || (text[at] >= '\t' && text[at] <= '\r'))) { at++; }
    if (*root != NULL && at == length) { return BPTT_OK; }
    cJSON_Delete(*root);
    *root = NULL;
    return bptt_fail(error, BPTT_FAILED, "%s: the header is not JSON (at byte %zu of the file)", path, LENGTH_BYTES + at);
}

/* An exact integer from 0 to below 2^53. */
static bool read_integer(const cJSON *item, uint64_t *value)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < (double)exact_max)) { return false; }
    *value = (uint64_t)item->valuedouble;
    return (double)*value == item->valuedouble;
}

static bptt_status fail_tensor(const bptt_st_file *file, const char *name, const char *what, bptt_error *error)
{
    return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': %s", file->path, name, what);
}

/* Reads dtype and shape, whose product becomes tensor->bytes. */
static bptt_status read_type(const bptt_st_file *file, const cJSON *dtype, const cJSON *shape, bptt_st_tensor *tensor,
                             bptt_error *error)
{
    const char *word = cJSON_GetStringValue(dtype);
    if (word == NULL) { return fail_tensor(file, tensor->name, "dtype is not a string", error); }
    size_t kind = 0;
    while (kind < DTYPES && strcmp(word, dtypes[kind].word) != 0) { kind++; }
    if (kind == DTYPES) {
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': dtype %.20s; F32, F64 and I64 are supported", file->path,
                         tensor->name, word);
    }
    tensor->dtype = (bptt_st_dtype)kind;
    if (!cJSON_IsArray(shape)) { return fail_tensor(file, tensor->name, "shape is not a list", error); }
    const cJSON *size = NULL;
    cJSON_ArrayForEach(size, shape)
    {
        if (tensor->rank == RANK_MAX) { return fail_tensor(file, tensor->name, "more than 4 dimensions", error); }
        if (!read_integer(size, &tensor->shape[tensor->rank++])) {
            return fail_tensor(file, tensor->name, "shape is not made of whole numbers from 0 to 2^53", error);
        }
    }
    return bptt_st_size(tensor, &tensor->bytes) ? BPTT_OK : fail_tensor(file, tensor->name, "shape overflows", error);
}

/* Reads where the tensor's bytes lie, which must be inside the data and as many as its type says. */
static bptt_status read_place(const bptt_st_file *file, const cJSON *offsets, size_t data_start, bptt_st_tensor *tensor,
                              bptt_error *error)
{
    uint64_t begin = 0;
    uint64_t end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !read_integer(offsets->child, &begin) ||
        !read_integer(offsets->child->next, &end) || begin > end) {
        return fail_tensor(file, tensor->name, "data_offsets is not [begin, end]", error);
    }
    size_t data_length = file->length - data_start;
    if (end > data_length) {
        return bptt_fail(error, BPTT_FAILED,
                         "%s: tensor '%.100s' ends at byte %" PRIu64 " of the data, which has %zu (truncated?)", file->path,
                         tensor->name, end, data_length);
    }
    if (end - begin != tensor->bytes) {
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s' has %" PRIu64 " bytes of data, its shape and dtype need %zu",
                         file->path, tensor->name, end - begin, tensor->bytes);
    }
    tensor->data = file->buffer + data_start + begin;
    return BPTT_OK;
}

static bptt_status read_tensor(const bptt_st_file *file, const cJSON *entry, size_t data_start, bptt_st_tensor *tensor,
                               bptt_error *error)
{
    static const char *const words[3] = {"dtype", "shape", "data_offsets"};
    const cJSON *fields[3] = {NULL, NULL, NULL};
    tensor->name = strdup(entry->string);
    if (tensor->name == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path); }
    if (!cJSON_IsObject(entry)) { return fail_tensor(file, tensor->name, "is not an object", error); }
    const cJSON *field = NULL;
    cJSON_ArrayForEach(field, entry)
    {
        size_t i = 0;
        while (i < 3 && strcmp(field->string, words[i]) != 0) { i++; }
        if (i == 3 || fields[i] != NULL) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': %s key '%.40s'", file->path, tensor->name,
                             i == 3 ? "unknown" : "duplicate", field->string);
        }
        fields[i] = field;
    }
    for (size_t i = 0; i < 3; i++) {
        if (fields[i] == NULL) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': no %s", file->path, tensor->name, words[i]);
        }
    }
    bptt_status status = read_type(file, fields[0], fields[1], tensor, error);
    return status == BPTT_OK ? read_place(file, fields[2], data_start, tensor, error) : status;
}

static bptt_status read_metadata(bptt_st_file *file, const cJSON *entry, bptt_error *error)
{
    if (file->keys != NULL) { return bptt_fail(error, BPTT_FAILED, "%s: %s occurs twice", file->path, metadata_key); }
    if (!cJSON_IsObject(entry)) { return bptt_fail(error, BPTT_FAILED, "%s: %s is not an object", file->path, metadata_key); }
    size_t count = (size_t)cJSON_GetArraySize(entry);
    file->keys = calloc(count + 1, sizeof *file->keys);
    file->values = calloc(count + 1, sizeof *file->values);
    if (file->keys == NULL || file->values == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path); }
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, entry)
    {
        if (!cJSON_IsString(item)) {
            return bptt_fail(error, BPTT_FAILED, "%s: metadata '%.100s' is not a string", file->path, item->string);
        }
        size_t at = file->metadata_count++;
        file->keys[at] = strdup(item->string);
        file->values[at] = strdup(item->valuestring);
        if (file->keys[at] == NULL || file->values[at] == NULL) {
            return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path);
        }
    }
    return BPTT_OK;
}

/* Where a tensor lies, in bytes of the file. */
typedef struct place {
    size_t begin, end;
    const char *name;
} place;

static int compare_places(const void *a, const void *b)
{
    const place *x = a;
    const place *y = b;
    if (x->begin != y->begin) { return x->begin < y->begin ? -1 : 1; }
    return (x->end > y->end) - (x->end < y->end); /* an empty tensor comes before its neighbour */
}

/* Laid in order, the tensors must fill the data from its first byte to its last. */
static bptt_status check_tiling(const bptt_st_file *file, size_t data_start, bptt_error *error)
{
    place *places = calloc(file->count + 1, sizeof *places);
    if (places == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path); }
    for (size_t i = 0; i < file->count; i++) {
        const bptt_st_tensor *tensor = &file->tensors[i];
        size_t begin = (size_t)((const unsigned char *)tensor->data - file->buffer);
        places[i] = (place){begin, begin + tensor->bytes, tensor->name};
    }
    qsort(places, file->count, sizeof *places, compare_places);
    bptt_status status = BPTT_OK;
    size_t filled = data_start;
    for (size_t i = 0; status == BPTT_OK && i < file->count; i++) {
        const place *next = &places[i];
        if (next->begin != filled) {
            status =
                fail_tensor(file, next->name, next->begin < filled ? "overlaps another one" : "a gap before its data", error);
        }
        filled = next->end;
    }
    if (status == BPTT_OK && filled != file->length) {
        status =
            bptt_fail(error, BPTT_FAILED, "%s: %zu trailing bytes that belong to no tensor", file->path, file->length - filled);
    }
    free(places);
    return status;
}

static bptt_status read_entries(bptt_st_file *file, const cJSON *root, size_t data_start, bptt_error *error)
{
    file->tensors = calloc((size_t)cJSON_GetArraySize(root) + 1, sizeof *file->tensors);
    if (file->tensors == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path); }
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, root)
    {
        bptt_status status = strcmp(entry->string, metadata_key) == 0
                                 ? read_metadata(file, entry, error)
                                 : read_tensor(file, entry, data_start, &file->tensors[file->count++], error);
        if (status != BPTT_OK) { return status; }
    }
    bptt_status status = bptt_st_check_names(file, error);
    return status == BPTT_OK ? check_tiling(file, data_start, error) : status;
}

/* Everything after the bytes are in file->buffer. */
static bptt_status read_buffer(bptt_st_file *file, bptt_error *error)
{
    uint64_t header = 0;
    if (file->length < LENGTH_BYTES) {
        return bptt_fail(error, BPTT_FAILED, "%s: not a safetensors file (%zu bytes)", file->path, file->length);
    }
    memcpy(&header, file->buffer, LENGTH_BYTES);
    if (header > HEADER_MAX) {
        return bptt_fail(error, BPTT_FAILED, "%s: not a safetensors file (a header of %" PRIu64 " bytes; at most %d)", file->path,
                         header, (int)HEADER_MAX);
    }
    if (header > file->length - LENGTH_BYTES) {
        return bptt_fail(error, BPTT_FAILED, "%s: truncated (a header of %" PRIu64 " bytes in a file of %zu)", file->path, header,
                         file->length);
    }
    cJSON *root = NULL;
    bptt_status status = parse_header(file->path, file->buffer + LENGTH_BYTES, (size_t)header, &root, error);
    if (status == BPTT_OK) { status = read_entries(file, root, LENGTH_BYTES + (size_t)header, error); }
    cJSON_Delete(root);
    return status;
}

bptt_status bptt_st_read(const char *path, bptt_st_file *file, bptt_error *error)
{
    memset(file, 0, sizeof *file);
    file->path = strdup(path);
    if (file->path == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    bptt_status status = bptt_file_no_pipe(path, error);
    if (status == BPTT_OK) { status = bptt_file_read(path, SIZE_MAX, &file->buffer, &file->length, error); }
    if (status == BPTT_OK) { status = read_buffer(file, error); }
    if (status != BPTT_OK) { bptt_st_free(file); }
    return status;
}

void bptt_st_free(bptt_st_file *file)
{
    for (size_t i = 0; i < file->count; i++) { free(file->tensors[i].name); }
    for (size_t i = 0; i < file->metadata_count; i++) {
        free(file->keys[i]);
        free(file->values[i]);
    }
    free(file->tensors);
    free(file->keys);
    free(file->values);
    free(file->buffer);
    free(file->path);
    memset(file, 0, sizeof *file);
}

const bptt_st_tensor *bptt_st_find(const bptt_st_file *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) { return &file->tensors[i]; }
    }
    return NULL;
}

const char *bptt_st_metadata(const bptt_st_file *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->keys[i], key) == 0) { return file->values[i]; }
    }
    return NULL;
}

/* ---- writing ---- */

/* "[1,2,3]" as raw JSON: cJSON's own numbers are doubles and may come out as 1e+15. */
static bool add_integers(cJSON *object, const char *key, const uint64_t *numbers, unsigned count)
{
    char text[RANK_MAX * 21 + 3] = "[";
    size_t used = 1;
    for (unsigned i = 0; i < count; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%" PRIu64, i > 0 ? "," : "", numbers[i]);
    }
    memcpy(text + used, "]", 2);
    return cJSON_AddRawToObject(object, key, text) != NULL;
}

/* cJSON's functions pass NULL on, so one check at the end of each line of calls is enough. */
static bool add_tensor(cJSON *root, const bptt_st_tensor *tensor, uint64_t begin)
{
    const uint64_t offsets[2] = {begin, begin + tensor->bytes};
    cJSON *entry = cJSON_AddObjectToObject(root, tensor->name);
    return cJSON_AddStringToObject(entry, "dtype", dtypes[tensor->dtype].word) != NULL &&
           add_integers(entry, "shape", tensor->shape, tensor->rank) && add_integers(entry, "data_offsets", offsets, 2);
}

/* The header as text, or NULL: no memory. */
static char *print_header(const bptt_st_tensor *tensors, size_t count, const char *const *keys, const char *const *values,
                          size_t metadata_count)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *metadata = metadata_count > 0 ? cJSON_AddObjectToObject(root, metadata_key) : NULL;
    bool good = root != NULL;
    for (size_t i = 0; good && i < metadata_count; i++) { good = cJSON_AddStringToObject(metadata, keys[i], values[i]) != NULL; }
    uint64_t begin = 0;
    for (size_t i = 0; good && i < count; i++) {
        good = add_tensor(root, &tensors[i], begin);
        begin += tensors[i].bytes;
    }
    char *text = good ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}

/* The caller's table must be one that the reader would take. */
static bptt_status check_tensors(const char *path, const bptt_st_tensor *tensors, size_t count, bptt_error *error)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        if (tensors[i].rank > RANK_MAX || !bptt_st_size(&tensors[i], &bytes) || bytes != tensors[i].bytes ||
            __builtin_add_overflow(total, bytes, &total) || total >= exact_max) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': shape and size do not agree", path, tensors[i].name);
        }
    }
    return BPTT_OK;
}

/* Length, header, padding to 8 bytes, then the tensors as they lie. */
static bptt_status write_parts(const char *path, const char *header, const bptt_st_tensor *tensors, size_t count,
                               bptt_error *error)
{
    enum { FIRST = 3 };
    const size_t text = strlen(header);
    const size_t padding = (8 - text % 8) % 8;
    const uint64_t length = text + padding;
    if (length > HEADER_MAX) {
        return bptt_fail(error, BPTT_FAILED, "%s: a header of %" PRIu64 " bytes; at most %d", path, length, (int)HEADER_MAX);
    }
    bptt_file_part *parts = calloc(count + FIRST, sizeof *parts);
    if (parts == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    parts[0] = (bptt_file_part){&length, LENGTH_BYTES};
    parts[1] = (bptt_file_part){header, text};
    parts[2] = (bptt_file_part){"        ", padding};
    for (size_t i = 0; i < count; i++) { parts[FIRST + i] = (bptt_file_part){tensors[i].data, tensors[i].bytes}; }
    bptt_status status = bptt_file_write_parts(path, parts, count + FIRST, error);
    free(parts);
    return status;
}

bptt_status bptt_st_write(const char *path, const bptt_st_tensor *tensors, size_t count, const char *const *keys,
                          const char *const *values, size_t metadata_count, bptt_error *error)
{
    bptt_status status = check_tensors(path, tensors, count, error);
    if (status == BPTT_OK) { status = check_names(path, tensors, count, keys, metadata_count, error); }
    if (status != BPTT_OK) { return status; }
    char *header = print_header(tensors, count, keys, values, metadata_count);
    if (header == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory for the header", path); }
    status = write_parts(path, header, tensors, count, error);
    cJSON_free(header);
    return status;
}

bool bptt_st_like(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) { return false; }
    unsigned char start[9] = {0};
    size_t got = fread(start, 1, sizeof start, file);
    (void)fclose(file);
    return got == sizeof start && start[7] == 0 && start[8] == '{';
}
