"""Tests of tidy itself: each rule finds its violation in a small tree, and a clean tree has none."""
import pathlib
import sys
import tempfile
import unittest

import cpp_text
import tidy

HEADER = "// What it is.\n#pragma once\n"


def findings(files):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        run = tidy.Tidy(root, allowed={})
        run.run(headers=any(name.startswith("headers/") for name in files))
        return {(path, line, rule) for path, line, rule, _ in run.findings}


class Rules(unittest.TestCase):
    def expect(self, files, *wanted):
        self.assertEqual(findings(files), set(wanted))

    def test_clean_tree(self):
        self.expect({"graph/plan.h": HEADER + '#include "base/ids.h"\n',
                     "graph/plan.cc": '#include "graph/plan.h"\n', "graph/CMakeLists.txt": "plan.cc\n"})

    def test_walls(self):
        cases = [
            ("graph/a.h", "<caf/all.hpp>", "wall"), ("actors/a.h", "<caf/all.hpp>", None),
            ("tests/actors/a.h", "<caf/all.hpp>", None), ("tests/graph/a.h", "<caf/all.hpp>", "wall"),
            ("transport/a.h", "<ucp/api/ucp.h>", "wall"), ("transport/ucx/a.h", "<ucp/api/ucp.h>", None),
            ("actors/a.h", '"schemas/control.capnp.h"', "wall"), ("transport/rpc/a.h", "<kj/async.h>", None),
            ("kernels/cpu/a.h", "<cuda_runtime.h>", "wall"), ("gateway/a.h", "<boost/beast.hpp>", "wall"),
            ("models/a.h", "<torch/torch.h>", "wall"), ("base/a.h", "<nlohmann/json.hpp>", "wall"),
            ("base/a.h", '"graph/plan.h"', "include-direction"), ("transport/a.h", '"graph/plan.h"', "include-direction"),
            ("kernels/cpu/a.h", '"graph/plan.h"', "include-direction"), ("cli/a.h", '"actors/x.h"', None),
            ("actors/a.h", '"cli/x.h"', "include-direction"), ("base/a.h", '"tests/fakes/x.h"', "include-direction"),
            ("base/a.h", '"ids.h"', "include-path"), ("tests/transport/a.h", '"graph/plan.h"', "include-direction"),
        ]
        for path, name, rule in cases:
            with self.subTest(path=path, name=name):
                self.expect({path: HEADER + f"#include {name}\n"}, *([(path, 3, rule)] if rule else []))

    def test_yaml_in_one_file(self):
        code = "#include <libfyaml.h>\n"
        self.expect({"graph/a.cc": code, "graph/b.cc": code, "graph/CMakeLists.txt": "a.cc b.cc\n"},
                    ("graph/b.cc", 1, "wall"))

    def test_headers_open_with_comment_and_guard(self):
        self.expect({"base/a.h": "int x;\n"}, ("base/a.h", 1, "header-comment"), ("base/a.h", 1, "pragma-once"))
        self.expect({"base/a.h": HEADER + "using namespace std;\n"}, ("base/a.h", 3, "using-namespace"))

    def test_leftovers(self):
        self.expect({"base/a.h": HEADER + "// TO" "DO later\n"}, ("base/a.h", 3, "leftover"))
        self.expect({"base/a.h": HEADER + "// see /ho" "me/me/x\n"}, ("base/a.h", 3, "machine-path"))
        self.expect({"base/a.h": HEADER + "int x; \n"}, ("base/a.h", 3, "whitespace"))

    def test_sizes(self):
        body = "int f() {\n" + "  g();\n" * 70 + "}\n"
        self.expect({"base/a.cc": body, "base/CMakeLists.txt": "a.cc\n"}, ("base/a.cc", 1, "function-length"))
        self.expect({"base/a.h": HEADER + "//\n" * 400}, ("base/a.h", 402, "file-length"))

    def test_source_outside_the_build(self):
        self.expect({"tests/base/a_test.cc": "", "tests/base/CMakeLists.txt": "b_test.cc\n"},
                    ("tests/base/a_test.cc", 1, "not-built"))

    def test_header_that_needs_another(self):
        found = findings({"headers/a.h": HEADER + "inline std::string f() { return {}; }\n",
                          "headers/b.h": HEADER + "#include <string>\ninline std::string f() { return {}; }\n"})
        self.assertEqual(found, {("headers/a.h", 1, "self-contained")})


class Functions(unittest.TestCase):
    def test_spans(self):
        text = """namespace a {
// text with { and "
struct S : T {
  int f() const { return g({1, 2}); }
  int x{3};
};
constexpr int kTable[] = {1, 2};
template <class T>
auto h(const char* s = "{") -> int
{
  if (x) { y('{'); }
}
S::S(int a) : x{a}, y(1) {
}
BOOST_AUTO_TEST_SUITE(all)
BOOST_AUTO_TEST_CASE(one) {
  auto f = [&](int z) { return z; };
}
BOOST_AUTO_TEST_SUITE_END()
}
"""
        spans = [(first, last) for first, last, _ in cpp_text.functions(text)]
        self.assertEqual(spans, [(4, 4), (8, 12), (13, 14), (16, 18)])


if __name__ == "__main__":
    sys.exit(unittest.main())
