"""The simulated Glass as a program, run in the machine's network. Lines of words in, a line of JSON out for each.

    python -m tests.system.simulated DIRECTORY

    consent USER         the user's authorized_user JSON
    revoke USER          the user takes the consent back
    share USER KIND...   a new item, and its ping; its files go to DIRECTORY, as they are to be stored

Its first line says where it is. It ends with its input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from glassq.dev.simulator.glass import SimulatedGlass
from glassq.glass import names

if TYPE_CHECKING:
    from glassq.dev.simulator.media import Kind


def main(directory: Path) -> None:
    with SimulatedGlass() as glass:
        tell({name: getattr(glass, name) for name in ("api_url", "token_url", "client_id", "client_secret")})
        for line in sys.stdin:
            match line.split():
                case ["consent", user]:
                    tell(glass.add_user(user))
                case ["revoke", user]:
                    glass.revoke(user)
                    tell({})
                case ["share", user, *kinds]:
                    tell(share(glass, user, cast("list[Kind]", kinds), directory))


def share(glass: SimulatedGlass, user: str, kinds: list[Kind], directory: Path) -> dict[str, object]:
    item = glass.share(user, kinds)
    files = []
    for number, each in enumerate(item.attachments):
        name = names.object_name(user, item.id, each.id if number else None, each.content_type)
        (directory / name).write_bytes(each.data)
        files.append(name)
    return {"item": item.id, "files": files, "statuses": glass.ping(user, item).statuses}


def tell(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
