import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from blm.pages import charts

PAGES = {
    "blm.curate.corpus.page": ("change_chart", "histogram_chart"),
    "blm.curate.report.splits_page": ("density_chart", "histogram_chart", "range_chart"),
}


@pytest.fixture(scope="package", autouse=True)
def _charts_by_their_numbers() -> Iterator[None]:
    """Pages hold a digest of what each chart shows, unless a test asks for `drawn_charts`.

    Drawing takes longer than all the rest of a small build. Pages that differ in their charts still differ.
    """
    with pytest.MonkeyPatch.context() as patch:
        for page, names in PAGES.items():
            for name in names:
                patch.setattr(f"{page}.{name}", _digest_of(name))
        yield


@pytest.fixture
def drawn_charts(_charts_by_their_numbers: None) -> Iterator[None]:
    """Draw the charts of pages in this test."""
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


@pytest.fixture
def mixed_rows(tmp_path: Path) -> Path:
    """300 conversations about 40 images, among them copies, personal data, junk, and media that cannot be used."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(40):
        Image.effect_noise((64 + number, 48), 40 + number).save(folder / f"{number}.jpg")
    (folder / "39.jpg").write_bytes(b"broken")
    answers = (
        "It is number {}.",
        "Write to someone{}@example.com about it.",
        "As an AI language model, I cannot {}.",
    )

    def row(number):
        turns = [
            {"from": "human", "value": f"<image>\nWhat is to be said of picture {number % 250}?"},
            {"from": "gpt", "value": answers[number % 3].format(number % 250)},
        ]
        image = "../outside.jpg" if number % 31 == 0 else f"{number % 40}.jpg"
        return {"image": image, "conversations": turns}

    (folder / "rows.json").write_text(json.dumps([row(number) for number in range(300)]))
    return folder / "rows.json"
