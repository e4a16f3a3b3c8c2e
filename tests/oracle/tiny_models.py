"""Makes tiny seeded llama models as GGUF files: every weight type, head layout and RoPE scaling that
the program claims to run, in a second and a few megabytes. The same seed gives the same bytes.

  tiny_models.py FOLDER [NAME ...]
"""
import dataclasses
import math
import pathlib
import sys
import zlib

import gguf
import numpy as np

Type = gguf.GGMLQuantizationType
CONTEXT = 512


@dataclasses.dataclass(frozen=True)
class Tiny:
    hidden: int
    heads: tuple  # query heads, KV heads
    head_dim: int
    feed_forward: int
    weights: Type  # of attention and feed-forward; norms are F32
    embedding: Type
    tied: bool = False
    rope: str = "none"
    rotary: int = 0  # 0: all of head_dim
    layers: int = 3
    down: Type = None  # of ffn_down, where it differs


MODELS = {
    "f32_4x4": Tiny(128, (4, 4), 32, 192, Type.F32, Type.F32),
    "f32_part_rotary": Tiny(96, (3, 1), 32, 160, Type.F32, Type.F32, tied=True, rotary=16),
    "f16_8x2_linear": Tiny(96, (8, 2), 32, 224, Type.F16, Type.F16, tied=True, rope="linear"),
    "bf16_9x3_llama3": Tiny(288, (9, 3), 32, 320, Type.BF16, Type.BF16, rope="llama3"),
    "q8_0_hd80_yarn": Tiny(160, (4, 2), 80, 352, Type.Q8_0, Type.Q8_0, tied=True, rope="yarn"),
    "q4_0": Tiny(192, (3, 1), 64, 256, Type.Q4_0, Type.Q8_0),
    "q4_1_9x3": Tiny(288, (9, 3), 32, 416, Type.Q4_1, Type.Q8_0, tied=True),
    "q5_0": Tiny(128, (2, 2), 64, 288, Type.Q5_0, Type.Q5_0, rope="llama3"),
    "q5_1_8x2": Tiny(256, (8, 2), 32, 512, Type.Q5_1, Type.Q5_1, tied=True, layers=5),
    "q4_k_yarn": Tiny(256, (4, 2), 64, 512, Type.Q4_K, Type.Q6_K, rope="yarn", down=Type.Q6_K),
    "q5_k": Tiny(512, (8, 2), 64, 768, Type.Q5_K, Type.Q5_K, tied=True, down=Type.Q6_K, layers=2),
    "q6_k_linear": Tiny(256, (8, 8), 32, 256, Type.Q6_K, Type.Q6_K, rope="linear", down=Type.Q4_K),
}

# Merges of the tiny vocabulary; each makes one token of two earlier ones.
MERGES = ("t h|h e|th e|i n|a n|an d|e r|o n|r e|e n|o f|t o|Ġ t|Ġt he|Ġ a|Ġ w|Ġ s|Ġ o|Ġo f|in g|Ġ c|a t|o r|e s|i s|Ġ i|"
          "Ġi n|Ġ b|Ġa nd|e d|Ġ p|a r|o u|l l|Ġt o|s t|i c|a l|i t|Ġ d|Ġ m|l e|a s|i on|Ġ f|Ġt h|o m|v e|Ġb e|1 0|0 0|"
          "= =|( )|: :|\" ,|Ã ¼|Ã ©|d e|u n|c h|s e|n d|Ġ Ġ|ĠĠ ĠĠ").split("|")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_alphabet():
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]


def vocabulary():
    tokens = SPECIAL + byte_alphabet()
    for merge in MERGES:
        tokens.append(merge.replace(" ", ""))
    assert len(set(tokens)) == len(tokens), "a merge makes a token that exists"
    return tokens


def packed(rng, shape, kind):
    """Random weights [rows, columns] of standard deviation about 1 / sqrt(columns), in `kind`'s blocks."""
    rows, columns = shape
    scale = 1.0 / math.sqrt(columns)
    if kind not in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return gguf.quants.quantize(rng.normal(0.0, scale, shape).astype(np.float32), kind)
    # The package cannot write these: random quants and sub-scales, under scales that make sense.
    blocks = rows * columns // 256

    def raw(size):
        return rng.integers(0, 256, (blocks, size), dtype=np.uint8)

    def half(middle):
        return (middle * rng.uniform(0.7, 1.3, (blocks, 1))).astype(np.float16).view(np.uint8)
    if kind == Type.Q6_K:  # low bits, high bits, 16 int8 sub-scales, scale
        parts = [raw(128), raw(64), raw(16), half(scale / 1360)]
    else:  # scale, scale of minima, 12 bytes of 6-bit sub-scales, [fifth bits,] low bits
        middle, fifth = (7.5, []) if kind == Type.Q4_K else (15.5, [raw(32)])
        step = scale / (36 * middle)
        parts = [half(step), half(step * middle), raw(12), *fifth, raw(128)]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def llama3_factors(pairs, base=10000.0, factor=8.0, low=1.0, high=4.0, original=64):
    """The divisor of each frequency, as converters store it in rope_freqs.weight (llama 3.1)."""
    divisors = []
    for pair in range(pairs):
        wave = 2 * math.pi * base ** (pair / pairs)
        smooth = (original / wave - low) / (high - low)
        divisors.append(1.0 if wave < original / high else factor if wave > original / low
                        else 1.0 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def write(path, name, tiny):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    writer = gguf.GGUFWriter(path, "llama")
    tokens = vocabulary()
    write_keys(writer, name, tiny, tokens)
    q_size, kv_size = (heads * tiny.head_dim for heads in tiny.heads)

    def add(tensor, rows, columns, kind):
        writer.add_tensor(tensor, packed(rng, (rows, columns), kind), raw_dtype=kind)

    def add_norm(tensor):
        writer.add_tensor(tensor, rng.uniform(0.5, 1.5, tiny.hidden).astype(np.float32))
    add("token_embd.weight", len(tokens), tiny.hidden, tiny.embedding)
    for layer in range(tiny.layers):
        block = f"blk.{layer}."
        add_norm(block + "attn_norm.weight")
        add(block + "attn_q.weight", q_size, tiny.hidden, tiny.weights)
        add(block + "attn_k.weight", kv_size, tiny.hidden, tiny.weights)
        add(block + "attn_v.weight", kv_size, tiny.hidden, tiny.weights)
        add(block + "attn_output.weight", tiny.hidden, q_size, tiny.weights)
        add_norm(block + "ffn_norm.weight")
        add(block + "ffn_gate.weight", tiny.feed_forward, tiny.hidden, tiny.weights)
        add(block + "ffn_up.weight", tiny.feed_forward, tiny.hidden, tiny.weights)
        add(block + "ffn_down.weight", tiny.hidden, tiny.feed_forward, tiny.down or tiny.weights)
    add_norm("output_norm.weight")
    if not tiny.tied:
        add("output.weight", len(tokens), tiny.hidden, tiny.embedding)
    if tiny.rope == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors((tiny.rotary or tiny.head_dim) // 2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_keys(writer, name, tiny, tokens):
    writer.add_name("tiny " + name)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(tiny.hidden)
    writer.add_block_count(tiny.layers)
    writer.add_feed_forward_length(tiny.feed_forward)
    writer.add_head_count(tiny.heads[0])
    writer.add_head_count_kv(tiny.heads[1])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(tiny.rotary or tiny.head_dim)
    writer.add_key_length(tiny.head_dim)
    writer.add_value_length(tiny.head_dim)
    writer.add_vocab_size(len(tokens))
    if tiny.rope in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(tiny.rope))
        writer.add_rope_scaling_factor(4.0)
    if tiny.rope == "yarn":
        writer.add_rope_scaling_orig_ctx_len(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) +
                           [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or MODELS:
        write(folder / f"{name}.gguf", name, MODELS[name])
        print(folder / f"{name}.gguf")


if __name__ == "__main__":
    main()
