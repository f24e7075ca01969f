"""Which room knows whom, as ARCHITECTURE.md has it, held by walking every module's syntax.

An import counts wherever it stands: within a function, and under TYPE_CHECKING too. A room that names another one's
types has to change with it, and a library's type in a signature is that library in the room.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from glassq.values.queue_url import ENGINES
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERYTHING = frozenset(
    {
        "backoff",
        "bodies",
        "causes",
        "connections",
        "content",
        "daemons",
        "due",
        "database",
        "descriptors",
        "delivery",
        "errors",
        "envelope",
        "event_loop",
        "edited",
        "excerpts",
        "files",
        "handler",
        "handlers",
        "headers",
        "loading",
        "local_http",
        "log",
        "mask",
        "mistakes",
        "named",
        "outdated",
        "policy",
        "settings",
        "values",
        "hooks",
        "notify",
        "host",
        "https_get",
        "final_response",
        "in_effect",
        "routes",
        "push",
        "queues",
        "schedules",
        "sources",
        "http",
        "intake",
        "journal",
        "lifecycle",
        "worker",
        "glass",
        "ledger",
        "metrics",
        "standard_webhooks",
        "startcheck",
        "stop_signals",
        "systemd",
    }
    | {"operations", "cli", "console", "dev", "programs"}
)
# A room is what stands directly under glassq/, and what is named in INNER. What is not named here, a room must not
# import; a new room needs a line.
MAY_KNOW: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "backoff": frozenset(),
    "stop_signals": frozenset(),
    "standard_webhooks": frozenset(),
    "connections": frozenset({"errors"}),
    "database": frozenset({"descriptors", "backoff", "connections", "errors", "log", "values"}),
    "excerpts": frozenset(),
    "edited": frozenset({"errors"}),
    "event_loop": frozenset({"descriptors", "log"}),
    "files": frozenset(),
    "handler": frozenset({"errors"}),
    "headers": frozenset(),
    "heaps": frozenset(),
    "metrics": frozenset({"log", "values"}),
    "descriptors": frozenset(),
    "log": frozenset({"descriptors"}),
    "mask": frozenset(),
    "values": frozenset(),
    "systemd": frozenset(),
    "host": frozenset(),
    "final_response": frozenset(),
    "local_http": frozenset({"final_response"}),
    "due": frozenset(),
    "daemons": frozenset({"settings", "startcheck"}),
    "causes": frozenset({"delivery", "mask"}),
    "content": frozenset({"errors"}),
    "delivery": frozenset({"content", "envelope", "errors"}),
    "envelope": frozenset(),
    "lifecycle": frozenset({"delivery"}),
    "named": frozenset({"excerpts"}),
    "mistakes": frozenset({"edited", "mask", "values"}),
    "outdated": frozenset({"errors", "mistakes"}),
    "settings": frozenset({"due", "edited", "errors", "mask", "mistakes", "outdated", "systemd", "values"}),
    "hooks": frozenset({"delivery", "errors", "excerpts", "log", "named", "settings"}),
    "notify": frozenset({"causes", "errors", "ledger", "log"}),
    "in_effect": frozenset({"log", "settings"}),
    "policy": frozenset({"backoff", "settings"}),
    "routes": frozenset(
        {"bodies", "errors", "event_loop", "excerpts", "handler", "log", "delivery", "policy", "settings", "values"}
    ),
    "loading": frozenset({"errors", "excerpts", "handler", "log", "named", "policy", "routes", "settings", "values"}),
    "queues": frozenset(
        {"descriptors", "connections", "database", "envelope", "errors", "files", "host", "mask", "settings", "values"}
    ),
    "sources": frozenset(
        {"backoff", "content", "errors", "files", "https_get", "log", "mistakes", "named", "settings"}
        | {"standard_webhooks"}
    ),
    "https_get": frozenset(),
    "ledger": frozenset({"descriptors", "backoff", "database", "delivery", "errors", "log", "settings", "values"}),
    "startcheck": frozenset({"errors", "log"}),
    "http": frozenset({"errors", "log", "values"}),
    "bodies": frozenset({"database", "delivery", "errors", "excerpts", "files", "journal", "log", "queues", "settings"})
    | {"startcheck", "values"},
    "journal": frozenset({"delivery", "errors", "files", "log"}),
    "intake": frozenset(
        {"errors", "log", "mask", "delivery", "settings", "values", "in_effect", "queues", "sources", "metrics"}
        | {"bodies", "files", "http", "journal", "startcheck"}
    ),
    "worker": frozenset(
        {
            "descriptors",
            "hooks",
            "errors",
            "excerpts",
            "log",
            "mask",
            "delivery",
            "settings",
            "values",
            "heaps",
            "host",
            "in_effect",
            "routes",
        }
        | {"bodies", "causes", "queues", "ledger", "metrics", "systemd", "backoff", "event_loop", "lifecycle", "policy"}
    ),
    "handlers": frozenset(
        {"bodies", "delivery", "errors", "https_get", "loading", "log", "mask", "routes", "settings", "values"}
    ),
    "glass": frozenset(
        {"database", "edited", "errors", "files", "headers", "log", "mask", "delivery", "settings", "values", "host"}
        | {"final_response", "routes"}
    ),
    "push": frozenset(
        {
            "descriptors",
            "content",
            "edited",
            "errors",
            "event_loop",
            "handler",
            "headers",
            "log",
            "mask",
            "delivery",
            "settings",
            "values",
            "final_response",
        }
        | {"routes", "queues", "backoff", "database", "standard_webhooks"}
    ),
    "schedules": frozenset({"database", "delivery", "due", "edited", "errors", "ledger", "log", "push", "settings"})
    | {"startcheck", "values"},
    # the tasks' server: what else tasks are made of is in push, which serves programs that have no server
    "push/http": frozenset({"delivery", "errors", "http", "in_effect", "log", "metrics", "push", "queues", "settings"})
    | {"startcheck", "values"},
    # for the tests of others; nothing of ours imports it
    "testing": frozenset(
        {"bodies", "errors", "handler", "handlers", "delivery", "loading", "settings", "values", "routes", "push"}
        | {"ledger", "lifecycle", "policy", "queues", "worker"}
    ),
    "dev": EVERYTHING - {"cli", "operations", "programs"},
    "operations": EVERYTHING - {"cli", "console", "dev", "programs"},
    # operations mask what faces show
    "cli": EVERYTHING - {"console", "programs", "mask"},
    "console": frozenset(
        {"causes", "errors", "heaps", "host", "http", "in_effect", "ledger", "log", "operations", "queues"}
    )
    | {"settings", "startcheck", "values"},
    "programs": EVERYTHING - {"cli", "dev", "operations"},
    # glassq/__init__.py: what the author of a handler imports
    "": frozenset({"errors", "headers", "delivery", "push"}),
}
# Rooms within a room: nobody but programs knows them.
INNER = ("push/http",)
# Modules that stay narrower than their room.
LEAVES = {
    "worker/outcome.py": frozenset({"backoff", "errors", "delivery", "excerpts", "host", "mask", "policy", "routes"}),
    "worker/scoreboard.py": frozenset({"metrics", "worker"}),
    "worker/crashes.py": frozenset(),
    "worker/boardfile.py": frozenset({"log"}),
    "worker/metrics.py": frozenset({"metrics", "worker"}),
    "metrics/counters.py": frozenset(),
    "queues/base.py": frozenset({"errors"}),
    "programs/syncer.py": frozenset({"errors", "queues", "systemd", "values"}),
    "push/rule.py": frozenset(),
    "push/request.py": frozenset({"push"}),
    "ledger/entry.py": frozenset({"delivery"}),
    "database/plain.py": frozenset({"errors", "values"}),
    "sources/strictjson.py": frozenset(),
    # the simulated Glass replaces Google, so it must not know the code under test
    "dev/simulator/glass.py": frozenset({"dev"}),
    "dev/simulator/ping.py": frozenset({"dev", "final_response"}),
    "dev/simulator/server.py": frozenset({"dev", "log"}),
} | {f"dev/simulator/{name}.py": frozenset({"dev"}) for name in ("api", "crowd", "faults", "media", "world")}
# Who may import a library, by the start of the module's path.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "greenstalk": ("queues/beanstalk/",),
    "falcon": ("console/", "intake/", "push/http/"),
    "gunicorn": ("console/server.py", "http/", "intake/", "push/http/"),
    "google": ("glass/", "bodies/gcs.py"),
    "boto3": ("bodies/s3.py",),
    "botocore": ("bodies/s3.py", "queues/aws/"),
    "googleapiclient": ("glass/",),
    "google_auth_httplib2": ("glass/",),
    "httplib2": ("glass/",),
    "cronsim": ("due.py",),
    "psycopg": ("database/libpq.py", "database/timed_connection.py", "database/quick.py"),
    "sqlalchemy": ("database/", "ledger/", "push/names", "schedules/table.py", "queues/shelf.py"),
    "click": ("cli/", "dev/"),
    "rich": ("cli/", "dev/"),
    "cryptography": ("glass/", "sources/schemes/"),
    "urllib3": ("push/", "https_get.py"),
    "yaml": ("push/", "schedules/"),
    "prometheus_client": ("metrics/",),
    "jinja2": ("console/render.py",),
}
# Operations know no terminal: whoever calls them asks, prints and handles signals.
FACELESS = "operations/"
_FACES = frozenset({"signal", "getpass", "curses", "readline", "pty", "termios", "tty"})
_STREAMS = frozenset({"sys.stdin", "sys.stdout", "sys.stderr"})
# Who knows an engine's package beside it: beanstalkd's syncer is a program.
_INSIDERS = {"beanstalk": ("programs/syncer.py",)}
# Commands and counters of beanstalkd's protocol.
_ENGINE_WORDS = frozenset(
    {"bury_job", "kick_job", "max_job_id", "peek_first", "peek_buried", "peek_delayed", "peek_ready"}
    | {"probe_durability", "reserve_job", "stats_job", "stats_tube"}
)
# push/taskqueue.py and testing.py are called by programs that are not glassq's: for them they are the root.
READS_ENVIRONMENT = (
    *("console/server.py", "intake/wsgi.py", "push/http/server.py", "cli/", "dev/", "programs/"),
    *("push/taskqueue.py", "testing.py"),
)
_READS = frozenset({"environ", "environb", "getenv"})
# Setting a variable for a library reads nothing.
_WRITES = ("setdefault", "__setitem__")
# What has a connection, a thread or a lock behind it belongs to an object, not to a module.
_STATEFUL = frozenset(
    {"Beanstalk", "Client", "Session", "SqlLedger", "socket", "connect", "create_connection", "create_engine", "mmap"}
    | {"build", "build_from_document", "open", "open_ledger", "open_queue", "open_storage"}
    | {"Condition", "Event", "Lock", "Queue", "RLock", "Thread", "ThreadPoolExecutor", "defaultdict", "deque"}
)
_CHANGES = frozenset(
    ["add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"]
)


def violations(package: Path) -> list[str]:
    """What the modules under `package` (a directory named glassq) do against the rules, one line each."""
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        tree = parsed(path)
        for check in (_rooms, _libraries, _environment, _prints, _faces, _engines, _engine_names, _loggers, _globals):
            found += [f"{place}: {what}" for what in check(place, tree)]
    return found


@cache
def parsed(path: Path) -> ast.Module:
    """The module's syntax. Each test that writes a module has a path of its own for it."""
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(tree: ast.Module) -> list[ast.AST]:
    """What `ast.walk` finds, which takes longer than all checks of it."""
    return list(ast.walk(tree))


def room_of(place: str) -> str:
    if (inner := place.rpartition("/")[0]) in INNER:
        return inner
    first = place.split("/")[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(place: str, tree: ast.Module) -> Iterator[str]:
    """Full dotted names of all that is imported: for `from a import b` both a and a.b, as b may be a module."""
    package = ["glassq", *place.split("/")[:-1]]
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _rooms(place: str, tree: ast.Module) -> Iterator[str]:
    room = room_of(place)
    if room not in MAY_KNOW:
        yield "is in a room that the rules do not know"
        return
    allowed = LEAVES.get(place, MAY_KNOW[room] | {room})
    for other in sorted({name.split(".")[1] for name in imported(place, tree) if name.startswith("glassq.")}):
        # a name that is no room comes out of glassq/__init__.py, which is for handlers' authors
        if other not in allowed and other != "__version__":
            yield f"imports glassq.{other}"
    for inner in INNER:
        strangers = room not in (inner, "programs")
        name = f"glassq.{inner.replace('/', '.')}"
        if strangers and any(found == name or found.startswith(f"{name}.") for found in imported(place, tree)):
            yield f"imports {name}"
    if any(name.split(".")[0] == "bin" for name in imported(place, tree)):
        yield "imports bin"


def _libraries(place: str, tree: ast.Module) -> Iterator[str]:
    for library in sorted({name.split(".")[0] for name in imported(place, tree)}):
        if library in LIBRARIES and not place.startswith(LIBRARIES[library]):
            yield f"imports {library}"


def _environment(place: str, tree: ast.Module) -> Iterator[str]:
    if place.startswith(READS_ENVIRONMENT):
        return
    written = {id(node.value) for node in nodes(tree) if isinstance(node, ast.Attribute) and node.attr in _WRITES}
    for node in nodes(tree):
        read = isinstance(node, ast.Attribute) and node.attr in _READS and ast.unparse(node.value) == "os"
        if read and id(node) not in written:
            yield "reads the environment"
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) and node.module == "os" else ()
        if _READS.intersection(names):
            yield "reads the environment"


def _prints(place: str, tree: ast.Module) -> Iterator[str]:
    if place.startswith("programs/"):
        return
    for node in nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield "prints"


def _faces(place: str, tree: ast.Module) -> Iterator[str]:
    if not place.startswith(FACELESS):
        return
    for library in sorted({name.split(".")[0] for name in imported(place, tree)} & _FACES):
        yield f"imports {library}"
    streams = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module == "sys" and f"sys.{alias.name}" in _STREAMS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _STREAMS:
            streams.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "input":
            yield "asks"
    for name in sorted(streams):
        yield f"uses {name}"


def _engines(place: str, tree: ast.Module) -> Iterator[str]:
    """An engine's package is known to queues/__init__.py alone, and beanstalkd's words to nobody else."""
    names = list(imported(place, tree))
    for engine in ENGINES:
        module = f"glassq.queues.{engine.package}"
        insiders = (f"queues/{engine.package}/", *_INSIDERS.get(engine.package, ()))
        if not place.startswith(insiders) and any(name == module or name.startswith(f"{module}.") for name in names):
            yield f"imports {module}"
    # a stack of dev/ starts beanstalkd
    if place.startswith(("queues/beanstalk/", "dev/queue_server.py", "programs/syncer.py")):
        return
    words = {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute)}
    words |= {node.name for node in nodes(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for word in sorted(words & _ENGINE_WORDS):
        yield f"speaks beanstalkd: {word}"
    for node in nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "binlog" in node.value.lower():
            yield f"speaks beanstalkd: line {node.lineno}"


def _engine_names(place: str, tree: ast.Module) -> Iterator[str]:
    """What hangs on the engine is asked of it, or stands in the row of its URL: nobody compares its name."""
    if place.startswith(("queues/", "values/")):
        return
    for node in nodes(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "engine":
            yield f"asks which engine it is: line {node.lineno}"


def _loggers(place: str, tree: ast.Module) -> Iterator[str]:
    """A handler may do anything to Python's loggers; ours are those of log.py."""
    for node in nodes(tree):
        if place == "log.py" or not isinstance(node, ast.Attribute) or node.attr != "getLogger":
            continue
        if ast.unparse(node.value) == "logging":
            yield "takes a logger that handlers can silence"


def _globals(_place: str, tree: ast.Module) -> Iterator[str]:
    if any(isinstance(node, ast.Global) for node in nodes(tree)):
        yield "rebinds a global"
    containers = set()
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        names = {ast.unparse(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])}
        if isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
            containers |= names
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).rpartition(".")[2] in _STATEFUL:
            yield f"keeps {', '.join(names)} for the whole process"
    for name in sorted(containers.intersection(_changed(tree))) if containers else ():
        yield f"changes the global {name}"


def _changed(tree: ast.Module) -> Iterator[str]:
    """Names of containers that something writes into."""
    for node in nodes(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield ast.unparse(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            yield ast.unparse(node.func.value)


def circles(package: Path) -> list[list[str]]:
    """Modules under `package` (a directory named glassq) that import each other in a circle; each import counts.

    What `a/__init__.py` takes from its own modules is left out: the package is their face, and they do not need it.
    """
    paths = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = set(imported(path.relative_to(package).as_posix(), parsed(path))) & modules.keys()
        if path.name == "__init__.py":
            found = {other for other in found if not other.startswith(f"{name}.")}
        graph[name] = found - {name}
    # what imports nothing that is left, or is imported by nothing that is left, is in no circle
    while True:
        imports = {other for found in graph.values() for other in found}
        straight = {name for name, found in graph.items() if not found or name not in imports}
        if not straight:
            return [sorted(graph)] if graph else []
        graph = {name: found - straight for name, found in graph.items() if name not in straight}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(ROOT / "glassq") == []


def test_a_circle_of_files_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    package = tmp_path / "glassq"
    (package / "room").mkdir(parents=True)
    (package / "room" / "__init__.py").write_text("from glassq.room.one import a\n")
    (package / "room" / "one.py").write_text("def a():\n    from glassq.room import two\n")
    (package / "room" / "two.py").write_text("if TYPE_CHECKING:\n    from glassq.three import b\n")
    (package / "three.py").write_text("from glassq.room.one import a\n")
    (package / "four.py").write_text("from glassq import three\n")
    assert circles(package) == [["glassq.room.one", "glassq.room.two", "glassq.three"]]


def test_every_room_keeps_to_the_rules() -> None:
    assert violations(ROOT / "glassq") == []


@pytest.mark.parametrize(("program", "stranger"), [("worker", "intake"), ("web", "worker"), ("tasks", "intake")])
def test_neither_daemon_loads_the_rooms_of_the_other(program: str, stranger: str) -> None:
    place = f"programs/{program}.py"
    tree = ast.parse((ROOT / "glassq" / place).read_text())
    rooms = {name.split(".")[1] for name in imported(place, tree) if name.startswith("glassq.")}
    assert rooms, "a program without the package does nothing"
    assert stranger not in rooms


@pytest.mark.parametrize(
    "name", ["glassq", *(f"glassq-{name}" for name in ("console", "syncer", "tasks", "web", "worker"))]
)
def test_a_script_of_bin_runs_what_the_installed_command_runs(name: str) -> None:
    (command,) = re.findall(rf'"{name} = (.+):main"', (ROOT / "setup.py").read_text())
    tree = ast.parse((ROOT / "bin" / name).read_text())
    assert f"{command}.main" in set(imported("bin", tree))


def test_every_rule_is_about_something_that_is_there() -> None:
    package = ROOT / "glassq"
    rooms = {room_of(path.relative_to(package).as_posix()) for path in package.rglob("*.py")}
    assert set(MAY_KNOW) <= rooms
    assert [place for place in LEAVES if not (package / place).is_file()] == []


BREACHES = [
    ("intake/app.py", "from glassq.worker import pool", "imports glassq.worker"),
    ("intake/app.py", "from glassq import routes", "imports glassq.routes"),
    ("intake/app.py", "def f():\n    import glassq.glass.photos", "imports glassq.glass"),
    ("intake/app.py", "from glassq.ledger import Entry", "imports glassq.ledger"),
    ("worker/pool.py", "from ..intake import app", "imports glassq.intake"),
    ("worker/pool.py", "from glassq.sources.mirror import MirrorSource", "imports glassq.sources"),
    (
        "worker/pool.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from glassq.cli.app import App",
        "imports glassq.cli",
    ),
    ("glass/api.py", "from glassq.dev.simulator.glass import SimulatedGlass", "imports glassq.dev"),
    ("glass/api.py", "import bin.x", "imports bin"),
    ("dev/demo.py", "from glassq.cli.app import App", "imports glassq.cli"),
    ("delivery.py", "from glassq.settings import Size", "imports glassq.settings"),
    ("worker/outcome.py", "from glassq.queues import Job", "imports glassq.queues"),
    ("attic/queue.py", "", "is in a room that the rules do not know"),
    ("queues/base.py", "import greenstalk", "imports greenstalk"),
    ("sources/mirror.py", "import falcon", "imports falcon"),
    ("http/problem.py", "import falcon", "imports falcon"),
    ("push/client.py", "import falcon", "imports falcon"),
    ("console/app.py", "from glassq.cli.app import App", "imports glassq.cli"),
    ("console/app.py", "from glassq.worker import pool", "imports glassq.worker"),
    ("console/app.py", "import jinja2", "imports jinja2"),
    ("operations/kick.py", "from glassq.console.roles import Actor", "imports glassq.console"),
    ("push/client.py", "from glassq.push.http import app", "imports glassq.push.http"),
    ("push/http/app.py", "from glassq.intake import app", "imports glassq.intake"),
    ("http/gunicorn_worker.py", "from glassq.intake import app", "imports glassq.intake"),
    ("worker/pool.py", "import gunicorn.util", "imports gunicorn"),
    ("worker/pool.py", "from google.cloud import storage", "imports google"),
    ("routes.py", "import googleapiclient.errors", "imports googleapiclient"),
    ("routes.py", "import httplib2", "imports httplib2"),
    ("worker/consumer.py", "import sqlalchemy as sa", "imports sqlalchemy"),
    ("worker/consumer.py", "from rich.console import Console", "imports rich"),
    ("settings/reading.py", "import os\nhome = os.environ['HOME']", "reads the environment"),
    ("settings/reading.py", "import os\nhome = os.getenv('HOME')", "reads the environment"),
    ("settings/reading.py", "from os import environ", "reads the environment"),
    ("worker/pool.py", "print('hello')", "prints"),
    ("operations/kick.py", "import click", "imports click"),
    ("operations/kick.py", "def f():\n    from rich.progress import Progress", "imports rich"),
    ("operations/kick.py", "import signal", "imports signal"),
    ("operations/kick.py", "from falcon import HTTPNotFound", "imports falcon"),
    ("operations/kick.py", "import jinja2", "imports jinja2"),
    ("operations/kick.py", "import sys\nsys.stdin.isatty()", "uses stdin"),
    ("operations/kick.py", "import sys\nsys.stdout.write('x')", "uses stdout"),
    ("operations/kick.py", "from sys import stderr", "uses stderr"),
    ("operations/kick.py", "print('done')", "prints"),
    ("operations/kick.py", "sure = input('sure?')", "asks"),
    ("operations/kick.py", "from glassq.cli.app import App", "imports glassq.cli"),
    ("operations/kick.py", "from glassq.dev import stack", "imports glassq.dev"),
    ("operations/kick.py", "from glassq.programs import worker", "imports glassq.programs"),
    ("dev/demo.py", "from glassq.operations import Operations", "imports glassq.operations"),
    ("worker/pool.py", "from glassq.operations import Operations", "imports glassq.operations"),
    ("worker/pool.py", "log = logging.getLogger('glassq.worker')", "takes a logger that handlers can silence"),
    ("worker/pool.py", "from glassq.queues.beanstalk import connection", "imports glassq.queues.beanstalk"),
    ("dev/stack.py", "from glassq.queues.beanstalk import connection", "imports glassq.queues.beanstalk"),
    ("worker/pool.py", "from glassq.queues.postgres import statements", "imports glassq.queues.postgres"),
    ("queues/beanstalk/pool.py", "import glassq.queues.postgres", "imports glassq.queues.postgres"),
    ("worker/pool.py", "def f(url):\n    return url.engine == 'postgres'", "asks which engine it is: line 2"),
    ("cli/app.py", "import psycopg", "imports psycopg"),
    ("operations/kick.py", "def f(queue):\n    queue.reserve_job(1)", "speaks beanstalkd: reserve_job"),
    ("cli/app.py", "print_ = 'its binlog is on'", "speaks beanstalkd: line 1"),
    ("queues/beanstalk/connection.py", "client = open_queue(settings)", "keeps client for the whole process"),
    ("glass/api.py", "import threading\n_lock = threading.Lock()", "keeps _lock for the whole process"),
    ("glass/api.py", "_n = 0\ndef f():\n    global _n\n    _n += 1", "rebinds a global"),
    ("glass/api.py", "_seen = {}\ndef f(x):\n    _seen[x] = 1", "changes the global _seen"),
    ("glass/api.py", "_seen: list[int] = []\ndef f(x):\n    _seen.append(x)", "changes the global _seen"),
]


@pytest.mark.parametrize(("place", "source", "says"), BREACHES)
def test_a_breach_of_each_rule_is_reported(tmp_path: Path, place: str, source: str, says: str) -> None:
    module = tmp_path / "glassq" / place
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(source + "\n")
    assert violations(tmp_path / "glassq") == [f"{place}: {says}"]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("glass/storage/bucket.py", "import os\nos.environ.setdefault('A', 'b')"),
        ("intake/wsgi.py", "import os\nsettings = load(None, os.environ)"),
        ("cli/commands/dev.py", "from glassq.dev import demo\nimport click"),
        ("worker/child.py", "from glassq.ledger import Ledger\nfrom . import lease"),
        ("log.py", "_LEVELS = {'a': 1}\ndef f(x):\n    return _LEVELS[x]"),
        ("cli/main.py", "from glassq import __version__"),
    ],
)
def test_what_the_rules_allow_is_not_reported(tmp_path: Path, place: str, source: str) -> None:
    module = tmp_path / "glassq" / place
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(source + "\n")
    assert violations(tmp_path / "glassq") == []
