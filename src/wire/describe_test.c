/* wire/describe_test.c - Describe, Watch, Probe and health against protobuf-c filled by names.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/describe.h"

#include "base/starve_test.h"
#include "wire/codec.h"
#include "wire/made_test.h"
#include "wire/message.h"

#include <math.h>

extern const ProtobufCMessageDescriptor mcp__v1__describe_reply__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__watch_request__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__watch_event__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__probe_request__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__probe_reply__descriptor;

enum { ROUNDS = 200 };

static uint8_t digests[WIRE_LAYERS_MAX][WIRE_DIGEST_BYTES];

static int fill(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (size_t i = 0; i < sizeof(digests); i++)
        digests[i / WIRE_DIGEST_BYTES][i % WIRE_DIGEST_BYTES] = (uint8_t)unit_next(&seed);
    return 0;
}

static void made_text(char *text, size_t cap, uint64_t *seed)
{
    size_t length = unit_below(seed, 4) == 0 ? cap - 1 : unit_below(seed, 20);

    for (size_t i = 0; i < length; i++)
        text[i] = (char)('!' + unit_below(seed, '~' - '!'));
    text[length] = '\0';
}

static void made_capacity(struct wire_capacity *c, uint64_t *seed)
{
    c->sessions = made_u32(seed);
    c->sessions_free = made_u32(seed);
    c->ctx_tokens = made_u32(seed);
    c->batch_tokens = made_u32(seed);
    c->windows_max = made_u32(seed);
    c->queue_bytes_max = made_number(seed, 64);
    c->lease_ms = made_u32(seed);
    c->queued_tokens = made_u32(seed);
    c->tokens_per_second = fabsf(made_float(seed));
    c->even_windows = unit_below(seed, 2);
}

static void made_describe(struct wire_describe *d, uint64_t *seed)
{
    memset(d, 0, sizeof(*d));
    made_text(d->version, sizeof(d->version), seed);
    made_text(d->name, sizeof(d->name), seed);
    made_text(d->degraded, sizeof(d->degraded), seed);
    d->feature_count = unit_below(seed, WIRE_FEATURES_MAX + 1);
    for (uint32_t i = 0; i < d->feature_count; i++)
        made_text(d->features[i], sizeof(d->features[i]), seed);
    made_text(d->model.name, sizeof(d->model.name), seed);
    made_text(d->model.architecture, sizeof(d->model.architecture), seed);
    made_text(d->model.quantisation, sizeof(d->model.quantisation), seed);
    memcpy(d->model.fingerprint, digests[unit_below(seed, WIRE_LAYERS_MAX)], WIRE_DIGEST_BYTES);
    d->model.layers = 1 + unit_below(seed, WIRE_LAYERS_MAX);
    d->model.first = unit_below(seed, d->model.layers);
    d->model.last = d->model.first + 1 + unit_below(seed, d->model.layers - d->model.first);
    d->model.n_embd = 1 + unit_below(seed, 1 << 14);
    d->model.n_vocab = 1 + unit_below(seed, 1 << 18);
    d->model.ctx_trained = made_u32(seed);
    d->model.weights = unit_below(seed, 2) ? digests : NULL;
    made_capacity(&d->capacity, seed);
    d->codecs = made_u32(seed);
    d->wraps = made_u32(seed);
    d->draining = unit_below(seed, 2);
}

/* ---- the oracle ------------------------------------------------------------------------ */

static void oracle_capacity(ProtobufCMessage *in, const struct wire_capacity *c)
{
    ProtobufCMessage *m = oracle_child(in, "capacity");

    oracle_number(m, "sessions", c->sessions);
    oracle_number(m, "sessions_free", c->sessions_free);
    oracle_number(m, "ctx_tokens", c->ctx_tokens);
    oracle_number(m, "batch_tokens", c->batch_tokens);
    oracle_number(m, "windows_max", c->windows_max);
    oracle_number(m, "queue_bytes_max", c->queue_bytes_max);
    oracle_number(m, "lease_ms", c->lease_ms);
    oracle_number(m, "queued_tokens", c->queued_tokens);
    oracle_float(m, "tokens_per_second", c->tokens_per_second);
    oracle_number(m, "even_windows", c->even_windows);
}

/* What an oracle's lists point to. */
struct lists {
    const char         *features[WIRE_FEATURES_MAX + 1];
    ProtobufCBinaryData weights[WIRE_LAYERS_MAX];
    int                 codecs[33], wraps[33];
};

static size_t oracle_bits(int *list, uint32_t bits)
{
    size_t count = 0;

    for (int i = 0; i < 32; i++)
        if (bits & 1u << i)
            list[count++] = i;
    return count;
}

/* Release with oracle_describe_free(). */
static ProtobufCMessage *oracle_describe(const struct wire_describe *d, struct lists *lists)
{
    ProtobufCMessage *reply = oracle_new(&mcp__v1__describe_reply__descriptor);
    ProtobufCMessage *m = oracle_child(reply, "model");

    oracle_text(m, "name", d->model.name);
    oracle_text(m, "architecture", d->model.architecture);
    oracle_bytes(m, "fingerprint", d->model.fingerprint, WIRE_DIGEST_BYTES);
    oracle_number(m, "layers", d->model.layers);
    oracle_number(m, "n_embd", d->model.n_embd);
    oracle_number(m, "n_vocab", d->model.n_vocab);
    oracle_number(m, "ctx_trained", d->model.ctx_trained);
    oracle_number(m, "first", d->model.first);
    oracle_number(m, "last", d->model.last);
    for (uint32_t i = 0; i < d->model.last - d->model.first; i++)
        lists->weights[i] = (ProtobufCBinaryData){ WIRE_DIGEST_BYTES, digests[i] };
    if (d->model.weights != NULL)
        oracle_list(m, "weights", lists->weights, d->model.last - d->model.first);
    oracle_text(m, "quantisation", d->model.quantisation);

    oracle_text(reply, "version", d->version);
    for (uint32_t i = 0; i < d->feature_count; i++)
        lists->features[i] = d->features[i];
    oracle_list(reply, "features", lists->features, d->feature_count);
    oracle_text(reply, "name", d->name);
    oracle_capacity(reply, &d->capacity);
    oracle_list(reply, "codecs", lists->codecs, oracle_bits(lists->codecs, d->codecs));
    oracle_list(reply, "wraps", lists->wraps, oracle_bits(lists->wraps, d->wraps));
    oracle_number(reply, "draining", d->draining);
    oracle_text(reply, "degraded", d->degraded);
    return reply;
}

static void oracle_drop(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;
    ProtobufCMessage              **child = oracle_place(m, name, &field);

    free(*child);
    *child = NULL;
}

static ProtobufCMessage *oracle_in(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;

    return *(ProtobufCMessage **)oracle_place(m, name, &field);
}

static void oracle_describe_free(ProtobufCMessage *reply)
{
    oracle_drop(reply, "model");
    oracle_drop(reply, "capacity");
    free(reply);
}

/* Our decoder must refuse this reply; then the reply is freed. */
static void refuse_reply(ProtobufCMessage *reply, const char *about)
{
    struct wire_describe d;
    size_t               count;
    uint8_t             *bytes = oracle_pack(reply, &count);
    mcp_error            err = { 0 };

    unit_refused(wire_describe_decode(&d, bytes, count, &err), MCP_EFORMAT, &err, about);
    assert_null(d.model.weights);
    free(bytes);
    oracle_describe_free(reply);
}

static void capacities_equal(const struct wire_capacity *a, const struct wire_capacity *b)
{
    assert_int_equal(a->sessions, b->sessions);
    assert_int_equal(a->sessions_free, b->sessions_free);
    assert_int_equal(a->ctx_tokens, b->ctx_tokens);
    assert_int_equal(a->batch_tokens, b->batch_tokens);
    assert_int_equal(a->windows_max, b->windows_max);
    assert_true(a->queue_bytes_max == b->queue_bytes_max);
    assert_int_equal(a->lease_ms, b->lease_ms);
    assert_int_equal(a->queued_tokens, b->queued_tokens);
    assert_true(a->tokens_per_second == b->tokens_per_second);
    assert_int_equal(a->even_windows, b->even_windows);
}

/* ---- tests ---------------------------------------------------------------------------- */

/* Goal:   a description is the bytes that protobuf writes for it, and comes back the same.
 * Method: random ones, texts up to the longest, beside the oracle. */
static void a_description_travels_unchanged(void **state)
{
    uint64_t seed = unit_seed();

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct wire_describe d, back;
        struct lists         lists;
        ProtobufCMessage    *m;
        uint8_t             *expected, *ours;
        size_t               count, ours_count;
        mcp_error            err;

        made_describe(&d, &seed);
        m = oracle_describe(&d, &lists);
        expected = oracle_pack(m, &count);
        unit_ok(wire_describe_encode(&d, &ours, &ours_count, &err), &err);
        assert_int_equal(ours_count, count);
        assert_memory_equal(ours, expected, count);

        unit_ok(wire_describe_decode(&back, expected, count, &err), &err);
        capacities_equal(&back.capacity, &d.capacity);
        assert_int_equal(back.model.weights != NULL, d.model.weights != NULL);
        if (d.model.weights != NULL)
            assert_memory_equal(back.model.weights, digests,
                                (d.model.last - d.model.first) * (size_t)WIRE_DIGEST_BYTES);
        free(back.model.weights);
        back.model.weights = d.model.weights;
        back.capacity = d.capacity; /* compared above: there is padding */
        assert_memory_equal(&back, &d, sizeof(d));
        free(ours);
        free(expected);
        oracle_describe_free(m);
    }
}

/* Goal:   a description cut at any byte is refused or read, never more; and too large a one
 *         is not even read. */
static void a_description_cut_anywhere_does_no_harm(void **state)
{
    uint64_t             seed = unit_seed();
    struct wire_describe d, back;
    uint8_t             *bytes, *large;
    size_t               count, refused = 0;
    mcp_error            err;

    (void)state;
    do
        made_describe(&d, &seed);
    while (d.model.weights == NULL || d.model.last - d.model.first > 20);
    unit_ok(wire_describe_encode(&d, &bytes, &count, &err), &err);
    for (size_t cut = 0; cut < count; cut++) {
        uint8_t *part = malloc(cut + (cut == 0));

        assert_non_null(part);
        memcpy(part, bytes, cut);
        refused += wire_describe_decode(&back, part, cut, &err) < 0;
        wire_describe_fini(&back);
        free(part);
    }
    assert_true(refused > count / 2); /* no model, or half a field */
    free(bytes);

    large = calloc(1, WIRE_MESSAGE_BYTES_MAX + 1);
    assert_non_null(large);
    unit_refused(wire_describe_decode(&back, large, WIRE_MESSAGE_BYTES_MAX + 1, &err), MCP_EFORMAT,
                 &err, "a DescribeReply of 65537 bytes, at most 65536");
    unit_refused(wire_describe_decode(&back, large, 5, &err), MCP_EFORMAT, &err,
                 "no protobuf message");
    free(large);
}

/* Goal:   what cannot be is refused: counts, lengths, ranges. */
static void an_impossible_description_is_refused(void **state)
{
    uint64_t             seed = unit_seed();
    struct wire_describe d;
    struct lists         lists;
    ProtobufCMessage    *m;

    (void)state;
    made_describe(&d, &seed);
    d.model.weights = digests;
    d.model.first = 2;
    d.model.last = 5;
    d.model.layers = 8;

    m = oracle_describe(&d, &lists);
    oracle_drop(m, "model");
    refuse_reply(m, "no model");
    m = oracle_describe(&d, &lists);
    oracle_bytes(oracle_in(m, "model"), "fingerprint", digests, 31);
    refuse_reply(m, "fingerprint has 31 bytes, must have 32");
    m = oracle_describe(&d, &lists);
    oracle_list(oracle_in(m, "model"), "weights", lists.weights, 2);
    refuse_reply(m, "2 weights fingerprints for layers [2, 5)");
    m = oracle_describe(&d, &lists);
    lists.weights[1].len = 33;
    refuse_reply(m, "weights fingerprint 1 has 33 bytes, must have 32");
    m = oracle_describe(&d, &lists);
    oracle_number(oracle_in(m, "model"), "last", 2);
    refuse_reply(m, "layers [2, 2) of 8 cannot be");
    m = oracle_describe(&d, &lists);
    oracle_number(oracle_in(m, "model"), "layers", 4);
    refuse_reply(m, "layers [2, 5) of 4 cannot be");
    m = oracle_describe(&d, &lists);
    oracle_number(oracle_in(m, "model"), "layers", WIRE_LAYERS_MAX + 1);
    refuse_reply(m, "a model has at most 512");
    m = oracle_describe(&d, &lists);
    oracle_number(oracle_in(m, "model"), "n_embd", 0);
    refuse_reply(m, "n_embd 0");
    m = oracle_describe(&d, &lists);
    oracle_number(oracle_in(m, "model"), "n_vocab", (1 << 22) + 1);
    refuse_reply(m, "n_vocab 4194305");
    m = oracle_describe(&d, &lists);
    for (size_t i = 0; i < UNIT_COUNT(lists.features); i++)
        lists.features[i] = "more";
    oracle_list(m, "features", lists.features, WIRE_FEATURES_MAX + 1);
    refuse_reply(m, "33 features, at most 32");
    m = oracle_describe(&d, &lists);
    oracle_float(oracle_in(m, "capacity"), "tokens_per_second", NAN);
    refuse_reply(m, "tokens_per_second");
    m = oracle_describe(&d, &lists);
    oracle_float(oracle_in(m, "capacity"), "tokens_per_second", -1.0f);
    refuse_reply(m, "tokens_per_second is -1");
}

/* Goal:   a newer worker's codecs, and texts that are too long or hostile, do no harm. */
static void what_is_new_or_ugly_is_taken_with_care(void **state)
{
    static char          longer[WIRE_TEXT_BYTES + 10];
    uint64_t             seed = unit_seed();
    struct wire_describe d, back;
    struct lists         lists;
    ProtobufCMessage    *m;
    uint8_t             *bytes;
    size_t               count;
    mcp_error            err;

    (void)state;
    made_describe(&d, &seed);
    d.model.weights = NULL;
    m = oracle_describe(&d, &lists);
    oracle_list(m, "codecs", (const int[]){ 2, 30, 32, 4000, -1 }, 5);
    memset(longer, 'x', sizeof(longer) - 1);
    oracle_text(m, "version", longer);
    oracle_text(m, "name", "a\x1b[2Jb\xff\nz");
    bytes = oracle_pack(m, &count);
    unit_ok(wire_describe_decode(&back, bytes, count, &err), &err);
    assert_int_equal(back.codecs, 1u << 2 | 1u << 30);
    assert_int_equal(strlen(back.version), WIRE_TEXT_BYTES - 1);
    assert_string_equal(back.name, "a?[2Jb??z");
    free(bytes);
    oracle_describe_free(m);

    /* On the way out, too: these could come from a model file. */
    memcpy(d.model.name, "m\x80\n", 4);
    unit_ok(wire_describe_encode(&d, &bytes, &count, &err), &err);
    assert_non_null(memmem(bytes, count, "\x0a\x03m??", 5));
    free(bytes);
}

/* Goal:   a text is cut between characters, and only printable UTF-8 is let through. */
static void a_text_is_cut_between_characters_and_cleaned(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "", "" },
        { "1234567", "1234567" },
        { "12345678", "1234567" },
        { "12345\xE2\x82\xAC", "12345" }, /* the euro sign would end behind the room */
        { "1234\xE2\x82\xAC", "1234\xE2\x82\xAC" },
        { "a\tb\x7f", "a?b?" },
        { "a\xC2\x9Bz", "a??z" },
        { "a\xC0\xAFz", "a??z" },
        { "\xE0\x9F\xBF", "???" },
        { "\xED\xA0\x80", "???" },
        { "\xF0\x8F\xBF\xBF", "????" },
        { "\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF" },
        { "\xF4\x90\x80\x80", "????" },
        { "\xF8\x80", "??" },
        { "\xE2\x82", "??" },
    };

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        char text[8], same[16];

        wire_text_copy(text, sizeof(text), rows[i].in);
        assert_string_equal(text, rows[i].out);
        strcpy(same, rows[i].in);
        wire_text_copy(same, sizeof(text), same);
        assert_string_equal(same, rows[i].out);
    }
}

/* Goal:   Watch travels unchanged; its period has a default and a lower bound. */
static void a_watch_travels_unchanged(void **state)
{
    uint64_t                seed = unit_seed();
    struct wire_watch_event e = { .draining = true, .within_ms = 700 }, back;
    ProtobufCMessage       *m;
    uint8_t                *bytes, *expected;
    size_t                  count, expected_count;
    uint32_t                every;
    mcp_error               err = { 0 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        made_capacity(&e.capacity, &seed);
        made_text(e.degraded, sizeof(e.degraded), &seed);
        e.within_ms = made_u32(&seed);
        m = oracle_new(&mcp__v1__watch_event__descriptor);
        oracle_capacity(m, &e.capacity);
        oracle_number(m, "draining", e.draining);
        oracle_number(m, "within_ms", e.within_ms);
        oracle_text(m, "degraded", e.degraded);
        expected = oracle_pack(m, &expected_count);
        unit_ok(wire_watch_event_encode(&e, &bytes, &count, &err), &err);
        assert_int_equal(count, expected_count);
        assert_memory_equal(bytes, expected, count);
        unit_ok(wire_watch_event_decode(&back, bytes, count, &err), &err);
        capacities_equal(&back.capacity, &e.capacity);
        assert_true(back.draining);
        assert_int_equal(back.within_ms, e.within_ms);
        assert_string_equal(back.degraded, e.degraded);
        free(bytes);
        free(expected);
        oracle_drop(m, "capacity");
        free(m);
    }
    unit_refused(wire_watch_event_decode(&back, (const uint8_t *)"\x0a\x05", 2, &err), MCP_EFORMAT,
                 &err, "a WatchEvent are no protobuf message");

    unit_ok(wire_watch_request_encode(250, &bytes, &count, &err), &err);
    assert_int_equal(count, 3);
    assert_memory_equal(bytes, "\x08\xfa\x01", 3);
    unit_ok(wire_watch_request_decode(&every, bytes, count, &err), &err);
    assert_int_equal(every, 250);
    free(bytes);
    unit_ok(wire_watch_request_decode(&every, NULL, 0, &err), &err);
    assert_int_equal(every, 1000);
    unit_refused(wire_watch_request_decode(&every, (const uint8_t *)"\x08\x63", 2, &err),
                 MCP_EFORMAT, &err, "every_ms is 99, at least 100");
}

/* Goal:   a Probe is protobuf's bytes, written where there is room, and read without a copy. */
static void a_probe_travels_unchanged_and_uncopied(void **state)
{
    uint64_t  seed = unit_seed();
    mcp_error err = { 0 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        enum wire_direction direction = round % 2 == 0 ? WIRE_REQUEST : WIRE_REPLY;
        struct wire_probe   p = { .stamp = made_number(&seed, 64), .data = digests[0] }, back;
        ProtobufCMessage   *m = oracle_new(direction == WIRE_REQUEST
                                               ? &mcp__v1__probe_request__descriptor
                                               : &mcp__v1__probe_reply__descriptor);
        uint8_t             bytes[sizeof(digests) + 64], *expected;
        size_t              count;

        p.bytes = unit_below(&seed, sizeof(digests));
        oracle_number(m, "stamp", p.stamp);
        oracle_bytes(m, "data", p.data, p.bytes);
        if (direction == WIRE_REQUEST) {
            p.reply_bytes = unit_below(&seed, WIRE_PROBE_BYTES_MAX + 1);
            oracle_number(m, "reply_bytes", p.reply_bytes);
        }
        expected = oracle_pack(m, &count);
        memset(bytes, 0xA5, sizeof(bytes));
        if (count > 0)
            assert_int_equal(wire_probe_encode(&p, direction, bytes, count - 1), count);
        assert_int_equal(bytes[0], 0xA5);
        assert_int_equal(wire_probe_encode(&p, direction, bytes, count), count);
        assert_memory_equal(bytes, expected, count);
        assert_int_equal(bytes[count], 0xA5);
        unit_ok(wire_probe_decode(&back, direction, bytes, count, &err), &err);
        assert_true(back.stamp == p.stamp);
        assert_int_equal(back.bytes, p.bytes);
        assert_int_equal(back.reply_bytes, p.reply_bytes);
        assert_true(p.bytes == 0 || (back.data > bytes && back.data < bytes + count));
        assert_memory_equal(back.data != NULL ? back.data : bytes, p.bytes > 0 ? digests[0] : bytes,
                            p.bytes);
        free(expected);
        free(m);
    }
}

static void a_probe_beyond_its_limits_is_refused(void **state)
{
    struct wire_probe p = { .data = NULL, .bytes = WIRE_PROBE_BYTES_MAX + 1 }, back;
    uint8_t          *bytes = calloc(1, WIRE_PROBE_BYTES_MAX + 64), *zeros;
    size_t            count;
    mcp_error         err = { 0 };

    (void)state;
    zeros = calloc(1, p.bytes);
    assert_true(bytes != NULL && zeros != NULL);
    p.data = zeros;
    count = wire_probe_encode(&p, WIRE_REQUEST, bytes, WIRE_PROBE_BYTES_MAX + 64);
    unit_refused(wire_probe_decode(&back, WIRE_REQUEST, bytes, count, &err), MCP_EFORMAT, &err,
                 "probe: data has 1048577 bytes, at most 1048576");
    unit_refused(
        wire_probe_decode(&back, WIRE_REQUEST, (const uint8_t *)"\x18\x81\x80\x40", 4, &err),
        MCP_EFORMAT, &err, "probe: reply_bytes is 1048577, at most 1048576");
    /* A reply knows no such field. */
    unit_ok(wire_probe_decode(&back, WIRE_REPLY, (const uint8_t *)"\x18\x81\x80\x40", 4, &err),
            &err);
    assert_int_equal(back.reply_bytes, 0);
    free(zeros);
    free(bytes);
}

/* Goal:   the health protocol's answers, as its definition has them. */
static void health_is_told_for_the_server_and_its_service(void **state)
{
    static const char by_name[] = "\x0a\x0emcp.v1.Compute", other[] = "\x0a\x05other";
    uint8_t          *bytes;
    size_t            count;
    mcp_error         err = { 0 };

    (void)state;
    unit_ok(wire_health_answer(NULL, 0, true, &bytes, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_memory_equal(bytes, "\x08\x01", 2); /* SERVING */
    free(bytes);
    unit_ok(wire_health_answer((const uint8_t *)by_name, sizeof(by_name) - 1, false, &bytes, &count,
                               &err),
            &err);
    assert_int_equal(count, 2);
    assert_memory_equal(bytes, "\x08\x02", 2); /* NOT_SERVING */
    free(bytes);
    unit_refused(
        wire_health_answer((const uint8_t *)other, sizeof(other) - 1, true, &bytes, &count, &err),
        MCP_ENOTFOUND, &err, "no service other");
    assert_null(bytes);
    unit_refused(wire_health_answer((const uint8_t *)"\x0a", 1, true, &bytes, &count, &err),
                 MCP_EFORMAT, &err, "HealthCheckRequest");
}

/* Goal:   without memory each of them says so and leaks nothing. */
static void every_allocation_may_fail(void **state)
{
    uint64_t             seed = unit_seed();
    struct wire_describe d, back;
    bool                 done = false;

    (void)state;
    made_describe(&d, &seed);
    d.model.weights = digests;
    d.model.first = 0;
    d.model.last = 3;
    d.model.layers = 4;
    for (int n = 1; !done; n++) {
        uint8_t  *bytes = NULL, *health = NULL;
        size_t    count;
        mcp_error err = { 0 };
        int       rc;

        starve_arm(n, false);
        rc = wire_describe_encode(&d, &bytes, &count, &err);
        if (rc == MCP_OK) {
            rc = wire_describe_decode(&back, bytes, count, &err);
            wire_describe_fini(&back);
        }
        if (rc == MCP_OK)
            rc = wire_health_answer(NULL, 0, true, &health, &count, &err);
        free(bytes);
        free(health);
        done = starve_disarm() == 0;
        starve_check(rc, &err);
        assert_int_equal(done, rc == MCP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_description_travels_unchanged),
        cmocka_unit_test(a_description_cut_anywhere_does_no_harm),
        cmocka_unit_test(an_impossible_description_is_refused),
        cmocka_unit_test(what_is_new_or_ugly_is_taken_with_care),
        cmocka_unit_test(a_text_is_cut_between_characters_and_cleaned),
        cmocka_unit_test(a_watch_travels_unchanged),
        cmocka_unit_test(a_probe_travels_unchanged_and_uncopied),
        cmocka_unit_test(a_probe_beyond_its_limits_is_refused),
        cmocka_unit_test(health_is_told_for_the_server_and_its_service),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests_name("wire/describe", tests, fill, NULL);
}
