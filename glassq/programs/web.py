"""The intake, under gunicorn. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

import argparse
import errno
import os
import sys

from glassq import __version__
from glassq.errors import SettingsError
from glassq.intake.listen import addresses, try_bind
from glassq.intake.wsgi import Server

EX_TEMPFAIL = 75
EX_CONFIG = 78


def main() -> int:
    parser = argparse.ArgumentParser(prog="glassq-web", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument("--version", action="version", version=f"glassq {__version__}")
    arguments = parser.parse_args()
    try:
        server = Server(arguments.config)
    except SettingsError as error:
        print(f"glassq-web: {error}", file=sys.stderr)
        return EX_CONFIG
    settings = server.settings
    # sockets handed over by systemd go before addresses of the settings
    for bind in addresses(settings) if "LISTEN_FDS" not in os.environ else ():
        try:
            try_bind(bind)
        except OSError as error:
            key = "[intake] bind" if bind == settings.intake.bind else "[metrics] intake"
            why = f"cannot be listened on: {error.strerror}"
            print(f'glassq-web: {settings.file}: {key} = "{bind}": {why}', file=sys.stderr)
            return EX_TEMPFAIL if error.errno == errno.EADDRINUSE else EX_CONFIG
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
