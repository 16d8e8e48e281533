"""The options of a sandbox, and how light its import is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.sandbox import SandboxOptions


def test_options_survive_json() -> None:
    options = SandboxOptions(port=8, seed=3, drop=(1.5, 2), truth=Path("t"), captures=(Path("a"), Path("b")))
    assert SandboxOptions.from_json(options.to_json()) == options
    assert SandboxOptions.from_json("{}") == SandboxOptions()
    scripted = SandboxOptions(faults={"seed": 1, "faults": [{"kind": "abort", "at": "5s"}]})
    assert SandboxOptions.from_json(scripted.to_json()) == scripted
    assert SandboxOptions.from_json('{"faults": "f.yaml"}').faults == Path("f.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"sped": 3}', "'sped' is unknown; there are captures, drop"),
        ('{"speed": "fast"}', "speed is 'fast', which is of the wrong type"),
        ('{"speed": true}', "wrong type"),
        ('{"seed": 1.5}', "wrong type"),
        ('{"drop": 3}', "wrong type"),
        ('{"captures": "file"}', "wrong type"),
        ('{"until_eof": 1}', "wrong type"),
        ('{"faults": 1}', "wrong type"),
        ('{"speed": -1}', "speed is -1, must be 0 or more"),
        ('{"pace": 0}', "pace is 0, must be more than 0"),
        ('{"port": 70000}', "port is 70000, must be 0 to 65535"),
        ('{"drop": [-1]}', "must be times of 0 s or more"),
        ('{"sweep": 2}', "must be 0 to 1"),
        ('{"heartbeat_s": 0}', "must be more than 0"),
    ],
)
def test_option_that_cannot_be_is_refused_in_a_sentence_that_names_it(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SandboxOptions.from_json(text)
    assert said in str(caught.value)


def test_importing_the_sandbox_loads_neither_websockets_nor_numpy() -> None:
    code = (
        "import sys; sys.path[:0] = %r; import mmdata.sandbox; "
        "sys.exit(bool({'websockets', 'numpy', 'msgspec', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code % sys.path], check=False)
    assert done.returncode == 0


def test_sandbox_never_uses_the_recorder() -> None:
    folder = Path(__file__).parents[2] / "sandbox" / "mmdata" / "sandbox"
    sources = list(folder.rglob("*.py"))
    assert len(sources) > 15
    for source in sources:
        text = source.read_text()
        assert "mmdata.recorder" not in text, source
        assert "mmdata.replay" not in text, source
