"""Content of messages without files. Each function turns a call into fields of a message."""

from __future__ import annotations

import random
from typing import Any, Final

from floodgate.fake_telegram import entities
from floodgate.fake_telegram.calls import Call, as_integer
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.methods import common
from floodgate.fake_telegram.world import World

_DICE: Final = {"🎲": 6, "🎯": 6, "🎳": 6, "🏀": 5, "⚽": 5, "🎰": 64}
_MOST_POLL_OPTIONS: Final = 12


def text(world: World, call: Call) -> dict[str, Any]:
    """Return a text message's fields."""
    return common.message_text(call)


def draft(world: World, call: Call) -> dict[str, Any]:
    """Return a draft's fields. Unlike a message, it may be empty."""
    return common.message_text(call) if call.text("text") else {}


def rich(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a rich message. HTML and Markdown are not parsed: they become one paragraph."""
    given = call.structure("rich_message", "rich message")
    if not isinstance(given, dict):
        raise bad_request("can't parse rich message JSON object")
    content = [name for name in ("html", "markdown", "blocks") if given.get(name)]
    if len(content) != 1:
        raise bad_request("exactly one of the fields html, markdown and blocks must be non-empty")
    (name,) = content
    blocks = given[name] if name == "blocks" else [{"type": "paragraph", "text": str(given[name])}]
    return {"rich_message": {"blocks": blocks}}


def location_fields(call: Call) -> dict[str, Any]:
    """Return a Location object."""
    if not call.has("latitude") or not call.has("longitude"):
        raise bad_request("there is no location in the request")
    point: dict[str, Any] = {"latitude": call.number("latitude"), "longitude": call.number("longitude")}
    if not (-90 <= point["latitude"] <= 90 and -180 <= point["longitude"] <= 180):
        raise bad_request("wrong location specified")
    for name in ("live_period", "heading", "proximity_alert_radius"):
        if call.integer(name):
            point[name] = call.integer(name)
    return point


def location(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a location."""
    return {"location": location_fields(call)}


def venue(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a venue."""
    place = location_fields(call)
    found = {"location": place, "title": call.required("title"), "address": call.required("address")}
    return {"venue": found, "location": place}


def contact(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a contact."""
    person = {"phone_number": call.required("phone_number"), "first_name": call.required("first_name")}
    for name in ("last_name", "vcard"):
        if call.text(name):
            person[name] = call.text(name)
    return {"contact": person}


def poll(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a poll."""
    options = [_poll_option(n, option) for n, option in enumerate(call.array("options", "String as options"))]
    if len(options) < 1:
        raise bad_request("poll must have at least 1 option")
    if len(options) > _MOST_POLL_OPTIONS:
        raise bad_request(f"poll can't have more than {_MOST_POLL_OPTIONS} options")
    question, found = entities.parse(call.required("question"), call.text("question_parse_mode"))
    kind = call.text("type") or "regular"
    if kind not in ("regular", "quiz"):
        raise bad_request("unsupported poll type specified")
    return {
        "poll": {
            "id": str(5_000_000_000_000_000 + world.messages.next_id(0, 0)),
            "question": question,
            **({"question_entities": found} if found else {}),
            "options": options,
            "total_voter_count": 0,
            "is_closed": call.flag("is_closed"),
            "is_anonymous": not call.has("is_anonymous") or call.flag("is_anonymous"),
            "type": kind,
            "allows_multiple_answers": call.flag("allows_multiple_answers"),
            "allows_revoting": kind == "regular",
            "members_only": call.flag("members_only"),
        }
    }


def _poll_option(number: int, option: Any) -> dict[str, Any]:
    value = option.get("text") if isinstance(option, dict) else option
    if not isinstance(value, str) or not value:
        raise bad_request("expected an option to be of type String")
    return {"persistent_id": str(number), "text": value, "voter_count": 0}


def dice(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a dice."""
    emoji = call.text("emoji") or "🎲"
    if emoji not in _DICE:
        raise bad_request("wrong dice emoji specified")
    return {"dice": {"emoji": emoji, "value": random.randint(1, _DICE[emoji])}}


def game(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a game."""
    name = call.required("game_short_name")
    picture = world.files.add(call.bot_id, "Photo", size=1024, name="game.jpg").as_json()
    photo = {**picture, "width": 320, "height": 180}
    return {"game": {"title": name, "description": name, "photo": [photo]}}


def invoice(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with an invoice."""
    prices = call.array("prices", "labeled prices")
    if not prices:
        raise bad_request("there must be at least one price")
    if not all(isinstance(price, dict) and price.get("label") for price in prices):
        raise bad_request("can't parse labeled price: LabeledPrice label must be non-empty")
    call.required("payload")
    return {
        "invoice": {
            "title": call.required("title"),
            "description": call.required("description"),
            "start_parameter": call.text("start_parameter"),
            "currency": call.required("currency"),
            "total_amount": sum(as_integer(price.get("amount")) for price in prices),
        }
    }


def checklist(world: World, call: Call) -> dict[str, Any]:
    """Return the fields of a message with a checklist."""
    call.required("business_connection_id")
    given = call.structure("checklist", "checklist")
    if not isinstance(given, dict) or not given.get("title") or not isinstance(given.get("tasks"), list):
        raise bad_request("can't parse checklist JSON object")
    tasks = [{"id": as_integer(task.get("id")), "text": str(task.get("text"))} for task in given["tasks"]]
    return {"checklist": {"title": str(given["title"]), "tasks": tasks}}
