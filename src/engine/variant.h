/* engine/variant.h - ggml backends as modules beside the library (portable build).
 *
 * SPDX-License-Identifier: MIT */
#ifndef ENGINE_VARIANT_H
#define ENGINE_VARIANT_H

/* Load every GPU module and the best CPU variant.  A module that does not load (no
 * driver) or a variant whose instructions do not run here is skipped with a log line. */
void engine_variants_load(void);

#endif
