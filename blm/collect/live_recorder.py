"""Records live: beside a control loop that keeps its rate, with the next episode ready when one ends.

    on_step ─▶ LiveEpisodeWriter ─▶ encoder threads
    on_end  ─▶ saving thread: flush the encoders ─▶ commit to the dataset        (while the next episode may run)

One thread saves, in the order in which episodes ended; discarding and marking what is saved already go through it too.
What goes wrong there is raised in the control thread at the next tick, and nothing saved before is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from blm.collect.dataset_files import STAGING_FOLDER, data_table
from blm.collect.episode_part import EpisodeTiming, judged
from blm.collect.live_episode import LiveEpisodeWriter
from blm.collect.recorder import Recorded, Recorder, episode_metadata
from blm.collect.recording import Recording
from blm.collect.rollout import STOPPED
from blm.collect.video import VideoConfig
from blm.schemas.episode import EpisodeMetadata
from blm.schemas.errors import BlmError, DatasetError
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Step

LIVE_VIDEO = VideoConfig(preset="superfast", queue_frames=60)
"""Two cameras of 640×480 at 30 Hz take about half a core; a picture may wait two seconds for its encoder."""

PATIENCE_S = 1.0
SETTLE_S = 0.3
NEEDED_FREE_BYTES = 100_000_000
_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True)
class LiveStatistics:
    """Where a live recording stands.

    Attributes:
        episodes: in the dataset.
        saving: ended, but not in the dataset yet.
        recording: whether an episode is running.
        timing: of that one, or of the last one.
        waiting_frames: camera → pictures that wait for the encoder.
        last: what was stored of the last episode saved.
    """

    episodes: int
    saving: int
    recording: bool
    timing: EpisodeTiming
    waiting_frames: Mapping[str, int]
    last: EpisodeMetadata | None


@dataclass(frozen=True)
class _Ended:
    start: EpisodeStart
    end: EpisodeEnd
    episode: LiveEpisodeWriter


class LiveRecorder:
    """Subscriber that records a paced control loop into a dataset; close it, or use it as a context.

    An episode is kept if the task's criteria held at its end, if a person said so (`keep`, `mark`), or, with
    `keep_failures`, if it ended by itself. One stopped from outside without a word, as by an error, leaves nothing.
    All methods are to be called from the control thread.
    """

    def __init__(
        self,
        root: Path,
        recording: Recording,
        *,
        keep_failures: bool = True,
        resume: bool = False,
        review: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Create the dataset in `root`, or take it up again with `resume`; `LIVE_VIDEO` suits most recordings.

        With `review`, every episode that ends is held back until `decide` says whether it is kept.

        An episode is given up when a camera has had no fresh picture for `patience_s`.

        Raises:
            OutputExistsError: `root` holds something and `resume` is false, or another process writes there.
            DatasetError: with `resume`, there is no dataset or it was recorded differently.
        """
        self._recorder = Recorder(root, recording, resume=resume)
        self._root = root
        self._recording = recording
        self._keep_failures = keep_failures
        self._patience_s = patience_s
        self._review = review
        self._started = 0
        self._held: _Ended | None = None
        self._ended = self._dealt_with = 0  # each is counted by one thread
        self._kept = [attempt.task for attempt in self._recorder.writer.attempts if attempt.kept]
        self._start: EpisodeStart | None = None
        self._episode: LiveEpisodeWriter | None = None
        self._shown: LiveEpisodeWriter | None = None
        self._wanted = False
        self._verdict: bool | None = None
        self._last: EpisodeMetadata | None = None
        self._failure: BaseException | None = None
        self._told = False
        self._found = self._recorder.writer.episodes
        self._saving = _SavingThread()
        self._saving.submit(
            lambda: data_table({"first": np.zeros(1)})
        )  # Arrow loads pandas, a second, at its first
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(
            _SWITCH_INTERVAL_S
        )  # a thread that saves hands over before the next tick is due

    @property
    def episodes(self) -> int:
        """In the dataset by now."""
        return self._recorder.writer.episodes

    def on_start(self, start: EpisodeStart) -> None:
        """Raises DatasetError if saving has failed or the disk is nearly full."""
        self._raise_failure()
        free = shutil.disk_usage(self._root).free
        if free < NEEDED_FREE_BYTES:
            raise DatasetError(
                f"only {free // 1_000_000} MB are free where {self._root} is; what it holds is safe.",
                "Make room, then continue with --resume.",
            )
        self._discard_running()
        self._started += 1
        folder = self._root / STAGING_FOLDER / f"episode-{self._started}"
        self._start, self._wanted, self._verdict = start, False, None
        self._episode = self._shown = LiveEpisodeWriter(folder, self._recording, self._patience_s)

    def on_step(self, step: Step) -> None:
        """Raises DatasetError where the episode cannot be kept, or an earlier one could not be saved."""
        self._raise_failure()
        if self._episode is not None:
            self._episode.add(step)

    def on_end(self, end: EpisodeEnd) -> None:
        """Hand the episode to the saving thread; most are saved when this returns, in a third of a second at most.

        With `review` the episode is held back instead, until `decide`.
        """
        start, episode = self._start, self._episode
        self._start = self._episode = None
        if start is None or episode is None:
            return
        episode.end()
        if self._review:
            self._held = _Ended(start, end, episode)
            return
        success = end.success if self._verdict is None else self._verdict
        stopped = end.reason == STOPPED and not (self._wanted or success)
        keep = not stopped and (success or self._wanted or self._keep_failures)
        self._hand_over(_Ended(start, end, episode), keep=keep, success=success, noted=not stopped)

    def decide(self, kept: bool, success: bool) -> None:
        """Keep the episode that ended last, or forget it (with `review`); success is what the person says.

        Raises:
            DatasetError: saving an earlier one has failed.
        """
        held, self._held = self._held, None
        if held is not None:
            self._hand_over(held, keep=kept, success=success, noted=kept)
        self._raise_failure()

    def keep(self) -> None:
        """The running episode is to be kept however it ends."""
        self._wanted = True

    def mark(self, success: bool) -> None:
        """A person's verdict: on the running episode, which is then kept, or else on the last one saved.

        Raises:
            DatasetError: no episode runs and this session has saved none.
        """
        if self._episode is not None:
            self._wanted, self._verdict = True, success
            return
        if not self._of_this_session(lambda: self._recorder.writer.relabel_last(success)):
            raise DatasetError("this session has not saved an episode.", "Record one first.")
        if self._last is not None:
            self._last = dataclasses.replace(self._last, success=success)

    def discard_last(self) -> bool:
        """Take the episode saved last out of the dataset again; False if this session has saved none.

        To be called between episodes: it waits for what is still being saved.

        Raises:
            DatasetError: an episode is running.
        """
        if self._episode is not None:
            raise DatasetError("an episode is running.", "End it before discarding the last one.")
        discarded = self._of_this_session(self._recorder.writer.discard_last)
        if discarded:
            self._kept.pop()
        return discarded

    @property
    def kept(self) -> Mapping[str, int]:
        """Episodes in the dataset, or on their way into it, by task."""
        return Counter(self._kept)

    def statistics(self) -> LiveStatistics:
        """Where the recording stands now; cheap enough to be asked several times a second."""
        shown = self._shown
        return LiveStatistics(
            episodes=self.episodes,
            saving=self._ended - self._dealt_with,
            recording=self._episode is not None,
            timing=self.timing(),
            waiting_frames=shown.waiting_frames if shown is not None else {},
            last=self._last,
        )

    def timing(self) -> EpisodeTiming:
        """Of the running episode, or else of the last one."""
        return EpisodeTiming() if self._shown is None else self._shown.timing()

    def close(self) -> None:
        """Save what has ended, drop what is running, let go of the dataset; harmless when called twice.

        Raises:
            DatasetError: an episode could not be saved, and nobody was told yet.
        """
        self._discard_running()
        self._saving.close()
        sys.setswitchinterval(self._switch_interval)
        try:
            self._recorder.close()
        except OSError as error:
            self._failure = self._failure or error
        if not self._told:
            self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except BlmError:
            if kind is None:  # otherwise something that came before is being raised already
                raise

    def _hand_over(self, ended: _Ended, *, keep: bool, success: bool, noted: bool) -> None:
        """Let the saving thread deal with an episode; give it a moment, in which most are done."""
        keep = keep and ended.episode.frames > 0
        if keep:
            self._kept.append(ended.start.task.name)
        self._ended += 1
        saved = self._saving.submit(lambda: self._save(ended, keep=keep, success=success, noted=noted))
        with contextlib.suppress(TimeoutError):
            saved.result(SETTLE_S)

    def _save(self, ended: _Ended, *, keep: bool, success: bool, noted: bool) -> None:
        """What the saving thread does about an episode that has ended."""
        try:
            part = None
            if keep and self._failure is None:
                part = ended.episode.finish()
                if success != ended.end.success:
                    part = dataclasses.replace(part, columns=judged(part.columns, success))
            else:
                ended.episode.discard()
            if noted and self._failure is None:
                end = dataclasses.replace(ended.end, success=success)
                recorded = Recorded(episode_metadata(ended.start, end, part), end, part)
                if self._recorder.commit(recorded):
                    self._last = recorded.metadata
        except BaseException as error:
            self._failure = self._failure or error
            ended.episode.discard()
        finally:
            self._dealt_with += 1

    def _of_this_session(self, change: Callable[[], int]) -> bool:
        """Change the episode saved last, after what is being saved, and wait for it; False if there is none."""

        def run() -> bool:
            there = self._failure is None and self.episodes > self._found
            try:
                if there:
                    change()
            except Exception as error:
                self._failure = error
            return there

        found = self._saving.submit(run).result()
        self._raise_failure()
        return found

    def _discard_running(self) -> None:
        running, self._episode, self._start = self._episode, None, None
        held, self._held = self._held, None
        for episode in (running, held.episode if held is not None else None):
            if episode is not None:
                episode.end()
                self._saving.submit(episode.discard)

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is None:
            return
        self._told = True
        detail = failure.message if isinstance(failure, BlmError) else str(failure)
        raise DatasetError(
            f"an episode could not be saved: {detail.rstrip('.')}. What {self._root} holds is safe: episodes 0 to "
            f"{self.episodes - 1}."
            if self.episodes
            else f"the first episode could not be saved: {detail.rstrip('.')}.",
            "Mend the cause, then continue with --resume.",
        ) from failure


class _SavingThread:
    """Runs work one after the other, in the order it was handed in."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="save episodes", daemon=True)
        self._thread.start()

    def submit[Result](self, work: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._work.put(run)
        return future

    def close(self) -> None:
        """Wait until all is done."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (run := self._work.get()) is not None:
            run()
