"""The main functions of the two daemons. `bin/` and the installed commands call them.

Here each daemon is put together from its parts; nothing imports this room. `--check` goes the same way as a start, and
stops there (startcheck.py). When a start has one more reason to fail, add it where the program starts (worker.py,
intake/wsgi.py) and to the `check` beside it.
"""
