"""The HTTP side: takes a ping, makes it durable, answers.

gunicorn's main loop collects the bytes of a request and hands it to a thread once all of it has arrived
(http/gunicorn_worker.py). The thread checks the ping (sources/), wraps it into a delivery (app.py) and stores it
(durable_store.py). Each thread borrows a connection to the queue; one that broke is replaced once. The sender has its
answer within 5 seconds, whatever the queue does.

| the queue                                                    | a ping goes to | answer              |
|--------------------------------------------------------------|----------------|---------------------|
| takes deliveries, and writes to disk (`require_durable`)     | the queue      | 200                 |
| is gone, frozen, draining, out of disk, or in memory only    | the spool      | 200                 |
| the same, and the spool is full                              | nowhere        | 503 and Retry-After |

From the spool, deliveries go into the queue once that is well again.
"""
