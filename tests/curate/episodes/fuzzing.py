"""Build and examine damaged datasets, one after the other in a child process, and judge what happens.

The oracle: a build ends with conserved counts that `blm doctor` confirms, or in a `BlmError`; it takes bounded time
and memory; nothing but its output changes; done again it ends in the same. No episode whose own files and metadata
are as they were is called unreadable, nor is nothing left then. A child that dies is a violation too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.curate.episodes.hostile_files import MUTATIONS
from tests.process_memory import peak_mb, resident_mb

WALL_LIMIT_S = 300.0
"""A case that takes longer hangs, even on a crowded machine."""

CPU_LIMIT_S, CONVERTED_CPU_LIMIT_S = 20.0, 60.0
GROWTH_LIMIT_MB, CONVERTED_GROWTH_LIMIT_MB = 700, 1500
"""LeRobot's converter loads torch and transformers, and holds a data file in pandas, several times over."""

ADDRESS_SPACE_BYTES = 24 * 2**30
EPISODES, FRAMES = 3, 12

_UNREADABLE = ("unreadable_data", "unreadable_video", "missing_video")
"""Reasons that nothing but an episode's own files and the metadata can give."""

_BUILD_EVERY, _OLDER_EVERY = 12, 100
_AGAIN_EVERY, _DOCTOR_EVERY, _TWO_EVERY = 4, 3, 5


@dataclass
class Case:
    """What was done to which kind of input, and what came of it.

    `result` is 'built', 'refused', 'examined' (a finished build, by the doctor) or 'violation'.
    """

    number: int
    mutations: tuple[str, ...] = ()
    base: str = "recorded"
    result: str = "violation"
    dropped: dict[str, int] = field(default_factory=dict)
    message: str = ""
    violations: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    growth_mb: float = 0.0


def make_bases(folder: Path) -> Path:
    """The clean inputs that cases start from, each of three episodes of twelve frames, two cameras of 32 × 32."""
    from blm.curate.episodes.build import build_splits
    from blm.curate.episodes.config import SplitsConfig
    from tests.curate.episodes.editing import as_stock
    from tests.curate.episodes.older_version import as_v21
    from tests.factories import make_dataset

    recorded = make_dataset(folder / "recorded", episodes=EPISODES, frames=FRAMES, image_size=32)
    make_dataset(folder / "healthy", episodes=2, frames=FRAMES, image_size=32, seed=50)
    stock = as_stock(shutil.copytree(recorded, folder / "stock"))
    info = json.loads((stock / "meta/info.json").read_text())
    for name in ("action", "observation.state"):
        info["features"][name]["names"] = None
    (stock / "meta/info.json").write_text(json.dumps(info))
    as_v21(recorded, folder / "older")
    build_splits(SplitsConfig.model_validate({"datasets": [recorded], "output": folder / "build"}))
    return folder


def run_cases(bases: Path, scratch: Path, seed: int, numbers: range) -> Iterator[Case]:
    """Every case of these numbers, in order; a child that dies or hangs is replaced."""
    waiting = list(numbers)
    while waiting:
        yield from _in_a_child(bases, scratch, seed, waiting)


def _in_a_child(bases: Path, scratch: Path, seed: int, waiting: list[int]) -> Iterator[Case]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(there, bases, scratch, seed, list(waiting)))
    child.start()
    there.close()
    try:
        while waiting:
            number = waiting[0]
            try:
                alive = here.poll(WALL_LIMIT_S)
                case = here.recv() if alive else None
            except EOFError:
                child.join()
                case = Case(number, violations=[f"the process died with exit code {child.exitcode}"])
            waiting.pop(0)
            if case is None:
                yield Case(number, violations=[f"no end after {WALL_LIMIT_S} s"])
                return
            yield case
            if not case.cpu_s:
                return
    finally:
        child.kill()
        child.join()


def _work(pipe: Any, bases: Path, scratch: Path, seed: int, numbers: list[int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    for number in numbers:
        pipe.send(run_case(bases, scratch, seed, number))
    pipe.close()


def run_case(bases: Path, scratch: Path, seed: int, number: int, keep: bool = False) -> Case:
    """Damage a copy of one of the bases and hand it to the code under test, in this process."""
    dice = random.Random(f"{seed}/{number}")
    work = scratch / f"case-{seed}-{number}"
    shutil.rmtree(work, ignore_errors=True)
    case = Case(number)
    root, untouched = _prepare(bases, work, dice, case)
    before = _snapshot(work)
    _forget_peak()
    memory, started = resident_mb(), time.process_time()
    try:
        if case.base == "build":
            _examine(root, case)
        else:
            _build(root, work, dice, case, untouched)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [one for one in traceback.extract_tb(error.__traceback__) if "/blm/" in one.filename]
        case.violations.append(f"{type(error).__name__}: {str(error)[:300]} at {(ours or [place])[-1]}")
    case.cpu_s = max(1e-9, time.process_time() - started)
    case.growth_mb = peak_mb() - memory
    converted = case.base == "older"
    if case.cpu_s > (CONVERTED_CPU_LIMIT_S if converted else CPU_LIMIT_S):
        case.violations.append(f"{case.cpu_s:.0f} s of CPU time")
    if case.growth_mb > (CONVERTED_GROWTH_LIMIT_MB if converted else GROWTH_LIMIT_MB):
        case.violations.append(f"{case.growth_mb:.0f} MB more memory")
    if changed := [name for name in _differences(before, _snapshot(work)) if not name.startswith("out/")]:
        case.violations.append(f"changed or written outside the output: {', '.join(sorted(changed)[:5])}")
    case.result = "violation" if case.violations else case.result
    if not keep:
        shutil.rmtree(work, ignore_errors=True)
    return case


def _prepare(bases: Path, work: Path, dice: random.Random, case: Case) -> tuple[Path, set[int]]:
    """The damaged input, and which of its episodes are whole."""
    if case.number % _OLDER_EVERY == 7:
        case.base = "older"
    elif case.number % _BUILD_EVERY == 5:
        case.base = "build"
    else:
        case.base = dice.choice(("recorded", "recorded", "stock"))
    root = work / "inputs/pushes"
    shutil.copytree(bases / case.base, root)
    whole = _snapshot(root)
    if case.number % _TWO_EVERY == 2:
        shutil.copytree(bases / "healthy", work / "inputs/healthy")
    (work / "outside").mkdir()
    first = next(iter((bases / "healthy").rglob("data/*/*.parquet")))
    shutil.copyfile(first, work / "outside/secret.parquet")
    (work / "out").mkdir()
    names = list(MUTATIONS)
    chosen = [names[case.number % len(names)], *dice.choices(names, k=dice.choice((0, 0, 0, 1, 2)))]
    case.mutations = tuple(chosen)
    for name in chosen:
        if (root / "meta").exists() or case.base == "build":
            MUTATIONS[name](root, dice)
    if case.base in ("older", "build"):  # the files that are read are others
        return root, set()
    return root, _untouched(bases / case.base, _differences(whole, _snapshot(root)))


def _untouched(base: Path, changed: set[str]) -> set[int]:
    """Episodes of whose files and metadata nothing was changed, as paths below the dataset."""
    from tests.curate.episodes.editing import data_file, video_file

    if not all(name.startswith(("data/", "videos/")) for name in changed):
        return set()
    untouched = set()
    for episode in range(EPISODES):
        files = [
            data_file(base, episode),
            *(video_file(base, episode, camera) for camera in ("top", "wrist")),
        ]
        if changed.isdisjoint(file.relative_to(base).as_posix() for file in files):
            untouched.add(episode)
    return untouched


def _build(root: Path, work: Path, dice: random.Random, case: Case, untouched: set[int]) -> None:
    outcome = _built(root, work / "out/build", drawn=case.number % 10 == 0)
    case.result, case.dropped, case.message = outcome["result"], outcome["dropped"], outcome["message"]
    if outcome["result"] == "built":
        case.violations += _lost(root, outcome["inputs"])
        case.violations += _wronged(work / "out/build", root.name, untouched)
        case.violations += [f"doctor on the build: {one}" for one in _problems(work / "out/build")]
    elif untouched and "no episode is left" in case.message:
        case.violations.append(f"episodes {sorted(untouched)} were not touched, but {case.message}")
    if case.number % _AGAIN_EVERY == 1:
        again = _built(root, work / "out/again")
        case.violations += [
            f"done again, another {name}: {outcome[name]!r:.200} / {again[name]!r:.200}"
            for name in outcome
            if again[name] != outcome[name]
        ]
    if case.number % _DOCTOR_EVERY == 0 and case.base != "older":
        _compare_with_doctor(root, work / "out/build", outcome, case)


@contextlib.contextmanager
def _charts(drawn: bool) -> Iterator[None]:
    """Drawing charts takes more time than all the rest of such a small build; it is done in every tenth case."""
    from blm.curate.report import splits_page

    before = {
        name: getattr(splits_page, name) for name in ("density_chart", "histogram_chart", "range_chart")
    }
    try:
        for name in () if drawn else before:
            setattr(splits_page, name, lambda *_: "<svg></svg>")
        yield
    finally:
        for name, chart in before.items():
            setattr(splits_page, name, chart)


def _built(root: Path, output: Path, drawn: bool = False) -> dict[str, Any]:
    """What a build of the datasets in the folder above `root` leads to; raises what it should not."""
    import pyarrow.parquet as pq

    from blm.curate.episodes.build import build_splits
    from blm.curate.episodes.config import SplitsConfig
    from blm.schemas.errors import BlmError

    roots = sorted(path for path in root.parent.iterdir())
    try:
        with _charts(drawn):
            built = build_splits(SplitsConfig.model_validate({"datasets": roots, "output": output}))
    except BlmError as error:
        message = str(error).replace(str(output), "OUT").replace(f".{output.name}.", ".OUT.")
        return {"result": "refused", "message": message, "dropped": {}, "inputs": 0, "digest": ""}
    dropped = pq.read_table(output / "dropped.parquet")["reason"].to_pylist()
    counted = {reason: dropped.count(reason) for reason in sorted(set(dropped))}
    if counted != built.counts.dropped:
        raise AssertionError(f"dropped.parquet holds {counted}, the manifest says {built.counts.dropped}")
    return {
        "result": "built",
        "message": "",
        "dropped": counted,
        "inputs": built.counts.inputs,
        "digest": _digest(output),
    }


def _lost(root: Path, inputs: int) -> list[str]:
    """Whether fewer episodes went in than the datasets announce."""
    announced = 0
    for path in root.parent.glob("*/meta/info.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            total = json.loads(path.read_text())["total_episodes"]
            announced += total if isinstance(total, int) and 0 < total < 100 else 0
    return [f"{announced} episodes are announced, {inputs} were counted"] if inputs < announced else []


def _wronged(output: Path, damaged: str, untouched: set[int]) -> list[str]:
    """Episodes that are called unreadable though nothing of theirs was touched."""
    import pyarrow.parquet as pq

    return [
        f"episode {row['episode']} of {row['dataset']} was not touched, but is left out: {row['reason']} {row['note']}"
        for row in pq.read_table(output / "dropped.parquet").to_pylist()
        if row["reason"] in _UNREADABLE and (row["dataset"] != damaged or row["episode"] in untouched)
    ]


def _compare_with_doctor(root: Path, output: Path, outcome: dict[str, Any], case: Case) -> None:
    import pyarrow.parquet as pq

    from blm.curate.doctor import diagnose
    from blm.schemas.errors import BlmError

    try:
        found = diagnose(root)
    except BlmError:
        if outcome["result"] == "built" and not (root.parent / "healthy").exists():
            case.violations.append("the doctor refuses what is built")
        return
    if outcome["result"] == "built" and not (root.parent / "healthy").exists():
        built = pq.read_table(output / "findings.parquet").select(["episode", "reason", "severity"])
        told = found.findings.select(["episode", "reason", "severity"])
        if built.to_pylist() != told.to_pylist():
            case.violations.append(
                f"the doctor finds {told.to_pylist()!s:.300}, the build {built.to_pylist()!s:.300}"
            )


def _examine(root: Path, case: Case) -> None:
    from blm.curate.doctor import diagnose
    from blm.schemas.errors import BlmError

    try:
        found = diagnose(root, fast=case.number % 2 == 0)
        found.as_json()
        case.result, case.message = "examined", "; ".join(found.problems)
    except BlmError as error:
        case.result, case.message = "refused", str(error)


def _problems(output: Path) -> tuple[str, ...]:
    from blm.curate.doctor import diagnose

    return diagnose(output).problems


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("manifest.json", "README.md", "report.html"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _snapshot(work: Path) -> dict[str, tuple]:
    """Everything below a folder, with what a write would change; links are not followed."""
    found: dict[str, tuple] = {}
    for folder, below, files in os.walk(work):
        for name in (*below, *files):
            path = Path(folder, name)
            status = path.lstat()
            times = () if path.is_dir() and not path.is_symlink() else (status.st_size, status.st_mtime_ns)
            found[path.relative_to(work).as_posix()] = (status.st_mode, status.st_ino, *times)
    return found


def _differences(before: dict[str, tuple], after: dict[str, tuple]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
