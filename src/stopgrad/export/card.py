"""The cards of an export: what the weights are, where they came from, how to use them.

A JSON card stands beside every export; README.md, a model card with the front matter that the
Hugging Face Hub reads, stands in a folder for the Hub. Its text is in model_card.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.config import OWN, TIMM, Config, config_to_dict
from stopgrad.evaluation import (
    ACCURACIES,
    METRICS,
    SUBJECTS,
    Record,
    count,
    extent_text,
    extent_values,
    folds_text,
    labels_text,
    newest,
    newest_measures,
    percent,
    records_of,
    state_text,
)
from stopgrad.images import GRAY, ON_THE_HUB, specs_of
from stopgrad.method import published_extent, size_problem
from stopgrad.report import Column, Table, TableCell, as_markdown
from stopgrad.runs import (
    RunInfo,
    TrainedRun,
    code_version,
    read_status,
    side_of,
    tensors_sha256,
    versions,
)
from stopgrad.storage import printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult
    from jinja2 import Template

FORMAT = 1
KIND = "stopgrad encoder"
TAGS = ["self-supervised-learning", "simsiam", "image-feature-extraction"]


def describe(run: TrainedRun) -> dict[str, Any]:
    """The part of a card about the run, for every format. It holds no path of this machine."""
    config, data = run.info.config, run.info.data
    encoder = run.model.encoder
    source = "each view" if config.batch_norm == "per-view" else "both views together"
    return {
        "kind": KIND,
        "card_format": FORMAT,
        "condition": [
            *(run_condition(run) or ["A finished run without signs of collapse."]),
            *_given_in_python(run.info),
        ],
        "encoder": config_to_dict(config)["encoder"],
        "features": encoder.feature_width,
        "weights_sha256": tensors_sha256(encoder.state_dict()),
        "preprocessing": _preprocessing(run),
        "batch_norm": (
            "use it in eval mode, with the running statistics; training updated them with the "
            f"statistics of {source}, {config.batch} images a step"
        ),
        "training": _training(run),
        "data": {key: data[key] for key in ("name", "fingerprint", "images")},
        "config": config_to_dict(config),
        "versions": {**versions(), "stopgrad": code_version()},
    }


def _training(run: TrainedRun) -> dict[str, Any]:
    """How far the run came, and what it started from."""
    return {
        "method": "SimSiam",
        "epoch": run.epoch,
        "epochs": run.info.config.epochs,
        "step": run.step,
        "extent": extent_values(run.info.extent(run.step)),
        "status": read_status(run.path).get("state"),
        "verdict": _state(run),
        "init": _start(run.info.data.get("init")),
        "changes": [change._asdict() for change in run.info.changes],
    }


def _preprocessing(run: TrainedRun) -> dict[str, Any]:
    """How to turn an image into the encoder's input."""
    config, normalization = run.info.config, run.info.normalization
    side, view = side_of(config, like=run.info.data), config.views.size
    size = run.info.data.get("size")
    fit = (
        f"cropped to the largest centred square and resized to {side} x {side} px (bicubic, "
        "antialiased)"
    )
    resize = f"images are {fit}"
    if size is None or size[0] != size[1]:
        resize = f"images that all have one size of at most {side} px keep it; others are {fit}"
    if size_problem(run.model.encoder, (side, side)):
        resize += f", then to {view} x {view} px, the only size that the backbone takes"
    gray = " + ".join(f"{weight:.4f} {name}" for weight, name in zip(GRAY, "RGB", strict=True))
    known = {1: f"gray ({gray})", 3: "channels R, G, B"}
    bands = "the bands of the data" if config.bands == "auto" else f"bands {config.bands}"
    channels = known.get(config.encoder.channels, bands)
    return {
        "input": f"float32, N x {config.encoder.channels} x H x W, {channels}, "
        "(pixels / 255 - mean) / std",
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "side": side,
        "resize": resize,
        "view_size": view,
    }


def _start(init: dict[str, str] | None) -> dict[str, str] | None:
    """What the encoder started from, without the folders of a path."""
    if init is None:
        return None
    source = init["from"]
    name = source if source.startswith(TIMM) else source.rpartition("/")[2]
    return {"from": name, "sha256": init["sha256"]}


def run_condition(run: TrainedRun) -> list[str]:
    """A sentence for each way in which the run is not a finished, healthy one."""
    return [*_ablations(run.info.config), *_length(run), *_health(run)]


def _given_in_python(info: RunInfo) -> list[str]:
    """A sentence that names the parts given in Python, which no config can rebuild."""
    encoder, config = info.config.encoder.name, info.config
    parts = [
        *([f"the encoder {encoder.removeprefix(OWN)}"] if encoder.startswith(OWN) else []),
        *([f"the views {config.views.own.removeprefix(OWN)}"] if config.views.own else []),
        *(["the images"] if info.data["spec"].startswith("arrays:") else []),
    ]
    if not parts:
        return []
    return [f"The config alone cannot rebuild it; these were given in Python: {', '.join(parts)}."]


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
    if run.step < run.info.steps:
        state = read_status(run.path).get("state", "unknown")
        yield (
            f"Not finished: epoch {run.epoch} of {run.info.config.epochs}, step {run.step} of "
            f"{run.info.steps} (the run is {state})."
        )
    for change in run.info.extensions:
        yield f"Extended at step {change.step} from {change.old} to {change.new} epochs."


def _health(run: TrainedRun) -> Iterator[str]:
    measures = newest_measures(run)
    found = measures.get("verdict")
    if found is None:
        yield "Never measured for collapse."
    elif (state := _state(run)) != "healthy":
        yield f"At epoch {measures['epoch']}: {state}; {found['reason']}."


def _state(run: TrainedRun) -> str | None:
    """The newest verdict, refined by the records where they tell more; None before any."""
    verdict, records = newest_measures(run).get("verdict"), records_of(run.path)
    return state_text(verdict["state"], records, epoch=run.epoch) if verdict else None


def model_card(run: TrainedRun, card: dict[str, Any], *, name: str) -> str:
    """README.md of a folder for the Hub, from the exported run and its card."""
    from huggingface_hub import ModelCardData
    from markupsafe import Markup

    records = _scores(run)
    own = [record for record in records if record.of == "encoder"]
    data = ModelCardData(
        library_name="stopgrad",
        pipeline_tag="image-feature-extraction",
        tags=TAGS,
        datasets=_on_the_hub(run),
        model_name=name,
        eval_results=[_result(record) for record in own] or None,
    )
    return _template().render(
        card,
        front=Markup(data.to_yaml().strip()),
        name=name,
        precision=run.info.environment.get("precision", run.info.config.precision),
        results=Markup(_results(records)) if own else None,
        extent=extent_text(run.info.extent(run.step)),
        published=folds_text(published_extent().folds),
    )


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("stopgrad.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    escaped = {"plain": lambda text: Markup(_plain(text))}  # for Markdown
    environment.filters |= {**escaped, "count": count, "digits": _digits}
    return environment.get_template("model_card.md")


def _scores(run: TrainedRun) -> list[Record]:
    """The newest accuracies of the exported checkpoint, and those of the baselines."""
    found = newest(records_of(run.path))
    of_run = (r for r in found.values() if r.metric in ACCURACIES)
    return [r for r in of_run if r.of != "encoder" or r.epoch == run.epoch]


def _on_the_hub(run: TrainedRun) -> list[str] | None:
    """The Hub names of the data sets that came from there; None without any."""
    names = [
        ON_THE_HUB.get(spec) or "/".join(spec.removeprefix("hf:").split("/")[:2])
        for spec in specs_of(run.info.data["spec"])
        if spec in ON_THE_HUB or spec.startswith("hf:")
    ]
    return names or None


def _result(record: Record) -> EvalResult:
    from huggingface_hub import EvalResult

    name = record.data["name"]
    return EvalResult(
        task_type="image-classification",
        dataset_type=ON_THE_HUB.get(name, name),
        dataset_name=name,
        dataset_split=record.split,
        metric_type="accuracy",
        metric_name=f"{METRICS[record.metric]}, {labels_text(record.labels)}",
        metric_value=round(record.value, 6),
    )


def _results(records: Sequence[Record]) -> str:
    """The accuracies as a table: a row per metric and label fraction, a column per subject."""
    subjects = [of for of in SUBJECTS if of in {record.of for record in records}]
    found = {(r.labels, r.metric, r.split, r.of): r for r in records}
    rows = []
    for labels, metric, split in dict.fromkeys(key[:3] for key in found):
        scores = [found.get((labels, metric, split, of)) for of in subjects]
        images = next(score.images_scored for score in scores if score is not None)
        named = METRICS[metric], f"{100 * labels:g} %", f"{count(images)} {split}"
        values = ["" if s is None else percent(s.value, images=images) for s in scores]
        rows.append(tuple(map(TableCell, (*named, *values))))
    heads = ("top-1 accuracy", "labels", "images", *(SUBJECTS[of] for of in subjects))
    return as_markdown(Table("results", tuple(map(Column, heads)), tuple(rows)))


def _digits(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _plain(text: str) -> str:
    """Untrusted text, with every character escaped that has a meaning in Markdown or HTML."""
    kept = printable(" ".join(str(text).split()))
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in kept)
