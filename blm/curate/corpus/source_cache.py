"""What was read of each source, cleaned and judged, kept for the next build in the same folder.

    .cache/<source>-<key>/rows.arrow, media        read and cleaned (see `cached_items`)
                          entry.json               digests of both; written last
                          judged-<key>.arrow       what became of each row in the stages that judge texts
                          judged-<key>.json        its digest and what these stages counted; written last

The first key is a digest of the source's content and of all settings that reading, licence, validate and normalise
depend on; the second of those that quality, language and mask depend on. So a source is read again only if it has
changed, and its texts are judged again only if a rule has: another source, mixture or benchmark changes nothing about
them. Takes about as much space as the corpus; may be removed at any time. O(bytes) to check.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from blm import __version__
from blm.curate.corpus.cached_items import (
    MEDIA_FILE,
    ROWS_FILE,
    conversation_of,
    read_items,
    read_outcomes,
    write_items,
    write_outcomes,
)
from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.hash_cache import HASHES
from blm.curate.corpus.inputs import Input
from blm.curate.corpus.language import identifier_identity
from blm.curate.corpus.stages import StageReport
from blm.curate.shards import file_sha256, safe_key
from blm.schemas.manifest import write_atomically

_FORM = 3
_ENTRY = "entry.json"
_READING_SETTINGS = ("licences", "limits", "allow_download", "download")
_JUDGING_SETTINGS = ("quality", "languages", "mask_personal_data")


class SourceCache:
    """Entries of one folder; those that were asked for are told apart from those of earlier builds."""

    def __init__(self, folder: Path, config: CorpusConfig) -> None:
        self.folder = folder
        self._settings = config.build_settings()
        languages = identifier_identity() if config.languages else ""
        self._judging = f"judged-{_key([self._of(_JUDGING_SETTINGS), languages])}"
        self._asked: set[str] = set()
        self.found: list[str] = []
        """Names of sources that need not be read."""

    def entry(self, source: Input) -> Path:
        """Where the entry of a source lies, or would."""
        given = source.config.model_dump(mode="json", exclude={"media_root"})
        kind = [source.source.kind, source.kind.code]
        content = [_FORM, __version__, kind, given, source.sha256, self._of(_READING_SETTINGS)]
        name = f"{safe_key(source.config.name)}-{_key(content)}"
        self._asked.add(name)
        return self.folder / name

    def read(self, source: Input) -> Iterator[Conversation | Drop] | None:
        """What was kept of the source; None where nothing was, or it is damaged."""
        entry = self.entry(source)
        if not _is_whole(entry):
            return None
        self.found.append(source.config.name)
        return read_items(entry)

    def keep(self, source: Input, items: Iterable[Conversation | Drop]) -> Iterator[Conversation | Drop]:
        """The same items; when all have passed they are kept."""
        entry = self.entry(source)
        beside = entry.with_name(f"{entry.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield from write_items(beside, items)
        digests = {name: file_sha256(beside / name) for name in (ROWS_FILE, MEDIA_FILE)}
        (beside / _ENTRY).write_text(json.dumps(digests), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        os.replace(beside, entry)

    def read_judged(self, source: Input) -> tuple[Iterator[Conversation | Drop], list[StageReport]] | None:
        """What became of the source in the stages that judge, and what they counted; None as in `read`."""
        entry = self.entry(source)
        outcomes = entry / f"{self._judging}.arrow"
        kept = _read_json(outcomes.with_suffix(".json"))
        if not _is_file(outcomes, kept.get("sha256")) or not _is_whole(entry):
            return None
        self.found.append(source.config.name)
        return read_outcomes(entry, outcomes), [_report(one) for one in kept["reports"]]

    def keep_judged(
        self, source: Input, items: Iterable[Conversation | Drop], reports: Sequence[StageReport]
    ) -> Iterator[Conversation | Drop]:
        """The same items, one for each that the entry holds, which is complete before the last has passed; when all
        have they are kept, with what `reports` then hold."""
        entry = self.entry(source)
        beside = entry.with_name(f"{entry.name}.{self._judging}.tmp")
        self.folder.mkdir(parents=True, exist_ok=True)
        yield from write_outcomes(beside, items)
        outcomes = entry / f"{self._judging}.arrow"
        os.replace(beside, outcomes)
        kept = {"sha256": file_sha256(outcomes), "reports": [_report_row(one) for one in reports]}
        write_atomically(outcomes.with_suffix(".json"), json.dumps(kept).encode())

    def sweep(self) -> None:
        """Remove what this build did not ask for."""
        for path in self.folder.glob("*"):
            if path.name not in self._asked and not path.name.startswith(HASHES):
                _remove(path)
        for path in self.folder.glob("*/judged-*"):
            if path.stem != self._judging:
                _remove(path)

    def _of(self, names: Sequence[str]) -> list[Any]:
        return [self._settings.get(name) for name in names]


def kept_conversation(folder: Path, source: str, name: str) -> Conversation | None:
    """A record of the source as it was before quality rules, masks and all that follows; None where it was not kept.

    O(texts of the source).
    """
    for entry in sorted(folder.glob(f"{safe_key(source)}-*")):
        try:
            if found := conversation_of(entry, name):
                return found
        except (OSError, pa.ArrowException, ValueError, KeyError):
            continue
    return None


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _is_whole(entry: Path) -> bool:
    digests = _read_json(entry / _ENTRY)
    return all(_is_file(entry / name, digests.get(name)) for name in (ROWS_FILE, MEDIA_FILE))


def _is_file(path: Path, sha256: object) -> bool:
    try:
        return sha256 is not None and file_sha256(path) == sha256
    except OSError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _report_row(report: StageReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "inputs": report.inputs,
        "dropped": dict(report.dropped),
        "changed": dict(report.changed),
        "note": report.note,
    }


def _report(row: dict[str, Any]) -> StageReport:
    counted = {name: Counter(row[name]) for name in ("dropped", "changed")}
    return StageReport(row["name"], row["inputs"], **counted, note=row["note"])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
