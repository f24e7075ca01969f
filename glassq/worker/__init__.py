"""The pool of consumer daemons: reserve a job, run its handler, act on what came of it."""
