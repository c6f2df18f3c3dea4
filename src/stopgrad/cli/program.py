"""The program `stopgrad`: arguments -> an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from stopgrad.cli.devices import train_together
from stopgrad.cli.parser import parse
from stopgrad.errors import StopgradError, bad_path, no_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `errors`)."""
    _keep_quiet_unless_first()
    logging.basicConfig(level=logging.WARNING, format="stopgrad: %(message)s")
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse(words)
        if getattr(options, "devices", 1) != 1:
            return train_together(words, devices=options.devices)
        options.command(options)
    except StopgradError as error:
        return _say(error)
    except KeyboardInterrupt:
        sys.stderr.write("stopgrad: interrupted\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except BaseException as error:  # a panic of Rust is not an Exception
        found = no_memory(error) or bad_path(error)
        if found is None:
            raise
        return _say(found)
    return 0


def _keep_quiet_unless_first() -> None:
    """Of several processes that train together only the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _say(error: StopgradError) -> int:
    from stopgrad.storage import printable

    sys.stderr.write(f"stopgrad: {' '.join(printable(str(error)).splitlines())}\n")
    return error.exit_code
