/* engine/forward.c - one forward: check it, cut it into batches, run them.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "engine/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- checking a forward ------------------------------------------------------------------ */

/* All exponent bits set means NaN or infinity; the loop vectorises. */
static bool all_finite(const float *x, size_t count)
{
    const uint32_t exponent = 0x7F800000u;
    uint32_t       bad = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof(bits));
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0;
}

static int check_window(struct mcp_engine *e, uint32_t first, uint32_t last, const mcp_window *w,
                        mcp_error *err)
{
    const struct model_hparams *hp = &e->model->hp;

    if (w->seq >= e->info.seqs)
        return base_fail(err, MCP_ERANGE, "sequence %u: the engine has %u", w->seq, e->info.seqs);
    if (e->seen[w->seq])
        return base_fail(err, MCP_EINVAL, "sequence %u has two windows in one forward", w->seq);
    e->seen[w->seq] = 1;
    if (w->count == 0)
        return base_fail(err, MCP_EINVAL, "the window of sequence %u is empty", w->seq);
    if (w->pos > e->info.ctx_tokens || w->count > e->info.ctx_tokens - w->pos)
        return base_fail(err, MCP_ERANGE,
                         "positions [%u, %" PRIu64
                         ") of sequence %u exceed the context of %u; raise -c",
                         w->pos, (uint64_t)w->pos + w->count, w->seq, e->info.ctx_tokens);
    for (uint32_t layer = first; layer < last; layer++) {
        uint32_t length = *engine_kv_length(&engine_shard_of(e, layer)->kv, w->seq, layer);

        if (length != w->pos)
            return base_fail(err, MCP_ERANGE,
                             "sequence %u has %u positions in layer %u, the window begins at %u",
                             w->seq, length, layer, w->pos);
    }

    if ((w->tokens == NULL) == (w->hidden == NULL))
        return base_fail(err, MCP_EINVAL, "a window carries either tokens or a hidden state");
    if (w->tokens != NULL && first != 0)
        return base_fail(err, MCP_EINVAL, "tokens enter at layer 0, the range begins at %u", first);
    if (w->tokens != NULL)
        for (uint32_t i = 0; i < w->count; i++)
            if (w->tokens[i] < 0 || (uint32_t)w->tokens[i] >= hp->n_vocab)
                return base_fail(err, MCP_ERANGE,
                                 "token %d at position %u is outside the vocabulary "
                                 "of %u",
                                 w->tokens[i], w->pos + i, hp->n_vocab);
    if (w->hidden != NULL && !all_finite(w->hidden, (size_t)w->count * hp->n_embd))
        return base_fail(err, MCP_EINVAL, "the hidden state of sequence %u holds NaN or infinity",
                         w->seq);

    if (w->out < MCP_OUT_NONE || w->out > MCP_OUT_CHOSEN)
        return base_fail(err, MCP_EINVAL, "window output %d is not one of mcp_out", (int)w->out);
    if (w->out == MCP_OUT_CHOSEN) {
        if (w->out_index == NULL && w->out_count > 0)
            return base_fail(err, MCP_EINVAL, "MCP_OUT_CHOSEN without out_index");
        for (uint32_t i = 0; i < w->out_count; i++)
            if (w->out_index[i] >= w->count || (i > 0 && w->out_index[i] <= w->out_index[i - 1]))
                return base_fail(err, MCP_EINVAL,
                                 "out_index %u is not ascending below the window's %u positions",
                                 w->out_index[i], w->count);
    }
    return MCP_OK;
}

static uint32_t window_rows(const mcp_window *w)
{
    switch (w->out) {
    case MCP_OUT_LAST: return 1;
    case MCP_OUT_ALL: return w->count;
    case MCP_OUT_CHOSEN: return w->out_count;
    default: return 0;
    }
}

uint64_t mcp_windows_rows(const mcp_window *windows, uint32_t count)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < count; i++)
        rows += window_rows(&windows[i]);
    return rows;
}

static int check_forward(struct mcp_engine *e, uint32_t first, uint32_t last, mcp_want want,
                         const mcp_window *windows, uint32_t count, const float *out,
                         size_t out_floats, mcp_error *err)
{
    const struct model_hparams *hp = &e->model->hp;
    uint64_t                    tokens = 0, rows;
    uint32_t                    width = want == MCP_WANT_LOGITS ? hp->n_vocab : hp->n_embd;
    int                         rc = engine_check_range(e, first, last, err);

    if (rc < 0)
        return rc;
    if (want != MCP_WANT_HIDDEN && want != MCP_WANT_LOGITS)
        return base_fail(err, MCP_EINVAL, "want %d is not one of mcp_want", (int)want);
    if (want == MCP_WANT_LOGITS && last != hp->n_layer)
        return base_fail(err, MCP_ERANGE, "logits come after layer %u, the range ends at %u",
                         hp->n_layer, last);
    if (count > e->info.seqs)
        return base_fail(err, MCP_ERANGE, "%u windows for %u sequences", count, e->info.seqs);
    memset(e->seen, 0, e->info.seqs);
    for (uint32_t i = 0; i < count; i++) {
        rc = check_window(e, first, last, &windows[i], err);
        if (rc < 0)
            return rc;
        tokens += windows[i].count;
    }
    if (tokens > e->info.batch_tokens)
        return base_fail(err, MCP_ERANGE, "%" PRIu64 " tokens in one forward, at most %u; raise -b",
                         tokens, e->info.batch_tokens);
    rows = mcp_windows_rows(windows, count);
    if (rows > 0 && (out == NULL || out_floats / width < rows))
        return base_fail(err, MCP_EINVAL, "%" PRIu64 " rows of %u floats do not fit %zu", rows,
                         width, out_floats);
    return MCP_OK;
}

/* ---- batches ------------------------------------------------------------------------------ */

/* Where the next batch begins. */
struct cursor {
    uint32_t window;
    uint32_t offset;
};

/* Fill e->pieces with the next tokens, at most ubatch_tokens; returns how many pieces.
 *
 * With even_windows a window's pieces do not depend on who shares its batch: each is cut as if
 * it were alone, and large pieces do not share one with small ones, which are computed in
 * another way. */
static uint32_t next_pieces(struct mcp_engine *e, const mcp_window *windows, uint32_t count,
                            struct cursor *at)
{
    uint32_t room = e->info.ubatch_tokens, pieces = 0;
    bool     large = false;

    while (at->window < count && room > 0) {
        uint32_t left = windows[at->window].count - at->offset;
        uint32_t most = e->even ? e->info.ubatch_tokens : room;
        uint32_t take = left < most ? left : most;

        if (e->even && pieces > 0 && (take > room || (take >= ENGINE_TILE_TOKENS) != large))
            break;
        large = take >= ENGINE_TILE_TOKENS;
        e->pieces[pieces++] = (struct engine_piece){ at->window, at->offset, take, 0 };
        room -= take;
        at->offset += take;
        if (at->offset == windows[at->window].count) {
            at->window++;
            at->offset = 0;
        }
    }
    return pieces;
}

/* qsort has no context argument that ISO C knows; the number of pieces is small. */
static void sort_by_sequence(struct engine_piece *pieces, uint32_t count, const mcp_window *windows)
{
    for (uint32_t i = 1; i < count; i++) {
        struct engine_piece p = pieces[i];
        uint32_t            j = i;

        for (; j > 0 && windows[pieces[j - 1].window].seq > windows[p.window].seq; j--)
            pieces[j] = pieces[j - 1];
        pieces[j] = p;
    }
}

/* Lay the pieces out in the order of their sequences: neighbours with equally many tokens
 * become one segment. */
static uint32_t make_segments(struct mcp_engine *e, const mcp_window *windows, uint32_t pieces)
{
    uint32_t segments = 0, token = 0;

    sort_by_sequence(e->pieces, pieces, windows);
    for (uint32_t i = 0; i < pieces; i++) {
        struct engine_piece   *p = &e->pieces[i];
        uint32_t               seq = windows[p->window].seq;
        uint32_t               pos = windows[p->window].pos + p->offset;
        uint32_t               columns = engine_kv_pad(pos + p->count);
        struct engine_segment *s = segments > 0 ? &e->segments[segments - 1] : NULL;

        if (s != NULL && s->seq + s->streams == seq && s->tokens == p->count) {
            s->streams++;
            s->columns = columns > s->columns ? columns : s->columns;
        } else {
            e->segments[segments++] = (struct engine_segment){ seq, 1, p->count, columns };
        }
        p->token = token;
        for (uint32_t t = 0; t < p->count; t++, token++) {
            e->positions[token] = (int32_t)(pos + t);
            e->sequences[token] = seq;
        }
    }
    return segments;
}

/* Does window w want the row of its position `index`, and as which of its rows? */
static bool wants(const mcp_window *w, uint32_t index, uint32_t *row)
{
    switch (w->out) {
    case MCP_OUT_ALL: *row = index; return true;
    case MCP_OUT_LAST: *row = 0; return index + 1 == w->count;
    case MCP_OUT_CHOSEN:
        for (uint32_t i = 0; i < w->out_count; i++) {
            *row = i;
            if (w->out_index[i] >= index)
                return w->out_index[i] == index;
        }
        return false;
    default: return false;
    }
}

/* The input of the first shard: the caller's tokens or hidden states, in batch order.  A
 * batch that mixes both is widened here. */
static void gather(struct mcp_engine *e, const mcp_window *windows, uint32_t pieces,
                   struct engine_batch *batch)
{
    const struct model_tensor *embd = e->model->tensors.global[G_TOKEN_EMBD];
    size_t                     n = e->model->hp.n_embd;
    float                     *hidden = e->hidden[0].data;
    bool                       all_tokens = true;

    for (uint32_t i = 0; i < pieces; i++)
        all_tokens = all_tokens && windows[e->pieces[i].window].tokens != NULL;
    batch->tokens = all_tokens ? e->tokens : NULL;
    batch->hidden = all_tokens ? NULL : hidden;

    for (uint32_t i = 0; i < pieces; i++) {
        const struct engine_piece *p = &e->pieces[i];
        const mcp_window          *w = &windows[p->window];

        if (all_tokens)
            memcpy(e->tokens + p->token, w->tokens + p->offset, p->count * sizeof(*w->tokens));
        else if (w->hidden != NULL)
            memcpy(hidden + p->token * n, w->hidden + p->offset * n, p->count * n * sizeof(float));
        else
            for (uint32_t t = 0; t < p->count; t++)
                model_embed(embd, w->tokens[p->offset + t], hidden + (p->token + t) * n);
    }
}

/* Rows of hidden state back to the caller's order. */
static void scatter_hidden(const struct mcp_engine *e, const mcp_window *windows, uint32_t pieces,
                           const uint64_t *row_base, const float *hidden, float *out)
{
    size_t n = e->model->hp.n_embd;

    for (uint32_t i = 0; i < pieces; i++) {
        const struct engine_piece *p = &e->pieces[i];
        const mcp_window          *w = &windows[p->window];

        for (uint32_t t = 0; t < p->count; t++) {
            uint32_t row;

            if (wants(w, p->offset + t, &row))
                memcpy(out + (row_base[p->window] + row) * n, hidden + (p->token + t) * n,
                       n * sizeof(float));
        }
    }
}

/* Which tokens of the batch make a row of logits, in the caller's order; *first_row is
 * where they go.  Windows are batched in their own order, so the rows of one batch are
 * neighbours in the output. */
static uint32_t choose_rows(struct mcp_engine *e, const mcp_window *windows, uint32_t pieces,
                            const uint64_t *row_base, uint64_t *first_row)
{
    uint32_t rows = 0;
    uint64_t lowest = UINT64_MAX;

    for (uint32_t i = 0; i < pieces; i++) {
        const struct engine_piece *p = &e->pieces[i];
        uint32_t                   row;

        for (uint32_t t = 0; t < p->count; t++) {
            if (!wants(&windows[p->window], p->offset + t, &row))
                continue;
            rows++;
            if (row_base[p->window] + row < lowest)
                lowest = row_base[p->window] + row;
        }
    }
    for (uint32_t i = 0; i < pieces; i++) {
        const struct engine_piece *p = &e->pieces[i];
        uint32_t                   row;

        for (uint32_t t = 0; t < p->count; t++)
            if (wants(&windows[p->window], p->offset + t, &row))
                e->rows[row_base[p->window] + row - lowest] = (int32_t)(p->token + t);
    }
    *first_row = lowest;
    return rows;
}

/* The rows that a batch is about to write in layers of one shard. */
static void claim_rows(struct mcp_engine *e, struct engine_shard *s,
                       const struct engine_shape *shape, const mcp_window *windows, uint32_t pieces)
{
    for (uint32_t i = 0; i < pieces; i++) {
        const struct engine_piece *p = &e->pieces[i];
        const mcp_window          *w = &windows[p->window];

        engine_kv_claim(&s->kv, w->seq, shape->first, shape->last, w->pos + p->offset + p->count);
    }
}

/* One batch through every shard that holds a part of [first, last). */
static int run_batch(struct mcp_engine *e, uint32_t first, uint32_t last, mcp_want want,
                     const mcp_window *windows, uint32_t pieces, const uint64_t *row_base,
                     float *out, mcp_error *err)
{
    struct engine_batch batch = { .positions = e->positions, .sequences = e->sequences };
    uint64_t            first_row = 0;
    uint32_t            rows;
    float              *to = e->hidden[1].data;
    uint32_t            next = 0;
    int                 rc = MCP_OK;

    batch.shape.segment_count = make_segments(e, windows, pieces);
    batch.shape.segments = e->segments;
    batch.shape.tokens = e->pieces[pieces - 1].token + e->pieces[pieces - 1].count;
    batch.reference = e->even && e->pieces[0].count < ENGINE_TILE_TOKENS;
    rows = choose_rows(e, windows, pieces, row_base, &first_row);
    gather(e, windows, pieces, &batch);

    for (uint32_t i = 0; i < e->shard_count && rc == MCP_OK; i++) {
        struct engine_shard *s = &e->shards[i];
        bool                 final;

        if (first >= s->last || last <= s->first)
            continue;
        batch.shape.first = first > s->first ? first : s->first;
        batch.shape.last = last < s->last ? last : s->last;
        final = batch.shape.last == last;
        batch.shape.output = final && rows == 0                 ? ENGINE_OUTPUT_KV
                             : final && want == MCP_WANT_LOGITS ? ENGINE_OUTPUT_LOGITS
                                                                : ENGINE_OUTPUT_HIDDEN;
        batch.shape.rows = batch.shape.output == ENGINE_OUTPUT_LOGITS ? rows : 0;
        batch.rows = e->rows;
        claim_rows(e, s, &batch.shape, windows, pieces);
        rc = engine_shard_run(s, e->model, &batch,
                              batch.shape.output == ENGINE_OUTPUT_LOGITS
                                  ? out + first_row * e->model->hp.n_vocab
                                  : to,
                              err);
        batch.hidden = to;
        to = e->hidden[next].data;
        next ^= 1;
    }
    if (rc == MCP_OK && rows > 0 && want == MCP_WANT_HIDDEN)
        scatter_hidden(e, windows, pieces, row_base, batch.hidden, out);
    return rc;
}

int engine_forward(struct mcp_engine *e, uint32_t first, uint32_t last, mcp_want want,
                   const mcp_window *windows, uint32_t count, float *out, size_t out_floats,
                   mcp_error *err)
{
    struct cursor at = { 0, 0 };
    uint64_t     *row_base, rows = 0;
    int           rc;

    rc = check_forward(e, first, last, want, windows, count, out, out_floats, err);
    if (rc < 0 || count == 0)
        return rc;
    row_base = malloc(count * sizeof(*row_base));
    if (row_base == NULL)
        return base_fail(err, MCP_ENOMEM, "%u windows", count);
    for (uint32_t i = 0; i < count; i++) {
        row_base[i] = rows;
        rows += window_rows(&windows[i]);
    }

    while (rc == MCP_OK && at.window < count) {
        uint32_t pieces = next_pieces(e, windows, count, &at);

        rc = atomic_load(&e->cancel) != 0
                 ? base_fail(err, MCP_ECANCELED, "the forward was cancelled")
                 : run_batch(e, first, last, want, windows, pieces, row_base, out, err);
    }
    free(row_base);
    for (uint32_t i = 0; i < e->shard_count; i++)
        engine_shard_wait(&e->shards[i]);
    if (rc == MCP_ECANCELED)
        atomic_store(&e->cancel, 0);
    if (rc < 0)
        return rc;

    /* Only now do the new rows count: a failed forward leaves the lengths alone. */
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t layer = first; layer < last; layer++)
            *engine_kv_length(&engine_shard_of(e, layer)->kv, windows[i].seq,
                              layer) = windows[i].pos + windows[i].count;
    return MCP_OK;
}
