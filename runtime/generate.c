/* generate.c: `bptt gen`, the emitted files on disk.  See generate.h. */
#include "generate.h"

#include "file.h"
#include "kernels.h"
#include "machine.h"
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bptt_status bptt_compile_here(const bptt_spec *spec, bptt_unit *unit, bptt_error *error)
{
    return bptt_compile(spec, bptt_kernels_simd(), bptt_machine_memory(), unit, error);
}

/* Makes the folder `path` and those above it; one that is there is fine. */
static bptt_status make_folder(const char *path, bptt_error *error)
{
    char *copy = strdup(path);
    if (copy == NULL) { return bptt_fail(error, BPTT_FAILED, "no memory for the path '%s'", path); }
    for (char *c = copy + 1; copy[0] != '\0' && *c != '\0'; c++) {
        if (*c != '/') { continue; }
        *c = '\0';
        (void)mkdir(copy, 0777); /* the last one tells */
        *c = '/';
    }
    struct stat info;
    bptt_status status = BPTT_OK;
    if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
        status = bptt_fail(error, BPTT_FAILED, "cannot make the folder '%s': %s", path, strerror(errno));
    } else if (stat(copy, &info) != 0 || !S_ISDIR(info.st_mode)) {
        status = bptt_fail(error, BPTT_FAILED, "'%s' is not a folder", path);
    }
    free(copy);
    return status;
}

/* Writes `text` to DIR/NAME followed by `ending`.  `keep`: a file that is there may hold its user's changes and stays. */
static bptt_status write_file(const char *folder, const char *name, const char *ending, const char *text, bool keep,
                              bptt_error *error)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s%s", folder, name, ending) < 0) {
        return bptt_fail(error, BPTT_FAILED, "no memory for the path of %s%s", name, ending);
    }
    struct stat info;
    keep = keep && lstat(path, &info) == 0;
    bptt_status status = keep ? BPTT_OK : bptt_file_write(path, text, strlen(text), error);
    if (status == BPTT_OK) { printf(keep ? "%s (there already, kept)\n" : "%s\n", path); }
    free(path);
    return status;
}

static bptt_status write_unit(const bptt_spec *spec, const char *folder, bptt_error *error)
{
    bptt_unit unit;
    bptt_status status = bptt_compile_here(spec, &unit, error);
    if (status != BPTT_OK) { return status; }
    status = make_folder(folder, error);
    if (status == BPTT_OK) { status = write_file(folder, spec->name, ".h", unit.header, false, error); }
    if (status == BPTT_OK) { status = write_file(folder, spec->name, ".c", unit.source, false, error); }
    if (status == BPTT_OK) { status = write_file(folder, spec->name, "_main.c", unit.example, true, error); }
    if (status == BPTT_OK) { status = write_file(folder, "Makefile", "", unit.makefile, true, error); }
    bptt_unit_free(&unit);
    return status;
}

bptt_status bptt_command_gen(const bptt_options *options, bptt_error *error)
{
    if (options->out == NULL && options->dump == NULL) {
        return bptt_fail(error, BPTT_USAGE, "give -o DIR for the files or --dump STAGE to print one stage");
    }
    bptt_spec spec;
    bptt_status status = bptt_options_spec(options, &spec, error);
    if (status != BPTT_OK) { return status; }
    if (options->dump == NULL) {
        status = write_unit(&spec, options->out, error);
    } else {
        status = bptt_dump(&spec, bptt_kernels_simd(), bptt_machine_memory(), options->dump, stdout, error);
    }
    bptt_spec_free(&spec);
    return status;
}
