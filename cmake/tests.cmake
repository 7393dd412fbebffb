# Unit tests, parity tests, benchmarks and fuzz targets, each found by its place.

enable_testing()

# What a test finds in its environment; ./dev exports the same for pytest.
set(mcp_test_env
    "MCP_CACHE=${MCP_CACHE}"
    "MCP_LLAMA_SRC=${MCP_LLAMA_SRC}"
    "MCP_LLAMA_BIN=${mcp_llama_lib}"
    "MCP_MODEL_SMOLLM2=${MCP_CACHE}/models/SmolLM2-135M-Instruct-Q4_1.gguf"
    "MCP_BIN=${CMAKE_BINARY_DIR}/bin/mcp"
    "MCP_SYNTH=${CMAKE_BINARY_DIR}/bin/mcp-synth"
    "MCP_LIB=${CMAKE_BINARY_DIR}/lib/libmcp.so"
    "GGML_NO_BACKTRACE=1" # else an expected abort starts gdb
    "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")

function(mcp_test name label timeout_s)
    add_executable(${name} ${ARGN})
    set_target_properties(${name} PROPERTIES MCP_ONE_FILE ON
        RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
    target_include_directories(${name} PRIVATE src tests)
    target_link_libraries(${name} PRIVATE mcp_flags PkgConfig::cmocka)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${timeout_s}
        ENVIRONMENT "${mcp_test_env}")
endfunction()

# A unit test links its folder's archive and, through it, what that may call.
file(GLOB sources CONFIGURE_DEPENDS "src/*/*_test.c")
foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "_test$" "" name ${name})
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(folder ${folder} NAME)
    set(test test_${folder}_${name})
    if(folder STREQUAL cli)
        # No archive there: take the program's files, less its main().
        mcp_sources(own src/cli)
        list(FILTER own EXCLUDE REGEX "/main\\.c$")
        mcp_test(${test} unit 300 ${source} ${own})
        target_link_libraries(${test} PRIVATE mcp_shared mcp::jansson mcp_gateway)
    else()
        mcp_test(${test} unit 300 ${source})
        if(TARGET mcp_${folder})
            target_link_libraries(${test} PRIVATE mcp_${folder} $<TARGET_PROPERTY:mcp_${folder},MCP_USES>)
        else() # a folder of headers: its test may still use what lies below
            target_link_libraries(${test} PRIVATE ${mcp_archives})
        endif()
    endif()
endforeach()

# Everything that links all archives and has its own main().
# *_common.c beside them is compiled once and linked to each.
function(mcp_programs folder out)
    file(GLOB sources CONFIGURE_DEPENDS "${folder}/*.c")
    set(common ${sources})
    list(FILTER common INCLUDE REGEX "_common\\.c$")
    list(FILTER sources EXCLUDE REGEX "_common\\.c$")
    string(MAKE_C_IDENTIFIER "${folder}_common" library)
    add_library(${library} INTERFACE)
    if(common)
        add_library(${library}_objects OBJECT ${common})
        target_include_directories(${library}_objects PRIVATE src tests)
        target_link_libraries(${library}_objects PRIVATE mcp_flags mcp::llama PkgConfig::cmocka)
        target_sources(${library} INTERFACE $<TARGET_OBJECTS:${library}_objects>)
    endif()
    target_link_libraries(${library} INTERFACE ${mcp_archives} mcp::llama)
    set(${out} "${sources}" PARENT_SCOPE)
endfunction()

# The simulation links all archives and needs no model: it runs with the unit tests.
mcp_programs(tests/sim sources)
foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    mcp_test(sim_${name} unit 900 ${source})
    target_link_libraries(sim_${name} PRIVATE tests_sim_common)
endforeach()

if(MCP_PARITY)
    mcp_programs(tests/parity sources)
    foreach(source IN LISTS sources)
        get_filename_component(name ${source} NAME_WE)
        mcp_test(parity_${name} parity 1800 ${source})
        target_link_libraries(parity_${name} PRIVATE tests_parity_common)
    endforeach()

    mcp_programs(bench sources)
    foreach(source IN LISTS sources)
        get_filename_component(name ${source} NAME_WE)
        add_executable(bench_${name} ${source})
        set_target_properties(bench_${name} PROPERTIES OUTPUT_NAME ${name}
            RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bench")
        target_include_directories(bench_${name} PRIVATE src)
        target_link_libraries(bench_${name} PRIVATE mcp_flags bench_common)
    endforeach()
endif()

if(MCP_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES Clang)
        message(FATAL_ERROR "MCP_FUZZ needs clang: run ./dev fuzz, or set CMAKE_C_COMPILER=clang")
    endif()
    mcp_programs(fuzz sources)
    foreach(source IN LISTS sources)
        get_filename_component(name ${source} NAME_WE)
        add_executable(fuzz_${name} ${source})
        set_target_properties(fuzz_${name} PROPERTIES OUTPUT_NAME ${name} MCP_ONE_FILE ON
            RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
        target_include_directories(fuzz_${name} PRIVATE src)
        target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
        target_link_libraries(fuzz_${name} PRIVATE mcp_flags fuzz_common)
    endforeach()
endif()
