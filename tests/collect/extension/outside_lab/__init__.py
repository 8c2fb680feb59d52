"""What somebody else's package holds: a robot (`crane4.yaml`, its MJCF file) and a task (`hoist-ball.yaml`, a skill).

An installed distribution names them in its entry points, here written by the test:

    [blm.embodiments]
    crane4 = outside_lab:CRANE4
    [blm.tasks]
    hoist-ball = outside_lab:HOIST_BALL
    [blm.skills]
    hoist-ball = outside_lab.hoist_ball:hoist_ball
"""

from pathlib import Path

CRANE4 = Path(__file__).with_name("crane4.yaml")
HOIST_BALL = Path(__file__).with_name("hoist-ball.yaml")
