"""Building splits on a real Ray cluster of two nodes, started here: the same bytes, and what a million frames cost.

Each node is a `ray start` of one core on this machine. The same build runs in this process and on the cluster, first
with one node, then with two; every file must be equal. CPU seconds count all processes of a node, Ray's own among them.
What it takes to join and to start a worker on every node stands apart: it does not grow with the build. Only what this
script started is ended.

A node gives up where it has to wait more than 15 seconds for a helper process to name its port; here it is told all
ports.

Run: make bench ARGS=benchmarks/ray_scaling.py
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from blm.curate.engine import Engine

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

STORE_BYTES = 100_000_000
PATIENCE = {"RAY_worker_register_timeout_seconds": "180", "RAY_agent_register_timeout_ms": "180000"}
"""A busy machine is slow to start processes."""
HELPERS = ("runtime-env-agent", "dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export")
"""Whose ports a node otherwise waits for."""
DATASETS = 6


def main() -> None:
    """A row per way of running the same build."""
    from benchmarks.reading import make_source
    from benchmarks.shard_build import with_other_motion

    with tempfile.TemporaryDirectory(prefix="blm-ray-") as folder:
        scratch = Path(folder)
        make_source(scratch / "source", (640, 480), "h264")
        datasets = [with_other_motion(scratch / "source", scratch / f"set{n}", n) for n in range(DATASETS)]
        rows = [("local, 1 thread", built(datasets, scratch / "local", {}, []))]
        expected = contents(scratch / "local")
        for nodes in (1, 2):
            with cluster(nodes, scratch) as (address, environment, processes):
                engine = {"engine": "ray", "ray_address": address}
                pids = [process.pid for process in processes]
                row = built(datasets, scratch / f"ray{nodes}", engine, pids, environment)
            assert contents(scratch / f"ray{nodes}") == expected, "the engines' builds differ"
            rows.append((f"Ray, {row['nodes']} node{'s' if nodes > 1 else ''}", row))
        heads = ("engine", "joining s (CPU s)", "build s", "driver CPU s", "nodes CPU s")
        print("{:16} {:>18} {:>8} {:>12} {:>14} ".format(*heads) + "per million camera frames")
        for name, row in rows:
            million = row["camera_frames"] / 1e6
            print(
                f"{name:16} {row['join_s']:10.1f} ({row['join_cpu_s']:5.1f}) {row['build_s']:8.1f} "
                f"{row['driver_cpu_s']:12.1f} {' + '.join(f'{one:.1f}' for one in row['nodes_cpu_s']) or '-':>14} "
                f"{row['build_s'] / 3600 / million:.2f} h wall, "
                f"{(row['driver_cpu_s'] + sum(row['nodes_cpu_s'])) / 3600 / million:.2f} core-hours"
            )
        print(
            f"{int(rows[0][1]['camera_frames'])} camera frames, {len(expected)} files; all equal, byte for byte"
        )


def built(
    datasets: list[Path],
    output: Path,
    engine: dict[str, str],
    nodes: list[int],
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Build in a process of its own, on nodes that are these processes."""
    told = json.dumps({"engine": engine, "nodes": nodes})
    command = [sys.executable, __file__, "--build", told, str(output), *map(str, datasets)]
    variables = os.environ | (environment or {})
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    return json.loads(finished.stdout.splitlines()[-1])


def build(engine: dict[str, str], nodes: list[int], output: Path, datasets: list[Path]) -> dict[str, Any]:
    """Seconds and CPU seconds of joining and of building; nodes are looked at while their workers live."""
    from benchmarks.shard_build import settings
    from blm.curate.engine import open_engine
    from blm.curate.episodes.build import build_splits
    from blm.curate.episodes.config import SplitsConfig

    config = SplitsConfig.model_validate(settings(datasets, output) | engine)
    started = _times(nodes)
    with open_engine(config.engine, config.ray_address) as opened:
        if engine:
            start_workers(opened)
        joined = _times(nodes)
        summary = build_splits(config)
        finished = _times(nodes)
        living = living_nodes() if engine else 0
    build_s, driver_cpu_s, *nodes_cpu_s = finished - joined
    join_s, *join_cpu_s = joined - started
    return {
        "camera_frames": 2 * sum(summary.frames.values()),
        "join_s": join_s,
        "join_cpu_s": sum(join_cpu_s),
        "build_s": build_s,
        "driver_cpu_s": driver_cpu_s,
        "nodes_cpu_s": nodes_cpu_s,
        "nodes": living,
    }


def _times(nodes: list[int]) -> np.ndarray:
    """Seconds now, CPU seconds of this process, and of each node so far."""
    return np.array([time.monotonic(), sum(os.times()[:2]), *map(cpu_s, nodes)])


def start_workers(engine: Engine) -> None:
    """Let every node start its worker, which takes ten seconds where cores are shared: a build takes hardly longer."""

    def wait(table: pa.Table) -> pa.Table:
        time.sleep(20)
        return table

    tables = [pa.table({"number": [number]}) for number in range(living_nodes())]
    list(engine.map(wait, tables))


def living_nodes() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())


@contextmanager
def cluster(nodes: int, scratch: Path) -> Iterator[tuple[str, dict[str, str], list[subprocess.Popen]]]:
    """So many nodes of one core; their address, the variables that a driver needs, and their processes."""
    address = f"127.0.0.1:{free_port()}"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    variables = os.environ | environment | PATIENCE
    common = [
        "--no-monitor",
        "--include-log-monitor=false",
        "--num-cpus=1",
        f"--object-store-memory={STORE_BYTES}",
        "--disable-usage-stats",
        "--block",
    ]
    processes = []
    try:
        for number in range(nodes):
            own = (
                [
                    "--head",
                    f"--port={address.split(':')[1]}",
                    "--node-ip-address=127.0.0.1",
                    "--include-dashboard=false",
                ]
                if number == 0
                else [f"--address={address}", "--node-ip-address=127.0.0.1"]
            )
            log = (scratch / f"node{nodes}-{number}.log").open("w")
            ports = [f"--{helper}-port={free_port()}" for helper in HELPERS]
            command = [Path(sys.executable).parent / "ray", "start", *own, *ports, *common]
            processes.append(
                subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
            )
            wait_for_nodes(address, number + 1, variables)
        yield address, environment, processes
    finally:
        for process in reversed(processes):
            end(process)


def wait_for_nodes(address: str, count: int, variables: dict[str, str]) -> None:
    """Ask from a process of its own, so that this one is free to join other clusters."""
    ask = (
        "import logging, ray, sys\n"
        "ray.init(address=sys.argv[1], logging_level=logging.CRITICAL, log_to_driver=False)\n"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    command = [sys.executable, "-c", ask, address]
    complaint = ""
    for _ in range(20):
        finished = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if finished.stdout.strip() == str(count):
            return
        complaint = finished.stderr[-2000:]
        time.sleep(2)
    raise SystemExit(f"{count} Ray nodes did not come up: {complaint}")


def end(process: subprocess.Popen) -> None:
    """The node and all it started."""
    import psutil

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=20)
    for one in alive:
        with psutil_gone():
            one.kill()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and all its descendants, ended ones that were waited for included."""
    import psutil

    total = 0.0
    for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with psutil_gone():
            times = one.cpu_times()
            total += times.user + times.system
            if one.pid == pid or one.name().startswith("raylet"):
                total += times.children_user + times.children_system
    return total


@contextmanager
def psutil_gone() -> Iterator[None]:
    import psutil

    try:
        yield
    except psutil.NoSuchProcess:
        return


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        told = json.loads(sys.argv[2])
        print(
            json.dumps(build(told["engine"], told["nodes"], Path(sys.argv[3]), list(map(Path, sys.argv[4:]))))
        )
    else:
        main()
