"""Reads text files that people edit: settings, secrets, queue.yaml, JSON from Google's tools.

Editors add a byte order mark, Windows line ends and invisible characters, and Notepad's "Unicode" is UTF-16. This
module handles all of that.
"""

from __future__ import annotations

import re
from pathlib import Path

from glassq.errors import UnreadableText

# Maximum size of a file that people edit, in bytes.
MAX_FILE = 256 << 10

_BOM = "\ufeff"
# The longer marks first: a UTF-32 mark begins like a UTF-16 mark.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_text(path: str | Path, what: str = "file", limit: int = MAX_FILE) -> str:
    """The text of the file without a byte order mark, its line ends as they are.

    `what` names the kind of file in the message for more than `limit` bytes. Raises UnreadableText.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnreadableText(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        # the path contains a NUL
        raise UnreadableText(f"cannot be read: {error}") from error
    if len(data) > limit:
        raise UnreadableText(f"is too large: expected a {what} of at most {limit >> 10} KiB")
    return decode(data)


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes without a byte order mark. Raises UnreadableText, which names another encoding."""
    if encoding := _other_encoding(data):
        raise UnreadableText(f"is not UTF-8 text but {encoding}: save it as UTF-8")
    try:
        return data.decode("utf-8").lstrip(_BOM)
    except UnicodeDecodeError as error:
        # the message does not show the byte: it may belong to a secret
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - data.rfind(b"\n", 0, error.start)
        raise UnreadableText(f"is not UTF-8 text (line {line}, byte {byte}): save it as UTF-8") from None


def secret_lines(text: str) -> list[str]:
    """The secrets in a text, one a line; blank lines and lines that start with # are skipped.

    Spaces and invisible characters around a secret do not belong to it. Inside a secret, an invisible character is an
    error, as it would make every comparison fail. Raises UnreadableText, which shows the position but never the secret.
    """
    secrets = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        secret = trimmed(line)
        if not secret or secret.startswith("#"):
            continue
        hidden = next((index for index, char in enumerate(secret) if not char.isprintable()), None)
        if hidden is not None:
            column = line.index(secret) + hidden + 1
            raise UnreadableText(
                f"holds an invisible character ({name_of(secret[hidden])}) inside a secret, in line {number}, "
                f"column {column}: delete that character"
            )
        secrets.append(secret)
    return secrets


def trimmed(text: str) -> str:
    """The text without the spaces and invisible characters (a no-break space, a byte order mark) around it."""
    visible = [index for index, char in enumerate(text) if char.isprintable() and char != " "]
    return text[visible[0] : visible[-1] + 1] if visible else ""


def name_of(char: str) -> str:
    """A character by its number and, where it has one, its name: U+200B ZERO WIDTH SPACE."""
    import unicodedata  # imported here, as only error messages need its tables

    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()


def _other_encoding(data: bytes) -> str:
    """The encoding that the first bytes show; "" if they look like UTF-8."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    # in UTF-16 text without a mark, most characters have a NUL as their first or as their second byte
    first, second = data[0::2].count(0), data[1::2].count(0)
    return "UTF-16" if min(first, second) == 0 and max(first, second) * 4 > len(data) else ""
