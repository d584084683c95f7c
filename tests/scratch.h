/* scratch.h: a folder for one test program's files, and short ways to fill and look at it.
 *
 * Depends on Check and runtime/file.h.  scratch_open and scratch_close are unchecked fixtures, so the folder goes even after a
 * test failed or crashed.  No folder inside it is expected.
 */
#ifndef BPTT_TESTS_SCRATCH_H
#define BPTT_TESTS_SCRATCH_H

#include "../runtime/file.h"

#include <check.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_folder[256];

static inline void scratch_open(void)
{
    const char *base = getenv("TMPDIR");
    int length = snprintf(scratch_folder, sizeof scratch_folder, "%s/bptt-test-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert(length > 0 && (size_t)length < sizeof scratch_folder);
    ck_assert_ptr_nonnull(mkdtemp(scratch_folder));
}

/* Path of a file in the folder; good until the fourth call after it. */
static inline const char *scratch(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", scratch_folder, name);
    return path;
}

/* Number of files in the folder; with `clear` they are removed. */
static inline int scratch_files(int clear)
{
    int count = 0;
    DIR *folder = opendir(scratch_folder);
    ck_assert_ptr_nonnull(folder);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) { continue; }
        count++;
        if (clear) { ck_assert_int_eq(unlink(scratch(entry->d_name)), 0); }
    }
    ck_assert_int_eq(closedir(folder), 0);
    return count;
}

static inline void scratch_close(void)
{
    (void)scratch_files(1);
    ck_assert_int_eq(rmdir(scratch_folder), 0);
}

/* Plain writing, so that a test of bptt_file_write does not rest on it. */
static inline void scratch_put(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

/* The file's bytes and a NUL after them, for the caller to free. */
static inline unsigned char *scratch_get(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    ck_assert_int_ge(size, 0);
    rewind(file);
    unsigned char *bytes = calloc((size_t)size + 1, 1);
    ck_assert_ptr_nonnull(bytes);
    *length = fread(bytes, 1, (size_t)size, file);
    ck_assert_uint_eq(*length, (size_t)size);
    ck_assert_int_eq(fclose(file), 0);
    return bytes;
}

/* Bit for bit, also where numbers are compared: -0 is not 0. */
static inline bool same_bytes(const void *a, const void *b, size_t length)
{
    return memcmp(a, b, length) == 0;
}

static inline void assert_file_is(const char *path, const void *bytes, size_t length)
{
    size_t found = 0;
    unsigned char *text = scratch_get(path, &found);
    ck_assert_uint_eq(found, length);
    ck_assert(same_bytes(text, bytes, length));
    free(text);
}

static inline void assert_says(const bptt_error *error, const char *part)
{
    ck_assert_msg(strstr(error->text, part) != NULL, "expected \"%s\" in \"%s\"", part, error->text);
}

/* A small generator of our own: the same numbers everywhere from a seed that the test prints. */
static inline uint64_t scratch_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
