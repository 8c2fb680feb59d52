"""How much memory this process takes, by the kernel's own account."""

from __future__ import annotations

from pathlib import Path


def resident_mb() -> float:
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Unlike `ru_maxrss`, which a process takes over from the one that started it."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0
