import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.curate.corpus.benchmark_items import read_benchmark
from blm.curate.corpus.config import Benchmark
from blm.schemas.errors import DatasetError


def picture():
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 60).save(stream, "PNG")
    return stream.getvalue()


def read(path, **fields):
    return list(read_benchmark(Benchmark(path=path, **fields)))


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet", "csv", "tsv"])
def test_each_form_holds_the_same_items(tmp_path, form):
    rows = [
        {"question": "What, then?", "answer": "That\nand this"},
        {"question": "Where?", "answer": "There"},
    ]
    path = tmp_path / f"set.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, rows)))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        mark = "\t" if form == "tsv" else ","
        lines = [mark.join(f'"{value}"' for value in line) for line in (rows[0], *(r.values() for r in rows))]
        path.write_text("\n".join(lines))
    found = read(path)
    assert [(one.benchmark, one.row, one.question, one.answer) for one in found] == [
        ("set", 0, "What, then?", "That\nand this"),
        ("set", 1, "Where?", "There"),
    ]


def test_plain_text_is_an_item_a_line(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"One.\n\n Three \xff.\n")
    assert [(one.row, one.text) for one in read(path, name="n")] == [(0, "One.\n"), (2, " Three \ufffd.\n")]


def test_chats_options_several_answers_and_named_fields(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cube"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "How?"}]}]},
        {"question": "Which?", "options": {"A": "left", "B": "right"}, "answers": ["A", "left"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [(one.row, one.question, one.context, one.answer) for one in read(path)] == [
        (0, "What?", "", "A cube"),
        (1, "How?", "", ""),
        (2, "Which?", "left\nright", "A"),
        (2, "Which?", "left\nright", "left"),
    ]
    path.write_text(json.dumps({"goal": "Stack", "steps": 3}))
    (item,) = read(path, question="goal", answer="steps")
    assert (item.question, item.answer) == ("Stack", "3")


def test_images_are_bytes_mappings_or_files_beside(tmp_path):
    content = picture()
    (tmp_path / "a.png").write_bytes(content)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "?", "image": "a.png"}))
    assert read(path)[0].images == (content,)
    assert read(path, image="")[0].images == ()
    table = pa.Table.from_pylist([{"question": "?", "images": [{"bytes": content, "path": "x.png"}]}])
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet")[0].images == (content,)


@pytest.mark.parametrize(
    ("content", "fields", "found"),
    [
        ('{"question": 1}\n{', {}, "Expecting"),
        ("[1]", {}, "row 0 is list"),
        ('{"frage": "?"}', {}, "row 0 has no field question, .* there are: frage"),
        ('{"question": "?"}', {"answer": "a"}, "row 0 has no field 'a'; there are: question"),
        ('{"question": "?", "image": "../secret.png"}', {}, "outside the benchmark's folder"),
        ('{"question": "?", "image": "none.png"}', {}, "none.png is not there"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, fields, found):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DatasetError, match=f"(?s)benchmark 'bad'.*{found}"):
        read(path, **fields)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.jsonl is not a file"):
        read(tmp_path / "none.jsonl")
