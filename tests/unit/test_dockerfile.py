"""What the Dockerfile says, where no container can be run: pins, and a build context that holds all of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


def test_every_stage_begins_with_the_one_pinned_base_or_with_another_stage() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", TEXT, re.MULTILINE)
    names = [name for _, name in stages if name]
    assert {base for base, _ in stages if base not in names} == {"python:3.13-slim-trixie"}
    assert stages[-1] == ("python:3.13-slim-trixie", "")  # nothing that compiles comes along


def test_every_installation_is_constrained_and_names_no_registry() -> None:
    code = re.sub(r"^\s*#.*$", "", TEXT, flags=re.MULTILINE)
    installed = re.findall(r"pip\S*(?: --python \S+)? install ([^&]*)", code)
    assert len(installed) == 3
    for arguments in installed:
        assert "-c constraints.txt" in arguments or "--no-deps" in arguments
    assert "://" not in code
    assert "index-url" not in code


def test_build_context_holds_what_is_copied_and_nothing_else() -> None:
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
        for source in sources.split()
    }
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert lines[1] == "*"
    assert all((REPOSITORY / source).exists() for source in copied)


def test_label_tells_the_distributions_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'image.version="{project["version"]}"' in TEXT
