"""A policy drives until a person takes over, and again once the person lets go: corrections where they are needed.

The frames in which the person drove are marked, so that training can tell them apart (DAgger): by
`Command.intervention`, and in the recording by their sub-task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from blm.schemas.rollout import Agent, Command, EpisodeStart, Observation

TAKE_OVER = "take-over"
"""Sub-task of the frames in which the person drives."""
POLICY = "policy"
"""Sub-task of the others, where the policy names none itself."""


class TakeOverAgent:
    """`policy` drives; while `person_drives` returns true, `person` does.

    Whoever takes the arm over starts from where it is: agents are reset with the observation of that tick. `watch` is
    told of every tick in which the policy drives.
    """

    def __init__(
        self,
        policy: Agent,
        person: Agent,
        person_drives: Callable[[], bool],
        watch: Callable[[Observation], None] | None = None,
    ) -> None:
        self._policy = policy
        self._person = person
        self._person_drives = person_drives
        self._watch = watch
        self._start: EpisodeStart | None = None
        self._driving = False
        self._interventions = self._ticks = 0

    @property
    def operator(self) -> str:
        return self._policy.operator

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._start = start
        self._driving = False
        self._interventions = self._ticks = 0
        self._policy.reset(start, observation)

    def act(self, observation: Observation) -> Command:
        wanted = self._person_drives()
        if wanted != self._driving and self._start is not None:
            self._driving = wanted
            self._interventions += wanted
            (self._person if wanted else self._policy).reset(self._start, observation)
        if self._driving:
            self._ticks += 1
            return replace(self._person.act(observation), intervention=True, subtask=TAKE_OVER)
        if self._watch is not None:
            self._watch(observation)
        command = self._policy.act(observation)
        return replace(command, subtask=command.subtask or POLICY)

    def metrics(self) -> Mapping[str, Any]:
        return dict(self._policy.metrics()) | {
            "interventions": self._interventions,
            "intervention_ticks": self._ticks,
        }
