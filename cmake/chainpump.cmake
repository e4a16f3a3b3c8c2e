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
  add_compile_options(-fsanitize=${CHAINPUMP_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CHAINPUMP_SANITIZE})
endif()
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

execute_process(COMMAND git describe --always --dirty --abbrev=9 --exclude=*
                WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE CHAINPUMP_COMMIT
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT CHAINPUMP_COMMIT)
  set(CHAINPUMP_COMMIT unknown)
endif()

# chainpump_library(NAME SOURCES a.cc ... DEPS x y ...): a static library of this folder.
function(chainpump_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

# chainpump_test(NAME SOURCES a_test.cc ... DEPS x y ... [LABELS long ...]): one Boost.Test program,
# one ctest entry. Sources use BOOST_AUTO_TEST_CASE and do not define main.
function(chainpump_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} chainpump_test_main)
  add_test(NAME ${name} COMMAND ${name} --log_level=test_suite WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
