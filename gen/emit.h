/* emit.h: fifth stage.  A plan becomes C text through templates/.
 *
 * Knows how a thing is spelled and takes no decision.  Depends on plan.h and template.h.
 */
#ifndef BPTT_EMIT_H
#define BPTT_EMIT_H

#include "plan.h"

/* Fills unit->header, source, example and makefile; the caller frees the unit. */
bptt_status bptt_emit(const bptt_plan *plan, bptt_unit *unit, bptt_error *error);

#endif
