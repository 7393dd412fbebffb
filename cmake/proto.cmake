# proto/ -> C: mcp_proto holds what protoc-c makes of the .proto files, and their descriptors
# for server reflection.  Only src/wire includes the generated headers.

find_program(PROTOC_C protoc-c REQUIRED)
set(mcp_proto_dir "${CMAKE_BINARY_DIR}/generated")
set(mcp_protos mcp/v1/compute grpc/health/v1/health grpc/reflection/v1/reflection)
set(made "")
set(inputs "")
foreach(proto IN LISTS mcp_protos)
    list(APPEND inputs "${CMAKE_SOURCE_DIR}/proto/${proto}.proto")
    list(APPEND made "${mcp_proto_dir}/${proto}.pb-c.c")
endforeach()
add_custom_command(
    OUTPUT ${made} "${mcp_proto_dir}/descriptors.bin"
    COMMAND ${CMAKE_COMMAND} -E make_directory "${mcp_proto_dir}"
    COMMAND ${PROTOC_C} -I "${CMAKE_SOURCE_DIR}/proto" "--c_out=${mcp_proto_dir}"
            "--descriptor_set_out=${mcp_proto_dir}/descriptors.bin" ${inputs}
    DEPENDS ${inputs} VERBATIM)
# The descriptors as bytes of the program: wire_descriptors, wire_descriptors_end.
file(CONFIGURE OUTPUT "${mcp_proto_dir}/descriptors.S" CONTENT
"    .section .rodata
    .hidden wire_descriptors
    .global wire_descriptors
wire_descriptors:
    .incbin \"@mcp_proto_dir@/descriptors.bin\"
    .hidden wire_descriptors_end
    .global wire_descriptors_end
wire_descriptors_end:
    .byte 0
    .section .note.GNU-stack,\"\",%progbits
" @ONLY)
set_source_files_properties("${mcp_proto_dir}/descriptors.S" PROPERTIES
    OBJECT_DEPENDS "${mcp_proto_dir}/descriptors.bin")
set(mcp_proto_sources ${made} "${mcp_proto_dir}/descriptors.S")
