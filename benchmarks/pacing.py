"""Recording a live arm at 30 Hz, beside `lerobot-record`: overruns, lost pictures, the wait between episodes, CPU.

One emulated SO-100 follower and leader (in a process of their own, so that neither recorder pays for them) and emulated
cameras of 640×480 with sensor noise, at 60 pictures a second so that a fresh one is there at every tick. The servo
lines are guarded against late answers for both, or LeRobot's drivers give up on a busy machine. The same episodes are
recorded by this project and by LeRobot's own `record`, as it comes and with streaming encoding. A tick is the moment
at which the leader is read. An overrun is a control period of more than one and a half: the tick came late by half a
period or more. Unsteady is a period more than a tenth too long, which answers of a servo line can do; the loop that
records nothing, and a loop that only sleeps, show how much of both is the machine's. Where others use the machine, a
session that goes first helps: setsid bash -c 'echo -15 > /proc/self/autogroup; exec …'.

Run: make bench ARGS=benchmarks/pacing.py, or .venv/bin/python benchmarks/pacing.py --episodes 3 --seconds 10
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

RATE_HZ = 30
WIDTH, HEIGHT = 640, 480
OVERRUN, UNSTEADY = 1.5, 1.1
"""Of a period."""
CASES = {
    "bare-2": "the loop alone, 2 cameras, nothing recorded",
    "ours-2": "ours, 2 cameras, as it comes",
    "ours-4": "ours, 4 cameras, ultrafast, key frame every 30",
    "stock-2": "lerobot-record, 2 cameras, as it comes (PNG, then AV1)",
    "streaming-2": "lerobot-record, 2 cameras, streaming h264 veryfast",
}


@dataclass(frozen=True)
class Result:
    """What one recorder did.

    `behind` are ticks that began more than half a period after their time in a fixed schedule (None: there is none).
    `lost` pictures are rows whose picture is not in its place in the video (`lost_marked`: and the dataset says so).
    `stalls_s` are the waits from one episode's last tick to the next one's first. `stolen` is the share of the cores'
    time that a hypervisor gave to others meanwhile (0 where that is not told).
    """

    case: str
    ticks: int
    overruns: int
    unsteady: int
    behind: int | None
    longest_ms: float
    rate_hz: float
    lost: int
    lost_marked: int
    stalls_s: tuple[float, ...]
    cpu_s: float
    load: float
    stolen: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--arms", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arms:
        serve_arms(options.folder)
    elif options.one:
        print(json.dumps(asdict(run_case(options.one, options.folder, options.episodes, options.seconds))))
    else:
        print(f"load average before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        periods = sleeping_periods(options.seconds)
        print(
            f"a loop that only sleeps\n  overruns {int((periods > OVERRUN / RATE_HZ).sum())}, unsteady "
            f"{int((periods > UNSTEADY / RATE_HZ).sum())} of {len(periods)} ticks, "
            f"longest period {1000 * periods.max():.0f} ms"
        )
        for case in options.cases:
            print(row(measure(case, options.episodes, options.seconds)), flush=True)


def sleeping_periods(seconds: float) -> np.ndarray:
    """Periods of an absolute schedule with nothing to do: what the machine itself is late by, seconds."""
    begin, ticks = time.perf_counter(), []
    for tick in range(round(seconds * RATE_HZ)):
        time.sleep(max(0.0, begin + tick / RATE_HZ - time.perf_counter()))
        ticks.append(time.perf_counter())
    return np.diff(ticks)


def row(result: Result) -> str:
    stalls = ", ".join(f"{stall:.2f}" for stall in result.stalls_s)
    seconds = result.ticks / RATE_HZ
    overruns, unsteady = (100 * count / result.ticks for count in (result.overruns, result.unsteady))
    behind = "" if result.behind is None else f"{result.behind} behind schedule, "
    return (
        f"{CASES[result.case]}\n"
        f"  overruns {result.overruns} of {result.ticks} ticks ({overruns:.2f} %), {behind}"
        f"unsteady {unsteady:.2f} %, longest period {result.longest_ms:.0f} ms, "
        f"{result.rate_hz:.2f} Hz; pictures lost {result.lost}, repeated and marked {result.lost_marked}\n"
        f"  between episodes {stalls} s; CPU {result.cpu_s:.1f} s "
        f"({100 * result.cpu_s / seconds:.0f} % of a core); load average {result.load:.1f}, "
        f"{100 * result.stolen:.1f} % stolen"
    )


def measure(case: str, episodes: int, seconds: float) -> Result:
    """Run one case in a process of its own, on fresh arms."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        arms = subprocess.Popen(
            [sys.executable, __file__, "--arms", "serve", "--folder", scratch],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert arms.stdout is not None
        arms.stdout.readline()
        arguments = ["--one", case, "--folder", folder, "--episodes", episodes, "--seconds", seconds]
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=(log := (folder / "log").open("w+")),
                text=True,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": scratch, "OMP_NUM_THREADS": "1"},
            )
            if done.returncode:
                log.seek(0)
                raise SystemExit(log.read())
        finally:
            arms.communicate()
        return Result(**json.loads(done.stdout.splitlines()[-1]))


def serve_arms(folder: Path) -> None:
    """A follower and a leader whose joints swing, until standard input ends; their ports go to `ports.json`."""
    from tests.collect.robots.emulated_bus import EmulatedBus

    def swing(phase: float) -> Any:
        return lambda now: 2047 + 150 * np.sin(0.8 * now + phase)

    with EmulatedBus() as follower, EmulatedBus() as leader:
        leader.guide({name: swing(index) for index, name in enumerate(leader.servos)})
        for bus, kind in ((follower, "follower"), (leader, "leader")):
            bus.write_calibration(folder / f"{kind}.json")
        (folder / "ports.json").write_text(json.dumps([follower.port, leader.port]))
        print("ready", flush=True)
        sys.stdin.read()


def run_case(case: str, folder: Path, episodes: int, seconds: float) -> Result:
    kind, cameras = case.split("-")
    noisy_cameras()
    names = ("top", "wrist", "left", "right")[: int(cameras)]
    ticks: list[float] = []
    follower, leader = arms(folder, names, ticks)
    lost = marked = 0
    behind: int | None = None
    began, stolen_before = time.perf_counter(), stolen_s()
    if kind == "bare":
        cpu_s, behind = record_ours(folder, follower, leader, names, episodes, seconds, None)
    elif kind == "ours":
        video = {"preset": "ultrafast", "group_of_pictures": 30} if len(names) > 2 else {}
        cpu_s, behind = record_ours(folder, follower, leader, names, episodes, seconds, video)
        lost, marked = pictures_of_ours(folder / "data")
    else:
        cpu_s = record_stock(folder, follower, leader, episodes, seconds, kind == "streaming")
        lost, marked = missing_pictures(folder / "data"), 0
    stolen = (stolen_s() - stolen_before) / (time.perf_counter() - began) / (os.cpu_count() or 1)
    times = np.array(ticks)
    periods = np.diff(times)
    ends = np.argsort(periods)[len(periods) - (episodes - 1) :]  # the longest ones lie between episodes
    within, pauses = np.delete(periods, ends), periods[np.sort(ends)]
    return Result(
        case=case,
        ticks=len(times),
        overruns=int((within > OVERRUN / RATE_HZ).sum()),
        unsteady=int((within > UNSTEADY / RATE_HZ).sum()),
        behind=behind,
        longest_ms=round(1000 * float(within.max()), 1),
        rate_hz=round(float(1 / within.mean()), 3),
        lost=lost,
        lost_marked=marked,
        stalls_s=tuple(round(float(pause), 3) for pause in pauses),
        cpu_s=round(cpu_s, 2),
        load=round(os.getloadavg()[0], 1),
        stolen=round(stolen, 4),
    )


def stolen_s() -> float:
    """Seconds of this virtual machine's cores that went to others since it started; 0 where Linux does not say."""
    counts = Path("/proc/stat")
    if not counts.exists():
        return 0.0
    return int(counts.read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def noisy_cameras() -> None:
    """Let emulated cameras show texture and noise like a sensor's: what an encoder is busy with."""
    from tests.collect.robots import emulated_camera

    generator = np.random.default_rng(0)
    texture = generator.integers(40, 180, size=(HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    scenes = [
        np.clip(texture + generator.normal(0, 3, size=texture.shape), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]

    def picture(self: Any, frame: int) -> np.ndarray:
        shown = scenes[frame % len(scenes)].copy()
        x, y = (3 * frame) % (WIDTH - 80), (2 * frame) % (HEIGHT - 80)
        shown[y : y + 80, x : x + 80] = (230, 40, 40)
        return shown

    emulated_camera.EmulatedCamera._picture = picture


def arms(folder: Path, cameras: tuple[str, ...], ticks: list[float]) -> tuple[Any, Any]:
    """LeRobot's own follower (with cameras) and leader; the leader notes when it is read, once a tick."""
    from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig
    from lerobot.teleoperators.so_leader import SO100Leader, SO100LeaderConfig

    from blm.collect.robots.servo_line import ServoLine
    from tests.collect.robots.config_emulated_camera import EmulatedCameraConfig

    port, leader_port = json.loads((folder / "ports.json").read_text())
    attached = {name: EmulatedCameraConfig(width=WIDTH, height=HEIGHT, fps=2 * RATE_HZ) for name in cameras}
    config = SO100FollowerConfig(port=port, id="follower", calibration_dir=folder, cameras=attached)  # type: ignore[arg-type]
    leader = SO100Leader(SO100LeaderConfig(port=leader_port, id="leader", calibration_dir=folder))
    ServoLine(leader.bus, retries=5)
    show = leader.get_action

    def noted() -> Any:
        ticks.append(time.perf_counter())
        return show()

    leader.get_action = noted
    return SO100Follower(config), leader


@contextmanager
def cpu_seconds() -> Iterator[list[float]]:
    """CPU seconds of this process and of the children it has waited for."""
    spent: list[float] = []
    began = _cpu()
    yield spent
    spent.append(_cpu() - began)


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def record_ours(
    folder: Path,
    follower: Any,
    leader: Any,
    cameras: tuple[str, ...],
    episodes: int,
    seconds: float,
    video: dict[str, Any] | None,
) -> tuple[float, int]:
    """Record through the hardware environment and the live recorder (`video` None: without).

    Returns CPU seconds, and the ticks that began more than half a period behind the schedule.
    """
    from blm.collect.live_recorder import LIVE_VIDEO, LiveRecorder
    from blm.collect.recording import Recording
    from blm.collect.robots.hardware import HardwareEnvironment
    from blm.collect.rollout import run_episode
    from blm.schemas.embodiment import load_embodiment

    so100 = load_embodiment("so100").with_image_size(WIDTH, HEIGHT)
    attached = tuple(so100.camera("top").model_copy(update={"name": name}) for name in cameras)
    robot = so100.model_copy(update={"cameras": attached, "control_rate_hz": float(RATE_HZ)})
    leader.connect()
    with (
        HardwareEnvironment(robot, "pick-cube", follower, start="stay") as environment,
        cpu_seconds() as spent,
        ExitStack() as stack,
    ):
        subscribers, behind = [], 0
        if video is not None:
            recording = Recording(robot, simulated=False, video=LIVE_VIDEO.model_copy(update=video))
            recorder = LiveRecorder(folder / "data", recording)
            subscribers.append(stack.enter_context(recorder))
        for episode in range(episodes):
            follow = Follow(leader, robot)
            end = run_episode(environment, follow, subscribers, episode, round(seconds * RATE_HZ))
            behind += int(end.metrics["late_ticks"])
    return spent[0], behind


class Follow:
    """An operator who does what the leader does."""

    operator = "leader"

    def __init__(self, leader: Any, robot: Any) -> None:
        self._leader = leader
        self._names = robot.axis_names

    def reset(self, start: Any, observation: Any) -> None: ...

    def act(self, observation: Any) -> Any:
        from blm.schemas.rollout import Command

        action = self._leader.get_action()
        return Command(np.array([action[name] for name in self._names]), "teleoperation")

    def metrics(self) -> dict[str, Any]:
        return {}


def record_stock(
    folder: Path, follower: Any, leader: Any, episodes: int, seconds: float, streaming: bool
) -> float:
    """LeRobot's own `record`, with the same devices put in where it would make its own."""
    from lerobot.configs.dataset import DatasetRecordConfig
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.scripts import lerobot_record

    from blm.collect.robots.servo_line import ServoLine

    ServoLine(follower.bus, retries=5)
    lerobot_record.make_robot_from_config = lambda _: follower
    lerobot_record.make_teleoperator_from_config = lambda _: leader
    options: dict[str, Any] = {}
    if streaming:
        options["rgb_encoder"] = RGBEncoderConfig(vcodec="h264", preset="veryfast", g=10)
        options["streaming_encoding"] = True
    dataset = DatasetRecordConfig(
        repo_id="local/pacing",
        single_task="Follow the leader.",
        root=folder / "data",
        fps=RATE_HZ,
        episode_time_s=seconds,
        reset_time_s=0,
        num_episodes=episodes,
        push_to_hub=False,
        **options,
    )
    config = lerobot_record.RecordConfig(
        robot=follower.config, dataset=dataset, teleop=leader.config, play_sounds=False
    )
    with cpu_seconds() as spent:
        lerobot_record.record(config)
    return spent[0]


def pictures_of_ours(root: Path) -> tuple[int, int]:
    """Pictures that are missing from the videos, and those that are marked as repeats."""
    import pyarrow.parquet as pq

    rows = pq.read_table(root / "meta/episodes").to_pylist()
    return missing_pictures(root), sum(row["blm/repeated_frames"] for row in rows)


def missing_pictures(root: Path) -> int:
    """Rows of the dataset times cameras, less frames in its videos."""
    from blm.collect.video import count_frames

    info = json.loads((root / "meta/info.json").read_text())
    cameras = {path.relative_to(root / "videos").parts[0] for path in root.glob("videos/**/*.mp4")}
    return info["total_frames"] * len(cameras) - sum(
        count_frames(path) for path in root.glob("videos/**/*.mp4")
    )


if __name__ == "__main__":
    main()
