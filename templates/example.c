% local name, NAME = spec.name, string.upper(spec.name)
% local alphabet = spec.alphabet
% local width = spec.vocab <= 256 and 1 or spec.vocab <= 65536 and 2 or 4
% local unit = alphabet ~= "" and "character" or width == 1 and "byte" or "little-endian " .. 8 * width .. "-bit number"
% local data = include("common.lua").data
% local text = spec.tokens and spec.labels and #data == 2 -- tokens alone: the next one is the label
% local columns = 0
% for _, read in ipairs(data) do columns = columns + read.width end
/* ${name}_main.c: trains ${name} on a file and says how it goes.
 * An example to start from: a program needs no more than this.
 *
% if text then
 *   ./${name} FILE [EPOCHS]       each ${unit} of FILE is a token
% else
 *   ./${name} FILE [EPOCHS]       FILE holds ${real_size == 8 and "double" or "float"}s, a row of ${columns} for each step of a text:
% for _, read in ipairs(data) do
 *                                 ${read.width} ${read.what}
% end
% end
 */
#include "${name}.h"

#include <math.h>
% if threads > 1 then
#include <pthread.h>
% end
#include <stdio.h>
#include <stdlib.h>
% if alphabet ~= "" or not text then
#include <string.h>
% end

% if text then
enum { STEPS = ${NAME}_STEPS, BATCH = ${NAME}_BATCH, VOCAB = ${NAME}_VOCAB, TOKEN_BYTES = ${width} };
% else
enum { STEPS = ${NAME}_STEPS, BATCH = ${NAME}_BATCH, COLUMNS = ${columns} };
enum { ROW_BYTES = COLUMNS * (int)sizeof(${name}_real) };
% end

static ${name} model; /* ${struct_bytes} bytes, no heap */
% if text then
static ${name}_token x[(size_t)STEPS * BATCH], y[(size_t)STEPS * BATCH];
% else
% for _, read in ipairs(data) do
static ${read.type} ${read.name}[(size_t)STEPS * BATCH${read.width > 1 and " * " .. read.width or ""}]; /* ${read.what} */
% end
% end
% if spec.resets then
static uint8_t reset[(size_t)STEPS * BATCH]; /* not 0: a document starts */
% end

static long counted; /* ${spec.labels and "labels" or "targets"} of the sequence that its loss is ${spec.reduction == "mean" and "the mean" or "the sum"} of */

static void give_up(const char *why)
{
    fprintf(stderr, "${name}: %s\n", why);
    exit(1);
}

% if text then
static ${name}_token read_token(FILE *in)
{
% if alphabet ~= "" then
    static const unsigned char characters[VOCAB] = {
% for i = 1, #alphabet, 24 do
%   local codes = table.concat({string.byte(alphabet, i, i + 23)}, ", ")
        ${codes},
% end
    };
    const int byte = getc(in);
    if (byte == EOF) { give_up("cannot read the file"); }
    const unsigned char *found = (const unsigned char *)memchr(characters, byte, VOCAB);
    if (found == NULL) { give_up("the file has a character that is not in the alphabet"); }
    return (${name}_token)(found - characters);
% else
    unsigned char bytes[TOKEN_BYTES];
    ${name}_token token = 0;
    if (fread(bytes, 1, TOKEN_BYTES, in) != TOKEN_BYTES) { give_up("cannot read the file"); }
    for (int i = TOKEN_BYTES; i > 0; i--) { token = token << 8 | bytes[i - 1]; }
% if spec.vocab < 256 ^ width then
    if (token >= VOCAB) { give_up("the file has a token that is not below ${spec.vocab}"); }
% end
    return token;
% end
}
% else
% if spec.vocab > 0 then
static ${name}_token token_of(${name}_real real)
{
    if (!(real >= 0 && real < ${NAME}_VOCAB)) { give_up("the file has a token that is not below ${spec.vocab}"); }
    return (${name}_token)real;
}

% end
/* The next row of the file to step and stream `at` of the sequence; in == NULL: there is none, so no label or target either. */
static void read_row(FILE *in, long at)
{
    ${name}_real row[COLUMNS] = {0};
    if (in != NULL && fread(row, sizeof row[0], COLUMNS, in) != COLUMNS) { give_up("cannot read the file"); }
% local column = 0
% for _, read in ipairs(data) do
% if read.what == "tokens" then
    ${read.name}[at] = token_of(row[${column}]);
% elseif read.what == "labels" then
    ${read.name}[at] = in != NULL ? token_of(row[${column}]) : ${NAME}_VOCAB;
% else
    for (int i = 0; i < ${read.width}; i++) { ${read.name}[at * ${read.width} + i] = ${read.what == "targets" and "in == NULL ? (" .. name .. "_real)NAN : " or ""}row[${column} + i]; }
% end
% column = column + read.width
% end
}
% end

% if spec.loss_steps then
/* Whether the network has a loss at a step of a sequence, from 0. */
static int has_loss(long t)
{
% local conditions = {}
% for _, stretch in ipairs(spec.loss_steps) do
%   local from, to = stretch[1], stretch[2]
%   conditions[#conditions + 1] = to == from + 1 and "t == " .. from or string.format("(t >= %d && t < %d)", from, to)
% end
    ${include("common.lua").wrap("return ", conditions, " || ", "        ")};
}

% end
% if threads > 1 then
/* --- ${threads} threads, this one among them, for the parts of the work --------------------------------------------------- */

static struct {
    bptt_team team;
    void (*work)(void *job, int part);
    void *job;
    unsigned round;   /* of work */
    int next, undone; /* the part that nobody has begun; how many are not done */
} crew;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the crew */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* Comes back, and has the mutex, when another round than *round has begun, or (NULL) when this one is done.  Looks
 * often before it sleeps, since a round is short. */
static void wait_for(const unsigned *round)
{
    enum { LOOKS = 2000 };
    for (int looks = 0;; looks++) {
        pthread_mutex_lock(&mutex);
        if (round != NULL ? crew.round != *round : crew.undone == 0) { return; }
        if (looks >= LOOKS) { pthread_cond_wait(&changed, &mutex); }
        pthread_mutex_unlock(&mutex);
    }
}

/* Does parts while there are any; has the mutex before and after. */
static void do_parts(void)
{
    while (crew.next < ${NAME}_THREADS) {
        const int part = crew.next++;
        pthread_mutex_unlock(&mutex);
        crew.work(crew.job, part);
        pthread_mutex_lock(&mutex);
        if (--crew.undone == 0) { pthread_cond_broadcast(&changed); }
    }
}

static void *serve(void *unused)
{
    for (unsigned round = 0;; pthread_mutex_unlock(&mutex)) {
        wait_for(&round);
        round = crew.round;
        do_parts();
    }
    return unused;
}

static void run(bptt_team *team, void (*work)(void *job, int part), void *job)
{
    (void)team;
    pthread_mutex_lock(&mutex);
    crew.work = work;
    crew.job = job;
    crew.next = 0;
    crew.undone = ${NAME}_THREADS;
    crew.round++;
    pthread_cond_broadcast(&changed);
    do_parts();
    pthread_mutex_unlock(&mutex);
    wait_for(NULL);
    pthread_mutex_unlock(&mutex);
}

static void start_threads(void)
{
    pthread_t thread;
    for (int i = 1; i < ${NAME}_THREADS; i++) {
        if (pthread_create(&thread, NULL, serve, NULL) != 0) { give_up("cannot start a thread"); }
    }
    crew.team.run = run;
    model.threads.team = &crew.team;
}

% end
/* The steps of each stream from `position` on.  Stream b is the b-th of BATCH equal parts of the file, so the state that
 * a sequence leaves is where the next one goes on.  Past the end of a stream there is no label${text and "" or " or target"}. */
static void read_sequence(FILE *in, long length, long position)
{
    counted = 0;
    for (long b = 0; b < BATCH; b++) {
        if (fseek(in, (b * length + position) * ${text and "TOKEN_BYTES" or "ROW_BYTES"}, SEEK_SET) != 0) { give_up("cannot seek in the file"); }
% if not text then
%   if spec.resets then
        /* a document starts; you may know of more */
        for (long t = 0; t < STEPS; t++) { reset[t * BATCH + b] = position + t == 0; }
%   end
        for (long t = 0; t < STEPS; t++) {
            const long at = t * BATCH + b;
            read_row(position + t < length ? in : NULL, at);
% local has = spec.loss_steps and "if (has_loss(t)) { " or ""
% local done = spec.loss_steps and " }" or ""
% if spec.labels then
            ${has}counted += y[at] < ${NAME}_VOCAB;${done}
% elseif spec.targets == 1 then
            ${has}counted += !isnan(d[at]);${done}
% else
            for (long i = 0; i < ${spec.targets}; i++) { ${has}counted += !isnan(d[at * ${spec.targets} + i]);${done} }
% end
        }
% else
        ${name}_token token = read_token(in);
% if spec.resets then
%   if spec.separator >= 0 then
        static ${name}_token last[BATCH]; /* of the sequence before */
%   end
        for (long t = 0; t < STEPS; t++) {
%   if spec.separator >= 0 then
            reset[t * BATCH + b] = position + t == 0 || last[b] == ${spec.separator}; /* a document starts behind a separator */
            last[b] = token;
%   else
            reset[t * BATCH + b] = position + t == 0; /* a document starts; you may know of more */
%   end
% else
        for (long t = 0; t < STEPS; t++) {
% end
            const int inside = position + t < length;
            x[t * BATCH + b] = inside ? token : 0;
            token = inside ? read_token(in) : VOCAB;
            y[t * BATCH + b] = token;
% if spec.loss_steps then
            if (has_loss(t)) { counted += token < VOCAB; }
% else
            counted += token < VOCAB;
% end
        }
% end
    }
}

/* Once over the file, `length` labels a stream.  Returns the mean loss. */
static double train_epoch(FILE *in, long length)
{
    double sum = 0, all = 0;
    ${name}_reset(&model);
    for (long position = 0; position < length; position += STEPS) {
        read_sequence(in, length, position);
        const double loss = ${name}_train(&model${include("common.lua").data_arguments()}${include("common.lua").reset_argument()});
        if (!isfinite(loss)) { give_up("training diverged: lower the rate"); }
% if spec.reduction == "mean" then
        sum += loss * (double)counted;
% else
        sum += loss;
% end
        all += (double)counted;
    }
    if (!(all > 0)) { give_up("the file has no ${spec.labels and "label" or "target"} where the network has a loss"); }
    return sum / all;
}

% if not text then
/* Whether it begins as numpy's files do: their numbers alone are what its tofile writes.  Leaves the file at its end. */
static int is_npy(FILE *in)
{
    static const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    unsigned char begin[sizeof magic];
    if (fseek(in, 0, SEEK_SET) != 0) { give_up("cannot seek in the file"); }
    const int found = fread(begin, 1, sizeof begin, in) == sizeof begin && memcmp(begin, magic, sizeof begin) == 0;
    if (fseek(in, 0, SEEK_END) != 0) { give_up("cannot seek in the file"); }
    return found;
}

% end
int main(int count, char **arguments)
{
    const long epochs = count > 2 ? strtol(arguments[2], NULL, 10) : 1;
    if (count < 2 || count > 3 || epochs < 1) { give_up("usage: ./${name} FILE [EPOCHS]"); }
    FILE *in = fopen(arguments[1], "rb");
    if (in == NULL || fseek(in, 0, SEEK_END) != 0) { give_up("cannot open the file"); }
% if text then
    const long length = (ftell(in) / TOKEN_BYTES - 1) / BATCH; /* the last token of the file is a label only */
% else
    if (ftell(in) % ROW_BYTES != 0 || is_npy(in)) {
        give_up("the file must hold nothing but rows of ${columns} ${real_size == 8 and "double" or "float"}s");
    }
    const long length = ftell(in) / ROW_BYTES / BATCH;
% end
    if (length < 1) { give_up("the file is too short${spec.batch > 1 and " for " .. spec.batch .. " streams" or ""}"); }
    ${name}_init(&model, ${NAME}_SEED);
% if threads > 1 then
    start_threads();
% end
    for (long epoch = 1; epoch <= epochs; epoch++) {
% local unit = text and "nats a token" or spec.labels and "nats a label" or "a number"
% if spec.schedule.kind == "plateau" then
        const double loss = train_epoch(in, length);
        printf("epoch %ld: loss %.4f ${unit}, rate %g\n", epoch, loss, ${name}_rate(&model));
        ${name}_observe(&model, loss); /* better: the loss on data held out */
% else
        printf("epoch %ld: loss %.4f ${unit}\n", epoch, train_epoch(in, length));
% end
        if (fflush(stdout) != 0) { give_up("cannot write"); }
    }
    return fclose(in) != 0;
}
