/* names.c: words of C and of the emitted files.  See names.h. */
#include "names.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LONGEST = 40 };

/* Words of C (to C23) and C++, and what the headers of the emitted code and its example declare or compilers predefine. */
static const char reserved[] =
    " alignas alignof asm auto bool break case char const constexpr continue default do double else enum extern false float for "
    "goto if inline int long nullptr register restrict return short signed sizeof static static_assert struct switch "
    "thread_local "
    "true typedef typeof typeof_unqual union unsigned void volatile while main linux unix i386 defined "
    "and and_eq atomic_cancel atomic_commit atomic_noexcept bitand bitor catch char8_t class co_await co_return co_yield compl "
    "concept const_cast consteval constinit decltype delete dynamic_cast explicit export friend mutable namespace new noexcept "
    "not "
    "not_eq operator or or_eq private protected public reflexpr reinterpret_cast requires static_cast synchronized template this "
    "throw try typeid typename using virtual wchar_t xor xor_eq std final override import module "
    "memccpy memchr memcmp memcpy memfrob memmem memmove mempcpy memrchr memset rawmemchr stpcpy stpncpy strcasecmp strcasestr "
    "strcat strchr strchrnul strcmp strcoll strcpy strcspn strdup strdupa strerror strfry strlcat strlcpy strlen strncasecmp "
    "strncat strncmp strncpy strndup strnlen strpbrk strrchr strsep strsignal strspn strstr strtok strverscmp strxfrm swab "
    "basename index rindex bcmp bcopy bzero ffs "
    "abort abs atexit atof atoi atol atoll bsearch calloc div exit free getenv labs ldiv llabs lldiv malloc mblen mbstowcs "
    "mbtowc "
    "qsort quick_exit rand random realloc srand srandom strtod strtof strtol strtold strtoll strtoul strtoull system wcstombs "
    "wctomb alloca NULL RAND_MAX offsetof assert errno "
    "FILE EOF BUFSIZ clearerr fclose feof ferror fflush fgetc fgetpos fgets fopen fprintf fputc fputs fread freopen fscanf fseek "
    "fsetpos ftell fwrite getc getchar gets getline perror popen pclose printf putc putchar puts remove rename rewind scanf "
    "setbuf "
    "setvbuf snprintf sprintf sscanf stderr stdin stdout tmpfile tmpnam ungetc vfprintf vfscanf vprintf vscanf vsnprintf "
    "vsprintf "
    "vsscanf dprintf "
    "isalnum isalpha isascii isblank iscntrl isdigit isgraph islower isprint ispunct isspace isupper isxdigit toascii tolower "
    "toupper clock time signal raise read write open close link unlink access environ fork sleep select "
    /* what the emitted files themselves call things */
    "stddef stdint string math stdio stdlib SEEK_SET SEEK_CUR SEEK_END param grad moment1 moment2 turned work progress m x v y d "
    "rows outputs real vec bits mask zeros head head_loss forward uniform tensors "
    "carried model self carry_state steps_of count_labels count_targets clear_rows stretch loss_steps STRETCHES read_row "
    "has_loss counted is_npy "
    "token_of COLUMNS ROW_BYTES "
    "STEPS BATCH VOCAB SIMD LANES KERNEL VECTOR_BYTES ROUND LARGEST CHAIN_RUN TOKEN_BYTES bits_of from_bits exp_of tanh_of "
    "sigmoid_of "
    "if_less scaled_exp exp_down growth power_of_two unaligned_vec give_up read_token read_sequence train_epoch "
    "forward_steps backward_steps sqrt_of load store splat lane_numbers sum_lanes largest_lane "
    "zip_low zip_high SHUFFLE APART refresh_part update_parts update_part squares squares_part sum_part end_part "
    "begin each job take_rows take_targets give_rows first_stream gradient_part loss_part predict_part chunk_loss chunk_gradient "
    "clear_parts past_rows past "
    "transpose_square roots_of quotient "
    "PREFETCH cross_entropy softmax rate_factor "
    "tokens move_window back_window join normal "
    "dot uniform_weights mark_starts all chunk j part reset run changed crew do_parts hash_of mutex serve start_threads wait_for "
    "normal_weights "
    "identity_weights orthogonal_weights ";

/* Each also with the suffixes f and l. */
static const char math_names[] =
    " acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh drem erf erfc exp exp10 exp2 expm1 fabs fdim finite "
    "floor "
    "fma fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf "
    "nan nearbyint nextafter nexttoward pow pow10 remainder remquo rint round roundeven scalb scalbln scalbn significand sin "
    "sincos sinh sqrt tan tanh tgamma trunc y0 y1 yn isinf isnan isfinite isnormal isgreater isgreaterequal isless islessequal "
    "islessgreater isunordered fpclassify signbit signgam NAN INFINITY HUGE_VAL HUGE_VALF HUGE_VALL MAXFLOAT ";

/* Functions of the emitted file, and of a library of its example, begin with these. */
static const char *const stems[] = {"times_", "back_",    "grad_",     "gather_", "scatter_", "add_",
                                    "chain_", "forward_", "backward_", "head_",   "pthread_", "PTHREAD_"};

static bool has_stem(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        size_t stem = strlen(stems[i]);
        if (length >= stem && memcmp(name, stems[i], stem) == 0) { return true; }
    }
    return false;
}

/* Whether `words` has the word. */
static bool holds(const char *words, const char *word, size_t length)
{
    char spaced[LONGEST + 3];
    (void)snprintf(spaced, sizeof spaced, " %.*s ", (int)length, word);
    return strstr(words, spaced) != NULL;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Such names are types of the C library's. */
static bool ends_in_t(const char *word, size_t length)
{
    return length >= 2 && memcmp(word + length - 2, "_t", 2) == 0;
}

bool bptt_is_reserved(const char *word, size_t length)
{
    const size_t stem = length > 0 && strchr("fl", word[length - 1]) != NULL ? length - 1 : length;
    return ends_in_t(word, length) || holds(reserved, word, length) || holds(math_names, word, length) ||
           holds(math_names, word, stem);
}

const char *bptt_name_fault(const char *name, size_t length)
{
    if (length == 0 || length > LONGEST) { return "it has more than 40 characters, or none"; }
    for (size_t i = 0; i < length; i++) {
        bool digit = name[i] >= '0' && name[i] <= '9';
        if (!is_letter(name[i]) && !(i > 0 && (digit || name[i] == '_'))) {
            return "it must begin with a letter and go on with letters, digits and _";
        }
    }
    if (length >= 4 && strncasecmp(name, "bptt", 4) == 0) { return "names that begin with bptt are taken"; }
    if (ends_in_t(name, length)) { return "names that end in _t belong to the C library"; }
    return has_stem(name, length) || bptt_is_reserved(name, length)
               ? "it is a word of C, C++, their libraries or the emitted file"
               : NULL;
}
