"""The files that the web pages serve: whole, licensed, and as small as promised."""

from __future__ import annotations

import hashlib
import re
import runpy

import pytest

from floodgate.web.app import STATIC
from tests.processes import ROOT

VENDOR = STATIC / "vendor"
MOST_LINES_OF_JAVASCRIPT = 300


def test_the_files_of_other_projects_are_the_ones_that_were_vendored() -> None:
    listed = dict(line.split("  ")[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del found["SHA256SUMS"]
    assert found == listed, "renew them with: scripts/vendor"


@pytest.mark.checkout
def test_each_vendored_package_has_its_licence_and_files() -> None:
    for package in runpy.run_path(str(ROOT / "scripts/vendor"))["PACKAGES"]:
        names = [f"{package.name}.LICENSE", *(file.rpartition("/")[2] for file in package.files)]
        assert all((VENDOR / name).stat().st_size > 100 for name in names), package.name


def test_our_own_javascript_stays_small() -> None:
    lines = [line for path in STATIC.glob("*.js") for line in path.read_text().splitlines()]
    assert len(lines) <= MOST_LINES_OF_JAVASCRIPT


def test_the_style_sheet_and_scripts_name_no_other_server() -> None:
    for path in (STATIC / "floodgate.css", STATIC / "floodgate.js"):
        assert not re.search(r"https?://|url\(['\"]?//", path.read_text()), path.name


def contrast(one: str, other: str) -> float:
    """The ratio of two colours, as WCAG defines it."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PAIRS = [
    *(("text", ground) for ground in ("ground", "raised", "sunken")),
    *(("muted", ground) for ground in ("ground", "raised", "sunken")),
    *(("accent", ground) for ground in ("ground", "raised", "accent-soft")),
    *(("danger", ground) for ground in ("ground", "raised", "danger-soft")),
    ("warning", "raised"),
    ("warning", "warning-soft"),
    ("on-accent", "accent"),
    ("on-danger", "danger"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", (STATIC / "floodgate.css").read_text(), re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light if scheme == "light" else light + dark))
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in PAIRS}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
