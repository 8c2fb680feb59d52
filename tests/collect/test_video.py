"""The encoder: every frame, in order, the same bytes each time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from blm.collect.dataset_writer import DatasetWriter
from blm.collect.live_video import LiveVideoEncoder
from blm.collect.recording import Recording
from blm.collect.video import VideoConfig, VideoEncoder, count_frames
from blm.schemas.errors import ConfigError, DatasetError
from tests.collect.workcell import small_robot


def moving_square(frames: int, size: int = 64) -> list[np.ndarray]:
    images = []
    for index in range(frames):
        image = np.full((size, size, 3), 90, dtype=np.uint8)
        image[10:20, index % (size - 10) : index % (size - 10) + 10] = (200, 40, 40)
        images.append(image)
    return images


def encode(path: Path, images: list[np.ndarray], config: VideoConfig | None = None) -> Path:
    encoder = VideoEncoder(path, images[0].shape[1], images[0].shape[0], 20, config or VideoConfig())
    for image in images:
        encoder.add(image)
        image[:] = 0  # the caller may use its buffer again at once
    return encoder.finish()


def test_frames_come_back_in_order_at_their_times(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", moving_square(45))
    assert count_frames(path) == 45
    container = av.open(str(path))
    frames = list(container.decode(video=0))
    container.close()
    assert [frame.time for frame in frames] == pytest.approx([index / 20 for index in range(45)])
    for frame, image in zip(frames, moving_square(45), strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - image).mean() < 4
    keys = [index for index, frame in enumerate(frames) if frame.key_frame]
    assert keys == [0, 10, 20, 30, 40]


def test_same_frames_same_bytes(tmp_path: Path):
    one = encode(tmp_path / "one.mp4", moving_square(30))
    two = encode(tmp_path / "two.mp4", moving_square(30), VideoConfig(queue_frames=1))
    assert one.read_bytes() == two.read_bytes()


def test_a_full_queue_makes_the_caller_wait(tmp_path: Path):
    path = encode(tmp_path / "a.mp4", moving_square(200, size=256), VideoConfig(queue_frames=1))
    assert count_frames(path) == 200


def test_wrong_images_are_refused(tmp_path: Path):
    encoder = VideoEncoder(tmp_path / "a.mp4", 64, 64, 20, VideoConfig())
    with pytest.raises(DatasetError, match=r"\(32, 64, 3\) uint8 came; \(64, 64, 3\)"):
        encoder.add(np.zeros((32, 64, 3), dtype=np.uint8))
    encoder.discard()
    assert not (tmp_path / "a.mp4").exists()
    with pytest.raises(DatasetError, match="63×64 pixels"):
        VideoEncoder(tmp_path / "a.mp4", 63, 64, 20, VideoConfig())


def test_an_encoder_that_cannot_write_says_so_and_does_not_block(tmp_path: Path):
    encoder = VideoEncoder(tmp_path / "missing" / "a.mp4", 64, 64, 20, VideoConfig(queue_frames=2))
    add_all = partial(all, (encoder.add(image) is None for image in moving_square(50)))
    with pytest.raises(DatasetError, match="encoding failed"):
        add_all()
    with pytest.raises(DatasetError, match="encoding failed"):
        encoder.finish()


def test_a_rate_that_lerobot_cannot_hold(tmp_path: Path):
    robot = small_robot().model_copy(update={"control_rate_hz": 12.5})
    with pytest.raises(ConfigError, match=r"control_rate_hz 12\.5"):
        DatasetWriter.create(tmp_path / "data", Recording(robot))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("encoder_class", [VideoEncoder, LiveVideoEncoder])
def test_a_disk_that_fills_up_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_class: type[VideoEncoder]
):
    """The end of a file is written when all frames are taken: an error there is told, and nobody waits for ever."""
    opened = av.open

    def full(*arguments: object, **options: object):
        container = opened(*arguments, **options)  # type: ignore[call-overload]

        class Full:
            def __enter__(self):
                return container

            def __exit__(self, *_: object):
                container.close()
                raise OSError(28, "No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr("blm.collect.video.av.open", full)
        encoder = encoder_class(tmp_path / "a.mp4", 64, 64, 20, VideoConfig())
        for image in moving_square(5):
            encoder.add(image)
        with pytest.raises(DatasetError, match="No space left on device"):
            encoder.finish()
