/* pipe/journal.h - what entered a stage, window by window.
 *
 * Entries are numbered from 0 on in the order in which they entered; [first, last) are kept.
 * They cover the session's positions without a gap:
 *
 *     pos    0            100        160 164 168
 *            ├── entry 0 ──┼─ entry 1 ─┼─ 2 ─┼─ 3 ─┤        position(last) = 168
 *
 * A trim takes away the entries behind it.  The one that spans it stays whole, since a replay
 * has to run it as it was first run; `kept` says how many of its positions still count, and the
 * next entry begins there.  So a journal of n positions has at most n entries; their rows
 * are n and, for each cut entry, what was cut off.
 *
 * A stage that cannot be lost drops its entries as they are answered; `pos` is where the first
 * one left begins.
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_JOURNAL_H
#define PIPE_JOURNAL_H

#include "pipe/pipeline.h"

struct pipe_entry {
    uint64_t           window;     /* the number that pipeline_submit() gave */
    struct pipe_block *block;      /* its input: token ids (stage 0) or encoded rows */
    uint32_t           pos, count; /* as it entered */
    uint32_t           kept;       /* 1 to count */
    enum pipe_want     want;       /* rows of logits at the end of the pipeline */
};

struct pipe_journal {
    struct pipe_entry *entries; /* entry i at [i & (cap - 1)] */
    uint32_t           cap;     /* 0, or a power of two */
    uint64_t           first, last;
    uint32_t           pos;
};

void pipe_journal_fini(struct pipe_journal *j);

/* The block is the journal's on success.  MCP_ENOMEM: nothing changed. */
int pipe_journal_push(struct pipe_journal *j, const struct pipe_entry *entry);

const struct pipe_entry *pipe_journal_at(const struct pipe_journal *j, uint64_t i);

/* Where entry i begins; of `last`, where the next one will. */
uint32_t pipe_journal_pos(const struct pipe_journal *j, uint64_t i);

/* The first entry that does not end at or before `pos`; `last` when all do. */
uint64_t pipe_journal_find(const struct pipe_journal *j, uint32_t pos);

void pipe_journal_trim(struct pipe_journal *j, uint32_t pos);
void pipe_journal_drop(struct pipe_journal *j, uint64_t until); /* entries before it */

/* The window that replays entry i: the entry as it was, or, where that gives the same bits, only
 * the positions of it that count, joined with such of its successors below `limit`. */
struct pipe_replay {
    uint64_t           last; /* it stands for entries [i, last) */
    uint32_t           pos, count;
    struct pipe_block *block; /* the caller's reference */
};
struct pipe_replay pipe_journal_replay(const struct pipe_journal *j, uint64_t i, uint64_t limit,
                                       bool even_windows);

#endif
