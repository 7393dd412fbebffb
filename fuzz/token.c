/* fuzz/token.c - tokens, their parts, invitations and certificates are the input.
 *
 * The first byte picks what the rest is: a whole token; a payload or a header, which is then
 * signed by the ring's key, so that the rules behind the signature are reached; the content of
 * an invitation; a PEM certificate.  Beside what the sanitizers see, broken promises are
 * findings:
 *   - a refusal is MCP_EDENIED with a sentence, and leaves the grant alone;
 *   - a grant is inside its bounds, and is refused to another certificate, to another worker's
 *     name, after its end, and when its id is revoked;
 *   - what is refused for a signature is not refused for anything else first.
 *
 * ./dev fuzz token SECONDS; seeds in fuzz/corpus/token are written by
 * fuzz/make_token_corpus.py.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "guard/authority.h"
#include "guard/base64.h"
#include "guard/claims.h"
#include "guard/jws.h"
#include "guard/keys.h"
#include "guard/lists.h"

#include <openssl/err.h>

enum { NOW = 1790000000, INPUT_MAX = 8192 };

/* One byte each: also in fuzz/make_token_corpus.py. */
enum kind { TOKEN, PAYLOAD, HEADER, INVITATION, CERTIFICATE, KINDS };

/* RFC 8037 appendix A.1; the corpus knows its id. */
static const uint8_t seed[32] = {
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
};
static const uint8_t        certificate[32]; /* zeros */
static struct guard_keyring ring = { .authority = "mcp:c0ffee" };

static const char good_payload[] =
    "{\"iss\":\"mcp:c0ffee\",\"sub\":\"a\",\"aud\":\"w\",\"iat\":1790000000,\"exp\":1790003600,"
    "\"jti\":\"j\",\"cnf\":{\"x5t#S256\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"},"
    "\"scope\":\"infer\"}";

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    ring.keys[0].key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    CHECK(ring.keys[0].key != NULL);
    CHECK(guard_key_id(ring.keys[0].key, ring.keys[0].id, NULL) == MCP_OK);
    strcpy(ring.keys[0].file, "token.pub");
    ring.key_count = 1;
    return 0;
}

static int verify(const char *token, size_t bytes, const uint8_t holder[32], const char *audience,
                  int64_t now_s, struct guard_grant *grant)
{
    struct guard_grant before;
    mcp_error          err;
    int                rc;

    memset(grant, 0x5A, sizeof(*grant));
    before = *grant;
    rc = guard_token_verify(&ring, token, bytes, holder, audience, now_s, grant, &err);
    CHECK(ERR_peek_error() == 0);
    if (rc == MCP_OK)
        return rc;
    check_failure(rc, &err);
    CHECK(rc == MCP_EDENIED);
    CHECK(strncmp(err.text, "token refused: ", 15) == 0 || strncmp(err.text, "...", 3) == 0);
    CHECK(memcmp(grant, &before, sizeof(before)) == 0);
    return rc;
}

static void try_token(const char *token, size_t bytes)
{
    static const uint8_t other[32] = { [31] = 1 };
    struct guard_grant   grant, ignored;

    if (verify(token, bytes, certificate, "w", NOW, &grant) < 0)
        return;
    CHECK(guard_is_subject(grant.subject) && guard_is_jti(grant.jti));
    CHECK(grant.scopes < 1u << GUARD_SCOPES && grant.priority <= GUARD_REALTIME);
    CHECK(grant.last <= GUARD_LAYERS_MAX &&
          (grant.last == 0 ? grant.first == 0 : grant.first < grant.last));
    CHECK(grant.expires_s > NOW - GUARD_SKEW_S &&
          grant.expires_s <= NOW + GUARD_SKEW_S + GUARD_LIFETIME_S);
    CHECK(verify(token, bytes, other, "w", NOW, &ignored) < 0);
    CHECK(verify(token, bytes, certificate, "w", grant.expires_s + GUARD_SKEW_S, &ignored) < 0);

    char jtis[1][GUARD_JTI_BYTES];
    strcpy(jtis[0], grant.jti);
    ring.jtis = jtis;
    ring.jti_count = 1;
    CHECK(verify(token, bytes, certificate, "w", NOW, &ignored) < 0);
    ring.jtis = NULL;
    ring.jti_count = 0;
}

/* Sign any two texts, whatever they say. */
static void try_signed(const char *header, size_t header_bytes, const char *payload,
                       size_t payload_bytes)
{
    char    text[2 * INPUT_MAX];
    uint8_t signature[GUARD_SIGNATURE_BYTES];
    size_t  used = guard_base64_chars(header_bytes);

    guard_base64_encode(text, (const uint8_t *)header, header_bytes);
    text[used++] = '.';
    guard_base64_encode(text + used, (const uint8_t *)payload, payload_bytes);
    used += guard_base64_chars(payload_bytes);
    CHECK(guard_key_sign(ring.keys[0].key, text, used, signature, NULL) == MCP_OK);
    text[used++] = '.';
    guard_base64_encode(text + used, signature, sizeof(signature));
    try_token(text, used + guard_base64_chars(sizeof(signature)));
}

/* The target cannot be made: nothing is written, everything before is done. */
static void try_invitation(const char *content, size_t bytes)
{
    char      line[2 * INPUT_MAX] = "mcp1:", endpoint[256];
    mcp_error err;

    guard_base64_encode(line + 5, (const uint8_t *)content, bytes);
    check_failure(guard_keys_join(line, "/proc/none/keys", endpoint, sizeof(endpoint), &err), &err);
}

static void try_certificate(const char *text, size_t bytes)
{
    char                  copy[INPUT_MAX + 1];
    struct guard_bytes    pem = { .data = copy, .count = bytes };
    struct guard_identity who;
    mcp_error             err;
    X509                 *x;

    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    int rc = guard_certificate_read(&x, &pem, "input", &err);
    if (rc < 0) {
        check_failure(rc, &err);
        return;
    }
    rc = guard_certificate_identity(x, &who, &err);
    if (rc < 0)
        check_failure(rc, &err);
    else
        CHECK(who.name[0] != '\0' && who.serial_bytes > 0 && who.serial_bytes <= 20);
    (void)guard_certificate_is_authority(x);
    json_decref(guard_certificate_hosts(x));
    X509_free(x);
    CHECK(ERR_peek_error() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    char        header[256];

    if (size < 1 || size > INPUT_MAX)
        return 0;
    size--;
    switch (data[0] % KINDS) {
    case TOKEN: try_token(text, size); break;
    case PAYLOAD:
        snprintf(header, sizeof(header), "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}",
                 ring.keys[0].id);
        try_signed(header, strlen(header), text, size);
        break;
    case HEADER: try_signed(text, size, good_payload, strlen(good_payload)); break;
    case INVITATION: try_invitation(text, size); break;
    case CERTIFICATE: try_certificate(text, size); break;
    default: break;
    }
    return 0;
}
