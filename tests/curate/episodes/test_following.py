import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes import following
from blm.curate.episodes.following import following_lags

RATE_HZ = 20.0
SPANS = np.array([100.0, 10.0])


def lags(*episodes: tuple[np.ndarray, np.ndarray], rate_hz: float = RATE_HZ) -> list[float]:
    """Of episodes given as (state, action), each (T, 2)."""
    lengths = [len(state) for state, _ in episodes]
    state, action = (np.concatenate([one[side] for one in episodes]).T.astype(np.float32) for side in (0, 1))
    starts = np.cumsum([0, *lengths[:-1]])
    covered = np.stack([np.ptp(action, axis=0) / SPANS for _, action in episodes], axis=1)
    return following_lags(state, action, starts, SPANS, rate_hz, covered, range(len(SPANS))).tolist()


def sweep(frames: int = 80, reach: float = 60.0) -> np.ndarray:
    """(T, 2) a command that goes out and back, not evenly, with the second axis at rest."""
    time = np.linspace(0, 1, frames)
    return np.stack([reach * np.sin(2 * np.pi * time**1.3), np.zeros(frames)], axis=1)


def delayed(action: np.ndarray, frames: int) -> np.ndarray:
    return action[np.clip(np.arange(len(action)) - frames, 0, len(action) - 1)]


@pytest.mark.parametrize("frames", [-4, -1, 0, 1, 5, 20])
def test_the_delay_is_found_to_the_frame(frames):
    action = sweep()
    assert lags((delayed(action, frames), action)) == [frames / RATE_HZ]


def test_a_constant_offset_and_a_little_noise_do_no_harm():
    action = sweep()
    noise = np.random.default_rng(0).normal(0, 0.05, action.shape)
    assert lags((delayed(action, 3) + 8 + noise, action)) == [pytest.approx(0.15)]


def test_episodes_do_not_reach_into_each_other():
    action = sweep()
    two = lags((delayed(action, 2), action), (delayed(action, 7), action), (action, action))
    assert two == [pytest.approx(0.1), pytest.approx(0.35), 0.0]
    assert two == [lags(one)[0] for one in [(delayed(action, n), action) for n in (2, 7, 0)]]


def test_the_axis_that_covers_most_of_its_own_range_is_looked_at():
    """60 of 100 on the first axis, 9 of 10 on the second: the second counts, though it moves less in its unit."""
    first, second = sweep(), sweep(reach=9.0)
    action = np.stack([first[:, 0], second[:, 0]], axis=1)
    state = np.stack([delayed(first, 9)[:, 0], delayed(second, 4)[:, 0]], axis=1)
    assert lags((state, action)) == [pytest.approx(0.2)]


@pytest.mark.parametrize(
    "case", ["at rest", "unrelated", "too short", "not finite", "later than is looked for"]
)
def test_what_cannot_be_told_is_nan(case):
    action = sweep()
    if case == "at rest":
        action = sweep(reach=2.0)
        state = delayed(action, 5)
    elif case == "unrelated":
        state = np.random.default_rng(1).uniform(-30, 30, action.shape)
    elif case == "too short":
        action = action[:4]
        state = action
    elif case == "not finite":
        state = np.full_like(action, np.nan)
    else:
        action = np.where(np.arange(200)[:, None] % 67 < 3, 50.0, 0.0) * np.ones(2)
        state = delayed(action, 33)
    assert np.isnan(lags((state, action))).all()


def test_of_equally_good_shifts_the_smallest_counts():
    """A ramp fits its delayed self at every shift, but for a constant, which is not looked at."""
    ramp = np.stack([np.linspace(0, 80, 100), np.zeros(100)], axis=1)
    assert lags((ramp - 4, ramp)) == [0.0]


def test_seconds_follow_the_rate():
    action = sweep()
    assert lags((delayed(action, 5), action), rate_hz=50.0) == [pytest.approx(0.1)]


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6), st.integers(-9, 30), st.integers(0, 2**32 - 1))
def test_running_sums_say_what_differences_say(lengths, frames, seed):
    random = np.random.default_rng(seed)
    commands = [np.cumsum(random.normal(0, 0.02, length)) for length in lengths]
    paths = [delayed(one, frames) + random.normal(0, 0.001, len(one)) for one in commands]
    shifts = np.arange(-5, 21)
    expected = [
        [_variance_of_difference(one, other, shift) for shift in shifts.tolist()]
        for one, other in zip(commands, paths, strict=True)
    ]
    rows, starts = np.array(lengths), np.cumsum([0, *lengths[:-1]])
    command, measured = (
        following._padded(following._centred(np.concatenate(each), starts, rows), starts, rows)
        for each in (commands, paths)
    )
    found = following._left_over(command, measured, rows, shifts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def _variance_of_difference(command: np.ndarray, measured: np.ndarray, shift: int) -> float:
    """Of the measured path, `shift` frames later, about the commanded one, as it is defined."""
    length = len(command) - abs(shift)
    if length < 5:
        return np.inf
    ahead, behind = command[max(0, -shift) :][:length], measured[max(0, shift) :][:length]
    return float(np.var(behind.astype(np.float64) - ahead))


@pytest.mark.parametrize("glitch", [1e12, 1e30, np.nan])
@pytest.mark.parametrize("side", [0, 1])
def test_a_wild_reading_in_one_episode_does_not_touch_the_others(glitch, side):
    action = sweep()
    wild = [delayed(action, 2), action.copy()]
    wild[side] = np.array(wild[side])
    wild[side][40, 0] = glitch
    found = lags((delayed(action, 3), action), (wild[0], wild[1]), (delayed(action, 5), action))
    assert np.isnan(found[1])
    assert found[::2] == [pytest.approx(0.15), pytest.approx(0.25)]
