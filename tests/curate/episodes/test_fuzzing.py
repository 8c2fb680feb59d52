"""Damaged datasets, at random: see `fuzzing.py` for what may and what may not happen."""

import pytest

from tests.curate.episodes.fuzzing import make_bases, run_case, run_cases


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.slow
def test_damaged_datasets_are_built_in_part_or_refused(bases, tmp_path):
    numbers = [number for number in range(31) if number != 7]
    cases = [run_case(bases, tmp_path, 0, number) for number in numbers]
    assert [(case.number, case.mutations, case.violations) for case in cases if case.violations] == []
    assert {case.result for case in cases} == {"built", "refused", "examined"}


@pytest.mark.slow
def test_many_damaged_datasets_in_a_process_of_their_own(bases, tmp_path):
    cases = list(run_cases(bases, tmp_path, 1, range(500)))
    assert len(cases) == 500
    assert [(case.number, case.mutations, case.violations) for case in cases if case.violations] == []
