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

static void describe_product(const bptt_plan *plan, const bptt_action *action, bptt_product *product)
{
    bptt_tile tiles[BPTT_MAX_TILES];
    *product = (bptt_product){.rows = bptt_product_rows(plan, action), .cols = action->cols, .depth = action->depth};
    (void)snprintf(product->name, sizeof product->name, "%s", action->name);
    const int64_t chunk = plan->window * plan->spec->batch;
    if (product->depth < 0) { product->depth = bptt_call_rows(plan, action); }
    product->flop = action->flop * (double)chunk;
    product->tile_count = bptt_plan_tiles(plan, action, tiles, BPTT_MAX_TILES);
    for (int t = 0; t < product->tile_count; t++) { product->tiles[t] = (bptt_tile_size){tiles[t].rows, tiles[t].vectors}; }
}

bptt_status bptt_products(const bptt_spec *spec, int simd, size_t memory_limit, bptt_product *products, size_t *count,
                          bptt_error *error)
{
    bptt_spec untuned = *spec;
    untuned.tuning = NULL;
    bptt_graph graph;
    bptt_plan *plan = NULL;
    *count = 0;
    bptt_status status = trace_and_derive(&untuned, &graph, error);
    if (status != BPTT_OK) { return status; }
    status = bptt_plan_make(&untuned, &graph, simd, memory_limit, &plan, error);
    for (int a = 0; status == BPTT_OK && a < plan->action_count && *count < BPTT_MAX_PRODUCTS; a++) {
        const bptt_action *action = &plan->actions[a];
        if (bptt_has_tile(plan, action)) { describe_product(plan, action, &products[(*count)++]); }
    }
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
