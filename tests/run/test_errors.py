"""The exception that carries a user's mistake."""

import pickle

from adarem.run.errors import UserError


def test_a_user_error_keeps_its_attributes_between_processes() -> None:
    """Ranks exchange it pickled."""
    error = pickle.loads(pickle.dumps(UserError("a: b; c", retryable=True, reported=True)))
    assert (type(error), str(error), error.retryable, error.reported) == (UserError, "a: b; c", True, True)
    assert not UserError("a").retryable and not UserError("a").reported
