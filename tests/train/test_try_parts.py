"""The child process of `adarem plan`: its questions and answers."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from adarem.run.config import to_dict
from adarem.train.try_parts import main
from tests.support.optimizers import write_module
from tests.support.sweeps import make_config


def test_a_line_of_json_in_and_one_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where imported code prints."""
    (tmp_path / "prints_at_once.py").write_text("import torch\nprint('hello')\nOwn = torch.optim.SGD\n")
    write_module(tmp_path, "own_to_ask")
    monkeypatch.syspath_prepend(str(tmp_path))
    flat = to_dict(make_config("resnet18", "sgdm", data="digits"))
    flat["optimizer"] = {"name": "own_to_ask:Flat", "label": "Mine", "lr": 0.01, "weight_decay": 0.0}
    asked = [{"describe": "prints_at_once:Own"}, {"try": flat}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in asked)))
    saved, (reader, writer) = os.dup(1), os.pipe()
    try:
        os.dup2(writer, 1)
        main()
    finally:
        os.dup2(saved, 1)
        os.close(writer)
    with os.fdopen(reader) as answers:
        first, second = map(json.loads, answers)
    assert "momentum" in first["names"] and second["error"].startswith("optimizer=own_to_ask:Flat: takes")
