/* pipe/journal.c - see journal.h.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/journal.h"

#include <assert.h>
#include <stdlib.h>

enum { ENTRIES_FIRST = 64, ATTENTION_PAD = 256 };

static struct pipe_entry *at(const struct pipe_journal *j, uint64_t i)
{
    assert(i >= j->first && i < j->last);
    return &j->entries[i & (j->cap - 1)];
}

const struct pipe_entry *pipe_journal_at(const struct pipe_journal *j, uint64_t i)
{
    return at(j, i);
}

uint32_t pipe_journal_pos(const struct pipe_journal *j, uint64_t i)
{
    if (i == j->first)
        return j->pos;
    return at(j, i - 1)->pos + at(j, i - 1)->kept;
}

void pipe_journal_fini(struct pipe_journal *j)
{
    pipe_journal_drop(j, j->last);
    free(j->entries);
    *j = (struct pipe_journal){ 0 };
}

/* Twice the room; entries keep their numbers. */
static int grow(struct pipe_journal *j)
{
    uint32_t           cap = j->cap > 0 ? 2 * j->cap : ENTRIES_FIRST;
    struct pipe_entry *entries;

    if (cap < j->cap)
        return MCP_ENOMEM;
    entries = calloc(cap, sizeof(*entries));
    if (entries == NULL)
        return MCP_ENOMEM;
    for (uint64_t i = j->first; i < j->last; i++)
        entries[i & (cap - 1)] = *at(j, i);
    free(j->entries);
    j->entries = entries;
    j->cap = cap;
    return MCP_OK;
}

int pipe_journal_push(struct pipe_journal *j, const struct pipe_entry *entry)
{
    assert(entry->pos == pipe_journal_pos(j, j->last));
    assert(entry->kept >= 1 && entry->kept <= entry->count);
    if (j->last - j->first == j->cap && grow(j) < 0)
        return MCP_ENOMEM;
    j->last++;
    *at(j, j->last - 1) = *entry;
    return MCP_OK;
}

uint64_t pipe_journal_find(const struct pipe_journal *j, uint32_t pos)
{
    uint64_t low = j->first, high = j->last;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (pipe_journal_pos(j, middle + 1) <= pos)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void pipe_journal_trim(struct pipe_journal *j, uint32_t pos)
{
    while (j->last > j->first && at(j, j->last - 1)->pos >= pos) {
        pipe_block_unref(at(j, j->last - 1)->block);
        j->last--;
    }
    if (j->last > j->first) {
        struct pipe_entry *e = at(j, j->last - 1);

        if (pos - e->pos < e->kept)
            e->kept = pos - e->pos;
    } else if (pos < j->pos) {
        j->pos = pos;
    }
}

void pipe_journal_drop(struct pipe_journal *j, uint64_t until)
{
    while (j->first < until) {
        j->pos = pipe_journal_pos(j, j->first + 1);
        pipe_block_unref(at(j, j->first)->block);
        j->first++;
    }
}

/* Does it not matter to the bits how this window is cut or joined with its like? */
static bool is_even(const struct pipe_entry *e, bool even_windows)
{
    uint32_t columns = (e->pos + e->count + ATTENTION_PAD - 1) / ATTENTION_PAD * ATTENTION_PAD;

    return e->count <= PIPE_JOIN_TOKENS && (even_windows || columns < PIPE_JOIN_COLUMNS);
}

static bool is_alike(const struct pipe_block *a, const struct pipe_block *b)
{
    return a->codec == b->codec && pipe_block_row_bytes(a) == pipe_block_row_bytes(b);
}

struct pipe_replay pipe_journal_replay(const struct pipe_journal *j, uint64_t i, uint64_t limit,
                                       bool even_windows)
{
    const struct pipe_entry *e = at(j, i);
    struct pipe_block       *blocks[PIPE_JOIN_TOKENS];
    uint32_t                 rows[PIPE_JOIN_TOKENS];
    struct pipe_replay       r = { .last = i, .pos = e->pos };

    for (; r.last < limit; r.last++) { /* ends within PIPE_JOIN_TOKENS: kept is never 0 */
        const struct pipe_entry *next = at(j, r.last);

        if (!is_even(next, even_windows) || r.count + next->kept > PIPE_JOIN_TOKENS ||
            !is_alike(next->block, e->block))
            break;
        blocks[r.last - i] = next->block;
        rows[r.last - i] = next->kept;
        r.count += next->kept;
    }
    if (r.last > i + 1 || (r.last == i + 1 && e->kept < e->count)) {
        r.block = pipe_block_join(blocks, rows, (size_t)(r.last - i));
        if (r.block != NULL)
            return r;
    }
    /* As it was; also when memory is short: joining saves round trips, no more. */
    return (struct pipe_replay){
        .last = i + 1, .pos = e->pos, .count = e->count, .block = pipe_block_ref(e->block)
    };
}
