/* inspect.c: `bptt inspect`, the sizes and counts of a spec or a checkpoint.
 *
 * Depends on generate.h (counts, text), backend.h (the tensor table), checkpoint.h and safetensors.h.
 */
#include "backend.h"
#include "checkpoint.h"
#include "generate.h"
#include "json.h"
#include "options.h"
#include "safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* All that is shown. */
typedef struct inspection {
    bptt_spec spec, single; /* single: the same with one thread, so that it opens on any machine */
    bptt_unit unit;
    bptt_program program; /* of single */
    bptt_cursor cursor;   /* of a checkpoint */
    bptt_st_file file;    /* of a checkpoint */
    bool checkpoint;
} inspection;

/* The ending says it, else the first bytes do. */
static bool is_checkpoint(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strcmp(dot, ".safetensors") == 0) { return true; }
    if (dot != NULL && strcmp(dot, ".lua") == 0) { return false; }
    return bptt_st_like(path);
}

/* Loading it whole is the check that it is sound, and says where training stands. */
static bptt_status read_checkpoint(inspection *i, const char *path, bptt_error *error)
{
    const bptt_model *model = i->program.model;
    void *memory = bptt_memory_new(model);
    if (memory == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for a model of %zu bytes", model->bytes); }
    model->init(model, memory, i->spec.seed);
    bptt_status status = bptt_checkpoint_load(path, &i->spec, model, memory, &i->cursor, error);
    free(memory);
    if (status != BPTT_OK) { return status; }
    return bptt_st_read(path, &i->file, error);
}

static bptt_status read_all(inspection *i, const bptt_options *options, bptt_error *error)
{
    static const bptt_override one_thread = {"threads", 7, "1"};
    bptt_status status = bptt_compile_here(&i->spec, &i->unit, error);
    if (status == BPTT_OK) {
        status = bptt_spec_parse(i->spec.text, strlen(i->spec.text), i->spec.source, &one_thread, 1, &i->single, error);
    }
    if (status == BPTT_OK) { status = bptt_program_open(&i->single, BPTT_BACKEND_TCC, &i->program, error); }
    if (status != BPTT_OK || !i->checkpoint) { return status; }
    return read_checkpoint(i, options->operand, error);
}

static void free_all(inspection *i)
{
    if (i->file.buffer != NULL) { bptt_st_free(&i->file); }
    if (i->program.model != NULL) { bptt_program_close(&i->program); }
    if (i->unit.source != NULL) { bptt_unit_free(&i->unit); }
    if (i->single.text != NULL) { bptt_spec_free(&i->single); }
    bptt_spec_free(&i->spec);
}

/* ---- as text ---- */

/* A name in a file is a stranger's: no escape sequence of his reaches the terminal. */
static void print_name(const char *name)
{
    int column = 0;
    for (; name[column] != '\0'; column++) {
        unsigned char c = (unsigned char)name[column];
        putchar(c < 0x20 || c >= 0x7f ? '?' : c);
    }
    printf("%*s", column < 28 ? 28 - column : 0, "");
}

static void print_shape(const bptt_st_tensor *tensor)
{
    printf("  ");
    print_name(tensor->name);
    printf(" %s [", bptt_st_dtype_word(tensor->dtype));
    for (unsigned r = 0; r < tensor->rank; r++) { printf("%s%" PRIu64, r == 0 ? "" : ", ", tensor->shape[r]); }
    printf("]\n");
}

static void print_tensors(const bptt_model *model)
{
    printf("\ntensor   file                          shape in the file\n");
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const bptt_tensor *tensor = &model->tensors[t];
        char part[24] = "";
        const size_t length = strlen(tensor->file);
        if (tensor->parts > 1) { (void)snprintf(part, sizeof part, "[%u/%u]", tensor->part + 1, tensor->parts); }
        printf("%-8s %s%-*s  [%u", tensor->name, tensor->file, length < 28 ? (int)(28 - length) : 0, part,
               tensor->table ? tensor->rows : tensor->cols);
        if (tensor->rank == 2) { printf(", %u", tensor->table ? tensor->cols : tensor->rows); }
        printf("]\n");
    }
}

static void print_counts(const bptt_unit *unit)
{
    const bptt_counts *counts = &unit->counts;
    printf("\nparameters   %zu\nstruct       %zu bytes:\n", counts->parameters, counts->struct_bytes);
    for (size_t p = 0; p < counts->part_count; p++) {
        printf("  %-24s %zu bytes\n", counts->parts[p].name, counts->parts[p].bytes);
    }
    printf("FLOP a chunk %.0f forward, %.0f backward, %.0f update\n", counts->flop_forward, counts->flop_backward,
           counts->flop_update);
    printf("bytes moved  %.0f a chunk\nemitted text %zu bytes of C, %zu of header\n", counts->bytes_moved, strlen(unit->source),
           strlen(unit->header));
}

static void print_text(const inspection *i)
{
    const bptt_model *model = i->program.model;
    printf("%s  %s %s  H %u  V %u  T %u  K %u  B %u  %s  %s  digest %s\n", i->spec.name,
           i->spec.equations != NULL ? "of its own" : bptt_spec_word("cell", (int)i->spec.cell),
           bptt_spec_word("activation", (int)i->spec.activation), model->hidden, model->vocab, model->steps, model->horizon,
           model->batch, bptt_spec_word("dtype", (int)i->spec.dtype), bptt_spec_word("optimizer", (int)i->spec.optimizer.kind),
           i->spec.digest);
    print_tensors(model);
    print_counts(&i->unit);
    if (!i->checkpoint) { return; }
    printf("\ncheckpoint at step %" PRIu64 ", epoch %" PRIu64 ", position %" PRIu64 "\n", i->cursor.step, i->cursor.epoch,
           i->cursor.position);
    for (size_t t = 0; t < i->file.count; t++) { print_shape(&i->file.tensors[t]); }
}

/* ---- as JSON ---- */

static void json_counts(bptt_json *json, const bptt_unit *unit)
{
    const bptt_counts *counts = &unit->counts;
    bptt_json_whole(json, "parameters", counts->parameters);
    bptt_json_whole(json, "struct_bytes", counts->struct_bytes);
    bptt_json_open(json, "parts", '[');
    for (size_t p = 0; p < counts->part_count; p++) {
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "name", counts->parts[p].name);
        bptt_json_whole(json, "bytes", counts->parts[p].bytes);
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
    bptt_json_real(json, "flop_forward", counts->flop_forward);
    bptt_json_real(json, "flop_backward", counts->flop_backward);
    bptt_json_real(json, "flop_update", counts->flop_update);
    bptt_json_real(json, "bytes_moved", counts->bytes_moved);
    bptt_json_whole(json, "text_bytes", strlen(unit->source) + strlen(unit->header));
}

static void json_tensors(bptt_json *json, const bptt_model *model)
{
    bptt_json_open(json, "tensors", '[');
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const bptt_tensor *tensor = &model->tensors[t];
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "name", tensor->name);
        bptt_json_text(json, "file", tensor->file);
        bptt_json_whole(json, "part", tensor->part + 1);
        bptt_json_whole(json, "parts", tensor->parts);
        bptt_json_open(json, "shape", '[');
        bptt_json_whole(json, NULL, tensor->table ? tensor->rows : tensor->cols);
        if (tensor->rank == 2) { bptt_json_whole(json, NULL, tensor->table ? tensor->cols : tensor->rows); }
        bptt_json_close(json, ']');
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

static void json_checkpoint(bptt_json *json, const inspection *i)
{
    bptt_json_whole(json, "step", i->cursor.step);
    bptt_json_whole(json, "epoch", i->cursor.epoch);
    bptt_json_whole(json, "position", i->cursor.position);
    bptt_json_open(json, "file_tensors", '[');
    for (size_t t = 0; t < i->file.count; t++) {
        const bptt_st_tensor *tensor = &i->file.tensors[t];
        bptt_json_open(json, NULL, '{');
        bptt_json_text(json, "name", tensor->name);
        bptt_json_text(json, "dtype", bptt_st_dtype_word(tensor->dtype));
        bptt_json_open(json, "shape", '[');
        for (unsigned r = 0; r < tensor->rank; r++) { bptt_json_whole(json, NULL, tensor->shape[r]); }
        bptt_json_close(json, ']');
        bptt_json_close(json, '}');
    }
    bptt_json_close(json, ']');
}

static void print_json(const inspection *i)
{
    bptt_json json = {0};
    bptt_json_open(&json, NULL, '{');
    bptt_json_text(&json, "name", i->spec.name);
    bptt_json_text(&json, "digest", i->spec.digest);
    json_counts(&json, &i->unit);
    json_tensors(&json, i->program.model);
    if (i->checkpoint) { json_checkpoint(&json, i); }
    bptt_json_close(&json, '}');
}

/* ---- the command ---- */

bptt_status bptt_command_inspect(const bptt_options *options, bptt_error *error)
{
    inspection i = {.checkpoint = is_checkpoint(options->operand)};
    if (i.checkpoint && options->override_count > 0) {
        return bptt_fail(error, BPTT_USAGE, "--set and --seed change a spec, and %s is a checkpoint", options->operand);
    }
    bptt_status status =
        i.checkpoint ? bptt_checkpoint_spec(options->operand, &i.spec, error) : bptt_options_spec(options, &i.spec, error);
    if (status != BPTT_OK) { return status; }
    status = read_all(&i, options, error);
    if (status == BPTT_OK && options->json) { print_json(&i); }
    if (status == BPTT_OK && !options->json) { print_text(&i); }
    free_all(&i);
    return status;
}
