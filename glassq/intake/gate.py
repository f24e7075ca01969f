"""The worker class by the name in the last release's gunicorn.conf.py; to be removed after one release."""

from glassq.http.gunicorn_worker import BufferingWorker as Gate

__all__ = ["Gate"]
