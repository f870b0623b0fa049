import json

import pytest

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.frozen_claims import FILE, changed, claims_now, freeze, frozen
from tests.support.sweeps import make_config, write_grid
from tests.support.sweeps import start as start_attempt

CLAIMS = """# a comment
- {id: one, claim: A sentence., margin: 0.5}
- {id: two, claim: Another.}
"""


@pytest.fixture
def claims(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS)
    return path


def test_comments_and_the_order_of_keys_change_no_claim(claims):
    before = claims_now(claims)
    claims.write_text("- {margin: 0.50, claim: A sentence., id: one}\n- claim: Another.\n  id: two\n")
    assert claims_now(claims) == before and claims_now(claims).hash == before.hash


def test_every_change_is_named(claims):
    before = claims_now(claims)
    claims.write_text("- {id: one, claim: A sentence., margin: 0.9}\n- {id: three, claim: New.}\n")
    assert changed(before, claims_now(claims)) == ["one", "two (removed)", "three (new)"]
    assert changed(before, before) == []


def test_claims_are_fixed_once_a_run_has_begun(tmp_path, claims):
    folder = write_grid(tmp_path / "runs")
    config = make_config("resnet18", "sgdm")
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    freeze(folder, claims)
    first = frozen(folder)
    claims.write_text(CLAIMS.replace("0.5", "0.9"))
    freeze(folder, claims)  # planned, and nothing has run: the claims may still be put right
    second = frozen(folder)
    assert changed(first, second) == ["one"]
    start_attempt(run)
    claims.write_text(CLAIMS.replace("0.5", "2.0"))
    freeze(folder, claims)
    assert frozen(folder) == second and changed(second, claims_now(claims)) == ["one"]


def test_a_sweep_that_began_without_hashes_gets_none_later(tmp_path, claims):
    folder = write_grid(tmp_path / "runs")
    config = make_config("resnet18", "sgdm")
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    start_attempt(run)
    freeze(folder, claims)
    assert frozen(folder) is None and not (folder / FILE).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"claims": 3}', '{"claims": {"one": "0"}, "hash": "0"}'])
def test_a_damaged_file_is_no_hash(tmp_path, claims, text):
    (tmp_path / FILE).write_text(text)
    assert frozen(tmp_path) is None
    freeze(tmp_path, claims)
    assert json.loads((tmp_path / FILE).read_text())["claims"].keys() == {"one", "two"}


@pytest.mark.parametrize("text", ["{", "one: 1", "- one"])
def test_no_list_of_claims_is_one_line(claims, text):
    claims.write_text(text)
    with pytest.raises(UserError, match="claims.yaml: holds no list of claims; fix it"):
        claims_now(claims)
