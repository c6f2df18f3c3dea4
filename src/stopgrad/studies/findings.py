"""Published findings compared with our numbers, and the sentence that a table ends with.

Arms share seeds and data, so their differences are tested paired by seed; Welch's test, which
ignores the pairs, is given as well.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from stopgrad.evaluation import (
    ACCURACIES,
    SIGNIFICANCE,
    Cell,
    Paired,
    Welch,
    accuracy_text,
    arms_text,
    corrected,
    correction_text,
    difference_text,
    distance_text,
    labels_text,
    metric_text,
    p_text,
    paired,
    smallest_visible,
    welch,
)
from stopgrad.studies.definition import PublishedFinding
from stopgrad.studies.results import COLLAPSE, Results, diverged_later

Answer = Literal[
    "shows",
    "does not show",  # of collapse, which is counted, not tested
    "the opposite shows",
    "not separable with these seeds",
    "cannot be told yet",
]
ANSWERS: tuple[Answer, ...] = get_args(Answer)


class Answered(NamedTuple):
    """A published finding and what our numbers say about it."""

    finding: PublishedFinding
    answer: Answer
    why: str
    tested: Tested | None = None


class Tested(NamedTuple):
    """A comparison of two arms; p is corrected for the number of findings that were tested."""

    paired: Paired
    p: float
    welch: Welch
    p_of_welch: float
    visible: float  # the smallest difference that this many seeds could see


def answer_findings(results: Results) -> list[Answered]:
    """Every finding of the study, tested together under the study's correction."""
    findings, correction = results.stored.study.findings, results.stored.study.protocol.correction
    found = {number: _tests(finding, results) for number, finding in enumerate(findings)}
    pairs = {number: both for number, both in found.items() if both is not None}
    p = corrected([test.p for test, _ in pairs.values()], correction)
    p_of_welch = corrected([test.p for _, test in pairs.values()], correction)
    tested = {
        number: Tested(test, own, welch, its, _visible(findings[number], results, test))
        for (number, (test, welch)), own, its in zip(pairs.items(), p, p_of_welch, strict=True)
    }
    return [
        _compared(finding, results, tested.get(number))
        if finding.higher is not None
        else _collapse(finding, results)
        for number, finding in enumerate(findings)
    ]


def sentence(results: Results) -> str:
    """What the first metric says with the most labels: best, level with it, what collapsed."""
    metric = next((m for m in results.stored.study.protocol.metrics if m in ACCURACIES), None)
    rows = [row for row in results.rows if row.place.metric == metric and row.mark is not None]
    if not rows:
        return _without_arms_to_compare(results)
    labels = max(row.place.labels for row in rows)
    marks = {row.place.arm: row for row in rows if row.place.labels == labels}
    best = next(row for row in marks.values() if row.mark == "best")
    level = [arm for arm, row in marks.items() if row.mark == "level"]
    untested = [arm for arm, row in marks.items() if row.mark == "untested"]
    assert best.cell.summary is not None
    text = (
        f"By {metric_text(best.place.metric)} with {labels_text(labels)}, {best.place.arm!r} "
        f"is best ({accuracy_text(best.cell.summary)})"
    )
    if len(level) == len(marks) - 1 > 2:
        text += f"; none of the other {len(level)} arms is separated from it"
    elif level:
        text += f"; {arms_text(level)} {'is' if len(level) == 1 else 'are'} not separated from it"
    elif not untested:
        text += "; every other arm that has a number lies below it"
    if untested:
        text += f"; {arms_text(untested)} cannot be tested (fewer than two seeds in common)"
    return text + f"{_ends(results)} ({correction_text(results.stored.study.protocol.correction)})."


def _without_arms_to_compare(results: Results) -> str:
    """The findings that show, where no metric has two arms with numbers."""
    decided = [a for a in answer_findings(results) if a.answer != "cannot be told yet"]
    if not decided:
        return _only_number(results)
    says = {answer: [a.finding.says for a in decided if a.answer == answer] for answer in ANSWERS}
    shown = says["shows"]
    parts = [f"{len(shown)} show{'s' if len(shown) == 1 else ''} here"]
    parts[0] += f": {'; '.join(shown)}" if shown else ""
    if opposite := len(says["the opposite shows"]):
        parts.append(f"of {opposite} the opposite shows")
    if missed := len(says["does not show"]):
        parts.append(f"{missed} do{'es' if missed == 1 else ''} not show")
    if unseen := len(says["not separable with these seeds"]):
        parts.append(f"{unseen} {'is' if unseen == 1 else 'are'} not separable with these seeds")
    correction = correction_text(results.stored.study.protocol.correction)
    findings = "finding" if len(decided) == 1 else "findings"
    return f"Of {len(decided)} {findings}, {'; '.join(parts)} ({correction})."


def _only_number(results: Results) -> str:
    """The result of the only arm that has a number, as none can be compared with another."""
    found = [
        (place, cell.summary)
        for place, cell in results.cells.items()
        if place.metric in ACCURACIES and cell.summary is not None
    ]
    ends = _ends(results)
    if not found:
        return f"No arm has a number{ends or ' yet'}."
    place, summary = max(found, key=lambda pair: pair[0].labels)
    return (
        f"By {metric_text(place.metric)} with {labels_text(place.labels)}, {place.arm!r} reaches "
        f"{accuracy_text(summary)}, and no other arm has a number to compare{ends}."
    )


def _ends(results: Results) -> str:
    """How the runs ended that did not end well, by arm."""
    parts = []
    for arm in results.stored.study.arms:
        cells = [cell for place, cell in results.cells.items() if place.arm == arm.name]
        found = _collapse_of(results, arm.name)
        diverged = max((cell.diverged for cell in cells), default=0) - found.diverged
        failed = max((cell.failed for cell in cells), default=0)
        ends = [found.text] if found.collapsed else []
        ends += [f"{diverged} of {found.runs} diverged"] if diverged else []
        ends += [f"{failed} of {found.runs} failed"] if failed else []
        parts += [f"{arm.name!r}: {', '.join(ends)}"] if ends else []
    return "; " + "; ".join(parts) if parts else ""


def _tests(finding: PublishedFinding, results: Results) -> tuple[Paired, Welch] | None:
    """A finding's comparison, paired and by Welch; None if it compares nothing or lacks runs."""
    cells, pairs = results.cells, results.pairs
    if finding.higher not in cells or finding.than not in cells:
        return None
    higher, than = cells[finding.higher].summary, cells[finding.than].summary
    test = paired(pairs[finding.higher], pairs[finding.than], margin=finding.margin)
    if test is None or higher is None or than is None:
        return None
    beside = welch(higher, than, margin=finding.margin)
    assert beside is not None  # two pairs are two runs of each
    return test, beside


def _visible(finding: PublishedFinding, results: Results, test: Paired) -> float:
    """Smallest visible difference, from the spread of all arms of the column that never collapsed.

    If the finding compares two columns, or arms with collapsed runs: from its own spread.
    """
    assert finding.higher is not None
    assert finding.than is not None
    column = finding.higher.metric, finding.higher.labels
    pooled = finding.than[1:] == column and not any(
        results.cells[place].collapsed_in_all for place in (finding.higher, finding.than)
    )
    spread = results.spread(*column) if pooled else None
    return smallest_visible(test.std if spread is None else spread, test.n)


def _compared(finding: PublishedFinding, results: Results, tested: Tested | None) -> Answered:
    if tested is None:
        return Answered(finding, "cannot be told yet", "it takes two seeds that both arms have")
    assert finding.higher is not None
    assert finding.than is not None
    metric, test, tests = finding.higher.metric, tested.paired, len(results.stored.study.findings)
    opposite, its_opposite = (min(1.0, (1 - t.p) * tests) for t in (test, tested.welch))
    answer: Answer = "not separable with these seeds"
    said, beside = p_text(tested.p), p_text(tested.p_of_welch)
    if tested.p < SIGNIFICANCE:
        answer = "shows"
    elif opposite < SIGNIFICANCE:
        answer, beside = "the opposite shows", p_text(its_opposite)
        said = f"{p_text(opposite)} of the opposite (Bonferroni)"
    why = difference_text(test.difference, metric)
    if finding.margin:
        why += f" from {finding.than.arm!r} to {finding.higher.arm!r}"
    why += f", {said}, n = {test.n} pairs"
    cells = [results.cells[place] for place in (finding.higher, finding.than)]
    if any(cell.collapsed_in_all for cell in cells):
        why += f" (collapsed: {' against '.join(map(_collapsed, cells))})"
    why += f"; unpaired (Welch) {beside}"
    if answer == "not separable with these seeds":
        why += f"; {test.n} pairs could see {distance_text(tested.visible, metric)} (uncorrected)"
    return Answered(finding, answer, why, tested)


def _collapsed(cell: Cell) -> str:
    """How many of the runs behind a mean collapsed, so that it does not hide them."""
    assert cell.summary is not None
    return f"{cell.collapsed_in_all} of {cell.summary.n}"


def _collapse(finding: PublishedFinding, results: Results) -> Answered:
    arms = (*finding.collapses, *finding.survives)
    found = {arm: _collapse_of(results, arm) for arm in arms}
    why = "; ".join(f"{arm!r}: {found[arm].text}" for arm in arms)
    if not all(arm.runs and arm.ended == arm.runs for arm in found.values()):
        return Answered(finding, "cannot be told yet", why)
    shows = all(found[arm].collapsed == found[arm].runs for arm in finding.collapses)
    shows = shows and not any(found[arm].collapsed for arm in finding.survives)
    return Answered(finding, "shows" if shows else "does not show", why)


class _Collapse(NamedTuple):
    """The number of an arm's runs, of those whose end is known, and of those that collapsed."""

    runs: int
    ended: int
    collapsed: int
    dimensional: int  # of the collapsed
    diverged: int  # of the collapsed, after their last verdict

    @property
    def text(self) -> str:
        """`3 of 3 collapsed (1 to a few dimensions), of which 1 diverged later`."""
        few = f" ({self.dimensional} to a few dimensions)" if self.dimensional else ""
        later = f", of which {self.diverged} diverged later" if self.diverged else ""
        return f"{self.collapsed} of {self.runs} collapsed{few}{later}"


def _collapse_of(results: Results, arm: str) -> _Collapse:
    cells = [cell for place, cell in results.cells.items() if place.arm == arm]
    runs = max((len(cell.values) for cell in cells), default=0)
    unended = min((cell.diverged + cell.failed + cell.missing for cell in cells), default=0)
    collapsed = max((cell.collapsed_in_all for cell in cells), default=0)
    few = max((cell.dimensional for cell in cells), default=0)
    own = {slot.run for slot in results.stored.slots if slot.arm == arm}
    later = [results.runs[run].state.verdict for run in own if diverged_later(results.runs[run])]
    few += sum(COLLAPSE[verdict] == "dimensional" for verdict in later)
    ended, collapsed = runs - unended + len(later), collapsed + len(later)
    return _Collapse(runs, ended, collapsed, few, len(later))
