import hashlib
import random

import pyarrow as pa
import pytest

from blm.curate.corpus.benchmark_items import BenchmarkItem
from blm.curate.corpus.decontaminate import BOILERPLATE_ITEMS, BenchmarkImages, BenchmarkTexts
from blm.curate.corpus.perceptual_hash import image_hashes
from blm.curate.corpus.shingles import shingle_sets, words_of
from tests.curate.corpus.test_near_images import encoded, photograph

VOCABULARY = [f"word{i}" for i in range(300)]


def sentence(generator, length):
    return " ".join(generator.choice(VOCABULARY) for _ in range(length))


def rows_with_words(items, texts):
    return [(row, item) for row, item, _, _ in BenchmarkTexts(items).words_in(pa.array(texts))]


def test_planted_items_are_found_and_nothing_else():
    generator = random.Random(4)
    items = [BenchmarkItem("b", row, sentence(generator, generator.randrange(13, 60))) for row in range(300)]
    texts = [sentence(generator, 80) for _ in range(2000)]
    planted = {}
    for item in items[::3]:
        row = generator.randrange(len(texts))
        before, after = sentence(generator, 20), sentence(generator, 20)
        # As copies are found in the wild: other case and punctuation, within other text.
        texts[row] = f"{before}. {item.question.upper().replace(' ', ',  ')}! {after}"
        planted[row] = item.row
    found = dict(rows_with_words(items, texts))
    assert found == planted


@pytest.mark.parametrize(("shared", "expected"), [(13, [(0, 0)]), (12, [])])
def test_thirteen_words_count_and_twelve_do_not(shared, expected):
    generator = random.Random(1)
    item = BenchmarkItem("b", 0, sentence(generator, 40))
    copied = " ".join(item.question.split()[5 : 5 + shared])
    assert rows_with_words([item], [f"other words before {copied} other words behind"]) == expected


def test_the_share_and_the_evidence_say_how_much_is_known():
    words = [f"w{i}" for i in range(22)]
    item = BenchmarkItem("b", 0, " ".join(words))
    ((row, _, share, run),) = BenchmarkTexts([item]).words_in(pa.array(["x", " ".join(words[:14])]))
    assert (row, share) == (1, pytest.approx(2 / 10))
    assert run == " ".join(words[:13])


def test_instructions_that_a_benchmark_repeats_are_not_its_questions():
    generator = random.Random(2)
    instruction = sentence(generator, 20)
    items = [
        BenchmarkItem("b", row, f"{instruction} {sentence(generator, 30)}")
        for row in range(BOILERPLATE_ITEMS + 1)
    ]
    own = " ".join(items[3].question.split()[25:45])
    texts = [f"{instruction} and now something else", f"{instruction} {own}"]
    assert rows_with_words(items, texts) == [(1, 3)]
    few = items[:BOILERPLATE_ITEMS]
    assert {row for row, _ in rows_with_words(few, texts)} == {0, 1}


def test_short_questions_count_with_their_answer_only():
    items = [BenchmarkItem("b", 0, "What is it?", "A red cube."), BenchmarkItem("b", 1, "Why?")]
    texts = BenchmarkTexts(items)
    assert not list(texts.words_in(pa.array(["What is it? A red cube.", "Why?"])))
    asked = [("what is it", "a  RED cube"), ("What is it?", "A blue cube."), ("Why?", "")]
    assert list(texts.answers_in(asked)) == [(0, "what is it → a  RED cube")]


@pytest.mark.parametrize(
    "text", ["Größe 12, naïve", "机器人 moves 左", "한국어 x1y", "", "?!", "a-b_c", "İstanbul"]
)
def test_single_words_are_those_that_shingles_are_made_of(text):
    words = words_of(text)
    assert shingle_sets(pa.array([text]), 1).hashes.size == (len(set(words)) or 1)
    assert shingle_sets(pa.array([" ".join(words)])).hashes.tolist() == (
        shingle_sets(pa.array([text])).hashes.tolist()
        if words
        else shingle_sets(pa.array([""])).hashes.tolist()
    )


def test_images_are_found_by_looks_or_by_bytes_as_asked():
    known = [encoded(photograph(seed)) for seed in (1, 2)]
    items = [BenchmarkItem("b", row, "?", images=(image,)) for row, image in enumerate(known)]
    mine = [encoded(photograph(1), quality=40), known[1], encoded(photograph(3))]
    digests = [hashlib.sha256(image).digest() for image in mine]
    alike = BenchmarkImages(items)
    assert alike.needs_hashes
    assert alike.found(digests, image_hashes(mine)) == {0: [0], 1: [1]}
    equal = BenchmarkImages(items, frozenset({"b"}))
    assert not equal.needs_hashes
    assert equal.found(digests, None) == {1: [1]}
