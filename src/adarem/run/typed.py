"""Names of before of ``adarem.run.build``, until every caller has the new ones."""

from adarem.run.build import build as build
from adarem.run.build import coerce as coerce
from adarem.run.build import nearest as nearest
