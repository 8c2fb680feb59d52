import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from blm.schemas.errors import DatasetError
from blm.train.intent_cache import IntentCache
from blm.train.intent_cache_build import build_intent_cache, quantise
from blm.train.shard_reader import ShardBuild
from tests.train.stage2_builds import FakeBackbone, make_build


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> ShardBuild:
    folder = tmp_path_factory.mktemp("build")
    return ShardBuild(make_build(folder, embodiments=("so100", "panda"), cameras=("top", "wrist")))


def live(backbone, build, key, frames, cameras=("top",)):
    segment = next(s for s in build.segments() if s.key == key)
    images = np.stack([build.images(segment, camera, frames) for camera in cameras], axis=1)
    return backbone.intent(images, [segment.meta.instruction] * len(frames))


def test_what_is_read_is_what_the_backbone_would_say(build, tmp_path):
    backbone = FakeBackbone()
    cache = build_intent_cache(backbone, build, tmp_path, ("top", "wrist"), batch_size=5)
    for segment in build.segments():
        frames = [0, 7, 3, len(build.state(segment)) - 1]
        cached = cache.read(segment.key, frames)
        expected = live(backbone, build, segment.key, frames, ("top", "wrist"))
        assert torch.equal(cached.mask, expected.mask)
        assert torch.equal(cached.segment, expected.segment)
        assert torch.equal(cached.position, expected.position)
        error = (cached.hidden - expected.hidden).norm(dim=-1) / expected.hidden.norm(dim=-1)
        assert error.median() < 0.01
        assert error.max() < 0.05


def test_frames_of_several_samples_and_shards_come_in_the_order_asked(build, tmp_path):
    backbone = FakeBackbone()
    cache = build_intent_cache(backbone, build, tmp_path, ("top",))
    keys = [build.segments()[i].key for i in (5, 0, 5, 2, 9)]
    together = cache.gather(keys, [3, 0, 1, 11, 4])
    for row, (key, frame) in enumerate(zip(keys, [3, 0, 1, 11, 4], strict=True)):
        assert torch.equal(together.hidden[row], cache.read(key, [frame]).hidden[0])


def test_a_complete_cache_is_found_and_not_made_again(build, tmp_path):
    first = build_intent_cache(FakeBackbone(), build, tmp_path, ("top",))
    idle = FakeBackbone()
    again = build_intent_cache(idle, build, tmp_path, ("top",))
    assert idle.calls == 0
    assert again.folder == first.folder


def test_killed_between_shards_it_goes_on_and_ends_in_the_same_bytes(build, tmp_path):
    class KilledError(Exception):
        pass

    class Fragile(FakeBackbone):
        def intent(self, images, instructions):
            if self.calls == calls_of_a_whole_build - 2:
                raise KilledError
            return super().intent(images, instructions)

    steady = FakeBackbone()
    whole = build_intent_cache(steady, build, tmp_path / "whole", ("top",), batch_size=8)
    calls_of_a_whole_build = steady.calls
    with pytest.raises(KilledError):
        build_intent_cache(Fragile(), build, tmp_path / "killed", ("top",), batch_size=8)
    done = list((tmp_path / "killed").glob("*/*.tokens.npy"))
    assert 0 < len(done) < len(whole.manifest.shards)
    times = {path: path.stat().st_mtime_ns for path in done}
    resumed = build_intent_cache(FakeBackbone(), build, tmp_path / "killed", ("top",), batch_size=8)
    assert times == {path: path.stat().st_mtime_ns for path in done}
    for path in sorted(whole.folder.iterdir()):
        assert (resumed.folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", ["fingerprint", "cameras", "stride"])
def test_another_backbone_camera_or_stride_never_gets_this_cache(build, tmp_path, change):
    build_intent_cache(FakeBackbone(), build, tmp_path, ("top",))
    backbone = FakeBackbone(fingerprint="other" if change == "fingerprint" else "fake")
    cameras = ("wrist",) if change == "cameras" else ("top",)
    stride = 2 if change == "stride" else 1
    with pytest.raises(DatasetError, match="no complete intent cache"):
        IntentCache.open(tmp_path, backbone, cameras, build=build, frame_stride=stride)


def test_a_manifest_that_speaks_of_another_backbone_is_refused(build, tmp_path):
    cache = build_intent_cache(FakeBackbone(), build, tmp_path, ("top",))
    path = cache.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "other"}))
    with pytest.raises(DatasetError, match="fingerprint other"):
        IntentCache.open(tmp_path, FakeBackbone(), ("top",), build=build)


def test_with_a_stride_only_those_frames_are_there(build, tmp_path):
    backbone = FakeBackbone()
    cache = build_intent_cache(backbone, build, tmp_path, ("top",), frame_stride=3)
    key = build.segments()[1].key
    expected = live(backbone, build, key, [9])
    torch.testing.assert_close(cache.read(key, [9]).hidden, expected.hidden, atol=0.05, rtol=0.05)
    with pytest.raises(DatasetError, match="frame 4"):
        cache.read(key, [4])
    with pytest.raises(DatasetError, match="frame 99"):
        cache.read(key, [99])
    with pytest.raises(DatasetError, match="'nobody'"):
        cache.read("nobody", [0])


def test_damage_is_named(build, tmp_path):
    cache = build_intent_cache(FakeBackbone(), build, tmp_path, ("top",))
    (cache.folder / f"{cache.manifest.shards[0]}.tokens.npy").unlink()
    with pytest.raises(DatasetError, match=r"tokens\.npy is missing"):
        IntentCache.open(tmp_path, FakeBackbone(), ("top",), build=build)


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_quantisation_errs_by_at_most_half_a_step(values):
    tensor = torch.from_numpy(values)
    quantised, scale = quantise(tensor)
    restored = quantised.float() * scale[:, None]
    assert ((restored - tensor).abs() <= 0.501 * scale[:, None] + 1e-6).all()
