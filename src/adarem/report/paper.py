"""What the paper states of settings; see ``adarem.run.stated``."""

from adarem.run.stated import Stated as Stated
from adarem.run.stated import read_stated as read_stated
