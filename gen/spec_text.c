/* spec_text.c: a spec as text: canonical Lua, its digest, the help.  See spec.h.
 *
 * Walks the table of fields (fields.h).  Writes in the C locale whatever the program's is.  Depends on xxHash.
 */
#include "fields.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* `all`: with the fields that concern spelling alone. */
static void write_file(const bptt_spec *spec, bool all, FILE *out)
{
    (void)fputs("return {\n", out);
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        if ((field->spelling && !all) || (field->later && bptt_field_is_default(field, spec))) { continue; }
        (void)fprintf(out, "    %s = ", field->name);
        bptt_field_write(field, spec, out);
        (void)fputs(",\n", out);
    }
    (void)fputs("}\n", out);
}

static void write_text(const bptt_spec *spec, FILE *out)
{
    write_file(spec, true, out);
}

static void write_network(const bptt_spec *spec, FILE *out)
{
    write_file(spec, false, out);
}

static void write_overrides(const bptt_spec *spec, FILE *out)
{
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        if (field->kind == BPTT_KIND_CELL && spec->equations != NULL) { continue; }
        if (field->kind == BPTT_KIND_VOCAB && spec->alphabet_size > 0) { continue; }
        (void)fprintf(out, "%s=", field->name);
        bptt_field_write(field, spec, out);
        (void)fputc('\n', out);
    }
}

/* What `write` writes, in the C locale.  Owned by the caller; NULL: no memory. */
static char *compose(const bptt_spec *spec, void (*write)(const bptt_spec *spec, FILE *out), size_t *length)
{
    char *text = NULL;
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0) { return NULL; }
    FILE *out = open_memstream(&text, length);
    if (out == NULL) {
        freelocale(c);
        return NULL;
    }
    const locale_t outside = uselocale(c);
    write(spec, out);
    (void)uselocale(outside);
    freelocale(c);
    const bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

char *bptt_spec_overrides(const bptt_spec *spec)
{
    size_t length = 0;
    return compose(spec, write_overrides, &length);
}

static void hash(const char *text, size_t length, char digest[BPTT_DIGEST_SIZE])
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, XXH3_128bits(text, length));
    for (size_t i = 0; i < sizeof bytes.digest; i++) { (void)snprintf(digest + 2 * i, 3, "%02x", bytes.digest[i]); }
}

bptt_status bptt_spec_seal(bptt_spec *spec, bptt_error *error)
{
    size_t length = 0;
    size_t network_length = 0;
    if (spec->layers == 0) { spec->layers = 1; }
    if (spec->seed > INT64_MAX) {
        return bptt_fail(error, BPTT_FAILED, "seed = %llu: expected at most %lld", (unsigned long long)spec->seed,
                         (long long)INT64_MAX);
    }
    char *text = compose(spec, write_text, &length);
    char *network = compose(spec, write_network, &network_length);
    if (text == NULL || network == NULL) {
        free(text);
        free(network);
        return bptt_fail(error, BPTT_FAILED, "not enough memory");
    }
    free(spec->text);
    spec->text = text;
    hash(network, network_length, spec->digest);
    free(network);
    return BPTT_OK;
}

void bptt_spec_free(bptt_spec *spec)
{
    free(spec->text);
    free(spec->source);
    free(spec->tuning);
    free(spec->equations);
    spec->equations = NULL;
    spec->text = NULL;
    spec->source = NULL;
    spec->tuning = NULL;
}

void bptt_spec_help(FILE *out)
{
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        char what[512] = "";
        bptt_field_expect(field, what, sizeof what);
        (void)fprintf(out, "%-10s  %s: %s; ", field->name, field->help, what);
        (void)(field->fallback == NULL ? fprintf(out, "required\n") : fprintf(out, "default %s\n", field->fallback));
        bptt_rules_help(field, out);
    }
}

const char *bptt_spec_word(const char *name, int value)
{
    for (const bptt_field *field = bptt_fields; field->name != NULL; field++) {
        if (strcmp(field->name, name) != 0 || field->words == NULL || field->kind == BPTT_KIND_LANES) { continue; }
        for (int i = 0; field->words[i] != NULL; i++) {
            if (i + (field->kind == BPTT_KIND_SCALE ? field->min : 0) == value) { return field->words[i]; }
        }
    }
    return NULL;
}
