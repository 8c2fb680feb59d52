"""Confidence intervals for success rates."""

from __future__ import annotations

from math import sqrt

from blm.schemas.errors import UsageError

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion, both ends within [0, 1].

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        UsageError: trials is not positive, or successes lie outside 0..trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise UsageError(f"{successes} successes in {trials} trials is not a proportion.")
    rate = successes / trials
    denominator = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / denominator
    half = z * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / denominator
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high
