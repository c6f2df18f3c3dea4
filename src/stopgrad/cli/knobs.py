"""Knobs on the command line: flags by key path, a YAML file and a preset -> a config."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stopgrad.config import Config, config_from_dict, describe_knobs, kind_in_words
from stopgrad.errors import ConfigError


def config_of(options: argparse.Namespace, rest: Sequence[str]) -> Config:
    """Preset, then the file's keys, then the flags'."""
    from_file = _read_yaml(options.file) if options.file else {}
    return config_from_dict({**from_file, **dict(flags(rest))}, preset=options.preset)


def flags(rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--key value`, `--key=value` and a bare `--key` for a knob that is on or off."""
    switches = {knob.key for knob in describe_knobs() if knob.kind is bool}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"{word!r} where a flag should stand",
                expected="--KEY VALUE",
                hint="put the name of a knob before its value",
            )
        key, found, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not found:
            bare = not words or words[0].startswith("--")
            value = ("true" if key in switches else "") if bare else words.pop(0)
        yield key, value


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} cannot be read ({reason})",
            expected="a YAML file of knobs",
            hint="check the path and its contents",
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no knobs", expected="KEY: VALUE lines", hint="see pretrain --help"
        )
    return values


def knobs_page() -> str:
    """Every knob with its type, default and meaning, as the end of a help page."""
    rows = [
        f"  --{knob.key} [{kind_in_words(knob.kind)}] "
        f"({str(knob.default).lower() if knob.kind is bool else knob.default})\n"
        f"        {knob.meaning}"
        for knob in describe_knobs()
    ]
    return "knobs, with type and default (before the preset's changes):\n" + "\n".join(rows)
