import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.episodes.config import Fractions, SplitsConfig
from blm.curate.episodes.splits import assign_splits, check_splits, split_names, split_of
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.yaml_model import validate

HELD_OUT = [
    {"name": "unseen-robot", "embodiment": "xarm7"},
    {"name": "unseen-task", "task": "stack-cube"},
    {"name": "far-left", "region": {"object": "cube", "x": [0.1, 0.3], "y": [0.05, 0.2]}},
    {"name": "unseen-wording", "wording": "Slide  *"},
]

identities = st.lists(
    st.text("0123456789abcdef", min_size=8, max_size=8), unique=True, min_size=1, max_size=40
)


def configured(**changes) -> SplitsConfig:
    return validate(SplitsConfig, {"datasets": ["d"], "output": "o", **changes}, "test")


def episode(number: int, **changes) -> dict:
    common = {
        "dataset": "d",
        "episode": number,
        "embodiment": "so100",
        "task": "push-cube",
        "instruction": "Push the cube.",
        "identity": f"{number:064x}",
        "group": None,
        "object_starts": [{"name": "cube", "x": 0.2, "y": 0.0}],
    }
    return common | changes


def table(rows: list[dict]) -> pa.Table:
    starts = pa.list_(pa.struct([("name", pa.string()), ("x", pa.float64()), ("y", pa.float64())]))
    types = {"episode": pa.int64(), "group": pa.string(), "object_starts": starts}
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(key, types.get(key, pa.string())) for key in rows[0]])
    )


def assigned(rows: list[dict], **changes) -> dict[tuple[str, int], str]:
    found = assign_splits(table(rows), configured(**changes)).to_pylist()
    return {(row["dataset"], row["episode"]): row["split"] for row in found}


def splits(names: list[str], seed: int = 0) -> dict[str, str]:
    found = assigned([episode(number, identity=name) for number, name in enumerate(names)], seed=seed)
    return dict(zip(names, found.values(), strict=True))


@given(old=identities, new=identities, seed=st.integers(0, 2**31))
def test_adding_episodes_in_any_order_moves_none(old, new, seed):
    before = splits(old, seed)
    after = splits(sorted({*old, *new}, reverse=True), seed)
    assert {name: after[name] for name in old} == before


@given(name=st.text(), shares=st.tuples(st.floats(0, 0.3), st.floats(0, 0.3)))
def test_a_larger_training_share_only_adds_to_training(name, shares):
    small, large = sorted(shares)
    few = Fractions(train=0.5 + small, val=0.5 - small, test=0)
    more = Fractions(train=0.5 + large, val=0.5 - large, test=0)
    assert split_of(name, 0, few) != "train" or split_of(name, 0, more) == "train"


def test_shares_come_out_as_asked():
    counted = list(splits([f"episode {number}" for number in range(20_000)]).values())
    for split, share in (("train", 0.9), ("val", 0.05), ("test", 0.05)):
        assert (
            abs(counted.count(split) / len(counted) - share) < 5 * (share * (1 - share) / len(counted)) ** 0.5
        )


def test_the_seed_deals_anew():
    names = [f"episode {number}" for number in range(200)]
    assert splits(names, seed=0) != splits(names, seed=1)


@settings(max_examples=20)
@given(st.text())
def test_without_val_and_test_all_is_training(name):
    assert split_of(name, 0, Fractions(train=1, val=0, test=0)) == "train"


def test_the_rule_never_changes():
    """Golden: the split of given content hashes, on every machine and in every version."""
    found = [split_of(f"{number:064x}", 0, Fractions()) for number in range(40)]
    assert [number for number, split in enumerate(found) if split == "val"] == GOLDEN_VAL
    assert [number for number, split in enumerate(found) if split == "test"] == GOLDEN_TEST


GOLDEN_VAL = [13, 14, 38]
GOLDEN_TEST = [6, 20, 27, 34]

grouped = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from([None, "a", "b", "c"])),
    unique_by=lambda pair: pair[0],
    min_size=1,
    max_size=40,
)


@given(old=grouped, new=grouped, seed=st.integers(0, 100))
def test_near_duplicates_stay_together_and_new_ones_never_move_any_towards_training(old, new, seed):
    pairs = dict(new) | dict(old)
    rows = [episode(number, group=group) for number, group in pairs.items()]
    before = assigned([row for row in rows if row["episode"] in dict(old)], seed=seed)
    after = assigned(rows, seed=seed)
    order = ["train", "val", "test"]
    assert all(order.index(after[key]) >= order.index(split) for key, split in before.items())
    for group in ("a", "b", "c"):
        members = [after["d", number] for number, of in pairs.items() if of == group]
        own = [split_of(f"{n:064x}", seed, Fractions()) for n, of in pairs.items() if of == group]
        assert not members or set(members) == {max(own, key=order.index)}


@given(order=st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_means_nothing(order: random.Random):
    rows = various()
    expected = assigned(rows, held_out=HELD_OUT)
    order.shuffle(rows)
    assert assigned(rows, held_out=HELD_OUT) == expected


def various() -> list[dict]:
    """Sixty episodes, some under each axis of `HELD_OUT`."""
    rows = [episode(number) for number in range(60)]
    rows[1] |= {"embodiment": "xarm7"}
    rows[2] |= {"embodiment": "xarm7", "task": "stack-cube"}
    rows[3] |= {"task": "stack-cube"}
    rows[4] |= {"object_starts": [{"name": "cube", "x": 0.2, "y": 0.06}]}
    rows[5] |= {"object_starts": [{"name": "cube", "x": 0.4, "y": 0.06}]}
    rows[6] |= {"object_starts": [{"name": "ball", "x": 0.2, "y": 0.06}]}
    rows[7] |= {"instruction": "slide the cube"}
    rows[8] |= {"instruction": "Do not slide the cube"}
    rows[9] |= {"group": "same"}
    rows[10] |= {"group": "same", "instruction": "Slide it"}
    return rows


def test_held_out_axes_make_splits_of_their_own():
    config = configured(held_out=HELD_OUT)
    assert split_names(config)[3:] == (
        "test-unseen-robot",
        "test-unseen-task",
        "test-far-left",
        "test-unseen-wording",
    )
    found = assigned(various(), held_out=HELD_OUT)
    held_out = {number: split for (_, number), split in found.items() if split.startswith("test-")}
    assert held_out == {
        1: "test-unseen-robot",
        2: "test-unseen-robot",
        3: "test-unseen-task",
        4: "test-far-left",
        7: "test-unseen-wording",
        9: "test-unseen-wording",
        10: "test-unseen-wording",
    }
    plain = assigned(various())
    assert {key: found[key] for key in found if key[1] not in held_out} == {
        key: split for key, split in plain.items() if key[1] not in held_out
    }


@pytest.mark.parametrize(
    ("number", "split", "message"),
    [
        (9, "train", "hold the same motion"),
        (1, "train", "'d' belongs to test-unseen-robot but is in train"),
        (4, "val", "belongs to test-far-left but is in val"),
        (7, "test", "belongs to test-unseen-wording but is in test"),
        (20, "test-else", "split 'test-else' is not one of"),
    ],
)
def test_the_check_afterwards_finds_a_leak(number, split, message):
    config = configured(held_out=HELD_OUT)
    rows = assign_splits(table(various()), config).to_pylist()
    check_splits(table(rows), config)
    rows[number]["split"] = split
    with pytest.raises(DatasetError, match=message):
        check_splits(table(rows), config)


def test_the_check_afterwards_finds_equal_content_in_two_splits():
    rows = [episode(0, split="train"), episode(1, identity=f"{0:064x}", split="test")]
    with pytest.raises(DatasetError, match=r"episode 0 of 'd' \(train\) and episode 1 of 'd' \(test\)"):
        check_splits(table(rows), configured())


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"embodiment": "xarm8"}, "matches none of the 60 episodes; there are embodiment: so100, xarm7"),
        ({"wording": "glide*"}, "there are wording: Do not slide the cube, Push the cube"),
        ({"region": {"object": "cup", "x": [0, 1]}}, "there are objects: ball, cube"),
        ({"region": {"object": "cube", "y": [1, 2]}}, r"starts within x 0.200..0.400 m, y 0.000..0.060 m"),
    ],
)
def test_an_axis_that_holds_nothing_out_says_what_there_is(axis, message):
    with pytest.raises(ConfigError, match=message):
        assigned(various(), held_out=[{"name": "typo", **axis}])


def test_a_region_needs_recorded_starts_unless_another_key_rules_the_episode_out():
    rows = various()
    rows[11] |= {"dataset": "real", "object_starts": None}
    region = {"object": "cube", "x": [0.1, 0.3], "y": [0.05, 0.2]}
    with pytest.raises(DatasetError, match=r"dataset 'real' .* does not record where 'cube' starts"):
        assigned(rows, held_out=[{"name": "left", "region": region}])
    found = assigned(rows, held_out=[{"name": "left", "region": region, "dataset": "d"}])
    assert found["d", 4] == "test-left"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([{"name": "a"}], "give at least one of dataset"),
        ([{"name": "a", "task": "t"}, {"name": "a", "task": "u"}], "two of them are called 'a'"),
        ([{"name": "A b", "task": "t"}], "held_out.0.name"),
        ([{"name": "a", "region": {"object": "o"}}], "give a range of x"),
        ([{"name": "a", "region": {"object": "o", "x": [2, 1]}}], "lower end"),
        ([{"name": "a", "robot": "t"}], "unknown key 'held_out.0.robot'"),
    ],
)
def test_axes_that_make_no_sense_are_refused(axes, message):
    with pytest.raises(ConfigError, match=message):
        configured(held_out=axes)
