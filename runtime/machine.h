/* machine.h: what several files of runtime/ want to know of the machine: a clock, its memory, CPUs and kind; and a generator of random numbers.
 *
 * Depends on the C library and POSIX alone.
 */
#ifndef BPTT_MACHINE_H
#define BPTT_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* Seconds of a clock that never goes back. */
double bptt_seconds(void);
/* Bytes of memory that the machine has. */
size_t bptt_machine_memory(void);
/* Text that tells this kind of processor from others (a home folder with a cache in it may be shared).  NULL: no memory; the
 * caller frees it. */
char *bptt_machine_describe(void);
/* CPUs that are online, 1 or more. */
int bptt_machine_cpus(void);

/* SplitMix64 (Steele, Lea, Flood 2014): the next 64 random bits; any state may begin. */
uint64_t bptt_random(uint64_t *state);
/* The same as a number in [0, 1), a multiple of 2^-53. */
double bptt_random_unit(uint64_t *state);

#endif
