"""Whether a finished build is whole: its manifest, its shards' hashes, its index, its counts."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.corpus.build_files import PARQUET_FOLDER
from blm.curate.corpus.parquet_form import parquet_form_rows
from blm.curate.episodes.boundaries import is_plain_name
from blm.curate.output_folder import UNFINISHED_FOLDER
from blm.curate.shards import file_sha256, read_index, read_shard_table
from blm.schemas.errors import BlmError
from blm.schemas.manifest import DROPPED_FILE, Manifest, read_manifest
from blm.schemas.printable import printable
from blm.schemas.progress import Progress
from blm.schemas.shard import IndexRow, ShardRow

_REBUILD = "Build it again: what is whole is kept."


def check_build(folder: Path, fast: bool, progress: Progress) -> tuple[str, int, tuple[str, ...]]:
    """Kind, number of samples and problems of the build in `folder`; `fast` leaves the shards' bytes unread."""
    if strange := sorted(path.name for path in folder.glob("*") if not (path.is_file() or path.is_dir())):
        return "build", 0, (f"neither files nor folders: {printable(', '.join(strange), 200)}. {_REBUILD}",)
    try:
        manifest = read_manifest(folder)
        shards = read_shard_table(folder)
        index = read_index(folder)
    except BlmError as error:
        return "build", 0, (str(error),)
    problems = [*_count_problems(folder, manifest, shards, index)]
    for number, shard in enumerate(shards):
        progress("checking shards", number, len(shards), shard.name)
        problems += _shard_problems(folder, shard, index.get(shard.name, ()), fast)
    progress("checking shards", len(shards), len(shards))
    return manifest.kind, sum(shard.samples for shard in shards), tuple(problems)


def _count_problems(
    folder: Path, manifest: Manifest, shards: Sequence[ShardRow], index: Mapping[str, Sequence[IndexRow]]
) -> Iterator[str]:
    samples = sum(shard.samples for shard in shards)
    if samples != manifest.counts.kept:
        yield f"the manifest counts {manifest.counts.kept} samples, the shards hold {samples}. {_REBUILD}"
    for split, count in manifest.splits.items():
        held = sum(shard.samples for shard in shards if shard.split == split)
        if held != count:
            yield f"the manifest counts {count} samples of split '{split}', the shards hold {held}. {_REBUILD}"
    if manifest.config.get("parquet") and (rows := parquet_form_rows(folder)) != manifest.counts.kept:
        yield f"{PARQUET_FOLDER}/ holds {rows or 0} of {manifest.counts.kept} samples. {_REBUILD}"
    listed = {shard.name for shard in shards}
    if stray := sorted({path.name for path in folder.glob("*.tar")} - listed):
        yield f"shards that no table lists: {', '.join(stray)}. Remove them, or build again."
    if strange := sorted(set(index) - listed):
        yield f"the index names shards that no table lists: {', '.join(strange)}. {_REBUILD}"
    if (folder / UNFINISHED_FOLDER).exists():
        yield f"{UNFINISHED_FOLDER} is still there: another build was begun here. Run it again to finish it."
    try:
        dropped = pq.read_metadata(folder / DROPPED_FILE).num_rows
    except (OSError, pa.ArrowException) as error:
        yield f"{DROPPED_FILE} is not readable: {error}. {_REBUILD}"
        return
    if dropped != (told := sum(manifest.counts.dropped.values()) + len(manifest.skipped)):
        yield f"the manifest counts {told} dropped, {DROPPED_FILE} holds {dropped}. {_REBUILD}"


def _shard_problems(folder: Path, shard: ShardRow, index: Sequence[IndexRow], fast: bool) -> Iterator[str]:
    path = folder / shard.name
    if not is_plain_name(shard.name) or path.is_symlink():
        yield f"'{printable(shard.name, 80)}' is not the name of a file of this build. {_REBUILD}"
        return
    if not path.is_file():
        yield f"{shard.name} is missing. {_REBUILD}"
        return
    if path.stat().st_size != shard.bytes:
        yield f"{shard.name} has {path.stat().st_size} bytes instead of {shard.bytes}. {_REBUILD}"
        return
    if not fast and file_sha256(path) != shard.sha256:
        yield f"{shard.name} is not what was written: its SHA-256 differs. {_REBUILD}"
    keys = {row.key for row in index}
    if len(keys) != shard.samples:
        yield f"{shard.name} holds {shard.samples} samples, the index names {len(keys)}. {_REBUILD}"
    if (wrong := _misplaced(path, index)) is not None:
        yield f"{shard.name}: the index is wrong about {wrong.key}.{wrong.suffix}. {_REBUILD}"


def _misplaced(path: Path, index: Sequence[IndexRow]) -> IndexRow | None:
    """The first member that does not stand, with its size, where the index says."""
    with path.open("rb") as stream:
        for row in index:
            stream.seek(max(0, row.offset - tarfile.BLOCKSIZE))
            header = stream.read(tarfile.BLOCKSIZE)
            try:
                member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            except (tarfile.TarError, UnicodeDecodeError):
                return row
            if (member.name, member.size) != (f"{row.key}.{row.suffix}", row.size):
                return row
    return None
