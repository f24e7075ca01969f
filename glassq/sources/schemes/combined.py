"""Schemes made of others: one that takes each proof only once, and one of two for a sender that changes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from glassq.errors import PingRefused
from glassq.sources.places import PlaceReader, parse_spec
from glassq.sources.schemes.base import Scheme, SchemeConfig, Verify, unproven
from glassq.sources.schemes.replay_cache import ReplayCache
from glassq.sources.schemes.standard import Standard
from glassq.sources.template import required
from glassq.standard_webhooks import SHARED

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources.base import HookRequest, Proof
    from glassq.sources.schemes.hmac import Hmac
    from glassq.sources.schemes.token import ShownToken


class Once(msgspec.Struct, frozen=True):
    """A proof that does not cover the body: without more, whoever caught one could send anything with it.

    So each is taken once: `unique` is the place of what is in no other. It is remembered as long as its signed time is
    tolerated, over all processes of a glassq-web; after a restart one that was used before could be used once more.
    """

    proof: Hmac
    unique: str

    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:
        """What the proof needs."""
        return self.proof.needs

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        verify, spec = self.proof.prepare(given), parse_spec(self.unique)
        places, seen, tolerance = PlaceReader([spec]), ReplayCache(), given.tolerance or 0.0

        def verify_once(request: HookRequest) -> Proof:
            found = verify(request)
            # a proof is not used up by the head of a ping whose body may never come
            len(request.body)
            token = required(places.values(request), spec)
            # as long as check_time would let it pass again, and a second for rounding
            until = request.now + (found.skew or 0.0) + tolerance + 1
            if not seen.add(token, request.now, until):
                raise unproven("replayed", "This token was used before.")
            return found

        return verify_once


class TokenOrStandard(msgspec.Struct, frozen=True):
    """GitLab: the secret token that it always sent, or a signing token (whsec_...), as the secrets file has them.

    With both in the file either is taken, so that a hook can be changed over. Source: https://docs.gitlab.com,
    Webhooks.
    """

    token: ShownToken

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = True

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        ways: list[Callable[[HookRequest], Proof]] = []
        for scheme, signs in ((Standard(), True), (self.token, False)):
            places = [place for place, secret in enumerate(given.secrets) if secret.startswith(SHARED) is signs]
            if places:
                ways.append(_numbered(scheme, given, places))

        def verify(request: HookRequest) -> Proof:
            refusals = []
            for way in ways:
                try:
                    return way(request)
                except PingRefused as refused:
                    refusals.append(refused)
            raise next((each for each in refusals if not each.reason.startswith("no ")), refusals[0])

        return verify


def _numbered(scheme: Scheme, given: SchemeConfig, places: list[int]) -> Verify:
    """The scheme with some of the secrets, and its proofs with their places among all."""
    secrets = tuple(given.secrets[place] for place in places)
    verify = scheme.prepare(msgspec.structs.replace(given, secrets=secrets))

    def numbered(request: HookRequest) -> Proof:
        proof = verify(request)
        return msgspec.structs.replace(proof, secret=places[proof.secret])

    return numbered
