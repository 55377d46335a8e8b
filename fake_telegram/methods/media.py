"""Content of messages with files, which are uploaded in a form, given by URL, or given by the id of an earlier file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from floodgate.fake_telegram.calls import Call, FormUpload, as_integer
from floodgate.fake_telegram.errors import bad_request
from floodgate.fake_telegram.files import StoredFile
from floodgate.fake_telegram.methods import common
from floodgate.fake_telegram.world import World

_ATTACH: Final = "attach://"
_URL_FILE_BYTES: Final = 4096  # URLs are not fetched: the assumed size of their files
_MB: Final = 1024 * 1024
MOST_IN_ALBUM: Final = 10


@dataclass(frozen=True, slots=True)
class MediaKind:
    """A kind of file. ``field`` is its name in calls and messages; ``fixed`` replaces what Telegram would measure."""

    name: str
    field: str
    file_name: str
    mime_type: str
    fixed: tuple[tuple[str, Any], ...] = ()
    taken: tuple[str, ...] = ()
    """Parameters of the call that are copied to the message."""
    captioned: bool = True
    longest_bytes: int = 50 * _MB
    named: bool = False
    """Whether the message includes the file's name and type."""


_SIZED: Final = (("width", 640), ("height", 360), ("duration", 3))

PHOTO: Final = MediaKind("Photo", "photo", "photo.jpg", "image/jpeg", longest_bytes=10 * _MB)
AUDIO: Final = MediaKind(
    "Audio",
    "audio",
    "audio.mp3",
    "audio/mpeg",
    (("duration", 3),),
    ("duration", "performer", "title"),
    named=True,
)
DOCUMENT: Final = MediaKind("Document", "document", "file.bin", "application/octet-stream", named=True)
VIDEO: Final = MediaKind(
    "Video", "video", "video.mp4", "video/mp4", _SIZED, ("duration", "width", "height"), named=True
)
ANIMATION: Final = MediaKind(
    "Animation", "animation", "animation.mp4", "video/mp4", _SIZED, ("duration", "width", "height"), named=True
)
VOICE: Final = MediaKind("Voice", "voice", "voice.ogg", "audio/ogg", (("duration", 3),), ("duration",))
VIDEO_NOTE: Final = MediaKind(
    "VideoNote",
    "video_note",
    "note.mp4",
    "video/mp4",
    (("length", 240), ("duration", 3)),
    ("length", "duration"),
    captioned=False,
)
STICKER: Final = MediaKind(
    "Sticker",
    "sticker",
    "sticker.webp",
    "image/webp",
    (("width", 512), ("height", 512), ("is_animated", False), ("is_video", False), ("type", "regular")),
    ("emoji",),
    captioned=False,
)
LIVE_PHOTO: Final = MediaKind(
    "LivePhoto", "live_photo", "live.mp4", "video/mp4", _SIZED, ("duration", "width", "height")
)
_IN_ALBUMS: Final = {kind.field: kind for kind in (PHOTO, VIDEO, AUDIO, DOCUMENT)}
_IN_EDITS: Final = {**_IN_ALBUMS, ANIMATION.field: ANIMATION}


def single(kind: MediaKind, world: World, call: Call) -> dict[str, Any]:
    """Return the file of `sendPhoto` and similar methods as fields of a message."""
    upload = call.uploads.get(kind.field)
    stored = _stored(world, call, kind, call.text(kind.field), upload)
    taken = {name: call.params[name] for name in kind.taken if call.text(name)}
    fields = _shown(world, kind, stored, taken)
    return {**fields, **common.caption(call)} if kind.captioned else fields


def album(world: World, call: Call) -> list[dict[str, Any]]:
    """Return the items of `sendMediaGroup`, each as fields of a message."""
    items = call.array("media", "InputMedia")
    if not items:
        raise bad_request("there are no messages to send")
    if len(items) > MOST_IN_ALBUM:
        raise bad_request("too many messages to send as an album")
    kinds = {str(item.get("type")) for item in items if isinstance(item, dict)}
    if len(kinds) > 1 and kinds & {AUDIO.field, DOCUMENT.field}:
        raise bad_request("can't use the media of the specified type in the album")
    return [input_media(world, call, item, _IN_ALBUMS) for item in items]


def edited(world: World, call: Call) -> dict[str, Any]:
    """Return the item of `editMessageMedia` as fields of a message."""
    return input_media(world, call, call.structure("media", "input media"), _IN_EDITS)


def paid(world: World, call: Call) -> dict[str, Any]:
    """Return the items of `sendPaidMedia` as fields of one message."""
    stars = call.integer("star_count")
    if not 1 <= stars <= 25_000:
        raise bad_request("invalid amount of Telegram Stars specified")
    items = call.array("media", "InputPaidMedia")
    if not 1 <= len(items) <= MOST_IN_ALBUM:
        raise bad_request("wrong number of media specified" if items else "there are no media in the request")
    shown = [_paid_item(world, call, item) for item in items]
    return {"paid_media": {"star_count": stars, "paid_media": shown}, **common.caption(call)}


def _paid_item(world: World, call: Call, item: Any) -> dict[str, Any]:
    fields = input_media(world, call, item, {PHOTO.field: PHOTO, VIDEO.field: VIDEO})
    return {"type": item["type"], **fields}


def input_media(world: World, call: Call, item: Any, kinds: dict[str, MediaKind]) -> dict[str, Any]:
    """Return an InputMedia object as fields of a message."""
    if not isinstance(item, dict):
        raise bad_request("can't parse InputMedia: expected an Object")
    kind = kinds.get(str(item.get("type")))
    if kind is None:
        raise bad_request("can't parse InputMedia: type must be a known one")
    stored = _stored(world, call, kind, str(item.get("media") or ""), None)
    taken = {name: item[name] for name in kind.taken if item.get(name)}
    return {**_shown(world, kind, stored, taken), **common.media_caption(item)}


def _stored(world: World, call: Call, kind: MediaKind, named: str, upload: FormUpload | None) -> StoredFile:
    if named.startswith(_ATTACH):
        upload = call.uploads.get(named.removeprefix(_ATTACH))
    if upload is not None:
        return _uploaded(world, call, kind, upload)
    if not named or named.startswith(_ATTACH):
        raise bad_request(f"there is no {kind.field.replace('_', ' ')} in the request")
    if named.startswith(("http://", "https://")):
        return world.files.add(
            call.bot_id, kind.name, size=_URL_FILE_BYTES, name=kind.file_name, mime_type=kind.mime_type
        )
    return _sent_before(world, call, kind, named)


def _uploaded(world: World, call: Call, kind: MediaKind, upload: FormUpload) -> StoredFile:
    if not upload.content:
        raise bad_request("file must be non-empty")
    if len(upload.content) > kind.longest_bytes:
        raise bad_request("file is too big")
    return world.files.add(
        call.bot_id,
        kind.name,
        size=len(upload.content),
        name=upload.name or kind.file_name,
        mime_type=kind.mime_type if kind is not DOCUMENT else upload.content_type,
        content=upload.content,
    )


def _sent_before(world: World, call: Call, kind: MediaKind, file_id: str) -> StoredFile:
    stored = world.files.find(call.bot_id, file_id)
    if stored is None:
        raise bad_request("wrong file identifier/HTTP URL specified")
    if stored.kind != kind.name:
        raise bad_request(f"can't use file of type {stored.kind} as {kind.name}")
    return stored


def _shown(world: World, kind: MediaKind, stored: StoredFile, taken: dict[str, Any]) -> dict[str, Any]:
    if kind is PHOTO:
        return {"photo": _photo_sizes(world, stored)}
    shown = {**stored.as_json(), **dict(kind.fixed)}
    for name, value in taken.items():
        shown[name] = as_integer(value) if name in ("duration", "width", "height", "length") else value
    if kind.named:
        shown |= {"file_name": stored.name, "mime_type": stored.mime_type}
    fields: dict[str, Any] = {kind.field: shown}
    if kind is ANIMATION:
        fields["document"] = {**stored.as_json(), "file_name": stored.name, "mime_type": stored.mime_type}
    return fields


def _photo_sizes(world: World, stored: StoredFile) -> list[dict[str, Any]]:
    thumbnail = world.files.add(stored.bot_id, stored.kind, size=max(1, stored.size // 8), name="thumbnail.jpg")
    return [
        {**thumbnail.as_json(), "width": 90, "height": 51},
        {**stored.as_json(), "width": 1280, "height": 720},
    ]
