"""Pages hang together: links lead somewhere, and the pages and modules that are named are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.source import ROOT, project_files

FILES = [path for path in project_files() if path.suffix in {".md", ".proto", ".py", ".yaml"}]
ARCHITECTURE = (ROOT / "broker" / "ARCHITECTURE.md").read_text()

PAGES = [path for path in FILES if path.suffix == ".md"]


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}


def dead_links(page: Path, text: str) -> list[str]:
    """Returns the links of a page to what is not there, or to no heading of it."""
    return [
        link for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text) if is_dead(page, link)
    ]


def is_dead(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return not target.exists() or (bool(anchor) and anchor not in anchors(target.read_text()))


def unknown_pages(text: str) -> set[str]:
    """Returns the pages that a text names and that are nowhere in the project."""
    return set(re.findall(r"\b[\w-]+\.md\b", text)) - {page.name for page in PAGES}


def unknown_modules(text: str) -> set[str]:
    """Returns the modules that a text names, with or without their room, and that are nowhere."""
    present = "".join(f"{path}\n" for path in FILES)
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    return {name for name in named if f"/{name}\n" not in present}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert dead_links(page, page.read_text()) == []


@pytest.mark.parametrize("link", ["nowhere.md", "README.md#no-such-heading", "#neither"])
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert dead_links(ROOT / "README.md", f"[see]({link})") == [link]


def test_every_page_that_the_project_names_exists() -> None:
    named = {path: unknown_pages(path.read_text()) for path in FILES if path != Path(__file__)}

    assert {str(path.relative_to(ROOT)): names for path, names in named.items() if names} == {}


def test_a_page_that_does_not_exist_is_found() -> None:
    assert unknown_pages("see pleo.md and nowhere.md") == {"nowhere.md"}


def test_every_module_that_the_architecture_names_exists() -> None:
    assert unknown_modules(ARCHITECTURE) == set()


def test_a_module_that_does_not_exist_is_found() -> None:
    text = "see `grant.py`, `rpc/grant.py` and `domain/nowhere.py`"

    assert unknown_modules(text) == {"rpc/grant.py", "domain/nowhere.py"}


def test_every_room_is_on_the_map() -> None:
    rows = ARCHITECTURE.partition("## The rooms")[2].partition("## The laws")[0]
    shown = set(re.findall(r"`([\w]+)/`", "".join(re.findall(r"^\|([^|]+)\|", rows, re.MULTILINE))))

    assert shown >= {path.parent.name for path in FILES if path.match("broker/*/__init__.py")}
