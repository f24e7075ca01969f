"""A job's bytes as text, which is all that Amazon's queues take, and not of every character.

Taken are U+0009, U+000A, U+000D and U+0020 up, without U+FFFE and U+FFFF. Our deliveries mostly are such text, and go
as they are: an administrator can read them, and base64 would make them a third larger. Anything else goes as base64,
with a mark before it.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

import base64
import binascii
import re

_BASE64 = "base64:"
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text_of(body: bytes) -> str:
    """These bytes as text, never empty."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not _UNFIT.search(text) and not text.startswith(_BASE64):
        return text
    return _BASE64 + base64.b64encode(body).decode()


def bytes_of(text: str) -> bytes:
    """The bytes in such a text; of one that is not ours, what is there."""
    if text.startswith(_BASE64):
        try:
            return base64.b64decode(text.removeprefix(_BASE64), validate=True)
        except binascii.Error:
            pass
    return text.encode("utf-8", "surrogatepass")
