/* test_emit.c: the template engine, and the text that comes out of it.
 *
 * Golden text: tests/golden/ holds what one tiny spec becomes, byte for byte; BPTT_UPDATE_GOLDEN=1 writes it anew (make golden).
 * Runs in the tree's root.  Depends on Check, oracle.h (random specs) and scratch.h.
 */
#include "../gen/compile.h"
#include "../gen/emit.h"
#include "../gen/template.h"
#include "interpret.h"
#include "oracle.h"
#include "scratch.h"

#include <lauxlib.h>
#include <locale.h>
#include <pwd.h>
#include <sys/stat.h>
#include <time.h>

#define GOLDEN "tests/golden/"

enum { RANDOM_SPECS = 60 };

static bptt_error error;

/* --- the template engine ------------------------------------------------------------------------------------------------------------- */

/* Lua run with the templates' names as its globals. */
static int run_lua(lua_State *L)
{
    const char *code = lua_touserdata(L, 2);
    if (luaL_loadstring(L, code) != LUA_OK) { return lua_error(L); }
    lua_pushvalue(L, 1);
    (void)lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    return 0;
}

/* Renders a template after `code`; NULL: it failed, and error says why. */
static char *rendered(const char *code, const char *template)
{
    char *text = NULL;
    memset(&error, 0, sizeof error);
    bptt_templates *templates = bptt_templates_new();
    ck_assert_ptr_nonnull(templates);
    bptt_status status = bptt_templates_define(templates, run_lua, code, &error);
    if (status == BPTT_OK) { status = bptt_templates_render(templates, template, &text, &error); }
    ck_assert_int_eq(status == BPTT_OK, text != NULL);
    bptt_templates_free(templates);
    return text;
}

START_TEST(expressions)
{
    static const char *const values[][2] = {{"'abc'", "abc"},
                                            {"12", "12"},
                                            {"true", "1"},
                                            {"false", "0"},
                                            {"hex(0.1)", "0x1.999999999999ap-4"},
                                            {"'a\\\\b\"${x}\"'", "a\\b\"${x}\""}, /* what is put in is not read again */
                                            {"#include('kernels.lua').all > 50", "1"}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char code[100], line[100];
        (void)snprintf(code, sizeof code, "threads = 1 spec = {name = %s}", values[i][0]);
        (void)snprintf(line, sizeof line, "# Builds %s with any C99 compiler; nothing else is needed.\n", values[i][1]);
        char *text = rendered(code, "Makefile");
        ck_assert_msg(text != NULL, "%s", error.text);
        ck_assert_msg(strncmp(text, line, strlen(line)) == 0, "%s", text);
        (void)snprintf(line, sizeof line, "\n%s: %s_main.c %s.c %s.h\n\t$(CC) $(CFLAGS) ", values[i][1], values[i][1],
                       values[i][1], values[i][1]);
        ck_assert_ptr_nonnull(strstr(text, line));
        free(text);
    }
}
END_TEST

START_TEST(control_lines)
{
    char *text =
        rendered("k = {what = 'gather'} function signature(k) return 'void ' .. k.what .. '(void)' end", "kernels/rows.c");
    ck_assert_msg(text != NULL, "%s", error.text);
    ck_assert_str_eq(
        text, "/* Row x[r] of the table to row r of c: a matrix times a one-hot vector. */\n"
              "void gather(void)\n{\n    for (ptrdiff_t r = 0; r < rows; r++) {\n"
              "        const real *from = table + (ptrdiff_t)x[r] * ldt;\n"
              "        for (ptrdiff_t j = 0; j < cols; j += LANES) { store(c + r * ldc + j, load(from + j)); }\n    }\n}\n");
    free(text);
}
END_TEST

START_TEST(template_errors)
{
    static const char *const cases[][3] = {
        {"", "Makefile", "templates/Makefile:1: unknown name 'spec'"},
        {"spec = {name = 1.5}", "Makefile", "templates/Makefile:1: cannot write a number (argument 2)"},
        {"spec = {}", "Makefile", "templates/Makefile:1: cannot write a nil (argument 2)"},
        {"spec = 5", "Makefile", "templates/Makefile:1: attempt to index a number value (global 'spec')"},
        {"k = {what = 'gather'}", "kernels/rows.c", "templates/kernels/rows.c:3: unknown name 'signature'"},
        {"k = 1", "kernels/rows.c", "templates/kernels/rows.c:1: attempt to index a number value (global 'k')"},
        {"", "kernels/column.c", "there is no template 'kernels/column.c'"},
        {"include('no.lua')", "Makefile", "[string \"include('no.lua')\"]:1: there is no template 'no.lua'"},
        {"os.exit(1)", "Makefile", "[string \"os.exit(1)\"]:1: unknown name 'os'"},
        {"write(0.5)", "Makefile", "[string \"write(0.5)\"]:1: cannot write a number (argument 1)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_ptr_null(rendered(cases[i][0], cases[i][1]));
        ck_assert_str_eq(error.text, cases[i][2]);
    }
}
END_TEST

/* --- golden text ----------------------------------------------------------------------------------------------------------------------- */

static bptt_spec parsed(const char *text)
{
    bptt_spec spec;
    ck_assert_msg(bptt_spec_parse(text, strlen(text), "s.lua", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

static bptt_unit emitted(const bptt_spec *spec, int simd)
{
    bptt_unit unit;
    ck_assert_msg(bptt_compile(spec, simd, SIZE_MAX, &unit, &error) == BPTT_OK, "%s", error.text);
    return unit;
}

static bptt_unit emitted_text(const char *text)
{
    bptt_spec spec = parsed(text);
    bptt_unit unit = emitted(&spec, 8);
    bptt_spec_free(&spec);
    return unit;
}

static void check_golden(const char *path, const char *text)
{
    if (getenv("BPTT_UPDATE_GOLDEN") != NULL) {
        scratch_put(path, text, strlen(text));
        return;
    }
    size_t length;
    char *expected = (char *)scratch_get(path, &length);
    ck_assert_uint_eq(strlen(expected), length);
    size_t line = 1, i = 0;
    for (; text[i] != '\0' && text[i] == expected[i]; i++) { line += text[i] == '\n'; }
    ck_assert_msg(text[i] == expected[i], "%s:%zu differs; `make golden` writes it anew, for you to read what changed", path,
                  line);
    free(expected);
}

START_TEST(golden)
{
    bptt_unit unit = emitted_text("return {name = 'tiny', hidden = 2, vocab = 3, T = 5, K = 2, simd = 1}");
    check_golden(GOLDEN "tiny.h", unit.header);
    check_golden(GOLDEN "tiny.c", unit.source);
    bptt_unit_free(&unit);
}
END_TEST

/* --- what holds for every text --------------------------------------------------------------------------------------------------------- */

static void assert_same(const bptt_unit *a, const bptt_unit *b)
{
    ck_assert_str_eq(a->header, b->header);
    ck_assert_str_eq(a->source, b->source);
    ck_assert_str_eq(a->example, b->example);
    ck_assert_str_eq(a->makefile, b->makefile);
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Is `word` in the text, with no letter or digit beside it? */
static bool has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(text, word); length > 0 && at != NULL; at = strstr(at + 1, word)) {
        if ((at == text || !is_word(at[-1])) && !is_word(at[length])) { return true; }
    }
    return false;
}

static void check_clean(const char *text)
{
    ck_assert_ptr_null(strstr(text, "${"));
    ck_assert_ptr_null(strstr(text, "\t\n"));
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const size_t blanks = strspn(line, " "), length = strcspn(line, "\n");
        const bool ends_in_blank = length > 0 && line[length - 1] == ' ';
        if (line[blanks] != '%' && !ends_in_blank && line[length] == '\n') { continue; }
        ck_abort_msg("a control line, blanks at the end, or no newline: %.*s", (int)length, line);
    }
    const unsigned char *c = (const unsigned char *)text;
    while (*c == '\n' || *c == '\t' || (*c >= ' ' && *c < 127)) { c++; }
    ck_assert_msg(*c == '\0', "byte %d", *c);
}

static void for_each_text(const bptt_unit *unit, void (*check)(const char *text))
{
    check(unit->header);
    check(unit->source);
    check(unit->example);
    check(unit->makefile);
}

START_TEST(same_bytes_again)
{
    bptt_spec spec;
    oracle_random_spec(oracle_seed(), (unsigned)_i, &spec);
    static char source[] = "random";
    spec.source = source;
    if (spec.unroll == BPTT_UNROLL_FULL && (spec.hidden > 9 || spec.vocab > 9)) { spec.unroll = BPTT_UNROLL_TIME; }
    if (spec.unroll != BPTT_UNROLL_FULL) { spec.threads = 1 + _i % spec.batch; }
    bptt_unit a = emitted(&spec, 8), b = emitted(&spec, 8);
    assert_same(&a, &b);
    for_each_text(&a, check_clean);
    bptt_unit_free(&a);
    bptt_unit_free(&b);
}
END_TEST

/* unroll = "full": between the first step of the network and its start, only the loop over the chunks of a sequence is left. */
START_TEST(full_has_no_loops)
{
    static const bptt_optimizer_kind rules[] = {BPTT_SGD, BPTT_ADAGRAD, BPTT_ADAM};
    bptt_spec spec;
    oracle_random_spec(oracle_seed(), 3, &spec);
    static char source[] = "full";
    spec.source = source;
    spec.hidden = 5, spec.vocab = 7, spec.T = 5, spec.K = 2 + _i, spec.batch = 1 + _i, spec.threads = 1;
    spec.optimizer.kind = rules[_i];
    spec.unroll = BPTT_UNROLL_TIME;
    bptt_unit unit = emitted(&spec, 4);
    ck_assert(!oracle_is_spelled_out(unit.source));
    bptt_unit_free(&unit);
    spec.unroll = BPTT_UNROLL_FULL;
    unit = emitted(&spec, 4);
    ck_assert(oracle_is_spelled_out(unit.source));
    bptt_unit_free(&unit);
}
END_TEST

/* A vector starts at what its equation says, here the number that the spec has for forget gates; matrices from state to state start in
 * their own way, those from elsewhere, or that are not square, do not. */
START_TEST(first_values)
{
    static const char cell[] = "W_xh = matrix(hidden, input, 'W_xh')\nW_hh = matrix(hidden, hidden, 'W_hh')\n"
                               "W_ha = matrix(hidden, hidden, 'W_ha')\n"
                               "b_f = vector(hidden, 'b_f', nil, forget_bias)\nb_a = vector(hidden, 'b_a')\nh = state(hidden)\n"
                               "f = sigmoid(W_xh * x + W_hh * h + b_f)\na = tanh(W_ha * f + b_a)\nh = a\n";
    bptt_spec spec = parsed("return {name = 'net', hidden = 5, vocab = 5, T = 4, simd = 8, forget_bias = 2.5, "
                            "init_recurrent = {identity = 0.5}}");
    bptt_graph graph;
    bptt_plan *plan = NULL;
    bptt_unit unit = {0};
    ck_assert_msg(bptt_trace_text(&spec, cell, "cell.lua", &graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_derive(&graph, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_plan_make(&spec, &graph, 8, SIZE_MAX, &plan, &error) == BPTT_OK, "%s", error.text);
    ck_assert_msg(bptt_emit(plan, &unit, &error) == BPTT_OK, "%s", error.text);
    static const char *const lines[] = {"uniform_weights(m->param, 5, 5, 8, ",
                                        "identity_weights(m->param + 40, 5, 8, 0x1p-1); /* W_hh:",
                                        "uniform_weights(m->param + 80, 5, 5, 8, ", "] = (real)0x1.4p+1; } /* b_f: 2.5 */\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ck_assert_msg(strstr(unit.source, lines[i]) != NULL, "no %s", lines[i]);
    }
    ck_assert_ptr_null(strstr(unit.source, "/* b_a: "));
    ck_assert_ptr_nonnull(strstr(unit.source, "--set init_recurrent='{identity=0.5}'"));
    bptt_unit_free(&unit);
    bptt_plan_free(plan);
    bptt_graph_free(&graph);
    bptt_spec_free(&spec);
}
END_TEST

/* So do those that see h_0 where a sequence starts. */
START_TEST(first_values_with_restarts)
{
    static const char *const ways[] = {"resets = true", "carry = false, h0 = 'learned'"};
    char text[200];
    (void)snprintf(text, sizeof text,
                   "return {name = 'net', hidden = 5, vocab = 5, T = 4, init_recurrent = {identity = 0.5}, %s}", ways[_i]);
    bptt_unit unit = emitted_text(text);
    ck_assert_ptr_nonnull(strstr(unit.source, "0x1p-1); /* W_hh: identity, 0.5 */"));
    ck_assert_ptr_nonnull(strstr(unit.source, "/* W_xh: uniform, "));
    bptt_unit_free(&unit);
}
END_TEST

static void check_private(const char *text)
{
    char host[256] = "", folder[1024] = "";
    ck_assert_int_eq(gethostname(host, sizeof host - 1), 0);
    ck_assert_ptr_nonnull(getcwd(folder, sizeof folder));
    const struct passwd *user = getpwuid(getuid());
    ck_assert_ptr_null(strstr(text, folder));
    ck_assert(!has_word(text, host));
    ck_assert(user == NULL || !has_word(text, user->pw_name));
    static const char *const never[] = {"/home", "/tmp", "/usr", "/root", "s.lua", "__DATE__", "__TIME__", "__FILE__"};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) { ck_assert_ptr_null(strstr(text, never[i])); }
    char year[16];
    const time_t now = time(NULL);
    ck_assert_uint_gt(strftime(year, sizeof year, "%Y", gmtime(&now)), 0);
    ck_assert(!has_word(text, year));
}

START_TEST(nothing_private)
{
    bptt_unit unit = emitted_text("return {name = 'net', hidden = 20, vocab = 30, T = 12, K = 5, batch = 3}");
    for_each_text(&unit, check_private);
    bptt_unit_free(&unit);
    ck_assert(has_word("a (word)", "word") && !has_word("swords word_", "word"));
}
END_TEST

/* Lines of the functions that run a chunk; which kernels follow a number of rows is another matter. */
static size_t chunk_lines(const char *source)
{
    const char *from = strstr(source, "/* --- a chunk "), *to = strstr(source, "/* --- the update ");
    ck_assert(from != NULL && to != NULL && from < to);
    size_t lines = 0;
    for (; from < to; from++) { lines += *from == '\n'; }
    return lines;
}

/* A comment and two calls for a step forward, as much for one back; a loop does not grow. */
START_TEST(growth_with_time)
{
    static const struct {
        const char *unroll;
        size_t lines;
    } cases[] = {{"time", 6}, {"none", 0}};
    for (size_t i = 0; i < 2; i++) {
        size_t lines[2];
        for (size_t j = 0; j < 2; j++) {
            char text[200];
            (void)snprintf(text, sizeof text, "return {name = 'net', hidden = 20, vocab = 30, T = %d, unroll = '%s'}",
                           j == 0 ? 10 : 20, cases[i].unroll);
            bptt_unit unit = emitted_text(text);
            lines[j] = chunk_lines(unit.source);
            bptt_unit_free(&unit);
        }
        ck_assert_uint_eq(lines[1] - lines[0], 10 * cases[i].lines);
    }
}
END_TEST

/* --- another locale -------------------------------------------------------------------------------------------------------------------- */

/* glibc's binary form of a locale whose decimal sign is a comma: magic, count and offsets of six items. */
static void write_comma_locale(void)
{
    static const unsigned char items[] = {',', 0, '.', 0, 3, 3, 0, 0, ',', 0, 0, 0, '.', 0, 0, 0, 'A', 'N', 'S', 'I', 0, 0, 0, 0};
    const uint32_t head[] = {0x20031115 ^ (uint32_t)LC_NUMERIC, 6, 32, 34, 36, 40, 44, 48};
    unsigned char bytes[sizeof head + sizeof items];
    memcpy(bytes, head, sizeof head);
    memcpy(bytes + sizeof head, items, sizeof items);
    ck_assert_int_eq(mkdir(scratch("comma"), 0700), 0);
    scratch_put(scratch("comma/LC_NUMERIC"), bytes, sizeof bytes);
}

START_TEST(comma_locale)
{
    static const char text[] = "return {name = 'net', hidden = 3, vocab = 4, T = 6, K = 4, dtype = 'f64', "
                               "optimizer = {'adam', rate = 0.001}, clip = {norm = 2.5}, init = {normal = 0.125}}";
    write_comma_locale();
    bptt_unit plain = emitted_text(text);
    ck_assert_int_eq(setenv("LOCPATH", scratch_folder, 1), 0);
    const bool there = setlocale(LC_NUMERIC, "comma") != NULL;
    ck_assert_int_eq(unlink(scratch("comma/LC_NUMERIC")), 0);
    ck_assert_int_eq(rmdir(scratch("comma")), 0);
    if (there) {
        char shown[8];
        (void)snprintf(shown, sizeof shown, "%.1f", 0.5);
        ck_assert_str_eq(shown, "0,5");
        bptt_unit comma = emitted_text(text);
        assert_same(&comma, &plain);
        bptt_unit_free(&comma);
    } else {
        printf("no comma locale: this C library has another format\n");
    }
    bptt_unit_free(&plain);
}
END_TEST

int main(void)
{
    printf("test_emit: seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)oracle_seed());
    Suite *suite = suite_create("emit");
    TCase *engine = tcase_create("templates"), *texts = tcase_create("texts");
    tcase_add_unchecked_fixture(texts, scratch_open, scratch_close);
    tcase_set_timeout(texts, 30);
    tcase_add_test(engine, expressions);
    tcase_add_test(engine, control_lines);
    tcase_add_test(engine, template_errors);
    tcase_add_test(texts, golden);
    tcase_add_loop_test(texts, same_bytes_again, 0, RANDOM_SPECS);
    tcase_add_loop_test(texts, full_has_no_loops, 0, 3);
    tcase_add_test(texts, first_values);
    tcase_add_loop_test(texts, first_values_with_restarts, 0, 2);
    tcase_add_test(texts, nothing_private);
    tcase_add_test(texts, growth_with_time);
    tcase_add_test(texts, comma_locale);
    suite_add_tcase(suite, engine);
    suite_add_tcase(suite, texts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
