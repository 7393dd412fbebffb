/* guard/hosts.c - names that a worker's certificate is good for; see certificate.h.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/certificate.h"

#include "base/fail.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

/* RFC 1123 with '_', which people use; no wildcards: a name is one machine. */
bool guard_is_dns_name(const char *text)
{
    size_t label = 0;
    bool   letter = false; /* in the last label: "1.2.3" is a broken address */

    if (strlen(text) > 253)
        return false;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '.') {
            if (label == 0 || c[-1] == '-')
                return false;
            label = 0;
            letter = false;
            continue;
        }
        if (!isascii(*c) || (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') ||
            (*c == '-' && label == 0) || ++label > 63)
            return false;
        letter = letter || !isdigit((unsigned char)*c);
    }
    return label > 0 && letter && text[strlen(text) - 1] != '-';
}

static bool is_address(const char *text)
{
    uint8_t bytes[16];

    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static int add_one(struct guard_hosts *hosts, const char *text, size_t bytes, mcp_error *err)
{
    char *host;

    if (hosts->count == GUARD_HOSTS_MAX)
        return base_fail(err, MCP_EINVAL, "a certificate may have %d host names, these are more",
                         GUARD_HOSTS_MAX);
    host = hosts->text[hosts->count];
    if (bytes < sizeof(hosts->text[0])) {
        memcpy(host, text, bytes);
        host[bytes] = '\0';
        if (guard_is_dns_name(host) || is_address(host)) {
            for (size_t i = 0; i < hosts->count; i++)
                if (strcasecmp(hosts->text[i], host) == 0)
                    return MCP_OK;
            hosts->count++;
            return MCP_OK;
        }
    }
    return base_fail(err, MCP_EINVAL,
                     "'%.*s' is neither a DNS name nor an address; host names are separated by "
                     "commas, without ports",
                     (int)(bytes < 80 ? bytes : 80), text);
}

int guard_hosts_add(struct guard_hosts *hosts, const char *list, mcp_error *err)
{
    for (;;) {
        size_t bytes = strcspn(list, ","), kept = bytes;
        int    rc;

        while (kept > 0 && list[kept - 1] == ' ')
            kept--;
        while (kept > 0 && *list == ' ') {
            list++;
            bytes--;
            kept--;
        }
        rc = add_one(hosts, list, kept, err);
        if (rc < 0 || list[bytes] == '\0')
            return rc;
        list += bytes + 1;
    }
}
