/* pipe/draft.h - guesses of the next tokens of a text, out of the text itself.
 *
 *     tokens   0 ............... known ......... length
 *              the text          guesses
 *
 * What followed the last time the longest run of tokens occurred that ends here is the guess;
 * how often such guesses have been right for runs of that length, of late, is its probability.
 * Guesses are made on guesses: `probability` holds if those before it are right.
 *
 * Memory is bounded by tokens_max (at most 68 bytes a token); nothing allocates after draft_new().
 *
 * SPDX-License-Identifier: MIT */
#ifndef PIPE_DRAFT_H
#define PIPE_DRAFT_H

#include <mcp/error.h>
#include <stdbool.h>
#include <stdint.h>

struct draft;

struct draft_guess {
    int32_t token;
    float   probability;
};

int  draft_new(struct draft **out, uint32_t tokens_max, mcp_error *err);
void draft_free(struct draft *d);

/* The text is `tokens` now, at most tokens_max; no guesses.  What it shares with the former text
 * is not indexed again. */
void draft_begin(struct draft *d, const int32_t *tokens, uint32_t count);

/* What comes after the text and the guesses; false: nothing here has occurred before. */
bool draft_next(const struct draft *d, struct draft_guess *guess);

/* Append a guess, this one's or another's.  The caller sees to it that length < tokens_max. */
void draft_push(struct draft *d, int32_t token);

/* Forget the guesses from position `length` on. */
void draft_drop(struct draft *d, uint32_t length);

/* The text goes on with `token`.  True: as was guessed, or nothing was; false: otherwise, and all
 * guesses are gone.  The caller sees to it that known < tokens_max. */
bool draft_take(struct draft *d, int32_t token);

const int32_t *draft_tokens(const struct draft *d); /* (length) */
uint32_t       draft_known(const struct draft *d);
uint32_t       draft_length(const struct draft *d);

#endif
