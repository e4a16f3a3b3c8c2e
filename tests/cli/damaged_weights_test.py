"""Weights that turn the model's numbers into NaN, infinity or overflow: whatever is asked of the model ends with
status 5 and says so, and requests that do not meet the damage are answered as if it were not there.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import gguf
import numpy as np

import program

NAN, INFINITY = float("nan"), float("inf")
SCALES = {gguf.GGMLQuantizationType.F32: np.float32}  # of a block's first number; the others begin with an f16 scale
WAYS = [[], ["--temperature", 1, "--seed", 7], ["--temperature", 1, "--top-p", 0.5, "--top-k", 40, "--seed", 7],
        ["--repetition-penalty", 1.3], ["--activations", "f32"], ["--threads", 2]]
# A row of the head spoils one logit out of hundreds; the others spoil all, through another road each.
DAMAGES = [("head", 200, NAN), ("head", 200, INFINITY), ("blk.1.attn_q.weight", 3, NAN), ("blk.1.attn_v.weight", 3, NAN),
           ("blk.0.ffn_down.weight", 0, INFINITY), ("blk.1.ffn_norm.weight", 0, NAN), ("output_norm.weight", 0, NAN)]


class DamagedWeights(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        before = os.environ.get("CHAINPUMP_WEIGHT_CACHE")
        os.environ["CHAINPUMP_WEIGHT_CACHE"] = "off"
        self.addCleanup(lambda: os.environ.pop("CHAINPUMP_WEIGHT_CACHE") if before is None
                        else os.environ.__setitem__("CHAINPUMP_WEIGHT_CACHE", before))

    def make(self, *names):
        maker = pathlib.Path(__file__).parent.parent / "oracle" / "tiny_models.py"
        subprocess.run([sys.executable, maker, self.folder, *names], check=True, capture_output=True)

    def damaged(self, name, tensor_name, row, value):
        """A copy of a model in which the first number of a tensor's row is `value`."""
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(self.folder / f"{name}.gguf").tensors}
        if tensor_name == "head":
            tensor_name = "output.weight" if "output.weight" in tensors else "token_embd.weight"
        tensor = tensors[tensor_name]
        row_bytes = tensor.n_bytes // (int(np.prod(tensor.shape[1:])) if len(tensor.shape) > 1 else 1)
        path = self.folder / "damaged.gguf"
        shutil.copy(self.folder / f"{name}.gguf", path)
        with open(path, "r+b") as file:
            file.seek(int(tensor.data_offset) + row * int(row_bytes))
            file.write(SCALES.get(tensor.tensor_type, np.float16)(value).tobytes())
        return path

    def refused(self, path, verb, *flags, text="", position, words=()):
        done = program.call([verb, "demo", "--model", path, *flags], text)
        error = done.stderr.decode(errors="replace")
        self.assertEqual(done.returncode, 5, f"{flags}\n{done.stdout}\n{error}")
        for word in ("the model's numbers are not finite", f"position {position})", str(path), *words):
            self.assertIn(word, error)
        return done.stdout

    def test_every_way_of_asking(self):
        self.make("f32_4x4", "q4_0", "q4_1_9x3")
        line = json.dumps({"prompt_ids": [5, 6], "target_ids": [7, 8]}) + "\n"
        for name in ("f32_4x4", "q4_0", "q4_1_9x3"):
            for at, (tensor, row, value) in enumerate(DAMAGES):
                path = self.damaged(name, tensor, row, value)
                with self.subTest(model=name, tensor=tensor, value=value):
                    where = ["--stages", 1 + at % 3] + ["--in-process"] * (at != 1)
                    way = WAYS[at % len(WAYS)]
                    run = ["--prompt-ids", "5,6,7", "-n", 8, "-o", "json", *where]
                    for flags in ([], way):
                        self.assertEqual(self.refused(path, "run", *run, *flags, position=2), b"")
                    exact = ["--activations", "f32"] if at % 2 else []
                    self.refused(path, "score", *where, *exact, text=line, position=1, words=["line 1: "])
                    self.refused(path, "score", *where, "--full", self.folder / "full.npy", text=line, position=1)

    def test_numbers_too_large_to_be_normed(self):
        self.make("f32_4x4")
        path = self.damaged("f32_4x4", "token_embd.weight", 6, 1e20)  # finite, and so would the logits be
        for flags in ([], ["--activations", "f32"]):
            self.refused(path, "run", "--in-process", "--stages", 2, "--prompt-ids", "5,6", *flags, position=1)

    def test_others_go_on(self):
        self.make("f32_4x4")
        asked = [([5, 6], [7, 8]), ([5, 77], [8, 9]), ([9], [77, 10, 11])]
        whole = program.score(asked, "--model", self.folder / "f32_4x4.gguf", "--in-process", "--stages", 2)
        path = self.damaged("f32_4x4", "token_embd.weight", 77, NAN)
        text = "".join(json.dumps({"prompt_ids": p, "target_ids": t}) + "\n" for p, t in asked)
        out = self.refused(path, "score", "--in-process", "--stages", 2, text=text, position=1, words=["line 2: "])
        self.assertEqual([json.loads(line) for line in out.splitlines()], whole[:1])
        # Where it begins in the middle: the score of the token before is still one.
        text = text.splitlines(keepends=True)[2]
        self.refused(path, "score", "--in-process", "--stages", 2, text=text, position=1, words=["line 1: "])


if __name__ == "__main__":
    unittest.main()
