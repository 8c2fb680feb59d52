from collections import Counter

from tests.curate.corpus.fuzzing import FORMS, run_case


def test_damaged_sources_are_read_or_refused_and_nothing_is_lost(tmp_path):
    cases = [run_case(tmp_path, seed=0, number=number) for number in range(10 * len(FORMS))]
    assert [(case.number, case.form, case.damage, case.violations) for case in cases if case.violations] == []
    assert Counter(case.result for case in cases)["built"] > 60
    assert len({reason for case in cases for reason in case.dropped}) >= 8
