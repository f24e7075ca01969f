"""The HTTP side: takes a ping, makes it durable, answers.

One loop a process (http/gunicorn_worker.py) collects the bytes of requests and works all that are whole, one after the
other: a source checks each ping (sources/), it is wrapped into a delivery (app.py) and handed to the turn's batch
(keeper.py). One more thread keeps the batch (durable_store.py): it puts it into the queue in one packet and asks for
one proof. Then the answers go out. A sender has his within half a second, or as soon as the journal's disk has it.

| the queue                                                     | a ping goes to | answer              |
|---------------------------------------------------------------|----------------|---------------------|
| takes the batch and proves within half a second to keep it    | the queue      | 200                 |
| is gone, frozen, draining, out of disk, or gives no proof     | the journal    | 200                 |
| the same, and the journal takes nothing                       | nowhere        | 503 and Retry-After |

From the journal, deliveries are moved on into the queue once that is well again (watcher.py). With `acknowledge =
"journal"` all pings go there first (forwarder.py).
"""
