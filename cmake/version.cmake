# Run at build time: writes OUTPUT from INPUT with release and commit filled in, and touches it only when
# it changed, so that a report never names a commit that was not built.
execute_process(COMMAND git describe --always --dirty --abbrev=9 --exclude=*
                WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE CHAINPUMP_COMMIT
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT CHAINPUMP_COMMIT)
  set(CHAINPUMP_COMMIT unknown)
endif()
configure_file(${INPUT} ${OUTPUT} @ONLY)
