"""Texts alike in meaning: the search against plain loops, and the encoder on a tiny model made here."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.corpus import near_meaning
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.near_meaning import near_duplicate_meaning
from blm.curate.corpus.text_embeddings import Embeddings, TextEncoder
from blm.schemas.errors import ConfigError
from tests.curate.corpus.test_build import config_for

WORDS = [
    "what",
    "which",
    "colour",
    "shape",
    "size",
    "has",
    "is",
    "the",
    "a",
    "cube",
    "ball",
    "peg",
    "red",
    "green",
    "blue",
    "round",
    "long",
    "it",
    "box",
    "on",
    "table",
]


def vectors(count, seed=0):
    """Random directions around a few centres, (count, 8) of length 1."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(12, 8))[rng.integers(12, size=count)] + 0.15 * rng.normal(size=(count, 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 64, 2048])
def test_the_closest_earlier_text_of_the_group_is_found(monkeypatch, block):
    monkeypatch.setattr(near_meaning, "_BLOCK_ROWS", block)
    monkeypatch.setattr(near_meaning, "_TEXTS_AT_ONCE", 10)
    known = vectors(120)
    groups = np.random.default_rng(1).integers(4, size=120).astype(np.uint64)
    groups[:3] = [100, 101, 102]
    encoded: list[str] = []

    def encode(texts):
        encoded.extend(texts)
        return known[[int(text) for text in texts]]

    texts = pa.chunked_array([[str(number) for number in range(50)], [str(n) for n in range(50, 120)]])
    found = near_duplicate_meaning(texts, groups, encode, 8, 0.95).to_pylist()
    expected = {}
    for row in range(120):
        before = [other for other in range(row) if groups[other] == groups[row]]
        if before:
            closest = max(before, key=lambda other: float(known[row] @ known[other]))
            if known[row] @ known[closest] >= 0.95:
                expected[row] = closest
    assert len(expected) > 30
    assert {row["row"] for row in found if not row["kept"]} == set(expected)
    similarity = {row["row"]: row["similarity"] for row in found if not row["kept"]}
    assert all(abs(similarity[row] - known[row] @ known[other]) < 1e-5 for row, other in expected.items())
    assert sorted(map(int, encoded)) == list(range(3, 120))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_texts(count):
    texts = pa.chunked_array([["same"] * count], pa.large_string())
    found = near_duplicate_meaning(
        texts, np.zeros(count, np.uint64), lambda some: np.eye(4, dtype=np.float32)[[0] * len(some)], 4, 1.0
    )
    assert found["kept"].to_pylist() == ([True, False] if count == 2 else [])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny encoder with random weights that knows `WORDS`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=40, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_vectors_do_not_depend_on_what_else_is_encoded(model):
    encoder = TextEncoder(Embeddings(model=str(model), batch=2))
    texts = ["what colour has the cube", "a", "", "the ball is round " * 50, "which shape has it"]
    found = encoder(texts)
    assert found.shape == (5, encoder.width) == (5, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-4)
    assert abs(found @ found.T - np.eye(5)).max() > 0.01
    assert (found @ found.T)[0, 1] < 0.999


@pytest.mark.slow
def test_a_build_leaves_out_what_means_the_same(model, tmp_path):
    said = [
        ("what colour has the zebra", "it is red"),
        ("which shape has the ball on the table", "it is round"),
        ("what colour has the giraffe", "it is red"),
        ("what colour has the giraffe", "it is blue"),
    ]
    rows = [
        {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]}
        for asked, answer in said
    ]
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(rows))
    wanted = {"text": None, "embeddings": {"model": str(model), "threshold": 0.9999}}
    config = config_for(f"llava:{source}", output=tmp_path / "out", near_duplicates=wanted)
    summary = build_corpus(config)
    assert (summary.counts.kept, summary.counts.dropped) == (3, {"near_duplicate_meaning": 1})
    (pair,) = pq.read_table(tmp_path / "out/near_duplicates.parquet").to_pylist()
    assert (pair["id"][-1], pair["partner"][-1], pair["reason"]) == ("2", "0", "near_duplicate_meaning")
    assert pair["similarity"] == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"embeddings\.model: .*empty cannot be opened"):
        TextEncoder(Embeddings(model=str(tmp_path / "empty")))


def test_another_content_of_a_model_is_another_identity(tmp_path):
    (tmp_path / "weights").write_bytes(b"one")
    settings = Embeddings(model=str(tmp_path))
    before = settings.identity()
    (tmp_path / "weights").write_bytes(b"two")
    assert settings.identity() != before
    assert Embeddings(model="owner/name", revision="abc").identity() == "owner/name@abc"
