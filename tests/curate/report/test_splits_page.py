import io
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from blm.curate.episodes.checks import FINDINGS_SCHEMA
from blm.curate.episodes.lineage import LINEAGE_SCHEMA
from blm.curate.report.splits_page import DroppedExample, Recorded, splits_page
from blm.schemas.embodiment import load_embodiment
from blm.schemas.manifest import (
    AxisStatistics,
    Counts,
    EmbodimentStatistics,
    InputFingerprint,
    Manifest,
    Mixture,
)

pytestmark = pytest.mark.usefixtures("drawn_charts")


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.words: list[str] = []
        self.images = 0

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"

    def handle_data(self, data):
        if data.strip():
            self.words.append(data.strip())


@pytest.fixture
def robot():
    return load_embodiment("so100")


def axis_statistics(robot):
    lower, upper = robot.column("lower"), robot.column("upper")
    at = {
        name: tuple((lower + share * (upper - lower)).tolist())
        for name, share in [
            ("mean", 0.5),
            ("std", 0.1),
            ("min", 0.2),
            ("q01", 0.25),
            ("q99", 0.7),
            ("max", 0.8),
        ]
    }
    return AxisStatistics(count=100, **at)


@pytest.fixture
def manifest(robot):
    of_axes = axis_statistics(robot)
    return Manifest(
        kind="stage2-splits",
        software="1.2.3",
        config={},
        inputs=(
            InputFingerprint(name="pushes", kind="lerobot-v3", path="recordings/pushes", sha256="ab" * 32),
        ),
        counts=Counts(inputs=42, kept=40, dropped={"frozen_frames": 1, "idle_episode": 1}),
        splits={"train": 36, "val": 2, "test": 2},
        breakdown={"so100/push-cube": 40},
        statistics={
            "so100": EmbodimentStatistics(
                axis_names=robot.axis_names,
                gripper_index=5,
                rate_hz=20,
                cameras=("top",),
                state=of_axes,
                action=of_axes,
            )
        },
        mixture=Mixture(strategy="balanced", weights={"pushes/so100/push-cube": 1.0}),
        fingerprint="f" * 64,
    )


@pytest.fixture
def lineage():
    random = np.random.default_rng(0)
    rows = [
        {
            "key": f"pushes-{i:06d}",
            "shard": "train-so100-000000.tar",
            "dataset": "pushes",
            "episode": i,
            "start": 3,
            "stop": 60,
            "split": "train" if i < 36 else ("val" if i < 38 else "test"),
            "embodiment": "so100",
            "task": "push-cube",
            "instruction": "push <the> cube",
            "operator": "planner",
            "seed": i,
            "success": "yes",
            "frames": 57,
            "seconds": float(random.uniform(2, 4)),
            "top_speed": float(random.uniform(0.2, 0.6)),
            "identity": f"{i:064d}",
        }
        for i in range(40)
    ]
    return pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA)


def jpeg(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (96, 96), (shade, 90, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def page(manifest, lineage, robot):
    positions = np.random.default_rng(1).normal([0.2, 0.0, 0.1], 0.05, size=(500, 3))
    findings = pa.Table.from_pylist(
        [
            {
                "dataset": "pushes",
                "episode": i,
                "reason": "idle_fraction",
                "severity": "warn",
                "value": 0.3 + i / 100,
                "threshold": 0.3,
                "unit": "",
                "note": "",
            }
            for i in range(4)
        ],
        schema=FINDINGS_SCHEMA,
    )
    examples = [DroppedExample("frozen_frames", jpeg(40), "frozen_frames: pushes episode 41")]
    recorded = [Recorded(robot, positions, [(jpeg(200), "push-cube, top")])]
    return lambda: splits_page(manifest, lineage, findings, recorded, examples, "cc-by-4.0")


def test_the_page_tells_counts_reasons_splits_mixture_licence_and_lineage(page):
    text = Text()
    text.feed(page())
    said = " ".join(text.words)
    for expected in (
        "42",
        "40",
        "frozen_frames",
        "idle_fraction",
        "36",
        "cc-by-4.0",
        "balanced",
        "100.0 %",
        "pushes-000000",
        "train-so100-000000.tar",
        "recordings/pushes",
        "SO-100",
    ):
        assert expected in said, expected
    assert text.images == 2


def test_the_same_build_gives_the_same_page_and_it_needs_no_network(page):
    assert page() == page()
    assert 'src="http' not in page()
    assert 'href="http' not in page()


def test_a_dataset_without_tool_poses_has_no_workspace_chart(manifest, lineage, robot):
    empty = pa.Table.from_pylist([], schema=FINDINGS_SCHEMA)
    page = splits_page(manifest, lineage, empty, [Recorded(robot, np.zeros((0, 3)))], [], "")
    assert "Where the tool has been" not in page
    assert "not stated" in page
    assert "Warnings" not in page
