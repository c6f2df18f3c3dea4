"""A study from its name to its last number: checked, begun, run, and scored on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stopgrad.images import Track, no_progress
from stopgrad.studies.data import check_data
from stopgrad.studies.definition import Study
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.executors.executor import Executor
from stopgrad.studies.plan import Choices, StudyPlan, arm_configs, plan_runs
from stopgrad.studies.results import best_arm, load_results
from stopgrad.studies.runner import Runner, Watch, goals_of
from stopgrad.studies.source import StudyFile, built_in_studies, read_study
from stopgrad.studies.steps import on_test, wanted_of_runs


class PreparedStudy(NamedTuple):
    """A study that was checked and written down, before its first run."""

    directory: StudyDirectory
    plan: StudyPlan
    spec: str  # the images
    changes: tuple[str, ...] = ()  # of a study that was edited since it was begun

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.plan.source.study


def prepare_study(
    name: str, choices: Choices, *, spec: str, out: Path, track: Track = no_progress
) -> PreparedStudy:
    """Reads a study, checks all of it, and begins it in a directory or takes it up there.

    Args:
        name: Of a study of the package or of one that the directory holds, or the path of a YAML
            file.
        choices: Preset, overrides and seeds.
        spec: The images, as `load_dataset` takes them.
        out: The study directory, which may hold other studies.
        track: Shows the progress of decoding.

    Raises:
        ConfigError: With everything that is wrong in the study and in the choices.
        DataError: When the images do not bear the study.
        StorageError: When the directory cannot be written.
    """
    directory = StudyDirectory(out)
    source = _source(name, directory)
    configs = arm_configs(source, choices)
    directory.check_ours()
    data = check_data(source.study, configs, spec=spec, track=track)
    plan = plan_runs(source, choices, configs, fingerprints=data.fingerprints)
    begun = directory.begin(plan, data)
    return PreparedStudy(directory, plan, data.spec, begun.changes)


def _source(name: str, directory: StudyDirectory) -> StudyFile:
    """A study by name or by path; of one's own, the copy in the directory where no file is."""
    if name in built_in_studies() or name not in directory.names() or Path(name).is_file():
        return read_study(name)
    stored = directory.read(name)
    return StudyFile(stored.values, stored.study, ())


def run_study(
    prepared: PreparedStudy, executor: Executor, *, watch: Watch, retry: bool = False
) -> Mapping[str, str]:
    """Runs what is left of a study; the runs that failed, with the reason of each.

    Args:
        prepared: From `prepare_study`.
        executor: What carries out its tasks.
        watch: Follows it.
        retry: Also runs that failed before, whatever the reason was.

    Raises:
        InterruptedStudyError: After a signal, when every run has saved.
        StorageError: When the directory cannot be written.
    """
    directory, plan = prepared.directory, prepared.plan
    runner = Runner(directory, executor, spec=prepared.spec, watch=watch, retry=retry)
    wanted = wanted_of_runs(plan)
    runner.work(goals_of(plan, directory, wanted))
    if prepared.study.protocol.final_test:
        chosen = _chosen_runs(prepared)
        final = {run: on_test(numbers) for run, numbers in wanted.items() if run in chosen}
        goals = goals_of(plan, directory, wanted | final)
        runner.work([goal for goal in goals if goal.run.id in final])
    return runner.failed


def _chosen_runs(prepared: PreparedStudy) -> set[str]:
    """The runs of the arm that the validation split chose, now or before.

    Empty while a run has failed or is missing: the choice is made once, and from all of them.
    """
    directory, name = prepared.directory, prepared.study.name
    results = load_results(directory, directory.read(name))
    best = best_arm(results)
    if best is None or any(cell.failed or cell.missing for cell in results.cells.values()):
        return set()
    arm = directory.select(name, best)
    return {slot.run for slot in prepared.plan.slots if slot.arm == arm}
