"""Claims about studies on Ray, with a head and two nodes that the tests start here.

The suite asks for what takes seconds; STOPGRAD_FULL=1 trains a study under each fault.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from stopgrad.errors import ConfigError
from stopgrad.studies import StudyDirectory, ray_actors
from stopgrad.studies.ray_actors import RayActors
from tests.studies.engines import RayCluster, free_port, wait_for
from tests.studies.faults import check, is_training, no_runner_stays, place, start, undisturbed

__all__ = ["no_runner_stays", "place", "undisturbed"]  # fixtures

FULL = os.environ.get("STOPGRAD_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="the full set: STOPGRAD_FULL=1")
pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="no Ray: pip install 'stopgrad[ray]'"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[RayCluster]:
    """A head without a place for jobs, and two nodes with one each."""
    cluster = RayCluster(tmp_path)
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


def on_ray(ray: RayCluster, place: Path, out: Path) -> subprocess.Popen[str]:
    return start(os.environ, place, out, "--on", "ray", "--ray-address", ray.address)


def test_an_address_where_nobody_listens_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address} "):
        RayActors(address)


@pytest.mark.parametrize(
    ("said", "why"), [(b"", "timed out"), (b"HTTP/1.1 400 ", "another server")]
)
def test_an_address_where_something_else_listens_is_named_in_time(
    monkeypatch: pytest.MonkeyPatch, said: bytes, why: str
) -> None:
    """Such as the port of Ray's dashboard."""
    assert ray_actors.ANSWER_S == 10
    monkeypatch.setattr(ray_actors, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def answer() -> None:
            connections.append(server.accept()[0])
            connections[0].sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        address, began = f"127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        with pytest.raises(ConfigError, match=rf"answers at {address} \(.*{why}\); expected"):
            RayActors(address)
        assert time.monotonic() - began < 5
        connections[0].close()


def test_a_process_runs_one_study_after_the_other_but_not_on_a_connection_of_others(
    tmp_path: Path,
) -> None:
    import ray as library

    cluster = RayCluster(tmp_path)
    cluster.port = free_port()
    try:
        cluster.start(head=True)
        assert [RayActors(cluster.address).queue() for _ in range(2)] == [{}, {}]
        library.shutdown()
        library.init(cluster.address, namespace="mine", log_to_driver=False)
        with pytest.raises(ConfigError, match="already connected to Ray"):
            RayActors(cluster.address)
    finally:
        library.shutdown()
        cluster.end()


def remove_node(ray: RayCluster, runner: subprocess.Popen[str]) -> None:
    """A machine that has a job, without warning; another one comes."""
    ray.kill(ray.with_a_job())
    ray.start(head=False)


def kill_driver(ray: RayCluster, runner: subprocess.Popen[str]) -> None:
    runner.kill()
    runner.wait()


def kill_head(ray: RayCluster, runner: subprocess.Popen[str]) -> None:
    """The head alone, after which the command ends; then a new cluster is started."""
    ray.kill(0)
    assert runner.wait(300) != 0
    ray.begin()


@full
@pytest.mark.parametrize("fault", [remove_node, kill_driver, kill_head])
def test_a_fault_leaves_the_table_of_an_undisturbed_study(
    ray: RayCluster,
    place: Path,
    tmp_path: Path,
    undisturbed: StudyDirectory,
    fault: Callable[[RayCluster, subprocess.Popen[str]], None],
) -> None:
    out = tmp_path / "s"
    runner = on_ray(ray, place, out)
    wait_for(lambda: is_training(out) or runner.poll() is not None, 300)
    fault(ray, runner)
    if runner.poll() is not None:
        runner = on_ray(ray, place, out)
    assert runner.wait(600) == 0
    check(out, undisturbed)
