"""``adarem wandb``: copies of runs and reports in Weights & Biases. The only package that imports wandb.

In: run directories and the report's manifest. Out: wandb runs, tables, workspaces. Imports run and report's manifest.
"""
