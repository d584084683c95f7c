/* options.c: the tables of commands and options, and what derives from them: parsing, suggestions, help.  See options.h. */
#include "options.h"

#include "bench.h"
#include "export.h"
#include "safetensors.h"
#include "tuning.h"

#include "../gen/compile.h"
#include "../gen/suggest.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { GEN, TRAIN, EVAL, SAMPLE, INSPECT, GRAD, CHECK, DIAGNOSE, BENCH, TUNE, EXPORT, IMPORT, HELP, VERSION, COMMANDS };

static const bptt_command commands[COMMANDS] = {
    [GEN] =
        {"gen", "SPEC", "write NAME.c, NAME.h, NAME_main.c and a Makefile",
         "The files go to the folder DIR, which is made when it is missing.  NAME.c and NAME.h are replaced; an example or a\n"
         "Makefile that is there is kept.  With --dump nothing is written.\n",
         bptt_command_gen},
    [TRAIN] =
        {"train", "[SPEC]", "train on a file of tokens or reals",
         "A step is one update, with the chunks that it follows: one, unless the spec's update and accumulate say otherwise.\n"
         "--steps and --epochs are totals over all runs, --seconds is for this run; without any of them training ends after one\n"
         "epoch.  With --resume, SPEC may be left out; it is in the checkpoint.\n"
         "\n"
         "Ctrl-C (or SIGTERM) finishes the chunk, saves, says how to go on, and ends with status 130; a second one ends at\n"
         "once.  A loss or gradient that is not finite ends training with status 1 and leaves the last good checkpoint.\n"
         "\n"
         "Reals (a spec with inputs or outputs; --reals) are a row for each step: the token where the spec reads one, the\n"
         "inputs, then the label or the targets.  Without columns of targets they are the first Q inputs of the next row: a\n"
         "forecast.  A target that is nan counts for nothing.  A .npy of three dimensions is sequences, steps, columns; a file\n"
         "without sequences is read as one stream.\n"
         "\n"
         "The log has the columns step,epoch,tokens,seconds,loss,bits,grad_norm,clipped_norm,rate (the gradient's norm before "
         "and\n"
         "after clipping); a resumed run appends to it.\n"
         "\n"
         "When the gradient vanishes or explodes a line says so, once.  Windows of 100 steps are compared with the first one.\n"
         "Exploding: a tenth of the steps have over 100 times its norm, and over 1.  Vanishing: all have under a thousandth of\n"
         "it, or under 1e-7, while the loss is above half of what it was.  (1 and 1e-7: of the mean loss of a label.)\n"
         "\n"
         "--json prints one object: name, digest, backend, steps, epochs, tokens (totals), run_steps, run_tokens, seconds,\n"
         "tokens_per_second, loss, bits_per_character, loss_steps (training loss: mean per token of that many last steps),\n"
         "held_out (null, or an object as of bptt eval), checkpoint, stopped (\"limit\" or \"signal\").\n",
         bptt_command_train},
    [EVAL] =
        {"eval", "CKPT", "loss of a checkpoint on a file",
         "The file is read as one stream from h_0 (zero, unless it is learned); every token but the first is predicted once,\n"
         "where the spec has a loss.\n"
         "\n"
         "--json prints one object: tokens, loss (nats per token), bits_per_character, perplexity.\n",
         bptt_command_eval},
    [SAMPLE] =
        {"sample", "CKPT", "let a checkpoint write",
         "Prints the prime, then N symbols drawn one after the other.  Without --prime the state starts from a newline when\n"
         "there is one, else from a symbol drawn by the seed; neither is printed.  Models of up to 256 tokens write bytes\n"
         "(on a terminal, control characters show as '?'); larger ones write token ids, and take them as the prime.\n",
         bptt_command_sample},
    [INSPECT] = {"inspect", "SPEC|CKPT", "sizes and counts",
                 "--json prints one object: name, digest, parameters, struct_bytes, parts (name, bytes), flop_forward,\n"
                 "flop_backward, flop_update, bytes_moved, text_bytes, tensors (name, file, part of parts there, shape); of a\n"
                 "checkpoint also step, epoch, position, file_tensors (name, dtype, shape).\n",
                 bptt_command_inspect},
    [GRAD] = {"grad", "SPEC", "loss and gradients of the first chunk",
              "Starts from h_0 and the given weights, runs the first chunk of the file forward and backward, prints the\n"
              "loss and writes the unclipped gradients under the names and shapes of the weight file.\n",
              bptt_command_grad},
    [CHECK] = {"check", "SPEC", "compare the generated gradients with independent ones",
               "Prints a table; the status is 1 when a row does not match.\n", bptt_command_check},
    [DIAGNOSE] =
        {"diagnose", "SPEC|CKPT", "what happens to the gradient on its way back through time",
         "Runs the first sequences of T steps of the file, as one stream, through the step graph in double.  Reports |dL/dh_t|; "
         "the\n"
         "gradient of each loss by lag, |dL_s/dh_{s-lag}|; the spectral norm of products of recurrent Jacobians; saturated "
         "units;\n"
         "the effective memory horizon (the largest lag whose mean gradient is 1 % of the peak or more); gradient norms; the\n"
         "gradient truncated at K = 1, 2, 4 ... T, in the spec's mode of truncation, against the full one, and the smallest K\n"
         "that keeps a cosine of 0.95.\n"
         "\n"
         "The verdict is exploding when the gradient by lag peaks at over 10 times its start (or is not finite), vanishing when\n"
         "the memory horizon is under half of T, else healthy.  A CKPT brings its own weights; a SPEC without --weights has "
         "those\n"
         "of its seed.\n"
         "\n"
         "--json prints one object: name, digest, data, weights (null: initial), seed, hidden, steps, horizon, sequences, "
         "labels,\n"
         "loss, norm, norm_at_horizon, tensors (name, norm), state_norms, loss_steps, heat (a row a loss step, by lag), lags,\n"
         "memory, memory_1e, rate, jacobians (steps, norm, least, most, rate, windows, converged, iterations), truncation (the\n"
         "mode), stride (null: not with blocks), truncations (horizon, cosine, ratio, worst_cosine, worst), enough,\n"
         "activations (node, op, low, high, dead), verdict, reason, advice.\n",
         bptt_command_diagnose},
    [BENCH] =
        {"bench", "[SPEC]", "time the backends side by side, on SPEC or on the suite",
         "Without SPEC: the suite, from tiny nets to a vocabulary of words (tanh, f32, Adagrad, clip by norm, K = T), then\n"
         "cells gru and lstm, which generic has no loops for; it takes a minute or two, and --set holds for every row.  All\n"
         "backends must agree on loss and gradient of the first step before any is timed; their rounds alternate, and the\n"
         "median counts.\n"
         "\n"
         "The roofline is the time that a chunk needs at least: each call of a product, chain or update takes its counted FLOP\n"
         "at the multiply-add peak, or its bytes at the bandwidths (what L1 holds from L1, the next from L2, and so on),\n"
         "whichever is longer.  `of roof` and `reached` are the share of that speed.  The bound is far below what a net of a\n"
         "few vectors can reach: it knows no latency, and tanh, exp and square roots count as one FLOP.\n"
         "\n"
         "--json prints one object: name, peak_gflops, bandwidths (level, bytes, gb_per_s), rows (name, backend, cell, hidden,\n"
         "vocab, steps, horizon, batch, us_per_chunk, tokens_per_s, gflops, ratio_to_generic (null without generic),\n"
         "share_of_peak, roofline_us, share_of_roofline, compile_ms, code_bytes, cores that the process had meanwhile).\n",
         bptt_command_bench},
    [TUNE] =
        {"tune", "SPEC", "measure which register tiles are fastest on this machine",
         "Tries, product by product, the tiles that the plan's model thinks best, in whole steps of training on tcc, and keeps\n"
         "what is more than 1 % faster.  The choice goes to the cache, for specs of the same sizes on this kind of machine;\n"
         "gen, train and bench use it with --tuned.  A tile changes the order of sums: the last bits of a result may\n"
         "depend on it, so resume a training as it was begun, with --tuned or without.\n",
         bptt_command_tune},
    [EXPORT] =
        {"export", "CKPT", "write a checkpoint's weights for other programs",
         "Names and shapes are PyTorch's: rnn.weight_ih_l0, ..., out.weight, out.bias; the numbers are the checkpoint's to the\n"
         "bit.  A gate's one bias is written as bias_ih, its bias_hh is 0; a GRU's candidate has both.  safetensors and npz\n"
         "(numpy.load) are what bptt import reads.  c-header has an array for each tensor and, for programs that have\n"
         "included NAME.h before it, NAME_load(NAME *m), which fills the model that bptt gen emits.\n",
         bptt_command_export},
    [IMPORT] = {"import", "FILE", "make a checkpoint from weights of another program",
                "FILE is a safetensors or npz file of a PyTorch state_dict (nn.RNN, nn.GRU or nn.LSTM, then nn.Linear), or a\n"
                "checkpoint of another spec.  A layer's two biases are added up.  Modules that are not called rnn and out are\n"
                "recognised when just one fits; --map says which is which.  The new checkpoint is at step 0: moments and state\n"
                "are as at the start of a training, and train --resume takes it with any data.\n",
                bptt_command_import},
    [HELP] = {"help", "[COMMAND]", "this, one command's help, or the fields of a spec (bptt help spec)", "", bptt_command_help},
    [VERSION] = {"--version", NULL, "print the version", "", bptt_command_version},
};

#define C(command) (1u << (command))
#define WITH_SPEC  (C(GEN) | C(TRAIN) | C(INSPECT) | C(GRAD) | C(CHECK) | C(DIAGNOSE) | C(BENCH) | C(TUNE) | C(IMPORT))
#define WITH_DATA  (C(TRAIN) | C(EVAL) | C(GRAD) | C(DIAGNOSE))
#define WITH_MODEL (C(TRAIN) | C(EVAL) | C(SAMPLE) | C(GRAD))
#define FIELD(f)   offsetof(bptt_options, f)
#define MOST       HUGE_VAL /* no limit but the type's */

typedef enum { FLAG, TEXT, WHOLE, REAL, WORD, SET, SEED, MAP, UNKNOWN } option_kind;

typedef struct option {
    const char *name;  /* "--out" */
    const char *value; /* as help shows it; NULL: a flag */
    option_kind kind;
    unsigned of;  /* set of commands that take it */
    size_t field; /* in bptt_options */
    const char *help;
    const char *brief;        /* "-o"; NULL: none */
    unsigned required;        /* set of commands that insist on it */
    char group;               /* options of one group exclude each other; 0: none */
    double minimum, maximum;  /* of numbers */
    const char *const *words; /* of WORD */
    const char *fallback;     /* default, read as if it had been given; NULL: none */
} option;

static const char *const token_words[] = {"u8", "u16", "u32", NULL};

/* The last entries of a row are named; `.group = 0` is a row that has none to name. */
static const option options_table[] = {
    {"--data", "FILE", TEXT, WITH_DATA, FIELD(data), "the tokens, or rows of numbers", .required = WITH_DATA},
    {"--weights", "FILE", TEXT, C(GRAD), FIELD(weights), "parameters, a safetensors or npz file", .required = C(GRAD)},
    {"--weights", "CKPT", TEXT, C(DIAGNOSE), FIELD(weights), "parameters, a safetensors file (default: drawn from the seed)",
     .group = 0},
    {"--sequences", "N", WHOLE, C(DIAGNOSE), FIELD(sequences), "sequences to look at, fewer when the file is short", .minimum = 1,
     .maximum = 1e6, .fallback = "8"},
    {"--plot", "PREFIX", TEXT, C(DIAGNOSE), FIELD(plot), "write PREFIX-heat and PREFIX-curves, .svg and .png (needs gnuplot)",
     .group = 0},
    {"--out", "DIR", TEXT, C(GEN), FIELD(out), "folder to write to", .brief = "-o", .group = 'o'},
    {"--out", "FILE", TEXT, C(GRAD), FIELD(out), "gradients, a safetensors file to write", .brief = "-o", .required = C(GRAD)},
    {"--to", "FORMAT", WORD, C(EXPORT), FIELD(to), "what to write", .words = bptt_export_words, .required = C(EXPORT)},
    {"--out", "FILE", TEXT, C(EXPORT), FIELD(out), "file to write (default: NAME_weights.safetensors, .npz or .h here)",
     .brief = "-o"},
    {"--spec", "SPEC", TEXT, C(IMPORT), FIELD(spec), "the network that the weights are of", .required = C(IMPORT)},
    {"--out", "CKPT", TEXT, C(IMPORT), FIELD(out), "checkpoint to write", .brief = "-o", .required = C(IMPORT)},
    {"--map", "FROM=TO", MAP, C(IMPORT), 0, "read the module (or tensor) FROM of the file as TO: --map fc=out", .group = 0},
    {"--dump", "STAGE", TEXT, C(GEN), FIELD(dump), "print spec, graph, adjoint or plan instead", .group = 'o'},
    {"--steps", "N", WHOLE, C(TRAIN), FIELD(steps), "train until update N", .group = 'l', .minimum = 1, .maximum = MOST},
    {"--epochs", "N", WHOLE, C(TRAIN), FIELD(epochs), "or until the data was read N times", .group = 'l', .minimum = 1,
     .maximum = MOST},
    {"--seconds", "S", REAL, C(TRAIN), FIELD(seconds), "or for S seconds", .group = 'l', .minimum = 1e-3, .maximum = 1e9},
    {"--valid", "FILE", TEXT, C(TRAIN), FIELD(valid), "held-out data, evaluated at the end", .group = 'v'},
    {"--valid-fraction", "F", REAL, C(TRAIN), FIELD(valid_fraction), "or hold out the last F of the data", .group = 'v',
     .minimum = 1e-6, .maximum = 0.999999},
    {"--valid-every", "N", WHOLE, C(TRAIN), FIELD(valid_every),
     "updates from one look of a plateau schedule at it to the next (default: an epoch)", .minimum = 1, .maximum = MOST},
    {"--out", "CKPT", TEXT, C(TRAIN), FIELD(out), "checkpoint to write (default: the resumed one, or NAME.safetensors here)",
     .brief = "-o"},
    {"--resume", "CKPT", TEXT, C(TRAIN), FIELD(resume), "go on from a checkpoint, exactly", .group = 0},
    {"--checkpoint-every", "S", REAL, C(TRAIN), FIELD(checkpoint_every), "seconds from save to save, 0: at the end alone",
     .maximum = 1e9, .fallback = "60"},
    {"--log", "CSV", TEXT, C(TRAIN), FIELD(log), "log to write", .group = 0},
    {"--log-every", "N", WHOLE, C(TRAIN), FIELD(log_every),
     "a line of the log every N steps: their mean loss, the last norms and rate", .minimum = 1, .maximum = MOST, .fallback = "1"},
    {"--prime", "TEXT", TEXT, C(SAMPLE), FIELD(prime), "text to begin with", .group = 0},
    {"--count", "N", WHOLE, C(SAMPLE), FIELD(count), "symbols to draw", .brief = "-n", .maximum = MOST, .fallback = "300"},
    {"--temperature", "X", REAL, C(SAMPLE), FIELD(temperature), "0: always the likeliest", .maximum = 1e6, .fallback = "1"},
    {"--top-k", "K", WHOLE, C(SAMPLE), FIELD(top_k), "draw from the K likeliest alone", .minimum = 1, .maximum = MOST},
    {"--seed", "N", WHOLE, C(SAMPLE) | C(CHECK) | C(BENCH) | C(TUNE), FIELD(seed), "of what is drawn", .maximum = MOST,
     .fallback = "1"},
    {"--seconds", "S", REAL, C(BENCH), FIELD(seconds), "measure each backend for about S seconds a row", .minimum = 1e-3,
     .maximum = 1e4, .fallback = "1"},
    {"--seconds", "S", REAL, C(TUNE), FIELD(seconds), "measure for at most S seconds", .minimum = 1e-3, .maximum = 1e5,
     .fallback = "10"},
    {"--suite", NULL, FLAG, C(BENCH), FIELD(suite), "the suite, as without SPEC", .group = 0},
    {"--rows", "NAMES", TEXT, C(BENCH), FIELD(rows), "rows of the suite, with commas", .words = bptt_suite_words},
    {"--tuned", NULL, FLAG, C(GEN) | C(TRAIN) | C(BENCH), FIELD(tuned), "with the tiles that bptt tune measured", .group = 0},
    {"--backend", "WORD", WORD, C(TRAIN), FIELD(backend), "what runs the model", .words = bptt_backend_words, .fallback = "auto"},
    {"--backend", "WORD", WORD, WITH_MODEL & ~C(TRAIN), FIELD(backend), "what runs the model (auto: tcc)",
     .words = bptt_backend_words, .fallback = "tcc"},
    {"--tokens", "WORD", WORD, WITH_DATA, FIELD(tokens), "how a file holds a token", .words = token_words, .fallback = "u8"},
    {"--reals", "WORD", WORD, WITH_DATA, FIELD(reals), "how a file holds reals", .words = bptt_reals_words, .fallback = "auto"},
    {"--unknown", "RULE", UNKNOWN, WITH_MODEL | C(DIAGNOSE), 0,
     "a byte that is not in the alphabet: error, skip, or map=C to read it as C", .fallback = "error"},
    {"--seed", "N", SEED, C(GEN) | C(TRAIN) | C(INSPECT) | C(DIAGNOSE), 0, "short for --set seed=N", .group = 0},
    {"--set", "KEY=VALUE", SET, WITH_SPEC, 0, "set a field of the spec, as often as needed", .group = 0},
    {"--json", NULL, FLAG, C(TRAIN) | C(EVAL) | C(INSPECT) | C(CHECK) | C(DIAGNOSE) | C(BENCH), FIELD(json),
     "print one JSON object", .group = 0},
    {"--quiet", NULL, FLAG, C(TRAIN), FIELD(quiet), "no progress", .brief = "-q"},
};
enum { OPTIONS = sizeof options_table / sizeof *options_table };

/* ---- suggestions ---- */

static bptt_status unknown(bptt_error *error, const char *what, const char *given, size_t length, const char *best)
{
    int shown = length < 80 ? (int)length : 80;
    if (best == NULL) { return bptt_fail(error, BPTT_USAGE, "unknown %s '%.*s'", what, shown, given); }
    return bptt_fail(error, BPTT_USAGE, "unknown %s '%.*s' (did you mean '%s'?)", what, shown, given, best);
}

static const bptt_command *find_command(const char *name, bptt_error *error)
{
    bptt_suggestion near = {.word = name, .length = strlen(name)};
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) { return &commands[i]; }
        bptt_suggest(&near, commands[i].name);
    }
    (void)unknown(error, "command", name, strlen(name), near.best);
    return NULL;
}

static unsigned set_of(const bptt_command *command)
{
    return 1u << (unsigned)(command - commands);
}

/* `length` bytes of `name` are the option's name ("--steps" of "--steps=20"). */
static const option *find_option(const bptt_command *command, const char *name, size_t length, bptt_error *error)
{
    bptt_suggestion near = {.word = name, .length = length};
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &options_table[i];
        if ((o->of & set_of(command)) == 0) { continue; }
        if (strlen(o->name) == length && memcmp(o->name, name, length) == 0) { return o; }
        if (o->brief != NULL && strlen(o->brief) == length && memcmp(o->brief, name, length) == 0) { return o; }
        bptt_suggest(&near, o->name);
    }
    (void)unknown(error, "option", name, length, near.best);
    return NULL;
}

/* ---- values ---- */

static bptt_status out_of_range(const option *o, const char *kind, const char *text, bptt_error *error)
{
    if (o->maximum == MOST) {
        return bptt_fail(error, BPTT_USAGE, "%s takes a %s of at least %g, not '%s'", o->name, kind, o->minimum, text);
    }
    return bptt_fail(error, BPTT_USAGE, "%s takes a %s from %g to %g, not '%s'", o->name, kind, o->minimum, o->maximum, text);
}

static bptt_status read_whole(const option *o, const char *text, uint64_t *value, bptt_error *error)
{
    errno = 0;
    char *end = NULL;
    unsigned long long number = strtoull(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    if (!digits || (double)number < o->minimum || (double)number > o->maximum) {
        return out_of_range(o, "whole number", text, error);
    }
    *value = number;
    return BPTT_OK;
}

static bptt_status read_real(const option *o, const char *text, double *value, bptt_error *error)
{
    char *end = NULL;
    double number = strtod(text, &end);
    bool plain = text[0] != '\0' && strspn(text, "0123456789.eE+-") == strlen(text) && *end == '\0';
    /* Negated, so that a NaN does not pass. */
    if (!plain || !(number >= o->minimum && number <= o->maximum)) { return out_of_range(o, "number", text, error); }
    *value = number;
    return BPTT_OK;
}

static bptt_status read_word(const option *o, const char *text, int *value, bptt_error *error)
{
    char all[128] = "";
    for (int i = 0; o->words[i] != NULL; i++) {
        if (strcmp(o->words[i], text) == 0) {
            *value = i;
            return BPTT_OK;
        }
        size_t used = strlen(all);
        (void)snprintf(all + used, sizeof all - used, "%s%s", i == 0 ? "" : ", ", o->words[i]);
    }
    return bptt_fail(error, BPTT_USAGE, "%s takes one of %s, not '%s'", o->name, all, text);
}

static bptt_status read_unknown(const char *text, bptt_options *options, bptt_error *error)
{
    if (strcmp(text, "error") == 0) {
        options->unknown = BPTT_UNKNOWN_ERROR;
    } else if (strcmp(text, "skip") == 0) {
        options->unknown = BPTT_UNKNOWN_SKIP;
    } else if (strncmp(text, "map=", 4) == 0 && strlen(text) == 5) {
        options->unknown = BPTT_UNKNOWN_MAP;
        options->map = (unsigned char)text[4];
    } else {
        return bptt_fail(error, BPTT_USAGE, "--unknown takes error, skip or map=C with one byte C, not '%s'", text);
    }
    return BPTT_OK;
}

/* LEFT=RIGHT, neither of them empty but RIGHT when `blank`. */
static bptt_status read_pair(const option *o, const char *text, bool blank, bptt_override *pair, bptt_error *error)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || (!blank && equals[1] == '\0')) {
        return bptt_fail(error, BPTT_USAGE, "%s takes %s, not '%s'", o->name, o->value, text);
    }
    *pair = (bptt_override){text, (size_t)(equals - text), equals + 1};
    return BPTT_OK;
}

static bptt_status read_value(const option *o, const char *text, bptt_options *options, bptt_error *error)
{
    void *field = (char *)options + o->field;
    switch (o->kind) {
    case FLAG:
        *(bool *)field = true;
        return BPTT_OK;
    case TEXT:
        if (text[0] == '\0') { return bptt_fail(error, BPTT_USAGE, "%s takes a value that is not empty", o->name); }
        *(const char **)field = text;
        return BPTT_OK;
    case WHOLE:
        return read_whole(o, text, field, error);
    case REAL:
        return read_real(o, text, field, error);
    case WORD:
        return read_word(o, text, field, error);
    /* The arrays have room: one place for each word of the command line. */
    case SET:
        return read_pair(o, text, true, &options->overrides[options->override_count++], error);
    case SEED:
        options->overrides[options->override_count++] = (bptt_override){"seed", 4, text};
        return BPTT_OK;
    case MAP:
        return read_pair(o, text, false, &options->maps[options->map_count++], error);
    case UNKNOWN:
        return read_unknown(text, options, error);
    }
    return BPTT_OK;
}

/* ---- parsing ---- */

static bptt_status defaults(bptt_options *options, bptt_error *error)
{
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &options_table[i];
        if (o->fallback == NULL || (o->of & set_of(options->command)) == 0) { continue; }
        bptt_status status = read_value(o, o->fallback, options, error);
        if (status != BPTT_OK) { return status; }
    }
    return BPTT_OK;
}

/* One option at argv[*i]; moves *i over its value. */
static bptt_status parse_option(char **argv, int argc, int *i, bptt_options *options, bool *given, bptt_error *error)
{
    const char *word = argv[*i];
    size_t length = word[1] == '-' ? strcspn(word, "=") : strlen(word);
    const option *o = find_option(options->command, word, length, error);
    if (o == NULL) { return BPTT_USAGE; }
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (o->kind == FLAG && value != NULL) { return bptt_fail(error, BPTT_USAGE, "%s takes no value", o->name); }
    if (o->kind != FLAG && value == NULL) {
        if (*i + 1 >= argc) { return bptt_fail(error, BPTT_USAGE, "%s needs a value, %s", o->name, o->value); }
        value = argv[++*i];
    }
    given[o - options_table] = true;
    return read_value(o, value, options, error);
}

static bool same_file(const char *a, const char *b)
{
    struct stat first, second;
    if (a == NULL || b == NULL) { return false; }
    if (strcmp(a, b) == 0) { return true; }
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bptt_status bptt_options_files(const bptt_options *options, const char *out, bptt_error *error)
{
    const char *const outputs[] = {out, options->log};
    const char *const inputs[] = {options->operand, options->data, options->valid, options->weights, options->spec};
    const size_t count = sizeof inputs / sizeof *inputs;
    for (size_t o = 0; o < 2; o++) {
        const char *word = o == 0 ? "--out" : "--log";
        for (size_t i = 0; i < count && outputs[o] != NULL; i++) {
            if (same_file(outputs[o], inputs[i])) {
                return bptt_fail(error, BPTT_USAGE, "%s %s: the same file is read", word, outputs[o]);
            }
        }
    }
    if (same_file(options->log, out) || same_file(options->log, options->resume)) {
        return bptt_fail(error, BPTT_USAGE, "--log %s: the checkpoint is written there", options->log);
    }
    return BPTT_OK;
}

/* What must be there, and what excludes each other. */
static bptt_status check_given(const bptt_options *options, const bool *given, bptt_error *error)
{
    const char *operand = options->command->operand;
    if (operand != NULL && operand[0] != '[' && options->operand == NULL) {
        return bptt_fail(error, BPTT_USAGE, "%s is missing", operand);
    }
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &options_table[i];
        if ((o->required & set_of(options->command)) != 0 && !given[i]) {
            return bptt_fail(error, BPTT_USAGE, "%s %s is missing", o->name, o->value);
        }
        for (int j = 0; j < i && o->group != 0 && given[i]; j++) {
            if (given[j] && options_table[j].group == o->group) {
                return bptt_fail(error, BPTT_USAGE, "%s and %s exclude each other", options_table[j].name, o->name);
            }
        }
    }
    return BPTT_OK;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bptt_status parse_words(int argc, char **argv, bptt_options *options, bptt_error *error)
{
    bool given[OPTIONS] = {false};
    bool only_operands = false;
    for (int i = 2; i < argc; i++) {
        bptt_status status = BPTT_OK;
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (!only_operands && is_help(argv[i])) {
            options->operand = options->command->name;
            options->command = &commands[HELP];
            return BPTT_OK;
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0') {
            status = parse_option(argv, argc, &i, options, given, error);
        } else if (options->operand != NULL || options->command->operand == NULL) {
            status = bptt_fail(error, BPTT_USAGE, "unexpected '%s'", argv[i]);
        } else {
            options->operand = argv[i];
        }
        if (status != BPTT_OK) { return status; }
    }
    bptt_status status = check_given(options, given, error);
    return status == BPTT_OK ? bptt_options_files(options, options->out, error) : status;
}

bptt_status bptt_options_parse(int argc, char **argv, bptt_options *options, bptt_error *error)
{
    *options = (bptt_options){.argc = argc, .argv = argv};
    if (argc < 2) { return bptt_fail(error, BPTT_USAGE, "no command given"); }
    options->command = is_help(argv[1]) ? &commands[HELP] : find_command(argv[1], error);
    if (options->command == NULL) { return BPTT_USAGE; }
    options->overrides = calloc((size_t)argc, sizeof *options->overrides);
    options->maps = calloc((size_t)argc, sizeof *options->maps);
    if (options->overrides == NULL || options->maps == NULL) {
        return bptt_fail(error, BPTT_FAILED, "no memory for the command line");
    }
    bptt_status status = defaults(options, error);
    if (status == BPTT_OK) { status = parse_words(argc, argv, options, error); }
    /* Training alone lasts long enough to wait for the compiler that auto starts beside tcc. */
    if (options->command->run != bptt_command_train && options->backend == BPTT_BACKEND_AUTO) {
        options->backend = BPTT_BACKEND_TCC;
    }
    return status;
}

void bptt_options_free(bptt_options *options)
{
    free(options->overrides);
    free(options->maps);
    *options = (bptt_options){0};
}

/* ---- what commands ask ---- */

bptt_data_options bptt_options_data(const bptt_options *options)
{
    return (bptt_data_options){.token_bytes = 1 << options->tokens,
                               .unknown = options->unknown,
                               .map = options->map,
                               .reals = (bptt_reals_format)options->reals};
}

bptt_status bptt_options_spec(const bptt_options *options, bptt_spec *spec, bptt_error *error)
{
    const char *path = options->spec != NULL ? options->spec : options->operand;
    if (bptt_st_like(path)) { return bptt_fail(error, BPTT_FAILED, "%s: is a checkpoint; expected a spec", path); }
    bptt_status status = bptt_spec_load(path, options->overrides, options->override_count, spec, error);
    return status == BPTT_OK && options->tuned ? bptt_tuning_load(spec, error) : status;
}

/* ---- help ---- */

static void print_overview(void)
{
    printf("bptt " BPTT_VERSION ": compiles a Lua spec of a recurrent network to C that trains it\n\nusage:\n");
    for (int i = 0; i < COMMANDS; i++) {
        const bptt_command *c = &commands[i];
        char usage[48];
        (void)snprintf(usage, sizeof usage, "%s %s", c->name, c->operand == NULL ? "" : c->operand);
        printf("  bptt %-18s  %s\n", usage, c->summary);
    }
    printf("\nOptions of a command: bptt help COMMAND.  Status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.\n");
}

static void print_option(const option *o)
{
    char left[64];
    (void)snprintf(left, sizeof left, "%s%s%s%s%s", o->name, o->brief == NULL ? "" : ", ", o->brief == NULL ? "" : o->brief,
                   o->value == NULL ? "" : " ", o->value == NULL ? "" : o->value);
    printf("  %-24s  %s", left, o->help);
    for (int i = 0; o->words != NULL && o->words[i] != NULL; i++) { printf("%s%s", i == 0 ? ": " : ", ", o->words[i]); }
    if (o->fallback != NULL) { printf(" (default %s)", o->fallback); }
    printf("\n");
}

static void print_command(const bptt_command *command)
{
    unsigned set = set_of(command);
    printf("bptt %s%s%s", command->name, command->operand == NULL ? "" : " ", command->operand == NULL ? "" : command->operand);
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &options_table[i];
        if ((o->required & set) != 0) { printf(" %s %s", o->name, o->value); }
    }
    printf(" [options]\n%s\n\n", command->summary);
    for (int i = 0; i < OPTIONS; i++) {
        if ((options_table[i].of & set) != 0) { print_option(&options_table[i]); }
    }
    printf("%s%s", command->notes[0] == '\0' ? "" : "\n", command->notes);
}

bptt_status bptt_command_help(const bptt_options *options, bptt_error *error)
{
    if (options->operand == NULL) {
        print_overview();
        return BPTT_OK;
    }
    if (strcmp(options->operand, "spec") == 0) {
        bptt_spec_help(stdout);
        return BPTT_OK;
    }
    const bptt_command *command = find_command(options->operand, error);
    if (command == NULL) { return BPTT_USAGE; }
    print_command(command);
    return BPTT_OK;
}

bptt_status bptt_command_version(const bptt_options *options, bptt_error *error)
{
    (void)options;
    (void)error;
    printf("bptt " BPTT_VERSION "\n");
    return BPTT_OK;
}
