"""Servos that report trouble: a warning first, and an end to the motion when it lasts or the servo is too hot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import Field

from blm.collect.robots.servo_line import ANGLE, OVERCURRENT, OVERHEAT, OVERLOAD, describe_status
from blm.schemas.errors import HardwareError
from blm.schemas.yaml_model import FrozenModel


class HealthConfig(FrozenModel):
    """When to warn and when to stop. The servos' own limit is 70 °C; they let go of the load there."""

    warn_c: int = 55
    stop_c: int = 65
    fault_s: float = Field(default=1.0, ge=0, description="a fault that lasts longer ends the motion")
    temperature_period_s: float = Field(default=1.0, gt=0)


class ServoHealth:
    """Follows the status bits and temperatures of one arm's servos.

    A gripper that is overloaded by what it holds only warns: its servo is configured to hold on with a quarter of
    its torque.
    """

    def __init__(
        self, notify: Callable[[str], None], config: HealthConfig | None = None, gripper: str = "gripper"
    ) -> None:
        self.config = config or HealthConfig()
        self._notify = notify
        self._gripper = gripper
        self._since: dict[str, float] = {}
        self._warned: set[tuple[str, str]] = set()

    def check_status(self, status: Mapping[str, int], now_s: float) -> None:
        """Look at status bits by servo name, at a monotonic time.

        Raises:
            HardwareError: a fault has lasted longer than `fault_s`; names the servo and the fault.
        """
        for servo, bits in status.items():
            if bits:
                self._warn(servo, f"servo '{servo}': {describe_status(bits)}.")
            else:
                self._warned.discard((servo, "status"))
            if not bits & self._grave(servo):
                self._since.pop(servo, None)
            elif now_s - self._since.setdefault(servo, now_s) >= self.config.fault_s:
                raise HardwareError(
                    f"servo '{servo}' is {describe_status(bits)} for {self.config.fault_s:g} s.",
                    "The arm holds still. Take the load off and let it cool, then start again.",
                )

    def check_temperatures(self, temperatures_c: Mapping[str, int]) -> None:
        """Look at temperatures by servo name.

        Raises:
            HardwareError: a servo is at `stop_c` or above.
        """
        for servo, celsius in temperatures_c.items():
            if celsius >= self.config.stop_c:
                raise HardwareError(
                    f"servo '{servo}' is at {celsius} °C; the limit is {self.config.stop_c} °C.",
                    "The arm holds still. Let it cool before going on.",
                )
            if celsius >= self.config.warn_c:
                self._warn(servo, f"servo '{servo}' is at {celsius} °C.", "temperature")
            else:
                self._warned.discard((servo, "temperature"))

    def _grave(self, servo: str) -> int:
        mechanical = 0 if servo == self._gripper else OVERLOAD
        return OVERHEAT | ANGLE | OVERCURRENT | mechanical

    def _warn(self, servo: str, message: str, kind: str = "status") -> None:
        """Once per servo and kind, until it is well again."""
        if (servo, kind) not in self._warned:
            self._warned.add((servo, kind))
            self._notify(message)
