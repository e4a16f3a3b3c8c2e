# Compiler settings, and the two functions every folder uses.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

set(CHAINPUMP_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")
option(CHAINPUMP_FUZZERS "Build the libFuzzer harnesses (clang only)" OFF)

# The one law: a product and a sum are fused only where the source says so.
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wno-missing-field-initializers -Werror
                    -ffp-contract=off -fno-omit-frame-pointer)
if(CHAINPUMP_SANITIZE)
  # GCC's analysis of uninitialized values is documented to err under sanitizers (here: in kj's headers).
  add_compile_options(-fsanitize=${CHAINPUMP_SANITIZE} -fno-sanitize-recover=all
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=${CHAINPUMP_SANITIZE})
endif()
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})

find_program(CCACHE ccache)
if(CCACHE)
  # Paths relative to the checkout, so that every clone on a machine shares one cache.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
endif()

# chainpump_library(NAME SOURCES a.cc ... DEPS x y ...): a static library of this folder.
function(chainpump_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

# chainpump_test(NAME SOURCES a_test.cc ... DEPS x y ... [LABELS long ...] [TIMEOUT s]): one Boost.Test
# program, one ctest entry. Sources use BOOST_AUTO_TEST_CASE and do not define main.
# Labels with a meaning: `long` runs only in `make test-long`; `timing` runs alone and never under a
# sanitizer; `tsan` (given by itself to our own cores, kernels and loopback) also runs in `make tsan`.
function(chainpump_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} chainpump_test_main)
  add_test(NAME ${name} COMMAND ${name} --log_level=test_suite WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  if(folder MATCHES "^(base|graph|kernels|sim)" OR name MATCHES "loopback|^transport_test$")
    list(APPEND ARG_LABELS tsan)
    set_property(GLOBAL APPEND PROPERTY CHAINPUMP_TSAN_TESTS ${name})
  endif()
  chainpump_test_settings(${name} ${ARG_TIMEOUT} "${ARG_LABELS}")
endfunction()

# chainpump_script_test(NAME COMMAND program args... [LABELS ...] [TIMEOUT s]): a test that is not a
# Boost.Test program (Python, shell), with the same environment and labels.
function(chainpump_script_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  add_test(NAME ${name} COMMAND ${ARG_COMMAND} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  chainpump_test_settings(${name} ${ARG_TIMEOUT} "${ARG_LABELS}")
endfunction()

# What tools/setup.sh provides, by fixed names; a test that needs a missing one says so and fails.
set(CHAINPUMP_TEST_PYTHON ${CMAKE_SOURCE_DIR}/.venv/bin/python)
set(CHAINPUMP_TEST_ENVIRONMENT
  CHAINPUMP_TEST_MODEL=${CMAKE_SOURCE_DIR}/.venv/model.gguf
  CHAINPUMP_TEST_PYTHON=${CHAINPUMP_TEST_PYTHON}
  CHAINPUMP_TEST_LLAMA_CPP=${CMAKE_SOURCE_DIR}/.cache/peers/llama_cpp_python-0.3.36/vendor/llama.cpp
  CHAINPUMP_TEST_PROGRAM=${CMAKE_BINARY_DIR}/chainpump
  XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/test-cache  # never the user's own
  CHAINPUMP_RUN_DIR=${CMAKE_BINARY_DIR}/test-run)  # nor one of the user's services

function(chainpump_test_settings name timeout_s labels)
  if(CHAINPUMP_SANITIZE)
    math(EXPR timeout_s "${timeout_s} * 4")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout_s} LABELS "${labels}"
                       ENVIRONMENT "${CHAINPUMP_TEST_ENVIRONMENT}")
  if("timing" IN_LIST labels)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
