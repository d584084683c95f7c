/* json.c: see json.h. */
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static void print_string(const char *text)
{
    putchar('"');
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
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
