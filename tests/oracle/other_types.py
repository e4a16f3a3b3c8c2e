"""The packaged model in other weight types, made by `chainpump quantize` once and kept in .cache/types:
for tests and benchmarks. The folder's name holds what the files were made from and by.

  other_types.py PROGRAM MODEL [TYPE ...]     makes the files and prints their paths
"""
import hashlib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M")


class NotMade(Exception):
    """The program could not make the file; the message is its own."""


def folder_for(model):
    made_by = hashlib.sha256()
    for source in sorted((ROOT / "models" / "quantize").glob("*.cc")):
        made_by.update(source.read_bytes())
    with model.open("rb") as file:
        made_by.update(hashlib.file_digest(file, "sha256").digest())
    return ROOT / ".cache" / "types" / made_by.hexdigest()[:16]


def path_of(program, model, name):
    """The file of `model` in type `name`, made now if it is not there."""
    path = folder_for(pathlib.Path(model)) / f"{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [str(program), "quantize", str(model), str(path), "--type", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        # Another test may have made it meanwhile: then the program refuses, and the file is there.
        if done.returncode and not path.exists():
            raise NotMade(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return path


if __name__ == "__main__":
    for wanted in sys.argv[3:] or TYPES:
        print(path_of(sys.argv[1], sys.argv[2], wanted))
