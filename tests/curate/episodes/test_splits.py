import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.episodes.config import Fractions
from blm.curate.episodes.splits import assign_splits, split_of

identities = st.lists(
    st.text("0123456789abcdef", min_size=8, max_size=8), unique=True, min_size=1, max_size=40
)


def splits(names: list[str], seed: int = 0) -> dict[str, str]:
    table = assign_splits(pa.table({"identity": pa.array(names, pa.string())}), seed, Fractions())
    return dict(zip(table["identity"].to_pylist(), table["split"].to_pylist(), strict=True))


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
