"""Undocumented names and behaviour of python-telegram-bot and aiohttp that we rely on.

If one of these fails after an upgrade, read the module named in the assertion first.
"""

from __future__ import annotations

import inspect

import aiohttp.client
import telegram
from telegram.ext import Application
from telegram.ext._utils.trackingdict import TrackingDict
from telegram.request import BaseRequest, RequestData

HINT = "python-telegram-bot changed: see SendingBot in actors/sessions.py"


def test_a_bot_makes_every_call_through_do_post() -> None:
    parameters = list(inspect.signature(telegram.Bot._do_post).parameters)
    timeouts = ["read_timeout", "write_timeout", "connect_timeout", "pool_timeout"]
    assert parameters == ["self", "endpoint", "data", *timeouts], HINT
    assert "_do_post(" in inspect.getsource(telegram.Bot._post), HINT


def test_a_bot_logs_its_url_with_a_class_attribute_that_we_replace() -> None:
    assert "self._LOGGER.debug" in inspect.getsource(telegram.Bot.__init__), HINT
    assert telegram.Bot._LOGGER.name == "telegram.Bot", HINT


def test_a_request_passes_our_errors_on_and_parses_with_the_method_that_we_override() -> None:
    wrapper = inspect.getsource(BaseRequest._request_wrapper)
    assert "except TelegramError:\n            raise" in wrapper, HINT
    assert "self.parse_json_payload(" in inspect.getsource(BaseRequest.post), HINT
    assert RequestData().contains_files is False


def test_aiohttp_does_not_resend_a_post_by_itself() -> None:
    assert "POST" not in aiohttp.client.IDEMPOTENT_METHODS, "aiohttp changed: see actors/request.py"


def test_an_applications_requests_can_be_replaced_and_its_conversations_reloaded() -> None:
    hint = "python-telegram-bot changed: see actors/updates/application.py"
    application = Application.builder().token("1:" + "A" * 35).build()
    assert len(application.bot._request) == 2, hint
    assert application.bot.request is application.bot._request[1], hint
    assert application._conversation_handler_conversations == {}, hint
    kept: TrackingDict[tuple[int, ...], int] = TrackingDict()
    kept.update_no_track({(1,): 2})
    kept.data.pop((1,))
    assert kept.pop_accessed_write_items() == [], hint
    assert "refresh_data()" in inspect.getsource(Application.process_update), hint
