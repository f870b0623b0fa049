"""The progress bar shows count, rate and time left."""

import re

from adarem.data.prepare import prepare
from tests.support.photos import data_config


def test_progress_tells_rate_and_time_left(photo_root, capsys):
    prepare(data_config(photo_root), workers=2)
    said = capsys.readouterr().err
    assert re.search(r"writing train .*61/61 .*images/s 0:00:00", said)
