"""A mistaken command, name or flag -> an error that says what was meant.

A table for commands is here; one for the knobs of other tools is in `stopgrad.config`.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

import stopgrad
from stopgrad.config import PRESETS, describe_knobs, guess
from stopgrad.errors import ConfigError, did_you_mean

MEANT = {  # command: words that are typed for it
    "pretrain": "train fit learn pretraining ssl simsiam main",
    "evaluate": "eval test score knn linear lincls probe linear-probe linear-eval",
    "check-data": "check inspect info stats",
    "quickstart": "demo example init start tutorial",
    "embed": "embedding embeddings encode extract features extract-features predict transform",
    "neighbors": "neighbours nearest retrieve retrieval search",
    "report": "plot plots figures page poster show visualize",
    "export": "convert onnx save",
    "import-weights": "import load",
    "resume": "continue extend",
    "views": "augment augmentations transforms",
    "pack": "cache preprocess prepare",
    "bench": "benchmark speed profile",
    "finetune": "fine-tune tune semi-supervised",
    "supervised": "baseline classify",
    "study": "studies ablation ablate sweep grid list run status table",
}


def check_command(word: str, known: Collection[str]) -> None:
    """Refuses an unknown command, and suggests the one that was meant.

    Raises:
        ConfigError: Also for the name of a study.
    """
    if word in known or word.startswith("-"):
        return
    typed = word.lower().replace("_", "-")
    meant = next((name for name, words in MEANT.items() if typed in words.split()), "")
    said = f" (did you mean {meant}?)" if meant in known else study_named(word)
    raise ConfigError(
        f"COMMAND: invalid choice: {word!r}{said or did_you_mean(word, known)}",
        expected=f"one of {', '.join(known)}",
        hint="see: stopgrad --help",
    )


def study_named(word: str) -> str:
    """` (a study, ...)` for the name of a study that is not also a file; else empty."""
    if Path(word).exists() or word not in stopgrad.built_in_studies():
        return ""
    return f" (a study; run it with: stopgrad study run {word} --data SPEC --out DIR)"


def check_names(options: argparse.Namespace) -> None:
    """Refuses the name of a study where a preset or a data set is expected.

    Raises:
        ConfigError: With the command that runs the study.
    """
    for name, what in (("preset", f"one of {', '.join(PRESETS)}"), ("data", "a data set")):
        found = getattr(options, name, None) or []
        for given in map(str, found if isinstance(found, list) else [found]):
            if given not in PRESETS and (said := study_named(given)):
                raise ConfigError(f"--{name} {given}{said}", expected=what)


def check_data_named(words: Sequence[str]) -> None:
    """Refuses the flag of another tool in place of --data.

    Raises:
        ConfigError: With the flag that is ours.
    """
    typed = [word.partition("=")[0] for word in words if word.startswith("-")]
    other = next((word for word in typed if guess(word.lstrip("-"), []) == "here --data"), "")
    if other and "--data" not in typed:
        raise ConfigError(f"unknown argument {other} (here --data)", expected="--data SPEC")


def unknown_flags(words: Sequence[str], *, section: str) -> dict[str, str]:
    """Unknown flags, as keys that the config refuses; under `section` where it has such a knob.

    Raises:
        ConfigError: For a word that belongs to no flag.
    """
    known, keys = [knob.key for knob in describe_knobs()], dict[str, str]()
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        is_flag = word.startswith("-") and not key.replace(".", "").isdigit()
        if not is_flag and (not equals or key in known) and not keys:
            raise _unexpected(word, f"--{key} {value}" if equals else "--KNOB VALUE")
        if is_flag or equals:
            inner = f"{section}.{key}"
            keys[inner if guess(inner, known).startswith(f"here {section}.") else key] = value
    return {key.replace("-", "_"): value for key, value in keys.items()}


def _unexpected(word: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"unexpected argument {word!r}{study_named(word)}",
        expected=f"--data {word}" if Path(word).exists() else wanted,
    )


def unrecognized(parser: argparse.ArgumentParser, words: Sequence[str]) -> ConfigError:
    """The error for arguments that a command without knobs does not take."""
    key = words[0].lstrip("-").partition("=")[0]
    known = [knob.key for knob in describe_knobs()]
    own = [flag for action in parser._actions for flag in action.option_strings]
    answer = guess(key, known)
    said = f" ({answer})" if answer else did_you_mean(words[0], own)
    if key.replace("-", "_") in known or answer.partition(",")[0].removeprefix("here ") in known:
        said = " (a knob, set when a run begins)"
    elif answer.startswith("here --") and answer.removeprefix("here ") not in own:
        said = ""
    return ConfigError(
        f"unrecognized arguments: {' '.join(words)}{said}", hint=f"see: {parser.prog} --help"
    )
