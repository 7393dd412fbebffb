/* wire/reflection.c - grpc.reflection.v1: what this server speaks, from the .proto files that
 * were compiled in.  See describe.h.
 *
 * The descriptors are a serialised FileDescriptorSet and are read where they lie.  Their fields
 * are those of google/protobuf/descriptor.proto; every named element has its name in field 1.
 *
 * SPDX-License-Identifier: MIT */
#include "base/fail.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "wire/describe.h"
#include "wire/message.h"
#include "wire/protobuf.h"
#include "wire/status.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

extern const unsigned char wire_descriptors[], wire_descriptors_end[];

enum { SERVICES_MAX = 8, SYMBOL_BYTES = 256 };

enum { SET_FILE = 1, ANY_NAME = 1, FILE_PACKAGE = 2, FILE_SERVICE = 6 };

/* What can be looked up, and what it contains.  A row ends with a field of 0. */
enum element { A_FILE, A_MESSAGE, AN_ENUM, A_SERVICE, A_METHOD, ELEMENTS };

static const struct {
    uint32_t     field;
    enum element holds;
} children[ELEMENTS][4] = {
    [A_FILE] = { { 4, A_MESSAGE }, { 5, AN_ENUM }, { FILE_SERVICE, A_SERVICE } },
    [A_MESSAGE] = { { 3, A_MESSAGE }, { 4, AN_ENUM } },
    [A_SERVICE] = { { 2, A_METHOD } },
};

/* ---- walking the descriptors -------------------------------------------------------- */

static struct wire_pb all_files(void)
{
    size_t bytes = (uintptr_t)wire_descriptors_end - (uintptr_t)wire_descriptors;

    return wire_pb_over(wire_descriptors, bytes, "descriptors", NULL);
}

/* The next field `number` of `r`: false at the end.  protoc made these bytes. */
static bool next_span(struct wire_pb *r, uint32_t number, struct wire_pb *span)
{
    while (wire_pb_next(r) > 0) {
        if (r->field == number)
            return wire_pb_span(r, span) == MCP_OK;
        if (wire_pb_skip(r) < 0)
            return false;
    }
    return false;
}

/* A string field of an element; empty when it has none. */
static struct wire_pb text_of(struct wire_pb element, uint32_t number)
{
    struct wire_pb text = wire_pb_over(NULL, 0, "text", NULL);

    next_span(&element, number, &text);
    return text;
}

static size_t span_bytes(const struct wire_pb *span)
{
    return (size_t)(span->end - span->at);
}

static bool is(const struct wire_pb *span, const char *text)
{
    return span_bytes(span) == strlen(text) && memcmp(span->at, text, strlen(text)) == 0;
}

/* The rest of `symbol` behind `name` and a dot; "" when they are equal; NULL when it does not
 * begin so. */
static const char *behind(const char *symbol, const struct wire_pb *name)
{
    size_t length = span_bytes(name);

    if (strncmp(symbol, (const char *)name->at, length) != 0)
        return NULL;
    if (symbol[length] == '\0')
        return symbol + length;
    return symbol[length] == '.' && symbol[length + 1] != '\0' ? symbol + length + 1 : NULL;
}

/* Whether `symbol` names something inside this element.  As deep as messages are nested in our
 * own files. */
static bool contains(struct wire_pb element, enum element kind, const char *symbol)
{
    for (size_t i = 0; children[kind][i].field != 0; i++) {
        struct wire_pb r = element, child;

        while (next_span(&r, children[kind][i].field, &child)) {
            struct wire_pb name = text_of(child, ANY_NAME);
            const char    *rest = behind(symbol, &name);

            if (rest != NULL && (*rest == '\0' || contains(child, children[kind][i].holds, rest)))
                return true;
        }
    }
    return false;
}

static bool find_by_name(const char *name, struct wire_pb *file)
{
    for (struct wire_pb files = all_files(); next_span(&files, SET_FILE, file);) {
        struct wire_pb own = text_of(*file, ANY_NAME);

        if (is(&own, name))
            return true;
    }
    return false;
}

static bool find_by_symbol(const char *symbol, struct wire_pb *file)
{
    for (struct wire_pb files = all_files(); next_span(&files, SET_FILE, file);) {
        struct wire_pb package = text_of(*file, FILE_PACKAGE);
        const char    *rest = behind(symbol, &package);

        if (rest != NULL && *rest != '\0' && contains(*file, A_FILE, rest))
            return true;
    }
    return false;
}

/* ---- answering ---------------------------------------------------------------------- */

typedef Grpc__Reflection__V1__ServerReflectionRequest  request_message;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_message;

#define ASKED(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define TOLD(what)  GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

/* The parts of an answer; `response` points to those that are used. */
struct answer {
    response_message                             response;
    Grpc__Reflection__V1__ErrorResponse          error;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    ProtobufCBinaryData                          file;
    Grpc__Reflection__V1__ListServiceResponse    list;
    Grpc__Reflection__V1__ServiceResponse        services[SERVICES_MAX];
    Grpc__Reflection__V1__ServiceResponse       *service_list[SERVICES_MAX];
    char                                         names[SERVICES_MAX][SYMBOL_BYTES];
};

static void answer_error(struct answer *a, enum wire_status_code code, const char *text)
{
    grpc__reflection__v1__error_response__init(&a->error);
    a->error.error_code = (int32_t)code;
    a->error.error_message = (char *)(uintptr_t)text;
    a->response.message_response_case = TOLD(ERROR_RESPONSE);
    a->response.error_response = &a->error;
}

/* Our files import nothing, so one is complete by itself. */
static void answer_file(struct answer *a, bool found, const struct wire_pb *file)
{
    if (!found) {
        answer_error(a, WIRE_NOT_FOUND, "no such file or symbol is served here");
        return;
    }
    grpc__reflection__v1__file_descriptor_response__init(&a->files);
    a->file = (ProtobufCBinaryData){ span_bytes(file), (uint8_t *)(uintptr_t)file->at };
    a->files.file_descriptor_proto = &a->file;
    a->files.n_file_descriptor_proto = 1;
    a->response.message_response_case = TOLD(FILE_DESCRIPTOR_RESPONSE);
    a->response.file_descriptor_response = &a->files;
}

static void answer_list(struct answer *a)
{
    struct wire_pb files = all_files(), file, service;
    size_t         count = 0;

    while (next_span(&files, SET_FILE, &file)) {
        struct wire_pb package = text_of(file, FILE_PACKAGE), r = file;

        while (next_span(&r, FILE_SERVICE, &service)) {
            struct wire_pb name = text_of(service, ANY_NAME);

            assert(count < SERVICES_MAX);
            snprintf(a->names[count], SYMBOL_BYTES, "%.*s.%.*s", (int)span_bytes(&package),
                     (const char *)package.at, (int)span_bytes(&name), (const char *)name.at);
            grpc__reflection__v1__service_response__init(&a->services[count]);
            a->services[count].name = a->names[count];
            a->service_list[count] = &a->services[count];
            count++;
        }
    }
    grpc__reflection__v1__list_service_response__init(&a->list);
    a->list.service = a->service_list;
    a->list.n_service = count;
    a->response.message_response_case = TOLD(LIST_SERVICES_RESPONSE);
    a->response.list_services_response = &a->list;
}

int wire_reflection_answer(const uint8_t *request, size_t request_bytes, uint8_t **bytes,
                           size_t *count, mcp_error *err)
{
    struct answer     a;
    ProtobufCMessage *message;
    request_message  *asked;
    struct wire_pb    file = wire_pb_over(NULL, 0, "file", NULL);
    int               rc;

    *bytes = NULL;
    *count = 0;
    rc = wire_message_unpack(&message, &grpc__reflection__v1__server_reflection_request__descriptor,
                             request, request_bytes, err);
    if (rc < 0)
        return rc;
    asked = (request_message *)message;
    grpc__reflection__v1__server_reflection_response__init(&a.response);
    a.response.valid_host = asked->host;
    a.response.original_request = asked;
    switch (asked->message_request_case) {
    case ASKED(FILE_BY_FILENAME):
        answer_file(&a, find_by_name(asked->file_by_filename, &file), &file);
        break;
    case ASKED(FILE_CONTAINING_SYMBOL):
        answer_file(&a, find_by_symbol(asked->file_containing_symbol, &file), &file);
        break;
    case ASKED(LIST_SERVICES): answer_list(&a); break;
    case ASKED(FILE_CONTAINING_EXTENSION):
    case ASKED(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_error(&a, WIRE_NOT_FOUND, "there are no extensions in proto3");
        break;
    default: answer_error(&a, WIRE_INVALID_ARGUMENT, "the request asks nothing known here"); break;
    }
    rc = wire_message_pack(&a.response.base, bytes, count, err);
    wire_message_free(message);
    return rc;
}
