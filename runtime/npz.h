/* npz.h: reads and writes numpy's npz: a zip archive of .npy arrays, stored or deflated.
 *
 * A file comes from a stranger: every length, offset, name and shape is checked before use, and every checksum.  Depends on zlib
 * (inflate, CRC-32) and on safetensors.h, whose table of named tensors it fills; knows nothing of models.
 */
#ifndef BPTT_NPZ_H
#define BPTT_NPZ_H

#include "safetensors.h"

/* Whether the file begins as a zip archive does. */
bool bptt_npz_like(const char *path);
/* Reads and checks the whole file; free it with bptt_st_free.  An array "a.b.npy" is the tensor "a.b"; one in Fortran order is
 * turned.  Refused by name: what is damaged or truncated, zip64, encryption, entries that are no arrays (torch.save), dtypes but
 * <f4, <f8 and <i8, names that occur twice. */
bptt_status bptt_npz_read(const char *path, bptt_st_file *file, bptt_error *error);
/* Writes stored entries as bptt_file_write does.  The same tensors give the same bytes. */
bptt_status bptt_npz_write(const char *path, const bptt_st_tensor *tensors, size_t count, bptt_error *error);

#endif
