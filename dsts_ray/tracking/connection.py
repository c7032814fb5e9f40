"""Connections to an MLflow tracking server or an embedded SQLite store, checked within seconds.

MLflow's global tracking address is never touched.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe

from dsts_ray.errors import TrackingError

CHECK_TIMEOUT_S = 4
_CHANGE = (
    "Change it in a configuration with tracking.uri=URI, in other jobs with --tracking-uri URI"
)


def connect(uri: str, *, create: bool = False, patient: bool = False) -> MlflowClient:
    """Client of the server or store at ``uri``, after a check that takes a few seconds at most.

    Args:
        uri: ``http(s)://HOST:PORT`` of a tracking server, or ``sqlite:////ABSOLUTE/PATH.db``.
        create: make the SQLite store where there is none.
        patient: no check of a server, for what ends hours of work: slow answers are waited for, and
            requests that fail repeated for some 15 s.

    Raises:
        TrackingError: the address has another form, or nothing usable answers there.
    """
    if urlsplit(uri).scheme in ("http", "https"):
        if not patient:
            _check_server(uri)
    elif uri.startswith("sqlite:////"):
        _check_database(Path(uri.removeprefix("sqlite:///")), create=create)
    else:
        raise TrackingError(
            f"the tracking URI is {without_password(uri)!r}; allowed: http://HOST:PORT or "
            "https://HOST:PORT of an MLflow server, or sqlite:////ABSOLUTE/PATH.db (four slashes). "
            f"{_CHANGE}."
        )
    with translated_errors(uri, "open the store"):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_server(uri: str) -> None:
    try:
        http_request_safe(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=CHECK_TIMEOUT_S,
        )
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"no MLflow server answers as it should at {without_password(uri)} "
            f"({without_password(error)}). Start one (mlflow server --host HOST --port PORT). "
            f"{_CHANGE}. Where the answer was 403, the server's --allowed-hosts must name "
            "this host; where it was 401, set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        ) from error


def _check_database(path: Path, *, create: bool) -> None:
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        mode = "rwc" if create else "rw"
        connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"{path} cannot serve as MLflow's SQLite store: {error}. It must exist and be writable "
            f"(training makes one where there is none). {_CHANGE}."
        ) from error


@contextmanager
def translated_errors(uri: str, action: str) -> Iterator[None]:
    """Turn what MLflow and the network raise inside the block into one TrackingError."""
    try:
        yield
    except (MlflowException, OSError) as error:
        message = f"MLflow at {uri} did not {action}: {error}"
        raise TrackingError(without_password(message)) from error


def without_password(text: object) -> str:
    """The text without user and password in its addresses, for messages."""
    return re.sub(r"//[^/@\s]*@", "//", str(text))
