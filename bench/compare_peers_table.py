"""Turns -> medians, ratios with their spread, and the Markdown table of the README."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

OURS = "stopgrad"
Line = dict[str, Any]

NAMES = {
    "resnet18": "training step, ResNet-18",
    "cpu": "training step, network of the `cpu` preset",
    "views": "views alone, 32 px",
    "memory": "peak memory, ResNet-18",
    "lightly": "lightly, its recipe",
    "lightly-bf16": "lightly, given bf16 and channels_last",
    "torchvision": "torchvision, image by image",
    "kornia": "kornia, by the batch",
}


def results_of(lines: Sequence[Line]) -> list[Line]:
    """One line per contest and system: its median, and ours over it in the same rounds."""
    turns = [line for line in lines if line["kind"] == "turn" and not line["discarded"]]
    pairs = dict.fromkeys((turn["contest"], turn["system"]) for turn in turns)
    return [_result(turns, contest, system) for contest, system in pairs]


def markdown(results: Sequence[Line], lines: Sequence[Line]) -> str:
    """The speed table, with a sentence that says how it was measured."""
    ours = {result["contest"]: result for result in results if result["system"] == OURS}
    head = [
        "| the same work | stopgrad | peer | ours / peer (lowest to highest) |",
        "|---|---|---|---|",
    ]
    peers = [r for r in results if r["system"] != OURS and r["contest"] in ours]
    alone = [r for name, r in ours.items() if name not in {peer["contest"] for peer in peers}]
    rows = [_row(ours[peer["contest"]], peer) for peer in peers]
    rows += [f"| {_work(result)} | {_value(result)} | | |" for result in alone]
    return "\n".join([*head, *rows, "", _protocol(lines)])


def _result(turns: Sequence[Line], contest: str, system: str) -> Line:
    mine, ours = (_by_round(turns, contest, who) for who in (system, OURS))
    first = next(iter(mine.values()))
    found: Line = {"kind": "result", "contest": contest, "system": system, "batch": first["batch"]}
    found["peak_bytes"] = max(turn["peak_bytes"] for turn in mine.values())
    if contest == "memory":
        return found
    found["views_per_s"] = _spread([turn["views_per_s"] for turn in mine.values()])
    shared = [number for number in mine if number in ours]
    if system != OURS and shared:
        rates = [ours[n]["views_per_s"] / mine[n]["views_per_s"] for n in shared]
        found["ours_over_it"] = _spread(rates)
    return found


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
    batch = "" if result["contest"] == "views" else f", batch {result['batch']}"
    return NAMES[result["contest"]] + batch


def _value(result: Line) -> str:
    if "views_per_s" not in result:
        return f"{result['peak_bytes'] / 1e9:.2f} GB"
    rate = result["views_per_s"]["median"]
    return f"{rate:,.1f} views/s" if rate < 1000 else f"{rate:,.0f} views/s"


def _protocol(lines: Sequence[Line]) -> str:
    about, turns = lines[0], [line for line in lines if line["kind"] == "turn"]
    settings, device = about["settings"], turns[0]["device"]
    where = about["processor"] if device == "cpu" else turns[0]["device_name"]
    names = ("torch", "lightly", "torchvision", "kornia")
    packages = ", ".join(f"{name} {about['versions'][name]}" for name in names)
    return (
        f"CIFAR-10, data included, on {where} ({about['cores']} cores, {settings['threads']} "
        f"threads, {settings['workers']} loader workers); {packages}; medians of "
        f"{settings['rounds']} turns taken alternately in one run, the ratio within each round."
    )
