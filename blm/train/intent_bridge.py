"""The intent bridge: the hidden states H_k of the language backbone, compressed to a few tokens for the policy.

A Perceiver resampler (Jaegle et al. 2021, "Perceiver: General Perception with Iterative Attention"): N learned
queries attend to the L intent tokens, then to each other. Two things are added to every intent token first: which
segment it belongs to (text, or camera i), and where in its image it lies. The second is not a luxury: a backbone with
rotary positions only encodes relative places inside its attention, so H_k says what is there, but not where, and a
policy without it cannot localise.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from blm.train.dit import Attention, FeedForward


class IntentBridge(nn.Module):
    """(B, L, d) intent tokens → (B, N, w) bridge tokens.

    Args:
        intent_width: d, width of the backbone's hidden states.
        width: w.
        queries: N.
        layers: blocks of cross-attention, self-attention and a feed-forward layer.
        heads: attention heads; divides `width`.
        segments: 1 + the number of cameras.
        bands: frequencies of the Fourier position features; the highest has a wavelength of 2^(2 − bands) images.
        dropout: share of intent tokens hidden from the queries while training.
    """

    def __init__(
        self,
        intent_width: int,
        width: int,
        queries: int,
        layers: int,
        heads: int,
        segments: int,
        *,
        bands: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.bands = bands
        self.scale = nn.LayerNorm(intent_width)
        self.content = nn.Linear(intent_width, width)
        self.place = nn.Linear(2 + 4 * bands, width)
        self.segment = nn.Embedding(segments, width)
        nn.init.normal_(self.segment.weight, std=0.02)
        self.memory_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, first=i == 0) for i in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, segment: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        """Compress one batch.

        Args:
            hidden: (B, L, d), H_k.
            mask: (B, L) bool, True = real token.
            segment: (B, L) int64, 0 = text, 1 + i = image of camera i.
            position: (B, L, 2), row and column in 0..1 within the image.

        Returns:
            (B, N, w)
        """
        memory = self.content(self.scale(hidden.to(self.content.weight.dtype)))
        memory = memory + self.place(fourier_features(position, self.bands)) + self.segment(segment)
        memory = self.memory_norm(memory)
        visible = self._visible(mask)
        tokens = self.queries.expand(len(hidden), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, memory, visible)
        return self.norm(tokens)

    def _visible(self, mask: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1, L) attention mask: real tokens, some of them hidden while training."""
        if self.training and self.dropout:
            mask = mask & (torch.rand(mask.shape, device=mask.device) >= self.dropout)
        # A row without any token would make softmax undefined; it then sees its padding instead.
        return (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]


class ResamplerLayer(nn.Module):
    """Queries look at the memory, then (except in the first layer, where they are all alike) at each other."""

    def __init__(self, width: int, heads: int, *, first: bool) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.self_norm = None if first else nn.LayerNorm(width)
        self.self_attention = None if first else Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = FeedForward(width, 2 * width)

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.cross(self.cross_norm(tokens), self.cross.keys_values(memory), visible)
        if self.self_norm is not None and self.self_attention is not None:
            inner = self.self_norm(tokens)
            tokens = tokens + self.self_attention(inner, self.self_attention.keys_values(inner))
        return tokens + self.feed(self.feed_norm(tokens))


def fourier_features(position: torch.Tensor, bands: int) -> torch.Tensor:
    """(…, 2) in 0..1 → (…, 2 + 4 · bands): the centred position and sines and cosines of π·2^i times it."""
    centred = 2 * position - 1
    frequencies = math.pi * 2.0 ** torch.arange(bands, device=position.device, dtype=position.dtype)
    angles = (centred[..., None] * frequencies / 2).flatten(-2)
    return torch.cat([centred, angles.sin(), angles.cos()], dim=-1)


def alignment(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 − cosine, each token (…, N, w) against its own target token, over the width."""
    return (1 - functional.cosine_similarity(predicted.float(), target.float(), dim=-1)).mean()
