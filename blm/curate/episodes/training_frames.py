"""The frames that a build trains on, read from Parquet alone, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from blm.curate.episodes.footers import most_rows_of_files
from blm.curate.episodes.frame_batches import read_batches
from blm.curate.episodes.frames import Frames
from blm.curate.episodes.resources import Resources
from blm.curate.episodes.segment import Segment, frames_of_segment
from blm.curate.episodes.statistics import TrainingFrames


@dataclass(frozen=True)
class DatasetFrames:
    """A source of the frames of some segments of one dataset, trimmed and strided as they are packed."""

    segments: Sequence[Segment]
    resources: Resources

    def __call__[Result](self, consume: Callable[[Iterator[TrainingFrames]], Result]) -> Result:
        dataset = self.segments[0].dataset
        files = {segment.row["data_file"] for segment in self.segments}
        episodes = dataset.episodes.filter(pc.field("data_file").isin(files))
        most_rows = most_rows_of_files(episodes["data_file"].to_pylist(), episodes["length"].to_pylist())
        segment_of = {segment.row["episode"]: segment for segment in self.segments}

        def chosen(batches: Iterator[Frames]) -> Iterator[TrainingFrames]:
            return (part for frames in batches if (part := _chosen(frames, segment_of)) is not None)

        return read_batches(
            most_rows, dataset.columns, self.resources, lambda batches: consume(chosen(batches))
        )[0]


def frame_sources(segments: Sequence[Segment], resources: Resources) -> list[DatasetFrames]:
    """A source per dataset."""
    of_dataset: dict[str, list[Segment]] = {}
    for segment in segments:
        of_dataset.setdefault(segment.dataset.name, []).append(segment)
    return [DatasetFrames(tuple(members), resources) for _, members in sorted(of_dataset.items())]


def _chosen(frames: Frames, segment_of: Mapping[int, Segment]) -> TrainingFrames | None:
    episodes, begins, _ = frames.episodes()
    states, actions, starts, count = [], [], [], 0
    for episode, begin in zip(episodes.tolist(), begins.tolist(), strict=True):
        if (segment := segment_of.get(episode)) and segment.frames:
            kept, sent = frames_of_segment(segment)
            states.append(begin + kept)
            actions.append(begin + sent)
            starts.append(count)
            count += len(kept)
    if not count:
        return None
    state, action = frames.state[np.concatenate(states)], frames.action[np.concatenate(actions)]
    return TrainingFrames(state, action, np.array(starts))
