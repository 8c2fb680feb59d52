"""Choose how MuJoCo draws where there is no screen, before MuJoCo is imported for it.

| backend | what it needs | remark |
|---|---|---|
| `egl` | `libegl1` and a driver (a GPU's, or Mesa's `libgl1-mesa-dri`) | the only one that can use a GPU |
| `osmesa` | the system's `libosmesa6` | software; as fast as EGL is without a GPU |
| `wheel` | nothing: libOSMesa comes inside the PyPI package `lavavu-osmesa` | the same, Linux on x86-64 only |

They are tried in this order, and all three draw the same pixels. `BLM_RENDERER` forces one of them; a `MUJOCO_GL` set
by the user is respected. Systems other than Linux draw through their own window system, which MuJoCo finds by itself
(`native`). Speeds: `benchmarks/rendering.py`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from blm.schemas.errors import SimulationError, UnknownNameError

BACKENDS = ("egl", "osmesa", "wheel")
WHEEL = "lavavu-osmesa"
PROBE_TIMEOUT_S = 30.0
_REMEDY = (
    "Install one of: the Python package 'lavavu-osmesa' (Linux, x86-64; part of blm[sim]), the system package "
    "'libosmesa6', or 'libegl1' with 'libgl1-mesa-dri' or your GPU's driver."
)

# A context is made the way MuJoCo will make it, in a process of its own: a broken driver may crash rather than answer.
_EGL_PROBE = """
import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p
egl = ctypes.CDLL("libEGL.so.1")
egl.eglGetProcAddress.restype = c_void_p
def function(name, result, *arguments):
    address = egl.eglGetProcAddress(name)
    if not address:
        raise SystemExit(1)
    return ctypes.CFUNCTYPE(result, *arguments)(address)
def attributes(*values):
    return (c_int * (len(values) + 1))(*values, 0x3038)
query_devices = function(b"eglQueryDevicesEXT", c_uint, c_int, POINTER(c_void_p), POINTER(c_int))
platform_display = function(b"eglGetPlatformDisplayEXT", c_void_p, c_uint, c_void_p, c_void_p)
initialize = function(b"eglInitialize", c_uint, c_void_p, c_void_p, c_void_p)
choose_config = function(b"eglChooseConfig", c_uint, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
bind_api = function(b"eglBindAPI", c_uint, c_uint)
create_context = function(b"eglCreateContext", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)
make_current = function(b"eglMakeCurrent", c_uint, c_void_p, c_void_p, c_void_p, c_void_p)
devices, count = (c_void_p * 32)(), c_int()
query_devices(32, devices, byref(count))
PBUFFER_RGBA8_DEPTH24_STENCIL8_OPENGL = attributes(
    0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24, 0x3026, 8, 0x303F, 0x308E, 0x3033, 0x0001, 0x3040, 0x0008)
for device in devices[: count.value]:
    display = platform_display(0x313F, device, None)
    if not display or not initialize(display, None, None):
        continue
    config, found = c_void_p(), c_int()
    choose_config(display, PBUFFER_RGBA8_DEPTH24_STENCIL8_OPENGL, byref(config), 1, byref(found))
    if not found.value or not bind_api(0x30A2):
        raise SystemExit(1)
    context = create_context(display, config, None, None)
    if not context or not make_current(display, None, None, context):
        raise SystemExit(1)
    get_string = function(b"glGetString", c_char_p, c_uint)
    print((get_string(0x1F01) or b"unknown").decode())
    raise SystemExit(0)
raise SystemExit(1)
"""


def prepare_rendering() -> str:
    """Settle MuJoCo's rendering backend for this process and its children; return its name.

    Call it before the first `mujoco.Renderer`, best before `import mujoco` (where MuJoCo picks a backend; if that has
    happened, the choice is made again). The first call takes about 0.1 s, later ones nothing; child processes that
    call it inherit the choice through `MUJOCO_GL`.

    Returns:
        "egl", "osmesa", "wheel" or, where `MUJOCO_GL` says so or off Linux, the name MuJoCo uses or "native".

    Raises:
        SimulationError: no backend works, or the one that `BLM_RENDERER` forces does not.
        UnknownNameError: `BLM_RENDERER` is none of the three.
    """
    return _prepare(os.environ.get("BLM_RENDERER", "").strip().lower())


@cache
def egl_renderer() -> str | None:
    """Name of the device behind EGL ("llvmpipe …" without a GPU), or None if EGL cannot make an OpenGL context."""
    command = [sys.executable, "-I", "-S", "-c", _EGL_PROBE]
    try:
        probe = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return probe.stdout.strip() if probe.returncode == 0 else None


@cache
def has_system_osmesa() -> bool:
    """Whether the loader finds a libOSMesa by its usual names (those that PyOpenGL tries)."""
    return any(_loads(name) for name in ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"))


@cache
def wheel_libraries() -> tuple[Path, ...]:
    """Shared libraries bundled in the wheel, libOSMesa among them; empty if it is not installed."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    paths = [Path(str(file.locate())) for file in files if file.parts[0].endswith(".libs")]
    return tuple(sorted(path for path in paths if path.exists()))


@cache
def load_wheel_osmesa() -> ctypes.CDLL:
    """Load the wheel's libOSMesa into this process, for every library to see.

    The bundled libraries name each other but not the folder they lie in, so each one is loaded once those it needs are.

    Raises:
        SimulationError: the wheel is absent, or a library in it does not load here.
    """
    waiting = list(wheel_libraries())
    osmesa: ctypes.CDLL | None = None
    while waiting:
        refused: list[Path] = []
        reason = ""
        for path in waiting:
            # MuJoCo looks OSMesaGetProcAddress up in the global scope; the rest need not be visible there by itself.
            mode = ctypes.RTLD_GLOBAL if "OSMesa" in path.name else ctypes.RTLD_LOCAL
            try:
                library = ctypes.CDLL(str(path), mode=mode)
            except OSError as error:
                refused.append(path)
                reason = str(error)
            else:
                osmesa = library if "OSMesa" in path.name else osmesa
        if len(refused) == len(waiting):
            raise SimulationError(f"The libraries in '{WHEEL}' do not load: {reason}.", _REMEDY)
        waiting = refused
    if osmesa is None:
        raise SimulationError(
            f"The package '{WHEEL}', which carries a software renderer, is not installed.", _REMEDY
        )
    return osmesa


@cache
def _prepare(forced: str) -> str:
    if forced and forced not in BACKENDS:
        raise UnknownNameError("BLM_RENDERER", forced, BACKENDS)
    if sys.platform != "linux":
        return "native"
    requested = os.environ.get("MUJOCO_GL", "").strip().lower()
    if forced:
        backend = _first_working((forced,), f"BLM_RENDERER={forced}")
    elif requested == "osmesa":
        backend = _first_working(("osmesa", "wheel"), "MUJOCO_GL=osmesa")
    elif requested:
        backend = requested
    else:
        backend = _first_working(BACKENDS, "A renderer for a machine without a screen")
    if backend in BACKENDS:
        _use(backend)
    return backend


def _first_working(backends: Sequence[str], asked_for: str) -> str:
    for backend in backends:
        if _WORKS[backend]():
            return backend
    raise SimulationError(f"{asked_for} was asked for, but it does not work here.", _REMEDY)


_WORKS: dict[str, Callable[[], bool]] = {
    "egl": lambda: egl_renderer() is not None,
    "osmesa": has_system_osmesa,
    "wheel": lambda: bool(wheel_libraries()),
}


def _use(backend: str) -> None:
    mujoco_name = "egl" if backend == "egl" else "osmesa"
    platform = sys.modules.get("OpenGL.platform")
    if platform is not None and not type(platform.PLATFORM).__name__.lower().endswith(
        f"{mujoco_name}platform"
    ):
        raise SimulationError(
            f"Cannot render with '{backend}': this process has loaded OpenGL for another backend already.",
            "Call prepare_rendering() before anything that imports OpenGL.",
        )
    if backend == "wheel":
        load_wheel_osmesa()
        _offer_wheel_to_pyopengl()
    os.environ["MUJOCO_GL"] = mujoco_name
    os.environ["PYOPENGL_PLATFORM"] = mujoco_name
    _choose_again_if_imported()


def _offer_wheel_to_pyopengl() -> None:
    """Put a platform that hands out the loaded library before PyOpenGL's own, which asks the system's loader."""
    from OpenGL.plugins import PlatformPlugin

    PlatformPlugin("osmesa", "blm.collect.sim.wheel_osmesa.WheelOSMesaPlatform")
    PlatformPlugin.registry.insert(0, PlatformPlugin.registry.pop())


def _choose_again_if_imported() -> None:
    """MuJoCo reads `MUJOCO_GL` at import; let its renderer read it again if that came first."""
    gl_context = sys.modules.get("mujoco.rendering.classic.gl_context") or sys.modules.get(
        "mujoco.gl_context"
    )
    if gl_context is not None:
        importlib.reload(gl_context)


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
