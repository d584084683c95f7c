/* export.h: the formats that `bptt export` writes.  Depends on nothing. */
#ifndef BPTT_EXPORT_H
#define BPTT_EXPORT_H

typedef enum bptt_export_format { BPTT_EXPORT_SAFETENSORS, BPTT_EXPORT_NPZ, BPTT_EXPORT_C_HEADER } bptt_export_format;

/* Words of the formats in enum order, ended by NULL. */
extern const char *const bptt_export_words[];

#endif
