"""Senders with keys of their own: they sign with a private key, or show a token that is signed with one."""

from __future__ import annotations

from glassq.sources.base import Reply
from glassq.sources.presets.preset import HOUR, MIB, Preset
from glassq.sources.schemes.jwt import GoogleToken, Oidc
from glassq.sources.schemes.public_key import PublicKey
from glassq.sources.schemes.x509 import PayPal, Sns

DISCORD = PublicKey(
    signature="header:X-Signature-Ed25519", algorithm="ed25519", timestamp="header:X-Signature-Timestamp"
)

ROWS = (
    Preset(
        name="discord",
        title="Discord interactions",
        scheme=DISCORD,
        event="json:type",
        event_id="json:id",
        labels=(("command", "json:data.name | json:data.custom_id"),),
        challenges=("discord",),
        docs="https://discord.com/developers/docs/interactions/receiving-and-responding",
        secrets="the application's public key (hex): General Information, Public Key",
        enter="General Information, Interactions Endpoint URL; Discord tries it at once, also with wrong signatures",
        events="the type: 2 a command, 3 a component, 5 a form; suggestions (4) are answered with none",
        limits="waits 3 s; commands and forms are deferred at once: the handler edits the answer within 15 minutes",
    ),
    Preset(
        name="discord-events",
        title="Discord webhook events",
        scheme=DISCORD,
        event="json:event.type",
        dedupe="sha256",
        challenges=("discord_events",),
        accept=Reply(204, content_type="application/json"),
        docs="https://discord.com/developers/docs/events/webhook-events",
        secrets="the application's public key (hex): General Information, Public Key",
        enter="Webhooks, Endpoint; Discord tries it at once, also with wrong signatures",
        events="such as APPLICATION_AUTHORIZED",
        limits="waits 3 s; sends again for 10 minutes",
    ),
    Preset(
        name="sendgrid",
        title="SendGrid events",
        scheme=PublicKey(
            signature="header:X-Twilio-Email-Event-Webhook-Signature",
            algorithm="ecdsa",
            encoding="base64",
            timestamp="header:X-Twilio-Email-Event-Webhook-Timestamp",
        ),
        event="json:0.event",
        dedupe="",
        max_body=4 * MIB,
        docs="https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event",
        secrets="the verification key (base64): Settings, Mail Settings, Event Webhooks, Signature Verification",
        enter="Settings, Mail Settings, Event Webhooks",
        events="of the first item, such as delivered or bounce; a ping is an array of items, each with sg_event_id",
        limits="sends again for up to 24 hours; batches may be cut anew, so tell items apart by sg_event_id",
    ),
    Preset(
        name="sns",
        title="Amazon SNS",
        scheme=Sns(),
        event="json:Type",
        event_id="json:MessageId",
        labels=(("topic", "json:TopicArn"),),
        keep=("x-amz-sns-topic-arn", "x-amz-sns-subscription-arn"),
        tolerance=2 * HOUR,
        max_body=2 * MIB,
        requires_network=True,
        handler="glassq.handlers.sns:confirm",
        docs="https://docs.aws.amazon.com/sns/latest/dg/sns-http-https-endpoint-as-subscriber.html",
        secrets="none; account names the AWS accounts or topics (ARN) that may send, as anybody can use SNS",
        enter="the topic, Create subscription, HTTPS, without raw message delivery; the handler confirms it",
        events="SubscriptionConfirmation (route it to glassq.handlers.sns:confirm), Notification, "
        "UnsubscribeConfirmation",
        limits="waits 15 s; 3 more tries, 20 s apart, none after a 4xx; the confirmation is valid for 3 days",
    ),
    Preset(
        name="paypal",
        title="PayPal",
        scheme=PayPal(),
        event="json:event_type",
        event_id="json:id",
        requires_network=True,
        docs="https://developer.paypal.com/api/rest/webhooks/",
        secrets="none; webhook_id is the id that PayPal shows beside the webhook",
        enter="Apps & Credentials, the app, Add Webhook",
        events="such as PAYMENT.SALE.COMPLETED",
        limits="sends again 25 times within 3 days",
    ),
    Preset(
        name="pubsub",
        title="Google Cloud Pub/Sub",
        scheme=GoogleToken(),
        event="json:message.attributes.eventType",
        event_id="json:message.messageId",
        labels=(("subscription", "json:subscription"),),
        max_body=14 * MIB,
        requires_network=True,
        docs="https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions",
        secrets="none; audience is that of the subscription, account the email address of its service account",
        enter="the subscription, Delivery type Push, Enable authentication",
        events="the attribute eventType, such as OBJECT_FINALIZE of Cloud Storage; message.data is base64",
        limits="waits for its acknowledgement deadline (10 to 600 s); sends again until the retention ends",
    ),
    Preset(
        name="oidc",
        title="Any sender with tokens of OpenID Connect",
        scheme=Oidc(),
        event="header:ce-type | json:type",
        event_id="header:ce-source + header:ce-id | json:id",
        keep=("ce-*",),
        challenges=("options", "event_grid"),
        requires_network=True,
        docs="https://openid.net/specs/openid-connect-discovery-1_0.html",
        secrets="none; issuer (https), audience, and account: the token's sub, azp or appid, or its verified email",
        enter="as the sender asks, such as Event Grid: Microsoft Entra authentication",
        events="the type, where it is a CloudEvent",
    ),
)
