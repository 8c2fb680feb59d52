"""A suite of robots and tasks: the same bytes however it was recorded, every attempt accounted for, failures named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blm.collect.attempts import CollectConfig
from blm.collect.suite import SuiteConfig, collect_suite
from blm.collect.suite_report import SuiteSummary, command_line, read_summary
from blm.schemas.errors import ConfigError, DatasetError, OutputExistsError, UnknownNameError, UsageError
from tests.collect.workcell import open_counting

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "robots": ("so100", "panda"),
    "tasks": ("push-cube", "pick-cube"),
    "episodes": 3,
    "image_size": 32,
    "seed": 1,
}


def config(output: Path, **changes: Any) -> SuiteConfig:
    return SuiteConfig.model_validate(SETTINGS | changes | {"output": output})


def record(output: Path, **changes: Any) -> SuiteSummary:
    return collect_suite(config(output, **changes), open_workcell=open_counting)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def attempts(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "attempts.parquet").to_pylist()


class InterruptAt:
    """A progress that presses Ctrl-C when so many episodes are there."""

    def __init__(self, done: int) -> None:
        self.done = done

    def __call__(self, label: str, done: int, total: int, note: str = "") -> None:
        if done == self.done:
            self.done = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite recorded in one go by one worker."""
    output = tmp_path_factory.mktemp("whole") / "suite"
    record(output)
    return output


def test_a_dataset_per_robot_with_every_task_and_one_table_of_attempts(whole: Path):
    summary = read_summary(whole / "suite.json")
    assert summary.complete
    assert [(pair.name, pair.attempts, pair.kept) for pair in summary.pairs] == [
        ("so100 push-cube", 4, 3),
        ("so100 pick-cube", 4, 3),
        ("panda push-cube", 4, 3),
        ("panda pick-cube", 4, 3),
    ]
    rows = attempts(whole)
    assert [(row["robot"], row["task"], row["seed"]) for row in rows] == [
        (robot, task, seed)
        for robot in ("so100", "panda")
        for task in ("push-cube", "pick-cube")
        for seed in (1, 2, 3, 4)
    ]
    for robot in ("so100", "panda"):
        own = pq.read_table(whole / robot / "meta/attempts.parquet").to_pylist()
        assert [{"robot": robot} | row for row in own] == [row for row in rows if row["robot"] == robot]
        info = json.loads((whole / robot / "meta/info.json").read_text())
        assert (info["robot_type"], info["total_episodes"]) == (robot, 6)


def test_the_report_says_what_failed_and_how_to_make_it_again(whole: Path):
    text = (whole / "README.md").read_text()
    assert "| so100 | 75 % (3/4) | 75 % (3/4) | 75 % (6/8) |" in text
    assert (
        "| panda | pick-cube | agent failed: approach: no way past the cube after # tries | 1 | 3 |" in text
    )
    typed = (
        "blm collect suite --robots so100,panda --tasks push-cube,pick-cube --episodes 3 --seed 1 "
        "--image-size 32 --output suite"
    )
    assert command_line(read_summary(whole / "suite.json")) == typed
    assert typed in text
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (whole / name).read_bytes().startswith(b"\x89PNG"), name


def test_two_workers_record_the_same_bytes(whole: Path, tmp_path: Path):
    record(tmp_path / "suite", workers=2)
    assert contents(tmp_path / "suite") == contents(whole)


@pytest.mark.parametrize("moments", [(0,), (2, 3, 7), (6, 11)])
def test_interrupted_and_resumed_equals_uninterrupted(whole: Path, tmp_path: Path, moments: tuple[int, ...]):
    for moment in moments:
        summary = collect_suite(
            config(tmp_path / "suite", resume=True), InterruptAt(moment), open_workcell=open_counting
        )
        assert summary.interrupted
        assert not summary.complete
        assert sum(pair.kept for pair in summary.pairs) in (moment, moment + 1)
        assert "## Not finished" in (tmp_path / "suite/README.md").read_text()
    assert record(tmp_path / "suite", resume=True).complete
    assert contents(tmp_path / "suite") == contents(whole)


def test_a_complete_suite_stays_as_it_is_and_can_grow(whole: Path, tmp_path: Path):
    small = {"robots": ("so100",), "tasks": ("push-cube",)}
    record(tmp_path / "suite", **small, episodes=1)
    before = contents(tmp_path / "suite")
    record(tmp_path / "suite", **small, episodes=1, resume=True)
    assert contents(tmp_path / "suite") == before
    assert record(tmp_path / "suite", resume=True).complete
    assert attempts(tmp_path / "suite") == attempts(whole)


KILLED = """
import sys
from pathlib import Path
from tests.collect.test_suite import record
if __name__ == "__main__":
    record(Path(sys.argv[1]), workers=2, resume=True)
"""


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(whole: Path, tmp_path: Path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    output = tmp_path / "suite"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for committed in (1, 3):
        process = subprocess.Popen([sys.executable, script, output], env=environment, cwd=tmp_path)
        while len(list(output.glob("*/data/*/*.parquet"))) < committed and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not read_summary(output / "suite.json").complete
    record(output, resume=True)
    assert contents(output) == contents(whole)


def open_without_panda_picks(config: CollectConfig) -> Any:
    if (config.robot, config.task) == ("panda", "pick-cube"):
        raise ZeroDivisionError("the gripper is nowhere")
    return open_counting(config)


def test_a_pair_that_fails_is_named_and_does_not_stop_the_others(tmp_path: Path):
    settings = config(
        tmp_path / "suite", episodes=1, seed=3, attempts_per_episode=1, tasks=("pick-cube", "push-cube")
    )
    summary = collect_suite(settings, open_workcell=open_without_panda_picks)
    assert not summary.complete
    assert not summary.interrupted
    by_name = {pair.name: pair for pair in summary.pairs}
    assert by_name["panda pick-cube"].error == "ZeroDivisionError: the gripper is nowhere"
    assert by_name["panda pick-cube"].attempts == 0
    given_up = by_name["so100 push-cube"].error
    assert re.match(r"only 0 of 1 episodes after 1 attempts; most frequent cause: .*no way past", given_up)
    assert by_name["panda push-cube"].attempts == 1
    assert read_summary(tmp_path / "suite/suite.json") == summary
    whole_again = record(
        tmp_path / "suite",
        episodes=1,
        seed=3,
        attempts_per_episode=2,
        tasks=("pick-cube", "push-cube"),
        resume=True,
    )
    assert whole_again.complete


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_without_recording_exactly_the_seeds_asked_for(tmp_path: Path, workers: int):
    summary = record(tmp_path / "suite", record=False, episodes=5, workers=workers)
    assert summary.complete
    assert [pair.attempts for pair in summary.pairs] == [5] * 4
    assert [row["seed"] for row in attempts(tmp_path / "suite")] == [1, 2, 3, 4, 5] * 4
    assert {row["kept"] for row in attempts(tmp_path / "suite")} == {False}
    assert set(contents(tmp_path / "suite")) == {"suite.json", "attempts.parquet", "README.md", "success.png"}
    assert "--no-record" in command_line(summary)


def test_without_recording_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path):
    record(tmp_path / "whole/suite", record=False, episodes=5)
    for moment in (3, 12):
        collect_suite(
            config(tmp_path / "parts/suite", record=False, episodes=5, resume=True),
            InterruptAt(moment),
            open_workcell=open_counting,
        )
    record(tmp_path / "parts/suite", record=False, episodes=5, resume=True)
    assert contents(tmp_path / "whole/suite") == contents(tmp_path / "parts/suite")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, OutputExistsError, "holds a suite already. Add --resume"),
        ({"resume": True, "seed": 5}, DatasetError, "begun with seed 1, not 5"),
        ({"resume": True, "image_size": 64}, DatasetError, "begun with image_size 32, not 64"),
        ({"resume": True, "record": False}, DatasetError, "begun with record true, not false"),
        ({"resume": True, "robots": ("so100",)}, DatasetError, "also has panda at push-cube"),
    ],
)
def test_another_suite_is_left_alone(
    whole: Path, changes: dict[str, Any], error: type[Exception], message: str
):
    before = contents(whole)
    with pytest.raises(error, match=re.escape(message)):
        record(whole, **changes)
    assert contents(whole) == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    for resume in (False, True):
        with pytest.raises(OutputExistsError, match=r"something else than a suite: thesis\.txt"):
            record(tmp_path, resume=resume)
    with pytest.raises(OutputExistsError, match=r"thesis\.txt is a file"):
        record(tmp_path / "thesis.txt")
    assert contents(tmp_path) == {"thesis.txt": b"do not touch"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"robots": ("so100", "pandas")}, UnknownNameError, "panda, so100, widowxai, xarm6, xarm7"),
        ({"tasks": ("pick-cup",)}, UnknownNameError, "Did you mean 'pick-cube'"),
        ({"robots": ("so100", "so100")}, UsageError, "asked for twice"),
        ({"robots": ()}, ConfigError, "robots"),
        ({"operator": "ghost"}, UsageError, "operator 'ghost'"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
):
    from blm.schemas.yaml_model import validate

    with pytest.raises(error, match=message):
        collect_suite(validate(SuiteConfig, SETTINGS | changes | {"output": tmp_path / "suite"}, "test"))
    assert not (tmp_path / "suite").exists()


def test_all_means_every_known_robot_and_task(tmp_path: Path):
    pairs = SuiteConfig(output=tmp_path).pairs()
    assert len(pairs) == 30
    assert len({pair.robot for pair in pairs}) == 5


@pytest.mark.slow
def test_in_simulation_too_workers_change_nothing(tmp_path: Path):
    settings = {"tasks": ("push-cube",), "episodes": 2, "image_size": 64, "seed": 0}
    for workers in (1, 2):
        collect_suite(config(tmp_path / str(workers) / "suite", workers=workers, **settings))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
