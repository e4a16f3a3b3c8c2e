"""Tests of shell_blocks.py: a failing block, a missing reason and a foreign label are each found."""
import pathlib
import tempfile
import unittest

import shell_blocks


class Blocks(unittest.TestCase):
    def test_reading(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("text\n```sh\ntrue\nfalse\n```\n```yaml\na: 1\n```\n```sh no-test: needs a network\nx\n```\n")
            self.assertEqual(list(shell_blocks.blocks(page)),
                             [(2, "sh", "", "true\nfalse"), (9, "sh", "no-test: needs a network", "x")])
            page.write_text("```sh\ntrue\n")
            with self.assertRaises(SystemExit):
                list(shell_blocks.blocks(page))

    def test_judging(self):
        self.assertIsNone(shell_blocks.problem("sh", "", "true | cat"))
        self.assertIn("exit status 1", shell_blocks.problem("sh", "", "false\ntrue"))
        self.assertIn("exit status 1", shell_blocks.problem("sh", "", "false | cat"))
        self.assertIsNone(shell_blocks.problem("sh", "no-test: needs two machines", "false"))
        self.assertIsNotNone(shell_blocks.problem("sh", "no-test: x", "true"))
        self.assertIsNotNone(shell_blocks.problem("bash", "", "true"))


if __name__ == "__main__":
    unittest.main()
