import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.schemas.corpus import (
    CORPUS_SCHEMA,
    CorpusRecord,
    Media,
    Message,
    Part,
    check_record,
    records_to_table,
    table_to_records,
)
from blm.schemas.errors import DatasetError

text = st.text(max_size=40)
media = st.builds(
    Media,
    kind=st.sampled_from(["image", "video"]),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    frames=st.integers(1, 100),
)


@st.composite
def records(draw):
    things = tuple(draw(st.lists(media, max_size=3)))
    parts = [Part("text", draw(text))] + [Part(thing.kind, media=i) for i, thing in enumerate(things)]
    return CorpusRecord(
        id=draw(st.text(min_size=1, max_size=10)),
        messages=(Message("user", tuple(parts)), Message("assistant", (Part("text", draw(text)),))),
        media=things,
        source=draw(text),
        licence="MIT",
        space=draw(st.sampled_from(["digital", "physical"])),
        task_family=draw(st.sampled_from(["perception", "spatial", "general"])),
        provenance=json.dumps({"row": draw(st.integers())}),
    )


@given(st.lists(records(), max_size=4))
def test_round_trip_through_arrow(batch):
    table = records_to_table(batch)
    assert table.schema.equals(CORPUS_SCHEMA, check_metadata=True)
    assert table_to_records(table) == batch


@given(records())
def test_round_trip_through_json(record):
    assert CorpusRecord.from_row(json.loads(json.dumps(record.to_row()))) == record


def _record(**changes):
    fields = {
        "id": "r1",
        "messages": (Message("user", (Part("text", "?"),)), Message("assistant", (Part("text", "!"),))),
        "media": (),
        "source": "s",
        "licence": "MIT",
        "space": "digital",
        "task_family": "general",
    }
    return CorpusRecord(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "virtual"}, "space 'virtual' is not known.*digital, physical"),
        ({"task_family": "chat"}, "task_family 'chat' is not known.*perception"),
        ({"messages": (Message("user", (Part("text", "?"),)),)}, "no assistant turn"),
        (
            {"messages": (Message("assistant", (Part("image", media=0),)),)},
            "media reference 0 is out of range",
        ),
        ({"messages": (Message(cast(Any, "bot"), ()), Message("assistant", ()))}, "role 'bot' is not known"),
    ],
)
def test_wrong_records_name_record_and_field(changes, message):
    with pytest.raises(DatasetError, match=rf"corpus record 'r1'.*{message}"):
        check_record(_record(**changes))


def test_a_missing_field_is_named():
    row = _record().to_row()
    del row["licence"]
    with pytest.raises(DatasetError, match="corpus record 'r1': field 'licence' is missing"):
        CorpusRecord.from_row(row)
