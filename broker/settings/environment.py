"""The variables in the environment and in ``.env``: explains those that cannot be parsed, warns about unknown names."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource

logger = logging.getLogger("floodgate.settings")

PREFIX: Final = "FLOODGATE_"
MAX_WARNINGS: Final = 20
# scripts/rabbitmq reads these.
_OF_OTHERS: Final = "FLOODGATE_NODE_"
_EXAMPLE: Final = re.compile(r"`([{\[][^`]*)`")

EnvFile = Path | str | Sequence[Path | str] | None


def fields(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every variable with its field, in the order of the settings. Members follow their group."""
    for name, field in model.model_fields.items():
        yield prefix + name.upper(), field
        if (group := group_of(field)) is not None:
            yield from fields(group, f"{prefix}{name.upper()}__")


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a group of settings, whose members have variables of their own; None for a single setting."""
    kind: Any = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def given(settings: type[BaseSettings], env_file: EnvFile) -> dict[str, str]:
    """Return the ``FLOODGATE_*`` variables that are not empty, by name in upper case."""
    # By ``get``: another thread may delete a variable meanwhile.
    environment = {name: os.environ.get(name) for name in list(os.environ)}
    both = {**DotEnvSettingsSource(settings, env_file=env_file).env_vars, **environment}
    upper = {name.upper(): value for name, value in both.items()}
    return {name: value for name, value in upper.items() if name.startswith(PREFIX) and value}


def nearest(name: str, settings: type[BaseModel]) -> str:
    """Return a hint at the setting that a name resembles most, for the end of a sentence; empty if there is none."""
    names = [known.removeprefix(PREFIX) for known, _ in fields(settings)]
    found = get_close_matches(name.removeprefix(PREFIX), names, n=1)
    return f" (did you mean {PREFIX}{found[0]}?)" if found else ""


def not_json(error: json.JSONDecodeError, settings: type[BaseSettings], env_file: EnvFile) -> str:
    """Name the variable whose value is not JSON, say where it is wrong, and give an example. Quotes no value."""
    name = next((name for name, value in given(settings, env_file).items() if value == error.doc), "A setting")
    field = dict(fields(settings)).get(name)
    example = _EXAMPLE.search((field.description if field else None) or "")
    how = f"write it as in {example[1]}" if example else "docs/settings.md describes it"
    return f"{name} is not JSON ({error.msg}, line {error.lineno}, column {error.colno}): {how}"


def warn_of_unknown(settings: type[BaseSettings], env_file: EnvFile) -> None:
    """Log a warning for each variable that is not a setting, once in a process; at most :data:`MAX_WARNINGS`."""
    for name in sorted(_unknown(settings, env_file))[:MAX_WARNINGS]:
        hint = nearest(name, settings) or " (docs/settings.md lists them all)"
        warn(f"{name} is not a setting and is ignored{hint}.")


@lru_cache(maxsize=MAX_WARNINGS)
def warn(text: str) -> None:
    """Log a warning unless this process has logged it before."""
    logger.warning("%s", text)


def _unknown(settings: type[BaseSettings], env_file: EnvFile) -> set[str]:
    known = dict(fields(settings))
    open_ended = tuple(f"{name}__" for name, field in known.items() if get_origin(field.annotation) or group_of(field))
    return {
        name
        for name in given(settings, env_file)
        if name not in known and not name.startswith((*open_ended, _OF_OTHERS))
    }
