"""``adarem wandb``: copies of run directories and reports in Weights & Biases. The only place that imports wandb.

In: run directories and the report's manifest. Out: wandb runs, tables, workspaces.
"""
