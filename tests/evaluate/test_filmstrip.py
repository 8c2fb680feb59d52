import numpy as np
from PIL import Image

from blm.evaluate.filmstrip import Film, FilmCamera, contact_sheet, moving_picture
from blm.schemas.embodiment import load_embodiment
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Observation, Step
from blm.schemas.task import load_task


def film(success: bool, frames: int, value: int) -> Film:
    return Film("seed 1", success, np.full((frames, 20, 30, 3), value, dtype=np.uint8))


def test_the_camera_keeps_every_second_frame_of_each_rollout():
    camera = FilmCamera("top", stride=2)
    start = EpisodeStart(load_embodiment("so100"), load_task("push-cube", "so100"), 8, "", "push")
    for _ in range(2):
        camera.on_start(start)
        for index in range(5):
            image = np.full((6, 6, 3), index, dtype=np.uint8)
            seen = Observation(np.zeros(6), {"top": image}, np.zeros(7), 0.0, "push")
            camera.on_step(Step(index, seen, np.zeros(6), "", False))
        camera.on_end(EpisodeEnd(True, 5, "success"))
    assert [reel.frames[:, 0, 0, 0].tolist() for reel in camera.films] == [[0, 2, 4]] * 2
    assert camera.films[0].title == "scene 8"


def test_a_contact_sheet_has_a_row_per_film_with_its_frames_and_outcome(tmp_path):
    path = contact_sheet([film(True, 9, 200), film(False, 4, 50)], tmp_path / "sheet.png", moments=3)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[0] == 2 * 23
    assert (sheet[5, -10] == 200).all()
    assert (sheet[28, -10] == 50).all()
    green, red = sheet[5, 2].astype(int), sheet[28, 2].astype(int)
    assert green[1] > green[0]
    assert red[0] > red[1]


def test_a_moving_picture_lasts_as_long_as_the_longest_film(tmp_path):
    path = moving_picture([film(True, 3, 200), film(False, 7, 50)], tmp_path / "films.gif")
    with Image.open(path) as picture:
        assert picture.size == (2 * 36, 26)
        # Equal neighbours are merged when a GIF is written, so count time instead of frames.
        total = 0
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            total += picture.info["duration"]
    assert total == (7 + 8) * 100
