"""docs/study.md says what the committed records say, and so do the help and the advice."""

import re

import pytest

from stopgrad.cli import main
from stopgrad.face.advice import TRUST
from tests.study import PAGE, fresh_ranking, page


def test_the_page_of_the_study_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "write it: python -m tests.study"


def test_help_and_advice_trust_measures_as_far_as_the_records_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pattern = (
        r"- {}: (\S+) with kNN \((\S+) to (\S+)\) and (\S+) with linear probe \((\S+) to (\S+)\)"
    )
    of = {
        name: re.search(pattern.format(name), fresh_ranking(6))
        for name in ("RankMe", "participation ratio")
    }
    assert of["RankMe"] is not None
    assert of["participation ratio"] is not None
    knn, probe = of["RankMe"].groups()[:3], of["RankMe"].groups()[3:]
    assert f"order with a linear probe's is {probe[0]} (95 %: {probe[1]} to {probe[2]})" in TRUST
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    told, other = " ".join(capsys.readouterr().out.split()), of["participation ratio"]
    assert f"the tau of RankMe is {knn[0]} with kNN (95 %: {knn[1]} to {knn[2]}) and" in told
    assert f"and with the linear probe ({probe[1]} to {probe[2]})" in told
    assert f"our choice until then, has {other[1]} and {other[4]}." in told
    assert knn[0] == probe[0]


def test_every_figure_of_the_page_is_there() -> None:
    for name in ("collapse", "weight-decay", "alpha-h", "labels"):
        assert f"(figures/{name}.svg)" in PAGE.read_text(encoding="utf-8")
        assert (PAGE.parent / "figures" / f"{name}.svg").read_text().startswith("<svg")
