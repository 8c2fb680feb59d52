import numpy as np

from blm.curate.episodes.content import content_hash
from blm.curate.episodes.frames import Frames


def frames(episode: list[int], values: np.ndarray) -> Frames:
    count = len(episode)
    zeros = np.zeros(count, np.int64)
    return Frames(np.array(episode, np.int64), np.arange(count), values, -values, zeros, None)


def test_content_is_told_apart_and_known_again_wherever_it_lies():
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    alone, among_others = frames([4] * 3, values[:3]), frames([1, 1, 9, 9, 9], values[[4, 5, 0, 1, 2]])
    assert content_hash(alone, slice(0, 3)) == content_hash(among_others, slice(2, 5))
    for changed in (values[:3] + 1, values[:3, ::-1], values[:3].T.reshape(3, 2)):
        assert content_hash(frames([4] * 3, changed), slice(0, 3)) != content_hash(alone, slice(0, 3))


def test_the_digest_stays_the_same_because_splits_follow_it():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert content_hash(frames([4] * 3, values), slice(0, 3)) == "5cee557cf77f77cf58cc4984615e43eb"
