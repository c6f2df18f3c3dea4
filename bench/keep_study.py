"""What is kept of a study under results/: all that its table and its report need, and no weights.

    python bench/keep_study.py DIR OUT --spec CIFAR10

Copied are the records, cards, configs, states and the epochs' rows of metrics; left out are
checkpoints, logs, the rows of single steps and the paths of the machine. `stopgrad study table OUT`
and `stopgrad report OUT` read the copy; runs cannot be continued from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TRAINED = ("run", "run/supervised/share-*")  # where a pretraining or a supervised one lives
KEPT = (
    *("settings.json", "card.json", "attempts.jsonl", "run/records.jsonl"),
    *(f"{place}/{name}.json" for place in TRAINED for name in ("config", "status")),
    *(f"{place}/metrics.jsonl" for place in TRAINED),
    *(f"{place}/costs.jsonl" for place in (*TRAINED, "run/finetune/share-*")),
)


def main() -> None:
    """Copies one study directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="study directory")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--spec", required=True, help="name that stands for the data's path")
    options = parser.parse_args()
    names = {str(options.directory.resolve()): "STUDY"}
    for study in sorted(options.directory.glob("studies/*.json")):
        spec = json.loads(study.read_text())["data"]["spec"]
        names |= {spec: options.spec, str(Path(spec).parent): ""}
        _copy(study, options.out / "studies" / study.name, names)
    for run in sorted((options.directory / "runs").iterdir()):
        for found in (found for pattern in KEPT for found in run.glob(pattern)):
            place = options.out / "runs" / run.name / found.relative_to(run)
            _copy(found, place, names)


def _copy(source: Path, target: Path, names: dict[str, str]) -> None:
    text = source.read_text()
    if source.suffix == ".jsonl":
        lines = [line for line in text.splitlines() if not _is_step(json.loads(line))]
        text = "".join(f"{line}\n" for line in lines)
    for path, name in names.items():
        text = text.replace(f"{path}/", f"{name}/" if name else "").replace(
            f'"{path}"', f'"{name}"'
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _is_step(row: dict[str, Any]) -> bool:
    return row.get("kind") == "step"


if __name__ == "__main__":
    main()
