/* tuning.h: which tiles were measured to be the fastest, kept in the cache beside the compiled objects.
 *
 * A tuning belongs to the sizes of a plan's products, a vector width, a kind of machine and a version of bptt: specs that differ in
 * a rate or a seed share one.  Depends on compile.h and the cache of backend_private.h; measures nothing (tune.c does).
 */
#ifndef BPTT_TUNING_H
#define BPTT_TUNING_H

#include "../gen/compile.h"

/* Where the tuning of a spec's sizes lies on this machine, for the caller to free.  NULL: *error says why; there is no cache folder
 * that only this user can write. */
char *bptt_tuning_path(const bptt_spec *spec, bptt_error *error);
bptt_status bptt_tuning_save(const bptt_spec *spec, const bptt_tuning *tuning, bptt_error *error);
/* Sets spec->tuning.  When there is none or its file is damaged, the error says so and names `bptt tune`, and the spec has been
 * freed, as after a failure of bptt_spec_load. */
bptt_status bptt_tuning_load(bptt_spec *spec, bptt_error *error);

#endif
