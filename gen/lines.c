/* lines.c: a tokenizer of Lua that finds assignments and functions.  See lines.h. */
#include "lines.h"

#include <stdbool.h>
#include <string.h>

typedef struct scanner {
    const char *at, *end;
    int line;
} scanner;

/* `kind`: 'n' name or keyword, 'd' number, 's' string (`span` is between the quotes), 'e' "==", 0 the end, else the character. */
typedef struct token {
    int kind;
    bptt_span span;
    int line;
} token;

static bool equal(bptt_span a, bptt_span b)
{
    return a.length == b.length && a.length > 0 && memcmp(a.start, b.start, a.length) == 0;
}

static bool is(const token *t, const char *word)
{
    return t->kind == 'n' && equal(t->span, (bptt_span){word, strlen(word)});
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* One character on; "\r\n" and "\n\r" are one line end, as in Lua. */
static void step(scanner *s)
{
    char c = *s->at++;
    if (c != '\n' && c != '\r') { return; }
    s->line++;
    if (s->at < s->end && (*s->at == '\n' || *s->at == '\r') && *s->at != c) { s->at++; }
}

/* At "[[" or "[==[": skips to the end of the long bracket.  Anything else: false. */
static bool skip_long(scanner *s)
{
    const char *p = s->at + 1;
    while (p < s->end && *p == '=') { p++; }
    if (s->at >= s->end || *s->at != '[' || p >= s->end || *p != '[') { return false; }
    ptrdiff_t level = p - s->at - 1;
    s->at = p + 1;
    while (s->at < s->end) {
        const char *q = s->at + 1;
        if (*s->at != ']') {
            step(s);
            continue;
        }
        while (q < s->end && *q == '=') { q++; }
        bool closed = q < s->end && *q == ']' && q - s->at - 1 == level;
        s->at = closed ? q + 1 : s->at + 1;
        if (closed) { break; }
    }
    return true;
}

static void skip_blanks(scanner *s)
{
    while (s->at < s->end) {
        if (s->end - s->at >= 2 && s->at[0] == '-' && s->at[1] == '-') {
            s->at += 2;
            if (s->at < s->end && skip_long(s)) { continue; }
            while (s->at < s->end && *s->at != '\n' && *s->at != '\r') { s->at++; }
        } else if (*s->at == ' ' || (*s->at >= '\t' && *s->at <= '\r')) {
            step(s);
        } else {
            return;
        }
    }
}

static token next(scanner *s)
{
    skip_blanks(s);
    token t = {.span = {s->at, 0}, .line = s->line};
    if (s->at >= s->end) { return t; }
    char c = *s->at;
    if (is_word(c)) {
        t.kind = c >= '0' && c <= '9' ? 'd' : 'n';
        while (s->at < s->end && (is_word(*s->at) || (t.kind == 'd' && *s->at == '.'))) { s->at++; }
        t.span.length = (size_t)(s->at - t.span.start);
    } else if (c == '"' || c == '\'') {
        t.kind = 's';
        t.span.start = ++s->at;
        while (s->at < s->end && *s->at != c) {
            if (*s->at == '\\' && s->at + 1 < s->end) { s->at++; }
            step(s);
        }
        t.span.length = (size_t)(s->at - t.span.start);
        s->at += s->at < s->end;
    } else if (c == '[' && skip_long(s)) {
        t.kind = 's'; /* as a key it would be a rarity: left unnamed */
    } else if (c == '=' && s->end - s->at >= 2 && s->at[1] == '=') {
        t.kind = 'e';
        s->at += 2;
    } else {
        t.kind = c == '\0' ? ' ' : c;
        s->at++;
    }
    return t;
}

/* A walk over the tokens that knows the three before the current one, the block and brace it is in, and the chunk's `return`. */
typedef struct walk {
    scanner s;
    token now, past[3]; /* past[0] is the last one */
    int blocks, braces;
    int return_line; /* 0: not yet */
} walk;

static bool advance(walk *w)
{
    w->past[2] = w->past[1];
    w->past[1] = w->past[0];
    w->past[0] = w->now;
    w->now = next(&w->s);
    const token *t = &w->now;
    if (is(t, "function") || is(t, "do") || is(t, "if") || is(t, "repeat")) {
        w->blocks++;
    } else if (is(t, "end") || is(t, "until")) {
        w->blocks--;
    } else if (t->kind == '{') {
        w->braces++;
    } else if (t->kind == '}') {
        w->braces--;
    } else if (is(t, "return") && w->blocks == 0) {
        w->return_line = t->line;
        w->braces = 0;
    }
    return t->kind != '\0';
}

/* At the "=" of `key =` or `["key"] =`: the line of the key, else 0. */
static int assigned(const walk *w, bptt_span key)
{
    const token *past = w->past;
    if (w->now.kind != '=') { return 0; }
    if (past[0].kind == 'n' && !is(&past[1], "local")) { return equal(past[0].span, key) ? past[0].line : 0; }
    bool bracketed = past[0].kind == ']' && past[1].kind == 's' && past[2].kind == '[';
    return bracketed && equal(past[1].span, key) ? past[1].line : 0;
}

/* The line of `part` in the braces that follow, else 0. */
static int line_in_braces(walk w, bptt_span part)
{
    if (!advance(&w) || w.now.kind != '{') { return 0; }
    int outside = w.braces - 1;
    while (advance(&w) && w.braces > outside) {
        int line = assigned(&w, part);
        if (line != 0) { return line; }
    }
    return 0;
}

int bptt_line_of(bptt_span text, bptt_span key, bptt_span part)
{
    walk w = {.s = {text.start, text.start + text.length, 1}};
    walk found = w;
    int line = 0;
    while (advance(&w)) {
        int here = assigned(&w, key);
        if (here == 0) { continue; }
        line = here;
        found = w;
        if (w.return_line != 0 && w.blocks == 0 && w.braces == 1) { break; }
    }
    if (line == 0) { return w.return_line != 0 ? w.return_line : w.past[0].kind != '\0' ? w.past[0].line : 1; }
    int inner = part.length > 0 ? line_in_braces(found, part) : 0;
    return inner != 0 ? inner : line;
}

/* ---- functions ---- */

/* A block that is still open. */
typedef struct block {
    bool is_function, has_parameters;
    int line, bracket_line, body_line; /* of `function`, of "(", behind ")" */
    const char *body;                  /* behind ")"; NULL: not there yet */
} block;

/* What comes between `function` and its equations. */
static void read_parameters(block *b, const token *t, const scanner *s)
{
    if (t->kind == '(') { b->bracket_line = t->line; }
    if (t->kind == ')') {
        b->body = s->at;
        b->body_line = s->line;
    } else if (t->kind != '(' && b->bracket_line > 0) {
        b->has_parameters = true;
    }
}

int bptt_functions_at(bptt_span text, int first, int last, bptt_span *body, int *line)
{
    enum { DEPTH = 256 }; /* Lua nests up to 200 */
    block open[DEPTH];
    scanner s = {text.start, text.start + text.length, 1};
    int depth = 0, count = 0;
    for (token t = next(&s); t.kind != 0 && depth < DEPTH; t = next(&s)) {
        block *top = depth > 0 ? &open[depth - 1] : NULL;
        if (top != NULL && top->is_function && top->body == NULL) {
            read_parameters(top, &t, &s);
        } else if (is(&t, "function") || is(&t, "do") || is(&t, "if") || is(&t, "repeat")) {
            open[depth++] = (block){.is_function = is(&t, "function"), .line = t.line};
        } else if (top != NULL && (is(&t, "end") || is(&t, "until"))) {
            depth--;
            const bool begins = top->line == first || top->bracket_line == first;
            if (!top->is_function || top->has_parameters || !begins || t.line != last) { continue; }
            *body = (bptt_span){top->body, (size_t)(t.span.start - top->body)};
            *line = top->body_line;
            count++;
        }
    }
    return count;
}
