/* team.h: threads that do the parts of a model's work (bptt_team, templates/abi.h).
 *
 * The caller of run() is one of them.  Who waits does so actively for some microseconds and then sleeps, so a team costs nothing
 * while there is no work; a part that its thread has not begun is done by another, so it goes on with fewer free cores than threads.  Depends on POSIX threads.
 */
#ifndef BPTT_TEAM_H
#define BPTT_TEAM_H

#include <stddef.h>
#include <stdint.h>

#include "../gen/status.h"
#include "../templates/abi.h"

/* A team for `parts` parts, 1 or more; `run` is for one caller at a time.  The caller frees it.  NULL: *error says why. */
bptt_team *bptt_team_new(int parts, bptt_error *error);
/* Not while it runs.  NULL is fine. */
void bptt_team_free(bptt_team *team);

#endif
