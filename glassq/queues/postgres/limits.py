"""How much fits into the database: far less than PostgreSQL takes, and more than anybody puts."""

# The largest job, in bytes. A row may have 1 GB, but whoever reads a job has all of it in memory.
MAX_JOB = 1 << 20
# The longest delay, pause and lease, in seconds.
MAX_SECONDS = (1 << 32) - 1
