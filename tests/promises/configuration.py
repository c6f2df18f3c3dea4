"""R21: whatever is wrong with a configuration is said at once, in one line, without a traceback.

Most configurations have one to four planted errors, and the line must tell each of them: an
unknown key with the known key that it was, a value with what was expected. The others are a valid
file with random bytes changed, of which some are still valid: those end at the missing data.
"""

from __future__ import annotations

import random
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.promises.lab import Lab
from tests.promises.outcome import Control, Outcome, control
from tests.promises.process import Done

CONFIG, DATA = 2, 3
PLANTED = 4  # errors in one configuration, at most
SCRAMBLED = 4  # one configuration in so many has random bytes instead
CONTRADICTING = 0.2  # share of the configurations with a pair of knobs that contradict
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


class Planted(NamedTuple):
    """One error: the keys and values to write, and the pattern that must tell it."""

    values: dict[str, Any]
    told: str


CONTRADICTION = Planted(
    {"views.crop_min": 0.9, "views.crop_max": 0.5}, r"views\.crop_min.*views\.crop_max"
)


def check(lab: Lab, tries: int) -> Outcome:
    """Tries so many configurations."""
    failures: list[str] = []
    for number in lab.numbers(tries):
        chance = lab.chance("R21", number)
        if number % SCRAMBLED == 0:
            failures += _scrambled(lab, chance)
        else:
            failures += _planted(lab, _errors(chance, count=chance.randint(1, PLANTED)), chance)
    controls = (_first_only(lab), _nothing_wrong(lab)) if lab.is_first else ()
    return Outcome(tries, tuple(failures), controls)


def _planted(
    lab: Lab, errors: list[Planted], chance: random.Random, *, sabotage: str = ""
) -> list[str]:
    """What is wrong with the answer to these errors, given as a file or as flags."""
    if chance.random() < 0.5 and all(map(_fits_a_flag, errors)):
        flags = [f"--{key}={value}" for error in errors for key, value in error.values.items()]
    else:
        flags = ["--config", str(_write(lab, _valid(chance), errors))]
    done, out = _run(lab, flags, sabotage=sabotage)
    wrong = list(_not_one_line(done, (CONFIG,)))
    wrong += [f"{e.values} is not told" for e in errors if not re.search(e.told, done.err)]
    wrong += ["a run directory was made"] if out.exists() else []
    return [f"{line}: {flags}: {done.last_line}" for line in wrong]


def _fits_a_flag(error: Planted) -> bool:
    return all(isinstance(value, str | int | float) for value in error.values.values())


def _run(lab: Lab, flags: list[str], *, sabotage: str = "") -> tuple[Done, Path]:
    out = lab.place("configured")
    words = ("pretrain", "--data", lab.folder / "no data", "--out", out, *flags)
    return lab.run(*words, sabotage=sabotage), out


def _not_one_line(done: Done, codes: tuple[int, ...]) -> Iterator[str]:
    if done.crashed:
        yield done.crashed
    if done.code not in codes:
        yield f"exit code {done.code}"
    if done.err.count("\n") != 1 or "; expected " not in done.err:
        yield "not one line with what was expected"


def _write(lab: Lab, values: dict[str, Any], errors: list[Planted]) -> Path:
    """A YAML file of dotted or nested keys."""
    import yaml

    path = lab.place("knobs.yaml")
    for error in errors:
        values = values | error.values
    path.write_text(yaml.safe_dump(_nested(values)))
    return path


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot and isinstance(nested.setdefault(section, {}), dict):
            nested[section][name] = value
        else:
            nested[key] = value
    return nested


def _valid(chance: random.Random) -> dict[str, Any]:
    """Some knobs at their defaults."""
    knobs = _knobs()
    return {knob.key: knob.default for knob in chance.sample(knobs, chance.randint(0, 6))}


def _knobs() -> list[Any]:
    from stopgrad.config import describe_knobs

    return list(describe_knobs())


def _errors(chance: random.Random, *, count: int) -> list[Planted]:
    """So many errors, each at a knob of its own; now and then two knobs contradict each other."""
    found = [chance.choice(_KINDS)(knob, chance) for knob in chance.sample(_knobs(), count)]
    free = not any(CONTRADICTION.values.keys() & error.values.keys() for error in found)
    return [*found, CONTRADICTION] if free and chance.random() < CONTRADICTING else found


def _misspelt(knob: Any, chance: random.Random) -> Planted:
    """A letter too many, too few or wrong in the last word of a key."""
    known = {other.key for other in _knobs()}
    section, dot, word = knob.key.rpartition(".")
    if len(word) < 4:
        return _mistyped(knob, chance)
    place = chance.randrange(1, len(word))
    letter = chance.choice(LETTERS)
    spellings = (
        word[:place] + letter + word[place:],
        word[:place] + word[place + 1 :],
        word[:place] + letter + word[place + 1 :],
    )
    wrong = section + dot + chance.choice(spellings)
    if wrong in known:
        return _mistyped(knob, chance)
    near = "|".join(re.escape(key) for key in known if _distance(key, wrong) <= 1)
    told = rf"unknown key {re.escape(wrong)} \((did you mean|here) ({near})(\?|,|\))"
    return Planted({wrong: knob.default}, told)


def _mistyped(knob: Any, chance: random.Random) -> Planted:
    """A value of another kind."""
    if knob.kind is str:
        value: Any = [1, 2]
    elif knob.kind is bool:
        value = chance.choice(["maybe", 3, [True]])
    elif knob.kind is int:
        value = chance.choice(["many", 1.5, [8]])
    else:
        value = chance.choice(["frob", [0.5], "1e"])
    return Planted({knob.key: value}, _value_told(knob.key, value))


def _out_of_bounds(knob: Any, chance: random.Random) -> Planted:
    """A number that no run could use."""
    above, least, most = (knob.bounds.get(name) for name in ("above", "at_least", "at_most"))
    numbers = [above, -1e30] if above is not None else []
    numbers += [least - 1] if least is not None else []
    numbers += [most + 1] if most is not None else []
    if knob.kind is float:
        numbers += [float("nan"), float("inf")]
    if typing.get_origin(knob.kind) is not None or not numbers:
        return _mistyped(knob, chance)
    value = chance.choice(numbers)
    value = int(value) if knob.kind is int else float(value)
    return Planted({knob.key: value}, _value_told(knob.key, value))


_KINDS: tuple[Callable[[Any, random.Random], Planted], ...] = (
    _misspelt,
    _mistyped,
    _out_of_bounds,
)


def _value_told(key: str, value: Any) -> str:
    """The key with the value as Python or as a flag writes it, and something expected."""
    got = "|".join({re.escape(repr(value)), re.escape(repr(str(value)))})
    return rf"{re.escape(key)} = ({got}) \(expected [^)]+\)"


def _distance(one: str, other: str) -> int:
    """Letters to change, add or drop between two words (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, wanted in enumerate(other, start=1):
            cost = min(row[place] + 1, row[place - 1] + 1, before + (letter != wanted))
            before, row[place] = row[place], cost
    return row[-1]


def _scrambled(lab: Lab, chance: random.Random) -> list[str]:
    """A valid file with random bytes changed, dropped or added."""
    path = _write(lab, {knob.key: knob.default for knob in _knobs()}, [])
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data))
        data[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    path.write_bytes(data)
    done, _ = _run(lab, ["--config", str(path)])
    return [f"{line}: {path}: {done.last_line}" for line in _not_one_line(done, (CONFIG, DATA))]


def _first_only(lab: Lab) -> Control:
    errors = [_mistyped(knob, random.Random(0)) for knob in _knobs()[:3]]
    found = _planted(lab, errors, random.Random(0), sabotage="first_error_only")
    return control("only the first error told", found, sees="is not told")


def _nothing_wrong(lab: Lab) -> Control:
    knob = _knobs()[0]
    right = Planted({knob.key: knob.default}, _value_told(knob.key, knob.default))
    found = _planted(lab, [right], random.Random(0))
    return control("a valid configuration", found, sees="exit code 3")
