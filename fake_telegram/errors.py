"""Errors of the Bot API: a code, a description in Telegram's own words, and sometimes parameters."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An error answer: ``{"ok": false, "error_code": …, "description": …, "parameters": …}``."""

    def __init__(self, code: int, description: str, parameters: dict[str, Any] | None = None) -> None:
        super().__init__(code, description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        body: dict[str, Any] = {"ok": False, "error_code": self.code, "description": self.description}
        if self.parameters:
            body["parameters"] = self.parameters
        return body


def bad_request(reason: str, parameters: dict[str, Any] | None = None) -> ApiError:
    """Return a 400. ``reason`` is Telegram's wording without its prefix."""
    return ApiError(400, f"Bad Request: {reason}", parameters)


def forbidden(reason: str) -> ApiError:
    """Return a 403. ``reason`` is Telegram's wording without its prefix."""
    return ApiError(403, f"Forbidden: {reason}")


def conflict(reason: str) -> ApiError:
    """Return a 409. ``reason`` is Telegram's wording without its prefix."""
    return ApiError(409, f"Conflict: {reason}")


def not_found() -> ApiError:
    """Return a 404, for a malformed token, an unknown method or an unknown file path."""
    return ApiError(404, "Not Found")


def unauthorized() -> ApiError:
    """Return a 401, for a well-formed token that belongs to no bot."""
    return ApiError(401, "Unauthorized")


def too_many_requests(retry_after: int) -> ApiError:
    """Return a 429. ``retry_after`` is in whole seconds."""
    return ApiError(429, f"Too Many Requests: retry after {retry_after}", {"retry_after": retry_after})
