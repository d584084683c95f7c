/* alphabet.c: the one file that a spec may have read: which bytes occur in it.  See fields.h.
 *
 * Refuses whatever is not a regular file below the spec's folder, by name and again after links are resolved.
 */
#include "fields.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t size_limit = (int64_t)256 << 20;

/* Whether a path climbs: has a component "..". */
static bool climbs(const char *path)
{
    for (const char *p = path; *p != '\0';) {
        size_t length = strcspn(p, "/");
        if (length == 2 && p[0] == '.' && p[1] == '.') { return true; }
        p += length + strspn(p + length, "/");
    }
    return false;
}

static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0) { return false; }
    return folder[length - 1] == '/' || path[length] == '/'; /* the folder may be "/" */
}

/* folder/file with links resolved, owned by the caller; NULL and an error: not there, or not below the folder. */
static char *resolve(const char *folder, const char *file, bptt_error *error)
{
    char *joined = NULL;
    if (asprintf(&joined, "%s/%s", folder, file) < 0) {
        (void)bptt_fail(error, BPTT_FAILED, "not enough memory");
        return NULL;
    }
    char *root = realpath(folder, NULL);
    char *path = realpath(joined, NULL);
    free(joined);
    if (root == NULL || path == NULL) {
        (void)bptt_fail(error, BPTT_FAILED, "%s", strerror(errno));
    } else if (!is_below(path, root)) {
        (void)bptt_fail(error, BPTT_FAILED, "leads out of the spec's folder");
        free(path);
        path = NULL;
    }
    free(root);
    return path;
}

static bptt_status mark_bytes(int file, bool seen[256], bptt_error *error)
{
    unsigned char block[16384];
    int64_t total = 0;
    for (;;) {
        ssize_t count = read(file, block, sizeof block);
        if (count < 0 && errno == EINTR) { continue; }
        if (count < 0) { return bptt_fail(error, BPTT_FAILED, "%s", strerror(errno)); }
        if (count == 0) { return BPTT_OK; }
        total += count;
        if (total > size_limit) { return bptt_fail(error, BPTT_FAILED, "larger than 256 MiB"); }
        for (ssize_t i = 0; i < count; i++) { seen[block[i]] = true; }
    }
}

static bptt_status mark_file(const char *path, bool seen[256], bptt_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (file < 0) { return bptt_fail(error, BPTT_FAILED, "%s", strerror(errno)); }
    struct stat about;
    bptt_status status;
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = bptt_fail(error, BPTT_FAILED, "not a regular file");
    } else {
        status = mark_bytes(file, seen, error);
    }
    (void)close(file);
    return status;
}

bptt_status bptt_alphabet_of(const char *folder, const char *file, unsigned char alphabet[256], int *size, bptt_error *error)
{
    if (file[0] == '\0') { return bptt_fail(error, BPTT_FAILED, "expected the name of a file"); }
    if (file[0] == '/' || climbs(file)) {
        return bptt_fail(error, BPTT_FAILED, "expected a file in the spec's folder or below it");
    }
    char *path = resolve(folder, file, error);
    if (path == NULL) { return BPTT_FAILED; }
    bool seen[256] = {false};
    bptt_status status = mark_file(path, seen, error);
    free(path);
    if (status != BPTT_OK) { return status; }
    *size = 0;
    for (int byte = 0; byte < 256; byte++) {
        if (seen[byte]) { alphabet[(*size)++] = (unsigned char)byte; }
    }
    return BPTT_OK;
}
