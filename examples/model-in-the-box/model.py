"""The network: a llama (RMSNorm, rotary positions on adjacent pairs, grouped-query attention, SwiGLU, tied embeddings).

Its layout is what a GGUF file of architecture `llama` holds, so that the export is a copy and never a permutation. Query,
key and value are one matrix while training, and so are gate and up: fewer and larger products are faster on a CPU.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    """The shape. Column counts (width, hidden) are multiples of 256, the block of the K-quants."""

    vocab: int = 2048
    width: int = 256
    hidden: int = 768
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    context: int = 1024
    eps: float = 1e-5
    theta: float = 10000.0

    @property
    def head_size(self):
        return self.width // self.heads


def rotation(cfg):
    """Cosines and sines of every position: [context, head_size / 2]."""
    steps = torch.arange(0, cfg.head_size, 2).float() / cfg.head_size
    angles = torch.outer(torch.arange(cfg.context).float(), cfg.theta**-steps)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Turns adjacent pairs of x [batch, time, heads, head_size] by the angles of their positions."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        kv = cfg.kv_heads * cfg.head_size
        self.attn_norm = nn.Parameter(torch.ones(cfg.width))
        self.qkv = nn.Linear(cfg.width, cfg.width + 2 * kv, bias=False)
        self.out = nn.Linear(cfg.width, cfg.width, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(cfg.width))
        self.gate_up = nn.Linear(cfg.width, 2 * cfg.hidden, bias=False)
        self.down = nn.Linear(cfg.hidden, cfg.width, bias=False)

    def forward(self, x, cos, sin):
        cfg = self.cfg
        batch, time, width = x.shape
        normed = F.rms_norm(x, (width,), self.attn_norm, cfg.eps)
        heads = self.qkv(normed).view(batch, time, cfg.heads + 2 * cfg.kv_heads, cfg.head_size)
        turned = rotate(heads[:, :, : cfg.heads + cfg.kv_heads], cos, sin)
        q, k = turned.split((cfg.heads, cfg.kv_heads), 2)
        v = heads[:, :, cfg.heads + cfg.kv_heads :]
        groups = cfg.heads // cfg.kv_heads
        k, v = (t.transpose(1, 2).repeat_interleave(groups, 1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(F.rms_norm(x, (width,), self.ffn_norm, cfg.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab, cfg.width)
        self.layers = nn.ModuleList(Layer(cfg) for _ in range(cfg.layers))
        self.norm = nn.Parameter(torch.ones(cfg.width))
        cos, sin = rotation(cfg)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        for layer in self.layers:
            for matrix in (layer.qkv, layer.gate_up):
                nn.init.normal_(matrix.weight, std=0.04)
            for matrix in (layer.out, layer.down):
                nn.init.normal_(matrix.weight, std=0.04 / (2 * cfg.layers) ** 0.5)

    def forward(self, ids):
        """Logits [batch, time, vocab]. Rows are padded on the right, which causal attention never sees."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(F.rms_norm(x, (self.cfg.width,), self.norm, self.cfg.eps), self.embed.weight)

    def parameter_count(self):
        return sum(p.numel() for p in self.parameters())
