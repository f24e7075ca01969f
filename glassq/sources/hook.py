"""A source that is put together of a preset and a section of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from glassq.sources.challenges import ChallengeKeys, signed, unsigned

if TYPE_CHECKING:
    from glassq.sources.admission import AdmissionRules
    from glassq.sources.base import Description, HookRequest, Proof, Reply
    from glassq.sources.labels import Labels
    from glassq.sources.schemes.base import Verify


class HookSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source: see `glassq.sources.base.Source`. `secrets` is the number of its current secrets."""

    name: str
    kind: str
    tube: str
    max_body: int
    methods: frozenset[str]
    accept: Reply
    secrets: int
    admission: AdmissionRules
    verifier: Verify
    labels: Labels
    challenges: tuple[str, ...]
    keys: ChallengeKeys

    def admit(self, request: HookRequest) -> None:
        """Checks what needs no proof. Raises PingRefused."""
        self.admission.check(request)

    def challenge(self, request: HookRequest) -> Reply | None:
        """The answer to a challenge that nobody signs. Raises PingRefused."""
        return unsigned(self.challenges, request, self.keys) if self.challenges else None

    def verify(self, request: HookRequest) -> Proof:
        """The proof. Raises PingRefused and SourceUnready."""
        return self.verifier(request)

    def reply(self, request: HookRequest) -> Reply | None:
        """The answer to a genuine challenge."""
        return signed(self.challenges, request, self.keys) if self.challenges else None

    def describe(self, request: HookRequest) -> Description:
        """What its delivery keeps. Raises nothing."""
        return self.labels.describe(request)
