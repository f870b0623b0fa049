"""``adarem probe``: measures each network with each optimizer of a grid, by the training that a run does.

In: a plan, prepared data. Out: entries of ``runs/probe.json``. Imports run, data, plan, launch and train; torch only in
the ranks' own program.
"""
