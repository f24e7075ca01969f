"""Masks secrets in texts and in bodies of pings before people see them.

The key identifies a secret (`verify_token`, `Cookie`, `client_secret`). The value after the key is masked; a sentence
stays: "password: the user must log in". Masking is idempotent. Its time is linear in the length of the text, whatever
the content; cut unbounded texts first.
"""

from __future__ import annotations

import json
import math
import re
import string
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MASK = "***"
# Maximum number of characters shown of a body that is not JSON.
MAX_TEXT = 4_000
# Maximum length of a key before and after its sensitive word, in characters.
_REACH = 60
# Maximum number of characters of a text that must fit into one line.
MAX_LINE = 300

# userToken is left out: it is the name of a user, and operators need it
_SENSITIVE = (
    r"(?<!user)token|secret|passw|pwd|passphrase|credential|authori[sz]ation|api[-_]?key|private[-_]?key"
    r"|access[-_]?key|signature|cookie"
)
_SECRET_KEY = re.compile(_SENSITIVE, re.IGNORECASE)
# One of these is in whatever _SENSITIVE matches, in lower case; "key" is that of API, private and access keys.
_KEY_WORDS = ("token", "secret", "passw", "pwd", "passphrase", "credential", "authori", "key", "signature", "cookie")
# Keys with these endings hold no secret: token_uri, verify_tokens_file, token_type.
_HARMLESS = re.compile(r"[-_.]?(?:files?|path|dir|type|ur[il]|expir[a-z]*|count)$", re.IGNORECASE)
# Keys whose value is a secret if it is a text: a number of tests that pass is none.
_SECRET_TEXTS = frozenset({"pass", "jwt", "bearer", "sig", "hmac", "otp"})
# A name and its value, each under a key of its own: headers, variables, parameters.
_PAIR_NAMES, _PAIR_VALUES = frozenset({"name", "key", "header"}), ("value", "Value")
# What may follow the sensitive word in a key before a colon. InvalidTokenError is not a key.
_REST = re.compile(r"(?:or?d|[-_]?(?:key|value|hash|header|access|id|token|secret|s|\d{1,4}))*", re.IGNORECASE)
_KEY_CHARACTERS = string.ascii_letters + string.digits + "_.-"
# From the sensitive word to the start of the value. Quotes have backslashes in JSON inside a string.
_KEY = re.compile(
    rf"(?P<word>{_SENSITIVE})(?P<rest>[\w.-]{{0,{_REACH}}}+)(?P<close>\\{{0,15}}[\"'])?"
    r"(?P<separator>[ \t]{0,8}(?:[:!=]?={1,2}>?|:|%3D)\s{0,8})"
    r"(?P<scheme>(?:bearer|basic|digest|token|negotiate|ntlm|oauth|hawk|apikey|aws4-hmac-sha256) {1,8})?",
    re.IGNORECASE,
)
# The kinds of values: a quoted text, perhaps truncated; a list or an object; the pairs of a cookie; a word.
_ESCAPED = re.compile(r"b?(?P<quote>\\{1,15}[\"'])(?s:.*?)(?:(?<!\\)(?P=quote)|\Z)")
_QUOTED = re.compile(r"""b?(?:"[^"\\]*(?:\\[\s\S][^"\\]*)*"?|'[^'\\]*(?:\\[\s\S][^'\\]*)*'?)""")
_NESTED = re.compile(r"[\[{][^\]}]*[\]}]?")
_COOKIES = re.compile(r"""[^\s=;,"']+=[^\s;,"']*(?:;\s{0,8}[^\s=;,"']+(?:=[^\s;,"']*)?)*""")
_WORD = re.compile(r"""(?:[^\s"'&,;}\])\\]|\\(?![nrt"'\\]))+""")
# The credentials of a scheme with parameters, to the end of the line.
_PARAMETERS = re.compile(r"[\w-]{1,40}=[^\n\\]*")
_WITH_PARAMETERS = ("digest", "hawk", "oauth", "aws4-hmac-sha256")
# A word stands alone if only the end of its line or item follows.
_ALONE = re.compile(r"""[ \t]*(?:\Z|[\r\n,;)}\]"'&\\])""")
_LINE_START = re.compile(r"(?:\A|\n|\\n)[ \t|>+-]*\Z")
_CLASS_NAME = re.compile(r"(?:\w+\.)*[A-Z][a-z]+")
_PATH = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}:)?//|\.{0,2}/[\w.-]+/|~/", re.IGNORECASE)
_PHRASE = re.compile(r"[A-Za-z]{1,15}(?:[-_./:][A-Za-z]{1,15})+")
# Words about a secret, and types: never a secret themselves.
_PROSE = re.compile(
    r"a|absent|accepted|an|any|are|basic|be|bearer|bool|bytes|cannot|changed|denied|dict|empty|error|expected|expires"
    r"|expired|failed|false|forbidden|found|has|int|invalid|is|it|list|malformed|mismatch|missing|must|no|none|not|null"
    r"|object|ok|optional|present|refused|rejected|required|revoked|set|should|str|string|the|true|truncated"
    r"|unauthorized|undefined|unknown|unset|unused|valid|was|wrong"
)
# In a URL: a password, a user name that is a key, and short names of query parameters with signatures.
_PASSWORD = re.compile(r"""(://[^\s/:@"'?#]*:)[^\s/"']*@""")
_USER = re.compile(r"""(://)([^\s/:@"'?#]{16,})@""")
_QUERY = re.compile(
    r"""([?&](?:key|sig|auth|pass|sid|hmac)=)[^\s&#"'<>\\]+|([?&]code=)[^\s&#"'<>\\]{16,}""", re.IGNORECASE
)
# The value of an element of XML, and of a field of a form in parts (multipart/form-data).
_ELEMENT = re.compile(
    rf"(<(?P<name>[\w.:-]{{0,{_REACH}}}(?:{_SENSITIVE})[\w.-]{{0,{_REACH}}})(?:\s[^<>]{{0,200}})?>)"
    r"(?:<!\[CDATA\[.*?(?:\]\]>|\Z)|[^<]+)",
    re.IGNORECASE | re.DOTALL,
)
_FIELD = re.compile(
    rf"(\bname=\"(?P<name>[^\"\n]{{0,{_REACH}}}(?:{_SENSITIVE})[^\"\n]{{0,{_REACH}}})\"[^\n]{{0,200}}\n"
    r"(?:[^\r\n][^\n]{0,200}\n){0,5}\r?\n).*?(?=\r?\n--|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL)
# An incoming webhook of Slack: who knows the path, may write.
_WEBHOOK = re.compile(r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/+=-]+")
# What is a secret by its form alone: keys of Stripe, tokens of GitHub and Slack, keys of AWS and Google, secrets of
# Standard Webhooks, JSON Web Tokens. A word begins once only, so the time stays linear.
_FORM = re.compile(
    r"(?<![\w-])(?:[sr]k_(?:live|test)_\w{8,}+|gh[pousr]_\w{16,}+|github_pat_\w{16,}+|xox[abeprs]-[\w-]{10,}+"
    r"|A(?:KI|SI)A[A-Z0-9]{16}(?!\w)|AIza[\w-]{35}(?![\w-])|whsec_[A-Za-z0-9+/=]{16,}+|eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?)"
)
# What is in each of them that has no underscore.
_FORM_BEGINS = ("xox", "AKIA", "ASIA", "AIza", "eyJ")
_SCHEME = re.compile(rf"\b((?:bearer|basic)[ ]{{1,8}})({_WORD.pattern})(?![\"'])", re.IGNORECASE)


def masked_body(body: bytes, size: int | None = None) -> Any:
    """The body's JSON with secrets masked at any depth; a shortened text if the body is not JSON.

    With `size` this is the beginning of a body of so many bytes.
    """
    try:
        return _masked(json.loads(body, parse_float=_float, parse_constant=str))
    except (ValueError, RecursionError):
        # a character has at most four bytes
        text = body[: 4 * MAX_TEXT].decode("utf-8", "backslashreplace")[:MAX_TEXT]
        whole = len(body) if size is None else size
        cut = f" … ({whole} bytes in all)" if whole > 4 * MAX_TEXT or len(text) == MAX_TEXT else ""
        return masked_text(text)[:MAX_TEXT] + cut


def masked_texts(named: Mapping[str, str]) -> dict[str, str]:
    """Labels or headers: what a name says is a secret is masked, and what is one in a text."""
    masked: dict[str, str] = masked_body(json.dumps(dict(named)).encode())
    return {name: masked_text(value) for name, value in masked.items()}


def masked_text(text: str) -> str:
    """The text with secrets masked: the values of sensitive keys, and passwords and keys in URLs."""
    # most texts have none: a look for what a pattern cannot do without is ten times as quick as the pattern
    folded = text.lower() if text.isascii() else None
    if _may_have_key(text, folded):
        text = _without_values(text)
    if "_" in text or any(begin in text for begin in _FORM_BEGINS):
        text = _FORM.sub(MASK, text)
    if folded is None or "bearer " in folded or "basic " in folded:
        text = _SCHEME.sub(lambda each: each[1] + (MASK if _looks_random(each[2], "-._~+/=") else each[2]), text)
    if "://" in text:
        text = _PASSWORD.sub(rf"\1{MASK}@", text)
        text = _USER.sub(lambda each: f"{each[1]}{MASK}@" if _looks_random(each[2]) else each[0], text)
    if "?" in text or "&" in text:
        text = _QUERY.sub(lambda each: f"{each[1] or each[2]}{MASK}", text)
    return _without_marked(text)


def _without_marked(text: str) -> str:
    """The text with secrets masked that stand between marks: in XML, in parts of a form, in PEM, in paths of URLs."""
    if "</" in text:
        text = _ELEMENT.sub(_after_name, text)
    if 'name="' in text:
        text = _FIELD.sub(_after_name, text)
    if "PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub(rf"\1{MASK}", text)
    return _WEBHOOK.sub(rf"\1{MASK}", text) if "hooks.slack.com/" in text else text


def _after_name(found: re.Match[str]) -> str:
    return found[0] if _HARMLESS.search(found["name"]) else f"{found[1]}{MASK}"


def _may_have_key(text: str, folded: str | None) -> bool:
    """Whether `_KEY` may match; `folded` is the text in lower case, None where that is not ASCII alone."""
    if not (":" in text or "=" in text or "%3" in text):
        return False
    return folded is None or any(word in folded for word in _KEY_WORDS)


def _without_values(text: str) -> str:
    """The text with the values of sensitive keys masked."""
    pieces: list[str] = []
    kept = at = 0
    while found := _KEY.search(text, at):
        at = found.end()
        end = _end_of_secret(text, found)
        if end > at:
            pieces += (text[kept:at], MASK)
            kept = at = end
    return "".join((*pieces, text[kept:]))


def _end_of_secret(text: str, found: re.Match[str]) -> int:
    """The end of the secret value after a key; the end of `found` if the value is not a secret."""
    begin, at = found.start(), found.end()
    before = text[max(0, begin - _REACH) : begin]
    prefix = before[len(before.rstrip(_KEY_CHARACTERS)) :]
    name = f"{prefix}{found['word']}{found['rest']}"
    separator = found["separator"]
    if _HARMLESS.search(name):
        return at
    if separator == "=" or separator.lower() == "%3d":
        return _end_of_value(text, at)
    # quotes around a JSON key, not around a path that ends like a key
    in_quotes = bool(found["close"]) and before[: len(before) - len(prefix)].endswith(('"', "'"))
    opened = _ESCAPED.match(text, at) or _QUOTED.match(text, at)
    if separator.strip() != ":":
        # an assignment: in source code the value is mostly an expression
        inner = opened[0] if opened else _word(text, at)
        return _end_of_value(text, at) if opened or _looks_random(inner) else at
    if in_quotes and (opened or text[at : at + 1] in tuple("[{0123456789-")):
        return _end_of_value(text, at)
    line_start = bool(_LINE_START.search(text[max(0, begin - len(prefix) - 20) : begin - len(prefix)]))
    if not _REST.fullmatch(found["rest"]):
        return at
    return _end_behind_colon(text, found, prefix, line_start=line_start)


def _end_behind_colon(text: str, found: re.Match[str], prefix: str, *, line_start: bool) -> int:
    """The same for `Key: value`, which may be a header line or a sentence."""
    at, word = found.end(), found["word"].lower()
    if word == "cookie" and (cookies := _COOKIES.match(text, at)):
        return cookies.end()
    if (found["scheme"] or "").strip().lower() in _WITH_PARAMETERS:
        parameters = _PARAMETERS.match(text, at)
        return parameters.end() if parameters else at
    compound = bool(prefix) or "-" in found[0] or "_" in found[0] or word.startswith("authori")
    if opened := _ESCAPED.match(text, at) or _QUOTED.match(text, at):
        return opened.end() if compound or line_start or _looks_random(opened[0].strip("\\\"'")) else at
    value = _word(text, at)
    end = at + len(value)
    said = value.rstrip(".!?:").lower()
    if not said or _PROSE.fullmatch(said) or _PATH.match(value):
        return at
    if _looks_random(value):
        return end
    counted = said.isdigit() and found["rest"].lower().endswith("s")
    certain = line_start or (compound and not _CLASS_NAME.fullmatch(prefix))
    return end if certain and not counted and _ALONE.match(text, end) else at


def _end_of_value(text: str, at: int) -> int:
    for kind in (_ESCAPED, _QUOTED, _NESTED, _WORD):
        if value := kind.match(text, at):
            return value.end()
    return at


def _word(text: str, at: int) -> str:
    found = _WORD.match(text, at)
    return found[0] if found else ""


def _looks_random(word: str, joints: str = "") -> bool:
    """Whether a machine rather than a person made this word; `joints` are characters that natural words lack."""
    word = word[:200].rstrip(".!?:")
    if len(word) >= 20:
        return not _PHRASE.fullmatch(word)
    digit, letter = any(map(str.isdigit, word)), any(map(str.isalpha, word))
    if len(word) >= 6 and digit:
        return letter or word.isdigit()
    turns = sum(one.islower() and other.isupper() for one, other in pairwise(word))
    return turns > 1 or any(joint in word for joint in joints)


def masked_line(text: str) -> str:
    """The first line of the text, masked, without control characters, at most MAX_LINE characters."""
    line = masked_text(text.strip().partition("\n")[0][:MAX_LINE])
    return "".join(char if char.isprintable() else "?" for char in line)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        named = _names_secret(value)
        return {key: MASK if each and _is_masked(key, each, named) else _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return masked_text(value) if isinstance(value, str) else value


def _is_masked(key: str, value: Any, named: str) -> bool:
    return (
        (key == named and bool(named)) or _is_secret(key) or (key.lower() in _SECRET_TEXTS and isinstance(value, str))
    )


def _names_secret(value: dict[str, Any]) -> str:
    """The key of the value in `{"name": "Authorization", "value": "..."}`; "" if that is no such pair."""
    held = next((key for key in _PAIR_VALUES if key in value), "")
    if not held:
        return ""
    names = (each for key, each in value.items() if key.lower() in _PAIR_NAMES and isinstance(each, str))
    return held if any(map(_is_secret, names)) else ""


def _is_secret(key: str) -> bool:
    # the same few keys come again and again; long ones would fill the memory
    return _known_secret(key) if len(key) <= _REACH else _known_secret.__wrapped__(key)


@lru_cache(maxsize=2048)
def _known_secret(key: str) -> bool:
    return bool(_SECRET_KEY.search(key)) and not _HARMLESS.search(key)


def _float(text: str) -> float | str:
    # 1e999 is valid JSON, but Python reads it as infinity, which is not
    number = float(text)
    return number if math.isfinite(number) else text
