"""The sdist and the wheel, built and checked; and the wheel away from a checkout, with and without its extras."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from adarem.dependencies import requirements
from adarem.run import exitcodes
from tests.support import ROOT
from tests.support.blocks import blocks, run
from tests.support.venvs import Venv, clean_environment, make_venv

pytestmark = pytest.mark.slow

# What the package holds of the repository beside src/adarem.
SHIPPED = {
    str(path.relative_to(ROOT))
    for pattern in ("configs/**/*.yaml", "slurm/*.sbatch", "results/paper/*")
    for path in ROOT.glob(pattern)
}
INSTALL = "run `pip install 'adarem[harness]'`\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, and of nothing that an earlier one left behind."""
    place = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for folder in ("src", "configs", "slurm", "results/paper"):
        shutil.copytree(ROOT / folder, place / folder, ignore=ignored)
    for file in (p for p in ROOT.iterdir() if p.is_file()):
        shutil.copy(file, place)
    return place


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Package would be ignored" not in done.stdout + done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def with_extras(place: Path, wheel: Path, *extras: str) -> Venv:
    """A virtual environment with the wheel and its extras, and nothing else."""
    wanted = [r.package + r.versions for r in requirements() if r.extra in (None, *extras)]
    venv = make_venv(place, wanted)
    venv.install(f"{wheel}[{','.join(extras)}]" if extras else str(wheel))
    return venv


@pytest.fixture(scope="module")
def torch_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return with_extras(tmp_path_factory.mktemp("torch alone"), wheel)


@pytest.fixture(scope="module")
def harness(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return with_extras(tmp_path_factory.mktemp("harness"), wheel, "harness")


@pytest.fixture(scope="module")
def ffcv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return with_extras(tmp_path_factory.mktemp("ffcv"), wheel, "harness", "ffcv")


def test_both_hold_the_configs_scripts_and_numbers(built: Path, wheel: Path) -> None:
    in_wheel = zipfile.ZipFile(wheel).namelist()
    shipped = {n.removeprefix("adarem/shipped/") for n in in_wheel if n.startswith("adarem/shipped/")}
    assert shipped == SHIPPED and len(SHIPPED) > 40
    source = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src" / "adarem").rglob("*") if p.is_file()}
    assert {n for n in source if "__pycache__" not in n} <= set(in_wheel)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert in_sdist >= SHIPPED and not any(name.startswith("tests") for name in in_sdist)


def test_twine_finds_nothing_wrong(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


WHERE = """
from pathlib import Path
from adarem.resources import config_dirs, paper_file, slurm_script
print(*config_dirs(), slurm_script("run.sbatch").parent, paper_file("table2.csv", Path("results")).parent)
"""


def test_an_editable_install_reads_the_checkout(source: Path, tmp_path: Path) -> None:
    """A copy in src/ would hide what is edited at the top."""
    venv = make_venv(tmp_path, ["torch", "setuptools"])
    venv.install("--no-build-isolation", "--editable", str(source))
    done = venv.run("python", "-c", WHERE)
    assert done.stdout.split() == [str(source / name) for name in ("configs", "slurm", "results/paper")], done.stderr
    assert not (source / "src" / "adarem" / "shipped").exists()


OPTIMIZER = """
import adarem, torch
from adarem import AdaRem
weight = torch.nn.Parameter(torch.ones(3))
optimizer = AdaRem([weight], lr=0.1)
weight.sum().backward()
optimizer.step()
print(dir(adarem), weight.tolist(), adarem.__file__)
"""


def test_the_optimizers_with_torch_alone(torch_alone: Venv) -> None:
    done = torch_alone.run("python", "-c", OPTIMIZER)
    assert done.returncode == 0, done.stderr
    assert "'AdaRem', 'AdaRemS'" in done.stdout and str(torch_alone.site_packages) in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "data=digits"), ("launch", "data=digits"), ("prepare", "data=digits"), ("status",), ("report",),
        ("train", "runs/x"), ("compare", "a", "b"), ("wandb", "replay", "runs/x"), ("wandb", "publish", "runs/x"),
        ("wandb", "workspace", "runs/x"), ("wandb", "report", "runs/x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_verb_with_torch_alone_says_what_to_install(torch_alone: Venv, words: tuple[str, ...]) -> None:
    done = torch_alone.run("adarem", *words)
    assert (done.returncode, done.stdout) == (exitcodes.USER_ERROR, ""), done.stderr
    assert done.stderr.startswith(f"adarem {words[0]}: ") and done.stderr.endswith(f": not installed; {INSTALL}")
    assert done.stderr.count("\n") == 1
    assert not list(torch_alone.folder.iterdir())


def test_the_doctor_with_torch_alone(torch_alone: Venv) -> None:
    done = torch_alone.run("adarem", "doctor", "data=digits")
    assert done.returncode == exitcodes.FAILED and done.stderr == ""
    assert done.stdout.startswith("✗ config ") and "torchvision not installed" in done.stdout
    assert "fix: pip install 'adarem[harness,ffcv]'" in done.stdout
    assert "✓ torch " in done.stdout and "✓ gloo " in done.stdout and "Traceback" not in done.stdout


def test_the_doctor_where_a_package_is_broken(wheel: Path, tmp_path: Path) -> None:
    venv = with_extras(tmp_path, wheel, "harness")
    (venv.site_packages / "yaml").unlink()
    (venv.site_packages / "yaml").mkdir()
    (venv.site_packages / "yaml" / "__init__.py").write_text("raise RuntimeError('built for another machine')")
    broken = "cannot be imported (RuntimeError: built for another machine)"
    done = venv.run("adarem", "doctor")
    assert done.returncode == exitcodes.FAILED and done.stderr == ""
    assert f"✗ yaml           {broken}" in done.stdout and "✓ disk" in done.stdout
    for words in (("plan", "data=digits"), ("status",), ("report",)):
        done = venv.run("adarem", *words)
        assert done.returncode == exitcodes.USER_ERROR
        fix = "run `pip install --force-reinstall --no-deps pyyaml`"
        assert done.stderr == f"adarem {words[0]}: yaml: {broken}; {fix}\n"


RUN = ("grid=table2", "data=digits", "scale=smoke", "model=shufflenet_v2_0.5", "scale.global_batch_size=288")


def test_everything_in_an_empty_folder(ffcv: Venv) -> None:
    """The digits through FFCV, the paper's numbers in the table, and no commit where there is no checkout."""
    doctor = ffcv.run("adarem", "doctor", "data=digits")
    assert doctor.returncode == exitcodes.OK and "✓ ffcv" in doctor.stdout, doctor.stdout + doctor.stderr
    words = (*RUN, "optimizer=adarem", "cluster.ranks_per_node=1")
    plan = ffcv.run("adarem", "plan", *words)
    assert plan.returncode == exitcodes.OK and f"1 new, in {ffcv.folder}/runs/table2-digits-smoke" in plan.stdout
    launch = ffcv.run("adarem", "launch", *words)
    assert launch.returncode == exitcodes.OK, launch.stdout + launch.stderr
    assert "[1/1] shufflenet_v2_0.5-adarem-" in launch.stdout and "-s0: top-1" in launch.stdout
    status = ffcv.run("adarem", "status")
    assert status.returncode == exitcodes.OK and "1 runs: 1 done" in status.stdout
    report = ffcv.run("adarem", "report")
    assert report.returncode == exitcodes.OK, report.stdout + report.stderr
    assert sorted(p.name for p in ffcv.folder.iterdir()) == ["data", "results", "runs"]
    assert (ffcv.folder / "results" / "index.html").is_file()
    claims = (ffcv.folder / "results" / "claims.md").read_text()
    assert "Table 2" in claims
    (run,) = (ffcv.folder / "runs" / "table2-digits-smoke").glob("shufflenet*")
    start = json.loads((run / "attempts.jsonl").read_text().splitlines()[0])
    assert (start["commit"], start["dirty"]) == (None, None) and start["versions"]["adarem"]
    dry = ffcv.run("adarem", "launch", "--dry-run", "data.root=/data", "cluster=slurm")
    assert f"{ffcv.site_packages}/adarem/shipped/slurm/run.sbatch" in dry.stdout, dry.stderr


def test_without_ffcv_nothing_is_begun(harness: Venv) -> None:
    done = harness.run("adarem", "launch", *RUN, "optimizer=adarem")
    line = "data.backend=ffcv: ffcv is not installed; run `pip install 'adarem[ffcv]'`, or set data.backend=folder\n"
    assert (done.returncode, done.stderr) == (exitcodes.USER_ERROR, f"adarem launch: {line}")
    assert not list(harness.folder.iterdir())


def test_the_blocks_of_the_page_in_an_empty_folder(harness: Venv, tmp_path: Path) -> None:
    """docs/install.md: with the extra harness alone, as printed, and then `adarem init` next to what they made."""
    path = f"{harness.path / 'bin'}:{os.environ['PATH']}"
    mine = [b for b in blocks("docs/install.md") if b.reason == "tests/test_wheel.py"]
    assert len(mine) == 3
    for block in mine:
        assert (problem := run(block, tmp_path, clean_environment(tmp_path) | {"PATH": path})) is None, problem
    assert {p.name for p in tmp_path.iterdir()} == {"configs", "data", "results", "runs", "slurm"}
    runs = tmp_path / "runs" / "table2-digits-smoke"
    assert len(list(runs.glob("*/config.yaml"))) == 6 and len(list(runs.glob("*/result.json"))) == 1


def test_init_and_files_of_the_users_own(harness: Venv, tmp_path: Path) -> None:
    venv = Venv(harness.path, tmp_path)
    assert venv.run("adarem", "init").returncode == exitcodes.OK
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        name for name in SHIPPED if not name.startswith("results")
    }
    again = venv.run("adarem", "init")
    assert again.returncode == exitcodes.USER_ERROR and again.stderr.count("\n") == 1
    shutil.rmtree(tmp_path / "slurm")
    mine = (tmp_path / "configs" / "optimizer" / "adam.yaml").read_text()
    shutil.rmtree(tmp_path / "configs")
    (tmp_path / "configs" / "optimizer").mkdir(parents=True)
    (tmp_path / "configs" / "optimizer" / "mine.yaml").write_text(mine)
    done = venv.run("adarem", "plan", "--dry-run", "data=digits", "optimizer=mine,adarem")
    assert "resnet18-mine-s0" in done.stdout and "2 runs, 2 new" in done.stdout, done.stderr
