/* make_data.c: the data of the tasks in specs/tasks/, on standard output: `make_data TASK COUNT [SEED]`.
 *
 *   reber         COUNT strings of the embedded Reber grammar, a line each: the last letter but one is the second
 *   mackey_glass  COUNT numbers of the Mackey-Glass series (tau = 17), six units of time apart, as CSV
 *   sine          .npy [COUNT][41][1]: a sine of a frequency (4 to 20 steps a period) and a phase of its own
 *   adding        .npy [COUNT][50][3]: a number, its mark, and at the last step the sum of the two marked numbers
 *   copy          .npy [COUNT][20][5]: one of four symbols, one-hot, and at the last step the symbol of the first step
 *   parity        .npy [COUNT][16][3]: a bit or the question that ends them, and then their parity
 *
 * The same task, count and seed (default 1) give the same bytes.  Depends on the C library alone.  Refuses what it does not know
 * with status 2; a write that fails is status 1.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t state;
} generator;

/* splitmix64 (Steele, Lea, Flood 2014), its upper half. */
static uint32_t draw(generator *g)
{
    uint64_t z = (g->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static int below(generator *g, int limit)
{
    return (int)((uint64_t)draw(g) * (uint64_t)limit >> 32);
}

/* In [0, 1), and a float holds it exactly. */
static float uniform(generator *g)
{
    return (float)(draw(g) >> 8) / 16777216.0F;
}

/* --- lines of text ---------------------------------------------------------------------------------------------------------- */

/* A string of the Reber grammar (Reber 1967): each node has two arrows, a letter and the node that follows. */
static void put_reber(generator *g)
{
    static const struct {
        char letter;
        int next;
    } arrows[][2] = {
        {{'T', 1}, {'P', 2}}, {{'S', 1}, {'X', 3}}, {{'T', 2}, {'V', 4}}, {{'X', 2}, {'S', 5}}, {{'P', 3}, {'V', 5}}};
    (void)putchar('B');
    for (int node = 0; node != 5;) {
        const int way = below(g, 2);
        (void)putchar(arrows[node][way].letter);
        node = arrows[node][way].next;
    }
    (void)putchar('E');
}

/* Embedded (Smith and Zipser 1989): between two equal letters. */
static void put_reber_strings(generator *g, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int letter = "TP"[below(g, 2)];
        (void)putchar('B');
        (void)putchar(letter);
        put_reber(g);
        (void)putchar(letter);
        (void)puts("E");
    }
}

/* dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x (Mackey and Glass 1977), by Euler steps of 0.1. */
static void put_mackey_glass(generator *g, size_t count)
{
    enum { DELAY = 170, APART = 60, SETTLED = 200 };
    double past[DELAY], x = 1.2;
    for (int i = 0; i < DELAY; i++) { past[i] = 0.2 + (double)uniform(g); }
    for (size_t i = 0, total = (SETTLED + count) * APART; i < total; i++) {
        double *const late = &past[i % DELAY];
        const double rate = 0.2 * *late / (1 + pow(*late, 10)) - 0.1 * x;
        *late = x;
        x += 0.1 * rate;
        if (i % APART == APART - 1 && i / APART >= SETTLED) { printf("%.6f\n", x); }
    }
}

/* --- sequences as .npy ------------------------------------------------------------------------------------------------------ */

/* Fills one sequence, [steps][columns] of zeros. */
typedef void filler(generator *g, float *rows);

enum { SINE_STEPS = 41, ADDING_STEPS = 50, COPY_STEPS = 20, PARITY_STEPS = 16, SYMBOLS = 4, MOST = ADDING_STEPS * 3 };

static void fill_sine(generator *g, float *rows)
{
    const double frequency = 1.0 / (4 + 16 * (double)uniform(g)), phase = (double)uniform(g);
    for (int t = 0; t < SINE_STEPS; t++) { rows[t] = (float)sin(2 * M_PI * (frequency * t + phase)); }
}

/* One mark in each half, none at the last step (Hochreiter and Schmidhuber 1997). */
static void fill_adding(generator *g, float *rows)
{
    const int half = ADDING_STEPS / 2, marks[] = {below(g, half), half + below(g, half - 1)};
    for (int t = 0; t < ADDING_STEPS; t++) {
        rows[t * 3] = uniform(g);
        rows[t * 3 + 2] = NAN;
    }
    for (int i = 0; i < 2; i++) { rows[marks[i] * 3 + 1] = 1; }
    rows[ADDING_STEPS * 3 - 1] = rows[marks[0] * 3] + rows[marks[1] * 3];
}

static void fill_copy(generator *g, float *rows)
{
    int first = 0;
    for (int t = 0; t < COPY_STEPS; t++) {
        float *row = rows + t * (SYMBOLS + 1);
        const int symbol = below(g, SYMBOLS);
        if (t == 0) { first = symbol; }
        row[symbol] = 1;
        row[SYMBOLS] = t == COPY_STEPS - 1 ? (float)first : NAN;
    }
}

/* 1 to PARITY_STEPS - 1 bits, -1 or 1, then the question, then zeros. */
static void fill_parity(generator *g, float *rows)
{
    const int bits = 1 + below(g, PARITY_STEPS - 1);
    int parity = 0;
    for (int t = 0; t < PARITY_STEPS; t++) {
        const int bit = below(g, 2);
        float *row = rows + t * 3;
        row[2] = NAN;
        if (t < bits) {
            row[0] = (float)(2 * bit - 1);
            parity ^= bit;
        }
        if (t == bits) {
            row[1] = 1;
            row[2] = (float)parity;
        }
    }
}

/* Little-endian bytes of an f4, whatever the machine. */
static void put_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) { (void)putchar((int)(bits >> shift & 0xff)); }
}

static void put_sequences(generator *g, size_t count, int steps, int columns, filler *fill)
{
    char header[119];
    int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %d, %d), }", count,
                          steps, columns);
    printf("\x93NUMPY\x01%c%c%c%-117.*s\n", 0, 118, 0, length, header);
    for (size_t i = 0; i < count; i++) {
        float rows[MOST] = {0};
        fill(g, rows);
        for (int k = 0; k < steps * columns; k++) { put_float(rows[k]); }
    }
}

/* --- tasks ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    void (*put)(generator *g, size_t count);
    int steps, columns; /* of a sequence, which `fill` fills; or `put` writes it all */
    filler *fill;
} task;

static const task tasks[] = {
    {"reber", put_reber_strings, 0, 0, NULL},           {"mackey_glass", put_mackey_glass, 0, 0, NULL},
    {"sine", NULL, SINE_STEPS, 1, fill_sine},           {"adding", NULL, ADDING_STEPS, 3, fill_adding},
    {"copy", NULL, COPY_STEPS, SYMBOLS + 1, fill_copy}, {"parity", NULL, PARITY_STEPS, 3, fill_parity},
};

/* A whole number in digits alone. */
static bool parse(const char *text, uint64_t most, uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *value <= most;
}

static int usage(const char *what)
{
    (void)fprintf(stderr, "make_data: %s; expected make_data TASK COUNT [SEED], TASK one of", what);
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) { (void)fprintf(stderr, " %s", tasks[i].name); }
    (void)fprintf(stderr, ", COUNT from 1 to 10000000\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t count = 0, seed = 1;
    const task *chosen = NULL;
    if (argc != 3 && argc != 4) { return usage("two or three words"); }
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        if (strcmp(argv[1], tasks[i].name) == 0) { chosen = &tasks[i]; }
    }
    if (chosen == NULL) { return usage("unknown task"); }
    if (!parse(argv[2], 10000000, &count) || count == 0) { return usage("bad COUNT"); }
    if (argc == 4 && !parse(argv[3], UINT64_MAX, &seed)) { return usage("bad SEED"); }
    generator g = {seed};
    if (chosen->put != NULL) {
        chosen->put(&g, (size_t)count);
    } else {
        put_sequences(&g, (size_t)count, chosen->steps, chosen->columns, chosen->fill);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        (void)fprintf(stderr, "make_data: cannot write: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
