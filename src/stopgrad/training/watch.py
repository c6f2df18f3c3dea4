"""What is measured when an epoch ends: measures of collapse, and kNN if there are labels.

Measuring changes nothing: it draws from no generator of the training, and BN statistics stay.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import torch_generator
from stopgrad.evaluation import MEASURED, Balance, Score, clean_z, embed, in_parts, weighted_knn
from stopgrad.images import Images, Track, no_progress
from stopgrad.method import (
    Clean,
    Layers,
    SimSiam,
    Spectra,
    Verdict,
    Views,
    by_one,
    judge,
    measure,
    spectra,
    two_views,
)
from stopgrad.runs import TrainingImages
from stopgrad.training.learner import Learner

MEASURED_BATCH = 256
MOMENTS = 16  # how often the spectra are taken


class Looks(NamedTuple):
    """The measurements at the end of an epoch; None for one that was not due."""

    layers: Layers | None
    verdict: Verdict | None
    knn: float | None  # accuracy
    spectra: Spectra | None
    measured: int = 0  # images whose views the layers and spectra are of
    clean: Clean | None = None  # after the last epoch
    balance: Balance = Balance()  # of kNN, where classes are uneven


def look(
    training: Learner[SimSiam, Views], images: TrainingImages, *, track: Track = no_progress
) -> Looks:
    """Measures the epoch whose steps are done but which does not count as finished yet.

    It does so as often as the config asks; a network that has diverged is not scored. `track`
    wraps the batches of each measurement.
    """
    config, number, last = training.config, training.epoch + 1, training.config.epochs
    measured, scored = (
        every > 0 and (number % every == 0 or number == last)
        for every in (config.measure_every, config.knn_every)
    )
    # The spectra are taken when a sixteenth of the epochs has passed since the last measurement.
    passed, before = number * MOMENTS // last, (number - config.measure_every) * MOMENTS // last
    drawn = measured and passed > before
    layers = measure_layers(training, track=track) if measured else None
    count = _count(training)
    verdict = None if layers is None else judge(layers, steps=training.step, images=count)
    if training.processes is not None:  # all act on the verdict of the first
        first = training.processes.tell(verdict)
        verdict = first and Verdict(*first)
    diverged = verdict is not None and verdict.state == "diverged"
    score = watched_knn(training, images, track=track) if scored and not diverged else None
    knn, balance = (score.accuracy, score.balance) if score else (None, Balance())
    drawn_spectra = measure_spectra(training, track=track) if drawn and not diverged else None
    ended = measured and number == last and not diverged
    clean = measure_clean(training, images.train, track=track) if ended else None
    return Looks(layers, verdict, knn, drawn_spectra, count * measured, clean, balance)


def measure_layers(
    training: Learner[SimSiam, Views], *, track: Track = no_progress
) -> Layers | None:
    """Measures of features, projector output before its BN and z, on fixed views, in eval mode."""
    outputs = watched_outputs(training, track=track)
    return by_one(training.processes, lambda: Layers(*[measure(z[0], z[1]) for z in outputs]))


def watched_outputs(
    training: Learner[SimSiam, Views], *, track: Track = no_progress
) -> list[Tensor]:
    """Features, projector output before its BN and z of two fixed views, each (2, N, width)."""
    model = training.model.eval()
    try:
        with torch.inference_mode():
            rows = in_parts(
                lambda start: _outputs(training, start),
                _count(training),
                MEASURED_BATCH,
                processes=training.processes,
                track=track,
                shown_as="measure",
            )
    finally:
        model.train()
    widths = model.encoder.feature_width, *[training.config.projector.out] * 2
    layers = torch.split(torch.cat(rows), [2 * width for width in widths], dim=1)
    return [layer.view(len(layer), 2, -1).transpose(0, 1).contiguous() for layer in layers]


def measure_spectra(
    training: Learner[SimSiam, Views], *, track: Track = no_progress
) -> Spectra | None:
    """Spectra of z and of the predictor on the same views, in eval mode."""
    z, z2 = watched_outputs(training, track=track)[2]  # (N, D) each
    predictor = training.model.predictor.eval()
    try:
        with torch.inference_mode():
            return by_one(training.processes, lambda: spectra(z, predictor(z), z2))
    finally:
        predictor.train()


def measure_clean(
    training: Learner[SimSiam, Views], images: Images, *, track: Track = no_progress
) -> Clean | None:
    """The measures of z on many training images without augmentation, in eval mode."""
    z = clean_z(
        training.model,
        images,
        seed=training.config.seed,
        normalization=training.normalization,
        compute=training.compute,
        processes=training.processes,
        track=track,
    )
    return by_one(training.processes, lambda: Clean(len(z), measure(z)))


def watched_knn(
    training: Learner[SimSiam, Views], images: TrainingImages, *, track: Track = no_progress
) -> Score | None:
    """kNN of the watched images against the training images; None without labels."""
    if images.bank is None or images.watch is None:
        return None
    bank, queries = (
        embed(
            training.model.encoder,
            part,
            normalization=training.normalization,
            compute=training.compute,
            processes=training.processes,
            track=track,
        )
        for part in (images.bank, images.watch)
    )
    return by_one(training.processes, lambda: weighted_knn(bank, queries, training.config.knn))


def _count(training: Learner[SimSiam, Views]) -> int:
    return min(MEASURED, len(training.pixels))


def _outputs(training: Learner[SimSiam, Views], start: int) -> Tensor:  # (B, 2 * widths)
    """Features, projector output before its BN and z of two views, a row for each image."""
    config, compute, model = training.config, training.compute, training.model
    drawing = torch_generator(config.seed, "measured")
    order = torch.randperm(len(training.pixels), generator=drawing)[: _count(training)]
    views = two_views(
        compute.fetch(training.pixels, order[start : start + MEASURED_BATCH]),
        torch_generator(config.seed, "measured views", start, device=compute.device),
        config=config.views,
        normalization=training.normalization,
    )
    with compute.autocast():
        features = torch.stack([model.encoder(compute.arrange(x)).float() for x in views])
    before_bn = torch.stack([model.projector.before_bn(x) for x in features])
    z = torch.stack([model.projector.output_bn(x) for x in before_bn])
    return torch.cat([x.transpose(0, 1).flatten(1) for x in (features, before_bn, z)], dim=1)
