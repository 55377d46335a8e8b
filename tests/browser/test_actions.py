"""Each action, taken by clicking in a real browser; its effect is checked at RabbitMQ and in the store."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from floodgate.producer.campaigns.states import CampaignState
from tests.browser.conftest import OpenPage
from tests.browser.scene import BUSY, CAMPAIGN, CLEARED, DROPPED, QUIET, RECIPIENTS, Scene
from tests.waiting import until

CHAT = 777


def confirm(page: Page, touches: str) -> None:
    """Agrees to what the confirmation says, and waits for its end. A slow action outlasts its page."""
    expect(page.locator(".touches")).to_contain_text(f"This touches {touches}")
    page.locator("main form[method=post] button").click()
    page.wait_for_url("**/audit/**")
    heading = page.get_by_role("heading", level=1)
    until(lambda: heading.inner_text() != "Under way" or not page.reload())
    expect(heading).to_have_text("Done")


def test_a_bot_is_paused_and_resumed(site: Scene, open_page: OpenPage) -> None:
    page = open_page(f"/bots/{QUIET}").page
    page.get_by_label("For").fill("10m")
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Pause …").click()
    confirm(page, "1 bot")
    (pause,) = site.store.snapshot(QUIET).pauses
    assert (pause.chat, "a test" in pause.why) == (None, True)
    page.get_by_role("link", name="Back", exact=True).click()
    page.get_by_role("button", name="Resume …").click()
    confirm(page, "1 bot")
    assert not site.store.snapshot(QUIET).pauses


def test_a_chat_is_paused_and_its_job_waits_until_it_is_cancelled(site: Scene, open_page: OpenPage) -> None:
    page = open_page(f"/chats/{QUIET}/{CHAT}").page
    page.get_by_role("button", name="Pause …").click()
    confirm(page, "1 chat")
    job = site.send(CHAT, "waits", QUIET)
    until(lambda: site.store.waiting(QUIET))
    page.goto(f"{site.url}/jobs?id={job}&bot={QUIET}")
    page.get_by_role("button", name="Cancel this job …").click()
    confirm(page, "1 job")
    record = site.store.lookup(QUIET, job)
    assert record is not None and record.reason == "cancelled"
    page.goto(f"{site.url}/chats/{QUIET}/{CHAT}")
    page.get_by_role("button", name="Resume …").click()
    confirm(page, "1 chat")
    assert "waits" not in site.stage.sent()


def test_dead_letters_are_replayed_by_filter(site: Scene, open_page: OpenPage) -> None:
    site.control.set_chat(CHAT, trouble="answer", code=400, description="Bad Request: message is too long")
    before = site.dead()
    site.send(CHAT, "comes back")
    until(lambda: site.dead() == before + 1)
    site.control.clear_chats(CHAT)
    page = open_page(f"/dead-letters?chat={CHAT}").page
    until(lambda: "1 match" in str(page.goto(page.url) and page.inner_text("main")))
    page.get_by_role("button", name="Replay all that match …").click()
    confirm(page, "1 dead letter")
    until(lambda: "comes back" in site.stage.sent())
    assert site.dead() == before


def test_a_dead_letter_is_dropped_with_the_keyboard_alone(site: Scene, open_page: OpenPage) -> None:
    before = site.dead()
    page = open_page(f"/dead-letters?chat={DROPPED}").page
    tab_to(page, "a[href^='/dead-letters/']")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Dead letter")
    tab_to(page, "button.danger")
    page.keyboard.press("Enter")
    expect(page.locator(".touches")).to_contain_text("This touches 1 dead letter")
    assert site.dead() == before
    tab_to(page, "main form[method=post] button.danger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Done")
    until(lambda: site.dead() == before - 1)


def tab_to(page: Page, selector: str) -> None:
    """Presses Tab until the focus is on an element, and checks that it can be seen there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_an_unreachable_chat_is_marked_reachable(site: Scene, open_page: OpenPage) -> None:
    page = open_page(f"/unreachable?bot={BUSY}").page
    row = page.get_by_role("row").filter(has_text=str(CLEARED))
    row.get_by_role("button", name="Mark reachable …").click()
    confirm(page, "1 chat")
    assert str(CLEARED) not in [each.chat for each in site.store.unreachable(BUSY)]


def test_a_campaign_is_started_paused_resumed_and_cancelled(site: Scene, open_page: OpenPage) -> None:
    page = open_page(f"/campaigns/{CAMPAIGN}").page
    for label, state in {
        "Start": CampaignState.RUNNING,
        "Pause": CampaignState.PAUSED,
        "Resume": CampaignState.RUNNING,
        "Cancel": CampaignState.CANCELLED,
    }.items():
        page.get_by_role("button", name=f"{label} …").click()
        confirm(page, f"{RECIPIENTS} recipients")
        assert site.campaigns.progress(CAMPAIGN).campaign.state is state
        page.get_by_role("link", name="Back", exact=True).click()


def test_an_action_is_taken_without_javascript(site: Scene, open_page: OpenPage) -> None:
    page = open_page(f"/bots/{QUIET}", javascript=False).page
    page.get_by_role("button", name="Pause …").click()
    confirm(page, "1 bot")
    assert site.store.snapshot(QUIET).pauses
    site.store.resume(QUIET, None)


def test_what_was_done_is_in_the_audit_log(open_page: OpenPage, site: Scene) -> None:
    page = open_page(f"/bots/{QUIET}").page
    page.get_by_role("button", name="Resume …").click()
    confirm(page, "1 bot")
    page.goto(f"{site.url}/audit")
    row = page.get_by_role("region", name="Actions").get_by_role("row").nth(1)
    expect(row).to_contain_text("admin-ann")
    expect(row).to_contain_text("resume")
