/* sim/script_common.c - see script_common.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sim/script_common.h"

/* ---- making one ------------------------------------------------------------------------- */

static void make_turn(struct sim_turn *t, struct sim_clock *c, bool first)
{
    static const uint32_t chunks[] = { 1, 7, 32, 63, 64, 100, 128, 200, 256 };
    bool                  longer = sim_chance(c, 30);

    t->keep = first ? 0 : sim_chance(c, 50) ? 100 : sim_below(c, 100);
    t->chunk = chunks[sim_below(c, UNIT_COUNT(chunks))];
    t->prompt = 1 + sim_below(c, t->chunk < 8 ? 40 : longer ? 400 : 150);
    t->answer = 1 + sim_below(c, longer ? 160 : 40);
    t->depth = sim_chance(c, 60) ? 1 : 2 + sim_below(c, SIM_DEPTH_MAX - 1);
    t->drafts = t->depth > 1 || sim_chance(c, 30) ? sim_below(c, 6) : 0;
    t->pause_ms = sim_chance(c, 50) ? 0.0 : sim_between(c, 0.0, 3000.0);
}

void sim_script_make(struct sim_script *s, struct sim_clock *clock, const struct sim_model *m)
{
    *s = (struct sim_script){ .seed = unit_next(&clock->random) };
    s->turn_count = 1 + sim_below(clock, SIM_TURNS_MAX);
    for (uint32_t i = 0; i < s->turn_count; i++)
        make_turn(&s->turns[i], clock, i == 0);
    sim_script_expect(s, m);
}

void sim_script_fini(struct sim_script *s)
{
    free(s->expected);
}

void sim_script_begin(struct sim_script *s)
{
    s->phase = SIM_PAUSE;
    s->turn = 0;
    s->decided = s->submitted = 0;
    s->rows_hash = s->seed;
    s->outputs = 0;
    s->in_flight_count = 0;
}

/* ---- playing ---------------------------------------------------------------------------- */

static void trim(struct sim_script *s, const struct sim_player *player, uint32_t pos)
{
    player->trim(player->ctx, pos);
    s->submitted = pos;
    while (s->in_flight_count > 0 && s->in_flight[s->in_flight_count - 1].pos >= pos)
        s->in_flight_count--;
}

void sim_script_next_turn(struct sim_script *s, const struct sim_player *player)
{
    const struct sim_turn *t = &s->turns[s->turn];
    uint32_t               keep = s->decided > 0 ? (s->decided - 1) * t->keep / 100 : 0;

    assert_int_equal(s->phase, SIM_PAUSE);
    if (keep < s->submitted)
        trim(s, player, keep);
    s->stale_until = s->in_flight_count > 0 ? s->in_flight[s->in_flight_count - 1].number : 0;
    s->prompt_end = keep + t->prompt;
    s->answer_end = s->prompt_end + t->answer;
    assert_true(s->answer_end + (t->drafts + 1) * t->depth < SIM_CTX);
    for (uint32_t pos = keep; pos < s->prompt_end; pos++)
        s->text[pos] = (int32_t)(sim_mix(s->seed + s->turn, pos) % 1000);
    s->decided = s->prompt_end;
    s->phase = SIM_PROMPT;
    sim_script_play(s, player);
}

static bool submit(struct sim_script *s, const struct sim_player *player, uint32_t count,
                   enum pipe_want want)
{
    uint64_t number;

    if (s->in_flight_count == SIM_IN_FLIGHT_MAX ||
        !player->submit(player->ctx, s->text + s->submitted, count, want, &number))
        return false;
    s->in_flight[s->in_flight_count].number = number;
    s->in_flight[s->in_flight_count].pos = s->submitted;
    s->in_flight[s->in_flight_count++].count = count;
    s->submitted += count;
    return true;
}

static bool play_prompt(struct sim_script *s, const struct sim_player *player)
{
    uint32_t left = s->prompt_end - s->submitted, chunk = s->turns[s->turn].chunk;

    if (left == 0)
        return false;
    return submit(s, player, left < chunk ? left : chunk,
                  left <= chunk ? PIPE_WANT_LAST : PIPE_WANT_NONE);
}

static bool play_answer(struct sim_script *s, const struct sim_player *player)
{
    const struct sim_turn *t = &s->turns[s->turn];
    uint32_t               count = 1 + t->drafts;

    if (s->in_flight_count >= t->depth || s->submitted >= s->answer_end ||
        (s->in_flight_count == 0 && s->decided == s->submitted))
        return false;
    for (uint32_t pos = s->submitted; pos < s->submitted + count; pos++)
        if (pos >= s->decided)
            s->text[pos] = (int32_t)(sim_mix(s->seed ^ 5, pos) % SIM_TOKENS);
    return submit(s, player, count, count > 1 || t->depth > 1 ? PIPE_WANT_ALL : PIPE_WANT_LAST);
}

void sim_script_play(struct sim_script *s, const struct sim_player *player)
{
    while ((s->phase == SIM_PROMPT && play_prompt(s, player)) ||
           (s->phase == SIM_ANSWER && play_answer(s, player)))
        continue;
}

/* The token behind position pos is decided.  False: it is not the one that was guessed. */
static bool decide(struct sim_script *s, const struct sim_player *player, uint32_t pos,
                   int32_t token)
{
    bool guessed = pos + 1 < s->submitted;

    if (guessed && s->text[pos + 1] != token) {
        trim(s, player, pos + 1);
        guessed = false;
    }
    s->text[pos + 1] = token;
    s->decided = pos + 2;
    return guessed;
}

static void answered(struct sim_script *s)
{
    s->phase = ++s->turn == s->turn_count ? SIM_OVER : SIM_PAUSE;
}

/* Note it, or compare. */
static bool check(struct sim_script *s, const struct sim_model *m, const uint8_t *rows,
                  uint32_t row_count)
{
    s->rows_hash = sim_mix(s->rows_hash, row_count);
    for (uint32_t i = 0; i < row_count; i++)
        s->rows_hash = sim_mix(s->rows_hash, sim_row_hash(rows + (size_t)i * m->row_bytes));
    if (s->outputs == s->expected_count) {
        if (s->expected_count == s->expected_cap) {
            s->expected_cap = s->expected_cap > 0 ? 2 * s->expected_cap : 256;
            s->expected = realloc(s->expected, s->expected_cap * sizeof(*s->expected));
            assert_non_null(s->expected);
        }
        s->expected[s->expected_count++] = s->rows_hash;
    }
    return s->expected[s->outputs++] == s->rows_hash;
}

bool sim_script_output(struct sim_script *s, const struct sim_player *player,
                       const struct sim_model *m, uint64_t number, const uint8_t *rows,
                       uint32_t row_count)
{
    uint32_t pos = s->in_flight[0].pos, count = s->in_flight[0].count;

    if (s->in_flight_count == 0 || s->in_flight[0].number != number)
        return false; /* one that nobody waits for, or out of order */
    s->in_flight_count--;
    memmove(&s->in_flight[0], &s->in_flight[1], s->in_flight_count * sizeof(s->in_flight[0]));
    if (s->phase == SIM_PAUSE || s->phase == SIM_OVER || number <= s->stale_until)
        return true;
    if (!check(s, m, rows, row_count))
        return false;
    if (s->phase == SIM_PROMPT) {
        if (pos + count == s->prompt_end)
            s->phase = SIM_ANSWER;
        else if (row_count > 0)
            return false;
    }
    for (uint32_t i = 0; i < row_count && s->phase == SIM_ANSWER; i++) {
        bool more = decide(s, player, pos + count - row_count + i,
                           sim_sample(rows + (size_t)i * m->row_bytes));

        if (s->decided >= s->answer_end)
            answered(s);
        if (!more)
            break;
    }
    sim_script_play(s, player);
    return true;
}

/* ---- what must come of it --------------------------------------------------------------- */

/* The model itself: windows run when they are submitted and come out one by one. */
struct straight {
    const struct sim_model *m;
    struct sim_kv           kv;
    uint64_t                number;
    uint32_t                first, count;
    struct {
        uint64_t number;
        uint32_t pos, rows;
        uint8_t *bytes;
    } out[SIM_IN_FLIGHT_MAX];
};

static bool straight_submit(void *ctx, const int32_t *tokens, uint32_t count, enum pipe_want want,
                            uint64_t *number)
{
    struct straight *r = ctx;
    uint32_t         rows = want == PIPE_WANT_ALL ? count : want == PIPE_WANT_LAST;
    size_t           bytes = (size_t)count * r->m->row_bytes;
    uint8_t         *out = malloc(bytes);

    assert_non_null(out);
    assert_true(r->count < SIM_IN_FLIGHT_MAX);
    r->out[r->count].pos = r->kv.length;
    sim_forward(r->m, &r->kv, 0, SIM_LAYERS, r->kv.length, count, tokens, NULL, out);
    memmove(out, out + bytes - (size_t)rows * r->m->row_bytes, (size_t)rows * r->m->row_bytes);
    *number = ++r->number;
    r->out[r->count].number = r->number;
    r->out[r->count].rows = rows;
    r->out[r->count++].bytes = out;
    return true;
}

static void straight_trim(void *ctx, uint32_t pos)
{
    struct straight *r = ctx;

    while (r->count > 0 && r->out[r->count - 1].pos >= pos)
        free(r->out[--r->count].bytes);
    r->kv.length = pos;
}

void sim_script_expect(struct sim_script *s, const struct sim_model *m)
{
    struct straight   r = { .m = m };
    struct sim_player player = { straight_submit, straight_trim, &r };

    sim_kv_init(&r.kv, 0, SIM_LAYERS);
    sim_script_begin(s);
    while (s->phase != SIM_OVER) {
        uint8_t *bytes;
        uint64_t number;
        uint32_t rows;

        if (s->phase == SIM_PAUSE)
            sim_script_next_turn(s, &player);
        assert_true(r.count > 0);
        number = r.out[0].number;
        rows = r.out[0].rows;
        bytes = r.out[0].bytes;
        r.count--;
        memmove(&r.out[0], &r.out[1], r.count * sizeof(r.out[0]));
        assert_true(sim_script_output(s, &player, m, number, bytes, rows));
        free(bytes);
    }
    while (r.count > 0)
        free(r.out[--r.count].bytes);
    sim_kv_fini(&r.kv);
    sim_script_begin(s);
}
