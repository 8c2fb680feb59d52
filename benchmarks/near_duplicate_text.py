"""Near-duplicate text beside the tools that people use: documents per CPU second, peak memory, recall, precision.

Documents are the docstrings and documentation of installed Python packages, at least 20 words each; beyond their
number they are repeated with a third of the words changed. Every tenth has a planted copy with a few words changed.
Truth is the exact Jaccard similarity of 5-word shingles, through a prefix-filter join that shares no code with what is
measured (Chaudhuri et al. 2006). Recall is of planted pairs of at least 0.7; precision is of the removed documents:
those that have a true partner. Where there are too many documents to join all, precision is only measured of tools
that name the partner, by that one.

Each tool runs in a process of its own, on one thread, from a Parquet file to the numbers of removed documents; CPU
seconds are of its process and those it started. A tool that is not importable says so. PEERS may name folders of
packages for the tools other than ours, which come before this project's own: some need older releases.

Run: make bench ARGS="benchmarks/near_duplicate_text.py 50000 ours rensa"
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.process_memory import peak_mb  # noqa: E402

THRESHOLD = 0.7
PERMUTATIONS = 128
LEAST_WORDS, MOST_CHARACTERS = 20, 20_000
PLANTED_SHARE = 0.1
TRUTH_LIMIT = 60_000
"""Up to this many documents all are joined with all."""
_WORD = re.compile(r"[^\W_]+")


def main() -> None:
    """A Markdown table of the tools named on the command line, or all, at a number of documents."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    names = sys.argv[2:] or list(TOOLS)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "documents.parquet"
        planted = write_documents(path, count)
        texts = pq.read_table(path)["text"].to_pylist()
        words = np.array([len(text.split()) for text in texts])
        print(
            f"{len(texts):,} documents, median {np.median(words):.0f} words, {len(planted):,} planted copies\n"
        )
        planted = [pair for pair in planted if similarity(texts, *pair) >= THRESHOLD]
        print(f"{len(planted):,} planted pairs of at least {THRESHOLD}")
        truth = true_partners(texts) if len(texts) <= TRUTH_LIMIT else None
        if truth is not None:
            print(f"{len(truth):,} documents with a partner")
        print(
            "\n| tool | CPU s | documents per CPU s | peak MB | recall | precision |\n|---|---:|---:|---:|---:|---:|"
        )
        for name in names:
            found = measured(name, path, Path(scratch) / "removed.json")
            print(row(name, found, planted, texts, truth), flush=True)


def measured(name: str, path: Path, output: Path) -> dict[str, Any]:
    """What a tool removed from the documents of a file and what it cost, or the `error` it met."""
    command = [sys.executable, __file__, "--child", name, str(path), str(output)]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    if not name.startswith("ours"):
        settings["PYTHONPATH"] = os.environ.get("PEERS", "")
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:80]}
    return json.loads(output.read_text())


def row(
    name: str, found: dict[str, Any], planted: list, texts: list[str], truth: dict[int, set[int]] | None
) -> str:
    """One line of the table."""
    if "error" in found:
        return f"| {name} | left out: {found['error']} | | | | |"
    removed: dict[int, int] = dict(found["removed"])
    recall = np.mean([one in removed or other in removed for one, other in planted])
    precision = ""
    if truth is not None:
        precision = f"{np.mean([one in truth for one in removed]):.4f}"
    elif any(partner >= 0 for partner in removed.values()):
        named = [similarity(texts, one, other) >= THRESHOLD for one, other in removed.items()]
        precision = f"{np.mean(named):.4f}"
    cpu_s, speed = found["cpu_s"], found["count"] / found["cpu_s"]
    return (
        f"| {name} {found['version']} | {cpu_s:.1f} | {speed:,.0f} | {found['peak_mb']:.0f} "
        f"| {recall:.4f} | {precision} |"
    )


def write_documents(path: Path, count: int) -> list[tuple[int, int]]:
    """Documents in random order into a Parquet file; returns pairs of a document and its planted copy."""
    generator = random.Random(5)
    real = []
    for text in documentation():
        real.append(text)
        if len(real) >= count:
            break
    base = int(count / (1 + PLANTED_SHARE))
    vocabulary = sorted({word for text in real[:2000] for word in text.split()})
    originals = [
        real[i] if i < len(real) else changed(real[i % len(real)], 1 / 3, vocabulary, generator)
        for i in range(base)
    ]
    copies = [
        (i, changed(originals[i], 0.02, vocabulary, generator))
        for i in range(0, base, int(1 / PLANTED_SHARE))
    ]
    texts = originals + [copy for _, copy in copies]
    order = generator.sample(range(len(texts)), len(texts))
    place = {old: new for new, old in enumerate(order)}
    pq.write_table(pa.table({"text": [texts[old] for old in order]}), path, row_group_size=10_000)
    return [(place[i], place[base + n]) for n, (i, _) in enumerate(copies)]


def changed(text: str, share: float, vocabulary: list[str], generator: random.Random) -> str:
    """The text with a share of its words, at least one, replaced by others."""
    words = text.split(" ")
    for place in generator.sample(range(len(words)), max(1, int(share * len(words)))):
        words[place] = generator.choice(vocabulary)
    return " ".join(words)


def documentation() -> Iterator[str]:
    """Docstrings and text files below the installed packages and the standard library, each text once."""
    seen: set[int] = set()
    roots = [Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")]
    for path in sorted(
        {path for root in roots for path in root.rglob("*") if path.suffix in (".py", ".rst", ".md")}
    ):
        try:
            content = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        parts = (
            re.findall(r'"""(.*?)"""', content, re.DOTALL) if path.suffix == ".py" else content.split("\n\n")
        )
        for text in parts:
            clean = " ".join(text.split())
            if len(clean) <= MOST_CHARACTERS and clean.count(" ") >= LEAST_WORDS and hash(clean) not in seen:
                seen.add(hash(clean))
                yield clean


def shingles(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def similarity(texts: list[str], one: int, other: int) -> float:
    """Exact Jaccard similarity of two texts' shingles."""
    first, second = set(shingles(texts[one])), set(shingles(texts[other]))
    return len(first & second) / len(first | second)


def true_partners(texts: list[str]) -> dict[int, set[int]]:
    """Per document, all others of a Jaccard similarity of at least `THRESHOLD`.

    Two such sets share one of the rarest |s| − ⌈0.7 |s|⌉ + 1 shingles of each.
    """
    numbers: dict[str, int] = {}
    sets = [{numbers.setdefault(one, len(numbers)) for one in shingles(text)} for text in texts]
    frequency = np.bincount([one for each in sets for one in each], minlength=len(numbers)).tolist()
    index: dict[int, list[int]] = {}
    partners: dict[int, set[int]] = {}
    for place, mine in enumerate(sets):
        prefix = sorted(mine, key=lambda one: (frequency[one], one))[
            : len(mine) - int(np.ceil(THRESHOLD * len(mine))) + 1
        ]
        for other in {other for one in prefix for other in index.get(one, ())}:
            common = len(mine & sets[other])
            if common >= THRESHOLD * (len(mine) + len(sets[other]) - common):
                partners.setdefault(place, set()).add(other)
                partners.setdefault(other, set()).add(place)
        for one in prefix:
            if frequency[one] > 1:
                index.setdefault(one, []).append(place)
    return partners


def ours(path: Path, memory_bytes: int = 500_000_000) -> dict[int, int]:
    from blm.curate.corpus.near_text import near_duplicate_text
    from blm.curate.corpus.sources.rows import parquet_batches

    batches = parquet_batches(path, 4096, ["text"])
    found = near_duplicate_text((one["text"] for one in batches), THRESHOLD, memory_bytes=memory_bytes)
    removed = found.filter(pc.invert(found["kept"]))  # type: ignore[attr-defined]
    return dict(zip(removed["row"].to_pylist(), removed["partner"].to_pylist(), strict=True))


def rensa(path: Path) -> list[int]:
    """Its fastest way: a matrix of digests, and flags for documents that have a duplicate."""
    from rensa import RMinHash, RMinHashLSH  # type: ignore[import-not-found]

    sets = [shingles(text) for text in pq.read_table(path)["text"].to_pylist()]
    matrix = RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, PERMUTATIONS, 16)
    flags = index.query_duplicate_flags_matrix_one_shot(matrix)
    return [row for row, flag in enumerate(flags) if flag]


def datasketch(path: Path) -> list[int]:
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    removed = []
    for row, text in enumerate(pq.read_table(path)["text"].to_pylist()):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([one.encode() for one in shingles(text)])
        if index.query(signature):
            removed.append(row)
        else:
            index.insert(row, signature)
    return removed


def datatrove(path: Path) -> list[int]:
    """Its four steps, run in this process one after the other."""
    from datatrove.data import Document  # type: ignore[import-not-found]
    from datatrove.pipeline.dedup import (  # type: ignore[import-not-found]
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found]

    settings = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
    texts = pq.read_table(path)["text"].to_pylist()

    def documents() -> Iterator:
        return (Document(text=text, id=str(row)) for row, text in enumerate(texts))

    with tempfile.TemporaryDirectory() as scratch:
        signatures, buckets, removed = (f"{scratch}/{name}" for name in ("signatures", "buckets", "removed"))
        MinhashDedupSignature(signatures, config=settings).run(documents(), rank=0, world_size=1)
        for bucket in range(settings.num_buckets):
            MinhashDedupBuckets(signatures, buckets, config=settings).run(None, bucket, settings.num_buckets)
        MinhashDedupCluster(buckets, removed, config=settings).run(None, 0, 1)
        kept = {int(one.id) for one in MinhashDedupFilter(removed).run(documents(), 0, 1)}
    return [row for row in range(len(texts)) if row not in kept]


def data_juicer(path: Path) -> list[int]:
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import (  # type: ignore[import-not-found]
        DocumentMinhashDeduplicator,
    )
    from datasets import Dataset

    texts = pq.read_table(path)["text"].to_pylist()
    dataset = Dataset.from_dict({"text": texts, "row": list(range(len(texts)))})
    tool = DocumentMinhashDeduplicator(num_permutations=PERMUTATIONS, jaccard_threshold=THRESHOLD)
    hashed = dataset.map(tool.compute_hash)
    kept, _ = tool.process(hashed)
    left = set(kept["row"])
    return [row for row in range(len(texts)) if row not in left]


TOOLS: dict[str, Callable[[Path], list[int] | dict[int, int]]] = {
    "ours": ours,
    "ours_64mb": partial(ours, memory_bytes=64_000_000),
    "rensa": rensa,
    "datasketch": datasketch,
    "data_juicer": data_juicer,
    "datatrove": datatrove,
}


"""Each gives the documents it removes, perhaps with the one that each is alike."""
DISTRIBUTIONS = {"ours": "blm", "ours_64mb": "blm", "data_juicer": "py-data-juicer"}
"""What a tool is installed as, where it is not its own name."""


def child(name: str, path: Path, output: Path) -> None:
    """Run one tool and write what it removed, and what it cost without its imports' time but with their memory."""
    TOOLS[name](_a_few(path, output.parent))
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )
    removed = TOOLS[name](path)
    after = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )
    count = pq.ParquetFile(path).metadata.num_rows
    if not isinstance(removed, dict):
        removed = dict.fromkeys(removed, -1)
    found: dict[str, Any] = {
        "removed": [*removed.items()],
        "cpu_s": after - before,
        "peak_mb": peak_mb(),
        "count": count,
    }
    found["version"] = version(DISTRIBUTIONS.get(name, name))
    output.write_text(json.dumps(found))


def _a_few(path: Path, folder: Path) -> Path:
    """A file of the first hundred documents, to warm up with."""
    few = folder / "few.parquet"
    pq.write_table(pa.Table.from_batches([next(pq.ParquetFile(path).iter_batches(100))]), few)
    return few


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
