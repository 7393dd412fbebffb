/* guard/token_test.c - the rules about tokens, each broken on its own.
 *
 * Every hostile token here is signed rightly unless its signature is what is wrong with it: a
 * verifier that skipped a rule would accept it.
 *
 * SPDX-License-Identifier: MIT */
#include "guard/token.h"

#include "guard/claims.h"
#include "guard/json.h"
#include "guard/made_test.h"

#include <openssl/hmac.h>
#include <openssl/pem.h>

#define NOW      1790000000
#define AUDIENCE "gpu-1"

/* SHA-256 of the certificate that the good token belongs to: 00 01 02 .. 1f. */
#define BINDING "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
static uint8_t certificate[32];

static const char good_claims[] =
    "{\"iss\":\"" MADE_AUTHORITY "\",\"sub\":\"alice\",\"aud\":\"" AUDIENCE
    "\",\"iat\":1790000000,\"nbf\":1790000000,\"exp\":1790003600,\"jti\":\"t-1\","
    "\"cnf\":{\"x5t#S256\":\"" BINDING "\"},\"scope\":\"infer generate\",\"priority\":\"normal\","
    "\"model\":\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\","
    "\"layers\":[4,26],\"rate\":1000}";

static struct guard_keyring *ring;
static char                  good_header[2][256]; /* EdDSA, ES256 */

static int everything_begin(void **state)
{
    (void)state;
    ring = made_ring();
    for (size_t i = 0; i < sizeof(certificate); i++)
        certificate[i] = (uint8_t)i;
    for (size_t i = 0; i < 2; i++)
        snprintf(good_header[i], sizeof(good_header[i]),
                 "{\"alg\":\"%s\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}", i == 0 ? "EdDSA" : "ES256",
                 ring->keys[i].id);
    return 0;
}

static int everything_end(void **state)
{
    (void)state;
    guard_keyring_unref(ring);
    return 0;
}

static int verify_at(const char *token, size_t bytes, int64_t now_s, struct guard_grant *grant,
                     mcp_error *err)
{
    return guard_token_verify(ring, token, bytes, certificate, AUDIENCE, now_s, grant, err);
}

/* Refused by a sentence about `about`, with the grant and OpenSSL's queue left alone. */
static void refused_bytes(const char *token, size_t bytes, const char *about)
{
    struct guard_grant grant, before;
    mcp_error          err = { 0 };

    memset(&grant, 0x5A, sizeof(grant));
    before = grant;
    unit_refused(verify_at(token, bytes, NOW, &grant, &err), MCP_EDENIED, &err, about);
    assert_memory_equal(err.text, "token refused: ", 15);
    assert_memory_equal(&grant, &before, sizeof(grant));
    assert_int_equal(ERR_peek_error(), 0);
    assert_int_equal(verify_at(token, bytes, NOW, &grant, NULL), MCP_EDENIED);
}

static void refused(const char *token, const char *about)
{
    refused_bytes(token, strlen(token), about);
}

static void accepted(const char *token, struct guard_grant *grant)
{
    mcp_error err;

    unit_ok(verify_at(token, strlen(token), NOW, grant, &err), &err);
}

/* The good claims with one member set to a JSON text, or removed (NULL). */
static char *changed(const char *name, const char *value)
{
    json_t *claims = json_loads(good_claims, 0, NULL);
    char   *text;

    assert_non_null(claims);
    json_object_del(claims, name);
    if (value != NULL) {
        json_t *json = json_loads(value, JSON_DECODE_ANY, NULL);

        if (json == NULL)
            fail_msg("the test's own value is no JSON: %s", value);
        json_object_set_new(claims, name, json);
    }
    text = json_dumps(claims, JSON_COMPACT);
    json_decref(claims);
    return text;
}

static char *token_with(const char *name, const char *value)
{
    char *claims = changed(name, value);
    char *token = made_token(good_header[0], claims, ring->keys[0].key);

    free(claims);
    return token;
}

/* ---- good ones ---------------------------------------------------------------------- */

/* Goal:   a good token grants what it says, by either algorithm, for the worker and for any.
 * Method: every field of the grant against the claims above. */
static void a_good_token_grants_what_it_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char              *token = made_token(good_header[i], good_claims, ring->keys[i].key);
        struct guard_grant grant;

        accepted(token, &grant);
        assert_string_equal(grant.subject, "alice");
        assert_string_equal(grant.jti, "t-1");
        assert_int_equal(grant.scopes, GUARD_INFER | GUARD_GENERATE);
        assert_false(grant.any_model);
        for (size_t b = 0; b < 32; b++)
            assert_int_equal(grant.model[b], b % 16 * 0x11);
        assert_int_equal(grant.first, 4);
        assert_int_equal(grant.last, 26);
        assert_int_equal(grant.tokens_per_minute, 1000);
        assert_int_equal(grant.priority, GUARD_NORMAL);
        assert_int_equal(grant.expires_s, NOW + 3600);
        free(token);
    }
}

/* Goal:   what is not said is the least (priority), or no limit, as claims.h has it. */
static void claims_that_are_left_out_have_their_documented_meaning(void **state)
{
    static const char few[] = "{\"iss\":\"" MADE_AUTHORITY
                              "\",\"sub\":\"bob\",\"aud\":[\"x\",\"" MADE_AUTHORITY
                              "\"],\"iat\":1790000000,\"exp\":1790000001,"
                              "\"jti\":\"t\",\"cnf\":{\"x5t#S256\":\"" BINDING "\"},"
                              "\"scope\":\"state\",\"unknown\":{\"a\":[1.5,null]}}";
    char              *token = made_token(good_header[0], few, ring->keys[0].key);
    struct guard_grant grant;

    (void)state;
    memset(&grant, 0xff, sizeof(grant));
    accepted(token, &grant);
    assert_string_equal(grant.subject, "bob");
    assert_int_equal(grant.scopes, GUARD_STATE);
    assert_true(grant.any_model);
    assert_int_equal(grant.first, 0);
    assert_int_equal(grant.last, 0);
    assert_int_equal(grant.tokens_per_minute, 0);
    assert_int_equal(grant.priority, GUARD_BATCH);
    free(token);
}

/* Goal:   values at the edge of each rule are inside. */
static void values_at_the_edge_are_accepted(void **state)
{
    static const char *const rows[][2] = {
        { "sub", "\"gr\\u00fc\\u00df dich \\ud83d\\ude00\"" },
        { "aud", "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\","
                 "\"13\",\"14\",\"15\",\"" AUDIENCE "\"]" },
        { "iat", "1790000060" }, /* the other clock is a minute ahead */
        { "nbf", "1790000060" },
        { "exp", "1792592000" }, /* 30 days */
        { "jti", "\"0123456789012345678901234567890123456789012345678901234567890.~\"" },
        { "scope", "\"admin state generate infer audit:read\"" },
        { "layers", "[0,1]" },
        { "layers", "[1048575,1048576]" },
        { "rate", "0" },
        { "rate", "4294967295" },
        { "priority", "\"realtime\"" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char              *token = token_with(rows[i][0], rows[i][1]);
        struct guard_grant grant;

        accepted(token, &grant);
        free(token);
    }
}

/* ---- claims ------------------------------------------------------------------------- */

/* Goal:   each claim outside its rule is refused, by a sentence about that claim.
 * Method: one claim of the good token changed, the rest as it was. */
static void each_claim_outside_its_rule_is_refused(void **state)
{
    static const struct {
        const char *name, *value, *about;
    } rows[] = {
        { "iss", NULL, "its iss is not" },
        { "iss", "\"mcp:other\"", "its iss is not" },
        { "iss", "[\"" MADE_AUTHORITY "\"]", "its iss is not" },
        { "iss", "\"\"", "its iss is not" },

        { "aud", NULL, "its aud is not this worker" },
        { "aud", "\"gpu-2\"", "its aud is not this worker" },
        { "aud", "\"gpu-1 \"", "its aud is not this worker" },
        { "aud", "\"GPU-1\"", "its aud is not this worker" },
        { "aud", "[]", "its aud is not this worker" },
        { "aud", "{\"gpu-1\":1}", "its aud is not this worker" },
        { "aud", "[\"gpu-1\",1]", "its aud has an entry that is no text" },
        { "aud", "[[\"gpu-1\"]]", "its aud has an entry that is no text" },
        { "aud",
          "[\"gpu-1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\","
          "\"e\",\"f\",\"g\",\"h\"]",
          "its aud has 17 entries, at most 16" },

        { "exp", NULL, "its exp is not a whole number" },
        { "exp", "\"1790003600\"", "its exp is not a whole number" },
        { "exp", "1790003600.0", "its exp is not a whole number" },
        { "exp", "1.79e9", "its exp is not a whole number" },
        { "exp", "1e308", "its exp is not a whole number" },
        { "exp", "true", "its exp is not a whole number" },
        { "exp", "null", "its exp is not a whole number" },
        { "exp", "-1", "its exp is outside 1.." },
        { "exp", "0", "its exp is outside 1.." },
        { "exp", "9223372036854775807", "its exp is outside 1.." },
        { "exp", "-9223372036854775808", "its exp is outside 1.." },
        { "exp", "253402300800", "its exp is outside 1.." },
        { "exp", "1792592001", "made to live 2592001 s" },
        { "exp", "1790000000", "made to live 0 s" },
        { "exp", "1789999999", "made to live -1 s" },

        { "iat", NULL, "its iat is not a whole number" },
        { "iat", "\"now\"", "its iat is not a whole number" },
        { "iat", "0", "its iat is outside 1.." },
        { "iat", "1787411599", "made to live 2592001 s" },
        { "iat", "1790000061", "not valid before 61 s from now" },
        { "nbf", "1790000061", "not valid before 61 s from now" },
        { "nbf", "\"1790000000\"", "its nbf is not a whole number" },
        { "nbf", "-5", "its nbf is outside 1.." },

        { "sub", NULL, "its sub is not" },
        { "sub", "\"\"", "its sub is not" },
        { "sub", "7", "its sub is not" },
        { "sub", "\"a\\nb\"", "its sub is not" },
        { "sub", "\"a\\u007fb\"", "its sub is not" },
        { "sub", "\"a\\u009bb\"", "its sub is not" },
        { "sub",
          "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
          "its sub is not 1 to 127 bytes" },
        { "jti", NULL, "its jti is not" },
        { "jti", "\"\"", "its jti is not" },
        { "jti", "\"a b\"", "its jti is not" },
        { "jti", "\"\\u00fc\"", "its jti is not" },
        { "jti", "\"0123456789012345678901234567890123456789012345678901234567890123\"",
          "its jti is not 1 to 63" },

        { "cnf", NULL, "its cnf has no x5t#S256" },
        { "cnf", "\"" BINDING "\"", "its cnf has no x5t#S256" },
        { "cnf", "{}", "its cnf has no x5t#S256" },
        { "cnf", "{\"x5t#S256\":\"\"}", "its cnf has no x5t#S256" },
        { "cnf", "{\"x5t#S256\":\"" BINDING "=\"}", "its cnf has no x5t#S256" },
        { "cnf", "{\"x5t#S256\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9\"}",
          "its cnf has no x5t#S256" },
        { "cnf", "{\"x5t#S256\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHhA\"}",
          "belongs to another client certificate" },
        { "cnf", "{\"jkt\":\"" BINDING "\"}", "its cnf has no x5t#S256" },

        { "scope", NULL, "its scope is not" },
        { "scope", "\"\"", "its scope is not" },
        { "scope", "\" infer\"", "its scope is not" },
        { "scope", "\"infer \"", "its scope is not" },
        { "scope", "\"infer  state\"", "its scope is not" },
        { "scope", "\"infer\\tstate\"", "its scope is not" },
        { "scope", "[\"infer\"]", "its scope is not" },
        { "priority", "\"highest\"", "its priority is not" },
        { "priority", "2", "its priority is not" },
        { "priority", "null", "its priority is not" },
        { "model", "\"\"", "its model is not a fingerprint" },
        { "model", "7", "its model is not a fingerprint" },
        { "model", "\"00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\"",
          "its model is not a fingerprint" },
        { "model", "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeef\"",
          "its model is not a fingerprint" },
        { "layers", "[]", "its layers are not" },
        { "layers", "[4]", "its layers are not" },
        { "layers", "[4,26,30]", "its layers are not" },
        { "layers", "[4,4]", "its layers are not" },
        { "layers", "[26,4]", "its layers are not" },
        { "layers", "[-1,4]", "its layers are not" },
        { "layers", "[0,1048577]", "its layers are not" },
        { "layers", "[0,4294967300]", "its layers are not" },
        { "layers", "[0.0,4]", "its layers are not" },
        { "layers", "\"4-26\"", "its layers are not" },
        { "layers", "null", "its layers are not" },
        { "rate", "-1", "its rate is not" },
        { "rate", "4294967296", "its rate is not" },
        { "rate", "\"1000\"", "its rate is not" },
        { "rate", "1.5", "its rate is not" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char *token = token_with(rows[i].name, rows[i].value);

        refused(token, rows[i].about);
        free(token);
    }
}

/* Goal:   a token begins and ends when it says, give or take the skew, to the second. */
static void time_is_kept_to_the_second(void **state)
{
    static const struct {
        int64_t     at;
        const char *about; /* NULL = accepted */
    } rows[] = {
        { NOW - GUARD_SKEW_S - 1, "not valid before 61 s from now" },
        { NOW - GUARD_SKEW_S, NULL },
        { NOW, NULL },
        { NOW + 3600 + GUARD_SKEW_S - 1, NULL },
        { NOW + 3600 + GUARD_SKEW_S, "it expired 60 s ago" },
        { NOW + 3600 + 86400, "it expired 86400 s ago" },
        { NOW - 86400, "not valid before 86400 s from now" },
        { 0, "not valid before" },
    };
    char              *token = made_token(good_header[0], good_claims, ring->keys[0].key);
    struct guard_grant grant;
    mcp_error          err;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        int rc = verify_at(token, strlen(token), rows[i].at, &grant, &err);

        if (rows[i].about == NULL)
            unit_ok(rc, &err);
        else
            unit_refused(rc, MCP_EDENIED, &err, rows[i].about);
    }
    free(token);
}

/* Goal:   stolen from its owner, a token is worth nothing, and it is of no use elsewhere.
 * Method: another certificate, another worker, another authority, each with the good token. */
static void a_token_is_good_for_one_holder_one_place_and_one_authority(void **state)
{
    char              *token = made_token(good_header[0], good_claims, ring->keys[0].key);
    size_t             bytes = strlen(token);
    uint8_t            other[32];
    struct guard_grant grant;
    mcp_error          err;

    (void)state;
    for (size_t i = 0; i < sizeof(other); i++) {
        memcpy(other, certificate, sizeof(other));
        other[i] ^= 0x80;
        unit_refused(guard_token_verify(ring, token, bytes, other, AUDIENCE, NOW, &grant, &err),
                     MCP_EDENIED, &err, "belongs to another client certificate");
    }
    unit_refused(guard_token_verify(ring, token, bytes, certificate, "gpu-2", NOW, &grant, &err),
                 MCP_EDENIED, &err, "its aud is not this worker (gpu-2)");
    strcpy(ring->authority, "mcp:other");
    unit_refused(verify_at(token, bytes, NOW, &grant, &err), MCP_EDENIED, &err, "its iss is not");
    strcpy(ring->authority, "");
    unit_refused(verify_at(token, bytes, NOW, &grant, &err), MCP_EDENIED, &err, "no ca.pem");
    strcpy(ring->authority, MADE_AUTHORITY);
    free(token);
}

/* Goal:   a revoked token is refused, its neighbours in the list's order are not. */
static void a_revoked_token_is_refused(void **state)
{
    char               jtis[3][GUARD_JTI_BYTES] = { "t-0", "t-1", "t-2" };
    char              *token = made_token(good_header[0], good_claims, ring->keys[0].key);
    struct guard_grant grant;

    (void)state;
    accepted(token, &grant);
    ring->jtis = jtis;
    ring->jti_count = 3;
    refused(token, "it was revoked (jti t-1)");
    strcpy(jtis[1], "t-10");
    accepted(token, &grant);
    ring->jtis = NULL;
    ring->jti_count = 0;
    free(token);
}

/* ---- JSON --------------------------------------------------------------------------- */

static void refused_payload(const char *payload, size_t bytes, const char *about)
{
    /* made_token() takes texts: a NUL inside must be signed too. */
    char   *token = made_token(good_header[0], "", ring->keys[0].key);
    char   *whole = malloc(strlen(token) + 2 * bytes + 16), *end;
    uint8_t signature[GUARD_SIGNATURE_BYTES];

    assert_non_null(whole);
    end = made_segment(whole, good_header[0], strlen(good_header[0]));
    *end++ = '.';
    end = made_segment(end, payload, bytes);
    assert_int_equal(
        guard_key_sign(ring->keys[0].key, whole, (size_t)(end - whole), signature, NULL), 0);
    *end++ = '.';
    made_segment(end, (const char *)signature, sizeof(signature));
    refused(whole, about);
    free(whole);
    free(token);
}

/* Goal:   a payload that is signed and yet no JSON object within the bounds is refused.
 * Method: duplicates by which two readers would differ, depth, broken UTF-8, NUL, numbers that
 *         do not fit, things behind the object. */
static void payloads_outside_the_bounds_are_refused(void **state)
{
    static const struct {
        const char *payload, *about;
    } rows[] = {
        { "{\"sub\":\"alice\",\"sub\":\"root\"}", "its payload has a member twice" },
        { "{\"cnf\":{\"x5t#S256\":\"a\",\"x5t#S256\":\"b\"}}", "its payload has a member twice" },
        { "{\"sub\":\"a\",\"\\u0073ub\":\"b\"}", "its payload has a member twice" },
        { "{\"a\":[[[[[[1]]]]]]}", "its payload nests deeper than 6" },
        { "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}}}", "its payload nests deeper than 6" },
        { "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}", "its iss is not" },
        { "{\"a\":\"[[[[[[[[\\\"[[[[[[[[\"}", "its iss is not" },
        { "{\"sub\":\"a\\u0000b\"}", "its payload is not JSON" },
        { "{\"sub\":\"\xff\xfe\"}", "its payload is not JSON" },
        { "{\"sub\":\"\xc0\xaf\"}", "its payload is not JSON" },
        { "{\"sub\":\"\xed\xa0\x80\"}", "its payload is not JSON" },
        { "{\"sub\":\"\\ud800\"}", "its payload is not JSON" },
        { "{\"exp\":99999999999999999999}", "its payload is not JSON" },
        { "{\"exp\":1e999}", "its payload is not JSON" },
        { "{\"exp\":NaN}", "its payload is not JSON" },
        { "{\"exp\":0x10}", "its payload is not JSON" },
        { "{\"exp\":01}", "its payload is not JSON" },
        { "{} {}", "its payload is not JSON" },
        { "{}x", "its payload is not JSON" },
        { "{\"a\":1,}", "its payload is not JSON" },
        { "{'a':1}", "its payload is not JSON" },
        { "\xef\xbb\xbf{}", "its payload is not JSON" },
        { " ", "its payload is not JSON" },
        { "[]", "its payload is not a JSON object" },
        { "\"text\"", "its payload is not a JSON object" },
        { "null", "its payload is not a JSON object" },
        { "{}", "its iss is not" },
    };
    char deep[2000];

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++)
        refused_payload(rows[i].payload, strlen(rows[i].payload), rows[i].about);
    refused_payload("{}\0", 3, "its payload is not JSON");
    memset(deep, '[', sizeof(deep));
    refused_payload(deep, sizeof(deep), "its payload nests deeper than 6");
    memset(deep, '{', sizeof(deep));
    refused_payload(deep, sizeof(deep), "its payload nests deeper than 6");
    for (size_t i = 0; i < sizeof(deep); i++)
        deep[i] = "{\"a\":"[i % 5];
    refused_payload(deep, sizeof(deep), "its payload nests deeper than 6");
}

/* ---- headers ------------------------------------------------------------------------ */

/* A header, in which @1 and @2 stand for the ids of the keys, signed by the first of them. */
static void refused_header(const char *header, const char *about)
{
    char  text[1024], *end = text;
    char *token;

    for (; *header != '\0'; header++) {
        if (*header == '@')
            end += sprintf(end, "%s", ring->keys[*++header - '1'].id);
        else
            *end++ = *header;
    }
    *end = '\0';
    token = made_token(text, good_claims, ring->keys[0].key);
    refused(token, about);
    free(token);
}

#define KID "\"kid\":\"@1\""

/* Goal:   no header makes its own rules: not its algorithm, not its key, not its extensions.
 * Method: the published attacks, each with a signature that the ring's key really made. */
static void a_header_cannot_choose_algorithm_key_or_rules(void **state)
{
    static const char *const none[] = { "none", "None", "NONE", "nOnE", "" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(none); i++) {
        char header[256];

        snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"typ\":\"at+jwt\"," KID "}", none[i]);
        refused_header(header, "but token.pub is a key for EdDSA");
    }
    refused_header("{\"typ\":\"at+jwt\"," KID "}", "but token.pub is a key for EdDSA");
    refused_header("{\"alg\":1,\"typ\":\"at+jwt\"," KID "}", "but token.pub is a key for EdDSA");
    refused_header("{\"alg\":[\"EdDSA\"],\"typ\":\"at+jwt\"," KID "}", "is a key for EdDSA");
    refused_header("{\"alg\":\"eddsa\",\"typ\":\"at+jwt\"," KID "}", "its alg is 'eddsa'");
    refused_header("{\"alg\":\"Ed25519\",\"typ\":\"at+jwt\"," KID "}", "its alg is 'Ed25519'");
    refused_header("{\"alg\":\"ES256\",\"typ\":\"at+jwt\"," KID "}", "its alg is 'ES256'");
    refused_header("{\"alg\":\"RS256\",\"typ\":\"at+jwt\"," KID "}", "its alg is 'RS256'");
    refused_header("{\"alg\":\"PS256\",\"typ\":\"at+jwt\"," KID "}", "its alg is 'PS256'");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"@2\"}",
                   "its alg is 'EdDSA', but token-2.pub is a key for ES256");
    refused_header("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"@2\"}",
                   "its signature is not that of token-2.pub");

    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID ",\"crit\":[\"exp\"]}",
                   "its header has crit");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID ",\"crit\":[],\"b64\":false}",
                   "its header has crit");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID ",\"crit\":null}",
                   "its header has crit");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID
                   ",\"jku\":\"https://example.org/keys.json\"}",
                   "its header has jku");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID
                   ",\"jwk\":{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" MADE_ED25519_X "\"}}",
                   "its header has jwk");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"jwk\":{\"kty\":\"oct\",\"k\":\"\"}}",
                   "its header has jwk");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID ",\"x5u\":\"file:///etc/passwd\"}",
                   "its header has x5u");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"," KID ",\"x5c\":[\"MIIB\"]}",
                   "its header has x5c");

    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"}", "its header has no kid");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":0}", "its header has no kid");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"\"}", "its kid names no token");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"token.pub\"}",
                   "its kid names no token key");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"../../../dev/null\"}",
                   "its kid names no token key");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"x' OR '1'='1\"}",
                   "its kid names no token key");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"@1@2\"}",
                   "its kid names no token key");

    refused_header("{\"alg\":\"EdDSA\"," KID "}", "its header's typ is not");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"JWT\"," KID "}", "its header's typ is not");
    refused_header("{\"alg\":\"EdDSA\",\"typ\":\"dpop+jwt\"," KID "}", "its header's typ is not");
    refused_header("{\"alg\":\"EdDSA\",\"alg\":\"none\",\"typ\":\"at+jwt\"," KID "}",
                   "its header has a member twice");
    refused_header("[[[[[[[[]]]]]]]]", "its header nests deeper");
    refused_header("[]", "its header is not a JSON object");
    refused_header("EdDSA", "its header is not JSON");
}

/* Goal:   the public key, which everybody may know, is never a secret of HS256.
 * Method: a token whose MAC is right, keyed with the PEM file, its DER, and the raw key. */
static void a_public_key_is_no_hmac_secret(void **state)
{
    EVP_PKEY *key = ring->keys[0].key;
    BIO      *bio = BIO_new(BIO_s_mem());
    uint8_t   der[128], raw[32], *at = der;
    size_t    raw_bytes = sizeof(raw);
    char     *pem, header[256];
    long      pem_bytes;
    int       der_bytes;

    (void)state;
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    pem_bytes = BIO_get_mem_data(bio, &pem);
    der_bytes = i2d_PUBKEY(key, &at);
    assert_int_equal(EVP_PKEY_get_raw_public_key(key, raw, &raw_bytes), 1);
    const struct {
        const void *bytes;
        int         count;
    } secrets[] = { { pem, (int)pem_bytes }, { der, der_bytes }, { raw, 32 }, { "", 0 } };

    snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}",
             ring->keys[0].id);
    for (size_t i = 0; i < UNIT_COUNT(secrets); i++) {
        uint8_t  mac[EVP_MAX_MD_SIZE];
        unsigned mac_bytes;
        char    *token = made_token(header, good_claims, key);
        char    *signature = strrchr(token, '.');

        assert_non_null(HMAC(EVP_sha256(), secrets[i].bytes, secrets[i].count,
                             (const uint8_t *)token, (size_t)(signature - token), mac, &mac_bytes));
        made_segment(signature + 1, (const char *)mac, mac_bytes);
        refused(token, "its alg is 'HS256', but token.pub is a key for EdDSA");
        free(token);
    }
    BIO_free(bio);
}

/* ---- envelopes ---------------------------------------------------------------------- */

/* Goal:   a token has exactly three segments in exactly one spelling.
 * Method: the good token with pieces taken away and added. */
static void other_shapes_and_spellings_are_refused(void **state)
{
    char *good = made_token(good_header[0], good_claims, ring->keys[0].key);
    char *first = strchr(good, '.'), *second = strrchr(good, '.');
    char  text[8192];
    int   head = (int)(first - good), body = (int)(second - first - 1);

    (void)state;
    refused_bytes("", 0, "it has 1 segments");
    refused("x", "it has 1 segments");
    refused("..", "its header is empty");
    refused("....", "it has 5 segments");
    snprintf(text, sizeof(text), "%.*s", (int)(second - good), good);
    refused(text, "it has 2 segments");
    snprintf(text, sizeof(text), "%.*s.", (int)(second - good), good);
    refused(text, "its signature is empty");
    snprintf(text, sizeof(text), "%s.", good);
    refused(text, "it has 4 segments");
    snprintf(text, sizeof(text), "%s.%s", good, second + 1);
    refused(text, "it has 4 segments");
    snprintf(text, sizeof(text), ".%s", good);
    refused(text, "it has 4 segments");
    snprintf(text, sizeof(text), ".%.*s%s", body, first + 1, second);
    refused(text, "its header is empty");
    snprintf(text, sizeof(text), "%.*s.%s", head, good, second);
    refused(text, "its payload is empty");

    static const char *const tails[] = { "=", "==", " ", "\n", "\t", "%3D", "\xc2\xa0" };
    for (size_t i = 0; i < UNIT_COUNT(tails); i++) {
        snprintf(text, sizeof(text), "%s%s", good, tails[i]);
        refused(text, "its signature is not base64url");
        snprintf(text, sizeof(text), "%s%s", tails[i], good);
        refused(text, "its header is not base64url");
        snprintf(text, sizeof(text), "%.*s%s%s", head, good, tails[i], first);
        refused(text, "its header is not base64url");
    }
    snprintf(text, sizeof(text), "Bearer %s", good);
    refused(text, "its header is not base64url");
    refused_bytes(good, strlen(good) + 1, "its signature is not base64url"); /* the terminator */

    /* 64 bytes are 86 characters, of the last of which four bits are unused. */
    snprintf(text, sizeof(text), "%s", good);
    text[strlen(text) - 1]++;
    refused(text, "its signature is not base64url");
    snprintf(text, sizeof(text), "%.*s", (int)strlen(good) - 1, good);
    refused(text, "its signature is not base64url");
    snprintf(text, sizeof(text), "%.*s", (int)strlen(good) - 2, good);
    refused(text, "its signature has 63 bytes, not 64");
    snprintf(text, sizeof(text), "%.*sAAA", (int)strlen(good) - 2, good);
    refused(text, "its signature has 65 bytes, not 64");
    free(good);
}

/* Goal:   the size limit comes before anything that costs time.
 * Method: 4,096 bytes are looked at, one more is not; an audience of 100,000 entries and a
 *         megabyte of nothing are refused by their size. */
static void tokens_beyond_4096_bytes_are_refused_unread(void **state)
{
    enum { AUDIENCES = 100000, LONG = 1 << 20 };
    char *text = malloc(LONG), *list = malloc(AUDIENCES * 8), *claims, *token;
    char *at = list;

    (void)state;
    assert_non_null(text);
    assert_non_null(list);
    memset(text, 'A', LONG);
    refused_bytes(text, GUARD_TOKEN_BYTES, "it has 1 segments");
    refused_bytes(text, GUARD_TOKEN_BYTES + 1, "it has 4097 bytes, at most 4096");
    refused_bytes(text, LONG, "it has 1048576 bytes, at most 4096");
    text[1000] = text[2000] = '.';
    refused_bytes(text, GUARD_TOKEN_BYTES, "its header is not JSON");

    *at++ = '[';
    for (int i = 0; i < AUDIENCES; i++)
        at += sprintf(at, "\"a%d\",", i % 10);
    strcpy(at - 1, "]");
    claims = changed("aud", list);
    token = made_token(good_header[0], claims, ring->keys[0].key);
    refused(token, "bytes, at most 4096");
    free(token);
    free(claims);
    free(list);
    free(text);
}

/* Goal:   a signature is a signature of these bytes by this key, in JWS's own spelling.
 * Method: other claims under the good signature, the signature of the other key, ECDSA's DER. */
static void signatures_of_other_things_are_refused(void **state)
{
    char    *good = made_token(good_header[0], good_claims, ring->keys[0].key);
    char    *mine = made_token(good_header[1], good_claims, ring->keys[1].key);
    char    *claims = changed("sub", "\"root\"");
    char    *forged = made_token(good_header[0], claims, ring->keys[0].key);
    char    *by_other = made_token(good_header[0], good_claims, ring->keys[1].key);
    char     text[4096];
    uint8_t  raw[64], der[80];
    uint8_t *end = der;

    (void)state;
    snprintf(text, sizeof(text), "%.*s%s", (int)(strrchr(forged, '.') - forged), forged,
             strrchr(good, '.'));
    refused(text, "its signature is not that of token.pub");
    refused(by_other, "its signature is not that of token.pub");
    snprintf(text, sizeof(text), "%.*s%s", (int)(strrchr(mine, '.') - mine), mine,
             strrchr(good, '.'));
    refused(text, "its signature is not that of token-2.pub");

    /* Rightly signed, but spelled as OpenSSL spells it. */
    assert_true(guard_base64_decode(raw, strrchr(mine, '.') + 1, 86));
    *end++ = 0x30;
    end++;
    for (int half = 0; half < 2; half++) {
        const uint8_t *number = raw + 32 * half;
        bool           sign = (number[0] & 0x80) != 0;

        *end++ = 2;
        *end++ = (uint8_t)(32 + sign);
        if (sign)
            *end++ = 0;
        memcpy(end, number, 32);
        end += 32;
    }
    der[1] = (uint8_t)(end - der - 2);
    made_segment(text +
                     snprintf(text, sizeof(text), "%.*s.", (int)(strrchr(mine, '.') - mine), mine),
                 (const char *)der, (size_t)(end - der));
    refused(text, "bytes, not 64");
    free(by_other);
    free(forged);
    free(claims);
    free(mine);
    free(good);
}

/* Goal:   claims are not looked at before the signature is right.
 * Method: an unsigned payload that breaks every rule is refused for its signature. */
static void the_signature_comes_before_the_claims(void **state)
{
    static const char *const payloads[] = { "[[[[[[[[[[[[", "{\"exp\":1}", "not even JSON",
                                            "{\"sub\":1,\"sub\":2}" };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(payloads); i++) {
        char *token = made_token(good_header[0], payloads[i], ring->keys[1].key);

        refused(token, "its signature is not that of token.pub");
        free(token);
    }
}

/* Goal:   no token next to a good one is good.
 * Method: at every position of the good token, a few other characters; every prefix. */
static void no_neighbour_of_a_good_token_is_good(void **state)
{
    static const char  letters[] = "A_z.9=";
    char              *token = made_token(good_header[1], good_claims, ring->keys[1].key);
    struct guard_grant grant;

    (void)state;
    for (size_t i = 0; i < strlen(token); i++) {
        char was = token[i];

        assert_int_equal(verify_at(token, i, NOW, &grant, NULL), MCP_EDENIED);
        token[i] = letters[i % (sizeof(letters) - 1)];
        if (token[i] != was)
            assert_int_equal(verify_at(token, strlen(token), NOW, &grant, NULL), MCP_EDENIED);
        token[i] = was;
    }
    accepted(token, &grant);
    free(token);
}

/* Goal:   a folder without token keys refuses every token. */
static void a_ring_without_keys_refuses_everything(void **state)
{
    struct guard_keyring empty = { .authority = MADE_AUTHORITY };
    char                *token = made_token(good_header[0], good_claims, ring->keys[0].key);
    struct guard_grant   grant;
    mcp_error            err;

    (void)state;
    unit_refused(
        guard_token_verify(&empty, token, strlen(token), certificate, AUDIENCE, NOW, &grant, &err),
        MCP_EDENIED, &err, "has no token.pub");
    free(token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_token_grants_what_it_says),
        cmocka_unit_test(claims_that_are_left_out_have_their_documented_meaning),
        cmocka_unit_test(values_at_the_edge_are_accepted),
        cmocka_unit_test(each_claim_outside_its_rule_is_refused),
        cmocka_unit_test(time_is_kept_to_the_second),
        cmocka_unit_test(a_token_is_good_for_one_holder_one_place_and_one_authority),
        cmocka_unit_test(a_revoked_token_is_refused),
        cmocka_unit_test(payloads_outside_the_bounds_are_refused),
        cmocka_unit_test(a_header_cannot_choose_algorithm_key_or_rules),
        cmocka_unit_test(a_public_key_is_no_hmac_secret),
        cmocka_unit_test(other_shapes_and_spellings_are_refused),
        cmocka_unit_test(tokens_beyond_4096_bytes_are_refused_unread),
        cmocka_unit_test(signatures_of_other_things_are_refused),
        cmocka_unit_test(the_signature_comes_before_the_claims),
        cmocka_unit_test(no_neighbour_of_a_good_token_is_good),
        cmocka_unit_test(a_ring_without_keys_refuses_everything),
    };

    return cmocka_run_group_tests_name("guard/token", tests, everything_begin, everything_end);
}
