"""What every HTTP server of glassq needs: gunicorn's worker and its settings, framing, error answers.

Nothing here knows what the server serves. `intake/` imports this room, never the reverse.
"""
