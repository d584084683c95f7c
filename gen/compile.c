/* compile.c: the stages in order.  See compile.h. */
#include "compile.h"

#include "emit.h"
#include "graph.h"
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static bptt_status trace_and_derive(const bptt_spec *spec, bptt_graph *graph, bptt_error *error)
{
    bptt_status status = bptt_trace(spec, graph, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_derive(graph, error);
    if (status != BPTT_OK) { bptt_graph_free(graph); }
    return status;
}

bptt_status bptt_compile(const bptt_spec *spec, int simd, size_t memory_limit, bptt_unit *unit, bptt_error *error)
{
    memset(unit, 0, sizeof *unit);
    bptt_graph graph;
    bptt_plan *plan = NULL;
    bptt_status status = trace_and_derive(spec, &graph, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_plan_make(spec, &graph, simd, memory_limit, &plan, error);
    if (status == BPTT_OK) { status = bptt_emit(plan, unit, error); }
    if (status == BPTT_OK) { unit->counts = plan->counts; }
    if (status != BPTT_OK) { bptt_unit_free(unit); }
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
    return status;
}

void bptt_unit_free(bptt_unit *unit)
{
    free(unit->header);
    free(unit->source);
    free(unit->example);
    free(unit->makefile);
    memset(unit, 0, sizeof *unit);
}

bptt_status bptt_dump(const bptt_spec *spec, int simd, size_t memory_limit, const char *stage, FILE *out, bptt_error *error)
{
    if (strcmp(stage, "spec") == 0) {
        fputs(spec->text, out);
        return BPTT_OK;
    }
    if (strcmp(stage, "graph") != 0 && strcmp(stage, "adjoint") != 0 && strcmp(stage, "plan") != 0) {
        return bptt_fail(error, BPTT_USAGE, "--dump %s: expected spec, graph, adjoint or plan", stage);
    }
    bptt_graph graph;
    bptt_status status = trace_and_derive(spec, &graph, error);
    if (status != BPTT_OK) { return status; }
    if (strcmp(stage, "graph") == 0) {
        bptt_graph_print(&graph, 0, graph.forward, out);
    } else if (strcmp(stage, "adjoint") == 0) {
        bptt_graph_print(&graph, graph.forward, graph.count, out);
    } else {
        bptt_plan *plan = NULL;
        status = bptt_plan_make(spec, &graph, simd, memory_limit, &plan, error);
        if (status == BPTT_OK) { bptt_plan_print(plan, out); }
        bptt_plan_free(plan);
    }
    bptt_graph_free(&graph);
    return status;
}
