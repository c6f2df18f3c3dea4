"""The JSON card of an export: what the weights are, where they came from, how to use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stopgrad.config import Config, config_to_dict
from stopgrad.evaluation import newest_measures
from stopgrad.images import GRAY
from stopgrad.method import size_problem
from stopgrad.runs import TrainedRun, code_version, read_status, tensors_sha256, versions

FORMAT = 1
KIND = "stopgrad encoder"


def describe(run: TrainedRun) -> dict[str, Any]:
    """What a card says about a run in every format. It holds no path of this machine."""
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
    """How to turn an image into the encoder's input."""
    config, normalization = run.info.config, run.info.normalization
    side, view = config.image_side, config.views.size
    resize = (
        f"images that all have one size of at most {side} px keep it; others are cropped to the "
        f"largest centred square and resized to {side} x {side} px (bicubic, antialiased)"
    )
    if size_problem(run.model.encoder, (side, side)):
        resize += f", then to {view} x {view} px, the only size that the backbone takes"
    gray = " + ".join(f"{weight:.4f} {name}" for weight, name in zip(GRAY, "RGB", strict=True))
    channels = "channels R, G, B" if config.encoder.channels == 3 else f"gray ({gray})"
    return {
        "input": f"float32, N x {config.encoder.channels} x H x W, {channels}, "
        "(pixels / 255 - mean) / std",
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "side": side,
        "resize": resize,
        "view_size": view,
    }


def batch_norm(config: Config) -> str:
    """How to use the encoder's BN, and how it learned its statistics."""
    source = "each view" if config.batch_norm == "per-view" else "both views together"
    return (
        "use it in eval mode, with the running statistics; training updated them with the "
        f"statistics of {source}, {config.batch} images a step"
    )


def _start(init: dict[str, str] | None) -> dict[str, str] | None:
    """What the encoder started from, without the folders of a path."""
    if init is None:
        return None
    source = init["from"]
    name = source if source.startswith("timm:") else source.rpartition("/")[2]
    return {"from": name, "sha256": init["sha256"]}


def run_condition(run: TrainedRun) -> list[str]:
    """A sentence for each way in which the run is not a finished, healthy one."""
    return [*_ablations(run.info.config), *_length(run), *_health(run)]


def verdict(run: TrainedRun) -> str | None:
    """The newest verdict on the representation, such as `healthy`."""
    return (newest_measures(run).get("verdict") or {}).get("state")


def _ablations(config: Config) -> list[str]:
    kept = {
        "the stop-gradient": config.stop_gradient,
        "the predictor": config.predictor.enabled,
        "BN on the projector's output": config.projector.output_bn,
        "BN on the projector's hidden layers": config.projector.hidden_bn,
        "BN on the predictor's hidden layer": config.predictor.hidden_bn,
    }
    return [f"Ablation: trained without {part}." for part, there in kept.items() if not there]


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
