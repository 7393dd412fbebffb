/* gateway/metrics_test.c - the page of metrics, asked for over a socket.
 *
 * SPDX-License-Identifier: MIT */
#include "gateway/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int asked;

static char *page(void *ctx)
{
    asked++;
    return ctx != NULL ? strdup(ctx) : NULL;
}

/* Send a request to "127.0.0.1:PORT" and read until the server closes. */
static void get(const char *address, const char *request, char *answer, size_t cap)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t             used = 0;
    ssize_t            n;

    assert_true(fd >= 0);
    assert_memory_equal(address, "127.0.0.1:", 10);
    to.sin_port = htons((uint16_t)atoi(address + 10));
    assert_int_equal(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    while ((n = read(fd, answer + used, cap - 1 - used)) > 0)
        used += (size_t)n;
    answer[used] = '\0';
    close(fd);
}

#define HEAD " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

/* Goal:   the page where it is, and a status for everything else.
 * Method: requests as text; the page is made anew for each. */
static void the_page_is_served(void **state)
{
    static const struct {
        const char *request, *status, *body;
    } rows[] = {
        { "GET /metrics" HEAD, "HTTP/1.1 200", "\r\n\r\nx 1\n" },
        { "GET /metrics?a=b" HEAD, "HTTP/1.1 200", "\r\n\r\nx 1\n" },
        { "HEAD /metrics" HEAD, "HTTP/1.1 200", "\r\n\r\n" },
        { "GET /" HEAD, "HTTP/1.1 404", "/metrics" },
        { "GET /metrics/../etc" HEAD, "HTTP/1.1 404", "/metrics" },
        { "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
          "HTTP/1.1 405", "only GET" },
    };
    static char             text[] = "x 1\n";
    struct gateway_metrics *m;
    char                    answer[4096];
    mcp_error               err;

    (void)state;
    assert_int_equal(gateway_metrics_open(&m, "127.0.0.1:0", page, text, &err), 0);
    asked = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        get(gateway_metrics_address(m), rows[i].request, answer, sizeof(answer));
        if (strncmp(answer, rows[i].status, strlen(rows[i].status)) != 0)
            fail_msg("%.20s: '%.40s' is not %s", rows[i].request, answer, rows[i].status);
        assert_non_null(strstr(answer, rows[i].body));
    }
    assert_non_null(strstr(answer, "text/plain"));
    assert_int_equal(asked, 3);
    gateway_metrics_close(m);
}

static void no_memory_for_the_page_is_503(void **state)
{
    struct gateway_metrics *m;
    char                    answer[4096];

    (void)state;
    assert_int_equal(gateway_metrics_open(&m, "127.0.0.1:0", page, NULL, NULL), 0);
    get(gateway_metrics_address(m), "GET /metrics" HEAD, answer, sizeof(answer));
    assert_memory_equal(answer, "HTTP/1.1 503", 12);
    gateway_metrics_close(m);
    gateway_metrics_close(NULL);
}

static void bad_addresses_are_refused(void **state)
{
    static const char *const bad[] = {
        "",       "9100",    ":9100",        "127.0.0.1", "127.0.0.1:", "127.0.0.1:http",
        "::1:90", "[::1]90", "127.0.0.1:-1",
    };
    struct gateway_metrics *m, *second;
    mcp_error               err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        m = (struct gateway_metrics *)0x5a;
        err.text[0] = '\0';
        if (gateway_metrics_open(&m, bad[i], page, NULL, &err) != MCP_EINVAL)
            fail_msg("'%s' was taken", bad[i]);
        assert_null(m);
        assert_int_equal(err.code, MCP_EINVAL);
        assert_true(err.text[0] != '\0');
    }
    assert_int_equal(gateway_metrics_open(&m, "127.0.0.1:0", page, NULL, &err), 0);
    assert_int_equal(gateway_metrics_open(&second, gateway_metrics_address(m), page, NULL, &err),
                     MCP_EIO);
    assert_null(second);
    gateway_metrics_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_served),
        cmocka_unit_test(no_memory_for_the_page_is_503),
        cmocka_unit_test(bad_addresses_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
