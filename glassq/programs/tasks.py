"""Takes tasks over HTTP. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

import errno
import os
import sys

from glassq.errors import EX_CONFIG, SettingsError
from glassq.mask import masked_line
from glassq.push.http.server import PROGRAM, TaskServer, check
from glassq.startcheck import arguments
from glassq.systemd import Notifier

EX_TEMPFAIL = 75


def main() -> int:
    given = arguments(PROGRAM, __doc__, check)
    try:
        server = TaskServer(given.config)
    except SettingsError as error:
        return _give_up(str(error), EX_CONFIG)
    try:
        server.check_address()
    except OSError as error:
        why = f'{server.settings.file}: [tasks] bind = "{server.settings.tasks.bind}": cannot be listened on'
        taken = error.errno == errno.EADDRINUSE
        return _give_up(f"{why}: {error.strerror}", EX_TEMPFAIL if taken else EX_CONFIG)
    server.run()
    return 0


def _give_up(why: str, code: int) -> int:
    """Prints the reason to standard error and shows it in `systemctl status`; returns `code`."""
    print(f"{PROGRAM}: {why}", file=sys.stderr)
    Notifier(os.environ.get("NOTIFY_SOCKET"))(STATUS=masked_line(why))
    return code


if __name__ == "__main__":
    sys.exit(main())
