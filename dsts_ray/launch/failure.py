"""Our own error inside what Ray raises."""

from ray.exceptions import RayTaskError

from dsts_ray.errors import DSTSRayError


def own_error(error: BaseException) -> DSTSRayError | None:
    """Return the first of this package's errors along the chain of causes, None without one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DSTSRayError) and not isinstance(cause, RayTaskError):
            return cause
        wrapped = getattr(cause, "_base_exc", None) or getattr(cause, "cause", None)
        cause = wrapped or cause.__cause__
    return None
