"""What campaigns' templates render, and what they may not do."""

from __future__ import annotations

from typing import Any

import pytest

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.content.markup import UnbalancedError, visible_length
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.content.templates import MAX_RENDERED, ContentTemplate, MissingFieldError
from floodgate.producer.campaigns.definition import Content, TemplateMode


def rendered(text: str, fields: dict[str, Any] | None = None, **content: Any) -> str:
    found: str = ContentTemplate(Content.model_validate({"text": text, **content})).render(fields or {})["text"]
    return found


def test_fields_are_inserted_in_every_text_at_any_depth() -> None:
    keyboard = {"inline_keyboard": [[{"text": "To {{ city }}", "url": "https://example.org/{{ id }}"}]]}
    content = Content.model_validate({"text": "Hi {{ name }}", "reply_markup": keyboard, "protect_content": True})
    assert ContentTemplate(content).render({"name": "Ann", "city": "Rome", "id": 7}) == {
        "text": "Hi Ann",
        "reply_markup": {"inline_keyboard": [[{"text": "To Rome", "url": "https://example.org/7"}]]},
        "protect_content": True,
    }


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", "<b>a_b & <3</b>"),
        ("HTML", "<b>a_b &amp; &lt;3</b>"),
        ("MarkdownV2", "<b>a\\_b & <3</b>"),
    ],
)
def test_what_is_inserted_is_escaped_for_the_parse_mode(mode: str, expected: str) -> None:
    assert rendered("<b>{{ name }}</b>", {"name": "a_b & <3"}, parse_mode=mode) == expected


def test_a_button_is_not_escaped_because_telegram_does_not_parse_it() -> None:
    keyboard = {"inline_keyboard": [[{"text": "{{ name }}", "callback_data": "x"}]]}
    content = Content.model_validate({"text": "x", "parse_mode": "HTML", "reply_markup": keyboard})
    found = ContentTemplate(content).render({"name": "<3"})
    assert found["reply_markup"]["inline_keyboard"][0][0]["text"] == "<3"


def test_markup_can_be_inserted_on_purpose() -> None:
    assert rendered("{{ name|safe }}", {"name": "<b>x</b>"}, parse_mode="HTML") == "<b>x</b>"


@pytest.mark.parametrize("fields", [{}, {"name": ""}, {"name": None}])
def test_a_missing_field_takes_its_fallback(fields: dict[str, Any]) -> None:
    assert rendered("Hi {{ name }}", fields, fallbacks={"name": "there"}) == "Hi there"


def test_a_missing_field_without_a_fallback_is_named() -> None:
    with pytest.raises(MissingFieldError, match="'name' is missing") as raised:
        rendered("Hi {{ name }}", {"other": "x"})
    assert raised.value.field == "name"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ name", "has an error in line 1"),
        ("{{ name() }}", "calls a function"),
        ("{{ name.upper() }}", "calls a function"),
        ("{% macro x() %}{% endmacro %}", "defines a macro"),
        ("{% include 'x' %}", "includes a template"),
        ("{% import 'x' as y %}", "imports a template"),
        ("{% for a in b %}{% for c in b %}{% endfor %}{% endfor %}", "a loop within a loop"),
        ("{{ 'x' * 1000000000 }}", "multiplies"),
        ("{{ 9 ** 999999999 }}", "raises to a power"),
        ("{{ '%1000000000d' % 1 }}", "uses %"),
        ("{{ name|attr('x') }}", "No filter named 'attr'"),
        ("{% set a = name %}" + "{% set a = a ~ a %}" * 40, "sets a variable from one that it sets"),
        ("{% set a = [name, name] %}{% set b = [a, a] %}", "sets a variable from one that it sets"),
        (
            "{% set a %}{{ name }}{% endset %}{% set b %}{{ a }}{{ a }}{% endset %}",
            "sets a variable from one that it sets",
        ),
        ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "is nested too deeply"),
    ],
)
def test_what_a_template_may_not_do_is_refused_before_the_start(text: str, why: str) -> None:
    with pytest.raises(CampaignError, match=why):
        ContentTemplate(Content.model_validate({"text": text}))


@pytest.mark.parametrize("text", ["{{ name.__class__ }}", "{{ name.__class__.__mro__ }}", "{{ name['__class__'].x }}"])
def test_private_attributes_are_not_read(text: str) -> None:
    with pytest.raises(CampaignError):
        rendered(text, {"name": "Ann"})


@pytest.mark.parametrize("text", ["{{ name.upper }}", "{{ name['upper'] }}", "{{ name.format }}", "{{ tags.append }}"])
def test_methods_are_not_read(text: str) -> None:
    with pytest.raises(CampaignError, match="reads what templates may not read"):
        rendered(text, {"name": "Ann", "tags": ["x"]})


def test_a_member_of_an_object_may_have_the_name_of_a_method() -> None:
    assert (
        rendered("{{ order.items|length }} for {{ order.copy }}", {"order": {"items": [1, 2], "copy": 7}}) == "2 for 7"
    )
    with pytest.raises(CampaignError, match="missing"):
        rendered("{{ order.items }}", {"order": {"other": 1}})


def test_a_variable_may_be_set_from_fields_and_from_its_own_field() -> None:
    text = "{% set name = name|trim %}{% set all = first ~ ' ' ~ last %}{{ name }}: {{ all }}"
    assert rendered(text, {"name": " Ann ", "first": "A", "last": "B"}) == "Ann: A B"


@pytest.mark.parametrize(
    "text",
    [
        "{{ text|replace('x', text)|replace('x', text)|length }}",
        "{{ lines|join(text)|length }}",
        "{{ name|truncate(9)|replace('', text)|length }}",
    ],
)
def test_no_filter_makes_a_text_that_is_longer_than_a_rendered_one(text: str) -> None:
    fields = {"text": "x" * 40_000, "lines": ["x"] * 40_000, "name": "Ann"}
    with pytest.raises(CampaignError, match=f"more than {MAX_RENDERED} characters"):
        rendered(text, fields)


def test_a_rendered_text_is_bounded() -> None:
    with pytest.raises(CampaignError, match=f"more than {MAX_RENDERED} characters"):
        rendered("{% for each in items %}{{ each }}{% endfor %}", {"items": ["x" * 1000] * 100})


def test_a_condition_may_ask_for_a_field_that_is_missing() -> None:
    assert rendered("{% if name is defined %}{{ name }}{% else %}you{% endif %}") == "you"


@pytest.mark.parametrize(
    ("text", "mode", "length"),
    [
        ("a<b>b</b>", TemplateMode.NONE, 9),
        ("a<b>b</b> &amp; &#39;", TemplateMode.HTML, 6),
        ("😀", TemplateMode.HTML, 2),
        ("*bold* _it_ __under__ ||x|| `c_d*`", TemplateMode.MARKDOWN_V2, 18),
        ("[name](https://example.org/a_b)", TemplateMode.MARKDOWN_V2, 4),
        ("1\\. \\*x\\*", TemplateMode.MARKDOWN_V2, 6),
    ],
)
def test_the_visible_length_is_what_telegram_counts(text: str, mode: TemplateMode, length: int) -> None:
    assert visible_length(text, mode) == length


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("<b>x", TemplateMode.HTML),
        ("x</b>", TemplateMode.HTML),
        ("<b><i>x</b></i>", TemplateMode.HTML),
        ("<p>x</p>", TemplateMode.HTML),
        ("*x", TemplateMode.MARKDOWN_V2),
        ("*_x*_", TemplateMode.MARKDOWN_V2),
        ("[x", TemplateMode.MARKDOWN_V2),
        ("```x", TemplateMode.MARKDOWN_V2),
    ],
)
def test_unbalanced_markup_is_found(text: str, mode: TemplateMode) -> None:
    with pytest.raises(UnbalancedError):
        visible_length(text, mode)


def test_the_unsubscribe_button_is_a_row_below_the_others() -> None:
    above = [{"text": "Buy", "callback_data": "buy"}]
    content = Content.model_validate(
        {"text": "Hi", "unsubscribe": "Stop, {{ name }}", "reply_markup": {"inline_keyboard": [above]}}
    )
    template = ContentTemplate(content)
    for number, name in enumerate(["Ann", "Bea"], 1):
        assert template.render({"name": name}, RecipientCode(5, number))["reply_markup"] == {
            "inline_keyboard": [above, [{"text": f"Stop, {name}", "callback_data": f"fg:u:5:{number}"}]]
        }
    alone = ContentTemplate(Content.model_validate({"text": "Hi", "unsubscribe": "Stop"})).render({})
    assert alone == {
        "text": "Hi",
        "reply_markup": {"inline_keyboard": [[{"text": "Stop", "callback_data": "fg:u:0:0"}]]},
    }


def test_a_deep_link_starts_the_bot_and_names_the_recipient() -> None:
    content = {"text": "<a href='{{ deep_link }}'>Go</a>", "parse_mode": "HTML", "bot_username": "spring_bot"}
    template = ContentTemplate(Content.model_validate(content))
    link = "https://t.me/spring_bot?start=fg_5_10"
    assert template.render({}, RecipientCode(5, 36))["text"] == f"<a href='{link}'>Go</a>"
    with pytest.raises(MissingFieldError, match="deep_link"):
        rendered("{{ deep_link }}")
