"""From a run to a service that listens: one process or several, started warm and stopped gently.

Worker processes begin from nothing. What they serve and how stands in the environment variable
``PALATE_SERVE``, and the keys in theirs.
"""

from __future__ import annotations

import json
import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.errors import MissingExtraError, PalateError, SettingsError
from palate.runtime.model import MANIFEST
from palate.serve.options import Keys, ServeOptions, check_bind
from palate.store.opening import open_store

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Config

SETUP = "PALATE_SERVE"
NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "onnxruntime")
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than a proxy in front keeps its own."""
PATIENCE = 60
"""Seconds that a worker may be too busy to say that it lives."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
STARTUP_FAILURE = 3
"""A worker that ends with this code is not started again."""
_log = logging.getLogger("palate.serve")


def is_exported(run: Path) -> bool:
    """Whether ``palate export`` has been here."""
    return (run / "serving" / MANIFEST).is_file()


def serve(run: Path, options: ServeOptions, keys: Keys) -> None:
    """The run is served until the process is told to stop by SIGTERM or SIGINT; then requests that have begun
    are finished and the store is closed.

    Raises:
        SettingsError: others could reach it and there is no key; an address that cannot be listened at;
            rules that cannot be used.
        BundleError: RUN/serving is absent or cannot be used.
        StoreError: the store does not answer.
        MissingExtraError: a library is not installed.
    """
    check_bind(options, keys)
    for library in NEEDED:
        if find_spec(library) is None:
            raise MissingExtraError(library, "serve")
    import uvicorn

    from palate.serve.log import configuration

    logging.config.dictConfig(configuration(options))
    listening = _bound(options)
    setup: dict[str, Any] = {
        "workers": options.workers,
        "ws": "none",
        "lifespan": "on",
        "log_config": configuration(options),
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": options.stop_seconds,
        "timeout_worker_healthcheck": PATIENCE,
    }
    with listening:
        if options.workers == 1:
            _alone(uvicorn.Config(_guarded(run, options, keys), **setup), listening)
            return
        os.environ[SETUP] = json.dumps({"run": str(run), "options": options.model_dump(mode="json")})
        open_store(options.store).close()  # its tables are made once, before the workers want them
        with tempfile.TemporaryDirectory(prefix="palate-metrics-") as folder:
            os.environ[METRICS_FOLDER] = folder
            config = uvicorn.Config("palate.serve.launch:application", factory=True, **setup)
            _together(config, listening)


def application() -> ASGIApp:
    """What a worker process serves. It ends by itself where it cannot, and when its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_ends_with, args=(parent,), daemon=True).start()
    setup = json.loads(os.environ[SETUP])
    try:
        return _guarded(Path(setup["run"]), ServeOptions(**setup["options"]), Keys.from_environment())
    except PalateError as error:
        _log.error("%s", error)
        sys.exit(STARTUP_FAILURE)


def _guarded(run: Path, options: ServeOptions, keys: Keys) -> ASGIApp:
    from palate.serve.app import create_app
    from palate.serve.keys import SameMachine

    app = create_app(run, options, keys)
    return app if keys else SameMachine(app)


def _alone(config: Config, listening: socket.socket) -> None:
    """One process serves until a signal comes."""
    from uvicorn import Server

    # Uvicorn raises the signal again once it has stopped gently; the process then ends as it should.
    signal.signal(signal.SIGTERM, lambda *_: None)
    _log.info("Serving at %s", _url(listening))
    Server(config).run([listening])


def _together(config: Config, listening: socket.socket) -> None:
    """Several processes serve until a signal comes; one that dies is replaced.

    Raises:
        PalateError: one of them could not start.
    """
    from uvicorn.supervisors import Multiprocess

    _log.info("Serving at %s, with %d workers", _url(listening), config.workers)
    workers = Multiprocess(config, [listening])
    workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        raise PalateError("A worker could not start; the log says why.")


def _ends_with(parent: multiprocessing.process.BaseProcess) -> None:
    """A worker whose parent was killed would hold the port for ever; it stops gently instead."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _bound(options: ServeOptions) -> socket.socket:
    """A socket at the address, which is free; nobody can connect before somebody listens.

    Raises:
        SettingsError: it is not free, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"Nobody can listen at {options.host}:{options.port} ({error.strerror}); "
            "choose another --port or --host."
        ) from None
    listening.set_inheritable(True)
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
