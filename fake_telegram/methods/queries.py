"""Answers to button presses and inline queries, which have no limit."""

from __future__ import annotations

from typing import Any, Final

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.methods.table import Method
from floodgate.fake_telegram.world import World

TOO_OLD: Final = "query is too old and response timeout expired or query ID is invalid"
_LONGEST_ANSWER: Final = 200
_MOST_RESULTS: Final = 50


def _answer_callback_query(world: World, call: Call) -> bool:
    if len(call.text("text")) > _LONGEST_ANSWER:
        raise bad_request("MESSAGE_TOO_LONG")
    return _answered(world, call, "callback_query_id")


def _answer_inline_query(world: World, call: Call) -> bool:
    results = call.array("results", "InlineQueryResult")
    if len(results) > _MOST_RESULTS:
        raise bad_request("RESULTS_TOO_MUCH")
    ids = [str(result.get("id")) for result in results if isinstance(result, dict)]
    if len(set(ids)) != len(results):
        raise bad_request("RESULT_ID_DUPLICATE")
    return _answered(world, call, "inline_query_id")


def _answer_web_app_query(world: World, call: Call) -> dict[str, Any]:
    call.required("web_app_query_id")
    return {"inline_message_id": f"web-app-{call.text('web_app_query_id')}"}


def _answered(world: World, call: Call, name: str) -> bool:
    if call.text(name) not in world.bots.get(call.bot_id).open_queries:
        raise bad_request(TOO_OLD)
    return True


def _answer_checkout(world: World, call: Call) -> bool:
    if not call.flag("ok"):
        call.required("error_message")
    return True


METHODS: Final = (
    Method("answerCallbackQuery", _answer_callback_query),
    Method("answerInlineQuery", _answer_inline_query),
    Method("answerWebAppQuery", _answer_web_app_query),
    Method("answerShippingQuery", _answer_checkout),
    Method("answerPreCheckoutQuery", _answer_checkout),
)
