"""The process's only broker. Actors are always bound to it.

``@dramatiq.actor`` binds to Dramatiq's global broker, which defaults to one for localhost if none has been set. So
``actors`` calls :func:`current_broker`, which creates ours without opening a connection, and binds to it explicitly.
A later call to :func:`configure` passes the settings to that same object, so the order of imports does not matter.
"""

from __future__ import annotations

import threading

import dramatiq

from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker

_lock = threading.Lock()
_broker: FloodgateBroker | None = None  # written under _lock, once


def current_broker() -> FloodgateBroker:
    """The process's broker, which is also Dramatiq's global one. Created on the first call; opens no connection."""
    global _broker
    with _lock:
        if _broker is None:
            _broker = FloodgateBroker()
            dramatiq.set_broker(_broker)
        return _broker


def configure(settings: Settings) -> FloodgateBroker:
    """Bind settings to the process's broker.

    Raises:
        SettingsError: the broker is already in use with different settings.
    """
    broker = current_broker()
    broker.bind(settings)
    return broker
