/* export.c: `bptt export`: a checkpoint's weights as safetensors, npz or a C header.  See export.h.
 *
 * Depends on evaluate.h (a checkpoint's network in memory), checkpoint.h (its weights as tensors), npz.h and gen/template.h.
 */
#include "export.h"

#include "../gen/compile.h"
#include "../gen/template.h"
#include "checkpoint.h"
#include "evaluate.h"
#include "file.h"
#include "npz.h"
#include "options.h"

#include <ctype.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

const char *const bptt_export_words[] = {"safetensors", "npz", "c-header", NULL};

/* ---- a C header, from templates/weights.h ---- */

typedef struct header {
    const char *name, *digest;
    const bptt_st_file *weights;
} header;

static double value_of(const bptt_st_tensor *tensor, size_t index)
{
    float narrow = 0;
    double wide = 0;
    if (tensor->dtype == BPTT_ST_F64) {
        memcpy(&wide, (const double *)tensor->data + index, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const float *)tensor->data + index, sizeof narrow);
    return (double)narrow;
}

static void set_string(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

/* The numbers as lines of C constants, into the table on top of the stack. */
static void set_values(lua_State *L, const bptt_st_tensor *tensor, size_t count)
{
    enum { A_LINE = 6 };
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (size_t i = 0; i < count; i++) {
        char number[48];
        const char *before = i % A_LINE == 0 ? "    " : " ";
        const char *after = i % A_LINE == A_LINE - 1 || i + 1 == count ? ",\n" : ",";
        (void)snprintf(number, sizeof number, "%s%a%s%s", before, value_of(tensor, i), tensor->dtype == BPTT_ST_F64 ? "" : "f",
                       after);
        luaL_addstring(&text, number);
    }
    luaL_pushresult(&text);
    lua_setfield(L, -2, "values");
}

/* A table for a tensor; its array is called tiny_rnn_weight_ih_l0. */
static void push_tensor(lua_State *L, const char *model, const bptt_st_tensor *tensor)
{
    const size_t count = tensor->bytes / (tensor->dtype == BPTT_ST_F64 ? sizeof(double) : sizeof(float));
    char array[200], shape[100] = "";
    (void)snprintf(array, sizeof array, "%s_%s", model, tensor->name);
    for (char *c = array; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c)) { *c = '_'; }
    }
    for (unsigned r = 0; r < tensor->rank; r++) {
        const size_t used = strlen(shape);
        (void)snprintf(shape + used, sizeof shape - used, "[%" PRIu64 "]", tensor->shape[r]);
    }
    lua_newtable(L);
    set_string(L, "name", tensor->name);
    set_string(L, "array", array);
    set_string(L, "shape", shape);
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, "count");
    set_values(L, tensor, count);
}

static int fill(lua_State *L)
{
    const header *from = lua_touserdata(L, 2);
    lua_settop(L, 1);
    set_string(L, "name", from->name);
    set_string(L, "version", BPTT_VERSION);
    set_string(L, "digest", from->digest);
    set_string(L, "real", from->weights->tensors[0].dtype == BPTT_ST_F64 ? "double" : "float");
    lua_newtable(L);
    for (size_t i = 0; i < from->weights->count; i++) {
        push_tensor(L, from->name, &from->weights->tensors[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "tensors");
    return 0;
}

static bptt_status write_header(const char *path, const bptt_spec *spec, const bptt_st_file *weights, bptt_error *error)
{
    const header from = {spec->name, spec->digest, weights};
    char *text = NULL;
    bptt_templates *templates = bptt_templates_new();
    if (templates == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", path); }
    bptt_status status = bptt_templates_define(templates, fill, &from, error);
    if (status == BPTT_OK) { status = bptt_templates_render(templates, "weights.h", &text, error); }
    if (status == BPTT_OK) { status = bptt_file_write(path, text, strlen(text), error); }
    free(text);
    bptt_templates_free(templates);
    return status;
}

/* ---- the command ---- */

/* `spec` is the checkpoint's, the companion its network. */
static bptt_status write_weights(const bptt_options *options, const bptt_spec *spec, const bptt_companion *from, const char *path,
                                 bptt_error *error)
{
    const bptt_model *model = from->program.model;
    if (options->to == BPTT_EXPORT_SAFETENSORS) { return bptt_weights_save(path, model, from->memory, model->param, 0, error); }
    bptt_st_file weights;
    bptt_status status = bptt_weights_pack(path, model, from->memory, model->param, 0, &weights, error);
    if (status != BPTT_OK) { return status; }
    status = options->to == BPTT_EXPORT_NPZ ? bptt_npz_write(path, weights.tensors, weights.count, error)
                                            : write_header(path, spec, &weights, error);
    bptt_st_free(&weights);
    return status;
}

bptt_status bptt_command_export(const bptt_options *options, bptt_error *error)
{
    static const char *const endings[] = {"safetensors", "npz", "h"};
    bptt_spec spec;
    bptt_companion from;
    bptt_status status = bptt_checkpoint_spec(options->operand, &spec, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_companion_load(&from, options->operand, BPTT_BACKEND_TCC, error);
    if (status == BPTT_OK) {
        char path[BPTT_NAME_MAX + 32];
        (void)snprintf(path, sizeof path, "%s_weights.%s", spec.name, endings[options->to]);
        const char *out = options->out != NULL ? options->out : path;
        status = write_weights(options, &spec, &from, out, error);
        if (status == BPTT_OK) { printf("%s\n", out); }
        bptt_companion_close(&from);
    }
    bptt_spec_free(&spec);
    return status;
}
