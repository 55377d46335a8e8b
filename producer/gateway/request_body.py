"""Reads a call's parameters from an HTTP request, whatever the caller sends and however slowly.

The Bot API accepts parameters in the query, as JSON, as a form and as multipart, and objects as JSON text in any of
them. All reading is bounded: in bytes, in parts, in idle time and in minimum speed.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from floodgate.broker.settings.gateway import GatewaySettings
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.request_options import is_option
from floodgate.producer.http_body import BodyTooLargeError, BodyTooSlowError, body_pieces

# A job is at most half this size; only uploads may be larger.
MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_FIELDS: Final = 200
# An album of ten, each with a thumbnail and a cover.
MAX_FILES: Final = 30
# Part names are sent to Telegram in quotes, without escaping.
_UNQUOTABLE: Final = re.compile(r'[\x00-\x1f"\\]')
# These must be decoded, because their items count: an album of n counts as n messages.
_COUNTED: Final = ("media", "message_ids")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The call's parameters, and its files by the name of their part."""

    params: dict[str, Any]
    files: Mapping[str, UploadFile]


async def read(request: Request, settings: GatewaySettings) -> RequestBody:
    """Read a call's parameters and files.

    Raises:
        RefusalError: the body is too large, arrives too slowly, or is malformed.
        ClientDisconnect: the caller disconnected before the body was complete.
    """
    params: dict[str, Any] = dict(request.query_params) if request.scope["query_string"] else {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    files: dict[str, UploadFile] = {}
    match kind:
        case "application/json":
            params |= _json_object(await whole(request, settings))
        case "application/x-www-form-urlencoded":
            params |= _form(await whole(request, settings))
        case "multipart/form-data":
            fields, files = await _multipart(request, settings)
            params |= fields
        case "":
            body = await whole(request, settings)
            params |= _json_object(body) if body.lstrip().startswith(b"{") else _form(body)
        case _:
            if await whole(request, settings):
                raise RefusalError(400, f"Bad Request: content type {kind[:80]!r} is not supported: use JSON or a form")
    return RequestBody(_normal(params), files)


def request_body(params: Mapping[str, Any]) -> RequestBody:
    """Make a request body from parameters given as JSON values."""
    return RequestBody(_normal(params), {})


async def bounded(request: Request, settings: GatewaySettings, most: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces.

    Raises:
        RefusalError: it is larger than ``most`` bytes, or arrives too slowly.
        ClientDisconnect: the caller disconnected before the body was complete.
    """
    try:
        async for piece in body_pieces(request, most, settings.body_seconds):
            yield piece
    except BodyTooLargeError:
        raise RefusalError(413, f"Request Entity Too Large: at most {most} bytes are accepted") from None
    except BodyTooSlowError:
        raise RefusalError(408, "Request Timeout: the request body arrived too slowly") from None


async def whole(request: Request, settings: GatewaySettings) -> bytes:
    """Read a whole text body: JSON or a form.

    Raises:
        RefusalError: as :func:`bounded`.
    """
    most = min(MAX_TEXT_BYTES, settings.max_body_bytes)
    return b"".join([piece async for piece in bounded(request, settings, most)])


def _json_object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        fields = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RefusalError(400, "Bad Request: the body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise RefusalError(400, "Bad Request: the body is JSON but not an object")
    return fields


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(
            parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MAX_FIELDS)
        )
    except ValueError:
        raise RefusalError(400, "Bad Request: the body is not a valid form") from None


async def _multipart(request: Request, settings: GatewaySettings) -> tuple[dict[str, Any], dict[str, UploadFile]]:
    parser = MultiPartParser(
        request.headers,
        bounded(request, settings, settings.max_body_bytes),  # type: ignore[arg-type]  # it only iterates
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, LookupError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it has no boundary"
        raise RefusalError(400, f"Bad Request: the body is not a valid multipart form: {reason}") from None
    except OSError as error:
        raise RefusalError(507, f"Insufficient Storage: the upload cannot be stored ({error.strerror})") from error
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    files = {name: value for name, value in form.items() if isinstance(value, UploadFile)}
    if any(_UNQUOTABLE.search(name) for name in files):
        raise RefusalError(400, "Bad Request: a file's part name contains a quote, a backslash or a control character")
    if option := next(filter(is_option, files), None):
        raise RefusalError(400, f"Bad Request: {option[:60]} is an option of the gateway and cannot be a file")
    return fields, files


def _normal(params: Mapping[str, Any]) -> dict[str, Any]:
    """Convert parameters to the form that a job carries: only those that affect counting are decoded."""
    given = {name: value for name, value in params.items() if value is not None}
    for name in _COUNTED:
        if isinstance(given.get(name), str) and given[name].lstrip()[:1] in ("[", "{"):
            given[name] = _decoded(name, given[name])
    if (paid := given.get("allow_paid_broadcast")) is not None:
        given["allow_paid_broadcast"] = paid is True or str(paid).lower() in ("true", "1", "yes")
    return given


def _decoded(name: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RefusalError(400, f"Bad Request: can't parse {name} JSON object") from None
