/* graph.h: the graph of ONE time step, and the table of its operations.
 *
 * Second stage (trace) builds the forward nodes from a cell's equations, third stage (derive) appends their adjoints.  Depends on
 * status.h and on the sizes that a spec names.  Knows shapes; knows nothing of T, K, B or C text.
 */
#ifndef BPTT_GRAPH_H
#define BPTT_GRAPH_H

#include "spec.h"

enum { BPTT_MAX_NODES = 8192, BPTT_MAX_PARAMS = 256, BPTT_MAX_STATES = 32, BPTT_SYMBOL_MAX = 28, BPTT_FILE_MAX = 56 };

/* Every operation once: enum name, name in dumps and templates, kind, operands.  Its shape and adjoint rules are in ops.c. */
#define BPTT_OPS(X)                                                                                                              \
    X(INPUT, "input", LEAF, 0)             /* x_t, a token: one-hot vector that is never stored */                               \
    X(INPUT_REAL, "input_real", LEAF, 0)   /* x_t, a vector of reals */                                                          \
    X(TARGET, "target", LEAF, 0)           /* y_t, a token */                                                                    \
    X(TARGET_REAL, "target_real", LEAF, 0) /* d_t, a vector of reals; not a number: none */                                      \
    X(PARAM, "param", LEAF, 0)             /* a matrix or a vector that is trained */                                            \
    X(STATE, "state", LEAF, 0)             /* value of a state after step t-1 */                                                 \
    X(CARRY, "carry", LEAF, 0)             /* adjoint of a state that arrives from step t+1 */                                   \
    X(MATVEC, "matvec", PRODUCT, 2)        /* W v */                                                                             \
    X(MATVEC_T, "matvec_t", PRODUCT, 2)    /* W' v */                                                                            \
    X(OUTER, "outer", PRODUCT, 2)          /* u v' */                                                                            \
    X(ADD, "add", ELEMENT, 2)                                                                                                    \
    X(SUB, "sub", ELEMENT, 2)                                                                                                    \
    X(MUL, "mul", ELEMENT, 2)                                                                                                    \
    X(DIV, "div", ELEMENT, 2)                                                                                                    \
    X(MIN, "min", ELEMENT, 2)                                                                                                    \
    X(MAX, "max", ELEMENT, 2)                                                                                                    \
    X(AT_LEAST, "at_least", ELEMENT, 2) /* u >= v ? 1 : 0 */                                                                     \
    X(SCALE, "scale", ELEMENT, 1)       /* c u; c is the node's value, here and below */                                         \
    X(SHIFT, "shift", ELEMENT, 1)       /* u + c */                                                                              \
    X(OVER, "over", ELEMENT, 1)         /* c / u */                                                                              \
    X(FLOOR, "floor", ELEMENT, 1)       /* max(u, c) */                                                                          \
    X(STEP, "step", ELEMENT, 1)         /* u >= c ? 1 : 0 */                                                                     \
    X(NEG, "neg", ELEMENT, 1)                                                                                                    \
    X(ABS, "abs", ELEMENT, 1)                                                                                                    \
    X(ABS_ADJOINT, "abs_adjoint", ELEMENT, 2) /* u times the sign of v, 0 where v is 0 */                                        \
    X(SQRT, "sqrt", ELEMENT, 1)                                                                                                  \
    X(LOG, "log", ELEMENT, 1)                                                                                                    \
    X(EXP, "exp", ELEMENT, 1)                                                                                                    \
    X(TANH, "tanh", ELEMENT, 1)                                                                                                  \
    X(TANH_ADJOINT, "tanh_adjoint", ELEMENT, 2) /* u (1 - v v), v = tanh */                                                      \
    X(SIGMOID, "sigmoid", ELEMENT, 1)                                                                                            \
    X(SIGMOID_ADJOINT, "sigmoid_adjoint", ELEMENT, 2) /* u v (1 - v), v = sigmoid */                                             \
    X(RELU, "relu", ELEMENT, 1)                                                                                                  \
    X(RELU_ADJOINT, "relu_adjoint", ELEMENT, 2)                              /* v > 0 ? u : 0, v = relu */                       \
    X(SOFTMAX, "softmax", ROW, 1)                                            /* exp(u) / sum of exp(u) */                        \
    X(SOFTMAX_ADJOINT, "softmax_adjoint", ROW, 2)                            /* v (u - u'v), v = softmax */                      \
    X(SLICE, "slice", ROW, 1)                                                /* rows of u from number c on, counted from 0 */    \
    X(PLACE, "place", ROW, 1)                                                /* u behind c zeros, and zeros behind it */         \
    X(KEEP, "keep", ROW, 1)                                                  /* 0 where the step starts a sequence, else u */    \
    X(START, "start", ROW, 1)                                                /* u where the step starts a sequence, else 0 */    \
    X(RESTART, "restart", ROW, 2)                                            /* v where the step starts a sequence, else u */    \
    X(DROPOUT, "dropout", ROW, 1)                                            /* with probability c 0, else u / (1 - c) */        \
    X(CROSS_ENTROPY, "cross_entropy", LOSS, 2)                               /* -log softmax(u)[y], smoothed */                  \
    X(CROSS_ENTROPY_ADJOINT, "cross_entropy_adjoint", LOSS, 2)               /* softmax(u) - onehot(y) */                        \
    X(SQUARED_ERROR, "squared_error", LOSS, 2)                               /* sum of (u - d) (u - d) */                        \
    X(SQUARED_ERROR_ADJOINT, "squared_error_adjoint", LOSS, 2)               /* 2 (u - d) */                                     \
    X(BINARY_CROSS_ENTROPY, "binary_cross_entropy", LOSS, 2)                 /* sum of log(1 + exp(u)) - d u */                  \
    X(BINARY_CROSS_ENTROPY_ADJOINT, "binary_cross_entropy_adjoint", LOSS, 2) /* sigmoid(u) - d */

typedef enum bptt_op {
#define X(id, name, kind, arity) BPTT_OP_##id,
    BPTT_OPS(X)
#undef X
        BPTT_OP_COUNT
} bptt_op;

/* ELEMENT: works on each element by itself; ROW: on the vector of one step of one sequence, a row in memory, as a whole. */
typedef enum { BPTT_KIND_LEAF, BPTT_KIND_PRODUCT, BPTT_KIND_ELEMENT, BPTT_KIND_ROW, BPTT_KIND_LOSS } bptt_op_kind;

/* A value of one time step of one sequence: a vector of `rows`, or a matrix of `rows` outputs x `cols` inputs. */
typedef struct bptt_node {
    bptt_op op;
    int a, b;     /* operands, earlier nodes; -1: none */
    int64_t rows; /* 1 for a loss */
    int64_t cols; /* 0: a vector */
    int symbol; /* PARAM: index in params; STATE, CARRY, KEEP or RESTART of a state: index in states; DROPOUT: its site; else -1 */
    int line;   /* of the cell's source; 0: derived */
    double value;               /* the number in the op, else 0 */
    char name[BPTT_SYMBOL_MAX]; /* left side of its equation, or "" */
} bptt_node;

typedef struct bptt_param {
    int node;
    int gradient;             /* adjoint node, -1 before derive */
    double first;             /* what a vector starts at */
    char file[BPTT_FILE_MAX]; /* name in weight files */
    char twin[BPTT_FILE_MAX]; /* second bias there, "": none */
    int part, parts;          /* it is this one, from 0, of so many blocks of outputs of the tensor there: a gate */
    bool table;               /* files hold [inputs][outputs], as of an embedding */
} bptt_param;

typedef struct bptt_state {
    int node;     /* STATE: value after step t-1 */
    int next;     /* node that holds the value after step t */
    int carry;    /* CARRY: adjoint of `next` from step t+1, -1 before derive */
    int outgoing; /* adjoint of `node`, the carry of step t-1; -1: none */
    int adjoint;  /* of `next`, all that follows from it in step t and after; -1 before derive */
} bptt_state;

typedef struct bptt_graph {
    bptt_node *nodes; /* owned; operands come before their users */
    int count, capacity;
    int forward; /* nodes [0, forward) are the forward step, the rest its adjoint */
    int loss;
    double smoothing; /* of the labels of a cross entropy */
    bptt_param params[BPTT_MAX_PARAMS];
    int param_count;
    bptt_state states[BPTT_MAX_STATES];
    int state_count;
    const char *source; /* name of the cell's source, for messages; static */
} bptt_graph;

/* --- ops.c ------------------------------------------------------------------------------------------------------------- */
const char *bptt_op_name(bptt_op op);
bptt_op_kind bptt_op_kind_of(bptt_op op);
int bptt_op_arity(bptt_op op);
/* Whether the op has a number in it, the node's value. */
bool bptt_op_has_value(bptt_op op);
/* What an element-wise op makes of one element of each operand. */
double bptt_op_result(bptt_op op, double a, double b, double value);
/* Adds op(a, b), shape checked.  Returns the node, or -1 with the error set ("matvec: matrix of 4 inputs, vector of 3"). */
int bptt_graph_apply(bptt_graph *graph, bptt_op op, int a, int b, bptt_error *error);
/* The same for an op of one operand and a number. */
int bptt_graph_apply_value(bptt_graph *graph, bptt_op op, int a, double value, bptt_error *error);
/* SLICE of a, or PLACE of a in a vector of `rows`, from row `first` on. */
int bptt_graph_apply_part(bptt_graph *graph, bptt_op op, int a, int64_t first, int64_t rows, bptt_error *error);
/* Adds to adjoint[] what node `n` with adjoint `d` gives its operands: the chain rule, one rule per op. */
bptt_status bptt_op_backward(bptt_graph *graph, int n, int d, int *adjoint, bptt_error *error);

/* --- graph.c ----------------------------------------------------------------------------------------------------------- */
/* Adds a node as it stands.  Returns its index or -1: no memory, or too many. */
int bptt_graph_add(bptt_graph *graph, const bptt_node *node, bptt_error *error);
void bptt_graph_free(bptt_graph *graph);
/* The state whose value before the step a node is, or where a sequence starts h_0; -1: it is none. */
int bptt_graph_state_of(const bptt_graph *graph, int node);
/* One line a node, from `first` to the one before `last`: "  7 a = add 5 6   [128]". */
void bptt_graph_print(const bptt_graph *graph, int first, int last, FILE *out);
/* Writes a number as messages, comments and dumps show it, whatever the locale.  Returns `text`. */
const char *bptt_number_text(double value, char *text, size_t size);
/* Name of a node as equations call it, with its time: "h[t-1]", "dW_hh", "n12[t]".  Returns `text`. */
const char *bptt_graph_label(const bptt_graph *graph, int node, char *text, size_t size);

/* --- trace.c, derive.c ------------------------------------------------------------------------------------------------- */
/* Runs the equations of the spec's cell and of the output layer; the caller frees *graph, which the spec must outlive.  Errors:
 * "rnn.lua:9: ...", or "FILE:LINE: ..." where the cell is the spec's own. */
bptt_status bptt_trace(const bptt_spec *spec, bptt_graph *graph, bptt_error *error);
/* As above with the equations of `cell` (text, named `source`, which must be static) in place of the spec's cell. */
bptt_status bptt_trace_text(const bptt_spec *spec, const char *cell, const char *source, bptt_graph *graph, bptt_error *error);
/* Appends the adjoint of the step: reverse mode from the loss and from each state's carry. */
bptt_status bptt_derive(bptt_graph *graph, bptt_error *error);

#endif
