/* file.h: whole files in and out, checked.
 *
 * Depends on POSIX and status.h.  Refuses devices and folders; knows nothing of what the bytes mean.
 */
#ifndef BPTT_FILE_H
#define BPTT_FILE_H

#include "../gen/status.h"

#include <stddef.h>

/* Reads a regular file or a pipe to its end; more than `max_bytes` is an error.  The caller frees *bytes.  One NUL follows the
 * bytes and is not counted in *length, so text may be used as a string. */
bptt_status bptt_file_read(const char *path, size_t max_bytes, unsigned char **bytes, size_t *length, bptt_error *error);
/* Refuses a pipe, which gives its bytes once: for files that are looked at several times. */
bptt_status bptt_file_no_pipe(const char *path, bptt_error *error);

typedef struct bptt_file_part {
    const void *bytes;
    size_t length;
} bptt_file_part;

/* Writes a temporary file beside `path`, syncs it, renames it and syncs the folder.  A link to a file is followed and stays a link,
 * one that leads nowhere is replaced; a file's permissions stay.  On failure `path` is as it was and the temporary file is gone;
 * only when the folder's own sync fails are the new bytes in place already (the message says so). */
bptt_status bptt_file_write(const char *path, const void *bytes, size_t length, bptt_error *error);
/* The same for a file made of several parts, in their order. */
bptt_status bptt_file_write_parts(const char *path, const bptt_file_part *parts, size_t count, bptt_error *error);

#endif
