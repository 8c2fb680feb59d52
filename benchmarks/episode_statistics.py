"""CPU seconds of normalisation statistics for a million frames of 14 axes, next to stock LeRobot's own.

LeRobot computes statistics per episode and aggregates them (a weighted mean of the episodes' quantiles, which is not
the quantile of the whole); its figure here excludes reading, ours includes it. Both run in this one process on the same
frames. Run: make bench ARGS="benchmarks/episode_statistics.py [FRAMES]"
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from blm.curate.episodes.frame_batches import read_batches  # noqa: E402
from blm.curate.episodes.frames import Columns, Frames  # noqa: E402
from blm.curate.episodes.resources import DEFAULT_RESOURCES  # noqa: E402
from blm.curate.episodes.statistics import TrainingFrames, passed_statistics  # noqa: E402
from tests.large_dataset import EPISODE_FRAMES, rows_of_files, write_dataset  # noqa: E402
from tests.process_memory import peak_mb  # noqa: E402

AXES = 14
EVERY = tuple(range(AXES))
COLUMNS = Columns(state=EVERY, action=EVERY, subtask=False, success=False)


class Source:
    """All frames of a dataset."""

    def __init__(self, root: Path) -> None:
        self.most_rows = rows_of_files(root)

    def __call__[Result](self, consume: Callable[[Iterator[TrainingFrames]], Result]) -> Result:
        def frames(batches: Iterator[Frames]) -> Iterator[TrainingFrames]:
            for one in batches:
                yield TrainingFrames(one.state, one.action, np.unique(one.episode, return_index=True)[1])

        result, _ = read_batches(
            self.most_rows, COLUMNS, DEFAULT_RESOURCES, lambda batches: consume(frames(batches))
        )
        return result


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(frames: int = 1_200_000) -> None:
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats

    with tempfile.TemporaryDirectory() as folder:
        root = write_dataset(Path(folder) / "bench", frames, AXES, file_per_episode=False)
        source = Source(root)
        before = cpu_s()
        ours = passed_statistics(AXES, [source])
        ours_s = cpu_s() - before
        whole = source(lambda batches: [(one.state, one.action) for one in batches])
        state, action = (np.concatenate([pair[which] for pair in whole]) for which in (0, 1))

    before = cpu_s()
    features = {name: {"dtype": "float32", "shape": (AXES,)} for name in ("observation.state", "action")}
    per_episode = [
        compute_episode_stats(
            {
                "observation.state": state[first : first + EPISODE_FRAMES],
                "action": action[first : first + EPISODE_FRAMES],
            },
            features,
        )
        for first in range(0, len(state), EPISODE_FRAMES)
    ]
    theirs = aggregate_stats(per_episode)
    theirs_s = cpu_s() - before
    reference = {
        "mean": state.mean(axis=0, dtype=np.float64),
        "std": state.std(axis=0, dtype=np.float64),
        "q01": np.quantile(state.astype(np.float64), 0.01, axis=0),
        "q99": np.quantile(state.astype(np.float64), 0.99, axis=0),
    }
    spread = np.ptp(state, axis=0)
    report = {
        "frames": len(state),
        "ours_cpu_s": round(ours_s, 2),
        "lerobot_cpu_s": round(theirs_s, 2),
        "ratio": round(theirs_s / ours_s, 1),
        "peak_mb": round(peak_mb()),
        "largest_error_in_ranges": {
            who: {
                name: float(f"{np.max(np.abs(found(name) - expected) / spread):.2g}")
                for name, expected in reference.items()
            }
            for who, found in (
                ("ours", lambda name: np.array(getattr(ours["state"], name))),
                ("lerobot", lambda name: np.asarray(theirs["observation.state"][name])),
            )
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
