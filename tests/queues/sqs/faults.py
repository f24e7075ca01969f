"""How hostile the SQS of tests is."""

from __future__ import annotations

from tests.queues.aws.faults import AwsFaults

# What is noted of a message that is given out while there are two of it: harmless, unless who sent the second one died.
GIVEN_BACK = "it was sent anew to be given back, and the old one not deleted yet"


class Faults(AwsFaults, frozen=True):
    """Beside what any service does, as likely as they say: from 0 to 1.

    `refuse`: it takes no messages. `unfit`: nor any with this text; others of the same call it does. `unmade`: it makes
    no queues. `reorder`: another message than the oldest is the next. `again`: a message that is
    given out stays visible. `undelete`: a delete is answered and does nothing.
    """

    refuse: bool = False
    unfit: str = ""
    unmade: bool = False
    reorder: float = 0.0
    again: float = 0.0
    undelete: float = 0.0
