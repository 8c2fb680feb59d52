import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.page_pictures import draw_place
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
    assert "source general all share rows_json 7 7 100.0 % all 7 7 100.0 %" in text
    assert "Splits: train" in text
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
    # Two of a family, the mosaic of seven, a pair side by side, and what the benchmark shows.
    assert sizes == [(238, 179)] * 2 + [(7 * 120 - 2, 118), (2 * 240 + 8, 180), (240, 180)]


@pytest.mark.parametrize(
    ("answer", "inside", "outside"),
    [
        ("(250, 500, 750, 900)", [(50, 70), (150, 70), (100, 50), (100, 90)], [(100, 70), (20, 20)]),
        ("(500, 250)", [(94, 25), (106, 25), (100, 19)], [(100, 25), (50, 25)]),
        ("(750, 900, 250, 500)", [(50, 70), (150, 70)], [(100, 70)]),
    ],
)
def test_answers_are_drawn_where_they_point(answer, inside, outside):
    image = Image.new("RGB", (200, 100), "black")
    assert draw_place(image, answer)
    drawn: np.ndarray = np.asarray(image).any(axis=2)  # type: ignore[assignment]
    assert all(drawn[y, x] for x, y in inside)
    assert not any(drawn[y, x] for x, y in outside)


@pytest.mark.parametrize("answer", ["left", "(1200, 5)", "(1, 2, 3)", "at (500, 250)", ""])
def test_other_answers_are_not_drawn(answer):
    image = Image.new("RGB", (200, 100), "black")
    assert not draw_place(image, answer)
    assert not np.asarray(image).any()


@pytest.mark.usefixtures("drawn_charts")
def test_the_page_shows_what_the_mixture_changed(tmp_path):
    for name, count in (("large", 30), ("small", 3)):
        rows = [{"question": f"What is {name} number {n}?", "answer": f"It is {n}."} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CorpusConfig(
        sources=tuple(
            {"kind": "parquet", "path": str(tmp_path / f"{name}.jsonl"), "name": name, "licence": "mit"}  # type: ignore[misc]
            for name in ("large", "small")
        ),
        output=tmp_path / "out",
        near_duplicates={"text": None},  # type: ignore[arg-type]
        mixture={"per_source": 6},  # type: ignore[arg-type]
    )
    build_corpus(config)
    page = (tmp_path / "out/report.html").read_text()
    assert "33 conversations passed every check; 9 of them make the mixture asked for." in page
    assert "By source." in page
    assert "Without an image" in page
    assert "What it looks like" not in page
