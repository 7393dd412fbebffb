# ggml and libllama, already built by ./dev (or installed: MCP_LLAMA_PREFIX).
#
# Makes mcp::llama: headers as SYSTEM plus llama, ggml and ggml-base.  A CPU or
# CUDA backend is never linked: ggml's registry finds those at run time.

if(DEFINED ENV{MCP_CACHE})
    set(mcp_cache_default "$ENV{MCP_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(mcp_cache_default "$ENV{XDG_CACHE_HOME}/mcp")
else()
    set(mcp_cache_default "$ENV{HOME}/.cache/mcp")
endif()
set(MCP_CACHE "${mcp_cache_default}" CACHE PATH "Sources, dependencies and models made by ./dev deps")
set(MCP_LLAMA_SRC "${MCP_CACHE}/src/llama_cpp_python-0.3.36/vendor/llama.cpp" CACHE PATH
    "llama.cpp sources: headers, vocabularies")
set(MCP_LLAMA_BIN "${MCP_CACHE}/deps/native/build/bin" CACHE PATH "Folder of libllama.so and libggml*.so")
set(MCP_LLAMA_PREFIX "$ENV{MCP_LLAMA_PREFIX}" CACHE PATH
    "An installed llama.cpp (include/, lib/) to use instead of the two above")

if(MCP_LLAMA_PREFIX)
    set(mcp_llama_include "${MCP_LLAMA_PREFIX}/include")
    set(mcp_llama_lib "${MCP_LLAMA_PREFIX}/lib")
else()
    set(mcp_llama_include "${MCP_LLAMA_SRC}/include" "${MCP_LLAMA_SRC}/ggml/include")
    set(mcp_llama_lib "${MCP_LLAMA_BIN}")
endif()

add_library(mcp_llama INTERFACE)
add_library(mcp::llama ALIAS mcp_llama)
target_include_directories(mcp_llama SYSTEM INTERFACE ${mcp_llama_include})
foreach(name llama ggml ggml-base)
    if(NOT EXISTS "${mcp_llama_lib}/lib${name}.so")
        message(FATAL_ERROR "no lib${name}.so in ${mcp_llama_lib}: run ./dev deps, "
                            "or set MCP_LLAMA_PREFIX to an installed llama.cpp")
    endif()
    add_library(llama_cpp_${name} SHARED IMPORTED)
    set_target_properties(llama_cpp_${name} PROPERTIES IMPORTED_LOCATION "${mcp_llama_lib}/lib${name}.so")
    target_link_libraries(mcp_llama INTERFACE llama_cpp_${name})
endforeach()
