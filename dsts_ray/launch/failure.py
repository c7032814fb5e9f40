"""What lies behind an error that Ray raises."""

from collections.abc import Iterable

from ray.exceptions import RayTaskError

from dsts_ray.errors import DSTSRayError

_MEMORY_WORDS = (
    "low on memory",
    "out of memory",
    "OutOfMemory",
    "can't allocate memory",
    "MemoryError",
)


def own_error(error: BaseException) -> DSTSRayError | None:
    """Return the first of this package's errors along the chain of causes, None without one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DSTSRayError) and not isinstance(cause, RayTaskError):
            return cause
        wrapped = getattr(cause, "_base_exc", None) or getattr(cause, "cause", None)
        cause = wrapped or cause.__cause__
    return None


def out_of_memory(errors: Iterable[BaseException]) -> str | None:
    """Return the line that tells of memory running out, None where none does.

    Ray's memory monitor, CUDA's and the CPU's allocator each have words of their own.
    """
    for error in errors:
        for line in str(error).splitlines():
            if any(words in line for words in _MEMORY_WORDS):
                return line.strip()
    return None
