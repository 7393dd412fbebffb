/* guard/mint.c - signing tokens.
 *
 * A token is tried on our own verifier before it is given out: what is issued is accepted.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/keys.h"

#include "base/fail.h"
#include "guard/authority.h"
#include "guard/base64.h"
#include "guard/claims.h"
#include "guard/jws.h"

#include <ctype.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { JTI_RANDOM_BYTES = 16, DIGEST_BYTES = 32, DIGEST_CHARS = 43 };

/* ---- what is asked for -------------------------------------------------------------- */

static int check_rights(const mcp_token_opts *opts, mcp_error *err)
{
    uint32_t scopes, unknown;

    if (!guard_is_subject(opts->subject))
        return base_fail(err, MCP_EINVAL,
                         "the subject is not 1 to %d bytes of UTF-8 without control characters",
                         GUARD_SUBJECT_BYTES - 1);
    if (!guard_scope_parse(opts->scope, &scopes, &unknown) || unknown > 0)
        return base_fail(err, MCP_EINVAL,
                         "the scope '%.80s' is not some of the words infer, generate, state, admin "
                         "with one blank between them",
                         opts->scope);
    if (guard_priority_parse(opts->priority) < 0)
        return base_fail(err, MCP_EINVAL, "the priority '%.40s' is not batch, normal or realtime",
                         opts->priority);
    if (opts->expires_s < 1 || opts->expires_s > GUARD_LIFETIME_S)
        return base_fail(err, MCP_ERANGE, "a token lives 1 to %d s, not %" PRId64, GUARD_LIFETIME_S,
                         opts->expires_s);
    if (opts->last != 0 && (opts->first >= opts->last || opts->last > GUARD_LAYERS_MAX))
        return base_fail(err, MCP_ERANGE, "layers [%u, %u) are none: first < last <= %d",
                         opts->first, opts->last, GUARD_LAYERS_MAX);
    if (opts->last == 0 && opts->first != 0)
        return base_fail(err, MCP_ERANGE, "layers from %u on need a last one", opts->first);
    return MCP_OK;
}

/* The fingerprint in lower case, as the claim is spelled. */
static int take_model(char out[GUARD_HEX_BYTES], const char *text, mcp_error *err)
{
    uint8_t bytes[GUARD_MODEL_BYTES];

    snprintf(out, GUARD_HEX_BYTES, "%s", text);
    for (char *c = out; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    if (strlen(text) >= GUARD_HEX_BYTES || !guard_model_parse(out, bytes))
        return base_fail(err, MCP_EINVAL,
                         "the model '%.80s' is not a fingerprint: 64 hex digits, as 'mcp show' "
                         "prints",
                         text);
    return MCP_OK;
}

/* The certificate that the token will belong to. */
static int read_holder(struct guard_identity *holder, const struct guard_folder *folder,
                       const char *file, X509 *authority, int64_t now_s, mcp_error *err)
{
    struct guard_bytes pem;
    const char        *name = file != NULL ? file : "client.pem";
    X509              *certificate;
    int                rc;

    if (file != NULL)
        rc = guard_file_read(file, GUARD_PEM_BYTES, &pem, err);
    else
        rc = guard_folder_read(folder, name, GUARD_PUBLIC, GUARD_PEM_BYTES, &pem, err);
    if (rc < 0)
        return rc;
    rc = guard_certificate_read(&certificate, &pem, name, err);
    guard_bytes_fini(&pem);
    if (rc < 0)
        return rc;
    if (!guard_certificate_signed_by(certificate, authority))
        rc = base_fail(err, MCP_EINVAL, "%s was not issued by the authority of %s", name,
                       folder->path);
    else
        rc = guard_certificate_identity(certificate, holder, err);
    X509_free(certificate);
    if (rc < 0)
        return rc;
    if (strcmp(holder->role, guard_role_names[MCP_ROLE_WORKER]) == 0)
        return base_fail(err, MCP_EINVAL, "%s is a worker's certificate; tokens are for clients",
                         name);
    if (holder->expires_s <= now_s)
        return base_fail(err, MCP_EINVAL, "%s has expired: issue a new one", name);
    return MCP_OK;
}

/* ---- claims ------------------------------------------------------------------------- */

/* All claims; NULL when memory or random numbers are short. */
static json_t *make_claims(const mcp_token_opts *opts, const struct guard_identity *holder,
                           const char *authority, const char *model, int64_t now_s)
{
    uint8_t    random[JTI_RANDOM_BYTES];
    char       jti[2 * JTI_RANDOM_BYTES + 1], digest[DIGEST_CHARS + 1];
    json_int_t expires_s = now_s + opts->expires_s;
    json_t    *claims;
    bool       whole;

    if (RAND_bytes(random, sizeof(random)) != 1)
        return NULL;
    guard_hex(jti, random, sizeof(random));
    guard_base64_encode(digest, holder->sha256, DIGEST_BYTES);
    claims = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:{s:s}, s:s, s:s}", "iss", authority,
                       "sub", opts->subject, "aud",
                       opts->audience != NULL ? opts->audience : authority, "iat",
                       (json_int_t)now_s, "nbf", (json_int_t)now_s, "exp", expires_s, "jti", jti,
                       "cnf", "x5t#S256", digest, "scope", opts->scope, "priority", opts->priority);
    whole = claims != NULL;
    if (whole && model != NULL)
        whole = json_object_set_new(claims, "model", json_string(model)) == 0;
    if (whole && opts->last > 0)
        whole = json_object_set_new(
                    claims, "layers",
                    json_pack("[I, I]", (json_int_t)opts->first, (json_int_t)opts->last)) == 0;
    if (whole && opts->tokens_per_minute > 0)
        whole = json_object_set_new(claims, "rate", json_integer(opts->tokens_per_minute)) == 0;
    if (whole)
        return claims;
    json_decref(claims); /* a limit less than asked for would be a right too many */
    return NULL;
}

/* The token must please the folder's own verifier, which a mismatched token.pub does not. */
static int try_on(const char *token, const struct guard_folder *folder,
                  const struct guard_identity *holder, const char *audience, int64_t now_s,
                  mcp_error *err)
{
    struct guard_keyring *ring;
    struct guard_grant    grant;
    int                   rc = guard_keyring_load_from(&ring, folder, err);

    if (rc == MCP_OK)
        rc = guard_token_verify(ring, token, strlen(token), holder->sha256, audience, now_s, &grant,
                                err);
    guard_keyring_unref(ring);
    return rc;
}

static int sign(const struct guard_folder *folder, const mcp_token_opts *opts, char *text,
                size_t cap, mcp_error *err)
{
    struct guard_identity holder;
    char                  authority[GUARD_AUTHORITY_BYTES], model[GUARD_HEX_BYTES];
    char                  id[GUARD_HEX_BYTES], made[GUARD_TOKEN_BYTES + 1];
    int64_t               now_s = time(NULL);
    X509                 *ca = NULL;
    EVP_PKEY             *key = NULL;
    json_t               *claims = NULL;
    int                   rc = guard_folder_certificate(&ca, folder, "ca.pem", err);

    if (rc == MCP_OK)
        rc = guard_certificate_authority_id(ca, authority, err);
    if (rc == MCP_OK)
        rc = read_holder(&holder, folder, opts->certificate, ca, now_s, err);
    if (rc == MCP_OK && opts->model != NULL)
        rc = take_model(model, opts->model, err);
    if (rc == MCP_OK)
        rc = guard_folder_key(&key, folder, "token.key", err);
    if (rc == MCP_OK)
        rc = guard_key_id(key, id, err);
    if (rc < 0)
        goto out;
    claims = make_claims(opts, &holder, authority, opts->model != NULL ? model : NULL, now_s);
    rc = claims != NULL ? guard_jws_make(made, sizeof(made), claims, key, id, err)
                        : base_fail(err, MCP_ENOMEM, "out of memory for a token");
    if (rc == MCP_OK)
        rc = try_on(made, folder, &holder, opts->audience != NULL ? opts->audience : authority,
                    now_s, err);
    if (rc == MCP_OK && strlen(made) >= cap)
        rc = base_fail(err, MCP_ERANGE, "the token has %zu bytes, room is for %zu", strlen(made),
                       cap - 1);
    if (rc == MCP_OK)
        memcpy(text, made, strlen(made) + 1);
out:
    json_decref(claims);
    EVP_PKEY_free(key);
    X509_free(ca);
    return rc;
}

int guard_keys_token(const char *folder, const mcp_token_opts *opts, char *text, size_t cap,
                     mcp_error *err)
{
    struct guard_folder opened = GUARD_FOLDER_CLOSED;
    mcp_token_opts      own = *opts;
    int                 rc;

    if (own.scope == NULL)
        own.scope = "infer generate";
    if (own.priority == NULL)
        own.priority = guard_priority_names[GUARD_NORMAL];
    rc = check_rights(&own, err);
    if (rc == MCP_OK && own.audience != NULL)
        rc = guard_name_check(own.audience, err);
    if (rc == MCP_OK)
        rc = guard_folder_open(&opened, folder, err);
    if (rc == MCP_OK)
        rc = sign(&opened, &own, text, cap, err);
    guard_folder_close(&opened);
    return rc;
}
