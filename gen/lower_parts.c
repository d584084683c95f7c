/* lower_parts.c: slices and joined vectors without a copy.
 *
 * A slice lies where its rows lie in the whole; what is joined by a sum of placed parts is written where the sum needs it.  So gates
 * that are slices of one product are what the pass stack makes of products of their own, and their adjoints are joined in place.
 * Parts begin at whole vectors, since chains work in vectors: other ones are copied.  Depends on lower.h; refuses whatever another
 * reader, or a state, or a carry makes doubtful.
 */
#include "lower.h"

enum { MOST = 64 }; /* parts of a vector */

static bool holds_carry(const lowering *l, int n)
{
    for (int s = 0; s < l->graph->state_count; s++) {
        if (l->of[l->graph->states[s].carry].root == n) { return true; }
    }
    return false;
}

static bool has_parts(const lowering *l, int n)
{
    for (int m = 0; m < l->graph->count; m++) {
        if (l->of[m].whole == n) { return true; }
    }
    return false;
}

static bool is_slice_of(const lowering *l, int n, int whole)
{
    return node_at(l, n)->op == BPTT_OP_SLICE && node_at(l, n)->a == whole;
}

/* Can all that shares the value's slot lie in rows of another one?  Chains and products write the columns that they are told to, and
 * a slice that is laid writes nothing; operations on whole rows, the loss and carries write more. */
static bool can_be_part(const lowering *l, int part, bool is_slice)
{
    const int owner = l->of[part].owner;
    if (!has_value(l, part) || l->of[owner].slot >= 0) { return false; } /* no value; a state's next one */
    for (int n = 0; n < l->graph->count; n++) {
        if (!has_value(l, n) || l->of[n].owner != owner) { continue; }
        const bool element = bptt_op_kind_of(node_at(l, n)->op) == BPTT_KIND_ELEMENT || is_product(l, n);
        if (!(element || (n == part && is_slice)) || holds_carry(l, n) || bptt_is_direct_carry(l, n)) { return false; }
        if (l->of[n].whole >= 0 || has_parts(l, n)) { return false; }
    }
    return true;
}

/* Whole vectors, but for the padding at the end. */
static bool is_straight(const lowering *l, int64_t column, int64_t rows, int64_t all)
{
    const int lanes = l->plan->lanes;
    return column % lanes == 0 && (rows % lanes == 0 || column + rows == all);
}

static bool overlap(int64_t a, int64_t a_rows, int64_t b, int64_t b_rows)
{
    return a < b + b_rows && b < a + a_rows;
}

/* --- joined vectors ----------------------------------------------------------------------------------------------------------------- */

/* The placed parts of the sum at n, which nobody else reads.  False: it has other terms. */
static bool collect_parts(const lowering *l, int n, int parts[MOST], int *count)
{
    const int operands[2] = {node_at(l, n)->a, node_at(l, n)->b};
    for (int i = 0; i < 2; i++) {
        const bptt_op op = node_at(l, operands[i])->op;
        if (l->of[operands[i]].uses != 1 || *count == MOST) { return false; }
        if (op == BPTT_OP_ADD ? !collect_parts(l, operands[i], parts, count) : op != BPTT_OP_PLACE) { return false; }
        if (op == BPTT_OP_PLACE) { parts[(*count)++] = operands[i]; }
    }
    return true;
}

/* Do the parts cover the whole, each row once, with values that can lie there? */
static bool can_join(const lowering *l, int n, const int *parts, int count)
{
    int64_t covered = 0;
    for (int i = 0; i < count; i++) {
        const bptt_node *part = node_at(l, parts[i]), *value = node_at(l, part->a);
        const int64_t column = (int64_t)part->value;
        if (!is_straight(l, column, value->rows, node_at(l, n)->rows) || !can_be_part(l, part->a, false)) { return false; }
        for (int k = 0; k < i; k++) {
            const bptt_node *other = node_at(l, parts[k]);
            const bool meet = overlap(column, value->rows, (int64_t)other->value, node_at(l, other->a)->rows);
            if (meet || l->of[part->a].owner == l->of[other->a].owner) { return false; }
        }
        covered += value->rows;
    }
    return covered == node_at(l, n)->rows;
}

/* The terms of the sum have no values of their own any more. */
static void drop_terms(lowering *l, int n, int root)
{
    l->of[n].root = root;
    if (node_at(l, n)->op != BPTT_OP_ADD) { return; }
    drop_terms(l, node_at(l, n)->a, root);
    drop_terms(l, node_at(l, n)->b, root);
}

static void join(lowering *l, int n)
{
    const facts *f = &l->of[n];
    int parts[MOST], count = 0;
    if (node_at(l, n)->op != BPTT_OP_ADD || node_at(l, n)->cols > 0 || f->root >= 0 || f->into >= 0 || f->slot >= 0 ||
        f->outgoing != 0 || !collect_parts(l, n, parts, &count) || !can_join(l, n, parts, count)) {
        return;
    }
    for (int i = 0; i < count; i++) {
        facts *value = &l->of[node_at(l, parts[i])->a];
        value->whole = n;
        value->column = (int64_t)node_at(l, parts[i])->value;
    }
    drop_terms(l, n, n);
}

/* --- slices --------------------------------------------------------------------------------------------------------------------------- */

/* Is the value read in slices alone, of which no two meet?  Then what overwrites one of them does no harm. */
static bool is_cut(const lowering *l, int whole)
{
    int slices[MOST], count = 0;
    for (int n = 0; n < l->graph->count; n++) {
        if (!is_slice_of(l, n, whole)) { continue; }
        if (count == MOST) { return false; }
        const bptt_node *slice = node_at(l, n);
        for (int i = 0; i < count; i++) {
            const bptt_node *other = node_at(l, slices[i]);
            if (overlap((int64_t)slice->value, slice->rows, (int64_t)other->value, other->rows)) { return false; }
        }
        slices[count++] = n;
    }
    return count == l->of[whole].uses;
}

/* Has it a slot of its own, for nothing but its slices? */
static bool is_free(const lowering *l, int whole)
{
    const facts *f = &l->of[whole];
    if (!has_value(l, whole) || bptt_op_kind_of(node_at(l, whole)->op) == BPTT_KIND_LEAF) { return false; }
    if (f->slot >= 0 || holds_carry(l, whole)) { return false; }
    for (int n = 0; n < l->graph->count; n++) {
        const bool joined = l->of[n].whole == whole && !is_slice_of(l, n, whole);
        if (joined || (l->of[n].whole >= 0 && l->of[n].owner == f->owner)) { return false; } /* no parts of parts */
    }
    return is_cut(l, whole);
}

static void lay_slice(lowering *l, int n)
{
    const bptt_node *slice = node_at(l, n);
    const int64_t column = (int64_t)slice->value;
    if (!is_straight(l, column, slice->rows, node_at(l, slice->a)->rows) || !is_free(l, slice->a) || !can_be_part(l, n, true)) {
        return;
    }
    l->of[n].whole = slice->a;
    l->of[n].column = column;
}

void bptt_find_parts(lowering *l)
{
    for (int n = 0; n < l->graph->count; n++) { join(l, n); }
    for (int n = 0; n < l->graph->count; n++) {
        if (node_at(l, n)->op == BPTT_OP_SLICE) { lay_slice(l, n); }
    }
}
