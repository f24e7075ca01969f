"""The App Engine way: tasks for plain HTTP endpoints in any language."""
