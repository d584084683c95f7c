/* json.c: see json.h. */
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* Bytes of the UTF-8 character at c; 0: there is none (RFC 3629: no surrogates, nothing too long, nothing above U+10FFFF). */
static size_t character_length(const unsigned char *c)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte, of the second */
        size_t length;
    } forms[] = {{0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (c[0] < forms[i].first || c[0] > forms[i].last) { continue; }
        for (size_t k = 1; k < forms[i].length; k++) {
            if (c[k] < (k == 1 ? forms[i].low : 0x80) || c[k] > (k == 1 ? forms[i].high : 0xbf)) { return 0; }
        }
        return forms[i].length;
    }
    return 0;
}

/* A path may have any bytes; those that are no UTF-8 come as U+FFFD. */
static void print_string(const char *text)
{
    putchar('"');
    for (const char *c = text; *c != '\0'; c++) {
        const size_t length = character_length((const unsigned char *)c);
        if (length != 1) {
            printf("%.*s", length > 0 ? (int)length : 6, length > 0 ? c : "\\ufffd");
            c += length > 0 ? length - 1 : 0;
        } else if (*c == '"' || *c == '\\') {
            printf("\\%c", *c);
        } else if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            printf("\\u%04x", (unsigned)*c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

static void begin_value(bptt_json *json, const char *key)
{
    if (json->comma) { printf(", "); }
    json->comma = true;
    if (key != NULL) {
        print_string(key);
        printf(": ");
    }
}

void bptt_json_open(bptt_json *json, const char *key, char bracket)
{
    begin_value(json, key);
    putchar(bracket);
    json->depth++;
    json->comma = false;
}

void bptt_json_close(bptt_json *json, char bracket)
{
    putchar(bracket);
    json->comma = true;
    if (--json->depth == 0) { putchar('\n'); }
}

void bptt_json_real(bptt_json *json, const char *key, double value)
{
    begin_value(json, key);
    if (isfinite(value)) {
        printf("%.17g", value);
    } else {
        printf("null");
    }
}

void bptt_json_whole(bptt_json *json, const char *key, uint64_t value)
{
    begin_value(json, key);
    printf("%" PRIu64, value);
}

void bptt_json_text(bptt_json *json, const char *key, const char *value)
{
    begin_value(json, key);
    if (value == NULL) {
        printf("null");
    } else {
        print_string(value);
    }
}
