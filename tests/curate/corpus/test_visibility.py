import numpy as np
import pytest

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.projection import PinholeCamera
from blm.curate.corpus.questions.scene import ObjectKind, Thing
from blm.curate.corpus.sources.lerobot import read_lerobot
from blm.curate.corpus.visibility import SeenThings

# A metre above the table, looking straight down: 100 pixels are a metre, +x is right and +y is up.
CAMERA = PinholeCamera("top", 100, 100, 53.13010235415598, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0))
TABLE, ARM = (186, 198, 200), (60, 62, 66)
RGB = {"red": (200, 40, 30), "green": (30, 150, 50), "blue": (30, 60, 190), "yellow": (220, 190, 40)}


def thing(colour, x=0.0, y=0.0, shape="box"):
    return Thing(
        ObjectKind(colour, shape, colour, (0.1, 0.1, 0.1)), np.array([x, y, 0.0]), np.array([1.0, 0, 0, 0])
    )


def picture(colour=None, x=50, y=50, arm=None):
    """A table with a square of 20 pixels, and with columns in front of it that an arm takes up."""
    image = np.full((100, 100, 3), TABLE, np.uint8)
    if colour:
        image[y - 10 : y + 10, x - 10 : x + 10] = RGB[colour]
    if arm:
        image[:, slice(*arm)] = ARM
    return image


@pytest.mark.parametrize("colour", RGB)
@pytest.mark.parametrize("shape", ["box", "sphere"])
def test_a_thing_is_hidden_where_the_arm_covers_it(colour, shape):
    seen, one = SeenThings(CAMERA), thing(colour, shape=shape)
    for frame, arm in enumerate((None, (40, 60), (30, 52), (0, 30))):
        seen.look(frame, picture(colour, arm=arm), [one])
    assert [seen.hidden(frame, one) for frame in range(4)] == [False, True, False, False]


def test_it_is_looked_for_where_the_camera_sees_it():
    seen, one = SeenThings(CAMERA), thing("red", x=0.3, y=0.2)
    seen.look(0, picture("red", x=80, y=30), [one])
    seen.look(1, picture("red", x=20, y=70), [one])
    assert [seen.hidden(0, one), seen.hidden(1, one)] == [False, True]


def test_what_is_never_seen_cannot_be_told():
    seen, one = SeenThings(CAMERA), thing("red")
    seen.look(0, picture("blue"), [one])
    seen.look(1, picture(), [one])
    assert not seen.hidden(0, one)
    assert not seen.hidden(1, one)


def test_colours_without_a_hue_hide_nothing():
    seen, one = SeenThings(CAMERA), thing("brown")
    seen.look(0, picture(), [one])
    assert not seen.hidden(0, one)


def test_recorded_episodes_are_asked_about_what_can_be_seen(stacking):
    def questions(**options):
        config = SourceConfig(name="d", licence="MIT", questions_per_episode=40, options=options)
        return [one.record.messages for one in read_lerobot(stacking, config)]  # type: ignore[union-attr]

    every, visible = questions(hidden_things=True), questions()
    # In the synthetic pictures a red square moves on its own, so that recorded things are elsewhere in most.
    assert len(visible) < len(every)
    assert all(messages in every for messages in visible)
