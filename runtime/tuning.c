/* tuning.c: see tuning.h.
 *
 * A file is text: what it is, the key it was made for, a product and its tile a line, and a digest of all that.  It is written to a
 * temporary file and renamed.  Depends on file.h, kernels.h and machine.h too.
 */
#include "tuning.h"

#include "backend_private.h"
#include "file.h"
#include "kernels.h"
#include "machine.h"
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT "bptt tuning 1"
enum { FILE_LIMIT = 1 << 16, HEXADECIMAL = 33 };

/* --- keys ------------------------------------------------------------------------------------------------------------------- */

static int simd_of(const bptt_spec *spec)
{
    return spec->simd > 0 ? (int)spec->simd : bptt_kernels_simd();
}

/* The products and the width, as text.  NULL: *error says why. */
static char *describe_products(const bptt_spec *spec, bptt_error *error)
{
    bptt_product products[BPTT_MAX_PRODUCTS];
    size_t count = 0;
    if (bptt_products(spec, simd_of(spec), bptt_machine_memory(), products, &count, error) != BPTT_OK) { return NULL; }
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out != NULL) {
        (void)fprintf(out, "%d lanes, %s\n", simd_of(spec), bptt_spec_word("dtype", (int)spec->dtype));
        for (size_t p = 0; p < count; p++) {
            (void)fprintf(out, "%s %lld %lld %lld\n", products[p].name, (long long)products[p].rows, (long long)products[p].cols,
                          (long long)products[p].depth);
        }
        if (fclose(out) == 0) { return text; }
    }
    free(text);
    (void)bptt_fail(error, BPTT_FAILED, "%s: no memory for a tuning", spec->source);
    return NULL;
}

static bptt_status make_key(const bptt_spec *spec, char key[HEXADECIMAL], bptt_error *error)
{
    char *products = describe_products(spec, error);
    if (products == NULL) { return BPTT_FAILED; }
    char *machine = bptt_machine_describe();
    const char *parts[] = {FORMAT, BPTT_VERSION, machine, products};
    bool made = machine != NULL && bptt_digest(parts, sizeof parts / sizeof *parts, key);
    free(machine);
    free(products);
    return made ? BPTT_OK : bptt_fail(error, BPTT_FAILED, "%s: no memory for a tuning", spec->source);
}

/* The file of that key; NULL: *error says why.  The caller frees it. */
static char *locate(const bptt_spec *spec, char key[HEXADECIMAL], bptt_error *error)
{
    if (make_key(spec, key, error) != BPTT_OK) { return NULL; }
    char *folder = bptt_cache_folder(), *path = NULL;
    if (folder == NULL) {
        (void)bptt_fail(error, BPTT_FAILED,
                        "no folder for a tuning: neither $XDG_CACHE_HOME/bptt nor ~/.cache/bptt is this user's alone to write");
        return NULL;
    }
    if (asprintf(&path, "%s/%s" BPTT_TUNING_SUFFIX, folder, key) < 0) {
        path = NULL;
        (void)bptt_fail(error, BPTT_FAILED, "%s: no memory for a tuning", spec->source);
    }
    free(folder);
    return path;
}

char *bptt_tuning_path(const bptt_spec *spec, bptt_error *error)
{
    char key[HEXADECIMAL];
    return locate(spec, key, error);
}

/* --- writing ---------------------------------------------------------------------------------------------------------------- */

/* All lines but the last, which is a digest of them.  NULL: no memory. */
static char *compose(const char *key, const bptt_tuning *tuning)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) { return NULL; }
    (void)fprintf(out, FORMAT "\n%s\n", key);
    for (size_t i = 0; i < tuning->count; i++) {
        (void)fprintf(out, "%s %d %d\n", tuning->of[i].product, tuning->of[i].tile.rows, tuning->of[i].tile.vectors);
    }
    if (fclose(out) == 0) { return text; }
    free(text);
    return NULL;
}

bptt_status bptt_tuning_save(const bptt_spec *spec, const bptt_tuning *tuning, bptt_error *error)
{
    char key[HEXADECIMAL], digest[HEXADECIMAL];
    char *path = locate(spec, key, error);
    if (path == NULL) { return BPTT_FAILED; }
    bptt_status status;
    char *text = compose(key, tuning);
    if (text != NULL && bptt_digest((const char *[]){text}, 1, digest)) {
        const bptt_file_part parts[] = {{text, strlen(text)}, {digest, strlen(digest)}, {"\n", 1}};
        status = bptt_file_write_parts(path, parts, sizeof parts / sizeof *parts, error);
    } else {
        status = bptt_fail(error, BPTT_FAILED, "%s: no memory for a tuning", spec->source);
    }
    free(text);
    free(path);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

/* Whether the last line is the digest of the others; cuts it off. */
static bool is_whole(char *text, size_t length)
{
    char digest[HEXADECIMAL];
    if (length < HEXADECIMAL || strlen(text) != length) { return false; }
    char *last = text + length - HEXADECIMAL; /* with its newline it is as long as a digest with its NUL */
    char found[HEXADECIMAL];
    memcpy(found, last, HEXADECIMAL);
    *last = '\0';
    return bptt_digest((const char *[]){text}, 1, digest) && found[HEXADECIMAL - 1] == '\n' &&
           memcmp(found, digest, HEXADECIMAL - 1) == 0;
}

/* The lines after the first two.  Whether a tile can be used is the plan's to say. */
static bool read_tiles(const char *lines, bptt_tuning *tuning)
{
    tuning->count = 0;
    while (*lines != '\0') {
        if (tuning->count == BPTT_MAX_PRODUCTS) { return false; }
        bptt_tile_size tile = {0, 0};
        char name[BPTT_PRODUCT_MAX] = "";
        int used = 0;
        if (sscanf(lines, "%47s %9d %9d%n", name, &tile.rows, &tile.vectors, &used) != 3 || lines[used] != '\n') { return false; }
        memcpy(tuning->of[tuning->count].product, name, sizeof name);
        tuning->of[tuning->count++].tile = tile;
        lines += used + 1;
    }
    return true;
}

static bool read_text(char *text, size_t length, const char *key, bptt_tuning *tuning)
{
    const size_t head = strlen(FORMAT) + 1;
    if (!is_whole(text, length) || strncmp(text, FORMAT "\n", head) != 0) { return false; }
    const size_t key_length = strlen(key);
    if (strncmp(text + head, key, key_length) != 0 || text[head + key_length] != '\n') { return false; }
    return read_tiles(text + head + key_length + 1, tuning);
}

/* A checkpoint can be trained but not tuned. */
static const char *what_to_tune(const bptt_spec *spec)
{
    return bptt_st_like(spec->source) ? "SPEC" : spec->source;
}

static bptt_status load(bptt_spec *spec, bptt_error *error)
{
    char key[HEXADECIMAL];
    char *path = locate(spec, key, error);
    if (path == NULL) { return BPTT_FAILED; }
    bptt_status status;
    unsigned char *text = NULL;
    size_t length = 0;
    if (access(path, F_OK) != 0) {
        status =
            bptt_fail(error, BPTT_FAILED,
                      "%.250s: no tuning for these sizes on this machine; run 'bptt tune %.250s' first (with the same --set)",
                      spec->source, what_to_tune(spec));
    } else {
        status = bptt_file_read(path, FILE_LIMIT, &text, &length, error);
    }
    spec->tuning = status == BPTT_OK ? calloc(1, sizeof *spec->tuning) : NULL;
    if (status == BPTT_OK && spec->tuning == NULL) {
        status = bptt_fail(error, BPTT_FAILED, "%s: no memory for a tuning", spec->source);
    } else if (status == BPTT_OK && !read_text((char *)text, length, key, spec->tuning)) {
        status = bptt_fail(error, BPTT_FAILED, "%s: damaged or stale; run 'bptt tune %.250s' again", path, what_to_tune(spec));
    }
    free(text);
    free(path);
    return status;
}

bptt_status bptt_tuning_load(bptt_spec *spec, bptt_error *error)
{
    bptt_status status = load(spec, error);
    if (status != BPTT_OK) {
        bptt_spec_free(spec);
        *spec = (bptt_spec){.text = NULL};
    }
    return status;
}
