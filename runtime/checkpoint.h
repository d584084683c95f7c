/* checkpoint.h: a model and where its training stands, to and from a safetensors file.
 *
 * Parameters carry PyTorch's names and shapes ([outputs][inputs]; design.md section 7), so a file loads there and back; what
 * only bptt needs lies beside them under other names.  Depends on safetensors.h, spec.h and the bptt_model interface.
 */
#ifndef BPTT_CHECKPOINT_H
#define BPTT_CHECKPOINT_H

#include "../gen/spec.h"
#include "../templates/abi.h"
#include "safetensors.h"

/* Where training stands: everything beside the model's own struct that an exact resume needs. */
typedef struct bptt_cursor {
    uint64_t step;                      /* chunks learned from */
    uint64_t epoch;                     /* epochs completed */
    uint64_t position;                  /* steps of this epoch handed out of each stream */
    uint64_t chunk;                     /* next chunk of the sequence, 0 .. chunks - 1 */
    uint64_t tokens;                    /* length of the training data in tokens: resuming on other data is refused */
    char data_digest[BPTT_DIGEST_SIZE]; /* 128-bit hash of those tokens; "" when unknown */
} bptt_cursor;

/* Saves parameters, moments, state, progress, the spec's text and the cursor. */
bptt_status bptt_checkpoint_save(const char *path, const bptt_spec *spec, const bptt_model *model, const void *memory,
                                 const bptt_cursor *cursor, bptt_error *error);
/* Whether the file is a safetensors file that says it is a checkpoint. */
bool bptt_checkpoint_like(const char *path);
/* Reads the spec that a checkpoint holds (digest checked). */
bptt_status bptt_checkpoint_spec(const char *path, bptt_spec *spec, bptt_error *error);
/* Loads everything into `memory` (already init-ed) and calls refresh.  `spec` must describe the same network and training rule
 * (its digest); anything missing, misshapen or damaged is refused by name and `memory` and *cursor stay as they were. */
bptt_status bptt_checkpoint_load(const char *path, const bptt_spec *spec, const bptt_model *model, void *memory,
                                 bptt_cursor *cursor, bptt_error *error);

/* Parameters alone, from any file that has them (a checkpoint, a PyTorch state_dict as safetensors or npz: two biases are summed);
 * other tensors in it are ignored.  Calls refresh.  F32 and F64 are converted to the model's reals. */
bptt_status bptt_weights_load(const char *path, const bptt_model *model, void *memory, bptt_error *error);
/* Its two halves: the file, which is checked by itself and freed with bptt_st_free; and from its tensors to the model. */
bptt_status bptt_weights_read(const char *path, bptt_st_file *file, bptt_error *error);
bptt_status bptt_weights_take(const bptt_st_file *file, const bptt_model *model, void *memory, bptt_error *error);
/* A parameter-shaped block (byte offset `block` in the struct: model->param or model->grad) as tensors with PyTorch's names and
 * shapes; `path` is for messages.  `twin_copies`: the second bias is a copy (gradients), else zeros (weights).  On success free
 * with bptt_st_free. */
bptt_status bptt_weights_pack(const char *path, const bptt_model *model, const void *memory, size_t block, int twin_copies,
                              bptt_st_file *file, bptt_error *error);
/* The same to a safetensors file. */
bptt_status bptt_weights_save(const char *path, const bptt_model *model, const void *memory, size_t block, int twin_copies,
                              bptt_error *error);

#endif
