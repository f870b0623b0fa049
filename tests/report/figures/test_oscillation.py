"""Figure 1: which runs and parameters it shows, and its titles. Figures 1 and 2 of a report: ../test_make.py."""

from adarem.report.figures import oscillation
from adarem.report.make import load_table
from tests.support.figures import texts, titles_fit
from tests.support.sweeps import finish, make_config, write_grid


def test_figure_1_shows_every_optimizer_under_one_seed(dirs):
    """Which parameters are watched depends on the seed, so another seed would be another parameter."""
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal", seeds=[0, 1])
    runs = {}
    for optimizer in ("sgd", "adarem"):
        for seed in (0, 1):
            config = make_config("resnet18", optimizer, seed, grid="figure2", data="digits")
            run = runs[optimizer, seed] = finish(folder, config, 95.0)
            ways = [{"parameter": f"w[{seed}]", "from_step": 0, "values": [0.0, 1.0, 3.0]}]
            if (optimizer, seed) != ("sgd", 0):  # which was not tracked
                run.append_oscillation({"epoch": 1, "step": 23, "q_mean": 50.0, "trajectories": ways})
    fig = oscillation.over_training(load_table(folder, dirs[1]), "Figure 1")
    assert [ax.get_title().split("\n")[0] for ax in fig.axes] == ["SGD, from iteration 0", "AdaRem, from iteration 0"]
    assert any("Figure 1 (w[1])" in t for t in texts(fig))
    runs["adarem", 1].oscillation_file.unlink()  # no seed in common
    fig = oscillation.over_training(load_table(folder, dirs[1]), "Figure 1")
    heads = [ax.get_title().split("\n")[0] for ax in fig.axes]
    assert heads == ["SGD, seed 1, w[1], from iteration 0", "AdaRem, seed 0, w[0], from iteration 0"]
    assert not any("(w[" in t for t in texts(fig))


def test_titles_of_figure_1_stay_over_their_panels(dirs):
    """Four watched parameters with long names next to each other."""
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal")
    for optimizer in ("sgdm", "adarem"):
        run = finish(folder, make_config("resnet18", optimizer, grid="figure2", data="digits"), 95.0)
        ways = [
            {
                "parameter": f"layer{k}.1.conv2.weight[323, 251, 1, 1]",
                "from_step": at,
                "values": [0.0, 3.2e-4, -1.234e-5],
            }
            for k in range(4)
            for at in (0, 73, 147)
        ]
        run.append_oscillation({"epoch": 1, "step": 23, "q_mean": 50.0, "trajectories": ways})
    t = load_table(folder, dirs[1])
    assert titles_fit(oscillation.by_parameter(t, "")) and titles_fit(oscillation.over_training(t, ""))
