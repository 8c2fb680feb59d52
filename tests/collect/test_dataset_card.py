"""The data card of a recording: true to its metadata, readable by the Hub, careful with what people wrote."""

import re

import pytest
import yaml

from blm.collect.attempts_table import Attempt
from blm.collect.dataset_card import CARD_FILE, dataset_card, write_dataset_card
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.recording import Recording
from blm.schemas.embodiment import load_embodiment
from tests.factories import make_dataset


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = tmp_path_factory.mktemp("card") / "data"
    make_dataset(
        root,
        task=["push-cube", "push-cube", "pick-cube"],
        frames=[20, 30, 40],
        success=[True, True, False],
        image_size=32,
    )
    robot = load_embodiment("so100").with_image_size(32, 32)
    with DatasetWriter.resume(root, Recording(robot)) as writer:
        for number in range(2):
            writer.log_attempt(
                Attempt(3 + number, 9, "push-cube", False, False, -1, 7, f"no path after {number} tries <b>")
            )
    return root


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def table_row(text, first):
    (line,) = re.findall(rf"^\| {re.escape(first)} \|.*$", text, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_recording_ends_with_a_card_that_counts_right(recording):
    text = (recording / CARD_FILE).read_text()
    assert "# SO-100: pick-cube, push-cube" in text
    assert "3 episodes, 90 frames" in text
    assert table_row(text, "push-cube")[1:5] == ["2", "0", "4", "2"]
    assert table_row(text, "pick-cube")[1:5] == ["1", "1", "1", "0"]
    assert table_row(text, "operator")[1] == "planner: 3"
    assert r"| 2 | no path after # tries \<b\> |" in text, "like causes count together, and markup is text"
    assert "0 of 90" in table_row(text, "control ticks more than half a period late")
    assert "`observation.images.wrist` | video | 32 × 32 × 3" in text


def test_the_hub_can_read_its_head(recording):
    head = front_matter((recording / CARD_FILE).read_text())
    assert head == {
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "blm", "so100", "simulation"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }


def test_the_hubs_own_parser_takes_it(recording):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(recording / CARD_FILE)
    assert card.data.task_categories == ["robotics"]
    assert "LeRobot" in card.data.tags


def test_the_card_depends_on_the_dataset_alone(tmp_path):
    texts = []
    for name in ("here", "there"):
        make_dataset(tmp_path / name, episodes=2, frames=8, image_size=32)
        texts.append((tmp_path / name / CARD_FILE).read_bytes())
    assert texts[0] == texts[1]


def test_a_licence_is_kept_and_a_card_of_ones_own_is_left_alone(tmp_path):
    root = make_dataset(tmp_path / "data", episodes=1, frames=8, image_size=32)
    card = root / CARD_FILE
    assert "not stated" in card.read_text()
    card.write_text(card.read_text().replace("---\n", "---\nlicense: cc-by-4.0\n", 1))
    assert write_dataset_card(root)
    assert front_matter(card.read_text())["license"] == "cc-by-4.0"
    assert table_row(card.read_text(), "licence")[1] == "cc-by-4.0"

    card.write_text("# Mine\n")
    assert not write_dataset_card(root)
    assert card.read_text() == "# Mine\n"


def test_a_head_that_is_no_yaml_does_not_stop_the_recording(tmp_path):
    root = make_dataset(tmp_path / "data", episodes=1, frames=8, image_size=32)
    text = (root / CARD_FILE).read_text()
    (root / CARD_FILE).write_text(text.replace("---\n", "---\nlicense: [\n", 1))
    assert write_dataset_card(root)
    assert (root / CARD_FILE).read_text() == dataset_card(root)


def test_without_an_episode_there_is_no_card(tmp_path):
    robot = load_embodiment("so100").with_image_size(32, 32)
    with DatasetWriter.create(tmp_path / "data", Recording(robot)) as writer:
        writer.log_attempt(Attempt(0, 0, "push-cube", False, False, -1, 7, "no path"))
    assert not (tmp_path / "data" / CARD_FILE).exists()
