"""What happens to the nodes of a site: each fault lasts some seconds, and leaves all nodes running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.chaos.disk import Filler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.site import Site

# How long a fault lasts where nothing else is said, and the pause after its recovery, in seconds.
LASTS, PAUSE = 5.0, 3.0
# How long an operator takes to see that the primary is gone and to promote another, in seconds.
PROMOTED_AFTER = 3.0


def standby_killed(site: Site) -> None:
    """One of two standbys dies, and comes again: the other confirms."""
    node = site.cluster.standbys[0]
    node.kill()
    time.sleep(LASTS)
    node.start()


def standby_frozen(site: Site) -> None:
    node = site.cluster.standbys[0]
    node.freeze()
    time.sleep(LASTS)
    node.thaw()


def standbys_away(site: Site) -> None:
    """No commit can be confirmed: pings go to the journals."""
    for node in site.cluster.standbys:
        node.kill()
    time.sleep(LASTS)
    for node in site.cluster.standbys:
        node.start()


def standbys_cut_off(site: Site) -> None:
    for node in site.cluster.standbys:
        site.primary.proxy.reset()
        node.running.configure(primary_conninfo="host=127.0.0.1 port=1")
    time.sleep(LASTS)
    for node in site.cluster.standbys:
        site.cluster.follow(node)


def primary_frozen(site: Site) -> None:
    site.primary.freeze()
    time.sleep(LASTS)
    site.primary.thaw()


def primary_cut_off(site: Site) -> None:
    """Its packets go nowhere: nobody is told that the connection is gone."""
    site.primary.cut()
    time.sleep(LASTS)
    site.primary.heal()


def primary_restarted(site: Site) -> None:
    """It dies and comes again by itself, as systemd would have it."""
    site.primary.kill()
    time.sleep(1.0)
    site.primary.start()


def primary_replaced(site: Site) -> None:
    """It dies for good: an operator promotes the standby that has most, and the dead one comes back as a standby."""
    dead = site.primary
    dead.kill()
    time.sleep(PROMOTED_AFTER)
    site.cluster.promote(site.cluster.longest())
    time.sleep(PAUSE)
    site.cluster.rejoin(dead)


def disk_full(site: Site) -> None:
    """The primary's disk is full: its log cannot be written, so it stops; with room it starts again."""
    assert site.disk is not None, "no disk can be mounted here"
    filler = Filler(site.disk)
    filler.fill()
    time.sleep(LASTS)
    filler.free()
    for node in site.cluster.nodes:
        if not node.running.running():
            node.start()


FAULTS: dict[str, Callable[[Site], None]] = {
    "a standby killed, started again": standby_killed,
    "a standby frozen": standby_frozen,
    "both standbys dead, started again": standbys_away,
    "both standbys cut off from the primary": standbys_cut_off,
    "the primary frozen": primary_frozen,
    "the primary cut off from everybody": primary_cut_off,
    "the primary killed, started again": primary_restarted,
    "the primary dead, a standby promoted by hand": primary_replaced,
    "the databases' disk full": disk_full,
}
