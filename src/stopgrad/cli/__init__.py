"""The command line: parse -> config -> one public call -> print.

Results go to standard output, progress and errors to standard error. A user error is one line and
an exit code. torch is imported only by the commands that need it.

    program   runs a command; turns errors into one line and an exit code
    parser    one parser for all commands; every knob is a flag by its key path
    guesses   what a mistaken command, name or flag was meant to be
    screen    prints lines and tables
    devices   the same command in several processes

Every other file is a command: `add` adds its options, `run` runs it.
"""

from stopgrad.cli.program import main as main
