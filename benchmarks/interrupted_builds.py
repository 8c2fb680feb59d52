"""Kill builds of splits at random moments, run them again, and compare every byte with a build left in peace.

A moment is a file operation (opening, renaming, linking, removing) below the output folder, counted: operation n
never happens, the process is gone. So moments within packing, writing tables and putting the build in place are all
met, and the same seed meets the same ones. Two stories: a first build, and an update of a finished one, where the
build that was there must be whole, or be gone with its manifest, whenever the second is killed.

Run: make bench ARGS=benchmarks/interrupted_builds.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir")
STORIES = ("first build", "update")


@dataclass(frozen=True)
class Outcome:
    """What one kill led to. `before` is what the killed build left: 'nothing', 'the old build' or 'no manifest'."""

    story: str
    moment: int
    moments: int
    operation: str
    before: str
    reused: int
    equal: bool


def main() -> None:
    """Ten kills in each story, as a table."""
    with tempfile.TemporaryDirectory() as scratch:
        print(
            f"{'story':12} {'moment':>10}  {'operation':34} {'left behind':14} {'shards reused':>13}  bytes"
        )
        for one in run(Path(scratch), kills=10, seed=0):
            print(
                f"{one.story:12} {one.moment:4} / {one.moments:3}  {one.operation:34} {one.before:14} "
                f"{one.reused:13}  {'equal' if one.equal else 'DIFFERENT'}"
            )


def run(scratch: Path, kills: int, seed: int) -> Iterator[Outcome]:
    """Kill each story's build at so many random moments."""
    from blm.curate.episodes.build import build_splits
    from blm.schemas.manifest import MANIFEST_FILE

    datasets = _datasets(scratch)
    build_splits(_config(scratch / "peace", datasets))
    expected = _contents(scratch / "peace")
    old = scratch / "old"
    build_splits(_config(old, datasets[:1]))
    generator = random.Random(seed)
    for story in STORIES:
        moments = int(_build_apart(_prepared(scratch / f"count {story}", old, story), datasets, 0).split()[0])
        for moment in sorted(generator.sample(range(1, moments + 1), kills)):
            output = _prepared(scratch / f"{story} {moment}", old, story)
            operation = _build_apart(output, datasets, moment)
            left = {name: content for name, content in _contents(output).items() if not name.startswith(".")}
            if MANIFEST_FILE not in left:
                before = "nothing" if story == STORIES[0] else "no manifest"
            else:
                before = "the old build" if left == _contents(old) else "the new build"
                assert left in (_contents(old), expected), f"half a build at moment {moment}"
            reused = build_splits(_config(output, datasets)).reused
            yield Outcome(
                story, moment, moments, operation.strip(), before, reused, _contents(output) == expected
            )


def _datasets(scratch: Path) -> list[Path]:
    from tests.factories import make_dataset

    return [make_dataset(scratch / f"set{n}", episodes=6, frames=16, seed=10 * n) for n in range(2)]


def _config(output: Path, datasets: list[Path]):
    from blm.curate.episodes.config import Fractions, SplitsConfig

    fractions = Fractions(train=0.5, val=0.25, test=0.25)
    return SplitsConfig(
        datasets=tuple(map(str, datasets)),  # type: ignore[arg-type]
        output=output,
        fractions=fractions,
        shard_bytes=60_000,
        workers=2,
    )


def _prepared(output: Path, old: Path, story: str) -> Path:
    """The output folder as the story begins."""
    import shutil

    if story == "update":
        shutil.copytree(old, output)
    return output


def _contents(folder: Path) -> dict[str, bytes]:
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()} | {
        path.name: b"" for path in folder.iterdir() if path.is_dir()
    }


def _build_apart(output: Path, datasets: list[Path], kill_at: int) -> str:
    """Build in a process that dies at the moment asked for; what that was, or, for 0, how many there are."""
    command = [sys.executable, __file__, "--build", str(kill_at), str(output), *map(str, datasets)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert finished.returncode == (-signal.SIGKILL if kill_at else 0), finished.returncode
    return finished.stdout


def _build_and_die(kill_at: int, output: Path, datasets: list[Path]) -> None:
    from blm.curate.episodes.build import build_splits

    below, count = str(output.absolute()), 0

    def count_operation(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in EVENTS or below not in str(arguments[0]):
            return
        count += 1
        if count == kill_at:
            places = [Path(str(one)).name for one in arguments[:2] if below in str(one)]
            os.write(1, f"{event} {' → '.join(places)}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    config = _config(output.absolute(), datasets)
    sys.addaudithook(count_operation)
    build_splits(config)
    os.write(1, f"{count}\n".encode())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        _build_and_die(int(sys.argv[2]), Path(sys.argv[3]), [Path(one) for one in sys.argv[4:]])
    else:
        main()
