/* file.c: reads a file to its end, replaces a file as a whole.  See file.h.
 *
 * Depends on POSIX.  Refuses to write through a device: the rename would put a plain file in its place.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 16, ATTEMPTS = 100 };

static bptt_status fail_errno(bptt_error *error, const char *path, const char *what)
{
    return bptt_fail(error, BPTT_FAILED, "%s: %s: %s", path, what, strerror(errno));
}

/* Reads `file` to its end into *bytes, which holds `capacity` + 1 bytes and grows when the file turns out longer. */
static bptt_status read_to_end(int file, const char *path, size_t capacity, size_t max_bytes, unsigned char **bytes,
                               size_t *length, bptt_error *error)
{
    *length = 0;
    for (;;) {
        ssize_t got = read(file, *bytes + *length, capacity - *length);
        if (got < 0 && errno == EINTR) { continue; }
        if (got < 0) { return fail_errno(error, path, "cannot read"); }
        if (got == 0) { break; }
        *length += (size_t)got;
        if (*length > max_bytes) {
            return bptt_fail(error, BPTT_FAILED, "%s: longer than the %zu bytes allowed here", path, max_bytes);
        }
        if (*length == capacity) {
            capacity = capacity > max_bytes / 2 ? max_bytes + 1 : capacity * 2;
            unsigned char *larger = realloc(*bytes, capacity + 1);
            if (larger == NULL) { return bptt_fail(error, BPTT_FAILED, "%s: no memory for %zu bytes", path, capacity); }
            *bytes = larger;
        }
    }
    (*bytes)[*length] = '\0';
    return BPTT_OK;
}

bptt_status bptt_file_no_pipe(const char *path, bptt_error *error)
{
    struct stat info;
    const bool pipe = stat(path, &info) == 0 && S_ISFIFO(info.st_mode);
    return pipe ? bptt_fail(error, BPTT_FAILED, "%s: a pipe; expected a file, which can be read more than once", path) : BPTT_OK;
}

/* Looks at an open file and says how much room its first reading needs: one byte more than it has shows its end. */
static bptt_status first_capacity(int file, const char *path, size_t max_bytes, size_t *capacity, bptt_error *error)
{
    struct stat info;
    if (fstat(file, &info) != 0) { return fail_errno(error, path, "cannot look at it"); }
    if (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode)) {
        return bptt_fail(error, BPTT_FAILED, "%s: %s, not a file", path, S_ISDIR(info.st_mode) ? "a folder" : "a device");
    }
    uint64_t size = info.st_size > 0 ? (uint64_t)info.st_size : 0;
    if (size > max_bytes) {
        return bptt_fail(error, BPTT_FAILED, "%s: has %llu bytes, more than the %zu allowed here", path, (unsigned long long)size,
                         max_bytes);
    }
    /* A pipe and the files under /proc do not tell their size. */
    *capacity = size > 0 ? (size_t)size + 1 : PIPE_BYTES;
    return BPTT_OK;
}

bptt_status bptt_file_read(const char *path, size_t max_bytes, unsigned char **bytes, size_t *length, bptt_error *error)
{
    *bytes = NULL;
    *length = 0;
    if (max_bytes > PTRDIFF_MAX - 2) { max_bytes = PTRDIFF_MAX - 2; } /* room for the end mark and the NUL */
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) { return fail_errno(error, path, "cannot open"); }
    size_t capacity = 0;
    bptt_status status = first_capacity(file, path, max_bytes, &capacity, error);
    if (status == BPTT_OK) {
        *bytes = malloc(capacity + 1);
        status = *bytes != NULL ? read_to_end(file, path, capacity, max_bytes, bytes, length, error)
                                : bptt_fail(error, BPTT_FAILED, "%s: no memory for %zu bytes", path, capacity);
    }
    (void)close(file);
    if (status != BPTT_OK) {
        free(*bytes);
        *bytes = NULL;
        *length = 0;
    }
    return status;
}

/* The file that `path` stands for, behind links, and its permissions (0: there is none yet).  NULL: refused. */
static char *find_target(const char *path, mode_t *mode, bptt_error *error)
{
    struct stat info;
    char *target = NULL;
    *mode = 0;
    if (stat(path, &info) == 0) {
        if (!S_ISREG(info.st_mode)) {
            (void)bptt_fail(error, BPTT_FAILED, "%s: cannot write: %s, not a file", path,
                            S_ISDIR(info.st_mode) ? "a folder" : "a device");
            return NULL;
        }
        *mode = info.st_mode & 0777;
        target = access(path, W_OK) == 0 ? realpath(path, NULL) : NULL;
    } else if (errno == ENOENT) {
        target = strdup(path);
    }
    if (target == NULL) { (void)fail_errno(error, path, "cannot write"); }
    return target;
}

/* Opened before anything is written, so that a folder which cannot be synced is found in time.  -1: refused. */
static int open_folder(const char *path, const char *target, bptt_error *error)
{
    const char *slash = strrchr(target, '/');
    size_t length = slash == NULL ? 0 : slash == target ? 1 : (size_t)(slash - target);
    char *name = length == 0 ? strdup(".") : strndup(target, length);
    int folder = name != NULL ? open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (folder < 0) { (void)fail_errno(error, path, "cannot write: its folder"); }
    free(name);
    return folder;
}

/* Opens a new file beside the target.  Returns its name, for the caller to free; NULL: refused. */
static char *create_temporary(const char *path, const char *target, int *file, bptt_error *error)
{
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        char *name = NULL;
        if (asprintf(&name, "%s.tmp-%ld-%u", target, (long)getpid(), attempt) < 0) { break; }
        *file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (*file >= 0) { return name; }
        free(name);
        if (errno != EEXIST) { break; }
    }
    (void)fail_errno(error, path, "cannot write: a temporary file beside it");
    return NULL;
}

static bool write_all(int file, const bptt_file_part *part)
{
    const char *bytes = part->bytes;
    size_t left = part->length;
    while (left > 0) {
        ssize_t done = write(file, bytes, left);
        if (done < 0 && errno == EINTR) { continue; }
        if (done < 0) { return false; }
        bytes += done;
        left -= (size_t)done;
    }
    return true;
}

static bool sync_file(int file)
{
    while (fsync(file) != 0) {
        if (errno != EINTR) { return false; }
    }
    return true;
}

/* Writes, syncs and closes `file`. */
static bool fill(int file, mode_t mode, const bptt_file_part *parts, size_t count)
{
    bool good = mode == 0 || fchmod(file, mode) == 0;
    for (size_t i = 0; good && i < count; i++) { good = write_all(file, &parts[i]); }
    good = good && sync_file(file);
    int reason = errno;
    bool closed = close(file) == 0;
    if (!good) { errno = reason; }
    return good && closed;
}

static bptt_status replace(const char *path, const char *target, mode_t mode, const bptt_file_part *parts, size_t count,
                           bptt_error *error)
{
    int file = -1;
    bptt_status status = BPTT_OK;
    char *temporary = create_temporary(path, target, &file, error);
    if (temporary == NULL) { return BPTT_FAILED; }
    if (!fill(file, mode, parts, count) || rename(temporary, target) != 0) {
        status = fail_errno(error, path, "cannot write");
        (void)unlink(temporary);
    }
    free(temporary);
    return status;
}

bptt_status bptt_file_write_parts(const char *path, const bptt_file_part *parts, size_t count, bptt_error *error)
{
    mode_t mode = 0;
    char *target = find_target(path, &mode, error);
    if (target == NULL) { return BPTT_FAILED; }
    int folder = open_folder(path, target, error);
    bptt_status status = folder >= 0 ? replace(path, target, mode, parts, count, error) : BPTT_FAILED;
    /* EINVAL: a file system that has no sync for folders. */
    if (status == BPTT_OK && !sync_file(folder) && errno != EINVAL) {
        status = fail_errno(error, path, "written, but its folder cannot be synced");
    }
    if (folder >= 0) { (void)close(folder); }
    free(target);
    return status;
}

bptt_status bptt_file_write(const char *path, const void *bytes, size_t length, bptt_error *error)
{
    bptt_file_part part = {bytes, length};
    return bptt_file_write_parts(path, &part, 1, error);
}
