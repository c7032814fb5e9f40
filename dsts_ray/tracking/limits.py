"""What a served model takes: environment variables of the server, with their defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dsts_ray.errors import ConfigError, LimitError

ROOT = "DSTS_SERVE_ROOT"
MAX_BYTES = "DSTS_SERVE_MAX_BYTES"
MAX_SECONDS = "DSTS_SERVE_MAX_SECONDS"
TIMEOUT_S = "DSTS_SERVE_TIMEOUT_S"

_DEFAULTS = {MAX_BYTES: "134217728", MAX_SECONDS: "600", TIMEOUT_S: "30"}


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """Limits of a served model.

    Attributes:
        root: Folder whose files, and no others, may be named by path; None takes no paths.
        max_bytes: Of a video's file.
        max_seconds: That a video's file states as its length.
        timeout_s: That decoding a video may take.
    """

    root: Path | None
    max_bytes: int
    max_seconds: float
    timeout_s: float

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "ServingLimits":
        """Read the limits of this process.

        Raises:
            ConfigError: A variable is no number above 0, or no folder.
        """
        numbers = {name: environment.get(name) or default for name, default in _DEFAULTS.items()}
        for name, given in numbers.items():
            try:
                allowed = 0 < float(given) < float("inf")
            except ValueError:
                allowed = False
            if not allowed:
                raise ConfigError(f"{name}={given}: must be a number above 0")
        root = Path(environment[ROOT]).resolve() if environment.get(ROOT) else None
        if root and not root.is_dir():
            raise ConfigError(f"{ROOT}={root}: there is no such folder")
        return cls(
            root=root,
            max_bytes=int(float(numbers[MAX_BYTES])),
            max_seconds=float(numbers[MAX_SECONDS]),
            timeout_s=float(numbers[TIMEOUT_S]),
        )

    def check(self, source: str | bytes) -> str | bytes:
        """Let a video's content pass, or a path within the folder; links are followed first.

        Args:
            source: Content, or a path, absolute or relative to the folder.

        Returns:
            The content, or the file's path without links.

        Raises:
            LimitError: It is too large, outside the folder, or no file.
        """
        if isinstance(source, bytes):
            self._check_size(len(source), f"the video has {len(source)} bytes")
            return source
        path, size = self._within(source)
        self._check_size(size, f"path {source!r} has {size} bytes")
        return str(path)

    def _within(self, source: str) -> tuple[Path, int]:
        """Find a file without links, and its size."""
        if self.root is None:
            raise LimitError(
                f"path {source!r}: this server takes no paths; send the content as video (whoever "
                f"runs it names a folder by {ROOT})"
            )
        try:
            path = (self.root / source).resolve()
            inside = path.is_relative_to(self.root)
            size = path.stat().st_size if inside and path.is_file() else None
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
            raise LimitError(f"path {source!r}: there is no such file") from error
        if not inside:
            raise LimitError(f"path {source!r}: lies outside the folder that this server reads")
        if size is None:
            raise LimitError(f"path {source!r}: there is no such file")
        return path, size

    def _check_size(self, size: int, what: str) -> None:
        if size > self.max_bytes:
            raise LimitError(f"{what}; this server takes {self.max_bytes} ({MAX_BYTES})")
