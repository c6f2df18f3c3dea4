"""The command line: parse -> config -> one public call -> print.

Results go to standard output, progress and errors to standard error. An error that the user can
mend is one line and an exit code. No torch before a command needs it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from stopgrad.cli.parser import parse
from stopgrad.errors import StopgradError, bad_path, no_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (docs/reliability.md, decision D)."""
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s")
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        command.run(command.options)
    except StopgradError as error:
        return _tell(error)
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
        return _tell(found)
    return 0


def _tell(error: StopgradError) -> int:
    from stopgrad.storage import printable

    sys.stderr.write(f"stopgrad: {' '.join(printable(str(error)).splitlines())}\n")
    return error.exit_code
