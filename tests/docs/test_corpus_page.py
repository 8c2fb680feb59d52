"""The Python in the document about corpora runs as it stands, and the table there has every stage."""

from __future__ import annotations

import re
from pathlib import Path

from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.tables import ALL_STAGES

DOCUMENT = (Path(__file__).parents[2] / "docs/corpus.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    rows = [f'{{"question": "How many are {n}?", "answer": "{"so " * (n % 5)}{n}."}}\n' for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    monkeypatch.chdir(tmp_path)
    build_corpus(CorpusConfig(sources=("parquet:rows.jsonl",), output=Path("corpus")))  # type: ignore[arg-type]
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    exec(compile(example, "docs/corpus.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "10 6 {'answer_length': 4}"
    assert "'reason': 'answer_length'" in said[2]
    assert said[3].split()[0] == "6"


def test_every_stage_says_what_it_costs():
    table = DOCUMENT.split("| stage | time | memory |")[1].split("\n\n")[0]
    costed = {name for line in table.splitlines()[2:] for name in line.split("|")[1].strip().split(", ")}
    assert costed == set(ALL_STAGES)
