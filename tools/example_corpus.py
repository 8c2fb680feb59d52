"""Prepare a small corpus of real data, to be built with `blm curate build-corpus`.

The data come from Python packages that ship some, so nothing is downloaded here, and from recorded episodes:

    pip install --no-deps --target PACKAGES chitchat-dataset==0.9.0 chatterbot-corpus==1.3.3 mvtb-data==1.6.1 \
        scikit-image==0.26.0 ankamantatra==1.0.0
    blm collect suite --episodes 2 --image-size 256 --keep-failures --variety lighting,colours,distractors \
        --output RECORDINGS
    python tools/example_corpus.py --packages PACKAGES --recordings RECORDINGS --output SOURCES
    blm curate build-corpus --config SOURCES/corpus.yaml --output CORPUS

| source | package, licence | in the form of | what |
|---|---|---|---|
| dialogues | chitchat-dataset, MIT | ShareGPT JSON lines | people who chat; the one who begins is the user |
| replies | chatterbot-corpus, BSD-3-Clause | Parquet | a remark and a reply, in 28 languages |
| trivia | ankamantatra, MIT | `datasets` on disk | knowledge, some of it multiple choice |
| photographs | mvtb-data, MIT | images with captions beside them | captions of `example_sources.yaml` |
| samples | scikit-image, BSD-3-Clause | WebDataset | pictures with what the functions that load them say |
| choices | mvtb-data, MIT | Cosmos-Reason1 JSON | questions of `example_sources.yaml` about a video and pictures |
| one per robot | recorded here | LeRobot | questions answered from the recorded state |

`exam.jsonl` is a benchmark with items that the corpus holds as well, planted to see whether they are found.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset
from PIL import Image

WORDS_FILE = Path(__file__).with_name("example_sources.yaml")
LEAST_TURNS = 2
IMAGE_ENDINGS = (".png", ".jpg")
ROBOT_QUESTIONS = 36


def dialogues(packages: Path, output: Path) -> dict[str, Any]:
    """Chats as turns of user and assistant: messages that a person sent in a row are one turn."""
    content = json.loads((packages / "chitchat_dataset/dataset.json").read_text())
    with (output / "dialogues.jsonl").open("w") as stream:
        for name, chat in content.items():
            turns = _turns([message for block in chat["messages"] for message in block])
            if len(turns) >= LEAST_TURNS:
                stream.write(json.dumps({"id": name, "conversations": turns}) + "\n")
    return {"kind": "llava", "path": "dialogues.jsonl", "licence": "mit"}


def _turns(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Turns that end with the assistant; whoever writes first is the user."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role = "human" if message["sender"] == messages[0]["sender"] else "gpt"
        if turns and turns[-1]["from"] == role:
            turns[-1]["value"] += "\n" + message["text"]
        else:
            turns.append({"from": role, "value": message["text"]})
    return turns[: len(turns) // 2 * 2]


def replies(packages: Path, output: Path) -> dict[str, Any]:
    """The first two lines of every conversation, in all languages."""
    folder = packages / "chatterbot_corpus/data"
    rows = []
    for path in sorted(folder.rglob("*.yml")):
        for said in yaml.safe_load(path.read_text())["conversations"]:
            if len(said) >= LEAST_TURNS:
                rows.append({"topic": path.stem, "question": said[0], "answer": said[1]})
    pq.write_table(pa.Table.from_pylist(rows), output / "replies.parquet")
    return {"kind": "parquet", "path": "replies.parquet", "licence": "bsd-3-clause"}


def trivia(packages: Path, output: Path) -> dict[str, Any]:
    """Knowledge questions; those with one right option are asked as multiple choice."""
    content = json.loads((packages / "ankamantatra/data.json").read_text())
    rows = [
        {
            "question": row["question"],
            "choices": [str(one) for one in row["options"]] if form == "unique" else None,
            "answer": ", ".join(map(str, row["answer"])) if form == "multiple" else str(row["answer"]),
        }
        for forms in content.values()
        for form, listed in forms.items()
        for row in listed
    ]
    Dataset.from_list(rows).save_to_disk(output / "trivia")
    return {"kind": "datasets", "path": "trivia", "licence": "mit"}


def photographs(packages: Path, output: Path, words: dict[str, Any]) -> dict[str, Any]:
    """The pictures of a machine vision course, each with its caption beside it if there is one."""
    for source in _pictures(packages, words):
        name = source.relative_to(packages / "mvtbdata/images").as_posix()
        target = output / "photographs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        plain = name.replace("holdout/", "")
        for pattern, caption in words["captions"].items():
            if fnmatchcase(plain, pattern):
                target.with_suffix(".txt").write_text(caption)
    return {"kind": "images", "path": "photographs", "licence": "mit", "task_family": "perception"}


def _pictures(packages: Path, words: dict[str, Any]) -> list[Path]:
    found = sorted((packages / "mvtbdata/images").rglob("*"))
    return [one for one in found if one.suffix in IMAGE_ENDINGS and one.name not in words["unused"]]


def samples(packages: Path, output: Path) -> dict[str, Any]:
    """The pictures of an image library, with what its functions say about them."""
    (output / "samples").mkdir(exist_ok=True)
    with tarfile.open(output / "samples/samples-000000.tar", "w") as tar:
        for path, said in _described(packages / "skimage"):
            for name, content in ((path.name, path.read_bytes()), (f"{path.stem}.txt", said.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {
        "kind": "webdataset",
        "path": "samples",
        "licence": "bsd-3-clause",
        "task_family": "perception",
    }


def _described(package: Path) -> Iterator[tuple[Path, str]]:
    """Each picture that a function of the library loads alone, with the first paragraph of what it says."""
    for function in ast.parse((package / "data/_fetchers.py").read_text()).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        texts = {
            one.value
            for one in ast.walk(function)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        }
        paths = [package / text for text in sorted(texts) if text.startswith("data/") and "\n" not in text]
        said = (ast.get_docstring(function) or "").split("\n\n")[0]
        if len(paths) == 1 and paths[0].suffix in IMAGE_ENDINGS and paths[0].is_file():
            yield paths[0], " ".join(said.split())


def choices(packages: Path, output: Path, words: dict[str, Any]) -> dict[str, Any]:
    """Multiple choice in the form of Cosmos-Reason1; the order of options is drawn by the question."""
    rows = []
    for row in words["choices"]:
        options = list(row["options"])
        Random(row["question"]).shuffle(options)
        lettered = dict(zip("ABCD", options, strict=True))
        right = next(letter for letter, option in lettered.items() if option == row["options"][0])
        kind = "video" if row["media"].endswith(".mp4") else "image"
        pairs = {"question": row["question"], "index2ans": lettered, "answer": right}
        rows.append({kind: row["media"], "qa_pairs": pairs})
    (output / "choices.json").write_text(json.dumps(rows, indent=1))
    return {
        "kind": "cosmos-reason1",
        "path": "choices.json",
        "media_root": str((packages / "mvtbdata/images").resolve()),
        "licence": "mit",
        "task_family": "perception",
    }


def exam(packages: Path, output: Path) -> str:
    """A benchmark: two questions of `trivia`, a remark of `replies`, a photograph made poorer; and two more."""
    with Image.open(packages / "mvtbdata/images/butterfly.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(output / "exam.jpg", quality=60)
    items = [
        {"question": "What is the biggest planet in our solar system?", "answer": "Jupiter"},
        {"question": "How many vertices are present on a cube?", "answer": "8"},
        {
            "question": "What is AI?",
            "answer": "AI is the field of science which concerns itself with building hardware and software that "
            "replicates the functions of the human mind.",
        },
        {"question": "Which animal is this?", "answer": "A butterfly.", "image": "exam.jpg"},
        {"question": "Which gas do plants take up to grow?", "answer": "Carbon dioxide."},
        {"question": "How many strings does a violin have?", "answer": "4"},
    ]
    (output / "exam.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return "exam.jsonl"


def recordings(folder: Path) -> dict[str, dict[str, Any]]:
    """A source per recorded dataset of a suite."""
    return {
        path.parents[1].name: {
            "kind": "lerobot",
            "path": str(path.parents[1].resolve()),
            "licence": "apache-2.0",
            "questions_per_episode": ROBOT_QUESTIONS,
        }
        for path in sorted(folder.glob("*/meta/info.json"))
    }


def prepare(packages: Path, recorded: Path | None, output: Path) -> Path:
    """Write every source and `corpus.yaml` into `output`, which is made; returns the path of the latter."""
    output.mkdir(parents=True, exist_ok=True)
    words = yaml.safe_load(WORDS_FILE.read_text())
    sources = {
        "dialogues": dialogues(packages, output),
        "replies": replies(packages, output),
        "trivia": trivia(packages, output),
        "photographs": photographs(packages, output, words),
        "samples": samples(packages, output),
        "choices": choices(packages, output, words),
    }
    for source in sources.values():
        source["path"] = str((output / source["path"]).resolve())
    sources |= recordings(recorded) if recorded else {}
    config = {
        "sources": [{"name": name, **source} for name, source in sources.items()],
        "languages": ["en"],
        "licences": {"deny": ["*-nc-*", "unknown"]},
        "near_duplicates": {"images": "any_text", "image_sources": ["photographs", "samples"]},
        "benchmarks": [str((output / exam(packages, output)).resolve())],
        "mixture": {"temperature": 2, "conversations": 4000, "least_general": 0.2},
    }
    path = output / "corpus.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare a small corpus of real data.")
    parser.add_argument("--packages", type=Path, required=True, help="where the packages were installed")
    parser.add_argument("--recordings", type=Path, help="a suite that `blm collect suite` recorded")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sources and corpus.yaml")
    told = parser.parse_args()
    path = prepare(told.packages, told.recordings, told.output)
    print(f"Sources are ready. Next: blm curate build-corpus --config {path} --output CORPUS")


if __name__ == "__main__":
    main()
