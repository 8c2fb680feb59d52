import pytest

from benchmarks.interrupted_builds import STORIES, run


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_charts")
def test_builds_killed_at_any_moment_end_in_the_same_bytes(tmp_path):
    outcomes = list(run(tmp_path, kills=10, seed=1))
    assert len(outcomes) == 10 * len(STORIES)
    assert all(one.equal for one in outcomes)
    left = {one.before for one in outcomes if one.story == "update"}
    assert {"the old build", "no manifest"} <= left
