"""A state dict of another tool -> which of its tensors are the encoder's, by the encoder's names.

Other tools save the encoder under a prefix (`module.encoder.`, `student.backbone.`), beside a
classifier, a projector or a second network. The names of torchvision and timm are the encoder's
own; lightly numbers the layers of torchvision's ResNet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from stopgrad.errors import ConfigError
from stopgrad.storage import as_text

NUMBERED = {  # nn.Sequential(*resnet.children()), whose ReLU and max-pool have no tensors
    **{"conv1": "0", "bn1": "1"},
    **{"layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"},
}
FOLLOWERS = ("teacher", "momentum", "target", "ema", "encoder_k")  # averages of a trained network
HEADS = ("head", "fc", "classifier")  # left out even where the encoder has a part of that name
NAMED = 4  # groups of tensors that a line names


class Naming(NamedTuple):
    """How a file names the tensors of an encoder, and what else it holds."""

    prefix: str
    names: dict[str, str]  # the file's name of a tensor, by the encoder's own
    strange: list[str]  # names where the encoder's should be, such as those of a further stage
    left_out: dict[str, int]  # how many other tensors there are, by the part that they belong to

    @property
    def remark(self) -> str:
        """Where the encoder was found and what was left out, in one line; empty if nothing was."""
        groups = [f"{as_text(name)} ({count})" for name, count in self.left_out.items()]
        more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
        total = sum(self.left_out.values())
        others = f"{total} other tensors left out: {', '.join(groups[:NAMED])}{more}"
        place = f"found as {as_text(self.prefix)}*" if self.prefix else ""
        return "; ".join(filter(None, (place, others if groups else "")))


def naming_of(found: Iterable[str], wanted: Iterable[str]) -> Naming:
    """Where an encoder is in a file: below the prefix that leads to most of its names.

    Args:
        found: Every name in the file.
        wanted: The encoder's names.

    Raises:
        ConfigError: When several networks fit equally well.
    """
    found, plain = dict.fromkeys(found), {name: name for name in wanted}
    spellings = [plain, {name: _numbered(name) for name in plain}]
    counts = [_prefixes(found, spelled.values()) for spelled in spellings]
    best = max((0, 1), key=lambda n: max(counts[n].values(), default=0))  # 0 where they are equal
    prefix, spelled = _best(counts[best], of=len(plain)), spellings[best]
    names = {own: prefix + name for own, name in spelled.items() if prefix + name in found}
    tops = {_stem(name) for name in spelled.values()}
    taken, strange, left_out = {*names.values()}, [], Counter[str]()
    for name in found:
        if name.startswith(prefix) and _stem(name.removeprefix(prefix)) in tops - {*HEADS}:
            strange += [name] if name not in taken else []
        elif name not in taken:
            left_out[_part(name, prefix)] += 1
    return Naming(prefix, names, strange, dict(left_out))


def _numbered(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{NUMBERED.get(first, first)}{dot}{rest}"


def _prefixes(found: Iterable[str], names: Iterable[str]) -> Counter[str]:
    """How many of the names each prefix leads to."""
    names, counts = set(names), Counter[str]()
    longest = 1 + max((name.count(".") for name in names), default=0)
    for parts in (name.split(".") for name in found):
        for start in range(max(0, len(parts) - longest), len(parts)):
            if ".".join(parts[start:]) in names:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return counts


def _best(counts: Counter[str], *, of: int) -> str:
    """The prefix with the highest count; of a network and its average, the network."""
    most = max(counts.values(), default=0)
    equal = [prefix for prefix, count in counts.items() if count == most]
    equal = [p for p in equal if not any(word in p for word in FOLLOWERS)] or equal
    if len(equal) > 1 and 2 * most > of:
        raise ConfigError(
            f"{len(equal)} networks in the file fit: {', '.join(map(as_text, equal[:NAMED]))}",
            expected="one",
            hint="take one with: stopgrad import-weights FILE --prefix PREFIX --out FILE",
        )
    return equal[0] if equal else ""


def _stem(name: str) -> str:
    """The first part of a name without its number: `layer` of `layer4.0.conv1.weight`."""
    return name.partition(".")[0].rstrip("0123456789")


def _part(name: str, prefix: str) -> str:
    """The part of a file that a tensor belongs to: its name up to where it leaves the prefix."""
    parts, along = name.split("."), prefix.split(".")
    shared = 0
    while shared < min(len(parts), len(along)) and parts[shared] == along[shared]:
        shared += 1
    return ".".join(parts[: shared + 1])
