"""The main functions of the two daemons. `bin/` and the installed commands call them.

worker.py puts the pool together; web.py runs what intake/wsgi.py puts together. `--check` goes the same way as a start,
and stops there (startcheck.py). When a start has one more reason to fail, add it where the program starts (worker.py,
intake/wsgi.py) and to the `check` beside it.
"""
