"""Schemes: the few ways in which senders prove that a ping is theirs. Each is data, and a pure function of it."""
