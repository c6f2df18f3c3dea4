"""Jobs as actors of Ray: one for each task, with a name, which outlives the runner.

An actor starts the job as a process and ends with it; it exists to be asked to stop. A task of Ray
would not notice that while it waits for its process.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from stopgrad.errors import ConfigError
from stopgrad.storage import die_with
from stopgrad.studies.claims import JobClaim
from stopgrad.studies.cluster import Queued
from stopgrad.studies.folder import RunFolder

NAMESPACE = "stopgrad"
ANSWER_S = 10.0
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The first bytes of a gRPC client (RFC 9113, Sec. 3.4); a server also answers with settings."""


class JobActor:
    """A job on the machine that Ray has chosen."""

    def __init__(self, folder: str, attempt: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stopgrad.studies.node", folder, str(attempt)],
            preexec_fn=die_with(os.getpid()),
        )
        threading.Thread(target=self._leave, daemon=True).start()

    def stop(self) -> None:
        """Asks the job to save and end."""
        self._process.terminate()

    def _leave(self) -> None:
        """Ends the actor with its job, so that its place is freed even without a runner."""
        import ray

        self._process.wait()
        ray.kill(ray.get_runtime_context().current_actor)


class RayActors:
    """A cluster of Ray."""

    name = "ray"

    def __init__(self, address: str, *, gpus: int = 0) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "--on ray without Ray",
                expected="Ray, the version of the cluster",
                hint="pip install 'stopgrad[ray]'",
            ) from error
        self._ray: Any = ray
        self._connect(address)
        on_gpus = "GPU" in self._ray.cluster_resources()
        self._gets = {"num_gpus": gpus} if on_gpus and gpus else {"num_cpus": 1}

    def _connect(self, address: str) -> None:
        self._leave_earlier()
        host, _, port = address.rpartition(":")
        try:
            if host and os.environ.get("RAY_USE_TLS", "0") == "0":
                _greet(host, int(port))
            self._ray.init(
                address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR"
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster answers at {address} ({str(error).splitlines()[0]})",
                expected="the HOST:PORT that `ray start --head` printed",
                hint="correct --ray-address, or start the cluster",
            ) from error

    def _leave_earlier(self) -> None:
        """Ends the connection of an earlier study of this process; its actors stay."""
        if not self._ray.is_initialized():
            return
        if self._ray.get_runtime_context().namespace != NAMESPACE:
            raise ConfigError(
                "--on ray in a process that is already connected to Ray",
                expected="no connection, as a study makes its own",
                hint="call ray.shutdown() first",
            )
        self._ray.shutdown()

    def submit(self, folder: RunFolder, claim: JobClaim) -> str | None:
        """Creates an actor; Ray starts it when there is a place for it."""
        actor = self._ray.remote(JobActor).options(
            name=claim.name, lifetime="detached", max_restarts=0, max_task_retries=0, **self._gets
        )
        actor.remote(str(folder.path.absolute()), claim.attempt)
        return claim.name

    def queue(self) -> Mapping[str, Queued] | None:
        """All actors that have a name."""
        try:
            names = self._ray.util.list_named_actors()
        except Exception:  # Ray has many errors for one that does not answer
            return None
        return {name: Queued(name, "", "", "") for name in names}

    def stop(self, claim: JobClaim, *, begun: bool) -> bool:
        """Calls `stop` of an actor; one that has no place yet is removed."""
        with suppress(ValueError):  # it has ended
            actor = self._ray.get_actor(claim.name)
            if begun:
                actor.stop.remote()
            else:
                self._ray.kill(actor)
        return True


def _greet(host: str, port: int) -> None:
    """Raises an OSError if no gRPC server answers in time: Ray itself would ask for minutes."""
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
        connection.sendall(HELLO)
        if connection.recv(9)[3:4] != HELLO[-6:-5]:
            raise OSError("it is another server")
