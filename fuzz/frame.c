/* fuzz/frame.c - one message of an Execute stream is the input, and the other messages' readers.
 *
 * The first byte picks the reader: a frame of the agent, a frame of the worker, or one of the
 * messages around Execute.  Beside what the sanitizers see, broken promises are findings:
 *   - a failure is a sentence and leaves a frame that is nothing;
 *   - a frame that was read keeps its limits and lies inside its message;
 *   - written and read again it is the same bytes: nothing is lost or made up.
 *
 * ./dev fuzz frame SECONDS; seeds in fuzz/corpus/frame are written by fuzz/make_wire_corpus.py.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include "wire/codec.h"
#include "wire/describe.h"
#include "wire/frame.h"

static void check_payload(const struct wire_payload *p, const uint8_t *bytes, size_t count)
{
    CHECK(p->bytes <= p->total && p->total <= WIRE_PAYLOAD_MAX);
    CHECK(p->codec < WIRE_CODECS && p->wrap < WIRE_WRAPS);
    CHECK(p->bytes == 0 || (p->data >= bytes && p->data + p->bytes <= bytes + count));
}

static uint8_t *encode(const struct wire_frame *f, enum wire_direction direction, size_t *count)
{
    uint8_t *bytes;

    *count = wire_frame_bytes(f, direction);
    bytes = malloc(*count);
    CHECK(bytes != NULL);
    wire_frame_encode(f, direction, bytes);
    return bytes;
}

static void read_frame(enum wire_direction direction, const uint8_t *bytes, size_t count)
{
    struct wire_scratch scratch = { 0 }, again_scratch = { 0 };
    struct wire_frame   f, again;
    mcp_error           err;
    uint8_t            *written, *rewritten;
    size_t              written_count, rewritten_count;
    int                 rc = wire_frame_decode(&f, direction, bytes, count, &scratch, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        CHECK(rc == MCP_EFORMAT && f.kind == WIRE_NOTHING);
        wire_scratch_fini(&scratch);
        return;
    }
    CHECK(f.kind > WIRE_NOTHING && f.kind < WIRE_KINDS);
    if (wire_frame_payload(&f) != NULL)
        check_payload(wire_frame_payload(&f), bytes, count);

    written = encode(&f, direction, &written_count);
    CHECK(wire_frame_decode(&again, direction, written, written_count, &again_scratch, &err) ==
          MCP_OK);
    rewritten = encode(&again, direction, &rewritten_count);
    CHECK(rewritten_count == written_count);
    CHECK(memcmp(rewritten, written, written_count) == 0);
    free(rewritten);
    free(written);
    wire_scratch_fini(&scratch);
    wire_scratch_fini(&again_scratch);
}

static void read_describe(const uint8_t *bytes, size_t count)
{
    struct wire_describe d, again;
    mcp_error            err;
    uint8_t             *written;
    size_t               written_count;
    int                  rc = wire_describe_decode(&d, bytes, count, &err);

    if (rc < 0) {
        check_failure(rc, &err);
        return;
    }
    CHECK(d.model.first < d.model.last && d.model.last <= d.model.layers);
    CHECK(wire_describe_encode(&d, &written, &written_count, &err) == MCP_OK);
    CHECK(wire_describe_decode(&again, written, written_count, &err) == MCP_OK);
    CHECK(again.codecs == d.codecs && strcmp(again.name, d.name) == 0);
    free(written);
    wire_describe_fini(&again);
    wire_describe_fini(&d);
}

static void read_others(const uint8_t *bytes, size_t count)
{
    struct wire_watch_event event;
    struct wire_probe       probe;
    mcp_error               err;
    uint8_t                *answer;
    size_t                  answer_count;
    uint32_t                every_ms;
    int                     rc;

    rc = wire_watch_event_decode(&event, bytes, count, &err);
    if (rc < 0)
        check_failure(rc, &err);
    rc = wire_watch_request_decode(&every_ms, bytes, count, &err);
    if (rc < 0)
        check_failure(rc, &err);
    rc = wire_probe_decode(&probe, WIRE_REQUEST, bytes, count, &err);
    if (rc < 0)
        check_failure(rc, &err);
    rc = wire_health_answer(bytes, count, true, &answer, &answer_count, &err);
    if (rc < 0)
        check_failure(rc, &err);
    free(answer);
    rc = wire_reflection_answer(bytes, count, &answer, &answer_count, &err);
    if (rc < 0)
        check_failure(rc, &err);
    free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0: read_frame(WIRE_REQUEST, data + 1, size - 1); break;
    case 1: read_frame(WIRE_REPLY, data + 1, size - 1); break;
    case 2: read_describe(data + 1, size - 1); break;
    default: read_others(data + 1, size - 1); break;
    }
    return 0;
}
