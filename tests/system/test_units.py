"""The unit files: sound, and as closed as they are said to be."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, get_args, get_type_hints

import pytest

from glassq.settings import SourceSettings, parse, route_secret_files, secret_files
from glassq.sources.presets import PRESETS
from glassq.values import SecretFile
from tests.conftest import ROOT
from tests.system.programs import need, run

if TYPE_CHECKING:
    from pathlib import Path

UNITS = sorted(path for path in (ROOT / "systemd").iterdir() if path.suffix in (".service", ".socket", ".target"))
SERVICES = [path.name for path in UNITS if path.suffix == ".service"]
PROGRAMS = [f"glassq-{name}.service" for name in ("beanstalkd", "console", "syncer", "tasks", "web", "worker")]
SOCKETS = [path.name for path in UNITS if path.suffix == ".socket"]
GENERATOR = ROOT / "systemd" / "glassq-generator"
# `systemd-analyze security`, times ten: 92 is a unit that says nothing, 0 one that may do nothing.
EXPOSURE = {
    "glassq-beanstalkd.service": 2,
    "glassq-console.service": 11,
    "glassq-syncer.service": 2,
    "glassq-tasks.service": 6,
    "glassq-web.service": 6,
    "glassq-worker.service": 11,
}
# of those that only ask systemd
LEAST = 5


def lines(unit: str) -> list[str]:
    return (ROOT / "systemd" / unit).read_text().splitlines()


def drop_ins(settings: str, tmp_path: Path) -> dict[str, str]:
    """What the generator makes of a glassq.toml: the text of each drop-in, by its unit."""
    (tmp_path / "glassq.toml").write_bytes(settings.encode())
    made = tmp_path / "made"
    made.mkdir()
    run(GENERATOR, made, made, made, GLASSQ_CONFIG=tmp_path / "glassq.toml")
    return {path.parent.name.removesuffix(".d"): path.read_text() for path in made.glob("*/*.conf")}


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_no_more_exposed_than_it_needs_to_be(unit: str) -> None:
    threshold = f"--threshold={EXPOSURE.get(unit, LEAST)}"
    run(need("systemd-analyze", "systemd"), "security", "--offline=true", threshold, ROOT / "systemd" / unit)


def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    for unit in UNITS:
        # the programs are not installed here
        (tmp_path / unit.name).write_text(re.sub("/opt/glassq/bin/glassq(-| )", "/bin/true --", unit.read_text()))
    copies = [str(tmp_path / unit.name) for unit in UNITS]
    analyze = need("systemd-analyze", "systemd")
    done = subprocess.run([analyze, "verify", "--man=no", *copies], capture_output=True, text=True)
    complaints = [
        line for line in (done.stdout + done.stderr).splitlines() if "glassq" in line or str(tmp_path) in line
    ]
    # beanstalkd need not be installed where units are tested
    complaints = [line for line in complaints if "/usr/bin/beanstalkd is not executable" not in line]
    assert complaints == []


@pytest.mark.parametrize("unit", PROGRAMS)
def test_no_service_is_given_up(unit: str) -> None:
    assert "Restart=always" in lines(unit)
    assert "StartLimitIntervalSec=0" in lines(unit)
    assert not any(line.startswith("RestartPrevent") for line in lines(unit))


@pytest.mark.parametrize("unit", SOCKETS)
def test_a_socket_that_fails_is_retried_each_time(unit: str) -> None:
    for line in ("OnFailure=glassq-retry@%p.service", "StartLimitIntervalSec=0", "ExecStartPre=/bin/true"):
        assert line in lines(unit)


def test_every_unit_stops_and_restarts_with_the_target() -> None:
    for unit in UNITS:
        if unit.suffix != ".target":
            assert "PartOf=glassq.target" in lines(unit.name), unit.name


def test_the_address_of_the_intake_is_that_of_its_settings(tmp_path: Path) -> None:
    made = drop_ins('[queue]\nurl = "beanstalk:///q"\n[intake] # here\n bind = "0.0.0.0:81"\n', tmp_path)
    assert made.keys() == {"glassq-web.socket"}
    assert made["glassq-web.socket"].splitlines()[1:] == ["[Socket]", "ListenStream=", "ListenStream=0.0.0.0:81"]


def test_what_an_editor_on_windows_adds_hides_no_address(tmp_path: Path) -> None:
    text = '\ufeff[intake]\r\nbind = "0.0.0.0:81"\r\n[queue]\r\nurl = "beanstalk:///q"\r\n'
    made = drop_ins(text, tmp_path)
    assert made["glassq-web.socket"].splitlines()[1:] == ["[Socket]", "ListenStream=", "ListenStream=0.0.0.0:81"]
    assert list(made) == ["glassq-web.socket"]


@pytest.mark.parametrize(
    ("bind", "stream"),
    [
        ("localhost:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("unix:/run/glassq-web.sock", "/run/glassq-web.sock"),
        ("fd://3", None),
        ("a-name-that-needs-a-resolver:8080", None),
    ],
)
def test_addresses_that_systemd_writes_in_another_way_are_translated(
    bind: str, stream: str | None, tmp_path: Path
) -> None:
    made = drop_ins(f"[queue]\nurl = 'beanstalk:///q'\n[intake]\nbind='{bind}'\n[log]\nbind = 'no'\n", tmp_path)
    assert made.get("glassq-web.socket", "").endswith(f"\nListenStream={stream}\n" if stream else "")
    assert (stream is None) == (made == {})


@pytest.mark.parametrize(
    ("settings", "pings", "metrics"),
    [
        ('[intake]\nbind = "127.0.0.1:81"\n[metrics]\nintake = "localhost:91"\n', "127.0.0.1:81", "127.0.0.1:91"),
        ('[metrics]\nintake = "127.0.0.1:91"\npool = "127.0.0.1:92"\n', None, "127.0.0.1:91"),
        ('[intake]\nbind = "127.0.0.1:81"\n[metrics]\nintake = "127.0.0.1:81"\n', "127.0.0.1:81", None),
    ],
)
def test_metrics_have_a_socket_unit_of_their_own_that_pings_do_not_need(
    settings: str, pings: str | None, metrics: str | None, tmp_path: Path
) -> None:
    made = drop_ins(f"[queue]\nurl = 'beanstalk:///q'\n{settings}", tmp_path)
    assert made.get("glassq-web.socket", "").endswith(f"\nListenStream=\nListenStream={pings}\n" if pings else "")
    unit = tmp_path / "made" / "glassq-metrics.socket"
    assert unit.exists() == bool(metrics)
    if metrics:
        assert {f"ListenStream={metrics}", "Service=glassq-web.service"} <= set(unit.read_text().splitlines())
        wanted = ["[Service]", "Sockets=glassq-web.socket glassq-metrics.socket"]
        assert made["glassq-web.service"].splitlines()[1:] == wanted


@pytest.mark.parametrize(
    "queue", ['[queue]\nurl = "beanstalk://10.0.0.5:11300"\n', "[queue]\n# url = 'beanstalk:///q'\n"]
)
def test_the_intake_gets_a_network_when_the_queue_needs_one(queue: str, tmp_path: Path) -> None:
    assert drop_ins(queue, tmp_path)["glassq-web.service"].endswith("[Service]\nPrivateNetwork=no\n")


SECRETS = [name for name, kind in get_type_hints(SourceSettings).items() if SecretFile in get_args(kind)]
SOURCES = """
[queue]
url = "beanstalk:///q"
[sources.mirror]
verify_tokens_file = "/etc/glassq/secrets/mirror-verify-tokens"
[sources.github]
secrets_file = "/etc/glassq/secrets/github"  # "or another"
[ sources . shop ]
kind = "shopify"
  secrets_file = '/srv/50% off/github'
path_token_file="/etc/glassq/secrets/more/shop+path"
# secrets_file = "/etc/glassq/secrets/old"
labels = { a_file = "json:/a" }
[sources.shop2]
kind = "shopify"
secrets_file = "/etc/glassq/secrets/github"
[sources.unit]
secrets_file = "$CREDENTIALS_DIRECTORY/unit"
[sources.unit.labels]
own_file = "json:/b"
[glass]
client_secret_file = "/etc/glassq/secrets/client-secret"
"""


def test_the_intake_gets_each_secret_that_a_source_names_and_no_other(tmp_path: Path) -> None:
    made = drop_ins(SOURCES, tmp_path)
    assert made.keys() == {"glassq-web.service"}
    lines = made["glassq-web.service"].splitlines()[1:]
    secrets = {
        "github": "/etc/glassq/secrets/github",
        # which has had this name always: an upgrade's reload looks for it
        "mirror-verify-tokens": "/etc/glassq/secrets/mirror-verify-tokens",
        "more+shop++path": "/etc/glassq/secrets/more/shop+path",
        "+srv+50%% off+github": "/srv/50%% off/github",
    }
    wanted = [(f"LoadCredential={name}:{path}", f"SetCredential={name}:# missing") for name, path in secrets.items()]
    assert lines == ["[Service]", *(line for pair in wanted for line in pair)]
    # where the program looks for its secrets
    settings = parse(SOURCES, "glassq.toml", "/run/credentials", {"queue", "sources"})
    copies = {settings.secret_path(key).copy for key in secret_files(settings)}
    assert copies == {f"/run/credentials/{name.replace('%%', '%')}" for name in secrets} | {""}


def test_the_pool_gets_the_secrets_that_sign_requests_and_no_other(tmp_path: Path) -> None:
    text = (
        SOURCES
        + """
[push]
queue_yaml = "/etc/glassq/queue.yaml"
[[routes]]
source = "github"
handler = "https://a.example/"
secret_file = "/etc/glassq/secrets/target"  # of ours
[[routes]]
source = "shop"
handler = "https://b.example/"
# secret_file = "/etc/glassq/secrets/old"
[[routes]]
source = "shop"
handler = "https://c.example/"
  secret_file = '/srv/50% off/target'
match = { event = "a", secret_file = "/etc/label" }
"""
    )
    lines = drop_ins(text, tmp_path)["glassq-worker.service"].splitlines()[1:]
    secrets = {"+srv+50%% off+target": "/srv/50%% off/target", "target": "/etc/glassq/secrets/target"}
    wanted = [(f"LoadCredential={name}:{path}", f"SetCredential={name}:# missing") for name, path in secrets.items()]
    assert sorted(lines) == sorted(["[Service]", *(line for pair in wanted for line in pair)])
    settings = parse(text, "glassq.toml", "/run/credentials", {"queue", "sources", "routes", "push"})
    copies = {settings.secret_path(key).copy for key in route_secret_files(settings)}
    assert copies == {f"/run/credentials/{name.replace('%%', '%')}" for name in secrets}


@pytest.mark.parametrize("key", SECRETS)
def test_every_key_that_names_a_secret_is_known(key: str, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n[sources.a]\n{key} = "/etc/secret"\n', tmp_path)
    assert "LoadCredential=+etc+secret:/etc/secret" in made["glassq-web.service"].splitlines()


FETCHING = sorted(preset.name for preset in PRESETS.values() if preset.requires_network)


@pytest.mark.parametrize("kind", FETCHING)
@pytest.mark.parametrize("text", ["[sources.{}]\n", "[sources.github]\n[sources.a-name]\nkind = '{}'\n[log]\n"])
def test_the_intake_gets_a_network_where_a_kind_fetches_keys(kind: str, text: str, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n{text.format(kind)}', tmp_path)
    assert made["glassq-web.service"].splitlines()[1:] == ["[Service]", "PrivateNetwork=no"]


def test_the_generator_names_no_other_kind_that_fetches_keys() -> None:
    (named,) = re.findall(r"kind ~ /\^\(([a-z|-]+)\)\$/", GENERATOR.read_text())
    assert sorted(named.split("|")) == FETCHING


def test_the_intake_gets_no_network_for_other_kinds(tmp_path: Path) -> None:
    kinds = "".join(f"[sources.{name}]\n" for name, preset in PRESETS.items() if not preset.requires_network)
    assert drop_ins(f'[queue]\nurl = "beanstalk:///q"\n{kinds}', tmp_path) == {}


@pytest.mark.parametrize(
    ("url", "network"),
    [("gs://pings", True), ("postgres://db/bodies", True), ("postgres:///bodies", False), ("", False)],
)
def test_a_store_of_bodies_on_another_machine_needs_a_network(url: str, network: bool, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n[bodies]\nurl = "{url}"\n', tmp_path)
    texts = [text.partition("\n")[2] for text in made.values()]
    # that of the console, which looks at them, too
    assert texts == (["[Service]\nPrivateNetwork=no\n"] * 2 if network else [])


def test_another_directory_for_large_bodies_can_be_written(tmp_path: Path) -> None:
    made = drop_ins('[queue]\nurl = "beanstalk:///q"\n[bodies]\nurl = "file:///srv/bodies"\n', tmp_path)
    assert {text.partition("\n")[2] for text in made.values()} == {"[Service]\nReadWritePaths=-/srv/bodies\n"}
    assert made.keys() == BOTH | {"glassq-console.service"}


@pytest.mark.parametrize(
    ("line", "lifted"),
    [
        ('handler = "exec:/usr/local/bin/a --b"', True),
        ("handler='exec:./a' # here", True),
        ('steps = [\n  "handlers:fetch",\n  "exec:./a",\n]', True),
        ('handler = "handlers:a"  # or "exec:/a"', False),
        ('#handler = "exec:/a"\nhandler = "handlers:a"', False),
        ('handler = "handlers:a"\n[handlers."exec:/a"]\nb = 1', False),
    ],
)
def test_a_program_may_make_machine_code_and_nothing_else_may(line: str, lifted: bool, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n[[routes]]\nsource = "a"\n{line}\n', tmp_path)
    wanted = {"glassq-worker.service": "[Service]\nMemoryDenyWriteExecute=no\n"} if lifted else {}
    assert {unit: text.partition("\n")[2] for unit, text in made.items()} == wanted


OURS = 'url = "beanstalk:///run/glassq/beanstalkd.sock"'
WANTS = "[Unit]\nWants=glassq-beanstalkd.socket glassq-syncer.socket\n"
BOTH = {"glassq-web.service", "glassq-worker.service"}
SERVICES = BOTH | {"glassq-tasks.service", "glassq-console.service"}
ALL = SERVICES | {"glassq.target"}


@pytest.mark.parametrize(
    "settings",
    [
        f"[queue]\n{OURS}\n",
        f"[queue]\n{OURS.replace(chr(34), chr(39))} # ours\n",
        # as an editor on another system leaves it
        f"\ufeff[queue]\r\n{OURS}\r\n",
    ],
    ids=["plain", "quoted otherwise", "a byte order mark and line ends"],
)
def test_a_service_that_is_started_alone_brings_up_the_queue_of_its_settings(settings: str, tmp_path: Path) -> None:
    made = drop_ins(settings, tmp_path)
    assert made.keys() == ALL
    assert all(text.endswith(WANTS) for text in made.values())


@pytest.mark.parametrize(
    "url", ["beanstalk://127.0.0.1:11300", "beanstalk:///run/other/beanstalkd.sock", "postgres://db/glassq"]
)
def test_a_queue_that_is_not_ours_is_not_started(url: str, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "{url}"\n', tmp_path)
    assert "Wants=" not in "".join(made.values())


@pytest.mark.parametrize(
    ("url", "network"),
    [
        ("postgres://glassq@db1,db2:5433/glassq?sslmode=verify-full", True),
        ("postgresql:///glassq?host=db", True),
        ("postgresql:///glassq?user=glassq&host=/run/postgresql", False),
        ("postgres://glassq@/glassq?host=/run/postgresql", False),
        ("postgres://%2Frun%2Fpostgresql/glassq", False),
        ("postgres:///glassq", False),
    ],
)
def test_a_database_on_another_machine_needs_a_network(url: str, network: bool, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "{url}"\n', tmp_path)
    without_comment = {unit: text.partition("\n")[2] for unit, text in made.items()}
    alone = "[Service]\nPrivateNetwork=no\n"
    # the pool has one anyway
    assert without_comment == (
        dict.fromkeys([f"glassq-{name}.service" for name in ("console", "tasks", "web")], alone) if network else {}
    )


@pytest.mark.parametrize("unit", sorted(SERVICES))
def test_a_service_sees_the_files_that_the_database_s_url_names(unit: str, tmp_path: Path) -> None:
    files = "passfile=/etc/glassq/secrets/pgpass&sslkey=%2Fetc%2Fglassq%2Fsecrets%2Fclient.key"
    made = drop_ins(f'[queue]\nurl = "postgres://db/q?{files}&sslrootcert=/etc/ssl/ca.pem"\n', tmp_path)
    said = set(made[unit].splitlines())
    bound = {f"BindReadOnlyPaths=%d/{name}:/etc/glassq/secrets/{name}" for name in ("pgpass", "client.key")}
    assert {line for line in said if line.startswith("LoadCredential=")} == {
        "LoadCredential=pgpass:/etc/glassq/secrets/pgpass",
        "LoadCredential=client.key:/etc/glassq/secrets/client.key",
    }
    # the others see all their credentials there
    assert (bound <= said) == (unit == "glassq-worker.service")


def test_settings_that_come_later_find_the_queue(tmp_path: Path) -> None:
    run(GENERATOR, tmp_path, tmp_path, tmp_path, GLASSQ_CONFIG=tmp_path / "none.toml")
    made = {path.parent.name.removesuffix(".d"): path.read_text() for path in tmp_path.glob("*/*.conf")}
    assert made.keys() == ALL
    assert all(text.endswith(WANTS) for text in made.values())


def test_the_address_and_the_tokens_of_tasks_are_those_of_their_settings(tmp_path: Path) -> None:
    tasks = '[tasks]\nbind = "127.0.0.1:8083"\ntoken_file = "/etc/glassq/secrets/tasks-tokens"\n'
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n{tasks}', tmp_path)
    assert made["glassq-tasks.socket"].splitlines()[1:] == ["[Socket]", "ListenStream=", "ListenStream=127.0.0.1:8083"]
    credential = [
        "LoadCredential=tasks-tokens:/etc/glassq/secrets/tasks-tokens",
        "SetCredential=tasks-tokens:# missing",
    ]
    assert [line for line in made["glassq-tasks.service"].splitlines()[1:] if line] == ["[Service]", *credential]
    assert made.keys() == {"glassq-tasks.service", "glassq-tasks.socket"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ('[metrics]\ntasks = "127.0.0.1:9466"\n', "PrivateNetwork=no"),
        ('[push]\nnames = "postgresql://db/names"\n', "PrivateNetwork=no"),
        ('[push]\nnames = "sqlite:////srv/names/task.db"\n', "ReadWritePaths=-/srv/names"),
        ('[push]\nnames = "sqlite:////var/lib/glassq-tasks/task-names.db"\n', ""),
    ],
)
def test_the_tasks_server_gets_what_its_settings_need(settings: str, line: str, tmp_path: Path) -> None:
    made = drop_ins(f'[queue]\nurl = "beanstalk:///q"\n{settings}', tmp_path)
    found = made.get("glassq-tasks.service", "").splitlines()[1:]
    assert [text for text in found if text] == (["[Service]", line] if line else [])


def test_the_console_gets_what_its_settings_need_and_no_secret(tmp_path: Path) -> None:
    text = (
        '[queue]\nurl = "beanstalk:///q"\n[console]\nbind = "unix:/run/ops.sock"\n'
        '[ledger]\nurl = "postgres://db/ledger"\n[sources.mirror]\nverify_tokens_file = "/etc/glassq/secrets/tokens"\n'
    )
    made = drop_ins(text, tmp_path)
    assert made["glassq-console.socket"].splitlines()[1:] == ["[Socket]", "ListenStream=", "ListenStream=/run/ops.sock"]
    assert made["glassq-console.service"].split("\n", 1)[1].split() == ["[Service]", "PrivateNetwork=no"]


def test_nobody_but_its_group_opens_the_console_and_it_knows_who_they_are() -> None:
    assert {"SocketUser=root", "SocketGroup=glassq-console", "SocketMode=0660"} <= set(lines("glassq-console.socket"))
    unit = lines("glassq-console.service")
    assert "PrivateUsers=no" in unit
    assert "BindReadOnlyPaths=%d:/etc/glassq/secrets" in unit
    assert not [line for line in unit if line.startswith("LoadCredential")]
