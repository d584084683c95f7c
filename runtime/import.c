/* import.c: `bptt import`: weights of another program become a checkpoint at step 0.
 *
 * Depends on checkpoint.h and backend.h.  A module is what a tensor's name has before its last dot: "rnn" of "rnn.weight_ih_l0".
 * Refuses to guess: a module is read under another name when it alone has the tensors that are needed, or when --map says so.
 */
#include "backend.h"
#include "checkpoint.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct intake {
    const bptt_options *options;
    bptt_spec spec, single; /* single: the same with one thread, so that it opens on any machine */
    bptt_program program;   /* of single */
    void *memory;
    bptt_st_file needed; /* the model's tensors, as it was initialised */
    bptt_st_file file;
} intake;

/* ---- names ---- */

/* Length of the module's part of a name. */
static size_t module_length(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? (size_t)(dot - name) : 0;
}

static bool in_module(const char *name, const char *module, size_t length)
{
    return module_length(name) == length && memcmp(name, module, length) == 0;
}

/* The first tensor of a module; NULL: there is no such module. */
static const bptt_st_tensor *find_module(const bptt_st_file *file, const char *module, size_t length)
{
    for (size_t i = 0; i < file->count; i++) {
        if (in_module(file->tensors[i].name, module, length)) { return &file->tensors[i]; }
    }
    return NULL;
}

/* The tensor of `module` whose last name is that of `like`. */
static const bptt_st_tensor *find_alike(const bptt_st_file *file, const char *module, size_t length, const char *like)
{
    const char *last = like + module_length(like);
    for (size_t i = 0; i < file->count; i++) {
        const char *name = file->tensors[i].name;
        if (in_module(name, module, length) && strcmp(name + length, last) == 0) { return &file->tensors[i]; }
    }
    return NULL;
}

/* `from_length` bytes at the start of the name become to[to_length]. */
static bptt_status rename_tensor(bptt_st_file *file, bptt_st_tensor *tensor, size_t from_length, const char *to, size_t to_length,
                                 bptt_error *error)
{
    char *name = NULL;
    if (asprintf(&name, "%.*s%s", (int)to_length, to, tensor->name + from_length) < 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: no memory", file->path);
    }
    free(tensor->name);
    tensor->name = name;
    return BPTT_OK;
}

/* ---- --map from=to: a tensor, or all tensors whose names begin with "from." ---- */

static bptt_status apply_map(bptt_st_file *file, const bptt_override *map, bptt_error *error)
{
    const size_t length = map->key_length;
    size_t found = 0;
    for (size_t i = 0; i < file->count; i++) {
        bptt_st_tensor *tensor = &file->tensors[i];
        if (strncmp(tensor->name, map->key, length) != 0 || (tensor->name[length] != '.' && tensor->name[length] != '\0')) {
            continue;
        }
        found++;
        bptt_status status = rename_tensor(file, tensor, length, map->value, strlen(map->value), error);
        if (status != BPTT_OK) { return status; }
    }
    if (found > 0) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s: --map %s: no tensor is called '%.*s', none '%.*s.*'", file->path, map->key,
                     (int)length, map->key, (int)length, map->key);
}

static bptt_status apply_maps(intake *i, bptt_error *error)
{
    bptt_status status = BPTT_OK;
    for (size_t m = 0; status == BPTT_OK && m < i->options->map_count; m++) {
        status = apply_map(&i->file, &i->options->maps[m], error);
    }
    return status == BPTT_OK ? bptt_st_check_names(&i->file, error) : status;
}

/* ---- modules under other names ---- */

/* Whether the file's module has all tensors of a needed one; `shapes`: of the same shapes, and no others. */
static bool fits(const intake *i, const char *module, size_t length, const char *given, size_t given_length, bool shapes)
{
    for (size_t n = 0; n < i->needed.count; n++) {
        const bptt_st_tensor *needed = &i->needed.tensors[n];
        if (!in_module(needed->name, module, length)) { continue; }
        const bptt_st_tensor *there = find_alike(&i->file, given, given_length, needed->name);
        if (there == NULL) { return false; }
        if (shapes && (there->rank != needed->rank || memcmp(there->shape, needed->shape, sizeof needed->shape) != 0)) {
            return false;
        }
    }
    for (size_t t = 0; shapes && t < i->file.count; t++) {
        const char *name = i->file.tensors[t].name;
        if (in_module(name, given, given_length) && find_alike(&i->needed, module, length, name) == NULL) { return false; }
    }
    return true;
}

/* Modules of the file that could be the needed one: their number, and the names of the last two. */
static size_t find_candidates(const intake *i, const char *module, size_t length, bool shapes, const char *candidates[2])
{
    size_t count = 0;
    for (size_t t = 0; t < i->file.count; t++) {
        const char *name = i->file.tensors[t].name;
        const size_t given = module_length(name);
        if (find_module(&i->file, name, given) != &i->file.tensors[t] || find_module(&i->needed, name, given) != NULL) {
            continue; /* seen before, or wanted under its own name */
        }
        if (!fits(i, module, length, name, given, shapes)) { continue; }
        candidates[1] = candidates[0];
        candidates[0] = name;
        count++;
    }
    return count;
}

/* A name in a file is a stranger's: no escape sequence of his reaches the terminal. */
static void print_name(const char *name)
{
    for (; *name != '\0'; name++) { (void)putchar(*name >= 0x20 && *name < 0x7f ? *name : '?'); }
}

/* Finds which module of the file is the one that begins `module`, and names its tensors so. */
static bptt_status place_module(intake *i, const char *module, size_t length, bptt_error *error)
{
    const char *candidates[2] = {NULL, NULL};
    size_t count = find_candidates(i, module, length, true, candidates);
    /* When none is the same, one that has the names at least: what is wrong with it will be said of its tensors. */
    if (count == 0) { count = find_candidates(i, module, length, false, candidates); }
    if (count == 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: missing tensor '%s' (no module has what '%.*s' needs; --map FROM=%.*s?)",
                         i->file.path, module, (int)length, module, (int)length, module);
    }
    const char *given = candidates[0];
    const size_t given_length = module_length(given);
    if (count > 1) {
        return bptt_fail(error, BPTT_FAILED, "%s: '%.*s' may be '%.*s' or '%.*s': say which with --map %.*s=%.*s", i->file.path,
                         (int)length, module, (int)module_length(candidates[1]), candidates[1], (int)given_length, given,
                         (int)given_length, given, (int)length, module);
    }
    char *from = strndup(given, given_length);
    if (from == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", i->file.path); }
    bptt_status status = BPTT_OK;
    for (size_t t = 0; status == BPTT_OK && t < i->file.count; t++) {
        if (!in_module(i->file.tensors[t].name, from, given_length)) { continue; }
        status = rename_tensor(&i->file, &i->file.tensors[t], given_length, module, length, error);
    }
    if (status == BPTT_OK) {
        print_name(from);
        printf(" read as %.*s\n", (int)length, module);
    }
    free(from);
    return status;
}

/* Modules are sought pair by pair, which a stranger's file must not turn into hours. */
static bptt_status check_count(const bptt_st_file *file, bptt_error *error)
{
    enum { MOST_TENSORS = 1 << 14 };
    if (file->count <= MOST_TENSORS) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s: has %zu tensors; expected at most %d, those of the network among them", file->path,
                     file->count, MOST_TENSORS);
}

/* Every module of the model is in the file, with no tensor that the model has not: a second layer, say. */
static bptt_status place_modules(intake *i, bptt_error *error)
{
    bptt_status status = BPTT_OK;
    for (size_t n = 0; status == BPTT_OK && n < i->needed.count; n++) {
        const char *name = i->needed.tensors[n].name;
        const size_t length = module_length(name);
        if (find_module(&i->file, name, length) == NULL) { status = place_module(i, name, length, error); }
    }
    for (size_t t = 0; status == BPTT_OK && t < i->file.count; t++) {
        const char *name = i->file.tensors[t].name;
        const size_t length = module_length(name);
        if (find_module(&i->needed, name, length) == NULL || bptt_st_find(&i->needed, name) != NULL) { continue; }
        status =
            bptt_fail(error, BPTT_FAILED, "%s: has a tensor '%.100s', the network of %s has none (another number of layers?)",
                      i->file.path, name, i->spec.source);
    }
    return status;
}

/* ---- the command ---- */

static bptt_status open_model(intake *i, bptt_error *error)
{
    static const bptt_override one_thread = {"threads", 7, "1"};
    bptt_status status = bptt_options_spec(i->options, &i->spec, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_spec_parse(i->spec.text, strlen(i->spec.text), i->spec.source, &one_thread, 1, &i->single, error);
    if (status == BPTT_OK) { status = bptt_program_open(&i->single, BPTT_BACKEND_TCC, &i->program, error); }
    if (status != BPTT_OK) { return status; }
    const bptt_model *model = i->program.model;
    i->memory = bptt_memory_new(model);
    if (i->memory == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", model->bytes); }
    model->init(model, i->memory, i->spec.seed);
    return bptt_weights_pack(i->options->operand, model, i->memory, model->param, 0, &i->needed, error);
}

static void free_all(intake *i)
{
    bptt_st_free(&i->file);
    bptt_st_free(&i->needed);
    free(i->memory);
    if (i->program.model != NULL) { bptt_program_close(&i->program); }
    if (i->single.text != NULL) { bptt_spec_free(&i->single); }
    if (i->spec.text != NULL) { bptt_spec_free(&i->spec); }
}

bptt_status bptt_command_import(const bptt_options *options, bptt_error *error)
{
    static const bptt_cursor start = {.step = 0};
    intake i = {.options = options};
    bptt_status status = open_model(&i, error);
    if (status == BPTT_OK) { status = bptt_weights_read(options->operand, &i.file, error); }
    if (status == BPTT_OK) { status = check_count(&i.file, error); }
    if (status == BPTT_OK) { status = apply_maps(&i, error); }
    if (status == BPTT_OK) { status = place_modules(&i, error); }
    if (status == BPTT_OK) { status = bptt_weights_take(&i.file, i.program.model, i.memory, error); }
    if (status == BPTT_OK) { status = bptt_checkpoint_save(options->out, &i.spec, i.program.model, i.memory, &start, error); }
    if (status == BPTT_OK) {
        const size_t others = i.file.count - i.needed.count;
        if (others > 0) { printf("left aside  %zu other tensors\n", others); }
        printf("checkpoint  %s\n", options->out);
    }
    free_all(&i);
    return status;
}
