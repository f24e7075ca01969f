"""The web console: what is wrong, why, and what mends it, for operators.

It is another face of operations/, as cli/ is: each page calls the functions of a command, and each GET has a twin with
`.json`, which answers what the command prints with --json. `routes.py` has all paths, with the role that each needs.

A request passes, in this order:

1. `guard.py`: is it for us (Host), from our own pages (Sec-Fetch-Site, Origin), small, and not one too many?
2. `doors.py`: who may come in by this door? `sessions.py`: has this browser signed in?
3. `app.py`: has the actor the role of the route? Then its page makes an answer of it (`request.py`).
4. `render.py`: the answer as HTML, or as JSON.

Threads: requests are worked by a few; a census, a sampler and each run (`runs.py`) have one of their own.
"""
