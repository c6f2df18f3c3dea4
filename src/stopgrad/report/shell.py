"""Chapters, a run or a study each -> what the frame of the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


class Link(NamedTuple):
    """A way to a section."""

    target: str
    text: str


class Chapter(NamedTuple):
    """One run or one study."""

    template: str
    kind: str
    title: str
    lead: str
    links: tuple[Link, ...]  # to its sections
    content: Mapping[str, Any]  # what its template shows, with `tiles` and `missing`


def assemble(chapters: Sequence[Chapter], environment: Environment) -> dict[str, Any]:
    """The frame's content: a single chapter gives the page its title, several have one each."""
    if len(chapters) == 1:
        only = chapters[0]
        body = _body(only, environment, prefix="", level=2)
        head = {"kind": only.kind, "title": only.title, "lead": only.lead, "links": only.links}
        return head | {"intro": _intro(only, environment), "parts": [body]}
    prefixes = [f"part-{number}-" for number in range(1, len(chapters) + 1)]
    parts = [
        environment.get_template("part.html").render(
            chapter._asdict(),
            id=prefix,
            intro=_intro(chapter, environment),
            body=_body(chapter, environment, prefix=prefix, level=3),
        )
        for prefix, chapter in zip(prefixes, chapters, strict=True)
    ]
    kinds = [chapter.kind.split()[0] for chapter in chapters]
    counts = (_counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    return {
        "kind": "report",
        "title": " and ".join(counts),
        "lead": "",
        "links": [Link(p, chapter.title) for p, chapter in zip(prefixes, chapters, strict=True)],
        "intro": "",
        "parts": [_escaped(part) for part in parts],
    }


def _counted(count: int, kind: str) -> str:
    several = {"study": "studies"}.get(kind, f"{kind}s")
    return f"{count} {kind if count == 1 else several}"


def _body(chapter: Chapter, environment: Environment, *, prefix: str, level: int) -> Markup:
    template = environment.get_template(chapter.template)
    within = f", {chapter.title}" if prefix else ""  # tells regions of several chapters apart
    text = template.render(chapter.content, prefix=prefix, level=level, within=within)
    return _escaped(text)


def _intro(chapter: Chapter, environment: Environment) -> Markup:
    text = environment.get_template("intro.html").render(chapter.content)
    return _escaped(text)


def _escaped(text: str) -> Markup:
    """What a template with autoescape made."""
    from markupsafe import Markup

    return Markup(text)
