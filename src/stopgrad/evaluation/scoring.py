"""A score -> a record, with what every record says of its run, its data and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stopgrad.config import config_to_dict
from stopgrad.evaluation.costs import energy, read_costs
from stopgrad.evaluation.features import Score
from stopgrad.evaluation.records import Record
from stopgrad.method import compute_for
from stopgrad.runs import RunInfo, environment


def scored(info: RunInfo, score: Score, **values: Any) -> Record:
    """A score with what every record says of its run, its data and the machine."""
    return labelled_record(
        info,
        value=score.accuracy,
        top5=score.top5,
        per_class=tuple(score.per_class.tolist()),
        images_scored=score.images_scored,
        protocol=score.protocol,
        **values,
    )


def labelled_record(info: RunInfo, *, name: str, labels: float = 1.0, **values: Any) -> Record:
    """A number with what every record says of its run, its data and the machine."""
    config = info.config
    device = str(compute_for(config).device)
    return Record(
        labels=labels,
        label_draw=config.seed if labels < 1 else None,
        config=config_to_dict(config),
        seed=config.seed,
        data={"name": name, "fingerprint": info.data["fingerprint"]},
        init=info.data.get("init") if values["of"] == "encoder" else None,
        **environment(device=device, threads=torch.get_num_threads())._asdict(),
        **values,
    )


def cost_of(run: Path) -> dict[str, Any]:
    """Wall time and energy of a pretraining as a record holds them; none where none is known."""
    costs = read_costs(run)
    if costs is None:
        return {}
    return {"train_s": costs.wall_s, "energy": energy(costs)._asdict()}
