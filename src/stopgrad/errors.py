"""The tree of user errors, each with the exit code of the process that ends with it.

    StopgradError                        1
    |-- ConfigError                      2
    |-- DataError                        3
    |-- DivergedError                    4
    |-- CollapsedError                   4
    |-- StorageError                     5
    |   `-- UnreadableError              5
    |-- NoMemoryError                    5
    |-- LostProcessError                 1
    |-- LockedError                      6
    |-- CheckpointError                  7
    |   `-- runs.checkpoint.DamagedError 7
    |-- FailedRunsError                  8
    |-- InterruptedRunError              128 + signal
    `-- InterruptedStudyError            128 + signal

Such an error is one line: what is wrong, then what to do. Any other exception is a bug in stopgrad
and keeps its traceback.
"""

import errno
import os
import re
from collections.abc import Iterable
from shlex import quote
from typing import Any


class StopgradError(Exception):
    """A user error: one line and an exit code.

    Args:
        found: What is wrong, as a clause without a full stop.
        expected: What was expected instead; may be left out.
        hint: The next step for the user; may be left out.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", hint: str = "") -> None:
        self.found = found
        self.expected = expected
        self.hint = hint
        wanted = f"expected {expected}" if expected else ""
        super().__init__("; ".join(part for part in (found, wanted, hint) if part))


class ConfigError(StopgradError):
    """An invalid setting, flag or combination of them."""

    exit_code = 2


class DataError(StopgradError):
    """Images or labels that are missing, damaged or unsuitable."""

    exit_code = 3


class DivergedError(StopgradError):
    """The loss or a gradient is not finite; the step was not taken."""

    exit_code = 4


class CollapsedError(StopgradError):
    """The representation collapsed, and the config says to stop then."""

    exit_code = 4


class StorageError(StopgradError):
    """The disk is full, read-only or refuses to write for another reason."""

    exit_code = 5


class UnreadableError(StorageError):
    """The disk, or the server behind it, cannot be read; no file is at fault."""


class NoMemoryError(StopgradError):
    """The machine or the GPU ran out of memory; files on disk are complete."""

    exit_code = 5


class LostProcessError(StopgradError):
    """Another process of a training ended or fell silent; the checkpoints on disk are whole."""


class LockedError(StopgradError):
    """Another process is writing to the same run directory."""

    exit_code = 6


class CheckpointError(StopgradError):
    """A checkpoint that is damaged, of another program or not trustworthy."""

    exit_code = 7


class InterruptedRunError(StopgradError):
    """A signal stopped the run after it saved; resuming loses nothing.

    Args:
        signal_number: Of `STOP_SIGNALS`; 2 (SIGINT) gives exit code 130, 15 (SIGTERM) 143.
        step: The step at which the state was saved.
        run: The run directory, as the user named it.
        hint: The next step. Default: resume that run.
    """

    def __init__(self, signal_number: int, *, step: int, run: str, hint: str = "") -> None:
        super().__init__(
            f"stopped by signal {signal_number}, saved at step {step}",
            hint=hint or f"continue with: stopgrad resume {quote(run)}",
        )
        self.exit_code = 128 + signal_number


class InterruptedStudyError(StopgradError):
    """A signal stopped a study after its runs had saved; running it again loses nothing.

    Args:
        signal_number: Of `STOP_SIGNALS`; 2 (SIGINT) gives exit code 130, 15 (SIGTERM) 143.
        study: The study directory, as the user named it.
    """

    def __init__(self, signal_number: int, *, study: str) -> None:
        super().__init__(
            f"stopped by signal {signal_number}, all runs saved",
            hint=f"repeat the command to continue {study}",
        )
        self.exit_code = 128 + signal_number


class FailedRunsError(StopgradError):
    """A study ended, and some of its runs failed."""

    exit_code = 8


# How Python, PyTorch (CPU and GPU), oneDNN, the dynamic loader, C++ and Rust report it.
_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|failed to map segment|bad_alloc"
    r"|can't start new thread|failed to launch worker thread|PyObject pointer is null"
    r"|could not create a (memory|primitive$)",
    re.IGNORECASE,
)
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


def no_memory(error: BaseException) -> NoMemoryError | None:
    """The user error if an error says that memory ran out; None otherwise."""
    text = str(error)
    if not isinstance(error, MemoryError) and not _NO_MEMORY.search(text):
        return None
    whose = "the memory of the GPU" if "CUDA" in text else "the memory"
    asked = _ASKED.search(text)
    cause = f"{asked[1]} more requested" if asked else " ".join(text.split())[:200]
    return NoMemoryError(
        f"{whose} ran out{f' ({cause})' if cause else ''}",
        expected="memory for the images, the network and a batch",
        hint="give the process more memory and repeat the command or resume the run, or start a "
        "run with a smaller batch, smaller views or a smaller network",
    )


# Errors of the system that a user can correct.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR)


def bad_path(error: BaseException) -> ConfigError | None:
    """The user error if an error of the system is about a path; None otherwise."""
    if not isinstance(error, OSError) or error.errno not in _PATH_ERRORS:
        return None
    if not isinstance(error.filename, str | bytes):
        return None
    path = os.fsdecode(error.filename)
    named = repr(path) if len(path) <= 200 else f"{path[:80]!r}... ({len(path):,} characters)"
    return ConfigError(
        f"{named}: {error.strerror}",
        expected="a valid path with the necessary permissions",
        hint="choose another path, or correct its permissions",
    )


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """` (did you mean X?)` with the most similar known names, or nothing."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    known = error if isinstance(error, StopgradError) else no_memory(error)
    if known is None:
        return {"kind": "", "text": f"{type(error).__name__}: {error}"[:2000], "code": 1}
    return {"kind": type(known).__name__, "text": str(known), "code": known.exit_code}


def error_from_json(values: dict[str, Any]) -> StopgradError:
    """The error that another process reported, with its exit code."""
    kinds = {kind.__name__: kind for kind in _below(StopgradError)}
    kind = kinds.get(values["kind"], StopgradError)
    error: StopgradError = kind.__new__(kind)
    StopgradError.__init__(error, values["text"])
    error.exit_code = values["code"]
    return error


def _below(kind: type[StopgradError]) -> list[type[StopgradError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in _below(sub))]
