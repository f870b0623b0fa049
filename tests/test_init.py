"""The package's front door: what it loads, and what a type checker sees."""

import subprocess
import sys
from pathlib import Path

import pytest

import adarem
from tests.support import ROOT


def test_optimizers_alone_need_torch_alone():
    code = (
        "import sys; from adarem import AdaRem, AdaRemS; import adarem.optim\n"
        "bad = {'hydra', 'wandb', 'ffcv', 'timm', 'torchvision', 'pytorch_optimizer', 'pandas', 'triton'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_dir_lists_the_public_names() -> None:
    assert {"AdaRem", "AdaRemS", "__version__"} <= set(dir(adarem)) and "TYPE_CHECKING" not in dir(adarem)
    assert all(hasattr(adarem, name) for name in dir(adarem))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'adarem' has no attribute 'AdaRm'"):
        adarem.AdaRm  # noqa: B018


USER = """
import torch
from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups

model = torch.nn.Linear(2, 2)
optimizer = AdaRem(model.parameters(), lr=0.4, decay_every=10, scope="model", fused=True)
nothing: None = optimizer.step()
loss: float = optimizer.step(lambda: 1.0)
sphere = AdaRemS(param_groups(model, torch.zeros(1, 2)), lr=torch.tensor(0.4), radius=2.0, sphere="tensor")
optimizers: list[torch.optim.Optimizer] = [optimizer, sphere]
"""
MISTAKES = {
    "AdaRem(model.parameters(), lrr=3)": 'Unexpected keyword argument "lrr" for "AdaRem"',
    "AdaRemS(model.parameters(), radius='3')": 'Argument "radius" to "AdaRemS" has incompatible type "str"',
    "import adarem; adarem.AdaRm": 'Module has no attribute "AdaRm"',
}


@pytest.mark.slow
def test_a_type_checker_sees_the_users_mistakes_and_nothing_else(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(USER + "\n".join(MISTAKES) + "\n")
    # With the settings and the cache of `make lint`, after which this takes seconds.
    command = [sys.executable, "-m", "mypy", "--config-file=pyproject.toml", str(user)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(MISTAKES), done.stdout + done.stderr
    first = len(USER.splitlines()) + 1
    for i, (error, message) in enumerate(zip(errors, MISTAKES.values(), strict=True)):
        # The cache may know the same text under the path of an earlier test run.
        assert f"/{user.name}:{first + i}: error: " in error and message in error
