% local common = include("common.lua")
% local name, NAME, real = common.name, common.NAME, common.real
/* ${name}.h: the public face of ${name}.c.
 *
${include("banner.lua")}
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#ifdef BPTT_HOSTED /* compiled inside bptt: no file is read */
typedef unsigned char uint8_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#define offsetof(type, member) __builtin_offsetof(type, member)
#else
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ${NAME}_HIDDEN ${spec.hidden} /* H */
% if spec.vocab > 0 then
#define ${NAME}_VOCAB ${spec.vocab} /* V */
% end
% if spec.inputs > 0 then
#define ${NAME}_INPUTS ${spec.inputs} /* D */
% end
% if spec.targets > 0 then
#define ${NAME}_TARGETS ${spec.targets} /* Q */
% end
#define ${NAME}_STEPS ${spec.T} /* T */
#define ${NAME}_HORIZON ${spec.K} /* K */
% if spec.truncation == "block" then
#define ${NAME}_STRIDE ${spec.stride} /* steps of a block */
% end
#define ${NAME}_BATCH ${spec.batch} /* B */
#define ${NAME}_CHUNKS ${chunks} /* chunks of a sequence */
% if spec.resets then
#define ${NAME}_RESETS 1 /* functions take `reset` */
% end
% if spec.h0 == "given" then
%   local reals = 0
%   for _, s in ipairs(states) do reals = reals + spec.batch * slots[s].cols end
#define ${NAME}_START ${reals} /* reals that ${name}_start reads */
% end
% if threads > 1 then
#define ${NAME}_THREADS ${threads} /* parts of the work */
#define ${NAME}_STREAMS ${streams} /* sequences of a part, at most */
% end
#define ${NAME}_PARAMETERS ${parameters} /* without padding */
#define ${NAME}_SEED ${spec.seed}u /* the spec's seed, for ${name}_init */

typedef ${real} ${name}_real;
% if spec.vocab > 0 then
typedef uint32_t ${name}_token; /* below V${spec.labels and "; a label may be V or more: no loss there" or ""} */
% end

#if defined(__GNUC__) && !defined(BPTT_HOSTED)
#define ${NAME}_ALIGNED __attribute__((aligned(${math.max(16, 4 * simd)})))
#else
#define ${NAME}_ALIGNED
#endif

% if threads > 1 then
struct bptt_team; /* below; without one the parts of the work are done one after the other, with the same results */

% end
% if threads > 1 then
/* What a part of the work has of its own. */
typedef struct ${name}_share {
    ${NAME}_ALIGNED ${name}_real work[${work_size}]; /* states and activations of a chunk, of its streams */
%   if own_size > 0 then
    ${name}_real grad[${own_size}]; /* gradients from its streams */
%   end
%   if token_count > 0 then
    uint32_t tokens[${token_count}]; /* of the window */
%   end
%   for _, read in ipairs(common.data) do
    ${read.type} ${read.name}[${given * read.width}]; /* ${read.what} of a chunk */
%   end
%   if spec.resets then
    uint8_t reset[${given}]; /* where documents start */
%   end
} ${name}_share;

% end
/* The whole model, owned and placed by the caller: static, on a stack, in a heap.  Static, automatic and allocated
 * (aligned_alloc) memory must be aligned as declared, to ${math.max(16, 4 * simd)} bytes.
 * Weights are stored [inputs][outputs]${lanes > 1 and ", rows padded with zeros to a multiple of " .. lanes .. " reals" or ""}. */
typedef struct ${name} {
    /* Parameters:
% for _, p in ipairs(params) do
     *   ${string.format("%-5s", p.name)} [${p.rows}][${p.cols}]${p.stride > p.cols and ", rows of " .. p.stride or ""}, at ${p.offset}
% end
     */
    ${NAME}_ALIGNED ${name}_real param[${block_size}];
    ${name}_real grad[${block_size}]; /* gradients, laid out as param */
% for i = 1, moments do
    ${name}_real moment${i}[${block_size}]; /* of the optimizer, laid out as param */
% end
% if turned_size > 0 then
%   local rows = ""
%   for _, s in ipairs(slots) do if s.kind == "one" then rows = ", and what depends on them alone" end end
    ${name}_real turned[${turned_size}]; /* transposed copies of weights for the backward pass${rows} */
% end
% if threads == 1 then
    ${name}_real work[${work_size}]; /* states and activations of a chunk */
%   if token_count > 0 then
    uint32_t tokens[${token_count}]; /* of the window */
%   end
% else
    ${name}_real carried[${carried_size}]; /* ${spec.truncation == "block" and "the window and the states" or "states"} between chunks */
    ${name}_share parts[${threads}];
% end
% if threads > 1 then
    double progress[${progress_count}]; /* ${progress_count == 3 and "updates done, beta1^updates, beta2^updates" or "BPTT_UPDATES and so on, below"} */
    union {
        struct bptt_team *team; /* who does the ${threads} parts of the work, supplied by the caller after ${name}_init */
        double padding[${progress_size - progress_count}];
    } threads;
% else
    double progress[${progress_size}]; /* ${progress_count == 3 and "updates done, beta1^updates, beta2^updates" or "BPTT_UPDATES and so on, below"}; the rest is padding */
% end
} ${name};

/* Parameters from the seed; moments and state to their start. */
void ${name}_init(${name} *m, uint64_t seed);

/* State to ${spec.h0 == "learned" and "h_0, the trained start" or "zero"}, as at the start of a text. */
void ${name}_reset(${name} *m);
% if spec.h0 == "given" then

% write(common.comment("", "The state before a sequence: of each of the " .. #states .. " states rows [B][its size], one after the other.  " ..
%   "Without this call a sequence goes on from where the one before ended."))
void ${name}_start(${name} *m, const ${name}_real *h0);
% end
% if spec.resets then

% write(common.comment("", "`reset` below, one for each step and sequence as the inputs are: not 0 where a document starts.  The state " ..
%   "before that step is " .. (spec.h0 == "learned" and "h_0" or "zero") .. ", and nothing flows back beyond it.  NULL: nowhere."))
% end

% local every = spec.accumulate > 1 and spec.accumulate .. " " .. spec.update .. "s" or spec.update
% write(common.comment("", "Trains on one sequence, " .. common.shapes(nil, "[T][B]") .. ": every chunk forward, backward" ..
%   (accumulates and "; an update after every " .. every or ", update") .. ".  Returns the loss, " .. spec.reduction .. " over the " ..
%   (spec.labels and "labels" or "targets that are numbers") .. ".  Not a number, or infinite: training has diverged, and the last " ..
%   "update was not made."))
double ${name}_train(${name} *m${common.data_parameters()}${common.reset_parameter});

% write(common.comment("", "Chunk `chunk` of a sequence (0 .. CHUNKS - 1; " .. common.chunk_steps_word .. " steps each, the last one what " ..
%   "remains) forward and backward: " .. (accumulates and "adds sums to" or "overwrites") .. " m->grad, advances the state, updates " ..
%   "nothing.  " .. common.data_arguments():sub(3) .. ": [steps of the chunk][B].  Returns the loss, " .. spec.reduction ..
%   " over the " .. (spec.labels and "labels" or "targets") .. "." ..
%   (accumulates and "  The first chunk after an update overwrites m->grad." or "")))
% write(common.statement("", "double " .. name .. "_gradient(" .. name .. " *m" .. common.data_parameters() .. common.reset_parameter .. ", uint32_t chunk);"))

% write(common.comment("", "Clips the " .. (accumulates and spec.reduction .. " of the gradients since the last update" or "gradients") ..
%   " and updates the parameters.  Returns the gradient's 2-norm before clipping; if that is not finite, nothing was changed."))
double ${name}_update(${name} *m);

% if common.scheduled then
/* The learning rate of the next update. */
double ${name}_rate(const ${name} *m);

% end
% if spec.schedule.kind == "plateau" then
% write(common.comment("", "Tells the schedule the loss on data held out, now and then: once an epoch, say.  The rate is multiplied by " ..
%   string.format("%g", spec.schedule.factor):gsub(",", ".") .. " after more than " .. math.tointeger(spec.schedule.patience) ..
%   " such losses in a row that were not better than the best."))
void ${name}_observe(${name} *m, double loss);

% end
/* As ${name}_gradient, forward only. */
double ${name}_loss(${name} *m${common.data_parameters()}${common.reset_parameter}, uint32_t chunk);

/* One step: ${common.shapes("input", "[B]")} in, ${spec.labels and (spec.tokens and "probabilities[B][V] of the next token" or "probabilities[B][V]") or "outputs[B][Q]"} out; advances the state. */
void ${name}_predict(${name} *m${common.data_parameters("input")}${common.reset_parameter}, ${name}_real *${spec.labels and "probabilities" or "outputs"});

/* Call after writing to m->param: brings what is kept of it in other forms up to date. */
void ${name}_refresh(${name} *m);

% include("abi.h")

/* Sizes, tensors and functions as data, for programs that handle any model. */
extern const bptt_model ${name}_model;

#ifdef __cplusplus
}
#endif

#endif
