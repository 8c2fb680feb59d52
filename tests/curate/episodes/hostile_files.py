"""Damage a dataset's files in the ways that accidents and attackers do: each mutation changes one thing at random."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[Path, random.Random], None]

TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[2J\x1b]0;owned\x07",
    "line\nbreak\r| <script>alert(1)</script> {{ 7 * 7 }}",
    "../../../etc/passwd",
    "/etc/passwd",
    "\u202egnp.exe",
    "x" * 200_000,
    "é" * 300,
    "%s%n{0}{x}",
    "'; drop table episodes; --",
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63 - 1,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    1e308,
    1e9,
    math.nan,
    math.inf,
    -math.inf,
)
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, [], {}, [[]], [None], {"a": {}}, ["x"] * 1000)

TEMPLATES = (
    "../../outside/secret.parquet",
    "/etc/passwd",
    "data/../../../{chunk_index}/{file_index}",
    "{chunk_index:1000000000d}",
    "{chunk_index.__class__}",
    "{0}",
    "{",
    "data/chunk-000/file-000.parquet",
    "data",
    ".",
    "",
    "a" * 5000,
    "data/\x00/{file_index}",
    "videos/{video_key}/../../../../outside/secret.mp4",
)


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _some_file(root: Path, dice: random.Random, ending: str = "") -> Path | None:
    files = [path for path in _files(root) if path.name.endswith(ending)]
    return dice.choice(files) if files else None


def flip_bits(root: Path, dice: random.Random, ending: str = "") -> None:
    path = _some_file(root, dice, ending)
    if path is None or not (content := bytearray(path.read_bytes())):
        return
    for _ in range(dice.choice((1, 1, 3, 20, 200))):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def flip_bits_at_the_end(root: Path, dice: random.Random) -> None:
    """Footers and indices of files stand there."""
    path = _some_file(root, dice, dice.choice((".parquet", ".mp4")))
    if path is None or not (content := bytearray(path.read_bytes())):
        return
    for _ in range(dice.choice((1, 2, 8))):
        content[len(content) - 1 - dice.randrange(min(len(content), 2000))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def truncate(root: Path, dice: random.Random) -> None:
    path = _some_file(root, dice)
    if path is not None:
        content = path.read_bytes()
        path.write_bytes(content[: dice.choice((0, 0, 1, 4, len(content) // 2, max(0, len(content) - 1)))])


def overwrite(root: Path, dice: random.Random) -> None:
    path = _some_file(root, dice)
    if path is not None:
        junk = (
            dice.randbytes(500),
            b"\x00" * 5000,
            b"PAR1" * 3,
            b"null",
            b"[]",
            b"\xff\xfe{}",
            b"[" * 100_000,
        )
        path.write_bytes(dice.choice(junk))


def append(root: Path, dice: random.Random) -> None:
    path = _some_file(root, dice)
    if path is not None:
        path.write_bytes(path.read_bytes() + dice.randbytes(dice.choice((1, 100, 5000))))


def remove(root: Path, dice: random.Random) -> None:
    places = [path for path in root.rglob("*") if path != root / "meta"]
    path = dice.choice(places) if places else None
    if path is not None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def swap(root: Path, dice: random.Random) -> None:
    one, other = _some_file(root, dice), _some_file(root, dice)
    if one is None or other is None or dice.random() < 0.7:
        ending = dice.choice((".parquet", ".mp4"))
        one, other = _some_file(root, dice, ending), _some_file(root, dice, ending)
    if one is not None and other is not None:
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)


def duplicate(root: Path, dice: random.Random) -> None:
    path = _some_file(root, dice)
    if path is not None:
        name = dice.choice((path.name.replace("0", "9"), path.name.upper(), f"copy{path.suffix}"))
        path.with_name(name).write_bytes(path.read_bytes())


def replace_by_something_else(root: Path, dice: random.Random) -> None:
    """A link out of the dataset, to itself, to nowhere, to a device; a named pipe; a folder."""
    path = _some_file(root, dice)
    if path is None:
        return
    path.unlink()
    kind = dice.choice(("outside", "folder", "pipe", "loop", "nowhere", "device", "inside"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        inside = _some_file(root, dice) or root
        targets = {
            "outside": root.parent.parent / "outside/secret.parquet",
            "loop": path,
            "nowhere": path.with_name("nowhere"),
            "device": Path("/dev/zero"),
            "inside": inside,
        }
        path.symlink_to(targets[kind])


def link_a_folder_out(root: Path, dice: random.Random) -> None:
    folders = sorted(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())
    if folders:
        folder = dice.choice(folders)
        moved = root.parent.parent / "outside" / f"moved-{dice.randrange(10**6)}"
        if dice.random() < 0.5:
            shutil.copytree(folder, moved, symlinks=True)
        shutil.rmtree(folder)
        folder.symlink_to(moved, target_is_directory=True)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with a key or an index in it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
    elif isinstance(value, list):
        found += [(value, index) for index in range(len(value))]
    for holder, key in list(found):
        found += _places(holder[key])
    return found


def change_json(root: Path, dice: random.Random) -> None:
    info = root / "meta/info.json"
    path = info if info.is_file() and dice.random() < 0.8 else _some_file(root, dice, ".json")
    content = _json(path)
    if path is None or not (places := _places(content)):
        return
    for _ in range(dice.choice((1, 1, 2, 5))):
        holder, key = dice.choice(places)
        try:
            if dice.random() < 0.2:
                del holder[key]
            elif isinstance(holder, dict) and dice.random() < 0.2:
                holder[dice.choice(TEXTS)] = holder.pop(key)
            else:
                holder[key] = dice.choice(VALUES)
        except (KeyError, IndexError):
            continue
    path.write_text(json.dumps(content))


def change_top_of_info(root: Path, dice: random.Random) -> None:
    """Rates, counts and versions: the numbers that everything else leans on."""
    path = root / "meta/info.json"
    content = _json(path)
    if isinstance(content, dict) and content:
        content[dice.choice(sorted(content))] = dice.choice(VALUES)
        path.write_text(json.dumps(content))


def change_template(root: Path, dice: random.Random) -> None:
    path = root / "meta/info.json"
    content = _json(path)
    if isinstance(content, dict):
        content[dice.choice(("data_path", "video_path"))] = dice.choice(TEMPLATES)
        path.write_text(json.dumps(content))


def change_shape(root: Path, dice: random.Random) -> None:
    path = root / "meta/info.json"
    content = _json(path)
    if isinstance(content, dict) and isinstance(content.get("features"), dict) and content["features"]:
        feature = content["features"][dice.choice(sorted(content["features"]))]
        if isinstance(feature, dict):
            sizes = (0, 1, 2, 5, 7, 64, 1024, 10**6, 10**9, 2**40, -3, 2.5)
            feature["shape"] = [dice.choice(sizes) for _ in range(dice.choice((0, 1, 1, 2, 3, 3, 4)))]
            path.write_text(json.dumps(content))


def rename_feature(root: Path, dice: random.Random) -> None:
    """A camera or a vector whose name leads elsewhere, in info.json and wherever else it stands."""
    path = root / "meta/info.json"
    content = _json(path)
    if isinstance(content, dict) and isinstance(content.get("features"), dict) and content["features"]:
        old = dice.choice(sorted(content["features"]))
        new = dice.choice(
            (
                "../../../outside/secret",
                "a/b",
                'qu"ote',
                "new\nline",
                "\x1b[31m",
                "UP",
                "observation.images.TOP",
                *TEXTS,
            )
        )
        content["features"][new] = content["features"].pop(old)
        path.write_text(json.dumps(content))
        for file in root.glob("meta/episodes/*/*.parquet"):
            _edit_table(file, lambda t: t.rename_columns([name.replace(old, new) for name in t.column_names]))


def strange_json(root: Path, dice: random.Random) -> None:
    """Valid JSON, or nearly: deep, double keys, other encodings, byte-order marks, NUL."""
    path = root / "meta/info.json"
    text = path.read_text(errors="replace") if path.is_file() else "{}"
    forms = (
        lambda: (text[:-1] + ', "fps": 7, "fps": 8}').encode(),
        lambda: (text[:-1] + ', "deep": ' + "[" * 100_000 + "]" * 100_000 + "}").encode(),
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: text.replace("so", "\udcff").encode("utf-8", "surrogatepass"),
        lambda: text.encode() + b"\x00",
        lambda: (text[:-1] + ', "big": ' + "9" * 6000 + "}").encode(),
        lambda: text.replace("top", "\\u0000").encode(),
        lambda: text.replace("top", "\\ud800").encode(),
    )
    if path.is_symlink() and not path.exists():
        path.unlink()  # of an earlier damage; it leads nowhere
    if path.parent.is_dir() and not path.is_dir() and not path.is_fifo():
        path.write_bytes(dice.choice(forms)())


def _json(path: Path | None) -> Any:
    try:
        return json.loads(path.read_text()) if path is not None else None
    except (OSError, ValueError, RecursionError):
        return None


def _edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    if not path.is_file():  # but a folder or a pipe, of an earlier damage
        return
    try:
        changed = change(pq.ParquetFile(path).read())
        pq.write_table(changed, path)
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError):
        return  # damaged already, or of a type that cannot hold the value


def _some_table(root: Path, dice: random.Random) -> Path | None:
    folder = dice.choice(("meta/episodes", "meta/episodes", "data", "data", "meta"))
    files = sorted((root / folder).rglob("*.parquet")) or sorted(root.glob("*.parquet"))
    return dice.choice(files) if files else None


def change_cell(root: Path, dice: random.Random) -> None:
    path = _some_table(root, dice)
    if path is None:
        return

    def changed(table: pa.Table) -> pa.Table:
        name = _some_column(table, dice)
        values, kind = table[name].to_pylist(), table.field(name).type
        row = dice.randrange(len(values))
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            values[row] = _strange_list(values[row], dice)
        else:
            values[row] = dice.choice(VALUES)
        fits = pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array(values, fits, from_pandas=False))

    _edit_table(path, changed)


def _some_column(table: pa.Table, dice: random.Random) -> str:
    """Statistics are many, and matter to nobody here."""
    names = [name for name in table.column_names if not name.startswith("stats/")]
    return dice.choice(names or table.column_names)


def _strange_list(before: Any, dice: random.Random) -> Any:
    if dice.random() < 0.3 or not before:
        return dice.choice((None, [], (before or [0]) * 1000))
    values = list(before)
    values[dice.randrange(len(values))] = dice.choice(VALUES)
    return values if dice.random() < 0.7 else values[1:]


def change_type(root: Path, dice: random.Random) -> None:
    """A whole column of another type: text, bytes, dictionaries, nulls, decimals, times, structs, unsigned."""
    path = _some_table(root, dice)
    if path is None:
        return

    def changed(table: pa.Table) -> pa.Table:
        name = _some_column(table, dice)
        column = table[name].combine_chunks()
        forms: tuple[Callable[[], Any], ...] = (
            lambda: pa.array([str(one) for one in column.to_pylist()]),
            lambda: pa.array([str(one).encode() for one in column.to_pylist()]),
            lambda: pa.array([str(one) for one in column.to_pylist()]).dictionary_encode(),
            lambda: column.dictionary_encode(),
            lambda: pa.nulls(len(column)),
            lambda: pa.nulls(len(column), table.field(name).type),
            lambda: pa.array([float(one) + 0.5 for one in column.to_pylist()]),
            lambda: pa.array([{"a": one} for one in column.to_pylist()]),
            lambda: pa.array([[one] for one in column.to_pylist()]),
            lambda: column.cast(pa.uint64(), safe=False),
            lambda: column.cast(pa.int8(), safe=False),
            lambda: column.cast(pa.float16(), safe=False),
            lambda: column.cast(pa.timestamp("us")),
            lambda: column.cast(pa.decimal128(38, 2)),
            lambda: pa.array([bool(one) for one in column.to_pylist()]),
        )
        return table.set_column(table.column_names.index(name), name, dice.choice(forms)())

    _edit_table(path, changed)


def change_rows(root: Path, dice: random.Random) -> None:
    """Rows lost, doubled, out of order; columns lost, renamed, doubled."""
    path = _some_table(root, dice)
    if path is None:
        return

    def changed(table: pa.Table) -> pa.Table:
        order = list(range(len(table)))
        form = dice.choice(("none", "lost", "double", "order", "times", "column", "rename", "again", "few"))
        if form in ("none", "few"):
            return table.slice(0, 0 if form == "none" else 1)
        if form == "lost":
            order.pop(dice.randrange(len(order)))
        elif form == "double":
            order.insert(dice.randrange(len(order)), dice.randrange(len(order)))
        elif form == "order":
            dice.shuffle(order)
        elif form == "times":
            order = order * 50
        else:
            name = _some_column(table, dice)
            if form == "column":
                return table.drop_columns(name)
            if form == "again":
                return table.append_column(name, table[name])
            new = dice.choice((name.upper(), 'a"b', "", "x"))
            return table.rename_columns([new if one == name else one for one in table.column_names])
        return table.take(pa.array(order, pa.int64()))

    _edit_table(path, changed)


def change_series(root: Path, dice: random.Random) -> None:
    """States, actions, times as drivers in trouble leave them: NaN, infinite, huge, the same, in other widths."""
    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        return

    def changed(table: pa.Table) -> pa.Table:
        name = dice.choice([one for one in table.column_names if "index" not in one])
        values = np.array(table[name].to_pylist(), dtype=np.float64)
        form = dice.choice(("nan", "inf", "huge", "tiny", "same", "wide", "narrow", "noise"))
        fills = {"nan": np.nan, "inf": np.inf, "huge": 1e300, "tiny": 5e-324, "same": 1.0}
        if form in fills:
            values[dice.randrange(len(values)) :] = fills[form]
        elif form == "noise":
            values += np.random.default_rng(dice.randrange(2**32)).normal(0, 1e6, values.shape)
        elif values.ndim == 2:
            values = np.repeat(values, 3, axis=1) if form == "wide" else values[:, :-1]
        return table.set_column(table.column_names.index(name), name, pa.array(values.tolist()))

    _edit_table(dice.choice(files), changed)


def repeated_rows(root: Path, dice: random.Random) -> None:
    """A small file of many rows, or with a very long list in one of them."""
    files = sorted(root.glob(dice.choice(("data/*/*.parquet", "meta/episodes/*/*.parquet"))))
    if files:
        path = dice.choice(files)
        _edit_table(path, lambda t: t.take(pa.array(np.zeros(300_000, np.int64))))


def change_instruction(root: Path, dice: random.Random) -> None:
    text = dice.choice(TEXTS)
    for path in root.glob("meta/episodes/*/*.parquet"):

        def changed(table: pa.Table) -> pa.Table:
            values = [[text]] * len(table)
            return table.set_column(table.column_names.index("tasks"), "tasks", pa.array(values))

        _edit_table(path, changed)


def change_place(root: Path, dice: random.Random) -> None:
    """Chunk and file numbers and times in videos that point elsewhere, also at the places of other episodes."""
    files = sorted(root.glob("meta/episodes/*/*.parquet"))
    if not files:
        return

    def changed(table: pa.Table) -> pa.Table:
        name = dice.choice(
            [one for one in table.column_names if one.endswith(("_index", "_timestamp", "length"))]
        )
        near = (0, 1, 2, 3, 0.05, 0.3)
        wanted = [dice.choice(near if dice.random() < 0.6 else NUMBERS) for _ in range(len(table))]
        return table.set_column(
            table.column_names.index(name), name, pa.array(wanted, table.field(name).type)
        )

    _edit_table(dice.choice(files), changed)


def other_video(root: Path, dice: random.Random) -> None:
    path = _some_file(root, dice, ".mp4")
    if path is not None:
        path.write_bytes(dice.choice(list(strange_videos().values())))


@cache
def strange_videos() -> dict[str, bytes]:
    """Files that are no episode's video, by what they are."""
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\nhttp://localhost:9/x.ts\n"
    return {
        "mpeg4 in avi": encoded("avi", "mpeg4"),
        "vp9 in webm": encoded("webm", "libvpx-vp9"),
        "mjpeg": encoded("mp4", "mjpeg", pixels="yuvj420p"),
        "gif": encoded("gif", "gif", pixels="rgb8"),
        "grey": encoded("mp4", "libx264", pixels="gray"),
        "10 bit": encoded("mp4", "libx264", pixels="yuv420p10le"),
        "tiny": encoded("mp4", "libx264", size=(2, 2)),
        "wide": encoded("mp4", "libx264", size=(4096, 16)),
        "another rate": encoded("mp4", "libx264", rate=7),
        "one frame": encoded("mp4", "libx264", frames=1),
        "sound": sound(),
        "playlist": playlist.encode(),
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "subtitles": b"1\n00:00:00,000 --> 00:00:09,000\nhello\n",
        "picture": _png_header(100_000, 100_000),
    }


def encoded(
    container: str,
    codec: str,
    size: tuple[int, int] = (32, 32),
    frames: int = 14,
    rate: int = 20,
    pixels: str = "yuv420p",
) -> bytes:
    """A video of (width, height) `size`."""
    import io

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as video:
        stream: Any = video.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 10 * index + 40, np.uint8)
            picture[: size[1] // 2, : max(1, (index * 2) % size[0])] = 220
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, rate)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return buffer.getvalue()


def sound() -> bytes:
    """An MP4 without pictures."""
    import io

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _png_header(width: int, height: int) -> bytes:
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


MUTATIONS: dict[str, Mutation] = {
    "bits flipped": flip_bits,
    "bits flipped in a table": lambda root, dice: flip_bits(root, dice, ".parquet"),
    "bits flipped in a video": lambda root, dice: flip_bits(root, dice, ".mp4"),
    "bits flipped in info.json": lambda root, dice: flip_bits(root, dice, "info.json"),
    "bits flipped at the end": flip_bits_at_the_end,
    "truncated": truncate,
    "overwritten": overwrite,
    "appended to": append,
    "removed": remove,
    "swapped": swap,
    "doubled": duplicate,
    "link, pipe or folder": replace_by_something_else,
    "folder linked out": link_a_folder_out,
    "JSON values": change_json,
    "info.json values": change_top_of_info,
    "path templates": change_template,
    "shapes": change_shape,
    "feature names": rename_feature,
    "strange JSON": strange_json,
    "cells": change_cell,
    "column types": change_type,
    "rows and columns": change_rows,
    "states, actions, times": change_series,
    "many rows": repeated_rows,
    "instructions": change_instruction,
    "places of episodes": change_place,
    "other videos": other_video,
}
"""By what they change."""
