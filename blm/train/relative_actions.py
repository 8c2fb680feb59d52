"""Action chunks as differences from the state they start at, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RelativeActions:
    """Arm axes relative to the window's state; grippers stay absolute, since opening and closing is what they do.

    Attributes:
        gripper_index: the gripper's axis per embodiment.
    """

    gripper_index: Sequence[int]

    def relative(self, action: np.ndarray, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """Absolute chunks (B, H, A) and states (B, A), axis units → differences (B, H, A) float32; embodiment (B,)."""
        return (action.astype(np.float64) - self._base(state, embodiment)).astype(np.float32)

    def absolute(self, action: np.ndarray, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        """The inverse of `relative`, to float32's rounding."""
        return (action.astype(np.float64) + self._base(state, embodiment)).astype(np.float32)

    def _base(self, state: np.ndarray, embodiment: np.ndarray) -> np.ndarray:
        base = state.astype(np.float64)
        base[np.arange(len(base)), np.asarray(self.gripper_index)[embodiment]] = 0.0
        return base[:, None]
