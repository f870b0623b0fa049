"""The paper's names for every cell: planned and not begun, done, added by hand, left over from another plan."""

from adarem.plan.plan import make_plan
from adarem.report.figures.curves import curves
from adarem.report.figures.panels import TEST_ERROR, TRAIN_LOSS
from adarem.report.load import load_sweep
from adarem.report.page import page as html
from adarem.report.tables import render as tables
from adarem.report.tables.table import build, read_paper
from tests.support.sweeps import finish, make_config


def planned(dirs, *overrides):
    plan = make_plan(["data=digits", f"runs_dir={dirs[0]}", *overrides])
    plan.write()
    return plan


def table(folder, dirs):
    sweep = load_sweep(folder)
    return build(sweep, read_paper(sweep.spec, dirs[1]))


def test_cells_without_a_run_have_the_papers_names(dirs):
    plan = planned(dirs, "grid=table1")
    for cell in plan.runs:  # one run is left: eleven cells are known from grid.yaml alone
        if cell.config.run_name != "resnet18-sgdm-s0":
            cell.run.config_file.unlink()
            cell.run.path.rmdir()
    md = tables.markdown(table(plan.folder, dirs))
    for name in ("ResNet-50", "MobileNetV2-0.5", "ShuffleNetV2-1.0", "AdaRem-S", "SGDM"):
        assert name in md
    head = md.split("## Planned, and not there")[0]  # where directories are listed by their names
    assert len(head) < len(md)
    assert not any(name in head for name in ("resnet50", "mobilenet_v2", "shufflenet_v2", "adarem_s", "sgdm"))


def test_cells_off_the_plan_have_them_too(dirs):
    plan = planned(dirs, "optimizer=rmsprop")
    for config in (
        make_config("mobilenet_v2_0.5", "adarem_s", data="digits"),
        make_config("resnet18", "adarem", data="digits", overrides={"optimizer.lam": 0.9, "train.eval_every": 2}),
    ):
        finish(plan.folder, config, 95.0)
    t = table(plan.folder, dirs)
    assert [t.labels.optimizer(o) for o in t.columns] == ["RMSprop", "AdaRem", "AdaRem-S"]
    rows = [t.row_label(r) for r in t.rows]
    assert "MobileNetV2-0.5 Top-1" in rows and "ResNet-18 Top-1 (λ 0.9, eval every 2)" in rows
    assert "- ResNet-18, AdaRem (λ 0.9, eval every 2): table2-digits/resnet18-adarem-" in tables.markdown(t)
    assert "(λ 0.9, eval every 2)" in html.render(t, [])
    drawn = curves(t, [TRAIN_LOSS, TEST_ERROR], "")
    labels = {line.get_label() for ax in drawn.axes for line in ax.get_lines()}
    assert {"AdaRem-S", "AdaRem (λ 0.9, eval every 2)"} <= labels


def test_a_library_network_is_called_what_the_user_called_it(dirs):
    plan = planned(dirs, "model=timm:resnet10t", "optimizer=sgdm")
    assert plan.spec.labels.model["timm:resnet10t"] == "timm:resnet10t"
