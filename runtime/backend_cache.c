/* backend_cache.c: where compiled objects are kept, and how one is known to be whole.  See backend_private.h.
 *
 * Loading an object runs it, so the folder must belong to this user and be writable by nobody else, and every object ends in a
 * digest of its own bytes: a cut or damaged one is not loaded but built again.  Objects appear by rename, whole or not at all.
 * Depends on POSIX, ELF, xxHash and file.h.
 */
#include "backend_private.h"
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define SEAL "\nbptt object "
enum {
    DIGEST_LENGTH = 32,
    SEAL_LENGTH = sizeof SEAL - 1 + DIGEST_LENGTH,
    OBJECT_MAX = 1 << 30,
    KEEP_SECONDS = 30 * 24 * 3600,
};

/* --- digests ---------------------------------------------------------------------------------------------------------------- */

static void digest_text(const XXH3_state_t *state, char *hexadecimal)
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, XXH3_128bits_digest(state));
    for (size_t i = 0; i < sizeof bytes.digest; i++) { (void)snprintf(hexadecimal + 2 * i, 3, "%02x", bytes.digest[i]); }
}

bool bptt_digest(const char *const *strings, size_t count, char *hexadecimal)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) { return false; }
    (void)XXH3_128bits_reset(state);
    /* The NUL goes in too: it keeps ("ab", "c") from ("a", "bc"). */
    for (size_t i = 0; i < count; i++) { (void)XXH3_128bits_update(state, strings[i], strlen(strings[i]) + 1); }
    digest_text(state, hexadecimal);
    (void)XXH3_freeState(state);
    return true;
}

static bool make_seal(const char *recipe, const unsigned char *bytes, size_t length, char seal[SEAL_LENGTH + 1])
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) { return false; }
    (void)XXH3_128bits_reset(state);
    (void)XXH3_128bits_update(state, recipe, strlen(recipe) + 1);
    (void)XXH3_128bits_update(state, bytes, length);
    memcpy(seal, SEAL, sizeof SEAL);
    digest_text(state, seal + sizeof SEAL - 1);
    (void)XXH3_freeState(state);
    return true;
}

/* --- objects ---------------------------------------------------------------------------------------------------------------- */

/* Bytes of all executable sections; 0 when it is no ELF file of ours. */
static size_t machine_code(const unsigned char *bytes, size_t length)
{
    ElfW(Ehdr) head;
    if (length < sizeof head) { return 0; }
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_shentsize != sizeof(ElfW(Shdr)) || head.e_shoff > length ||
        (length - head.e_shoff) / sizeof(ElfW(Shdr)) < head.e_shnum) {
        return 0;
    }
    size_t sum = 0;
    for (size_t i = 0; i < head.e_shnum; i++) {
        ElfW(Shdr) section;
        memcpy(&section, bytes + head.e_shoff + i * sizeof section, sizeof section);
        if ((section.sh_flags & SHF_EXECINSTR) != 0 && section.sh_size <= length) { sum += section.sh_size; }
    }
    return sum;
}

bptt_status bptt_cache_seal(const char *object, const char *recipe, bptt_error *error)
{
    unsigned char *bytes = NULL;
    size_t length = 0;
    bptt_status status = bptt_file_read(object, OBJECT_MAX, &bytes, &length, error);
    if (status != BPTT_OK) { return status; }
    char seal[SEAL_LENGTH + 1];
    bool made = make_seal(recipe, bytes, length, seal);
    free(bytes);
    if (!made) { return bptt_fail(error, BPTT_FAILED, "%s: no memory", object); }
    FILE *file = fopen(object, "abe");
    bool written = file != NULL && fchmod(fileno(file), 0600) == 0 && fwrite(seal, 1, SEAL_LENGTH, file) == SEAL_LENGTH;
    if (file != NULL) { written = fclose(file) == 0 && written; }
    return written ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "%s: cannot write: %s", object, strerror(errno));
}

bool bptt_cache_verify(const char *object, const char *recipe, size_t *code_bytes)
{
    struct stat info;
    if (lstat(object, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid()) { return false; }
    if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) { return false; } /* the seal is a checksum, not a signature */
    unsigned char *bytes = NULL;
    size_t length = 0;
    bptt_error ignored;
    if (bptt_file_read(object, OBJECT_MAX, &bytes, &length, &ignored) != BPTT_OK) { return false; }
    char seal[SEAL_LENGTH + 1];
    bool whole = length >= SEAL_LENGTH && make_seal(recipe, bytes, length - SEAL_LENGTH, seal) &&
                 memcmp(seal, bytes + length - SEAL_LENGTH, SEAL_LENGTH) == 0;
    *code_bytes = whole ? machine_code(bytes, length - SEAL_LENGTH) : 0;
    free(bytes);
    if (whole) { (void)utimensat(AT_FDCWD, object, NULL, 0); } /* it is in use: bptt_cache_sweep keeps it */
    return whole;
}

/* --- folders ---------------------------------------------------------------------------------------------------------------- */

/* "FOLDER/NAME"; NULL: no memory. */
static char *join(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool there = mkdir(path, 0700) == 0 || errno == EEXIST || errno == EROFS || errno == EACCES;
        *slash = '/';
        if (!there) { return false; }
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

static bool only_ours(const char *folder)
{
    struct stat info;
    return lstat(folder, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid() &&
           (info.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

char *bptt_cache_folder(void)
{
    const char *base = getenv("XDG_CACHE_HOME");
    const char *below = "bptt";
    if (base == NULL || base[0] != '/') { /* the XDG rules: a relative path does not count */
        base = getenv("HOME");
        below = ".cache/bptt";
    }
    if (base == NULL || base[0] != '/') { return NULL; }
    char *folder = join(base, below);
    if (folder == NULL || (make_folders(folder) && only_ours(folder))) { return folder; }
    free(folder);
    return NULL;
}

char *bptt_cache_workplace(const char *cache)
{
    const char *temporary = getenv("TMPDIR");
    if (temporary == NULL || temporary[0] != '/') { temporary = "/tmp"; }
    const char *bases[] = {cache, temporary};
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        char *folder = bases[i] != NULL ? join(bases[i], "bptt-XXXXXX") : NULL;
        if (folder != NULL && mkdtemp(folder) != NULL) { return folder; }
        free(folder);
    }
    return NULL;
}

/* Calls `visit` with each entry of the folder but "." and "..". */
static void for_each_entry(const char *folder, void (*visit)(const char *path))
{
    DIR *entries = opendir(folder);
    if (entries == NULL) { return; }
    for (const struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) { continue; }
        char *path = join(folder, entry->d_name);
        if (path != NULL) { visit(path); }
        free(path);
    }
    (void)closedir(entries);
}

static void remove_file(const char *path)
{
    (void)unlink(path);
}

void bptt_cache_discard(const char *folder)
{
    for_each_entry(folder, remove_file);
    (void)rmdir(folder);
}

/* Measuring takes longer than compiling, and the file is small. */
static bool is_tuning(const char *path)
{
    const size_t length = strlen(path), tail = strlen(BPTT_TUNING_SUFFIX);
    return length >= tail && strcmp(path + length - tail, BPTT_TUNING_SUFFIX) == 0;
}

static void remove_if_old(const char *path)
{
    struct stat info;
    if (is_tuning(path)) { return; }
    if (lstat(path, &info) != 0 || time(NULL) - info.st_mtime < KEEP_SECONDS) { return; }
    if (S_ISDIR(info.st_mode)) {
        bptt_cache_discard(path);
    } else {
        remove_file(path);
    }
}

void bptt_cache_sweep(const char *cache)
{
    for_each_entry(cache, remove_if_old);
}
