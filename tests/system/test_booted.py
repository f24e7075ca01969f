"""The Debian package on a booted machine: installed, started, used, and its settings changed."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_for
from tests.system.load import worked
from tests.system.machine import SETTINGS, WEB, Machine

if TYPE_CHECKING:
    from tests.system.conftest import Glass

UNITS = ("glassq.target", "glassq-web.socket", "glassq-web.service", "glassq-worker.service")
PHOTOS = "var/lib/glassq/photos"
CALLBACK = f"{WEB}/hooks/mirror"
# What Ada, Bo and Cy share, an item a line.
SHARED = (
    ("ada", "jpeg"),
    ("ada", "png"),
    ("ada", "jpeg", "mp4", "jpeg"),
    ("bo", "jpeg"),
    ("bo", "mp4"),
    ("cy", "png", "jpeg"),
)


def consent(machine: Machine, glass: Glass, user: str) -> None:
    """What an operator does when a user has said yes."""
    file = machine.root / "root" / f"{user}.json"
    file.write_text(json.dumps(glass.ask("consent", user)))
    machine.run(f"install -o glassq -m 400 /root/{user}.json /tmp/{user}.json")
    machine.run(f"glassq users add {user} --from /tmp/{user}.json")


def test_an_installation_starts_nothing_and_makes_secrets_that_others_cannot_read(machine: Machine) -> None:
    assert machine.run("systemctl list-units --no-legend --state=active 'glassq*'") == ""
    modes = machine.shows("stat -c '%A %U %G %n' /etc/glassq/secrets /etc/glassq/secrets/*").splitlines()
    assert modes == [
        "drwxr-x--- root glassq /etc/glassq/secrets",
        "-rw-r----- root glassq /etc/glassq/secrets/credentials-key",
        "-rw-r----- root glassq /etc/glassq/secrets/mirror-verify-tokens",
    ]
    # which root may ask, and the services' user
    assert 'url = "beanstalk:///run/glassq/beanstalkd.sock"' in machine.tells("glassq config check")
    assert 'url = "beanstalk:///run/glassq/beanstalkd.sock"' in machine.tells("runuser -u glassq glassq config check")


def test_a_ping_is_taken_kept_on_disk_and_worked(glassq: Machine) -> None:
    for unit in UNITS:
        assert glassq.active(unit), glassq.tells(f"systemctl status {unit}")
    assert glassq.ping("first") == ["200"]
    wait_for(lambda: "first" in worked(glassq), "it to be worked")
    wait_for(lambda: "done delivery=" in glassq.log("glassq-worker"), "the log to say so")
    glassq.transcript.say("configured, and: systemctl enable --now glassq.target")
    for unit in UNITS[2:]:
        glassq.shows(f"systemctl status --no-pager --lines=0 {unit} | sed -n '1p;/Active:/p;/Status:/p;/Tasks:/p'")
    doctor = glassq.shows("glassq doctor", lines=50)
    for line in ("is written to it", "4 wait for jobs", "says: ready"):
        assert line in doctor


def test_metrics_count_what_came_in_and_what_it_came_to(glassq: Machine) -> None:
    for port, counts in ((9464, "glassq_pings_acknowledged_total"), (9465, "glassq_attempts_total")):
        read = f"urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode()"
        found = glassq.run(f'python3 -c "import urllib.request; print({read})"').splitlines()
        lines = [line for line in found if line.startswith(counts) and not line.endswith(" 0.0")]
        assert lines
        glassq.transcript.say("\n".join(lines))


def test_photos_that_users_share_are_stored_byte_for_byte(glassq: Machine, glass: Glass) -> None:
    users = sorted({user for user, *_ in SHARED})
    for user in users:
        consent(glassq, glass, user)
        glassq.run(f"glassq subscribe {user} --collection timeline --callback {CALLBACK}")
    glassq.shows("glassq users list")
    for user, *kinds in SHARED:
        assert glass.ask("share", user, *kinds)["statuses"] == [200]
    shared = sorted(file.name for file in glass.files.iterdir())
    photos = glassq.root / PHOTOS
    wait_for(lambda: photos.exists() and shared == sorted(path.name for path in photos.iterdir()), "all to be stored")
    for name in shared:
        assert (photos / name).read_bytes() == (glass.files / name).read_bytes(), name
    glassq.transcript.say(
        f"{len(SHARED)} items shared by {len(users)} users; their {len(shared)} files are there, byte for byte:"
    )
    glassq.shows(f"ls -l /{PHOTOS} | awk '{{print $3, $4, $5, $9}}'", lines=4)


def test_what_failed_is_listed_with_its_reason_and_is_worked_once_that_is_mended(glassq: Machine, glass: Glass) -> None:
    glass.ask("revoke", "bo")
    lost = glass.ask("share", "bo", "jpeg")
    assert lost["statuses"] == [200]
    assert glassq.ping("fail") == ["200"]
    wait_for(lambda: len(buried(glassq)) == 2, "two to be buried")
    glassq.shows("glassq status")
    glassq.shows("glassq doctor | grep -v '^ok'")
    listed = glassq.shows("glassq buried")
    assert "as it was asked" in listed
    [revoked] = [row["delivery"] for row in buried(glassq) if "as it was asked" not in row["reason"]]
    assert "bo" in glassq.shows(f"glassq show {revoked}", lines=19)

    glassq.transcript.say("Bo consents again: glassq users add bo --from /tmp/bo.json")
    consent(glassq, glass, "bo")
    assert glassq.shows(f"glassq kick --yes {revoked}")
    [name] = lost["files"]
    photo = glassq.root / PHOTOS / name
    wait_for(
        lambda: photo.exists() and photo.read_bytes() == (glass.files / name).read_bytes(), "the photo to be stored"
    )
    wait_for(lambda: len(buried(glassq)) == 1, "one to be left")


def buried(machine: Machine) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(machine.run("glassq buried --json"))["jobs"]
    return rows


def test_buried_deliveries_go_into_a_file_and_come_back_out_of_it(glassq: Machine) -> None:
    before = buried(glassq)
    glassq.shows("glassq archive --all --yes")
    assert buried(glassq) == []
    glassq.shows("ls -l /var/lib/glassq/archive | awk 'NR > 1 {print $1, $3, $4, $9}'")
    glassq.shows("glassq restore --yes /var/lib/glassq/archive/*")
    assert [row["delivery"] for row in buried(glassq)] == [row["delivery"] for row in before]


def test_a_service_sees_its_own_secrets_and_no_others(glassq: Machine) -> None:
    def seen(unit: str) -> str:
        return glassq.run(f"nsenter -t {glassq.pid(unit)} -m ls /etc/glassq/secrets 2>/dev/null || true")

    assert seen("glassq-web").split() == ["mirror-verify-tokens"]
    assert seen("glassq-worker").split() == ["client-secret", "credentials-key"]
    assert seen("glassq-beanstalkd") == ""


def test_a_program_in_the_group_adds_tasks_and_reads_no_secret(glassq: Machine) -> None:
    add = "runuser -u app -- /opt/glassq/bin/python /usr/local/share/add.py"
    assert "Permission denied" in glassq.tells(add)
    glassq.run("usermod -aG glassq-tasks app")
    # the pool, and not the program, may have been the first to write that database
    assert glassq.run(f"{add} 2>/dev/null") == "taken"
    wait_for(lambda: "target default cannot be reached" in glassq.log("glassq-worker"), "the pool to take the task")
    assert "Permission denied" in glassq.tells("runuser -u app -- cat /etc/glassq/secrets/credentials-key")


def test_wrong_settings_are_named_and_once_mended_all_is_up_by_itself(glassq: Machine) -> None:
    glassq.edit(SETTINGS, "workers = 2", "workers = 0")
    glassq.edit(SETTINGS, "\nprocesses = 4", "\nprocesses = 0")
    glassq.tells("systemctl restart glassq-web.service glassq-worker.service")
    for unit, mistake in (("glassq-web", "[intake] workers = 0"), ("glassq-worker", "[worker] processes = 0")):
        wait_for(lambda unit=unit, mistake=mistake: mistake in glassq.log(unit), "the mistake to be named")
    glassq.shows("journalctl --no-pager -o cat -u glassq-worker | grep 'processes = 0' | tail -n 1")
    # pings knock meanwhile, and may not wear the socket out
    with subprocess.Popen(glassq.command("python3", "/usr/local/share/ping.py", WEB, "waits"), stdout=-1) as ping:
        wait_for(lambda: glassq.log("glassq-web").count("[intake] workers = 0") > 4, "it to be tried again and again")
        # the pool's mistake is still there, and stops no ping
        glassq.edit(SETTINGS, "workers = 0", "workers = 2")
        assert ping.communicate(timeout=60)[0] == b"200\n"
    glassq.edit(SETTINGS, "\nprocesses = 0", "\nprocesses = 4")
    glassq.wait_active("glassq-worker")
    assert glassq.active("glassq-web.socket")


@pytest.mark.parametrize("mistake", ["key", "handler"])
def test_a_reload_that_cannot_be_fails_with_its_reason_and_guards_an_upgrade(glassq: Machine, mistake: str) -> None:
    before = glassq.pid("glassq-worker")
    path, good, bad, says = {
        "key": (SETTINGS, "\nprocesses = 4", "\nproceses = 4", "did you mean processes?"),
        "handler": ("etc/glassq/handlers.py", "def handle(delivery):", "def handle(delivery:", "SyntaxError"),
    }[mistake]
    glassq.edit(path, good, bad)
    assert "exit 1" in glassq.shows("systemctl reload glassq-worker 2>&1; echo exit $?")
    assert says in glassq.shows("systemctl status --no-pager -n 4 glassq-worker | tail -n 4")
    assert "settings on disk are not those in effect" in glassq.shows("glassq status | grep '!'")
    # what each installation runs; the intake, which reads neither, takes the new version
    assert "glassq-worker was not restarted" in glassq.shows("/opt/glassq/share/glassq/prepare 2>&1 | grep ^glassq")
    glassq.wait_active("glassq-web")
    assert (glassq.pid("glassq-worker"), glassq.active("glassq-worker")) == (before, True)
    glassq.edit(path, bad, good)
    glassq.run("systemctl reload glassq-web glassq-worker")
    assert "not those in effect" not in glassq.run("glassq status")
    assert glassq.pid("glassq-worker") == before


def test_a_queue_of_the_distributions_beside_ours_is_told(glassq: Machine) -> None:
    glassq.run("systemctl start beanstalkd")
    assert "systemctl disable --now beanstalkd" in glassq.run("glassq doctor | grep beanstalkd.service")
    assert "systemctl disable --now beanstalkd" in glassq.tells("/opt/glassq/share/glassq/prepare")
    glassq.run("systemctl stop beanstalkd")
    assert "disable --now beanstalkd" not in glassq.tells("glassq doctor")
    glassq.wait_active("glassq-web", "glassq-worker")


@pytest.mark.parametrize("unit", ["glassq-worker", "glassq-web"])
def test_a_service_that_is_started_alone_comes_up_with_its_queue(glassq: Machine, unit: str) -> None:
    queue = "glassq-syncer.socket glassq-syncer.service glassq-beanstalkd.socket glassq-beanstalkd.service"
    glassq.run(f"systemctl stop glassq.target glassq-web.socket glassq-web.service glassq-worker {queue}")
    glassq.run(f"systemctl start {unit}")
    glassq.wait_active(unit)
    for queue_socket in ("glassq-beanstalkd.socket", "glassq-syncer.socket"):
        assert glassq.active(queue_socket)
    wait_for(lambda: glassq.active("glassq-syncer"), "the syncer to run beside the queue")
    glassq.run("systemctl start glassq.target")
    glassq.wait_active("glassq-web", "glassq-worker")


HOLD = "import socket, time; held = socket.create_server(('127.0.0.1', 8080)); time.sleep(9999)"


def test_an_address_that_is_taken_fails_the_start_and_once_it_is_free_all_is_up_by_itself(glassq: Machine) -> None:
    glassq.run("systemctl stop glassq.target glassq-web.socket glassq-web.service glassq-worker")
    glassq.run(f'systemd-run --unit=holder python3 -c "{HOLD}"')
    wait_for(lambda: glassq.tells("grep ':1F90 .* 0A ' /proc/net/tcp"), "the address to be taken")
    assert "exit 1" in glassq.shows("systemctl start glassq.target 2>&1; echo exit $?")
    assert "glassq-web.socket does not listen" in glassq.log("glassq-listening")
    # the rest needs no address
    glassq.wait_active("glassq-worker")
    assert "glassq-web.socket has failed" in glassq.shows("glassq doctor | grep socket")
    # nor does a second start do harm
    assert "exit 1" in glassq.tells("systemctl start glassq.target; echo exit $?")
    glassq.run("systemctl stop holder")
    glassq.wait_active("glassq-web")
    wait_for(lambda: glassq.active("glassq.target"), "the target to be up")
    assert glassq.ping("after-all") == ["200"]
    assert glassq.run("systemctl list-units --no-legend --state=failed 'glassq*'") == ""


def test_a_stop_ends_the_retries_too(glassq: Machine) -> None:
    glassq.run("systemctl stop glassq.target glassq-web.socket glassq-web.service")
    glassq.run(f'systemd-run --unit=holder python3 -c "{HOLD}"')
    wait_for(lambda: glassq.tells("grep ':1F90 .* 0A ' /proc/net/tcp"), "the address to be taken")
    assert "exit 1" in glassq.tells("systemctl start glassq.target; echo exit $?")
    glassq.run("systemctl stop glassq.target")
    wait_for(lambda: not glassq.active("glassq-retry*"), "the retries to end")
    glassq.run("systemctl stop holder && systemctl start glassq.target")
    glassq.wait_active("glassq-web", "glassq-worker")


def test_another_address_and_another_queue_take_one_setting_each(glassq: Machine) -> None:
    elsewhere = "systemd-run --unit=elsewhere -p User=beanstalkd -p StateDirectory=elsewhere"
    glassq.run(f"{elsewhere} beanstalkd -l 127.0.0.1 -p 11300 -b /var/lib/elsewhere -f0 -z 131072")
    here, there = 'url = "beanstalk:///run/glassq/beanstalkd.sock"', 'url = "beanstalk://127.0.0.1:11300"'
    glassq.edit(SETTINGS, here, there)
    glassq.edit(SETTINGS, 'bind = "127.0.0.1:8080"', 'bind = "127.0.0.1:8081"')
    glassq.run("systemctl daemon-reload && systemctl restart glassq.target")
    glassq.wait_active("glassq-worker")
    assert glassq.ping("elsewhere", to="http://127.0.0.1:8081") == ["200"]
    said = glassq.run("glassq status")
    assert "beanstalk://127.0.0.1:11300" in said
    assert "empty" in said
    glassq.edit(SETTINGS, there, here)
    glassq.edit(SETTINGS, 'bind = "127.0.0.1:8081"', 'bind = "127.0.0.1:8080"')
    glassq.run("systemctl daemon-reload && systemctl restart glassq.target")
    assert glassq.ping("back") == ["200"]
    wait_for(lambda: worked(glassq).keys() >= {"elsewhere", "back"}, "both to be worked")
    assert "beanstalk:///run/glassq/beanstalkd.sock" in glassq.run("glassq status")
    glassq.run("systemctl stop elsewhere")
