/* wire/reflection_test.c - server reflection, compared with what protobuf-c generated from the
 * same files.
 *
 * SPDX-License-Identifier: MIT */
#include "wire/describe.h"

#include "base/starve_test.h"
#include "wire/made_test.h"
#include "wire/status.h"

extern const ProtobufCMessageDescriptor grpc__reflection__v1__server_reflection_request__descriptor;
extern const ProtobufCMessageDescriptor
    grpc__reflection__v1__server_reflection_response__descriptor;
extern const ProtobufCMessageDescriptor grpc__health__v1__health_check_response__descriptor;
extern const ProtobufCMessageDescriptor mcp__v1__describe_reply__descriptor;
extern const ProtobufCServiceDescriptor mcp__v1__compute__descriptor;
extern const ProtobufCServiceDescriptor grpc__health__v1__health__descriptor;
extern const ProtobufCServiceDescriptor grpc__reflection__v1__server_reflection__descriptor;
extern const ProtobufCEnumDescriptor    mcp__v1__codec__descriptor;
extern const ProtobufCEnumDescriptor
                           grpc__health__v1__health_check_response__serving_status__descriptor;
extern const unsigned char wire_descriptors[], wire_descriptors_end[];

/* The answer to one question, decoded; release with protobuf_c_message_free_unpacked(). */
static ProtobufCMessage *ask(const char *field, const char *text)
{
    ProtobufCMessage *request = oracle_new(
        &grpc__reflection__v1__server_reflection_request__descriptor);
    const ProtobufCFieldDescriptor *f;
    ProtobufCMessage               *answer;
    uint8_t                        *bytes, *answer_bytes;
    size_t                          count;
    mcp_error                       err;

    oracle_text(request, "host", "worker-1");
    oracle_text(request, field, text);
    oracle_place(request, field, &f);
    *(uint32_t *)(void *)((char *)request + f->quantifier_offset) = f->id;
    bytes = oracle_pack(request, &count);
    unit_ok(wire_reflection_answer(bytes, count, &answer_bytes, &count, &err), &err);
    answer = protobuf_c_message_unpack(
        &grpc__reflection__v1__server_reflection_response__descriptor, NULL, count, answer_bytes);
    assert_non_null(answer);
    free(answer_bytes);
    free(bytes);
    free(request);
    return answer;
}

static void *in(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;
    void                           *place = oracle_place(m, name, &field);

    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        assert_int_equal(*(uint32_t *)(void *)((char *)m + field->quantifier_offset), field->id);
    return *(void **)place;
}

static int number_in(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;
    const int32_t                  *place = oracle_place(m, name, &field);

    assert_int_equal(field->type, PROTOBUF_C_TYPE_INT32);
    return *place;
}

static size_t count_of(ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *field;

    oracle_place(m, name, &field);
    return *(size_t *)(void *)((char *)m + field->quantifier_offset);
}

/* The file that answers: one, and it begins with its own name (field 1 of FileDescriptorProto). */
static ProtobufCBinaryData file_in(ProtobufCMessage *answer, const char *file_name)
{
    ProtobufCMessage    *files = in(answer, "file_descriptor_response");
    ProtobufCBinaryData *file = in(files, "file_descriptor_proto");
    size_t               length = strlen(file_name);

    assert_int_equal(count_of(files, "file_descriptor_proto"), 1);
    assert_true(file->len > length + 2);
    assert_int_equal(file->data[0], 0x0a);
    assert_int_equal(file->data[1], length);
    assert_memory_equal(file->data + 2, file_name, length);
    return *file;
}

static void must_find(const char *symbol, const char *file_name)
{
    ProtobufCMessage *answer = ask("file_containing_symbol", symbol);

    file_in(answer, file_name);
    protobuf_c_message_free_unpacked(answer, NULL);
}

static void must_not_find(const char *field, const char *text)
{
    ProtobufCMessage *answer = ask(field, text), *error = in(answer, "error_response");
    ProtobufCMessage *original = in(answer, "original_request");

    assert_int_equal(number_in(error, "error_code"), WIRE_NOT_FOUND);
    assert_string_equal(in(answer, "valid_host"), "worker-1");
    assert_string_equal(in(original, field), text);
    protobuf_c_message_free_unpacked(answer, NULL);
}

static void must_find_message(const ProtobufCMessageDescriptor *d, const char *file_name)
{
    must_find(d->name, file_name);
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            must_find_message(d->fields[i].descriptor, file_name);
        else if (d->fields[i].type == PROTOBUF_C_TYPE_ENUM)
            must_find(((const ProtobufCEnumDescriptor *)d->fields[i].descriptor)->name, file_name);
}

static void must_find_service(const ProtobufCServiceDescriptor *d, const char *file_name)
{
    must_find(d->name, file_name);
    for (unsigned i = 0; i < d->n_methods; i++) {
        char method[200];

        snprintf(method, sizeof(method), "%s.%s", d->name, d->methods[i].name);
        must_find(method, file_name);
        must_find_message(d->methods[i].input, file_name);
        if (d != &grpc__reflection__v1__server_reflection__descriptor)
            must_find_message(d->methods[i].output, file_name);
    }
}

/* Goal:   the three files are served by name, and together they are all that was compiled in. */
static void every_file_is_found_by_its_name(void **state)
{
    static const char *const names[] = { "mcp/v1/compute.proto", "grpc/health/v1/health.proto",
                                         "grpc/reflection/v1/reflection.proto" };
    size_t                   sum = 0;

    (void)state;
    for (size_t i = 0; i < UNIT_COUNT(names); i++) {
        ProtobufCMessage   *answer = ask("file_by_filename", names[i]);
        ProtobufCBinaryData file = file_in(answer, names[i]);
        size_t              length_bytes = file.len < 128 ? 1 : 2;

        assert_non_null(memmem(wire_descriptors, (size_t)(wire_descriptors_end - wire_descriptors),
                               file.data, file.len));
        sum += 1 + length_bytes + file.len; /* the set's tag and length before each */
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    assert_int_equal(sum, wire_descriptors_end - wire_descriptors);
    must_not_find("file_by_filename", "mcp/v1/compute.prot");
    must_not_find("file_by_filename", "");
}

/* Goal:   every service, method, message and enum is found in its file, and nothing else.
 * Method: all that protobuf-c's own descriptors reach from the services. */
static void every_symbol_is_found_in_its_file(void **state)
{
    static const char *const strangers[] = {
        "",
        ".",
        "mcp",
        "mcp.v1",
        "mcp.v1.",
        "mcp.v1.Comput",
        "mcp.v1.Computer",
        "mcp.v1.Compute.",
        "mcp.v1.Compute.Nothing",
        "mcp.v1.Compute.Execute.More",
        "mcp.v2.Compute",
        "Compute",
        "mcp.v1.HealthCheckResponse",
        "grpc.health.v1.ServingStatus",
    };

    (void)state;
    must_find_service(&mcp__v1__compute__descriptor, "mcp/v1/compute.proto");
    must_find_service(&grpc__health__v1__health__descriptor, "grpc/health/v1/health.proto");
    must_find_service(&grpc__reflection__v1__server_reflection__descriptor,
                      "grpc/reflection/v1/reflection.proto");
    must_find("mcp.v1.ExecuteRequest", "mcp/v1/compute.proto");
    must_find(mcp__v1__codec__descriptor.name, "mcp/v1/compute.proto");
    must_find("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto");
    for (size_t i = 0; i < UNIT_COUNT(strangers); i++)
        must_not_find("file_containing_symbol", strangers[i]);
}

/* Goal:   the list of services is what the files define. */
static void the_services_are_listed(void **state)
{
    ProtobufCMessage  *answer = ask("list_services", "*");
    ProtobufCMessage  *list = in(answer, "list_services_response");
    ProtobufCMessage **services = in(list, "service");

    (void)state;
    assert_int_equal(count_of(list, "service"), 3);
    assert_string_equal(in(services[0], "name"), mcp__v1__compute__descriptor.name);
    assert_string_equal(in(services[1], "name"), grpc__health__v1__health__descriptor.name);
    assert_string_equal(in(services[2], "name"),
                        grpc__reflection__v1__server_reflection__descriptor.name);
    protobuf_c_message_free_unpacked(answer, NULL);
}

/* Goal:   questions that have no answer get one that says so; bytes that are no question are
 *         a sentence. */
static void other_questions_are_answered_with_an_error(void **state)
{
    uint8_t  *bytes;
    size_t    count;
    mcp_error err = { 0 };

    (void)state;
    must_not_find("all_extension_numbers_of_type", "mcp.v1.Open");
    unit_ok(wire_reflection_answer(NULL, 0, &bytes, &count, &err), &err);
    /* original_request (2): empty; error_response (7): code 3 */
    assert_true(count > 6);
    assert_memory_equal(bytes, "\x12\x00\x3a", 3);
    assert_memory_equal(bytes + 4, "\x08\x03", 2);
    free(bytes);
    unit_refused(wire_reflection_answer((const uint8_t *)"\x22\x09", 2, &bytes, &count, &err),
                 MCP_EFORMAT, &err, "ServerReflectionRequest");
    assert_null(bytes);
}

static void every_allocation_may_fail(void **state)
{
    bool done = false;

    (void)state;
    for (int n = 1; !done; n++) {
        uint8_t  *bytes;
        size_t    count;
        mcp_error err = { 0 };
        int       rc;

        starve_arm(n, false);
        rc = wire_reflection_answer((const uint8_t *)"\x22\x0bmcp.v1.Open", 13, &bytes, &count,
                                    &err);
        free(bytes);
        done = starve_disarm() == 0;
        starve_check(rc, &err);
        assert_int_equal(done, rc == MCP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_is_found_by_its_name),
        cmocka_unit_test(every_symbol_is_found_in_its_file),
        cmocka_unit_test(the_services_are_listed),
        cmocka_unit_test(other_questions_are_answered_with_an_error),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests_name("wire/reflection", tests, NULL, NULL);
}
