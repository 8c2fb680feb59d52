"""Layers of the Diffusion Transformer (Peebles & Xie 2023), kept small: attention, adaptive norm, per-robot linears."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

KeysValues = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Multi-head attention whose keys and values are made separately, so that several passes can share them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, memory: torch.Tensor) -> KeysValues:
        """(B, L, w) → two of (B, heads, L, w / heads)."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(
        self, tokens: torch.Tensor, keys_values: KeysValues, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, S, w) attending to keys and values; `visible` is a bool mask that broadcasts to (B, heads, S, L)."""
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(tokens)), *keys_values, attn_mask=visible
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        layers = [nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)]
        super().__init__(*layers, *([nn.Dropout(dropout)] if dropout else []))


class PerEmbodimentLinear(nn.Module):
    """One linear layer per embodiment, chosen row by row, so that one batch may mix robots."""

    def __init__(self, embodiments: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(embodiments, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(embodiments, outputs))

    def forward(self, values: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        """(B, …, inputs), (B,) int64 → (B, …, outputs)."""
        if len(self.weight) == 1:
            return functional.linear(values, self.weight[0].T, self.bias[0])
        rows = values.flatten(1, -2) if values.ndim > 2 else values[:, None]
        mapped = torch.baddbmm(self.bias[embodiment][:, None], rows, self.weight[embodiment])
        return mapped.view(*values.shape[:-1], -1)


class PerEmbodimentMLP(nn.Module):
    """Two per-embodiment linear layers with a SiLU between them."""

    def __init__(self, embodiments: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = PerEmbodimentLinear(embodiments, inputs, hidden)
        self.second = PerEmbodimentLinear(embodiments, hidden, outputs)

    def forward(self, values: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        return self.second(functional.silu(self.first(values, embodiment)), embodiment)


class TimeEmbedding(nn.Module):
    """Flow time t in 0..1, (M,) → (M, width): sines and cosines, then two linear layers."""

    def __init__(self, width: int, frequencies: int = 32) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        # Wavelengths from 4 (slower than the unit interval) down to 0.02.
        exponents = torch.linspace(0, 1, self.frequencies, device=time.device)
        angles = time[:, None].float() * (2 * math.pi / 4) * 200.0**exponents
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))


class DiTBlock(nn.Module):
    """Self-attention and feed-forward under adaptive layer norm; cross-attention to the intent in between.

    D noise draws of one sample share its intent: tokens come as (B, D, S, w), keys and values of the intent as for B.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, cross: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross = Attention(width, heads) if cross else None
        self.feed = FeedForward(width, hidden, dropout)

    def forward(
        self, tokens: torch.Tensor, condition: torch.Tensor, intent: KeysValues | None
    ) -> torch.Tensor:
        """One layer.

        Args:
            tokens: (B, D, S, w)
            condition: (B, D, w), the embedded time.
            intent: keys and values of this layer's cross-attention, (B, heads, N, w / heads) each.
        """
        shift, scale, gate, feed_shift, feed_scale, feed_gate = self.modulation(condition)[:, :, None].chunk(
            6, -1
        )
        inner = (self.norm(tokens) * (1 + scale) + shift).flatten(0, 1)
        attended = self.attention(inner, self.attention.keys_values(inner)).view_as(tokens)
        tokens = tokens + (1 + gate) * attended
        if self.cross is not None and self.cross_norm is not None and intent is not None:
            looked_up = self.cross(self.cross_norm(tokens).flatten(1, 2), intent)
            tokens = tokens + looked_up.view_as(tokens)
        inner = self.norm(tokens) * (1 + feed_scale) + feed_shift
        return tokens + (1 + feed_gate) * self.feed(inner)

    def intent_keys_values(self, intent: torch.Tensor) -> KeysValues | None:
        """(B, N, w) → what `forward` wants; None for a layer without cross-attention."""
        return self.cross.keys_values(intent) if self.cross is not None else None
