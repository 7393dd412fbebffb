/* guard/endpoint.c - see endpoint.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/endpoint.h"

#include "base/fail.h"
#include "guard/certificate.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_port(const char *text)
{
    size_t digits = strlen(text);
    long   port = digits > 0 && digits <= 5 ? strtol(text, NULL, 10) : 0;

    return strspn(text, "0123456789") == digits && text[0] != '0' && port >= 1 && port <= 65535;
}

bool guard_is_endpoint(const char *text)
{
    char        host[GUARD_ENDPOINT_BYTES];
    const char *colon = strrchr(text, ':');
    size_t      bytes;
    uint8_t     address[16];

    if (strlen(text) >= GUARD_ENDPOINT_BYTES || colon == NULL || !is_port(colon + 1))
        return false;
    bytes = (size_t)(colon - text);
    memcpy(host, text, bytes);
    host[bytes] = '\0';
    if (host[0] == '[' && bytes > 2 && host[bytes - 1] == ']') {
        host[bytes - 1] = '\0';
        return inet_pton(AF_INET6, host + 1, address) == 1;
    }
    return inet_pton(AF_INET, host, address) == 1 || guard_is_dns_name(host);
}

int guard_workers_load(struct guard_workers *workers, const struct guard_folder *folder,
                       mcp_error *err)
{
    struct guard_bytes bytes;
    mcp_error          why = { 0 };
    int rc = guard_folder_read(folder, "workers", GUARD_PUBLIC, GUARD_PEM_BYTES, &bytes, &why);

    workers->count = 0;
    if (rc == MCP_ENOTFOUND)
        return MCP_OK;
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    for (char *line = bytes.data; rc == MCP_OK && *line != '\0';) {
        size_t chars = strcspn(line, "\n"), step = chars + (line[chars] == '\n');

        line[chars] = '\0';
        if (chars > 0 && !guard_is_endpoint(line))
            rc = base_fail(err, MCP_EFORMAT, "%s/workers: '%.80s' is not HOST:PORT", folder->path,
                           line);
        else if (chars > 0)
            rc = guard_workers_add(workers, line, err);
        line += step;
    }
    guard_bytes_fini(&bytes);
    return rc;
}

int guard_workers_add(struct guard_workers *workers, const char *endpoint, mcp_error *err)
{
    for (uint32_t i = 0; i < workers->count; i++)
        if (strcmp(workers->endpoint[i], endpoint) == 0)
            return MCP_OK;
    if (workers->count == GUARD_WORKERS_MAX)
        return base_fail(err, MCP_ERANGE,
                         "the file 'workers' of a keys folder holds at most %d: remove old ones",
                         GUARD_WORKERS_MAX);
    snprintf(workers->endpoint[workers->count++], GUARD_ENDPOINT_BYTES, "%s", endpoint);
    return MCP_OK;
}

int guard_workers_text(const struct guard_workers *workers, struct guard_bytes *text,
                       mcp_error *err)
{
    *text = (struct guard_bytes){ .data = malloc(sizeof(workers->endpoint) + GUARD_WORKERS_MAX) };
    if (text->data == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for the list of workers");
    for (uint32_t i = 0; i < workers->count; i++)
        text->count += (size_t)sprintf(text->data + text->count, "%s\n", workers->endpoint[i]);
    return MCP_OK;
}
