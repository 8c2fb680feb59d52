import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.sim.variety import MAX_DISTRACTORS, Variety
from blm.schemas.errors import UsageError

varieties = st.builds(
    Variety,
    lighting=st.booleans(),
    colours=st.booleans(),
    cameras=st.booleans(),
    distractors=st.integers(0, MAX_DISTRACTORS),
)


@given(varieties)
def test_text_round_trip(variety):
    assert Variety.parse(str(variety)) == variety


def test_names_for_everything_and_nothing():
    assert Variety.parse("none") == Variety()
    assert Variety.parse("all") == Variety(lighting=True, colours=True, cameras=True, distractors=3)
    assert Variety.parse("cameras, distractors") == Variety(cameras=True, distractors=3)


@pytest.mark.parametrize(
    "text", ["", "light", "lighting=2", "distractors=4", "distractors=-1", "distractors=²", "all,cameras"]
)
def test_what_is_not_understood(text):
    with pytest.raises(UsageError, match="distractors="):
        Variety.parse(text)
