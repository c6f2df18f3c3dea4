"""How long threads of OpenMP should wait awake: the `cpu` preset's step for several spin counts.

    python bench/spin_count.py --counts 500 2000 5000 10000 --rounds 8 --out OUT

Each turn is a process of its own with GOMP_SPINCOUNT set (`default`: unset), and measures the step
alone and beside as many busy loops as there are cores, with one thread and one per core. Counts
take turns, so compare those of one round. Writes OUT/spin_count.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

MEASURE = """
import json, sys
from stopgrad.config import preset
from stopgrad.speed.beside import measure_beside
from stopgrad.speed.steps import Effort
effort = Effort(images=4096, embedded=0, repeats=1, seconds=float(sys.argv[1]))
config = preset("cpu", epochs=10_000, device="cpu")
for found in measure_beside(config, effort, loops=int(sys.argv[2])):
    print(json.dumps({"threads": found.threads, "alone": found.alone_views_per_s.median,
                      "beside": found.beside_views_per_s.median}))
"""


def main() -> None:
    """Measures the counts by turns and prints a line for each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", nargs="+", default=["default", "500", "2000", "5000", "20000"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "spin_count.jsonl").open("a") as file:
        for number in range(options.rounds):
            for count in options.counts:
                for line in turn(count, seconds=options.seconds):
                    file.write(json.dumps({"round": number, "count": count} | json.loads(line)))
                    file.write("\n")
                    file.flush()


def turn(count: str, *, seconds: float) -> list[str]:
    """The lines of one process."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    if count != "default":
        environment["GOMP_SPINCOUNT"] = count
    words = [sys.executable, "-c", MEASURE, str(seconds), str(os.cpu_count())]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    main()
