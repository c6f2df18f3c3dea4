"""A study directory whose runs nobody trained: records and metrics by rule, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.evaluation import MEASURES, SUPERVISED, Record, to_line
from stopgrad.studies import Choices, StudyDirectory, read_study
from stopgrad.studies.definition import StudyData, places
from stopgrad.studies.parse import parse_study
from stopgrad.studies.plan import arm_configs, plan_runs
from stopgrad.studies.results import place_key
from stopgrad.studies.stored import StoredStudy
from tests.factories import record

EPOCHS = 12
CURED = {"state": "healthy", "reason": "z spans 40 directions", "advice": ""}
GONE = {"state": "complete collapse", "reason": "z lies on one line", "advice": "keep it"}
SICK = ("no stop-gradient", "no predictor", "5e-3")


def make_study(
    out: Path,
    name: str,
    *,
    values: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    leave_out: int = 0,
    sick: Sequence[str] = SICK,
    epochs: int = EPOCHS,
    data_name: str = "toy",
) -> StoredStudy:
    """Begins a study and writes what its runs would have left.

    Args:
        out: The study directory.
        name: A study of the package, or the name of `values`.
        values: The study's own file.
        seeds: Its seeds.
        leave_out: How many of the last runs were not begun.
        sick: Arms whose runs collapse.
        epochs: How many each run has in its metrics.
        data_name: Of the images.
    """
    source = read_study(name) if values is None else parse_study(values, name=name)
    choices = Choices("tiny", {}, tuple(seeds))
    configs = arm_configs(source, choices)
    data = StudyData("toy", data_name, 10, dict.fromkeys(configs, "f"))
    plan = plan_runs(source, choices, configs, fingerprints=data.fingerprints)
    directory = StudyDirectory(out)
    directory.begin(plan, data)
    stored = directory.read(name)
    for slot in stored.slots[: len(stored.slots) - leave_out]:
        folder = directory.folder(slot.run)
        folder.run.mkdir(exist_ok=True)
        (folder.run / "config.json").write_text("{}")
        (folder.run / "status.json").write_text(json.dumps({"state": "finished", "epoch": epochs}))
        place = [arm.name for arm in stored.study.arms].index(slot.arm)  # whatever its name is
        chance = random.Random(f"{name} {place} {slot.seed} {slot.labels}")
        lines = [to_line(r) for r in _records(stored, slot.arm, slot.labels, chance, sick)]
        with (folder.run / "records.jsonl").open("a") as file:
            file.write("".join(line + "\n" for line in lines))
        if slot.labels is None:
            rows = _rows(slot.arm in sick, chance, epochs)
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder.run / "metrics.jsonl").write_text(text)
            spent = {"wall_s": 3600.0, "joules": 36000.0, "source": "rapl", "device": "cpu"}
            (folder.run / "costs.jsonl").write_text(json.dumps(spent | {"threads": 2}) + "\n")
    return stored


def _records(
    stored: StoredStudy,
    arm: str,
    labels: float | None,
    chance: random.Random,
    sick: Sequence[str],
) -> list[Record]:
    study, found = stored.study, []
    for place in places(study):
        if place.arm != arm or labels not in (None, place.labels):
            continue
        key = place_key(place, stored)
        value = _value(stored, place, chance)
        subjects = [key.of]
        if arm == study.baseline and place.metric.startswith(("knn", "linear")):
            subjects += [of for of in study.protocol.beside if of != "chance"]
        for of in subjects:
            collapsed = "complete collapse" if arm in sick else "healthy"
            found.append(
                record(
                    metric=place.metric,
                    value=value if of == key.of else 0.35 + 0.01 * chance.random(),
                    labels=place.labels,
                    of=of,
                    split=key.split,
                    epoch=EPOCHS,
                    verdict=collapsed if of == "encoder" else None,
                    code="0.1",
                    versions={"python": "3.11", "torch": "2.15"},
                    device_name="a processor",
                    threads=2,
                    views=80_000_000,
                    flops=2.68e17,
                )
            )
    return found


def _value(stored: StoredStudy, place: Any, chance: random.Random) -> float:
    """About the published number, else something near."""
    published = stored.study.published
    known = published.values.get(place) if published is not None else None
    if place.metric in MEASURES:
        middle = {"correlation_strength": 0.06, "effective_rank": 300.0}.get(place.metric, 1.0)
        middle = known.mean if known is not None else middle
        return middle * (1 + 0.03 * chance.gauss(0, 1))
    if known is None:
        usual = {0.01: 45.0, 0.1: 75.0}.get(place.labels, 90.0)
        middle = usual if place.metric == SUPERVISED else 86.0
        return (middle + 0.3 * chance.gauss(0, 1)) / 100
    spread = known.std if known.std is not None else 0.3
    return (known.mean + spread * chance.gauss(0, 1)) / 100


def _rows(collapsed: bool, chance: random.Random, epochs: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        level = 0.1 if collapsed else 0.3 + 0.6 * done**0.5 + 0.01 * chance.gauss(0, 1)
        healthy = (30 * done, 40 * done + 2, 0.5 - 0.44 * done, 0.6 * done)
        numbers = (1.0, 1.0, 0.95, 0.0) if collapsed else healthy
        names = ("participation_ratio", "effective_rank", "correlation_strength")
        layer = dict(zip((*names, "positive_minus_random"), numbers, strict=True))
        layer |= {"top_share": 0.2, "output_std": 0.9, "centre_norm": 0.1}
        ranks = [1, 2, 4, 8, 16, 32]
        weights = [10 / rank ** (3 - 2 * done) for rank in ranks]
        predictor = [0.3 * weight**0.5 + 0.02 * chance.random() for weight in weights]
        loss = -1.0 if collapsed else -0.2 - 0.7 * done + 0.01 * chance.gauss(0, 1)
        rows += [{"kind": "step", "step": 10 * epoch - 5, "loss": loss, "lr": 0.1}]
        row = {"kind": "epoch", "epoch": epoch, "step": 10 * epoch, "loss": loss, "lr": 0.1}
        row |= {"predictor_lr": 0.1, "knn": level, "views_per_s": 300.0}
        row |= {"measures": {"features": layer, "before_bn": layer, "z": layer}}
        row |= {"verdict": GONE if collapsed else CURED}
        row |= {"spectra": {"ranks": ranks, "representation": weights, "predictor": predictor}}
        rows.append(row)
    return rows
