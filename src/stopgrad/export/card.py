"""The card of an export: what the weights are, where they came from, how to use them; JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stopgrad.config import Config, config_to_dict
from stopgrad.evaluation import newest_measures
from stopgrad.method import size_problem
from stopgrad.runs import TrainedRun, code_version, read_status, tensors_sha256, versions

FORMAT = 1
KIND = "stopgrad encoder"


def describe(run: TrainedRun) -> dict[str, Any]:
    """All that an export says of a run, whatever its format. No path of this machine is in it."""
    config, data = run.info.config, run.info.data
    tensors = run.model.encoder.state_dict()
    return {
        "kind": KIND,
        "card_format": FORMAT,
        "condition": run_condition(run) or ["A finished run without signs of collapse."],
        "encoder": config_to_dict(config)["encoder"],
        "features": run.model.encoder.feature_width,
        "weights_sha256": tensors_sha256(tensors),
        "preprocessing": preprocessing(run),
        "batch_norm": batch_norm(config),
        "training": {
            "method": "SimSiam",
            "epoch": run.epoch,
            "epochs": config.epochs,
            "step": run.step,
            "status": read_status(run.path).get("state"),
            "verdict": verdict(run),
            "init": _start(data.get("init")),
            "changes": [change._asdict() for change in run.info.changes],
        },
        "data": {key: data[key] for key in ("name", "fingerprint", "images")},
        "config": config_to_dict(config),
        "versions": {**versions(), "stopgrad": code_version()},
    }


def preprocessing(run: TrainedRun) -> dict[str, Any]:
    """How a picture becomes what the encoder takes, in words and numbers."""
    config, normalization = run.info.config, run.info.normalization
    side, view = config.image_side, config.views.size
    resize = (
        f"pictures that all have one size of at most {side} px keep it; others are cut "
        f"to the largest centred square and brought to {side} x {side} px (bicubic, antialiased)"
    )
    if size_problem(run.model.encoder, (side, side)):
        resize += f", then to {view} x {view} px, as the backbone takes no other"
    return {
        "input": "float32, N x 3 x H x W, channels R, G, B, (pixels / 255 - mean) / std",
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "side": side,
        "resize": resize,
        "view_size": view,
    }


def batch_norm(config: Config) -> str:
    """How the encoder's BN learned its statistics, and what it does with them."""
    each = "each view's own" if config.batch_norm == "per-view" else "both views'"
    return (
        f"use it in eval mode, with the running statistics; in training they followed {each} "
        f"batch statistics, of {config.batch} images a step"
    )


def _start(init: dict[str, str] | None) -> dict[str, str] | None:
    """What the encoder started from; of a path its name alone."""
    if init is None:
        return None
    source = init["from"]
    name = source if source.startswith("timm:") else source.rpartition("/")[2]
    return {"from": name, "sha256": init["sha256"]}


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
