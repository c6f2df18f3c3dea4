"""What a reader of an encoder should know of its run: ablated, unfinished, collapsed, extended."""

from __future__ import annotations

from collections.abc import Iterator

from stopgrad.config import Config
from stopgrad.evaluation import newest_measures
from stopgrad.runs import TrainedRun, read_status

ABLATIONS = {
    "stop_gradient": "without the stop-gradient",
    "predictor.enabled": "without the predictor",
    "projector.output_bn": "without BN on the projector's output",
    "projector.hidden_bn": "without BN on the projector's hidden layers",
    "predictor.hidden_bn": "without BN on the predictor's hidden layer",
}


def run_condition(run: TrainedRun) -> list[str]:
    """A sentence for each thing that makes this encoder another than a finished, healthy one."""
    return [*_ablations(run.info.config), *_length(run), *_health(run)]


def verdict(run: TrainedRun) -> str | None:
    """The state of the representation when it was last measured, `healthy` for instance."""
    return (newest_measures(run).get("verdict") or {}).get("state")


def _ablations(config: Config) -> Iterator[str]:
    values = {
        "stop_gradient": config.stop_gradient,
        "predictor.enabled": config.predictor.enabled,
        "projector.output_bn": config.projector.output_bn,
        "projector.hidden_bn": config.projector.hidden_bn,
        "predictor.hidden_bn": config.predictor.hidden_bn,
    }
    for key, kept in values.items():
        if not kept:
            yield f"Ablation: trained {ABLATIONS[key]}."


def _length(run: TrainedRun) -> Iterator[str]:
    config = run.info.config
    if run.step < run.info.steps:
        state = read_status(run.path).get("state", "unknown")
        yield (
            f"Not finished: epoch {run.epoch} of {config.epochs}, step {run.step} of "
            f"{run.info.steps} (the run is {state})."
        )
    for change in run.info.extensions:
        yield f"Extended at step {change.step} from {change.old} to {change.new} epochs."


def _health(run: TrainedRun) -> Iterator[str]:
    found = newest_measures(run).get("verdict")
    if found is None:
        yield "Never measured for collapse."
    elif found["state"] != "healthy":
        yield f"At epoch {newest_measures(run)['epoch']}: {found['state']}; {found['reason']}."
