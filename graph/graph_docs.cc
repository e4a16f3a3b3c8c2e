// Prints what is generated from the table of graph keys: graph_docs --schema | --markdown.
#include <cstdio>
#include <string_view>

#include "graph/keys.h"

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  if (what != "--schema" && what != "--markdown") {
    std::fputs("usage: graph_docs --schema | --markdown\n", stderr);
    return 2;
  }
  const std::string text = what == "--schema" ? chainpump::graph::graph_json_schema()
                                              : chainpump::graph::graph_markdown();
  return std::fputs(text.c_str(), stdout) >= 0 ? 0 : 5;
}
