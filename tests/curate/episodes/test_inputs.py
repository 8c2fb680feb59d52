from dataclasses import replace

import pytest

from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.index import index_dataset
from blm.curate.episodes.inputs import contradictions


@pytest.mark.parametrize(
    ("rates_hz", "advice"),
    [
        ((30, 20), "`frame_stride: 3` for 'd0', `frame_stride: 2` for 'd1' in splits.yaml, for 10 Hz"),
        (
            (29.97, 59.94),
            "`frame_stride: 1` for 'd0', `frame_stride: 2` for 'd1' in splits.yaml, for 29.97 Hz",
        ),
        ((12.5, 50, 25), "`frame_stride: 1` for 'd0', `frame_stride: 4` for 'd1'"),
        ((29.97, 30), None),
        ((7, 30), None),
    ],
)
def test_of_datasets_that_differ_in_rate_it_is_told_which_strides_make_them_one(recorded, rates_hz, advice):
    index = index_dataset(DatasetSource(path=recorded), "d", 0.02)
    datasets = [replace(index, name=f"d{number}", rate_hz=rate) for number, rate in enumerate(rates_hz)]
    problem = contradictions(datasets)[0]
    if advice is None:
        assert problem.remedy == "Build them apart."
    else:
        assert advice in problem.remedy


def test_strides_that_make_one_rate_fit_together(recorded):
    index = index_dataset(DatasetSource(path=recorded), "d", 0.02)
    datasets = [
        replace(index, rate_hz=rate, frame_stride=n) for rate, n in ((59.94, 3), (19.98, 1), (39.96, 2))
    ]
    assert {one.packed_rate_hz for one in datasets} == {19.98}
    assert not contradictions(datasets)
