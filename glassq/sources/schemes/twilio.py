"""Twilio: HMAC-SHA1 of the URL and the sorted form, or of a URL that holds the digest of the body.

Source: https://www.twilio.com/docs/usage/security, and twilio-python's request_validator.py: some products sign the URL
with its port, others without, so both are tried.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import msgspec

from glassq.sources import forms
from glassq.sources.places import query_field
from glassq.sources.schemes.base import SchemeConfig, Verify, unproven
from glassq.sources.schemes.hmac import proof
from glassq.sources.schemes.keys import decoded_keys
from glassq.sources.template import raw, sorted_form

if TYPE_CHECKING:
    from glassq.sources.base import HookRequest, Proof

HEADER = "x-twilio-signature"
_PORTS = {"https": 443, "http": 80}


class Twilio(msgspec.Struct, frozen=True):
    """Twilio's signature. It has no parameters."""

    needs: ClassVar[tuple[str, ...]] = ("secrets_file", "url")
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        keyed = [hmac.new(key, None, "sha1") for key in decoded_keys(given.secrets, "text")]
        urls = [raw(url) for url in with_and_without_port(given.url)]

        def verify(request: HookRequest) -> Proof:
            shown = request.headers.get(HEADER)
            if not shown:
                raise unproven("no signature", f"The header {HEADER} with the signature is not there.")
            target = raw(request.target)
            signed = _signed(request)
            expected = []
            for key in keyed:
                for url in urls:
                    mac = key.copy()
                    mac.update(url + target)
                    mac.update(signed)
                    expected.append(base64.b64encode(mac.digest()))
            found = proof(expected, (raw(shown),))
            return msgspec.structs.replace(found, secret=found.secret // len(urls))

        return verify


def _signed(request: HookRequest) -> bytes:
    """What is signed after the URL. Raises PingRefused where the URL holds the digest of another body."""
    digest = query_field(request.target, "bodySHA256")
    if digest is not None:
        if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), digest.lower().encode()):
            raise unproven("wrong signature", "The body is not the one whose digest the URL holds.")
        return b""
    if forms.is_form(request):
        return sorted_form(request)
    if len(request.body):
        # nothing would cover it
        raise unproven("no signature", "A body that is no form needs bodySHA256 in the URL.")
    return b""


def with_and_without_port(url: str) -> tuple[str, str]:
    """The URL with its port, and without; a port that is not written is the scheme's."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition(":")[0] if parts.port else parts.netloc
    port = parts.port or _PORTS[parts.scheme]
    return tuple(f"{parts.scheme}://{netloc}{parts.path}" for netloc in (host, f"{host}:{port}"))  # type: ignore[return-value]
