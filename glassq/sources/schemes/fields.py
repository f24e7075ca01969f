"""Adyen's payments: each item of a notification carries a signature over eight of its own fields.

Source: https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures, and adyen-python-api-library: a
missing field is empty, and nothing is escaped.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.schemes.base import SchemeConfig, Verify, matching, unproven
from glassq.sources.schemes.keys import decoded_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

_Value = str | int | float | bool | None


class _Amount(msgspec.Struct):
    value: _Value = None
    currency: _Value = None


class _More(msgspec.Struct, rename="camel"):
    hmac_signature: str | None = None


class _Item(msgspec.Struct, rename="camel"):
    psp_reference: _Value = None
    original_reference: _Value = None
    merchant_account_code: _Value = None
    merchant_reference: _Value = None
    amount: _Amount | None = None
    event_code: _Value = None
    success: _Value = None
    additional_data: _More | None = None


class _Holder(msgspec.Struct):
    NotificationRequestItem: _Item


class _Notification(msgspec.Struct):
    notificationItems: list[_Holder]  # noqa: N815 (Adyen's name)


_decode = msgspec.json.Decoder(_Notification).decode


class AdyenFields(msgspec.Struct, frozen=True):
    """Adyen's signature of payments. It has no parameters; keys are hexadecimal."""

    needs: ClassVar[tuple[str, ...]] = ("secrets_file",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping. Raises UnusableKey."""
        keys = decoded_keys(given.secrets, "hex")

        def verify(request: HookRequest) -> Proof:
            try:
                items = [holder.NotificationRequestItem for holder in _decode(request.body).notificationItems]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise unproven("malformed", "The body is no notification with items.") from None
            if not items:
                raise unproven("no signature", "The notification has no items.")
            # the first that is wrong ends it: which one that is, is no secret
            proofs = [Proof(_place(item, keys)) for item in items]
            return proofs[0]

        return verify


def _place(item: _Item, keys: Sequence[bytes]) -> int:
    """The place of the key that signed the item. Raises PingRefused."""
    shown = item.additional_data.hmac_signature if item.additional_data else None
    if not shown:
        raise unproven("no signature", "An item has no hmacSignature.")
    message = signed_text(item).encode("utf-8", "surrogatepass")
    expected = [base64.b64encode(hmac.digest(key, message, "sha256")) for key in keys]
    place = matching(expected, (shown.encode("utf-8", "surrogatepass"),))
    if place is None:
        raise unproven("wrong signature", "The signature of an item is not that of its fields.")
    return place


def signed_text(item: Any) -> str:
    """The eight fields of an item, as Adyen signs them."""
    amount = item.amount or _Amount()
    values = (
        item.psp_reference,
        item.original_reference,
        item.merchant_account_code,
        item.merchant_reference,
        amount.value,
        amount.currency,
        item.event_code,
        item.success,
    )
    return ":".join(map(_written, values))


def _written(value: _Value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
