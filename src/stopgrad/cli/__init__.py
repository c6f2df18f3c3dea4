"""The command line: parse -> config -> one public call -> print.

Results go to standard output, progress and errors to standard error. An error that the user can
put right is one line and an exit code. No torch before a command needs it.

    program   the program: runs a command, turns errors into one line and an exit code
    parser    one parser for all commands; every knob is a flag by its key path
    screen    what goes to standard output: lines and tables

Every other file is a command: `add` says what it takes, `run` does it.
"""

from stopgrad.cli.program import main as main
