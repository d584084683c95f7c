/* fields.h: the table of a spec's fields, private to what reads a spec: spec*.c, fields.c, alphabet.c.
 *
 * A field is one row; a kind is one row of functions that read, write and describe a value.  Parsing, range checks, messages,
 * defaults, help and the canonical text all come from these two tables.  Depends on Lua, lines.h and spec.h.
 */
#ifndef BPTT_FIELDS_H
#define BPTT_FIELDS_H

#include "lines.h"
#include "sandbox.h"
#include "spec.h"

typedef enum {
    BPTT_KIND_NAME,
    BPTT_KIND_CHOICE,    /* one of `words`, kept as an enum */
    BPTT_KIND_CELL,      /* one of `words`, or a function: its equations are kept as text */
    BPTT_KIND_LANES,     /* one of `words`, kept as the number it spells, "auto" as 0 */
    BPTT_KIND_INTEGER,   /* min .. max */
    BPTT_KIND_SIZES,     /* an integer, or a list of them, one a layer */
    BPTT_KIND_BOOLEAN,   /**/
    BPTT_KIND_TOKEN,     /* an id, or a character of the alphabet; false: none; kept one higher, so that 0 is none */
    BPTT_KIND_VOCAB,     /* an integer, 0: none, or an alphabet */
    BPTT_KIND_STEPS,     /* one of `words`, or a list of integers, from 1 to T */
    BPTT_KIND_OPTIMIZER, /* one of `words`, or {word, name = number, ...}: a rule with its rates */
    BPTT_KIND_SCHEDULE,  /* the same */
    BPTT_KIND_NUMBER,    /* low .. high */
    BPTT_KIND_DROPOUT,   /* a number, or {input = number, between = number, output = number}, low .. high */
    BPTT_KIND_SCALE, /* {word = number}, low .. high; a first word "none" (or false) or "same" stands alone; `min`: its enum */
} bptt_kind;

typedef struct bptt_field {
    const char *name;
    bptt_kind kind;
    size_t offset; /* in bptt_spec */
    int64_t min, max;
    double low, high;
    const char *const *words; /* in enum order, ended by NULL */
    const char *fallback;     /* a Lua expression in which fields that are set are variables; NULL: the field is required */
    bool later;               /* is not written when it has its default: texts and digests from before it stay as they were */
    bool spelling;            /* concerns how code is spelled, not what is trained: not part of the digest */
    const char *help;
} bptt_field;

/* Ended by a row whose name is NULL; a field stands after those that its default names. */
extern const bptt_field bptt_fields[];
enum { BPTT_FIELD_COUNT = 38 };

/* A BPTT_KIND_TOKEN that is a character, until it is an id: this and its byte. */
static const int64_t BPTT_CHARACTERS = (int64_t)1 << 32;

/* The spec under way. */
typedef struct bptt_reader {
    bptt_spec *spec;
    const char *source; /* what messages on the file begin with */
    bptt_span text;     /* of the file, for line numbers */
    const bptt_field *field;
    const bptt_override *origins[BPTT_FIELD_COUNT]; /* the override that gives a field; NULL: the file or the default */
    bool given[BPTT_FIELD_COUNT];                   /* it has its value */
    bool defaulted[BPTT_FIELD_COUNT];               /* which is the default */
    bptt_status status;
    bptt_error *error;
} bptt_reader;

/* Fails with the message behind "FILE:LINE: " (the line of the reader's field and of `part` within it, a key or NULL) and
 * BPTT_FAILED, or behind "--set key=value: " and BPTT_USAGE. */
bptt_status bptt_reader_fail(bptt_reader *reader, const char *part, const char *format, ...) BPTT_PRINTF(3, 4);

/* Reads the value at `index` into the reader's field of the spec.  May raise: call it in the sandbox. */
bptt_status bptt_field_read(bptt_reader *reader, lua_State *L, int index);
/* Writes the field's value as Lua text, in the locale in force (make it C). */
void bptt_field_write(const bptt_field *field, const bptt_spec *spec, FILE *out);
/* Whether the value is the field's default, for defaults that are constants. */
bool bptt_field_is_default(const bptt_field *field, const bptt_spec *spec);
/* What the field accepts, as text. */
void bptt_field_expect(const bptt_field *field, char *text, size_t size);
/* The rules that a field chooses from and their rates, a line each; nothing for a field of another kind. */
void bptt_rules_help(const bptt_field *field, FILE *out);

/* Pushes the least key of the table (numbers first) for which `known` is false; false: there is none.  May raise. */
typedef bool bptt_key_test(const void *context, lua_State *L, int key);
bool bptt_push_stray_key(lua_State *L, int table, bptt_key_test *known, const void *context);
/* Position of the string at `index` among `words` (ended by NULL), or -1. */
int bptt_word_at(lua_State *L, int index, const char *const *words);
/* A value as it would be written in Lua, cut to fit, or "a table", "nothing", ... */
void bptt_describe(lua_State *L, int index, char *text, size_t size);
/* Appends bytes in quotes, other than printable ones as \ddd, cut to fit a message. */
void bptt_append_quoted(char *text, size_t size, char quote, const char *bytes, size_t length);
/* Appends to a text, cut at `size`. */
void bptt_append(char *text, size_t size, const char *format, ...) BPTT_PRINTF(3, 4);

/* The distinct bytes of `file`, which must lie in `folder` or below it, in rising order; returns how many. */
bptt_status bptt_alphabet_of(const char *folder, const char *file, unsigned char alphabet[256], int *size, bptt_error *error);

#endif
