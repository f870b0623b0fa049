"""How many images are normalised together: those of one rank in one pass, whose statistics a BatchNorm takes.

The paper trains on 16 GPUs with 1024 images a step, so 64 are normalised together. Another number is another experiment
where the network has BatchNorm, on however few or many GPUs the batch is computed.
"""

from collections.abc import Iterable, Mapping

from adarem.run.catalog import DATA_SETS, NETWORKS
from adarem.run.config import RunConfig
from adarem.run.records import count
from adarem.run.text_models import LstmConfig

MICRO_BATCH = "scale.micro_batch_size"


def normalised_together(config: RunConfig) -> int | None:
    """Images that a BatchNorm sees at once, on as many ranks as the config says.

    None for a network that has none, or that the catalog does not know: the record of a run says it then.
    """
    known = NETWORKS.get(config.model.name)
    if known is None or not known.batch_norm:
        return None
    return config.scale.images_per_pass(config.cluster.world_size)


def recorded_numbers(config: RunConfig, epochs: Iterable[Mapping[str, object]]) -> list[int]:
    """Images normalised together in each epoch that was recorded, as often as they changed.

    Args:
        epochs: the lines of metrics.jsonl. Those of before say the number of ranks alone.
    """
    found: list[int] = []
    for record in epochs:
        if record.get("split") != "train":
            continue
        images, ranks = count(record, "batch_norm_images"), count(record, "world_size")
        if images is None and ranks is not None and ranks > 0 and normalised_together(config) is not None:
            images = config.scale.images_per_pass(ranks)
        if images is not None and found[-1:] != [images]:
            found.append(images)
    return found


def papers_number(config: RunConfig) -> int | None:
    """The paper's number for the run's data and global batch; None where it has none."""
    known = DATA_SETS.get(config.data.name)
    paper = known.paper_scale if known is not None else None
    return paper.normalised_together if paper and paper.global_batch_size == config.scale.global_batch_size else None


def micro_batch_counts(config: RunConfig) -> bool:
    """Whether ``scale.micro_batch_size`` makes a run another one.

    False where it is not set; for the AWD-LSTM, whose columns know nothing of each other; and where it normalises as
    many images together as the paper does, or the ranks of a rehearsal (two, each with 32 of 64 digits).
    """
    if config.scale.micro_batch_size is None or isinstance(config.model, LstmConfig):
        return False
    found, known = normalised_together(config), DATA_SETS.get(config.data.name)
    of_ranks = known.normalised_on_ranks.get(config.scale.global_batch_size) if known is not None else None
    return found is None or found not in (papers_number(config), of_ranks)


def batch_norm_text(images: object) -> str:
    """In words, as labels and tables print it."""
    return f"BatchNorm over {images} images"
