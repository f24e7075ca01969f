"""The App Engine way: push queues, whose tasks go to HTTP endpoints in any language, or to functions."""
