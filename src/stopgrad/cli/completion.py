"""`stopgrad completion`: a script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

from stopgrad.cli.parser import build_parser, commands_of
from stopgrad.cli.screen import print_line
from stopgrad.config import PRESETS
from stopgrad.storage import user_path

HELP = "print the script that makes a shell complete commands and options"
EXAMPLE = 'eval "$(stopgrad completion bash)"'

WHERE = """\
Keep it in a file that the shell reads when it starts:
  bash  stopgrad completion bash > ~/.local/share/bash-completion/completions/stopgrad
  zsh   stopgrad completion zsh > a file _stopgrad in a folder of $fpath
  fish  stopgrad completion fish > ~/.config/fish/completions/stopgrad.fish"""

# What shtab gives bash splits words at their spaces.
FILES_OF_BASH = '_stopgrad_files() {\n  compgen -f -- "$1"\n}\n'


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    parser.epilog = WHERE


def run(options: argparse.Namespace) -> None:
    """Prints the script; knobs are completed too."""
    import shtab

    parser = build_parser(all_knobs=True)
    files = shtab.FILE | {"bash": "_stopgrad_files", "preamble": {"bash": FILES_OF_BASH}}
    for command in commands_of(parser):
        command.description = (command.description or "").partition(", such as\n")[0]
        for action in command._actions:
            if action.dest == "preset":
                action.choices = [*PRESETS]
            elif action.type is user_path or action.dest == "data":
                action.complete = files  # type: ignore[attr-defined]
    print_line(shtab.complete(parser, options.shell))
