/* test_emitted.c: the emitted text as compilers see it: what it needs, names, warnings, C++, symbols.
 *
 * What programs made of it do is test_programs.c's matter.
 */
#include "emitted.h"

#include "../gen/fields.h"
#include "../gen/names.h"

#include <strings.h>

START_TEST(test_table_is_complete)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {{"optimizer", offsetof(bptt_spec, optimizer.kind)},
                  {"clip", offsetof(bptt_spec, clip.kind)},
                  {"init", offsetof(bptt_spec, init.kind)},
                  {"reduction", offsetof(bptt_spec, reduction)},
                  {"dtype", offsetof(bptt_spec, dtype)},
                  {"activation", offsetof(bptt_spec, activation)},
                  {"unroll", offsetof(bptt_spec, unroll)},
                  {"cell", offsetof(bptt_spec, cell)},
                  {"loss", offsetof(bptt_spec, loss)},
                  {"h0", offsetof(bptt_spec, h0)},
                  {"output_activation", offsetof(bptt_spec, output_activation)}};
    unsigned seen[sizeof fields / sizeof fields[0]] = {0}, widths = 0, carry = 0;
    EACH(i, models)
    {
        bptt_spec spec = spec_of("net", models[i]);
        EACH(k, fields)
        {
            int value;
            memcpy(&value, (const char *)&spec + fields[k].offset, sizeof value);
            seen[k] |= 1u << value;
        }
        widths |= 1u << spec.simd;
        carry |= 1u << spec.carry;
        bptt_spec_free(&spec);
    }
    EACH(k, fields)
    {
        for (int value = 0; bptt_spec_word(fields[k].name, value) != NULL; value++) {
            ck_assert_msg(seen[k] >> value & 1, "no model with %s = %s", fields[k].name, bptt_spec_word(fields[k].name, value));
        }
        ck_assert_uint_ne(seen[k], 0);
    }
    ck_assert_uint_eq(widths, 1u << 0 | 1u << 1 | 1u << 4 | 1u << 8 | 1u << 16);
    ck_assert_uint_eq(carry, 3);
}
END_TEST

/* --- the text ------------------------------------------------------------------------------------------------------------------- */

/* Every line that begins with #include names one of these. */
static void check_includes(const char *text)
{
    static const char *const allowed[] = {"<stdint.h>", "<stddef.h>", "<string.h>", "<math.h>", "\"net.h\""};
    for (const char *at = strstr(text, "#include"); at != NULL; at = strstr(at, "#include")) {
        bool found = false;
        at += strlen("#include ");
        EACH(i, allowed)
        {
            found = found || strncmp(at, allowed[i], strlen(allowed[i])) == 0;
        }
        ck_assert_msg(found, "#include %.30s", at);
    }
}

START_TEST(test_text_needs_little)
{
    static const char *const refused[] = {"alloc(", "free(", "printf",   "FILE", "errno", "exit(",
                                          "abort(", "goto ", "__DATE__", "/tmp", "/home", "long double"};
    EACH(i, models)
    {
        bptt_unit unit = unit_of("net", models[i]), again = unit_of("net", models[i]);
        check_includes(unit.header);
        check_includes(unit.source);
        EACH(k, refused)
        {
            ck_assert_msg(strstr(unit.header, refused[k]) == NULL, "%s in the header", refused[k]);
            ck_assert_msg(strstr(unit.source, refused[k]) == NULL, "%s in the source", refused[k]);
        }
        ck_assert_ptr_nonnull(strstr(unit.source, "typedef char net_size_is_as_planned[sizeof(net) == "));
        ck_assert_str_eq(unit.header, again.header);
        ck_assert_str_eq(unit.source, again.source);
        ck_assert_str_eq(unit.example, again.example);
        ck_assert_str_eq(unit.makefile, again.makefile);
        bptt_unit_free(&unit);
        bptt_unit_free(&again);
    }
}
END_TEST

/* --- names ---------------------------------------------------------------------------------------------------------------------- */

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"

static void assert_taken(const char *word, size_t length, const char *own)
{
    if (length >= strlen(own) && strncasecmp(word, own, strlen(own)) == 0) { return; }
    ck_assert_msg(bptt_name_fault(word, length) != NULL, "a model may be called %.*s: %.60s", (int)length, word, word);
}

/* A copy without comments, strings and directives, each as long as it was; macros have names that are taken.  Free it. */
static char *bare_text(const char *text, const char *own)
{
    char *copy = strdup(text);
    ck_assert_ptr_nonnull(copy);
    for (char *c = copy; *c != '\0'; c++) {
        char *end = c;
        if (strncmp(c, "extern \"C\" {", 12) == 0) {
            end = c + 12;
        } else if (strncmp(c, "/*", 2) == 0) {
            end = strstr(c, "*/") + 2;
        } else if (*c == '"' || *c == '\'') {
            for (end = c + 1; *end != *c; end++) { end += *end == '\\'; }
            end++;
        } else if (*c == '#') {
            if (strncmp(c, "#define ", 8) == 0) { assert_taken(c + 8, strspn(c + 8, LETTERS "0123456789"), own); }
            for (end = c; *end != '\n' || end[-1] == '\\'; end++) {}
        }
        if (end > c) { memset(c, ' ', (size_t)(end - c)); }
    }
    return copy;
}

/* The next identifier from `c` on, before `end`; NULL: none.  Members of structs are none. */
static const char *next_word(const char *c, const char *end, size_t *length)
{
    while (c < end) {
        const bool member = *c == '.' || strncmp(c, "->", 2) == 0;
        c += member ? strspn(c, ".->") : 0;
        *length = strspn(c, LETTERS "0123456789");
        if (!member && *length > 0 && strchr(LETTERS, *c) != NULL) { return c; }
        c += *length > 0 ? *length : 1;
    }
    return NULL;
}

static void assert_all_taken(const char *from, const char *to, const char *own)
{
    size_t length = 0;
    for (const char *c = next_word(from, to, &length); c != NULL; c = next_word(c + length, to, &length)) {
        assert_taken(c, length, own);
    }
}

/* Where `own` is the last time between two places; NULL: nowhere. */
static const char *last_use(const char *from, const char *to, const char *own)
{
    size_t length = 0;
    const char *last = NULL;
    for (const char *c = next_word(from, to, &length); c != NULL; c = next_word(c + length, to, &length)) {
        if (length == strlen(own) && memcmp(c, own, length) == 0) { last = c; }
    }
    return last;
}

/* Nobody may give a model a name that the text declares for a whole file, or in a function before it uses the model's type. */
static void check_taken(const char *text, const char *own)
{
    char *copy = bare_text(text, own);
    const char *start = copy, *open = copy;
    int depth = 0;
    for (const char *c = copy; *c != '\0'; c++) {
        if (*c == '{' && depth++ == 0) { open = c; }
        if (*c == '}' && depth > 0) { depth--; }
        if (depth > 0 || (*c != '}' && *c != ';')) { continue; }
        const bool block = *c == '}' && open >= start; /* else the end of extern "C" */
        const char *head = block ? open : c, *bracket = memchr(start, '(', (size_t)(head - start));
        assert_all_taken(start, bracket != NULL ? bracket : head, own);
        const char *use = block && bracket != NULL ? last_use(open, c, own) : NULL;
        if (use != NULL) { assert_all_taken(start, use, own); }
        if (block && strncmp(start + strspn(start, " \n"), "enum ", 5) == 0) { assert_all_taken(open, c, own); }
        start = c + 1;
    }
    free(copy);
}

START_TEST(test_names_are_taken)
{
    EACH(i, models)
    {
        bptt_unit unit = unit_of("net", models[i]);
        check_taken(unit.header, "net");
        check_taken(unit.source, "net");
        check_taken(unit.example, "net");
        bptt_unit_free(&unit);
    }
}
END_TEST

/* A spec whose cell has eight names of the text's own: two matrices, a vector, a state, a matrix, two values and the first state. */
static void compile_names(char *compiler, const char *fields, char *const *names)
{
    static const char *const places = "ABCDEFGH";
    static const char cell[] =
        "cell = function() H, D = state(hidden), state(hidden) "
        "A, B, C, E = matrix(hidden, input), matrix(hidden, hidden), vector(hidden), matrix(hidden, hidden) "
        "F = A * x + B * H + C + D G = sigmoid(F) D = tanh(E * G) H = tanh(F) * G + D end, ";
    char text[1500] = "", *to = text;
    for (const char *c = cell; *c != '\0'; c++) {
        const char *place = strchr(places, *c);
        to += snprintf(to, sizeof text - (size_t)(to - text), "%.*s", place != NULL ? 40 : 1,
                       place != NULL ? names[place - places] : c);
    }
    (void)snprintf(to, sizeof text - (size_t)(to - text), "%s", fields);
    emit("net", text);
    COMPILE(compiler, STRICT " -fsyntax-only", in_folder("net.c"));
}

/* Adds the words of a text to `words`, each once, unless the equations of a cell have another use for them. */
static size_t collect_words(const char *text, char (*words)[64], size_t count, size_t room)
{
    static const char used[] = " x hidden input net NET and end for if in true while break do else return goto tanh exp log sqrt "
                               "max min abs sigmoid softmax cross_entropy state W_hy b_y o ";
    char spaced[66];
    size_t length = 0;
    const char *const end = text + strlen(text);
    for (const char *c = next_word(text, end, &length); c != NULL; c = next_word(c + length, end, &length)) {
        (void)snprintf(spaced, sizeof spaced, " %.*s ", (int)length, c);
        bool known = length > 21 || *c == '_' || strstr(used, spaced) != NULL || strncasecmp(c, "net_", 4) == 0;
        for (size_t i = 0; i < count && !known; i++) { known = strlen(words[i]) == length && memcmp(words[i], c, length) == 0; }
        if (known) { continue; }
        ck_assert_uint_lt(count, room);
        (void)snprintf(words[count++], sizeof *words, "%.*s", (int)length, c);
    }
    return count;
}

START_TEST(test_values_may_have_any_name)
{
    static const char *const ways[] = {
        "hidden = 5, vocab = 7, T = 5, K = 3, batch = 2, truncation = 'block', stride = 2, dropout = 0.25, unroll = 'none'",
        "hidden = 5, vocab = 7, T = 5, K = 3, batch = 3, threads = 2, resets = true, h0 = 'learned', unroll = 'time', loss_at = "
        "{2}",
        "hidden = 3, vocab = 4, T = 3, unroll = 'full'",
        "hidden = 5, inputs = 2, outputs = 3, T = 5, K = 3, truncation = 'uniform', carry = false, unroll = 'none'",
    };
    static const char of_c[] =
        "asm typeof unix linux typedef unsigned const inline restrict bptt bptt_add NAN carry_state window";
    enum { ROOM = 1000, NAMES = 8 };
    static char words[ROOM][64];
    bptt_unit unit = unit_of("net", ways[_i]);
    const char *own = strstr(unit.source, "/* --- the steps of the network");
    ck_assert_ptr_nonnull(own);
    char *copy = bare_text(own, "net");
    size_t count = collect_words(of_c, words, collect_words(copy, words, 0, ROOM), ROOM);
    ck_assert_uint_gt(count, 100);
    for (; count % NAMES != 0; count++) { (void)snprintf(words[count], sizeof *words, "more%zu", count % NAMES); }
    char *compiler = c_compiler(0);
    for (size_t i = 0; i < count; i += NAMES) {
        char *names[NAMES];
        for (size_t n = 0; n < NAMES; n++) { names[n] = words[i + (n + (size_t)_i * 2) % NAMES]; }
        compile_names(compiler, ways[_i], names);
    }
    free(copy);
    bptt_unit_free(&unit);
}
END_TEST

/* --- warnings ------------------------------------------------------------------------------------------------------------------- */

static void compile_model(char *compiler, const char *flags)
{
    COMPILE(compiler, flags, "-o", in_folder("net.o"), in_folder("net.c"));
    COMPILE(compiler, flags, "-o", in_folder("net_main.o"), in_folder("net_main.c"));
}

START_TEST(test_no_warning)
{
    char *compiler = c_compiler(_i);
    for (size_t i = 0; i < MODELS && compiler != NULL; i++) {
        emit("net", models[i]);
        compile_model(compiler, STRICT " -O0 -c");
        if (i == 0 || i == 2 || i == 4) {
            compile_model(compiler, STRICT " -O2 -c");
            compile_model(compiler, STRICT " -O3 -march=native -c");
        }
    }
}
END_TEST

/* The header alone, first in a C++ file. */
START_TEST(test_header_in_cxx)
{
    static const char *const compilers[] = {"g++", "clang++"};
    char *compiler = find(compilers[_i]);
    put("unit.cc", "#include \"net.h\"\nstatic_assert(NET_HIDDEN > 0 && sizeof(net) > sizeof(net_real), \"\");\n");
    for (size_t i = 0; i < MODELS && compiler != NULL; i++) {
        emit("net", models[i]);
        COMPILE(compiler, STRICT_CXX " -fsyntax-only", in_folder("unit.cc"));
    }
}
END_TEST

/* --- symbols --------------------------------------------------------------------------------------------------------------------- */

static void check_symbol(char type, const char *symbol)
{
    static const char *const needed[] = {"memcpy", "memset", "memmove", "sqrt", "sqrtf", "log", "logf", "cos", "pow"};
    bool known = false;
    EACH(i, needed)
    {
        known = known || strcmp(symbol, needed[i]) == 0;
    }
    ck_assert_msg(type != 'U' || known, "%s is needed from outside", symbol);
    ck_assert_msg(strchr("DdBbCGgSs", type) == NULL, "%s can be written (%c)", symbol, type);
    const bool public = type >= 'A' && type <= 'Z' && type != 'U';
    ck_assert_msg(!public || strncmp(symbol, "net_", 4) == 0, "%s is public (%c)", symbol, type);
}

/* Not position-independent: there, constants with addresses in them are written once, by the loader. */
START_TEST(test_symbols)
{
    static const char *const levels[] = {"-std=c99 -fno-pic -fno-pie -c -O0", "-std=c99 -fno-pic -fno-pie -c -O3"};
    char *compiler = c_compiler(_i), *nm = find("nm");
    ck_assert_ptr_nonnull(nm);
    for (size_t i = 0; i < MODELS && compiler != NULL; i += 3) {
        emit("net", models[i]);
        EACH(k, levels)
        {
            unsigned publics = 0;
            COMPILE(compiler, levels[k], "-o", in_folder("net.o"), in_folder("net.c"));
            ck_assert_int_eq(RUN(nm, "-P", in_folder("net.o")), 0);
            ck_assert_uint_lt(strlen(output), sizeof output - 2); /* all of it */
            char *rest = output;
            for (char *line = strsep(&rest, "\n"); line != NULL && *line != '\0'; line = strsep(&rest, "\n")) {
                char symbol[128], type;
                ck_assert_int_eq(sscanf(line, "%127s %c", symbol, &type), 2);
                check_symbol(type, symbol);
                publics += type == 'T' || type == 'R';
            }
            const unsigned rate = strstr(models[i], "schedule") != NULL, observe = strstr(models[i], "plateau") != NULL;
            const unsigned start = strstr(models[i], "given") != NULL;
            ck_assert_uint_eq(publics, 9 + rate + observe + start); /* eight functions, the descriptor; what a schedule adds */
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("emitted");
    TCase *texts = tcase_create("texts");
    tcase_set_timeout(texts, 300);
    tcase_add_test(texts, test_table_is_complete);
    tcase_add_test(texts, test_text_needs_little);
    tcase_add_test(texts, test_names_are_taken);
    suite_add_tcase(suite, texts);
    TCase *compilers = emitted_case(suite, "compilers");
    tcase_add_loop_test(compilers, test_values_may_have_any_name, 0, 4);
    tcase_add_loop_test(compilers, test_no_warning, 0, 2);
    tcase_add_loop_test(compilers, test_header_in_cxx, 0, 2);
    tcase_add_loop_test(compilers, test_symbols, 0, 2);
    return emitted_run(suite);
}
