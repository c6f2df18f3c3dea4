"""What was done in a run: data, model, cost, versions, and the commands that repeat it."""

from __future__ import annotations

import itertools
import shlex
from typing import Any, NamedTuple

from stopgrad.config import PRESETS, Config, config_from_dict, config_to_dict, describe_knobs
from stopgrad.evaluation import SPACE, count, duration, number
from stopgrad.report.evidence import Evidence, epochs
from stopgrad.report.figures.arms import place_text

WIDE = 84  # characters of a line of a command


class Fact(NamedTuple):
    """A name and what is to be said under it."""

    name: str
    value: str


class KnobRow(NamedTuple):
    """One knob of the run's config."""

    key: str
    value: str
    default: str
    meaning: str
    changed: bool


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
    rows = [{"step": 0}, *epochs(evidence)]
    batch = evidence.info.config.batch
    times = (
        2 * batch * (row["step"] - before["step"]) / row["views_per_s"]
        for before, row in itertools.pairwise(rows)
        if row.get("views_per_s")
    )
    return float(sum(times))


def repeat_commands(evidence: Evidence) -> list[str]:
    """The commands that repeat the run: the nearest preset and what differs from it."""
    preset, changes = _nearest_preset(evidence.info.config)
    words = ["stopgrad", "pretrain", "--data", str(evidence.info.data.get("spec", ""))]
    words += ["--preset", preset]
    for key, value in changes.items():
        words += [f"--{key}", plain(value)]
    init = evidence.info.data.get("init")
    words += ["--init", init["from"]] if init else []
    commands = [[*words, "--out", evidence.name]]
    if evidence.records:
        shares = sorted({record.labels for record in evidence.records}, reverse=True)
        labels = ["--labels", *(f"{share:g}" for share in shares)] if shares != [1.0] else []
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


def knob_rows(config: Config) -> list[KnobRow]:
    """Every knob with its value in this run, its default and its meaning."""
    values = _flat(config_to_dict(config))
    return [
        KnobRow(
            knob.key,
            plain(values[knob.key]),
            plain(knob.default),
            knob.meaning,
            values[knob.key] != knob.default,
        )
        for knob in describe_knobs()
    ]


def plain(value: object) -> str:
    """A setting as one writes it in a flag, exactly: `0.0005`, `true`, `resnet18`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _nearest_preset(config: Config) -> tuple[str, dict[str, Any]]:
    values = _flat(config_to_dict(config))
    changes = {
        name: {
            key: values[key]
            for key, usual in _flat(config_to_dict(config_from_dict({}, preset=name))).items()
            if values[key] != usual
        }
        for name in PRESETS
    }
    name = min(changes, key=lambda name: len(changes[name]))
    return name, changes[name]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


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
        f"(cosine), weight decay {plain(optimizer.weight_decay)}; predictor: {predictor}, "
        f"{optimizer.predictor_schedule}"
    )


def _length(evidence: Evidence) -> str:
    rows = epochs(evidence)
    if not rows:
        return f"no epoch of {evidence.info.config.epochs} finished yet"
    step = rows[-1]["step"]
    return (
        f"{rows[-1]['epoch']} of {evidence.info.config.epochs} epochs, {count(step)} steps, "
        f"{count(2 * step * evidence.info.config.batch)} views"
    )


def _cost(evidence: Evidence) -> list[Fact]:
    rows = [row for row in epochs(evidence) if row.get("views_per_s")]
    if not rows:
        return []
    seconds, views = training_seconds(evidence), 2 * rows[-1]["step"] * evidence.info.config.batch
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
