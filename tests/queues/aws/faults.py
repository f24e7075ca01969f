"""What may go wrong between a service of Amazon's and its clients, whichever service it is."""

from __future__ import annotations

import msgspec


class AwsFaults(msgspec.Struct, frozen=True):
    """What a service of tests does now; each but the first two is how likely it is, from 0 to 1.

    `zombies`: a poll whose client is gone is given something all the same. `seed` is for the random choices. `late`: an
    answer takes up to a second. `throttle`: a call is refused, as too many came. `broken`: it answers 503 and has done
    nothing. `cut`: the connection ends instead of an answer, after the call was carried out; `cut_before`: and it was
    not.
    """

    zombies: bool = False
    seed: int = 0
    late: float = 0.0
    throttle: float = 0.0
    broken: float = 0.0
    cut: float = 0.0
    cut_before: float = 0.0
