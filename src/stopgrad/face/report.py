"""A page, a poster and figures of runs and studies; images with two views of each.

In: paths, or images. Out: the files written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad import images, report, runs, studies
from stopgrad.errors import ConfigError
from stopgrad.face.arguments import as_list, chosen_config, in_plain_torch
from stopgrad.face.data import AnyData, as_data
from stopgrad.face.opened import OpenedRun
from stopgrad.face.progress import Screen, at_work
from stopgrad.storage import check_ending, make_folder, printable, user_path, write_atomically

if TYPE_CHECKING:
    from stopgrad.config import Config
    from stopgrad.report import Evidence, Heading, StudyEvidence


FIGURES = (".svg", ".png", ".pdf", ".html")  # endings of a file where a folder is expected


class Reported(NamedTuple):
    """The files of a report."""

    page: Path
    poster: Path | None
    figures: tuple[Path, ...]


@at_work
@in_plain_torch
def write_report(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | Path | None = None,
    data: AnyData | None = None,
    arm: str | None = None,
    poster: str | Path | None = None,
    heading: Heading | None = None,
    figures: str | Path | None = None,
) -> Reported:
    """Writes a page about runs and studies, and if asked for a poster and each figure as a file.

    Args:
        paths: One or several runs, or directories of studies.
        out: The page; None: report.html in the one directory, or here for several.
        data: Where a run's images are now; None: where they were.
        arm: For a study, the arm of which one run is shown with images; "": the arm that was
            chosen, or the baseline; None: no images.
        poster: A PDF file to write.
        heading: The text above the poster, and its size; None: the question, on A1.
        figures: A folder to write.

    Raises:
        ConfigError: For a path that is no directory, an arm without weights, or a file whose name
            promises another format.
        StopgradError: For runs, studies or images that cannot be read.
    """
    page, pdf, folder = (user_path(path) if path else None for path in (out, poster, figures))
    if page:
        check_ending(page, ".html", else_by="a PDF is written by --poster")
    if pdf:
        check_ending(pdf, ".pdf", option="--poster")
    if folder and folder.suffix.lower() in FIGURES:
        raise ConfigError(f"--figures {figures}", expected="a folder, as each figure is a file")
    given, screen = as_list(paths, "run or directory of studies"), Screen()
    chapters = [
        chapter for path in given for chapter in _chapters(path, screen, data=data, arm=arm)
    ]
    page = page or user_path(given[0] if len(given) == 1 else "") / "report.html"
    screen.doing("writing")
    return Reported(
        report.write_page(chapters, out=page),
        report.write_poster(chapters, out=pdf, heading=heading or report.Heading())
        if pdf
        else None,
        tuple(report.write_figures(chapters, folder=folder)) if folder else (),
    )


def _chapters(
    given: str | os.PathLike[str], screen: Screen, *, data: AnyData | None, arm: str | None
) -> list[Evidence | StudyEvidence]:
    """A run, with images, or every study of a directory."""
    if isinstance(given, OpenedRun):
        return [_evidence(given, screen, data=data)]
    path = user_path(given)
    if (path / "studies").is_dir() and not (path / "config.json").exists():
        found = report.read_studies(path)
        if arm is None:
            return list(found)
        return [_with_images(study, screen, data=data, arm=arm) for study in found]
    if not path.is_dir():
        raise ConfigError(
            f"{path} is not a directory{runs.mistaken(path).what}",
            expected="a run, or a directory of studies",
            hint="check the path",
        )
    return [_evidence(OpenedRun(path, data=data), screen)]


def _evidence(run: OpenedRun, screen: Screen, *, data: AnyData | None = None) -> Evidence:
    """A run with its images; neighbours have votes only if there are labels."""
    dataset, trained = run.own_images(data, screen), run.trained()
    runs.check_same_data(trained.info, dataset)
    exploration = report.explore(trained, dataset, track=screen.track)
    mean_std = trained.info.normalization
    panel = report.view_examples(dataset.train, run.config, normalization=mean_std, count=12)
    return report.read_evidence(run.path, views=panel, exploration=exploration)


def _with_images(
    study: StudyEvidence, screen: Screen, *, data: AnyData | None, arm: str
) -> StudyEvidence:
    """A study with the images of one run: of the named arm, else the chosen one or the baseline."""
    stored = study.results.stored
    arm = arm or stored.selected or stored.study.baseline
    folder = studies.StudyDirectory(Path(study.path)).folder
    slots = [slot for slot in stored.slots if slot.arm == arm]
    for slot in slots:
        path = folder(slot.run).run
        if any((path / "checkpoints").glob("*/model.safetensors")):
            run = OpenedRun(path, data=data if data is not None else stored.data.spec)
            shown = report.ShownRun(_evidence(run, screen), printable(arm), slot.seed)
            return study._replace(shown=shown)
    names = ", ".join(each.name for each in stored.study.arms)
    raise ConfigError(
        f"--pictures {arm}" + (": none of its runs has weights" if slots else ": no such arm"),
        expected=f"an arm of {stored.study.name} with weights, one of {names}",
        hint="name another arm, or leave --pictures out",
    )


@at_work
@in_plain_torch
def views(
    data: AnyData,
    *,
    out: str | Path,
    count: int = 12,
    preset: str = "cifar",
    config: Config | None = None,
    **knobs: Any,
) -> Path:
    """Draws some images with two views of each into a PNG file.

    Args:
        data: As for `load`.
        out: The file.
        count: How many images.
        preset: As for `pretrain`.
        config: As for `pretrain`.
        **knobs: As for `pretrain`.

    Raises:
        ConfigError: For a count below 1, or a knob that is wrong.
        DataError: For images that cannot be read.
    """
    config, screen, out = chosen_config(config, knobs, preset=preset), Screen(), user_path(out)
    check_ending(out, ".png")
    if count < 1:
        raise ConfigError(f"--count {count}", expected="at least 1")
    train = as_data(data, config).stored_for(config, screen).train
    mean_std = images.normalization(train, channels=config.encoder.channels)
    if how := report.how_shown(train.channels):
        screen.line(how.rstrip("."))
    panel = report.view_examples(train, config, normalization=mean_std, count=count)
    make_folder(out.absolute().parent)
    write_atomically(out, report.figure_as_png(report.view_grid(panel)))
    return out
