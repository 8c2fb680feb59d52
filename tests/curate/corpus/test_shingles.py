import re

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.corpus.shingles import SHINGLE_WORDS, shingle_sets


def plain_shingles(text):
    """The definition, a word at a time (ASCII)."""
    words = re.findall(r"[0-9a-z]+", text.lower())
    if not words:
        return {text.lower()}
    if len(words) < SHINGLE_WORDS:
        return {tuple(words)}
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}


def sets_of(texts):
    sets = shingle_sets(pa.array(texts, pa.string()))
    return [set(sets.hashes[sets.starts[i] : sets.starts[i + 1]].tolist()) for i in range(len(sets))]


words = st.lists(st.sampled_from(["a", "b", "Grasp", "the", "cube", "2", "x1"]), max_size=14)
texts = st.lists(
    st.builds(lambda parts, gap: gap.join(parts), words, st.sampled_from([" ", "\n", ", "])), max_size=6
)


@given(texts)
@settings(max_examples=60, deadline=None)
def test_sets_overlap_exactly_as_the_definition_says(given_texts):
    hashed, plain = sets_of(given_texts), [plain_shingles(text) for text in given_texts]
    for i in range(len(given_texts)):
        assert len(hashed[i]) == len(plain[i])
        for j in range(i):
            assert len(hashed[i] & hashed[j]) == len(plain[i] & plain[j])


def test_case_and_punctuation_do_not_count_and_short_texts_are_alike_only_where_equal():
    one, same, other, marks, other_marks = sets_of(["Pick it up!", "pick IT up", "pick it", "?!", "!?"])
    assert one == same
    assert not one & other
    assert marks
    assert not marks & other_marks


def test_every_cjk_character_is_a_word_and_accented_letters_are_not_torn():
    japanese, french = sets_of(["赤い立方体を持ち上げて", "déjà vu déjà vu déjà vu"])
    assert len(japanese) == 11 - SHINGLE_WORDS + 1
    assert len(french) == 2


def test_a_slice_and_nulls_are_read_right():
    whole = pa.array(["one two three four five six", None, "one two three four five six"])
    assert sets_of([None]) == sets_of([""])
    sets = shingle_sets(whole.slice(1))
    assert sets.sizes.tolist() == [1, 2]
