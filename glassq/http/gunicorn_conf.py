"""Reads gunicorn.conf.py without gunicorn's command line and GUNICORN_CMD_ARGS."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from glassq.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from gunicorn.config import Config


def apply_conf(conf: Path, cfg: Config) -> None:
    """Sets in `cfg` what the file says. Raises SettingsError where gunicorn itself would end the process."""
    try:
        spec = importlib.util.spec_from_file_location("__config__", conf)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if name in cfg.settings:
                cfg.set(name, value)
        cfg.validate()
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{conf}: cannot be used: {type(error).__name__}: {error}") from error
