"""Kinds of sources: each is one file here with one function that reads conversations.

Another package adds a kind with an entry point in the group `blm.corpus_sources`: its name is the kind, its object a
function `(path, config) -> iterator of Conversation and Drop`, or a `SourceKind` where the input is more than `path`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.cosmos_reason1 import cosmos_reason1_files, read_cosmos_reason1
from blm.curate.corpus.sources.egothink import egothink_files, read_egothink
from blm.curate.corpus.sources.huggingface import datasets_files, datasets_identity, read_datasets
from blm.curate.corpus.sources.image_folder import image_folder_files, read_image_folder
from blm.curate.corpus.sources.lerobot import read_lerobot
from blm.curate.corpus.sources.llava import llava_files, read_llava
from blm.curate.corpus.sources.parquet import parquet_files, read_parquet
from blm.curate.corpus.sources.robovqa import read_robovqa, robovqa_files
from blm.curate.corpus.sources.sharerobot import read_sharerobot, sharerobot_files
from blm.curate.corpus.sources.webdataset import read_webdataset, webdataset_files
from blm.curate.episodes.content import CONTENT_DIGEST
from blm.schemas.errors import UnknownNameError

ENTRY_POINTS = "blm.corpus_sources"

Reader = Callable[[Path, SourceConfig], Iterator[Conversation | Drop]]
Files = Callable[[Path, SourceConfig], Iterator[Path]]
Identity = Callable[[Path, SourceConfig], str | None]


def files_below(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The file itself, or every file below the folder that is not hidden."""
    if path.is_file():
        yield path
        return
    for found in sorted(path.rglob("*")):
        if found.is_file() and not any(part.startswith(".") for part in found.relative_to(path).parts):
            yield found


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
        read: yields conversations, with media width and height left at 0, and drops. The same path and config give
            the same sequence. Record ids are unique within the source and begin with `config.name`.
        files: every file that `read` depends on, for the fingerprint of the input.
        identity: what stands for an input that is not a local path, e.g. a name and revision; None where it is one.
        options: the settings it knows in a source's `options`; None: any.
        code: what stands for the code of a kind from another package, or for what else its records follow: where it
            changes, sources are read again.
    """

    read: Reader
    files: Files = files_below
    identity: Identity = lambda path, config: None
    options: tuple[str, ...] | None = None
    code: str = ""


SOURCE_KINDS = {
    "lerobot": SourceKind(read_lerobot, options=("hidden_things",), code=CONTENT_DIGEST),
    "llava": SourceKind(read_llava, llava_files, options=()),
    "parquet": SourceKind(read_parquet, parquet_files, options=("columns",)),
    "datasets": SourceKind(
        read_datasets, datasets_files, datasets_identity, options=("columns", "split", "hub", "revision")
    ),
    "webdataset": SourceKind(read_webdataset, webdataset_files, options=("columns",)),
    "images": SourceKind(read_image_folder, image_folder_files, options=()),
    "cosmos-reason1": SourceKind(read_cosmos_reason1, cosmos_reason1_files, options=()),
    "robovqa": SourceKind(read_robovqa, robovqa_files, options=()),
    "egothink": SourceKind(read_egothink, egothink_files, options=()),
    "sharerobot": SourceKind(read_sharerobot, sharerobot_files, options=()),
}


def source_kind(name: str) -> SourceKind:
    """The kind called `name`.

    Raises:
        UnknownNameError: neither built in nor installed; lists those there are.
    """
    if name in SOURCE_KINDS:
        return SOURCE_KINDS[name]
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        raise UnknownNameError("corpus source", name, [*SOURCE_KINDS, *installed])
    found = installed[name].load()
    kind = found if isinstance(found, SourceKind) else SourceKind(found)
    return replace(kind, code=kind.code or _code(installed[name], kind.read))


def _code(entry: EntryPoint, read: Reader) -> str:
    """The version of the package, and a digest of the module with the function, which changes while it is written."""
    version = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
    try:
        module = inspect.getsourcefile(read)
        return f"{version} {hashlib.sha256(Path(module).read_bytes()).hexdigest()}" if module else version
    except (OSError, TypeError):
        return version
