"""Tasks from any language: a server whose paths and JSON are those of Cloud Tasks (REST, v2).

    read      JSON to messages, refused by the name of the field       messages.py, values.py
    check     url to target, headers, size: a TaskRequest              reading.py, targets.py, short.py
    put       in batches, one proof for all; named ones in threads     adding.py, ../client.py
    look      get, list, delete, run: a search of the queue, bounded   search.py, showing.py
    serve     paths, tokens, errors, counters                          app.py, resources.py, queues.py, door.py
    run       gunicorn with the worker of glassq/http                  server.py

- 200 for a new task means that the queue has proven to keep it, as with `taskqueue.add`.
- Everything that a client does wrong is a 4xx that names it. What is ours to mend is 503 with Retry-After.
- A unix socket is open to those whom its mode lets in. On TCP each request needs a token.

When you add a field: messages.py, reading.py or showing.py, and docs/openapi-tasks.yaml (tests compare).
"""
