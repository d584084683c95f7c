/* names.h: which names emitted C can have.  Depends on nothing else. */
#ifndef BPTT_NAMES_H
#define BPTT_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Why a text cannot be the prefix of a model's symbols, or NULL. */
const char *bptt_name_fault(const char *name, size_t length);
/* Is it a word of C, C++ or their libraries, or one that the emitted files declare?  A value of such a name needs another in C. */
bool bptt_is_reserved(const char *word, size_t length);

#endif
