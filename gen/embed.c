/* embed.c: build tool.  Writes the C of embedded.h to standard output: each argument NAME=PATH becomes one text.
 *
 * Depends on the C library alone.  Not part of the program.
 */
#include <stdio.h>
#include <string.h>

/* Standard C promises string literals of 4095 bytes only, so a text is an array of numbers. */
static int embed(const char *path, int number)
{
    FILE *in = fopen(path, "rb");
    if (in == NULL) {
        perror(path);
        return 1;
    }
    printf("static const char text_%d[] = {", number);
    int c, column = 0;
    while ((c = getc(in)) != EOF) { printf("%s%d,", column++ % 32 == 0 ? "\n" : "", c); }
    printf("\n0};\n");
    int failed = ferror(in);
    (void)fclose(in);
    return failed;
}

int main(int count, char **arguments)
{
    printf("#include \"embedded.h\"\n#include <string.h>\n");
    for (int i = 1; i < count; i++) {
        const char *path = strchr(arguments[i], '=');
        if (path == NULL || embed(path + 1, i) != 0) {
            fprintf(stderr, "embed: cannot embed '%s'\n", arguments[i]);
            return 1;
        }
    }
    printf("static const struct { const char *name, *text; } texts[] = {\n");
    for (int i = 1; i < count; i++) { printf("{\"%.*s\", text_%d},\n", (int)strcspn(arguments[i], "="), arguments[i], i); }
    printf("};\nconst char *bptt_embedded(const char *name)\n{\n"
           "    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {\n"
           "        if (strcmp(texts[i].name, name) == 0) { return texts[i].text; }\n    }\n    return 0;\n}\n");
    return ferror(stdout) || fflush(stdout) != 0;
}
