"""How many training images a planned run holds out: as the user says, and of a search by default."""

from collections.abc import MutableMapping

from adarem.run.errors import UserError

LARGEST, SHARE = 50_000, 0.04  # as many as ImageNet's validation set; the share of smaller sets


def settle(data: object, *, of_search: bool) -> None:
    """Writes ``holdout`` of a composed ``data`` section as a config has it, in place: no key, a number or a share.

    Args:
        data: with what the catalog knows of it.
        of_search: whether its run is of a search, which never opens the images that a table reports.

    Raises:
        UserError: it is no such value, or a search has none.
    """
    if not isinstance(data, MutableMapping) or data.get("kind", "images") != "images":
        return
    given = data.pop("holdout", "auto" if of_search else None)
    if given is None or given in (0, "0") and given is not False:
        if of_search:
            raise UserError(
                f"data.holdout={'null' if given is None else given}: a search selects on held-out training images and "
                "leaves those of the table unread; leave it out, or give a number of images or a share"
            )
        return
    if given == "auto":
        train = data.get("expected_train")
        given = LARGEST if isinstance(train, int) and train * SHARE > LARGEST else SHARE
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise UserError(
            f"data.holdout={given}: needs a number of training images, a share of them below 1, auto, or null for none"
        )
    data["holdout"] = given
