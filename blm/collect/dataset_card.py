"""The `README.md` of a recorded dataset: a data card in the form that the Hugging Face Hub reads.

It follows from the dataset's own metadata alone, so the same dataset has the same card wherever it lies.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import yaml

from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, cause, read_attempts
from blm.pages.markdown import render_markdown
from blm.pages.proportion import wilson_interval
from blm.schemas.episode import (
    ATTEMPTS_FILE,
    EPISODE_METADATA_PREFIX,
    IMAGE_PREFIX,
    INTERVENTION,
    RECORDING_FILE,
)
from blm.schemas.manifest import write_atomically
from blm.schemas.printable import plain_text

CARD_FILE = "README.md"
_MARKER = "<!-- Written by blm whenever a recording ends."
_TEMPLATE = Path(__file__).parent / "templates" / "dataset.md.j2"
_COLUMNS = (
    "task",
    "instruction",
    "operator",
    "success",
    "late_ticks",
    "repeated_frames",
    "jitter_ms",
    "software",
)
_INTERVENTION_SHARE = f"stats/{INTERVENTION}/mean"
_MOST_WORDINGS = 12
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_LARGEST = "10M<n<100M"


def write_dataset_card(root: Path) -> bool:
    """Write the card of the dataset recorded in `root`; one that somebody made their own is left alone.

    The licence that an earlier card states is kept. Returns whether a card was written.
    """
    path = root / CARD_FILE
    earlier = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    if earlier is not None and _MARKER not in earlier:
        return False
    content = dataset_card(root, _licence(earlier or "")).encode()
    if earlier is None or content != earlier.encode():
        write_atomically(path, content)
    return True


def dataset_card(root: Path, licence: str = "") -> str:
    """The text of the card, from the metadata in `root`."""
    info = _json(root / files.INFO_FILE)
    recording = _json(root / RECORDING_FILE)
    episodes = _episodes(root, INTERVENTION in info["features"])
    attempts = read_attempts(root / ATTEMPTS_FILE) if (root / ATTEMPTS_FILE).is_file() else []
    embodiment = recording["embodiment"]
    tasks = sorted({row["task"] for row in episodes} | {attempt.task for attempt in attempts})
    return render_markdown(
        _TEMPLATE,
        {"cell": _cell, "number": lambda value: f"{value:,}", "short": lambda value: f"{value:.3g}"},
        front=_front_matter(info, recording, licence),
        title=f"{embodiment['title']}: {', '.join(tasks)}",
        episodes=info["total_episodes"],
        frames=info["total_frames"],
        minutes=info["total_frames"] / info["fps"] / 60,
        fps=info["fps"],
        codebase_version=info["codebase_version"],
        software=", ".join(sorted({row["software"] for row in episodes} or {recording["software"]})),
        simulated=recording["simulated"],
        variety=recording.get("variety", "none"),
        robot=embodiment["title"],
        robot_name=embodiment["name"],
        axes=embodiment["axes"],
        cameras=_cameras(info["features"]),
        operators=sorted(Counter(row["operator"] for row in episodes).items()),
        licence=licence,
        tasks=[_task_row(task, episodes, attempts, info["fps"]) for task in tasks],
        causes=_ordered(Counter(cause(attempt) for attempt in attempts if not attempt.success)),
        wordings=_ordered(Counter(row["instruction"] for row in episodes)),
        most_wordings=_MOST_WORDINGS,
        taken_over=_taken_over(episodes),
        timing=_timing(episodes),
        features=[_feature_row(key, feature) for key, feature in info["features"].items()],
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _episodes(root: Path, interventions: bool) -> list[dict[str, Any]]:
    """Length and our own facts of each episode, without the prefix of their columns."""
    columns = ["length", *(EPISODE_METADATA_PREFIX + name for name in _COLUMNS)]
    columns += [_INTERVENTION_SHARE] if interventions else []
    rows: list[dict[str, Any]] = []
    group = 0
    while (path := files.episodes_file(root, group)).is_file():
        rows += pq.read_table(path, columns=columns).to_pylist()
        group += 1
    return [{key.removeprefix(EPISODE_METADATA_PREFIX): value for key, value in row.items()} for row in rows]


def _front_matter(info: dict[str, Any], recording: dict[str, Any], licence: str) -> str:
    """The YAML that the Hub reads; LeRobot's own tools look for the tag `LeRobot`."""
    size = next((name for most, name in _SIZES if info["total_frames"] < most), _LARGEST)
    content: dict[str, Any] = {"license": licence} if licence else {}
    content |= {
        "task_categories": ["robotics"],
        "tags": [
            "LeRobot",
            "blm",
            recording["embodiment"]["name"],
            "simulation" if recording["simulated"] else "real-robot",
        ],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _licence(card: str) -> str:
    """What the head of an earlier card says."""
    head = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    try:
        content = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return ""
    licence = content.get("license") if isinstance(content, dict) else None
    return licence if isinstance(licence, str) else ""


def _cameras(features: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    for key, feature in features.items():
        if feature["dtype"] == "video":
            height, width = feature["shape"][:2]
            codec = feature.get("info", {}).get("video.codec", "video")
            found.append(f"{key.removeprefix(IMAGE_PREFIX)} {width}×{height} ({codec})")
    return found


def _task_row(
    task: str, episodes: Sequence[dict[str, Any]], attempts: Sequence[Attempt], fps: float
) -> dict[str, Any]:
    kept = [row for row in episodes if row["task"] == task]
    made = [attempt for attempt in attempts if attempt.task == task]
    succeeded = sum(attempt.success for attempt in made)
    interval = "–"
    if made:
        low, high = wilson_interval(succeeded, len(made))
        interval = f"{100 * low:.0f}–{100 * high:.0f} %"
    return {
        "task": task,
        "episodes": len(kept),
        "failed": sum(not row["success"] for row in kept),
        "attempts": len(made),
        "succeeded": succeeded,
        "interval": interval,
        "seconds": median(row["length"] for row in kept) / fps if kept else 0.0,
    }


def _timing(episodes: Sequence[dict[str, Any]]) -> dict[str, float]:
    jitter = [row["jitter_ms"] for row in episodes]
    return {
        "late": sum(row["late_ticks"] for row in episodes),
        "episodes_late": sum(row["late_ticks"] > 0 for row in episodes),
        "repeated": sum(row["repeated_frames"] for row in episodes),
        "jitter_median": median(jitter) if jitter else 0.0,
        "jitter_most": max(jitter, default=0.0),
    }


def _taken_over(episodes: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    """In how many frames and episodes a person drove in the policy's place; None where nobody could."""
    if not episodes or _INTERVENTION_SHARE not in episodes[0]:
        return None
    frames = [round(row["length"] * row[_INTERVENTION_SHARE][0]) for row in episodes]
    return {"frames": sum(frames), "episodes": sum(count > 0 for count in frames)}


def _feature_row(key: str, feature: dict[str, Any]) -> dict[str, str]:
    names = feature.get("names") or []
    shown = ", ".join(str(name) for name in names[:8]) + (", …" if len(names) > 8 else "")
    return {
        "key": key,
        "dtype": feature["dtype"],
        "shape": " × ".join(str(size) for size in feature["shape"]),
        "names": shown,
    }


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, equals by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _cell(text: Any) -> str:
    """Text inside a Markdown table: one line, no markup of its own."""
    line = " ".join(plain_text(str(text)).split())
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", line)
