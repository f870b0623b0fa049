"""Every module of src has a test file of its name, or a line here that says where it is tested."""

from tests.support import ROOT

SRC, TESTS = ROOT / "src" / "adarem", ROOT / "tests"

# Module without a test file of its name: the file that tests it.
ELSEWHERE = {
    "launch/commands.py": "launch/test_local.py",
    "launch/preparation.py": "launch/slurm/test_submit.py",
    "mirror.py": "test_shims.py",
    "models.py": "test_shims.py",
    "optim/chunks.py": "optim/test_adarem.py",
    "optim/step.py": "optim/test_adarem.py",
    "optim/kernels/triton_kernels.py": "optim/kernels/test_triton.py",
    "optim/kernels/triton_step.py": "optim/kernels/test_triton.py",
    "plan/compose.py": "plan/test_plan.py",
    "probe/rank.py": "probe/test_probe.py",
    "probes.py": "test_shims.py",
    "report/claims/entries.py": "report/claims/test_judge.py",
    "report/figures/settings_tried.py": "report/figures/test_search.py",
    "report/figures/steps.py": "report/test_steps.py",
    "report/run.py": "report/test_load.py",
    "report/tables/latex.py": "report/tables/test_render.py",
    "report/tables/table.py": "report/tables/test_render.py",
    "run/build.py": "run/test_config.py",
    "run/data_config.py": "run/test_config.py",
    "run/exitcodes.py": "test_cli.py",
    "run/labels.py": "tracking/test_naming.py",
    "run/stated.py": "report/tables/test_settings.py",
    "run/trials.py": "run/test_selection.py",
    "slurm.py": "test_shims.py",
    "torchrun.py": "test_shims.py",
    "train/attempt.py": "train/distributed/test_context.py",
    "train/distributed/data_parallel.py": "train/distributed/test_context.py",
    "train/distributed/heartbeat.py": "train/distributed/test_watchdog.py",
    "run/text_models.py": "plan/test_check_network.py",
    "train/tasks/text.py": "train/tasks/test_windows.py",
    "train/seeding.py": "train/test_trainer.py",
    "train/tasks/base.py": "train/tasks/test_image.py",
    "train/models/build.py": "train/test_named_networks.py",
    "train/imported.py": "train/test_named_optimizers.py",
}


def test_every_module_has_a_test_file() -> None:
    modules = {str(p.relative_to(SRC)) for p in SRC.rglob("*.py") if p.name not in ("__init__.py", "__main__.py")}
    own = {m for m in modules if (TESTS / m).with_name(f"test_{(TESTS / m).name}").is_file()}
    assert modules - own == ELSEWHERE.keys(), "a module without a test file, or a line too many in ELSEWHERE"


def test_the_files_named_here_exist() -> None:
    assert all((TESTS / test).is_file() for test in ELSEWHERE.values())
