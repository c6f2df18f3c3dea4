"""The model card of a run: README.md with the front matter that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from stopgrad.evaluation import (
    ACCURACIES,
    METRICS,
    SUBJECTS,
    Record,
    count,
    labels_text,
    newest,
    percent,
    read,
)
from stopgrad.images import ON_THE_HUB
from stopgrad.report import Column, Table, TableCell, as_markdown
from stopgrad.runs import TrainedRun
from stopgrad.storage import printable

TAGS = ["self-supervised-learning", "simsiam", "image-feature-extraction"]


def model_card(run: TrainedRun, card: dict[str, Any], *, name: str) -> str:
    """README.md of a folder for the Hub.

    Args:
        run: The exported run.
        card: Its card, from `card.describe`.
        name: The model's name, that of its folder.
    """
    records = scores(run)
    own = [record for record in records if record.of == "encoder"]
    data = ModelCardData(
        library_name="stopgrad",
        pipeline_tag="image-feature-extraction",
        tags=TAGS,
        datasets=_on_the_hub(run),
        model_name=name,
        eval_results=[_result(record) for record in own] or None,
    )
    parts = [
        _opening(card, name),
        "## What to know\n\n" + "\n".join(f"- {_plain(line)}" for line in card["condition"]),
        "## Results\n\n" + _results(records, card),
        "## How to load it\n\n" + _loading(card),
        "## Preprocessing\n\n" + _preprocessing(card),
        "## Training\n\n" + _training(card),
        "## Limits\n\n" + _limits(card),
    ]
    return f"---\n{data.to_yaml().strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def scores(run: TrainedRun) -> list[Record]:
    """The newest accuracies of the exported checkpoint, and those of the baselines."""
    path = run.path / "records.jsonl"
    found = newest(read(path)).values() if path.exists() else []
    of_run = (r for r in found if r.metric in ACCURACIES)
    return [r for r in of_run if r.of != "encoder" or r.epoch == run.epoch]


def _on_the_hub(run: TrainedRun) -> list[str] | None:
    """The data set's name on the Hub, if it came from there."""
    spec = str(run.info.data["spec"])
    if spec in ON_THE_HUB:
        return [ON_THE_HUB[spec]]
    if spec.startswith("hf:"):
        return ["/".join(spec.removeprefix("hf:").split("/")[:2])]
    return None


def _result(record: Record) -> EvalResult:
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


def _opening(card: dict[str, Any], name: str) -> str:
    encoder, data = card["encoder"], card["data"]
    init = card["training"]["init"]
    start = f", started from {_plain(init['from'])}" if init else ""
    return (
        f"# {_plain(name)}\n\n"
        f"An encoder ({encoder['name']}, {encoder['stem']} stem, width {encoder['width']:g}) "
        f"pretrained without labels by SimSiam (Chen & He, CVPR 2021) on {count(data['images'])} "
        f"images of {_plain(data['name'])}{start}. It turns images (B, 3, H, W) into features "
        f"(B, {card['features']})."
    )


def _results(records: Sequence[Record], card: dict[str, Any]) -> str:
    if not any(record.of == "encoder" for record in records):
        return "None: `stopgrad evaluate` has not been run on this checkpoint."
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
    table = Table("results", tuple(map(Column, heads)), tuple(rows))
    return f"{as_markdown(table)}\n\nOne run, at epoch {card['training']['epoch']}, one seed."


def _loading(card: dict[str, Any]) -> str:
    code = "\n".join(card["load"])  # ends with the path
    return (
        f"```python\n{code}  # a folder, or OWNER/NAME of the Hub\n"
        "features = model.embed(pixels)  # (B, H, W, 3) uint8 -> (B, F); normalises them\n"
        "```\n\n"
        "`model.safetensors` holds only the encoder. Its parameters have the names of "
        "torchvision's and timm's ResNets, where those libraries have the network."
    )


def _preprocessing(card: dict[str, Any]) -> str:
    how = card["preprocessing"]
    mean, std = ([f"{value:.6g}" for value in how[key]] for key in ("mean", "std"))
    return (
        f"- {how['input']}; mean {', '.join(mean)}, std {', '.join(std)} (`config.json` has all "
        f"digits)\n- {how['resize']}\n- trained on views of {how['view_size']} px\n"
        f"- BN: {card['batch_norm']}"
    )


def _training(card: dict[str, Any]) -> str:
    config, training = card["config"], card["training"]
    optimizer, versions = config["optimizer"], card["versions"]
    packages = ", ".join(f"{key} {value}" for key, value in versions.items())
    return (
        f"- {training['epoch']} of {training['epochs']} epochs ({training['step']} steps of "
        f"{config['batch']} images), {optimizer['algorithm'].upper()}, base lr "
        f"{optimizer['base_lr']:g} per 256 images, weight decay {optimizer['weight_decay']:g}, "
        f"seed {config['seed']}, {config['precision']}\n"
        f"- verdict on the representation: {training['verdict'] or 'not measured'}\n"
        f"- pixels of the images: sha256 {card['data']['fingerprint']}\n"
        f"- weights: sha256 {card['weights_sha256']} (over names, types, shapes and bytes)\n"
        f"- {packages}\n\nAll settings are in `card.json`."
    )


def _limits(card: dict[str, Any]) -> str:
    return (
        f"The encoder has seen only {_plain(card['data']['name'])}, and its features inherit any "
        "bias of those images. It is not a classifier: train and test one on your own labels "
        "before you rely on it. Check the licence of the images before you use the weights; "
        "this card does not state it."
    )


def _plain(text: str) -> str:
    """Untrusted text with the characters escaped that mean something in Markdown or HTML."""
    kept = printable(" ".join(str(text).split()))
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in kept)
