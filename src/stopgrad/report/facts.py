"""What a page says beside its figures: tiles, facts, commands that repeat a run. No torch."""

from __future__ import annotations

import itertools
import shlex
from typing import Any, NamedTuple

from stopgrad.config import PRESETS, Config, knob_values, preset
from stopgrad.evaluation import SPACE, count, duration, number
from stopgrad.report.evidence import Evidence
from stopgrad.report.figures.arms import place_text

WIDE = 84  # characters of a line of a command


class Fact(NamedTuple):
    """A name and what is said beside it."""

    name: str
    value: str


class Tile(NamedTuple):
    """One of the numbers that a reader should see first."""

    name: str
    value: str
    note: str  # what is said under it
    tone: str = ""  # "good" or "wrong"


class Link(NamedTuple):
    """A way to a section of a page."""

    target: str
    text: str


def facts(evidence: Evidence) -> list[Fact]:
    """The facts of a run, in reading order."""
    config = evidence.info.config
    made = [
        Fact("Data", _data(evidence)),
        Fact("Start", _start(evidence)),
        *method_facts(config),
        Fact("Length", _length(evidence)),
        *_cost(evidence),
        Fact("Seed", str(config.seed)),
        *_machine(evidence),
    ]
    return [fact for fact in made if fact.value]


def method_facts(config: Config) -> list[Fact]:
    """What is trained, and how."""
    return [
        Fact("Encoder", _encoder(config)),
        Fact("Projector", _projector(config)),
        Fact("Predictor", _predictor(config)),
        Fact("Stop-gradient", "on" if config.stop_gradient else "removed (ablation)"),
        Fact("Optimiser", _optimizer(config)),
    ]


def training_seconds(evidence: Evidence) -> float:
    """Time of the training steps alone, from the views and the speed of each epoch, s."""
    rows, batch = evidence.epochs, evidence.info.config.batch
    steps = itertools.pairwise([0, *(row.step for row in rows)])
    return sum(
        2 * batch * (end - start) / row.views_per_s
        for (start, end), row in zip(steps, rows, strict=True)
        if row.views_per_s
    )


def repeat_commands(evidence: Evidence) -> list[str]:
    """The commands that repeat the run: the nearest preset and what differs from it."""
    nearest, changes = _nearest_preset(evidence.info.config)
    words = ["stopgrad", "pretrain", "--data", str(evidence.info.data.get("spec", ""))]
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


def broken(command: str) -> str:
    """A long command over several lines, none broken within an option, as a shell takes it."""
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


def _data(evidence: Evidence) -> str:
    data = evidence.info.data
    names = data.get("class_names") or []
    classes = f", {len(names)} classes (not used in training)" if names else ", no labels"
    mark = str(data.get("fingerprint", ""))[:12]
    return f"{data.get('name')}: {count(data.get('images', 0))} images{classes}; content {mark}"


def _encoder(config: Config) -> str:
    width = f", width \N{MULTIPLICATION SIGN}{SPACE}{config.encoder.width:g}"
    wide = width if config.encoder.width != 1 else ""
    return (
        f"{config.encoder.name}, {config.encoder.stem} stem{wide}; views of {config.views.size} px"
    )


def _start(evidence: Evidence) -> str:
    """Which weights the encoder started from; nothing when they were random."""
    init = evidence.info.data.get("init")
    return f"from {init['from']}, sha256 {init['sha256'][:12]}" if init else ""


def _projector(config: Config) -> str:
    projector = config.projector
    bn = "" if projector.output_bn else "; without BN on the output (ablation)"
    return f"{projector.layers} layers, hidden {projector.hidden}, out {projector.out}{bn}"


def _predictor(config: Config) -> str:
    if not config.predictor.enabled:
        return "removed (ablation)"
    out = config.projector.out
    arrow = f"{SPACE}\N{RIGHTWARDS ARROW}{SPACE}"
    return arrow.join(str(width) for width in (out, config.predictor.hidden, out))


def _optimizer(config: Config) -> str:
    optimizer = config.optimizer
    predictor = f"{place_text(optimizer.alpha_h)} \N{MULTIPLICATION SIGN} lr"
    return (
        f"{optimizer.algorithm.upper()}, batch {config.batch}, peak lr {number(config.lr)} "
        f"(cosine), weight decay {flag_text(optimizer.weight_decay)}; predictor: {predictor}, "
        f"{optimizer.predictor_schedule}"
    )


def _length(evidence: Evidence) -> str:
    rows, config = evidence.epochs, evidence.info.config
    if not rows:
        return f"no epoch of {config.epochs} finished yet"
    last = rows[-1]
    return (
        f"{last.epoch} of {config.epochs} epochs, {count(last.step)} steps, "
        f"{count(2 * last.step * config.batch)} views"
    )


def _cost(evidence: Evidence) -> list[Fact]:
    rows = [row for row in evidence.epochs if row.views_per_s]
    if not rows:
        return []
    seconds, views = training_seconds(evidence), 2 * rows[-1].step * evidence.info.config.batch
    text = (
        f"{duration(seconds)} of training steps, {count(round(views / seconds))} views per second"
    )
    flops = max((record.flops or 0.0 for record in evidence.records), default=0.0)
    work = f"; {number(flops / 1e15)} PFLOP" if flops else ""
    return [Fact("Cost", text + work)]


def _machine(evidence: Evidence) -> list[Fact]:
    environment = dict(evidence.info.environment)
    place = [f"{environment.pop(key)}" for key in ("device", "machine") if environment.get(key)]
    threads = environment.pop("threads", None)
    if threads is not None:
        place.append(f"{threads} thread{'s' if threads != 1 else ''}")
    place.append(str(environment.pop("precision", evidence.info.config.precision)))
    versions = ", ".join(f"{name} {value}" for name, value in environment.items())
    return [Fact("Machine", ", ".join(place)), Fact("Versions", versions)]
