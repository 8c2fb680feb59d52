"""What stands for the charts of pages where a test is about something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from blm.pages import charts

PAGES = {
    "blm.curate.corpus.page": ("change_chart", "histogram_chart"),
    "blm.curate.report.splits_page": ("density_chart", "histogram_chart", "range_chart"),
}


@contextmanager
def charts_by_their_numbers() -> Iterator[None]:
    """Pages of builds hold a digest of what each chart shows.

    Drawing takes longer than all the rest of a small build. Pages that differ in their charts still differ.
    """
    with pytest.MonkeyPatch.context() as patch:
        for page, names in PAGES.items():
            for name in names:
                patch.setattr(f"{page}.{name}", _digest_of(name))
        yield


@contextmanager
def charts_as_drawn() -> Iterator[None]:
    """Inside the other: the charts themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for page, names in PAGES.items():
            for name in names:
                patch.setattr(f"{page}.{name}", getattr(charts, name))
        yield


def _digest_of(chart: str) -> Callable[..., str]:
    def digest(*shown: object, **more: object) -> str:
        numbers = json.dumps([shown, more], default=lambda values: values.tolist())
        return f'<svg class="{chart}"><desc>{hashlib.sha256(numbers.encode()).hexdigest()}</desc></svg>'

    return digest
