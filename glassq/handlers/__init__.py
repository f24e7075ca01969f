"""Handlers that come with glassq. A route names one as it names yours: handler = "glassq.handlers.sns:confirm"."""
