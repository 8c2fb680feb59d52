"""One broken dataset among good ones: a build is refused with all of them named, or goes on and says so everywhere."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.doctor import diagnose
from blm.curate.episodes import locate
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.inspection import inspect_datasets
from blm.curate.shards import read_shard_table
from blm.schemas.errors import ConfigError, DatasetError, OutputExistsError
from blm.schemas.manifest import read_manifest
from tests.curate.episodes.editing import edit_info, set_motion
from tests.curate.episodes.older_version import as_v21
from tests.curate.episodes.test_build import config, contents
from tests.factories import make_dataset


def _cut_metadata(root: Path) -> None:
    (path,) = root.glob("meta/episodes/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-100])


def _lose_info(root: Path) -> None:
    (root / "meta/info.json").unlink()


def _miscount(root: Path) -> None:
    edit_info(root, lambda info: info.update(total_episodes=7))


BREAKS = {"cut": _cut_metadata, "lost": _lose_info, "miscounted": _miscount}


@pytest.fixture(scope="module")
def pile(tmp_path_factory) -> Path:
    """Two good datasets of two episodes, and one broken in each way."""
    top = tmp_path_factory.mktemp("pile")
    for number, name in enumerate(("good", "better", *BREAKS)):
        root = make_dataset(top / name, episodes=2, frames=16, image_size=32, seed=10 * number)
        for episode in range(2):
            set_motion(root, episode, np.linspace(0, 9 + 2 * number + episode, 16 * 6).reshape(16, 6))
        BREAKS.get(name, lambda _: None)(root)
    return top


@pytest.fixture(scope="module")
def skipped(pile, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("skipped") / "splits"
    build_splits(config(output, pile, broken_datasets="skip"))
    return output


def test_a_build_is_refused_with_every_broken_dataset_named(pile, tmp_path):
    with pytest.raises(DatasetError, match="3 of 5 datasets cannot be used") as caught:
        build_splits(config(tmp_path / "out", pile))
    said = str(caught.value)
    assert "cut: " in said
    assert "is not readable" in said
    assert "lost: " in said
    assert "info.json does not exist" in said
    assert "miscounted: " in said
    assert "announces total_episodes 7" in said
    assert "--broken-datasets skip" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_one_broken_dataset_is_refused_in_its_own_words(pile, tmp_path):
    with pytest.raises(DatasetError, match=r"lost/meta/info.json does not exist") as caught:
        build_splits(config(tmp_path / "out", pile / "good", pile / "lost"))
    assert "--broken-datasets skip" in caught.value.remedy
    with pytest.raises(DatasetError, match=r"lost/meta/info.json does not exist") as alone:
        build_splits(config(tmp_path / "out", pile / "lost", broken_datasets="skip"))
    assert "--broken-datasets" not in alone.value.remedy


def test_where_all_are_broken_there_is_nothing_to_build(pile, tmp_path):
    broken = [pile / name for name in BREAKS]
    with pytest.raises(DatasetError, match="3 of 3 datasets cannot be used") as caught:
        build_splits(config(tmp_path / "out", *broken, broken_datasets="skip"))
    assert "--broken-datasets" not in str(caught.value)


def test_the_others_are_built_and_nothing_is_lost(pile, skipped):
    manifest = read_manifest(skipped)
    assert [one.name for one in manifest.inputs] == ["better", "good"]
    assert manifest.counts.inputs == 4 == manifest.counts.kept + sum(manifest.counts.dropped.values())
    told = {one.name: one for one in manifest.skipped}
    assert sorted(told) == sorted(BREAKS)
    assert {name: one.episodes for name, one in told.items()} == {"cut": 2, "lost": 2, "miscounted": 7}
    assert told["lost"].path == str(pile / "lost")
    assert "announces total_episodes 7, meta/episodes holds 2" in told["miscounted"].problem
    rows = pq.read_table(skipped / "dropped.parquet").to_pylist()
    assert Counter(row["reason"] for row in rows) == {"broken_dataset": 3, **manifest.counts.dropped}
    for row in rows:
        if row["reason"] == "broken_dataset":
            assert (row["episode"], row["note"].startswith(told[row["dataset"]].problem)) == (None, True)
    assert diagnose(skipped).problems == ()


def test_an_unknown_number_of_episodes_is_called_unknown(pile, tmp_path):
    ruin = tmp_path / "pile/ruin"
    (ruin / "meta").mkdir(parents=True)
    (ruin / "meta/info.json").write_text("{")
    (tmp_path / "pile/unmounted").symlink_to("/nowhere/dataset")
    summary = build_splits(config(tmp_path / "out", pile / "good", tmp_path / "pile", broken_datasets="skip"))
    assert {one.name: one.episodes for one in summary.skipped} == {"ruin": None, "unmounted": None}
    assert "| ruin | unknown |" in (tmp_path / "out/README.md").read_text()


def test_card_and_page_say_what_is_not_in_the_build(skipped):
    card, page = ((skipped / name).read_text() for name in ("README.md", "report.html"))
    assert "## Datasets left out" in card
    assert "| miscounted | 7 |" in card
    assert "Datasets left out" in page
    assert "broken datasets left out" in page
    assert "announces total_episodes 7" in page


def test_a_skipped_dataset_changes_nothing_about_the_others(pile, skipped, tmp_path):
    build_splits(config(tmp_path / "clean", pile / "good", pile / "better"))
    clean, without = contents(tmp_path / "clean"), contents(skipped)
    shards = [row.name for row in read_shard_table(skipped)]
    assert {name: without[name] for name in shards} == {name: clean[name] for name in shards}
    assert "skipped" not in json.loads(clean["manifest.json"])
    assert b"Datasets left out" not in clean["README.md"] + clean["report.html"]


def test_again_it_is_the_same_build_until_what_is_broken_changes(pile, tmp_path):
    asked = config(tmp_path / "out", pile / "good", pile / "lost", broken_datasets="skip")
    first = build_splits(asked)
    before = contents(tmp_path / "out")
    assert build_splits(asked).reused == first.shards
    assert contents(tmp_path / "out") == before
    another = config(tmp_path / "out", pile / "good", pile / "lost", pile / "cut", broken_datasets="skip")
    assert [one.name for one in build_splits(another).skipped] == ["cut", "lost"]


def test_a_dataset_that_breaks_does_not_leave_an_earlier_build_unasked(pile, tmp_path):
    root = make_dataset(tmp_path / "later", episodes=2, frames=16, image_size=32, seed=77)
    build_splits(config(tmp_path / "out", pile / "good", root))
    _lose_info(root)
    asked = config(tmp_path / "out", pile / "good", root, broken_datasets="skip")
    with pytest.raises(OutputExistsError, match="a build that also has later"):
        build_splits(asked)
    summary = build_splits(asked.model_copy(update={"overwrite": True}))
    assert [one.name for one in summary.skipped] == ["later"]


def test_what_cannot_be_converted_is_skipped_too(pile, tmp_path, monkeypatch):
    old = as_v21(pile / "good", tmp_path / "old")

    def refuse(root, _):
        raise DatasetError(f"{root} cannot be converted by LeRobot's converter.", "Mend it.")

    monkeypatch.setattr(locate, "convert_dataset", refuse)
    summary = build_splits(config(tmp_path / "new/out", pile / "better", old, broken_datasets="skip"))
    assert [(one.name, "converter" in one.problem) for one in summary.skipped] == [("old", True)]


def test_a_mistake_of_the_user_is_never_skipped(pile, tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        build_splits(config(tmp_path / "out", pile / "good", tmp_path / "nowhere", broken_datasets="skip"))
    with pytest.raises(ConfigError, match="listed twice"):
        build_splits(config(tmp_path / "out", pile / "good", pile / "good", broken_datasets="skip"))


def test_inspecting_shows_the_others_and_names_them(pile, tmp_path):
    found = inspect_datasets(config(tmp_path / "out", pile))
    assert [(one.name, bool(one.problem)) for one in found] == [
        ("better", False),
        ("cut", True),
        ("good", False),
        ("lost", True),
        ("miscounted", True),
    ]
    shown = CliRunner().invoke(app, ["curate", "inspect", str(pile)])
    assert shown.exit_code == 1
    assert "3 of 5 datasets cannot be used" in shown.output
    assert "better: 2 episodes" in shown.output
    with pytest.raises(DatasetError, match="announces total_episodes"):
        inspect_datasets(config(tmp_path / "out", pile / "miscounted"))


def test_the_terminal_says_it_and_so_does_json(pile, tmp_path):
    command = ["curate", "build-splits", str(pile), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    shown = CliRunner().invoke(app, [*command, "--broken-datasets", "skip"])
    assert shown.exit_code == 0, shown.output
    assert "left out: miscounted, 7 announced episodes: " in shown.output
    again = CliRunner().invoke(app, [*command, "--broken-datasets", "skip", "--json"])
    assert [one["name"] for one in json.loads(again.stdout)["skipped"]] == sorted(BREAKS)
    wrong = CliRunner().invoke(app, [*command, "--broken-datasets", "ignore"])
    assert wrong.exit_code == 2
