"""The skill of the task `hoist-ball`, made of blm's primitives."""

from collections.abc import Iterator

from blm.collect.planning import primitives
from blm.collect.planning.scene import Scene, Variation
from blm.collect.planning.skills import Decomposition, carry_targets, grasp_targets, picking_up


def hoist_ball(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Grasp the ball near its equator, lift it and hold it at the goal above."""
    ball = scene.objects["ball"]
    assert scene.goal is not None
    for target in grasp_targets(scene, ball, variation, below_centre_m=0.45 * ball.thing.half_size[2]):
        holding, steps = picking_up(scene, "ball", target, variation)
        yield (*steps, primitives.move(carry_targets(scene, holding, scene.goal), holding))
