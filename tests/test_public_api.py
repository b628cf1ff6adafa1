from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_vocab

PACKAGE = Path(lightning_vocab.__file__).parent
ROOMS_BELOW = {  # a room imports from these and from itself
    "functional": set(),
    "demo": {"functional"},
    "vocabulary": {"functional"},
    "initializers": {"functional", "vocabulary"},
    "rows": {"functional", "vocabulary", "initializers"},
    "distributed": {"functional", "vocabulary", "rows"},
    "metrics": {"functional", "vocabulary"},
    "data": {"functional", "vocabulary", "demo"},
    "contract": {"functional", "vocabulary", "rows", "initializers", "data", "loss"},
    "grounding": {
        *("functional", "vocabulary", "demo", "data", "initializers", "rows", "distributed"),
        *("loss", "watched_rows", "datamodule", "module"),
    },
    "probing": {
        *("functional", "vocabulary", "data", "initializers", "loss"),
        *("datamodule", "module", "callbacks", "cli"),
    },
    "distillation": {
        *("functional", "vocabulary", "demo", "data", "initializers", "rows"),
        *("loss", "datamodule", "module", "callbacks"),
    },
}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_and_names_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert all(hasattr(module, each) for each in exported)


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("room", sorted(ROOMS_BELOW))
def test_arrows_between_rooms_go_one_way(room: str) -> None:
    allowed = ROOMS_BELOW[room] | {room}
    for path in (PACKAGE / room).rglob("*.py"):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "lightning_vocab":
                assert len(parts) > 1, f"{path} imports the top level"
                assert parts[1] in allowed, f"{path} imports {name}"


def test_the_mathematics_imports_neither_lightning_nor_transformers() -> None:
    for path in (PACKAGE / "functional").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & {"lightning", "transformers", "torchmetrics", "datasets"}, path


def test_torch_distributed_is_used_in_one_room_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "distributed":
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_the_readme_lists_every_public_name() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    missing = [name for name in lightning_vocab.__all__ if f"`{name}" not in readme]
    assert not missing


def test_the_package_runs_as_a_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-vocab", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lightning_vocab", run_name="__main__")
    assert not ended.value.code
    assert "lightning-vocab" in capsys.readouterr().out


@pytest.mark.slow  # a new process imports everything once more
def test_the_package_starts_without_touching_the_network() -> None:
    script = (
        "import runpy, socket, sys\n"
        "def refuse(*args, **kwargs): raise RuntimeError('network')\n"
        "socket.socket.connect = refuse\n"
        "sys.argv = ['lightning-vocab', '--version']\n"
        "runpy.run_module('lightning_vocab', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "lightning-vocab" in ended.stdout
