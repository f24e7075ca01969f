"""Error messages for a TOML settings file: line, key, value, and what is expected.

Every message is one line. It masks values of sensitive keys, and passwords in URLs.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from glassq.edited import name_of
from glassq.mask import MASK, masked_body, masked_text
from glassq.values import SecretFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Maximum number of characters shown of a line or value; and maximum number of characters examined of a line.
MAX_SHOWN = 120
_MAX_LINE = 2000

# A secret instead of the path of its file.
_NO_PATH = re.compile(r"""((?:token|secret|key)s?_file=)(?!["']?[/$.~])\S.*""")
# without a match the error is "at end of document"
_WHERE = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)
# tomllib's messages, and ours instead. All other messages stay tomllib's.
_SYNTAX = {
    "Invalid value": "expected a value: a number, true, false, or a text in quotes",
    "Illegal character '\\n'": "a text without a closing quote",
    "Expected '=' after a key in a key/value pair": "expected KEY = VALUE",
    "Expected newline or end of document after a statement": "unexpected text after the value",
    "Cannot overwrite a value": "duplicate key",
}
_EXPECTED = {
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text in quotes",
    "object": "a section in brackets, such as [queue]",
    "array": 'a list in brackets, such as ["one", "two"]',
}
# A list at the top level holds sections.
_SECTIONS = "sections in double brackets, such as [[routes]]"
# Lists of sections: which one is meant is said by its number, as people count.
_LISTS = ("routes", "schedule")
_FOUND: dict[type, str] = {bool: "", int: "the number ", float: "the number ", str: "the text "}


def syntax(error: tomllib.TOMLDecodeError, text: str, root: type) -> str:
    """Why the text is not TOML, with the line itself. `root` is the struct that the file describes."""
    lines = text.split("\n")
    match = _WHERE.fullmatch(str(error))
    if match:
        twice = match[1].startswith("Cannot declare")
        words = "duplicate section" if twice else _SYNTAX.get(match[1], _lower(match[1]))
        number, column = int(match[2]), f", column {match[3]}"
    else:
        words, number, column = "the statement that begins here is incomplete", _begun(lines), ""
    line = lines[number - 1] if number <= len(lines) else ""
    return f"is not TOML: {words}{_odd(line)} (line {number}{column}): {_shown_line(line, root)}"


def value(
    error: msgspec.ValidationError,
    text: str,
    document: dict[str, Any],
    root: type,
    hook: Callable[[type, Any], Any],
) -> str:
    """Rewrites msgspec's message ("... - at `$.queue.ttr`") as: key, value, what is expected, line.

    `hook` is the dec_hook with which the document was converted to `root`.
    """
    said, _, path = str(error).partition(" - at `$")
    parts = re.findall(r"\.([^.\[`]+)|\[(?:(\d+)|(\.\.\.))\]", path)
    names = _named(document, [name or unnamed or int(index) for name, index, unnamed in parts], root, hook)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", said)
    if unknown:
        key, known = [*names, unknown[1]], _fields(_type_at(root, names))
        return f"unknown key {place(key)}{_did_you_mean(unknown[1], known)}{located(text, key)}"
    missing = re.fullmatch(r"Object missing required field `(.*)`", said)
    if missing:
        return f"missing key {place([*names, missing[1]])}{located(text, names)}"
    found = _get(document, names)
    expected = _expected(said, found, root, names)
    # a wrong path of a secret file is mostly the secret itself
    shown = f'"{MASK}"' if _type_at(root, names) is SecretFile and found else _shown_value(str(names[-1]), found)
    return f"{place(names)} = {shown}: {expected}{located(text, names)}"


def place(key: Sequence[str | int]) -> str:
    """A key with its section, as people write it: [queue] ttr; [[routes]] (2nd) match.event; [intake] allow, entry 1.

    An integer is a place in a list, from 0; so is the name after that of a list of sections.
    """
    names = [*key]
    section = ""
    if names[0] in _LISTS and len(names) > 1:
        section = f"[[{names[0]}]] ({ordinal(int(names[1]) + 1)})"
        del names[:2]
    entry = f", entry {int(names.pop()) + 1}" if names and isinstance(names[-1], int) else ""
    parts = [str(name) for name in names]
    if not section and len(parts) > 1:
        section, parts = f"[{'.'.join(parts[:-1])}]", parts[-1:]
    return f"{section} {'.'.join(parts)}".strip() + entry


def ordinal(number: int) -> str:
    """ "1st", "2nd" ..."""
    end = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"


def located(text: str, key: Sequence[str | int]) -> str:
    """ " (line N)" for the line of the key; "" if the text does not have the key."""
    lines = text.split("\n")
    low, high = 0, len(lines)
    if not _holds(lines, key):
        return ""
    # binary search: every prefix of the text from the key's line on holds the key
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _holds(lines[:middle], key) else (middle, high)
    return f" (line {_begun(lines[:low])})"


def _holds(lines: list[str], key: Sequence[str | int]) -> bool:
    """Whether the lines have the key, not counting an incomplete last statement."""
    document = _parsed(lines[: _begun(lines) - 1]) or {}
    try:
        _get(document, key)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _begun(lines: list[str]) -> int:
    """The number of the line where an incomplete last statement begins; without one, of the line after the last."""
    end = len(lines)
    while end and _parsed(lines[:end]) is None:
        end -= 1
    return end + 1


def _parsed(lines: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines) + "\n")
    except tomllib.TOMLDecodeError:
        return None


def _get(found: Any, names: Sequence[str | int]) -> Any:
    for name in names:
        found = found[int(name)] if isinstance(found, list) and str(name).isdigit() else found[name]
    return found


def _named(
    document: dict[str, Any], names: list[str | int], root: type, hook: Callable[[type, Any], Any]
) -> list[str | int]:
    """The names, with msgspec's "..." replaced by the wrong key of a table with free names."""
    for place_of, name in enumerate(names):
        if name == "...":
            before = names[:place_of]
            table, kind = _get(document, before), get_args(_type_at(root, before))[-1]
            wrong = next((key for key, each in table.items() if not _fits(kind, each, hook)), name)
            names = [*before, wrong, *names[place_of + 1 :]]
    return names


def _fits(kind: type, found: object, hook: Callable[[type, Any], Any]) -> bool:
    try:
        msgspec.convert(found, kind, dec_hook=hook)
    except msgspec.ValidationError:
        return False
    return True


def _expected(said: str, found: Any, root: type, names: Sequence[str | int]) -> str:
    if said.startswith("Invalid enum value"):
        words = get_args(_type_at(root, names))
        return f"expected one of: {', '.join(words)}{nearest(str(found), words)}"
    match = re.fullmatch(r"Expected `(\w+)[^`]*`(?:, got `\w+`| ([<>])= (\d+))", said)
    if not match or match[1] not in _EXPECTED:
        return _lower(said)
    if match[2]:
        return f"expected {_EXPECTED[match[1]]}, at {'most' if match[2] == '<' else 'least'} {match[3]}"
    hint = "; write it without quotes" if _is_quoted(match[1], found) else ""
    wanted = _SECTIONS if match[1] == "array" and len(names) == 1 else _EXPECTED[match[1]]
    return f"expected {wanted}, found {_found(str(names[-1]), found)}{hint}"


def _is_quoted(kind: str, found: Any) -> bool:
    return isinstance(found, str) and (found.isdecimal() if kind == "int" else found in ("true", "false"))


def _found(name: str, found: Any) -> str:
    if isinstance(found, list | dict):
        return "a list" if isinstance(found, list) else "a section"
    return f"{_FOUND.get(type(found), 'the date ')}{_shown_value(name, found)}"


def _shown_value(name: str, found: Any) -> str:
    """The value as JSON, without secrets."""
    return _bounded(msgspec.json.encode(masked_body(msgspec.json.encode({name: found}))[name]).decode())


def _shown_line(line: str, root: type) -> str:
    """The line, with possible secrets masked."""
    line = line.strip()[:_MAX_LINE]
    first = re.split(r"[\s.=]", line, maxsplit=1)[0]
    if "=" not in line and not line.startswith(("[", "#")) and first not in _all_names(root):
        # perhaps a pasted secret
        return MASK
    pairs = re.sub(r"\s*=\s*", "=", line)
    masked = masked_text(_NO_PATH.sub(rf"\1{MASK}", pairs))
    return _bounded(line if masked == pairs else masked)


def _bounded(text: str) -> str:
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _odd(line: str) -> str:
    """A hint about a character that looks like a quote or a space but is neither."""
    odd = next((char for char in line.strip() if char in "“”„‘’" or not (char.isprintable() or char == "\t")), None)
    return f"; the line holds {name_of(odd)}" if odd else ""


def _did_you_mean(unknown: str, fields: dict[str, Any]) -> str:
    # these are not keys of the file
    known = [name for name in fields if name not in ("file", "ignored", "outdated")]
    return nearest(unknown, known) or (f"; expected one of: {', '.join(known)}" if known else "")


def nearest(word: str, known: Sequence[str]) -> str:
    """ "; did you mean X?" for the known word that is most like this one; "" if none is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _type_at(kind: Any, names: Sequence[str | int]) -> Any:
    """The annotation at these names; None if it is unknown."""
    for name in names:
        if get_origin(kind) is dict:
            kind = get_args(kind)[-1]
        else:
            kind = kind if str(name).isdigit() else _fields(kind).get(str(name))
    given = [part for part in get_args(kind) if part is not type(None)]
    return given[0] if type(None) in get_args(kind) and len(given) == 1 else kind


def _fields(kind: Any) -> dict[str, Any]:
    """The fields of the struct in an annotation (`Push | None`, `tuple[Route, ...]`), with their types."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return get_type_hints(kind)
    if get_origin(kind) in (None, Literal):
        return {}
    return next((fields for part in get_args(kind) if (fields := _fields(part))), {})


def _all_names(kind: Any) -> set[str]:
    fields = _fields(kind)
    return set(fields).union(*(_all_names(each) for each in fields.values()))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
