"""Writes the committed corpora of the harnesses of both RPC schemas and of frames of KV: small messages, one idea each, named by it.

Usage: make_wire_corpus.py [FOLDER]; the folder defaults to corpus beside this file, and needs the `capnp` program
(Debian package capnproto). The same bytes every time: run it again after a change here and commit what differs.
"""

import os
import pathlib
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SCHEMAS = HERE.parent.parent / "schemas"

# The byte that picks a struct, as in the harness; the struct; its fields.
SAMPLING = """(temperature = 0.7, topP = 0.9, minP = 0.1, topK = 40, repetitionPenalty = 1.1, presencePenalty = -0.5,
    frequencyPenalty = 0.5, logitBias = [(token = 3, value = -100), (token = 9, value = 1.5)], maxNewTokens = 32,
    ignoreEos = true, stop = ["end", 0x"00ff"], stopTokenIds = [2, 0], numTopLogprobs = 5)"""
PUBLIC = {
    "generate_text": (0, "GenerateRequest", f'(prompt = (text = "Hello"), sampling = {SAMPLING}, n = 3)'),
    "generate_seed": (0, "GenerateRequest", '(prompt = (ids = [1, 2, 3]), seed = (given = 18446744073709551615))'),
    "generate_deadline": (0, "GenerateRequest", '(prompt = (ids = []), deadlineMs = 18446744073709551615, priority = -1)'),
    "generate_empty": (0, "GenerateRequest", "()"),
    "score": (1, "ScoreRequest", "(prompt = [1, 2], targets = [3, -4], deadlineMs = 1)"),
    "prompt_chat": (2, "Prompt", '(chat = [(role = "user", content = "Hi"), (role = "assistant", content = "Yes?", '
                                 'extraJson = "{\\"name\\": \\"n\\"}")])'),
    "delta": (3, "Delta", '(requestId = 7, choice = 1, firstIndex = 2, tokens = [5, 6], text = "ab", logprobs = '
                          '[(logprob = -0.5, top = [(token = 5, value = -0.5)]), (logprob = -inf)], finish = stop)'),
    "delta_not_a_number": (3, "Delta", "(logprobs = [(logprob = nan)])"),
    "usage": (4, "Outcome", "(usage = (promptTokens = 4, choices = [(tokens = 2, finish = length, toFirstTokenNs = 5, "
                            "firstToLastNs = -1)]))"),
    "error": (4, "Outcome", '(error = "[overloaded] the queue is full; retry after 1.5 s")'),
    "error_without_code": (4, "Outcome", '(error = "[what] is this")'),
    "deployment": (5, "Deployment", '(graphName = "demo", graphText = "model: x", build = "0.1.0+abc", isa = "avx2", '
                                    'vocabularySize = 9, modelPath = "/m.gguf", contextTokens = 4096, kvType = "int8", '
                                    'stages = [(name = "a", layerBegin = 0, layerEnd = 3, threads = 1, replicas = 2), ()], '
                                    'transport = "tcp", spin = "never", lanes = 2)'),
    "deployment_unknown_names": (5, "Deployment", '(kvType = "q9", transport = "pigeon", spin = "often")'),
    "status": (6, "Status", '(phase = ready, message = "m", pid = 3, uptimeNs = 9, tokensPerSecond = 1.5, stages = '
                            '[(stage = 0, cores = [0, 1], busyNs = 4, lanes = [0, 2]), (stage = 1, lane = 4)], links = [(edge = 1, transport = "tcp/lo", '
                            'latencyP99Us = 3.5)], lanes = [(lane = 2, running = 3, waiting = 4, kvBlocks = 9, kvBlocksFree = 1)])'),
    "event": (7, "Event", '(number = 3, unixMs = -1, phase = draining, message = "gone")'),
}
ELSEWHERE = {"RankStats": "stats", "StepEvents": "stats", "GenerateRequest": "requests", "TokenResult": "requests",
             "ScoreResult": "requests", "KvCopy": "move", "MoveProgress": "move"}  # not in control.capnp
CONTROL = {
    "load": (0, "LoadParams", '(plan = (epoch = 3, modelPath = "/m.gguf", contextTokens = 4096, kv = (type = "f16", '
                              'blockTokens = 32, numBlocks = 9), stages = [(index = 0, name = "a", layerEnd = 3, '
                              'hasEmbedding = true, devices = [(kind = "cpu", cores = [0, 1]), ()], '
                              'predictedDecodeS = 0.5)], edges = [(id = 1, to = 1, transport = sharedMemory, spin = never, checksum = off, credits = 4)]), rank = 1, '
                              'isa = "avx2", listenAddress = "127.0.0.1", cacheFolder = "/c")'),
    "load_of_a_node": (0, "LoadParams", '(plan = (nodes = [(name = "b", numCores = 2), ()], model = (bytes = 9, fingerprint = 8, '
                                        'contentLow = 7, contentHigh = 18446744073709551615)), weights = [(name = "a", '
                                        'isCoordinator = true, address = "10.0.0.1:7300"), ()])'),
    "submit": (1, "GenerateRequest", '(requestId = 5, sequenceIndex = 2, prompt = [1, 2], sampling = '
                                     f'{SAMPLING}, score = (firstPosition = 3, fullPath = "/x.npy"), timeoutNs = -1)'),
    "submit_again": (1, "GenerateRequest", '(requestId = 18446744073709551615, sequenceIndex = 3, prompt = [1], generated = '
                                           '[2, 2147483647, -1], readmitted = true)'),
    "link": (2, "LinkTarget", '(edge = 1, address = "::1", port = 65535, secret = 18446744073709551615, incarnation = 2)'),
    "loaded": (3, "LoadReport", '(numericsId = "n", weightBytesRead = -1, listenPort = 80, vocabularySize = 80)'),
    "token": (4, "TokenResult", "(requestId = 9, sequenceIndex = 1, position = 3, token = 4, logprob = -1, topLogprobs = "
                                "[(token = 4, value = -1)], finish = failed, textBytes = 12)"),
    "score": (5, "ScoreResult", "(requestId = 9, position = 3, logprob = nan, argmax = 2)"),
    "stats": (6, "RankStats", '(stage = (lanes = [1, 3], stage = 2, cores = [3], steps = 5, wallNs = 4), links = [(edge = 1, lane = 3, '
                              'outgoing = true, transport = "posix", frames = 3)], '
                              'lanes = [(lane = 3, running = 2, waiting = 1, kvBlocks = 8, kvBlocksFree = 5)])'),
    "events": (7, "StepEvents", "(events = [(microbatch = 3, numTokens = 2, sentNs = -1, lane = 7)], next = 4, lost = 1, nowNs = 9)"),
    "end": (8, "RequestEnd", '(requestId = 3, sequenceIndex = 1, code = overloaded, message = "full")'),
    "end_well": (8, "RequestEnd", "(requestId = 3)"),
    "service": (9, "ServiceSpec", '(plan = (modelPath = "/m.gguf", edges = [(isReturn = true)], '
                                  'stages = [(standbys = 1)], failoverRestarts = 5, failoverWindowNs = -1), isa = "avx2", '
                                  'spinBetweenOps = true, cacheFolder = "/c", store = (address = "etcd://a:1/b", authority = "/ca"))'),
    "holdings": (10, "StageHoldings", "(stage = 2, sequences = [1, 18446744073709551615], heldPositions = [7, -1], blocks = "
                                      "[0, 2147483647], loggedPositions = [16, 1], identities = [0, 7], indexes = [0, 4294967295], "
                                      "tables = [5, -1])"),
    "holdings_of_unequal_lengths": (10, "StageHoldings", "(stage = -1, sequences = [1], blocks = [1, 2])"),
    "copy": (13, "KvCopy", '(epoch = 3, incarnation = 2, secret = 18446744073709551615, layerBegin = -1, layerEnd = 9, '
                           'address = "127.0.0.1", port = 65535)'),
    "moving": (14, "MoveProgress", "(step = copying, bytesDone = -1, bytesTotal = 7)"),
    "lane": (11, "LaneAddress", '(socket = "/s/rank-4.sock", epoch = 4294967295)'),
}


def framed(words):
    """One segment of these words."""
    return struct.pack("<II", 0, len(words)) + b"".join(words)


def struct_pointer(data_words, pointers, offset=0):
    return struct.pack("<IHH", (offset << 2) & 0xFFFFFFFF, data_words, pointers)


def list_pointer(element_size, count, offset=0):
    return struct.pack("<II", offset << 2 | 1, count << 3 | element_size)


def claims_structs(data_words, discriminant, pointers, slot, count):
    """A struct whose pointer `slot` is to a list of `count` structs that take no bytes."""
    data = [struct.pack("<Q", discriminant)] + [bytes(8)] * (data_words - 1)
    empty = [bytes(8)] * slot
    after = [bytes(8)] * (pointers - slot - 1)
    to_list = list_pointer(7, 0, len(after))
    return framed([struct_pointer(data_words, pointers), *data[:data_words], *empty, to_list, *after,
                   struct_pointer(0, 0, count)])


def hostile(whole):
    return {
        "no_segments": (0, struct.pack("<II", 0xFFFFFFFF, 0)),
        "far_too_long": (0, struct.pack("<II", 0, 0x7FFFFFFF)),
        "cut": (0, whole[:len(whole) // 2]),
        "beyond_the_end": (0, framed([struct_pointer(3, 3, 1000)])),
        "itself": (0, framed([struct_pointer(0, 1, -1)])),
    }


def corpora():
    public = {name: (which, encode("chainpump", kind, text)) for name, (which, kind, text) in PUBLIC.items()}
    public |= hostile(public["generate_text"][1])
    public["four_million_messages"] = (2, claims_structs(1, 1, 1, 0, 4_000_000))
    public["four_million_logprobs"] = (3, claims_structs(3, 0, 3, 2, 4_000_000))
    control = {name: (which, encode(ELSEWHERE.get(kind, "control"), kind, text))
               for name, (which, kind, text) in CONTROL.items()}
    control |= hostile(control["load"][1])
    control["thirty_million_links"] = (6, claims_structs(0, 0, 2, 1, 30 << 20))
    control["thirty_million_sequences"] = (10, claims_structs(1, 0, 4, 0, 30 << 20))
    control["thirty_million_likely_tokens"] = (4, claims_structs(5, 0, 1, 0, 30 << 20))
    return {"public_wire": public, "control_wire": control, "kv_frame": kv_frames(),
            "weights": weights()}


def kv_frames():
    """As graph/kv_frame.h has them, for the limits of kv_frame_fuzz.cc: lanes 1 and 3, 10 blocks, layers 4 to 6 of 16 bytes."""
    def piece(block, layer, layers, offset, size, lane=3):
        head = struct.pack("<BBHiiiq", 1, lane, 0, block, layer, layers, offset)
        return len(head), head + bytes(range(size))

    def sequences(*held, count=None):
        head = struct.pack("<BBHI", 2, 0, 0, len(held) if count is None else count)
        return len(head), head + b"".join(struct.pack(f"<QQIi{len(blocks)}i", lane << 56 | 5, 6, 0, positions, *blocks)
                                          for lane, positions, blocks in held)

    end = struct.pack("<BBHIQ", 3, 0, 0, 5, 1 << 40)
    return {
        "piece_of_a_layer": piece(9, 6, 1, 4, 12), "piece_of_all_layers": piece(0, 4, 3, 0, 48),
        "piece_past_the_block": piece(0, 4, 1, 8, 9), "piece_of_too_many_layers": piece(0, 5, 3, 0, 48),
        "piece_of_most_layers": piece(0, 4, 0x7FFFFFFF, 0, 48), "piece_of_no_block": piece(-1, 4, 1, 0, 16),
        "piece_offset_overflows": piece(0, 4, 1, 0x7FFFFFFFFFFFFFFF, 16), "piece_of_another_lane": piece(0, 4, 1, 0, 16, lane=2),
        "sequences": sequences((1, 33, (0, 1, 2)), (3, 0, ())), "sequences_none": sequences(),
        "sequences_too_few": sequences((1, 1, (0,)), count=0xFFFFFFFF), "sequences_too_many": sequences((1, 1, (0,)), count=0),
        "sequence_of_too_many_positions": sequences((1, 97, (0, 1, 2, 3, 4, 5, 6))),
        "sequence_of_fewer_blocks": sequences((1, 96, (0,))), "sequence_of_no_block": sequences((1, 1, (10,))),
        "end": (len(end), end), "end_with_payload": (len(end), end + b"x"), "cut": (len(end) - 1, end[:-1]), "kind": (8, bytes(8)),
    }


def weights():
    """Manifests as models/weights/manifest.h has them; and for the fetch the byte 1, then what comes."""
    def manifest(size=3 << 20, head=5000, samples=64, hashes=4, told=None):
        start = struct.pack("<8sQQQII", b"CHWEIGH1", size, head, 7, samples, hashes if told is None else told)
        return 0, start + bytes(samples) + bytes(range(16)) * hashes

    return {
        "manifest": manifest(), "manifest_of_no_pieces": manifest(hashes=0), "manifest_of_no_head": manifest(head=0),
        "manifest_of_two_billion": manifest(told=0x7FFFFFFF), "manifest_head_beyond_the_file": manifest(size=10),
        "manifest_of_most_bytes": manifest(size=(1 << 64) - 1, head=(1 << 64) - 1), "manifest_large_head": manifest(head=3 << 20),
        "fetch_all_right": (1, bytes([255, 254, 253] * 30)), "fetch_all_wrong": (1, bytes([255, 247, 1, 4, 7, 10] * 30)),
        "fetch_all_lost": (1, bytes([255, 2, 5, 8, 11] * 30)), "fetch_of_all_kinds": (1, bytes(range(256)) * 4),
        "fetch_silence": (1, bytes([0, 248, 240] * 100)),
    }


def encode(schema, kind, text):
    done = subprocess.run(["capnp", "encode", f"{schema}.capnp", kind], input=text.encode(), cwd=SCHEMAS,
                          env={"PATH": os.environ["PATH"], "PWD": str(SCHEMAS)}, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{kind} {text}: {done.stderr.decode()}")
    return done.stdout


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "corpus"
    for corpus, inputs in corpora().items():
        (folder / corpus).mkdir(parents=True, exist_ok=True)
        for name, (which, message) in inputs.items():
            (folder / corpus / name).write_bytes(bytes([which]) + message)


if __name__ == "__main__":
    main()
