"""The house: wings that are portions of one namespace, floors that imports never climb."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
WINGS = ("recorder", "datasets", "replay", "sandbox", "cli")
MAY_IMPORT = {
    "datasets": {"datasets"},
    "recorder": {"recorder", "datasets"},
    "replay": {"replay", "datasets"},
    "sandbox": {"sandbox", "datasets"},
    "cli": {"cli", "recorder", "datasets", "replay", "sandbox"},
}
HEAVY = ("polars", "numba", "pyarrow", "websockets")


def test_namespace_has_no_init_anywhere() -> None:
    assert [*REPOSITORY.glob("*/mmdata/__init__.py")] == []


@pytest.mark.parametrize("wing", WINGS)
def test_wing_is_a_typed_package_with_a_readme_and_no_module_beside_it(wing: str) -> None:
    folder = REPOSITORY / wing
    assert (folder / "README.md").is_file()
    assert (folder / "mmdata" / wing / "__init__.py").is_file()
    assert (folder / "mmdata" / wing / "py.typed").is_file()
    assert [*folder.glob("*.py")] == []
    assert [path.name for path in (folder / "mmdata").iterdir() if path.name != "__pycache__"] == [wing]


@pytest.mark.parametrize("wing", WINGS)
def test_imports_never_go_up(wing: str) -> None:
    for path in (REPOSITORY / wing).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("mmdata."):
                    assert name.split(".")[1] in MAY_IMPORT[wing], f"{path}:{node.lineno}"  # type: ignore[attr-defined]


def test_every_tool_is_given_all_wings() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    tools = project["tool"]
    wings = sorted(WINGS)
    assert sorted(tools["hatch"]["build"]["dev-mode-dirs"]) == wings
    assert sorted(tools["hatch"]["build"]["targets"]["wheel"]["sources"]) == wings
    assert sorted(tools["pytest"]["ini_options"]["pythonpath"]) == [".", *wings]  # "." holds tests.builders
    assert sorted(tools["mypy"]["mypy_path"].split(":")) == wings
    assert {*wings} <= {*tools["ruff"]["src"]}
    assert sorted(tools["pyright"]["extraPaths"]) == wings


def test_constraints_pin_every_version_and_name_no_address() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    assert not any("://" in line for line in lines)


def test_a_package_called_datasets_stays_its_owners(tmp_path: Path) -> None:
    """Hugging Face's, for one: the wing of that name must not hide it, also from the root."""
    owner = tmp_path / "datasets"
    owner.mkdir()
    (owner / "__init__.py").write_text("OWNER = 'theirs'\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", "import datasets; print(datasets.OWNER)"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "theirs\n", run.stderr


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    paths = os.pathsep.join(str(REPOSITORY / wing) for wing in WINGS)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return {*run.stdout.splitlines()[-1].split()}


def test_help_loads_nothing_heavy() -> None:
    statement = (
        "from mmdata.cli.main import main\n"
        "for args in (['--help'], ['record', '--help'], ['replay', '--help']):\n"
        "    try: main(args)\n"
        "    except SystemExit as done: assert done.code == 0"
    )
    assert _loaded_after(statement) == set()


@pytest.mark.parametrize("wing", ["replay", "datasets", "sandbox", "recorder"])
def test_importing_a_wing_loads_nothing_heavy(wing: str) -> None:
    assert _loaded_after(f"import mmdata.{wing}") == set()
