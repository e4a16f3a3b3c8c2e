"""The walls, as data: which folder may include which, and where each outside library may appear.

The table is the design's (docs: folder map). Tests mirror the tree: tests/X may include what X may,
besides Boost.Test, the fakes, and the folders named in TEST_EXTRA.
"""

# Includes point one way: base <- schemas <- graph, transport, kernels <- models <- actors <- gateway <- cli.
# kernels sees raw views only, so it stays on base; transport knows neither graph nor actors.
FOLDERS = {
    "base": {"base"},
    "schemas": {"base", "schemas"},
    "graph": {"base", "schemas", "graph"},
    "transport": {"base", "schemas", "transport"},
    "kernels": {"base", "kernels"},
    "models": {"base", "schemas", "graph", "transport", "kernels", "models"},
    "actors": {"base", "schemas", "graph", "transport", "kernels", "models", "actors"},
    "gateway": {"base", "schemas", "graph", "transport", "models", "actors", "gateway"},
    "cli": {"base", "schemas", "graph", "transport", "kernels", "models", "actors", "gateway", "cli"},
    "examples": {"base", "schemas", "graph", "transport", "kernels", "models", "actors", "gateway"},
}

# A wall inside a folder: these subfolders may not be included from elsewhere in the same folder
# except by the ones named. Keeps the vector variants and foreign libraries behind their own header.
TEST_EXTRA = {"tests/fakes", "tests/sim"}
TEST_ONLY_FOLDERS = {"fakes", "sim", "fuzz", "bench"}  # may include any folder of ours

# Library -> (how its includes begin, folders or files where they are allowed, why).
# A test folder tests/X inherits the permissions of X.
LIBRARIES = {
    "CAF": (("caf/",), ("actors/",), "no CAF type outside the actor shells"),
    "UCX": (("ucp/", "ucs/", "uct/", "ucm/"), ("transport/ucx/",), "links hide UCX"),
    "kj and capnp": (("kj/", "capnp/", "schemas/*.capnp.h"), ("transport/rpc/", "gateway/rpc/", "tests/fuzz/"),
                     "RPC types end at the RPC wall; pass plain structs"),
    "OpenSSL": (("openssl/",), ("transport/rpc/",), "certificates end at the RPC wall; one file reads and makes them"),
    "libfyaml": (("libfyaml",), ("graph/",), "one file in graph/ reads YAML"),
    "Beast and Asio": (("boost/beast", "boost/asio"), ("gateway/http/",), "HTTP ends at its wall"),
    "torch": (("torch/", "ATen/", "c10/"), ("kernels/torch/",), "one shared library shows no torch"),
    "CUDA": (("cuda", "nvml"), ("kernels/cuda/", "transport/ucx/"), "raw views elsewhere"),
    "xxHash": (("xxhash",), ("models/panel_cache/", "graph/token_hash.cc"), "one hash of weights, one of tokens"),
    "utf8proc": (("utf8proc",), ("models/",), "text is a model's affair"),
    "CLI11": (("CLI/",), ("cli/",), "flags are parsed once, in cli/"),
    "nlohmann-json": (("nlohmann/",), ("graph/", "actors/", "gateway/", "cli/", "models/"), "not in base, kernels, transport"),
    "SQLite": (("sqlite3",), ("actors/store/",), "behind the store interface"),
    "libcurl": (("curl/",), ("actors/store/",), "behind the store interface"),
    "x86 intrinsics": (("immintrin", "x86intrin"), ("kernels/cpu/", "transport/crc32c.cc"),
                       "variants live in kernels/cpu/; the checksum has its instruction"),
    "Boost.Container": (("boost/container/",), ("graph/microbatch.h",), "one small vector: a slice's tokens"),
    "Boost.Test": (("boost/test",), ("tests/",), "tests only"),
}
# Libraries that only one file may include, however many its folder holds.
ONE_FILE = {"libfyaml", "OpenSSL", "SQLite", "libcurl"}
