"""SQL databases: what the ledger and the task names have in common. Any that SQLAlchemy knows; SQLite by default.

`plain` works without SQLAlchemy, whose import takes longer than most commands.
"""
