"""R2: a kill at every call that makes a file durable or removes one. R3: the order of those calls.

The process goes on from step 27 of 32 and saves at 30 and 32: two cycles. strace kills it on
entering each call in turn, before the call takes effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from tests.promises import state
from tests.promises.lab import Lab, seconds_until
from tests.promises.outcome import Control, Outcome, control
from tests.promises.strace import DURABLE, REMOVING, Call, killed_at, traced

PARTS = 4  # into which the calls are divided when all are tried
BEGIN = 27  # the step to go on from
NEXT = "step-000030"
MANIFEST = "manifest.json"


def check(lab: Lab, tries: int) -> Outcome:
    """R2: kills at so many of the calls, spread evenly; -1 means at each that is this part's."""
    base = _base(lab)
    done, calls = traced(lab, ("resume", lab.copy(base, "traced")))
    assert done.code == 0, done.err
    points = (
        calls[lab.part :: PARTS]
        if tries < 0
        else [calls[i * len(calls) // tries] for i in range(tries)]
    )
    failures = []
    for call in points:
        run = lab.copy(base, "crashed")
        failures += [f"{_words(call)}: {line}" for line in _crash(lab, run, call)]
    controls = (_removed_first(lab, base, calls),) if lab.is_first else ()
    return Outcome(len(points), tuple(failures), controls, {"calls": len(calls)})


def _base(lab: Lab) -> Path:
    """The usual run, killed after its checkpoint at step 27."""
    run = lab.place("base")
    running = lab.start(*lab.pretraining(run))
    seconds_until(lambda: state.newest_step(run) >= BEGIN, running)
    running.kill()
    for folder in state.committed(run):
        if state.step_of(folder) > BEGIN:  # it was faster than the kill
            (folder / MANIFEST).unlink()
    return run


def _crash(lab: Lab, run: Path, call: Call, *, sabotage: str = "") -> list[str]:
    """Kills a run at a call and brings it to its end."""
    before = {folder.name for folder in state.committed(run)}
    done = killed_at(lab, ("resume", run), call, sabotage=sabotage)
    if done.code not in (-9, 137):
        return [f"was not killed, exit code {done.code}: {done.last_line}"]
    known = before | {NEXT, "step-000032"}
    odd = [folder.name for folder in state.committed(run) if folder.name not in known]
    return [*(f"holds {name}" for name in odd), *lab.finish(run)]


def _words(call: Call) -> str:
    return f"{call.name} {call.number} of {PurePath(call.paths[0]).name if call.paths else '?'}"


def _removed_first(lab: Lab, base: Path, calls: Sequence[Call]) -> Control:
    """Killed while its only checkpoint is being written."""
    call = next(c for c in calls if c.name.startswith("rename") and NEXT in c.paths[-1])
    found = _crash(lab, lab.copy(base, "removed"), call, sabotage="old_removed_first")
    return control("old checkpoints removed first", found, sees="not resumable")


def order(lab: Lab, tries: int) -> Outcome:
    """R3: the calls of so many runs, each of which saves twice."""
    failures: list[str] = []
    for _ in range(tries):
        done, calls = traced(lab, ("resume", lab.copy(_base(lab), "ordered")))
        assert done.code == 0, done.err
        failures += wrong_order(calls, NEXT)
    _, lax = traced(lab, ("resume", lab.copy(_base(lab), "lax")), sabotage="no_fsync")
    early = [*_removals(calls), *(c for c in calls if c not in _removals(calls))]
    controls = (
        control("no fsync", wrong_order(lax, NEXT), sees="fsync"),
        control("old checkpoints removed first", wrong_order(early, NEXT), sees="removed"),
    )
    return Outcome(tries, tuple(failures), controls)


def _removals(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.name in REMOVING]


def wrong_order(calls: Sequence[Call], folder: str) -> Iterator[str]:
    """What is wrong with the order of calls of one save.

    Each file: fsync, rename, fsync of its directory. The manifest, which is the pointer, comes
    after all others and after the rows of metrics it speaks for, or a crash between the two would
    lose rows (decision C). Only then goes what is old.
    """
    renames = [i for i, c in enumerate(calls) if _renames_into(c, folder)]
    if not renames:
        yield f"no file was renamed into {folder}"
        return
    for i in renames:
        temporary, name = calls[i].paths[-2:]
        if not _synced(calls[:i], temporary):
            yield f"{PurePath(name).name}: no fsync before its rename"
        until = next((k for k in renames if k > i), len(calls))
        if not _synced(calls[i:until], str(PurePath(name).parent)):
            yield f"{PurePath(name).name}: no fsync of its directory after its rename"
    commit = renames[-1]
    if PurePath(calls[commit].paths[-1]).name != MANIFEST:
        yield f"{calls[commit].paths[-1]} is renamed after the manifest"
    yield from _around_commit(calls, commit, first=renames[0])


def _around_commit(calls: Sequence[Call], commit: int, *, first: int) -> Iterator[str]:
    since = max((i for i in range(first) if _names(calls[i], MANIFEST)), default=0)
    if not any(_names(c, "metrics.jsonl") for c in calls[since:commit]):
        yield "no fsync of the metrics before the manifest"
    durable = next((i for i, c in enumerate(calls) if i > commit and c.name in DURABLE), None)
    for i, call in enumerate(calls[: durable or len(calls)]):
        if call.name in REMOVING and i > since and _in_checkpoint(call):
            yield f"{call.paths} removed before the new checkpoint was durable"


def _in_checkpoint(call: Call) -> bool:
    return any("/step-" in path or path.startswith("step-") for path in call.paths)


def _renames_into(call: Call, folder: str) -> bool:
    return call.name.startswith("rename") and PurePath(call.paths[-1]).parent.name == folder


def _synced(calls: Sequence[Call], path: str) -> bool:
    return any(c.name in ("fsync", "fdatasync") and path in c.paths for c in calls)


def _names(call: Call, name: str) -> bool:
    return any(PurePath(path).name == name for path in call.paths)
