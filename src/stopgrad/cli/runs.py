"""The commands about a run that is there: go on with it, make it longer, check its files."""

from __future__ import annotations

import argparse
import json

from stopgrad.cli.commands import initial_weights, load_images, train
from stopgrad.cli.show import Screen, print_line
from stopgrad.cli.store import check_store
from stopgrad.config import config_from_dict, config_to_dict
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.images import is_store
from stopgrad.method import use_threads
from stopgrad.runs import (
    RunInfo,
    RunWriter,
    describe_environment,
    describe_run,
    extended,
    has_begun,
    load_checkpoint,
    read_run,
    read_status,
    verify_run,
)
from stopgrad.storage import Finding
from stopgrad.training import Weights


def resume(options: argparse.Namespace) -> None:
    """Goes on with a run, with the threads that it was begun with; --extend makes it longer."""
    info, screen = _with_changes(_pretraining(options), options), Screen()
    # Before any image is touched: a run of somebody else is not to be trusted.
    step = load_checkpoint(options.run, now=info).step if has_begun(options.run) else 0
    if options.extend not in (None, info.config.epochs):
        info = extended(info, epochs=options.extend, step=step)
        screen.line(_extension_line(info))
    elif read_status(options.run).get("state") == "finished" and step == info.steps:
        screen.line(f"{options.run} is finished; make it longer with --extend EPOCHS")
        return
    spec = options.data or info.data["spec"]
    dataset = load_images(spec, screen, config=info.config, changed="tell")
    card = info.data.get("init")
    now = describe_run(dataset, info.config, spec=spec, init=card)._replace(changes=info.changes)
    train(
        RunWriter.resume(options.run, now), dataset, screen, init=_init_anew(options, info, screen)
    )


def verify(options: argparse.Namespace) -> None:
    """Checks every file of a run or of a packed store, a line each.

    Raises:
        CheckpointError: When one of a run is not as it should be.
        DataError: When one of a store is not.
    """
    if is_store(options.run):
        for finding in check_store(options.run):
            _tell(finding, json_wanted=options.json)
        return
    findings = []
    for finding in verify_run(options.run):
        findings.append(finding)
        _tell(finding, json_wanted=options.json)
    wrong = [finding.file for finding in findings if not finding.ok]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{len(wrong)} of {len(findings)} files of {options.run} are not as they should be: "
            f"{', '.join(wrong[:3])}{more}",
            expected="the files that stopgrad wrote",
            hint="resume goes on from the newest checkpoint that is whole",
        )


def _pretraining(options: argparse.Namespace) -> RunInfo:
    info = read_run(options.run)
    if info.task != "pretrain":
        raise ConfigError(
            f"{options.run} is a run of the kind {info.task}",
            expected="a pretraining",
            hint="go on with the command that began it",
        )
    return info


def _with_changes(info: RunInfo, options: argparse.Namespace) -> RunInfo:
    """The run with the settings asked for, on this machine, with the run's own threads."""
    config = config_from_dict(config_to_dict(info.config) | options.changes)
    use_threads(config.threads or info.environment["threads"])
    environment = info.environment | describe_environment(config)
    return info._replace(config=config, environment=environment)


def _extension_line(info: RunInfo) -> str:
    """What the newest extension of a run does, and what it does not."""
    change = info.extensions[-1]
    return (
        f"extended at step {change.step} from {change.old} to {change.new} epochs: the learning "
        f"rates follow the new length from here on, so the result is not that of a run of "
        f"{change.new} epochs from the start"
    )


def _init_anew(options: argparse.Namespace, info: RunInfo, screen: Screen) -> Weights | None:
    """The weights that a run was to start from, when it has no checkpoint that holds them yet.

    Raises:
        ConfigError: When they are others now.
    """
    card = info.data.get("init")
    if card is None or has_begun(options.run):
        return None
    init = initial_weights(card["from"], screen, config=info.config)
    if init is not None and init.sha256 != card["sha256"]:
        raise ConfigError(
            f"{card['from']} has changed, sha256 {card['sha256'][:12]} -> {init.sha256[:12]}",
            expected="the weights that the run was to start from",
            hint="begin a new run",
        )
    return init


def _tell(finding: Finding, *, json_wanted: bool) -> None:
    """Whether a file is whole, its name, and what is to be said of it."""
    note = f": {finding.note}" if finding.note else ""
    line = f"{'ok ' if finding.ok else 'BAD'}  {finding.file}{note}"
    print_line(json.dumps(finding._asdict()) if json_wanted else line)
