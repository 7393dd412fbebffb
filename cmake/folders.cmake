# The functions behind cmake/layers.cmake.

define_property(TARGET PROPERTY MCP_USES BRIEF_DOCS "Third-party targets of a folder's archive")
set(mcp_archives "") # targets that make libmcp.so

# The folder's C files, without its unit tests.
function(mcp_sources out folder)
    file(GLOB found CONFIGURE_DEPENDS "${folder}/*.c")
    list(FILTER found EXCLUDE REGEX "_test\\.c$")
    set(${out} "${found}" PARENT_SCOPE)
endfunction()

function(mcp_archive folder)
    mcp_sources(sources src/${folder})
    if(NOT sources)
        return() # not written yet, or headers only
    endif()
    add_library(mcp_${folder} STATIC ${sources})
    if(folder STREQUAL wire)
        target_sources(mcp_wire PRIVATE ${mcp_proto_sources})
        target_include_directories(mcp_wire SYSTEM PRIVATE "${mcp_proto_dir}")
        # protoc-c's output, which is compiled by our flags but written by nobody here.
        set_source_files_properties(${mcp_proto_sources} PROPERTIES COMPILE_OPTIONS "-w")
    endif()
    target_include_directories(mcp_${folder} PUBLIC src)
    target_link_libraries(mcp_${folder} PUBLIC mcp_flags)
    foreach(lower IN LISTS ARGN)
        if(TARGET mcp_${lower})
            target_link_libraries(mcp_${folder} PUBLIC mcp_${lower})
        endif()
    endforeach()
endfunction()

macro(mcp_layer folder)
    mcp_archive(${folder} ${ARGN})
    if(TARGET mcp_${folder})
        list(APPEND mcp_archives mcp_${folder})
    endif()
endmacro()

macro(mcp_above folder)
    if(NOT ${folder} STREQUAL cli) # the program itself: see CMakeLists.txt
        mcp_archive(${folder})
    endif()
endmacro()

macro(mcp_uses folder)
    if(TARGET mcp_${folder})
        # PRIVATE: whoever links the archive links the library too, but does not
        # get its headers.
        target_link_libraries(mcp_${folder} PRIVATE ${ARGN})
        set_property(TARGET mcp_${folder} PROPERTY MCP_USES ${ARGN})
    endif()
endmacro()
