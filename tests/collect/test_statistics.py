"""Statistics in LeRobot's form: compared with NumPy on all the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.statistics import (
    QUANTILES,
    STATISTIC_NAMES,
    DatasetStatistics,
    ImageStatistics,
    column_statistics,
)


def random_columns(seed: int, frames: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "action": generator.normal(seed, 1 + seed, size=(frames, 3)).astype(np.float32),
        "timestamp": np.arange(frames) / 20,
        "next.success": np.arange(frames) > frames // 2,
    }


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_aggregated_statistics_are_those_of_all_rows(lengths: list[int]):
    episodes = [random_columns(seed, frames) for seed, frames in enumerate(lengths)]
    dataset = DatasetStatistics()
    for columns in episodes:
        dataset.add(columns, column_statistics(columns))
    together = {key: np.concatenate([columns[key] for columns in episodes]) for key in episodes[0]}
    expected = column_statistics(together)
    for key, values in dataset.result(refresh=True).items():
        for name in STATISTIC_NAMES:
            np.testing.assert_allclose(values[name], expected[key][name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_column_statistics_are_numpys():
    columns = random_columns(3, 50)
    values = column_statistics(columns)["action"]
    np.testing.assert_allclose(values["std"], columns["action"].astype(np.float64).std(axis=0))
    np.testing.assert_allclose(values["q90"], np.quantile(columns["action"].astype(np.float64), 0.9, axis=0))
    assert values["count"].tolist() == [50]
    assert column_statistics(columns)["timestamp"]["max"].shape == (1,)


def test_quantiles_are_refreshed_as_the_data_grows():
    dataset = DatasetStatistics()
    for seed in range(40):
        columns = random_columns(seed, 10)
        dataset.add(columns, column_statistics(columns))
        stale = dataset.result()["action"]["q50"]
        fresh = dataset.result(refresh=True)["action"]["q50"]
        assert np.all(np.abs(stale - fresh) <= 2.5 + 0.1 * seed), "at most a tenth of the rows are not in yet"


def test_many_rows_are_thinned_out_evenly():
    dataset = DatasetStatistics()
    for start in range(0, 300_000, 50_000):
        columns = {"index": np.arange(start, start + 50_000)}
        dataset.add(columns, column_statistics(columns))
    values = dataset.result(refresh=True)["index"]
    assert values["max"].tolist() == [299_999]
    for name, quantile in QUANTILES.items():
        assert values[name][0] == pytest.approx(quantile * 300_000, abs=10)


def test_image_statistics_of_known_pixels():
    images = ImageStatistics()
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    image[..., 0] = 51
    image[:64, :, 1] = 255
    for _ in range(8):
        images.add(image)
    values = images.result()
    assert all(values[name].shape == (3, 1, 1) for name in STATISTIC_NAMES if name != "count")
    np.testing.assert_allclose(values["mean"].ravel(), [0.2, 0.5, 0.0])
    np.testing.assert_allclose(values["std"].ravel(), [0.0, 0.5, 0.0], atol=1e-9)
    np.testing.assert_allclose(values["max"].ravel(), [0.2, 1.0, 0.0])
    np.testing.assert_allclose(values["q10"].ravel(), [0.2, 0.0, 0.0])
    np.testing.assert_allclose(values["q90"].ravel(), [0.2, 1.0, 0.0])


def test_image_quantiles_of_a_dataset_are_those_of_the_mixture():
    """A dark and a bright episode: the median lies between them, where a mean of medians would also be, but the
    tenth percentile must be in the dark one and the ninetieth in the bright one."""
    dataset, generator = DatasetStatistics(), np.random.default_rng(0)
    everything = []
    for level in (40, 200):
        images = ImageStatistics()
        for _ in range(4):
            image = np.clip(generator.normal(level, 12, size=(64, 64, 3)), 0, 255).astype(np.uint8)
            images.add(image)
            everything.append(image)
        columns = {"index": np.arange(4)}
        dataset.add(columns, column_statistics(columns) | {"observation.images.top": images.result()})
    values = dataset.result(refresh=True)["observation.images.top"]
    looked_at = np.concatenate([everything[0].reshape(-1, 3), everything[4].reshape(-1, 3)]) / 255
    for name, quantile in QUANTILES.items():
        if name != "q50":
            expected = np.quantile(looked_at, quantile, axis=0)
            np.testing.assert_allclose(values[name].ravel(), expected, atol=0.03, err_msg=name)
    np.testing.assert_allclose(values["mean"].ravel(), looked_at.mean(axis=0), atol=1e-6)
