/* generate.h: the compiler with this machine's vector width and memory filled in.
 *
 * Depends on compile.h and kernels.h.
 */
#ifndef BPTT_GENERATE_H
#define BPTT_GENERATE_H

#include "../gen/compile.h"

/* bptt_compile for this machine; free the unit with bptt_unit_free. */
bptt_status bptt_compile_here(const bptt_spec *spec, bptt_unit *unit, bptt_error *error);

#endif
