"""What a caller that does not wait gets, python-telegram-bot reads as the method's own result."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import pytest
import telegram

from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.method_table import METHODS
from floodgate.producer.gateway.placeholders import placeholder
from floodgate.producer.gateway.routes import TABLE, Route

LIBRARY: Final = {name.lower(): method for name, method in inspect.getmembers(telegram.Bot, callable)}
QUEUED: Final = sorted(name for name, row in TABLE.items() if row.route is Route.QUEUED and name.lower() in LIBRARY)
# A few parameters have the types that are read here or checked by a job; a text serves for the others.
VALUES: Final[dict[str, Any]] = {
    "@message": {"chat_id": 42, "message_id": 7},
    "@recipient": {"chat_id": 42},
    "@text": {"text": "hi"},
    "chat_id": {"chat_id": 42},
    "user_id": {"user_id": 42},
    "media": {"media": [{}, {}]},
    "message_ids": {"message_ids": [1, 2]},
}


def parsed(annotation: str, result: Any) -> list[Any]:
    """Read a result as the library does, by its method's annotation: `Message | bool`, `tuple[telegram.X, ...]`."""
    assert isinstance(result, list) == annotation.startswith("tuple[")
    words = re.findall(r"\w+", annotation)
    kinds = [kind for word in words if isinstance(kind := getattr(telegram, word, None), type)]
    results = result if isinstance(result, list) else [result]
    assert all(type(one).__name__ in words for one in results if not isinstance(one, dict))
    return [kinds[0].de_json(one, None) if isinstance(one, dict) else one for one in results]


def params_of(method: str) -> dict[str, Any]:
    return {
        name: value
        for required in METHODS[method].required
        for name, value in VALUES.get(required, {required: "1"}).items()
    }


@pytest.mark.parametrize("method", QUEUED)
def test_a_result_that_is_not_there_yet_has_the_form_of_the_methods_own(method: str) -> None:
    job = new_job(method, params_of(method))
    annotation = str(inspect.signature(LIBRARY[method.lower()]).return_annotation)
    for one in parsed(annotation, placeholder(job)):
        if isinstance(one, telegram.TelegramObject):
            assert one.api_kwargs["floodgate_job_id"] == job.id


def test_a_message_that_is_not_there_yet_names_its_chat_and_has_the_id_0() -> None:
    message = telegram.Message.de_json(placeholder(new_job("sendMessage", {"chat_id": "-100", "text": "x"})), None)
    assert (message.message_id, message.chat.id, message.chat.type) == (0, -100, "supergroup")
    named = placeholder(new_job("sendMessage", {"chat_id": "@News", "text": "x"}))
    assert named["chat"]["username"] == "news"


def test_an_edit_of_an_inline_message_is_true_and_an_album_has_as_many_messages_as_parts() -> None:
    assert placeholder(new_job("editMessageText", {"inline_message_id": "a", "text": "x"})) is True
    assert len(placeholder(new_job("sendMediaGroup", {"chat_id": 1, "media": [{}, {}, {}]}))) == 3


def test_parameters_of_another_type_do_not_matter() -> None:
    """The job is accepted by then: Telegram will say what is wrong with it."""
    assert placeholder(new_job("createForumTopic", {"chat_id": 1, "name": 7}))["name"] == "7"


@pytest.mark.parametrize(("charge", "result"), [(None, True), ("message", 0)])
def test_the_result_of_a_newer_method_follows_from_its_class(charge: str | None, result: object) -> None:
    made = placeholder(new_job("resolveHologram", {"chat_id": 1}, charge=charge))
    assert (made if charge is None else made["message_id"]) == result
