% local common = include("common.lua")
% local kernels = common.kernels
% local name, NAME, real, at, plus = common.name, common.NAME, common.real, common.at, common.plus
% local H = include("spell.lua")
% local chunk_size = common.chunk_macro
% local function whole(x) return string.format("%d", x or 0) end
/* ${name}.c: a network and its training, in one file.
 *
${include("banner.lua")}
 */
#ifndef ${NAME}_H
#include "${name}.h"
#endif

typedef ${name}_real real;

#ifdef BPTT_HOSTED /* compiled inside bptt, which has these kernels ready, from the same text */
#define SIMD ${lanes}
% if H.has_chain_function then
#define CHAIN_RUN 512
% end
void *memcpy(void *to, const void *from, size_t n);
% if spec.truncation == "block" then
void *memmove(void *to, const void *from, size_t n);
% end
void *memset(void *to, int byte, size_t n);
% if H.inits.normal or H.inits.orthogonal or unroll == "full" then
double log(double x);
% end
% local s = spec.schedule
% if s.kind == "step" or s.kind == "exponential" then
double pow(double x, double y);
% elseif s.kind == "cosine" then
double cos(double x);
% end
double sqrt(double x);
% for _, kernel in ipairs(H.used) do
extern ${kernels.signature(kernel, 110)};
% end
#else
#include <math.h>
#include <string.h>

% include("kernels/library.lua")(common, H.used)
% if H.has_chain_function then
#define CHAIN_RUN SIMD
% end
#endif

% local apart = false
% for _, action in ipairs(actions) do apart = apart or H.apart(action) end
% if apart then
/* For functions whose accumulators fill the registers: inlined into others, they would be spilled. */
#if defined(__GNUC__) && !defined(BPTT_HOSTED)
#define APART static __attribute__((noinline))
#else
#define APART static
#endif

% end
% if H.needs_zeros > 0 then
/* What a sum that starts from nothing starts from. */
static const real zeros[${H.needs_zeros}] = {0};

% end
/* --- the steps of the network, each for its shapes ---------------------------------------------------------------- */

% for _, action in ipairs(actions) do
% H.define(action)
% end
/* --- a chunk ------------------------------------------------------------------------------------------------------ */

% if threads > 1 then
/* Where a part begins, of n things that are handed out in units. */
static ptrdiff_t begin(ptrdiff_t n, ptrdiff_t unit, ptrdiff_t part)
{
    const ptrdiff_t first = (n + unit - 1) / unit * part / ${NAME}_THREADS * unit;
    return first < n ? first : n;
}

%   if H.drops then
static ptrdiff_t first_stream(const ${name} *m, const ${name}_share *own)
{
    return begin(${NAME}_BATCH, 1, own - m->parts);
}

%   end
% end
% for _, steps in ipairs(H.step_counts) do
/* ${H.count_words(steps)} forward: every state of the chunk. */
% write(common.statement("", "static void " .. H.forward_name(steps) .. "(" .. H.self_parameter .. common.data_parameters("input") .. H.steps_parameter .. ")"))
{
% H.forward(steps)
}

% end
% for _, rows in ipairs(H.head_rows) do
% write(common.comment("", "The output layer over " .. (rows > 0 and rows .. " rows, the whole chunk" or
%   "`rows` rows of the chunk, from `row` on") .. ": loss, and with it the gradients that need no time.  Every " ..
%   H.counted:sub(1, -2) .. "'s gradient is multiplied by `scale`."))
% write(common.statement("", "static double " .. H.head_name("head", rows) .. "(" .. H.self_parameter .. common.data_parameters("target") .. H.rows_parameter .. ", real scale)"))
{
% H.head(true, rows)
}

/* The same, forward only. */
% write(common.statement("", "static double " .. H.head_name("head_loss", rows) .. "(" .. H.self_parameter .. common.data_parameters("target") .. H.rows_parameter .. ")"))
{
% H.head(false, rows)
}

% end
% for _, steps in ipairs(H.back_counts) do
/* ${H.count_words(steps)} back: the adjoint of every state, then the gradients that sum over time. */
% write(common.statement("", "static void " .. H.backward_name(steps) .. "(" .. H.self_parameter .. common.data_parameters("x") .. H.back_parameter .. ")"))
{
% H.backward(steps)
}

% end
% if H.partial then
/* Stretches of steps that have a loss: the first, and the one after the last. */
enum { STRETCHES = ${#H.partial} };
static const ptrdiff_t loss_steps[STRETCHES][2] = {
% for _, stretch in ipairs(H.partial) do
    {${stretch[1]}, ${stretch[2]}},
% end
};

/* The rows of stretch i among the `rows` rows of a chunk: the first, and in *end the one after the last. */
% local batch = threads > 1 and "streams" or NAME .. "_BATCH"
static ptrdiff_t stretch(int i, uint32_t chunk, ${threads > 1 and "ptrdiff_t streams, " or ""}ptrdiff_t rows, ptrdiff_t *end)
{
    const ptrdiff_t before = (ptrdiff_t)chunk * ${NAME}_${chunk_size};
    const ptrdiff_t from = (loss_steps[i][0] - before) * ${batch}, to = (loss_steps[i][1] - before) * ${batch};
    *end = to < 0 ? 0 : to < rows ? to : rows;
    return from < 0 ? 0 : from < rows ? from : rows;
}

/* No loss, so no adjoint. */
static void clear_rows(${H.own_parameter}, ptrdiff_t row, ptrdiff_t rows)
{
% H.clear_rows()
}

% end
% if spec.reduction == "mean" then
/* ${H.counted:gsub("^%l", string.upper)} that count${spec.labels and "" or ": a target that is not a number is none"}. */
static ptrdiff_t count_${H.counted}(${common.data_parameters("target"):sub(3)}${H.partial and ", uint32_t chunk" or ""}, ptrdiff_t n)
{
% H.count_labels()
}

% end
% if spec.truncation == "block" then
/* The window moves on by so many steps: its last rows, and the state behind them, are those of the next steps. */
static void move_window(${H.own_parameter}${common.data_parameters("x")}, ptrdiff_t steps)
{
% H.move_window()
}

% elseif threads == 1 then
/* The state after the last step is where the next chunk starts. */
static void carry_state(${name} *m, ptrdiff_t steps)
{
% for _, s in ipairs(states) do
%   local slot = slots[s]
%   local size, from = spec.batch * slot.stride, plus("m->work", tostring(slot.offset))
    memcpy(${from}, ${from} + steps * ${size}, ${size * real_size}); /* ${slot.name} */
% end
}

% end
static ptrdiff_t steps_of(uint32_t chunk)
{
% if rest > 0 then
    return chunk + 1 < ${NAME}_CHUNKS ? ${NAME}_${chunk_size} : ${rest};
% else
    (void)chunk;
    return ${NAME}_${chunk_size};
% end
}

% if spec.truncation == "block" and spec.dropout then
/* Rows of the sequence before those of the window; less than none while it is not filled. */
static ptrdiff_t past_rows(uint32_t chunk)
{
    return ((ptrdiff_t)chunk * ${NAME}_STRIDE + steps_of(chunk) - ${NAME}_HORIZON) * ${NAME}_BATCH;
}

% end
% if spec.truncation == "block" then
/* From the last step of a block back over the last K steps of the sequence, as far as there are any. */
static void back_window(${H.self_parameter}, uint32_t chunk, ptrdiff_t steps)
{
    const ptrdiff_t seen = (ptrdiff_t)chunk * ${NAME}_STRIDE + steps, window = seen < ${NAME}_HORIZON ? seen : ${NAME}_HORIZON;
    const ptrdiff_t oldest = (${NAME}_HORIZON - window) * ${H.rows_of_step};
% H.back_window()
}

% end
% if spec.restarts then
/* Notes before which steps of a chunk the state is h_0: at its start where it starts a sequence, and where reset is not 0. */
static void mark_starts(${H.own_parameter}${common.reset_parameter}, ptrdiff_t rows, int first)
{
    uint8_t *const starts = (uint8_t *)${H.starts()}${spec.truncation == "block" and string.format(" + (%d - rows)", spec.K * streams) or ""};
%   if spec.resets then
    if (reset) {
        memcpy(starts, reset, (size_t)rows);
    } else {
        memset(starts, 0, (size_t)rows);
    }
%   else
    memset(starts, 0, (size_t)rows);
%   end
    if (first) { memset(starts, 1, ${streams}); }
}

% end
static void forward(${H.self_parameter}${common.data_parameters("input")}${common.reset_parameter}, uint32_t chunk)
{
% if spec.restarts then
    mark_starts(${H.own}${common.reset_argument()}, steps_of(chunk) * ${H.rows_of_step}, ${spec.carry and "0" or "chunk == 0"});
% end
% if spec.truncation == "block" then
    move_window(${H.own}${common.data_arguments("x")}, steps_of(chunk));
% end
% H.dispatch("forward")
}

% -- What a chunk is given, as parameters and as arguments.
% chunk_parameters = name .. " *m" .. common.data_parameters() .. common.reset_parameter .. ", uint32_t chunk"
% local chunk_arguments = "m" .. common.data_arguments() .. common.reset_argument() .. ", chunk"
% if threads > 1 then
%   parts = {common = common, H = H}
%   include("parts.c")
% else
%   local function chunk_locals()
    const ptrdiff_t steps = steps_of(chunk)${H.needs_rows and ", rows = steps * " .. NAME .. "_BATCH" or ""};
%     if spec.truncation == "block" then
    const ptrdiff_t first = (${NAME}_HORIZON - steps) * ${NAME}_BATCH;
%     end
    double loss = 0;
%   end
%   local function carry()
%     if spec.truncation ~= "block" then
    carry_state(m, steps);
%     end
%   end
/* The sum of a chunk's losses; the state goes on from its end. */
% write(common.statement("", "static double chunk_loss(" .. chunk_parameters .. ")"))
{
%   chunk_locals()
    forward(m${common.data_arguments("input")}${common.reset_argument()}, chunk);
%   H.call_heads("head_loss", "")
%   carry()
    return loss;
}

/* The same, and its gradient times `scale`. */
% write(common.statement("", "static double chunk_gradient(" .. chunk_parameters .. ", real scale)"))
{
%   chunk_locals()
%   if H.partial then
    ptrdiff_t done = 0;
%   end
    forward(m${common.data_arguments("input")}${common.reset_argument()}, chunk);
%   if H.partial and not accumulates then
%     H.clear_gradients(false)
%   end
%   H.call_heads("head", ", scale")
%   H.dispatch("backward")
%   carry()
    return loss;
}

% end
% local function chunk_begins()
%   if spec.reduction == "mean" then
    const ptrdiff_t rows = steps_of(chunk) * ${NAME}_BATCH;
    const ptrdiff_t ${H.counted} = count_${H.counted}(${common.data_arguments("target"):sub(3)}${H.chunk_argument}, rows);
    const double share = ${H.counted} > 0 ? 1.0 / (double)${H.counted} : 0;
%   end
%   if not spec.restarts and not spec.carry and spec.h0 ~= "given" then
    if (chunk == 0) { ${name}_reset(m); }
%   end
% end
% local share = spec.reduction == "mean" and " * share" or ""
% write(common.statement("", "double " .. name .. "_loss(" .. chunk_parameters .. ")"))
{
% chunk_begins()
% if spec.dropout and spec.truncation == "block" then
    const double masks = m->progress[BPTT_MASKS]; /* of the sequence */
% end
% if spec.dropout then
    m->progress[BPTT_MASKS] = 0; /* no dropout */
% end
% if spec.dropout and spec.truncation == "block" then
    const double loss = chunk_loss(${chunk_arguments})${share};
    m->progress[BPTT_MASKS] = masks;
    return loss;
% else
    return chunk_loss(${chunk_arguments})${share};
% end
}

% if accumulates then
/* Takes note of a chunk whose gradient is about to be added to m->grad; after an update all begins anew. */
static void join(${name} *m, uint32_t chunk${spec.reduction == "mean" and ", ptrdiff_t labels" or ""})
{
    const int first = m->progress[BPTT_PENDING] < 1;
    if (first) { memset(m->grad, 0, sizeof m->grad); }
% if spec.update == "sequence" then
    if (first || chunk == 0) { m->progress[BPTT_PENDING] += 1; }
% else
    (void)chunk;
    m->progress[BPTT_PENDING] += 1;
% end
% if spec.reduction == "mean" then
    m->progress[BPTT_LABELS] += (double)labels;
% end
}

% end
% write(common.statement("", "double " .. name .. "_gradient(" .. chunk_parameters .. ")"))
{
% chunk_begins()
% local updates = "m->progress[BPTT_UPDATES]"
% if accumulates then updates = string.format("(%s * %d + m->progress[BPTT_PENDING])", updates, spec.accumulate + 1) end
% if spec.dropout and spec.truncation == "block" then
    if (chunk == 0 || m->progress[BPTT_MASKS] < 1) { /* a number for all of a sequence */
        m->progress[BPTT_MASKS] = 1 + ${updates} * ${NAME}_CHUNKS;
    }
% elseif spec.dropout then
    m->progress[BPTT_MASKS] = 1 + ${updates} * ${NAME}_CHUNKS + chunk;
% end
% if accumulates then
    join(m, chunk${spec.reduction == "mean" and ", " .. H.counted or ""});
% end
    return chunk_gradient(${chunk_arguments}, (real)${(share == "" or accumulates) and "1" or "share"})${share};
}

/* --- the update --------------------------------------------------------------------------------------------------- */

% local o = spec.optimizer
% if common.scheduled then
/* What the schedule multiplies the rate with at the next update. */
static double rate_factor(const ${name} *m)
{
% if s.kind == "plateau" then
    const double reduction = m->progress[BPTT_REDUCTION];
% end
% if s.warmup or s.kind ~= "plateau" then
    ${(s.kind == "plateau" or s.kind == "constant" or not s.warmup) and "const " or ""}double n = m->progress[BPTT_UPDATES];
% end
% if s.warmup then
    if (n < ${whole(s.warmup)}) { return (n + 1) / ${whole(s.warmup)}${s.kind == "plateau" and " * reduction" or ""}; } /* warm-up */
% if s.kind ~= "plateau" and s.kind ~= "constant" then
    n -= ${whole(s.warmup)};
% end
% end
% if s.kind == "constant" then
    return 1;
% elseif s.kind == "step" then
    return pow(${hex(s.factor)}, (double)((int64_t)n / ${whole(s.every)})); /* ${H.decimal(s.factor)} every ${whole(s.every)} updates */
% elseif s.kind == "exponential" then
    return pow(${hex(s.factor)}, n); /* ${H.decimal(s.factor)} every update */
% elseif s.kind == "cosine" then
    if (n >= ${whole(s.steps)}) { return ${hex(s.floor or 0)}; }
    return ${hex(s.floor or 0)} + ${hex((1 - (s.floor or 0)) / 2)} * (1 + cos(${hex(math.pi)} * n / ${whole(s.steps)})); /* floor ${H.decimal(s.floor or 0)} */
% else
    return reduction;
% end
}

double ${name}_rate(const ${name} *m)
{
    return ${hex(o.rate)} * rate_factor(m); /* rate ${H.decimal(o.rate)} */
}

% end
% if s.kind == "plateau" then
void ${name}_observe(${name} *m, double loss)
{
    if (loss < m->progress[BPTT_BEST] * ${hex(1 - s.threshold)}) { /* threshold ${H.decimal(s.threshold)} */
        m->progress[BPTT_BEST] = loss;
        m->progress[BPTT_BAD] = 0;
        return;
    }
    m->progress[BPTT_BAD] += 1;
    if (m->progress[BPTT_BAD] > ${whole(s.patience)}) {
        m->progress[BPTT_REDUCTION] *= ${hex(s.factor)}; /* factor ${H.decimal(s.factor)} */
        m->progress[BPTT_BAD] = 0;
    }
}

% end
double ${name}_update(${name} *m)
{
% local averages = accumulates and spec.reduction == "mean"
% if averages then
    const double labels = m->progress[BPTT_LABELS], share = labels > 0 ? 1 / labels : 0;
% H.sum_squares("const double norm = share * sqrt(", ");")
% else
% H.sum_squares("const double norm = sqrt(", ");")
% end
    if (!(norm <= ${hex(H.largest)})) { return norm; } /* infinite or not a number */
% if common.scheduled then
    const double rate = ${name}_rate(m);
% end
    m->progress[BPTT_UPDATES] += 1;
% if o.beta1 then
    m->progress[BPTT_POWER1] *= ${hex(o.beta1)}; /* beta1 ${H.decimal(o.beta1)} */
    m->progress[BPTT_POWER2] *= ${hex(o.beta2)}; /* beta2 ${H.decimal(o.beta2)} */
% end
% if spec.clip == "norm" then
    const double scale = ${averages and "share * (" or ""}norm > ${hex(spec.limit)} ? ${hex(spec.limit)} / norm : 1${averages and ")" or ""}; /* clip by norm ${H.decimal(spec.limit)} */
% else
    const double scale = ${averages and "share" or "1"};
% end
    const real with[] = {
        (real)scale,
% if spec.clip == "value" then
        (real)${hex(spec.limit)}, /* clip by value ${H.decimal(spec.limit)} */
% end
% for _, constant in ipairs(H.constants) do
        (real)${constant[1]}, /* ${constant[2]} */
% end
    };
% H.update()
% if accumulates then
    m->progress[BPTT_LABELS] = 0;
    m->progress[BPTT_PENDING] = 0;
% end
    ${name}_refresh(m);
    return norm;
}

void ${name}_refresh(${name} *m)
{
% H.derive()
% if threads > 1 and H.turns then
    job all = {.m = m};
    (void)each(&all, refresh_part);
% else
% H.refresh()
% end
}

double ${name}_train(${name} *m${common.data_parameters()}${common.reset_parameter})
{
    double loss = 0;
% if spec.reduction == "mean" then
    double ${H.counted} = 0;
% end
    for (uint32_t chunk = 0; chunk < ${NAME}_CHUNKS; chunk++) {
        const ptrdiff_t rows = steps_of(chunk) * ${NAME}_BATCH;
% if spec.reduction == "mean" then
        const double count = (double)count_${H.counted}(${common.data_arguments("target"):sub(3)}${H.chunk_argument}, rows);
        loss += ${name}_gradient(m${common.data_arguments()}${common.reset_argument()}, chunk) * count;
        ${H.counted} += count;
% else
        loss += ${name}_gradient(m${common.data_arguments()}${common.reset_argument()}, chunk);
% end
% if accumulates then
        if (${spec.update == "sequence" and "chunk + 1 == " .. NAME .. "_CHUNKS && " or ""}m->progress[BPTT_PENDING] >= ${spec.accumulate}) {
            const double norm = ${name}_update(m);
            if (!(norm <= ${hex(H.largest)})) { return norm; }
        }
% else
        const double norm = ${name}_update(m);
        if (!(norm <= ${hex(H.largest)})) { return norm; }
% end
% for _, read in ipairs(common.data) do
        ${read.name} += ${common.values(read, "rows")};
% end
% if spec.resets then
        if (reset) { reset += rows; }
% end
    }
    return ${spec.reduction == "mean" and H.counted .. " > 0 ? loss / " .. H.counted .. " : 0" or "loss"};
}

/* --- one step, for use -------------------------------------------------------------------------------------------- */

void ${name}_predict(${name} *m${common.data_parameters("input")}${common.reset_parameter}, ${name}_real *${spec.labels and "probabilities" or "outputs"})
{
% if spec.restarts and threads == 1 then
    mark_starts(m${common.reset_argument()}, ${NAME}_BATCH, 0);
% end
% if spec.dropout and spec.truncation == "block" then
    const double masks = m->progress[BPTT_MASKS]; /* of the sequence */
% end
% if spec.dropout then
    m->progress[BPTT_MASKS] = 0; /* no dropout */
% end
% if threads > 1 then
    const job all = {.m = m${common.data_initializers("input")}${spec.resets and ", .reset = reset" or ""}, .outputs = ${spec.labels and "probabilities" or "outputs"}};
    for (int part = 0; part < ${NAME}_THREADS; part++) { predict_part(&all, part); } /* in order: two may have a stream */
% else
%   H.predict()
%   if spec.truncation ~= "block" then
    carry_state(m, 1);
%   end
% end
% if spec.dropout and spec.truncation == "block" then
    m->progress[BPTT_MASKS] = masks;
% end
}

/* --- start -------------------------------------------------------------------------------------------------------- */

void ${name}_reset(${name} *m)
{
% for _, s in ipairs(states) do
    real *const ${slots[s].variable} = ${plus("m->" .. H.between, tostring(H.state_offset(s)))};
%   local h0 = H.h0[s]
%   if h0 then
    for (ptrdiff_t row = 0; row < ${spec.batch}; row++) {
        memcpy(${plus(slots[s].variable, "row * " .. slots[s].stride)}, ${plus("m->param", tostring(h0.offset))}, ${slots[s].cols * real_size});
    }
%   else
    memset(${slots[s].variable}, 0, ${spec.batch * slots[s].stride * real_size});
%   end
% end
}
% if spec.h0 == "given" then

void ${name}_start(${name} *m, const real *h0)
{
    ${name}_reset(m);
%   local from = 0
%   for _, s in ipairs(states) do
    for (ptrdiff_t row = 0; row < ${spec.batch}; row++) {
        memcpy(${plus("m->" .. H.between, tostring(H.state_offset(s)))} + row * ${slots[s].stride}, ${plus("h0", tostring(from))} + row * ${slots[s].cols}, ${slots[s].cols * real_size}); /* ${slots[s].name} */
    }
%     from = from + spec.batch * slots[s].cols
%   end
}
% end

% local draws = H.inits.uniform or H.inits.normal or H.inits.orthogonal
% if draws then
/* SplitMix64 (Steele, Lea, Flood 2014), as a number in [0, 1). */
static double uniform(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(int64_t)(z >> 11) * 0x1p-53;
}

% end
% if H.inits.normal or H.inits.orthogonal then
/* A number of the normal distribution around 0. */
static double normal(double scale, uint64_t *state)
{
    double a = 0, s = 0;
    while (!(s > 0 && s < 1)) { /* Marsaglia's polar method */
        const double u = 2 * uniform(state) - 1, v = 2 * uniform(state) - 1;
        a = u;
        s = u * u + v * v;
    }
    return scale * a * sqrt(-2 * log(s) / s);
}

% end
% for _, f in ipairs {{"uniform", "in [-scale, scale)", "scale * (2 * uniform(state) - 1)"},
%   {"normal", "of standard deviation `scale`", "normal(scale, state)"}} do
% if H.inits[f[1]] then
/* Weights ${f[2]}. */
static void ${f[1]}_weights(real *w, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t stride, double scale, uint64_t *state)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < cols; j++) { w[i * stride + j] = (real)(${f[3]}); }
    }
}

% end
% end
% if H.inits.identity then
static void identity_weights(real *w, ptrdiff_t n, ptrdiff_t stride, double scale)
{
    for (ptrdiff_t i = 0; i < n; i++) { w[i * stride + i] = (real)scale; }
}

% end
% if H.inits.orthogonal then
/* Vectors of n numbers that lie `step` apart. */
static double dot(const real *a, const real *b, ptrdiff_t n, ptrdiff_t step)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) { sum += (double)a[i * step] * (double)b[i * step]; }
    return sum;
}

/* Orthonormal rows, or columns where these are fewer, times `scale`: normal numbers, each vector made orthogonal to those before
 * it, twice, which is enough (Gram-Schmidt). */
static void orthogonal_weights(real *w, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t stride, double scale, uint64_t *state)
{
    const ptrdiff_t count = rows < cols ? rows : cols, n = rows < cols ? cols : rows;
    const ptrdiff_t next = rows < cols ? stride : 1, step = rows < cols ? 1 : stride;
    for (ptrdiff_t k = 0; k < count; k++) {
        real *const v = w + k * next;
        double length = 0;
        while (!(length > 0x1p-20)) {
            for (ptrdiff_t i = 0; i < n; i++) { v[i * step] = (real)normal(1, state); }
            for (ptrdiff_t j = 0; j < 2 * k; j++) {
                const real *const other = w + j % k * next;
                const double along = dot(v, other, n, step);
                for (ptrdiff_t i = 0; i < n; i++) { v[i * step] = (real)((double)v[i * step] - along * (double)other[i * step]); }
            }
            length = sqrt(dot(v, v, n, step));
        }
        for (ptrdiff_t i = 0; i < n; i++) { v[i * step] = (real)((double)v[i * step] / length); }
    }
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < cols; j++) { w[i * stride + j] = (real)(scale * (double)w[i * stride + j]); }
    }
}

% end
void ${name}_init(${name} *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
% if not draws then
    (void)seed;
% end
    m->progress[BPTT_POWER1] = 1;
    m->progress[BPTT_POWER2] = 1;
% if s.kind == "plateau" then
    m->progress[BPTT_BEST] = ${hex(0x1.fffffffffffffp1023)}; /* more than any loss */
    m->progress[BPTT_REDUCTION] = 1;
% end
% for _, p in ipairs(params) do
% if p.rank == 2 then
    ${H.first_weights(p)}
% elseif p.first ~= 0 then
    for (ptrdiff_t j = 0; j < ${p.cols}; j++) { m->param[${p.offset} + j] = (real)${hex(p.first)}; } /* ${p.name}: ${H.decimal(p.first)} */
% end
% end
    ${name}_refresh(m);
}

/* --- the model as data -------------------------------------------------------------------------------------------- */

% for _, f in ipairs {{"init", "void", ", uint64_t seed", ", seed"}, {"reset", "void", "", ""}, {"refresh", "void", "", ""},
%   {"gradient", "double", ", const bptt_rows *rows, uint32_t chunk", common.data_arguments(nil, nil, "rows->") .. common.reset_argument("rows->") .. ", chunk"}, {"update", "double", "", ""},
%   {"loss", "double", ", const bptt_rows *rows, uint32_t chunk", common.data_arguments(nil, nil, "rows->") .. common.reset_argument("rows->") .. ", chunk"}} do
static ${f[2]} bptt_any_${f[1]}(const bptt_model *self, void *m${f[3]})
{
% if threads == 1 or f[1] == "init" or f[1] == "reset" then
    (void)self;
% else
    if (self->team) { ((${name} *)m)->threads.team = self->team; }
% end
    ${f[2] == "double" and "return " or ""}${name}_${f[1]}(m${f[4]});
}

% end
static void bptt_any_predict(const bptt_model *self, void *m, const bptt_rows *rows, void *outputs)
{
    (void)self;
    ${name}_predict(m${common.data_arguments("input", nil, "rows->")}${common.reset_argument("rows->")}, outputs);
}

% if common.scheduled then
static double bptt_any_rate(const bptt_model *self, const void *m)
{
    (void)self;
    return ${name}_rate(m);
}

% end
% if s.kind == "plateau" then
static void bptt_any_observe(const bptt_model *self, void *m, double loss)
{
    (void)self;
    ${name}_observe(m, loss);
}

% end
static const bptt_tensor tensors[] = {
% for _, p in ipairs(params) do
    {"${p.name}", "${p.file}", ${p.twin ~= "" and '"' .. p.twin .. '"' or "0"}, ${p.rank}, ${p.rows}, ${p.cols}, ${p.stride}, ${p.offset}, ${p.part}, ${p.parts}, ${p.table and 1 or 0}},
% end
};

% local carried, first_carried = H.carried()
static const bptt_tensor carried[] = {
% for _, c in ipairs(carried) do
    {"${c[1]}", "${c[1]}", 0, 2, ${c[2]}, ${c[3]}, ${c[4]}, ${c[5]}, 0, 1, 0},
% end
};

const bptt_model ${name}_model = {
    .abi = BPTT_ABI,
    .real_size = sizeof(real),
    .name = "${name}",
    .digest = "${spec.digest}",
    .hidden = ${NAME}_HIDDEN,
    .vocab = ${spec.vocab > 0 and NAME .. "_VOCAB" or "0"},
    .inputs = ${spec.inputs},
    .targets = ${spec.targets},
    .steps = ${NAME}_STEPS,
    .horizon = ${NAME}_HORIZON,
    .chunk_steps = ${NAME}_${chunk_size},
    .batch = ${NAME}_BATCH,
    .chunks = ${NAME}_CHUNKS,
    .threads = ${threads},
    .bytes = sizeof(${name}),
    .parameters = ${NAME}_PARAMETERS,
    .block = ${block_size},
    .tensor_count = ${#params},
    .state_count = ${#carried},
    .moment_count = ${moments},
    .tensors = tensors,
    .states = carried,
    .param = offsetof(${name}, param),
    .grad = offsetof(${name}, grad),
    .moment = {${moments > 0 and "offsetof(" .. name .. ", moment1)" or "0"}, ${moments > 1 and "offsetof(" .. name .. ", moment2)" or "0"}},
    .state = offsetof(${name}, ${H.between}) + ${first_carried} * sizeof(real),
    .progress = offsetof(${name}, progress),
    .progress_count = ${progress_count},
% if accumulates then
    .accumulate = ${spec.accumulate},
    .whole_sequence = ${spec.update == "sequence" and 1 or 0},
% end
    .init = bptt_any_init,
    .reset = bptt_any_reset,
    .refresh = bptt_any_refresh,
    .gradient = bptt_any_gradient,
    .update = bptt_any_update,
    .loss = bptt_any_loss,
    .predict = bptt_any_predict,
% if common.scheduled then
    .rate = bptt_any_rate,
% end
% if s.kind == "plateau" then
    .observe = bptt_any_observe,
% end
};

/* The struct takes the bytes that the plan counted, whatever compiled it. */
typedef char ${name}_size_is_as_planned[sizeof(${name}) == ${struct_bytes} ? 1 : -1];
