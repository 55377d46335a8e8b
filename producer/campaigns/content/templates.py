"""Renders a campaign's content for one recipient, with Jinja's sandbox.

Every text of the content is a template; a recipient's fields are its variables. What a template inserts is escaped for
the parse mode, so that a name such as ``<3`` cannot break the markup; ``|safe`` inserts markup as it is.

Templates cannot call anything, and of Jinja's statements they have ``if``, ``for`` (not nested) and ``set``, which
cannot build upon another ``set``. So a template's time is bounded by the length of the template and of the recipient's
data, and the result of a filter, as that of the whole, by :data:`MAX_RENDERED`. Methods cannot be read, either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import (
    Environment,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
    nodes,
    pass_environment,
)
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.content.recipient_codes import NOBODY, RecipientCode
from floodgate.producer.campaigns.definition import Content, TemplateMode

# In characters. Telegram's longest text has 4,096 after parsing, and the longest keyboard some 10 kB.
MAX_RENDERED: Final = 64 * 1024
FILTERS: Final = (
    *("abs", "capitalize", "d", "default", "e", "escape", "first", "float", "int", "join", "last", "length", "lower"),
    *("replace", "round", "safe", "sort", "string", "striptags", "title", "trim", "truncate", "unique", "upper"),
)
# Telegram parses these parameters; a caption, also that of an album's item.
_PARSED: Final = re.compile(r"text|(.*\.)?caption")
_REFUSED: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Call: "calls a function",
    nodes.Macro: "defines a macro",
    nodes.CallBlock: "calls a macro",
    nodes.FilterBlock: "filters a block",
    nodes.Block: "defines a block",
    nodes.Include: "includes a template",
    nodes.Import: "imports a template",
    nodes.FromImport: "imports a template",
    nodes.Extends: "extends a template",
    nodes.Mul: "multiplies",
    nodes.Pow: "raises to a power",
    nodes.Mod: "uses %",
}
_MARKDOWN: Final = re.compile(r"([_*\[\]()~`>#+\-=|{}.!\\])")

Render = Callable[[Mapping[str, Any]], Any]


class MissingFieldError(CampaignError):
    """A recipient lacks a field that the template uses and that has no fallback."""

    def __init__(self, field: str) -> None:
        self.field = field
        super().__init__(f"The field {field!r} is missing and has no fallback.")


class ContentTemplate:
    """A content, compiled. Immutable; safe to use from any thread.

    Raises:
        CampaignError: a template has a syntax error, or does something that it may not.
    """

    def __init__(self, content: Content) -> None:
        self.method = content.method
        self._fallbacks = content.fallbacks
        self._bot_username = content.bot_username
        compile_ = _Compiler(content.parse_mode)
        self._params = {name: compile_(name, value) for name, value in content.params.items()}
        if content.parse_mode is not TemplateMode.NONE:
            self._params["parse_mode"] = _constant(str(content.parse_mode))
        self._unsubscribe = None if content.unsubscribe is None else compile_("unsubscribe", content.unsubscribe)

    def render(self, fields: Mapping[str, Any], code: RecipientCode = NOBODY) -> dict[str, Any]:
        """Return the call's parameters for a recipient, without the chat. ``code`` names the recipient.

        Raises:
            MissingFieldError: the recipient lacks a field.
            CampaignError: a template cannot be rendered with this recipient's fields.
        """
        known = self._fallbacks | {name: value for name, value in fields.items() if value not in (None, "")}
        if self._bot_username is not None:
            known["deep_link"] = f"https://t.me/{self._bot_username}?start={code.start_payload}"
        params = {name: render(known) for name, render in self._params.items()}
        if self._unsubscribe is not None:
            button = {"text": self._unsubscribe(known), "callback_data": code.unsubscribe_data}
            params["reply_markup"] = _with_row(params.get("reply_markup", {"inline_keyboard": []}), button)
        return params


def escape_markdown(text: str) -> str:
    """Escape text for MarkdownV2, where each of these characters may be escaped anywhere."""
    return _MARKDOWN.sub(r"\\\1", text)


def _with_row(markup: Mapping[str, Any], button: Mapping[str, str]) -> dict[str, Any]:
    """Return a keyboard with another row, without changing the one that all recipients share."""
    return {**markup, "inline_keyboard": [*markup["inline_keyboard"], [button]]}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Reads members of objects, whatever their names, and no methods."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """Make ``format`` a method like others."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not callable(value) and super().is_safe_attribute(obj, attr, value)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    """Jinja's filter, bounded."""
    text, old, new = str(value), str(old), str(new)
    found = text.count(old) if count < 0 else min(count, text.count(old))
    _check_length(len(text) + found * (len(new) - len(old)))
    return text.replace(old, new, count)


@pass_environment
def _join(environment: Environment, value: Iterable[Any], separator: Any = "", attribute: str | None = None) -> str:
    """Jinja's filter, bounded."""
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    parts = [str(item) for item in items]
    _check_length(sum(map(len, parts)) + len(str(separator)) * len(parts))
    return str(separator).join(parts)


def _check_length(length: int) -> None:
    if length > MAX_RENDERED:
        raise CampaignError(f"A filter gives more than {MAX_RENDERED} characters for this recipient.")


def _environment(mode: TemplateMode) -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(undefined=StrictUndefined, finalize=_FINALIZE[mode])
    environment.globals.clear()
    environment.tests = {name: environment.tests[name] for name in ("defined", "undefined", "none", "in", "eq", "ne")}
    environment.filters = {name: environment.filters[name] for name in FILTERS} | {"join": _join, "replace": _replace}
    return environment


def _html(value: Any) -> Any:
    return escape(value)


def _markdown(value: Any) -> Any:
    return value if isinstance(value, Markup) else escape_markdown(str(value))


def _plain(value: Any) -> Any:
    return value


_FINALIZE: Final[Mapping[TemplateMode, Callable[[Any], Any]]] = {
    TemplateMode.NONE: _plain,
    TemplateMode.HTML: _html,
    TemplateMode.MARKDOWN_V2: _markdown,
}


class _Compiler:
    """Compiles the templates in a parameter. Those that Telegram does not parse are not escaped."""

    def __init__(self, mode: TemplateMode) -> None:
        self._parsed, self._plain = _environment(mode), _environment(TemplateMode.NONE)

    def __call__(self, name: str, value: Any) -> Render:
        match value:
            case str() if "{{" in value or "{%" in value or "{#" in value:
                environment = self._parsed if _PARSED.fullmatch(name) else self._plain
                return _text(name, _template(environment, name, value))
            case list():
                items = [self(name, item) for item in value]
                return lambda fields: [item(fields) for item in items]
            case dict():
                members = {key: self(f"{name}.{key}", item) for key, item in value.items()}
                return lambda fields: {key: item(fields) for key, item in members.items()}
            case _:
                return _constant(value)


def _constant(value: Any) -> Render:
    return lambda _fields: value


def _template(environment: ImmutableSandboxedEnvironment, name: str, source: str) -> Template:
    try:
        tree = environment.parse(source)
        _refuse(name, tree)
        return environment.from_string(source)
    except RecursionError:
        raise CampaignError(f"The template of {name} is nested too deeply.") from None
    except TemplateSyntaxError as error:
        raise CampaignError(f"The template of {name} has an error in line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise CampaignError(f"The template of {name} is wrong: {error}") from None


def _refuse(name: str, tree: nodes.Template) -> None:
    for kind, what in _REFUSED.items():
        if found := next(tree.find_all(kind), None):
            raise CampaignError(
                f"The template of {name} {what} in line {found.lineno}, which templates of campaigns may not do."
            )
    for loop in tree.find_all(nodes.For):
        if any(loop is not inner for inner in loop.find_all(nodes.For)):
            raise CampaignError(
                f"The template of {name} has a loop within a loop in line {loop.lineno}: prepare that text in the "
                "audience."
            )
    _refuse_chains(name, tree)


def _refuse_chains(name: str, tree: nodes.Template) -> None:
    """Each ``set`` that builds upon another may double its length."""
    sets = list(tree.find_all((nodes.Assign, nodes.AssignBlock)))
    targets = [{each.name for each in found.find_all(nodes.Name) if each.ctx == "store"} for found in sets]
    times = Counter(each for names in targets for each in names)
    for found, own in zip(sets, targets, strict=True):
        read = {each.name for each in found.find_all(nodes.Name) if each.ctx == "load"}
        if any(each not in own or times[each] > 1 for each in read & times.keys()):
            raise CampaignError(
                f"The template of {name} sets a variable from one that it sets in line {found.lineno}, which templates "
                "of campaigns may not do."
            )


def _text(name: str, template: Template) -> Render:
    def render(fields: Mapping[str, Any]) -> str:
        size, parts = 0, []
        try:
            for part in template.generate(fields):
                parts.append(part)
                if (size := size + len(part)) > MAX_RENDERED:
                    raise CampaignError(f"{name} has more than {MAX_RENDERED} characters for this recipient.")
        except UndefinedError as error:
            raise _missing(error) from None
        except SecurityError as error:
            raise CampaignError(f"The template of {name} reads what templates may not read: {error}.") from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise CampaignError(f"The template of {name} fails for this recipient: {error}.") from None
        return "".join(parts)

    return render


def _missing(error: UndefinedError) -> CampaignError:
    found = re.match(r"'([^']+)' is undefined", error.message or "")
    return MissingFieldError(found[1]) if found else CampaignError(f"A field is missing: {error.message}.")
