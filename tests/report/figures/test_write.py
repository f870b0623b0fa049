"""Which figures a sweep has, their titles and captions."""

import os
import subprocess
import sys

from adarem.report.figures.write import draw_figures, figure_names, write_figures
from adarem.report.make import load_table
from tests.support.figures import texts
from tests.support.sweeps import finish, make_config, write_grid


def test_figure5_shows_the_papers_networks_and_a_second_the_others(dirs):
    folder = write_grid(dirs[0], "table1", "digits", "rehearsal")
    for model in ("resnet50", "shufflenet_v2_0.5"):
        finish(folder, make_config(model, "sgdm", grid="table1", data="digits"), 95.0)
    t = load_table(folder, dirs[1])
    assert figure_names(t) == ["figure5", "figure5-others", "table1-time", "table1-time-others"]
    papers, others, *_ = (named.figure for named in draw_figures(t))
    heads = [[ax.get_title() for ax in fig.axes[::3]] for fig in (papers, others)]
    assert heads[0] == [f"{m}: Train loss" for m in ("ResNet-18", "ResNet-50", "MobileNetV2-1.0")]
    assert heads[1] == [f"{m}: Train loss" for m in ("MobileNetV2-0.5", "ShuffleNetV2-1.0", "ShuffleNetV2-0.5")]
    assert "ShuffleNetV2-0.5 are in a second figure" in " ".join(texts(papers))
    assert "does not show" in " ".join(texts(others)) and "Figure 5, the other networks." in " ".join(texts(others))
    written = {p.name for p in write_figures(t, dirs[1])}
    assert written == {f"{name}.{ending}" for name in figure_names(t) for ending in ("png", "svg")}


def test_a_time_figure_says_what_wall_time_compares(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.0)
    by_epoch, time = (named.figure for named in draw_figures(load_table(folder, dirs[1])))
    caveat = "compare only runs that had machines of one kind to themselves"
    assert caveat in " ".join(texts(time)) and caveat not in " ".join(texts(by_epoch))


def test_the_lambda_grid_is_called_by_words(dirs):
    folder = write_grid(dirs[0], "lambda", "digits", "rehearsal")
    finish(folder, make_config("resnet18", "adarem", grid="lambda", data="digits"), 95.0)
    t = load_table(folder, dirs[1])
    assert t.title.startswith("REHEARSAL of Section 4.1.1: how often λ is multiplied. Test accuracy of ResNet-18")
    for fig in (named.figure for named in draw_figures(t)):
        assert fig.texts[0].get_text().startswith("REHEARSAL of Section 4.1.1: how often λ is multiplied. T")


def test_a_users_look_of_figures_changes_no_byte(dirs, tmp_path):
    import matplotlib

    folder = write_grid(dirs[0], seeds=[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.0)
    table = load_table(folder, dirs[1])
    before = {p.name: p.read_bytes() for p in write_figures(table, tmp_path / "default")}
    own = {"font.size": 30.0, "figure.facecolor": "black", "savefig.dpi": 20.0, "lines.linewidth": 9.0}
    with matplotlib.rc_context(own):
        after = {p.name: p.read_bytes() for p in write_figures(table, tmp_path / "own")}
        assert {k: matplotlib.rcParams[k] for k in own} == own  # the session keeps its look
    assert after == before


def test_a_users_files_of_matplotlib_do_not_count(tmp_path):
    """A backend that does not exist ends the import of matplotlib."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\n")
    program = (
        "import os; from adarem.report.figures.style import own_look\n"
        "with own_look(): import matplotlib; print(matplotlib.rcParams['font.size'], os.environ['MPLBACKEND'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "MPLBACKEND": "no-such-backend"})  # fmt: skip
    assert (done.stdout, done.stderr) == ("10.0 no-such-backend\n", "")
