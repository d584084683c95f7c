/* checkpoint.c: a model's numbers to and from a safetensors file.  See checkpoint.h.
 *
 * Depends on safetensors.h, npz.h and xxHash; names and shapes come from the model's tensor table alone.  A load checks everything
 * first and writes everything then, and the writing cannot fail.  Refuses what is not a number, infinite parameters and counters that
 * no training comes to, in both directions, so that no file is written that could not be read again.
 */
#include "checkpoint.h"
#include "../gen/compile.h"
#include "npz.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- what a file holds ---- */

enum { NONE = -1 };

/* One tensor of the file. */
typedef struct slot {
    char *name;            /* owned */
    uint32_t parts;        /* blocks of outputs */
    uint32_t filled;       /* of which the model has numbers; the others are 0 */
    bptt_st_tensor needed; /* without data */
    const bptt_st_tensor *found;
    unsigned char *data; /* saving */
} slot;

/* A tensor of the model at `base`: block `part` of one tensor of the file, or of two, when a bias has a twin. */
typedef struct piece {
    const bptt_tensor *tensor;
    size_t base;      /* of the block, bytes from the start of the struct */
    size_t real_size; /* of a number in the model */
    bool turned;      /* the file has [cols][rows]: weights are output-major there */
    bool finite;      /* no infinities either */
    ptrdiff_t slot[2];
} piece;

typedef struct layout {
    const char *path; /* for messages */
    slot *slots;
    piece *pieces;
    size_t slot_count, piece_count;
    bptt_tensor progress;
    double most_updates;
} layout;

/* The file's tensor that a piece is a part of, without its data. */
static bptt_st_tensor describe(const piece *at, char *name)
{
    const bptt_tensor *tensor = at->tensor;
    const uint64_t outputs = (uint64_t)tensor->cols * tensor->parts;
    bptt_st_tensor made = {.name = name, .dtype = at->real_size == sizeof(double) ? BPTT_ST_F64 : BPTT_ST_F32};
    made.rank = tensor->rank;
    made.shape[0] = tensor->rank == 1 || at->turned ? outputs : tensor->rows;
    made.shape[1] = tensor->rank == 1 ? 0 : at->turned ? tensor->rows : outputs;
    made.bytes = (size_t)outputs * tensor->rows * at->real_size;
    return made;
}

static bptt_status fail_part(const layout *all, const piece *at, const char *name, const char *what, bptt_error *error)
{
    return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': %s %" PRIu32 " of %" PRIu32 " (%s)", all->path, name, what,
                     at->tensor->part + 1, at->tensor->parts, at->tensor->name);
}

/* Makes the piece a part of the slot called `name`, which is made when it is the first one. */
static bptt_status join_slot(layout *all, const piece *at, const char *prefix, const char *name, ptrdiff_t *joined,
                             bptt_error *error)
{
    char *full = NULL;
    if (asprintf(&full, "%s%s", prefix, name) < 0) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", all->path); }
    size_t i = 0;
    while (i < all->slot_count && strcmp(all->slots[i].name, full) != 0) { i++; }
    slot *to = &all->slots[i];
    if (i == all->slot_count) {
        *to = (slot){.name = full, .parts = at->tensor->parts, .needed = describe(at, full)};
        all->slot_count++;
    } else {
        free(full);
    }
    const bptt_st_tensor needed = describe(at, to->name);
    if (at->tensor->part >= to->parts || at->tensor->parts != to->parts || needed.rank != to->needed.rank ||
        needed.dtype != to->needed.dtype || memcmp(needed.shape, to->needed.shape, sizeof needed.shape) != 0) {
        return fail_part(all, at, to->name, "the model has another shape for part", error);
    }
    for (size_t p = 0; p < all->piece_count; p++) {
        const piece *other = &all->pieces[p];
        if ((other->slot[0] == (ptrdiff_t)i || other->slot[1] == (ptrdiff_t)i) && other->tensor->part == at->tensor->part) {
            return fail_part(all, at, to->name, "the model has twice part", error);
        }
    }
    to->filled++;
    *joined = (ptrdiff_t)i;
    return BPTT_OK;
}

/* Appends a piece under `prefix` + its own name. */
static bptt_status add_piece(layout *all, const char *prefix, piece made, const char *twin, bptt_error *error)
{
    made.slot[0] = made.slot[1] = NONE;
    bptt_status status =
        join_slot(all, &made, prefix, made.tensor->file != NULL ? made.tensor->file : made.tensor->name, &made.slot[0], error);
    if (status == BPTT_OK && twin != NULL) { status = join_slot(all, &made, prefix, twin, &made.slot[1], error); }
    all->pieces[all->piece_count++] = made;
    return status;
}

/* The parameter-shaped block at `base`, under the names of weight files.  Only with their twins are all tensors whole. */
static bptt_status add_block(layout *all, const bptt_model *model, const char *prefix, size_t base, bool finite, bool twins,
                             bptt_error *error)
{
    const size_t first = all->slot_count;
    bptt_status status = BPTT_OK;
    for (size_t i = 0; status == BPTT_OK && i < model->tensor_count; i++) {
        const bptt_tensor *tensor = &model->tensors[i];
        const piece made = {
            .tensor = tensor, .base = base, .real_size = model->real_size, .turned = tensor->table == 0, .finite = finite};
        status = add_piece(all, prefix, made, twins ? tensor->twin : NULL, error);
    }
    for (size_t i = first; status == BPTT_OK && twins && i < all->slot_count; i++) {
        const slot *at = &all->slots[i];
        if (at->filled == at->parts) { continue; }
        status = bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': the model has %" PRIu32 " of its %" PRIu32 " parts",
                           all->path, at->name, at->filled, at->parts);
    }
    return status;
}

/* What only a checkpoint has: progress, moments, gradients that wait for an update, state. */
static bptt_status add_training(layout *all, const bptt_model *model, bptt_error *error)
{
    static const char *const prefixes[2] = {"moment1.", "moment2."};
    const uint32_t count = model->progress_count;
    all->most_updates =
        0x1p52 / ((double)model->chunks * (1 + (double)model->accumulate)); /* the masks of dropout are numbered so */
    all->progress = (bptt_tensor){.name = "progress", .rank = 1, .rows = 1, .cols = count, .stride = count, .parts = 1};
    const piece progress = {.tensor = &all->progress, .base = model->progress, .real_size = sizeof(double), .finite = true};
    bptt_status status = add_piece(all, "", progress, NULL, error);
    for (size_t i = 0; status == BPTT_OK && i < model->moment_count && i < 2; i++) {
        status = add_block(all, model, prefixes[i], model->moment[i], false, false, error);
    }
    if (status == BPTT_OK && model->accumulate > 0) {
        status = add_block(all, model, "gradient.", model->grad, true, false, error);
    }
    for (size_t i = 0; status == BPTT_OK && i < model->state_count; i++) {
        const piece state = {.tensor = &model->states[i], .base = model->state, .real_size = model->real_size};
        status = add_piece(all, "state.", state, NULL, error);
    }
    return status;
}

static void free_layout(layout *all)
{
    for (size_t i = 0; i < all->slot_count; i++) { free(all->slots[i].name); }
    free(all->slots);
    free(all->pieces);
    *all = (layout){.slots = NULL};
}

/* The block at `base`, and all else that a checkpoint needs when `training`. */
static bptt_status make_layout(const char *path, const bptt_model *model, size_t base, bool training, layout *all,
                               bptt_error *error)
{
    const size_t most = 1 + 4 * (size_t)model->tensor_count + model->state_count;
    *all = (layout){.path = path, .slots = calloc(2 * most, sizeof *all->slots), .pieces = calloc(most, sizeof *all->pieces)};
    bptt_status status = all->slots != NULL && all->pieces != NULL ? BPTT_OK : BPTT_FAILED;
    if (status != BPTT_OK) { (void)bptt_fail(error, status, "%s: no memory", path); }
    if (status == BPTT_OK && training) { status = add_training(all, model, error); }
    if (status == BPTT_OK) { status = add_block(all, model, "", base, true, true, error); }
    if (status != BPTT_OK) { free_layout(all); }
    return status;
}

/* ---- numbers ---- */

static double get_real(const void *data, size_t index, size_t size)
{
    float narrow = 0;
    double wide = 0;
    if (size == sizeof wide) {
        memcpy(&wide, (const char *)data + index * size, size);
        return wide;
    }
    memcpy(&narrow, (const char *)data + index * size, sizeof narrow);
    return (double)narrow;
}

static void put_real(void *data, size_t index, size_t size, double value)
{
    float narrow = (float)value;
    memcpy((char *)data + index * size, size == sizeof value ? (const void *)&value : (const void *)&narrow, size);
}

/* Element (row, col) of the piece in the file. */
static size_t file_index(const piece *at, size_t row, size_t col)
{
    const bptt_tensor *tensor = at->tensor;
    return at->turned ? ((size_t)tensor->part * tensor->cols + col) * tensor->rows + row : row * tensor->cols + col;
}

/* Element (row, col) in the model, in numbers from the piece's base. */
static size_t model_index(const piece *at, size_t row, size_t col)
{
    return at->tensor->offset + row * at->tensor->stride + col;
}

static double found_at(const layout *all, ptrdiff_t index, size_t element)
{
    const bptt_st_tensor *found = all->slots[index].found;
    return get_real(found->data, element, found->dtype == BPTT_ST_F64 ? sizeof(double) : sizeof(float));
}

/* What the file has for an element, twins added up.  x + 0 would turn -0 into 0, and a resume must be exact. */
static double found_value(const layout *all, const piece *at, size_t row, size_t col)
{
    const size_t element = file_index(at, row, col);
    const double value = found_at(all, at->slot[0], element);
    if (at->slot[1] == NONE) { return value; }
    const double twin = found_at(all, at->slot[1], element);
    return twin != 0 ? value + twin : value;
}

/* Emitted code takes counts for integers, and powers for what they are. */
static bool is_progress(const layout *all, size_t i, double value)
{
    switch (i) {
    case BPTT_POWER1:
    case BPTT_POWER2:
    case BPTT_REDUCTION:
        return value >= 0 && value <= 1;
    case BPTT_BEST:
        return true;
    default:
        return value >= 0 && value <= (i == BPTT_UPDATES ? all->most_updates : 0x1p53) && value == floor(value);
    }
}

/* The numbers in the model, or, when `memory` is NULL, what they would become from the file. */
static bptt_status check_values(const layout *all, const piece *at, const void *memory, bptt_error *error)
{
    for (size_t i = 0; i < (size_t)at->tensor->rows * at->tensor->cols; i++) {
        const size_t row = i % at->tensor->rows;
        const size_t col = i / at->tensor->rows;
        double value = memory != NULL ? get_real((const char *)memory + at->base, model_index(at, row, col), at->real_size)
                                      : found_value(all, at, row, col);
        if (at->real_size == sizeof(float)) { value = (double)(float)value; }
        if (isnan(value) || (at->finite && isinf(value))) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': element %zu is %s", all->path,
                             all->slots[at->slot[0]].name, file_index(at, row, col), isnan(value) ? "not a number" : "infinite");
        }
        if (at->tensor == &all->progress && !is_progress(all, i, value)) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor 'progress': element %zu is %g, which no training comes to",
                             all->path, i, value);
        }
    }
    return BPTT_OK;
}

static void pack(const piece *at, const void *memory, void *data)
{
    const char *base = (const char *)memory + at->base;
    for (size_t row = 0; row < at->tensor->rows; row++) {
        for (size_t col = 0; col < at->tensor->cols; col++) {
            memcpy((char *)data + file_index(at, row, col) * at->real_size, base + model_index(at, row, col) * at->real_size,
                   at->real_size);
        }
    }
}

static void unpack(const layout *all, const piece *at, void *memory)
{
    char *base = (char *)memory + at->base;
    for (size_t row = 0; row < at->tensor->rows; row++) {
        for (size_t col = 0; col < at->tensor->cols; col++) {
            put_real(base, model_index(at, row, col), at->real_size, found_value(all, at, row, col));
        }
    }
}

/* ---- the digest of everything in the file ---- */

static const char format_key[] = "format";
static const char format_word[] = "bptt";
static const char content_key[] = "content_digest";

/* Each tensor and each pair of the metadata is hashed by itself and the hashes are added up, so that a tool which writes them in
 * another order changes nothing, while a flipped bit of a number, name, shape or of the cursor does. */
static void digest_content(const bptt_st_tensor *tensors, size_t count, const char *const *keys, const char *const *values,
                           size_t metadata_count, char digest[BPTT_DIGEST_SIZE])
{
    XXH3_state_t state;
    XXH128_hash_t sum = {0, 0};
    for (size_t i = 0; i < count + metadata_count; i++) {
        const bptt_st_tensor *tensor = i < count ? &tensors[i] : NULL;
        const char *key = tensor != NULL ? tensor->name : keys[i - count];
        if (tensor == NULL && strcmp(key, content_key) == 0) { continue; }
        const uint64_t head[2] = {tensor != NULL ? tensor->dtype + 1 : 0, tensor != NULL ? tensor->rank : 0};
        XXH3_128bits_reset(&state);
        XXH3_128bits_update(&state, head, sizeof head);
        XXH3_128bits_update(&state, key, strlen(key) + 1);
        if (tensor != NULL) {
            XXH3_128bits_update(&state, tensor->shape, sizeof tensor->shape);
            XXH3_128bits_update(&state, tensor->data, tensor->bytes);
        } else {
            XXH3_128bits_update(&state, values[i - count], strlen(values[i - count]));
        }
        XXH128_hash_t hash = XXH3_128bits_digest(&state);
        sum.low64 += hash.low64;
        sum.high64 += hash.high64;
    }
    (void)snprintf(digest, BPTT_DIGEST_SIZE, "%016" PRIx64 "%016" PRIx64, sum.high64, sum.low64);
}

static bool is_checkpoint(const bptt_st_file *file)
{
    const char *format = bptt_st_metadata(file, format_key);
    return format != NULL && strcmp(format, format_word) == 0;
}

static bptt_status check_content(const bptt_st_file *file, bptt_error *error)
{
    if (!is_checkpoint(file)) { return bptt_fail(error, BPTT_FAILED, "%s: not a bptt checkpoint", file->path); }
    char digest[BPTT_DIGEST_SIZE];
    digest_content(file->tensors, file->count, (const char *const *)file->keys, (const char *const *)file->values,
                   file->metadata_count, digest);
    const char *written = bptt_st_metadata(file, content_key);
    if (written != NULL && strcmp(written, digest) == 0) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s: wrong digest: the file says %.40s, its content is %s (damaged or edited)",
                     file->path, written != NULL ? written : "none", digest);
}

/* ---- metadata ---- */

static const struct {
    const char *key;
    size_t offset;
} counters[] = {
    {"step", offsetof(bptt_cursor, step)},         {"epoch", offsetof(bptt_cursor, epoch)},
    {"position", offsetof(bptt_cursor, position)}, {"chunk", offsetof(bptt_cursor, chunk)},
    {"tokens", offsetof(bptt_cursor, tokens)},
};
enum { COUNTERS = sizeof counters / sizeof counters[0], PAIRS = COUNTERS + 7 };
static const char name_key[] = "name";
static const char spec_key[] = "spec";
static const char digest_key[] = "digest";
static const char version_key[] = "version";
static const char training_key[] = "training_data";

typedef struct metadata {
    const char *keys[PAIRS], *values[PAIRS];
    size_t count;
    char numbers[COUNTERS][24];
    char content[BPTT_DIGEST_SIZE];
} metadata;

static void add_pair(metadata *all, const char *key, const char *value)
{
    all->keys[all->count] = key;
    all->values[all->count++] = value;
}

static void fill_metadata(metadata *all, const bptt_spec *spec, const bptt_cursor *cursor)
{
    all->count = 0;
    add_pair(all, format_key, format_word);
    add_pair(all, version_key, BPTT_VERSION);
    add_pair(all, name_key, spec->name);
    add_pair(all, digest_key, spec->digest);
    add_pair(all, spec_key, spec->text);
    add_pair(all, training_key, cursor->data_digest);
    for (size_t i = 0; i < COUNTERS; i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *)cursor + counters[i].offset, sizeof value);
        (void)snprintf(all->numbers[i], sizeof all->numbers[i], "%" PRIu64, value);
        add_pair(all, counters[i].key, all->numbers[i]);
    }
}

/* Decimal digits and nothing else. */
static bool parse_counter(const char *text, uint64_t *value)
{
    *value = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*c - '0'), value)) {
            return false;
        }
    }
    return *text != '\0';
}

static bptt_status read_cursor(const bptt_st_file *file, const bptt_model *model, bptt_cursor *cursor, bptt_error *error)
{
    memset(cursor, 0, sizeof *cursor);
    for (size_t i = 0; i < COUNTERS; i++) {
        const char *text = bptt_st_metadata(file, counters[i].key);
        uint64_t value = 0;
        if (text == NULL || !parse_counter(text, &value)) {
            return bptt_fail(error, BPTT_FAILED, "%s: metadata '%s' is %.40s, expected a whole number", file->path,
                             counters[i].key, text != NULL ? text : "missing");
        }
        memcpy((char *)cursor + counters[i].offset, &value, sizeof value);
    }
    if (cursor->chunk >= model->chunks) {
        return bptt_fail(error, BPTT_FAILED, "%s: metadata 'chunk' is %" PRIu64 ", expected less than %" PRIu32, file->path,
                         cursor->chunk, model->chunks);
    }
    const char *training = bptt_st_metadata(file, training_key);
    size_t length = training != NULL ? strspn(training, "0123456789abcdef") : BPTT_DIGEST_SIZE;
    if (training == NULL || length >= BPTT_DIGEST_SIZE || training[length] != '\0') {
        return bptt_fail(error, BPTT_FAILED, "%s: metadata '%s' is %.40s, expected a digest", file->path, training_key,
                         training != NULL ? training : "missing");
    }
    memcpy(cursor->data_digest, training, length);
    return BPTT_OK;
}

/* Moves both texts to the first line that differs and leaves the lengths of these lines. */
static void find_difference(const char **a, const char **b, int *a_length, int *b_length)
{
    for (;;) {
        size_t x = strcspn(*a, "\n");
        size_t y = strcspn(*b, "\n");
        *a_length = x < 60 ? (int)x : 60;
        *b_length = y < 60 ? (int)y : 60;
        if (x != y || memcmp(*a, *b, x) != 0 || (*a)[x] == '\0' || (*b)[y] == '\0') { return; }
        *a += x + 1;
        *b += y + 1;
    }
}

static bptt_status check_same_spec(const bptt_st_file *file, const bptt_spec *spec, bptt_error *error)
{
    const char *digest = bptt_st_metadata(file, digest_key);
    if (digest != NULL && strcmp(digest, spec->digest) == 0) { return BPTT_OK; }
    const char *name = bptt_st_metadata(file, name_key);
    const char *there = bptt_st_metadata(file, spec_key);
    const char *here = spec->text;
    if (digest == NULL || name == NULL || there == NULL) {
        return bptt_fail(error, BPTT_FAILED, "%s: metadata of the spec is missing", file->path);
    }
    int there_length = 0;
    int here_length = 0;
    find_difference(&there, &here, &there_length, &here_length);
    return bptt_fail(
        error, BPTT_FAILED,
        "%s: made by another spec: '%.60s' (%.40s), not '%s' (%s); the file's begins to differ at \"%.*s\", here \"%.*s\"",
        file->path, name, digest, spec->name, spec->digest, there_length, there, here_length, here);
}

/* ---- saving ---- */

/* Copies the model's numbers into the order of the file and checks them.  A twin stays zero unless `twin_copies`. */
static bptt_status pack_all(layout *from, const void *memory, bool twin_copies, bptt_st_file *file, bptt_error *error)
{
    size_t total = 0;
    for (size_t i = 0; i < from->slot_count; i++) { total += from->slots[i].needed.bytes; }
    *file = (bptt_st_file){.tensors = calloc(from->slot_count + 1, sizeof *file->tensors), .buffer = calloc(total + 1, 1)};
    file->path = strdup(from->path);
    if (file->tensors == NULL || file->buffer == NULL || file->path == NULL) {
        return bptt_fail(error, BPTT_FAILED, "%s: no memory for %zu bytes", from->path, total);
    }
    for (size_t i = 0; i < from->slot_count; i++) {
        slot *to = &from->slots[i];
        to->data = file->buffer + file->length;
        file->length += to->needed.bytes;
        file->tensors[i] = to->needed;
        file->tensors[i].data = to->data;
        file->tensors[i].name = strdup(to->name);
        file->count++;
        if (file->tensors[i].name == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", from->path); }
    }
    for (size_t i = 0; i < from->piece_count; i++) {
        const piece *at = &from->pieces[i];
        bptt_status status = check_values(from, at, memory, error);
        if (status != BPTT_OK) { return status; }
        pack(at, memory, from->slots[at->slot[0]].data);
        if (twin_copies && at->slot[1] != NONE) { pack(at, memory, from->slots[at->slot[1]].data); }
    }
    return BPTT_OK;
}

bptt_status bptt_checkpoint_save(const char *path, const bptt_spec *spec, const bptt_model *model, const void *memory,
                                 const bptt_cursor *cursor, bptt_error *error)
{
    layout all = {.slots = NULL};
    bptt_st_file file = {.tensors = NULL};
    metadata about;
    bptt_status status = make_layout(path, model, model->param, true, &all, error);
    if (status == BPTT_OK) { status = pack_all(&all, memory, false, &file, error); }
    if (status == BPTT_OK) {
        fill_metadata(&about, spec, cursor);
        digest_content(file.tensors, file.count, about.keys, about.values, about.count, about.content);
        add_pair(&about, content_key, about.content);
        status = bptt_st_write(path, file.tensors, file.count, about.keys, about.values, about.count, error);
    }
    bptt_st_free(&file);
    free_layout(&all);
    return status;
}

bptt_status bptt_weights_pack(const char *path, const bptt_model *model, const void *memory, size_t block, int twin_copies,
                              bptt_st_file *file, bptt_error *error)
{
    layout all = {.slots = NULL};
    *file = (bptt_st_file){.tensors = NULL};
    bptt_status status = make_layout(path, model, block, false, &all, error);
    if (status == BPTT_OK) { status = pack_all(&all, memory, twin_copies != 0, file, error); }
    if (status != BPTT_OK) { bptt_st_free(file); }
    free_layout(&all);
    return status;
}

bptt_status bptt_weights_save(const char *path, const bptt_model *model, const void *memory, size_t block, int twin_copies,
                              bptt_error *error)
{
    /* The pair by which PyTorch's loaders know their own. */
    static const char *const key = format_key;
    static const char *const value = "pt";
    bptt_st_file file;
    bptt_status status = bptt_weights_pack(path, model, memory, block, twin_copies, &file, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_st_write(path, file.tensors, file.count, &key, &value, 1, error);
    bptt_st_free(&file);
    return status;
}

/* ---- loading ---- */

static const char *print_shape(const bptt_st_tensor *tensor, char text[100])
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < tensor->rank; i++) {
        used += (size_t)snprintf(text + used, 100 - used, "[%" PRIu64 "]", tensor->shape[i]);
    }
    return tensor->rank > 0 ? text : "a single number";
}

/* Finds a tensor and compares it with what the model needs; `exact`: the dtype too, else any real will do. */
static bptt_status find_tensor(const bptt_st_file *file, slot *at, bool exact, bptt_error *error)
{
    const bptt_st_tensor *needed = &at->needed;
    at->found = bptt_st_find(file, at->name);
    if (at->found == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: missing tensor '%s'", file->path, at->name); }
    if (at->found->rank != needed->rank || memcmp(at->found->shape, needed->shape, sizeof needed->shape) != 0) {
        char is[100];
        char expected[100];
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%s' has shape %s, expected %s", file->path, at->name,
                         print_shape(at->found, is), print_shape(needed, expected));
    }
    if (exact ? at->found->dtype != needed->dtype : at->found->dtype == BPTT_ST_I64) {
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%s' has dtype %s, expected %s", file->path, at->name,
                         bptt_st_dtype_word(at->found->dtype), exact ? bptt_st_dtype_word(needed->dtype) : "F32 or F64");
    }
    return BPTT_OK;
}

static bptt_status find_all(const bptt_st_file *file, layout *all, bool exact, bptt_error *error)
{
    bptt_status status = BPTT_OK;
    for (size_t i = 0; status == BPTT_OK && i < all->slot_count; i++) {
        status = find_tensor(file, &all->slots[i], exact, error);
    }
    for (size_t i = 0; status == BPTT_OK && i < all->piece_count; i++) {
        status = check_values(all, &all->pieces[i], NULL, error);
    }
    return status;
}

static void unpack_all(const layout *all, const bptt_model *model, void *memory)
{
    for (size_t i = 0; i < all->piece_count; i++) { unpack(all, &all->pieces[i], memory); }
    model->refresh(model, memory);
}

/* The spec in the metadata, which must have the digest that the metadata gives. */
static bptt_status parse_spec(const bptt_st_file *file, bptt_spec *spec, bptt_error *error)
{
    const char *text = bptt_st_metadata(file, spec_key);
    const char *digest = bptt_st_metadata(file, digest_key);
    const char *version = bptt_st_metadata(file, version_key);
    if (text == NULL || digest == NULL || version == NULL) {
        return bptt_fail(error, BPTT_FAILED, "%s: metadata of the spec is missing", file->path);
    }
    bptt_status status = bptt_spec_parse(text, strlen(text), file->path, NULL, 0, spec, error);
    if (status != BPTT_OK || strcmp(digest, spec->digest) == 0) { return status; }
    status =
        bptt_fail(error, BPTT_FAILED, "%s: wrong digest of its spec: %.40s there, %s here (written by version %.20s, this is %s)",
                  file->path, digest, spec->digest, version, BPTT_VERSION);
    bptt_spec_free(spec);
    return status;
}

bool bptt_checkpoint_like(const char *path)
{
    bptt_st_file file;
    bptt_error ignored;
    if (bptt_st_read(path, &file, &ignored) != BPTT_OK) { return false; }
    const bool like = is_checkpoint(&file);
    bptt_st_free(&file);
    return like;
}

bptt_status bptt_checkpoint_spec(const char *path, bptt_spec *spec, bptt_error *error)
{
    bptt_st_file file;
    bptt_status status = bptt_st_read(path, &file, error);
    if (status != BPTT_OK) { return status; }
    status = check_content(&file, error);
    if (status == BPTT_OK) { status = parse_spec(&file, spec, error); }
    bptt_st_free(&file);
    return status;
}

bptt_status bptt_checkpoint_load(const char *path, const bptt_spec *spec, const bptt_model *model, void *memory,
                                 bptt_cursor *cursor, bptt_error *error)
{
    layout all = {.slots = NULL};
    bptt_cursor place;
    bptt_st_file file;
    bptt_status status = bptt_st_read(path, &file, error);
    if (status != BPTT_OK) { return status; }
    status = check_content(&file, error);
    if (status == BPTT_OK) { status = check_same_spec(&file, spec, error); }
    if (status == BPTT_OK) { status = read_cursor(&file, model, &place, error); }
    if (status == BPTT_OK) { status = make_layout(path, model, model->param, true, &all, error); }
    if (status == BPTT_OK) { status = find_all(&file, &all, true, error); }
    if (status == BPTT_OK) {
        unpack_all(&all, model, memory);
        *cursor = place;
    }
    free_layout(&all);
    bptt_st_free(&file);
    return status;
}

bptt_status bptt_weights_take(const bptt_st_file *file, const bptt_model *model, void *memory, bptt_error *error)
{
    layout all = {.slots = NULL};
    bptt_status status = make_layout(file->path, model, model->param, false, &all, error);
    if (status == BPTT_OK) { status = find_all(file, &all, false, error); }
    if (status == BPTT_OK) { unpack_all(&all, model, memory); }
    free_layout(&all);
    return status;
}

bptt_status bptt_weights_read(const char *path, bptt_st_file *file, bptt_error *error)
{
    if (bptt_npz_like(path)) { return bptt_npz_read(path, file, error); }
    bptt_status status = bptt_st_read(path, file, error);
    if (status != BPTT_OK) { return status; }
    if (is_checkpoint(file)) { status = check_content(file, error); }
    if (status != BPTT_OK) { bptt_st_free(file); }
    return status;
}

bptt_status bptt_weights_load(const char *path, const bptt_model *model, void *memory, bptt_error *error)
{
    bptt_st_file file;
    bptt_status status = bptt_weights_read(path, &file, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_weights_take(&file, model, memory, error);
    bptt_st_free(&file);
    return status;
}
