"""Licence, citation and changelog, and that the package's metadata agree with them."""

import hashlib
import re
import tomllib

import yaml

import adarem
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_license_is_apache_2_word_for_word() -> None:
    """But for the line of the appendix that is there to be filled in."""
    text = (ROOT / "LICENSE").read_text()
    holder = "   Copyright 2026 The adarem authors\n"
    assert text.count(holder) == 1
    original = text.replace(holder, "   Copyright [yyyy] [name of copyright owner]\n")
    assert hashlib.sha256(original.encode()).hexdigest().startswith("cfc7749b96f63bd31c3c42b5c471bf75")


def test_metadata_name_the_license_and_the_authors() -> None:
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert PROJECT["authors"] == CITATION["authors"] == [{"name": "The adarem authors"}]
    assert not any(c.startswith("License ::") for c in PROJECT["classifiers"])  # refused next to `license`


def test_citation_has_what_its_format_requires() -> None:
    """The keys that the Citation File Format 1.2.0 requires, and of the file no unknown one."""
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    known = {"abstract", "authors", "cff-version", "keywords", "license", "message", "references", "title", "type"}
    assert CITATION.keys() <= known | {"version"}
    assert CITATION["type"] == "software"
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all(person.keys() == {"family-names", "given-names"} for person in reference["authors"])
        assert isinstance(reference["year"], int)


def test_citation_names_this_software_and_the_paper() -> None:
    assert CITATION["title"].startswith("adarem")
    assert str(CITATION["version"]) == adarem.__version__
    (paper,) = CITATION["references"]
    assert paper["title"].lower() == "adaptive gradient method with resilience and momentum"


def test_changelog_has_this_version_and_the_rule() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(adarem.__version__)}\b", text, re.MULTILINE)
    for public in ("adarem.__all__", "command line", "config keys", "run directory"):
        assert public in text.split("\n## ")[0] + text.split("\n## ")[1], public
