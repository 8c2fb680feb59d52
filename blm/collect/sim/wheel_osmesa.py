"""PyOpenGL's OSMesa platform over the libOSMesa of a wheel; PyOpenGL imports this module by name (see headless)."""

from __future__ import annotations

from OpenGL.platform.osmesa import OSMesaPlatform

from blm.collect.sim.headless import load_wheel_osmesa


class WheelOSMesaPlatform(OSMesaPlatform):
    """Finds every function in the library that `load_wheel_osmesa` brought into this process."""

    GL = load_wheel_osmesa()  # pyright: ignore[reportAssignmentType] - a lazy property that is loaded already
