/* options.h: the command line of bptt: one table of commands, one of options.
 *
 * Parsing, ranges, "did you mean" and every help text come from the two tables in options.c.  A command is a function in its own
 * file.  Depends on spec.h (overrides), backend.h (its words) and data.h (what an unknown symbol is); prints nothing by itself.
 */
#ifndef BPTT_OPTIONS_H
#define BPTT_OPTIONS_H

#include "backend.h"
#include "data.h"

typedef struct bptt_command bptt_command;

/* What the command line said.  Text is borrowed from argv; a text that was not given is NULL. */
typedef struct bptt_options {
    const bptt_command *command;
    const char *operand; /* SPEC, CKPT or the topic of help; NULL: left out where that is allowed */
    const char *data, *valid, *weights, *out, *resume, *log, *prime, *dump;
    bptt_override *overrides; /* --set key=value in order, and --seed of commands that take a spec; owned */
    size_t override_count;
    bptt_override *maps; /* --map from=to in order; owned */
    size_t map_count;
    const char *spec;        /* --spec */
    int to;                  /* a bptt_export_format */
    int backend;             /* a bptt_backend */
    int tokens;              /* 0, 1, 2: u8, u16, u32 */
    int reals;               /* a bptt_reals_format */
    bptt_unknown unknown;    /* --unknown */
    unsigned char map;       /* the C of --unknown map=C */
    uint64_t steps, epochs;  /* 0: not given */
    double seconds;          /* 0: not given */
    double valid_fraction;   /* 0: not given */
    uint64_t valid_every;    /* 0: not given */
    double checkpoint_every; /* seconds; 0: at the end alone */
    uint64_t log_every;      /* steps that a line of the log stands for */
    uint64_t seed;           /* sample, check, bench */
    uint64_t count;          /* -n */
    double temperature;
    uint64_t top_k; /* 0: not given */
    bool json, quiet, suite;
    const char *rows;   /* of the suite: "tiny,default" */
    const char *plot;   /* prefix of pictures; NULL: none */
    uint64_t sequences; /* diagnose */
    bool tuned;         /* with the tiles that `bptt tune` measured */
    int argc;           /* the whole command line, to say how to go on */
    char **argv;
} bptt_options;

/* Every command: reads nothing but its options, prints its result to standard output, leaves errors to main.c. */
typedef bptt_status bptt_run(const bptt_options *options, bptt_error *error);

struct bptt_command {
    const char *name;
    const char *operand; /* "SPEC"; "[SPEC]" may be left out; NULL: none */
    const char *summary; /* one line */
    const char *notes;   /* further help, whole lines */
    bptt_run *run;
};

bptt_run bptt_command_gen, bptt_command_train, bptt_command_eval, bptt_command_sample, bptt_command_inspect, bptt_command_grad,
    bptt_command_check, bptt_command_diagnose, bptt_command_bench, bptt_command_tune, bptt_command_export, bptt_command_import,
    bptt_command_help, bptt_command_version;

/* Parses argv.  `--help`, `-h` and `--version` become the command help.  Errors: BPTT_USAGE; options->command is set as soon as it
 * is known, so that the message can name it.  Free in every case. */
bptt_status bptt_options_parse(int argc, char **argv, bptt_options *options, bptt_error *error);
void bptt_options_free(bptt_options *options);

/* Refuses to write what is read: --log, and `out`, which is --out or what stands in for it.  (A checkpoint may be resumed in place.) */
bptt_status bptt_options_files(const bptt_options *options, const char *out, bptt_error *error);
/* What data.h wants to know. */
bptt_data_options bptt_options_data(const bptt_options *options);
/* The operand (or --spec) as a spec: loads it with the overrides, and with its tuning for --tuned. */
bptt_status bptt_options_spec(const bptt_options *options, bptt_spec *spec, bptt_error *error);

#endif
