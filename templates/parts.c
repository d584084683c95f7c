% local common, H = parts.common, parts.H
% local name, NAME, plus = common.name, common.NAME, common.plus
/* --- the parts of the work ---------------------------------------------------------------------------------------- */

/* What the parts of a piece of work are told.  Each has its own place for what it adds up, and writes rows or columns
 * that no other part touches meanwhile, so it does not matter when, or where, a part is done. */
typedef struct job {
    ${name} *m;
% for _, read in ipairs(common.data) do
    const ${read.type} *${read.name};
% end
% if H.window_parameter ~= "" then
    ptrdiff_t steps;     /* forward: of the chunk; back: of the window, as far as it is filled */
    ptrdiff_t first;     /* row of the window where these begin */
%   if H.drops_out then
    ptrdiff_t past;      /* rows of the sequence before the window */
%   end
% else
    ptrdiff_t steps;     /* of the chunk */
% end
% if spec.truncation == "uniform" then
    ptrdiff_t lag;
% end
    ptrdiff_t row, rows; /* of the output layer: the first, and how many */
    real scale;          /* of every label's gradient */
    const real *with;    /* what the update takes */
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

/* Where a part begins, of n things that are handed out in units. */
static ptrdiff_t begin(ptrdiff_t n, ptrdiff_t unit, int part)
{
    const ptrdiff_t first = (n + unit - 1) / unit * part / ${NAME}_THREADS * unit;
    return first < n ? first : n;
}

static void forward_part(void *all, int part)
{
    const job *const j = all;
% H.dispatch_part("forward", common.data_arguments("input", "first", "j->"))
}

static void forward_parts(${name} *m${common.data_parameters("input")}, ptrdiff_t steps${H.forward_window})
{
    job all = {.m = m${common.data_initializers("input")}, .steps = steps${H.initializers(H.forward_window)}};
    (void)each(&all, forward_part);
}

% if spec.truncation == "uniform" then
%   if H.has_lag("begin_lag") then
static void begin_lag_part(void *all, int part)
{
    const job *const j = all;
    const ptrdiff_t row = begin(j->rows, 1, part), rows = begin(j->rows, 1, part + 1) - row;
    begin_lag(j->m, j->lag, row, rows);
}

%   end
static void lag_part(void *all, int part)
{
    const job *const j = all;
    const ptrdiff_t row = begin(j->rows, 1, part), rows = begin(j->rows, 1, part + 1) - row;
%   if H.has_lag("lag_rows") then
    lag_rows(j->m, row, rows);
%   end
%   if H.has_lag("hand_on") then
    const ptrdiff_t skip = row < ${NAME}_BATCH ? ${NAME}_BATCH - row : 0; /* rows of the first step */
    if (j->lag + 1 < ${NAME}_HORIZON && skip < rows) { hand_on(j->m, row + skip, rows - skip); }
%   end
}

/* The gradients, from the adjoints of all lags. */
static void sum_part(void *all, int part)
{
    const job *const j = all;
% H.sums("sum")
}

static void backward_parts(${name} *m${common.data_parameters("x")}, ptrdiff_t steps)
{
    job all = {.m = m${common.data_initializers("x")}, .steps = steps};
    for (; all.lag < ${NAME}_HORIZON; all.lag++) {
        all.rows = (steps - all.lag) * ${NAME}_BATCH;
%   if H.has_lag("begin_lag") then
        (void)each(&all, begin_lag_part);
%   end
        (void)each(&all, lag_part);
    }
    all.rows = steps * ${NAME}_BATCH;
    (void)each(&all, sum_part);
}
% else
static void backward_part(void *all, int part)
{
    const job *const j = all;
% H.dispatch_part("backward", "")
}

/* The gradients of what the recurrence used. */
static void tail_part(void *all, int part)
{
    const job *const j = all;
% H.sums("tail")
}

static void backward_parts(${name} *m${common.data_parameters("x")}, ptrdiff_t steps${H.backward_window})
{
    job all = {.m = m${common.data_initializers("x")}, .rows = steps * ${NAME}_BATCH, .steps = steps${H.initializers(H.backward_window)}};
    (void)each(&all, backward_part);
    (void)each(&all, tail_part);
}
% end

% for _, f in ipairs {{"head", ", j->scale"}, {"head_loss", ""}} do
static void ${f[1]}_part(void *all, int part)
{
    job *const j = all;
    const ptrdiff_t skip = begin(j->rows, 1, part), row = j->row + skip, rows = begin(j->rows, 1, part + 1) - skip;
    j->sums[part] = ${f[1]}_rows(j->m${common.data_arguments("target", "skip", "j->")}${H.arguments(H.window_parameter)}, row, skip, rows${f[2]});
}

% end
/* The gradients of the output layer. */
static void head_sums_part(void *all, int part)
{
    const job *const j = all;
% H.sums("head")
}

static double head(${name} *m${common.data_parameters("target")}${H.window_parameter}, ptrdiff_t row, ptrdiff_t rows, real scale)
{
    job all = {.m = m${common.data_initializers("target")}${H.initializers(H.window_parameter)}, .row = row, .rows = rows, .scale = scale};
    const double loss = each(&all, head_part);
    (void)each(&all, head_sums_part);
    return loss;
}

static double head_loss(${name} *m${common.data_parameters("target")}${H.window_parameter}, ptrdiff_t row, ptrdiff_t rows)
{
    job all = {.m = m${common.data_initializers("target")}${H.initializers(H.window_parameter)}, .row = row, .rows = rows};
    return each(&all, head_loss_part);
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
