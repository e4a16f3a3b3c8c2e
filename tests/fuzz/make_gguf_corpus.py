"""Writes the committed corpus of the GGUF harness: small files, one idea each, named by it.

Usage: make_gguf_corpus.py [FOLDER]; the folder defaults to corpus/gguf beside this file. The same
bytes every time: run it again after a change here and commit what differs.
"""

import pathlib
import struct
import sys

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
FORMATS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q"}
HUGE = 1 << 60


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(kind, item):
    return string(item) if kind == STRING else struct.pack(FORMATS[kind], item)


def key(name, kind, item):
    return string(name) + struct.pack("<I", kind) + value(kind, item)


def array(name, kind, items, count=None):
    head = struct.pack("<IIQ", ARRAY, kind, len(items) if count is None else count)
    return string(name) + head + b"".join(value(kind, item) for item in items)


def tensor(name, dims, kind, offset):
    return (string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
            + struct.pack("<IQ", kind, offset))


def head(num_tensors, num_keys, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, num_tensors, num_keys)


def file(keys=(), tensors=(), data=b"", version=3, alignment=32):
    header = head(len(tensors), len(keys), version) + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % alignment) + data if tensors else header


def byte_pair(pre):
    tokens = ["a", "b", "ab", "\u0120", "\u0120ab", "<|im_end|>", "<tool>", "1", "2", "\u0120a", "\u00c3", "\u00a9"]
    return file([
        key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, pre),
        array("tokenizer.ggml.tokens", STRING, tokens),
        array("tokenizer.ggml.token_type", I32, [1, 1, 1, 1, 1, 3, 4, 1, 1, 1, 1, 1]),
        array("tokenizer.ggml.merges", STRING, ["a b", "\u0120 ab", "\u0120 a"]),
        key("tokenizer.ggml.eos_token_id", U32, 5)])


def sentence_piece(prefix):
    tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\u2581", "a", "b", "ab", "\u2581ab", "\u2581\u2581"]
    return file([
        key("tokenizer.ggml.model", STRING, "llama"), array("tokenizer.ggml.tokens", STRING, tokens),
        array("tokenizer.ggml.token_type", I32, [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 4]),
        array("tokenizer.ggml.scores", F32, [0, 0, 0, 0, 0, -3, -4, -5, -1, -2, 0]),
        key("tokenizer.ggml.add_space_prefix", BOOL, prefix)])


def well_formed():
    kinds = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22),
             "q5_1": (7, 32, 24), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176),
             "q6_k": (14, 256, 210), "bf16": (30, 1, 2)}
    for name, (number, block, size) in kinds.items():
        yield f"type_{name}", file(tensors=[tensor("w", [block, 2], number, 0)], data=bytes(2 * size))
    yield "empty_v2", file(version=2)
    yield "empty_v3", file()
    yield "scalars", file([key("a", U8, 1), key("b", U32, 2), key("c", I32, -3), key("d", F32, 0.5), key("e", BOOL, 1),
                           key("f", STRING, "text"), key("g", U64, 1 << 63)])
    yield "alignment_64", file([key("general.alignment", U32, 64)],
                               [tensor("a", [4], 0, 0), tensor("b", [4], 0, 64)], bytes(80), alignment=64)
    for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
        yield f"bpe_{pre}", byte_pair(pre)
    yield "sentence_piece_prefix", sentence_piece(True)
    yield "sentence_piece_bare", sentence_piece(False)


def lying():
    pad = bytes(128)
    one = [tensor("w", [4], 0, 0)]
    yield "zero_bytes_of_header", b"GGUF"
    yield "big_endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "version_1", head(0, 0, 1)
    yield "huge_tensor_count", head(HUGE, 0) + pad
    yield "huge_key_count", head(0, HUGE) + pad
    yield "huge_string", head(0, 1) + string("k") + struct.pack("<IQ", STRING, HUGE) + pad
    yield "huge_array", head(0, 1) + array("k", U64, [1], HUGE + 1) + pad
    yield "huge_string_array", head(0, 1) + array("k", STRING, ["a"], 12) + pad
    yield "nested_array", head(0, 1) + string("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + pad
    yield "duplicate_key", file([key("k", U8, 1), key("k", U8, 1)])
    yield "alignment_zero", file([key("general.alignment", U32, 0)], one, pad)
    yield "dims_overflow", file(tensors=[tensor("w", [1 << 40, 1 << 40], 0, 0)], data=pad)
    yield "zero_dim", file(tensors=[tensor("w", [4, 0], 0, 0)], data=pad)
    yield "many_dims", file(tensors=[tensor("w", [1] * 5, 0, 0)], data=pad)
    yield "unknown_type", file(tensors=[tensor("w", [256], 16, 0)], data=pad)
    yield "offset_wraps", file(tensors=[tensor("w", [8], 0, (1 << 64) - 32)], data=pad)
    yield "misaligned", file(tensors=[tensor("w", [4], 0, 4)], data=pad)
    yield "overlap", file(tensors=[tensor("u", [16], 0, 0), tensor("v", [4], 0, 32)], data=pad)
    yield "duplicate_tensor", file(tensors=one + [tensor("w", [4], 0, 32)], data=pad)
    yield "truncated_data", file(tensors=one, data=bytes(15))
    yield "bad_merge", byte_pair("gpt-2").replace(b"a b", b"b b", 1)
    yield "bad_token_type", sentence_piece(True).replace(struct.pack("<I", 6), struct.pack("<I", 9), 1)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus" / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in [*well_formed(), *lying()]:
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
