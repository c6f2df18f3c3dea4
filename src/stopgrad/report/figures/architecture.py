"""A config -> the drawing of SimSiam with its stop-gradient; what a run left out is shown so.

The drawing is the template `architecture.svg`; here is what it says of one config.
"""

from __future__ import annotations

from stopgrad.config import Config
from stopgrad.report.figures.style import PALETTE

LONGEST = 14  # letters of the encoder's name that a box holds


def architecture_svg(config: Config) -> str:
    """One image, two views, one encoder with its heads, and where the gradient flows.

    Drawn for the first of the two symmetric terms of the loss. A removed part has a dashed red
    outline and says so.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    projector, predictor = config.projector, config.predictor
    environment = Environment(
        loader=PackageLoader("stopgrad.report", "figures"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("architecture.svg").render(
        {role: tone.light for role, tone in PALETTE.items()},
        views=f"{config.views.size} px",
        encoder=config.encoder.name.removeprefix("timm:")[:LONGEST],
        projector=f"{projector.hidden} → {projector.out}",
        predictor=f"{projector.out} → {predictor.hidden} → {projector.out}"
        if predictor.enabled
        else "",
        stop_gradient=config.stop_gradient,
        lost=_lost_norms(config),
    )


def _lost_norms(config: Config) -> list[tuple[str, int, int]]:
    """Every BN of the heads that is not there, and where that is said: x and y, px."""
    projector, predictor = config.projector, config.predictor
    norms = (
        (projector.output_bn, ("output BN of g", 282, 84)),
        (projector.hidden_bn, ("hidden BN of g", 282, 105)),
        (predictor.hidden_bn or not predictor.enabled, ("hidden BN of h", 420, 126)),
    )
    return [said for there, said in norms if not there]
