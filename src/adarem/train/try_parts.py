"""``python -m adarem.train.try_parts``: the child process in which `adarem plan` tries what it imports by name.

A line of JSON in, a line of JSON out. ``{"describe": NAME}`` answers with the settings of an optimizer's signature and
their defaults; ``{"try": CONFIG}``, a run's config as in config.yaml, builds its optimizer and takes two steps. An
``error`` in the answer is the user's line.
"""

import json
import os
import sys
from collections.abc import Mapping

from adarem.run.config import from_dict
from adarem.run.errors import UserError
from adarem.train.try_optimizer import describe, try_config


def _answer(request: Mapping[str, object]) -> dict[str, object]:
    try:
        if "describe" in request:
            return describe(str(request["describe"]))
        config = request["try"]
        assert isinstance(config, dict)
        try_config(from_dict(config))
        return {}
    except UserError as e:
        return {"error": str(e)}


def main() -> None:
    """Answers until its input ends. What imported code prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
