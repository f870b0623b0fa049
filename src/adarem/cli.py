"""The command line. Each verb's modules are imported when it is asked for: none waits for another's libraries."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adarem.dependencies import import_problem
from adarem.run import exitcodes, streams
from adarem.run.errors import RankLost, UserError

_OVERRIDES = "Hydra overrides: grid=table2 data=digits optimizer.weight_decay=5e-4 'seeds=[0,1,2]'"
_WANDB = {
    "replay": "send runs again from their directories: runs without wandb, or sent by an older version",
    "publish": "log the table and figures that `adarem report` wrote, as one run next to the others",
    "workspace": "save a workspace on the server: the paper's figures, live, seeds averaged",
    "report": "save a report on the server: the published table and figures, then the paper's figures, live",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``adarem``; None: those of this process.

    Returns:
        An exit code of ``adarem.run.exitcodes``.
    """
    if argv is None:
        streams.prepare()
    args = _parsed(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except UserError as e:
        if not e.reported:
            _print_problem(args.verb, str(e))
        return exitcodes.FAILED if e.retryable else exitcodes.USER_ERROR
    except RankLost:
        return exitcodes.FAILED
    except BrokenPipeError:  # `adarem plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exitcodes.FAILED
    except OSError as e:
        return _file_system_error(args.verb, e)
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        if (problem := import_problem(e)) is None:
            raise
        _print_problem(args.verb, problem)
        return exitcodes.USER_ERROR
    finally:
        if argv is None and args.verb == "train":
            # This process ends now. Slurm may repeat its warning while the interpreter restores the default handlers,
            # which would kill it and hide its exit code.
            for number in (signal.SIGUSR1, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; settings may come before, between and behind options."""
    parser = _parser()
    args, others = parser.parse_known_args(argv)
    settings: list[str] | None = getattr(args, "overrides", getattr(args, "settings", None))
    unknown = [word for word in others if settings is None or word.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if settings is not None:
        settings += others
    return args


def _print_problem(verb: str, problem: str) -> None:
    """One line; of a job's ranks, one per node prints it: a node may lack what the first one has."""
    first = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
    if verb != "train" or first:
        line = streams.one_line(problem)  # a path may hold a line feed
        print(f"adarem {verb}: {line}", file=sys.stderr)


def _file_system_error(verb: str, error: OSError) -> int:
    """One line for a full, read-only, forbidden or failing file system; any other error is the program's: raised."""
    from adarem.run.files import TRANSIENT

    refused = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENAMETOOLONG, errno.EFBIG)
    too_many = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ELOOP)
    if error.errno not in (*refused, *too_many, *TRANSIENT):
        raise error
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    print(f"adarem {verb}: {place}{error.strerror}; fix that, then rerun the command", file=sys.stderr)
    return exitcodes.FAILED if error.errno in TRANSIENT else exitcodes.USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adarem",
        description="Reproduces the AdaRem paper's tables and figures. Start with: launch grid=table2 data=digits",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    verb("init", _init, "copy the configs and Slurm scripts into the current folder, to edit them there")
    doctor = verb("doctor", _doctor, "check what this machine has and needs, with the fix for each failure")
    prepare = verb("prepare", _prepare, "write the FFCV files of a data set, checked, with a fingerprint next to them")
    plan = verb("plan", _plan, "show a grid's runs and make their directories")
    probe = verb("probe", _probe, "measure each network with each optimizer of a grid, for some seconds")
    launch = verb("launch", _launch, "plan a grid, then start every run that is not finished, here or on Slurm")
    status = verb("status", _status, "show the state of every run of a grid")
    train = verb("train", _train, "train one run directory, or continue it (as one rank: torchrun or srun starts them)")
    report = verb("report", _report, "make the tables and figures of all sweeps, or of one grid")
    compare = verb("compare", _compare, "two finished runs next to each other, and image by image with the paired test")
    wandb = verb("wandb", _wandb, "send runs, tables, figures and their layout to Weights & Biases; see docs/wandb.md")

    cores = len(os.sched_getaffinity(0))
    prepare.add_argument("--workers", type=int, default=cores, help="processes (default: all cores)")
    prepare.add_argument("--download", action="store_true", help="let torchvision fetch CIFAR or Fashion-MNIST first")
    prepare.add_argument("--skip-bad", action="store_true", help="leave unreadable images out, and record their names")
    prepare.add_argument("--summary", action="store_true", help="show what is in prepared files; writes contact sheets")
    prepare.add_argument("--verify", action="store_true", help="check existing files byte by byte")
    plan.add_argument("--dry-run", action="store_true", help="show them, write nothing")
    probe.add_argument("--seconds", type=float, default=10.0, help="of training, for each (default: 10)")
    launch.add_argument("--dry-run", action="store_true", help="print the exact commands, start nothing")
    status.add_argument("--json", action="store_true", help="for programs")
    for with_overrides in (doctor, prepare, plan, probe, launch):
        with_overrides.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=_OVERRIDES)
    status.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="grid=table2 data=digits runs_dir=runs")
    report.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="grid=table2 data=digits runs_dir=runs results_dir=results"
    )
    train.add_argument("run_dir", type=_path, metavar="RUN_DIR")
    compare.add_argument("run_a", type=_path, metavar="RUN_A")
    compare.add_argument("run_b", type=_path, metavar="RUN_B")
    _add_wandb_actions(wandb)
    return parser


def _path(word: str) -> Path:
    """An argument that names a place; a shell leaves the ``~`` of ``--results-dir=~/results`` alone."""
    from adarem.run.text import user_path

    try:
        return Path(user_path(word))
    except UserError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _add_wandb_actions(wandb: argparse.ArgumentParser) -> None:
    actions = wandb.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _WANDB.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("folder", type=_path, metavar="FOLDER", help="a sweep's runs, for instance runs/table2")
        if name in ("replay", "publish"):
            action.add_argument("--mode", choices=("online", "offline"), help="default: as the runs' config says")
        else:
            action.add_argument("--entity", help="your wandb user or team; default: wandb.entity of the runs")
        if name in ("publish", "report"):
            action.add_argument("--results-dir", type=_path, default=Path("results"), help="where the report is")


def _settings(pairs: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """``key=value`` words of the verbs that read run directories and do not compose configs.

    Raises:
        UserError: a word without ``=``, or another key than those of ``defaults``.
    """
    from adarem.run.build import nearest
    from adarem.run.text import user_path

    chosen = dict(defaults)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in defaults:
            raise UserError(f"{pair!r}: not a setting of this command; {nearest(key, defaults)}")
        chosen[key] = user_path(value) if key.endswith("_dir") else value
    return chosen


def _init(args: argparse.Namespace) -> int:
    from adarem.plan.init import init

    for made in init(Path.cwd()):
        print(
            f"{made.name}/: copied; what is here counts before what comes with adarem, what is removed comes from there"
        )
    return exitcodes.OK


def _doctor(args: argparse.Namespace) -> int:
    from adarem.doctor import doctor

    if not args.overrides:
        return doctor(None)
    try:
        from adarem.plan.plan import make_plan

        config = make_plan(args.overrides).runs[0].config
    except Exception as e:
        if isinstance(e, UserError) or (problem := import_problem(e)) is None:
            raise
        return doctor(None, uncomposed=problem)
    return doctor(config)


def _prepare(args: argparse.Namespace) -> int:
    from adarem.run.directory import RunDir

    if len(args.overrides) == 1 and RunDir(Path(args.overrides[0])).config_file.is_file():
        data = RunDir(Path(args.overrides[0])).config().data  # the launcher's form: the data that this run will read
    else:
        from adarem.plan.plan import make_plan

        data = make_plan(args.overrides).runs[0].config.data
    if args.download:
        from adarem.data.images.torchvision_sets import download

        download(data)
    if data.kind == "text":
        from adarem.data.text.prepare import prepare_text

        print("\n".join(prepare_text(data)))
        return exitcodes.OK
    if args.summary:
        from adarem.data.summary import summarise

        print(summarise(data))
        return exitcodes.OK
    from adarem.data.prepare import prepare

    made = prepare(data, workers=args.workers, verify=args.verify, skip_bad=args.skip_bad)
    for split, fingerprint in made.items():
        skipped = f", {len(fingerprint['skipped'])} left out" if fingerprint.get("skipped") else ""
        print(
            f"{split}: {fingerprint['num_images']:,} images, {len(fingerprint['classes']):,} classes{skipped}, "
            f"content {fingerprint['content_hash'][:16]}"
        )
    return exitcodes.OK


def _plan(args: argparse.Namespace) -> int:
    from adarem.plan.plan import make_plan

    plan = make_plan(args.overrides)
    if not args.dry_run:
        from adarem.launch.slurm.changes import write_plan

        write_plan(plan)
    print("\n".join([plan.describe(), *plan.price().lines()]))
    return exitcodes.OK


def _probe(args: argparse.Namespace) -> int:
    from adarem.plan.plan import make_plan
    from adarem.probe.probe import probe

    return probe(make_plan(args.overrides, measured=False), seconds=args.seconds)


def _launch(args: argparse.Namespace) -> int:
    from adarem.launch.launch import launch
    from adarem.plan.plan import make_plan

    return launch(make_plan(args.overrides), dry_run=args.dry_run)


def _status(args: argparse.Namespace) -> int:
    from adarem.launch.status import status

    chosen = _settings(args.settings, {"grid": "", "data": "", "runs_dir": "runs"})
    return status(
        runs_dir=Path(chosen["runs_dir"]), grid=chosen["grid"] or None, data=chosen["data"] or None, as_json=args.json
    )


def _train(args: argparse.Namespace) -> int:
    from adarem.run.directory import RunDir

    # A mistake shows at once: torch takes seconds to import, and prints a warning where numpy is missing.
    RunDir(args.run_dir.absolute()).config()
    from adarem.train.train import train

    return train(args.run_dir)


def _report(args: argparse.Namespace) -> int:
    from adarem.report import make_report

    chosen = _settings(
        args.settings, {"grid": "", "data": "", "scale": "", "runs_dir": "runs", "results_dir": "results"}
    )
    report = make_report(
        grid=chosen["grid"] or None,
        runs_dir=Path(chosen["runs_dir"]),
        results_dir=Path(chosen["results_dir"]),
        data=chosen["data"] or None,
        scale=chosen["scale"] or None,
    )
    print(report.text)
    return exitcodes.USER_ERROR if report.failed else exitcodes.OK


def _compare(args: argparse.Namespace) -> int:
    from adarem.report.compare import compare

    print(compare(args.run_a, args.run_b))
    return exitcodes.OK


def _wandb(args: argparse.Namespace) -> int:
    sweep = Path(os.path.abspath(args.folder))  # "." has no name, and every wandb run holds the sweep's
    match args.action:
        case "replay":
            return _replay(sweep, args)
        case "publish":
            from adarem.tracking.publish import publish

            publish(sweep, args.results_dir, args.mode)
            print(f"{args.folder}: table and figures published")
        case "workspace":
            from adarem.tracking.workspace import save_workspace

            print(save_workspace(sweep, args.entity))
        case "report":
            from adarem.tracking.workspace import save_report

            print(save_report(sweep, args.entity, args.results_dir))
    return exitcodes.OK


def _replay(sweep: Path, args: argparse.Namespace) -> int:
    from adarem.tracking.replay import replay

    replayed = replay(sweep, args.mode)
    for problem in replayed.problems:
        print(f"adarem wandb: not sent: {problem}", file=sys.stderr)
    failures = f", {len(replayed.problems)} not" if replayed.problems else ""
    print(f"{args.folder}: {replayed.sent} runs sent{failures}")
    return exitcodes.USER_ERROR if replayed.problems else exitcodes.OK
