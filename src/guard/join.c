/* guard/join.c - store what an invitation's line carries; invite.c has its format.
 *
 * Nothing of a line is quoted in a sentence: it holds a private key.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/base64.h"
#include "guard/endpoint.h"
#include "guard/json.h"
#include "guard/stage.h"
#include "guard/token.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ours have 2,700 characters, 8,200 with the longest token. */
enum { LINE_CHARS_MAX = 16 << 10 };

static const char prefix[] = "mcp1:", blanks[] = " \t\r\n";

/* ---- reading a line ----------------------------------------------------------------- */

struct invitation {
    json_t               *content; /* the texts below are its */
    const char           *endpoint;
    const char           *token; /* NULL = none */
    X509                 *ca;
    struct guard_pair     pair;
    struct guard_bytes    ca_pem;
    struct guard_identity who;
};

static void invitation_fini(struct invitation *in)
{
    X509_free(in->ca);
    guard_bytes_fini(&in->ca_pem);
    guard_pair_fini(&in->pair);
    json_decref(in->content);
}

/* The line's JSON. */
static int decode_line(json_t **out, const char *line, mcp_error *err)
{
    struct guard_bytes bytes = { 0 };
    size_t             chars;
    int                rc;

    line += strspn(line, blanks);
    chars = strlen(line);
    while (chars > 0 && strchr(blanks, line[chars - 1]) != NULL)
        chars--;
    if (chars > LINE_CHARS_MAX)
        return base_fail(err, MCP_EFORMAT, "the line has %zu characters, at most %d are read",
                         chars, LINE_CHARS_MAX);
    if (strncmp(line, "mcp", 3) == 0 && line[3] > '1' && line[3] <= '9' && line[4] == ':')
        return base_fail(err, MCP_ENOTSUP, "the line is of kind mcp%c, this mcp knows mcp1: update",
                         line[3]);
    if (strncmp(line, prefix, sizeof(prefix) - 1) != 0)
        return base_fail(err, MCP_EFORMAT,
                         "that is no line made by 'mcp keys invite': it must "
                         "begin with \"mcp1:\"");
    line += sizeof(prefix) - 1;
    chars -= sizeof(prefix) - 1;
    bytes.count = guard_base64_bytes(chars);
    bytes.data = malloc(bytes.count + 1);
    if (bytes.data == NULL)
        return base_fail(err, MCP_ENOMEM, "out of memory for a line");
    if (guard_base64_decode((uint8_t *)bytes.data, line, chars))
        rc = guard_json_parse(out, bytes.data, bytes.count, "the line's content", err);
    else
        rc = base_fail(err, MCP_EFORMAT, "the line is damaged: paste it whole, without blanks");
    guard_bytes_fini(&bytes);
    return rc;
}

static int need_pem(struct guard_bytes *pem, const json_t *content, const char *key, mcp_error *err)
{
    const char *text = guard_json_text(content, key);

    if (text == NULL)
        return base_fail(err, MCP_EFORMAT, "the line holds no %s", key);
    *pem = (struct guard_bytes){ .data = (char *)(uintptr_t)text, .count = strlen(text) };
    return MCP_OK;
}

/* The certificates and the key belong together and to a client. */
static int check_identity(struct invitation *in, mcp_error *err)
{
    int rc = guard_certificate_identity(in->pair.certificate, &in->who, err);

    if (rc < 0)
        return rc;
    if (!guard_certificate_is_authority(in->ca))
        return base_fail(err, MCP_EFORMAT, "the line's ca is no authority's certificate");
    if (!guard_certificate_signed_by(in->pair.certificate, in->ca))
        return base_fail(err, MCP_EFORMAT, "the line's certificate is not of its authority");
    if (X509_check_private_key(in->pair.certificate, in->pair.key) != 1) {
        ERR_clear_error();
        return base_fail(err, MCP_EFORMAT, "the line's key does not belong to its certificate");
    }
    if (strcmp(in->who.role, guard_role_names[MCP_ROLE_CLIENT]) != 0)
        return base_fail(err, MCP_EFORMAT,
                         "the line's certificate is for another role: %s, not client",
                         in->who.role);
    if (in->who.expires_s <= time(NULL))
        return base_fail(err, MCP_EINVAL, "the line's certificate has expired: ask for a new line");
    return MCP_OK;
}

/* The worker judges tokens; here it must only be one line of a file. */
static bool is_token_text(const char *text)
{
    size_t chars = strlen(text);

    return chars > 0 && chars <= GUARD_TOKEN_BYTES &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") ==
               chars;
}

/* Everything is parsed and spelled anew, so that no other bytes of the line reach a file. */
static int read_line(struct invitation *in, const char *line, mcp_error *err)
{
    struct guard_bytes pem;
    int                rc = decode_line(&in->content, line, err);

    if (rc < 0)
        return rc;
    in->endpoint = guard_json_text(in->content, "endpoint");
    if (in->endpoint == NULL || !guard_is_endpoint(in->endpoint))
        return base_fail(err, MCP_EFORMAT, "the line's endpoint is not HOST:PORT");
    in->token = guard_json_text(in->content, "token");
    if (in->token != NULL && !is_token_text(in->token))
        return base_fail(err, MCP_EFORMAT, "the line's token is none");
    rc = need_pem(&pem, in->content, "ca", err);
    if (rc == MCP_OK)
        rc = guard_certificate_read(&in->ca, &pem, "the line's ca", err);
    if (rc == MCP_OK)
        rc = need_pem(&pem, in->content, "certificate", err);
    if (rc == MCP_OK)
        rc = guard_certificate_read(&in->pair.certificate, &pem, "the line's certificate", err);
    if (rc == MCP_OK)
        rc = need_pem(&pem, in->content, "key", err);
    if (rc == MCP_OK)
        rc = guard_key_read_private(&in->pair.key, &pem, "the line's key", err);
    if (rc == MCP_OK)
        rc = check_identity(in, err);
    if (rc == MCP_OK)
        rc = guard_certificate_pem(in->ca, &in->ca_pem, err);
    if (rc == MCP_OK)
        rc = guard_certificate_pem(in->pair.certificate, &in->pair.certificate_pem, err);
    if (rc == MCP_OK)
        rc = guard_key_private_pem(in->pair.key, &in->pair.key_pem, err);
    return rc;
}

/* ---- storing ------------------------------------------------------------------------ */

static int store_token(const struct guard_folder *folder, const char *token, mcp_error *err)
{
    char line[GUARD_TOKEN_BYTES + 2];

    snprintf(line, sizeof(line), "%s\n", token);
    return guard_folder_write(folder, "client.token", GUARD_SECRET, line, strlen(line), err);
}

/* The text of the file `workers` with the line's worker in it. */
static int workers_with(struct guard_bytes *text, const struct guard_folder *folder,
                        const char *endpoint, mcp_error *err)
{
    struct guard_workers workers;
    int                  rc = guard_workers_load(&workers, folder, err);

    if (rc == MCP_OK)
        rc = guard_workers_add(&workers, endpoint, err);
    return rc < 0 ? rc : guard_workers_text(&workers, text, err);
}

static int store_new(const char *target, const struct invitation *in, mcp_error *err)
{
    struct guard_stage stage = GUARD_STAGE_NONE;
    char               line[GUARD_TOKEN_BYTES + 2];
    int                rc = guard_stage_begin(&stage, target, err);

    if (rc == MCP_OK)
        rc = guard_stage_add(&stage, "ca.pem", GUARD_PUBLIC, in->ca_pem.data, in->ca_pem.count,
                             err);
    if (rc == MCP_OK)
        rc = guard_stage_add(&stage, "client.pem", GUARD_PUBLIC, in->pair.certificate_pem.data,
                             in->pair.certificate_pem.count, err);
    if (rc == MCP_OK)
        rc = guard_stage_add(&stage, "client.key", GUARD_SECRET, in->pair.key_pem.data,
                             in->pair.key_pem.count, err);
    snprintf(line, sizeof(line), "%s\n", in->endpoint);
    if (rc == MCP_OK)
        rc = guard_stage_add(&stage, "workers", GUARD_PUBLIC, line, strlen(line), err);
    snprintf(line, sizeof(line), "%s\n", in->token != NULL ? in->token : "");
    if (rc == MCP_OK && in->token != NULL)
        rc = guard_stage_add(&stage, "client.token", GUARD_SECRET, line, strlen(line), err);
    if (rc == MCP_OK)
        rc = guard_stage_commit(&stage, err);
    guard_stage_fini(&stage);
    return rc;
}

/* The old certificate gives way, and its token, which belonged to it.  A reader may meet the new
 * key with the old certificate for an instant, and is told that they do not match. */
static int replace_pair(const struct guard_folder *folder, const struct guard_pair *pair,
                        mcp_error *err)
{
    int rc = guard_folder_write(folder, "client.key", GUARD_SECRET, pair->key_pem.data,
                                pair->key_pem.count, err);

    if (rc == MCP_OK)
        rc = guard_folder_write(folder, "client.pem", GUARD_PUBLIC, pair->certificate_pem.data,
                                pair->certificate_pem.count, err);
    return rc < 0 ? rc : guard_folder_remove(folder, "client.token", err);
}

/* Another worker, or a renewed certificate, of the authority that the folder knows.  What needs
 * memory comes first. */
static int store_more(const struct guard_folder *folder, const struct invitation *in,
                      mcp_error *err)
{
    struct guard_bytes workers = { 0 };
    X509              *have = NULL;
    mcp_error          why = { 0 };
    int                rc = guard_folder_certificate(&have, folder, "client.pem", &why);
    bool               same = rc == MCP_OK && X509_cmp(have, in->pair.certificate) == 0;

    X509_free(have);
    if (rc < 0 && rc != MCP_ENOTFOUND)
        return base_fail(err, rc, "%s", why.text);
    rc = workers_with(&workers, folder, in->endpoint, err);
    if (rc == MCP_OK && !same)
        rc = replace_pair(folder, &in->pair, err);
    if (rc == MCP_OK && in->token != NULL)
        rc = store_token(folder, in->token, err);
    if (rc == MCP_OK)
        rc = guard_folder_write(folder, "workers", GUARD_PUBLIC, workers.data, workers.count, err);
    guard_bytes_fini(&workers);
    return rc;
}

/* 1 when the folder holds this authority's files, 0 when there is nothing to compare with.
 *   MCP_EINVAL  it holds another authority's */
static int compare_authority(const struct guard_folder *folder, const struct invitation *in,
                             mcp_error *err)
{
    X509     *have = NULL;
    mcp_error why = { 0 };
    int       rc = guard_folder_certificate(&have, folder, "ca.pem", &why), same;

    if (rc == MCP_ENOTFOUND)
        return 0;
    if (rc < 0)
        return base_fail(err, rc, "%s", why.text);
    same = X509_cmp(have, in->ca) == 0;
    X509_free(have);
    return same ? 1
                : base_fail(err, MCP_EINVAL,
                            "%s holds the keys of another authority; one folder is for one: name a "
                            "new folder",
                            folder->path);
}

static int store(const char *target, const struct invitation *in, mcp_error *err)
{
    struct guard_folder folder = GUARD_FOLDER_CLOSED;
    mcp_error           why = { 0 };
    int                 lock = -1, rc = guard_folder_open(&folder, target, &why);

    if (rc == MCP_OK)
        rc = compare_authority(&folder, in, &why);
    if (rc == MCP_ENOTFOUND || rc == 0) {
        guard_folder_close(&folder);
        return store_new(target, in, err);
    }
    if (rc > 0)
        rc = guard_folder_lock(&folder, &lock, &why);
    if (rc == MCP_OK)
        rc = store_more(&folder, in, &why);
    if (lock >= 0)
        (void)close(lock);
    guard_folder_close(&folder);
    return rc < 0 ? base_fail(err, rc, "%s", why.text) : MCP_OK;
}

int guard_keys_join(const char *line, const char *target, char *endpoint, size_t cap,
                    mcp_error *err)
{
    struct invitation in = { 0 };
    int               rc = read_line(&in, line, err);

    if (rc == MCP_OK && strlen(in.endpoint) >= cap)
        rc = base_fail(err, MCP_ERANGE, "the worker's address has %zu bytes, room is for %zu",
                       strlen(in.endpoint), cap - 1);
    if (rc == MCP_OK)
        rc = store(target, &in, err);
    if (rc == MCP_OK)
        memcpy(endpoint, in.endpoint, strlen(in.endpoint) + 1);
    invitation_fini(&in);
    return rc;
}
