/* checkpoint.c: a model's numbers to and from a safetensors file.  See checkpoint.h.
 *
 * Depends on safetensors.h and xxHash; names and shapes come from the model's tensor table alone.  A load checks everything
 * first and writes everything then, and the writing cannot fail.  Refuses infinities and what is not a number in both
 * directions, so that no file is written that could not be read again.
 */
#include "checkpoint.h"
#include "../gen/compile.h"
#include "safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- what a file holds ---- */

/* One tensor of the file (two, when a bias has a twin) and the numbers in the model that it stands for. */
typedef struct slot {
    char *name; /* in the file; owned */
    const char *twin;
    const bptt_tensor *tensor;
    size_t base;      /* of the block, bytes from the start of the struct */
    size_t real_size; /* of a number in the model */
    bool turned;      /* the file has [cols][rows]: weights are output-major there */
    bool finite;      /* no infinities either */
    const bptt_st_tensor *found[2];
} slot;

typedef struct slots {
    slot *list;
    size_t count;
} slots;

static const bptt_tensor progress_tensor = {.name = "progress", .rank = 1, .rows = 1, .cols = 3, .stride = 3};

/* Appends a slot named `prefix` + its own name.  False: no memory. */
static bool add_slot(slots *all, const char *prefix, slot entry)
{
    const char *name = entry.turned ? entry.tensor->file : entry.tensor->name;
    if (asprintf(&entry.name, "%s%s", prefix, name) < 0) { return false; }
    all->list[all->count++] = entry;
    return true;
}

/* The parameter-shaped block at `base`, under the names of weight files. */
static bool add_block(slots *all, const bptt_model *model, const char *prefix, size_t base, bool finite, bool twins)
{
    bool good = true;
    for (size_t i = 0; good && i < model->tensor_count; i++) {
        const bptt_tensor *tensor = &model->tensors[i];
        good = add_slot(all, prefix,
                        (slot){.twin = twins ? tensor->twin : NULL,
                               .tensor = tensor,
                               .base = base,
                               .real_size = model->real_size,
                               .turned = true,
                               .finite = finite});
    }
    return good;
}

/* What only a checkpoint has: progress, moments, state. */
static bool add_training(slots *all, const bptt_model *model)
{
    static const char *const prefixes[2] = {"moment1.", "moment2."};
    bool good = add_slot(
        all, "", (slot){.tensor = &progress_tensor, .base = model->progress, .real_size = sizeof(double), .finite = true});
    for (size_t i = 0; good && i < model->moment_count && i < 2; i++) {
        good = add_block(all, model, prefixes[i], model->moment[i], false, false);
    }
    for (size_t i = 0; good && i < model->state_count; i++) {
        good = add_slot(all, "state.", (slot){.tensor = &model->states[i], .base = model->state, .real_size = model->real_size});
    }
    return good;
}

static void free_slots(slots *all)
{
    for (size_t i = 0; i < all->count; i++) { free(all->list[i].name); }
    free(all->list);
    *all = (slots){NULL, 0};
}

/* The block at `base`, and all else that a checkpoint needs when `training`. */
static bptt_status make_slots(const char *path, const bptt_model *model, size_t base, bool training, slots *all,
                              bptt_error *error)
{
    all->count = 0;
    all->list = calloc(1 + 3 * (size_t)model->tensor_count + model->state_count, sizeof *all->list);
    if (all->list != NULL && (!training || add_training(all, model)) && add_block(all, model, "", base, true, true)) {
        return BPTT_OK;
    }
    free_slots(all);
    return bptt_fail(error, BPTT_FAILED, "%s: no memory", path);
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

/* Element (row, col) in the file. */
static size_t file_index(const slot *at, size_t row, size_t col)
{
    return at->turned ? col * at->tensor->rows + row : row * at->tensor->cols + col;
}

/* Element (row, col) in the model, in numbers from the slot's base. */
static size_t model_index(const slot *at, size_t row, size_t col)
{
    return at->tensor->offset + row * at->tensor->stride + col;
}

/* Element `index` of what was found in the file.  x + 0 would turn -0 into 0, and a resume must be exact. */
static double found_value(const slot *at, size_t index)
{
    double value = get_real(at->found[0]->data, index, at->found[0]->dtype == BPTT_ST_F64 ? 8 : 4);
    if (at->found[1] == NULL) { return value; }
    double twin = get_real(at->found[1]->data, index, at->found[1]->dtype == BPTT_ST_F64 ? 8 : 4);
    return twin != 0 ? value + twin : value;
}

static bptt_status check_values(const char *path, const slot *at, bptt_error *error)
{
    const size_t count = (size_t)at->tensor->rows * at->tensor->cols;
    for (size_t i = 0; i < count; i++) {
        double value = found_value(at, i);
        if (at->real_size == sizeof(float)) { value = (double)(float)value; }
        if (isnan(value) || (at->finite && isinf(value))) {
            return bptt_fail(error, BPTT_FAILED, "%s: tensor '%.100s': element %zu is %s", path, at->name, i,
                             isnan(value) ? "not a number" : "infinite");
        }
    }
    return BPTT_OK;
}

static void pack(const slot *at, const void *memory, void *data)
{
    const char *base = (const char *)memory + at->base;
    for (size_t row = 0; row < at->tensor->rows; row++) {
        for (size_t col = 0; col < at->tensor->cols; col++) {
            memcpy((char *)data + file_index(at, row, col) * at->real_size, base + model_index(at, row, col) * at->real_size,
                   at->real_size);
        }
    }
}

static void unpack(const slot *at, void *memory)
{
    char *base = (char *)memory + at->base;
    for (size_t row = 0; row < at->tensor->rows; row++) {
        for (size_t col = 0; col < at->tensor->cols; col++) {
            put_real(base, model_index(at, row, col), at->real_size, found_value(at, file_index(at, row, col)));
        }
    }
}

/* The file's tensor for a slot, without its data; `name` is borrowed, as all that is written. */
static bptt_st_tensor describe(const slot *at, const char *name)
{
    const bptt_tensor *tensor = at->tensor;
    bptt_st_tensor made = {.name = (char *)name, .dtype = at->real_size == sizeof(double) ? BPTT_ST_F64 : BPTT_ST_F32};
    made.rank = tensor->rank;
    made.shape[0] = tensor->rank == 1 || at->turned ? tensor->cols : tensor->rows;
    made.shape[1] = tensor->rank == 1 ? 0 : at->turned ? tensor->rows : tensor->cols;
    made.bytes = (size_t)tensor->rows * tensor->cols * at->real_size;
    return made;
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

/* The tensors of a file and the one piece of memory that holds their data. */
typedef struct packed {
    bptt_st_tensor *tensors;
    size_t count;
    unsigned char *pool;
} packed;

static void free_packed(packed *all)
{
    free(all->tensors);
    free(all->pool);
    *all = (packed){NULL, 0, NULL};
}

/* Describes every tensor of `from`; returns the bytes of all. */
static size_t describe_all(const slots *from, packed *all)
{
    size_t total = 0;
    for (size_t i = 0; i < from->count; i++) {
        const slot *at = &from->list[i];
        const char *names[2] = {at->name, at->twin};
        for (size_t k = 0; k < 2 && names[k] != NULL; k++) {
            all->tensors[all->count] = describe(at, names[k]);
            total += all->tensors[all->count++].bytes;
        }
    }
    return total;
}

/* Copies the model's numbers into the order of the file and checks them.  A twin stays zero unless `twin_copies`. */
static bptt_status pack_all(const char *path, slots *from, const void *memory, bool twin_copies, packed *all, bptt_error *error)
{
    all->tensors = calloc(2 * from->count, sizeof *all->tensors);
    size_t total = all->tensors != NULL ? describe_all(from, all) : 0;
    all->pool = calloc(total + 1, 1);
    if (all->tensors == NULL || all->pool == NULL) {
        return bptt_fail(error, BPTT_FAILED, "%s: no memory for %zu bytes", path, total);
    }
    unsigned char *data = all->pool;
    bptt_st_tensor *next = all->tensors;
    for (size_t i = 0; i < from->count; i++) {
        slot *at = &from->list[i];
        for (size_t k = 0; k < 1 + (size_t)(at->twin != NULL); k++, next++) {
            if (k == 0 || twin_copies) { pack(at, memory, data); }
            next->data = data;
            data += next->bytes;
        }
        at->found[0] = next - (at->twin != NULL ? 2 : 1);
        bptt_status status = check_values(path, at, error);
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

bptt_status bptt_checkpoint_save(const char *path, const bptt_spec *spec, const bptt_model *model, const void *memory,
                                 const bptt_cursor *cursor, bptt_error *error)
{
    slots all = {NULL, 0};
    packed file = {NULL, 0, NULL};
    metadata about;
    bptt_status status = make_slots(path, model, model->param, true, &all, error);
    if (status == BPTT_OK) { status = pack_all(path, &all, memory, false, &file, error); }
    if (status == BPTT_OK) {
        fill_metadata(&about, spec, cursor);
        digest_content(file.tensors, file.count, about.keys, about.values, about.count, about.content);
        add_pair(&about, content_key, about.content);
        status = bptt_st_write(path, file.tensors, file.count, about.keys, about.values, about.count, error);
    }
    free_packed(&file);
    free_slots(&all);
    return status;
}

bptt_status bptt_weights_save(const char *path, const bptt_model *model, const void *memory, size_t block, int twin_copies,
                              bptt_error *error)
{
    /* The pair by which PyTorch's loaders know their own. */
    static const char *const key = format_key;
    static const char *const value = "pt";
    slots all = {NULL, 0};
    packed file = {NULL, 0, NULL};
    bptt_status status = make_slots(path, model, block, false, &all, error);
    if (status == BPTT_OK) { status = pack_all(path, &all, memory, twin_copies != 0, &file, error); }
    if (status == BPTT_OK) { status = bptt_st_write(path, file.tensors, file.count, &key, &value, 1, error); }
    free_packed(&file);
    free_slots(&all);
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

/* Finds `name` and compares it with what the model needs; `exact`: the dtype too, else any real will do. */
static bptt_status find_tensor(const bptt_st_file *file, const slot *at, const char *name, bool exact,
                               const bptt_st_tensor **found, bptt_error *error)
{
    const bptt_st_tensor needed = describe(at, name);
    *found = bptt_st_find(file, name);
    if (*found == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: missing tensor '%s'", file->path, name); }
    if ((*found)->rank != needed.rank || memcmp((*found)->shape, needed.shape, sizeof needed.shape) != 0) {
        char is[100];
        char expected[100];
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%s' has shape %s, expected %s", file->path, name,
                         print_shape(*found, is), print_shape(&needed, expected));
    }
    if (exact ? (*found)->dtype != needed.dtype : (*found)->dtype == BPTT_ST_I64) {
        return bptt_fail(error, BPTT_FAILED, "%s: tensor '%s' has dtype %s, expected %s", file->path, name,
                         bptt_st_dtype_word((*found)->dtype), exact ? bptt_st_dtype_word(needed.dtype) : "F32 or F64");
    }
    return BPTT_OK;
}

static bptt_status find_all(const bptt_st_file *file, slots *all, bool exact, bptt_error *error)
{
    bptt_status status = BPTT_OK;
    for (size_t i = 0; status == BPTT_OK && i < all->count; i++) {
        slot *at = &all->list[i];
        status = find_tensor(file, at, at->name, exact, &at->found[0], error);
        if (status == BPTT_OK && at->twin != NULL) { status = find_tensor(file, at, at->twin, exact, &at->found[1], error); }
        if (status == BPTT_OK) { status = check_values(file->path, at, error); }
    }
    return status;
}

static void unpack_all(const slots *all, const bptt_model *model, void *memory)
{
    for (size_t i = 0; i < all->count; i++) { unpack(&all->list[i], memory); }
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
    slots all = {NULL, 0};
    bptt_cursor place;
    bptt_st_file file;
    bptt_status status = bptt_st_read(path, &file, error);
    if (status != BPTT_OK) { return status; }
    status = check_content(&file, error);
    if (status == BPTT_OK) { status = check_same_spec(&file, spec, error); }
    if (status == BPTT_OK) { status = read_cursor(&file, model, &place, error); }
    if (status == BPTT_OK) { status = make_slots(path, model, model->param, true, &all, error); }
    if (status == BPTT_OK) { status = find_all(&file, &all, true, error); }
    if (status == BPTT_OK) {
        unpack_all(&all, model, memory);
        *cursor = place;
    }
    free_slots(&all);
    bptt_st_free(&file);
    return status;
}

bptt_status bptt_weights_load(const char *path, const bptt_model *model, void *memory, bptt_error *error)
{
    slots all = {NULL, 0};
    bptt_st_file file;
    bptt_status status = bptt_st_read(path, &file, error);
    if (status != BPTT_OK) { return status; }
    if (is_checkpoint(&file)) { status = check_content(&file, error); }
    if (status == BPTT_OK) { status = make_slots(path, model, model->param, false, &all, error); }
    if (status == BPTT_OK) { status = find_all(&file, &all, false, error); }
    if (status == BPTT_OK) { unpack_all(&all, model, memory); }
    free_slots(&all);
    bptt_st_free(&file);
    return status;
}
