/* cli/policy.h - what a request may do: where data may go, what is to be small, how much memory.
 *
 * The words and the parsing that `mcp run` and `mcp plan` share.
 *
 * SPDX-License-Identifier: MIT */
#ifndef CLI_POLICY_H
#define CLI_POLICY_H

#include "cli/args.h"

#include <mcp/plan.h>

extern const struct cli_word cli_privacy_words[], cli_optimize_words[];

/* Their rows in a verb whose struct T has int64_t privacy, optimize and const char *vram. */
#define CLI_POLICY_ROWS(T)                                                                  \
    { .name = "privacy",                                                                    \
      .type = CLI_WORD,                                                                     \
      .at = offsetof(T, privacy),                                                           \
      .value = "",                                                                          \
      .fallback = "split",                                                                  \
      .words = cli_privacy_words,                                                           \
      .help = "what may leave: nothing; hidden states of middle layers; anything" },        \
        { .name = "optimize",                                                               \
          .type = CLI_WORD,                                                                 \
          .at = offsetof(T, optimize),                                                      \
          .value = "",                                                                      \
          .fallback = "latency",                                                            \
          .words = cli_optimize_words,                                                      \
          .help = "the request's time, its price, or how many such requests run at once" }, \
    {                                                                                       \
        .name = "vram", .type = CLI_TEXT, .at = offsetof(T, vram), .value = "SIZE",         \
        .help = "most memory here, such as 12GiB; without: 70 % of the device's"            \
    }

/* "12GiB", "800MB", "4096": bytes of --vram.  NULL: *bytes is left alone.  0, or -1 with the line
 * printed. */
int cli_vram_bytes(const char *text, uint64_t *bytes);

#endif
