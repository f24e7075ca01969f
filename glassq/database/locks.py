"""The advisory locks of ours in a PostgreSQL database, all in one place: two with the same number would be one.

Each is what pg_advisory_lock and its like take. A lock of a session ends with its connection, one of a transaction
(pg_advisory_xact_lock) with that. Programs of two versions share them, so what stands here must not change. So do two
installations in schemas of one database: one waits for the other, no more.
"""

# Tables are made or changed, of a transaction.
TABLES = "hashtext('glassq_schema')"
# The shares of hosts (shares.py) are exchanged, of a transaction.
SHARES = "hashtext('glassq_shares')"
# A user's credentials are changed, of a transaction; the value is the user's name.
CREDENTIALS = "hashtext('glassq_credentials'), hashtext(%s)"
# Bodies are swept, of a session.
BODIES = "7163542001"
# A place of a key is worked (key_locks.py), of a session.
KEY = "hashtextextended('glassq key ' || %s || ' ' || {place}, 0)"
# A receiver lives that holds jobs (queues/postgres), of a session: the first of two numbers, the second is its own.
HOLDERS = 0x676C7371
