"""The simulated workspace as an Environment: seeded resets, position targets in, observations and success out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from blm.collect.sim.base_frame import BaseFrame
from blm.collect.sim.clutter import Clutter
from blm.collect.sim.contacts import GripperContacts
from blm.collect.sim.description import describe_camera, describe_goal, describe_objects
from blm.collect.sim.distractors import distractor_kinds
from blm.collect.sim.disturbance import Bursts, Disturbance, Surroundings, joint_offset
from blm.collect.sim.look import ON_ITS_MOUNT, SceneLook
from blm.collect.sim.objects import Placement, draw_goal, draw_placements
from blm.collect.sim.scene import Scene, build_scene, put
from blm.collect.sim.success import ObjectState, SceneState, evaluate_success
from blm.collect.sim.variety import Variety, stream
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import OBJECT_SLOTS, POSE_NAMES
from blm.schemas.errors import ConfigError, SimulationError, UsageError
from blm.schemas.rollout import EpisodeStart, Observation, Transition
from blm.schemas.task import Task, TaskObject

SETTLING_S = 0.1
MAX_OBJECT_SPEED_M_S = 10.0
"""A thing that falls off the table reaches 4 m/s; beyond this the contacts have exploded."""
MAX_JOINT_SPEED = 100.0
START_TRIES = 20

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class Snapshot:
    """Everything a tick depends on; made by `SimulatedEnvironment.snapshot`, good for that environment only."""

    physics: np.ndarray
    target: np.ndarray
    offset: np.ndarray


class SimulatedEnvironment:
    """One robot and one task in MuJoCo; implements `blm.schemas.rollout.Environment`.

    The model is compiled once; `reset` moves things and, with variety, changes their looks. The same seed and the same
    actions lead to bit-identical states and pictures. `model`, `data`, `base_pose`, `obstacles` and the world-frame
    queries below are there for planners.

    Within a tick the position targets move linearly from the last command to the new one. A target that jumped
    once per period would make the stiff position servos kick the arm (and a held object) at the control rate;
    ramped, consecutive commands are one continuous path, at the price of half a period of delay.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        task: Task,
        *,
        models: str = "own",
        render: bool = True,
        shadows: bool = True,
        home_perturbation_deg: float = 2.0,
        variety: Variety | None = None,
        disturbance: Disturbance | None = None,
    ) -> None:
        """Compile the scene. With `render` false no picture is made and observations hold no images;
        without `shadows` pictures cost two thirds.

        `home_perturbation_deg` bounds the seeded change of each arm joint's home angle. `variety` says what else
        differs between episodes; what it adds leaves the task's own objects where they would be without it.
        `disturbance` pushes the servos off the actions, which are reported as they were sent.

        Raises:
            SimulationError: the robot model is missing something the embodiment names.
            ConfigError: the task has more objects than an episode has slots for.
        """
        variety = variety or Variety()
        objects = len(task.objects) + variety.distractors
        if objects > OBJECT_SLOTS:
            raise ConfigError(
                f"task '{task.name}' has {objects} objects, distractors included; an episode records at most "
                f"{OBJECT_SLOTS}.",
                "Use fewer objects.",
            )
        self._embodiment = embodiment
        self._task = task
        self._render = render
        self._shadows = shadows
        self._perturbation_rad = float(np.deg2rad(home_perturbation_deg))
        kinds = distractor_kinds(task, variety.distractors)
        self._scene: Scene = build_scene(embodiment, task, models, kinds)
        self._clutter = Clutter(self._scene, embodiment, task, kinds)
        self._look = None if variety == Variety() else SceneLook(self._scene, embodiment, variety)
        self.model: mujoco.MjModel = self._scene.model
        self.data = mujoco.MjData(self.model)
        self.base_pose: np.ndarray = self._scene.base_pose
        self._contacts = GripperContacts(self.model, self._scene.gripper_geoms)
        self._base = BaseFrame(self.base_pose)
        self._things: dict[str, TaskObject] = dict(task.objects)
        self._assign_slots()
        self._renderer: Any = None
        self._arm = np.array(embodiment.arm_indices)
        self._target = self._scene.home_qpos[self._scene.axis_qpos]
        self._disturbance = disturbance
        self._bursts: Bursts | None = None
        self._offset = np.zeros(len(embodiment.axes))
        self._largest_push_m = 0.0
        self._tool_reference = self._home_tool_quaternion()
        self._seed: int | None = None
        self._instruction = ""

    @property
    def embodiment(self) -> Embodiment:
        return self._embodiment

    @property
    def task(self) -> Task:
        return self._task

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Names of things in the model that the task is not about; those an episode does not use are far away."""
        return self._clutter.names

    def reset(self, seed: int) -> Observation:
        """Place objects and goal by the task's spawn rules and the arm near home, and let everything settle.

        A start that already satisfies the task is drawn again.

        Raises:
            UsageError: `seed` is negative.
            SimulationError: no start could be found, or the physics came apart.
        """
        if seed < 0:
            raise UsageError(f"seed must be 0 or more, not {seed}.")
        generator = np.random.Generator(np.random.PCG64(seed))
        self._seed = seed
        self._instruction = self._task.instructions[generator.integers(len(self._task.instructions))]
        perturbation = generator.uniform(-self._perturbation_rad, self._perturbation_rad, len(self._arm))
        for _ in range(START_TRIES):
            placements = draw_placements(self._task, generator)
            goal = draw_goal(self._task, placements, generator)
            self._place(perturbation, placements, goal)
            clutter = self._clutter.scatter(self.data, placements, goal, stream(seed, "distractors"))
            self._things = self._task.objects | clutter
            self._assign_slots()
            self._settle()
            if not self.succeeded():
                self._bursts = None if self._disturbance is None else Bursts(self._disturbance, seed)
                self._dress(seed)
                return self._observe()
        raise SimulationError(
            f"task '{self._task.name}' counts as solved in {START_TRIES} starts drawn from seed {seed}.",
            "Move its goal away from where the objects start.",
        )

    def describe(self) -> EpisodeStart:
        """Facts about the episode begun by the last `reset`.

        Raises:
            SimulationError: nothing was reset yet.
        """
        if self._seed is None:
            raise SimulationError("no episode has begun.", "Call reset(seed) first.")
        return EpisodeStart(
            embodiment=self._embodiment,
            task=self._task,
            seed=self._seed,
            operator="",
            instruction=self._instruction,
            objects=describe_objects(self._things, self.obstacles),
            cameras=tuple(
                describe_camera(self.model, camera, self._base, self._mounted_pose(camera.name))
                for camera in self._embodiment.cameras
            ),
            goal=describe_goal(self._task.goal, self.goal_position(), self._base),
        )

    def step(self, values: np.ndarray) -> Transition:
        """Clip axis targets (A,) to their limits, move there over one control period, observe, judge success.

        Raises:
            SimulationError: the targets are not A finite numbers, or the physics came apart.
        """
        action = self._embodiment.clip(self._checked(values))
        target, offset = self._embodiment.to_model(action), self._pushed()
        start, end = self._target + self._offset, target + offset
        actuators, substeps = self._scene.axis_actuator, self._scene.substeps
        for substep in range(1, substeps + 1):
            self.data.ctrl[actuators] = start + (end - start) * (substep / substeps)
            mujoco.mj_step(self.model, self.data)
        self._target, self._offset = target, offset
        self._refresh()
        return Transition(
            action=action.astype(np.float32), observation=self._observe(), success=self.succeeded()
        )

    def snapshot(self) -> Snapshot:
        """The physics state, to come back to with `restore`."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return Snapshot(physics=physics, target=self._target.copy(), offset=self._offset.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a snapshot of this environment: what follows is bit-identical to what followed it then."""
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _STATE)
        mujoco.mj_forward(self.model, self.data)
        # The forward pass leaves its own warm start for the solver behind.
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _STATE)
        self._target, self._offset = snapshot.target.copy(), snapshot.offset.copy()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def object_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """World position (3,) and quaternion wxyz (4,) of an object or obstacle; raises UnknownNameError."""
        body = self._scene.thing(name).body
        return self.data.xpos[body].copy(), self.data.xquat[body].copy()

    def goal_position(self) -> np.ndarray | None:
        """World position of the goal, shape (3,); None where the task has none."""
        mocap = self._scene.goal_mocap
        return None if mocap is None else self.data.mocap_pos[mocap].copy()

    def touching(self, name: str) -> bool:
        """Whether any part of the gripper touches the object."""
        return self._gripper_contacts(name) > 0

    @property
    def largest_push_m(self) -> float:
        """The largest tool displacement that the disturbance asked for in this episode so far; 0 without one."""
        return self._largest_push_m

    def scene_state(self) -> SceneState:
        """What success is judged by, now."""
        return SceneState(
            objects={name: self._object_state(name) for name in self._task.objects},
            goal=self.goal_position(),
            arm_joint_velocities=self.data.qvel[self._scene.axis_dof[self._arm]].copy(),
        )

    def succeeded(self) -> bool:
        """Whether every success criterion of the task holds now."""
        return all(holds for _, holds in evaluate_success(self._task, self.scene_state()).values())

    def _pushed(self) -> np.ndarray:
        """What the disturbance adds to the servos' targets by the end of the coming tick, shape (A,)."""
        none = np.zeros(len(self._offset))
        if self._bursts is None:
            return none
        displacement = self._bursts.displacement(self.data.time + 1.0 / self._embodiment.control_rate_hz)
        if not displacement.any():
            return none
        displacement = displacement * self._bursts.weight(self._surroundings())
        self._largest_push_m = max(self._largest_push_m, float(np.linalg.norm(displacement)))
        jacobian = np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, self.data, jacobian, None, self._scene.tool_site)
        none[self._arm] = joint_offset(displacement, jacobian[:, self._scene.axis_dof[self._arm]])
        return none

    def _surroundings(self) -> Surroundings:
        places = {name: self.object_pose(name)[0] for name in self._things}
        carried = {name for name in places if name in self._task.objects and self.touching(name)}
        return Surroundings(
            tool=self.data.site_xpos[self._scene.tool_site],
            others=np.array([place for name, place in places.items() if name not in carried]),
            carried=np.array([places[name] for name in places if name in carried]),
            goal=self.goal_position(),
        )

    def _place(
        self, perturbation_rad: np.ndarray, placements: Mapping[str, Placement], goal: np.ndarray | None
    ) -> None:
        scene, data = self._scene, self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[:] = scene.home_qpos
        target = scene.home_qpos[scene.axis_qpos].copy()
        target[self._arm] += perturbation_rad
        target = self._embodiment.to_model(self._embodiment.clip(self._embodiment.from_model(target)))
        data.qpos[scene.axis_qpos] = target
        data.ctrl[scene.axis_actuator] = target
        self._target, self._offset, self._largest_push_m = target, np.zeros(len(target)), 0.0
        for name, placement in placements.items():
            put(data, scene.objects[name], self._task.objects[name], placement)
        if goal is not None:
            data.mocap_pos[scene.goal_mocap] = goal

    def _assign_slots(self) -> None:
        slots = [self._scene.thing(name).geoms for name in self._things]
        self._contacts.assign([*slots, *[()] * (OBJECT_SLOTS - len(slots)), self._scene.table_geoms])

    def _dress(self, seed: int) -> None:
        """Give the episode its look."""
        if self._look is None:
            return
        self._look.apply(seed, self._things)
        mujoco.mj_camlight(self.model, self.data)
        if self._renderer is not None and self._look.changes_textures:
            self._renderer.textures_changed()

    def _mounted_pose(self, camera: str) -> np.ndarray:
        return ON_ITS_MOUNT if self._look is None else self._look.mounted_pose(camera)

    def _settle(self) -> None:
        mujoco.mj_step(self.model, self.data, nstep=round(SETTLING_S / self.model.opt.timestep))
        self.data.time = 0.0
        self._refresh()

    def _refresh(self) -> None:
        """Bring derived quantities (poses, contacts) up to the state just reached, and check it."""
        mujoco.mj_forward(self.model, self.data)
        if not (np.isfinite(self.data.qpos).all() and np.isfinite(self.data.qacc).all()):
            raise SimulationError(
                f"the physics of '{self._task.name}' diverged (not a number) at {self.data.time:.3f} s.",
                "Start the episode again with another seed.",
            )
        joint_speeds = np.abs(self.data.qvel[self._scene.axis_dof])
        if joint_speeds.max() > MAX_JOINT_SPEED:
            joint = self._embodiment.joints[int(joint_speeds.argmax())]
            raise SimulationError(
                f"joint '{joint}' moves at {joint_speeds.max():.0f} rad/s at {self.data.time:.3f} s.",
                "Send targets nearer to where the arm is.",
            )
        for name in self._things:
            speed = float(np.linalg.norm(self._object_velocity(name)[:3]))
            if speed > MAX_OBJECT_SPEED_M_S:
                raise SimulationError(
                    f"object '{name}' was flung away at {speed:.0f} m/s at {self.data.time:.3f} s.",
                    "Do not press it into the table or between the fingers.",
                )

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        axes = self._embodiment.axis_names
        if values.shape != (len(axes),):
            raise SimulationError(
                f"an action has shape {values.shape}; '{self._embodiment.name}' takes ({len(axes)},).",
                f"Its axes are: {', '.join(axes)}.",
            )
        if not np.isfinite(values).all():
            wrong = [axis for axis, value in zip(axes, values, strict=True) if not np.isfinite(value)]
            raise SimulationError(
                f"the target of {', '.join(wrong)} is not a finite number.", "Check the agent."
            )
        return values

    def _observe(self) -> Observation:
        scene = self._scene
        return Observation(
            state=self._embodiment.from_model(self.data.qpos[scene.axis_qpos]).astype(np.float32),
            images=self._images(),
            ee_pose=self._tool_pose().astype(np.float32),
            time_s=float(self.data.time),
            instruction=self._instruction,
            environment_state=self._environment_state().astype(np.float32),
            gripper_contact=self._contacts.forces_n(self.data, OBJECT_SLOTS + 1).astype(np.float32),
        )

    def _images(self) -> Mapping[str, np.ndarray]:
        if not self._render:
            return {}
        if self._renderer is None:
            from blm.collect.sim.render import CameraRenderer

            self._renderer = CameraRenderer(self.model, self._embodiment.cameras, self._shadows)
        return self._renderer.images(self.data)

    def _environment_state(self) -> np.ndarray:
        width = len(POSE_NAMES)
        state = np.zeros(OBJECT_SLOTS * width + 3)
        for slot, name in enumerate(self._things):
            state[slot * width : (slot + 1) * width] = self._base.pose(*self.object_pose(name))
        goal = self.goal_position()
        if goal is not None:
            state[-3:] = self._base.point(goal)
        return state

    def _tool_pose(self) -> np.ndarray:
        site = self._scene.tool_site
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[site])
        pose = self._base.pose(self.data.site_xpos[site], quaternion)
        if pose[3:] @ self._tool_reference < 0:
            pose[3:] *= -1
        return pose

    def _home_tool_quaternion(self) -> np.ndarray:
        """The tool's orientation at home in the base frame: of the two signs of a quaternion, its side is taken.

        So the sign only flips half a turn away from home; a fixed sign of w would flip while the tool points down.
        """
        self.data.qpos[:] = self._scene.home_qpos
        mujoco.mj_kinematics(self.model, self.data)
        self._tool_reference = np.zeros(4)
        quaternion = self._tool_pose()[3:]
        return quaternion * np.sign(quaternion[np.abs(quaternion).argmax()])

    def _object_velocity(self, name: str) -> np.ndarray:
        """Linear (world) and angular (body frame) velocity, shape (6,); zeros for a thing that does not move."""
        joint = self._scene.thing(name).joint
        return np.zeros(6) if joint is None else self.data.qvel[joint.dof : joint.dof + 6].copy()

    def _object_state(self, name: str) -> ObjectState:
        position, quaternion = self.object_pose(name)
        velocity = self._object_velocity(name)
        return ObjectState(position, quaternion, velocity[:3], velocity[3:], self._gripper_contacts(name))

    def _gripper_contacts(self, name: str) -> int:
        geoms, gripper = self._scene.thing(name).geoms, self._scene.gripper_geoms
        pairs = self.data.contact.geom.tolist()
        return sum((a in geoms and b in gripper) or (b in geoms and a in gripper) for a, b in pairs)
