"""Results are not compared, since nothing was computed: their shapes and dtypes are."""

from contextlib import nullcontext


def change(testing):
    """adapter_fast.testing without the comparison of numbers."""

    def assert_within_budget(actual, expected, eager, *, terms, name="result", mean=True):
        if actual.shape != expected.shape or actual.dtype != eager.dtype:
            raise AssertionError(
                f"{name}: got {list(actual.shape)} {actual.dtype}, expected {list(expected.shape)} {eager.dtype}"
            )

    testing.assert_within_budget = assert_within_budget
    testing.poisoned = nullcontext  # filling would take the time that not computing saves
