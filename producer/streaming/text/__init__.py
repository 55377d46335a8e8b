"""Turns a growing text into messages that Telegram accepts at any moment.

:class:`GrowingText` takes the pieces of a text and returns the messages that show it. A reader for each markup turns
what was written into a :class:`~floodgate.producer.streaming.text.formatted.FormattedText`, which is then cut into
messages and sent as plain text with entities. So no markup is ever half sent: a construct that is still open ends
where the text ends, and one that crosses the end of a message goes on in the next.
"""

from floodgate.producer.streaming.text.growing import Formatting, GrowingText, TextPart

__all__ = ["Formatting", "GrowingText", "TextPart"]
