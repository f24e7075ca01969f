"""What a browser gets beside the pages: small, and without anything that could make code of a text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import glassq.console

ROOM = Path(glassq.console.__file__).parent
# All assets together, in bytes.
MOST = 80_000
TEMPLATES = sorted((ROOM / "templates").glob("*.html"))


def test_all_assets_together_are_small():
    sizes = {file.name: file.stat().st_size for file in (ROOM / "static").iterdir()}
    assert 10_000 < sum(sizes.values()) < MOST, sizes


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_a_template_has_nothing_that_the_policy_forbids_or_that_makes_html_of_a_text(file):
    text = re.sub(r"\{#.*?#\}", "", file.read_text(), flags=re.DOTALL)
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    assert not re.search(r"<[a-z][^>{]*\s(?:style|on[a-z]+)\s*=", text, re.IGNORECASE)
    assert not re.search(r"<script(?![^>]* src=)|<style|javascript:|https?://", text)


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_every_link_of_a_template_goes_through_url(file):
    for value in re.findall(r'\s(?:href|action|formaction)="([^"]*)"', file.read_text()):
        assert value.startswith(("{{ url(", "{{ static(", "{{ frame.twin", "{{ to }}", "#")), value


def test_the_script_makes_no_code_and_no_html_of_a_text():
    script = (ROOM / "static" / "app.js").read_text()
    assert not re.search(
        r"innerHTML\s*=[^=]|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\b|new Function", script
    )
