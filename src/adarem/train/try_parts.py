"""``python -m adarem.train.try_parts``: the child process in which `adarem plan` tries what it imports by name.

A line of JSON in, a line of JSON out. ``{"describe": NAME}`` answers with the settings of an optimizer's signature and
their defaults, ``{"describe_network": NAME, "given": [KEYWORDS]}`` with those of a network's; ``{"try": CONFIG}``, a
run's config as in config.yaml, builds its optimizer and takes two steps, ``{"try_network": CONFIG}`` passes a batch
through its network, ``{"try_weights": CONFIG}`` loads the weights that it starts from. An ``error`` in the answer is
the user's line.
"""

import json
import os
import sys
from collections.abc import Mapping

from adarem.run import streams
from adarem.run.config import RunConfig, from_dict
from adarem.run.errors import UserError
from adarem.train.models.build import build_network, initialise
from adarem.train.try_network import describe_network, try_network
from adarem.train.try_optimizer import describe, try_config


def _answer(request: Mapping[str, object]) -> dict[str, object]:
    try:
        if "describe" in request:
            return describe(str(request["describe"]))
        if "describe_network" in request:
            given = request["given"]
            assert isinstance(given, list)
            return describe_network(str(request["describe_network"]), given)
        if "try_weights" in request:
            config = _config(request["try_weights"])
            return {"note": initialise(build_network(config), config)}
        if "try" in request:
            return {"note": try_config(_config(request["try"]))}
        try_network(_config(request["try_network"]))
        return {}
    except UserError as e:
        return {"error": str(e)}


def _config(raw: object) -> RunConfig:
    assert isinstance(raw, dict)
    return from_dict(raw)


def main() -> None:
    """Answers until its input ends. What imported code prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    streams.prepare()
    main()
