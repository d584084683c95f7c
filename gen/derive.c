/* derive.c: third stage.  Reverse mode over the graph of one step, with the rules of ops.c.
 *
 * The adjoint of a state's next value begins with the carry, what step t+1 hands back; the adjoint of its previous value is what
 * this step hands on to t-1.  Time itself is the plan's business.  Depends on graph.h.
 */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

static bptt_status seed_carries(bptt_graph *graph, int *adjoint, bptt_error *error)
{
    for (int s = 0; s < graph->state_count; s++) {
        bptt_state *state = &graph->states[s];
        bptt_node carry = {.op = BPTT_OP_CARRY, .a = -1, .b = -1, .symbol = s, .rows = graph->nodes[state->node].rows};
        state->carry = bptt_graph_add(graph, &carry, error);
        if (state->carry < 0) { return BPTT_FAILED; }
        adjoint[state->next] = state->carry;
    }
    return BPTT_OK;
}

/* Names the adjoint of a named node after it: dh, da, dW_hh. */
static void name_adjoint(bptt_graph *graph, int node, int adjoint)
{
    const bptt_node *of = &graph->nodes[node];
    bptt_node *to = &graph->nodes[adjoint];
    if (of->name[0] == '\0' || of->op == BPTT_OP_STATE || to->name[0] != '\0' || to->op == BPTT_OP_CARRY ||
        adjoint < graph->forward) {
        return;
    }
    to->name[0] = 'd';
    memcpy(to->name + 1, of->name, sizeof to->name - 1);
    to->name[sizeof to->name - 1] = '\0';
}

bptt_status bptt_derive(bptt_graph *graph, bptt_error *error)
{
    graph->forward = graph->count;
    const int forward = graph->forward;
    int *adjoint = malloc((size_t)forward * sizeof *adjoint);
    if (adjoint == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory to derive %d nodes", forward); }
    memset(adjoint, 0xff, (size_t)forward * sizeof *adjoint); /* -1: none yet */

    bptt_status status = seed_carries(graph, adjoint, error);
    for (int n = forward - 1; n >= 0 && status == BPTT_OK; n--) {
        if (n != graph->loss && adjoint[n] < 0) { continue; }
        if (n != graph->loss) { name_adjoint(graph, n, adjoint[n]); }
        status = bptt_op_backward(graph, n, adjoint[n], adjoint, error);
    }
    for (int p = 0; p < graph->param_count && status == BPTT_OK; p++) {
        graph->params[p].gradient = adjoint[graph->params[p].node];
        if (graph->params[p].gradient < 0) {
            status = bptt_fail(error, BPTT_FAILED, "%s:%d: parameter '%s' does not reach the loss", graph->source,
                               graph->nodes[graph->params[p].node].line, graph->nodes[graph->params[p].node].name);
        }
    }
    for (int s = 0; s < graph->state_count; s++) {
        graph->states[s].outgoing = adjoint[graph->states[s].node];
        graph->states[s].adjoint = adjoint[graph->states[s].next];
    }
    free(adjoint);
    return status;
}
