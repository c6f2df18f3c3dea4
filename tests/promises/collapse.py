"""R8: runs without the stop-gradient are called collapsed, healthy ones are not, and it shows.

Real digits, four epochs, by the presets `tiny` and `digits` in turn, a seed for each pair. The
thresholds of the verdict were chosen on runs of other seeds (bench/collapse_thresholds.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.promises import state
from tests.promises.lab import ALONE, Lab
from tests.promises.outcome import Control, Outcome, control

PRESETS = ("tiny", "digits")
# bf16 takes three times as long on a CPU without AVX-512.
FLAGS = ("--epochs", "4", "--data", "mnist5k", "--precision", "fp32", *ALONE)
REMOVED = ("--stop_gradient", "false")
COLLAPSED = "collapse"
LONGEST = 1800.0  # s; 500 steps, on whatever machine


def check(lab: Lab, tries: int) -> Outcome:
    """So many runs in all, half of them without the stop-gradient."""
    failures: list[str] = []
    pairs = lab.numbers((tries + 1) // 2)
    for seed in pairs:
        collapsed, healthy = _run(lab, seed, REMOVED), _run(lab, seed, ())
        failures += _wrong(collapsed, wanted=True) + _wrong(healthy, wanted=False)
        if seed == 0:
            failures += _not_marked(lab, collapsed)
    swapped = _wrong(healthy, wanted=True) + _wrong(collapsed, wanted=False)
    return Outcome(2 * len(pairs), tuple(failures), (_swapped(swapped),))


def _run(lab: Lab, seed: int, flags: tuple[str, ...]) -> Path:
    preset = PRESETS[seed % len(PRESETS)]
    run = lab.place(f"{'collapsed' if flags else 'healthy'}-{preset}-{seed}")
    words = ("pretrain", "--out", run, "--preset", preset, *FLAGS, "--seed", seed, *flags)
    done = lab.run(*words, longest=LONGEST)
    assert done.code == 0, done.err
    return run


def _wrong(run: Path, *, wanted: bool) -> list[str]:
    verdict = state.status(run).get("verdict", {})
    if (COLLAPSED in verdict.get("state", "")) == wanted:
        return []
    return [f"{run.name} is called {verdict.get('state')}: {verdict.get('reason')}"]


def _not_marked(lab: Lab, run: Path) -> list[str]:
    """Whether the page about a collapsed run keeps quiet about it."""
    done = lab.run("report", run)
    page = run / "report.html"
    told = done.code == 0 and f"{COLLAPSED}</strong>" in page.read_text()
    return [] if told else [f"{run.name}: the report does not say that it collapsed"]


def _swapped(found: list[str]) -> Control:
    return control("collapsed and healthy runs swapped", found, sees="is called")
