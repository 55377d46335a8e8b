"""The gateway, shared by all programs of this folder."""

from __future__ import annotations

from tests.acceptance.gateway.conftest import gate, shared_gate

__all__ = ["gate", "shared_gate"]
