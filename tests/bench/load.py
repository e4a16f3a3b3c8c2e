"""The load of `chainpump bench serve` (cli/load.cc), drawn again: so that another server can be given the very same."""
import dataclasses
import itertools
import math

MASK = (1 << 32) - 1
TOKENS_MAX = 1 << 20
GAP, KIND, PROMPT, OUTPUT, TOKEN = range(5)  # what is drawn for an arrival, each from its own number


@dataclasses.dataclass(frozen=True)
class Arrival:
    at_s: float
    prompt: list
    output_tokens: int


def uniform(seed, sequence, position):
    """As base/philox.h: Philox4x32-10, 53 bits."""
    c = [position & MASK, position >> 32, sequence, 0]
    k = [seed & MASK, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return (((c[0] << 32 | c[1]) >> 11) + 0.5) * 2.0**-53


def between(low, high, draw):
    return low + int((high - low + 1) * draw)


def make(per_second, count, mix, seed, vocabulary_size):
    """`mix`: "WEIGHT:PROMPT/OUTPUT,..." as the command takes it."""
    kinds = []
    for part in mix.split(","):
        weight, lengths = part.split(":")
        kinds.append((float(weight), [tuple(map(int, (span.split("-") * 2)[:2])) for span in lengths.split("/")]))
    at_s, arrivals = 0.0, []
    for i in range(count):
        at_s -= math.log(uniform(seed, GAP, i)) / per_second
        place = uniform(seed, KIND, i) * sum(weight for weight, _ in kinds)
        sums = itertools.accumulate(weight for weight, _ in kinds)
        prompt, output = next(lengths for total, (_, lengths) in zip(sums, kinds) if place <= total)
        ids = [between(0, vocabulary_size - 1, uniform(seed, TOKEN, i * TOKENS_MAX + t))
               for t in range(between(*prompt, uniform(seed, PROMPT, i)))]
        arrivals.append(Arrival(at_s, ids, between(*output, uniform(seed, OUTPUT, i))))
    return arrivals
