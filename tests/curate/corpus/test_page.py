import base64
import io
import json
import re

import pytest
from PIL import Image

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from tests.curate.corpus.test_near_images import encoded, photograph


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    rows = []
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(encoded(photograph(number)))
        turns = [
            {"from": "human", "value": "<image>What is it, left < right & up?"},
            {"from": "gpt", "value": f"Scene {number}"},
        ]
        rows.append({"image": f"{number}.jpg", "conversations": turns})
    (folder / "copy.jpg").write_bytes(encoded(photograph(2), quality=40))
    rows.append({**rows[2], "image": "copy.jpg"})
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "exam.png").write_bytes(encoded(photograph(5), "PNG"))
    (folder / "exam.jsonl").write_text(json.dumps({"question": "Which?", "image": "exam.png"}))
    config = CorpusConfig(
        sources=({"kind": "llava", "path": str(folder / "rows.json"), "licence": "cc0-1.0"},),  # type: ignore[arg-type]
        output=folder / "out",
        near_duplicates={"images": "any_text"},  # type: ignore[arg-type]
        benchmarks=(folder / "exam.jsonl",),
    )
    build_corpus(config)
    return (folder / "out/report.html").read_text()


def test_it_says_what_is_in_and_what_is_out(page):
    text = re.sub(r"<[^>]+>|\s+", " ", re.sub(r"<style.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL))
    text = " ".join(text.split())
    assert "9 conversations in 7 kept 2 left out 7 images 1 sources" in text
    assert "near_duplicate_image 9 8 1 near_duplicate_image 1" in text
    assert "decontaminate 8 7 1 contaminated 1" in text
    assert "rows_json general" in text
    assert "rows_json llava cc0-1.0" in text
    assert "exam 0 image 1.00" in text
    assert "1 conversations in 1 clusters (the largest: 2)" in text


def test_what_data_say_is_shown_and_not_obeyed(page):
    assert "left &lt; right &amp; up?" in page
    assert "left < right" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_pictures_are_whole(page):
    pictures = [base64.b64decode(one) for one in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    sizes = [Image.open(io.BytesIO(one)).size for one in pictures]
    # One of each kind, the mosaic of seven, a pair side by side, and what the benchmark shows.
    assert sizes == [(300, 225), (7 * 160, 120), (2 * 240 + 8, 180), (160, 120)]
