"""The sources of a build in the order of their names, each with a digest of all that it reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from blm.curate.corpus.config import CorpusConfig, Source, SourceConfig
from blm.curate.corpus.download import Downloads
from blm.curate.corpus.sources import SourceKind, source_kind
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.index import dataset_names
from blm.curate.shards import file_sha256
from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.progress import Progress


@dataclass(frozen=True)
class Input:
    """A source as this build uses it, and a digest of all it reads."""

    source: Source
    kind: SourceKind
    config: SourceConfig
    sha256: str


def read_inputs(config: CorpusConfig, progress: Progress) -> list[Input]:
    """Every source by the order of names, with the digest of the files it depends on."""
    names = dataset_names([DatasetSource(path=one.path, name=one.name) for one in config.sources])
    inputs = []
    downloads = Downloads(config.download) if config.allow_download else None
    for number, (name, source) in enumerate(sorted(zip(names, config.sources, strict=True), key=_first)):
        progress("reading sources", number, len(names), name)
        kind, settings = source_kind(source.kind), config.for_source(source, name).with_downloads(downloads)
        if kind.identity(source.path, settings) is None and not source.path.exists():
            raise DatasetError(f"source '{name}': {source.path} does not exist.", "Check the path.")
        if source.media_root is not None and not source.media_root.is_dir():
            raise DatasetError(
                f"source '{name}': media_root {source.media_root} is no folder.", "Check the path."
            )
        check_options(source, name, kind)
        inputs.append(Input(source, kind, settings, _digest(source, kind, settings)))
    progress("reading sources", len(names), len(names))
    return inputs


def check_options(source: Source, name: str, kind: SourceKind) -> None:
    """Raise ConfigError where a source is given an option that its kind does not have."""
    if kind.options is None:
        return
    for option in source.options:
        if option not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise ConfigError(
                f"source '{name}': '{source.kind}' has no option '{option}'.", f"Its options: {known}."
            )


def _first(pair: tuple[str, Source]) -> str:
    return pair[0]


def _digest(source: Source, kind: SourceKind, config: SourceConfig) -> str:
    """Of the names and contents of the files that the source reads, wherever they lie."""
    digest = hashlib.sha256()
    if identity := kind.identity(source.path, config):
        return hashlib.sha256(identity.encode()).hexdigest()
    fetched = config.downloads.folder if config.downloads else None
    bases = [one for one in (fetched, source.path, source.media_root, source.path.parent) if one is not None]
    for path in kind.files(source.path, config):
        base = next((base for base in bases if path != base and path.is_relative_to(base)), path.parent)
        digest.update(f"{path.relative_to(base).as_posix()} {file_sha256(path)}\n".encode(errors="replace"))
    return digest.hexdigest()


def check_names(config: CorpusConfig, inputs: list[Input]) -> None:
    """Raise UnknownNameError where the settings speak of a source that the build does not have."""
    names = [one.config.name for one in inputs]
    wanted = {
        "near_duplicates.image_sources": config.near_duplicates.image_sources or (),
        "mixture.sources": config.mixture.sources,
    }
    for key, listed in wanted.items():
        for name in listed:
            if name not in names:
                raise UnknownNameError(f"{key}: corpus source", name, names)
