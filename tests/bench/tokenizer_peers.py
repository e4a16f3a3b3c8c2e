"""The peers of the tokenizer's figures, on one thread: prints one JSON object, the median MB/s of
encoding each text. Usage: tokenizer_peers.py tiktoken|tokenizers MODEL.gguf ROUNDS TEXT_FILE..."""
import json
import os
import pathlib
import statistics
import sys
import time

import gguf

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Each digit alone, and what lies between as if it were all the text.
SMOLLM = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERNS = {"gpt-2": GPT2, "smollm": SMOLLM, "llama-bpe": LLAMA.replace("DIGITS", "{1,3}"), "qwen2": LLAMA.replace("DIGITS", "")}


def read_vocabulary(path):
    fields = gguf.GGUFReader(path).fields
    return {key: fields["tokenizer.ggml." + key].contents() for key in ("pre", "tokens", "merges", "token_type")}


def byte_of_character():
    """GPT-2's alphabet, from character to byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def tiktoken_encoder(vocabulary):
    """The merges as ranks: first the single bytes, then what each merge makes, in order."""
    import tiktoken
    alphabet = byte_of_character()
    ranks = {bytes([byte]): byte for byte in range(256)}
    for merge in vocabulary["merges"]:
        ranks.setdefault(bytes(alphabet[c] for c in merge.replace(" ", "")), len(ranks))
    encoding = tiktoken.Encoding("model", pat_str=PATTERNS[vocabulary["pre"]], mergeable_ranks=ranks, special_tokens={})
    return encoding.encode_ordinary


def hf_encoder(vocabulary):
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    ids = {text: i for i, text in enumerate(vocabulary["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in vocabulary["merges"]]
    pre = vocabulary["pre"]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=pre == "llama-bpe"))
    if pre in ("gpt-2", "smollm"):
        steps = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    else:
        steps = [pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def main():
    name, model, rounds, paths = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
    vocabulary = read_vocabulary(model)
    encode = (tiktoken_encoder if name == "tiktoken" else hf_encoder)(vocabulary)
    rates, counts = [], []
    for path in paths:
        text = pathlib.Path(path).read_bytes().decode()
        seconds = []
        encode(text[:1 << 16])  # compiles its expressions, fills its cache
        for _ in range(rounds):
            start = time.perf_counter()
            ids = encode(text)
            seconds.append(time.perf_counter() - start)
        rates.append(os.path.getsize(path) / 1e6 / statistics.median(seconds))
        counts.append(len(ids))
    print(json.dumps({"encode": rates, "tokens": counts}))


if __name__ == "__main__":
    main()
