/* cli/policy.c - see policy.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cli/policy.h"

#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct cli_word cli_privacy_words[] = { { "strict", MCP_PRIVACY_STRICT },
                                              { "split", MCP_PRIVACY_SPLIT },
                                              { "open", MCP_PRIVACY_OPEN },
                                              { NULL, 0 } };
const struct cli_word cli_optimize_words[] = { { "latency", MCP_OPTIMIZE_LATENCY },
                                               { "cost", MCP_OPTIMIZE_COST },
                                               { "throughput", MCP_OPTIMIZE_THROUGHPUT },
                                               { NULL, 0 } };

/* "12GiB", "800M", "1000000": powers of 1,024 with an i, of 1,000 without. */
static int size_of(const char *text, uint64_t *bytes)
{
    static const char *const prefixes = "KMGT";
    char                    *end;
    double                   value;
    const char              *prefix;

    errno = 0;
    value = strtod(text, &end);
    if (end == text || errno != 0 || !(value >= 0.0 && isfinite(value)))
        return -1;
    prefix = *end != '\0' ? strchr(prefixes, *end) : NULL;
    if (prefix != NULL) {
        double base = end[1] == 'i' ? 1024.0 : 1000.0;

        value *= pow(base, (double)(prefix - prefixes + 1));
        end += end[1] == 'i' ? 2 : 1;
    }
    if (*end == 'B')
        end++;
    if (*end != '\0' || value > 0x1p60)
        return -1;
    *bytes = (uint64_t)value;
    return 0;
}

int cli_vram_bytes(const char *text, uint64_t *bytes)
{
    if (text == NULL || size_of(text, bytes) == 0)
        return 0;
    cli_fail("--vram: '%.32s' is no size such as 12GiB or 800MB", text);
    return -1;
}
