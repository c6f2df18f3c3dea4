"""Turns -> medians, ratios with their spread, and the Markdown table of the README.

    python bench/compare_peers_table.py results/YYYY-MM-DD-peers/peers.jsonl ...

prints the table of everything that those records hold: alone, and beside busy loops.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

OURS = "stopgrad"
PEERS = ("lightly", "lightly-train", "stable-pretraining", "torchvision", "kornia")  # packages
NOT_HERE = "not installed"  # in the place of a version
Line = dict[str, Any]

NAMES = {
    "resnet18": "training step, ResNet-18",
    "cpu": "training step, network of the `cpu` preset",
    "folder": "training from a folder of {files:,} PNG files, ResNet-18 with the ImageNet stem",
    "command": "the command on such a folder from start to end, {epochs} epochs",
    "views": "views alone, 32 px",
    "memory": "peak memory, ResNet-18",
    "lightly": "lightly, its recipe",
    "lightly-bf16": "lightly, given bf16 and channels_last",
    "lightly-train": "lightly-train, SimCLR in its precision (fp32 on a CPU)",
    "stable-pretraining": "stable-pretraining, its SimSiam in our precision",
    "torchvision": "torchvision, image by image",
    "kornia": "kornia, by the batch",
}


def main() -> None:
    """Prints the table of the records that are named."""
    texts = [Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]]
    print(markdown([json.loads(line) for text in texts for line in text.splitlines()]))


def results_of(lines: Sequence[Line]) -> list[Line]:
    """One line per contest and system of a run: its median, and ours over it in the same rounds."""
    turns = [line for line in lines if line["kind"] == "turn" and not line["discarded"]]
    turns += [turn | {"contest": "command"} for turn in turns if "command_s" in turn]
    pairs = dict.fromkeys((turn["contest"], turn["system"]) for turn in turns)
    return [_result(turns, contest, system) for contest, system in pairs]


def markdown(lines: Sequence[Line]) -> str:
    """The speed table of one run or several, with a sentence for each way of measuring."""
    head = [
        "| the same work | stopgrad | peer | ours / peer (lowest to highest) |",
        "|---|---|---|---|",
    ]
    runs = list(_runs(lines))
    rows = [row for run in runs for row in _rows(results_of(run))]
    return "\n".join([*head, *rows, "", *dict.fromkeys(map(_protocol, runs))])


def _runs(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The lines of each run: from one that says what it is about to the next."""
    starts = [number for number, line in enumerate(lines) if line["kind"] == "about"]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start:end]


def _rows(results: Sequence[Line]) -> list[str]:
    ours = {result["contest"]: result for result in results if result["system"] == OURS}
    peers = [r for r in results if r["system"] != OURS and r["contest"] in ours]
    alone = [r for name, r in ours.items() if name not in {peer["contest"] for peer in peers}]
    rows = [_row(ours[peer["contest"]], peer) for peer in peers]
    return rows + [f"| {_work(result)} | {_value(result)} | | |" for result in alone]


def _result(turns: Sequence[Line], contest: str, system: str) -> Line:
    mine, ours = (_by_round(turns, contest, who) for who in (system, OURS))
    first = next(iter(mine.values()))
    found: Line = {"kind": "result", "contest": contest, "system": system, "batch": first["batch"]}
    found |= {key: first[key] for key in ("beside", "files", "epochs") if first.get(key)}
    found["peak_bytes"] = max(turn["peak_bytes"] for turn in mine.values())
    if contest == "memory":
        return found
    key = _measured(contest)
    found[key] = _spread([turn[key] for turn in mine.values()])
    shared = [number for number in mine if number in ours]
    if system != OURS and shared:
        found["ours_over_it"] = _spread([ours[n][key] / mine[n][key] for n in shared])
    return found


def _measured(contest: str) -> str:
    return "command_s" if contest == "command" else "views_per_s"


def _by_round(turns: Sequence[Line], contest: str, system: str) -> dict[int, Line]:
    """The turns of one system in one contest, by their rounds."""
    wanted = [t for t in turns if (t["contest"], t["system"]) == (contest, system)]
    return {turn["round"]: turn for turn in wanted}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": median(values),
        "low": min(values),
        "high": max(values),
        "turns": len(values),
    }


def _row(ours: Line, peer: Line) -> str:
    ratio = ""
    if "ours_over_it" in peer:
        spread = peer["ours_over_it"]
        ratio = f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
    name = NAMES.get(peer["system"], peer["system"])
    return f"| {_work(ours)} | {_value(ours)} | {_value(peer)}: {name} | {ratio} |"


def _work(result: Line) -> str:
    work = NAMES[result["contest"]].format_map(result)
    batch = "" if result["contest"] == "views" else f", batch {result['batch']}"
    loops = f", beside {result['beside']} busy loops" if result.get("beside") else ""
    return work + batch + loops


def _value(result: Line) -> str:
    if "command_s" in result:
        return f"{result['command_s']['median']:.1f} s"
    if "views_per_s" not in result:
        return f"{result['peak_bytes'] / 1e9:.2f} GB"
    rate = result["views_per_s"]["median"]
    return f"{rate:,.1f} views/s" if rate < 1000 else f"{rate:,.0f} views/s"


def _protocol(lines: Sequence[Line]) -> str:
    about, turns = lines[0], [line for line in lines if line["kind"] == "turn"]
    settings, device = about["settings"], turns[0]["device"]
    where = about["processor"] if device == "cpu" else turns[0]["device_name"]
    names = [name for name in PEERS if about["versions"].get(name, NOT_HERE) != NOT_HERE]
    packages = ", ".join(f"{name} {about['versions'][name]}" for name in ("torch", *names))
    return (
        f"CIFAR-10, data included, on {where} ({about['cores']} cores, {settings['threads']} "
        f"threads, {settings['workers']} loader workers); {packages}; medians of "
        f"{settings['rounds']} turns taken alternately in one run, the ratio within each round."
    )


if __name__ == "__main__":
    main()
