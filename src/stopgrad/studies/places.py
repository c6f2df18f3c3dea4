"""Where a user wants a study carried out -> its executor; what engines report about its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from stopgrad.errors import ConfigError
from stopgrad.studies.claims import JobClaim, open_claim, read_begin
from stopgrad.studies.cluster import Cluster, Queued
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.executors import Executor, local_processes
from stopgrad.studies.ray_actors import RayActors
from stopgrad.studies.slurm_queue import SlurmQueue

JOBS = 16  # at once on an engine, unless the user says how many

EngineName = Literal["local", "slurm", "ray"]


class Where(NamedTuple):
    """Where the tasks of a study are carried out."""

    on: EngineName = "local"
    jobs: int | None = None  # at once
    slurm: Mapping[str, str] = MappingProxyType({})  # options of sbatch
    ray_address: str = "auto"
    devices: int = 1  # processes of each pretraining


def executor_for(where: Where, directory: StudyDirectory, *, device: str) -> Executor:
    """The executor of a place.

    Raises:
        ConfigError: When the place is not available, or runs are at work in another one.
    """
    _check_engine(where, directory)
    jobs = where.jobs or JOBS
    match where.on:
        case "local":
            return local_processes(jobs=where.jobs, device=device)
        case "slurm":
            engine = SlurmQueue(directory.path, where.slurm)
            return Cluster(engine, jobs=jobs, devices=where.devices)
        case "ray":
            gpus = 0 if device == "cpu" else where.devices
            actors = RayActors(where.ray_address, gpus=gpus)
            return Cluster(actors, jobs=jobs, devices=where.devices)


def check_place(where: Where) -> None:
    """Refuses options that do not go together, with a ConfigError."""
    if where.jobs is not None and where.jobs < 1:
        raise ConfigError(f"--jobs {where.jobs}", expected="at least 1")
    if where.on not in ("local", "slurm", "ray"):
        raise ConfigError(f"--on {where.on}", expected="local, slurm or ray")
    if where.devices < 1:
        raise ConfigError(f"--devices {where.devices}", expected="at least 1")
    if where.devices > 1 and where.on == "local":
        raise ConfigError(
            f"--devices {where.devices} with --on local",
            expected="one process per run on this machine",
            hint="use --on slurm or --on ray, or --jobs for several runs at once",
        )
    if where.slurm and where.on != "slurm":
        raise ConfigError(f"--slurm with --on {where.on}", expected="--on slurm")
    for name in {*where.slurm} & {"job_name", "job-name", "array"}:
        raise ConfigError(
            f"--slurm {name}={where.slurm[name]}",
            expected="other options of sbatch",
            hint="a study names its jobs itself, and finds them again by their names",
        )


def _check_engine(where: Where, directory: StudyDirectory) -> None:
    """Refuses a study with jobs on another engine: they cannot be followed from here."""
    for run, claim in _open_claims(directory).items():
        if claim.engine != where.on and claim.may_have_job:
            raise ConfigError(
                f"run {run} is {claim.engine} job {claim.job or 'to be submitted'}",
                expected=f"--on {claim.engine}",
                hint=f"follow it there; if it has ended for good, remove job-{claim.attempt}.json "
                f"in {directory.folder(run).path}",
            )


def _open_claims(directory: StudyDirectory) -> dict[str, JobClaim]:
    folders = sorted((directory.path / "runs").glob("*"))
    found = {folder.name: open_claim(folder) for folder in folders}
    return {run: claim for run, claim in found.items() if claim is not None}


def job_texts(directory: StudyDirectory) -> dict[str, str]:
    """What is known about the job of each run that has one: its state, node and time left."""
    claims = _open_claims(directory)
    on_slurm = any(claim.engine == "slurm" for claim in claims.values())
    queue = _slurm_queue(directory.path) if on_slurm else None
    return {
        run: _job_text(directory.folder(run).path, claim, queue) for run, claim in claims.items()
    }


def _slurm_queue(study: Path) -> Mapping[str, Queued] | None:
    try:
        return SlurmQueue(study, {}).queue()
    except ConfigError:
        return None


def _job_text(folder: Path, claim: JobClaim, queue: Mapping[str, Queued] | None) -> str:
    begin = read_begin(folder, claim.attempt)
    job = f"{claim.engine} job {claim.job or 'not submitted yet'}"
    if claim.engine != "slurm":
        queued = f"{job} queued" if claim.job else job
        return f"{job} on {begin.node}" if begin else queued
    if queue is None:
        return f"{job}, Slurm does not answer"
    found = queue.get(claim.name)
    if found is None:
        return f"{job} has ended" if claim.job else job
    place = f" on {found.node}, {found.left} left" if found.node else ""
    return f"{claim.engine} job {found.job} {found.state.lower()}{place}"
