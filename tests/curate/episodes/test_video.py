from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from blm.curate.episodes.video import Clip, VideoError, encode_clip

RATE = 20


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Shades that tell frames apart, with one edge between two colours on even pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 4 * 2] = (20 + 5 * index, 60, 200)
    image[:, width // 4 * 2 :] = (200, 20 + 5 * index, 40)
    return image


def write_video(
    path: Path, frames: int, width: int = 64, height: int = 48, colours: str = "undef", title: str = ""
) -> Path:
    options = {"crf": "6", "g": "7", "bf": "0", "x264-params": f"colormatrix={colours}"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        container.metadata["title"] = title
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "episodes.mp4", 36)


def decoded(clip: Clip, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in encode_clip(clip, size, 95)])


@pytest.mark.parametrize(
    ("begin", "start", "stop", "stride"),
    [(0, 0, 36, 1), (0, 5, 9, 1), (13, 0, 20, 1), (13, 2, 17, 4), (35, 0, 1, 1)],
)
def test_the_frames_asked_for_come_out_in_order_and_in_their_colours(video, begin, start, stop, stride):
    images = decoded(Clip(video, begin / RATE, RATE, start, stop, stride))
    wanted = range(begin + start, begin + stop, stride)
    assert images.shape == (len(wanted), 48, 64, 3)
    every = np.stack([picture(index, 64, 48) for index in range(36)]).astype(int)
    distances = np.abs(images[:, None] - every).mean(axis=(2, 3, 4))
    assert distances.argmin(axis=1).tolist() == list(wanted)
    assert distances.min(axis=1).max() < 4


def test_a_title_that_is_no_text_costs_no_picture(tmp_path):
    path = write_video(tmp_path / "titled.mp4", 3, title="camera at the wrist")
    content = path.read_bytes()
    assert b"camera at the wrist" in content
    path.write_bytes(content.replace(b"camera at the wrist", b"camera \x80\xff the wrist"))
    assert len(decoded(Clip(path, 0.0, RATE, 0, 3))) == 3


def test_a_codec_that_nobody_knows_is_said(tmp_path):
    path = write_video(tmp_path / "strange.mp4", 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"qqqq"))
    with pytest.raises(VideoError, match=r"strange\.mp4 is coded in a way that no decoder here knows"):
        decoded(Clip(path, 0.0, RATE, 0, 3))


def test_images_are_resized_by_area(video):
    (image,) = decoded(Clip(video, 0.0, RATE, 4, 5), (16, 12))
    assert image.shape == (12, 16, 3)
    means = picture(4, 64, 48).reshape(12, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(image.astype(int) - means).mean() < 5


@pytest.mark.parametrize(
    ("colours", "size"), [("bt709", (64, 48)), ("bt709", (32, 24)), ("smpte170m", (64, 48))]
)
def test_colours_are_those_that_the_video_says(tmp_path, colours, size):
    path = write_video(tmp_path / "tagged.mp4", 3, colours=colours)
    container = av.open(str(path))
    frame = next(container.decode(video=0))
    expected = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA")
    container.close()
    (image,) = decoded(Clip(path, 0.0, RATE, 0, 1), size)
    assert np.abs(image.astype(int) - expected).mean() < 4


def test_odd_sizes_work(video):
    assert decoded(Clip(video, 0.0, RATE, 0, 2), (33, 27)).shape == (2, 27, 33, 3)


def test_the_same_clip_gives_the_same_bytes(video):
    clip = Clip(video, 0.0, RATE, 3, 20)
    assert encode_clip(clip, (64, 48), 92) == encode_clip(clip, (64, 48), 92)


def test_missing_frames_are_an_error_that_names_the_file(video, tmp_path):
    with pytest.raises(VideoError, match=r"episodes\.mp4 ends before 1\.800 s"):
        encode_clip(Clip(video, 0.0, RATE, 0, 37), (64, 48), 92)
    with pytest.raises(VideoError, match=r"none\.mp4 cannot be decoded"):
        encode_clip(Clip(tmp_path / "none.mp4", 0.0, RATE, 0, 2), (64, 48), 92)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        encode_clip(Clip(cut, 0.0, RATE, 0, 36), (64, 48), 92)
