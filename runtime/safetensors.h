/* safetensors.h: reads and writes the safetensors container (u64 header length, JSON header, raw little-endian rows).
 *
 * A file comes from a stranger: every length, offset, name and shape is checked before use.  Depends on cJSON and status.h;
 * knows nothing of models.
 */
#ifndef BPTT_SAFETENSORS_H
#define BPTT_SAFETENSORS_H

#include "../gen/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { BPTT_ST_F32, BPTT_ST_F64, BPTT_ST_I64 } bptt_st_dtype; /* the dtypes that bptt speaks */

/* As a file spells it: "F32". */
const char *bptt_st_dtype_word(bptt_st_dtype dtype);

typedef struct bptt_st_tensor {
    char *name;
    bptt_st_dtype dtype;
    unsigned rank; /* 0 .. 4 */
    uint64_t shape[4];
    size_t bytes;
    const void *data; /* reading: into the file's buffer, maybe unaligned; writing: the caller's */
} bptt_st_tensor;

typedef struct bptt_st_file {
    bptt_st_tensor *tensors;
    size_t count;
    char **keys, **values; /* __metadata__ */
    size_t metadata_count;
    unsigned char *buffer;
    size_t length;
    char *path; /* for messages */
} bptt_st_file;

/* Reads and checks the whole file.  Refused by name: truncated, trailing bytes, absurd header length, bad JSON, duplicate or
 * empty names, unknown dtype, offsets that overlap, leave gaps or run out of range, a size that is not shape x dtype. */
bptt_status bptt_st_read(const char *path, bptt_st_file *file, bptt_error *error);
void bptt_st_free(bptt_st_file *file);
/* Whether the file begins as a safetensors file does: the length of a JSON header, then '{'.  No text has zeros there. */
bool bptt_st_like(const char *path);
/* shape x dtype in bytes; false when that does not fit a size_t. */
bool bptt_st_size(const bptt_st_tensor *tensor, size_t *bytes);
/* Refuses names that are empty, kept by the format or there twice. */
bptt_status bptt_st_check_names(const bptt_st_file *file, bptt_error *error);
const bptt_st_tensor *bptt_st_find(const bptt_st_file *file, const char *name); /* NULL: not there */
const char *bptt_st_metadata(const bptt_st_file *file, const char *key);        /* NULL: not there */

/* Writes a temporary file beside `path`, syncs it (and its folder) and renames it.  On any failure `path` is as it was and the
 * temporary file is gone.  keys/values: metadata_count pairs of UTF-8 text. */
bptt_status bptt_st_write(const char *path, const bptt_st_tensor *tensors, size_t count, const char *const *keys,
                          const char *const *values, size_t metadata_count, bptt_error *error);

#endif
