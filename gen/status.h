/* status.h: the one error channel of bptt.
 *
 * A function that can fail returns a bptt_status and, when it fails, leaves one line of text in the caller's bptt_error.
 * Library code never prints and never exits; only the command (runtime/main.c) does.  Depends on nothing.
 */
#ifndef BPTT_STATUS_H
#define BPTT_STATUS_H

/* The values are the exit statuses of the bptt command. */
typedef enum bptt_status {
    BPTT_OK = 0,        /* done */
    BPTT_FAILED = 1,    /* the input, the machine or a file is at fault */
    BPTT_USAGE = 2,     /* the command line is at fault */
    BPTT_STOPPED = 130, /* a signal ended the work, which is saved; the text says how to go on */
} bptt_status;

typedef struct bptt_error {
    char text[1024]; /* one line, no newline; "file:line: " first where a file is at fault */
} bptt_error;

#if defined(__GNUC__)
#define BPTT_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define BPTT_PRINTF(string, first)
#endif

/* Writes the message (cut at the size of `text`, control characters shown as '?') and returns `status`. */
bptt_status bptt_fail(bptt_error *error, bptt_status status, const char *format, ...) BPTT_PRINTF(3, 4);

#endif
