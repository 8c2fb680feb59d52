import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.charts import charts_as_drawn, charts_by_their_numbers


@pytest.fixture(scope="module", autouse=True)
def _charts_by_their_numbers() -> Iterator[None]:
    """For all tests of the curation but those that ask for `drawn_charts`."""
    with charts_by_their_numbers():
        yield


@pytest.fixture
def drawn_charts(_charts_by_their_numbers: None) -> Iterator[None]:
    """Draw the charts of pages in this test."""
    with charts_as_drawn():
        yield


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
