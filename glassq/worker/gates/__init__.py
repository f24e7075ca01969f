"""Gates of routes: at most so many deliveries of one key at once (`concurrency_by`), and routes that pause themselves.

All is in shared memory that the pool's parent makes before it forks (shared.py): a word for each slot that says which
key its child works (claims.py), a table of the tubes in which deliveries are parked (parked.py), and the states of
breakers (breaker.py, rows.py). A child decides with that alone whether it may work a delivery (doorman.py), and from
which parking tube it reserves next (limiter.py).

| where a delivery is    | event                                        | where it is next                    |
|------------------------|----------------------------------------------|-------------------------------------|
| reserved from its tube | its key is free, and nothing of it is parked | worked by the slot that has the key |
| reserved from its tube | its key is taken, or others of it are parked | parked in ORIGIN.key.ROUTE.HASH     |
| reserved from its tube | the breaker is open, and no probe is due     | parked in ORIGIN.held.ROUTE         |
| parked                 | a child has claimed the key, or may probe    | reserved and worked                 |
| worked                 | it fails                                     | delayed in its own tube             |
| worked                 | its child dies                               | ready where it was reserved         |

- Nobody reserves from a parking tube without the claim, so nothing is reserved and given back in vain.
- No wake-ups are needed: a child that is done with a key is free, and looks at the table before it waits. The child in
  the place of a dead one looks for what the table may lack, as does one child of each new pool, and one a minute.
- A claim is one word, which the parent clears when the child has died. Two children cannot claim at once: they hold the
  lock, which the kernel takes from the dead. Without the lock a delivery is parked, not worked.
"""
