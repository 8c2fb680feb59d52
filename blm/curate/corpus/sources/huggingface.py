"""`datasets:PATH`: a dataset in the form of the `datasets` library; rows are read as `parquet` reads them.

PATH is a folder that `save_to_disk` wrote (of one split or several), or a folder of Parquet, JSON, JSON lines or CSV
files. Arrow files are checked before they are read, and nothing is unpickled; neither are scripts run.

`options: {split: train}` keeps the files of one split. `options: {hub: owner/name, revision: …, split: train}` streams
a dataset from the hub, where `path` is then only a name: this needs a connection, and a revision (a commit), so that
the same build reads the same rows.

Reasons: those of `parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.parquet import table_mapper
from blm.curate.corpus.sources.rows import checked_rows, read_rows, row_files
from blm.curate.corpus.sources.turns import RowPlace, conversations_of_row, files_of_row
from blm.schemas.errors import ConfigError, DatasetError

_STATE_FILE = "state.json"
_SPLITS_FILE = "dataset_dict.json"


def read_datasets(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of every split, or of the one that the options name.

    Raises:
        DatasetError: the folder is no such dataset, or unreadable.
        ConfigError: a hub dataset without a revision.
    """
    mapper = table_mapper(config)
    hub = config.options.get("hub")
    parts = [(path / "hub", _hub_rows(str(hub), config))] if hub else _local_parts(path, config)
    for part, rows in parts:
        place = RowPlace.of(part, path, config)
        for number, row in enumerate(rows):
            yield from conversations_of_row(row, number, place, mapper, config.media_root or path, config)


def datasets_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and the media they name, each once."""
    if config.options.get("hub"):
        return
    mapper, root = table_mapper(config), config.media_root or path
    seen: set[Path] = set()
    for part, rows in _local_parts(path, config):
        yield part
        for row in rows:
            for found in files_of_row(row, mapper, root, config):
                if found not in seen:
                    seen.add(found)
                    yield found


def datasets_identity(path: Path, config: SourceConfig) -> str | None:
    """What stands for the content of a dataset on the hub; None for local files."""
    hub = config.options.get("hub")
    return f"{hub}@{_revision(config)}/{config.options.get('split', 'train')}" if hub else None


def _local_parts(path: Path, config: SourceConfig) -> Iterator[tuple[Path, Iterable[Any]]]:
    """The files of a local dataset, each with its rows."""
    split = config.options.get("split")
    if (path / _STATE_FILE).is_file():
        folders = [path]
    elif (path / _SPLITS_FILE).is_file():
        names = _read_json(path / _SPLITS_FILE).get("splits", [])
        folders = [_below(path, name) for name in names if split in (None, name)]
        if not folders:
            raise DatasetError(f"{path} has no split '{split}'.", f"It has: {', '.join(map(str, names))}.")
    else:
        files = [one for one in row_files(path) if one.name not in (_STATE_FILE, "dataset_info.json")]
        for file in files:
            if split is None or split in file.relative_to(path).as_posix():
                yield file, read_rows(file, config.limits)
        return
    for folder in folders:
        for entry in _read_json(folder / _STATE_FILE).get("_data_files", []):
            file = _below(folder, entry.get("filename") if isinstance(entry, dict) else None)
            yield file, _arrow_rows(file)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Save the dataset again.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a {type(content).__name__}, not a mapping.", "Save it again.")
    return content


def _below(folder: Path, name: Any) -> Path:
    """A file or folder directly in `folder`."""
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith("."):
        raise DatasetError(f"{folder} refers to {name!r:.80}, which is no name in it.", "Save it again.")
    return folder / name


def _arrow_rows(path: Path) -> Iterator[Any]:
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                yield from checked_rows(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable as Arrow: {error}", "Save the dataset again.") from error


def _revision(config: SourceConfig) -> str:
    revision = config.options.get("revision")
    if not isinstance(revision, str) or not revision:
        raise ConfigError(
            f"source '{config.name}': a hub dataset needs options.revision.",
            "Give the commit of the dataset.",
        )
    return revision


def _hub_rows(name: str, config: SourceConfig) -> Iterator[Any]:
    """Rows of a dataset on the hub, images undecoded, one after the other as they arrive."""
    from datasets import Image, load_dataset

    split = str(config.options.get("split", "train"))
    try:
        rows = load_dataset(name, split=split, revision=_revision(config), streaming=True)
        for column, feature in (rows.features or {}).items():
            if isinstance(feature, Image):
                rows = rows.cast_column(column, Image(decode=False))
        yield from rows
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"'{name}' cannot be read from the hub: {error}", "Check the name, revision and connection."
        ) from error
