/* pipe/storm_test.c - everything at random and at once: the outputs are those of an undisturbed
 * run.
 *
 * Worlds of up to four stages.  An endpoint is a link to a session; frames and answers lie on
 * links in order and arrive when chance says so; links are cut with what lies on them; sessions
 * live on, run what they were sent, and are resumed or not.  The oracle computes each window
 * when it is submitted.  Sessions check what a worker checks: positions, epochs, how many
 * windows wait, rising numbers.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/fake_test.h"

enum {
    STAGES = 4,
    CTX = 700,
    LINKS = 512, /* endpoints ever opened in a world */
    QUEUE = 160, /* frames on a link or at a session: windows and trims */
    STEPS = 900,
    MAX_WINDOW = 90,
};

struct frame {
    bool               trim;
    uint64_t           number;
    uint32_t           epoch, pos, count;
    enum pipe_want     want;
    struct pipe_block *in;
};

struct frames {
    struct frame at[QUEUE];
    uint32_t     count;
};

struct answer {
    uint64_t           number;
    struct pipe_block *rows;
};

/* What a worker keeps of a session. */
struct session {
    struct fake_kv kv;
    uint32_t       epoch, queued_pos, windows_max;
    uint64_t       number; /* last */
    struct frames  queue;
    uint32_t       link; /* the one attached; 0 = none */
};

struct link {
    uint32_t        stage;
    struct session *session;
    struct frames   out;
    struct answer   in[QUEUE];
    uint32_t        in_count;
    bool            up;
};

struct world {
    uint64_t         seed, random;
    struct pipeline *p;
    double           now_ms;
    uint32_t         stages;
    struct link     *links; /* (LINKS); from 1 on */
    uint32_t         link_count;
    uint32_t         oldest_up; /* all up to this one are down */
    bool             even_windows;
    struct {
        bool     asked;
        uint32_t lost;
        bool     lost_answers;
    } open[STAGES];
    /* the oracle */
    struct fake_kv truth[STAGES];
    uint32_t       length;
    struct {
        uint64_t        number;
        uint32_t        pos, count;
        enum pipe_want  want;
        struct fake_row rows[MAX_WINDOW]; /* as they leave the last stage */
    } windows[PIPE_WINDOWS_MAX];
    uint32_t window_count;
    uint64_t outputs;
    bool     failed;
};

#define REQUIRE(w, condition)                                                                     \
    do {                                                                                          \
        if (!(condition))                                                                         \
            fail_msg("%s; replay: MCP_SEED=%" PRIu64 " ./dev test storm", #condition, (w)->seed); \
    } while (0)

static uint32_t below(struct world *w, uint32_t limit)
{
    return unit_below(&w->random, limit);
}

static bool chance(struct world *w, uint32_t percent)
{
    return below(w, 100) < percent;
}

static void take_first(struct frames *f)
{
    f->count--;
    memmove(&f->at[0], &f->at[1], f->count * sizeof(f->at[0]));
}

/* ---- workers ---------------------------------------------------------------------------- */

static struct session *session_new(struct world *w, uint32_t stage)
{
    struct session *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    fake_kv_init(&s->kv, stage, w->even_windows, CTX + MAX_WINDOW);
    s->windows_max = chance(w, 30) ? 1 : 1 + below(w, 16);
    return s;
}

static void frames_drop(struct frames *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        pipe_block_unref(f->at[i].in);
    f->count = 0;
}

static void answers_drop(struct link *l)
{
    for (uint32_t i = 0; i < l->in_count; i++)
        pipe_block_unref(l->in[i].rows);
    l->in_count = 0;
}

/* The worker's side of a Trim: what is queued of an older epoch is never run. */
static void session_trim(struct world *w, struct session *s, const struct frame *f)
{
    REQUIRE(w, f->epoch > s->epoch);
    REQUIRE(w, f->pos <= s->kv.length);
    frames_drop(&s->queue);
    s->epoch = f->epoch;
    s->kv.length = s->queued_pos = f->pos;
}

static void session_arrive(struct world *w, struct session *s, struct frame *f)
{
    if (f->trim) {
        session_trim(w, s, f);
        return;
    }
    REQUIRE(w, f->epoch == s->epoch);
    REQUIRE(w, f->pos == s->queued_pos);
    REQUIRE(w, f->number > s->number);
    REQUIRE(w, s->queue.count < s->windows_max);
    s->number = f->number;
    s->queued_pos += f->count;
    s->queue.at[s->queue.count++] = *f;
}

/* Run the oldest window; its answer goes to the link that is attached now. */
static void session_run(struct world *w, struct session *s)
{
    struct frame       f = s->queue.at[0];
    struct fake_row    in[MAX_WINDOW * 2], out[MAX_WINDOW * 2];
    uint32_t           rows = f.want == PIPE_WANT_ALL ? f.count : f.want == PIPE_WANT_LAST;
    struct pipe_block *block = rows > 0 ? pipe_block_new(0, rows, sizeof(struct fake_row)) : NULL;
    struct link       *l = s->link != 0 ? &w->links[s->link] : NULL;

    REQUIRE(w, f.count <= MAX_WINDOW);
    for (uint32_t i = 0; i < f.count; i++)
        in[i] = s->kv.stage > 0 ? ((struct fake_row *)(void *)f.in->data)[i]
                                : fake_token_row(((int32_t *)(void *)f.in->data)[i]);
    fake_forward(&s->kv, f.pos, f.count, in, out);
    if (rows > 0)
        memcpy(block->data, out + f.count - rows, rows * sizeof(out[0]));
    pipe_block_unref(f.in);
    take_first(&s->queue);
    if (l != NULL && l->up) {
        REQUIRE(w, l->in_count < QUEUE);
        l->in[l->in_count++] = (struct answer){ f.number, block };
    } else {
        pipe_block_unref(block);
    }
}

/* ---- the owner's side --------------------------------------------------------------------- */

static void act_forward(struct world *w, struct pipe_act *act)
{
    struct link *l = &w->links[act->endpoint];
    struct frame f = { .number = act->number,
                       .epoch = act->epoch,
                       .pos = act->pos,
                       .count = act->count,
                       .want = act->want,
                       .in = act->block };

    REQUIRE(w, l->up && l->stage == act->stage);
    if (act->stage == 0) {
        f.in = pipe_block_new(0, act->count, sizeof(int32_t));
        memcpy(f.in->data, act->tokens, f.in->bytes);
    }
    REQUIRE(w, f.in->rows == f.count);
    REQUIRE(w, l->out.count < QUEUE);
    l->out.at[l->out.count++] = f;
}

static void act_trim(struct world *w, const struct pipe_act *act)
{
    struct link *l = &w->links[act->endpoint];

    REQUIRE(w, l->up && l->out.count < QUEUE);
    l->out.at[l->out.count++] =
        (struct frame){ .trim = true, .epoch = act->epoch, .pos = act->pos };
}

static void act_output(struct world *w, struct pipe_act *act)
{
    uint32_t count = w->windows[0].count;
    uint32_t rows = act->block != NULL ? act->block->rows : 0;

    REQUIRE(w, w->window_count > 0 && act->number == w->windows[0].number);
    REQUIRE(w,
            rows == (w->windows[0].want == PIPE_WANT_ALL ? count
                                                         : w->windows[0].want == PIPE_WANT_LAST));
    if (rows > 0)
        REQUIRE(w, memcmp(act->block->data, &w->windows[0].rows[count - rows],
                          rows * sizeof(struct fake_row)) == 0);
    pipe_block_unref(act->block);
    w->window_count--;
    memmove(&w->windows[0], &w->windows[1], w->window_count * sizeof(w->windows[0]));
    w->outputs++;
}

static void cut(struct world *w, uint32_t link);

static void do_acts(struct world *w)
{
    struct pipe_act act;

    while (pipeline_act(w->p, w->now_ms, &act)) {
        switch (act.kind) {
        case PIPE_ACT_OPEN:
            REQUIRE(w, !w->open[act.stage].asked);
            w->open[act.stage].asked = true;
            w->open[act.stage].lost = act.lost;
            w->open[act.stage].lost_answers = act.lost_answers;
            break;
        case PIPE_ACT_FORWARD: act_forward(w, &act); break;
        case PIPE_ACT_TRIM: act_trim(w, &act); break;
        case PIPE_ACT_CLOSE:
            REQUIRE(w, w->links[act.endpoint].up && act.error.code == MCP_OK);
            cut(w, act.endpoint);
            break;
        case PIPE_ACT_OUTPUT: act_output(w, &act); break;
        case PIPE_ACT_FAILED: w->failed = true; break;
        }
    }
    REQUIRE(w, pipeline_in_flight(w->p) == w->window_count);
    REQUIRE(w, pipeline_length(w->p) == w->length);
}

/* ---- what happens --------------------------------------------------------------------------- */

static void attach(struct world *w, uint32_t stage, struct session *s)
{
    uint32_t     number = ++w->link_count;
    struct link *l = &w->links[number];

    REQUIRE(w, number < LINKS);
    *l = (struct link){ .stage = stage, .session = s, .up = true };
    s->link = number;
    w->open[stage].asked = false;
    pipeline_opened(w->p, w->now_ms, stage, number,
                    &(struct pipe_opened){ .length = s->kv.length,
                                           .epoch = s->epoch,
                                           .windows_max = s->windows_max,
                                           .even_windows = w->even_windows });
}

static void open_one(struct world *w, uint32_t stage, bool calm)
{
    uint32_t lost = w->open[stage].lost;

    if (!w->open[stage].asked)
        return;
    if (!calm && chance(w, 3)) {
        w->open[stage].asked = false;
        pipeline_unavailable(w->p, w->now_ms, stage, &(mcp_error){ MCP_EUNAVAIL, "no place" });
    } else if (lost != PIPE_NO_ENDPOINT && !w->links[lost].up && chance(w, 60)) {
        attach(w, stage, w->links[lost].session);
    } else {
        attach(w, stage, session_new(w, stage));
    }
}

/* The link is gone.  Some of what was on its way still arrives. */
static void cut(struct world *w, uint32_t link)
{
    struct link *l = &w->links[link];

    for (uint32_t arrive = below(w, l->out.count + 1); arrive > 0; arrive--) {
        session_arrive(w, l->session, &l->out.at[0]);
        take_first(&l->out);
    }
    l->up = false;
    frames_drop(&l->out);
    answers_drop(l);
    if (l->session->link == link)
        l->session->link = 0;
}

/* A link that is up, or 0. */
static uint32_t any_link(struct world *w)
{
    uint32_t up[2 * STAGES], count = 0;

    for (uint32_t i = w->link_count; i > w->oldest_up; i--) {
        if (!w->links[i].up)
            continue;
        REQUIRE(w, count < 2 * w->stages); /* one to replace and one that replaces it */
        up[count++] = i;
    }
    if (count == 0)
        return 0;
    w->oldest_up = up[count - 1] - 1;
    return up[below(w, count)];
}

static void move_something(struct world *w, uint32_t link)
{
    struct link    *l = &w->links[link];
    struct session *s = l->session;

    switch (below(w, 3)) {
    case 0:
        if (l->out.count > 0) {
            session_arrive(w, s, &l->out.at[0]);
            take_first(&l->out);
        }
        break;
    case 1:
        if (s->queue.count > 0)
            session_run(w, s);
        break;
    case 2:
        if (l->in_count > 0) {
            struct answer a = l->in[0];

            l->in_count--;
            memmove(&l->in[0], &l->in[1], l->in_count * sizeof(l->in[0]));
            pipeline_result(w->p, w->now_ms, link, a.number, a.rows, (struct pipe_timing){ 1, 1 });
            pipe_block_unref(a.rows);
        }
        break;
    }
}

static void submit(struct world *w)
{
    static const uint32_t sizes[] = { 1, 1, 1, 2, 5, 30, 63, 64, MAX_WINDOW };
    uint32_t              count = sizes[below(w, UNIT_COUNT(sizes))];
    enum pipe_want        want = (enum pipe_want)below(w, 3);
    int32_t               tokens[MAX_WINDOW];
    struct fake_row       rows[MAX_WINDOW];
    uint64_t              number;
    mcp_error             err;
    int                   rc;

    if (count > CTX - w->length)
        return;
    for (uint32_t i = 0; i < count; i++) {
        tokens[i] = (int32_t)below(w, 1 << 20);
        rows[i] = fake_token_row(tokens[i]);
    }
    rc = pipeline_submit(w->p, w->now_ms, tokens, count, want, &number, &err);
    if (rc == MCP_EBUSY)
        return;
    unit_ok(rc, &err);
    for (uint32_t s = 0; s < w->stages; s++) {
        w->truth[s].length = w->length;
        fake_forward(&w->truth[s], w->length, count, rows, rows);
    }
    memcpy(w->windows[w->window_count].rows, rows, count * sizeof(rows[0]));
    w->windows[w->window_count].number = number;
    w->windows[w->window_count].pos = w->length;
    w->windows[w->window_count].count = count;
    w->windows[w->window_count++].want = want;
    w->length += count;
}

static void trim(struct world *w)
{
    uint32_t  pos = chance(w, 10) ? 0 : w->length - below(w, w->length < 150 ? w->length + 1 : 150);
    mcp_error err;

    unit_ok(pipeline_trim(w->p, w->now_ms, pos, &err), &err);
    while (w->window_count > 0 && w->windows[w->window_count - 1].pos >= pos)
        w->window_count--;
    w->length = pos;
    if (pos == 0)
        w->failed = false;
}

static void disturb(struct world *w)
{
    uint32_t link = any_link(w);

    if (link == 0)
        return;
    if (chance(w, 60)) {
        cut(w, link);
        pipeline_lost(w->p, w->now_ms, link, &(mcp_error){ MCP_EUNAVAIL, "cut" });
    } else {
        pipeline_draining(w->p, w->now_ms, link);
    }
}

/* A session whose link is cut goes on with what it was sent. */
static void run_detached(struct world *w)
{
    if (w->link_count > 0) {
        struct session *s = w->links[1 + below(w, w->link_count)].session;

        if (s->queue.count > 0)
            session_run(w, s);
    }
}

static void step(struct world *w, uint32_t wildness)
{
    uint32_t dice = below(w, 1000), link;

    w->now_ms += 1.0;
    if (dice < wildness)
        disturb(w);
    else if (dice < 30 + wildness)
        trim(w);
    else if (dice < 50 + wildness)
        run_detached(w);
    else if (dice < 150 && !w->failed)
        submit(w);
    else if (dice < 250)
        open_one(w, below(w, w->stages), false);
    else {
        link = any_link(w);
        if (link != 0)
            move_something(w, link);
    }
    do_acts(w);
}

/* No more faults: whatever is in flight must come out, and soon. */
static void calm_down(struct world *w)
{
    if (w->failed) {
        mcp_error err;

        unit_ok(pipeline_trim(w->p, w->now_ms, 0, &err), &err);
        w->window_count = w->length = 0;
        w->failed = false;
        do_acts(w);
    }
    submit(w);
    do_acts(w);
    for (uint32_t i = 0; i < 100000 && w->window_count > 0; i++) {
        uint32_t link = any_link(w);

        open_one(w, below(w, w->stages), true);
        if (link != 0)
            move_something(w, link);
        do_acts(w);
    }
    REQUIRE(w, w->window_count == 0);
}

static void world_run(struct world *w, uint64_t seed)
{
    struct pipeline_stage stages[STAGES];
    mcp_error             err;
    uint32_t              wildness;

    memset(w, 0, sizeof(*w));
    w->seed = w->random = seed;
    w->stages = 1 + below(w, STAGES);
    w->even_windows = chance(w, 50);
    w->links = calloc(LINKS, sizeof(*w->links));
    assert_non_null(w->links);
    for (uint32_t i = 0; i < w->stages; i++) {
        stages[i] = (struct pipeline_stage){ i, i + 1,
                                             chance(w, 90) }; /* false: its loss is failure */
        fake_kv_init(&w->truth[i], i, w->even_windows, CTX + MAX_WINDOW);
    }
    unit_ok(pipeline_new(&w->p,
                         &(struct pipeline_opts){ .stages = stages,
                                                  .count = w->stages,
                                                  .windows_max = 1 + below(w, 12) },
                         &err),
            &err);
    wildness = below(w, 25);
    do_acts(w);
    for (uint32_t i = 0; i < STEPS; i++)
        step(w, wildness);
    calm_down(w);
}

static void world_fini(struct world *w)
{
    pipeline_free(w->p);
    for (uint32_t i = 1; i <= w->link_count; i++) {
        frames_drop(&w->links[i].out);
        answers_drop(&w->links[i]);
    }
    for (uint32_t i = 1; i <= w->link_count; i++) {
        struct session *s = w->links[i].session;

        if (s == NULL)
            continue;
        for (uint32_t k = i; k <= w->link_count; k++)
            if (w->links[k].session == s)
                w->links[k].session = NULL;
        frames_drop(&s->queue);
        free(s->kv.at);
        free(s);
    }
    for (uint32_t i = 0; i < w->stages; i++)
        free(w->truth[i].at);
    free(w->links);
}

/* Goal:   whatever is lost, drained, trimmed and resumed in whatever order, each window that comes
 *         out has the rows of an undisturbed run, none is missing, and no worker is ever sent
 *         something that it would refuse.
 * Method: worlds from seeds, each with another wildness; at the end of each all has to come out. */
static void no_storm_changes_an_output(void **state)
{
    static struct world w;
    bool     given = getenv("MCP_SEED") != NULL, longer = getenv("MCP_TEST_LONG") != NULL;
    uint64_t count = given ? 1 : longer ? 200000 : 2000, outputs = 0;

    (void)state;
    for (uint64_t seed = 0; seed < count; seed++) {
        world_run(&w, given ? unit_seed() : seed);
        outputs += w.outputs;
        world_fini(&w);
    }
    assert_true(outputs > count * 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_storm_changes_an_output),
    };

    return cmocka_run_group_tests_name("pipe/storm", tests, NULL, NULL);
}
