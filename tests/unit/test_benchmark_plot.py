"""The plot in the README shows the measured figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import limits, plot
from benchmarks.stage.programs import ROOT

MEASURED = ROOT / "benchmarks" / "measured" / "limits.json"


def result(contender: str, refused: int = 0, scenario: str = plot.SCENARIO, **figures: float) -> dict[str, Any]:
    figures = {"sent": 1000, "missing": 0, "429": refused, **figures}
    return {"scenario": scenario, "contender": contender, "figures": figures}


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_plot_in_the_docs_shows_the_measured_figures(tmp_path: Path) -> None:
    assert plot.main([str(MEASURED), str(tmp_path / "limits.svg")]) == 0
    shown = ROOT / "docs" / "images" / "limits.svg"
    assert shown.read_text() == (tmp_path / "limits.svg").read_text(), (
        "Renew it with: python -m benchmarks plot benchmarks/measured/limits.json docs/images/limits.svg"
    )


def test_the_measured_figures_match_the_page() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    figures = [each["figures"] for each in json.loads(MEASURED.read_text())["results"]]
    assert [each for each in figures if "use" in each and f"{each['use']:.3f}" not in page] == []
    assert [each for each in figures if f"{each['429']:,}" not in page] == []


def test_a_contender_with_several_rounds_is_shown_by_its_median() -> None:
    rounds = [result("floodgate", refused, use=use) for use, refused in ((0.9, 4), (0.5, 9), (1.0, 1))]
    assert plot.rows(rounds) == [plot.Row("floodgate", 27.0, 4, 0, 1000)]


def test_missing_messages_are_shown_beside_the_rate() -> None:
    svg = plot.draw([result("peer", 4867, use=0.5, missing=970, sent=30)], "today")
    assert {"15.0, 30 of 1,000 delivered", "4,867", "today"} <= set(words(svg))


def test_other_scenarios_are_not_in_the_plot() -> None:
    assert plot.rows([result("floodgate", scenario="group", use=0.9)]) == []
    with pytest.raises(ValueError, match="no scenario 'broadcast'"):
        plot.draw([], "today")


def test_a_plot_of_a_scenario_that_is_not_run_is_refused_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        limits.main(["--only", "group", "--plot", "file.svg"])
    assert "--only leaves out" in capsys.readouterr().err
