"""The intake, under gunicorn. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

import errno
import os
import sys

from glassq.errors import EX_CONFIG, SettingsError
from glassq.intake.listen import refusal, unusable
from glassq.intake.wsgi import IntakeServer, check
from glassq.mask import masked_line
from glassq.startcheck import arguments
from glassq.systemd import Notifier

EX_TEMPFAIL = 75


def main() -> int:
    given = arguments("glassq-web", __doc__, check)
    try:
        return run(given.config)
    except SystemExit as end:
        # gunicorn has logged the reason
        if end.code:
            tell_systemd("gunicorn has ended: see journalctl -u glassq-web")
        raise


def run(file: str | None) -> int:
    """Serves until a stop, then returns 0. If the intake cannot start, returns the exit code."""
    try:
        server = IntakeServer(file)
    except SettingsError as error:
        return give_up(str(error), EX_CONFIG)
    settings = server.settings
    # sockets from systemd take precedence over the addresses in the settings
    for bind, problem in unusable(settings) if "LISTEN_FDS" not in os.environ else ():
        if bind != settings.intake.bind:
            server.without_metrics(bind, problem)
            continue
        return give_up(
            refusal(settings, bind, problem), EX_TEMPFAIL if problem.errno == errno.EADDRINUSE else EX_CONFIG
        )
    server.run()
    return 0


def give_up(why: str, code: int) -> int:
    """Prints the reason to standard error and shows it in `systemctl status`; returns `code`."""
    print(f"glassq-web: {why}", file=sys.stderr)
    tell_systemd(why)
    return code


def tell_systemd(why: str) -> None:
    Notifier(os.environ.get("NOTIFY_SOCKET"))(STATUS=masked_line(why))


if __name__ == "__main__":
    sys.exit(main())
