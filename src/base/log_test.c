/* base/log_test.c - one sink for all lines, and what a library said while it failed.
 *
 * SPDX-License-Identifier: MIT */
#include "base/log.h"

#include "base/unit_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { GGML_INFO = 2, GGML_WARN = 3, GGML_ERROR = 4, GGML_CONT = 5 };

struct heard {
    int  count;
    int  level;
    char line[2048];
};

static void hear(int level, const char *line, void *ctx)
{
    struct heard *h = ctx;

    h->count++;
    h->level = level;
    snprintf(h->line, sizeof(h->line), "%s", line);
}

/* Goal:   a line reaches the sink with its level; without one it is dropped.
 * Method: before, while and after a sink is set. */
static void a_line_goes_to_the_sink_that_is_set(void **state)
{
    struct heard first = { 0 }, second = { 0 };

    (void)state;
    base_log(BASE_LOG_WARN, "dropped");
    mcp_log_set(hear, &first);
    base_log(BASE_LOG_DETAIL, "tensor %d of %s", 7, "it");
    assert_int_equal(first.count, 1);
    assert_int_equal(first.level, 2);
    assert_string_equal(first.line, "tensor 7 of it");

    mcp_log_set(hear, &second);
    base_log(BASE_LOG_INFO, "other");
    assert_int_equal(first.count, 1);
    assert_int_equal(second.count, 1);
    assert_int_equal(second.level, 1);

    mcp_log_set(NULL, NULL);
    base_log(BASE_LOG_WARN, "dropped");
    assert_int_equal(second.count, 1);
}

/* Goal:   a line longer than the buffer is cut, not written past it. */
static void a_long_line_is_cut(void **state)
{
    struct heard h = { 0 };
    static char  text[5000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    mcp_log_set(hear, &h);
    base_log(BASE_LOG_INFO, "%s", text);
    assert_int_equal(strlen(h.line), 1023);
    base_log_foreign(GGML_WARN, text, NULL);
    assert_int_equal(strlen(h.line), 1023);
    mcp_log_set(NULL, NULL);
}

/* Goal:   of a library's lines, warnings and errors arrive, trimmed; progress does not.
 * Method: one line of each of ggml's levels. */
static void a_librarys_chatter_is_dropped_and_its_warnings_arrive(void **state)
{
    struct heard h = { 0 };

    (void)state;
    mcp_log_set(hear, &h);
    base_log_foreign(0, "none\n", NULL);
    base_log_foreign(1, "debug\n", NULL);
    base_log_foreign(GGML_INFO, "loading\n", NULL);
    base_log_foreign(GGML_CONT, ".", NULL);
    base_log_foreign(GGML_ERROR, "\r\n", NULL);
    base_log_foreign(GGML_ERROR, "", NULL);
    assert_int_equal(h.count, 0);
    base_log_foreign(GGML_WARN, "gguf: odd\r\n\n", NULL);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.level, BASE_LOG_INFO);
    assert_string_equal(h.line, "gguf: odd");
    base_log_foreign(GGML_ERROR, "gguf: bad\n", NULL);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.level, BASE_LOG_WARN);
    assert_string_equal(h.line, "gguf: bad");
    mcp_log_set(NULL, NULL);
}

/* Goal:   the reason of a failure is its first error line, without the function's name.
 * Method: a warning, two errors and then nothing between begin and end. */
static void the_capture_keeps_the_first_error_line(void **state)
{
    static char text[2000];

    (void)state;
    base_log_capture_begin();
    base_log_foreign(GGML_WARN, "gguf_init: only odd\n", NULL);
    base_log_foreign(GGML_ERROR, "gguf_init: key 'a: b' is bad\n", NULL);
    base_log_foreign(GGML_ERROR, "gguf_init: failed\n", NULL);
    assert_string_equal(base_log_capture_end(), "key 'a: b' is bad");

    base_log_foreign(GGML_ERROR, "gguf_init: after the end\n", NULL);
    base_log_capture_begin();
    assert_string_equal(base_log_capture_end(), "");

    base_log_capture_begin();
    base_log_foreign(GGML_ERROR, "no prefix\n", NULL);
    assert_string_equal(base_log_capture_end(), "no prefix");

    memset(text, 'y', sizeof(text) - 1);
    base_log_capture_begin();
    base_log_foreign(GGML_ERROR, text, NULL);
    assert_int_equal(strlen(base_log_capture_end()), 255);
}

static void *fail_elsewhere(void *ctx)
{
    base_log_foreign(GGML_ERROR, "other: somebody else's\n", NULL);
    return ctx;
}

/* Goal:   a thread keeps its own reason, not that of another one which fails meanwhile. */
static void the_capture_is_the_calling_threads(void **state)
{
    pthread_t other;

    (void)state;
    base_log_capture_begin();
    assert_int_equal(pthread_create(&other, NULL, fail_elsewhere, NULL), 0);
    pthread_join(other, NULL);
    base_log_foreign(GGML_ERROR, "own: mine\n", NULL);
    assert_string_equal(base_log_capture_end(), "mine");
}

/* ---- threads -------------------------------------------------------------------- */

enum { TALKERS = 4, LINES = 2000 };

struct crowd {
    atomic_int inside; /* threads in the sink right now */
    int        lines;  /* no atomic: the log's promise is one call at a time */
    int        crossed;
    int        strange;
};

static void listen(int level, const char *line, void *ctx)
{
    struct crowd *c = ctx;

    (void)level;
    if (atomic_fetch_add(&c->inside, 1) != 0)
        c->crossed++;
    if (strncmp(line, "talker ", 7) != 0)
        c->strange++;
    if (c->lines % 8 == 0)
        sched_yield(); /* let the others in, if they can */
    c->lines++;
    atomic_fetch_sub(&c->inside, 1);
}

static void *talk(void *ctx)
{
    for (int i = 0; i < LINES; i++)
        base_log(BASE_LOG_INFO, "talker %d says %d", *(int *)ctx, i);
    return NULL;
}

/* Goal:   the sink is called by one thread at a time, and never after it was replaced.
 * Method: four threads talk while the sink goes back and forth between two listeners; a
 *         listener that is not set must not hear a line. */
static void many_threads_speak_one_at_a_time(void **state)
{
    struct crowd crowds[2] = { { 0 }, { 0 } };
    pthread_t    threads[TALKERS];
    int          numbers[TALKERS];

    (void)state;
    mcp_log_set(listen, &crowds[0]);
    for (int i = 0; i < TALKERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, talk, &numbers[i]), 0);
    }
    for (int i = 1; i < 200; i++) {
        int silent = (i + 1) % 2, lines;

        mcp_log_set(listen, &crowds[i % 2]);
        lines = crowds[silent].lines;
        sched_yield();
        if (crowds[silent].lines != lines)
            fail_msg("a sink heard a line after it was replaced");
    }
    for (int i = 0; i < TALKERS; i++)
        pthread_join(threads[i], NULL);
    mcp_log_set(NULL, NULL);
    assert_int_equal(crowds[0].crossed + crowds[1].crossed, 0);
    assert_int_equal(crowds[0].strange + crowds[1].strange, 0);
    assert_int_equal(crowds[0].lines + crowds[1].lines, TALKERS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_goes_to_the_sink_that_is_set),
        cmocka_unit_test(a_long_line_is_cut),
        cmocka_unit_test(a_librarys_chatter_is_dropped_and_its_warnings_arrive),
        cmocka_unit_test(the_capture_keeps_the_first_error_line),
        cmocka_unit_test(the_capture_is_the_calling_threads),
        cmocka_unit_test(many_threads_speak_one_at_a_time),
    };

    return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
