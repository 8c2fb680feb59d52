"""What a person records, with which arm and which device."""

from __future__ import annotations

from pydantic import Field

from blm.collect.attempts import CollectConfig

HUMAN_OPERATORS = ("leader", "gamepad", "browser")
TELEOPERATOR = "lerobot:"
"""`--operator lerobot:TYPE` is LeRobot's teleoperator of that type, plugins included."""


def is_live(operator: str) -> bool:
    """Whether a person takes part: with a device of theirs, or ready to take over from a policy."""
    return operator in HUMAN_OPERATORS or operator.startswith((TELEOPERATOR, "policy:"))


class LiveCollectConfig(CollectConfig):
    """What a person records, and with what.

    `port` is of a real arm; without one the arm is simulated. `cameras` are 'name=index' of a real arm. `take_over` is
    the person's device while a policy drives.
    """

    tasks: tuple[str, ...] = ()
    port: str | None = None
    leader_port: str | None = None
    cameras: tuple[str, ...] = ()
    bind: str = "127.0.0.1"
    web_port: int = Field(default=0, ge=0, le=65535)
    keys: str = ""
    review: bool = True
    episode_s: float = Field(default=60.0, gt=0)
    reset_s: float | None = Field(default=None, ge=0)
    take_over: str = "browser"

    @property
    def all_tasks(self) -> tuple[str, ...]:
        return self.tasks or (self.task,)

    @property
    def real(self) -> bool:
        """No simulated arm."""
        return self.port is not None or self.robot.startswith("lerobot:")

    @property
    def can_take_over(self) -> bool:
        """A policy drives, and a person may in its place."""
        return self.operator.startswith("policy:")

    @property
    def device(self) -> str:
        """The person's device: the operator itself, or what takes over from a policy."""
        return self.take_over if self.can_take_over else self.operator

    @property
    def teleoperator(self) -> str | None:
        """LeRobot's type of the leader; None: the one that belongs to the robot, or no leader at all."""
        named = self.device.startswith(TELEOPERATOR)
        return self.device.removeprefix(TELEOPERATOR) if named else None
