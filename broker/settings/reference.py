"""Generates ``.env.example`` and ``docs/settings.md`` from ``Settings``.

``python -m floodgate.broker.settings.reference`` writes both; a test checks that they are up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from floodgate.broker.settings.environment import fields, group_of
from floodgate.broker.settings.model import Settings

# In the repository, which is the working directory.
ENV_EXAMPLE: Final = Path(".env.example")
SETTINGS_PAGE: Final = Path("docs/settings.md")

_ENV_HEAD: Final = """\
# Floodgate's settings: copy to .env and change what you need. The commented-out lines show the defaults.
# Every process reads the same settings: workers, producers, the command line.
"""
_PAGE_HEAD: Final = """\
# Settings

Settings are read once at start, from the environment and from `.env` in the working directory; the environment takes
precedence. A wrong value is reported in one sentence that names the variable and the fix. A variable that begins with
`FLOODGATE_` but is not a setting is logged as a warning, with the nearest name. Secrets are never logged.

| name | default | meaning |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. ``default`` is text; None if there is no default, or if it depends on the machine."""

    name: str
    default: str | None
    meaning: str


def variables() -> Iterator[Variable]:
    """Yield every variable of a single setting, in the order of the settings."""
    for name, field in fields(Settings):
        if group_of(field) is None:
            yield Variable(name, _default(field), _meaning(field))


def env_example() -> str:
    """Return the text of ``.env.example``."""
    return _ENV_HEAD + "".join(f"\n{_comment(item)}\n# {item.name}={item.default or ''}\n" for item in variables())


def settings_page() -> str:
    """Return the text of ``docs/settings.md``."""
    return _PAGE_HEAD + "".join(
        f"| `{item.name}` | {_code(item.default)} | {item.meaning.replace('|', chr(92) + '|')} |\n"
        for item in variables()
    )


def _comment(item: Variable) -> str:
    return "\n".join(wrap(item.meaning.replace("`", ""), 100, initial_indent="# ", subsequent_indent="# "))


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _meaning(field: FieldInfo) -> str:
    meaning = field.description or ""
    if get_origin(field.annotation) is not Literal:
        return meaning
    return f"{meaning} One of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."


def _default(field: FieldInfo) -> str | None:
    """Return the default as text. One computed at run time depends on the machine: the description explains it."""
    return None if field.default_factory is not None else _text(field.default)


def _text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}" if value < 1e6 else str(value)
        case _:
            return str(value)


def main() -> None:
    """Write both files."""
    ENV_EXAMPLE.write_text(env_example())
    SETTINGS_PAGE.write_text(settings_page())


if __name__ == "__main__":
    main()
