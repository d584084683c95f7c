/* reals.h: files of numbers as a table: CSV, .npy, or bare floats.
 *
 * Files come from strangers: every cell, length and shape is checked before use.  Depends on file.h.  Refuses to guess: no quotes,
 * no separator but the comma, no Fortran order, no big-endian numbers, no integers.
 */
#ifndef BPTT_REALS_H
#define BPTT_REALS_H

#include "../gen/status.h"

#include <stddef.h>

/* AUTO: .npy by its first bytes, else CSV. */
typedef enum { BPTT_REALS_AUTO, BPTT_REALS_CSV, BPTT_REALS_NPY, BPTT_REALS_F32 } bptt_reals_format;

/* Words of the formats in enum order, ended by NULL. */
extern const char *const bptt_reals_words[];

typedef struct bptt_reals {
    double *values; /* [count][columns]; an empty cell of a CSV file is not a number; owned */
    size_t count, columns;
    size_t length; /* rows of each sequence of the file; 0: it is one long sequence */
} bptt_reals;

/* CSV: lines of `columns` numbers with commas between them, after an optional line of names; "nan" and an empty cell stand for a
 * number that is not known.  .npy (versions 1 to 3, little-endian f4 or f8, C order): [rows][columns] or
 * [sequences][rows][columns].  F32: little-endian floats, rows of `columns` (which is for this format alone).
 * On success the caller frees values.  Errors name the file and the line and column, or what its header says. */
bptt_status bptt_reals_load(const char *path, bptt_reals_format format, size_t columns, bptt_reals *reals, bptt_error *error);

#endif
