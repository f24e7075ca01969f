"""What settings name as "module:name"."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassq.named import import_named


def test_it_is_what_the_module_has() -> None:
    assert import_named("pathlib:Path") is Path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pathlib", 'expected "module:name"'),
        (":Path", 'expected "module:name"'),
        ("pathlib:", 'expected "module:name"'),
        ("pathlib:Paht", "cannot be imported: AttributeError"),
        ("no_such_module_of_a_test:it", "cannot be imported: ModuleNotFoundError"),
        ("named_exits:it", "cannot be imported: SystemExit: 3"),
        ("named_broken:it", "cannot be imported: SyntaxError"),
    ],
)
def test_a_module_that_fails_is_named_and_a_script_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (tmp_path / "named_exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "named_broken.py").write_text("def it(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=says):
        import_named(name)
