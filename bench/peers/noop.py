"""RQ imports a job's function by its name, in each process that works one."""


def noop(body: str = "") -> None:
    """Does nothing."""
