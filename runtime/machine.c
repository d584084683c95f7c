/* machine.c: clock, memory, what tells machines apart, random numbers.  See machine.h. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

double bptt_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

size_t bptt_machine_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page <= 0) { return SIZE_MAX; }
    return (size_t)pages > SIZE_MAX / (size_t)page ? SIZE_MAX : (size_t)pages * (size_t)page;
}

char *bptt_machine_describe(void)
{
    static const char *const fields[] = {"vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features", "isa"};
    char *description = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&description, &length);
    if (out == NULL) { return NULL; }
    struct utsname system;
    if (uname(&system) == 0) { (void)fprintf(out, "%s\n", system.machine); }
    FILE *cpu = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t size = 0;
    /* The first processor's paragraph. */
    while (cpu != NULL && getline(&line, &size, cpu) > 1) {
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            if (strncmp(line, fields[i], strlen(fields[i])) == 0) {
                (void)fputs(line, out);
                break;
            }
        }
    }
    free(line);
    if (cpu != NULL) { (void)fclose(cpu); }
    if (fclose(out) == 0) { return description; }
    free(description);
    return NULL;
}

int bptt_machine_cpus(void)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus > 1 ? (int)cpus : 1;
}

uint64_t bptt_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double bptt_random_unit(uint64_t *state)
{
    return (double)(bptt_random(state) >> 11) * 0x1p-53;
}
