import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from blm.pages.charts import band_chart, line_chart, success_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page


class Collector(HTMLParser):
    """Checks that tags nest, and collects text and image sources."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


def parsed(page: str) -> Collector:
    collector = Collector()
    collector.feed(page)
    assert collector.open == []
    return collector


def test_a_page_is_one_well_formed_file_and_escapes_what_it_is_given(tmp_path):
    picture = tmp_path / "p.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(picture)
    section = Section(
        "Results <1>",
        "a & b",
        Table(("name", "rate"), [("<script>alert(1)</script>", "50 %")], frozenset({1})),
        pictures=[Picture(picture, "a picture")],
        charts=[Chart(line_chart({"loss": ([1, 2], [3.0, 1.0])}, "step", "loss"), "a chart")],
    )
    page = render_page("Title", "lead", [Figure("5", "things")], [section])
    assert "<script>" not in page
    collector = parsed(page)
    assert "<script>alert(1)</script>" in collector.text
    assert all(source.startswith("data:image/png;base64,") for source in collector.images)
    assert not re.search(r'(src|href)="http', page)


def test_charts_are_svg_and_the_same_every_time():
    noisy = np.sin(np.arange(200)).tolist()
    for draw in (
        lambda: line_chart({"a": (range(200), noisy), "b": ([1, 2], [1.0, 2.0])}, "x", "y", log_y=False),
        lambda: band_chart(np.array([0.0, 1.0]), {"joint": np.array([[0.0, 1.0], [2.0, 3.0]])}, "s", "deg"),
        lambda: success_chart([("policy", 0.5, 0.3, 0.7), ("baseline", 0.0, 0.0, 0.2)]),
    ):
        assert draw().startswith("<svg")
        assert draw() == draw()
