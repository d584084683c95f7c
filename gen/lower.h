/* lower.h: what the lower*.c files share: the plan's passes hoist and gather, and the first half of fuse.  Graph nodes become actions
 * in phases.  Nobody else includes it.
 *
 *   lower.c          when: levels, the phase of each node, and what is refused
 *   lower_slots.c    where: which nodes have values of their own, and in which slots these lie
 *   lower_parts.c    where: which values are rows of others
 *   lower_actions.c  what: the actions of a phase, with their operands
 */
#ifndef BPTT_LOWER_H
#define BPTT_LOWER_H

#include "plan.h"

/* Bit s: state s. */
typedef uint32_t state_set;
_Static_assert(BPTT_MAX_STATES <= 32, "a bit for every state");

/* What the pass knows of each node while it works. */
typedef struct facts {
    int phase;
    int uses;        /* by other nodes, as next value, as outgoing carry, as a bias' gradient */
    state_set from;  /* it depends on these states; an adjoint: on their carries */
    state_set feeds; /* the next values of these depend on it; an adjoint: their outgoing carries */
    int root;        /* accumulator that it is a term of, else -1 */
    int into;        /* it shares the slot of this later node, else -1 */
    int owner;       /* the last of those that share its slot so */
    int whole;       /* it lies in rows of this node's value, from `column` on, else -1 */
    int64_t column;
    state_set outgoing; /* it is the outgoing carry of these */
    bool constant;      /* one row, which depends on parameters alone */
    bool summed;        /* a product of an adjoint and a factor of which the sum over rows alone is wanted */
    bool linear;        /* an adjoint: linear in those of the losses and of the step after */
    int slot;           /* -1 */
    int shift;
} facts;

typedef struct lowering {
    bptt_plan *plan;
    const bptt_graph *graph;
    facts *of;
    int level[BPTT_MAX_STATES];   /* of each state */
    bool written[BPTT_MAX_SLOTS]; /* has the accumulator got its first term? */
    int bias[BPTT_MAX_SLOTS];     /* bias still to be added, -1 */
    bptt_error *error;
} lowering;

static inline const bptt_node *node_at(const lowering *l, int n)
{
    return &l->graph->nodes[n];
}

static inline bool is_adjoint(const lowering *l, int n)
{
    return n >= l->graph->forward;
}

static inline bool is_product(const lowering *l, int n)
{
    return node_at(l, n)->op == BPTT_OP_MATVEC || node_at(l, n)->op == BPTT_OP_MATVEC_T;
}

/* A product with a token, or its gradient: HEAD, which works on blocks of rows, sees no tokens. */
static inline bool takes_token(const lowering *l, int n)
{
    const int b = node_at(l, n)->b;
    return bptt_op_kind_of(node_at(l, n)->op) == BPTT_KIND_PRODUCT && node_at(l, b)->op == BPTT_OP_INPUT;
}

/* A loss, or the gradient that it hands back. */
static inline bool is_loss(const lowering *l, int n)
{
    return bptt_op_kind_of(node_at(l, n)->op) == BPTT_KIND_LOSS;
}

/* Does it lie somewhere? */
static inline bool has_value(const lowering *l, int n)
{
    const bptt_node *node = node_at(l, n);
    if (node->cols > 0 || l->of[n].summed || (is_loss(l, n) && !is_adjoint(l, n))) { return false; }
    if (bptt_op_kind_of(node->op) == BPTT_KIND_LEAF && node->op != BPTT_OP_STATE && node->op != BPTT_OP_CARRY) {
        return node->op == BPTT_OP_INPUT_REAL && l->of[n].uses > 0;
    }
    return l->of[n].root < 0 || l->of[n].root == n; /* a term lives in its accumulator alone */
}

static inline bptt_ref ref_of(const lowering *l, int n)
{
    if (node_at(l, n)->op == BPTT_OP_PARAM) { return (bptt_ref){BPTT_REF_PARAM, node_at(l, n)->symbol, 0}; }
    return (bptt_ref){BPTT_REF_SLOT, l->of[n].slot, l->of[n].shift};
}

/* Of the states in the set, which has some. */
int bptt_highest_level(const lowering *l, state_set set);

/* Part of a pass without gradients: the forward step; where blocks overlap, all that later ones read of it. */
bool bptt_is_forward(const lowering *l, int n);

/* Finds the accumulators: sums with a product or carry in them, from the outermost inwards, so that a sum of sums is one. */
void bptt_find_accumulators(lowering *l);
/* Finds the values that are rows of others: slices, and what is joined.  Knows who shares a slot, needs no slots but the states'. */
void bptt_find_parts(lowering *l);
/* A slot for every value. */
bptt_status bptt_give_slots(lowering *l);
/* Is the outgoing carry an accumulator that nobody else reads?  Then its terms go straight to step t - 1. */
bool bptt_is_direct_carry(const lowering *l, int n);
/* Where the carry of state s lies: step t reads its row block t, step t + 1 has added to it; uniform: to its twin. */
bptt_ref bptt_home_of_carry(const lowering *l, int s, int shift);

/* Everything of one phase.  first_gradient: of each parameter, is its gradient still without a term? */
bptt_status bptt_lower_phase(lowering *l, int phase, bool *first_gradient);

#endif
