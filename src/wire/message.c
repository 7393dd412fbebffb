/* wire/message.c - see message.h.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/message.h"

#include "base/fail.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int wire_message_pack(const ProtobufCMessage *message, uint8_t **bytes, size_t *count,
                      mcp_error *err)
{
    size_t   need = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(need + 1); /* an empty message has bytes too */

    *bytes = NULL;
    *count = 0;
    if (packed == NULL)
        return base_fail(err, MCP_ENOMEM, "no memory for a %s of %zu bytes",
                         message->descriptor->short_name, need);
    protobuf_c_message_pack(message, packed);
    *bytes = packed;
    *count = need;
    return MCP_OK;
}

/* protobuf-c returns NULL for malformed bytes and for want of memory alike: this one knows. */
static void *take_memory(void *failed, size_t bytes)
{
    void *memory = malloc(bytes);

    if (memory == NULL)
        *(bool *)failed = true;
    return memory;
}

static void give_memory(void *failed, void *memory)
{
    (void)failed;
    free(memory);
}

int wire_message_unpack(ProtobufCMessage **out, const ProtobufCMessageDescriptor *descriptor,
                        const uint8_t *bytes, size_t count, mcp_error *err)
{
    bool               failed = false;
    ProtobufCAllocator allocator = { take_memory, give_memory, &failed };

    *out = NULL;
    if (count > WIRE_MESSAGE_BYTES_MAX)
        return base_fail(err, MCP_EFORMAT, "a %s of %zu bytes, at most %d", descriptor->short_name,
                         count, WIRE_MESSAGE_BYTES_MAX);
    *out = protobuf_c_message_unpack(descriptor, &allocator, count, bytes);
    if (*out != NULL)
        return MCP_OK;
    if (failed)
        return base_fail(err, MCP_ENOMEM, "no memory to read a %s of %zu bytes",
                         descriptor->short_name, count);
    return base_fail(err, MCP_EFORMAT, "the bytes of a %s are no protobuf message",
                     descriptor->short_name);
}

void wire_message_free(ProtobufCMessage *message)
{
    ProtobufCAllocator allocator = { take_memory, give_memory, NULL };

    if (message != NULL)
        protobuf_c_message_free_unpacked(message, &allocator);
}

/* Bytes of the character that begins here: 0 when it is none, or one that moves a cursor. */
static size_t character_bytes(const unsigned char *c)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 }; /* by bytes: no longer form */
    size_t                bytes = c[0] < 0x80                   ? 1
                                  : c[0] >= 0xC0 && c[0] < 0xE0 ? 2
                                  : c[0] >= 0xE0 && c[0] < 0xF0 ? 3
                                  : c[0] >= 0xF0 && c[0] < 0xF8 ? 4
                                                                : 0;
    uint32_t              code = bytes > 1 ? c[0] & (0x7Fu >> bytes) : c[0];

    for (size_t i = 1; i < bytes; i++) {
        if ((c[i] & 0xC0) != 0x80)
            return 0; /* the end of the text, too */
        code = code << 6 | (c[i] & 0x3F);
    }
    if (bytes == 0 || code < least[bytes] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return 0;
    return code < 0x20 || (code >= 0x7F && code < 0xA0) ? 0 : bytes;
}

void wire_text_copy(char *target, size_t cap, const char *source)
{
    const unsigned char *from = (const unsigned char *)source;
    size_t               length = 0;

    while (*from != '\0') {
        size_t bytes = character_bytes(from);
        size_t room = bytes > 0 ? bytes : 1;

        if (length + room >= cap)
            break;
        if (bytes > 0)
            memmove(target + length, from, bytes);
        else
            target[length] = '?';
        length += room;
        from += room;
    }
    target[length] = '\0';
}
