"""Writes a checkpoint as a GGUF file: `python export.py --run DIR --out box.f16.gguf [--type f32]`."""

import argparse
import os
import struct

import numpy
import torch

from bpe import END, END_OF_TEXT, SPECIALS, START, Tokenizer
from model import Config, Model

F32, F16 = 0, 1
U32, FLOAT, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
NORMAL, CONTROL = 1, 3
FILE_TYPES = {"f32": 0, "f16": 1}
ALIGNMENT = 32

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DESCRIPTION = "The model in the box: a very small chat model that comes with kiln, trained on text that a program wrote."


def packed(kind, value):
    """A metadata value; arrays are (kind, items)."""
    if kind == STRING:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(packed(inner, item) for item in items)
    return struct.pack({U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], value)


def metadata(cfg, tokenizer, file_type, parameters):
    types = [CONTROL] * len(SPECIALS) + [NORMAL] * (len(tokenizer.tokens) - len(SPECIALS))
    return {
        "general.architecture": (STRING, "llama"),
        "general.type": (STRING, "model"),
        "general.name": (STRING, "Model in the box"),
        "general.basename": (STRING, "box"),
        "general.size_label": (STRING, f"{parameters / 1e6:.1f}M"),
        "general.description": (STRING, DESCRIPTION),
        "general.license": (STRING, "mit or apache-2.0"),
        "general.languages": (ARRAY, (STRING, ["en"])),
        "general.file_type": (U32, FILE_TYPES[file_type]),
        "general.quantization_version": (U32, 2),
        "llama.block_count": (U32, cfg.layers),
        "llama.context_length": (U32, cfg.context),
        "llama.embedding_length": (U32, cfg.width),
        "llama.feed_forward_length": (U32, cfg.hidden),
        "llama.attention.head_count": (U32, cfg.heads),
        "llama.attention.head_count_kv": (U32, cfg.kv_heads),
        "llama.attention.layer_norm_rms_epsilon": (FLOAT, cfg.eps),
        "llama.rope.dimension_count": (U32, cfg.head_size),
        "llama.rope.freq_base": (FLOAT, cfg.theta),
        "llama.vocab_size": (U32, cfg.vocab),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokenizer.tokens)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, types)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, [f"{a} {b}" for a, b in tokenizer.merges])),
        "tokenizer.ggml.bos_token_id": (U32, START),
        "tokenizer.ggml.eos_token_id": (U32, END),
        "tokenizer.ggml.eot_token_id": (U32, END),
        "tokenizer.ggml.padding_token_id": (U32, END_OF_TEXT),
        "tokenizer.ggml.add_bos_token": (BOOL, False),
        "tokenizer.ggml.add_eos_token": (BOOL, False),
        "tokenizer.chat_template": (STRING, TEMPLATE),
    }


def tensors(model):
    """Names and matrices as the file has them: the fused ones of the training come apart."""
    cfg = model.cfg
    kv = cfg.kv_heads * cfg.head_size
    yield "token_embd.weight", model.embed.weight
    yield "output_norm.weight", model.norm
    for at, layer in enumerate(model.layers):
        q, k, v = layer.qkv.weight.split((cfg.width, kv, kv))
        gate, up = layer.gate_up.weight.chunk(2)
        named = dict(attn_norm=layer.attn_norm, attn_q=q, attn_k=k, attn_v=v, attn_output=layer.out.weight,
                     ffn_norm=layer.ffn_norm, ffn_gate=gate, ffn_up=up, ffn_down=layer.down.weight)
        for name, value in named.items():
            yield f"blk.{at}.{name}.weight", value


def padding(length):
    return b"\0" * (-length % ALIGNMENT)


def write(path, model, tokenizer, file_type):
    infos, data, count = b"", b"", 0
    for name, value in tensors(model):
        matrix = value.dim() == 2
        kind = F16 if matrix and file_type == "f16" else F32
        values = value.detach().numpy().astype(numpy.float16 if kind == F16 else numpy.float32).tobytes()
        dims = [*reversed(value.shape)]
        infos += packed(STRING, name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += values + padding(len(values))
        count += 1
    entries = metadata(model.cfg, tokenizer, file_type, model.parameter_count())
    header = b"GGUF" + struct.pack("<IQQ", 3, count, len(entries))
    for key, (kind, value) in entries.items():
        header += packed(STRING, key) + struct.pack("<I", kind) + packed(kind, value)
    header += infos
    with open(path, "wb") as file:
        file.write(header + padding(len(header)) + data)


def load(run):
    """The model that the run has come to, after the fall of the learning rate if there is one, and its vocabulary."""
    path = os.path.join(run, "decay.pt")
    path = path if os.path.exists(path) else os.path.join(run, "last.pt")
    model = Model(Config())
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    return model.eval(), Tokenizer.load(os.path.join(run, "merges.json")), saved["place"]


def main():
    parser = argparse.ArgumentParser(description="Writes the model of a run as a GGUF file.")
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--type", choices=FILE_TYPES, default="f16")
    options = parser.parse_args()
    model, tokenizer, place = load(options.run)
    write(options.out, model, tokenizer, options.type)
    print(options.out, os.path.getsize(options.out), "bytes,", model.parameter_count(), "parameters, step", place["step"])


if __name__ == "__main__":
    main()
