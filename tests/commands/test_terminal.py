"""What commands show on a terminal."""

from __future__ import annotations

import pytest

from blm.commands.terminal import progress_bar


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_note_leaves_room_for_counts_and_times(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with progress_bar() as progress:
        progress(
            "encoding frames", 3000, 3000, "test_unseen_wording-so100-so100-push-cube-and-many-more-00000.tar"
        )
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "3000/3000 0:00:00 " in line
    assert line.rstrip().endswith("…")
    assert line.count("━") >= 4


def test_without_work_nothing_is_shown(capsys):
    with pytest.raises(KeyError), progress_bar():
        raise KeyError
    assert capsys.readouterr().err == ""
