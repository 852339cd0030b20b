"""Who imports what: the core stands alone, and commands that only read load no torch."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fake_sweep import finished_sweep

import ham as ham_package

ROOT = Path(ham_package.__file__).parent.parent
PACKAGES = ("ham", "sparsity", "experiments", "results", "slurm")

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is blocked in this test")

sys.meta_path.insert(0, Blocked())
"""


def blocked(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which importing some packages fails."""
    (folder / "sitecustomize.py").write_text(BLOCK.format(names=names))
    return {**os.environ, "PYTHONPATH": str(folder)}


def call(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, env=env, timeout=120, check=False)


SEVERAL = """
import json
import sys
from experiments.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ham", *arguments]
    try:
        main()
        code = 0
    except SystemExit as left:
        code = left.code or 0
    print("===", code)
"""


def test_the_block_blocks(tmp_path: Path) -> None:
    called = call(sys.executable, "-c", "import torch", env=blocked(tmp_path, "torch"))
    assert "torch is blocked in this test" in called.stderr


def test_commands_that_only_read_load_no_torch(tmp_path: Path) -> None:
    runs = finished_sweep(tmp_path / "runs")
    one, other = sorted(runs.glob("*/result.json"))[0].parent, sorted(runs.glob("*/result.json"))[-1].parent
    env = blocked(tmp_path, "torch", "torchvision", "timm", "wandb")
    commands = [
        *(
            ["--help"],
            ["--version"],
            ["config", "optimizer.lr"],
            ["status", runs],
            ["status", "--json", runs],
            ["hours", runs],
            ["cancel", runs],
            ["clean", runs],
            ["wait", runs],
            ["logs", runs, "rigl", "s0"],
        ),
        *(["table", runs], ["report", runs], ["best", runs], ["table", runs, "--format", "json"]),
        *(["power", runs, "--difference", "0.3"], ["compare", one, other], ["archive", runs]),
    ]
    called = call(sys.executable, "-c", SEVERAL, json.dumps(commands, default=str), env=env)
    assert called.returncode == 0, called.stderr
    *printed, rest = called.stdout.split("=== 0\n")
    assert (len(printed), rest) == (len(commands), ""), called.stderr
    assert all(text.strip() for text in printed)
    assert "blocked" not in called.stderr


HELP = """
import sys
from experiments.cli.main import main
sys.argv = ["ham", "--help"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_help_is_quick() -> None:
    """It loads what prints it and nothing else; seconds would tell how busy this machine is."""
    called = call(sys.executable, "-c", HELP)
    assert called.returncode == 0
    assert "sweep" in called.stdout
    loaded = called.stderr.split()
    prints = {"annotated_doc", "attr", "attrs", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}
    assert {name for name in outside(set(loaded)) if not name.startswith("_")} <= {"experiments", *prints}
    assert len(loaded) < 500


ALONE = """
import sys
import ham
print(*sorted({name.partition(".")[0] for name in sys.modules}))
import sparsity
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_command_is_a_module_too() -> None:
    called = call(sys.executable, "-m", "experiments.cli", "methods", "rigl")
    assert called.returncode == 0, called.stderr
    assert called.stdout.startswith("rigl: Sparse training")


def test_the_optimizer_and_the_methods_load_torch_and_nothing_of_the_suite() -> None:
    called = call(sys.executable, "-c", ALONE)
    assert called.returncode == 0, called.stderr
    for line, alone in zip(called.stdout.splitlines(), ({"ham"}, {"ham", "sparsity"}), strict=True):
        loaded = set(line.split())
        assert "torch" in loaded
        assert loaded & {"pydantic", "yaml", "pandas", "typer", "wandb", "matplotlib", "scipy", "jinja2"} == set()
        assert loaded & set(PACKAGES) == alone


def imports(path: Path) -> set[str]:
    """All modules that a file imports, anywhere in it, but for type checkers only; relative ones as absolute."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def of_package(package: str) -> dict[str, set[str]]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    return {str(path.relative_to(ROOT)): imports(path) for path in files}


def outside(names: set[str]) -> set[str]:
    """Top-level packages that are not of the standard library."""
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", ["ham", "sparsity"])
def test_the_core_imports_torch_and_the_standard_library(package: str) -> None:
    for path, names in of_package(package).items():
        assert outside(names) <= {"torch", package}, path


def test_every_room_has_its_place_in_the_order_of_imports() -> None:
    """`make lint` holds the order of what pyproject.toml lists; here, that nothing is left out of it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (house,) = (contract for contract in contracts if contract["name"] == "the house")
    placed = {room for layer in house["layers"] for room in re.split(r"\s*[|:]\s*", layer)}
    rooms = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("experiments", "results", "slurm")
        for path in (ROOT / package).iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and path.name != "__init__.py")
    }
    assert placed == rooms | {"ham", "sparsity"}


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_module_runs_code_of_a_command_on_import() -> None:
    """Every module level holds definitions: no file is opened, nothing is printed."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    called = ast.unparse(node.value.func)
                    assert called.endswith(("add_representer", "add_implicit_resolver", "add_typer")), (
                        f"{path}: {called}"
                    )
