/* pipe/draft.c - see draft.h.
 *
 * The index has a table for each of a few run lengths.  A slot, chosen by the hash of such a run,
 * holds the position after its latest occurrence; whoever comes later takes the slot.  A slot is
 * only a hint: the tokens before the position are compared, so neither a collision nor a text
 * that was cut back needs anything undone.
 *
 * SPDX-License-Identifier: MIT */
#include "pipe/draft.h"

#include "base/fail.h"

#include <assert.h>
#include <stdlib.h>

/* Ascending.  Between two of them the shorter one finds the place, and comparison the length. */
static const uint8_t run_lengths[] = { 1, 2, 3, 4, 6, 8, 12, 16 };

enum {
    RUNS = sizeof(run_lengths) / sizeof(run_lengths[0]),
    RUN_MAX = 16,
    MATCH_MAX = 32, /* runs are compared so far back */
};

/* How right guesses were after runs of a class of lengths: decayed counts, which begin as
 * PRIOR_TRIES of an ordinary text's. */
#define PRIOR_TRIES 4.0f
#define DECAY       0.97f

static const struct {
    uint32_t match_min;
    float    prior;
} classes[] = {
    { 1, 0.25f }, { 2, 0.45f },  { 3, 0.6f },   { 4, 0.7f },   { 6, 0.8f },
    { 8, 0.87f }, { 12, 0.91f }, { 16, 0.93f }, { 24, 0.95f }, { MATCH_MAX, 0.97f },
};
enum { CLASSES = sizeof(classes) / sizeof(classes[0]) };

struct draft {
    uint32_t  tokens_max;
    uint32_t  known, length;
    uint32_t  slot_mask;
    int32_t  *tokens;      /* (tokens_max) */
    uint32_t *slots[RUNS]; /* (slot_mask + 1); 0 = none */
    struct {
        float hits, tries;
    } seen[CLASSES];
};

int draft_new(struct draft **out, uint32_t tokens_max, mcp_error *err)
{
    struct draft *d = calloc(1, sizeof(*d));
    uint32_t      slots = 256;
    bool          room;

    *out = NULL;
    if (d == NULL)
        return base_fail(err, MCP_ENOMEM, "drafts");
    while (slots < tokens_max && slots < UINT32_C(1) << 30)
        slots *= 2;
    d->tokens_max = tokens_max;
    d->slot_mask = slots - 1;
    d->tokens = calloc(tokens_max, sizeof(*d->tokens));
    room = d->tokens != NULL;
    for (size_t i = 0; i < RUNS && room; i++) {
        d->slots[i] = calloc(slots, sizeof(*d->slots[i]));
        room = d->slots[i] != NULL;
    }
    if (!room) {
        draft_free(d);
        return base_fail(err, MCP_ENOMEM, "drafts for a text of %u tokens", tokens_max);
    }
    for (size_t i = 0; i < CLASSES; i++) {
        d->seen[i].tries = PRIOR_TRIES;
        d->seen[i].hits = PRIOR_TRIES * classes[i].prior;
    }
    *out = d;
    return MCP_OK;
}

void draft_free(struct draft *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < RUNS; i++)
        free(d->slots[i]);
    free(d->tokens);
    free(d);
}

/* ---- the index ---------------------------------------------------------------------------- */

/* Slots of the runs that end before `end`, shortest first; returns how many there are. */
static uint32_t find_slots(const struct draft *d, uint32_t end, uint32_t *slots[RUNS])
{
    uint64_t hash = 0;
    uint32_t count = 0;

    for (uint32_t n = 1; n <= RUN_MAX && n <= end; n++) {
        hash = (hash ^ (uint32_t)d->tokens[end - n]) * UINT64_C(0x9e3779b97f4a7c15);
        if (n == run_lengths[count]) {
            slots[count] = &d->slots[count][hash >> 32 & d->slot_mask];
            count++;
        }
    }
    return count;
}

/* The text's token at `end` is known: what follows the runs before it. */
static void index_token(struct draft *d, uint32_t end)
{
    uint32_t *slots[RUNS], count = find_slots(d, end, slots);

    for (uint32_t i = 0; i < count; i++)
        *slots[i] = end;
}

/* Tokens before `a` that equal those before `b`, up to MATCH_MAX; a < b. */
static uint32_t match(const struct draft *d, uint32_t a, uint32_t b)
{
    uint32_t n = 0;

    while (n < MATCH_MAX && n < a && d->tokens[a - 1 - n] == d->tokens[b - 1 - n])
        n++;
    return n;
}

/* Where the longest run before `end` occurred last in the text, and was followed: the position of
 * what followed, 0 = nowhere.  *matched is its length. */
static uint32_t look_up(const struct draft *d, uint32_t end, uint32_t *matched)
{
    uint32_t *slots[RUNS], count = find_slots(d, end, slots);

    while (count-- > 0) {
        uint32_t pos = *slots[count];

        if (pos == 0 || pos >= d->known || pos >= end)
            continue;
        *matched = match(d, pos, end);
        if (*matched >= run_lengths[count])
            return pos;
    }
    return 0;
}

/* ---- how good guesses are ----------------------------------------------------------------- */

static uint32_t class_of(uint32_t matched)
{
    uint32_t i = CLASSES - 1;

    while (classes[i].match_min > matched)
        i--;
    return i;
}

/* What would have been guessed in place of `token`? */
static void learn(struct draft *d, int32_t token)
{
    uint32_t matched, pos = look_up(d, d->known, &matched), i;

    if (pos == 0)
        return;
    i = class_of(matched);
    d->seen[i].tries = d->seen[i].tries * DECAY + 1.0f;
    d->seen[i].hits = d->seen[i].hits * DECAY + (d->tokens[pos] == token ? 1.0f : 0.0f);
}

/* ---- the text and its guesses --------------------------------------------------------------- */

void draft_begin(struct draft *d, const int32_t *tokens, uint32_t count)
{
    uint32_t same = 0;

    assert(count <= d->tokens_max);
    while (same < d->known && same < count && d->tokens[same] == tokens[same])
        same++;
    d->known = same;
    while (d->known < count) {
        d->tokens[d->known] = tokens[d->known];
        index_token(d, d->known++);
    }
    d->length = d->known;
}

bool draft_next(const struct draft *d, struct draft_guess *guess)
{
    uint32_t matched, pos = look_up(d, d->length, &matched), i;

    if (pos == 0)
        return false;
    i = class_of(matched);
    guess->token = d->tokens[pos];
    guess->probability = d->seen[i].hits / d->seen[i].tries;
    return true;
}

void draft_push(struct draft *d, int32_t token)
{
    assert(d->length < d->tokens_max);
    d->tokens[d->length++] = token;
}

void draft_drop(struct draft *d, uint32_t length)
{
    assert(length >= d->known && length <= d->length);
    d->length = length;
}

bool draft_take(struct draft *d, int32_t token)
{
    bool guessed = d->length > d->known, right = guessed && d->tokens[d->known] == token;

    assert(d->known < d->tokens_max);
    learn(d, token);
    d->tokens[d->known] = token;
    index_token(d, d->known++);
    if (!right)
        d->length = d->known;
    return right || !guessed;
}

const int32_t *draft_tokens(const struct draft *d)
{
    return d->tokens;
}

uint32_t draft_known(const struct draft *d)
{
    return d->known;
}

uint32_t draft_length(const struct draft *d)
{
    return d->length;
}
