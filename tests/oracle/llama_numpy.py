"""The llama architecture in plain float32 numpy, straight from a GGUF file: the oracle of the tests.

Written from the architecture's description and sharing nothing with the C++ side, so that a mistake
made twice the same way is unlikely. check_transformers.py shows that it equals transformers.
Formulas: RMSNorm (arXiv 1910.07467), RoPE (2104.09864), grouped queries (2305.13245), SwiGLU
(2002.05202), YaRN (2309.00071). GGUF stores the rows of Q and K so that a rotation acts on adjacent
pairs (2i, 2i + 1).
"""
import math

import gguf
import numpy as np


class Llama:
    def __init__(self, reader):
        """`reader`: the model file's gguf.GGUFReader."""
        self.keys = {name: field.contents() for name, field in reader.fields.items()
                     if not name.startswith("tokenizer.")}
        self.tensors = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                        for tensor in reader.tensors}
        key = self._key
        self.num_layers = key("block_count")
        self.hidden = key("embedding_length")
        self.num_heads = key("attention.head_count")
        self.num_kv_heads = key("attention.head_count_kv", self.num_heads)
        self.head_dim = key("attention.key_length", self.hidden // self.num_heads)
        self.epsilon = np.float32(key("attention.layer_norm_rms_epsilon"))
        self.rotary = key("rope.dimension_count", self.head_dim)
        self.embedding = self.tensors["token_embd.weight"]
        self.head = self.tensors.get("output.weight", self.embedding)
        self.inverse_frequencies, self.magnitude = self._rope()

    def _key(self, name, otherwise=None):
        value = self.keys.get("llama." + name, otherwise)
        if value is None:
            raise KeyError("llama." + name)
        return value

    def _rope(self):
        """Angle per position of each pair, float64 [rotary / 2], and the factor on sine and cosine."""
        pairs = np.arange(self.rotary // 2)
        base = self._key("rope.freq_base", 10000.0)
        plain = base ** (-2.0 * pairs / self.rotary)
        if "rope_freqs.weight" in self.tensors:  # llama 3: a divisor per pair
            plain = plain / self.tensors["rope_freqs.weight"].astype(np.float64)
        kind = self._key("rope.scaling.type", "none")
        factor = self._key("rope.scaling.factor", 1.0)
        extra = self._key("rope.scaling.attn_factor", 1.0)
        if kind == "none":
            return plain, extra
        if kind == "linear":
            return plain / factor, extra
        assert kind == "yarn", kind
        context = self._key("rope.scaling.original_context_length", self.keys["llama.context_length"])

        def pair_with(turns):  # the pair that makes so many turns in the original context
            return self.rotary * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))
        low = max(0, math.floor(pair_with(self._key("rope.scaling.yarn_beta_fast", 32.0))))
        high = min(self.rotary - 1, math.ceil(pair_with(self._key("rope.scaling.yarn_beta_slow", 1.0))))
        interpolated = np.clip((pairs - low) / max(high - low, 0.001), 0.0, 1.0)
        mixed = plain / factor * interpolated + plain * (1 - interpolated)
        return mixed, extra * (1 + 0.1 * math.log(factor))

    def log_probabilities(self, ids, first=0):
        """float32 [len(ids) - first, vocabulary]: row i holds log p(next token | ids[:first + i + 1])."""
        ids = np.asarray(ids)
        x = self.embedding[ids]
        angles = np.outer(np.arange(len(ids)), self.inverse_frequencies)
        rotation = ((np.cos(angles) * self.magnitude).astype(np.float32)[:, None],
                    (np.sin(angles) * self.magnitude).astype(np.float32)[:, None])
        future = np.triu(np.full((len(ids), len(ids)), -np.inf, np.float32), 1)
        for layer in range(self.num_layers):
            x = x + self._attention(x, layer, rotation, future)
            x = x + self._feed_forward(x, layer)
        logits = self._norm(x[first:], "output_norm.weight") @ self.head.T
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)

    def _norm(self, x, name):
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float64)
        return (x / np.sqrt(mean_square + self.epsilon)).astype(np.float32) * self.tensors[name]

    def _attention(self, x, layer, rotation, future):
        weight = lambda part: self.tensors[f"blk.{layer}.{part}.weight"]
        normed = self._norm(x, f"blk.{layer}.attn_norm.weight")
        tokens = len(x)
        q = self._rotate((normed @ weight("attn_q").T).reshape(tokens, self.num_heads, -1), rotation)
        k = self._rotate((normed @ weight("attn_k").T).reshape(tokens, self.num_kv_heads, -1), rotation)
        v = (normed @ weight("attn_v").T).reshape(tokens, self.num_kv_heads, -1)
        group = self.num_heads // self.num_kv_heads
        out = np.empty((tokens, self.num_heads, self.head_dim), np.float32)
        for head in range(self.num_heads):
            scores = q[:, head] @ k[:, head // group].T / np.float32(math.sqrt(self.head_dim)) + future
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = scores @ v[:, head // group] / scores.sum(axis=1, keepdims=True)
        return out.reshape(tokens, -1) @ weight("attn_output").T

    def _rotate(self, heads, rotation):
        cosine, sine = rotation
        even, odd = heads[..., 0:self.rotary:2], heads[..., 1:self.rotary:2]
        out = heads.copy()  # what lies behind the rotary part stays
        out[..., 0:self.rotary:2] = even * cosine - odd * sine
        out[..., 1:self.rotary:2] = even * sine + odd * cosine
        return out

    def _feed_forward(self, x, layer):
        weight = lambda part: self.tensors[f"blk.{layer}.{part}.weight"]
        normed = self._norm(x, f"blk.{layer}.ffn_norm.weight")
        gate = normed @ weight("ffn_gate").T
        return (gate / (1 + np.exp(-gate)) * (normed @ weight("ffn_up").T)) @ weight("ffn_down").T
