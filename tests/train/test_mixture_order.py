from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.schemas.errors import ConfigError, UnknownNameError
from blm.train.mixture_order import MixtureOrder, group_items, mixture_weights

SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=6)
WEIGHTS = st.floats(0.001, 100)


def make_groups(sizes: list[int]) -> dict[str, np.ndarray]:
    edges = np.cumsum([0, *sizes])
    return {f"group{i}": np.arange(edges[i], edges[i + 1]) for i in range(len(sizes))}


@settings(max_examples=40)
@given(SIZES, st.data(), st.integers(0, 2**31), st.integers(1, 6000))
def test_any_number_of_draws_holds_each_share(sizes: list[int], data, seed: int, draws: int) -> None:
    groups = make_groups(sizes)
    weights = {name: data.draw(WEIGHTS) for name in groups}
    order = MixtureOrder(groups, weights, 16, seed)
    drawn = order.at(np.arange(draws))
    for name, items in groups.items():
        share = weights[name] / sum(weights.values())
        # A Kronecker sequence of the golden ratio strays by O(log n) from what is due.
        assert abs(np.isin(drawn, items).sum() - share * draws) < 2 + np.log2(draws + 1)
        assert order.shares[name] == pytest.approx(share, abs=1e-9)


@settings(max_examples=12)
@given(SIZES, st.data(), st.integers(0, 2**31))
def test_within_a_group_each_window_comes_once_before_any_comes_again(sizes, data, seed: int) -> None:
    groups = make_groups(sizes)
    order = MixtureOrder(groups, {name: data.draw(st.floats(0.2, 3)) for name in groups}, 16, seed)
    drawn = order.at(np.arange(2000))
    for items in groups.values():
        mine = drawn[np.isin(drawn, items)]
        for first in range(0, len(mine) - len(items), len(items)):
            assert sorted(mine[first : first + len(items)]) == list(items)


@given(st.integers(0, 10**12), st.integers(0, 100))
def test_what_lies_at_a_position_does_not_depend_on_what_was_asked_before(first: int, seed: int) -> None:
    groups, weights = make_groups([7, 50, 300]), {"group0": 1.0, "group1": 5.0, "group2": 0.5}
    positions = np.arange(first, first + 40)
    whole = MixtureOrder(groups, weights, 16, seed).at(positions)
    single = MixtureOrder(groups, weights, 16, seed)
    assert [int(single.at(positions[i : i + 1])[0]) for i in (39, 3, 0)] == [
        int(whole[i]) for i in (39, 3, 0)
    ]


@settings(max_examples=15)
@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 40))
def test_ranks_share_one_stream_and_resume_in_it(parts: int, batch_size: int, before: int) -> None:
    groups, weights = make_groups([5, 90]), {"group0": 1.0, "group1": 2.0}

    def orders() -> list[MixtureOrder]:
        return [MixtureOrder(groups, weights, batch_size, 1, part=p, parts=parts) for p in range(parts)]

    running = orders()
    drawn = np.concatenate([next(order) for _ in range(before + 3) for order in running])
    assert np.array_equal(drawn, running[0].at(np.arange(len(drawn))))
    resumed = orders()
    for order in resumed:
        order.load_state_dict({**order.state_dict(), "batches": before})
    rest = np.concatenate([next(order) for _ in range(3) for order in resumed])
    assert np.array_equal(rest, drawn[-len(rest) :])


def test_batches_hold_the_shares_too() -> None:
    groups, weights = make_groups([1000, 50, 10]), {"group0": 0.5, "group1": 0.3, "group2": 0.2}
    order = MixtureOrder(groups, weights, 64, seed=0)
    counts = np.array([np.bincount(np.searchsorted([1000, 1050], next(order), "right")) for _ in range(200)])
    assert np.abs(counts - 64 * np.array([0.5, 0.3, 0.2])).max() <= 4


def test_a_group_without_weight_is_never_drawn() -> None:
    order = MixtureOrder(make_groups([10, 10]), {"group0": 0.0, "group1": 1.0}, 8, seed=0)
    assert order.at(np.arange(500)).min() == 10


def test_a_place_in_another_mixture_is_refused() -> None:
    groups = make_groups([10, 10])
    saved = MixtureOrder(groups, {"group0": 1.0, "group1": 1.0}, 8, seed=0).state_dict()
    with pytest.raises(ConfigError, match="mixture"):
        MixtureOrder(groups, {"group0": 1.0, "group1": 2.0}, 8, seed=0).load_state_dict(saved)
    MixtureOrder(groups, {"group0": 3.0, "group1": 3.0}, 8, seed=0).load_state_dict(saved)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_weights_that_make_no_sense_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        MixtureOrder(make_groups([3, 3]), dict(zip(("group0", "group1"), weights, strict=True)), 8, seed=0)


def test_patterns_divide_their_weight_by_windows() -> None:
    groups = group_items(["a/panda/x", "b/so100/x", "b/panda/y"], np.array([0, 0, 0, 1, 2]))
    weights = mixture_weights(groups, {"*/panda/*": 4.0, "*": 1.0})
    assert weights == {"a/panda/x": 3.0, "b/panda/y": 1.0, "b/so100/x": 1.0}
    with pytest.raises(UnknownNameError, match="a/panda/x"):
        mixture_weights(groups, {"*": 1.0, "*/xarm6/*": 1.0})
    with pytest.raises(ConfigError, match="b/so100/x"):
        mixture_weights(groups, {"*/panda/*": 1.0})
