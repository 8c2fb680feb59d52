"""The policy network: a Diffusion Transformer trained by flow matching on action chunks.

    intent tokens H_k ──bridge──▶ N tokens ───────────cross-attention──────────┐
    [state | noised action chunk | future tokens] ──▶ DiT under adaptive norm ─┴─▶ velocity of the chunk
                                                        middle layer's future tokens ─▶ cosine with bridge(H_k later)

Convention: t = 0 is noise and t = 1 is the action, x_t = (1 − t) · noise + t · action, and the velocity is
action − noise; sampling integrates from 0 to 1. Training draws t = (1 − x) · s with x ~ Beta(1.5, 1), which favours
noisy times and cannot leave 0..s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from blm.schemas.yaml_model import FrozenModel
from blm.train.backbone import IntentTokens
from blm.train.dit import DiTBlock, KeysValues, PerEmbodimentMLP, TimeEmbedding
from blm.train.intent_bridge import IntentBridge, alignment


class PolicyConfig(FrozenModel):
    """Size and losses of the policy network."""

    width: int = Field(default=128, ge=8, description="of all tokens of the bridge and the DiT")
    layers: int = Field(default=4, ge=1, description="DiT blocks")
    heads: int = Field(default=4, ge=1)
    feed_forward: float = Field(default=4.0, gt=0, description="hidden width of a block / width")
    cross_every: int = Field(default=1, ge=1, description="every n-th block looks at the intent")
    queries: int = Field(default=8, ge=1, description="bridge tokens, and as many future tokens")
    bridge_layers: int = Field(default=2, ge=1)
    steps_per_token: int = Field(
        default=1, ge=1, description="action steps in one token; divides the horizon"
    )
    prediction: Literal["velocity", "action"] = Field(
        default="action", description="what the network puts out; the other follows from it"
    )
    draws: int = Field(
        default=4, ge=1, description="noise draws per sample and step; they share the bridge's work"
    )
    beta: tuple[float, float] = Field(
        default=(1.5, 1.0), description="Beta distribution behind the flow time"
    )
    time_scale: float = Field(default=0.999, gt=0, lt=1, description="s, the largest flow time trained")
    future_weight: float = Field(default=0.2, ge=0, description="of the future loss; 0 leaves the tokens out")
    sampling_steps: int = Field(default=6, ge=1, description="Euler steps at inference")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in the DiT's feed-forward layers")
    intent_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of intent tokens hidden in training"
    )
    state_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of states hidden in training")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class PolicyShape(FrozenModel):
    """What the data fixes: saved with the weights."""

    horizon: int
    axes: int
    embodiments: int
    intent_width: int
    segments: int


@dataclass(frozen=True)
class PolicyBatch:
    """B training samples in network units (see `blm.train.transforms`).

    state (B, A); action (B, H, A); step_mask (B, H) bool; axis_mask (B, A) bool; embodiment (B,) int64; intent of the
    window's frame and, where the future loss is on, of its future frame.
    """

    intent: IntentTokens
    state: torch.Tensor
    action: torch.Tensor
    step_mask: torch.Tensor
    axis_mask: torch.Tensor
    embodiment: torch.Tensor
    future: IntentTokens | None = None


@dataclass(frozen=True)
class _Seen:
    """What the DiT gets of the bridge's tokens: all of them side by side in one vector (B, w), which joins the time in
    the adaptive norm, and each block's keys and values."""

    summary: torch.Tensor
    keys_values: list[KeysValues | None]


class FlowPolicy(nn.Module):
    """Bridge, DiT and per-embodiment projectors."""

    def __init__(self, config: PolicyConfig, shape: PolicyShape) -> None:
        super().__init__()
        if shape.horizon % config.steps_per_token:
            raise ValueError(
                f"steps_per_token ({config.steps_per_token}) must divide horizon ({shape.horizon})"
            )
        self.config, self.shape = config, shape
        width, folded = config.width, config.steps_per_token * shape.axes
        self.action_tokens = shape.horizon // config.steps_per_token
        self.future_tokens = config.queries if config.future_weight else 0
        self.bridge = IntentBridge(
            shape.intent_width,
            width,
            config.queries,
            config.bridge_layers,
            config.heads,
            shape.segments,
            dropout=config.intent_dropout,
        )
        self.time = TimeEmbedding(width)
        self.summary = nn.Linear(config.queries * width, width)
        self.state_encoder = PerEmbodimentMLP(shape.embodiments, shape.axes, width, width)
        self.action_encoder = PerEmbodimentMLP(shape.embodiments, folded, width, width)
        self.action_decoder = PerEmbodimentMLP(shape.embodiments, width, width, folded)
        self.no_state = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(torch.randn(1 + self.action_tokens + self.future_tokens, width) * 0.02)
        self.blocks = nn.ModuleList(
            DiTBlock(
                width,
                config.heads,
                round(config.feed_forward * width),
                cross=i % config.cross_every == 0,
                dropout=config.dropout,
            )
            for i in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        if self.future_tokens:
            self.future_projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def loss(
        self,
        batch: PolicyBatch,
        generator: torch.Generator | None = None,
        target_bridge: IntentBridge | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of one batch: 'loss' = 'action_loss' + weight · 'future_loss'.

        Args:
            batch: padded steps and axes of it have no influence, whatever they hold.
            generator: of the noise and the flow times, on the CPU.
            target_bridge: the bridge's moving average, which makes the targets of the future loss.
        """
        config = self.config
        action = hold_last(batch.action, batch.step_mask) * batch.axis_mask[:, None]
        state = batch.state * batch.axis_mask
        noise, time = self._draw(action, generator)
        noise = noise * batch.axis_mask[:, None, None]
        t = time[:, :, None, None]
        noised = (1 - t) * noise + t * action[:, None]
        intent = self._intent(self.encode_intent(batch.intent))
        state = self._states(state, batch.embodiment)
        out, future = self._run(noised, time, state, intent, batch.embodiment)
        target = action[:, None] - noise if config.prediction == "velocity" else action[:, None]
        weight = (batch.step_mask[:, :, None] & batch.axis_mask[:, None])[:, None].expand_as(out)
        action_loss = ((out.float() - target).square() * weight).sum() / weight.sum().clamp(min=1)
        losses = {"loss": action_loss, "action_loss": action_loss}
        if future is not None and batch.future is not None and target_bridge is not None:
            losses |= self._future_loss(future, batch.future, target_bridge)
            losses["loss"] = action_loss + config.future_weight * losses["future_loss"]
        return losses

    @torch.no_grad()
    def sample(
        self,
        intent: IntentTokens,
        state: torch.Tensor,
        embodiment: torch.Tensor,
        *,
        noise: torch.Tensor | None = None,
        steps: int | None = None,
        limit: float = float("inf"),
    ) -> torch.Tensor:
        """Draw one action chunk per row: (B, horizon, A) in network units, by Euler steps from t = 0 to 1.

        `noise` (B, horizon, A) is the starting point; without it, it is drawn from torch's global generator. No
        training action lies outside ±`limit` (the transforms' clip), so no predicted one is let out either.
        """
        steps = steps or self.config.sampling_steps
        shape = (len(state), 1, self.shape.horizon, self.shape.axes)
        x = torch.randn(shape, device=state.device) if noise is None else noise[:, None].to(state.device)
        seen = self._intent(self.encode_intent(intent))
        states = self._states(state, embodiment)
        for step in range(steps):
            t = step / steps
            time = torch.full((len(state), 1), t, device=state.device)
            out, _ = self._run(x, time, states, seen, embodiment)
            predicted = out.float() if self.config.prediction == "action" else x + (1 - t) * out.float()
            x = x + (predicted.clamp(-limit, limit) - x) / (1 - t) / steps
        return x[:, 0]

    def encode_intent(self, intent: IntentTokens) -> torch.Tensor:
        """(B, L, d) intent tokens → (B, N, w) bridge tokens."""
        return self.bridge(intent.hidden, intent.mask, intent.segment, intent.position)

    def _intent(self, tokens: torch.Tensor) -> _Seen:
        return _Seen(
            self.summary(tokens.flatten(1)), [block.intent_keys_values(tokens) for block in self._blocks()]
        )

    def _blocks(self) -> list[DiTBlock]:
        return [block for block in self.blocks if isinstance(block, DiTBlock)]

    def _states(self, state: torch.Tensor, embodiment: torch.Tensor) -> torch.Tensor:
        """(B, A) → (B, w), some of them hidden while training."""
        encoded = self.state_encoder(state, embodiment)
        if self.training and self.config.state_dropout:
            hidden = torch.rand(len(state), 1, device=state.device) < self.config.state_dropout
            encoded = torch.where(hidden, self.no_state, encoded)
        return encoded

    def _run(
        self,
        noised: torch.Tensor,
        time: torch.Tensor,
        state: torch.Tensor,
        intent: _Seen,
        embodiment: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pass of the DiT.

        Args:
            noised: (B, D, H, A), x_t of D draws.
            time: (B, D)
            state: (B, w), encoded.
            intent: summary and keys and values, computed once for all draws and flow times.
            embodiment: (B,)

        Returns:
            (B, D, H, A), the prediction; (B, D, N, w), the middle layer's future tokens where there are any.
        """
        batch, draws = time.shape
        folded = noised.unflatten(2, (self.action_tokens, -1)).flatten(3)
        actions = self.action_encoder(folded, embodiment)
        parts = [state[:, None, None].expand(-1, draws, -1, -1), actions]
        if self.future_tokens:
            parts.append(actions.new_zeros(()).expand(batch, draws, self.future_tokens, actions.shape[-1]))
        tokens = torch.cat(parts, dim=2) + self.places
        condition = self.time(time.flatten()).view(batch, draws, -1) + intent.summary[:, None]
        condition = functional.silu(condition)
        future, middle = None, (len(self.blocks) - 1) // 2
        for i, (block, keys_values) in enumerate(zip(self._blocks(), intent.keys_values, strict=True)):
            tokens = block(tokens, condition, keys_values)
            if i == middle and self.future_tokens:
                future = tokens[:, :, 1 + self.action_tokens :]
        out = self.action_decoder(self.norm(tokens[:, :, 1 : 1 + self.action_tokens]), embodiment)
        return out.reshape(noised.shape), future

    def _draw(
        self, action: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise (B, D, H, A) and flow times (B, D), from the CPU's generator whatever the device."""
        batch, draws = len(action), self.config.draws
        noise = torch.randn(batch, draws, *action.shape[1:], generator=generator)
        time = flow_times((batch, draws), self.config, generator)
        return noise.to(action.device), time.to(action.device)

    def _future_loss(
        self, tokens: torch.Tensor, future: IntentTokens, target_bridge: IntentBridge
    ) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            target = target_bridge(future.hidden, future.mask, future.segment, future.position).float()
            # Targets that have become the same for every observation teach nothing: this falls to 0 then.
            spread = target.std(dim=0, correction=0).mean()
            # Most of a token is the same for every observation. Without that part the cosine cannot be won by a
            # constant, which would pull the bridge towards saying always the same.
            target = target - target.mean(dim=0)
        return {
            "future_loss": alignment(self.future_projector(tokens), target[:, None]),
            "future_target_std": spread,
        }


def flow_times(
    shape: tuple[int, int], config: PolicyConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Flow times (1 − x) · s in 0..s, x ~ Beta(a, b).

    Beta variates come from two Gamma variates, which torch draws with a generator of our own.
    """
    a, b = config.beta
    first = torch._standard_gamma(torch.full(shape, a), generator=generator)
    second = torch._standard_gamma(torch.full(shape, b), generator=generator)
    x = first / (first + second).clamp(min=1e-12)
    return (1 - x) * config.time_scale


def hold_last(action: torch.Tensor, step_mask: torch.Tensor) -> torch.Tensor:
    """(B, H, A) with everything past the last real step replaced by that step.

    So that what stands in padded steps can have no influence, and a chunk that reaches past the episode's end looks
    to the network like a robot that holds still, not like a mark that says how near the end is.
    """
    last = (step_mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    steps = torch.arange(action.shape[1], device=action.device)[None].minimum(last)
    return action.gather(1, steps[:, :, None].expand_as(action))
