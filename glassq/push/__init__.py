"""The App Engine way: push queues, whose tasks go to HTTP endpoints in any language, or to functions.

A program calls `taskqueue.add` or `deferred.defer`, or a ping's route names a URL. A child of the pool makes the
request or calls the function.

    add       claim the task's name, put, confirm the name       taskqueue.py, task.py, client.py, names.py
    forward   a ping whose route is a URL goes on into a tube    endpoints.py, worker/consumer.py
    limit     which tubes have a token and a place now           worker/throttle.py
    match     routes of tasks; deferred calls; or a request      endpoints.py, routes.py
    call      the function of a route or of a deferred call      received.py, deferred.py, plain.py
    request   App Engine's headers, one connection per target    dispatch.py, http_request.py, http_client.py
    decide    2xx is success; else the queue's retry rule        rule.py, worker/outcome.py

- Each queue of queue.yaml has a tube of its own, `TUBE.push.QUEUE` (request.py). A target is where requests go, by its
  name in `[push.targets]`.
- App Engine's retry rule is exact, without jitter; only the delay is rounded up to whole seconds.
- `of_tasks` (dispatch.py) wraps whatever handler works a task with what holds for every task: its queue's retry rule,
  its name and its deadline.
- A program that goes on while queue.yaml is edited sees the new queues (known.py); the pool reads it at its start and
  at a reload.
- The queue's client blocks. For asyncio, `add_async` runs it in a few threads of the program (pending.py).
- `glassq queues purge` and `taskqueue.Queue.purge` are the same code (purge.py).

To change what a task's request looks like, see http_request.py. When you add a name of App Engine's taskqueue, add it
to taskqueue.py and to the table in docs/tasks.md (a test compares them).
"""
