/* test_tune.c: tiles that were measured: which there are, that any of them computes the same, the file that keeps them, the command.
 *
 * What the tuner finds depends on the machine's mood, so no test asks which tile won.  BPTT_TEST_SEED chooses other specs; BPTT
 * names the built binary.
 */
#include "../gen/compile.h"
#include "../runtime/backend.h"
#include "../runtime/backend_private.h"
#include "../runtime/generate.h"
#include "../runtime/kernels.h"
#include "../runtime/tuning.h"
#include "scratch.h"

#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static const char small[] = "return {name = 'net', hidden = 40, vocab = 33, T = 9, K = 4, batch = 5}";
static uint64_t test_seed = 20261121;
static bptt_error error;

/* --- fixtures --------------------------------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info, (void)kind, (void)place;
    return remove(path);
}

static void remove_all(void)
{
    ck_assert_int_eq(nftw(scratch_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Each test has a cache of its own, and starts in the scratch folder with the spec in a file. */
static void fresh_cache(void)
{
    static char cache[400];
    (void)snprintf(cache, sizeof cache, "%s/XXXXXX", scratch_folder);
    ck_assert_ptr_nonnull(mkdtemp(cache));
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", cache, 1), 0);
    ck_assert_int_eq(chdir(scratch_folder), 0);
    scratch_put("net.lua", small, sizeof small - 1);
    error = (bptt_error){""};
}

static bptt_spec spec_of(const char *text)
{
    bptt_spec spec;
    ck_assert_msg(bptt_spec_parse(text, strlen(text), "test", NULL, 0, &spec, &error) == BPTT_OK, "%s", error.text);
    return spec;
}

static bptt_spec random_spec(uint64_t *state)
{
    char text[256];
    const unsigned long long hidden = 1 + scratch_random(state) % 70, vocab = 2 + scratch_random(state) % 70,
                             steps = 1 + scratch_random(state) % 5, batch = 1 + scratch_random(state) % 17;
    (void)snprintf(text, sizeof text, "return {name = 'net', hidden = %llu, vocab = %llu, T = %llu, batch = %llu, dtype = '%s'}",
                   hidden, vocab, steps, batch, scratch_random(state) % 4 == 0 ? "f64" : "f32");
    return spec_of(text);
}

static size_t products_of(const bptt_spec *spec, int simd, bptt_product products[BPTT_MAX_PRODUCTS])
{
    size_t count = 0;
    ck_assert_msg(bptt_products(spec, simd, SIZE_MAX, products, &count, &error) == BPTT_OK, "%s", error.text);
    return count;
}

/* Every product with its tile number `which` (or its last one). */
static bptt_tuning tuning_of(const bptt_product *products, size_t count, int which)
{
    bptt_tuning tuning = {.count = count};
    for (size_t p = 0; p < count; p++) {
        memcpy(tuning.of[p].product, products[p].name, sizeof products[p].name);
        const int last = products[p].tile_count - 1;
        tuning.of[p].tile = products[p].tiles[which < last ? which : last];
    }
    return tuning;
}

static void set_tuning(bptt_spec *spec, const bptt_tuning *tuning)
{
    if (spec->tuning == NULL) { spec->tuning = malloc(sizeof *tuning); }
    ck_assert_ptr_nonnull(spec->tuning);
    *spec->tuning = *tuning;
}

/* --- candidates ------------------------------------------------------------------------------------------------------------- */

static bool has_kernel(int simd, const bptt_tile_size *tile)
{
    char name[32];
    size_t count = 0;
    const bptt_kernel *kernels = bptt_kernels(4, simd, &count);
    (void)snprintf(name, sizeof name, "bptt_tile_%dx%d", tile->rows, tile->vectors);
    for (size_t k = 0; k < count; k++) {
        if (strcmp(kernels[k].name, name) == 0) { return true; }
    }
    return false;
}

START_TEST(test_candidates)
{
    static const int widths[] = {1, 4, 8, 16};
    uint64_t state = test_seed;
    for (int round = 0; round < 50; round++) {
        bptt_spec spec = random_spec(&state);
        const int simd = widths[scratch_random(&state) % 4];
        bptt_product products[BPTT_MAX_PRODUCTS];
        const size_t count = products_of(&spec, simd, products);
        ck_assert_uint_ge(count, 4); /* at T = 1 nothing goes back in time */
        for (size_t p = 0; p < count; p++) {
            const bptt_product *product = &products[p];
            const int64_t lanes = simd == 1 ? 1 : 4 * simd / (spec.dtype == BPTT_F64 ? 8 : 4);
            ck_assert_int_ge(product->tile_count, 1);
            ck_assert_int_le(product->tile_count, BPTT_MAX_TILES);
            ck_assert(product->flop > 0 && product->rows > 0 && product->cols > 0 && product->depth > 0);
            for (int c = 0; c < product->tile_count; c++) {
                const bptt_tile_size *tile = &product->tiles[c];
                ck_assert_int_le(tile->rows, product->rows);
                ck_assert_int_le((tile->vectors - 1) * lanes, product->cols);
                const int sums = tile->rows * tile->vectors, operands = tile->rows > 1 ? tile->vectors + 1 : 1;
                ck_assert_int_le(sums, 28);
                ck_assert_int_le(sums + operands, simd == 16 ? 32 : 16);
                ck_assert(has_kernel(bptt_kernels_simd(), tile));
                for (int d = 0; d < c; d++) { ck_assert(memcmp(tile, &product->tiles[d], sizeof *tile) != 0); }
            }
        }
        bptt_spec_free(&spec);
    }
}
END_TEST

static char *source_of(const bptt_spec *spec)
{
    bptt_unit unit;
    ck_assert_msg(bptt_compile_here(spec, &unit, &error) == BPTT_OK, "%s", error.text);
    char *source = strdup(unit.source);
    ck_assert_ptr_nonnull(source);
    bptt_unit_free(&unit);
    return source;
}

/* The text after the banner. */
static const char *code_of(const char *source)
{
    const char *code = strstr(source, "#ifndef NET_H");
    ck_assert_ptr_nonnull(code);
    return code;
}

/* The plan's own tiles come first, so as a tuning they change nothing but the banner; others change the code. */
START_TEST(test_first_candidate_is_the_plans)
{
    bptt_spec spec = spec_of(small);
    bptt_product products[BPTT_MAX_PRODUCTS];
    const size_t count = products_of(&spec, bptt_kernels_simd(), products);
    char *plain = source_of(&spec);
    ck_assert_ptr_null(strstr(plain, "--tuned"));
    bptt_tuning tuning = tuning_of(products, count, 0);
    set_tuning(&spec, &tuning);
    char *same = source_of(&spec);
    ck_assert_ptr_nonnull(strstr(same, " --tuned\n"));
    ck_assert_str_eq(code_of(same), code_of(plain));
    tuning = tuning_of(products, count, 1);
    set_tuning(&spec, &tuning);
    char *other = source_of(&spec), *again = source_of(&spec);
    ck_assert_str_ne(code_of(other), code_of(plain));
    ck_assert_str_eq(other, again);
    char tile[80];
    (void)snprintf(tile, sizeof tile, "%s %dx%d", products[1].name, products[1].tiles[1].rows, products[1].tiles[1].vectors);
    ck_assert_msg(strstr(other, tile) != NULL, "no '%s' in the banner", tile);
    free(plain);
    free(same);
    free(other);
    free(again);
    bptt_spec_free(&spec);
}
END_TEST

/* --- any tile computes the same --------------------------------------------------------------------------------------------- */

/* The loss of the third step. */
static double third_loss(const bptt_spec *spec, bptt_backend backend)
{
    bptt_program program;
    ck_assert_msg(bptt_program_open(spec, backend, &program, &error) == BPTT_OK, "%s", error.text);
    const bptt_model *model = program.model;
    void *memory = bptt_memory_new(model);
    const size_t tokens = (size_t)(spec->K * spec->batch);
    uint32_t *x = calloc(tokens, sizeof *x), *y = calloc(tokens, sizeof *y);
    ck_assert(memory != NULL && x != NULL && y != NULL);
    uint64_t state = 7;
    for (size_t i = 0; i < tokens; i++) {
        x[i] = (uint32_t)(scratch_random(&state) % (uint64_t)spec->vocab);
        y[i] = (uint32_t)(scratch_random(&state) % (uint64_t)spec->vocab);
    }
    model->init(model, memory, 3);
    double loss = 0;
    for (int step = 0; step < 3; step++) {
        loss = model->gradient(model, memory, &(bptt_rows){.x = x, .y = y}, 0);
        ck_assert(isfinite(model->update(model, memory)));
    }
    bptt_program_close(&program);
    free(memory);
    free(x);
    free(y);
    return loss;
}

START_TEST(test_tiles_compute_the_same)
{
    uint64_t state = test_seed;
    for (int round = 0; round < 25; round++) {
        bptt_spec spec = random_spec(&state);
        const double limit = spec.dtype == BPTT_F64 ? 1e-11 : 2e-5, loss = third_loss(&spec, BPTT_BACKEND_GENERIC);
        bptt_product products[BPTT_MAX_PRODUCTS];
        const size_t count = products_of(&spec, bptt_kernels_simd(), products);
        for (int which = 0; which < BPTT_MAX_TILES; which += 3) {
            bptt_tuning tuning = tuning_of(products, count, which);
            set_tuning(&spec, &tuning);
            const double tuned = third_loss(&spec, BPTT_BACKEND_TCC);
            ck_assert_msg(fabs(tuned - loss) <= limit * (1 + fabs(loss)), "candidate %d: %.17g and %.17g: %s", which, tuned, loss,
                          spec.text);
            ck_assert(tuned == third_loss(&spec, BPTT_BACKEND_TCC));
        }
        bptt_spec_free(&spec);
    }
}
END_TEST

START_TEST(test_tiles_that_cannot_be)
{
    static const struct {
        const char *product;
        int rows, vectors;
        const char *says;
    } cases[] = {
        {"times_W_xx", 1, 1, "test: the tuning speaks of a product 'times_W_xx' that is not there; run 'bptt tune' again"},
        {"", 1, 1, "a product '' that is not there"},
        {"times_W_hh", 0, 1, "test: the tuning's tile 0x1 cannot be that of times_W_hh; run 'bptt tune' again"},
        {"times_W_hh", 1, 0, "tile 1x0 cannot"},
        {"times_W_hh", -1, -1, "tile -1x-1 cannot"},
        {"times_W_hh", 6, 1, "tile 6x1 cannot"}, /* B = 5 */
        {"grad_W_hh", 15, 1, "tile 15x1 cannot"},
        {"grad_W_hh", 1, 9, "tile 1x9 cannot"},
        {"grad_W_hh", 14, 8, "tile 14x8 cannot"},
        {"grad_W_hh", 999999999, 999999999, "tile 999999999x999999999 cannot"},
    };
    bptt_spec spec = spec_of(small);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bptt_tuning tuning = {.count = 1};
        (void)snprintf(tuning.of[0].product, sizeof tuning.of[0].product, "%s", cases[i].product);
        tuning.of[0].tile = (bptt_tile_size){cases[i].rows, cases[i].vectors};
        set_tuning(&spec, &tuning);
        bptt_unit unit;
        ck_assert_int_eq(bptt_compile_here(&spec, &unit, &error), BPTT_FAILED);
        assert_says(&error, cases[i].says);
    }
    bptt_spec_free(&spec);
}
END_TEST

/* --- the file --------------------------------------------------------------------------------------------------------------- */

/* Keeps a tuning of `small` and returns its path, for the caller to free. */
static char *keep_one(bptt_tuning *tuning)
{
    bptt_spec spec = spec_of(small);
    bptt_product products[BPTT_MAX_PRODUCTS];
    const size_t count = products_of(&spec, bptt_kernels_simd(), products);
    *tuning = tuning_of(products, count, 1);
    ck_assert_msg(bptt_tuning_save(&spec, tuning, &error) == BPTT_OK, "%s", error.text);
    char *path = bptt_tuning_path(&spec, &error);
    ck_assert_msg(path != NULL, "%s", error.text);
    bptt_spec_free(&spec);
    return path;
}

static bptt_status load(const char *text)
{
    bptt_spec spec = spec_of(text);
    bptt_status status = bptt_tuning_load(&spec, &error);
    if (status == BPTT_OK) {
        ck_assert_ptr_nonnull(spec.tuning);
        bptt_spec_free(&spec);
    }
    ck_assert_ptr_null(strchr(error.text, '\n'));
    return status;
}

START_TEST(test_kept)
{
    bptt_tuning tuning;
    free(keep_one(&tuning));
    bptt_spec spec = spec_of(small);
    ck_assert_msg(bptt_tuning_load(&spec, &error) == BPTT_OK, "%s", error.text);
    ck_assert_uint_eq(spec.tuning->count, tuning.count);
    for (size_t i = 0; i < tuning.count; i++) {
        ck_assert_str_eq(spec.tuning->of[i].product, tuning.of[i].product);
        ck_assert_int_eq(spec.tuning->of[i].tile.rows, tuning.of[i].tile.rows);
        ck_assert_int_eq(spec.tuning->of[i].tile.vectors, tuning.of[i].tile.vectors);
    }
    bptt_spec_free(&spec);
}
END_TEST

/* Whom a tuning serves: specs of the same products, whatever their names, rates and seeds. */
START_TEST(test_whose_it_is)
{
    static const char *const same[] = {"s.name = 'other'", "s.seed = 99", "s.optimizer = {'adam', rate = 0.5}",
                                       "s.activation = 'relu'"};
    static const char *const others[] = {"s.hidden = 41", "s.vocab = 34",    "s.batch = 6",
                                         "s.K = 3",       "s.dtype = 'f64'", "s.simd = 1"};
    bptt_tuning tuning;
    free(keep_one(&tuning));
    char text[256];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        (void)snprintf(text, sizeof text, "local s = (function() %s end)() %s return s", small, same[i]);
        ck_assert_msg(load(text) == BPTT_OK, "%s: %s", same[i], error.text);
    }
    (void)snprintf(text, sizeof text, "local s = (function() %s end)() s.simd = %d return s", small, bptt_kernels_simd());
    ck_assert_int_eq(load(text), BPTT_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        (void)snprintf(text, sizeof text, "local s = (function() %s end)() %s return s", small, others[i]);
        ck_assert_msg(load(text) == BPTT_FAILED, "%s", others[i]);
        ck_assert_str_eq(error.text,
                         "test: no tuning for these sizes on this machine; run 'bptt tune test' first (with the same --set)");
    }
}
END_TEST

/* No cut and no changed bit passes. */
START_TEST(test_damaged_file)
{
    bptt_tuning tuning;
    char *path = keep_one(&tuning);
    size_t length = 0;
    unsigned char *bytes = scratch_get(path, &length);
    for (size_t cut = 0; cut < length; cut++) {
        scratch_put(path, bytes, cut);
        ck_assert_int_eq(load(small), BPTT_FAILED);
        assert_says(&error, ": damaged or stale; run 'bptt tune test' again");
    }
    for (size_t i = 0; i < length; i++) {
        bytes[i] ^= (unsigned char)(1u << i % 8);
        scratch_put(path, bytes, length);
        ck_assert_int_eq(load(small), BPTT_FAILED);
        assert_says(&error, ": damaged or stale; run 'bptt tune test' again");
        bytes[i] ^= (unsigned char)(1u << i % 8);
    }
    scratch_put(path, bytes, length);
    ck_assert_int_eq(load(small), BPTT_OK);
    free(bytes);
    free(path);
}
END_TEST

/* Texts with a right digest: what they say is looked at all the same. */
START_TEST(test_stale_file)
{
    static const char *const lines[] = {"times_W_hh 1",
                                        "times_W_hh 1 1 1",
                                        "times_W_hh x 1",
                                        " times_W_hh 1 1 ",
                                        "\n",
                                        "a_name_of_more_than_forty_seven_characters_is_nobodys 1 1",
                                        "times_W_hh 99999999999 1"};
    char key[64], text[8192], digest[33];
    bptt_tuning tuning;
    char *path = keep_one(&tuning);
    (void)snprintf(key, sizeof key, "%.32s", strrchr(path, '/') + 1);
    for (int i = 0; i < 10; i++) {
        int used = snprintf(text, sizeof text, "bptt tuning %d\n%s\n", i == 0 ? 0 : 1, i == 1 ? "0123456789abcdef" : key);
        for (int j = 0; i == 2 && j <= BPTT_MAX_PRODUCTS; j++) { used += sprintf(text + used, "times_W_hh 1 1\n"); }
        if (i >= 3) { used += sprintf(text + used, "%s\n", lines[i - 3]); }
        ck_assert(bptt_digest((const char *[]){text}, 1, digest));
        used += sprintf(text + used, "%s\n", digest);
        scratch_put(path, text, (size_t)used);
        ck_assert_msg(load(small) == BPTT_FAILED, "%s", text);
        assert_says(&error, ": damaged or stale; run 'bptt tune test' again");
    }
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(load(small), BPTT_FAILED);
    free(path);
}
END_TEST

START_TEST(test_no_cache)
{
    bptt_spec spec = spec_of(small);
    bptt_tuning none = {.count = 0};
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "/dev/null/x", 1), 0);
    ck_assert_int_eq(bptt_tuning_save(&spec, &none, &error), BPTT_FAILED);
    assert_says(&error, "no folder for a tuning: ");
    ck_assert_int_eq(load(small), BPTT_FAILED);
    assert_says(&error, "no folder for a tuning: ");
    bptt_spec_free(&spec);
}
END_TEST

/* The cache forgets objects after a month, but not what took minutes to measure. */
START_TEST(test_never_swept)
{
    bptt_tuning tuning;
    char *path = keep_one(&tuning), *folder = bptt_cache_folder();
    const time_t then = time(NULL) - 400L * 24 * 3600;
    ck_assert_int_eq(utimensat(AT_FDCWD, path, (struct timespec[]){{.tv_sec = then}, {.tv_sec = then}}, 0), 0);
    ck_assert_ptr_nonnull(folder);
    bptt_cache_sweep(folder);
    ck_assert_int_eq(load(small), BPTT_OK);
    free(folder);
    free(path);
}
END_TEST

/* --- the command ------------------------------------------------------------------------------------------------------------ */

/* Runs `bptt ARGUMENTS`; output goes to the files out and err.  Returns the exit status. */
static int bptt(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int bptt(const char *format, ...)
{
    char arguments[512], command[2048];
    const char *binary = getenv("BPTT");
    ck_assert_msg(binary != NULL, "BPTT must name the binary");
    va_list list;
    va_start(list, format);
    (void)vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    (void)snprintf(command, sizeof command, "'%s' %s > out 2> err", binary, arguments);
    int status = system(command);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool holds(const char *file, const char *part)
{
    size_t length = 0;
    char *text = (char *)scratch_get(file, &length);
    const bool found = strstr(text, part) != NULL;
    if (!found) { printf("no '%s' in %s: %s\n", part, file, text); }
    free(text);
    return found;
}

static void assert_same_files(const char *a, const char *b)
{
    size_t length = 0;
    unsigned char *bytes = scratch_get(a, &length);
    assert_file_is(b, bytes, length);
    free(bytes);
}

#define FULL " --set unroll=full --set hidden=3 --set vocab=4"
START_TEST(test_command)
{
    ck_assert_int_eq(bptt("gen net.lua --tuned -o one"), BPTT_FAILED);
    static const char none[] =
        "bptt: net.lua: no tuning for these sizes on this machine; run 'bptt tune net.lua' first (with the same --set)\n";
    assert_file_is("err", none, sizeof none - 1);
    ck_assert_int_ne(access("one", F_OK), 0);
    ck_assert_int_eq(bptt("tune net.lua --seconds 0.2"), BPTT_OK);
    assert_file_is("err", "", 0);
    static const char *const printed[] = {"model     best\n", "times_W_hh ", "grad_W_hy ", "% less than with the model's tiles",
                                          "gen, train and bench use it with --tuned\n"};
    for (size_t i = 0; i < sizeof printed / sizeof *printed; i++) { ck_assert(holds("out", printed[i])); }
    ck_assert_int_eq(bptt("gen net.lua --tuned -o one"), BPTT_OK);
    ck_assert(holds("one/net.c", " --tuned\n"));
    ck_assert(holds("one/net.c", "as 'bptt tune' measured them"));
    /* As the banner says: with the width and all the rest spelled out. */
    ck_assert_int_eq(bptt("gen net.lua --tuned -o two --set simd=%d --set unroll=time --seed 1", bptt_kernels_simd()), BPTT_OK);
    assert_same_files("one/net.c", "two/net.c");
    ck_assert_int_eq(bptt("gen net.lua --tuned --dump plan"), BPTT_OK);
    ck_assert_int_eq(bptt("bench net.lua --tuned --seconds 0.01"), BPTT_OK);
    ck_assert_int_eq(bptt("bench --rows tiny --tuned --seconds 0.01"), BPTT_FAILED);
    ck_assert(holds("err", "tiny: no tuning for these sizes"));
    ck_assert_int_eq(bptt("gen net.lua --tuned -o one --set hidden=41"), BPTT_FAILED);
    ck_assert_int_eq(bptt("tune net.lua" FULL " --seconds 0.1"), BPTT_OK);
    ck_assert(holds("out", "none: unroll = 'full'"));
    ck_assert_int_eq(bptt("gen net.lua --tuned -o full" FULL), BPTT_OK);
}
END_TEST

/* Same spec, seed, backend and tuning: same bits, also over a resume. */
START_TEST(test_training)
{
    char tokens[500];
    for (size_t i = 0; i < sizeof tokens; i++) { tokens[i] = (char)(i * i % 33); }
    scratch_put("tokens", tokens, sizeof tokens);
#define TRAIN "train --data tokens --backend tcc "
    ck_assert_int_eq(bptt(TRAIN "net.lua --tuned --steps 4 --out a.safetensors"), BPTT_FAILED);
    ck_assert(holds("err", "run 'bptt tune net.lua' first"));
    ck_assert_int_ne(access("a.safetensors", F_OK), 0);
    bptt_tuning tuning;
    char *path = keep_one(&tuning);
    ck_assert_int_eq(bptt(TRAIN "net.lua --tuned --steps 40 --out a.safetensors"), BPTT_OK);
    ck_assert_int_eq(bptt(TRAIN "net.lua --tuned --steps 20 --out b.safetensors"), BPTT_OK);
    ck_assert_int_eq(bptt(TRAIN "--resume b.safetensors --tuned --steps 40"), BPTT_OK);
    assert_same_files("a.safetensors", "b.safetensors");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(bptt(TRAIN "--resume b.safetensors --tuned --steps 60"), BPTT_FAILED);
    ck_assert(holds("err", "run 'bptt tune SPEC' first"));
    ck_assert_int_eq(bptt("tune b.safetensors"), BPTT_FAILED);
    ck_assert(holds("err", "is a checkpoint; expected a spec"));
    free(path);
}
END_TEST

START_TEST(test_diverged)
{
    ck_assert_int_eq(
        bptt("tune net.lua --seconds 0.2 --set activation=relu --set \"optimizer={'sgd', rate=1e30}\" --set clip=\"'none'\""),
        BPTT_FAILED);
    ck_assert(holds("err", "training diverges"));
    assert_file_is("out", "", 0);
}
END_TEST

START_TEST(test_nowhere_to_keep_it)
{
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "/dev/null/x", 1), 0);
    ck_assert_int_eq(bptt("tune net.lua --seconds 1000"), BPTT_FAILED); /* before it measures */
    ck_assert(holds("err", "bptt: no folder for a tuning: "));
    assert_file_is("out", "", 0);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------------------------- */

static void add(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *group = tcase_create(name);
    tcase_add_unchecked_fixture(group, scratch_open, remove_all);
    tcase_add_checked_fixture(group, fresh_cache, NULL);
    tcase_set_timeout(group, 120);
    for (size_t i = 0; i < count; i++) { tcase_add_test(group, tests[i]); }
    suite_add_tcase(suite, group);
}
#define ADD(suite, name, tests) add(suite, name, tests, sizeof(tests) / sizeof(tests)[0])

int main(void)
{
    const TTest *const tiles[] = {test_candidates, test_first_candidate_is_the_plans, test_tiles_compute_the_same,
                                  test_tiles_that_cannot_be};
    const TTest *const file[] = {test_kept,       test_whose_it_is, test_damaged_file,
                                 test_stale_file, test_no_cache,    test_never_swept};
    const TTest *const command[] = {test_command, test_training, test_diverged, test_nowhere_to_keep_it};
    const char *seed = getenv("BPTT_TEST_SEED");
    if (seed != NULL) { test_seed = strtoull(seed, NULL, 10); }
    printf("seed %llu (BPTT_TEST_SEED)\n", (unsigned long long)test_seed);
    Suite *suite = suite_create("tune");
    ADD(suite, "tiles", tiles);
    ADD(suite, "file", file);
    ADD(suite, "command", command);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
