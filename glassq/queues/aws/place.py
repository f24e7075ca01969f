"""What a queue's URL at Amazon says: SERVICE://REGION/NAME, and options."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit


def parts_of(url: str, poll: int) -> tuple[str, str, str, int]:
    """Region, name, another server's URL ("": Amazon's own), and how long a poll takes, in seconds, or else `poll`.

    The text is right, as `QueueUrl` checks it.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return parts.netloc, parts.path.strip("/"), options.get("endpoint", ""), int(options.get("poll", poll))
