"""Programs as handlers on the booted machine: a shell, a PHP and a Node.js script under the pool's unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.system.machine import SETTINGS, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each says what it got, and what makes machine code at run time is asked to.
PROGRAMS = {
    "shell": ("/etc/glassq/shell.sh", '#!/bin/sh\necho "shell: $(cat), attempt $GLASSQ_ATTEMPT"\n'),
    "php": (
        "/usr/bin/php -d opcache.enable_cli=1 -d opcache.jit_buffer_size=16M -d opcache.jit=1255 /etc/glassq/order.php",
        "<?php\n"
        "$sum = 0;\n"
        "for ($i = 0; $i < 1000000; $i++) { $sum += $i % 7; }\n"
        "$on = opcache_get_status()['jit']['on'] ? 'with' : 'without';\n"
        "echo 'php: ', file_get_contents('php://stdin'), \", $on JIT, attempt \", getenv('GLASSQ_ATTEMPT'), \"\\n\";\n",
    ),
    "node": (
        "/usr/bin/node /etc/glassq/order.js",
        "let body = require('fs').readFileSync(0, 'utf8')\n"
        "for (let i = 0; i < 1e6; i++) { Math.imul(i, i) }\n"
        "console.log(`node: ${body}, attempt ${process.env.GLASSQ_ATTEMPT}`)\n",
    ),
}
SAYS = {"shell": "shell: an order, attempt 1", "php": "php: an order, with JIT, attempt 1"}
SAYS["node"] = "node: an order, attempt 1"


@pytest.fixture(scope="module")
def programs(glassq: Machine) -> Iterator[Machine]:
    """The machine with a route for each program; afterwards as it was."""
    before = (glassq.root / SETTINGS).read_text()
    routes = ""
    for name, (command, text) in PROGRAMS.items():
        glassq.write(command.split()[-1].lstrip("/"), text)
        glassq.run(f"chmod 755 {command.split()[-1]}")
        routes += f'[[routes]]\nsource = "mirror"\nmatch = {{ program = "{name}" }}\nhandler = "exec:{command}"\n'
    # the first route that matches wins
    glassq.write(SETTINGS, before.replace("\n[[routes]]", f"\n{routes}[[routes]]", 1))
    # glassq lets go of root's rights, which reading root's own files would need
    glassq.write("usr/local/share/order", "an order")
    yield glassq
    glassq.write(SETTINGS, before)
    glassq.run("rm /usr/local/share/order && systemctl daemon-reload && systemctl restart glassq-worker")


def test_before_systemd_has_read_them_doctor_says_what_the_unit_forbids(programs: Machine) -> None:
    assert "forbids machine code that is made at run time" in programs.shows("glassq doctor | grep -A1 program")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_any_language_works_a_delivery(programs: Machine, name: str) -> None:
    if programs.run("systemctl show -P MemoryDenyWriteExecute glassq-worker") != "no":
        programs.shows("systemctl daemon-reload && systemctl restart glassq-worker")
        programs.wait_active("glassq-worker")
        assert "lets programs make machine code" in programs.shows("glassq doctor | grep program")
    programs.run(f"glassq put /usr/local/share/order --source mirror --label program={name} --no-check")
    wait_for(lambda: SAYS[name] in programs.log("glassq-worker"), f"{name} to work it")
    programs.shows(f"journalctl --no-pager -o cat -u glassq-worker -g '{name}: an order'")
