"""Our lines go on whatever a handler does to `logging`, and its own lines are as it wants."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from glassq.log import fields, logger
from tests.conftest import wait_for
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd

OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} info glassq\.worker\[(\d+)\]: done job=7 delivery=d1")

# A process of the pool, and what a handler's module does in it.
PROCESS = """
import logging, logging.config, os, sys, threading, time
from glassq import log
from glassq.log import bind_context, fields, logger

ours = logger("glassq.worker")
log.setup("info")
bind_context(delivery="d1")
def mischief():
{mischief}
mischief()
ours.info("done %s", fields(job=7))
ours.debug("too much")
theirs = logging.getLogger("handlers.orders")
theirs.error("theirs")
"""

DICT_CONFIG = """
logging.config.dictConfig({
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler", "level": "DEBUG"%s}},
    %s
})
"""
DJANGO = DICT_CONFIG % ("", '"loggers": {"django": {"handlers": ["console"], "level": "INFO"}}')
# what a handler does, and its own line then: None is ours to write, in our form
MISCHIEF: dict[str, tuple[str, str | None]] = {
    "nothing": ("pass", None),
    "Django": (DJANGO, None),
    "dictConfig with a root": (DICT_CONFIG % ("", '"root": {"handlers": ["console"]}'), "theirs"),
    "dictConfig with loggers of its own": (
        DICT_CONFIG % ("", '"loggers": {"handlers": {"handlers": ["console"]}}'),
        "theirs",
    ),
    "dictConfig on stdout": (
        DICT_CONFIG % (', "stream": "ext://sys.stdout"', '"loggers": {"handlers": {"handlers": ["console"]}}'),
        "theirs",
    ),
    "basicConfig": ("logging.basicConfig(format='plain %(message)s')", None),
    "basicConfig by force": ("logging.basicConfig(force=True, format='plain %(message)s')", "plain theirs"),
    "a handler of its own": ("logging.getLogger('handlers').addHandler(logging.StreamHandler())", "theirs"),
    "a file of its own": ("logging.getLogger('handlers').addHandler(logging.FileHandler(os.devnull))", None),
    "disable": ("logging.disable(logging.CRITICAL)", ""),
    "no handlers": ("logging.getLogger().handlers.clear()", "theirs"),
    "no handlers at all": (
        "for name in ('', 'glassq', 'glassq.worker'): logging.getLogger(name).handlers[:] = []",
        "theirs",
    ),
    "levels": ("for name in ('', 'glassq', 'glassq.worker'): logging.getLogger(name).setLevel(60)", ""),
    "our logger, disabled": ("logging.getLogger('glassq.worker').disabled = True", None),
    "our logger, without its parent": ("logging.getLogger('glassq').propagate = False", None),
    "all there is of our logger": (
        "for key in vars(ours): setattr(ours, key, None) if key != 'name' else None",
        None,
    ),
    "our logger, filtered": ("logging.getLogger('glassq.worker').addFilter(lambda record: False)", None),
    "every handler that there is": ("for each in logging.getLogger().handlers: each.setLevel(60)", ""),
    "shutdown": ("logging.shutdown()", None),
    "a class of loggers": ("logging.setLoggerClass(type('L', (logging.Logger,), {'handle': lambda *_: None}))", ""),
    "a factory of records": ("logging.setLogRecordFactory(lambda *a, **k: sys.exit(3))", "exit"),
    "names of levels": ("logging.addLevelName(logging.INFO, 'NOTE')", None),
    "a clock": ("logging.Formatter.converter = time.gmtime", None),
    "no process numbers": ("logging.logProcesses = False; logging.raiseExceptions = False", None),
    "another stderr": ("sys.stderr = open(os.devnull, 'w')", None),
    "a closed stderr": ("sys.stderr.close()", ""),
    "a closed descriptor": ("os.close(2)", ""),
    "another descriptor": ("os.dup2(os.open(os.devnull, os.O_WRONLY), 2)", ""),
}


@pytest.mark.parametrize("name", MISCHIEF)
def test_our_lines_go_on_and_a_handler_s_are_written_once_as_it_wants(name: str) -> None:
    mischief, theirs = MISCHIEF[name]
    script = PROCESS.replace("{mischief}", textwrap.indent(mischief, "    "))
    run = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    lines = run.stdout.splitlines()
    assert OURS.fullmatch(lines[0]), run.stdout
    if theirs == "exit":
        return
    assert run.returncode in (0, 120), run.stdout
    if theirs is None:
        (line,) = lines[1:]
        assert re.search(r" error handlers\.orders\[\d*(None)?\]: theirs delivery=d1$", line)
    else:
        assert lines[1:] == [theirs] * bool(theirs)


HANDLERS = """
import logging.config, os, sys
logging.config.dictConfig({
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
})
log = logging.getLogger("handlers")

def handle(delivery):
    log.info("a line of its own")
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")
"""


def test_a_pool_tells_of_its_deliveries_though_the_handlers_configure_logging(
    tmp_path: Path, beanstalkd: Beanstalkd
) -> None:
    look = beanstalkd.queue()
    with PoolRun(tmp_path, beanstalkd, look) as pool:
        pool.write_handlers(HANDLERS)
        pool.start().ready()
        delivery = pool.put("one")
        again = pool.put("two")
        # not its id alone: another line may name it first
        told = f"done delivery={again.id} attempt=1 job="
        wait_for(lambda: told in pool.log(), f"the second delivery to be told of\n{pool.log()}")
        said = pool.log()
    look.close()
    for each in (delivery, again):
        assert re.search(rf"info glassq\.worker\[\d+\]: done delivery={each.id} attempt=1 job=", said)
    assert said.splitlines().count("a line of its own") == 1


def test_before_setup_our_lines_go_where_a_program_sends_those_of_any_library(caplog: pytest.LogCaptureFixture) -> None:
    def heard() -> list[str]:
        # a thread that another test has left may still tell of its end
        return [each.message for each in caplog.records if each.name == "glassq.push"]

    log = logger("glassq.push")
    assert log is logging.getLogger("glassq.push")
    log.info("unheard")
    log.warning("heard %s", fields(job=7))
    assert heard() == ["heard job=7"]
    logging.getLogger("glassq.push").setLevel(logging.ERROR)
    try:
        log.warning("unheard")
    finally:
        logging.getLogger("glassq.push").setLevel(logging.NOTSET)
    assert heard() == ["heard job=7"]
