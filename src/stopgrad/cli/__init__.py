"""The command line: parse -> config -> one public call -> print.

Results go to standard output, progress and errors to standard error. An error that the user can
put right is one line and an exit code. No torch before a command needs it.

    parser    one parser for all commands; every knob is a flag by its key path
    screen    what goes to standard output: lines and tables

Every other file is a command: `add` says what it takes, `run` does it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from stopgrad.cli.parser import parse
from stopgrad.errors import StopgradError, bad_path, exit_code, no_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `stopgrad.errors`)."""
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s")
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        options.command(options)
    except StopgradError as error:
        return _say(error)
    except KeyboardInterrupt:
        sys.stderr.write("stopgrad: interrupted\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except BaseException as error:  # Rust's panic is no Exception
        found = no_memory(error) or bad_path(error)
        if found is None:
            raise
        return _say(found)
    return 0


def _say(error: StopgradError) -> int:
    from stopgrad.evaluation import printable

    sys.stderr.write(f"stopgrad: {' '.join(printable(str(error)).splitlines())}\n")
    return exit_code(error)
