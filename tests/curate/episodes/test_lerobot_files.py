import hashlib
import os
from threading import Event

from blm.curate.episodes import lerobot_files
from blm.curate.episodes.lerobot_files import file_digests


def test_files_are_hashed_while_the_block_runs(tmp_path):
    contents = {"data/a.parquet": b"", "meta/info.json": b"{}", "videos/b.mp4": os.urandom(700_001)}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with file_digests(tmp_path, 2) as all_digests:
        found = all_digests()
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_nobody_waits_for_files_that_are_being_hashed_when_the_block_is_left(tmp_path, monkeypatch):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{}")
    begun, told = Event(), []

    def hashing(path, given_up: Event) -> str:
        begun.set()
        told.append(given_up.wait(30))
        return ""

    monkeypatch.setattr(lerobot_files, "_digest", hashing)
    with file_digests(tmp_path, 2):
        assert begun.wait(30)
    assert told == [True]


def test_a_file_that_is_given_up_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as content:
        content.truncate(2**40)
    given_up = Event()
    given_up.set()
    assert lerobot_files._digest(path, given_up) == hashlib.sha256().hexdigest()
