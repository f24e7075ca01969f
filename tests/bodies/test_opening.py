"""Only the library of the store that the settings name is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
from glassq.bodies import open_bodies
from glassq.settings import parse
settings = parse(sys.argv[1], "my.toml")
if sys.argv[2] == "web":
    import glassq.intake.process, glassq.intake.wsgi
else:
    import glassq.programs.worker
    from glassq.programs.worker import plan
    plan(settings)
from glassq.glass.credentials import CredentialStore, new_key
CredentialStore(settings.glass.credentials, [new_key()])
open_bodies(settings)
print(*sorted({"psycopg", "sqlalchemy", "boto3", "google.cloud.storage"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("settings", "program", "loaded"),
    [
        ("", "web", ""),
        ("", "worker", "sqlalchemy"),
        ("[bodies]\nurl = 'postgres://h/q'", "web", "psycopg"),
        ("[bodies]\nurl = 's3://bucket'", "web", "boto3"),
    ],
)
def test_who_does_not_use_a_library_does_not_load_it(settings: str, program: str, loaded: str) -> None:
    arguments = [sys.executable, "-c", PROGRAM, settings, program]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.strip() == loaded
