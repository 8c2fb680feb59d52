import json

import pytest

from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.manifest import (
    MANIFEST_FILE,
    Counts,
    InputFingerprint,
    Manifest,
    read_manifest,
    write_atomically,
)


def make_manifest(**changes):
    fields = {
        "kind": "stage2-splits",
        "software": "0.1.0",
        "config": {"seed": 0},
        "inputs": (InputFingerprint(name="d", kind="lerobot", path="d", sha256="0" * 64),),
        "counts": Counts(inputs=5, kept=3, dropped={"too_short": 2}),
        "splits": {"train": 2, "val": 1},
        "breakdown": {"so100/push-cube": 3},
        "fingerprint": "f",
    }
    return Manifest(**(fields | changes))


def test_round_trip(tmp_path):
    manifest = make_manifest()
    manifest.write(tmp_path)
    assert read_manifest(tmp_path, "stage2-splits") == manifest


def test_rows_in_are_rows_kept_and_dropped():
    with pytest.raises(ValueError, match="5 in, but 3 kept and 1 dropped"):
        Counts(inputs=5, kept=3, dropped={"too_short": 1})


def test_an_unfinished_build_says_so(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere is not a folder\."):
        read_manifest(tmp_path / "nowhere")
    recorded = tmp_path / "recorded/meta/info.json"
    recorded.parent.mkdir(parents=True)
    recorded.write_text("{}")
    with pytest.raises(DatasetError, match=r"is a LeRobot dataset, not a build\..*build-splits"):
        read_manifest(tmp_path / "recorded")
    with pytest.raises(DatasetError, match=r"holds no manifest\.json.*Run it again"):
        read_manifest(tmp_path)


def test_the_wrong_kind_of_build_says_so(tmp_path):
    make_manifest().write(tmp_path)
    with pytest.raises(DatasetError, match="is a stage2-splits build, not stage1-corpus"):
        read_manifest(tmp_path, "stage1-corpus")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda c: c.update(manifest_version=99),
            DatasetError,
            "manifest_version 99; this version of blm reads 1 and 2",
        ),
        (
            lambda c: c.update(colour="red"),
            ConfigError,
            "unknown key 'colour'.*Allowed here: manifest_version, kind",
        ),
        (lambda c: c["counts"].update(kept=4), ConfigError, "5 in, but 4 kept"),
    ],
)
def test_a_wrong_manifest_names_file_and_key(tmp_path, change, error, message):
    path = make_manifest().write(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"\xff{", b"[" * 100_000])
def test_text_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(DatasetError, match="not readable as JSON"):
        read_manifest(tmp_path)


def test_atomic_write_replaces_whole_files_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [child.name for child in path.parent.iterdir()] == ["file.bin"]
