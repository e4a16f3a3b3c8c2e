"""Shows that the numpy oracle equals transformers in float32: on the real model, which transformers
reads from the GGUF file itself, and on the tiny ones, whose weights are handed over.

Run by transformers.sh in .venv-oracle. A rotation of only a part of a head is not checked here:
transformers' llama has none.
"""
import pathlib
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

import llama_numpy
import tiny_models

ROOT = pathlib.Path(__file__).parents[2]
DIVERGENCE_MAX = 1e-7
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_norm": "post_attention_layernorm"}


def halves_from_pairs(rows, num_heads):
    """GGUF rotates adjacent pairs, transformers the two halves of a head: moves the rows to match."""
    head = len(rows) // num_heads
    return rows.reshape(num_heads, head // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def rope_parameters(tiny):
    scaling = {"none": {"rope_type": "default"}, "linear": {"rope_type": "linear", "factor": 4.0},
               "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
               "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 64}}[tiny.rope]
    return {"rope_theta": 10000.0, **scaling}


def build(oracle, tiny):
    config = transformers.LlamaConfig(
        vocab_size=len(oracle.embedding), hidden_size=tiny.hidden, intermediate_size=tiny.feed_forward,
        num_hidden_layers=tiny.layers, num_attention_heads=tiny.heads[0], num_key_value_heads=tiny.heads[1],
        head_dim=tiny.head_dim, rms_norm_eps=float(oracle.epsilon), max_position_embeddings=tiny_models.CONTEXT,
        rope_parameters=rope_parameters(tiny), tie_word_embeddings=tiny.tied)
    weights = {"model.embed_tokens.weight": oracle.embedding, "lm_head.weight": oracle.head,
               "model.norm.weight": oracle.tensors["output_norm.weight"]}
    for layer in range(tiny.layers):
        for ours, theirs in NAMES.items():
            value = oracle.tensors[f"blk.{layer}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                value = halves_from_pairs(value, tiny.heads[ours == "attn_k"])
            weights[f"model.layers.{layer}.{theirs}.weight"] = value
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()})
    return model


def compare(name, model, oracle, length):
    model = model.eval()
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    ids = np.random.default_rng(7).integers(0, len(oracle.embedding), length)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None]).logits[0].double()
    truth = torch.log_softmax(logits, -1).numpy()
    ours = oracle.log_probabilities(ids).astype(np.float64)
    divergence = (np.exp(truth) * (truth - ours)).sum() / length
    same = (truth.argmax(1) == ours.argmax(1)).mean()
    good = divergence <= DIVERGENCE_MAX and same >= 0.999
    print(f"{'ok  ' if good else 'FAIL'} {name:20} divergence {divergence:.2e} nats, arg-max {100 * same:.2f} %", flush=True)
    return good


def main():
    torch.manual_seed(0)
    real = sys.argv[1] if len(sys.argv) > 1 else str((ROOT / ".venv/model.gguf").resolve())
    path = pathlib.Path(real)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    good = compare("real", model, llama_numpy.Llama(gguf.GGUFReader(path)), 512)
    with tempfile.TemporaryDirectory() as folder:
        for name, tiny in tiny_models.MODELS.items():
            if tiny.rotary:
                continue
            file = pathlib.Path(folder) / f"{name}.gguf"
            tiny_models.write(file, name, tiny)
            oracle = llama_numpy.Llama(gguf.GGUFReader(file))
            good &= compare(name, build(oracle, tiny), oracle, 300)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
