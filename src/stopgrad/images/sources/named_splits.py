"""Splits found by words in names -> the one to train on and the one to score.

`names.split_in` finds the words. Without a training split, images that belong to no split are
trained on, or else those called unlabelled. Of several splits to score, the first with labels is
scored. The images of all others are noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from stopgrad.images.sources.labels import Label, RawLabels, number_labels
from stopgrad.images.sources.names import UNLABELED, scored_as, split_of, to_score, why_unread
from stopgrad.images.types import Contents, Encoded, Labels, Notes, SplitReader, Unused


class NamedSplit(NamedTuple):
    """The images of a split, and what labels them."""

    word: str  # for the split, "" if there is none
    names: tuple[str, ...]  # (N,), of its images in order
    items: Callable[[], Iterator[Encoded]]
    labels: Sequence[Label] | None = None  # (N,)
    remarks: tuple[str, ...] = ()

    @property
    def raw(self) -> RawLabels | None:
        """The labels as found in the data; None where nothing holds any."""
        if self.labels is None:
            return None
        return RawLabels(self.word or "train", self.labels, self.names.__getitem__)

    @property
    def has_labels(self) -> bool:
        """Whether any label is known."""
        return self.raw is not None and bool(self.raw.known)

    def reader(self, labels: Labels | None) -> SplitReader:
        """The images, with labels (N,)."""
        return SplitReader(len(self.names), labels, self.items)


def contents_of(
    splits: Sequence[NamedSplit],
    wanted: str,
    *,
    class_names: Sequence[str] = (),
    notes: Notes = Notes(),
) -> Contents | None:
    """The two splits that are read; None if there is none to learn from.

    Args:
        splits: All that hold images.
        wanted: As for `to_score`.
        class_names: C names, where the data give them.
        notes: What else is known of the data.

    Raises:
        ConfigError: As `to_score`.
    """
    train, scored = _train_and_scored({split.word: split for split in splits}, wanted)
    if train is None:
        return None
    read = [split for split in (train, scored) if split]
    labels = number_labels(train.raw, scored.raw if scored else None, class_names=class_names)
    remarks = dict.fromkeys((*notes.remarks, *(text for split in read for text in split.remarks)))
    unread = [
        Unused("image", why_unread(split.word), split.names)
        for split in splits
        if split not in read
    ]
    called = scored_as(scored.word, {scored.word: split_of(scored.word)}, wanted) if scored else ""
    return Contents(
        labels.class_names,
        train.reader(labels.train),
        scored.reader(labels.test) if scored else None,
        Notes(tuple(remarks), (*unread, *notes.unused), called).and_those(labels.notes),
    )


def _train_and_scored(
    splits: Mapping[str, NamedSplit], wanted: str
) -> tuple[NamedSplit | None, NamedSplit | None]:
    means = {word: split_of(word) for word in splits}
    train = [word for word, meaning in means.items() if meaning == "train"]
    train += [word for word in ("", *UNLABELED) if word in means]
    if not train:
        return None, None
    several = [splits[word] for word in to_score({**means, train[0]: "train"}, wanted)]
    first = several[0] if several else None
    return splits[train[0]], next((split for split in several if split.has_labels), first)
