"""docs/study.md says what the committed records say, and so do the help and the advice."""

import pytest

from stopgrad.cli import main
from stopgrad.face.advice import TRUST
from tests.study import CHECK, CHOOSING, FRESH, PAGE, fresh, most_lost, page, tau_cell, taus

GUIDE = PAGE.parent / "guide.md"


def test_the_page_of_the_study_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "write it: python -m tests.study"


def test_help_and_advice_trust_rankme_as_far_as_the_records_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    knn, probe = taus(fresh(*CHECK), "rankme")
    checked = [folders for folders in FRESH.values() if folders != CHOOSING]
    of_knn = [tau_cell(fresh(*folders), "rankme").split(" / ")[0] for folders in checked]
    least, most = min(of_knn, key=float), max(of_knn, key=float)
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{knn.replace('(', '(95 %: ')} with kNN and {probe} with the linear probe" in told
    for text in (told, TRUST, " ".join(GUIDE.read_text(encoding="utf-8").split())):
        assert f"{most_lost('rankme'):.1f} points" in text
        assert f"{least} to {most}" in text


def test_every_figure_of_the_page_is_there() -> None:
    for name in ("collapse", "weight-decay", "alpha-h", "labels"):
        assert f"(figures/{name}.svg)" in PAGE.read_text(encoding="utf-8")
        assert (PAGE.parent / "figures" / f"{name}.svg").read_text().startswith("<svg")
