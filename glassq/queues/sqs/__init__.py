"""Amazon SQS as the queue: standard queues, one a tube; what it cannot keep lies on the shelf (queues/shelf.py).

One queue for many tubes would be cheaper to wait at, but whoever may work only some of them, as limits and shares have
it, would receive what it must give back: two calls each time, and in a circle where a tube with a limit is busy. So
each tube has a queue. A receiver that is busy asks them in turn. One that is idle waits at all of them at once, by long
polls of 20 s: what comes is there at once, and an idle hour costs 180 calls a tube and child.

A reservation is a message that nobody else sees for a while, known by its receipt handle; whoever knows the handle can
end it. Nothing tells that a lease is lost, so the receiver goes by its own clock (`leases`).
"""
