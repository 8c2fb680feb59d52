"""LeRobot robots and teleoperators by type: built in or from a third-party plugin, with our options and errors."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any, Literal

from blm.collect.robots.arm import AxisLink, line_of
from blm.collect.robots.calibration import calibration_remedy
from blm.collect.robots.cameras import CameraRequest, with_cameras
from blm.collect.robots.derived import derive_embodiment
from blm.collect.robots.drivers import DRIVERS, Driver
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.errors import HardwareError, MissingExtraError, UnknownNameError, UsageError

PREFIX = "lerobot:"
"""`--robot lerobot:TYPE` means LeRobot's robot of that type, whatever its embodiment."""

_Family = Literal["robots", "teleoperators"]
_PLUGINS = ("lerobot_robot_", "lerobot_camera_", "lerobot_teleoperator_")
_ADDRESSES = ("port", "ip_address", "robot_ip", "ip", "host", "address")
"""What drivers call the option for a serial port or network address."""


@dataclass(frozen=True)
class ChosenRobot:
    """A LeRobot robot that is not connected yet, as our embodiment, and the links between the two."""

    robot: Any
    embodiment: Embodiment
    links: Mapping[str, AxisLink]


def choose_robot(
    name: str,
    *,
    port: str | None = None,
    identifier: str | None = None,
    cameras: Sequence[CameraRequest] = (),
    options: Mapping[str, Any] | None = None,
    embodiment: Embodiment | None = None,
) -> ChosenRobot:
    """The robot that a user means by `so100`, `xarm7`, … or `lerobot:TYPE`.

    Args:
        port: serial port or network address.
        identifier: LeRobot's robot id, which names the calibration file; by default the only one there is.
        options: more options of the driver's configuration.
        embodiment: for `lerobot:TYPE`; by default it is derived from the robot's features and calibration.

    Raises:
        UsageError: no camera, or options that the driver does not know.
        UnknownNameError: no such type; the message lists those there are.
        HardwareError: the driver's package is not installed, or no embodiment can be derived.
        MissingExtraError: LeRobot is not installed.
    """
    driver = _driver(name)
    configuration = _configuration_class("robots", driver)
    if not cameras:
        raise UsageError("a dataset needs pictures.", "Name at least one camera: --camera top=0")
    settings = {**driver.options, **(options or {}), "cameras": {one.name: one.config() for one in cameras}}
    if port is not None:
        settings[_address_option(configuration, driver.kind)] = port
    robot = _opened("robots", configuration, driver.kind, settings, identifier)
    if embodiment is None:
        known = not name.startswith(PREFIX)
        embodiment = load_embodiment(name) if known else derive_embodiment(robot, driver.kind)
    sizes = {key: size for key, size in robot.observation_features.items() if isinstance(size, tuple)}
    return ChosenRobot(
        robot, with_cameras(embodiment, {one.name: sizes[one.name] for one in cameras}), driver.links
    )


def open_teleoperator(
    kind: str,
    port: str | None,
    options: Mapping[str, Any] | None = None,
    identifier: str | None = None,
    *,
    driver: Driver | None = None,
    connect: bool = True,
) -> Any:
    """LeRobot's teleoperator of type `kind` (`so100_leader`, …), its servo line guarded, connected.

    Args:
        port: serial port or network address; None for a type that has none.
        driver: of the robot that it leads, to name the package where the type is missing.

    Raises:
        UnknownNameError, UsageError, MissingExtraError: as `choose_robot`.
        HardwareError: it does not answer, or is not calibrated.
    """
    wanted = Driver(kind, driver.package, install=driver.install) if driver else Driver(kind, "")
    configuration = _configuration_class("teleoperators", wanted)
    settings = dict(options or {}) | ({_address_option(configuration, kind): port} if port else {})
    device = _opened("teleoperators", configuration, kind, settings, identifier)
    line = line_of(device)
    if connect:
        try:
            device.connect(calibrate=sys.stdin.isatty())
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            with contextlib.suppress(OSError, RuntimeError):
                device.disconnect()
            raise HardwareError(
                f"the teleoperator '{kind}' cannot be reached: {str(error).strip().splitlines()[0]}",
                "Check its cable, its power and its port; see --list.",
            ) from error
        if line is not None and not device.is_calibrated:
            device.disconnect()
            raise HardwareError(
                f"the leader and its calibration file {device.calibration_fpath} do not match, or there is no such "
                "file.",
                calibration_remedy(device, "teleop"),
            )
    return device


def open_device(family: _Family, kind: str, options: Mapping[str, Any], identifier: str | None = None) -> Any:
    """A LeRobot robot or teleoperator from its type and options; not connected.

    Raises:
        UnknownNameError, UsageError, HardwareError, MissingExtraError: as `choose_robot`.
    """
    return _opened(family, _configuration_class(family, Driver(kind, "")), kind, options, identifier)


def _opened(
    family: _Family, configuration: Any, kind: str, options: Mapping[str, Any], identifier: str | None
) -> Any:
    device = _build(family, _decoded(configuration, kind, {**options, "id": identifier}))
    if identifier is None:
        files = sorted(device.calibration_dir.glob("*.json"))
        name = files[0].stem if len(files) == 1 else kind
        device = _build(family, _decoded(configuration, kind, {**options, "id": name}))
    return device


def device_kinds(family: _Family) -> list[str]:
    """Every type that can be opened, plugins included."""
    base = _base(family)
    _import_plugins()
    _import_all(family)
    return sorted(base.get_known_choices())


def _driver(name: str) -> Driver:
    """The driver of a robot by our name, by `lerobot:TYPE`, or of an embodiment in a YAML file."""
    if name.startswith(PREFIX):
        return Driver(name.removeprefix(PREFIX), "")
    driver = DRIVERS.get(name)
    if driver is not None:
        return driver
    known = load_embodiment(name)
    if known.driver is not None:
        return Driver(known.driver, known.driver_package or "")
    raise HardwareError(
        f"LeRobot has no driver for the {known.title} of its own; third-party plugins have, each with names and "
        "units of its own.",
        f"Install one (lerobot_robot_franka is one for the Panda), copy blm/schemas/embodiments/{known.name}.yaml "
        "with the plugin's type as 'driver' and its names and units, and use --robot FILE.",
    )


def _address_option(configuration: Any, kind: str) -> str:
    """What a device calls its port or address."""
    names = [one.name for one in dataclasses.fields(configuration)]
    found = next((name for name in _ADDRESSES if name in names), None)
    if found is None:
        raise UsageError(
            f"'{kind}' takes neither a port nor an address.", f"Its options: {', '.join(names)}."
        )
    return found


def _base(family: _Family) -> Any:
    try:
        if family == "robots":
            from lerobot.robots import RobotConfig

            return RobotConfig
        from lerobot.teleoperators import TeleoperatorConfig

        return TeleoperatorConfig
    except ImportError:
        raise MissingExtraError("lerobot", "hardware") from None


def _configuration_class(family: _Family, driver: Driver) -> Any:
    """Look among what is registered, then in plugins, then in all that LeRobot has."""
    base, kind = _base(family), driver.kind
    broken: dict[str, str] = {}
    for register in (lambda: None, lambda: broken.update(_import_plugins()), lambda: _import_all(family)):
        register()
        if kind in base.get_known_choices():
            return base.get_choice_class(kind)
    if driver.package in broken:
        raise HardwareError(
            f"'{driver.package}', which has the driver '{kind}', cannot be imported: {broken[driver.package]}.",
            "Install what it needs.",
        )
    if driver.package:
        raise HardwareError(
            f"the driver '{kind}' is not installed; it is part of '{driver.package}'.",
            f"Install it: {driver.install}" if driver.install else "Install that and try again.",
        )
    raise UnknownNameError(f"LeRobot {family.removesuffix('s')}", kind, base.get_known_choices())


def _import_plugins() -> Mapping[str, str]:
    """Third-party packages register themselves on import. LeRobot overlooks those named with hyphens.

    Returns the packages that cannot be imported, and why.
    """
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    names = {(found.metadata["Name"] or "").replace("-", "_") for found in distributions()}
    broken: dict[str, str] = {}
    for name in sorted(name for name in names if name.startswith(_PLUGINS) and name not in sys.modules):
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = str(error)
            logging.getLogger(__name__).warning("The LeRobot plugin '%s' cannot be imported: %s", name, error)
    return broken


def _import_all(family: _Family) -> None:
    """LeRobot's own types register themselves when their folder is imported; some need libraries of their own."""
    for parent in (family, "cameras"):
        package = importlib.import_module(f"lerobot.{parent}")
        for module in pkgutil.iter_modules(package.__path__):
            if module.ispkg:
                with contextlib.suppress(Exception):
                    importlib.import_module(f"lerobot.{parent}.{module.name}")


def _decoded(configuration: Any, kind: str, options: Mapping[str, Any]) -> Any:
    import draccus

    _register_cameras(options)
    known = [one.name for one in dataclasses.fields(configuration)]
    unknown = [name for name in options if name not in known]
    if unknown and not (unknown == ["cameras"] and not options["cameras"]):
        raise UsageError(f"'{kind}' has no option {', '.join(unknown)}.", f"It has: {', '.join(known)}.")
    try:
        return draccus.decode(configuration, dict(options))
    except Exception as error:
        raise UsageError(
            f"'{kind}' cannot be configured: {' '.join(str(error).split())}",
            f"Its options: {', '.join(known)}.",
        ) from error


def _register_cameras(options: Mapping[str, Any]) -> None:
    from lerobot.cameras import CameraConfig

    wanted = {camera["type"] for camera in options.get("cameras", {}).values()}
    for register in (lambda: importlib.import_module("lerobot.cameras.opencv"), _import_plugins):
        if wanted - set(CameraConfig.get_known_choices()):
            register()


def _build(family: _Family, configuration: Any) -> Any:
    if family == "robots":
        from lerobot.robots.utils import make_robot_from_config as make
    else:
        from lerobot.teleoperators.utils import make_teleoperator_from_config as make
    try:
        return make(configuration)
    except (ValueError, ImportError, OSError) as error:
        raise HardwareError(
            f"'{configuration.type}' cannot be opened: {' '.join(str(error).split())}", ""
        ) from error
