"""Images and a budget of time -> a setting for a long run on them, found without labels.

In: what `check` takes, and a time. Out: `Advice`: the short runs, the setting, why, what to expect,
and the command of the long run. The runs are studies in one directory: the same call resumes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad import images, method, report, runs, speed, studies
from stopgrad.config import Config, config_from_dict, key_paths, knob_values, torch_generator
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import duration, folds_text, number
from stopgrad.face.arguments import in_plain_torch
from stopgrad.face.data import AnyData, as_data, spec_of
from stopgrad.face.progress import Screen
from stopgrad.face.ranking import compare
from stopgrad.face.several import conduct, failed_runs
from stopgrad.face.tables import Shown
from stopgrad.report import Column, Table, TableCell
from stopgrad.storage import user_path, write_atomically

if TYPE_CHECKING:
    from stopgrad.runs import TrainingImages
    from stopgrad.studies import Choices, PreparedStudy, StudyDirectory, StudyFile, Where

PAGE = "advice.md"
TRIED = 64  # images whose views are compared before anything starts
CHANGED = 1e-3  # least difference of two views, in standard deviations of the pixels
FURTHER = 1.2  # least length of the next rung, relative to the one before
UNITS = (3600.0, 60.0, 1.0)  # s in an hour, a minute and a second
TRUST = (
    "In tests on CIFAR-10, Fashion-MNIST and photos of flowers, the one of 12 settings that RankMe "
    "ranked first was at most 0.3 points below the best. Its order of the others is less certain "
    "(Kendall's tau with kNN +0.22 to +0.85), and each setting has only one seed, so close values "
    "do not rank settings."
)
HEADS = ("rung", "epochs", "N", "RankMe", "retrieval", "z spans", "time")


class TriedSetting(NamedTuple):
    """How a setting did in a rung."""

    rung: int
    arm: str
    config: Config
    steps: int
    folds: float  # N
    rankme: float  # of the features
    retrieval: float
    directions: float  # of z, the effective rank
    seconds: float  # of its training
    wall_s: float  # of all its processes

    @property
    def epoch_s(self) -> float:
        """Seconds per epoch."""
        return self.seconds / self.config.epochs


class Advice(Shown):
    """The setting to run for long, with the evidence for it."""

    def __init__(self, tried: Sequence[TriedSetting], *, spec: str, preset: str, note: str) -> None:
        """Keeps the runs, rung by rung, the best of each first."""
        self.tried, self.spec, self.preset, self.note = tuple(tried), spec, preset, note

    @property
    def best(self) -> TriedSetting:
        """The setting that is advised, in its longest run."""
        return next(each for each in self.tried if each.rung == self.tried[-1].rung)

    @property
    def epochs(self) -> int:
        """The epochs of the long run: as many as reach the published N."""
        folds = self.best.folds / self.best.config.epochs
        return max(self.best.config.epochs, math.ceil(method.published_extent().folds / folds))

    @property
    def command(self) -> str:
        """The command of the long run."""
        base = knob_values(config_from_dict({}, preset=self.preset))
        own = knob_values(replace(self.best.config, epochs=self.epochs))
        keys = [key for key in own if own[key] != base[key] and key not in studies.HOW_NOT_WHAT]
        flags = (word for key in keys for word in (f"--{key}", _flag(own[key])))
        data = (word for spec in images.specs_of(self.spec) for word in ("--data", spec))
        preset = ("--preset", self.preset)
        return join(["stopgrad", "pretrain", *data, "--out", "runs/advised", *preset, *flags])

    @property
    def _caution(self) -> str:
        """A warning that the setting may have learned less, not better; empty without reason."""
        first = [each for each in self.tried if each.rung == 1]
        [own] = [each.retrieval for each in first if each.arm == self.best.arm]
        place = 1 + sum(each.retrieval > own for each in first)
        if 2 * place <= len(first) + 1:
            return ""
        return (
            f"Caution: by retrieval it came only number {place} of {len(first)} in the first rung. "
            "A network that has hardly begun to learn also has many directions and low retrieval, "
            "so try the setting with the highest retrieval too."
        )

    @property
    def tables(self) -> list[Table]:
        """A row per run, rung by rung, the best first."""
        columns = (Column("setting"), *(Column(head, "right") for head in HEADS))
        return [Table("tried", columns, tuple(map(_row, self.tried)), "short runs, one seed each")]

    @property
    def lines(self) -> list[str]:
        """The setting, why, what to expect, and the command."""
        best, long = self.best, duration(self.best.epoch_s * self.epochs)
        ranks = [number(t.rankme) for t in self.tried if t.arm == best.arm]
        return [
            f"Setting: {best.arm}, weight decay {best.config.optimizer.weight_decay:g}.",
            "Why: its features spread over the most directions (RankMe "
            f"{' -> '.join(ranks)} from rung to rung, on the same views for all). {TRUST}",
            *filter(None, [self._caution, self.note]),
            f"What to expect: after {best.config.epochs} epochs (N = {folds_text(best.folds)}) z "
            f"spans {number(best.directions)} directions, and for {100 * best.retrieval:.0f} % of "
            "the images the nearest neighbour of one view, among up to 1,000, is the other view. "
            "No label was read, so no accuracy is promised.",
            f"The long run reaches the published N of {folds_text(method.published_extent().folds)}"
            f" with {self.epochs} epochs, in about {long} at the pace of these runs:",
            self.command,
        ]


def _flag(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _row(tried: TriedSetting) -> tuple[TableCell, ...]:
    cells = (
        tried.arm,
        str(tried.rung),
        str(tried.config.epochs),
        folds_text(tried.folds),
        number(tried.rankme),
        f"{100 * tried.retrieval:.1f} %",
        number(tried.directions),
        duration(tried.seconds),
    )
    return tuple(map(TableCell, cells))


@in_plain_torch
def advise(
    data: AnyData,
    *,
    budget: str | float,
    out: str | Path,
    preset: str = "miniature",
    jobs: int | None = None,
    **knobs: Any,
) -> Advice:
    """Spends a budget of time on short runs and says what to run for long.

    Runs nine settings of learning rate, alpha_h and crop_min, the best three for longer and the
    best one for longest, all of a rung up to the same N; ranks by RankMe of the features.
    Also writes the advice to advice.md.

    Args:
        data: As for `check`.
        budget: Seconds, or a text such as "2h", "1h30m" or "90m".
        out: A study directory, which the same call resumes.
        preset: The setting around which others are tried.
        jobs: Runs at once; None: one per GPU, or two on a machine without.
        **knobs: As for `pretrain`; they change the preset.

    Raises:
        ConfigError: For a budget too small for two epochs of the settings, or a wrong knob, such as
            one that leaves no N (LARS, no weight decay).
        DataError: When there are too few images, or augmentation does not change them.
        FailedRunsError: When every run of a rung failed.
    """
    seconds, search = _seconds(budget), _search(data, user_path(out), preset, jobs, knobs)
    tried, note = list[TriedSetting](), ""
    for rung in range(1, len(studies.RUNGS) + 1):
        before = [each for each in tried if each.rung == rung - 1][: studies.RUNGS[rung - 1]]
        decay, said = _bounded_decay(search, before)
        left = seconds - sum(each.wall_s for each in tried) / search.slots
        source = _begun(search, rung) or _rung(search, rung, before, left=left, decay=decay)
        if source is None:
            break
        note = said or note
        begun, failed = conduct(
            source, search.choices, search.where, spec=search.spec, out=search.directory.path
        )
        if len(failed) == len(begun.plan.runs):
            raise failed_runs(begun, failed)
        tried += _ranked(begun, failed, rung=rung, images=len(search.images.train))
    found = Advice(tried, spec=search.spec, preset=preset, note=note)
    text = "\n\n".join(["# Advice", *map(report.as_markdown, found.tables), *found.lines])
    write_atomically(search.directory.path / PAGE, f"{text}\n".encode())
    return found


class _Search(NamedTuple):
    """What all rungs share."""

    config: Config  # around which settings are tried
    images: TrainingImages
    spec: str
    choices: Choices
    where: Where
    directory: StudyDirectory
    slots: int  # runs at once


def _search(
    data: AnyData, out: Path, preset: str, jobs: int | None, knobs: Mapping[str, Any]
) -> _Search:
    """Checks all that can be checked before anything starts."""
    overrides = as_data(data).reading_knobs | key_paths(knobs)
    where = studies.Where(jobs=jobs)
    if "epochs" in overrides:
        raise ConfigError(
            "--epochs beside --budget", expected="only --budget, which sets the epochs"
        )
    config, spec = config_from_dict(overrides, preset=preset), spec_of(data)
    studies.check_place(where)
    directory = studies.StudyDirectory(out)
    directory.check_ours()
    slots = studies.executor_for(where, directory, device=config.device).slots
    found = runs.prepare(as_data(data, config).stored_for(config, Screen()), config)
    if not method.extent(config, images=len(found.train)).folds > 0:
        raise ConfigError("a setting without N", expected="SGD with weight decay and momentum < 1")
    _check_views(found, config)
    choices = studies.Choices(preset, overrides, (0,))
    return _Search(config, found, spec, choices, where, directory, slots)


def _seconds(budget: str | float) -> float:
    """A budget in seconds; ConfigError if it is not a time."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", str(budget).strip())
    given = zip(parts.groups(default=0), UNITS, strict=True) if parts else ()
    try:
        seconds = sum(float(value) * unit for value, unit in given) or float(budget)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--budget {budget}", expected="a time such as 2h, 1h30m or 90m")
    return seconds


def _check_views(prepared: TrainingImages, config: Config) -> None:
    """Refuses images that augmentation does not change: SimSiam has nothing to learn from them."""
    import torch

    pixels = torch.from_numpy(prepared.train.pixels[:TRIED].copy()).permute(0, 3, 1, 2)
    one, other = method.two_views(
        pixels,
        torch_generator(0, "views before advice"),
        config=config.views,
        normalization=prepared.normalization,
    )
    if float((one - other).abs().max()) < CHANGED:
        raise DataError(
            f"augmentation does not change these images (both views of {len(pixels)} are equal)",
            expected="images and views.* that give two different views",
            hint="look at them with: stopgrad views --data SPEC --out views.png",
        )


def _begun(search: _Search, rung: int) -> StudyFile | None:
    """The study of a rung that was begun before; None without one."""
    name, directory = f"rung-{rung}", search.directory
    return directory.read(name).source if name in directory.names() else None


def _rung(
    search: _Search,
    rung: int,
    before: Sequence[TriedSetting],
    *,
    left: float,
    decay: float,
) -> StudyFile | None:
    """The next rung, of the best settings so far; None if no time is left for longer runs."""
    arms, kept = studies.arms_around(search.config), {each.arm for each in before}
    arms = {name: changes for name, changes in arms.items() if not before or name in kept}
    whole = 2 * math.ceil(method.published_extent().folds / _epoch_folds(search, decay) / 2)
    epochs = min(whole, _affordable(search, rung, before, arms=arms, left=left))
    if before:
        there = _epoch_folds(search, before[0].config.optimizer.weight_decay)
        if epochs * there < FURTHER * before[0].folds:
            return None
    own = None if decay == search.config.optimizer.weight_decay else decay
    return studies.rung_study(rung, arms, epochs=epochs, weight_decay=own)


def _affordable(
    search: _Search,
    rung: int,
    before: Sequence[TriedSetting],
    *,
    arms: Mapping[str, Mapping[str, Any]],
    left: float,
) -> int:
    """The epochs that a rung has time for; ConfigError if the first has no time for two."""
    slots, rungs = search.slots, len(studies.RUNGS)
    start_s = max((each.wall_s - each.seconds for each in before), default=studies.START_S)
    epoch_s = max((each.epoch_s for each in before), default=0.0) or _epoch_s(search)
    found = studies.affordable_epochs(
        left / (rungs - rung + 1), arms, epoch_s=epoch_s, start_s=start_s, slots=slots
    )
    if not before and found < 1:
        least = rungs * studies.least_time(arms, epoch_s=epoch_s, start_s=start_s, slots=slots)
        raise ConfigError(
            f"a budget of {duration(left)} is too small for two epochs of {len(arms)} settings",
            expected=f"at least {math.ceil(least / 60)}m on this machine as it is now",
            hint="raise --budget, or take fewer images or a smaller preset",
        )
    return found


def _epoch_folds(search: _Search, decay: float) -> float:
    """N per epoch at the preset's rate and this weight decay."""
    optimizer = replace(search.config.optimizer, weight_decay=decay)
    one = replace(search.config, epochs=1, optimizer=optimizer)
    return method.extent(one, images=len(search.images.train)).folds


def _epoch_s(search: _Search) -> float:
    """Seconds per epoch on each run's share of the cores."""
    threads = method.use_threads(max(1, method.use_threads(0) // search.slots))
    one = replace(search.config, epochs=1, threads=threads)
    return speed.estimate_cost(search.images, one).seconds


def _bounded_decay(search: _Search, before: Sequence[TriedSetting]) -> tuple[float, str]:
    """The next rung's weight decay, lowered if the best run lost directions, and a note on that.

    The number of directions of z is proportional to 1 / weight decay (docs/method.md), which gives
    the decay that keeps enough of them. If nothing has to change, it is the previous rung's.
    """
    decay = (before[0].config if before else search.config).optimizer.weight_decay
    if "optimizer.weight_decay" in search.choices.overrides or not before:
        return decay, ""
    alive, wanted = before[0].directions, method.DIMENSIONAL_RANK
    if alive >= wanted or before[0].steps < method.YOUNG_STEPS:
        return decay, ""
    bound = decay * alive / wanted
    return bound, (
        f"Weight decay was lowered from {decay:g} to {bound:.2g}, so that z keeps {wanted:g} "
        f"directions instead of {alive:.1f}: on CIFAR-10 their number was proportional to 1 / "
        "weight decay."
    )


def _ranked(
    prepared: PreparedStudy, failed: Mapping[str, str], *, rung: int, images: int
) -> list[TriedSetting]:
    """The finished runs of a rung, best first."""
    directory, plan = prepared.directory, prepared.plan
    slots = {directory.folder(s.run).run: s for s in plan.slots if s.run not in failed}
    found = []
    for row in compare([*slots], score=False).found.rows:
        slot, measures = slots[row.run.path], row.measures
        run, config = directory.run(slot.run), plan.runs[slot.run].config
        reach = method.extent(config, images=images)
        [rank] = [r.value for key, r in run.numbers.items() if key.metric == "effective_rank"]
        found.append(
            TriedSetting(
                rung=rung,
                arm=slot.arm,
                config=config,
                steps=reach.steps,
                folds=reach.folds,
                rankme=measures.rankme,
                retrieval=measures.retrieval,
                directions=rank,
                seconds=run.train_s or run.wall_s,
                wall_s=run.wall_s,
            )
        )
    return found
