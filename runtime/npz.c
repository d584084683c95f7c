/* npz.c: zip archives of .npy arrays.  See npz.h.
 *
 * Depends on zlib and file.h.  The reader goes by the archive's directory and compares each entry's own head with it.  Refuses
 * archives beyond 4 GiB (zip64) and arrays that unpack to more than this machine's memory.
 */
#include "npz.h"
#include "file.h"
#include "machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Heads of the format: an entry's own, its line in the directory, the end of the directory; without names and the like. */
enum { ENTRY_HEAD = 30, LINE_HEAD = 46, END_HEAD = 22 };
enum { COMMENT_MAX = 0xffff, STORED = 0, DEFLATED = 8, RANK_MAX = 4, NAME_MAX_BYTES = 1000 };
static const uint32_t entry_mark = 0x04034b50, line_mark = 0x02014b50, end_mark = 0x06054b50;
static const uint32_t zip64 = 0xffffffff; /* in a field: the value is elsewhere */
static const char ending[] = ".npy";
static const char magic[] = "\x93NUMPY";

/* In the order of bptt_st_dtype. */
static const char *const dtypes[] = {"<f4", "<f8", "<i8"};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

static uint32_t get(const unsigned char *bytes, size_t count)
{
    uint32_t value = 0;
    for (size_t i = count; i > 0; i--) { value = value << 8 | bytes[i - 1]; }
    return value;
}

/* ---- the archive ---- */

/* One line of the directory. */
typedef struct entry {
    const unsigned char *name;
    size_t name_length;
    uint32_t method, crc;
    size_t packed, unpacked;
    size_t start; /* of the packed bytes */
} entry;

typedef struct archive {
    const char *path;
    const unsigned char *bytes;
    size_t length;
    size_t directory, directory_end; /* offsets */
    entry *entries;
    size_t count;
} archive;

static bptt_status fail(const archive *from, const char *what, bptt_error *error)
{
    (void)bptt_fail(error, BPTT_FAILED, "%s: %s", from->path, what);
    return BPTT_FAILED; /* said here, for tools that read this file alone */
}

static bptt_status fail_entry(const archive *from, const entry *at, const char *what, bptt_error *error)
{
    const int shown = at->name_length < 100 ? (int)at->name_length : 100;
    (void)bptt_fail(error, BPTT_FAILED, "%s: '%.*s': %s", from->path, shown, at->name, what);
    return BPTT_FAILED;
}

static bptt_status find_directory(archive *from, bptt_error *error)
{
    const size_t length = from->length;
    if (length < END_HEAD) { return fail(from, "not an npz file, or truncated", error); }
    size_t at = length - END_HEAD;
    const size_t lowest = at > COMMENT_MAX ? at - COMMENT_MAX : 0;
    while (at > lowest && (get(from->bytes + at, 4) != end_mark || get(from->bytes + at + 20, 2) != length - END_HEAD - at)) {
        at--;
    }
    const unsigned char *end = from->bytes + at;
    if (get(end, 4) != end_mark || get(end + 20, 2) != length - END_HEAD - at) {
        return fail(from, "not an npz file, or truncated: a zip archive has an end, which is missing", error);
    }
    const uint32_t size = get(end + 12, 4);
    from->directory = get(end + 16, 4);
    from->count = get(end + 10, 2);
    if (size == zip64 || from->directory == zip64 || from->count == 0xffff) {
        return fail(from, "a zip64 archive (4 GiB and more); use safetensors", error);
    }
    if (get(end + 4, 4) != 0 || get(end + 8, 2) != from->count) { return fail(from, "an archive in several files", error); }
    if (from->directory > at || size > at - from->directory) {
        return fail(from, "the archive's directory is not where its end says", error);
    }
    from->directory_end = from->directory + size;
    return BPTT_OK;
}

/* '.npy' ends the name of an array. */
static bptt_status check_name(const archive *from, const entry *at, bptt_error *error)
{
    const size_t tail = sizeof ending - 1;
    for (size_t i = 0; i < at->name_length; i++) {
        if (at->name[i] < 0x20 || at->name[i] == 0x7f) { return fail(from, "an entry's name has control characters", error); }
    }
    if (at->name_length > NAME_MAX_BYTES) { return fail_entry(from, at, "too long a name", error); }
    if (at->name_length > tail && memcmp(at->name + at->name_length - tail, ending, tail) == 0) { return BPTT_OK; }
    const bool torch = at->name_length > 4 && memcmp(at->name + at->name_length - 4, ".pkl", 4) == 0;
    return fail_entry(from, at,
                      torch ? "a file of torch.save; save the state_dict with safetensors or numpy.savez"
                            : "not an array (its name does not end in .npy)",
                      error);
}

/* The entry's own head, which must name it as the directory does, and its bytes, which must end before the directory. */
static bptt_status find_bytes(const archive *from, entry *at, size_t offset, bptt_error *error)
{
    const size_t limit = from->directory;
    if (offset > limit || limit - offset < ENTRY_HEAD) { return fail_entry(from, at, "begins beyond the archive", error); }
    const unsigned char *head = from->bytes + offset;
    const size_t name_length = get(head + 26, 2);
    const size_t skipped = ENTRY_HEAD + name_length + get(head + 28, 2);
    if (get(head, 4) != entry_mark || get(head + 8, 2) != at->method || name_length != at->name_length ||
        limit - offset < skipped || memcmp(head + ENTRY_HEAD, at->name, name_length) != 0) {
        return fail_entry(from, at, "its head does not agree with the archive's directory", error);
    }
    if (at->packed > limit - offset - skipped) { return fail_entry(from, at, "truncated", error); }
    at->start = offset + skipped;
    return BPTT_OK;
}

/* Reads the line of the directory at *offset and moves behind it. */
static bptt_status read_line(const archive *from, size_t *offset, entry *at, bptt_error *error)
{
    const size_t left = from->directory_end - *offset;
    const unsigned char *line = from->bytes + *offset;
    if (left < LINE_HEAD || get(line, 4) != line_mark) { return fail(from, "the archive's directory is damaged", error); }
    const size_t length = LINE_HEAD + (size_t)get(line + 28, 2) + get(line + 30, 2) + get(line + 32, 2);
    if (left < length) { return fail(from, "the archive's directory is damaged", error); }
    *offset += length;
    *at = (entry){
        .name = line + LINE_HEAD, .name_length = get(line + 28, 2), .method = get(line + 10, 2), .crc = get(line + 16, 4)};
    at->packed = get(line + 20, 4);
    at->unpacked = get(line + 24, 4);
    bptt_status status = check_name(from, at, error);
    if (status != BPTT_OK) { return status; }
    if ((get(line + 8, 2) & 1) != 0) { return fail_entry(from, at, "encrypted", error); }
    if (at->method != STORED && at->method != DEFLATED) { return fail_entry(from, at, "unknown compression", error); }
    if (at->packed == zip64 || at->unpacked == zip64 || get(line + 42, 4) == zip64) {
        return fail_entry(from, at, "4 GiB and more; use safetensors", error);
    }
    /* deflate packs at most 1032 to 1 */
    if (at->method == STORED ? at->packed != at->unpacked : at->unpacked / 1033 > at->packed) {
        return fail_entry(from, at, "its sizes cannot be", error);
    }
    return find_bytes(from, at, get(line + 42, 4), error);
}

/* Reads the directory; *total is what all entries unpack to. */
static bptt_status read_directory(archive *from, size_t *total, bptt_error *error)
{
    bptt_status status = find_directory(from, error);
    if (status != BPTT_OK) { return status; }
    from->entries = calloc(from->count + 1, sizeof *from->entries);
    if (from->entries == NULL) { return fail(from, "no memory", error); }
    size_t offset = from->directory;
    size_t packed = 0;
    *total = 0;
    for (size_t i = 0; status == BPTT_OK && i < from->count; i++) {
        status = read_line(from, &offset, &from->entries[i], error);
        packed += from->entries[i].packed;
        *total += from->entries[i].unpacked;
    }
    if (status != BPTT_OK) { return status; }
    if (offset != from->directory_end) { return fail(from, "the archive's directory is damaged", error); }
    if (packed > from->length) { return fail(from, "entries overlap", error); }
    if (*total > bptt_machine_memory()) { return fail(from, "unpacks to more than this machine's memory", error); }
    return BPTT_OK;
}

static bool inflate_all(const archive *from, const entry *at, unsigned char *to)
{
    z_stream stream = {.next_in = (unsigned char *)(uintptr_t)(from->bytes + at->start), .avail_in = (uInt)at->packed};
    stream.next_out = to;
    stream.avail_out = (uInt)at->unpacked;
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) { return false; }
    const bool good = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
    (void)inflateEnd(&stream);
    return good;
}

/* The bytes of an entry, at->unpacked of them. */
static bptt_status unpack(const archive *from, const entry *at, unsigned char *to, bptt_error *error)
{
    if (at->method == STORED) {
        memcpy(to, from->bytes + at->start, at->unpacked);
    } else if (!inflate_all(from, at, to)) {
        return fail_entry(from, at, "cannot be unpacked (damaged?)", error);
    }
    if (crc32_z(crc32_z(0, NULL, 0), to, at->unpacked) == at->crc) { return BPTT_OK; }
    return fail_entry(from, at, "wrong checksum (damaged?)", error);
}

/* ---- an array: a Python dictionary in text, then the numbers ---- */

typedef struct text {
    const char *at, *end;
} text;

/* Steps over white space, and then over `word` if it is there. */
static bool take(text *from, const char *word)
{
    while (from->at < from->end && (*from->at == ' ' || *from->at == '\n')) { from->at++; }
    const size_t length = strlen(word);
    if ((size_t)(from->end - from->at) < length || memcmp(from->at, word, length) != 0) { return false; }
    from->at += length;
    return true;
}

/* The first of `words` that stands here in quotes; -1: none. */
static int take_quoted(text *from, const char *const *words, int count)
{
    char quoted[32];
    for (int i = 0; i < count; i++) {
        (void)snprintf(quoted, sizeof quoted, "'%s'", words[i]);
        if (take(from, quoted)) { return i; }
    }
    return -1;
}

/* (3, 4), (3,) or () */
static bool take_shape(text *from, bptt_st_tensor *tensor)
{
    bool more = take(from, "(");
    if (!more) { return false; }
    while (!take(from, ")")) {
        if (!more || tensor->rank == RANK_MAX || from->at == from->end || *from->at < '0' || *from->at > '9') { return false; }
        uint64_t size = 0;
        for (; from->at < from->end && *from->at >= '0' && *from->at <= '9'; from->at++) {
            if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, (uint64_t)(*from->at - '0'), &size)) {
                return false;
            }
        }
        tensor->shape[tensor->rank++] = size;
        more = take(from, ",");
    }
    return true;
}

/* Reads the dictionary.  NULL: good; else what is wrong. */
static const char *read_dictionary(text from, bptt_st_tensor *tensor, bool *fortran)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false, false, false};
    bool more = take(&from, "{");
    if (!more) { return "its header is not a dictionary"; }
    while (!take(&from, "}")) {
        const int key = more ? take_quoted(&from, keys, 3) : -1;
        if (key < 0 || seen[key] || !take(&from, ":")) { return "its header is not one of an array"; }
        seen[key] = true;
        const int dtype = key == 0 ? take_quoted(&from, dtypes, DTYPES) : 0;
        if (dtype < 0) { return "its dtype is not one of <f4, <f8 and <i8 (float32, float64, int64)"; }
        if (key == 0) { tensor->dtype = (bptt_st_dtype)dtype; }
        if (key == 1) { *fortran = take(&from, "True"); }
        if (key == 1 && !*fortran && !take(&from, "False")) { return "fortran_order is neither True nor False"; }
        if (key == 2 && !take_shape(&from, tensor)) { return "its shape is not up to four whole numbers"; }
        more = take(&from, ",");
    }
    (void)take(&from, "");
    return seen[0] && seen[1] && seen[2] && from.at == from.end ? NULL : "its header is not one of an array";
}

/* Columns that lie one after the other become rows. */
static bool turn(bptt_st_tensor *tensor, unsigned char *data)
{
    const size_t rows = tensor->shape[0];
    const size_t cols = tensor->shape[1];
    if (tensor->bytes == 0) { return true; }
    const size_t size = tensor->bytes / rows / cols;
    unsigned char *copy = malloc(tensor->bytes);
    if (copy == NULL) { return false; }
    memcpy(copy, data, tensor->bytes);
    for (size_t row = 0; row < rows; row++) {
        for (size_t col = 0; col < cols; col++) {
            memcpy(data + (row * cols + col) * size, copy + (col * rows + row) * size, size);
        }
    }
    free(copy);
    return true;
}

/* bytes[length] is a whole .npy file; the tensor's data will lie in it. */
static bptt_status read_array(const archive *from, const entry *at, unsigned char *bytes, bptt_st_tensor *tensor,
                              bptt_error *error)
{
    enum { MAGIC = 6 };
    const size_t length = at->unpacked;
    if (length < 12 || memcmp(bytes, magic, MAGIC) != 0) { return fail_entry(from, at, "not an array in .npy format", error); }
    const unsigned version = bytes[MAGIC];
    if (version < 1 || version > 3) { return fail_entry(from, at, "an unknown version of the .npy format", error); }
    const size_t head = version == 1 ? 10 : 12;
    const size_t words = get(bytes + 8, head - 8);
    if (words > length - head) { return fail_entry(from, at, "truncated header", error); }
    bool fortran = false;
    const char *const start = (const char *)bytes + head;
    const char *fault = read_dictionary((text){start, start + words}, tensor, &fortran);
    if (fault != NULL) { return fail_entry(from, at, fault, error); }
    if (!bptt_st_size(tensor, &tensor->bytes) || tensor->bytes != length - head - words) {
        return fail_entry(from, at, "its shape does not agree with its size", error);
    }
    tensor->data = bytes + head + words;
    if (!fortran || tensor->rank < 2) { return BPTT_OK; }
    if (tensor->rank > 2) { return fail_entry(from, at, "in Fortran order, with more than two dimensions", error); }
    return turn(tensor, bytes + head + words) ? BPTT_OK : fail(from, "no memory", error);
}

/* ---- reading ---- */

/* Unpacks everything, one array after the other, into file->buffer. */
static bptt_status read_arrays(archive *from, bptt_st_file *file, bptt_error *error)
{
    bptt_status status = read_directory(from, &file->length, error);
    if (status != BPTT_OK) { return status; }
    file->buffer = malloc(file->length + 1);
    file->tensors = calloc(from->count + 1, sizeof *file->tensors);
    if (file->buffer == NULL || file->tensors == NULL) { return fail(from, "no memory", error); }
    unsigned char *next = file->buffer;
    for (size_t i = 0; status == BPTT_OK && i < from->count; i++) {
        const entry *at = &from->entries[i];
        bptt_st_tensor *tensor = &file->tensors[file->count++];
        tensor->name = strndup((const char *)at->name, at->name_length - (sizeof ending - 1));
        if (tensor->name == NULL) { return fail(from, "no memory", error); }
        status = unpack(from, at, next, error);
        if (status == BPTT_OK) { status = read_array(from, at, next, tensor, error); }
        next += at->unpacked;
    }
    return status == BPTT_OK ? bptt_st_check_names(file, error) : status;
}

bptt_status bptt_npz_read(const char *path, bptt_st_file *file, bptt_error *error)
{
    archive from = {.path = path};
    unsigned char *bytes = NULL;
    *file = (bptt_st_file){.path = strdup(path)};
    if (file->path == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    bptt_status status = bptt_file_no_pipe(path, error);
    if (status == BPTT_OK) { status = bptt_file_read(path, SIZE_MAX, &bytes, &from.length, error); }
    from.bytes = bytes;
    if (status == BPTT_OK) { status = read_arrays(&from, file, error); }
    free(from.entries);
    free(bytes);
    if (status != BPTT_OK) { bptt_st_free(file); }
    return status;
}

bool bptt_npz_like(const char *path)
{
    unsigned char start[4] = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) { return false; }
    const size_t got = fread(start, 1, sizeof start, file);
    (void)fclose(file);
    return got == sizeof start && (get(start, 4) == entry_mark || get(start, 4) == end_mark);
}

/* ---- writing ---- */

/* Failures of a stream of memory stay with it and are asked for at the end. */
static void put(FILE *to, uint64_t value, size_t count)
{
    for (size_t i = 0; i < count; i++) { (void)fputc((int)(value >> 8 * i & 0xff), to); }
}

/* Magic, version 1.0, length and dictionary, padded to a multiple of 64 bytes.  Returns the bytes. */
static size_t print_head(const bptt_st_tensor *tensor, char head[256])
{
    enum { FIRST = 10 };
    char shape[120] = "";
    for (unsigned i = 0; i < tensor->rank; i++) {
        const size_t used = strlen(shape);
        (void)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64 "%s", i > 0 ? " " : "", tensor->shape[i],
                       tensor->rank == 1 || i + 1 < tensor->rank ? "," : "");
    }
    memset(head, ' ', 256);
    memcpy(head, magic, 6);
    const int words = snprintf(head + FIRST, 256 - FIRST, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                               dtypes[tensor->dtype], shape);
    const size_t length = (FIRST + (size_t)words + 1 + 63) / 64 * 64;
    head[FIRST + words] = ' ';
    head[length - 1] = '\n';
    head[6] = 1;
    head[7] = 0;
    head[8] = (char)(length - FIRST);
    head[9] = 0;
    return length;
}

/* The fields that an entry's head and its line in the directory share; the date is the format's first day. */
static void put_fields(FILE *to, uint32_t crc, size_t size, size_t name_length)
{
    put(to, 20, 2); /* version of the format */
    put(to, 0, 2);
    put(to, STORED, 2);
    put(to, 0, 2);
    put(to, 1 << 5 | 1, 2);
    put(to, crc, 4);
    put(to, (uint32_t)size, 4);
    put(to, (uint32_t)size, 4);
    put(to, (uint32_t)(name_length + sizeof ending - 1), 2);
    put(to, 0, 2);
}

/* An entry to `to` and its line to `lines`.  Half of what offsets can say: some readers take them for signed. */
static bptt_status put_entry(const char *path, const bptt_st_tensor *tensor, FILE *to, FILE *lines, bptt_error *error)
{
    char head[256];
    const size_t head_length = print_head(tensor, head);
    const size_t name_length = strlen(tensor->name);
    const uint64_t size = (uint64_t)head_length + tensor->bytes;
    const long offset = ftell(to);
    if (offset < 0 || (uint64_t)offset + size >= zip64 / 2 || name_length > NAME_MAX_BYTES) {
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': too large for an npz file; use safetensors", path,
                         tensor->name);
    }
    const unsigned long first = crc32_z(crc32_z(0, NULL, 0), (const unsigned char *)head, head_length);
    const uint32_t crc = (uint32_t)crc32_z(first, tensor->data, tensor->bytes);
    put(to, entry_mark, 4);
    put_fields(to, crc, (size_t)size, name_length);
    (void)fprintf(to, "%s%s", tensor->name, ending);
    (void)fwrite(head, 1, head_length, to);
    (void)fwrite(tensor->data, 1, tensor->bytes, to);
    put(lines, line_mark, 4);
    put(lines, 20, 2); /* version of the writer */
    put_fields(lines, crc, (size_t)size, name_length);
    put(lines, 0, 2 + 2 + 2); /* comment, disk, kind */
    put(lines, 0, 4);
    put(lines, (uint32_t)offset, 4);
    (void)fprintf(lines, "%s%s", tensor->name, ending);
    return BPTT_OK;
}

static void put_end(FILE *to, size_t count, size_t size, size_t offset)
{
    put(to, end_mark, 4);
    put(to, 0, 4);
    put(to, (uint32_t)count, 2);
    put(to, (uint32_t)count, 2);
    put(to, (uint32_t)size, 4);
    put(to, (uint32_t)offset, 4);
    put(to, 0, 2);
}

bptt_status bptt_npz_write(const char *path, const bptt_st_tensor *tensors, size_t count, bptt_error *error)
{
    char *bytes = NULL, *lines = NULL;
    size_t length = 0, lines_length = 0;
    FILE *to = open_memstream(&bytes, &length), *directory = open_memstream(&lines, &lines_length);
    bptt_status status = to != NULL && directory != NULL ? BPTT_OK : BPTT_FAILED;
    for (size_t i = 0; status == BPTT_OK && i < count; i++) { status = put_entry(path, &tensors[i], to, directory, error); }
    bool good = to != NULL && fflush(to) == 0 && directory != NULL && fflush(directory) == 0;
    const size_t entries = good ? length : 0, size = good ? lines_length : 0;
    if (good && status == BPTT_OK) { put_end(directory, count, size, entries); }
    /* Closing reports whatever failed before. */
    good = good && ferror(to) == 0 && ferror(directory) == 0;
    good = (to == NULL || fclose(to) == 0) && good;
    good = (directory == NULL || fclose(directory) == 0) && good;
    if (!good && (status == BPTT_OK || to == NULL || directory == NULL)) {
        status = bptt_fail(error, BPTT_FAILED, "%s: no memory", path);
    }
    const bptt_file_part parts[2] = {{bytes, length}, {lines, lines_length}};
    if (status == BPTT_OK) { status = bptt_file_write_parts(path, parts, 2, error); }
    free(bytes);
    free(lines);
    return status;
}
