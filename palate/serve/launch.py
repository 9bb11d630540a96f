"""Starts the server: one process or several, each of which loads the model before it takes requests."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from palate.errors import PalateError, SettingsError
from palate.serve import log
from palate.serve.metrics import FOLDER
from palate.serve.options import Keys, ServeOptions, check_bind
from palate.settings import Frozen

SETUP = "PALATE_SERVE_SETUP"
"""The environment variable that tells each worker what to serve."""
MATHEMATICS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Threads of the libraries under NumPy; each worker would otherwise take all cores for itself."""
HANGS = 10
"""Seconds after which a worker that does not move is replaced."""

story = logging.getLogger("palate.serve")


class Setup(Frozen):
    """What a worker has to know."""

    run: Path
    options: ServeOptions
    address: str
    failure: Path
    """Where a worker writes why it could not start."""


def serve(run: Path, options: ServeOptions, keys: Keys) -> None:
    """Answers until it is told to stop by SIGTERM or SIGINT; requests that have begun are answered then.

    Raises:
        SettingsError: open to a network without keys, or an address that cannot be listened on.
        PalateError: run, rules or store cannot be used.
    """
    check_bind(options, keys)
    with bound(options) as listening, TemporaryDirectory(prefix="palate-serve-") as folder:
        log.configure(options)
        host, port = listening.getsockname()[:2]
        address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        setup = Setup(
            run=run.resolve(), options=options, address=address, failure=Path(folder) / "failure.txt"
        )
        os.environ[SETUP] = setup.model_dump_json()
        for name in MATHEMATICS:
            os.environ.setdefault(name, str(options.threads))
        if options.workers > 1:
            numbers = Path(folder) / "metrics"
            numbers.mkdir()
            os.environ[FOLDER] = str(numbers)
        _run(options, listening)
        if setup.failure.exists():
            raise PalateError(setup.failure.read_text(encoding="utf-8"))


def bound(options: ServeOptions) -> socket.socket:
    """A socket at the address, which does not listen yet: who connects before the model is loaded is refused.

    Raises:
        SettingsError: there is no such address here, or somebody has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {options.host}, port {options.port}: {error.strerror}. Choose another with "
            "--host or --port."
        ) from None
    found.set_inheritable(True)
    return found


def worker() -> ASGIApp:
    """The application of one worker, as the environment says. Why there is none is told to the launcher."""
    setup = Setup.model_validate_json(os.environ[SETUP])
    log.configure(setup.options)
    _end_with_the_launcher()
    try:
        # Once the environment is complete: metrics look at it.
        from palate.serve.app import create_app
        from palate.serve.models import set_aside

        # A worker that takes another's place answers as the others do, whatever was exported meanwhile.
        begun = setup.failure.with_name("begun")
        app = create_app(setup.run, setup.options, fresh=not begun.exists())
        begun.touch()
        set_aside()
    except Exception as error:
        if not isinstance(error, PalateError):
            story.exception("the server could not start")
        setup.failure.write_text(f"The server could not start. {error}", encoding="utf-8")
        sys.exit(STARTUP_FAILURE)
    story.info("%s answers at %s", setup.run.name, setup.address)
    return app


def _end_with_the_launcher() -> None:
    """A worker whose launcher is gone, however it went, stops in order: nobody else would ever stop it."""
    launcher = multiprocessing.parent_process()
    if launcher is None:
        return

    def watch() -> None:
        launcher.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="palate-launcher", daemon=True).start()


def _run(options: ServeOptions, listening: socket.socket) -> None:
    config = uvicorn.Config(
        f"{__name__}:{worker.__name__}",
        factory=True,
        workers=options.workers,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever sends a request could write them
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(options.shutdown_seconds)),
        timeout_worker_healthcheck=HANGS,
    )
    # Once it has stopped in order, uvicorn raises the signal again; we would end without having tidied up.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        if options.workers > 1:
            Multiprocess(config, [listening]).run()
        else:
            uvicorn.Server(config).run([listening])
    except KeyboardInterrupt:
        pass  # that is how one stops it
    except SystemExit as stop:
        if stop.code != STARTUP_FAILURE:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
