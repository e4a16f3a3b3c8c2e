# `make install`: the program, its documents, the licence, the schemas and the examples.
include(GNUInstallDirs)
if(TARGET chainpump)
  install(TARGETS chainpump RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
foreach(document README.md LICENSE CONTRIBUTING.md)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${document})
    install(FILES ${CMAKE_SOURCE_DIR}/${document} DESTINATION ${CMAKE_INSTALL_DOCDIR})
  endif()
endforeach()
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
install(DIRECTORY ${CMAKE_SOURCE_DIR}/schemas/ DESTINATION ${CMAKE_INSTALL_DATADIR}/chainpump/schemas
        FILES_MATCHING PATTERN "*.capnp" PATTERN "*.json")
install(DIRECTORY ${CMAKE_SOURCE_DIR}/examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/chainpump/examples
        FILES_MATCHING PATTERN "*.yaml")
