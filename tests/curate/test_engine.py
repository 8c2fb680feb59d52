"""Every engine gives the same results in the same order, takes little ahead and passes on errors as they are."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from blm.curate.corpus.build import build_corpus
from blm.curate.engine import LocalEngine, few_at_once, open_engine
from blm.schemas.errors import ConfigError, EngineError
from blm.schemas.yaml_model import read_yaml
from tests.curate.corpus.test_build import config_for, content_of


def test_work_is_begun_for_a_few_items_at_a_time():
    begun, cancelled = [], []

    def begin(item):
        begun.append(item)
        return item

    results = few_at_once(range(10), begin, lambda item: -item, 3, cancelled.append)
    assert [next(results), next(results)] == [0, -1]
    assert begun == [0, 1, 2, 3]
    results.close()
    assert cancelled == [2, 3]
    assert list(few_at_once(range(5), begin, str, 3, cancelled.append)) == list("01234")
    assert cancelled == [2, 3]


def test_an_engine_in_this_process_takes_nothing_ahead():
    taken = []
    results = LocalEngine().stream(abs, (taken.append(one) or one for one in range(-5, 0)))
    assert next(results) == 5
    assert taken == [-5]


@pytest.fixture(scope="module")
def processes():
    with open_engine("local", processes=2) as engine:
        yield engine


@pytest.mark.slow
def test_processes_keep_the_order(processes):
    assert list(processes.stream(abs, range(-50, 0))) == list(range(50, 0, -1))


@pytest.mark.slow
def test_an_error_in_a_process_arrives_as_itself(processes):
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        list(processes.stream(read_yaml, [Path("missing.yaml")]))
    assert list(processes.stream(abs, [-1])) == [1]


@pytest.mark.slow
def test_a_process_that_ends_is_an_error_that_says_what_to_do():
    with (
        open_engine("local", processes=2) as engine,
        pytest.raises(EngineError, match=r"ended before its work was done.*fewer --workers"),
    ):
        list(engine.stream(os._exit, [3]))


@pytest.mark.slow
def test_a_corpus_is_the_same_with_processes(mixed_rows, tmp_path):
    build_corpus(
        config_for(f"llava:{mixed_rows}", output=tmp_path / "here", near_duplicates={"images": "any_text"})
    )
    changes = {"workers": 2, "near_duplicates": {"images": "any_text"}}
    build_corpus(config_for(f"llava:{mixed_rows}", output=tmp_path / "beside", **changes))
    assert content_of(tmp_path / "here") == content_of(tmp_path / "beside")


def test_one_process_is_this_one():
    assert isinstance(open_engine("local"), nullcontext)
