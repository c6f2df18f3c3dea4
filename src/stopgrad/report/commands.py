"""The commands that repeat a run, as a reader would type them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from stopgrad.config import PRESETS, Config, knob_values, preset
from stopgrad.images import specs_of
from stopgrad.report.evidence import Evidence

WIDE = 84  # characters of a line of a command


def repeat_commands(evidence: Evidence) -> list[str]:
    """The commands that repeat the run: the nearest preset and what differs from it."""
    nearest, changes = _nearest_preset(evidence.info.config)
    words = ["stopgrad", "pretrain"]
    for spec in specs_of(evidence.info.data["spec"]):
        words += ["--data", spec]
    words += ["--preset", nearest]
    for key, value in changes.items():
        words += [f"--{key}", flag_text(value)]
    init = evidence.info.data.get("init")
    words += ["--init", init["from"]] if init else []
    commands = [[*words, "--out", evidence.name]]
    if evidence.records:
        found = sorted({record.labels for record in evidence.records}, reverse=True)
        labels = ["--labels", *(f"{fraction:g}" for fraction in found)] if found != [1.0] else []
        commands.append(["stopgrad", "evaluate", evidence.name, *labels])
    return [shlex.join(command) for command in commands]


def next_commands(run: Path, *, labelled: bool) -> list[str]:
    """What can be done with a run next, a command a line; labels decide which."""
    name = shlex.quote(str(run))
    if labelled:
        return [f"evaluate it with: stopgrad evaluate {name}"]
    return [
        "its images have no labels",
        f"look at it with: stopgrad report {name}",
        f"find similar images with: stopgrad neighbors {name}",
        f"use its features with: stopgrad embed {name} --out FILE",
        f"rank runs with: stopgrad compare {name} RUN",
        f"score it on other images with: stopgrad evaluate {name} --data LABELLED",
    ]


def broken(command: str) -> str:
    """A long command on several lines as a shell reads it, never broken within an option."""
    options = list[list[str]]()
    for word in shlex.split(command):
        if word.startswith("--") or not options:
            options.append([])
        options[-1].append(word)
    lines = [""]
    for part in map(shlex.join, options):
        longer = f"{lines[-1]} {part}".strip()
        lines[-1:] = [longer] if len(longer) <= WIDE or not lines[-1] else [lines[-1], part]
    return " \\\n    ".join(lines)


def flag_text(value: object) -> str:
    """A setting as one writes it in a flag, exactly: `0.0005`, `true`, `resnet18`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    values = knob_values(config)
    changes: dict[str, dict[str, Any]] = {}
    for name in PRESETS:
        usual = knob_values(preset(name))
        changes[name] = {key: values[key] for key in usual if values[key] != usual[key]}
    return min(changes.items(), key=lambda item: len(item[1]))
