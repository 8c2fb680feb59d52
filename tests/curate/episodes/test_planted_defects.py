from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blm.curate.doctor import diagnose
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig
from blm.curate.episodes.reasons import REASONS, RULES
from tests.curate.episodes.planting import EPISODE, LENGTHS, PLANTS, clean_dataset, planted

DEFECTS = [*PLANTS, *LENGTHS]
SEEN = {"unreadable_video", "black_frames", "frozen_frames", "blurred_frames"}
"""What shows in pictures only; the rest is looked for without decoding, which takes most of the time."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return clean_dataset(tmp_path_factory.mktemp("clean") / "pushes")


def test_there_is_a_defect_for_every_reason():
    assert {defect.split()[0] for defect in DEFECTS} == set(REASONS)


def test_nothing_is_found_on_a_clean_dataset(clean):
    found = diagnose(clean)
    assert (found.findings.to_pylist(), found.problems, found.exit_code(strict=True)) == ([], (), 0)


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_planted_defect_is_found_where_it_is_and_nothing_else(defect, clean, tmp_path):
    reason = defect.split()[0]
    found = diagnose(planted(clean, tmp_path / "pushes", defect), fast=reason not in SEEN)
    further = LENGTHS[defect][1] if defect in LENGTHS else set()
    told = {(row["episode"], row["reason"]) for row in found.findings.to_pylist()}
    assert told == {(EPISODE, one) for one in {reason, *further}}
    assert found.exit_code() == (RULES[reason].severity == "drop")
    assert found.exit_code(strict=True) == 1


@pytest.mark.parametrize("defect", ["black_frames", "unreadable_video (too short)", "constant_axis"])
def test_a_build_drops_what_the_doctor_finds_and_writes_down_all_findings(defect, clean, tmp_path):
    root = planted(clean, tmp_path / "pushes", defect)
    found = diagnose(root).findings
    build_splits(SplitsConfig.model_validate({"datasets": [root], "output": tmp_path / "out"}))
    assert pq.read_table(tmp_path / "out/findings.parquet").equals(found)
    dropped = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert [(row["episode"], row["reason"]) for row in dropped] == [(EPISODE, defect.split()[0])]
