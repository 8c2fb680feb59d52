from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from blm.train.backbone import IntentTokens
from blm.train.dit import PerEmbodimentLinear
from blm.train.flow_matching import (
    FlowPolicy,
    PolicyBatch,
    PolicyConfig,
    PolicyShape,
    flow_times,
    hold_last,
)

B, H, A, L, D = 6, 8, 5, 9, 12
SMALL = PolicyConfig(width=32, layers=2, heads=2, feed_forward=2, queries=3, bridge_layers=1, draws=2)
SHAPE = PolicyShape(horizon=H, axes=A, embodiments=2, intent_width=D, segments=2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def intent(seed: int = 0) -> IntentTokens:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, L, D, generator=generator)
    position = torch.rand(B, L, 2, generator=generator)
    mask = torch.ones(B, L, dtype=torch.bool)
    return IntentTokens(hidden, mask, torch.ones(B, L, dtype=torch.long), position)


def batch() -> PolicyBatch:
    generator = torch.Generator().manual_seed(5)
    step_mask = torch.ones(B, H, dtype=torch.bool)
    step_mask[1, 3:] = False
    step_mask[2, 1:] = False
    axis_mask = torch.ones(B, A, dtype=torch.bool)
    axis_mask[::2, 3:] = False
    return PolicyBatch(
        intent=intent(),
        state=torch.rand(B, A, generator=generator) * 2 - 1,
        action=torch.rand(B, H, A, generator=generator) * 2 - 1,
        step_mask=step_mask,
        axis_mask=axis_mask,
        embodiment=torch.arange(B) % 2,
        future=intent(1),
    )


def losses(model: FlowPolicy, given: PolicyBatch) -> dict[str, float]:
    target = copy.deepcopy(model.bridge)
    return {name: v.item() for name, v in model.loss(given, torch.Generator().manual_seed(0), target).items()}


@pytest.mark.parametrize("prediction", ["velocity", "action"])
def test_padded_steps_and_axes_have_no_influence(prediction: str) -> None:
    model = FlowPolicy(PolicyConfig.model_validate(SMALL.model_dump() | {"prediction": prediction}), SHAPE)
    given = batch()
    action = torch.where(given.step_mask[:, :, None] & given.axis_mask[:, None], given.action, 1e3)
    state = torch.where(given.axis_mask, given.state, -1e3)
    before, after = losses(model, given), losses(model, replace(given, action=action, state=state))
    assert before == pytest.approx(after, rel=1e-6)
    other = given.action.clone()
    other[1, 2] += 0.5
    assert losses(model, replace(given, action=other))["loss"] != pytest.approx(before["loss"], rel=1e-4)


def test_a_sample_does_not_depend_on_the_others_in_its_batch() -> None:
    model = FlowPolicy(SMALL, SHAPE).eval()
    given, noise = batch(), torch.randn(B, H, A)
    together = model.sample(given.intent, given.state, given.embodiment, noise=noise)
    tokens = given.intent
    alone = model.sample(
        IntentTokens(tokens.hidden[3:4], tokens.mask[3:4], tokens.segment[3:4], tokens.position[3:4]),
        given.state[3:4],
        given.embodiment[3:4],
        noise=noise[3:4],
    )
    torch.testing.assert_close(together[3:4], alone, atol=1e-5, rtol=1e-4)


def test_draws_of_a_sample_are_independent_passes() -> None:
    """D draws that share keys and values of the intent give the mean of D single draws."""
    model = FlowPolicy(SMALL, SHAPE)
    given = batch()
    tokens = model._intent(model.encode_intent(given.intent))
    noised, time = torch.randn(B, 3, H, A), torch.rand(B, 3)
    state = model._states(given.state, given.embodiment)
    together, future = model._run(noised, time, state, tokens, given.embodiment)
    assert future is not None
    assert future.shape == (B, 3, SMALL.queries, SMALL.width)
    for draw in range(3):
        alone, _ = model._run(
            noised[:, draw : draw + 1], time[:, draw : draw + 1], state, tokens, given.embodiment
        )
        torch.testing.assert_close(together[:, draw : draw + 1], alone, atol=1e-5, rtol=1e-4)


def test_robots_have_their_own_projectors() -> None:
    layer = PerEmbodimentLinear(2, 4, 3)
    values, which = torch.randn(5, 7, 4), torch.tensor([0, 1, 1, 0, 1])
    mixed = layer(values, which)
    for row in range(5):
        expected = values[row] @ layer.weight[which[row]] + layer.bias[which[row]]
        torch.testing.assert_close(mixed[row], expected)
    torch.testing.assert_close(layer(values[:, 0], which), mixed[:, 0])


def test_flow_times_favour_noise_and_stay_within_range() -> None:
    times = flow_times((100, 200), SMALL, torch.Generator().manual_seed(0))
    assert times.min() >= 0
    assert times.max() < SMALL.time_scale
    # The mean of Beta(1.5, 1) is 0.6.
    assert times.mean().item() == pytest.approx(0.4 * SMALL.time_scale, abs=0.01)


def test_hold_last_repeats_the_last_real_step() -> None:
    action = torch.arange(8.0).view(2, 4, 1)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert hold_last(action, mask)[..., 0].tolist() == [[0, 1, 1, 1], [4, 5, 6, 7]]


def test_the_future_target_is_the_average_bridge_and_gets_no_gradient() -> None:
    model, given = FlowPolicy(SMALL, SHAPE), batch()
    target = copy.deepcopy(model.bridge)
    values = model.loss(given, torch.Generator().manual_seed(0), target)
    assert values["loss"].item() == pytest.approx(
        (values["action_loss"] + 0.2 * values["future_loss"]).item(), rel=1e-6
    )
    assert values["future_target_std"] > 0
    values["future_loss"].backward()
    assert all(p.grad is None for p in target.parameters())
    assert model.places.grad is not None
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    assert losses(model, given)["action_loss"] == pytest.approx(values["action_loss"].item(), rel=1e-6)
    assert model.loss(given, torch.Generator().manual_seed(0), target)["future_target_std"] == 0


def test_without_a_future_weight_there_are_no_future_tokens() -> None:
    model = FlowPolicy(PolicyConfig.model_validate(SMALL.model_dump() | {"future_weight": 0.0}), SHAPE)
    assert set(losses(model, batch())) == {"loss", "action_loss"}
    assert len(model.places) == 1 + H


@pytest.mark.parametrize("prediction", ["velocity", "action"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_perfect_prediction_is_sampled_exactly(
    prediction: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parametrisations integrate along the same straight line from the noise to the action."""
    model, given = (
        FlowPolicy(PolicyConfig.model_validate(SMALL.model_dump() | {"prediction": prediction}), SHAPE),
        batch(),
    )
    noise = torch.randn(B, H, A)
    truth = given.action if prediction == "action" else given.action - noise
    monkeypatch.setattr(model, "_run", lambda *_: (truth[:, None], None))
    sampled = model.sample(given.intent, given.state, given.embodiment, noise=noise, steps=steps)
    torch.testing.assert_close(sampled, given.action, atol=1e-5, rtol=1e-5)


def test_one_batch_is_learned_by_heart_and_sampled_back() -> None:
    changes = {"prediction": "action", "steps_per_token": 4, "draws": 4, "future_weight": 0.0}
    model, given = FlowPolicy(PolicyConfig.model_validate(SMALL.model_dump() | changes), SHAPE), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, seen = torch.Generator().manual_seed(0), []
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 150)
        loss = model.loss(given, generator)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    assert sum(seen[-10:]) < 0.2 * sum(seen[:10])
    sampled = model.eval().sample(given.intent, given.state * given.axis_mask, given.embodiment)
    valid = given.step_mask[:, :, None] & given.axis_mask[:, None]
    error = (sampled - given.action).abs()[valid].mean().item()
    # The actions are spread evenly over −1..1: guessing their mean would be off by 0.5.
    assert error < 0.2
