"""What a run reads or reports to: is the data set prepared, and is there a key for Weights & Biases?"""

from pathlib import Path

from adarem.doctor.check import Check
from adarem.run.config import DataConfig, RunConfig, TextConfig
from adarem.run.credentials import has_wandb_key
from adarem.run.errors import UserError


def wandb(config: RunConfig | None) -> Check:
    """Whether runs can be uploaded, where the config wants them to be."""
    mode = config.wandb.mode if config else "auto"
    if mode == "disabled":
        return Check("wandb", True, "switched off by the config")
    if has_wandb_key():
        return Check(
            "wandb", True, "there is a key, runs stay offline by the config" if mode == "offline" else "there is a key"
        )
    fix = "wandb login, where runs shall be uploaded; offline ones are read with wandb leet"
    return Check("wandb", False if mode == "online" else None, "no key: runs are recorded offline", fix)


def dataset(data: DataConfig | TextConfig) -> Check:
    """Whether the data set is prepared, or can be."""
    from adarem.data import check_prepared, fingerprint  # needs numpy
    from adarem.data.text.corpus import read_corpus

    try:
        check_prepared(data)
    except UserError as problem:
        return _unprepared(data, str(problem))
    if isinstance(data, TextConfig):
        tokens = read_corpus(data).fingerprint["train"]["num_tokens"]
        return Check("data", True, f"{data.label}: {tokens:,} tokens for training")
    counts = [fingerprint.read_fingerprint(data, split)["num_images"] for split in fingerprint.splits_read(data)]
    return Check("data", True, f"{data.label}: {' + '.join(f'{n:,}' for n in counts)} images, prepared")


def _unprepared(data: DataConfig | TextConfig, problem: str) -> Check:
    if data.embedded:
        return Check("data", True, f"{data.label}, made by `adarem launch`")
    if isinstance(data, TextConfig):
        return Check("data", False, problem, f"data.root=... with the files of {data.label}")
    from adarem.data import fingerprint
    from adarem.data.images.imagenet import archives
    from adarem.data.images.junk import is_junk
    from adarem.data.images.open_source import folder_name
    from adarem.data.images.torchvision_sets import files_are_there

    if data.source != "folder":
        if files_are_there(data):
            return Check("data", True, f"{data.root} is there; `adarem launch` prepares it first")
        command = f"adarem prepare data={data.name} data.root=... --download"
        return Check("data", False, f"{data.root}: has no files of {data.label}", command)
    for split in () if data.listing else fingerprint.SPLITS:  # plan has just looked where it made a listing
        folder = Path(data.root) / folder_name(data, split)
        inside = list(folder.iterdir()) if folder.is_dir() else []
        classes = sum(p.is_dir() and not is_junk(p.name, folder=True) for p in inside)
        packed = archives(Path(data.root), split) or [p for p in inside if not p.is_dir()]
        if classes == 0 and packed:  # `prepare` reads it, and says what is missing
            continue
        if classes != data.num_classes:
            found_here = f"{classes} class folders" if folder.is_dir() else "no such folder"
            fix = f"data.root=... with train/<class>/* and val/<class>/* of {data.num_classes} classes"
            return Check("data", False, f"{folder}: {found_here}", fix)
    if not any((Path(data.beton_dir) / f"{s}.beton").exists() for s in fingerprint.SPLITS):
        return Check("data", True, f"{data.root} is there; `adarem launch` writes the .beton files first")
    return Check("data", False, problem, "adarem prepare, with the same settings")
