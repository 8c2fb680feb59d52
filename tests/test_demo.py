"""The whole story, tiny: every stage runs for real; nothing is expected of the policy."""

from __future__ import annotations

import json

import pytest

from blm.demo import DemoConfig, run_demo
from blm.schemas.errors import OutputExistsError


def test_every_stage_runs_and_the_report_tells_of_each(tmp_path):
    config = DemoConfig(
        output=tmp_path / "demo",
        episodes=8,
        image_size=128,
        stage1_steps=2,
        stage2_steps=4,
        rollouts=1,
        workers=1,
    )
    summary = run_demo(config)
    names = ["collect", "build-splits", "build-corpus", "stage1", "stage2", "evaluate"]
    assert [chapter.name for chapter in summary.chapters] == names
    page = summary.report.read_text()
    for heading in (
        "What was recorded",
        "dropped and why",
        "stage 1",
        "What was learnt",
        "Closed-loop success",
    ):
        assert heading in page
    assert page.count("<svg") == 4
    assert page.count("<img") == 3
    assert [
        chapter["name"] for chapter in json.loads((config.output / "demo.json").read_text())["chapters"]
    ] == names
    with pytest.raises(OutputExistsError, match="holds a demo already"):
        run_demo(config)
