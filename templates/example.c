% local name = spec.name
/* ${name}_main.c: trains ${name} on a file and says how it goes.  An example to start from: a program needs no more than this.
 *
 *   ./${name} FILE [EPOCHS]       each ${spec.vocab <= 256 and "byte" or "little-endian 32-bit word"} of FILE modulo V is a token
 */
#include "${name}.h"

#include <stdio.h>
#include <stdlib.h>

static ${name} model; /* ${struct_bytes} bytes, no heap */

/* Token i of the file, or -1 at its end. */
static long read_token(FILE *in)
{
% if spec.vocab <= 256 then
    const int byte = getc(in);
    return byte == EOF ? -1 : byte % ${spec.vocab};
% else
    unsigned char word[4];
    if (fread(word, 1, 4, in) != 4) { return -1; }
    return (long)((word[0] | (unsigned long)word[1] << 8 | (unsigned long)word[2] << 16 | (unsigned long)word[3] << 24) % ${spec.vocab}u);
% end
}

/* One sequence of B streams, read one after the other from the file: stream b has the next T + 1 tokens. */
static int read_sequence(FILE *in, ${name}_token *x, ${name}_token *y)
{
    for (int b = 0; b < ${spec.batch}; b++) {
        long token = read_token(in);
        for (int t = 0; t < ${spec.T}; t++) {
            const long next = read_token(in);
            if (token < 0 || next < 0) { return 0; }
            x[t * ${spec.batch} + b] = (${name}_token)token;
            y[t * ${spec.batch} + b] = (${name}_token)next;
            token = next;
        }
        if (token >= 0 && fseek(in, ${spec.vocab <= 256 and "-1L" or "-4L"}, SEEK_CUR) != 0) { return 0; } /* the last label is the next input */
    }
    return 1;
}

int main(int count, char **arguments)
{
    static ${name}_token x[${spec.T * spec.batch}], y[${spec.T * spec.batch}];
    const int epochs = count > 2 ? atoi(arguments[2]) : 1;
    FILE *in = count > 1 ? fopen(arguments[1], "rb") : NULL;
    if (in == NULL) {
        fprintf(stderr, "usage: %s FILE [EPOCHS]\n", arguments[0]);
        return 2;
    }
    ${name}_init(&model, ${string.upper(name)}_SEED);
    for (int epoch = 1; epoch <= epochs; epoch++) {
        double sum = 0;
        long sequences = 0;
        rewind(in);
        ${name}_reset(&model);
        while (read_sequence(in, x, y)) {
            const double loss = ${name}_train(&model, x, y);
            if (!(loss < 1e30)) {
                fprintf(stderr, "training diverged: lower the rate\n");
                return 1;
            }
            sum += loss${spec.reduction == "sum" and string.format(" / %d", spec.T * spec.batch) or ""};
            sequences++;
        }
        if (sequences == 0) {
            fprintf(stderr, "%s: too short for one sequence of %d tokens\n", arguments[1], ${spec.T * spec.batch + 1});
            return 1;
        }
        printf("epoch %d: loss %.4f nats a token\n", epoch, sum / (double)sequences);
    }
    return fclose(in) != 0;
}
