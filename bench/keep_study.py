"""What is kept of studies under results/: all that their tables and reports need, and no weights.

    python bench/keep_study.py DIR OUT --spec CIFAR10

`stopgrad study table OUT` and `stopgrad report OUT` read what is kept; runs cannot go on from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stopgrad.studies import StudyDirectory


def main() -> None:
    """Keeps the studies of one directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="study directory")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--spec", required=True, help="name that stands for the data's path")
    options = parser.parse_args()
    directory = StudyDirectory(options.directory)
    names = {str(options.directory.resolve()): "STUDY"}
    for spec in {stored.data.spec for stored in directory.read_all()}:
        names |= {spec: options.spec, str(Path(spec).parent): ""} if "/" in spec else {}
    directory.keep(options.out, names=names)


if __name__ == "__main__":
    main()
