"""The pool of consumer daemons (worker processes): reserve a job, run its handler, act on the outcome."""
