"""Resolves ``module:name`` to an object, and reports in one sentence why it cannot."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from telegram.ext import Application

from floodgate.broker.errors import FloodgateError, SettingsError
from floodgate.updates.function import OnUpdate

Target = Application[Any, Any, Any, Any, Any, Any] | OnUpdate


def load_target(path: str) -> Target:
    """Load the Application or ``@on_update`` function at ``module:name``. The working directory is searched first.

    The name may also refer to a function without arguments that returns one.

    Raises:
        SettingsError: It cannot be loaded; the message says why.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise SettingsError(f"{path!r} does not name an Application: write module:name, as in myapp.bot:application.")
    found = _attribute(_module(module_name), name, path)
    if not isinstance(found, Application | OnUpdate) and _is_factory(found):
        found = _made_by(found, path)
    if not isinstance(found, Application | OnUpdate):
        raise SettingsError(
            f"{path} is {_described(found)}: give a python-telegram-bot Application, or a function with @on_update."
        )
    return found


def _module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SettingsError(f"There is no module {name!r} in {here} or on the Python path (PYTHONPATH).") from None
        raise SettingsError(f"The module {name!r} needs {error.name!r}, which is not installed.{_where()}") from None
    except FloodgateError:
        raise
    except Exception as error:  # a user's module may raise anything; the worker reports it and ends
        raise SettingsError(f"The module {name!r} cannot be imported: {_told(error)}.{_where()}") from error


def _attribute(module: Any, name: str, path: str) -> Any:
    found = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [each for each, value in vars(module).items() if isinstance(value, Application | OnUpdate)]
            instead = f" It has {', '.join(sorted(names))}." if names else ""
            raise SettingsError(f"The module {module.__name__!r} has no {name!r} (from {path}).{instead}") from None
    return found


def _is_factory(found: Any) -> bool:
    if not inspect.isroutine(found) or inspect.iscoroutinefunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(each.default is not each.empty or each.kind in optional for each in parameters)


def _made_by(factory: Any, path: str) -> Any:
    try:
        return factory()
    except FloodgateError:
        raise
    except Exception as error:  # as above
        raise SettingsError(f"{path}() failed: {_told(error)}.{_where()}") from error


def _described(found: Any) -> str:
    if inspect.isroutine(found):
        return f"the function {getattr(found, '__qualname__', found)}, without @on_update"
    return "nothing" if found is None else f"of type {type(found).__name__}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


def _where() -> str:
    """Return the file and line of the user's code at which the current error occurred."""
    error = sys.exc_info()[1]
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    theirs = [frame for frame in frames if not frame.filename.startswith("<frozen") and frame.filename != __file__]
    theirs = [frame for frame in theirs if not frame.filename.endswith("/importlib/__init__.py")]
    return f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
