"""A config -> the drawing of SimSiam with its stop-gradient; what a run left out is shown so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.config import Config
from stopgrad.report.figures.palette import Role, drawn_from, layered, light, styled

if TYPE_CHECKING:
    import altair as alt

TOP, BOTTOM, MIDDLE = 40, 166, 103  # y of the two branches and between them, px
ENCODER, PROJECTOR, PREDICTOR, LOSS = 130, 236, 360, 480  # x of the middle of each part, px


class Box(NamedTuple):
    """A part of the network, px from the top left."""

    x: float
    y: float
    title: str
    note: str
    present: bool = True
    width: float = 88
    height: float = 50


class Arrow(NamedTuple):
    """An arrow from one point to another."""

    x: float
    y: float
    x2: float
    y2: float
    role: Role = "muted"


def architecture_chart(config: Config) -> alt.LayerChart:
    """One image, two views, one encoder with its heads, and where the gradient flows.

    Drawn for the first of the two symmetric terms of the loss. A removed part has a dashed red
    outline and says so.
    """
    boxes, arrows = _boxes(config), _arrows(config)
    texts = [text for box in boxes for text in _box_texts(box)] + _labels(config)
    layers = [
        _lines(arrows),
        _heads(arrows),
        *(_rectangles(boxes, present=present) for present in (True, False)),
        *_stop(config),
        *(_texts(texts, size=size) for size in (11, 13)),
    ]
    chart: alt.LayerChart = styled(
        layered(*layers, width=530, height=232).configure_view(stroke=None)
    )
    return chart


def _boxes(config: Config) -> list[Box]:
    projector, predictor = config.projector, config.predictor
    widths = f"{projector.hidden} → {projector.out}"
    parts = [
        (ENCODER, "encoder f", config.encoder.name.removeprefix("timm:")[:14]),
        (PROJECTOR, "projector g", widths),
    ]
    both = [Box(x, y, title, note) for x, title, note in parts for y in (TOP, BOTTOM)]
    note = f"{projector.out} → {predictor.hidden} → {projector.out}"
    head = Box(PREDICTOR, TOP, "predictor h", note if predictor.enabled else "removed")
    shown = head._replace(present=predictor.enabled, width=120)
    loss = Box(LOSS, MIDDLE, "loss", "−cos(p1, z2)", width=92)
    view = [Box(34, y, name, f"{config.views.size} px", width=60) for y, name in _views()]
    lost = [name for name, there in _norms(config) if not there]
    over = {name: PROJECTOR if "g" in name else PREDICTOR for name in lost}
    missing = [
        Box(over[name], TOP + 37 + 19 * lost.index(name), "", f"{name} removed", False, 124, 16)
        for name in lost
    ]
    return [*view, *both, shown, loss, *missing]


def _norms(config: Config) -> list[tuple[str, bool]]:
    """Every BN of the heads, and whether it is there."""
    projector, predictor = config.projector, config.predictor
    return [
        ("output BN of g", projector.output_bn),
        ("hidden BN of g", projector.hidden_bn),
        ("hidden BN of h", predictor.hidden_bn or not predictor.enabled),
    ]


def _views() -> tuple[tuple[float, str], ...]:
    return ((TOP, "view x1"), (BOTTOM, "view x2"))


def _arrows(config: Config) -> list[Arrow]:
    joints = [(64, ENCODER - 44), (ENCODER + 44, PROJECTOR - 44)]
    both = [Arrow(a, y, b, y) for a, b in joints for y in (TOP, BOTTOM)]
    role: Role = "first"
    upper = [
        Arrow(PROJECTOR + 44, TOP, PREDICTOR - 60, TOP),
        Arrow(PREDICTOR + 60, TOP, LOSS - 8, MIDDLE - 25, role),
    ]
    lower = Arrow(PROJECTOR + 44, BOTTOM, LOSS - 8, MIDDLE + 25, role)
    if config.stop_gradient:
        lower = lower._replace(role="muted")
    return [*both, *upper, lower]


def _labels(config: Config) -> list[dict[str, Any]]:
    """What is written beside the boxes."""
    note = "the gradient stops here" if config.stop_gradient else "stop-gradient removed"
    role: Role = "wrong" if config.stop_gradient else "muted"
    return [
        _text(MIDDLE - 4, "same weights", "muted", x=ENCODER),
        _text(TOP - 12, "z1", "ink", x=PROJECTOR + 53),
        _text(TOP - 4, "p1" if config.predictor.enabled else "p1 = z1", "ink", x=PREDICTOR + 84),
        _text(BOTTOM + 16, "z2", "ink", x=PROJECTOR + 58),
        _text(BOTTOM + 18, note, role, x=PREDICTOR + 20),
        _text(218, "and the same with the views exchanged; the loss is the mean of both", "muted"),
    ]


def _text(y: float, text: str, role: Role, *, x: float = 265, size: int = 11) -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "size": size, "role": role}


def _box_texts(box: Box) -> list[dict[str, Any]]:
    role: Role = "ink" if box.present else "wrong"
    if not box.title:
        return [_text(box.y, box.note, role, x=box.x)]
    muted: Role = "muted" if box.present else "wrong"
    return [
        _text(box.y - 8, box.title, role, x=box.x, size=13),
        _text(box.y + 10, box.note, muted, x=box.x),
    ]


def _stop(config: Config) -> list[alt.Chart]:
    """A bar across the arrow of the second branch, gone where the ablation took it."""
    x, y = _on_the_way(0.45)
    bar = [{"x": x - 6, "y": y - 13, "x2": x + 6, "y2": y + 13}]
    other = [{"x": x + 1, "y": y - 16, "x2": x + 13, "y2": y + 10}]
    dash = [1, 0] if config.stop_gradient else [2, 4]
    opacity = 1.0 if config.stop_gradient else 0.6
    marks = []
    for rows in (bar, other):
        line = drawn_from(rows).mark_rule(
            color=light("wrong"), strokeWidth=4, strokeDash=dash, opacity=opacity, aria=False
        )
        marks.append(line.encode(**_place(), x2="x2:Q", y2="y2:Q"))
    return marks


def _on_the_way(share: float) -> tuple[float, float]:
    x, y, x2, y2 = PROJECTOR + 44, BOTTOM, LOSS - 8, MIDDLE + 25
    return x + share * (x2 - x), y + share * (y2 - y)


def _place() -> dict[str, Any]:
    """x and y in px of the drawing, without axes."""
    import altair as alt

    x = alt.X("x:Q", axis=None).scale(domain=[0, 530], nice=False)
    y = alt.Y("y:Q", axis=None).scale(domain=[232, 0], nice=False)
    return {"x": x, "y": y}


def _lines(arrows: Sequence[Arrow]) -> alt.Chart:
    import altair as alt

    rows = [arrow._asdict() | {"color": light(arrow.role)} for arrow in arrows]
    rule = drawn_from(rows).mark_rule(strokeWidth=2, aria=False)
    color = alt.Color("color:N", scale=None, legend=None)
    made: alt.Chart = rule.encode(**_place(), x2="x2:Q", y2="y2:Q", color=color)
    return made


def _heads(arrows: Sequence[Arrow]) -> alt.Chart:
    import altair as alt

    rows = [
        {
            "x": a.x2,
            "y": a.y2,
            "angle": math.degrees(math.atan2(a.y2 - a.y, a.x2 - a.x)) + 90,
            "color": light(a.role),
        }
        for a in arrows
    ]
    point = drawn_from(rows).mark_point(
        shape="triangle-up", filled=True, size=70, opacity=1, aria=False
    )
    made: alt.Chart = point.encode(
        **_place(),
        angle=alt.Angle("angle:Q", scale=None),
        color=alt.Color("color:N", scale=None, legend=None),
    )
    return made


def _rectangles(boxes: Sequence[Box], *, present: bool) -> alt.Chart:
    rows = [
        {
            "x": box.x - box.width / 2,
            "x2": box.x + box.width / 2,
            "y": box.y - box.height / 2,
            "y2": box.y + box.height / 2,
        }
        for box in boxes
        if box.present is present
    ]
    role: Role = "first" if present else "wrong"
    rectangle = drawn_from(rows).mark_rect(
        fill=light("paper"),
        stroke=light(role),
        strokeWidth=1.8,
        strokeDash=[1, 0] if present else [5, 4],
        cornerRadius=7,
        aria=False,
    )
    made: alt.Chart = rectangle.encode(**_place(), x2="x2:Q", y2="y2:Q")
    return made


def _texts(texts: Sequence[dict[str, Any]], *, size: int) -> alt.Chart:
    import altair as alt

    rows = [text | {"color": light(text["role"])} for text in texts if text["size"] == size]
    words = drawn_from(rows).mark_text(
        fontSize=size, fontWeight=600 if size > 11 else 400, baseline="middle", aria=False
    )
    color = alt.Color("color:N", scale=None, legend=None)
    made: alt.Chart = words.encode(**_place(), text="text:N", color=color)
    return made
