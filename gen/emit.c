/* emit.c: shows the plan to the templates, as a Lua table, and renders the files.  See emit.h. */
#include "emit.h"

#include "names.h"
#include "template.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* --- fields of the table on top of the stack ---------------------------------------------------------------------------------------- */

static void set_integer(lua_State *L, const char *name, int64_t value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void set_boolean(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/* --- parts of the plan ------------------------------------------------------------------------------------------------------------------ */

static void set_ref(lua_State *L, const char *name, const bptt_ref *ref)
{
    if (ref->kind == BPTT_REF_NONE) { return; }
    lua_newtable(L);
    if (ref->kind == BPTT_REF_SLOT) {
        set_integer(L, "slot", ref->index + 1);
        set_integer(L, "shift", ref->shift);
    } else {
        set_integer(L, ref->kind == BPTT_REF_TEMP ? "temp" : "param", ref->index + 1);
    }
    lua_setfield(L, -2, name);
}

static void push_elements(lua_State *L, const bptt_action *action)
{
    lua_newtable(L);
    for (int e = 0; e < action->element_count; e++) {
        lua_newtable(L);
        set_string(L, "op", bptt_op_name(action->elements[e].op));
        set_ref(L, "out", &action->elements[e].out);
        set_ref(L, "a", &action->elements[e].a);
        set_ref(L, "b", &action->elements[e].b);
        if (bptt_op_has_value(action->elements[e].op)) { set_number(L, "value", action->elements[e].value); }
        lua_rawseti(L, -2, e + 1);
    }
    lua_setfield(L, -2, "elements");
    set_integer(L, "temps", action->temp_count);
}

static void push_tile(lua_State *L, const bptt_tile *tile)
{
    lua_newtable(L);
    set_integer(L, "rows", tile->rows);
    set_integer(L, "rest_rows", tile->rest_rows);
    set_integer(L, "vectors", tile->vectors);
    set_integer(L, "rest_vectors", tile->rest_vectors);
    lua_setfield(L, -2, "tile");
}

static void push_action(lua_State *L, const bptt_plan *plan, const bptt_action *action)
{
    static const char *const fills[] = {"zero", "bias", "add"};
    lua_newtable(L);
    set_string(L, "kind", bptt_action_name(action->kind));
    set_string(L, "region", bptt_region_name(action->region));
    set_integer(L, "level", action->level);
    set_string(L, "fill", fills[action->fill]);
    set_string(L, "loss", bptt_op_name(action->loss));
    set_number(L, "smoothing", action->smoothing);
    set_boolean(L, "cut", action->cut);
    set_integer(L, "site", action->site);
    set_string(L, "name", action->name);
    set_string(L, "note", action->note);
    set_boolean(L, "forward", action->forward);
    set_boolean(L, "into_previous", action->into_previous);
    set_boolean(L, "begins", action->begins);
    set_boolean(L, "later", action->later);
    set_boolean(L, "in_time", bptt_in_time(plan, action));
    set_boolean(L, "turned", action->turned);
    set_boolean(L, "alternates", action->alternates);
    set_boolean(L, "follows", action->follows);
    set_integer(L, "param", action->param + 1);
    set_integer(L, "bias", action->bias + 1);
    set_integer(L, "cols", action->cols);
    set_integer(L, "depth", action->depth);
    set_integer(L, "terms", action->terms);
    set_boolean(L, "packed", action->packed);
    set_ref(L, "out", &action->out);
    set_ref(L, "input", &action->in);
    set_ref(L, "adjoint", &action->adjoint);
    push_tile(L, &action->tile);
    push_elements(L, action);
}

static void push_params(lua_State *L, const bptt_plan *plan)
{
    lua_newtable(L);
    for (int p = 0; p < plan->graph->param_count; p++) {
        const bptt_tensor_plan *tensor = &plan->params[p];
        const bptt_param *param = &plan->graph->params[p];
        lua_newtable(L);
        set_string(L, "name", plan->graph->nodes[param->node].name);
        set_string(L, "file", param->file);
        set_string(L, "twin", param->twin);
        set_integer(L, "part", param->part);
        set_integer(L, "parts", param->parts);
        set_integer(L, "rank", plan->graph->nodes[param->node].cols > 0 ? 2 : 1);
        set_integer(L, "rows", tensor->rows);
        set_integer(L, "cols", tensor->cols);
        set_integer(L, "stride", tensor->stride);
        set_integer(L, "width", tensor->width);
        set_integer(L, "offset", (int64_t)tensor->offset);
        set_boolean(L, "leads", tensor->leader == p); /* of the matrix that it is columns of */
        set_boolean(L, "table", param->table);
        set_boolean(L, "sparse", tensor->sparse);
        set_boolean(L, "turned", tensor->turned);
        set_integer(L, "turned_stride", tensor->turned_stride);
        set_integer(L, "turned_offset", (int64_t)tensor->turned_offset);
        set_boolean(L, "own", tensor->own);
        set_integer(L, "own_offset", (int64_t)tensor->own_offset);
        set_string(L, "init", bptt_spec_word("init", (int)tensor->init.kind));
        set_number(L, "init_scale", tensor->init.scale);
        set_number(L, "first", param->first);
        lua_rawseti(L, -2, p + 1);
    }
    lua_setfield(L, -2, "params");
}

static void push_slots(lua_State *L, const bptt_plan *plan)
{
    static const char *const kinds[] = {"state", "chunk", "block", "step", "one"};
    lua_newtable(L);
    for (int s = 0; s < plan->slot_count; s++) {
        const bptt_slot *slot = &plan->slots[s];
        lua_newtable(L);
        set_string(L, "name", slot->name);
        set_string(L, "later", slot->later);
        set_string(L, "kind", kinds[slot->kind]);
        set_boolean(L, "kept", slot->kept && slot->host < 0);
        set_boolean(L, "carried",
                    slot->kept && !bptt_is_host(plan, s)); /* columns by themselves: their padding is not a model's */
        set_boolean(L, "fed", slot->fed);
        set_boolean(L, "linear", slot->linear);
        if (slot->host >= 0) { set_integer(L, "host", slot->host + 1); }
        set_integer(L, "rows", bptt_slot_row_count(plan, slot));
        set_integer(L, "cols", slot->cols);
        set_integer(L, "stride", slot->stride);
        set_integer(L, "size", (int64_t)slot->size);
        set_integer(L, "offset", (int64_t)slot->offset);
        set_integer(L, "carried_offset", (int64_t)slot->carried);
        lua_rawseti(L, -2, s + 1);
    }
    lua_setfield(L, -2, "slots");
    lua_newtable(L);
    for (int s = 0; s < plan->graph->state_count; s++) {
        lua_pushinteger(L, plan->refs[plan->graph->states[s].node].index + 1);
        lua_rawseti(L, -2, s + 1);
    }
    lua_setfield(L, -2, "states");
}

/* The rule that a field chose, and its rates by name. */
static void push_rule(lua_State *L, const bptt_spec *spec, const char *field, int kind)
{
    double value = 0;
    const char *name;
    lua_newtable(L);
    set_string(L, "kind", bptt_spec_word(field, kind));
    for (int i = 0; (name = bptt_spec_rate(spec, field, i, &value)) != NULL; i++) { set_number(L, name, value); }
    lua_setfield(L, -2, field);
}

/* The stretches of steps that have a loss, first and last + 1; nothing when all have. */
static void push_steps(lua_State *L, const bptt_spec *spec)
{
    int64_t stretches[BPTT_MAX_STRETCHES][2] = {{0}};
    const int count = bptt_spec_loss_steps(spec, stretches);
    if (spec->loss_at.kind == BPTT_STEPS_ALL) { return; }
    lua_newtable(L);
    for (int i = 0; i < count; i++) {
        lua_newtable(L);
        lua_pushinteger(L, stretches[i][0]);
        lua_rawseti(L, -2, 1);
        lua_pushinteger(L, stretches[i][1]);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "loss_steps");
}

/* Hidden units of each layer, where they differ. */
static void push_widths(lua_State *L, const bptt_spec *spec)
{
    lua_newtable(L);
    for (int i = 0; i < spec->size_count; i++) {
        lua_pushinteger(L, spec->sizes[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "widths");
}

static void push_spec(lua_State *L, const bptt_spec *spec)
{
    lua_newtable(L);
    set_string(L, "name", spec->name);
    set_string(L, "digest", spec->digest);
    set_integer(L, "hidden", spec->hidden);
    push_widths(L, spec);
    set_integer(L, "vocab", spec->vocab);
    set_integer(L, "inputs", spec->inputs);
    set_integer(L, "embedding", spec->embedding);
    set_integer(L, "targets", spec->outputs);
    set_boolean(L, "tokens", bptt_spec_tokens(spec));
    set_boolean(L, "labels", bptt_spec_labels(spec));
    push_steps(L, spec);
    set_string(L, "loss", bptt_spec_word("loss", (int)spec->loss));
    lua_pushlstring(L, (const char *)spec->alphabet, (size_t)spec->alphabet_size);
    lua_setfield(L, -2, "alphabet");
    set_integer(L, "T", spec->T);
    set_integer(L, "K", spec->K);
    set_string(L, "truncation", bptt_spec_word("truncation", (int)spec->truncation));
    set_integer(L, "stride", spec->stride);
    set_integer(L, "batch", spec->batch);
    set_boolean(L, "carry", spec->carry);
    set_string(L, "update", bptt_spec_word("update", (int)spec->update));
    set_integer(L, "accumulate", spec->accumulate);
    set_string(L, "h0", bptt_spec_word("h0", (int)spec->h0));
    set_boolean(L, "resets", spec->resets);
    set_boolean(L, "dropout", bptt_spec_drops(spec));
    set_integer(L, "separator", spec->separator - 1);
    set_boolean(L, "restarts", bptt_spec_restarts(spec));
    set_string(L, "cell", spec->equations != NULL ? "of its own" : bptt_spec_word("cell", (int)spec->cell));
    set_boolean(L, "own_cell", spec->equations != NULL);
    set_string(L, "activation", bptt_spec_word("activation", (int)spec->activation));
    set_string(L, "reduction", spec->reduction == BPTT_MEAN ? "mean" : "sum");
    lua_pushinteger(L, (lua_Integer)spec->seed);
    lua_setfield(L, -2, "seed");
    push_rule(L, spec, "optimizer", (int)spec->optimizer.kind);
    push_rule(L, spec, "schedule", (int)spec->schedule.kind);
    static const char *const clips[] = {"none", "norm", "value"};
    set_string(L, "clip", clips[spec->clip.kind]);
    set_number(L, "limit", spec->clip.limit);
    lua_setfield(L, -2, "spec");
}

static void push_counts(lua_State *L, const bptt_plan *plan)
{
    const bptt_counts *counts = &plan->counts;
    set_integer(L, "parameters", (int64_t)counts->parameters);
    set_integer(L, "struct_bytes", (int64_t)counts->struct_bytes);
    set_integer(L, "flop_forward", (int64_t)counts->flop_forward);
    set_integer(L, "flop_backward", (int64_t)counts->flop_backward);
    set_integer(L, "flop_update", (int64_t)counts->flop_update);
    set_integer(L, "progress_size", plan->progress);
    set_integer(L, "progress_count", plan->progress_count);
}

/* reserved(word): whether it cannot be a value's name in C. */
static int reserved(lua_State *L)
{
    size_t length = 0;
    const char *word = luaL_checklstring(L, 1, &length);
    lua_pushboolean(L, bptt_is_reserved(word, length));
    return 1;
}

/* What is shown. */
typedef struct view {
    const bptt_plan *plan;
    char *overrides; /* see bptt_spec_overrides; loops and vectors as the plan chose them */
} view;

/* Names for the templates: the plan's fields, at the top level. */
static int fill(lua_State *L)
{
    const view *shown = lua_touserdata(L, 2);
    const bptt_plan *plan = shown->plan;
    lua_settop(L, 1);
    set_string(L, "overrides", shown->overrides);
    push_spec(L, plan->spec);
    push_params(L, plan);
    push_slots(L, plan);
    push_counts(L, plan);
    set_string(L, "version", BPTT_VERSION);
    set_string(L, "unroll", bptt_spec_word("unroll", (int)plan->unroll));
    set_integer(L, "levels", plan->levels);
    set_integer(L, "real_size", plan->real_size);
    set_integer(L, "simd", plan->simd);
    set_integer(L, "lanes", plan->lanes);
    set_integer(L, "chunks", plan->chunks);
    set_integer(L, "chunk_steps", plan->steps);
    set_integer(L, "window", plan->window);
    set_integer(L, "token_slot", plan->token_slot + 1);
    set_integer(L, "start_slot", plan->start_slot + 1);
    set_integer(L, "token_count", plan->tokens);
    set_integer(L, "rest", plan->rest);
    set_integer(L, "block", plan->block);
    set_integer(L, "tail_block", plan->tail_block);
    set_integer(L, "threads", plan->threads);
    set_integer(L, "streams", plan->streams);
    set_integer(L, "given", plan->given);
    set_integer(L, "line", plan->line);
    set_integer(L, "block_size", (int64_t)plan->block_size);
    set_integer(L, "turned_size", (int64_t)plan->turned_size);
    set_integer(L, "restart_offset", (int64_t)plan->restart);
    set_integer(L, "work_size", (int64_t)plan->work_size);
    set_integer(L, "own_size", (int64_t)plan->own_size);
    set_integer(L, "carried_size", (int64_t)plan->carried_size);
    set_integer(L, "moments", plan->moments);
    set_boolean(L, "accumulates", plan->accumulates);
    set_boolean(L, "tuned", plan->spec->tuning != NULL);
    lua_newtable(L);
    for (int a = 0; a < plan->action_count; a++) {
        push_action(L, plan, &plan->actions[a]);
        lua_rawseti(L, -2, a + 1);
    }
    lua_setfield(L, -2, "actions");
    lua_pushcfunction(L, reserved);
    lua_setfield(L, -2, "reserved");
    return 0;
}

bptt_status bptt_emit(const bptt_plan *plan, bptt_unit *unit, bptt_error *error)
{
    const struct {
        const char *name;
        char **text;
    } files[] = {
        {"model.h", &unit->header}, {"model.c", &unit->source}, {"example.c", &unit->example}, {"Makefile", &unit->makefile}};
    bptt_spec chosen = *plan->spec;
    chosen.unroll = plan->unroll;
    chosen.simd = plan->simd;
    view shown = {plan, bptt_spec_overrides(&chosen)};
    bptt_templates *templates = bptt_templates_new();
    bptt_status status = BPTT_OK;
    if (templates == NULL || shown.overrides == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "no memory to emit %s", plan->spec->name);
    }
    if (status == BPTT_OK) { status = bptt_templates_define(templates, fill, &shown, error); }
    for (size_t i = 0; i < sizeof files / sizeof files[0] && status == BPTT_OK; i++) {
        status = bptt_templates_render(templates, files[i].name, files[i].text, error);
    }
    bptt_templates_free(templates);
    free(shown.overrides);
    return status;
}
