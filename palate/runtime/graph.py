"""A graph that ``palate export`` wrote, ready to run: the only file that needs ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from palate.errors import BundleError, MissingExtraError
from palate.schema import AnyArray


class Graph:
    """A network in an ONNX file. May be called from many threads at the same time.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the file holds no graph that this version of it can run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """``threads`` work on one call; calls of other threads come on top."""
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("ONNX Runtime", "serve") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Who waits in a loop takes the processor from whoever answers the next request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own kinds of error have no name in common
            raise BundleError(
                f"{path} cannot be run by ONNX Runtime {onnxruntime.__version__} "
                f"({str(error).splitlines()[0]}). Install the version that constraints.txt names, or export "
                "again."
            ) from None
        self.widths = {entry.name: entry.shape[-1] for entry in self._session.get_inputs()}
        """By input, its last dimension: a number, or a name where it may be any."""

    def __call__(self, **numbers: AnyArray) -> list[AnyArray]:
        """What the graph gives for these inputs; those that it does not have are not looked at."""
        found: list[AnyArray] = self._session.run(None, {name: numbers[name] for name in self.widths})
        return found
