"""Compares our tokenizer with its oracles, id by id, over 10,000 seeded strings.

Byte-level BPE: the vocabulary and merges of the packaged model under each pre-tokenizer that we
know, against the `tokenizers` library with the model families' own regular expressions.
SentencePiece: a small model trained here, against the `sentencepiece` library.
Usage: tokenizer_oracle.py PATH_OF_tokenize_lines; the model comes from CHAINPUMP_TEST_MODEL.
"""

import io
import json
import os
import random
import subprocess
import sys
import tempfile

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SEED = 20261122
STRINGS = 10_000

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_BPE = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}|{REST}"

# Scripts and symbols, as ranges of code points.
RANGES = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x4FF), (0x531, 0x586), (0x5D0, 0x5EA), (0x591, 0x5C7), (0x620, 0x6D3), (0x660, 0x669),
    (0x905, 0x97F), (0x985, 0x9B9), (0xB85, 0xBCD), (0xE01, 0xE5B), (0x10D0, 0x10FA),
    (0x1100, 0x11F9), (0x1200, 0x137C), (0x13A0, 0x13F5), (0x1780, 0x17E9), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FBC), (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20BF), (0x2100, 0x218B),
    (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x25FF), (0x2600, 0x27BF), (0x3000, 0x303F),
    (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0xE000, 0xE0FF),
    (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFE00, 0xFE2F), (0xFF01, 0xFFEE), (0x10000, 0x100FA),
    (0x10330, 0x1034A), (0x12000, 0x12399), (0x1D100, 0x1D1DD), (0x1D400, 0x1D7FF),
    (0x1F000, 0x1F02B), (0x1F100, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6D7),
    (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF),
]
FIXED = [
    "don't", "I'LL", "we'Ve", "'\u017f", "it's", "'S", "''s", "'", " 's", "'re'd'x", "\u2019s",
    "\r\n", "\n", "\n\n", "\r", "\t", "  ", "   ", " \n ", "\n  ", " \r\n\t ", "\u00a0", "\u3000",
    "\u2028", "\u0085", "\u200b", "\ufeff", "\x00", "\x01", "\x07", "\x1b[0m", "\x1c", "\x1f", "\x7f",
    "0", "7", "12", "123", "1234", "12345678", "3.14159", "1,000,000", "\u0663\u0664\u0665", "\u2167",
    "\u00bd", "x\u00b2", "\u3007", "1\u0301",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea",
    "\u2764\ufe0f", "e\u0301", "a\u0323\u0302", "a\u0302\u0323", "\u1100\u1161\u11a8", "\u212b",
    "\u0958", "q\u0307\u0323", "\u2126", "\ufb01",
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\t\ta[i] += b[i];\n}\n",
    "<div class=\"a\">", "https://example.org/a?b=c&d=%20", "SELECT * FROM t WHERE a != 'b';",
    "#include <vector>", "{\"k\": [1, 2.5e-3, null]}", "The quick brown fox", " jumps over",
    "Donaudampfschifffahrt", "\u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451", "na\u00efve caf\u00e9",
    "\u4f60\u597d\uff0c\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155\ud558\uc138\uc694",
    "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u2581", "\u0120", "<0x41>", "[PAD]",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "<unk>", "<s>", "</s>", "<tool>", "<jupyter_code>",
]


def random_char(rng):
    while True:
        begin, end = rng.choice(RANGES) if rng.random() < 0.95 else (0, 0x10FFFF)
        point = rng.randint(begin, end)
        if not 0xD800 <= point <= 0xDFFF:
            return chr(point)


def random_piece(rng):
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(FIXED)
    if kind < 0.60:  # one script
        begin, end = rng.choice(RANGES)
        return "".join(chr(rng.randint(begin, end)) for _ in range(rng.randint(1, 12)))
    if kind < 0.70:
        return "".join(rng.choice(" \t\r\n\u00a0\u3000") for _ in range(rng.randint(1, 8)))
    if kind < 0.78:
        return rng.choice(" ,.!?-_/\\'\"()[]<>|=+*a1\x00") * rng.randint(1, 120)
    if kind < 0.88:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz  ABC019'_.") for _ in range(rng.randint(1, 80)))
    return "".join(random_char(rng) for _ in range(rng.randint(1, 10)))


def make_strings():
    rng = random.Random(SEED)
    strings = ["", " ", "\n"] + FIXED
    while len(strings) < STRINGS:
        strings.append("".join(random_piece(rng) for _ in range(rng.randint(1, 9))))
    return strings


def ours(program, path, strings, parse):
    lines = "".join(json.dumps({"text": text, "parse": parse}) + "\n" for text in strings)
    done = subprocess.run([program, path], input=lines.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"tokenize_lines ended with {done.returncode}: {done.stderr.decode()}")
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    if len(answers) != len(strings):
        sys.exit(f"{len(answers)} answers for {len(strings)} strings")
    return answers


def compare(name, strings, answers, expected, texts):
    """expected: lists of ids; texts: what decoding them gives, or None where that is not compared."""
    wrong = 0
    for text, answer, ids, decoded in zip(strings, answers, expected, texts, strict=True):
        if answer["ids"] == ids and decoded in (None, answer["text"]):
            continue
        wrong += 1
        if wrong <= 5:
            print(f"{name}: {text!r}\n  ours   {answer['ids']} {answer['text']!r}\n  oracle {ids} {decoded!r}")
    total = sum(len(ids) for ids in expected)
    print(f"{name}: {len(strings)} strings, {total} tokens, {wrong} differ", flush=True)
    return wrong


def hf_tokenizer(pre, vocabulary, merges, controls, added):
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe"))
    if pre == "gpt-2":
        split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif pre == "smollm":
        split = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        split = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(LLAMA_BPE if pre == "llama-bpe" else QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.pre_tokenizer = split
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return tokenizer


def write_gguf(path, model, pre, tokens, types, merges=None, scores=None, **keys):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    for key, value in keys.items():
        writer.add_bool("tokenizer.ggml." + key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_byte_level(program, model, folder, strings):
    fields = gguf.GGUFReader(model).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    controls = [text for text, kind in zip(tokens, types, strict=True) if kind == 3]
    added = ["<tool>"]  # one that a user defined: cut out of plain text as well
    tokens, types = tokens + added, types + [4]
    vocabulary = {text: i for i, text in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    wrong = 0
    for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
        path = os.path.join(folder, pre + ".gguf")
        write_gguf(path, "gpt2", pre, tokens, types, merges)
        for parse in (False, True):
            oracle = hf_tokenizer(pre, vocabulary, pairs, controls if parse else [], added)
            encoded = oracle.encode_batch(strings, add_special_tokens=False)
            ids = [encoding.ids for encoding in encoded]
            # Without them as special tokens the oracle would write control tokens out; none are there.
            texts = oracle.decode_batch(ids, skip_special_tokens=True)
            answers = ours(program, path, strings, parse)
            wrong += compare(f"{pre}, control tokens {'parsed' if parse else 'as text'}", strings, answers, ids, texts)
            if not parse and any(types[i] == 3 for answer in answers for i in answer["ids"]):
                sys.exit("plain text became a control token")
    return wrong


def train_sentence_piece(strings, add_dummy_prefix, split_by_whitespace):
    model = io.BytesIO()
    # A small alphabet, so that bytes are needed for the rest.
    known = (set("".join(FIXED)) | {chr(c) for c in range(0x20, 0x7F)}) - set("\x00\r\n\u2028\u0085")
    sample = ["".join(c for c in text if c in known) for text in strings[:4000]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample), model_writer=model, model_type="bpe", vocab_size=2000,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=add_dummy_prefix, split_by_whitespace=split_by_whitespace, character_coverage=1.0, user_defined_symbols=["<tool>", "\u2581\u2581"],
        allow_whitespace_only_pieces=True, split_digits=True, minloglevel=2, num_threads=1, max_sentence_length=100_000)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def check_sentence_piece(program, folder, strings):
    wrong = 0
    for prefix, whitespace in ((True, True), (False, True), (True, False)):
        oracle = train_sentence_piece(strings, prefix, whitespace)
        count = oracle.get_piece_size()
        tokens = [oracle.id_to_piece(i) for i in range(count)]
        types = []
        for i in range(count):
            kind = 2 if oracle.is_unknown(i) else 3 if oracle.is_control(i) else 6 if oracle.is_byte(i) else 1
            types.append(4 if tokens[i] in ("<tool>", "\u2581\u2581") else kind)
        path = os.path.join(folder, f"sentence_piece_{prefix}_{whitespace}.gguf")
        write_gguf(path, "llama", "default", tokens, types, scores=[oracle.get_score(i) for i in range(count)],
                   add_space_prefix=prefix)
        ids = oracle.encode(strings)
        # Its decoder drops the leading space and treats broken bytes in its own way: compare ids only.
        wrong += compare(f"sentence_piece, space prefix {prefix}, split at spaces {whitespace}", strings,
                         ours(program, path, strings, False), ids, [None] * len(strings))
    return wrong


def main():
    program = sys.argv[1]
    model = os.environ.get("CHAINPUMP_TEST_MODEL", "")
    if not os.path.exists(model):
        sys.exit(f"CHAINPUMP_TEST_MODEL={model!r}: no such file; run `make setup`")
    strings = make_strings()
    with tempfile.TemporaryDirectory() as folder:
        wrong = check_byte_level(program, model, folder, strings)
        wrong += check_sentence_piece(program, folder, strings)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
