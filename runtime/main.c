/* main.c: the bptt command.  The only place that prints errors and exits.
 *
 * Depends on options.h, which knows the commands.  Leaves the locale alone: numbers are written and read in the C locale.
 */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Standard output is checked once, at the end: a full disk must not look like success. */
static bptt_status close_output(bptt_error *error)
{
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        return bptt_fail(error, BPTT_FAILED, "cannot write to standard output: %s", errno == 0 ? "write error" : strerror(errno));
    }
    return BPTT_OK;
}

static void complain(const bptt_options *options, bptt_status status, const bptt_error *error)
{
    const char *name = options->command == NULL ? NULL : options->command->name;
    if (status != BPTT_USAGE) {
        (void)fprintf(stderr, "bptt: %s\n", error->text);
    } else if (name == NULL) {
        (void)fprintf(stderr, "bptt: %s; see 'bptt help'\n", error->text);
    } else {
        const bool field = strncmp(error->text, "--set ", 6) == 0 && strncmp(error->text, "--set takes", 11) != 0;
        (void)fprintf(stderr, "bptt %s: %s; see 'bptt help %s'\n", name, error->text, field ? "spec" : name);
    }
}

/* When a standard stream was closed, the next file that is opened would take its number and receive what is printed. */
static void fill_standard_streams(void)
{
    int file = open("/dev/null", O_RDONLY);
    while (file >= 0 && file <= STDERR_FILENO) { file = open("/dev/null", O_RDONLY); }
    if (file >= 0) { (void)close(file); }
}

int main(int argc, char **argv)
{
    bptt_error error = {""};
    bptt_options options;
    fill_standard_streams();
    (void)signal(SIGXFSZ, SIG_IGN); /* a file too large is an error like a full disk */
    bptt_status status = bptt_options_parse(argc, argv, &options, &error);
    if (status == BPTT_OK) { status = options.command->run(&options, &error); }
    if (status == BPTT_OK) {
        status = close_output(&error);
    } else {
        (void)fflush(stdout);
    }
    if (status != BPTT_OK) { complain(&options, status, &error); }
    bptt_options_free(&options);
    return (int)status;
}
