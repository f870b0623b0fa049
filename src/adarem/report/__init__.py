"""Results plane: run directories to tables and figures."""
