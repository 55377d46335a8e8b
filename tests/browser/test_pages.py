"""Each page in a real browser, while a worker sends: readable, accessible, quiet, and with nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final, Literal

from playwright.sync_api import expect

from tests.browser.conftest import HIGH, WIDE, OpenPage
from tests.browser.scene import BLOCKED, BUSY, CAMPAIGN, GROUP, WRONG, Scene
from tests.waiting import until

PAGES = (
    "/",
    "/bots",
    f"/bots/{BUSY}",
    f"/chats/{BUSY}/{GROUP}",
    f"/chats/{BUSY}/{BLOCKED}",
    "/jobs",
    "/dead-letters",
    f"/dead-letters?chat={WRONG}",
    f"/unreachable?bot={BUSY}",
    "/campaigns",
    f"/campaigns/{CAMPAIGN}?chat=20001",
    "/updates",
    "/audit",
    f"/actions/pause?bot={BUSY}&for=5m",
)
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
# "best-practice" is a matter of taste, and "experimental" is not finished.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Violations alone: what passes is not listed. Without preloading, which only rules of media and of experiments need.
EXAMINE = f"axe.run(document, {{runOnly: {RULES}, resultTypes: ['violations'], preload: false}})"
NARROW = 360
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


def faults(found: dict[str, Any]) -> list[str]:
    """What axe-core calls serious or critical."""
    return [
        f"{each['id']}: {node['html'][:200]} {node['any'][0]['message'] if node['any'] else ''}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_every_page_is_accessible_and_fits_in_both_themes_on_a_phone_and_on_a_wide_screen(open_page: OpenPage) -> None:
    visitor = open_page()
    for path in (*PAGES, "/login"):
        page = visitor.go(path)
        page.evaluate(AXE)
        for width in (NARROW, WIDE):
            page.set_viewport_size({"width": width, "height": HIGH})
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                expect(page.locator("body")).to_be_visible()  # a page that hangs fails here; `evaluate` waits for ever
                seen = f"{path} in {theme} at {width} px"
                assert faults(page.evaluate(EXAMINE)) == [], seen
                assert page.evaluate("document.documentElement.scrollWidth") <= width, seen
        assert page.evaluate("window.hit") is None, path


def test_plots_are_drawn_anew_when_the_theme_changes(open_page: OpenPage) -> None:
    page = open_page(f"/bots/{BUSY}").page
    plots = page.locator(".plot canvas")
    expect(plots.first).to_be_visible()
    count = plots.evaluate_all("all => { all.forEach(each => each.dataset.old = ''); return all.length; }")
    page.emulate_media(color_scheme="dark")
    expect(page.locator(".plot canvas[data-old]")).to_have_count(0)
    assert plots.count() >= count


def test_the_overview_is_live_and_pauses_while_the_tab_is_hidden(site: Scene, open_page: OpenPage) -> None:
    page = open_page("/").page
    state = page.locator("[data-live-state]")
    expect(state).to_have_text("Live")
    before = page.locator("#overview").inner_html()
    until(lambda: page.locator("#overview").inner_html() != before)
    hide(page, True)
    expect(state).to_have_text("Paused")
    assert page.locator("[sse-connect]").count() == 0
    hide(page, False)
    expect(state).to_have_text("Live")


def hide(page: Any, hidden: bool) -> None:
    """Tells the page that its tab is hidden, as the browser would."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_what_has_the_focus_keeps_it_while_the_page_is_live(open_page: OpenPage) -> None:
    page = open_page("/").page
    expect(page.locator("[data-live-state]")).to_have_text("Live")
    link = page.locator(f"#overview a[href='/dead-letters?bot={BUSY}']")
    link.focus()
    before = page.locator("#overview").inner_html()
    until(lambda: page.locator("#overview").inner_html() != before)
    expect(link).to_be_focused()


def test_pages_can_be_read_without_javascript(open_page: OpenPage) -> None:
    visitor = open_page(javascript=False)
    for path, words in {
        "/": [BUSY, "Dead letters"],
        f"/bots/{BUSY}": ["Longest lines", str(GROUP)],
        f"/dead-letters?chat={WRONG}": ["3 match", "sendMessage"],
        f"/campaigns/{CAMPAIGN}": ["of 400 recipients"],
        f"/unreachable?bot={BUSY}": ["bot was blocked by the user"],
    }.items():
        text = visitor.go(path).inner_text("main")
        assert [word for word in words if word not in text] == [], path


def test_a_filter_leaves_empty_fields_out_of_its_url(open_page: OpenPage) -> None:
    page = open_page("/dead-letters").page
    page.get_by_role("textbox", name="Chat").fill(str(WRONG))
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("3 match.")).to_be_visible()
    assert page.url.endswith(f"/dead-letters?chat={WRONG}")


def test_a_reader_sees_no_texts_and_no_buttons(open_page: OpenPage) -> None:
    page = open_page("/dead-letters", role="read").page
    page.get_by_role("region", name="Dead letters").get_by_role("link").first.click()
    expect(page.get_by_text("Your role does not show texts.")).to_be_visible()
    expect(page.get_by_role("button", name="Replay")).to_have_count(0)


def test_logging_out_leads_to_the_login_and_nothing_is_kept(open_page: OpenPage) -> None:
    visitor = open_page("/dead-letters", role="operate")
    assert visitor.page.evaluate("document.cookie") == ""
    visitor.page.get_by_role("button", name="Log out").click()
    expect(visitor.page.get_by_label("Token")).to_be_visible()
    visitor.page.go_back()
    expect(visitor.page.get_by_label("Token")).to_be_visible()
    assert visitor.page.evaluate("localStorage.length + sessionStorage.length") == 0
