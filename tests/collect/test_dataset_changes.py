"""The last episode marked anew or taken out: killed at any moment, it is as it was or as it shall be, in every file."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blm.collect.dataset_changes import UNFINISHED_FILE
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.hub import push_dataset
from blm.collect.recording import Recording
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import DatasetError
from tests.factories import make_dataset

RECORDING = Recording(load_embodiment("so100").with_image_size(32, 32))

Change = Callable[[DatasetWriter], int]
CHANGES: dict[str, Change] = {
    "failure": lambda writer: writer.relabel_last(False),
    "success": lambda writer: writer.relabel_last(True),
    "discarded": lambda writer: writer.discard_last(),
}


class Killed(BaseException):
    """As SIGKILL: nothing that would clean up after an error runs."""


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written when all is done, and takes most of the time here."""
    monkeypatch.setattr("blm.collect.dataset_writer.write_dataset_card", lambda root: None)


def record(root: Path, ended: bool) -> Path:
    """Two episodes; `ended` is whether the last one succeeded."""
    return make_dataset(root, image_size=32, episodes=2, frames=4, success=[True, ended])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("changes") / "data", ended=False)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def changed(recorded: Path, root: Path, change: Change) -> dict[str, bytes]:
    """What the dataset is after a change that nothing disturbed."""
    shutil.copytree(recorded, root)
    with DatasetWriter.resume(root, RECORDING) as writer:
        change(writer)
    return content(root)


@contextmanager
def dying(patch: pytest.MonkeyPatch, moment: int, death: BaseException) -> Iterator[list[str]]:
    """The process dies when a file is renamed or removed for the `moment`-th time; yields what was touched."""
    touched: list[str] = []

    def until_then(function: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Any, *others: Any, **options: Any) -> None:
            if len(touched) == moment:
                raise death
            touched.append(Path(path).name)
            function(path, *others, **options)

        return wrapped

    with patch.context() as inner:
        if isinstance(death, Killed):
            inner.setattr(DatasetWriter, "_release", lambda writer: writer._lock.close())
        inner.setattr(os, "replace", until_then(os.replace))
        inner.setattr(os, "unlink", until_then(os.unlink))
        yield touched


def killed_at(recorded: Path, root: Path, change: Change, patch: pytest.MonkeyPatch, moment: int) -> bool:
    """Make the change in a fresh copy and die at a moment; False if the change was over before."""
    shutil.copytree(recorded, root)
    writer = DatasetWriter.resume(root, RECORDING)
    try:
        with dying(patch, moment, Killed()):
            change(writer)
    except Killed:
        return True
    finally:
        writer._lock.close()
    return False


@pytest.mark.parametrize(
    ("name", "per_file"),
    [
        ("success", 50),
        ("discarded", 1),
        pytest.param("failure", 50, marks=pytest.mark.slow),
        pytest.param("discarded", 50, marks=pytest.mark.slow),
    ],
)
def test_killed_between_any_two_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, per_file: int
):
    monkeypatch.setattr("blm.collect.dataset_files.EPISODES_PER_FILE", per_file)
    recorded, change = record(tmp_path / "data", ended=name == "failure"), CHANGES[name]
    before, after = content(recorded), changed(recorded, tmp_path / "whole", change)
    assert before != after
    found = []
    for moment in itertools.count():
        root = tmp_path / f"killed-{moment}"
        if not killed_at(recorded, root, change, monkeypatch, moment):
            break
        DatasetWriter.resume(root, RECORDING).close()
        found.append({id(before): "before", id(after): "after"}.get(_which(content(root), before, after)))
    assert found[0] == "before"
    assert set(found[1:]) == {"after"}, "once it is decided, it is done"
    assert len(found) >= 6


def _which(there: dict[str, bytes], *known: dict[str, bytes]) -> int:
    return next((id(one) for one in known if one == there), 0)


@pytest.mark.slow
def test_killed_again_while_the_change_is_finished(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    after = changed(recorded, tmp_path / "whole", CHANGES["success"])
    moments = 0
    for moments in itertools.count():
        root = tmp_path / f"killed-{moments}"
        assert killed_at(recorded, root, CHANGES["success"], monkeypatch, moment=1)
        assert (root / UNFINISHED_FILE).is_file()
        try:
            with dying(monkeypatch, moments, Killed()):
                DatasetWriter.resume(root, RECORDING).close()
        except Killed:
            DatasetWriter.resume(root, RECORDING).close()
            assert content(root) == after
        else:
            break
    assert moments >= 6


def test_what_is_marked_is_marked_everywhere(recorded: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(recorded, root)
    with DatasetWriter.resume(root, RECORDING) as writer:
        assert writer.relabel_last(True) == 1
    episodes = pq.read_table(root / "meta/episodes").to_pylist()
    assert [row["blm/success"] for row in episodes] == [True, True]
    assert episodes[1]["stats/next.success/max"] == [1.0]
    frames = pq.read_table(root / "data/chunk-000/file-001.parquet")["next.success"].to_pylist()
    assert frames == [False] * 3 + [True]
    assert pq.read_table(root / "meta/attempts.parquet")["success"].to_pylist() == [True, True]


def test_after_a_full_disk_nothing_is_recorded_on_top(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An error in the middle, other than a kill, is seen by the one who goes on."""
    root = tmp_path / "data"
    shutil.copytree(recorded, root)
    full = OSError(errno.ENOSPC, "No space left on device")
    with DatasetWriter.resume(root, RECORDING) as writer:
        with dying(monkeypatch, 2, full), pytest.raises(OSError, match="No space left"):
            writer.relabel_last(True)
        with pytest.raises(DatasetError, match="begun and not finished"):
            writer.discard_last()
    monkeypatch.setattr("blm.collect.hub.check_can_push", lambda repository: None)
    with pytest.raises(DatasetError, match="begun and not finished"):
        push_dataset(root, "lab/data")
    DatasetWriter.resume(root, RECORDING).close()
    assert content(root) == changed(recorded, tmp_path / "whole", CHANGES["success"])


def test_a_note_that_nobody_can_read(recorded: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(recorded, root)
    (root / UNFINISHED_FILE).write_text('{"episode": 1, "colour": 1}')
    with pytest.raises(DatasetError, match=r"unfinished\.json cannot be read"):
        DatasetWriter.resume(root, RECORDING)
