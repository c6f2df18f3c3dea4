"""Several runs at once: ranked, verified, or trained as a study.

In: paths. Out: a `Ranking`, files, or `Studies`, the studies of a directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stopgrad import evaluation, images, method, report, runs, speed, studies
from stopgrad.config import Config, Layer, key_paths
from stopgrad.errors import CheckpointError, ConfigError, DataError, FailedRunsError
from stopgrad.library.data import AnyData
from stopgrad.library.progress import Screen, StudyWatch
from stopgrad.library.ranking import Ranking
from stopgrad.library.run import Run
from stopgrad.library.tables import ArmsTable
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.images import Changed, Dataset
    from stopgrad.speed import Speed
    from stopgrad.storage import Finding


def compare(
    paths: Sequence[str | Path | Run],
    *,
    data: AnyData | None = None,
    by: str = "lidar",
    layer: Layer = "features",
    score: bool = True,
) -> Ranking:
    """Ranks runs by measures that need no labels, and says how far labels would agree.

    Args:
        paths: The runs.
        data: Images to measure on; None: those that the runs learned from.
        by: The measure that orders the runs.
        layer: What is measured: the encoder's output, or the projector's.
        score: Score what the records lack, where there are labels.

    Raises:
        DataError: When the runs learned from different images and none are named.
    """
    screen, opened = Screen(), [path if isinstance(path, Run) else Run(path) for path in paths]
    found = [run.trained(screen) for run in opened]
    method.use_threads(found[0].info.config.threads)
    datasets = _datasets(opened, data, screen)
    with screen.progress():
        ranked = evaluation.compare_runs(
            found, datasets, by=by, layer=layer, score=score, track=screen.track
        )
    return Ranking(ranked)


def _datasets(opened: Sequence[Run], data: AnyData | None, screen: Screen) -> list[Dataset]:
    """The images to measure on, as each run stores them.

    Without `data` they are what all runs learned from: the same pixels, or those that the one
    place of all runs gives each of them at its own size.
    """
    found = [run.trained() for run in opened]
    same = data is not None or evaluation.same_data(found)
    if not same and len({run.info.data["spec"] for run in found}) > 1:
        raise _different(opened)
    source = opened[0].source(data)
    stored: dict[tuple[object, ...], Dataset] = {}
    for run in found:
        config = replace(run.info.config, bad_images=found[0].info.config.bad_images)
        key = _storing(config)
        if key not in stored:
            own = runs.spec_to_keep(source.spec) == run.info.data["spec"]
            changed: Changed = "warn" if own else "fail"
            stored[key] = source.stored_for(config, screen, changed=changed)
        now = stored[key].train.fingerprint
        if not same and now != run.info.data["fingerprint"]:
            raise _different(opened, f"; {source.spec} gives {run.path} now {now[:12]}")
    return [stored[_storing(run.info.config)] for run in found]


def _storing(config: Config) -> tuple[object, ...]:
    """All of a config that decides how images are stored and seen whole."""
    return (config.image_side, config.views.size, config.encoder)


def _different(opened: Sequence[Run], why: str = "") -> DataError:
    cards = [run.trained().info.data for run in opened]
    data = {card["fingerprint"]: card for card in cards}
    named = ", ".join(
        f"{printable(card['name'])} {mark[:12]} of {printable(card['spec'])}"
        for mark, card in data.items()
    )
    return DataError(
        f"runs that learned from different images ({named}{why})",
        expected="runs that learned from the same images",
        hint="name the images to measure all of them on with --data",
    )


def verify(path: str | Path) -> Iterator[Finding]:
    """Checks every file of a run or of a packed store.

    Raises:
        CheckpointError: At the end, when one of a run is not as it should be.
        DataError: At the end, when one of a store is not.
    """
    path = Path(path)
    packed, findings = images.is_store(path), []
    for finding in images.verify_store(path) if packed else runs.verify_run(path):
        findings.append(finding)
        yield finding
    wrong = [finding.file for finding in findings if not finding.ok]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise (DataError if packed else CheckpointError)(
            f"{len(wrong)} of {len(findings)} files of {path} are not as they should be: "
            f"{', '.join(wrong[:3])}{more}",
            expected=f"the files that {'`stopgrad pack`' if packed else 'stopgrad'} wrote",
            hint="pack it again into a new store"
            if packed
            else "resume goes on from the newest checkpoint that is whole",
        )


def bench(*, device: str = "auto", threads: int = 0, quick: bool = False) -> Speed:
    """How fast this machine is, on random pixels, beside its own limit.

    Args:
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; 0: one per core.
        quick: Whether it runs, in seconds; the numbers mean nothing.

    Raises:
        ConfigError: For a device that is not there.
    """
    if threads < 0:
        raise ConfigError(f"--threads {threads}", expected="at least 0", hint="0 takes every core")
    method.use_threads(threads)
    size = speed.QUICK if quick else speed.FULL
    return speed.measure_speed(size, device=device, say=Screen().line)


class Studies:
    """The studies of a directory."""

    def __init__(self, path: str | Path) -> None:
        """Opens a directory that `study` wrote."""
        self.path = Path(path)
        self._directory = studies.StudyDirectory(self.path)

    @property
    def names(self) -> list[str]:
        """The studies that were begun here."""
        return [stored.study.name for stored in self._directory.read_all()]

    def table(
        self,
        name: str | None = None,
        *,
        form: Literal["markdown", "csv", "json"] = "markdown",
    ) -> str:
        """The results beside the published ones, from the records there are.

        Args:
            name: One of the studies; None: all.
            form: How the table is written.

        Raises:
            DataError: When there is no such study.
        """
        names = self.names if name is None else [name]
        tables = [report.study_table(self._directory, each, form=form) for each in names]
        if form == "json" and name is None:
            return "[" + ",\n".join(tables) + "]"
        return "\n\n".join(tables)

    @property
    def states(self) -> list[ArmsTable]:
        """How the runs of each study stand."""
        return [
            ArmsTable(stored.study.name, studies.study_overview(self._directory, stored))
            for stored in self._directory.read_all()
        ]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.states))

    def _repr_html_(self) -> str:
        return "".join(state._repr_html_() for state in self.states)


def study(
    name: str,
    /,
    *,
    data: str | Path,
    out: str | Path,
    preset: str = "cifar",
    seeds: int | Sequence[int] = 5,
    jobs: int | None = None,
    retry: bool = False,
    **knobs: Any,
) -> Studies:
    """Runs what is left of a study: each arm over the seeds.

    Args:
        name: A study by name, or a YAML file.
        data: A name or a path, as for `load`.
        out: The directory, which may hold several studies.
        preset: As for `pretrain`.
        seeds: How many, from 0 on, or which.
        jobs: Runs at once; None: one per GPU, or two on a machine without.
        retry: Also what failed before, whatever the reason.
        **knobs: As for `pretrain`; they hold for all arms.

    Raises:
        ConfigError: For a study, a knob or a number that cannot be.
        DataError: For images that do not bear the study.
        FailedRunsError: When runs failed; the others are done.
        InterruptedStudyError: After a signal, when every run has saved.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}", expected="at least 1", hint="raise it")
    screen, choices = Screen(), studies.Choices(preset, key_paths(knobs), _seeds(seeds))
    with screen.progress():
        prepared = studies.prepare_study(
            name, choices, spec=str(data), out=Path(out), track=screen.track
        )
    for change in prepared.changes:
        screen.line(f"{prepared.study.name} changed since it was begun: {change}")
    executor = studies.local_processes(jobs=jobs, device=str(knobs.get("device", "auto")))
    watch = StudyWatch(prepared, screen, jobs=executor.slots)
    with watch.shown():
        failed = studies.run_study(prepared, executor, watch=watch, retry=retry)
    lost, total = len(failed), len(prepared.plan.runs)
    screen.line(f"{total - lost} of {total} runs done")
    if failed:
        run, reason = next(iter(failed.items()))
        raise FailedRunsError(
            f"{lost} of {total} runs failed, such as {run} ({reason})",
            expected="runs to their last number",
            hint=f"see all with: stopgrad study status {prepared.directory.path}",
        )
    return Studies(out)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(seeds, int):
        return tuple(seeds)
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}", expected="at least 1", hint="raise it")
    return tuple(range(seeds))
