"""Each rule on texts it must object to, and on good ones that come close."""

import sys
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.corpus.config import CorpusConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.language import unwanted_language
from blm.curate.corpus.licence import Licences, licence_objection
from blm.curate.corpus.pii import mask_personal_data
from blm.curate.corpus.pipeline import Pipeline
from blm.curate.corpus.quality import RULES, Quality, objection, repeated_share
from blm.schemas.corpus import CorpusRecord, Message, Part, Role

PROSE = (
    "The gripper closes around the cube, then the arm lifts it by ten centimetres and carries it over to the tray. "
    "Once the tray is below, the fingers open slowly so that the cube does not tip over while it is set down."
)


def record(*turns: str, licence="MIT", name="r") -> CorpusRecord:
    roles = cast("list[Role]", ["user", "assistant"] * (len(turns) // 2))
    messages = tuple(Message(role, (Part("text", text),)) for role, text in zip(roles, turns, strict=True))
    return CorpusRecord(name, messages, (), "s", licence, "digital", "general")


OBJECTIONABLE = {
    "repetition": [
        ("Tell me.", "I like it a lot you know. " * 20),
        ("List.", "\n".join(["the same line"] * 8)),
        ("Scream.", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ],
    "refusal": [
        ("What is it?", "I'm sorry, but I can't help with that."),
        ("What is it?", "As an AI language model, I do not have eyes."),
        ("Look!", "I cannot view images, but you could describe it."),
        ("Look!", "I’m sorry, I am unable to see the picture."),
        ("Look!", "I can't see your photo, but you could describe it."),
    ],
    "mojibake": [
        ("Where?", "Dans le cafÃ© derriÃ¨re lâ€™Ã©glise."),
        ("Where?", "There \ufffd\ufffd, behind it."),
    ],
    "markup": [
        ("What?", "<div class='a'><p>One</p><br/><span>two</span></div>"),
        ("<html><body><table><tr><td>1</td></tr></table></body></html>", "A table."),
        ("What?", "a&nbsp;b&nbsp;c &amp; d"),
    ],
    "links": [("Where?", "See https://example.com/a/very/long/path?with=query&and=more#fragment here")],
    "placeholder_answer": [("Which?", "null"), ("Which?", "NaN."), ("Which?", "[deleted]")],
    "answer_leakage": [
        ("What is it? Answer: a red cube", "A red cube."),
        ("The correct answer is B. Which one?\nA. x\nB. y", "B"),
        ("The robot lifts the green peg. What happens?", "The robot lifts the green peg."),
        ("How are you doing today?", "How are you doing today?"),
    ],
    "answer_length": [("Go on.", "word " * 5000)],
}
GOOD = [
    ("How many?", "5"),
    ("Is the red cube left or right of the gripper?", "left"),
    ("Which is nearer: the red cube or the green cube?", "the red cube"),
    (
        "Which?\nA. the robot lifts the peg\nB. the robot pushes the cube away\nAnswer.",
        "the robot lifts the peg",
    ),
    ("Read: " + PROSE + " What does the gripper do first?", "closes around the cube"),
    ("Describe.", PROSE),
    ("What does the sign say?", "It says: I am sorry."),
    ("What should I answer him?", "Say that you cannot help with it today, and mean it."),
    ("Où?", "Dans le café derrière l'église, à côté de l'Âge d'or, près d'Ângela."),
    ("Is 3 < 5 & 5 > 2?", "Yes: 3 < 5 and 5 > 2, so a<b holds."),
    ("Write a page.", "```html\n<div><p>One</p><br/></div>\n```"),
    ("Where is the code?", "At https://example.com/code, in the folder of the second release, near the end."),
    ("Draw a line.", "----------------------------------------------------------"),
    ("Which letter?", "N/A"),
    ("Hi, my name is at the top.", "I can't see your name for some reason."),
    ("Will we meet?", "I can't see that happening."),
    ("How are you doing today?", "How are you doing today?", "I asked first.", "Fine.", "And else?", "Good."),
    ("Is it true?", "It is.", "?", "It really is.", ":)", "Bye"),
    ("Count to five.", "\n".join(["one", "two", "three", "four", "five", "six", "seven"])),
]


@pytest.mark.parametrize(
    ("reason", "turns"), [(reason, turns) for reason, many in OBJECTIONABLE.items() for turns in many]
)
def test_each_rule_objects_and_says_what_it_found(reason, turns):
    found = objection(record(*turns), Quality())
    assert found is not None
    assert found[0] == reason
    assert found[1]
    other = objection(record(*turns), Quality(skip=(reason,)))
    assert other is None or other[0] != reason


@pytest.mark.parametrize("turns", GOOD)
def test_good_texts_that_come_close_pass(turns):
    assert objection(record(*turns), Quality()) is None


def test_lengths_are_settings():
    assert objection(record("Go?", "Yes."), Quality(min_question_words=2)) == ("question_length", "1 words")
    assert objection(record("Go on?", "Yes."), Quality(min_answer_words=2)) == ("answer_length", "1 words")
    assert objection(record("?", "Yes."), Quality()) == ("question_length", "0 words")
    assert set(OBJECTIONABLE) | {"question_length"} == set(RULES)


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_repeated_words_are_those_covered_by_a_run_said_before(words):
    covered = set()
    for later in range(len(words) - 5):
        if any(words[first : first + 6] == words[later : later + 6] for first in range(later)):
            covered |= set(range(later, later + 6))
    assert repeated_share(words) == pytest.approx(len(covered) / max(1, len(words)))


@given(
    st.lists(
        st.text(max_size=80) | st.sampled_from(["<div>", "Answer: x", "Ã©", "&nbsp;"]), min_size=2, max_size=2
    )
)
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_a_rule(turns):
    found = objection(record(*turns), Quality())
    assert found is None or found[0] in RULES


@pytest.mark.parametrize(
    ("text", "masked", "kinds"),
    [
        ("Write to jane.doe+x@mail.example.org!", "Write to [email]!", {"email": 1}),
        ("Call +49 30 1234567 or (030) 1234 567.", "Call [phone] or [phone].", {"phone": 2}),
        ("It is 555-123-4567 now", "It is [phone] now", {"phone": 1}),
        ("phone: 030 123 456 78", "phone: [phone]", {"phone": 1}),
        ("ping 8.8.8.8 and 2606:4700::1111", "ping [ip] and [ip]", {"ip": 2}),
        ("key sk-proj-" + "a1" * 15 + " end", "key [key] end", {"key": 1}),
        ("AKIAIOSFODNN7EXAMPLE", "[key]", {"key": 1}),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- x",
            "[key] x",
            {"key": 1},
        ),
    ],
)
def test_personal_data_are_masked_and_counted(text, masked, kinds):
    assert mask_personal_data(text) == (masked, kinds)


@pytest.mark.parametrize(
    "text",
    [
        "Answer as (512, 300) in thousandths; the box is (120, 40, 500, 610).",
        "On 2026-11-23 at 12:30:15 it was 21.5 degrees; 10 20 30 40 50 60 follow.",
        "Version 1.2.3.4 runs on 127.0.0.1 and 192.168.0.7.",
        "a @ b, @home, me@, sk-learn, eyJ is a prefix, hf_hub, std::vector::begin, 12:30:45",
        "3.14159265358979 and 299792458 m/s, 1-2-3, -0.5 +1.25 +12",
    ],
)
def test_numbers_of_other_kinds_are_left_alone(text):
    assert mask_personal_data(text) == (text, {})


def run(*records: CorpusRecord, **changes):
    config = CorpusConfig(sources=("llava:x.json",), output="out", **changes)  # type: ignore[arg-type]
    pipeline = Pipeline(config)
    kept = list(pipeline.run([Conversation(one) for one in records]))
    return kept, pipeline


def test_masking_is_reported_and_kept_as_provenance():
    (kept,), pipeline = run(record("Mail a@b.example or c@d.example?", "Use  a@b.example."))
    assert [one.content[0].text for one in kept.record.messages] == [
        "Mail [email] or [email]?",
        "Use  [email].",
    ]
    assert '"masked_email"' in kept.record.provenance
    assert {one.name: dict(one.changed) for one in pipeline.reports if one.changed} == {"mask": {"email": 3}}
    ((same,), _) = run(record("Mail a@b.example?", "No."), mask_personal_data=False)
    assert "a@b.example" in same.record.messages[0].content[0].text


@pytest.mark.parametrize(
    ("licence", "good"),
    [("CC BY 4.0", True), ("cc-by-nc-4.0", False), ("mit", False), ("cc_by-sa", True), ("unknown", False)],
)
def test_licences(licence, good):
    wanted = Licences(allow=("cc-by-*",), deny=("*-nc-*",))
    assert (licence_objection(licence, wanted) is None) is good
    kept, pipeline = run(record("a?", "b", licence=licence), licences=wanted)
    assert len(kept) == good
    assert [drop.reason for drop in pipeline.drops] == ["licence"] * (not good)


GERMAN = (
    "Der Greifer schließt sich um den Würfel, und der Arm hebt ihn langsam über den Tisch zur Schale hinüber."
)


def test_without_an_identifier_the_script_alone_decides_and_the_report_says_so(monkeypatch):
    for name in ("pycld2", "py3langid"):
        monkeypatch.setitem(sys.modules, name, None)
    kept, pipeline = run(record("Was?", GERMAN), record("何?", "立方体です。"), languages=("en",))
    assert [one.record.messages[1].content[0].text for one in kept] == [GERMAN]
    (note,) = (report.note for report in pipeline.reports if report.name == "language")
    assert "by script alone" in note
    assert "blm[language]" in note


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("你好", ("en",), "Han script"),
        ("你好", ("en", "zh"), ""),
        ("何の色？\n赤いです", ("en",), "Hiragana script"),
        ("何の色？\n赤いです", ("ja",), ""),
        ("Що?\nНічого.", ("en", "fr"), "Cyrillic script"),
        ("Що?\nНічого.", ("uk",), ""),
        ("क्या?", ("hi",), ""),
        ("What does 猫 mean?", ("en",), ""),
        ("Is α < β?", ("en",), ""),
        ("Où est-il?", ("en",), ""),
        ("5 + 5 → 10", ("en",), ""),
    ],
)
def test_short_texts_in_scripts_that_no_wanted_language_uses_are_found(text, wanted, found):
    assert unwanted_language(text, wanted, None) == found


def test_other_languages_are_dropped_and_short_texts_pass(monkeypatch):
    def classify(text):
        return ("de" if "Würfel" in text else "en", -1.0)

    monkeypatch.setitem(sys.modules, "pycld2", None)
    monkeypatch.setitem(sys.modules, "py3langid", SimpleNamespace(classify=classify))
    kept, pipeline = run(
        record("Was?", GERMAN, name="a"),
        record("What?", PROSE, name="b"),
        record("Was?", "Würfel", name="c"),
        languages=("en",),
    )
    assert [one.record.id for one in kept] == ["b", "c"]
    assert [(drop.row, drop.reason) for drop in pipeline.drops] == [("a", "wrong_language")]
    assert isinstance(pipeline.drops[0], Drop)
