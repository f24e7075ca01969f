"""How hostile the SQS of tests is."""

from __future__ import annotations

import msgspec


class Faults(msgspec.Struct, frozen=True):
    """What the service does now; each but the first three is how likely it is, from 0 to 1.

    `refuse`: it takes no messages. `zombies`: a poll whose client is gone gets messages all the same. `seed` is for the
    random choices. `reorder`: another message than the oldest is the next. `again`: a message that is given out stays
    visible. `undelete`: a delete is answered and does nothing. `late`: an answer takes up to a second. `throttle`: a
    call is refused, as too many came. `broken`: it answers 503 and has done nothing. `cut`: the connection ends instead
    of an answer, after the call was carried out; `cut_before`: and it was not.
    """

    refuse: bool = False
    zombies: bool = False
    seed: int = 0
    reorder: float = 0.0
    again: float = 0.0
    undelete: float = 0.0
    late: float = 0.0
    throttle: float = 0.0
    broken: float = 0.0
    cut: float = 0.0
    cut_before: float = 0.0
