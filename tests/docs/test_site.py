"""The site of docs/: it builds strictly, shows what it should, and loads nothing from elsewhere."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import copy_checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("a checkout"))


def build(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "docs-build"], cwd=checkout, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def site(checkout: Path) -> Path:
    done = build(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout / "build" / "site"


def test_every_page_is_there(site: Path, checkout: Path) -> None:
    pages = [p.stem for p in (checkout / "docs").glob("*.md")]
    assert pages and all((site / page / "index.html").is_file() for page in pages)
    assert "AdaRem" in (site / "index.html").read_text()  # README.md


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?([^\" >]+)", page.read_text())
        assert tags and not [t for t in tags if t.startswith(("http:", "https:", "//"))], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text()), sheet


def test_the_public_names_are_in_the_api_reference(site: Path) -> None:
    import adarem.optim

    page = (site / "api" / "index.html").read_text()
    for name in adarem.optim.__all__:
        assert f'id="adarem.optim.{name}"' in page, name


def test_every_setting_is_on_the_page_of_settings(site: Path) -> None:
    page = (site / "configuration" / "index.html").read_text()
    for key in ("data.write.max_side", "model.dropout.words", "optimizer.lam", "cluster.stall_seconds", "wandb.entity"):
        assert f"<code>{key}</code>" in page, key
    assert "<code>1</code> (slurm_one)" in page and "<code>8</code> (slurm)" in page  # cluster.ranks_per_node


def test_files_of_the_repository_that_pages_link_to_are_pages(site: Path) -> None:
    page = (site / "repository" / "src" / "adarem" / "optim" / "reference.py" / "index.html").read_text()
    assert "step_parameter" in page


def test_broken_links_fail_and_are_named(checkout: Path, site: Path) -> None:
    page = checkout / "docs" / "data.md"
    page.write_text(page.read_text() + "\n[a](no-page.md) [b](cluster.md#no-heading) [c](../src/adarem/nowhere.py)\n")
    done = build(checkout)
    assert done.returncode != 0
    for name in ("no-page.md", "no-heading", "nowhere.py"):
        assert name in done.stderr, name
