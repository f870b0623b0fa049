"""``adarem wandb replay``: sends runs to wandb again, from their directories alone."""

from dataclasses import dataclass
from pathlib import Path

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.tracking.connection import Mode, own_environment, refusal, sending_mode
from adarem.tracking.sync import sync


@dataclass(frozen=True)
class Replayed:
    """What came of a sweep's runs."""

    sent: int
    problems: tuple[str, ...]  # a line for each run that could not be sent


@own_environment()
def replay(sweep: Path, mode: Mode | None) -> Replayed:
    """Builds a wandb run from every run directory of a sweep that has finished an epoch.

    An online run that exists already is continued, under the same id; an offline one is written anew.

    Raises:
        UserError: no run there has finished an epoch, or wandb itself refuses.
    """
    directories = sorted(p for p in sweep.iterdir() if p.is_dir()) if sweep.is_dir() else []
    begun = [run for run in map(RunDir, directories) if run.metrics_file.is_file() and run.metrics()]
    if not begun:
        raise UserError(f"{sweep}: no run there has finished an epoch, so there is nothing to send")
    import wandb

    problems = []
    for run in begun:
        try:
            config = run.config()
        except UserError as e:
            problems.append(str(e))
            continue
        chosen = sending_mode(config, mode)
        try:
            sync(run, follow=False, mode=chosen)
        except wandb.errors.Error as e:
            raise refusal(e) from None
        except UserError as e:
            problems.append(str(e))
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as e:
            problems.append(f"{run.path}: damaged ({type(e).__name__}: {e})")
    wandb.teardown()  # writes the last offline run's end
    return Replayed(len(begun) - len(problems), tuple(problems))
