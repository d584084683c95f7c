% local common, H = parts.common, parts.H
% local name, NAME = common.name, common.NAME
% local uneven = spec.batch % threads > 0
% local block_mode = spec.truncation == "block"
/* --- the parts of the work ---------------------------------------------------------------------------------------- */

/* What the parts of a piece of work are told.  Each has its own place for what it adds up, and writes what no other part
 * touches meanwhile, so it does not matter when, or where, a part is done. */
typedef struct job {
    ${name} *m;
% for _, read in ipairs(common.data) do
    const ${read.type} *${read.name};
% end
% if spec.resets then
    const uint8_t *reset;
% end
    real *outputs;
    uint32_t chunk;
% if H.cuts.head then
    ptrdiff_t row;    /* of HEAD: where a block begins */
% end
% if H.cuts.head or H.cuts.tail then
    ptrdiff_t rows;   /* of each part */
% end
% if block_mode and (H.cuts.head or H.cuts.tail) then
    ptrdiff_t first;  /* row of the window where they begin */
% end
    real scale;       /* of every ${H.counted:sub(1, -2)}'s gradient */
    const real *with; /* what the update takes */
    double sums[${NAME}_THREADS];
} job;

/* Does all parts of a job, at the same time if there is a team.  Returns the sum of what they added up, in order. */
static double each(job *all, void (*work)(void *all, int part))
{
    bptt_team *const team = all->m->threads.team;
    double sum = 0;
    if (team) { team->run(team, work, all); }
    for (int part = 0; part < ${NAME}_THREADS; part++) {
        if (!team) { work(all, part); }
        sum += all->sums[part];
    }
    return sum;
}

% -- A part's rows of a step of what has the role, from what the caller gave.
% local function take(role)
%   for _, read in ipairs(common.data) do
%     if read.role == role then
%       local reals, from = streams * read.width, common.values(read, "t * " .. NAME .. "_BATCH + first")
%       write(common.statement("        ", string.format("memcpy(own->%s + t * %d, j->%s + %s, %d * sizeof *own->%s);", read.name, reals,
%         read.name, from, reals, read.name)))
%     end
%   end
% end
/* The rows of a part's streams: of what the caller gave, and of what goes on from chunk to chunk. */
static void take_rows(const job *j, int part, ptrdiff_t steps)
{
    ${name}_share *const own = &j->m->parts[part];
    const ptrdiff_t first = begin(${NAME}_BATCH, 1, part);
    for (ptrdiff_t t = 0; t < steps; t++) {
% take("input")
% if spec.resets then
        if (j->reset) { memcpy(own->reset + t * ${streams}, j->reset + t * ${NAME}_BATCH + first, ${streams}); }
% end
    }
% H.move_carried(false)
}

/* The same of labels and targets. */
static void take_targets(const job *j, int part, ptrdiff_t steps)
{
    ${name}_share *const own = &j->m->parts[part];
    const ptrdiff_t first = begin(${NAME}_BATCH, 1, part);
    for (ptrdiff_t t = 0; t < steps; t++) {
% take("target")
    }
% if uneven then
    if (begin(${NAME}_BATCH, 1, part + 1) - first == ${streams}) { return; }
    for (ptrdiff_t t = 1; t <= steps; t++) { /* the last stream is the next part's, who answers for its losses */
%   if spec.labels then
        own->y[t * ${streams} - 1] = (${name}_token)-1;
%   else
        for (int i = 1; i <= ${spec.targets}; i++) { own->d[t * ${streams * spec.targets} - i] = (real)(0.0 / 0.0); }
%   end
    }
% end
}

/* Hands on what goes on after so many steps.  Not before all parts took theirs. */
static void give_rows(const job *j, int part, ptrdiff_t steps)
{
    ${name}_share *const own = &j->m->parts[part];
    const ptrdiff_t first = begin(${NAME}_BATCH, 1, part), count = begin(${NAME}_BATCH, 1, part + 1) - first;
% if block_mode then
    (void)steps;
% end
% H.move_carried(true)
}

% -- What the functions of a part begin with.
% local function part_locals()
    job *const j = all;
    ${name} *const m = j->m;
    ${name}_share *const own = &m->parts[part];
    const uint32_t chunk = j->chunk;
    const ptrdiff_t steps = steps_of(chunk);
% end
% local function head_locals()
    const ptrdiff_t rows = steps * ${NAME}_STREAMS;
% if block_mode then
    const ptrdiff_t first = (${NAME}_HORIZON - steps) * ${NAME}_STREAMS;
% end
    double loss = 0;
% end
% local reset = spec.resets and ", j->reset ? own->reset : 0" or ""
% if H.cuts.head then
static void forward_part(void *all, int part)
{
% part_locals()
    take_rows(j, part, steps);
    take_targets(j, part, steps);
    forward(m, own${common.data_arguments("input", nil, "own->")}${reset}, chunk);
%   if H.partial then
%     H.clear_gradients(true)
%   end
}

static void head_part(void *all, int part)
{
    job *const j = all;
    ${name} *const m = j->m;
    ${name}_share *const own = &m->parts[part];
    const ptrdiff_t row = j->row;
% if block_mode then
    const ptrdiff_t first = j->first;
%   if H.head_window:find("chunk") then
    const uint32_t chunk = j->chunk;
%   end
% end
    j->sums[part] = head(m, own${common.data_arguments("target", "row", "own->")}${H.head_window}, row, j->rows, j->scale);
}

/* Gradients of the output layer, from its rows in all parts. */
static void head_sums_part(void *all, int part)
{
    const job *const j = all;
% H.sums {"head"}
}

static double head_parts(job *all, ptrdiff_t row, ptrdiff_t rows)
{
    all->row = row;
    all->rows = rows;
    const double loss = each(all, head_part);
    (void)each(all, head_sums_part);
    return loss;
}

%   if H.partial then
static void clear_parts(const job *all, ptrdiff_t row, ptrdiff_t rows)
{
    for (int part = 0; part < ${NAME}_THREADS; part++) { clear_rows(&all->m->parts[part], row, rows); }
}

%   end
static void backward_part(void *all, int part)
{
    const job *const j = all;
    ${name} *const m = j->m;
    ${name}_share *const own = &m->parts[part];
%   if block_mode or rest > 0 and not H.looped then
    const uint32_t chunk = j->chunk;
%   end
%   if block_mode or H.looped then
    const ptrdiff_t steps = steps_of(j->chunk);
%   end
% H.dispatch("backward")
}

% else
/* All that a part does of a chunk by itself. */
static void gradient_part(void *all, int part)
{
% part_locals()
% head_locals()
    const real scale = j->scale;
%   if H.partial then
    ptrdiff_t done = 0;
%   end
    take_rows(j, part, steps);
    take_targets(j, part, steps);
    forward(m, own${common.data_arguments("input", nil, "own->")}${reset}, chunk);
%   if H.partial then
%     H.clear_gradients(true)
%   end
% H.call_heads("head", ", scale")
% H.dispatch("backward")
    j->sums[part] = loss;
}

% end
% if H.cuts.tail then
/* Gradients from the rows of all parts, when these are done. */
static void sum_part(void *all, int part)
{
    const job *const j = all;
% H.sums {"tail", "sum"}
}

% end
/* What is left when all parts are done with theirs: the sums that each has of its own, added up, and what goes on. */
static void end_part(void *all, int part)
{
    const job *const j = all;
% if own_size > 0 then
    ${name} *const m = j->m;
%   H.add_own()
% end
    give_rows(j, part, steps_of(j->chunk));
}

/* The sum of a chunk's losses, and its gradient times `scale`; the state goes on from its end. */
% write(common.statement("", "static double chunk_gradient(" .. chunk_parameters .. ", real scale)"))
{
    job all = {.m = m${common.data_initializers()}${spec.resets and ", .reset = reset" or ""}, .chunk = chunk, .scale = scale};
% if H.partial and not accumulates then
%   H.clear_gradients(false)
% end
% if H.cuts.head then
    const ptrdiff_t steps = steps_of(chunk);
%   head_locals()
%   if H.partial then
    ptrdiff_t done = 0;
%   end
    (void)each(&all, forward_part);
%   if block_mode then
    all.first = first;
%   end
%   H.call_heads("head_parts", "", true)
    (void)each(&all, backward_part);
% else
    const double loss = each(&all, gradient_part);
% end
% if H.cuts.tail and block_mode then
    const ptrdiff_t seen = (ptrdiff_t)chunk * ${NAME}_STRIDE + steps_of(chunk);
    const ptrdiff_t window = seen < ${NAME}_HORIZON ? seen : ${NAME}_HORIZON;
    all.first = (${NAME}_HORIZON - window) * ${NAME}_STREAMS;
    all.rows = window * ${NAME}_STREAMS;
% elseif H.cuts.tail then
    all.rows = steps_of(chunk) * ${NAME}_STREAMS;
% end
% if H.cuts.tail then
    (void)each(&all, sum_part);
% end
    (void)each(&all, end_part);
    return loss;
}

static void loss_part(void *all, int part)
{
% part_locals()
% head_locals()
    take_rows(j, part, steps);
    take_targets(j, part, steps);
    forward(m, own${common.data_arguments("input", nil, "own->")}${reset}, chunk);
% H.call_heads("head_loss", "")
    j->sums[part] = loss;
}

/* The losses alone. */
% write(common.statement("", "static double chunk_loss(" .. chunk_parameters .. ")"))
{
    job all = {.m = m${common.data_initializers()}${spec.resets and ", .reset = reset" or ""}, .chunk = chunk};
    const double loss = each(&all, loss_part);
    for (int part = 0; part < ${NAME}_THREADS; part++) { give_rows(&all, part, steps_of(chunk)); }
    return loss;
}

static void predict_part(const job *j, int part)
{
    ${name} *const m = j->m;
    ${name}_share *const own = &m->parts[part];
    real *const ${spec.labels and "probabilities" or "outputs"} = j->outputs + begin(${NAME}_BATCH, 1, part) * ${spec.labels and spec.vocab or spec.targets};
% for _, read in ipairs(common.data) do
%   if read.role == "input" then
    const ${read.type} *const ${read.name} = own->${read.name};
%   end
% end
    take_rows(j, part, 1);
% if spec.restarts then
    mark_starts(own${reset}, ${NAME}_STREAMS, 0);
% end
% H.predict()
    give_rows(j, part, 1);
}

static void squares_part(void *all, int part)
{
    job *const j = all;
    const ptrdiff_t from = ${H.begin(block_size, line)}, to = ${H.begin(block_size, line, true)};
    j->sums[part] = bptt_sum_squares(j->m->grad + from, to - from);
}

static double squares(${name} *m)
{
    job all = {.m = m};
    return each(&all, squares_part);
}

static void update_part(void *all, int part)
{
    const job *const j = all;
    ${name} *const m = j->m;
    const real *const with = j->with;
% H.update_part()
}

static void update_parts(${name} *m, const real *with)
{
    job all = {.m = m, .with = with};
    (void)each(&all, update_part);
}

% if H.turns then
static void refresh_part(void *all, int part)
{
    ${name} *const m = ((const job *)all)->m;
% H.refresh()
}

% end
