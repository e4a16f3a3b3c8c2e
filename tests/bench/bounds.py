"""What the machine allows a llama at most: a decode step reads all weights and the whole KV cache, a prompt's
token meets all weights and, on average, half of the positions of its prompt."""
import gguf


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)

        def field(name, otherwise=None):
            found = reader.fields.get(f"{reader.fields['general.architecture'].contents()}.{name}")
            return otherwise if found is None else found.contents()

        heads = field("attention.head_count")
        head_dim = field("attention.key_length", field("embedding_length") // heads)
        layers = field("block_count")
        self.layers = int(layers)
        self.weight_bytes = bytes_per_token(reader)
        self.weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        self.layer_weights = sum(int(tensor.n_elements) for tensor in reader.tensors if tensor.name.startswith("blk."))
        self.kv_heads = layers * field("attention.head_count_kv", heads)  # of all layers
        self.head_dim = head_dim
        self.query_columns = layers * heads * head_dim

    def kv_bytes(self, kv, positions):
        per_head = 2 * {"f32": 4, "f16": 2, "bf16": 2, "int8": 1}[kv] * self.head_dim + (8 if kv == "int8" else 0)  # two scales
        return self.kv_heads * per_head * positions

    def seconds(self, metric, kv, length, rates):
        """Of a token, at least: decoded after `length` others, or of a prompt of `length`. `rates` in GB/s and Gop/s."""
        if metric == "decode":
            return (self.weight_bytes + self.kv_bytes(kv, length)) / (rates["read"] * 1e9)
        # With int8 half of the products are those of the values, which take two each.
        peak = {"f32": rates["f32"], "f16": rates["f32"], "bf16": rates["bf16"], "int8": rates["int8"] / 1.5}[kv]
        attention = 4 * self.query_columns * length / 2
        return (2 * self.layer_weights / rates["int8"] + attention / peak) / 1e9


def bytes_per_token(reader):
    """What a decode step reads of the weights: all, but for an embedding that is not the head as well."""
    own_head = any(tensor.name == "output.weight" for tensor in reader.tensors)
    return sum(int(tensor.n_bytes) for tensor in reader.tensors if not (own_head and tensor.name == "token_embd.weight"))
