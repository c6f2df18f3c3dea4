"""A run as an object: resumed, scored, used and shown.

In: the path of a run. Out: `Run`, whose results are on disk as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

from stopgrad import evaluation, export, images, method, report, runs, training
from stopgrad.config import BadImages, ExportFormat, Layer
from stopgrad.evaluation import FROZEN, MEASURES
from stopgrad.face.arguments import (
    LabelFractions,
    as_list,
    check_choices,
    fractions,
    in_plain_torch,
)
from stopgrad.face.data import AnyData, tell_notes
from stopgrad.face.opened import Each, OpenedRun, collect, findings_of, tell_condition, tell_state
from stopgrad.face.progress import Screen, TrainingBar, at_work, show_fractions
from stopgrad.face.report import Reported, write_report
from stopgrad.face.tables import Neighborhood, Scores, flat_epoch, knn_balance, newest_scores
from stopgrad.face.trackers import Mirror
from stopgrad.storage import printable, user_path

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from stopgrad.evaluation import Subject
    from stopgrad.export import Embedded, Exported
    from stopgrad.storage import Finding
    from stopgrad.training import Epoch

SCORED: tuple[Subject, ...] = ("encoder", "untrained", "pixels")


class Run(OpenedRun):
    """A pretraining in its directory."""

    def __repr__(self) -> str:
        status, info, verdict = runs.read_status(self.path), runs.read_run(self.path), self.verdict
        config, epoch = info.config, status.get("epoch", 0)
        knn = [row for row in self.metrics if row["knn"] is not None][-1:]
        found = self._records()
        parts = [
            str(status.get("state", "not begun")),
            f"epoch {epoch} of {config.epochs}",
            *(f"kNN {row['knn']:.2%}{knn_balance(row)}" for row in knn),
            *([evaluation.state_text(verdict.state, found, epoch=epoch)] if verdict else []),
            f"N = {evaluation.folds_text(info.extent(epoch * info.steps_per_epoch).folds)}",
            f"{len(found)} record{'' if len(found) == 1 else 's'}",
        ]
        return printable(f"<Run {str(self.path)!r}: {', '.join(parts)}>")

    def _repr_html_(self) -> str:
        """The state of the run, and its newest scores."""
        from markupsafe import escape

        return f"<p>{escape(repr(self))}</p>\n{newest_scores(self._records())._repr_html_()}"

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every record of the run as a row, oldest first."""
        return Scores(self._records()).rows

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row per epoch: loss, learning rates, kNN, verdict, and each measure as `z.NAME`."""
        rows = [row for row in runs.read_metrics(self.path) if row.get("kind") == "epoch"]
        return [flat_epoch(row) for row in rows]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """A row per step: loss and learning rates."""
        rows = runs.read_metrics(self.path)
        return [dict(row) for row in rows if row.get("kind") == "step"]

    @property
    def next_step(self) -> str:
        """What can be done with the run next, a command a line; labels decide which."""
        labelled = bool(runs.read_run(self.path).data.get("class_names"))
        return "\n".join(report.next_commands(self.path, labelled=labelled))

    @property
    def encoder(self) -> nn.Module:
        """The encoder at the newest checkpoint: x (B, 3, H, W), normalised -> features (B, F)."""
        return self.trained().model.encoder

    @at_work
    @in_plain_torch
    def evaluate(
        self,
        labels: LabelFractions = 1.0,
        *,
        data: AnyData | None = None,
        out: str | Path | None = None,
        split: str = "auto",
        of: Subject | Sequence[Subject] = SCORED,
        metrics: str | Sequence[str] = FROZEN,
        missing: bool = False,
        each: Each | None = None,
    ) -> Scores:
        """Scores the run by kNN and linear probes, along with baselines, and keeps the records.

        Args:
            labels: One or several fractions of the training labels.
            data: Where the images are now, or other images with labels, on which the encoder is
                scored as it is; None: the run's own, where they were.
            out: Where records go; None: into the run, or for other images into a folder of its
                `elsewhere/`.
            split: Images to score: `test`, `validation` (those that the run holds out, else the
                data's own), or a split as the data call it; auto: the first of test and
                validation with labels.
            of: What is scored, one or several.
            metrics: Accuracies, and measures of collapse of z, one or several.
            missing: Skip what is already recorded for this epoch and these images.
            each: Called with each record when it is on disk.

        Raises:
            ConfigError: For a split, a subject or a metric that does not exist.
            DataError: For images without labels, or other than those of the run.
            CheckpointError: When the run has no good checkpoint.
        """
        screen, labels = Screen(), fractions(labels)
        subjects, wanted = tuple(as_list(of, "of")), tuple(as_list(metrics, "metrics"))
        check_choices("of", subjects, SCORED)
        check_choices("metrics", wanted, (*FROZEN, *MEASURES))
        dataset = self.own_images(data, screen, split=split)
        folder = self._records_of(dataset, data, out)
        run, select = self.trained(screen), evaluation.Selection(split, subjects, wanted, missing)
        if "untrained" in subjects and self._weights_changed():
            screen.line(
                "untrained is left out: the encoder now has other weights than the run began with"
            )
            select = select._replace(of=tuple(of for of in subjects if of != "untrained"))
        if folder is not None:
            screen.line(f"records go to {folder}")
        found = evaluation.evaluate_run(
            run, dataset, labels=labels, select=select, out=folder, track=screen.track
        )
        return collect(found, each)

    @at_work
    @in_plain_torch
    def resume(
        self,
        /,
        *,
        data: AnyData | None = None,
        extend: int | None = None,
        log: str | Sequence[str] = (),
        on_epoch: Callable[[Epoch], object] | None = None,
        **changes: Any,
    ) -> Run:
        """Continues where the run stopped, bit for bit on the same kind of machine.

        Args:
            data: Where the images are now; None: where they were.
            extend: Epochs in all, more than the run had; the learning rates follow the new length.
            log: As for `pretrain`; what was logged before is not logged again.
            on_epoch: As for `pretrain`.
            **changes: Knobs that change no bit of training.

        Raises:
            ConfigError: For a change that is not allowed.
            DataError: For other images than the run's.
            StopgradError: As `pretrain`.
        """
        info = training.resumed_info(self.path, changes=changes)
        screen = Screen()
        mirror = Mirror(log, self.path, screen)
        with method.joined(info.config) as processes:
            # Before any image is touched: a run of somebody else is not to be trusted.
            found = training.check_resume(self.path, info, extend=extend, processes=processes)
            if found.finished:
                screen.line(f"{self.path} is finished; make it longer with --extend EPOCHS")
                return self
            if extend not in (None, self.config.epochs):
                screen.line(found.extension_text)
            source, config = self.source(data), found.info.config
            bar = TrainingBar(screen, self.path)
            dataset = method.one_by_one(
                processes, lambda: source.stored_for(config, screen, changed="warn")
            )
            epochs = training.continue_run(
                found, dataset, spec=source.spec, processes=processes, track=bar.track
            )
            bar.show(mirror.watch(epochs, dataset), on_epoch)
        return self

    @at_work
    @in_plain_torch
    def finetune(
        self,
        /,
        labels: LabelFractions = 1.0,
        *,
        data: AnyData | None = None,
        out: str | Path | None = None,
        each: Each | None = None,
        **changes: Any,
    ) -> Scores:
        """Trains the encoder further with labels, in a directory for each fraction.

        Args:
            labels: One or several fractions of the training labels.
            data: The run's own images, or others with an `out` of their own.
            out: Where networks and records go; None: into the run.
            each: Called with each record when it is on disk.
            **changes: Knobs of fine-tuning, `finetune={"epochs": 5}`.

        Raises:
            ConfigError: For a knob of the pretraining, which is over.
            DataError: For images without labels, or others than the run's without `out`.
            StopgradError: As `pretrain`.
        """
        screen, run, labels = Screen(), self._load(), fractions(labels)
        config = training.finetuning_config(run.info.config, changes)
        source, config, dataset = self.named_images(config, data, screen)
        tell_notes(dataset, screen)
        tell_state(run, screen)
        found = training.finetune_fractions(
            run,
            dataset,
            config,
            self.path if out is None else user_path(out),
            spec=source.spec,
            labels=labels,
            track=screen.track,
        )
        epochs = config.length("finetune").epochs
        return collect(show_fractions(found, screen, epochs=epochs), each)

    @overload
    def embed(
        self,
        data: AnyData | None = ...,
        *,
        out: None = ...,
        layer: Layer = ...,
        bad_images: BadImages | None = ...,
    ) -> npt.NDArray[np.float32]: ...

    @overload
    def embed(
        self,
        data: AnyData | None = ...,
        *,
        out: str | Path,
        layer: Layer = ...,
        bad_images: BadImages | None = ...,
    ) -> Embedded: ...

    @at_work
    @in_plain_torch
    def embed(
        self,
        data: AnyData | None = None,
        *,
        out: str | Path | None = None,
        layer: Layer = "features",
        bad_images: BadImages | None = None,
    ) -> npt.NDArray[np.float32] | Embedded:
        """The features of the images to train on, then of the split that is scored; of no other.

        Args:
            data: The images; None: the run's own.
            out: A .parquet, .csv or .npy file to write; None: the features are returned, (N, F).
            layer: The encoder's output, or the projector's.
            bad_images: What to do about damaged images; None: as the run did.

        Raises:
            ConfigError: For another kind of file.
            DataError: For images that cannot be read.
            DivergedError: For features that are not finite.
            StorageError: When the disk refuses.
        """
        if out is None:
            import numpy as np

            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "features.npy"
                self._embed(data, file, layer=layer, bad_images=bad_images)
                features: npt.NDArray[np.float32] = np.load(file)
                return features
        return self._embed(data, user_path(out), layer=layer, bad_images=bad_images)

    @at_work
    @in_plain_torch
    def neighbors(
        self,
        query: str | Path | Sequence[str | Path] | None = None,
        *,
        data: AnyData | None = None,
    ) -> Neighborhood:
        """The nearest training images of any image, and what kNN takes it for.

        Args:
            query: Image files; None: examples of the run's images, chosen by rule.
            data: Where the run's images are now; None: where they were.

        Raises:
            DataError: For images that cannot be read, or other than those of the run.
        """
        screen = Screen()
        dataset = self.own_images(data, screen)
        runs.check_same_data(runs.read_run(self.path), dataset)
        run = self.trained(screen)
        if query is None:
            return Neighborhood(report.neighbor_examples(run, dataset, track=screen.track))
        files = [query] if isinstance(query, (str, Path)) else query
        asked = images.load_image_files(
            [user_path(file) for file in files],
            like=dataset.train,
            reading=runs.reading_of(run.info.config, split="auto", like=run.info.data),
            notes=dataset.notes,
        )
        return Neighborhood(report.neighbors_of(run, dataset.train, asked, track=screen.track))

    @at_work
    @in_plain_torch
    def export(self, format: ExportFormat, out: str | Path, *, push: str | None = None) -> Exported:
        """Writes the encoder for another tool, under its name only once it agrees with our own.

        Args:
            format: torchvision, timm, safetensors, onnx or hub.
            out: A .safetensors or .onnx file, or a new folder for hub.
            push: OWNER/NAME on the Hub, to which the folder for hub is uploaded as well.

        Raises:
            ConfigError: For an encoder that the format cannot hold, or an `out` that does not fit.
            CheckpointError: When the tool would compute other features.
            DataError: When the Hub does not accept it.
        """
        check_choices("format", [format], get_args(ExportFormat))
        if push is not None:
            check_choices("format with --push", [format], ["hub"])
            export.check_repository(push)
        screen, run = Screen(), self._load()
        method.use_threads(run.info.config.threads)
        tell_condition(run, screen)
        screen.doing("exporting, and comparing the features")
        made = export.export_run(run, name=format, out=user_path(out))
        if push is not None:
            screen.line(f"uploading {made.out} to {push}")
            screen.line(f"it is at {export.push_folder(made.out, push)}")
        return made

    def report(
        self,
        out: str | Path | None = None,
        *,
        data: AnyData | None = None,
        poster: str | Path | None = None,
        figures: str | Path | None = None,
    ) -> Reported:
        """Writes a page about the run; see `write_report`."""
        return write_report([self], out=out, data=data, poster=poster, figures=figures)

    def verify(self) -> list[Finding]:
        """A finding for each file of the run: its name, whether it is whole, what is wrong."""
        return list(findings_of(self.path))

    def _embed(
        self, data: AnyData | None, out: Path, *, layer: Layer, bad_images: BadImages | None
    ) -> Embedded:
        export.check_out(out)  # before anything is read
        check_choices("layer", [layer], get_args(Layer))
        check_choices("bad_images", [bad_images or "fail"], get_args(BadImages))
        screen, run = Screen(), self._load()
        method.use_threads(run.info.config.threads)
        tell_condition(run, screen)
        config = replace(run.info.config, bad_images=bad_images or run.info.config.bad_images)
        _, _, dataset = self.named_images(config, data, screen)
        tell_notes(dataset, screen)
        return export.embed_dataset(run, dataset, out=out, layer=layer, track=screen.track)
