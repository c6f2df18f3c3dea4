"""Several runs at once: ranked, reported on, verified, or trained as a study.

In: paths. Out: a `Ranking`, files, or `Studies`, the studies of a directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stopgrad import evaluation, images, method, report, runs, speed, studies
from stopgrad.config import Config, Layer
from stopgrad.errors import CheckpointError, ConfigError, DataError, FailedRunsError
from stopgrad.evaluation import printable
from stopgrad.library.data import AnyData
from stopgrad.library.progress import Screen, StudyWatch
from stopgrad.library.run import Run
from stopgrad.library.tables import ArmsTable, Ranking

if TYPE_CHECKING:
    from stopgrad.images import Changed, Dataset
    from stopgrad.report import Evidence, StudyEvidence
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
            changed: Changed = "tell" if own else "fail"
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


class Reported(NamedTuple):
    """The files of a report."""

    page: Path
    poster: Path | None
    figures: tuple[Path, ...]


def write_report(
    paths: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    data: AnyData | None = None,
    arm: str | None = None,
    poster: str | Path | None = None,
    figures: str | Path | None = None,
) -> Reported:
    """Writes a page about runs and studies, and if asked for a poster and each figure as a file.

    Args:
        paths: Runs, or directories of studies.
        out: The page; None: report.html in the one directory, or here for several.
        data: Where a run's images are now; None: where they were.
        arm: Of a study, the arm of whose runs one is shown with images; "": the arm that was
            chosen, or the baseline; None: no images.
        poster: A PDF file to write.
        figures: A folder to write.

    Raises:
        ConfigError: For a path that is no directory, or an arm without weights.
        StopgradError: For runs, studies or images that cannot be read.
    """
    folders, screen = [Path(path) for path in paths], Screen()
    chapters = [
        chapter for path in folders for chapter in _chapters(path, screen, data=data, arm=arm)
    ]
    page = Path(out) if out else (folders[0] if len(folders) == 1 else Path()) / "report.html"
    return Reported(
        report.write_page(chapters, out=page),
        report.write_poster(chapters, out=Path(poster)) if poster else None,
        tuple(report.write_figures(chapters, folder=Path(figures))) if figures else (),
    )


def _chapters(
    path: Path, screen: Screen, *, data: AnyData | None, arm: str | None
) -> list[Evidence | StudyEvidence]:
    """A run, with images, or every study of a directory."""
    if (path / "studies").is_dir() and not (path / "config.json").exists():
        found = report.read_studies(path)
        if arm is None:
            return list(found)
        return [_with_images(study, screen, data=data, arm=arm) for study in found]
    if not path.is_dir():
        raise ConfigError(
            f"{path} is no directory",
            expected="a run, or a directory of studies",
            hint="check the path",
        )
    return [_evidence(Run(path, data=data), screen)]


def _evidence(run: Run, screen: Screen) -> Evidence:
    """A run with its images; neighbours come with their votes only where labels exist."""
    dataset = run.own_images(None, screen)
    trained = run.trained()
    with screen.progress():
        exploration = report.explore(trained, dataset, track=screen.track)
    mean_std = trained.info.normalization
    panel = report.view_examples(dataset.train, run.config, normalization=mean_std, count=12)
    return report.read_evidence(run.path, views=panel, exploration=exploration)


def _with_images(
    study: StudyEvidence, screen: Screen, *, data: AnyData | None, arm: str
) -> StudyEvidence:
    """A study with the images of one run: of the arm that was named, chosen, or the baseline."""
    stored = study.results.stored
    arm = arm or stored.selected or stored.study.baseline
    folder = studies.StudyDirectory(Path(study.path)).folder
    slots = [slot for slot in stored.slots if slot.arm == arm]
    for slot in slots:
        path = folder(slot.run).run
        if any((path / "checkpoints").glob("*/model.safetensors")):
            run = Run(path, data=data if data is not None else str(stored.data["spec"]))
            shown = report.ShownRun(_evidence(run, screen), printable(arm), slot.seed)
            return study._replace(shown=shown)
    names = ", ".join(each.name for each in stored.study.arms)
    raise ConfigError(
        f"--pictures {arm}" + (": no run of it has its weights" if slots else ": no such arm"),
        expected=f"an arm of {stored.study.name} with weights, of {names}",
        hint="name another arm, or leave --pictures out",
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
        tables = [studies.study_table(self._directory, each, form=form) for each in names]
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
    screen, choices = Screen(), studies.Choices(preset, studies.key_paths(knobs), _seeds(seeds))
    with screen.progress():
        prepared = studies.prepare_study(
            name, choices, spec=str(data), out=Path(out), track=screen.track
        )
    for change in prepared.changes:
        screen.line(f"{prepared.study.name} changed since it was begun: {change}")
    executor = studies.local_processes(jobs=jobs, device=str(knobs.get("device", "auto")))
    watch = StudyWatch(prepared, screen, jobs=executor.slots)
    with watch.shown():
        failed = studies.conduct_study(prepared, executor, watch=watch, retry=retry)
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
