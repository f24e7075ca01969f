"""The web console for operators. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

import errno
import os
import pwd
import sys
import time

from glassq.console.keys import open_key, state_directory
from glassq.console.links import new_code
from glassq.console.server import PROGRAM, ConsoleServer, check
from glassq.errors import EX_CONFIG, SettingsError
from glassq.mask import masked_line
from glassq.settings import Settings, load
from glassq.startcheck import answer, parser_of
from glassq.systemd import Notifier
from glassq.values import Bind

EX_TEMPFAIL = 75


def main() -> int:
    parser = parser_of(PROGRAM, __doc__)
    parser.add_argument(
        "--foreground",
        metavar="PORT",
        type=int,
        help="listen on this port of 127.0.0.1, and print a link that signs in",
    )
    parser.add_argument("--link", metavar="PORT", type=int, help="print a new link for the console on this port")
    parser.add_argument(
        "--life", metavar="SECONDS", type=float, default=60.0, help="how long a link works, once; 0: print none"
    )
    given = parser.parse_args()
    if given.check:
        answer(PROGRAM, check(given.config), as_json=given.json)
    try:
        if given.link is not None:
            print(_link(load(given.config, os.environ), given.link, given.life))
            return 0
        return _serve(given.config, given.foreground, given.life)
    except SettingsError as error:
        return _give_up(str(error), EX_CONFIG)


def _serve(config: str | None, port: int | None, life: float) -> int:
    if port is None:
        server = ConsoleServer(config)
    else:

        def tell(ready: ConsoleServer) -> None:
            print(f"open {_link(ready.settings, port, life)}\n(once, within {life:g} s; Ctrl-C stops)", flush=True)

        server = ConsoleServer(config, Bind(f"127.0.0.1:{port}"), tell if life else None)
    try:
        server.check_address()
    except OSError as error:
        why = f'{server.settings.file}: [console] bind = "{server.bind}": cannot be listened on'
        taken = error.errno == errno.EADDRINUSE
        return _give_up(f"{why}: {error.strerror}", EX_TEMPFAIL if taken else EX_CONFIG)
    server.run()
    return 0


def _link(settings: Settings, port: int, life: float) -> str:
    """A link that signs in whoever asks for it. Raises SettingsError where the key cannot be read."""
    code = new_code(open_key(state_directory(settings)), _who(), time.time(), life)
    return f"http://localhost:{port}/login?code={code}"


def _who() -> str:
    """Who has started this, behind a sudo too."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"user {os.getuid()}"
    return os.environ.get("SUDO_USER") or user


def _give_up(why: str, code: int) -> int:
    """Prints the reason to standard error and shows it in `systemctl status`; returns `code`."""
    print(f"{PROGRAM}: {why}", file=sys.stderr)
    Notifier(os.environ.get("NOTIFY_SOCKET"))(STATUS=masked_line(why))
    return code


if __name__ == "__main__":
    sys.exit(main())
