"""PostgreSQL as the queue: a row is a job. One transaction ends a reservation and makes the next form.

`schema` has the tables, `statements` what is said to them. A receiver's session holds a lock while its connection
lives: who finds a reserved job whose holder's lock is free gives it back.
"""
