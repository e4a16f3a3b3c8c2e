"""`chainpump quantize`: its formulas against the reference ones, which tensor takes which type, and the
command contract (what is refused, what is left behind).

The `gguf` package holds the reference of every type but the K types, which leave their scales to the
encoder; those are held to what their blocks can do at all.
"""
import dataclasses
import hashlib
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import gguf
import numpy as np

import program

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "oracle"))
import tiny_models  # noqa: E402

Type = gguf.GGMLQuantizationType
EXACT = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
FILE_TYPES = dict(F32=0, F16=1, BF16=32, Q8_0=7, Q4_0=2, Q4_1=3, Q5_0=8, Q5_1=9, Q4_K=14, Q5_K=16, Q6_K=18, Q4_K_M=15)
SHAPE = tiny_models.Tiny(512, (8, 2), 64, 768, Type.F32, Type.F32, layers=16)


def hard_rows(rng, rows, columns):
    """Weights of many kinds, a kind to a row: what encoders stumble over."""
    x = rng.normal(0, 0.05, (rows, columns))
    kinds = [lambda n: np.zeros(n), lambda n: np.full(n, -0.25), lambda n: np.full(n, 3.0),
             lambda n: rng.normal(0, 1e-7, n), lambda n: rng.normal(0, 1e-41, n), lambda n: rng.normal(0, 1e3, n),
             lambda n: rng.uniform(0.5, 1, n), lambda n: -rng.uniform(0.5, 1, n), lambda n: rng.standard_t(2, n),
             lambda n: np.where(rng.random(n) < 0.01, rng.normal(0, 1, n), 0), lambda n: rng.integers(-8, 8, n) / 16,
             lambda n: rng.integers(-127, 128, n) / 254]
    for row, kind in zip(range(0, rows, 2), kinds * 3):
        x[row] = kind(columns)
    return x.astype(np.float32)


def write_hard(path):
    """A tiny float32 model, the matrices of whose first layer are hard."""
    tiny_models.write(path, "hard", dataclasses.replace(SHAPE, layers=3))
    rng = np.random.default_rng(4)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if tensor.name.startswith("blk.0.") and len(tensor.shape) == 2:
            tensor.data[:] = hard_rows(rng, *tensor.data.shape)


def quantized(source, folder, name, *flags):
    path = pathlib.Path(folder) / f"{name}.gguf"
    text = program.succeed(["quantize", source, path, "--type", name, *flags]).decode()
    return gguf.GGUFReader(path), text


def tensors(reader):
    return {tensor.name: tensor for tensor in reader.tensors}


class Formulas(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.source = cls.folder / "source.gguf"
        write_hard(cls.source)
        cls.before = {tensor.name: tensor.data for tensor in gguf.GGUFReader(cls.source).tensors}

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_equal_the_reference(self):
        for name in EXACT:
            compared = 0
            for tensor in quantized(self.source, self.folder, name)[0].tensors:
                if tensor.tensor_type == Type[name] and len(tensor.shape) == 2:
                    with np.errstate(all="ignore"):
                        wanted = gguf.quants.quantize(self.before[tensor.name], Type[name])
                    # Steps below 1e-38 have no inverse: what the reference makes of them is chance.
                    sound = np.abs(self.before[tensor.name]).max(axis=1, initial=0) > 1e-30
                    sound |= (self.before[tensor.name] == 0).all(axis=1)
                    same = (tensor.data[sound].view(np.uint8) == wanted[sound].view(np.uint8)).all()
                    self.assertTrue(same, f"{name} {tensor.name}")
                    compared += 1
            self.assertGreater(compared, 20, name)

    def test_k_types_are_near(self):
        """Within half a step everywhere, were the scales real numbers; here they are 6 (8) bits of the largest's."""
        for name, sub, levels in (("Q4_K", 32, 15), ("Q5_K", 32, 31), ("Q6_K", 16, 63)):
            for tensor in quantized(self.source, self.folder, name)[0].tensors:
                if tensor.tensor_type != Type[name]:
                    continue
                x = self.before[tensor.name].astype(np.float64).reshape(-1, 256 // sub, sub)
                got = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(x.shape)
                if name == "Q6_K":
                    step = 2 * np.abs(x).max(-1) / levels
                    coarse = step.max(-1, keepdims=True) / 127
                else:
                    low = np.minimum(x.min(-1), 0)
                    step = (x.max(-1) - low) / levels
                    coarse = step.max(-1, keepdims=True) / 63 + -low.min(-1, keepdims=True) / 63 / levels
                # An f16 scale is off by 2^-11 of itself, or by 2^-25 where it is tiny.
                tiny = 2.0**-24 * (127 if name == "Q6_K" else 63) * levels
                bound = ((step + coarse) / 2) * (1 + 2.0**-9) + np.abs(x).max(-1) * 2.0**-10 + tiny
                rms = np.sqrt(np.mean((got - x) ** 2, -1))
                self.assertTrue((rms <= bound).all(), f"{name} {tensor.name}: {(rms / bound).max()}")

    def test_threads_change_nothing(self):
        digests = set()
        for threads in (1, 2, 5):
            quantized(self.source, self.folder, "Q4_K_M", "--threads", threads, "--force")
            digests.add(hashlib.sha256((self.folder / "Q4_K_M.gguf").read_bytes()).hexdigest())
        self.assertEqual(len(digests), 1)

    def test_keys_are_kept(self):
        reader, _ = quantized(self.source, self.folder, "Q5_K", "--force")
        before = gguf.GGUFReader(self.source).fields
        changed = {"general.file_type", "general.quantization_version", "GGUF.kv_count"}
        for key in before.keys() - changed:
            self.assertEqual(reader.fields[key].contents(), before[key].contents(), key)
        self.assertEqual(reader.fields.keys() - before.keys(), changed - {"GGUF.kv_count"})
        for name, number in FILE_TYPES.items():
            fields = quantized(self.source, self.folder, name, "--force")[0].fields
            self.assertEqual(fields["general.file_type"].contents(), number, name)
        self.assertEqual(reader.fields["general.quantization_version"].contents(), 2)


class Choices(unittest.TestCase):
    def types(self, source, folder, name):
        reader, text = quantized(source, folder, name)
        return {key: tensor.tensor_type.name for key, tensor in tensors(reader).items()}, text

    def test_whole_rows(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "source.gguf"
            tiny_models.write(source, "whole", SHAPE)
            types, text = self.types(source, folder, "Q4_K_M")
            sensitive = {0, 1, 4, 7, 10, 13, 14, 15}  # the first and last eighth, each third between
            for layer in range(SHAPE.layers):
                for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
                    self.assertEqual(types[f"blk.{layer}.{part}.weight"], "Q4_K")
                for part in ("attn_v", "ffn_down"):
                    self.assertEqual(types[f"blk.{layer}.{part}.weight"], "Q6_K" if layer in sensitive else "Q4_K", layer)
                self.assertEqual(types[f"blk.{layer}.attn_norm.weight"], "F32")
            self.assertEqual((types["output.weight"], types["token_embd.weight"]), ("Q6_K", "Q4_K"))
            self.assertNotIn("do not fill", text)
            self.assertNotIn("quantised already", text)
            for name, output in (("Q8_0", "Q8_0"), ("Q4_0", "Q6_K"), ("Q5_K", "Q6_K"), ("BF16", "BF16"), ("F32", "F32")):
                types, _ = self.types(source, folder, name)
                self.assertEqual((types["output.weight"], types["token_embd.weight"]), (output, name))

    def test_rows_that_do_not_fit(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "source.gguf"
            shape = tiny_models.Tiny(288, (9, 3), 32, 416, Type.F16, Type.F16, tied=True)
            tiny_models.write(source, "odd", shape)
            for name, q, v in (("Q4_K", "Q5_0", "Q5_0"), ("Q5_K", "Q5_1", "Q5_1"), ("Q6_K", "Q8_0", "Q8_0"), ("Q4_0", "Q4_0", "Q4_0")):
                types, text = self.types(source, folder, name)
                self.assertEqual((types["blk.0.attn_q.weight"], types["blk.1.attn_v.weight"]), (q, v))
                self.assertEqual(types["token_embd.weight"], "Q8_0")
                # Under Q4_0 that is the embedding's, which Q6_K does not fit.
                said = "q8_0 in place of q6_k for " if name == "Q4_0" else f"{q} in place of {name} for ".lower()
                self.assertIn(said, text)
                self.assertIn("rows of 288 do not fill blocks of 256", text)
            source.unlink()
            tiny_models.write(source, "narrow", tiny_models.Tiny(48, (3, 1), 16, 80, Type.F32, Type.F32))
            types, text = self.types(source, folder, "Q8_0")  # the rows of 48 of attn_output: not even blocks of 32
            self.assertEqual(types["blk.0.attn_output.weight"], "F16")
            self.assertIn("f16 in place of q8_0 for ", text)

    def test_same_type_is_copied(self):
        with tempfile.TemporaryDirectory() as folder:
            reader, text = quantized(program.model(), folder, "Q4_1")
            before = tensors(gguf.GGUFReader(program.model()))
            for name, tensor in tensors(reader).items():
                self.assertTrue((tensor.data == before[name].data).all(), name)
            self.assertNotIn("quantised already", text)


class Contract(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.source = self.folder / "in.gguf"
        self.out = self.folder / "out.gguf"
        tiny_models.write(self.source, "q4_0", tiny_models.MODELS["q4_0"])

    def refused(self, status, words, *arguments, left=("in.gguf",)):
        done = program.call(["quantize", *arguments])
        error = done.stderr.decode(errors="replace")
        self.assertEqual((done.returncode, done.stdout), (status, b""), f"{arguments}\n{error}")
        self.assertTrue(error.startswith("chainpump: "), error)
        for word in words:
            self.assertIn(word, error)
        self.assertEqual(sorted(file.name for file in self.folder.iterdir()), sorted(left))

    def test_command_line(self):
        self.refused(2, ["Q3_K", "Q4_K_M"], self.source, self.out, "--type", "Q3_K")
        self.refused(2, ["--type"], self.source, self.out)
        program.succeed(["quantize", self.source, self.out, "--type", "q8_0"])  # any case

    def test_output_that_exists(self):
        self.out.write_text("mine")
        both = ("in.gguf", "out.gguf")
        self.refused(2, ["exists"], self.source, self.out, "--type", "Q8_0", left=both)
        self.assertEqual(self.out.read_text(), "mine")
        program.succeed(["quantize", self.source, self.out, "--type", "Q8_0", "--force"])
        self.assertEqual(self.out.read_bytes()[:4], b"GGUF")
        self.refused(2, ["regular"], self.source, self.folder, "--type", "Q8_0", "--force", left=both)
        self.refused(3, ["nowhere"], self.source, self.folder / "nowhere" / "x", "--type", "Q8_0", left=both)

    def test_output_that_is_the_input(self):
        bytes_before = self.source.read_bytes()
        link = self.folder / "link.gguf"
        link.symlink_to(self.source)
        self.refused(2, ["is the input"], self.source, link, "--type", "Q8_0", "--force", left=("in.gguf", "link.gguf"))
        link.unlink()
        self.refused(2, ["is the input"], self.source, self.source, "--type", "Q8_0", "--force")
        renamed = self.source.rename(self.folder / "in.partial")
        self.refused(2, ["is the input"], renamed, self.folder / "in", "--type", "Q8_0", left=("in.partial",))
        self.assertEqual(renamed.read_bytes(), bytes_before)

    def test_bad_inputs(self):
        self.refused(3, ["none.gguf"], self.folder / "none.gguf", self.out, "--type", "Q8_0")
        whole = self.source.read_bytes()
        self.source.write_bytes(whole[:len(whole) // 2])
        self.refused(3, ["in.gguf"], self.source, self.out, "--type", "Q8_0")
        tiny_models.write(self.source, "f32", tiny_models.Tiny(64, (2, 2), 32, 96, Type.F32, Type.F32))
        for value, name, words in ((np.nan, "Q8_0", "NaN"), (-np.inf, "BF16", "NaN or infinite"), (np.nan, "F32", "NaN"),
                                   (7e4, "F16", "too large for f16"), (1e9, "Q4_0", "too large for q4_0")):
            reader = gguf.GGUFReader(self.source, "r+")
            tensor = tensors(reader)["blk.1.ffn_up.weight"]
            tensor.data[17, 5] = value
            reader.data.flush()
            self.refused(3, ["blk.1.ffn_up.weight", words, f"element {17 * 64 + (5 if name != 'Q4_0' else 0)} "],
                         self.source, self.out, "--type", name)

    def test_full_disk(self):
        """A limit on the file's size stands for the disk's."""
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        done = subprocess.run([program.program(), "quantize", self.source, self.out, "--type", "F32"], capture_output=True,
                              preexec_fn=limit, timeout=program.TIMEOUT_S)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn(b"out.gguf", done.stderr)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["in.gguf"])

    def test_signal(self):
        command = [program.program(), "quantize", program.model(), self.out, "--type", "Q4_K", "--threads", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            deadline = time.monotonic() + program.TIMEOUT_S
            partial = self.folder / "out.gguf.partial"
            while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
                time.sleep(0.005)
            refused = program.call(["quantize", self.source, self.out, "--type", "Q8_0"])
            running.send_signal(signal.SIGINT)
            _, error = running.communicate(timeout=program.TIMEOUT_S)
        self.assertEqual(refused.returncode, 5, "two writers of one file")
        self.assertIn(b"another process", refused.stderr)
        self.assertEqual(running.returncode, 130, error)
        self.assertIn(b"cancelled", error)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["in.gguf"])

    def test_left_by_a_killed_run(self):
        (self.folder / "out.gguf.partial").write_bytes(bytes(1 << 24))
        program.succeed(["quantize", self.source, self.out, "--type", "Q8_0"])
        self.assertEqual(sorted(file.name for file in self.folder.iterdir()), ["in.gguf", "out.gguf"])
        self.assertLess(self.out.stat().st_size, 1 << 24)
        gguf.GGUFReader(self.out)

    def test_summary(self):
        text = program.succeed(["quantize", self.source, self.out, "--type", "Q8_0"]).decode()
        rows = {line.split()[0]: line.split() for line in text.splitlines()}
        before = gguf.GGUFReader(self.source).tensors
        after = gguf.GGUFReader(self.out).tensors
        self.assertEqual([int(x) for x in rows["all"][1:4]],
                         [len(before), sum(t.n_bytes for t in before), sum(t.n_bytes for t in after)])
        self.assertEqual(int(rows["q8_0"][3]), sum(t.n_bytes for t in after if t.tensor_type == Type.Q8_0))
        self.assertEqual([int(x) for x in rows["file"][1:3]], [self.source.stat().st_size, self.out.stat().st_size])


if __name__ == "__main__":
    unittest.main()
