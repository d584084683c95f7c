/* trace.c: second stage.  Runs a cell's Lua equations over symbolic values; what remains is the graph of one time step.
 *
 * In a cell every global is an equation: `a = W * x + b` names the sum.  The environment is a proxy whose __newindex does the naming
 * and whose __index finds what was named before.  Depends on Lua through sandbox.h, on graph.h and on the embedded cells.
 */
#include "embedded.h"
#include "graph.h"
#include "sandbox.h"

#include <float.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char NODE[] = "bptt node";

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

/* The graph under construction, an upvalue of every function here. */
static bptt_graph *graph_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static int push_node(lua_State *L, int node)
{
    int *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = node;
    luaL_setmetatable(L, NODE);
    return 1;
}

static int line_of_caller(lua_State *L)
{
    lua_Debug info;
    return lua_getstack(L, 1, &info) != 0 && lua_getinfo(L, "l", &info) != 0 ? info.currentline : 0;
}

static int check_node(lua_State *L, int index)
{
    return *(int *)luaL_checkudata(L, index, NODE);
}

/* The only thing that a cell may do with a matrix is to multiply a vector by it. */
static int apply(lua_State *L, bptt_op op, int a, int b)
{
    const bptt_node *nodes = graph_of(L)->nodes;
    bptt_error error = {""};
    if (op != BPTT_OP_MATVEC && op != BPTT_OP_MATVEC_T && (nodes[a].cols > 0 || (b >= 0 && nodes[b].cols > 0))) {
        return luaL_error(L, "%s takes vectors, not a matrix", bptt_op_name(op));
    }
    int node = bptt_graph_apply(graph_of(L), op, a, b, &error);
    if (node < 0) { return luaL_error(L, "%s", error.text); }
    graph_of(L)->nodes[node].line = line_of_caller(L);
    return push_node(L, node);
}

/* --- what equations are made of ------------------------------------------------------------------------------------------ */

/* A number: finite, also as a float, so that an equation means the same in f32 and f64. */
static double check_number(lua_State *L, double value)
{
    char text[32];
    if (!(value >= -(double)FLT_MAX && value <= (double)FLT_MAX)) {
        luaL_error(L, "%s in an equation; expected a number from -3.4e38 to 3.4e38", bptt_number_text(value, text, sizeof text));
    }
    return value;
}

/* op(a, value); a and the result are nodes. */
static int apply_value(lua_State *L, bptt_op op, int a, double value)
{
    bptt_error error = {""};
    if (graph_of(L)->nodes[a].cols > 0) { luaL_error(L, "%s takes vectors, not a matrix", bptt_op_name(op)); }
    int node = bptt_graph_apply_value(graph_of(L), op, a, check_number(L, value), &error);
    if (node < 0) { luaL_error(L, "%s", error.text); }
    graph_of(L)->nodes[node].line = line_of_caller(L);
    return node;
}

static int negative(lua_State *L, int a)
{
    (void)apply(L, BPTT_OP_NEG, a, -1);
    return check_node(L, -1);
}

/* A number c (`value`) and a node: c op v where `first`, else v op c. */
static int with_number(lua_State *L, bptt_op op, double value, int v, bool first)
{
    switch (op) {
    case BPTT_OP_ADD:
        return push_node(L, apply_value(L, BPTT_OP_SHIFT, v, value));
    case BPTT_OP_SUB:
        return push_node(L, apply_value(L, BPTT_OP_SHIFT, first ? negative(L, v) : v, first ? value : -value));
    case BPTT_OP_MUL:
        return push_node(L, apply_value(L, BPTT_OP_SCALE, v, value));
    case BPTT_OP_DIV:
        return push_node(L, apply_value(L, first ? BPTT_OP_OVER : BPTT_OP_SCALE, v, first ? value : 1 / check_number(L, value)));
    case BPTT_OP_MAX:
        return push_node(L, apply_value(L, BPTT_OP_FLOOR, v, value));
    default: /* min(v, c) = -max(-v, -c) */
        return push_node(L, negative(L, apply_value(L, BPTT_OP_FLOOR, negative(L, v), -value)));
    }
}

/* + - * / min max of two values, one of which may be a number; the op is the second upvalue. */
static int arithmetic(lua_State *L)
{
    bptt_op op = (bptt_op)lua_tointeger(L, lua_upvalueindex(2));
    for (int i = 1; i <= 2; i++) {
        if (lua_type(L, i) == LUA_TNUMBER) { return with_number(L, op, lua_tonumber(L, i), check_node(L, 3 - i), i == 1); }
    }
    int a = check_node(L, 1), b = check_node(L, 2);
    if (op == BPTT_OP_MUL && graph_of(L)->nodes[a].cols > 0) { op = BPTT_OP_MATVEC; }
    return apply(L, op, a, b);
}

/* A plain operation of the table; its number is the second upvalue. */
static int operation(lua_State *L)
{
    bptt_op op = (bptt_op)lua_tointeger(L, lua_upvalueindex(2));
    return apply(L, op, check_node(L, 1), bptt_op_arity(op) == 2 ? check_node(L, 2) : -1);
}

/* The function that changes nothing. */
static int identity(lua_State *L)
{
    return push_node(L, check_node(L, 1));
}

/* Like apply, for a part of a vector. */
static int apply_part(lua_State *L, bptt_op op, int a, int64_t first, int64_t rows)
{
    bptt_error error = {""};
    int node = bptt_graph_apply_part(graph_of(L), op, a, first, rows, &error);
    if (node < 0) { return luaL_error(L, "%s", error.text); }
    graph_of(L)->nodes[node].line = line_of_caller(L);
    return node;
}

static int check_vector(lua_State *L, int index)
{
    int node = check_node(L, index);
    luaL_argcheck(L, graph_of(L)->nodes[node].cols == 0, index, "a vector expected, got a matrix");
    return node;
}

/* slice(v, first, last), counted from 1 */
static int slice(lua_State *L)
{
    int v = check_vector(L, 1);
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3), rows = graph_of(L)->nodes[v].rows;
    if (first < 1 || last < first || last > rows) {
        return luaL_error(L, "slice: rows %I to %I of a vector of %I", (LUAI_UACINT)first, (LUAI_UACINT)last, (LUAI_UACINT)rows);
    }
    return push_node(L, apply_part(L, BPTT_OP_SLICE, v, first - 1, last - first + 1));
}

/* concat(u, v, ...): the sum of the parts, each at its place among zeros */
static int concat(lua_State *L)
{
    const int count = lua_gettop(L);
    luaL_argcheck(L, count >= 2, count, "concat takes two vectors or more");
    int64_t rows = 0, first = 0;
    for (int i = 1; i <= count; i++) { rows += graph_of(L)->nodes[check_vector(L, i)].rows; }
    int sum = -1;
    for (int i = 1; i <= count; i++) {
        const int v = check_node(L, i), part = apply_part(L, BPTT_OP_PLACE, v, first, rows);
        first += graph_of(L)->nodes[v].rows;
        if (sum >= 0) { (void)apply(L, BPTT_OP_ADD, sum, part); }
        sum = sum < 0 ? part : check_node(L, -1);
        lua_settop(L, count); /* the stack has room for a few values alone */
    }
    return push_node(L, sum);
}

static int add_leaf(lua_State *L, bptt_op op, lua_Integer rows, lua_Integer cols, int symbol)
{
    bptt_error error = {""};
    bptt_node node = {.op = op, .a = -1, .b = -1, .rows = rows, .cols = cols, .symbol = symbol, .line = line_of_caller(L)};
    int index = bptt_graph_add(graph_of(L), &node, &error);
    if (index < 0) { return luaL_error(L, "%s", error.text); }
    return index;
}

/* Argument `index`; so small that no product of a few sizes overflows. */
static lua_Integer check_size(lua_State *L, int index)
{
    lua_Integer size = luaL_checkinteger(L, index);
    luaL_argcheck(L, size > 0 && size <= INT32_MAX, index, "a size is from 1 to 2147483647");
    return size;
}

enum { OUTPUT_LAYER = -1, INPUT_LAYER = -2 };

/* The layer whose cell is traced, from 0, or one of the two. */
static int layer_of(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt layer");
    const int layer = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return layer;
}

/* "[2/4]": the second of four blocks.  False: it is no such thing. */
static bool read_part(const char *text, int *part, int *parts)
{
    enum { MOST = 64 };
    char *end;
    if (text[0] != '[') { return false; }
    const long number = strtol(text + 1, &end, 10);
    if (*end != '/') { return false; }
    const long count = strtol(end + 1, &end, 10);
    *part = (int)number - 1;
    *parts = (int)count;
    return strcmp(end, "]") == 0 && 1 <= number && number <= count && count <= MOST;
}

/* Argument `index`, a name in weight files, or none, with a block of that tensor; it becomes part of C text.  A cell's gets its
 * layer. */
static void check_file(lua_State *L, int index, char *file, int *part, int *parts)
{
    size_t length;
    const char *name = luaL_optlstring(L, index, "", &length);
    const size_t letters = strspn(name, LETTERS DIGITS "_.");
    const bool valid = letters < BPTT_FILE_MAX - 8 && (letters > 0 || lua_isnoneornil(L, index));
    *part = 0;
    *parts = 1;
    luaL_argcheck(L, valid && (letters == length || (letters > 0 && read_part(name + letters, part, parts))), index,
                  "a name in files has up to 47 letters, digits, '_' and '.', then perhaps a block of it as [1/4]");
    if (letters > 0 && layer_of(L) >= 0) {
        (void)snprintf(file, BPTT_FILE_MAX, "%.*s_l%d", (int)letters, name, layer_of(L));
    } else {
        (void)snprintf(file, BPTT_FILE_MAX, "%.*s", (int)letters, name);
    }
}

static int add_param(lua_State *L, lua_Integer rows, lua_Integer cols, int file, int twin)
{
    bptt_graph *graph = graph_of(L);
    if (graph->param_count == BPTT_MAX_PARAMS) { return luaL_error(L, "more than %d parameters", BPTT_MAX_PARAMS); }
    bptt_param *param = &graph->params[graph->param_count];
    param->node = add_leaf(L, BPTT_OP_PARAM, rows, cols, graph->param_count);
    param->gradient = -1;
    int part, parts;
    check_file(L, file, param->file, &param->part, &param->parts);
    check_file(L, twin, param->twin, &part, &parts);
    luaL_argcheck(L, param->twin[0] == '\0' || strcmp(param->file, param->twin) != 0, twin, "that name is taken");
    luaL_argcheck(L, param->twin[0] == '\0' || (part == param->part && parts == param->parts), twin,
                  "it is another block than the first name's");
    graph->param_count++;
    return push_node(L, param->node);
}

/* matrix(outputs, inputs, "name in files"); without a name it is called after its equation, rnn.NAME_l0 */
static int matrix(lua_State *L)
{
    lua_Integer rows = check_size(L, 1);
    return add_param(L, rows, check_size(L, 2), 3, 4);
}

/* table(inputs, outputs, "name in files"): a matrix that files hold as an embedding, [inputs][outputs] */
static int table(lua_State *L)
{
    lua_Integer inputs = check_size(L, 1);
    int results = add_param(L, check_size(L, 2), inputs, 3, 4);
    graph_of(L)->params[graph_of(L)->param_count - 1].table = true;
    return results;
}

/* vector(size, "name in files", "second name", what its elements start at); all but the first may be left out */
static int vector(lua_State *L)
{
    bptt_graph *graph = graph_of(L);
    const double first = luaL_optnumber(L, 4, 0);
    luaL_argcheck(L, first >= -1e30 && first <= 1e30, 4, "a vector starts at a number from -1e30 to 1e30");
    int pushed = add_param(L, check_size(L, 1), 0, 2, 3);
    graph->params[graph->param_count - 1].first = first;
    return pushed;
}

/* What the equations see of state `s`: its value after step t-1, or h_0 where a sequence starts.  The second upvalue says how. */
static int restarted(lua_State *L, int s)
{
    bptt_error error = {""};
    bptt_graph *graph = graph_of(L);
    const bptt_op op = (bptt_op)lua_tointeger(L, lua_upvalueindex(2));
    const int before = graph->states[s].node;
    int start = -1;
    if (op == BPTT_OP_STATE) { return before; }
    lua_settop(L, 1);
    if (op == BPTT_OP_RESTART) { (void)add_param(L, graph->nodes[before].rows, 0, 2, 3); }
    if (op == BPTT_OP_RESTART) { start = check_node(L, -1); }
    const int node = bptt_graph_apply(graph, op, before, start, &error);
    if (node < 0) { return luaL_error(L, "%s", error.text); }
    graph->nodes[node].symbol = s;
    graph->nodes[node].line = line_of_caller(L);
    return node;
}

/* state(size) */
static int state(lua_State *L)
{
    bptt_graph *graph = graph_of(L);
    lua_Integer size = check_size(L, 1);
    if (graph->state_count == BPTT_MAX_STATES) { return luaL_error(L, "more than %d states", BPTT_MAX_STATES); }
    int node = add_leaf(L, BPTT_OP_STATE, size, 0, graph->state_count);
    graph->states[graph->state_count++] = (bptt_state){.node = node, .next = -1, .carry = -1, .outgoing = -1, .adjoint = -1};
    return push_node(L, restarted(L, graph->state_count - 1));
}

/* --- names ----------------------------------------------------------------------------------------------------------------- */

static bool valid_symbol(const char *name)
{
    size_t length = strspn(name, LETTERS DIGITS "_");
    return length > 0 && name[length] == '\0' && length < BPTT_SYMBOL_MAX - 6 && strspn(name, DIGITS "_") == 0;
}

/* `h = value` where h is a state. */
static void set_next(lua_State *L, bptt_graph *graph, int s, int value)
{
    const bptt_node *node = &graph->nodes[value];
    if (graph->states[s].next >= 0) { luaL_error(L, "state '%s' is assigned twice", lua_tostring(L, 2)); }
    if (bptt_op_kind_of(node->op) == BPTT_KIND_LEAF || bptt_graph_state_of(graph, value) >= 0 || node->cols > 0 ||
        node->rows != graph->nodes[graph->states[s].node].rows) {
        luaL_error(L, "state '%s' takes a computed vector of %d elements", lua_tostring(L, 2),
                   (int)graph->nodes[graph->states[s].node].rows);
    }
    for (int other = 0; other < graph->state_count; other++) {
        if (graph->states[other].next == value) { luaL_error(L, "two states share one value"); }
    }
    graph->states[s].next = value;
}

/* Where there are several layers, each one's names end in its number. */
static void name_node(lua_State *L, bptt_node *node, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt layers");
    if (lua_tointeger(L, -1) > 1 && layer_of(L) >= 0) {
        (void)snprintf(node->name, sizeof node->name, "%s_l%d", name, layer_of(L));
    } else {
        (void)snprintf(node->name, sizeof node->name, "%s", name);
    }
    lua_pop(L, 1);
}

/* What an equation names: h also names h_in, which is h[t-1] or h_0, and h_0 where that is learned. */
static void name_value(lua_State *L, bptt_graph *graph, int value, const char *name)
{
    bptt_node *node = &graph->nodes[value];
    const int s = bptt_graph_state_of(graph, value);
    if (s >= 0 && node->op != BPTT_OP_STATE && node->name[0] == '\0') {
        char text[BPTT_SYMBOL_MAX];
        name_node(L, &graph->nodes[graph->states[s].node], name);
        (void)snprintf(text, sizeof text, "%s_in", name);
        name_node(L, node, text);
        if (node->b < 0) { return; }
        (void)snprintf(text, sizeof text, "%s_0", name);
        name_node(L, &graph->nodes[node->b], text);
        (void)snprintf(graph->params[graph->nodes[node->b].symbol].file, BPTT_FILE_MAX, "h0.%s_l%d", name, layer_of(L));
        return;
    }
    if (node->name[0] == '\0') { name_node(L, node, name); }
    if (node->op == BPTT_OP_PARAM && graph->params[node->symbol].file[0] == '\0') {
        (void)snprintf(graph->params[node->symbol].file, BPTT_FILE_MAX, "rnn.%s_l%d", name, layer_of(L));
    }
}

/* environment.name = value; upvalues: graph, table of values */
static int assign(lua_State *L)
{
    bptt_graph *graph = graph_of(L);
    const char *name = luaL_checkstring(L, 2);
    const int *box = luaL_testudata(L, 3, NODE);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(2));
    const int *old = luaL_testudata(L, -1, NODE);
    if (box != NULL) {
        if (!valid_symbol(name)) {
            return luaL_error(L, "'%s' cannot name a value: a letter and up to %d more letters, digits and _ can", name,
                              BPTT_SYMBOL_MAX - 8);
        }
        if (old != NULL && bptt_graph_state_of(graph, *old) >= 0) {
            set_next(L, graph, bptt_graph_state_of(graph, *old), *box);
        } else if (!lua_isnil(L, -1)) {
            return luaL_error(L, "'%s' is assigned twice", name);
        }
        name_value(L, graph, *box, name);
    }
    lua_pop(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, lua_upvalueindex(2));
    return 0;
}

/* environment.name; upvalues: graph, table of values */
static int lookup(lua_State *L)
{
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) {
        return luaL_error(L, "nothing is called '%s' here", lua_tostring(L, 2));
    }
    return 1;
}

/* --- the environment ------------------------------------------------------------------------------------------------------- */

static void add_function(lua_State *L, bptt_graph *graph, const char *name, lua_CFunction function, bptt_op op)
{
    lua_pushlightuserdata(L, graph);
    lua_pushinteger(L, (lua_Integer)op);
    lua_pushcclosure(L, function, 2);
    lua_setfield(L, -2, name);
}

static void add_size(lua_State *L, const char *name, int64_t value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void add_metatable(lua_State *L, bptt_graph *graph)
{
    luaL_newmetatable(L, NODE);
    add_function(L, graph, "__add", arithmetic, BPTT_OP_ADD);
    add_function(L, graph, "__sub", arithmetic, BPTT_OP_SUB);
    add_function(L, graph, "__mul", arithmetic, BPTT_OP_MUL);
    add_function(L, graph, "__div", arithmetic, BPTT_OP_DIV);
    add_function(L, graph, "__unm", operation, BPTT_OP_NEG);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

static void add_values(lua_State *L, bptt_graph *graph, const bptt_spec *spec)
{
    static const bptt_op activations[] = {
        [BPTT_TANH] = BPTT_OP_TANH, [BPTT_RELU] = BPTT_OP_RELU, [BPTT_SIGMOID] = BPTT_OP_SIGMOID};
    static const bptt_op functions[] = {BPTT_OP_EXP,
                                        BPTT_OP_LOG,
                                        BPTT_OP_SQRT,
                                        BPTT_OP_ABS,
                                        BPTT_OP_TANH,
                                        BPTT_OP_SIGMOID,
                                        BPTT_OP_RELU,
                                        BPTT_OP_SOFTMAX,
                                        BPTT_OP_CROSS_ENTROPY,
                                        BPTT_OP_SQUARED_ERROR,
                                        BPTT_OP_BINARY_CROSS_ENTROPY};
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        add_function(L, graph, bptt_op_name(functions[i]), operation, functions[i]);
    }
    add_function(L, graph, "min", arithmetic, BPTT_OP_MIN);
    add_function(L, graph, "max", arithmetic, BPTT_OP_MAX);
    add_function(L, graph, "slice", slice, BPTT_OP_SLICE);
    add_function(L, graph, "concat", concat, BPTT_OP_PLACE);
    if (spec->activation == BPTT_IDENTITY) {
        add_function(L, graph, "phi", identity, BPTT_OP_COUNT);
    } else {
        add_function(L, graph, "phi", operation, activations[spec->activation]);
    }
    add_function(L, graph, "matrix", matrix, BPTT_OP_PARAM);
    add_function(L, graph, "vector", vector, BPTT_OP_PARAM);
    add_function(L, graph, "state", state,
                 spec->h0 == BPTT_H0_LEARNED ? BPTT_OP_RESTART
                 : bptt_spec_restarts(spec)  ? BPTT_OP_KEEP
                                             : BPTT_OP_STATE);
    static const bptt_op losses[] = {[BPTT_CROSS_ENTROPY] = BPTT_OP_CROSS_ENTROPY,
                                     [BPTT_SQUARED_ERROR] = BPTT_OP_SQUARED_ERROR,
                                     [BPTT_BINARY_CROSS_ENTROPY] = BPTT_OP_BINARY_CROSS_ENTROPY};
    static const bptt_op outputs[] = {[BPTT_OUTPUT_SIGMOID] = BPTT_OP_SIGMOID, [BPTT_OUTPUT_TANH] = BPTT_OP_TANH};
    const bptt_output_activation g = spec->output_activation;
    add_function(L, graph, "criterion", operation, losses[spec->loss]);
    add_function(L, graph, "output_activation", g == BPTT_OUTPUT_IDENTITY ? identity : operation, outputs[g]);
    lua_pushnumber(L, spec->forget_bias);
    lua_setfield(L, -2, "forget_bias");
    lua_pushboolean(L, spec->tie);
    lua_setfield(L, -2, "tie");
    if (spec->embedding > 0) {
        add_function(L, graph, "table", table, BPTT_OP_PARAM);
        add_function(L, graph, "transposed", operation, BPTT_OP_MATVEC_T);
    }
}

/* One text's surroundings: the input layer, a layer's cell, or the output layer. */
typedef struct surroundings {
    bptt_graph *graph;
    const bptt_spec *spec;
    int layer;               /* from 0, or one of the two */
    int64_t width;           /* `hidden` */
    int in;                  /* node that comes from below: x of a cell, top of the output layer */
    int target;              /* of the output layer */
    int token, reals, table; /* what an embedding is made from, and its matrix; -1: none */
} surroundings;

static void offer_node(lua_State *L, const char *name, int node)
{
    push_node(L, node);
    lua_setfield(L, 3, name);
}

/* What this text alone sees; the values are at index 3. */
static void add_surroundings(lua_State *L, const surroundings *s)
{
    lua_pushinteger(L, s->layer);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt layer");
    lua_pushinteger(L, s->spec->layers);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt layers");
    if (s->layer >= 0) {
        add_size(L, "hidden", s->width);
        add_size(L, "input", s->graph->nodes[s->in].rows);
        offer_node(L, "x", s->in);
    } else if (s->layer == INPUT_LAYER) {
        add_size(L, "vocab", s->spec->vocab);
        add_size(L, "embedding", s->spec->embedding);
        lua_pushboolean(L, s->reals >= 0);
        lua_setfield(L, 3, "both");
        offer_node(L, "token", s->token);
        if (s->reals >= 0) { offer_node(L, "v", s->reals); }
    } else {
        if (s->table >= 0) { offer_node(L, "E", s->table); }
        add_size(L, "inputs", s->graph->nodes[s->in].rows);
        add_size(L, "outputs", bptt_spec_output_size(s->spec));
        offer_node(L, "top", s->in);
        offer_node(L, "target", s->target);
    }
}

/* Leaves the environment on the stack.  Runs protected: argument 1 is the surroundings. */
static int build_environment(lua_State *L)
{
    const surroundings *s = lua_touserdata(L, 1);
    lua_settop(L, 0);
    add_metatable(L, s->graph);
    lua_newtable(L); /* 1: the environment, for ever empty */
    lua_newtable(L); /* 2: its metatable */
    lua_newtable(L); /* 3: the values */
    add_values(L, s->graph, s->spec);
    add_surroundings(L, s);
    static const struct {
        const char *name;
        lua_CFunction function;
    } hooks[] = {{"__index", lookup}, {"__newindex", assign}};
    for (size_t i = 0; i < 2; i++) {
        lua_pushlightuserdata(L, s->graph);
        lua_pushvalue(L, 3);
        lua_pushcclosure(L, hooks[i].function, 2);
        lua_setfield(L, 2, hooks[i].name);
    }
    lua_pushvalue(L, 3);
    lua_setfield(L, LUA_REGISTRYINDEX, "bptt values");
    lua_pushvalue(L, 2);
    lua_setmetatable(L, 1);
    lua_settop(L, 1);
    return 1;
}

/* Runs one text in its surroundings. */
static bptt_status run(bptt_sandbox *sandbox, const surroundings *s, const char *text, const char *source, bptt_error *error)
{
    lua_State *L = bptt_sandbox_state(sandbox);
    lua_settop(L, 0);
    lua_pushcfunction(L, build_environment);
    lua_pushlightuserdata(L, (void *)(uintptr_t)s);
    bptt_status status = bptt_sandbox_call(sandbox, 1, 1, error);
    if (status == BPTT_OK) { status = bptt_sandbox_compile(sandbox, text, strlen(text), source, error); }
    if (status != BPTT_OK) { return status; }
    lua_pushvalue(L, -2);
    if (lua_setupvalue(L, -2, 1) == NULL) { lua_pop(L, 1); }
    return bptt_sandbox_call(sandbox, 0, 0, error);
}

/* The node that the text which has just run calls so; -1: none. */
static int node_named(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "bptt values");
    lua_getfield(L, -1, name);
    const int *node = luaL_testudata(L, -1, NODE);
    const int found = node == NULL ? -1 : *node;
    lua_pop(L, 2);
    return found;
}

static bool share_file(const bptt_param *a, const bptt_param *b)
{
    return strcmp(a->file, b->file) == 0 || strcmp(a->file, b->twin) == 0 || strcmp(a->twin, b->file) == 0 ||
           (a->twin[0] != '\0' && strcmp(a->twin, b->twin) == 0);
}

/* Different blocks of one tensor. */
static bool are_blocks(const bptt_graph *graph, const bptt_param *a, const bptt_param *b)
{
    const bptt_node *m = &graph->nodes[a->node], *n = &graph->nodes[b->node];
    return a->parts == b->parts && a->part != b->part && m->rows == n->rows && m->cols == n->cols;
}

/* A cell's parameter is called what another is, earlier or, where the output layer is done, later than it. */
static bptt_status fail_name(const bptt_graph *graph, int earlier, int later, bool output, bptt_error *error)
{
    const bptt_node *node = &graph->nodes[graph->params[output ? earlier : later].node];
    return bptt_fail(error, BPTT_FAILED, "%s:%d: parameter '%s' has the name of %s; expected another name", graph->source,
                     node->line, node->name,
                     output                         ? "one of the output layer"
                     : graph->params[earlier].table ? "the embedding's table"
                                                    : "a learned h_0");
}

/* Parameters and states have names; parameters differ in files too. */
static bptt_status check_names(const bptt_graph *graph, bool output, bptt_error *error)
{
    for (int n = 0; n < graph->count; n++) {
        const bptt_node *node = &graph->nodes[n];
        const bool is_param = node->op == BPTT_OP_PARAM;
        if ((is_param || node->op == BPTT_OP_STATE) && node->name[0] == '\0') {
            return bptt_fail(error, BPTT_FAILED, "%s:%d: no equation gives this %s a name", graph->source, node->line,
                             is_param ? "parameter" : "state");
        }
        for (int q = 0; is_param && q < node->symbol; q++) {
            const bptt_param *a = &graph->params[node->symbol], *b = &graph->params[q];
            if (strcmp(node->name, graph->nodes[b->node].name) == 0) { return fail_name(graph, q, node->symbol, output, error); }
            if (!share_file(a, b) || are_blocks(graph, a, b)) { continue; }
            return bptt_fail(error, BPTT_FAILED, "%s:%d: '%s' is called in files what '%s' is", graph->source, node->line,
                             node->name, graph->nodes[graph->params[q].node].name);
        }
    }
    return BPTT_OK;
}

/* Every state needs its next value. */
static bptt_status check_states(const bptt_graph *graph, bptt_error *error)
{
    if (graph->state_count == 0) {
        return bptt_fail(error, BPTT_FAILED, "%s: the cell has no state; expected h = state(hidden), and an equation for h",
                         graph->source);
    }
    for (int s = 0; s < graph->state_count; s++) {
        const bptt_node *node = &graph->nodes[graph->states[s].node];
        if (graph->states[s].next >= 0) { continue; }
        return bptt_fail(error, BPTT_FAILED, "%s:%d: state '%s' gets no next value", graph->source, node->line, node->name);
    }
    return BPTT_OK;
}

/* What a cell computes, nodes from .. to - 1, bears no name of what is given or of the output layer: its own gets the layer's number,
 * as the names of several layers do.  A state's name stays, which files know. */
static void tell_apart(bptt_graph *graph, int from, int to)
{
    for (int n = from; n < to; n++) {
        bptt_node *node = &graph->nodes[n];
        const bool computed = bptt_op_kind_of(node->op) != BPTT_KIND_LEAF && bptt_graph_state_of(graph, n) < 0;
        bool twice = false;
        for (int other = 0; other < graph->count; other++) {
            twice = twice || ((other < from || other >= to) && strcmp(graph->nodes[other].name, node->name) == 0);
        }
        for (int s = 0; s < graph->state_count; s++) { twice = twice && graph->states[s].next != n; }
        const size_t length = strlen(node->name);
        if (computed && twice && length > 0) { (void)snprintf(node->name + length, sizeof node->name - length, "_l0"); }
    }
}

/* The loss is the global of that name. */
static bptt_status finish(lua_State *L, bptt_graph *graph, bptt_error *error)
{
    graph->loss = node_named(L, "loss");
    if (graph->loss < 0 || bptt_op_kind_of(graph->nodes[graph->loss].op) != BPTT_KIND_LOSS) {
        return bptt_fail(error, BPTT_FAILED, "%s: no equation gives 'loss' a loss", graph->source);
    }
    return check_names(graph, true, error);
}

static int add_input(bptt_graph *graph, bptt_op op, int64_t rows, const char *name, bptt_error *error)
{
    bptt_node node = {.op = op, .a = -1, .b = -1, .rows = rows, .symbol = -1};
    (void)snprintf(node.name, sizeof node.name, "%s", name);
    return bptt_graph_add(graph, &node, error);
}

/* What a step is given: a token, reals or both, and a label or reals that are wanted. */
static bptt_status add_leaves(const bptt_spec *spec, bptt_graph *graph, surroundings *s, bptt_error *error)
{
    const bool tokens = bptt_spec_tokens(spec), labels = bptt_spec_labels(spec), both = tokens && spec->inputs > 0;
    s->token = s->reals = -1;
    if (tokens) { s->token = add_input(graph, BPTT_OP_INPUT, spec->vocab, spec->embedding > 0 ? "token" : "x", error); }
    if (tokens && s->token < 0) { return BPTT_FAILED; }
    if (spec->inputs > 0) { s->reals = add_input(graph, BPTT_OP_INPUT_REAL, spec->inputs, both ? "v" : "x", error); }
    if (spec->inputs > 0 && s->reals < 0) { return BPTT_FAILED; }
    s->in = tokens ? s->token : s->reals;
    s->target =
        add_input(graph, labels ? BPTT_OP_TARGET : BPTT_OP_TARGET_REAL, bptt_spec_output_size(spec), labels ? "y" : "d", error);
    return s->target < 0 ? BPTT_FAILED : BPTT_OK;
}

/* The layer of the embedding, if there is one: what it calls x goes on. */
static bptt_status run_input(bptt_sandbox *sandbox, surroundings *s, bptt_error *error)
{
    s->layer = INPUT_LAYER;
    s->table = -1;
    if (s->spec->embedding == 0) { return BPTT_OK; }
    bptt_status status = run(sandbox, s, bptt_embedded("cells/input.lua"), "input.lua", error);
    if (status != BPTT_OK) { return status; }
    s->in = node_named(bptt_sandbox_state(sandbox), "x");
    s->table = node_named(bptt_sandbox_state(sandbox), "E");
    return BPTT_OK;
}

/* What goes on from a layer: the value named output, or else its first state. */
static bptt_status find_output(lua_State *L, surroundings *s, int first_state, bptt_error *error)
{
    const bptt_graph *graph = s->graph;
    const int named = node_named(L, "output"), state = first_state < graph->state_count ? graph->states[first_state].next : -1;
    s->in = named >= 0 ? named : state;
    if (s->in >= 0 && graph->nodes[s->in].cols == 0) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED, "%s: 'output' is a matrix; expected a vector, which goes on to the output layer",
                     graph->source);
}

/* Dropout of what goes on, at a site: 0 before the first layer, n behind the n-th.  A token is no vector and stays. */
static bptt_status drop(surroundings *s, int site, double p, bptt_error *error)
{
    const bptt_node from = s->graph->nodes[s->in];
    if (p == 0 || from.op == BPTT_OP_INPUT) { return BPTT_OK; }
    const int node = bptt_graph_apply_value(s->graph, BPTT_OP_DROPOUT, s->in, round(p * 0x1p23) * 0x1p-23, error);
    if (node < 0) { return BPTT_FAILED; }
    s->graph->nodes[node].symbol = site;
    (void)snprintf(s->graph->nodes[node].name, BPTT_SYMBOL_MAX, "%.20s_kept", from.name[0] != '\0' ? from.name : "o");
    s->in = node;
    return BPTT_OK;
}

/* The layers' cells, each on top of the one before. */
static bptt_status run_cells(bptt_sandbox *sandbox, surroundings *s, const char *cell, bptt_error *error)
{
    const int layers = s->spec->layers > 1 ? (int)s->spec->layers : 1;
    const bptt_dropout *p = &s->spec->dropout;
    if (drop(s, 0, p->input, error) != BPTT_OK) { return BPTT_FAILED; }
    for (s->layer = 0; s->layer < layers; s->layer++) {
        const int first_state = s->graph->state_count;
        s->width = bptt_spec_width(s->spec, s->layer);
        bptt_status status = run(sandbox, s, cell, s->graph->source, error);
        if (status == BPTT_OK) { status = check_names(s->graph, false, error); }
        if (status == BPTT_OK) { status = check_states(s->graph, error); }
        if (status == BPTT_OK) { status = find_output(bptt_sandbox_state(sandbox), s, first_state, error); }
        if (status == BPTT_OK) { status = drop(s, s->layer + 1, s->layer + 1 < layers ? p->between : p->output, error); }
        if (status != BPTT_OK) { return status; }
    }
    s->layer = OUTPUT_LAYER;
    const int size = (int)s->graph->nodes[s->in].rows;
    if (!s->spec->tie || size == s->spec->embedding) { return BPTT_OK; }
    return bptt_fail(error, BPTT_FAILED,
                     "%s: tie = true with embedding = %d, and %d elements that go on from the cell: expected as many",
                     s->graph->source, (int)s->spec->embedding, size);
}

bptt_status bptt_trace_text(const bptt_spec *spec, const char *cell, const char *source, bptt_graph *graph, bptt_error *error)
{
    memset(graph, 0, sizeof *graph);
    graph->source = source;
    graph->smoothing = spec->smoothing;
    bptt_sandbox *sandbox = bptt_sandbox_new();
    if (sandbox == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to trace %s", source); }
    surroundings s = {.graph = graph, .spec = spec};
    bptt_status status = add_leaves(spec, graph, &s, error);
    if (status == BPTT_OK) { status = run_input(sandbox, &s, error); }
    const int from = graph->count;
    if (status == BPTT_OK) { status = run_cells(sandbox, &s, cell, error); }
    const int to = graph->count;
    if (status == BPTT_OK) { status = run(sandbox, &s, bptt_embedded("cells/output.lua"), "output.lua", error); }
    if (status == BPTT_OK) { tell_apart(graph, from, to); }
    if (status == BPTT_OK) { status = finish(bptt_sandbox_state(sandbox), graph, error); }
    bptt_sandbox_free(sandbox);
    if (status != BPTT_OK) { bptt_graph_free(graph); }
    return status;
}

/* The spec's own cell, on the lines where its source has it. */
static bptt_status trace_equations(const bptt_spec *spec, bptt_graph *graph, bptt_error *error)
{
    const size_t above = (size_t)spec->equations_line - 1, length = strlen(spec->equations);
    char *text = malloc(above + length + 1);
    if (text == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to trace %s", spec->source); }
    memset(text, '\n', above);
    memcpy(text + above, spec->equations, length + 1);
    bptt_status status = bptt_trace_text(spec, text, spec->source, graph, error);
    free(text);
    return status;
}

bptt_status bptt_trace(const bptt_spec *spec, bptt_graph *graph, bptt_error *error)
{
    if (spec->equations != NULL) { return trace_equations(spec, graph, error); }
    static const struct {
        const char *embedded, *source;
    } cells[] = {[BPTT_CELL_RNN] = {"cells/rnn.lua", "rnn.lua"},
                 [BPTT_CELL_GRU] = {"cells/gru.lua", "gru.lua"},
                 [BPTT_CELL_LSTM] = {"cells/lstm.lua", "lstm.lua"}};
    return bptt_trace_text(spec, bptt_embedded(cells[spec->cell].embedded), cells[spec->cell].source, graph, error);
}
