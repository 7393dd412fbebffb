/* SPDX-License-Identifier: MIT */
/* vocab.h - the tokenizer.* keys of a file. */
#ifndef SYNTH_VOCAB_H
#define SYNTH_VOCAB_H

#include "error.h"

#include "gguf.h"

#include <stdint.h>

/* Write a made-up SentencePiece tokenizer of n_vocab tokens: specials, the 256
 * bytes, the two ChatML marks, then letters and short strings.  It encodes and
 * decodes any text.  Fails where n_vocab is below SYNTH_VOCAB_MIN. */
int synth_vocab_invent(struct gguf_context *out, uint32_t n_vocab, struct synth_error *err);

enum { SYNTH_VOCAB_MIN = 3 + 256 + 2 };

/* Copy the tokenizer.* keys of a GGUF file, its tokens cut or padded to n_vocab.
 * Special tokens that would be cut off move to the last places instead. */
int synth_vocab_copy(struct gguf_context *out, const char *path, uint32_t n_vocab,
                     struct synth_error *err);

#endif
