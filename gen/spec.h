/* spec.h: first stage.  A Lua file and "key=value" overrides become one checked struct.
 *
 * Depends on Lua (through sandbox.h) and status.h.  Knows names, ranges and the sandbox; knows nothing of graphs or C text.
 * No Lua value leaves this stage.
 */
#ifndef BPTT_SPEC_H
#define BPTT_SPEC_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { BPTT_NAME_MAX = 48, BPTT_DIGEST_SIZE = 33, BPTT_MAX_LAYERS = 8 };

/* Every choice field lists its words once, in the order of its enum. */
typedef enum { BPTT_CELL_RNN, BPTT_CELL_GRU, BPTT_CELL_LSTM } bptt_cell;
typedef enum { BPTT_TANH, BPTT_RELU, BPTT_SIGMOID, BPTT_IDENTITY } bptt_activation;
typedef enum { BPTT_F32, BPTT_F64 } bptt_dtype;
typedef enum { BPTT_CROSS_ENTROPY, BPTT_SQUARED_ERROR, BPTT_BINARY_CROSS_ENTROPY } bptt_loss;
typedef enum { BPTT_OUTPUT_IDENTITY, BPTT_OUTPUT_SIGMOID, BPTT_OUTPUT_TANH } bptt_output_activation;
typedef enum { BPTT_MEAN, BPTT_SUM } bptt_reduction;
typedef enum { BPTT_H0_ZERO, BPTT_H0_LEARNED, BPTT_H0_GIVEN } bptt_h0;
/* Which pairs of a loss and an earlier step a gradient keeps: see README. */
typedef enum { BPTT_TRUNCATION_CHUNK, BPTT_TRUNCATION_BLOCK, BPTT_TRUNCATION_UNIFORM } bptt_truncation_mode;
typedef enum { BPTT_UNROLL_AUTO, BPTT_UNROLL_TIME, BPTT_UNROLL_FULL, BPTT_UNROLL_NONE } bptt_unroll;
typedef enum { BPTT_SGD, BPTT_MOMENTUM, BPTT_ADAGRAD, BPTT_RMSPROP, BPTT_ADAM, BPTT_ADAMW } bptt_optimizer_kind;
typedef enum {
    BPTT_SCHEDULE_CONSTANT,
    BPTT_SCHEDULE_STEP,
    BPTT_SCHEDULE_EXPONENTIAL,
    BPTT_SCHEDULE_COSINE,
    BPTT_SCHEDULE_PLATEAU
} bptt_schedule_kind;
typedef enum { BPTT_UPDATE_CHUNK, BPTT_UPDATE_SEQUENCE } bptt_update_kind;
typedef enum { BPTT_CLIP_NONE, BPTT_CLIP_NORM, BPTT_CLIP_VALUE } bptt_clip_kind;
typedef enum {
    BPTT_INIT_SAME,
    BPTT_INIT_UNIFORM,
    BPTT_INIT_NORMAL,
    BPTT_INIT_XAVIER,
    BPTT_INIT_ORTHOGONAL,
    BPTT_INIT_IDENTITY
} bptt_init_kind;

/* Update rules, g = gradient after clipping, p = parameter, as PyTorch defines them:
 *   sgd       p -= rate g
 *   momentum  v = momentum v + g                             p -= rate v, with nesterov p -= rate (g + momentum v)
 *   adagrad   s = s + g g                                                            p -= rate g / (sqrt(s) + epsilon)
 *   rmsprop   s = decay s + (1 - decay) g g                                          p -= rate g / (sqrt(s) + epsilon)
 *   adam      m = beta1 m + (1 - beta1) g,  s = beta2 s + (1 - beta2) g g
 *             p -= rate (m / (1 - beta1^n)) / (sqrt(s / (1 - beta2^n)) + epsilon)    n = number of this update, from 1
 *   adamw     p = (1 - rate weight_decay) p, then as adam
 * In all but adamw, weight_decay w is that of an L2 penalty: g is the gradient after clipping + w p.  Biases decay too.
 */
typedef struct bptt_optimizer {
    bptt_optimizer_kind kind;
    double rate, momentum, decay, beta1, beta2, epsilon, weight_decay; /* those that the rule does not use are 0 */
    double nesterov;                                                   /* 1: yes */
} bptt_optimizer;

/* What the optimizer's rate is multiplied with, n = updates done before this one:
 *   n < warmup    (n + 1) / warmup, times plateau's factor; after that, n counted from the end of the warm-up:
 *   constant      1
 *   step          factor^(n / every rounded down)
 *   exponential   factor^n
 *   cosine        floor + (1 - floor) (1 + cos(pi n / steps)) / 2, and floor from n = steps on
 *   plateau       times factor after more than `patience` observed losses in a row that were not below (1 - threshold) best
 * PyTorch's StepLR, ExponentialLR, CosineAnnealingLR and ReduceLROnPlateau (relative threshold), counted in updates.
 */
typedef struct bptt_schedule {
    bptt_schedule_kind kind;
    double factor, every, steps, floor, patience, threshold, warmup; /* those that the rule does not use are 0 */
} bptt_schedule;

typedef struct bptt_clip {
    bptt_clip_kind kind;
    double limit; /* NORM: all gradients scaled by limit / norm when norm > limit.  VALUE: each cut to [-limit, limit] */
} bptt_clip;

/* The first weights; biases start at 0, or at what the cell's equations say.
 *   uniform      in [-scale, scale)
 *   normal       standard deviation `scale`
 *   xavier       uniform in [-b, b), b = scale sqrt(6 / (inputs + outputs)) of each matrix (Glorot and Bengio 2010)
 *   orthogonal   orthonormal rows, or columns where these are fewer, times scale: normal numbers by Gram-Schmidt (Saxe et al. 2014)
 *   identity     scale on the diagonal, else 0
 *   same         init_recurrent: as init
 */
typedef struct bptt_init {
    bptt_init_kind kind;
    double scale;
} bptt_init;

enum { BPTT_MAX_STRETCHES = 64 };

/* Steps of a sequence, in stretches of consecutive ones. */
typedef struct bptt_steps {
    enum { BPTT_STEPS_ALL, BPTT_STEPS_LAST, BPTT_STEPS_LIST } kind;
    int count; /* of stretches, when it is a list */
    struct {
        int32_t first, last; /* from 1 */
    } stretches[BPTT_MAX_STRETCHES];
} bptt_steps;

/* Probabilities that an element is dropped, 0: never.  Others are divided by 1 - p; evaluation and prediction drop nothing. */
typedef struct bptt_dropout {
    double input;   /* of the first layer's input, where that is a vector: reals or an embedding */
    double between; /* of what a layer gives the next one, as PyTorch's nn.RNN(dropout=) */
    double output;  /* of what the last layer gives the output layer */
} bptt_dropout;

typedef struct bptt_spec {
    char name[BPTT_NAME_MAX]; /* a C identifier, prefix of everything emitted */
    bptt_cell cell;           /* unless there are equations */
    char *equations;          /* of the spec's own cell, Lua text; NULL: none; owned */
    int equations_line;       /* where they begin in `source` */
    bptt_activation activation;
    int64_t hidden;                 /* H, hidden units; of the last layer */
    int64_t layers;                 /* 0 is 1 */
    int64_t sizes[BPTT_MAX_LAYERS]; /* hidden units of each layer, where they differ */
    int size_count;                 /* 0: every layer has `hidden` */
    int64_t vocab;                  /* V, token ids 0 .. V-1; 0: no tokens */
    int64_t inputs;                 /* D, reals of an input; 0: none */
    int64_t embedding;              /* E, a token becomes a row of so many reals; 0: it stays a one-hot vector */
    int64_t outputs;                /* Q, reals of a target; 0: targets are labels, tokens */
    int64_t T;                      /* steps of a sequence */
    int64_t K;                      /* truncation horizon, steps of a chunk, 1 <= K <= T */
    bptt_truncation_mode truncation;
    int64_t stride; /* BLOCK: steps from one run back to the next, 1 <= stride <= K; else 0 */
    int64_t batch;  /* B, sequences trained side by side */
    bptt_dtype dtype;
    bptt_loss loss;
    bptt_output_activation output_activation; /* g in the squared error of g(o) */
    bptt_steps loss_at;                       /* where there is an output and a loss */
    bool tie;                                 /* the embedding's table is the output layer's matrix too */
    double smoothing;                         /* of labels: their share that is spread over all of them, 0 <= smoothing < 1 */
    bptt_reduction reduction;
    bool carry;        /* the state goes on from sequence to sequence */
    bptt_h0 h0;        /* the state before a sequence: zero, a trained vector, or what the caller of the emitted code gives */
    bool resets;       /* documents start within sequences, where the reader says: the state before them is h_0 */
    int64_t separator; /* of documents: one more than the token that ends one; 0: none */
    bptt_dropout dropout;
    bptt_optimizer optimizer;
    bptt_schedule schedule;
    bptt_update_kind update; /* what an update follows: every chunk, or the last chunk of a sequence */
    int64_t accumulate;      /* so many chunks, or sequences, whose gradients are added up before an update */
    bptt_clip clip;
    bptt_init init;
    bptt_init init_recurrent; /* of square matrices that are multiplied by a state */
    double forget_bias;       /* what the biases of a forget gate start at, in cells that have one */
    uint64_t seed;
    bptt_unroll unroll;
    int64_t simd;      /* 32-bit lanes that the layout is padded and tiled for: 1, 4, 8, 16; 0 = this machine's */
    int64_t threads;   /* parts that the sequences of a batch and the sums over them are cut into, 1 <= threads <= B */
    int alphabet_size; /* 0: tokens are numbers; else V == alphabet_size and token i is the byte alphabet[i] */
    unsigned char alphabet[256];
    char digest[BPTT_DIGEST_SIZE]; /* 128-bit hash of the canonical text, hexadecimal */
    char *text;                    /* canonical text: a Lua spec with every field resolved, loads to this same spec; owned */
    char *source;                  /* path or name that messages begin with; owned */
    struct bptt_tuning *tuning;    /* tiles to use (compile.h), NULL: the plan's own; no field: not in text or digest; owned */
} bptt_spec;

/* One "key=value" of the command line; value is Lua's constant syntax or a bare word: hidden=64, cell=rnn, clip={norm=1}. */
typedef struct bptt_override {
    const char *key; /* need not end with NUL; `key_length` bytes */
    size_t key_length;
    const char *value; /* ends with NUL */
} bptt_override;

/* Reads, runs and checks the spec at `path` (bptt_spec_load) or in `text` (bptt_spec_parse; `source` names it in messages,
 * alphabet_of is refused there).  On success the caller owns *spec and frees it; on failure *spec needs no free.
 * Errors: "FILE:LINE: ..." BPTT_FAILED; an override at fault: BPTT_USAGE. */
bptt_status bptt_spec_load(const char *path, const bptt_override *overrides, size_t count, bptt_spec *spec, bptt_error *error);
bptt_status bptt_spec_parse(const char *text, size_t length, const char *source, const bptt_override *overrides, size_t count,
                            bptt_spec *spec, bptt_error *error);
void bptt_spec_free(bptt_spec *spec);

/* Steps of a chunk, which one call of a model takes: K; stride where blocks overlap; T where the horizon is uniform. */
int64_t bptt_spec_chunk(const bptt_spec *spec);
/* Hidden units of a layer, from 0. */
int64_t bptt_spec_width(const bptt_spec *spec, int64_t layer);
/* What a step of a sequence is given: a token or not, a label or not; beside these inputs and outputs say. */
bool bptt_spec_tokens(const bptt_spec *spec);
bool bptt_spec_labels(const bptt_spec *spec);
/* The stretches of steps with a loss, of T: first and last + 1, from 0.  Returns how many, 1 to BPTT_MAX_STRETCHES. */
int bptt_spec_loss_steps(const bptt_spec *spec, int64_t stretches[BPTT_MAX_STRETCHES][2]);
/* Sizes of x, as the cell sees it, and of o. */
int64_t bptt_spec_input_size(const bptt_spec *spec);
int64_t bptt_spec_output_size(const bptt_spec *spec);

/* Whether the state may become h_0 within a chunk, or h_0 is trained. */
bool bptt_spec_restarts(const bptt_spec *spec);

bool bptt_spec_drops(const bptt_spec *spec);

/* Recomputes `text` and `digest` after a caller in the program changed a field (evaluation sets batch = 1). */
bptt_status bptt_spec_seal(bptt_spec *spec, bptt_error *error);

/* What overrides would say of every field, a line "key=value" each; not of equations and an alphabet, which stand in the file.
 * Applied to the file that the spec came from, they give it again.  Owned by the caller; NULL: no memory. */
char *bptt_spec_overrides(const bptt_spec *spec);

/* The table of fields as help text, a line each: name, type, range, default, meaning. */
void bptt_spec_help(FILE *out);

/* Rate `i` of the rule that a field ("optimizer", "schedule") chose, as it would be written: its name and value; NULL: no more. */
const char *bptt_spec_rate(const bptt_spec *spec, const char *field, int i, double *value);

/* The word of a choice, e.g. bptt_spec_word("activation", BPTT_RELU) = "relu".  NULL for an unknown field or value. */
const char *bptt_spec_word(const char *field, int value);

#endif
