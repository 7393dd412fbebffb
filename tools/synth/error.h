/* SPDX-License-Identifier: MIT */
/* error.h - the one sentence that mcp-synth says when it gives up. */
#ifndef SYNTH_ERROR_H
#define SYNTH_ERROR_H

#include <stdarg.h>
#include <stdio.h>

/* 1024 holds any sentence here plus one long path; longer ones are cut. */
struct synth_error {
    char text[1024];
};

/* Store the sentence (no newline, no full stop needed) and return -1, so that a
 * caller can write `return synth_fail(err, ...)`. */
__attribute__((format(printf, 2, 3))) static inline int synth_fail(struct synth_error *err,
                                                                   const char         *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return -1;
}

#endif
