"""docs/study.md says what the committed records say."""

from tests.study import PAGE, page


def test_the_page_of_the_study_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "write it: python -m tests.study"


def test_every_figure_of_the_page_is_there() -> None:
    for name in ("collapse", "weight-decay", "alpha-h", "labels"):
        assert f"(figures/{name}.svg)" in PAGE.read_text(encoding="utf-8")
        assert (PAGE.parent / "figures" / f"{name}.svg").read_text().startswith("<svg")
