"""Senders that keep to Standard Webhooks."""

from __future__ import annotations

from glassq.sources.presets.preset import Preset
from glassq.sources.schemes.standard import Standard

_ID = "header:webhook-id | header:svix-id"
_TYPE = "json:type"
_RESENDS = "Svix sends again after 5 s, 5 and 30 minutes, 2, 5, 10 and 10 hours; 5 days of failures switch it off"

ROWS = (
    Preset(
        name="standard",
        title="Standard Webhooks",
        scheme=Standard(),
        event=_TYPE,
        event_id=_ID,
        tolerance=300.0,
        docs="https://www.standardwebhooks.com",
        secrets="the signing secret (whsec_...), or the public key (whpk_...)",
        enter="as the sender asks",
        events="the type, such as user.created",
        limits="waits 15 to 30 s; 410 would end it",
    ),
    Preset(
        name="svix",
        title="Svix",
        scheme=Standard(),
        event=_TYPE,
        event_id=_ID,
        tolerance=300.0,
        docs="https://docs.svix.com/receiving/verifying-payloads/how-manual",
        secrets="the Signing Secret of the endpoint (whsec_...)",
        enter="the sender's Webhooks page: Endpoint URL",
        limits=_RESENDS,
    ),
    Preset(
        name="clerk",
        title="Clerk",
        scheme=Standard(),
        event=_TYPE,
        event_id=_ID,
        tolerance=300.0,
        docs="https://clerk.com/docs/webhooks/overview",
        secrets="the Signing Secret of the endpoint (whsec_...)",
        enter="Dashboard, Webhooks, Add Endpoint",
        events="user.created, session.ended ...",
        limits=_RESENDS,
    ),
    Preset(
        name="resend",
        title="Resend",
        scheme=Standard(),
        event=_TYPE,
        event_id=_ID,
        tolerance=300.0,
        docs="https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests",
        secrets="the Signing Secret of the webhook (whsec_...)",
        enter="Webhooks, Add Webhook: Endpoint URL",
        events="email.delivered, email.bounced ...",
        limits=_RESENDS,
    ),
    Preset(
        name="openai",
        title="OpenAI",
        scheme=Standard(),
        event=_TYPE,
        event_id=_ID,
        tolerance=300.0,
        docs="https://platform.openai.com/docs/guides/webhooks",
        secrets="the signing secret that is shown once (whsec_...)",
        enter="Project settings, Webhooks: URL",
        events="response.completed, batch.completed ...",
        limits="sends again for up to 72 hours",
    ),
)
