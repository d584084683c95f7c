/* graph.c: nodes of a step graph, added one by one, and their printed form.  Depends on graph.h; derives nothing. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

int bptt_graph_add(bptt_graph *graph, const bptt_node *node, bptt_error *error)
{
    if (graph->count == BPTT_MAX_NODES) {
        bptt_fail(error, BPTT_FAILED, "a step of more than %d values", BPTT_MAX_NODES);
        return -1;
    }
    if (graph->count == graph->capacity) {
        int capacity = graph->capacity == 0 ? 64 : 2 * graph->capacity;
        bptt_node *nodes = realloc(graph->nodes, (size_t)capacity * sizeof *nodes);
        if (nodes == NULL) {
            bptt_fail(error, BPTT_FAILED, "no memory for a graph of %d nodes", capacity);
            return -1;
        }
        graph->nodes = nodes;
        graph->capacity = capacity;
    }
    graph->nodes[graph->count] = *node;
    return graph->count++;
}

void bptt_graph_free(bptt_graph *graph)
{
    free(graph->nodes);
    memset(graph, 0, sizeof *graph);
}

const char *bptt_number_text(double value, char *text, size_t size)
{
    (void)snprintf(text, size, "%.9g", value);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == ',') { *c = '.'; }
    }
    return text;
}

int bptt_graph_state_of(const bptt_graph *graph, int node)
{
    const bptt_op op = graph->nodes[node].op;
    return op == BPTT_OP_STATE || op == BPTT_OP_KEEP || op == BPTT_OP_RESTART ? graph->nodes[node].symbol : -1;
}

const char *bptt_graph_label(const bptt_graph *graph, int node, char *text, size_t size)
{
    const bptt_node *n = &graph->nodes[node];
    switch (n->op) {
    case BPTT_OP_PARAM:
        (void)snprintf(text, size, "%s", n->name);
        break;
    case BPTT_OP_STATE:
        (void)snprintf(text, size, "%s[t-1]", n->name);
        break;
    case BPTT_OP_CARRY:
        (void)snprintf(text, size, "d%s from t+1", graph->nodes[graph->states[n->symbol].node].name);
        break;
    default:
        if (n->name[0] != '\0') {
            (void)snprintf(text, size, n->cols > 0 ? "%s" : "%s[t]", n->name);
        } else {
            (void)snprintf(text, size, "n%d[t]", node);
        }
    }
    return text;
}

static void print_node(const bptt_graph *graph, int index, FILE *out)
{
    const bptt_node *n = &graph->nodes[index];
    char label[64];
    fprintf(out, "%4d  %-12s = %-22s", index, bptt_graph_label(graph, index, label, sizeof label), bptt_op_name(n->op));
    char operands[128] = "";
    if (n->a >= 0) { (void)snprintf(operands, sizeof operands, "%s", bptt_graph_label(graph, n->a, label, sizeof label)); }
    if (n->b >= 0) {
        size_t used = strlen(operands);
        (void)snprintf(operands + used, sizeof operands - used, ", %s", bptt_graph_label(graph, n->b, label, sizeof label));
    }
    if (bptt_op_has_value(n->op)) {
        size_t used = strlen(operands);
        (void)snprintf(operands + used, sizeof operands - used, ", %s", bptt_number_text(n->value, label, sizeof label));
    }
    fprintf(out, " %-28s", operands);
    if (n->cols > 0) {
        fprintf(out, "[%lld][%lld]\n", (long long)n->rows, (long long)n->cols);
    } else {
        fprintf(out, "[%lld]\n", (long long)n->rows);
    }
}

void bptt_graph_print(const bptt_graph *graph, int first, int last, FILE *out)
{
    for (int i = first; i < last; i++) { print_node(graph, i, out); }
    if (first == 0) {
        for (int s = 0; s < graph->state_count; s++) {
            fprintf(out, "      state %s: value after step t is node %d\n", graph->nodes[graph->states[s].node].name,
                    graph->states[s].next);
        }
        fprintf(out, "      loss is node %d\n", graph->loss);
        return;
    }
    for (int p = 0; p < graph->param_count; p++) {
        fprintf(out, "      gradient of %s is node %d\n", graph->nodes[graph->params[p].node].name, graph->params[p].gradient);
    }
    for (int s = 0; s < graph->state_count; s++) {
        fprintf(out, "      carry of %s to step t-1 is node %d\n", graph->nodes[graph->states[s].node].name,
                graph->states[s].outgoing);
    }
}
