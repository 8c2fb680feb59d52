import subprocess
import sys

import pytest

from blm.curate import output_folder
from blm.curate.output_folder import OutputFolder
from blm.schemas.errors import OutputExistsError

HOLD = """
import sys
from pathlib import Path
from blm.curate.output_folder import OutputFolder

with OutputFolder(Path(sys.argv[1]), "splits", "a").claimed():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_build_at_a_time_until_its_process_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(output_folder, "_PATIENCE_S", 0.1)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputExistsError, match="is being written by another build"),
            OutputFolder(tmp_path, "splits", "b").claimed(),
        ):
            pass
        other.kill()
    with OutputFolder(tmp_path, "splits", "b").claimed():
        pass


def test_what_stays_empty_is_not_left_behind(tmp_path):
    made, there = tmp_path / "made", tmp_path / "there"
    there.mkdir()
    for path in (made, there):
        with OutputFolder(path, "splits", "a").claimed():
            assert path.is_dir()
    assert (made.exists(), there.exists()) == (False, True)
    with OutputFolder(made, "splits", "a").claimed():
        (made / "kept").touch()
    assert (made / "kept").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(OutputExistsError, match="a file"),
        OutputFolder(tmp_path / "file", "splits", "a").claimed(),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"
