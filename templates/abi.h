/* What a program knows of a model without its header: sizes, tensors and functions.  bptt drives every backend through it. */
#ifndef BPTT_ABI
#define BPTT_ABI 2

/* Logical element (row, col) of a tensor lies at offset + row * stride + col, counted in reals from the block's start.
 * A weight is stored input-major, [inputs][outputs]; files hold it output-major, [outputs][inputs]. */
typedef struct bptt_tensor {
    const char *name; /* as in the equations: "W_hh" */
    const char *file; /* as in a weight file: "rnn.weight_hh_l0" */
    const char *twin; /* second bias of the same unit in a weight file, "rnn.bias_hh_l0"; NULL: none */
    uint32_t rank;    /* 2: [rows][cols]; 1: [cols], rows == 1 */
    uint32_t rows;    /* inputs (a state: B; what blocks that overlap keep: K B) */
    uint32_t cols;    /* outputs */
    uint32_t stride;  /* reals from row to row, cols padded to the vector width */
    size_t offset;    /* reals from the start of the block */
    uint32_t part, parts; /* in a weight file it is block `part`, from 0, of `parts` blocks of outputs: a gate */
    uint32_t table;   /* 1: files hold it as it is stored, as they do an embedding */
} bptt_tensor;

/* Runs work(job, 0) ... work(job, threads - 1), at the same time if it can, and returns when all are done. */
typedef struct bptt_team bptt_team;
struct bptt_team {
    void (*run)(bptt_team *team, void (*work)(void *job, int part), void *job);
};

/* What training keeps beside blocks and states: doubles, in this order.  A model has those that its rules need. */
enum {
    BPTT_UPDATES,   /* updates done */
    BPTT_POWER1,    /* beta1^updates */
    BPTT_POWER2,    /* beta2^updates */
    BPTT_LABELS,    /* accumulated gradients: labels since the last update */
    BPTT_PENDING,   /* accumulated gradients: chunks, or sequences begun, since the last update */
    BPTT_BEST,      /* plateau: the least loss observed */
    BPTT_BAD,       /* plateau: losses in a row that were no better */
    BPTT_REDUCTION, /* plateau: what it has multiplied the rate with */
    BPTT_MASKS,     /* dropout: number of the masks in force, one more than that of the chunk; 0: none */
    BPTT_PROGRESS   /* how many there are at most */
};

/* What a model reads of a chunk: rows of its steps and sequences, [steps of the chunk][B].  Reals are of the model's
 * type, without padding.  What the model does not read may be NULL. */
typedef struct bptt_rows {
    const uint32_t *x;    /* token ids below V */
    const void *v;        /* real inputs [D] */
    const uint32_t *y;    /* labels; V or more: no loss there */
    const void *d;        /* real targets [Q]; not a number: no loss there */
    const uint8_t *reset; /* not 0: the state before this step is h_0; NULL: nowhere */
} bptt_rows;

typedef struct bptt_model bptt_model;
struct bptt_model {
    uint32_t abi;       /* BPTT_ABI */
    uint32_t real_size; /* 4: float, 8: double */
    const char *name;
    const char *digest;                            /* of the spec, hexadecimal */
    uint32_t hidden, vocab, steps, horizon, batch; /* H V T K B; V is 0 where there are no tokens and no labels */
    uint32_t chunk_steps;                          /* of a chunk: K, or what the truncation says; the last one has the rest */
    uint32_t inputs, targets;                      /* D, Q: reals read at each step of a sequence; 0: none */
    uint32_t chunks;   /* chunks of a sequence, ceil(T / chunk_steps) */
    uint32_t threads;  /* parts of the work; 0 or 1: it has none */
    size_t bytes;      /* size of the struct */
    size_t parameters; /* logical parameters, without padding */
    size_t block;      /* reals of a parameter-shaped block, with padding; padding is 0 and stays 0 */
    uint32_t tensor_count, state_count, moment_count;
    const bptt_tensor *tensors; /* of a parameter-shaped block: param, grad and each moment */
    const bptt_tensor *states;  /* carried state, offsets from the state block */
    /* bytes from the start of the struct to: */
    size_t param, grad; /* block reals each */
    size_t moment[2];   /* block reals each, for the first moment_count */
    size_t state;       /* carried state */
    size_t progress;    /* double[progress_count] */
    uint32_t progress_count;
    /* 0: gradient overwrites, and an update follows each chunk.  n: gradient adds to what came since the last update,
     * sums whatever the reduction, and an update follows when BPTT_PENDING is n; whole_sequence 1: and the chunk ends
     * its sequence. */
    uint32_t accumulate, whole_sequence;
    /* Does the parts of gradient, update, loss and refresh; NULL, as emitted: one after the other, with the same results. */
    bptt_team *team;

    /* Parameters from the seed; moments, state and progress to their start. */
    void (*init)(const bptt_model *self, void *model, uint64_t seed);
    /* State to h_0, zero unless it is learned. */
    void (*reset)(const bptt_model *self, void *model);
    /* Call after parameters were written from outside: brings derived copies of them up to date. */
    void (*refresh)(const bptt_model *self, void *model);
    /* Chunk `chunk` (0 .. chunks - 1, in order) of a sequence forward and backward; gradients overwritten, state
     * advanced, no update.  Returns the loss in the spec's reduction: sum, or mean over the labels or targets that
     * count (0 where none does).  Chunk 0 zeroes the state first unless the spec carries it. */
    double (*gradient)(const bptt_model *self, void *model, const bptt_rows *rows, uint32_t chunk);
    /* Clips the gradients (mean over the labels since the last update, or sum), updates the parameters.  Returns the gradient's
     * 2-norm before clipping; when that is not finite nothing is changed. */
    double (*update)(const bptt_model *self, void *model);
    /* As gradient, forward only. */
    double (*loss)(const bptt_model *self, void *model, const bptt_rows *rows, uint32_t chunk);
    /* One step: the inputs of `rows`, [B]; advances the state; writes outputs[B][V], probabilities, or [B][Q], reals without
     * padding. */
    void (*predict)(const bptt_model *self, void *model, const bptt_rows *rows, void *outputs);
    /* The learning rate of the next update.  NULL: it is always the spec's. */
    double (*rate)(const bptt_model *self, const void *model);
    /* Tells a plateau schedule the loss on data held out.  NULL: it is none. */
    void (*observe)(const bptt_model *self, void *model, double loss);
};
#endif
