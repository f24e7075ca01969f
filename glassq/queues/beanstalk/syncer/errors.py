"""Why a round proves nothing. They stay within the syncer: whoever asked gets a line of text."""


class RoundFailed(Exception):
    """The round proves nothing; the next one may."""


class SyncFailed(RoundFailed):
    """Nothing that this run of beanstalkd answered, or will, is proven. `files` are those whose sync failed."""

    def __init__(self, reason: str, files: list[int]) -> None:
        super().__init__(reason)
        self.files = files
