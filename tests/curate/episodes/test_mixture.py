import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes.mixture import MixtureConfig, mixture_of
from blm.schemas.errors import ConfigError
from blm.schemas.yaml_model import validate

WINDOWS = {"a/so100/push": 600, "a/so100/stack": 200, "b/panda/push": 100, "c/panda/stack/high": 100}


def weights(**config) -> dict[str, float]:
    return mixture_of(WINDOWS, validate(MixtureConfig, config, "test")).weights


def test_natural_is_by_windows():
    expected = {label: count / 1000 for label, count in WINDOWS.items()}
    assert weights() == pytest.approx(expected)
    assert weights(strategy="temperature", temperature=1) == pytest.approx(expected)


def test_balanced_gives_each_the_same_and_keeps_proportions_within():
    assert list(weights(strategy="balanced").values()) == pytest.approx([0.375, 0.125, 0.25, 0.25])
    by_dataset = weights(strategy="balanced", by="dataset")
    assert list(by_dataset.values()) == pytest.approx([0.25, 1 / 12, 1 / 3, 1 / 3], abs=1e-9)
    by_task = weights(strategy="balanced", by="task")
    assert by_task["c/panda/stack/high"] == pytest.approx(1 / 3)


def test_temperature_flattens():
    found = weights(strategy="temperature", temperature=2)
    assert found["b/panda/push"] + found["c/panda/stack/high"] == pytest.approx(1 / (1 + 2))
    nearly = weights(strategy="temperature", temperature=1e9)
    assert nearly == pytest.approx(weights(strategy="balanced"), rel=1e-6)


def test_explicit_weights_are_normalised():
    found = weights(strategy="explicit", by="dataset", weights={"a": 2, "b": 6, "c": 0})
    assert found == pytest.approx(
        {"a/so100/push": 0.1875, "a/so100/stack": 0.0625, "b/panda/push": 0.75, "c/panda/stack/high": 0}
    )


@given(
    windows=st.dictionaries(
        st.from_regex(r"[abc]/[xy]/[pq]", fullmatch=True), st.integers(1, 10**9), min_size=1
    ),
    strategy=st.sampled_from(["natural", "balanced", "temperature"]),
    by=st.sampled_from(["dataset", "embodiment", "task"]),
)
def test_shares_add_up_to_one_in_whatever_order(windows, strategy, by):
    config = MixtureConfig(strategy=strategy, by=by, temperature=3.0 if strategy == "temperature" else None)
    found = mixture_of(windows, config)
    assert sum(found.weights.values()) == pytest.approx(1, abs=1e-9)
    assert mixture_of(dict(reversed(windows.items())), config) == found
    assert set(found.weights) == set(windows)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"weights": {"a": 1}}, "belongs to strategy 'explicit'"),
        ({"strategy": "temperature"}, "belongs to strategy 'temperature'"),
        ({"strategy": "temperature", "temperature": 0.5}, "temperature"),
        ({"strategy": "explicit", "weights": {"a": -1}}, "from 0 up"),
        ({"strategy": "explicit", "weights": {"a": 0}}, "above 0"),
        (
            {"strategy": "explicit", "by": "dataset", "weights": {"a": 1, "b": 1, "d": 1}},
            "dataset 'd' has no training samples; there are: a, b, c",
        ),
        (
            {"strategy": "explicit", "weights": {"so100": 1}},
            "embodiment 'panda' has no weight; .*: panda, so100",
        ),
        (
            {"strategy": "explicit", "weights": {"so100": 0, "panda": 0, "x": 1}},
            "'x' has no training samples",
        ),
    ],
)
def test_wrong_settings_are_explained(config, message):
    with pytest.raises(ConfigError, match=message):
        weights(**config)
