/* test_graph.c: trace and derive: equations to the graph of one step, and that graph to its adjoint.
 *
 * Depends on Check, oracle.h (random numbers) and interpret.h.  Nothing here is planned or compiled.
 */
#include "interpret.h"
#include "oracle.h"

static bptt_error error;

static bptt_status derived(const bptt_spec *spec, const char *cell, bptt_graph *graph)
{
    memset(&error, 0, sizeof error);
    bptt_status status = bptt_trace_text(spec, cell, "cell.lua", graph, &error);
    if (status != BPTT_OK) { return status; }
    status = bptt_derive(graph, &error);
    if (status != BPTT_OK) { bptt_graph_free(graph); }
    return status;
}

/* --- the rnn cell, as text ---------------------------------------------------------------------------------------------------- */

static void assert_prints(const bptt_graph *graph, int first, int last, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    bptt_graph_print(graph, first, last, out);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_str_eq(text, expected);
    free(text);
}

START_TEST(rnn_as_text)
{
    bptt_spec spec = interpret_spec(4, 6, 5, 2, 1);
    bptt_graph graph;
    ck_assert_int_eq(bptt_trace(&spec, &graph, &error), BPTT_OK);
    ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
    assert_prints(&graph, 0, graph.forward,
                  "   0  x[t]         = input                                              [6]\n"
                  "   1  y[t]         = target                                             [6]\n"
                  "   2  W_xh         = param                                              [4][6]\n"
                  "   3  W_hh         = param                                              [4][4]\n"
                  "   4  b_h          = param                                              [4]\n"
                  "   5  h[t-1]       = state                                              [4]\n"
                  "   6  n6[t]        = matvec                 W_xh, x[t]                  [4]\n"
                  "   7  n7[t]        = matvec                 W_hh, h[t-1]                [4]\n"
                  "   8  n8[t]        = add                    n6[t], n7[t]                [4]\n"
                  "   9  a[t]         = add                    n8[t], b_h                  [4]\n"
                  "  10  h[t]         = tanh                   a[t]                        [4]\n"
                  "  11  W_hy         = param                                              [6][4]\n"
                  "  12  b_y          = param                                              [6]\n"
                  "  13  n13[t]       = matvec                 W_hy, h[t]                  [6]\n"
                  "  14  o[t]         = add                    n13[t], b_y                 [6]\n"
                  "  15  loss[t]      = cross_entropy          o[t], y[t]                  [1]\n"
                  "      state h: value after step t is node 10\n"
                  "      loss is node 15\n");
    assert_prints(&graph, graph.forward, graph.count,
                  "  16  dh from t+1  = carry                                              [4]\n"
                  "  17  do[t]        = cross_entropy_adjoint  o[t], y[t]                  [6]\n"
                  "  18  dW_hy        = outer                  do[t], h[t]                 [6][4]\n"
                  "  19  n19[t]       = matvec_t               W_hy, do[t]                 [4]\n"
                  "  20  dh[t]        = add                    dh from t+1, n19[t]         [4]\n"
                  "  21  da[t]        = tanh_adjoint           dh[t], h[t]                 [4]\n"
                  "  22  dW_hh        = outer                  da[t], h[t-1]               [4][4]\n"
                  "  23  n23[t]       = matvec_t               W_hh, da[t]                 [4]\n"
                  "  24  dW_xh        = outer                  da[t], x[t]                 [4][6]\n"
                  "      gradient of W_xh is node 24\n"
                  "      gradient of W_hh is node 22\n"
                  "      gradient of b_h is node 21\n"
                  "      gradient of W_hy is node 18\n"
                  "      gradient of b_y is node 17\n"
                  "      carry of h to step t-1 is node 23\n");
    bptt_graph_free(&graph);
}
END_TEST

START_TEST(horizon_and_batch_are_not_in_the_graph)
{
    char *text[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3; i++) {
        bptt_spec spec = interpret_spec(4, 6, 5, (const int64_t[]){5, 2, 1}[i], (const int64_t[]){1, 3, 7}[i]);
        bptt_graph graph;
        size_t size = 0;
        FILE *out = open_memstream(&text[i], &size);
        ck_assert_ptr_nonnull(out);
        ck_assert_int_eq(bptt_trace(&spec, &graph, &error), BPTT_OK);
        ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
        bptt_graph_print(&graph, 0, graph.forward, out);
        bptt_graph_print(&graph, graph.forward, graph.count, out);
        ck_assert_int_eq(fclose(out), 0);
        bptt_graph_free(&graph);
    }
    ck_assert_str_eq(text[0], text[1]);
    ck_assert_str_eq(text[0], text[2]);
    for (int i = 0; i < 3; i++) { free(text[i]); }
}
END_TEST

START_TEST(activations)
{
    static const bptt_op ops[] = {BPTT_OP_TANH, BPTT_OP_RELU, BPTT_OP_SIGMOID};
    static const bptt_op adjoints[] = {BPTT_OP_TANH_ADJOINT, BPTT_OP_RELU_ADJOINT, BPTT_OP_SIGMOID_ADJOINT};
    for (int a = BPTT_TANH; a <= BPTT_SIGMOID; a++) {
        bptt_spec spec = interpret_spec(4, 6, 5, 2, 1);
        spec.activation = (bptt_activation)a;
        bptt_graph graph;
        ck_assert_int_eq(bptt_trace(&spec, &graph, &error), BPTT_OK);
        ck_assert_int_eq(bptt_derive(&graph, &error), BPTT_OK);
        int found[2] = {0, 0};
        for (int n = 0; n < graph.count; n++) {
            found[0] += graph.nodes[n].op == ops[a];
            found[1] += graph.nodes[n].op == adjoints[a];
        }
        ck_assert_int_eq(found[0], 1);
        ck_assert_int_eq(found[1], 1);
        bptt_graph_free(&graph);
    }
}
END_TEST

/* --- adjoints against central differences -------------------------------------------------------------------------------------- */

#define PARAMS "W = matrix(hidden, input, 'W')\nU = matrix(hidden, hidden, 'U')\nb = vector(hidden, 'b')\nh = state(hidden)\n"

/* Every op in some place where its adjoint is wanted, alone and shared. */
static const char *const cells[] = {
    PARAMS "h = tanh(W * x + U * h + b)\n",
    PARAMS "h = sigmoid(W * x + U * h + b)\n",
    PARAMS "h = relu(W * x + U * h + b)\n",
    PARAMS "h = exp(W * x + U * h + b)\n",
    PARAMS "h = exp(-tanh(U * h + b)) * h - W * x\n",
    PARAMS "h = h + tanh(W * x + U * h + b)\n",
    PARAMS "h = h - tanh(W * x - U * h + b)\n",
    PARAMS "h = -tanh(W * x + U * h + b)\n",
    PARAMS "a = W * x + U * h + b\nh = a * h + a * a\n",
    PARAMS "a = W * x + U * h + b\nh = tanh(a) * a - sigmoid(a) + relu(a) - -a\n",
    PARAMS "h = tanh(U * tanh(U * h) + W * x + b)\n",
    PARAMS "h = b * tanh(U * h + W * x + b)\n",
    PARAMS "h = tanh(U * b + W * x + h)\n",
    PARAMS "h = sigmoid(b - (h + W * x)) * -b + U * h\n",
    PARAMS "V = matrix(3, hidden, 'V')\nR = matrix(hidden, 3, 'R')\nh = R * tanh(V * h) + U * h + W * x + b\n",
    PARAMS "z = sigmoid(U * h)\nh = z * h + tanh(W * x + b) * (z - h)\n",
    PARAMS "c = state(3)\nV = matrix(3, hidden, 'V')\nR = matrix(hidden, 3, 'R')\nc = c * sigmoid(V * h) + tanh(V * (W * x))\n"
           "h = tanh(R * c + b) * sigmoid(U * h)\n",
    PARAMS "c = state(hidden)\nc0 = c\nc = h + tanh(W * x + b)\nh = c0 - U * c0\n",
    PARAMS "c = state(hidden)\nc = c + h\nh = tanh(W * x + U * c + b)\n",
    PARAMS "a = W * x + U * h + b\nh = 1 - a + 0.5 * h - a * 2 + (h + 1) - (3 + a - 2) / 4\n",
    PARAMS "a = W * x + U * h + b\nh = a / (2 + h * h) - 1.5 / (exp(a) + 1) + h / exp(a)\n",
    PARAMS "h = log(1 + exp(W * x + U * h + b)) - sqrt(h * h + 0.25)\n",
    PARAMS "h = abs(W * x + U * h + b) * h\n",
    PARAMS "a = W * x + U * h + b\ns = softmax(a)\nh = s * h + softmax(b) - a\n",
    PARAMS "a = W * x + U * h + b\nh = concat(slice(a, 3, 4), slice(h, 1, 2)) * concat(slice(a, 2, 2), slice(a, 1, 3)) + a\n",
    PARAMS "a = W * x + U * h + b\nh = concat(slice(a, 1, 1), slice(b, 2, 3), slice(h, 4, 4))\n",
    PARAMS "a = W * x + U * h + b\nh = max(a, h) * 3 + min(a, h * a)\n",
    PARAMS "a = W * x + U * h + b\nh = max(a, 0.3) - min(0.2, a * 2) + max(-0.1, h)\n",
    PARAMS "a = W * x + U * h + b\nh = max(0, min(1, 0.2 * a + 0.5)) * h + max(a, a) - min(h, h)\n",
};

/* What one step hands on: its loss, and its states weighted by the carries. */
static double objective(const interpreter *it, uint32_t x, uint32_t y)
{
    const bptt_graph *g = it->graph;
    interpret(it, 0, g->forward, x, y);
    double sum = it->value[g->loss][0];
    for (int s = 0; s < g->state_count; s++) {
        for (int64_t i = 0; i < g->nodes[g->states[s].next].rows; i++) {
            sum += it->value[g->states[s].carry][i] * it->value[g->states[s].next][i];
        }
    }
    return sum;
}

/* A change of each element of the leaf against its adjoint node; -1: the adjoint is 0. */
static void check_leaf(const interpreter *it, int leaf, int adjoint, uint32_t x, uint32_t y)
{
    static const double sides[] = {-2, -1, 1, 2}, weights[] = {1, -8, 8, -1};
    const double step = 0x1p-11;
    for (size_t i = 0; i < node_size(&it->graph->nodes[leaf]); i++) {
        double *w = &it->value[leaf][i], kept = *w, difference = 0;
        for (int side = 0; side < 4; side++) {
            *w = kept + sides[side] * step;
            difference += weights[side] * objective(it, x, y);
        }
        *w = kept;
        const double found = adjoint < 0 ? 0 : it->value[adjoint][i], expected = difference / (12 * step);
        ck_assert_msg(fabs(found - expected) < 1e-9, "%s [%zu]: adjoint %.12g, expected %.12g", it->graph->nodes[leaf].name, i,
                      found, expected);
    }
}

/* Tokens, and reals with every loss and what stands before it. */
enum { KINDS_OF_DATA = 5 };
static bptt_spec spec_of(int kind)
{
    if (kind == 0) { return interpret_spec(4, 5, 3, 3, 1); }
    bptt_spec spec = interpret_real_spec(4, 3, 2, 3, 3, 1, kind == 4 ? BPTT_BINARY_CROSS_ENTROPY : BPTT_SQUARED_ERROR);
    if (kind < 4) { spec.output_activation = (bptt_output_activation)(kind - 1); }
    return spec;
}

START_TEST(adjoint_of_a_cell)
{
    uint64_t random = oracle_seed() + (uint64_t)_i;
    bptt_spec spec = spec_of(_i % KINDS_OF_DATA);
    bptt_graph graph;
    ck_assert_msg(derived(&spec, cells[_i / KINDS_OF_DATA], &graph) == BPTT_OK, "%s", error.text);
    interpreter it = interpreter_new(&graph);
    for (int n = 0; n < graph.count; n++) {
        const bptt_op op = graph.nodes[n].op;
        if (op == BPTT_OP_INPUT || op == BPTT_OP_TARGET || bptt_op_kind_of(op) != BPTT_KIND_LEAF) { continue; }
        /* multiples of 1/16 that no sum of them brings within a step of relu's kink at 0 */
        for (size_t i = 0; i < node_size(&graph.nodes[n]); i++) {
            it.value[n][i] = ((double)(oracle_random(&random) % 16) + 0.53 + 0.01 * (double)i) / 16 - 0.5;
        }
    }
    const uint32_t x = (uint32_t)(oracle_random(&random) % 5), y = (uint32_t)(oracle_random(&random) % 5);
    interpret(&it, 0, graph.count, x, y);
    for (int p = 0; p < graph.param_count; p++) { check_leaf(&it, graph.params[p].node, graph.params[p].gradient, x, y); }
    for (int s = 0; s < graph.state_count; s++) { check_leaf(&it, graph.states[s].node, graph.states[s].outgoing, x, y); }
    interpreter_free(&it);
    bptt_graph_free(&graph);
}
END_TEST

/* The cells above leave out no operation, but for starts and dropout, whose values tests/test_cells.c compares. */
START_TEST(every_op_is_derived)
{
    bool seen[BPTT_OP_COUNT] = {
        [BPTT_OP_KEEP] = true, [BPTT_OP_START] = true, [BPTT_OP_RESTART] = true, [BPTT_OP_DROPOUT] = true};
    for (size_t i = 0; i < KINDS_OF_DATA * sizeof cells / sizeof cells[0]; i++) {
        bptt_graph graph;
        bptt_spec spec = spec_of((int)i % KINDS_OF_DATA);
        ck_assert_int_eq(derived(&spec, cells[i / KINDS_OF_DATA], &graph), BPTT_OK);
        for (int n = 0; n < graph.count; n++) { seen[graph.nodes[n].op] = true; }
        bptt_graph_free(&graph);
    }
    for (int op = 0; op < BPTT_OP_COUNT; op++) { ck_assert_msg(seen[op], "%s is not tested", bptt_op_name((bptt_op)op)); }
}
END_TEST

/* --- what is refused ------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *cell, *message;
} refused[] = {
    {PARAMS "Z = matrix(4, 5, 'Z')\n\nh = tanh(W * x + Z * h + b)\n",
     "cell.lua:7: matvec does not fit matrix [4][5] and vector [4]"},
    {PARAMS "c = vector(3, 'c')\nh = tanh(W * x + U * h + c)\n", "cell.lua:6: add does not fit vector [4] and vector [3]"},
    {PARAMS "h = tanh(W * x + U * g + b)\n", "cell.lua:5: nothing is called 'g' here"},
    {PARAMS "h = os.time()\n", "cell.lua:5: nothing is called 'os' here"},
    {PARAMS "a = W * x\na = U * h + a\nh = tanh(a + b)\n", "cell.lua:6: 'a' is assigned twice"},
    {PARAMS "h = tanh(W * x + U * h + b)\nh = tanh(h)\n", "cell.lua:6: 'h' is assigned twice"},
    {PARAMS "x = W * x\n", "cell.lua:5: 'x' is assigned twice"},
    {"W = matrix(hidden, input)\noutput = tanh(W * x)\n",
     "cell.lua: the cell has no state; expected h = state(hidden), and an equation for h"},
    {PARAMS "s = state(hidden)\nh = tanh(W * x + U * s + b)\n", "cell.lua:5: state 's' gets no next value"},
    {PARAMS "h = b\n", "cell.lua:5: state 'h' takes a computed vector of 4 elements"},
    {PARAMS "h = tanh(W * x + U * h)\n", "cell.lua:3: parameter 'b' does not reach the loss"},
    {PARAMS "while true do end\n", "cell.lua:5: "},
    {PARAMS "h = tanh(W * x + U * h + b)\nz = h * (0 / 0)\n", "cell.lua:6: "},
    {PARAMS "z = h + 1 / 0\n", "cell.lua:5: inf in an equation; expected a number from -3.4e38 to 3.4e38"},
    {PARAMS "z = 1e39 - h\n", "cell.lua:5: 1e+39 in an equation; expected a number from -3.4e38 to 3.4e38"},
    {PARAMS "z = h / 0\n", "cell.lua:5: inf in an equation; expected a number from -3.4e38 to 3.4e38"},
    {PARAMS "z = min(h, -1e300)\n", "cell.lua:5: 1e+300 in an equation; expected a number from -3.4e38 to 3.4e38"},
    {PARAMS "z = U + 1\n", "cell.lua:5: shift takes vectors, not a matrix"},
    {PARAMS "z = 2 * U\n", "cell.lua:5: scale takes vectors, not a matrix"},
    {PARAMS "z = U / h\n", "cell.lua:5: div takes vectors, not a matrix"},
    {PARAMS "z = min(U, 1)\n", "cell.lua:5: neg takes vectors, not a matrix"},
    {PARAMS "z = h + '1'\n", "cell.lua:5: "},
    {PARAMS "z = max(h)\n", "cell.lua:5: "},
    {PARAMS "z = log(2)\n", "cell.lua:5: "},
    {PARAMS "z = slice(h, 0, 2)\n", "cell.lua:5: slice: rows 0 to 2 of a vector of 4"},
    {PARAMS "z = slice(h, 2, 5)\n", "cell.lua:5: slice: rows 2 to 5 of a vector of 4"},
    {PARAMS "z = slice(h, 3, 2)\n", "cell.lua:5: slice: rows 3 to 2 of a vector of 4"},
    {PARAMS "z = slice(U, 1, 2)\n", "cell.lua:5: bad argument #1 to 'slice' (a vector expected, got a matrix)"},
    {PARAMS "z = slice(h, 1)\n", "cell.lua:5: bad argument #3 to 'slice' (number expected, got no value)"},
    {PARAMS "z = concat(h)\n", "cell.lua:5: bad argument #1 to 'concat' (concat takes two vectors or more)"},
    {PARAMS "z = concat(h, U)\n", "cell.lua:5: bad argument #2 to 'concat' (a vector expected, got a matrix)"},
    {PARAMS "z = softmax(U)\n", "cell.lua:5: softmax takes vectors, not a matrix"},
    {PARAMS "h = concat(U * h, W * x)\n", "cell.lua:5: state 'h' takes a computed vector of 4 elements"},
    {PARAMS "local v = h\nfor i = 1, 9000 do v = v + h end\nh = v + W * x + U * h + b\n",
     "cell.lua:6: a step of more than 8192 values"},
    {"for i = 1, 33 do _ENV['s' .. i] = state(hidden) end\n", "cell.lua:1: more than 32 states"},
    {"for i = 1, 257 do _ENV['b' .. i] = vector(hidden, 'b' .. i) end\n", "cell.lua:1: more than 256 parameters"},
    {"b = vector(hidden, 'b', '', 1e31)\n",
     "cell.lua:1: bad argument #4 to 'vector' (a vector starts at a number from -1e30 to 1e30)"},
    {"b = vector(hidden, 'b', '', 0/0)\n",
     "cell.lua:1: bad argument #4 to 'vector' (a vector starts at a number from -1e30 to 1e30)"},
    {"a_name_of_twenty_two_ch = vector(hidden, 'b')\n",
     "cell.lua:1: 'a_name_of_twenty_two_ch' cannot name a value: a letter and up to 20 more letters, digits and _ can"},
    {"_ENV['a b'] = vector(hidden, 'b')\n",
     "cell.lua:1: 'a b' cannot name a value: a letter and up to 20 more letters, digits and _ can"},
    {"_ENV['__asm'] = vector(hidden, 'b')\n",
     "cell.lua:1: '__asm' cannot name a value: a letter and up to 20 more letters, digits and _ can"},
    {"_ENV['9a'] = vector(hidden, 'b')\n",
     "cell.lua:1: '9a' cannot name a value: a letter and up to 20 more letters, digits and _ can"},
    {PARAMS "h = tanh(matrix(hidden, input, 'Z') * x + W * x + U * h + b)\n",
     "cell.lua:5: no equation gives this parameter a name"},
    {PARAMS "local s = state(hidden)\nh = tanh(W * x + U * s + b)\n", "cell.lua:5: no equation gives this state a name"},
    {PARAMS "V = matrix(hidden, hidden, 'U')\nh = tanh(W * x + U * h + V * h + b)\n",
     "cell.lua:5: 'V' is called in files what 'U' is"},
    {"b = vector(hidden, 'b', 'b')\n", "cell.lua:1: bad argument #3 to 'vector' (that name is taken)"},
    {"b = vector(hidden, 'a\"b')\n", "cell.lua:1: bad argument #2 to 'vector' (a name in files has up to 47 letters, digits, '_' "
                                     "and '.', then perhaps a block of it as [1/4])"},
    {"b = vector(hidden, 'a2345678901234567890123456789012345678901234567.')\n",
     "cell.lua:1: bad argument #2 to 'vector' (a name in files has up to 47 letters, digits, '_' and '.', then perhaps a block "
     "of it as [1/4])"},
    {"W = matrix(0, 1, 'W')\n", "cell.lua:1: bad argument #1 to 'matrix' (a size is from 1 to 2147483647)"},
    {"W = matrix(1, -1, 'W')\n", "cell.lua:1: bad argument #2 to 'matrix' (a size is from 1 to 2147483647)"},
    {"b = vector(1 << 31, 'b')\n", "cell.lua:1: bad argument #1 to 'vector' (a size is from 1 to 2147483647)"},
    {"s = state(2^62)\n", "cell.lua:1: bad argument #1 to 'state' (a size is from 1 to 2147483647)"},
    {"s = state('4 4')\n", "cell.lua:1: bad argument #1 to 'state' (number expected, got string)"},
    {"syntax error here\n", "cell.lua:1: "},
};

START_TEST(refused_cell)
{
    bptt_spec spec = interpret_spec(4, 6, 5, 2, 1);
    bptt_graph graph;
    ck_assert_int_eq(derived(&spec, refused[_i].cell, &graph), BPTT_FAILED);
    const size_t length = strlen(refused[_i].message);
    const bool open = refused[_i].message[length - 1] == ' '; /* Lua's own words follow */
    ck_assert_msg(strncmp(error.text, refused[_i].message, length) == 0 &&
                      (open ? error.text[length] != '\0' : error.text[length] == '\0'),
                  "\"%s\", expected \"%s\"", error.text, refused[_i].message);
    ck_assert_ptr_null(graph.nodes);
}
END_TEST

/* --- a spec's own cell ------------------------------------------------------------------------------------------------------------ */

/* `fields` of the spec, beside the usual ones. */
static bptt_status trace_spec(const char *fields, const char *cell, bptt_graph *graph)
{
    char text[2000];
    (void)snprintf(text, sizeof text,
                   "return {\n name = 'net', hidden = 4, vocab = 6, T = 3, %s\n cell = function()\n%s\nend }\n", fields, cell);
    bptt_spec spec;
    memset(graph, 0, sizeof *graph);
    ck_assert_msg(bptt_spec_parse(text, strlen(text), "net.lua", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    bptt_status status = bptt_trace(&spec, graph, &error);
    bptt_spec_free(&spec);
    return status;
}

START_TEST(own_cell)
{
    bptt_graph graph;
    ck_assert_msg(
        trace_spec("",
                   "W, c = matrix(3, input), state(3)\nb = vector(3, 'file', 'twin')\nlocal v = W * x\n"
                   "for i = 1, 3 do v = v + b end\nc = tanh(v)\nh = state(hidden) h = sigmoid(h)\noutput = concat(c, h)",
                   &graph) == BPTT_OK,
        "%s", error.text);
    ck_assert_int_eq(graph.param_count, 4);
    ck_assert_str_eq(graph.params[0].file, "rnn.W_l0");
    ck_assert_str_eq(graph.params[1].file, "file_l0");
    ck_assert_str_eq(graph.params[1].twin, "twin_l0");
    ck_assert_int_eq(graph.nodes[graph.params[2].node].rows, 6);
    ck_assert_int_eq(graph.nodes[graph.params[2].node].cols, 7); /* of the vector `output` */
    bptt_graph_free(&graph);
    ck_assert_int_eq(trace_spec("", "W, s, h = matrix(3, input), state(3), state(hidden)\ns = W * x\nh = tanh(h)", &graph),
                     BPTT_OK);
    ck_assert_int_eq(graph.nodes[graph.params[1].node].cols, 3); /* of the state that was made first */
    bptt_graph_free(&graph);
}
END_TEST

/* A concat of more parts than Lua's stack has room for by itself; of as many as Lua passes to a function, about. */
START_TEST(concat_of_many)
{
    bptt_graph graph;
    static const int counts[] = {2, 17, 18, 19, 20, 21, 40, 240}; /* what room a C function has of Lua is 20 */
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        const int parts = counts[k];
        char cell[2000] = "W = matrix(hidden, input)\nh = state(hidden)\nv = W * x\nh = tanh(v)\noutput = concat(h";
        for (int i = 1; i < parts; i++) { (void)snprintf(cell + strlen(cell), sizeof cell - strlen(cell), ", v"); }
        (void)snprintf(cell + strlen(cell), sizeof cell - strlen(cell), ")");
        ck_assert_msg(trace_spec("", cell, &graph) == BPTT_OK, "%d parts: %s", parts, error.text);
        ck_assert_int_eq(graph.nodes[graph.params[1].node].cols, 4 * (int64_t)parts);
        bptt_graph_free(&graph);
    }
}
END_TEST

/* Values are told apart: the LSTM's gate o from the logits, and what an own cell calls y from the labels. */
START_TEST(values_are_told_apart)
{
    bptt_graph graph;
    bptt_spec spec = interpret_spec(4, 6, 5, 2, 1);
    const char *own = "W, h = matrix(hidden, input), state(hidden)\ny = tanh(W * x + h)\no = y * y\nh = sigmoid(o)";
    spec.cell = BPTT_CELL_LSTM;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(i == 0 ? bptt_trace(&spec, &graph, &error) : trace_spec("", own, &graph), BPTT_OK);
        int suffixed = 0;
        for (int n = 0; n < graph.count; n++) {
            const char *name = graph.nodes[n].name;
            suffixed += strcmp(name, "o_l0") == 0 || strcmp(name, "y_l0") == 0;
            for (int m = 0; m < n && name[0] != '\0'; m++) {
                const bool state = graph.nodes[m].op == BPTT_OP_STATE; /* and its next value */
                ck_assert_msg(state || strcmp(name, graph.nodes[m].name) != 0, "two are called %s", name);
            }
        }
        ck_assert_int_eq(suffixed, i + 1);
        bptt_graph_free(&graph);
    }
}
END_TEST

static const char *const own_cells[][3] = {
    {"\nos.exit(0)", "net.lua:5: nothing is called 'os' here"},
    {"local a = 1\nwhile true do a = a end", "net.lua:5: limit of 10000000 instructions exceeded (an endless loop?)"},
    {"h = state(hidden)\ns = ('x'):rep(1 << 30)", "net.lua:5: memory limit of 64 MiB exceeded"},
    {"s = string.rep('x', 10)", "net.lua:4: nothing is called 'string' here"},
    {"print(1)", "net.lua:4: nothing is called 'print' here"},
    {"h = state(hidden)\n\nh = h * q", "net.lua:6: nothing is called 'q' here"},
    {"h = state(hidden)\nh = 1", "net.lua:4: state 'h' gets no next value"},
    {"W = matrix(hidden, input)\nv = W * x", "net.lua: the cell has no state; expected h = state(hidden), and an equation for h"},
    {"W = matrix(hidden, input)\noutput = W",
     "net.lua: the cell has no state; expected h = state(hidden), and an equation for h"},
    {"h = state(hidden)\nh = tanh(h)\n local W = matrix(hidden, hidden)\nv = W * h",
     "net.lua:6: no equation gives this parameter a name"},
    {"h = state(hidden)\nh = tanh(h)\nV = matrix(2, 2, 'v')\nW = matrix(2, 2, 'v')",
     "net.lua:7: 'W' is called in files what 'V' is"},
    {"h = state(hidden)\noutput = matrix(hidden, hidden)\nh = tanh(output * h)",
     "net.lua: 'output' is a matrix; expected a vector, which goes on to the output layer"},
    {"h = state(hidden)\noutput = concat(h, h)\nh = tanh(h)",
     "net.lua: tie = true with embedding = 2, and 8 elements that go on from the cell: expected as many",
     "embedding = 2, tie = true,"},
    {"h = state(hidden)\nW_hy = matrix(hidden, input)\nh = tanh(W_hy * x)",
     "net.lua:5: parameter 'W_hy' has the name of one of the output layer; expected another name"},
    {"h, b_y = state(hidden), vector(hidden)\nh = tanh(h + b_y)",
     "net.lua:4: parameter 'b_y' has the name of one of the output layer; expected another name"},
    {"h = state(hidden)\nE = matrix(hidden, input)\nh = tanh(E * x)",
     "net.lua:5: parameter 'E' has the name of the embedding's table; expected another name", "embedding = 2,"},
    {"h = state(hidden)\nh_0 = vector(hidden)\nh = tanh(h + h_0)",
     "net.lua:5: parameter 'h_0' has the name of a learned h_0; expected another name", "h0 = 'learned', carry = false,"},
};

START_TEST(refused_own_cell)
{
    bptt_graph graph;
    ck_assert_int_eq(trace_spec(own_cells[_i][2] == NULL ? "" : own_cells[_i][2], own_cells[_i][0], &graph), BPTT_FAILED);
    const size_t length = strlen(own_cells[_i][1]);
    ck_assert_msg(strncmp(error.text, own_cells[_i][1], length) == 0, "\"%s\", expected \"%s\"", error.text, own_cells[_i][1]);
    ck_assert_ptr_null(graph.nodes);
}
END_TEST

int main(void)
{
    printf("test_graph: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("graph");
    TCase *texts = tcase_create("texts"), *adjoints = tcase_create("adjoints"), *errors = tcase_create("errors");
    tcase_add_test(texts, rnn_as_text);
    tcase_add_test(texts, horizon_and_batch_are_not_in_the_graph);
    tcase_add_test(texts, activations);
    tcase_add_loop_test(adjoints, adjoint_of_a_cell, 0, (int)(KINDS_OF_DATA * sizeof cells / sizeof cells[0]));
    tcase_add_test(adjoints, every_op_is_derived);
    tcase_set_timeout(errors, 30);
    tcase_add_test(texts, own_cell);
    tcase_add_test(texts, concat_of_many);
    tcase_add_test(texts, values_are_told_apart);
    tcase_add_loop_test(errors, refused_own_cell, 0, sizeof own_cells / sizeof *own_cells);
    tcase_add_loop_test(errors, refused_cell, 0, (int)(sizeof refused / sizeof refused[0]));
    suite_add_tcase(suite, texts);
    suite_add_tcase(suite, adjoints);
    suite_add_tcase(suite, errors);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
