"""What the pages say of the tree: links, files, commands, options, snippets, and the words."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
OWN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "tests/*/README.md")
PAGES = sorted(page for pattern in OWN for page in REPOSITORY.glob(pattern))
FOLDERS = (".ci", "bench", "csrc", "docs", "kernels", "seamo_fast", "tests")
# what a page calls <op> is there for this one, and so on
EXAMPLES = {
    "op": "tm_attention",
    "backend": "triton",
    "source": "ssl4eo",
    "dataset": "oscd",
    "part": "model",
}
FILE = re.compile(r"(?<![\w./<>-])((?:[\w<>.-]+/)*[\w<>-]+\.(?:py|cpp|cuh?|h|md|cff))(?![\w/])")
FOLDER = re.compile(rf"`((?:{'|'.join(FOLDERS)})(?:/[\w<>.-]+)*/?)`")

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)


def filled(text: str) -> str:
    """Puts examples in the place of <op> and the like."""
    return re.sub(r"<(\w+)>", lambda found: EXAMPLES.get(found[1], found[0]), text)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Returns the words of each command of the shell blocks."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if not line.startswith("#SBATCH")]
    return [words for words in found if words]


def anchors(page: Path) -> set[str]:
    """Returns what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def started(module: str) -> str:
    """Returns the module that `python -m` runs."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    return module if found.submodule_search_locations is None else f"{module}.__main__"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)\s]*)\)", page.read_text(encoding="utf-8"))
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_named_files_exist(page: Path) -> None:
    text = filled(page.read_text(encoding="utf-8"))
    tree = [
        str(f.relative_to(REPOSITORY)) for name in FOLDERS for f in (REPOSITORY / name).rglob("*")
    ]
    tree += [path.name for path in REPOSITORY.iterdir()]
    files = set(FILE.findall(re.sub(r"https?://\S+|\.\./", "", text)))
    known = {name for name in files if any(f"/{path}".endswith(f"/{name}") for path in tree)}
    assert files - known == set()
    assert [name for name in FOLDER.findall(text) if not (REPOSITORY / name).exists()] == []


@each_page
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    for name in re.findall(r"-m\s+((?:seamo_fast|bench|tests)[\w.]*\w)", text):
        if not name.endswith(".NAME"):
            assert importlib.util.find_spec(started(name)) is not None, name
    for path in re.findall(r"pytest ([\w/.]+/[\w.]*)", text):
        assert (REPOSITORY / path).exists(), path


@each_page
def test_named_variables_are_read(page: Path) -> None:
    files = [path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py")]
    read = "".join(path.read_text(encoding="utf-8") for path in [*files, REPOSITORY / "Makefile"])
    names = set(re.findall(r"SEAMO_FAST_[A-Z_]+", page.read_text(encoding="utf-8")))
    assert {name for name in names if name not in read} == set()


def with_options() -> dict[str, set[str]]:
    """Returns, for each command of this package that a page shows with options, the options."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for words in commands(page.read_text(encoding="utf-8")):
            module = next((word for word in words if word.startswith("seamo_fast.")), None)
            if module is not None:
                given = words[words.index(module) + 1 :]
                options = {word.partition("=")[0] for word in given if word.startswith("--")}
                found.setdefault(module, set()).update(options)
    return {module: options for module, options in found.items() if options}


@pytest.mark.parametrize(("module", "options"), with_options().items(), ids=list(with_options()))
def test_options_are_in_the_help(
    module: str,
    options: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = ["step"] if module == "seamo_fast.profile" else []
    monkeypatch.setattr(sys, "argv", [module, *step, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # it wants a file
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(started(module)).main()
    assert not ended.value.code
    shown = set(re.findall(r"--[\w.]+", capsys.readouterr().out))
    assert options - shown == set()


@pytest.mark.parametrize("page", ["README.md", "docs/data.md"])
def test_snippets_run(page: str) -> None:
    snippets = blocks((REPOSITORY / page).read_text(encoding="utf-8"), "python")
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), {})


def test_readme_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 160
    images = list((REPOSITORY / "docs" / "images").iterdir())
    assert images
    assert all(image.stat().st_size < 300_000 for image in images)


def test_sizes_in_the_reading_order_are_true() -> None:
    rows = re.findall(r"^\| \[.*?\]\((.*?)\) \| (\d+) \|", README, re.MULTILINE)
    assert len(rows) >= 5
    for path, lines in rows:
        actual = len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())
        assert int(lines) == pytest.approx(actual, rel=0.15), path


@pytest.mark.parametrize(
    "term",
    [
        "resume",
        "throughput",
        "gradient accumulation",
        "mixed precision",
        "checkpoint",
        "FSDP",
        "DDP",
    ],
)
def test_readme_has_what_people_search_for(term: str) -> None:
    assert term in " ".join(README.split())


@each_page
def test_words_that_a_search_misses(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    idioms = r"\b(?:go(?:es)? on|went on|anew|mend(?:s|ed)?|tells?|told|lies)\b"
    assert re.findall(rf".{{0,30}}{idioms}.{{0,30}}", text) == []


def test_citation_is_complete() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "references"} <= citation.keys()
    assert "2412.19237" in str(citation["references"])
    assert citation["license"] in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
