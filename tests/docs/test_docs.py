"""Documentation is true: links exist, commands parse, code runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
# what takes minutes is run by .ci/run; the others below, right here
IN_CI = {f"make {target}" for target in re.findall(r"make ([a-z-]+)", (ROOT / ".ci/run").read_text())}
# scripts whose core a page shows; make test-integrations runs them
SCRIPTS = sorted((ROOT / "tests/integration/scripts").glob("*_loop.py"))


# pages whose blocks are files of the reader's; test_howto.py saves and runs them
OWN_TESTS = ("own_data.md", "own_model.md", "export.md")


def shown(script):
    """Return the page that shows the core of a script, and the core."""
    _, page, core = re.split(r"^# --- shown in (\S+)\n", script.read_text(), flags=re.MULTILINE)
    return ROOT / page, core.split("# --- end\n")[0].rstrip() + "\n"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands():
    lines = [
        line.split("  #")[0].strip() for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()
    ]
    return sorted({line for line in lines if line and not line.startswith("#")})


def named(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_exist(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|href)=\"([^\"#]+)\"", page.read_text())
    for link in (a or b for a, b in links):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
            # a site has these pages alone; a file of the repository is named as code, not linked
            assert page.parent == ROOT or (page.parent / link).resolve().is_relative_to(ROOT / "docs"), link


def test_long_commands_are_run_by_ci():
    """Each `make` command of the docs, but for what trains on other data or other machines."""
    named = {command for command in commands() if command.startswith("make ")}
    by_hand = {"make slurm-up", "make slurm-down", "make test-fast"}
    assert named - by_hand <= IN_CI


@pytest.mark.parametrize("command", [c for c in commands() if c not in IN_CI])
def test_command_is_understood(command, tmp_path, monkeypatch):
    """Every `ham` command of the docs is accepted by the real parser, up to its help; `make` targets exist."""
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert arguments
        assert set(arguments) <= set(targets)
        return
    if program in {"git", "cd", "pip", "wandb", "source", "python"}:
        return
    if program == "torchrun":  # several ranks of the same command
        assert "--no-python" in arguments  # with -m a folder named experiments would come before ours
        program, arguments = "ham", arguments[arguments.index("ham") + 1 :]
    assert program == "ham", command
    monkeypatch.chdir(tmp_path)
    # words of the command itself; an option of `ham` is not carried out: it may change the shell's files
    named = 0 if arguments[0].startswith("-") else 2 if arguments[0] == "track" else 1
    result = CliRunner().invoke(app, [*arguments[:named], "--help"])
    assert result.exit_code == 0, result.output
    known = set(re.findall(r"--?[a-z-]+", re.sub(r"\x1b\[[0-9;]*m", "", result.output)))
    assert {a.split("=")[0] for a in arguments if a.startswith("-")} <= known
    if arguments[0] in {"run", "sweep", "calibrate"}:
        from experiments.config.resolve import load, resolve

        positional = [a for a in arguments[1:] if not a.startswith("-")]
        if not positional[0].endswith(".yaml"):  # files of the reader's; those that a page shows have tests
            resolve(load(positional[0], [p for p in positional[1:] if "=" in p]), calibrate=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_pages_show_the_scripts_that_are_run(script):
    page, core = shown(script)
    assert core in blocks(page, "python")


def runnable():
    """Python blocks, but for those that are a script's core; what not everybody has is asked for by its own target."""
    for page in PAGES:
        if page.name in ("add_a_method.md", "results.md", *OWN_TESTS):  # tests of their own run all of them
            continue
        for code in blocks(page, "python"):
            marks = [pytest.mark.integrations] if "import schedulefree" in code else []
            if (page, code) not in map(shown, SCRIPTS):
                for one in (code, *alternatives(code)):
                    yield pytest.param(page.name, one, marks=marks)


def alternatives(code):
    """Yield the block with each alternative that a comment of it offers, `"rigl"  # or "set"`, in its place."""
    for line in code.splitlines():
        if offered := re.search(r'"(\w+)".*# or ((?:"\w+"(?:, )?)+)', line):
            for other in re.findall(r"\w+", offered[2]):
                yield code.replace(line, line.replace(f'"{offered[1]}"', f'"{other}"', 1))


def test_alternatives_of_a_comment_are_found():
    code = 'a\nrep = represent(model, "plain")  # or "str", "bar"\n'
    assert [one.splitlines()[1].split()[3] for one in alternatives(code)] == ['"str")', '"bar")']


@pytest.mark.parametrize(("page", "code"), list(runnable()), ids=lambda v: v[:12])
def test_python_blocks_run(page, code, monkeypatch, tmp_path):
    """Each block is complete but for a model, a loader, a loss and a number of steps."""
    import torch

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    loader = [(torch.randn(4, 8), torch.tensor([0, 1, 0, 1])) for _ in range(8)]
    before = model(loader[0][0]).detach()
    scope = {"model": model, "loader": loader, "loss_fn": torch.nn.functional.cross_entropy, "torch": torch}
    exec(compile(code, page, "exec"), scope)  # the documentation's own code
    assert not torch.equal(before, scope["model"](loader[0][0]))


@pytest.mark.parametrize(("section", "package"), [("HAM", "ham"), ("Sparse training", "sparsity")])
def test_messages_that_the_page_explains_are_those_of_the_code(section, package):
    source = "".join(path.read_text() for path in (ROOT / package).rglob("*.py"))
    page = (ROOT / "docs/howto/troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.*?)` \|", page.split(f"\n## {section}\n")[1].split("\n## ")[0], flags=re.MULTILINE)
    assert len(messages) > 5
    assert [message for message in messages if message not in source] == []
