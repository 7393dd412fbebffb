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

#define CLI_PRIVACY_HELP  "what may leave: nothing; hidden states of middle layers; anything"
#define CLI_OPTIMIZE_HELP "the request's time, its price, or how many such requests run at once"
#define CLI_VRAM_HELP     "most memory here, such as 12GiB; without: 70 % of the device's"

/* "12GiB", "800MB", "4096": bytes of --vram.  NULL: *bytes is left alone.  0, or -1 with the line
 * printed. */
int cli_vram_bytes(const char *text, uint64_t *bytes);

#endif
