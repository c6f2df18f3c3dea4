"""R4: flipped bits and cut files in the newest checkpoint are seen, and the one before is used.

The run had all but ended: its two checkpoints are those of steps 31 and 32, so that falling back
costs one step, and the end tells whether a bit of the damage came through.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.promises import state
from tests.promises.lab import STEPS, Lab
from tests.promises.outcome import Control, Outcome, control

CUTS = 3  # one damage in so many is a cut, the others are flips
TOLD = "passed over"


def check(lab: Lab, tries: int) -> Outcome:
    """Damages so many copies of a run, resumes each and compares its end."""
    base, failures = _nearly_ended(lab), []
    for number in lab.numbers(tries):
        run, chance = lab.copy(base, "damaged"), lab.chance("R4", number)
        what = damage(state.newest(run), chance, cut=number % CUTS == 0)
        failures += [f"{what}: {line}" for line in _resume(lab, run)]
    controls = (_forged(lab, base), _whole(lab, base)) if lab.is_first else ()
    return Outcome(tries, tuple(failures), controls)


def _nearly_ended(lab: Lab) -> Path:
    """A run as a kill leaves it between its last checkpoint and its last status."""
    run = lab.refer("--checkpoint_every", STEPS - 1).run
    status = run / "status.json"
    status.write_text(status.read_text().replace("finished", "running"))
    return run


def damage(folder: Path, chance: random.Random, *, cut: bool) -> str:
    """Flips one bit of a file of a checkpoint or cuts the file short; says what it did."""
    path = chance.choice(sorted(folder.iterdir()))
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    if cut:
        path.write_bytes(data[:place])
        return f"{path.name} cut to {place} of {len(data)} bytes"
    bit = chance.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} of {path.name} flipped"


def _resume(lab: Lab, run: Path) -> list[str]:
    """What is wrong when a run with a damaged checkpoint goes on."""
    done = lab.run("resume", run)
    if done.code != 0 or done.crashed:
        return [f"exit code {done.code}: {done.last_line}"]
    told = [] if TOLD in done.err else ["loaded in silence"]
    return told + state.differences(run, lab.reference.end)


def _forged(lab: Lab, base: Path) -> Control:
    run = lab.copy(base, "forged")
    state.overwrite_tensors(state.newest(run) / "model.safetensors", bytes([0, 0, 0, 63]))
    state.reseal(state.newest(run))
    return control("manifest written anew over the damage", _resume(lab, run), sees="in silence")


def _whole(lab: Lab, base: Path) -> Control:
    found = _resume(lab, lab.copy(base, "whole"))
    return control("nothing damaged", found, sees="in silence")
