"""What would refuse every ping is refused at the start, in words that say what to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glassq.errors import PingRefused, SettingsError
from glassq.settings import parse
from glassq.sources import HookRequest, Proof, open_sources
from glassq.sources.labels import is_secret
from glassq.sources.presets import PRESETS
from glassq.sources.schemes.base import SchemeConfig, unproven
from tests.sources.conftest import VECTORS, request_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources import Source

SENDERS = Path(__file__).parents[2] / "docs" / "sources.md"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://hooks.example.com"
MISTAKES: list[tuple[str, list[str] | None, dict[str, Any], str]] = [
    ("githup", ["s"], {}, '[sources.it] kind = "githup": expected a known kind, or one of: hmac, token, none, custom'),
    ("githup", ["s"], {}, "did you mean github?"),
    ("github", None, {}, "missing key [sources.it] secrets_file: kind github needs it"),
    ("github", ["# none"], {}, "the file is empty: expected one secret per line"),
    ("mirror", ["s"], {}, "missing key [sources.it] verify_tokens_file: kind mirror needs it"),
    ("mirror", ["s"], {"verify_tokens_file": ["t"]}, "expected no such key: kind mirror takes verify_tokens_file"),
    (
        "github",
        ["s"],
        {"header": "X-Y"},
        '[sources.it] header = "X-Y": expected no such key: kind github takes',
    ),
    ("github", ["s"], {"tolerance": "5m"}, '[sources.it] tolerance = "5m": expected no such key'),
    ("github", ["s"], {"verify_token_file": ["t"]}, "verify_token_file"),
    ("square", ["s"], {}, "missing key [sources.it] url: kind square needs it"),
    ("twilio", ["s"], {}, "missing key [sources.it] url"),
    (
        "standard",
        ["no base64!"],
        {},
        "the file has no key in secret 1: expected whsec_ and base64 of at least",
    ),
    ("standard", [KEY, "whsec_c2hvcnQ="], {}, "the file has no key in secret 2"),
    (
        "standard",
        ["whpk_c2hvcnQ="],
        {},
        "the file has no public key in secret 1: expected whpk_ and base64",
    ),
    ("gitlab", ["plain", "whsec_???"], {}, "the file has no key in secret 1"),
    ("adyen", ["xyz"], {}, "the file has no hex in secret 1: expected the key in hex"),
    ("postmark", ["password"], {}, "the file has a line without a colon: expected USER:PASSWORD, or"),
    (
        "none",
        None,
        {},
        '[sources.it] kind = "none": takes pings of everybody: expected path_token_file, allow',
    ),
    ("none", None, {"path_token_file": ["a/b"]}, "the file holds a word that cannot stand in a path"),
    ("hmac", ["s"], {}, "[sources.it] header: expected the header with the signature"),
    ("hmac", ["s"], {"header": "X", "signed": "body"}, '[sources.it] signed = "body": expected parts in braces'),
    ("hmac", ["s"], {"header": "X", "signed": "{bodi}"}, "expected a part of body, timestamp, id"),
    ("hmac", ["s"], {"header": "X", "signed": "{header:A B}"}, 'expected "header:NAME"'),
    ("hmac", ["s"], {"header": "X", "signed": "{timestamp}.{body}"}, "names a timestamp: expected the key timestamp"),
    ("hmac", ["s"], {"header": "X", "signed": "{id}.{body}"}, "names an id: expected the key event_id"),
    ("hmac", ["s"], {"header": "X", "signed": "{url}{body}"}, "missing key [sources.it] url"),
    ("hmac", ["s"], {"header": "X", "tolerance": "5m"}, "expected the key timestamp beside it"),
    ("hmac", ["s"], {"header": "X", "list": [","]}, '[sources.it] list = [","]: expected [",", "v1"]'),
    ("hmac", ["s"], {"header": "X", "key": "base64"}, "the file has no base64 in secret 1"),
    ("hmac", ["s"], {"header": "X", "timestamp": "when"}, '[sources.it] timestamp = "when": expected "header:NAME"'),
    (
        "token",
        ["s"],
        {},
        '[sources.it] token: expected "basic", "bearer", "query:NAME" or "json:a.b"',
    ),
    ("token", ["s"], {"token": "digest"}, '[sources.it] token = "digest": expected "basic", "bearer", or a place'),
    ("custom", None, {}, "missing key [sources.it] custom"),
    ("custom", None, {"custom": "nowhere"}, '[sources.it] custom = "nowhere": expected "module:Class"'),
    ("custom", None, {"custom": "no.such:Thing"}, "cannot be imported: ModuleNotFoundError"),
    ("custom", None, {"custom": "tests.sources.test_opening:exiting"}, "cannot be made: SystemExit: 3"),
    ("github", ["s"], {"event": "type"}, '[sources.it] event = "type": expected "header:NAME", "json:a.b"'),
    ("github", ["s"], {"event_id": "json:"}, '[sources.it] event_id = "json:": expected "header:NAME"'),
    (
        "github",
        ["s"],
        {"labels": {"ref": "json:a..b"}},
        '[sources.it.labels] ref = "json:a..b": expected names',
    ),
    ("github", ["s"], {"labels": {"Ref": "json:a"}}, '[sources.it.labels] Ref = "json:a": expected a label of a-z'),
    ("github", ["s"], {"labels": {"event": "json:a"}}, "event, action, event_id are keys of the section"),
    ("github", ["s"], {"keep": ["X-Hub-Signature-256"]}, 'keep = "x-hub-signature-256": expected no signature, token'),
    ("github", ["s"], {"keep": ["Cookie"]}, "expected no signature, token or cookie"),
    ("github", ["s"], {"keep": ["Authorization"]}, "expected no signature, token or cookie"),
    ("github", ["s"], {"keep": ["X Y"]}, "expected names of headers"),
    ("meta", ["s"], {"dedupe": "event_id"}, "expected event_id beside it: kind meta sends none"),
]


@pytest.mark.parametrize(("kind", "secrets", "keys", "says"), MISTAKES)
def test_what_would_refuse_every_ping_is_refused_at_the_start(
    kind: str, secrets: list[str] | None, keys: dict[str, Any], says: str, opened: Callable[..., Source]
) -> None:
    with pytest.raises(SettingsError) as refused:
        opened(kind, secrets, **keys)
    message = str(refused.value)
    assert message.startswith("glassq.toml: ")
    assert says in message
    # no secret is ever shown
    assert not any(secret in message for secret in secrets or () if len(secret) > 3 and secret[0] != "#")


def test_a_source_whose_name_is_a_kind_needs_no_kind(opened: Callable[..., Source]) -> None:
    assert opened("", ["s"], name="stripe").kind == "stripe"


def request(target: str = "/hooks/it", body: bytes = b"{}", peer: str = "", **headers: str) -> HookRequest:
    """A request; headers are written with _ for -."""
    return HookRequest(
        "POST", target, {name.replace("_", "-"): value for name, value in headers.items()}, body, peer, 1_700_000_000.0
    )


def test_a_source_knows_what_others_ask_of_it(opened: Callable[..., Source]) -> None:
    source = opened("github", ["a", "b"], max_body="1KiB")
    assert (source.kind, source.secrets, source.max_body, source.tube) == ("github", 2, 1024, "glassq")
    assert source.methods == {"POST"}
    assert source.accept.status == 200
    assert opened("github", ["a"]).max_body == 25 << 20
    assert opened("mirror", verify_tokens_file=["t"]).max_body == 16 << 10
    assert opened("cloudevents", ["t"]).accept.status == 202
    assert opened("meta", ["s"], verify_token_file=["word"]).methods == {"GET", "POST"}


def test_a_word_in_the_path_is_a_proof_of_its_own(opened: Callable[..., Source]) -> None:
    source = opened("none", path_token_file=["first-word", "second"])
    for word in ("first-word", "second", "%73econd"):
        source.admit(request(f"/hooks/it/{word}?x=y"))
        assert source.verify(request(f"/hooks/it/{word}")) == Proof()
    for path in ("/hooks/it", "/hooks/it/", "/hooks/it/third", "/hooks/it/second/", "/hooks/it/second/x", "*"):
        with pytest.raises(PingRefused) as refused:
            source.admit(request(path))
        assert (refused.value.status, refused.value.reason) == (404, "path token")


def test_only_allowed_addresses_come_in(opened: Callable[..., Source]) -> None:
    source = opened("none", allow=["192.0.2.0/24", "2001:db8::/32"])
    for peer in ("192.0.2.200", "2001:db8::7", "::ffff:192.0.2.7"):
        source.admit(request(peer=peer))
    for peer in ("192.0.3.1", "2001:db9::1", "", "unix", "::1"):
        with pytest.raises(PingRefused) as refused:
            source.admit(request(peer=peer))
        assert (refused.value.status, refused.value.reason) == (403, "address")


def test_content_types_are_those_of_the_section(opened: Callable[..., Source]) -> None:
    source = opened("none", allow=["0.0.0.0/0"], content_types=["application/JSON"])
    source.admit(request(peer="192.0.2.7", content_type="Application/json; charset=utf-8"))
    source.admit(request(peer="192.0.2.7"))
    with pytest.raises(PingRefused) as refused:
        source.admit(request(peer="192.0.2.7", content_type="text/plain"))
    assert (refused.value.status, refused.value.reason) == (415, "content type")


def test_a_signed_time_is_held_to_the_tolerance_both_ways(opened: Callable[..., Source]) -> None:
    (vector,) = [each for each in VECTORS if each["name"] == "sw-one-signature"]
    signed = 1614265330
    for keys, skews in (({}, (-300, 300)), ({"tolerance": "10s"}, (-10, 10))):
        source = source_of({**vector, "settings": keys}, opened)
        for skew in skews:
            assert source.verify(request_of({**vector, "now": signed - skew})).skew == skew
            with pytest.raises(PingRefused) as refused:
                source.verify(request_of({**vector, "now": signed - skew - (1 if skew > 0 else -1)}))
            assert refused.value.reason == ("too new" if skew > 0 else "too old")
            assert refused.value.skew == skew + (1 if skew > 0 else -1)


def test_the_proof_says_which_line_matched(opened: Callable[..., Source]) -> None:
    for place, line in enumerate(("old", "new")):
        source = opened("token", ["old", "new"], token="bearer")
        assert source.verify(request(authorization=f"bearer {line}")).secret == place
    (twilio,) = [each for each in VECTORS if each["name"] == "twilio-sdk-signed-with-port-443"]
    assert source_of({**twilio, "secrets": ["old", *twilio["secrets"]]}, opened).verify(request_of(twilio)).secret == 1
    gitlab = opened("gitlab", ["old", KEY, "new"])
    assert gitlab.verify(request(x_gitlab_token="new")).secret == 2
    basic = opened("token", ["secret"], token="basic", username="ops")
    assert basic.verify(request(authorization="Basic b3BzOnNlY3JldA==")) == Proof()


class ShoutSource:
    """A source of somebody's own: a ping is genuine if it is in capitals."""

    def __init__(self, given: SchemeConfig) -> None:
        self._secrets = given.secrets

    def verify(self, request: HookRequest) -> Proof:
        """The proof."""
        if request.body != bytes(request.body).upper():
            raise unproven("wrong signature", "Shout.")
        return Proof()


def exiting(given: SchemeConfig) -> object:
    raise SystemExit(3)


def test_a_class_of_ones_own_verifies(opened: Callable[..., Source]) -> None:
    source = opened("custom", custom=f"{__name__}:ShoutSource", event="json:TYPE")
    ping = request(body=b'{"TYPE": "A"}')
    assert source.verify(ping) == Proof()
    assert source.describe(ping).labels == {"event": "A"}
    with pytest.raises(PingRefused):
        source.verify(request(body=b"a"))


def test_a_class_of_ones_own_is_found_beside_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (page,) = re.findall(r"```python\n# hooks/acme.py\n(.*?)```", SENDERS.read_text(), re.DOTALL)
    (tmp_path / "hooks_of_the_page").mkdir()
    (tmp_path / "hooks_of_the_page" / "acme.py").write_text(page)
    (tmp_path / "secret").write_text("s3cret\n")
    section = f'kind = "custom"\ncustom = "hooks_of_the_page.acme:AcmeSource"\nsecrets_file = "{tmp_path}/secret"\n'
    (source,) = open_sources(parse(f"[sources.acme]\n{section}", str(tmp_path / "glassq.toml")))
    assert source.verify(request(x_acme="s3cret")) == Proof(0)
    with pytest.raises(PingRefused, match="The token is wrong"):
        source.verify(request(x_acme="another"))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_row_of_the_table_is_whole(preset: Any) -> None:
    assert preset.title and preset.docs.startswith("https://") and preset.secrets and preset.enter
    assert [name for name in preset.keep if is_secret(name) or name != name.lower()] == []
    assert preset.max_body <= 25 << 20
    if preset.dedupe == "event_id":
        assert preset.event_id
