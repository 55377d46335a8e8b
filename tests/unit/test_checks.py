"""Parameters that are refused before Telegram is asked, and those that must be accepted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import telegram

from floodgate.broker.errors import InvalidParamsError
from floodgate.producer.checks import checked
from floodgate.producer.parameters import missing

PHOTO = {"type": "photo", "media": "AgACAgIAAxkB"}
MARKUP = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Go", url="https://example.org")]])


def looped() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["inner"] = loop
    return loop


WRONG = [
    ("sendMessage", {"text": "hi"}, "needs chat_id"),
    ("sendMessage", {"chat_id": None, "text": "hi"}, "needs chat_id"),
    ("sendMessage", {"chat_id": 1}, "needs text"),
    ("sendMessage", {"chat_id": 1, "text": ""}, "text is empty"),
    ("sendMessage", {"chat_id": 1, "text": " \n\t"}, "text is empty"),
    ("sendMessage", {"chat_id": 1, "text": 5}, "text must be a str, not int"),
    ("sendMessage", {"chat_id": 1, "text": "x" * 4097}, "4097 characters and Telegram accepts 4096"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "parse_mode": "rst"}, "parse_mode 'rst' is unknown"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "parse_mode": 3}, "parse_mode '3' is unknown"),
    ("sendMessage", {"chat_id": 1, "text": "\ud83d"}, "surrogate"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "entities": {"type": "bold"}}, "entities must be a list"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": [["a"]]}, "reply_markup must be a dict"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": "{oops"}, "a string but not valid JSON"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": MARKUP}, r"pass its \.to_dict\(\)"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": {"a": {1, 2}}}, r"reply_markup\.a is a set"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": {1: "a"}}, "keys must be strings"),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": looped()}, "contains itself"),
    ("sendPhoto", {"chat_id": 1, "photo": b"\x89PNG"}, "only as file parameters"),
    ("sendPhoto", {"chat_id": 1, "photo": io.BytesIO(b"")}, "only as file parameters"),
    ("sendPhoto", {"chat_id": 1, "photo": Path("cat.png")}, "job\\(\\), which accepts none"),
    ("sendPhoto", {"chat_id": 1, "photo": "attach://cat"}, "pass the file itself"),
    ("sendPhoto", {"chat_id": 1, "photo": "id", "caption": "x" * 1025}, "1025 characters and Telegram accepts 1024"),
    ("sendPhoto", {"chat_id": 1, "photo": "id", "caption": 1}, "caption must be a str"),
    ("sendLocation", {"chat_id": 1, "latitude": float("nan"), "longitude": 0}, "JSON cannot carry"),
    ("sendMediaGroup", {"chat_id": 1, "media": [PHOTO]}, "1 items and sendMediaGroup accepts 2 to 10"),
    ("sendMediaGroup", {"chat_id": 1, "media": [PHOTO] * 11}, "11 items"),
    ("sendMediaGroup", {"chat_id": 1, "media": PHOTO}, "media must be a list"),
    ("sendMediaGroup", {"chat_id": 1, "media": [PHOTO, "id"]}, r"media\[1\] must be a dict"),
    ("sendMediaGroup", {"chat_id": 1, "media": [PHOTO, PHOTO | {"caption": "x" * 1025}]}, r"media\[1\]\.caption"),
    ("editMessageMedia", {"chat_id": 1, "message_id": 2, "media": ["id"]}, "media must be a dict"),
    ("deleteMessages", {"chat_id": 1, "message_ids": []}, "0 ids"),
    ("deleteMessages", {"chat_id": 1, "message_ids": list(range(1, 102))}, "101 ids"),
    ("deleteMessages", {"chat_id": 1, "message_ids": [1, "two"]}, "positive numbers"),
    ("deleteMessages", {"chat_id": 1, "message_ids": 7}, "must be a list"),
    ("deleteMessage", {"chat_id": 1, "message_id": True}, "message_id must be a positive number"),
    ("deleteMessage", {"chat_id": 1, "message_id": 0}, "message_id must be a positive number"),
    ("editMessageText", {"text": "x", "chat_id": 1}, "needs chat_id and message_id or inline_message_id"),
    ("sendGift", {"gift_id": "g"}, "needs chat_id or user_id"),
    ("answerCallbackQuery", {"callback_query_id": "1", "text": "x" * 201}, "201 characters and Telegram accepts 200"),
]

RIGHT = [
    ("sendMessage", {"chat_id": 1, "text": "x" * 4096}),
    ("sendMessage", {"chat_id": 1, "text": "\n" + "x" * 4096 + "  "}),
    ("sendMessage", {"chat_id": 1, "text": "🙂" * 4096}),
    ("sendMessage", {"chat_id": 1, "text": "<b>" * 2000, "parse_mode": "HTML"}),
    ("sendMessage", {"chat_id": 1, "text": "hi", "parse_mode": "markdownv2"}),
    ("sendMessage", {"chat_id": 1, "text": "hi", "parse_mode": ""}),
    ("sendMessage", {"chat_id": 1, "text": "hi", "reply_markup": MARKUP.to_dict()}),
    ("sendMessage", {"chat_id": 1, "text": "hi", "a_parameter_of_tomorrow": [{"x": 1.5}]}),
    ("sendPaidMedia", {"chat_id": 1, "star_count": 1, "media": [PHOTO]}),
    ("sendMediaGroup", {"chat_id": 1, "media": (PHOTO, PHOTO)}),
    ("editMessageMedia", {"inline_message_id": "i", "media": PHOTO}),
    ("editMessageText", {"inline_message_id": "i", "text": "x"}),
    ("deleteMessages", {"chat_id": 1, "message_ids": [1, "2"]}),
    ("sendGift", {"user_id": 1, "gift_id": "g", "text": "with love"}),
    ("answerCallbackQuery", {"callback_query_id": "1"}),
    ("getMe", {}),
]


@pytest.mark.parametrize(("method", "params", "sentence"), WRONG)
def test_certainly_invalid_parameters_are_refused_in_one_sentence(
    method: str, params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidParamsError, match=sentence):
        checked(method, params)


@pytest.mark.parametrize(("method", "params"), RIGHT)
def test_parameters_telegram_may_accept_pass_unchanged(method: str, params: dict[str, Any]) -> None:
    assert checked(method, params) == params


def test_objects_given_as_json_text_are_decoded() -> None:
    params = checked(
        "sendMediaGroup", {"chat_id": 1, "media": '[{"type":"photo","media":"a"},{"type":"photo","media":"b"}]'}
    )
    assert [item["media"] for item in params["media"]] == ["a", "b"]


def test_parameters_with_the_value_none_are_omitted() -> None:
    assert checked("sendMessage", {"chat_id": 1, "text": "hi", "entities": None}) == {"chat_id": 1, "text": "hi"}


def test_a_message_is_identified_by_chat_and_id_or_by_its_inline_id() -> None:
    assert missing("editMessageReplyMarkup", {"chat_id": 1, "message_id": 2}) is None
    assert missing("editMessageReplyMarkup", {"inline_message_id": "i"}) is None
    assert missing("editMessageReplyMarkup", {"message_id": 2}) is not None


def test_an_edit_needs_a_text_or_a_rich_message() -> None:
    where = {"chat_id": 1, "message_id": 2}
    assert missing("editMessageText", where) == "text or rich_message"
    assert missing("editMessageText", {**where, "rich_message": {}}) is None


def test_a_method_newer_than_the_table_is_only_refused_for_what_json_cannot_carry() -> None:
    assert checked("sendHologram", {"text": {"a": 1}, "media": "x"}) == {"text": {"a": 1}, "media": "x"}
    with pytest.raises(InvalidParamsError, match="photo is a file"):
        checked("sendHologram", {"photo": io.BytesIO(b"x")})
