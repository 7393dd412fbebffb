/* fuzz/table.c - what happens to a worker's session table is the input.
 *
 * Each byte is a choice: which event, whose, how large.  The model in shadow_test.h says what must
 * come of it; a difference is a finding, beside crashes and undefined behaviour.
 *
 * ./dev fuzz table SECONDS; any bytes are a good seed.
 *
 * SPDX-License-Identifier: MIT */
#include "worker/shadow_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct shadow w;
    struct shadow_source source = { .bytes = data, .count = size };

    if (size == 0)
        return 0;
    shadow_init(&w, &source);
    while (source.count > 0)
        shadow_step(&w);
    shadow_fini(&w);
    return 0;
}
