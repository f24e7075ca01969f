from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
[intake]
bind = "127.0.0.1:8123"
request_timeout = "7s"
max_body = "9KiB"
"""
# in a process of its own, as the file sets up logging
APPLY = """
import sys
from pathlib import Path
from gunicorn.config import Config
from glassq.http.gunicorn_conf import apply_conf
cfg = Config()
apply_conf(Path(sys.argv[1]), cfg)
worker = cfg.worker_class
print(worker.__name__, worker.request_timeout, worker.max_body, cfg.logger_class.__name__, *cfg.bind)
"""


@pytest.mark.parametrize("conf", ["conf/gunicorn.conf.py", "tests/upgrade/f232174.gunicorn.conf"])
def test_the_conf_that_we_ship_and_that_of_the_last_release_set_worker_limits_and_log(
    tmp_path: Path, conf: str
) -> None:
    shutil.copy(ROOT / conf, tmp_path / "gunicorn.conf.py")
    (tmp_path / "glassq.toml").write_text(SETTINGS)
    environment = os.environ | {"GLASSQ_CONFIG": str(tmp_path / "glassq.toml"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", APPLY, tmp_path / "gunicorn.conf.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "BufferingWorker 7.0 9216 GunicornLog 127.0.0.1:8123\n", done.stderr
