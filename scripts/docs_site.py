"""mkdocs' hook: what the site shows besides docs/.

README.md is the first page. A file of the repository that a page links to (`../configs/run.yaml`) becomes a page of its
own under `repository/`, so that the links work on the site as they do in a checkout.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[#)])")  # the path of a relative link
AS_THEY_ARE = (".md", ".png", ".svg")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sbatch": "bash", ".sh": "bash", ".cpp": "cpp"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that docs/ does not hold: those of PAGES, and every file that some page links to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(PAGES)
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(site_path(path)) is None:
            files.append(generated(path, config))
        if path.endswith(".md"):
            linked = {target_of(link, path) for link in LINK.findall((ROOT / path).read_text(encoding="utf-8"))}
            found = sorted(p for p in linked - seen if (ROOT / p).is_file())
            waiting += found
            seen |= set(found)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links within the repository into links within the site."""
    here = page.file.src_uri
    path = repository_path(here)

    def moved(link: re.Match[str]) -> str:
        target = site_path(target_of(link[0], path))
        if files.get_file_from_path(target) is None:
            return link[0]  # mkdocs says what is wrong with it
        return posixpath.relpath(target, posixpath.dirname(here))

    return LINK.sub(moved, markdown) if path.endswith(".md") else markdown


def target_of(link: str, page: str) -> str:
    """The path in the repository that a relative link on ``page`` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if path.endswith(AS_THEY_ARE) else f"repository/{path}.md"


def repository_path(page: str) -> str:
    """The file of the repository that a page of the site shows: the inverse of ``site_path``."""
    if page.startswith("repository/"):
        path = page.removeprefix("repository/")
        return path if (ROOT / path).is_file() else path.removesuffix(".md")
    return {there: path for path, there in PAGES.items()}.get(page, f"docs/{page}")


def generated(path: str, config: MkDocsConfig) -> File:
    if path.endswith(AS_THEY_ARE):
        return File.generated(config, site_path(path), abs_src_path=str(ROOT / path))
    language = LANGUAGES.get(Path(path).suffix, "text")
    content = f"# {path}\n\n`````{language}\n{(ROOT / path).read_text(encoding='utf-8')}`````\n"
    return File.generated(config, site_path(path), content=content)
