"""What testing a promise comes to: tries, failures, and whether the negative controls failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.promises.lab import Lab


class Control(NamedTuple):
    """A negative control: the same test with the product or the evidence sabotaged."""

    sabotage: str
    found: tuple[str, ...]  # the failures that the test saw; none: the test is blind


class Outcome(NamedTuple):
    """The result of testing one promise."""

    tries: int
    failures: tuple[str, ...]
    controls: tuple[Control, ...]
    measured: Mapping[str, Any] = MappingProxyType({})  # what else was counted, ready for JSON

    @property
    def kept(self) -> bool:
        """No failure, and every negative control was caught."""
        return not self.failures and all(control.found for control in self.controls)


class Promise(NamedTuple):
    """A row of docs/reliability.md; `check` is None where there is nothing to test, and why."""

    name: str
    claim: str
    check: Callable[[Lab, int], Outcome] | None
    quick: int  # tries on every commit, 0: only with --full
    full: int
    parts: int = 1  # that --full tests one by one or at the same time
    why_not: str = ""
    one_machine: str = ""  # why it is tested as usual where commands are to be apart
    together: Callable[[Outcome], list[str]] = lambda outcome: []  # failures of all parts as one


def join(parts: Sequence[Outcome]) -> Outcome:
    """Parts of one test as one. Counts are added; of what begins with `most` the most is taken."""
    controls: dict[str, Control] = {}
    for control in (control for part in parts for control in part.controls):
        known = controls.setdefault(control.sabotage, control)
        if not control.found:  # one that was not caught once is not caught
            controls[known.sabotage] = control
    measured: dict[str, Any] = {}
    for key, value in ((key, value) for part in parts for key, value in part.measured.items()):
        before = measured.get(key)
        if before is None or isinstance(value, str):
            measured[key] = value
        else:
            measured[key] = max(before, value) if key.startswith("most") else before + value
    failures = tuple(failure for part in parts for failure in part.failures)
    tries = sum(part.tries for part in parts)
    return Outcome(tries, failures, tuple(controls.values()), measured)


class NotRunError(Exception):
    """A test that cannot be run here; its reason."""


def control(sabotage: str, found: Iterable[str], *, sees: str) -> Control:
    """A control, caught only by failures that say what this sabotage must lead to.

    Args:
        sabotage: What was broken.
        found: All failures that the test saw.
        sees: A part of the failure that counts, so that an unrelated crash is no proof.
    """
    return Control(sabotage, tuple(failure for failure in found if sees in failure))
