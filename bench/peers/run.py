"""Palate and its peers on the same split, filter and threads, one after the other; a table of it.

    python -m bench.peers.run --quick                                 # a pass or some steps of each
    python -m bench.peers.run --rows palate rectools-sasrec palate    # to their own best

A row may be named several times, so that Palate runs before and after its peers on the same machine, and
``--rounds`` goes through all rows again; every time with another seed, each in a line of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.page import machine, write_section
from bench.peers.common import Split, peak_mb
from bench.peers.environments import VERSIONS, python_of
from bench.peers.split import write_split, write_table
from palate.train.checkpoint import read_tensors

HERE = Path(__file__).parent
DRIVERS: dict[str, tuple[str, list[str]]] = {
    "rectools-sasrec": ("rectools", ["--model", "sasrec"]),
    "rectools-esasrec": ("rectools", ["--model", "esasrec"]),
    "rectools-ease": ("rectools", ["--model", "ease"]),
    "implicit-als": ("implicit", []),
    "recbole-nextitnet": ("recbole", ["--model", "NextItNet"]),
    "recbole-caser": ("recbole", ["--model", "Caser"]),
    "recbole-sasrec": ("recbole", ["--model", "SASRec"]),
    "recbole-gru4rec": ("recbole", ["--model", "GRU4Rec"]),
}
QUICK = [
    *("palate", "implicit-als", "rectools-ease", "rectools-sasrec"),
    *("palate", "recbole-nextitnet", "recbole-caser", "recbole-sasrec", "recbole-gru4rec"),
]
SLOW = ("recbole-nextitnet", "recbole-caser", "recbole-sasrec", "recbole-gru4rec")
"""An epoch of these takes a quarter of an hour or more: with --quick it is estimated from some steps."""


def run_palate(options: argparse.Namespace, split: Path, seed: int) -> list[dict[str, Any]]:
    """Palate's own command, and what its log and its judgement say, in the words of the drivers.

    With ``people`` it is given the table of the split; else the data themselves.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        data = write_table(Split.read(split), Path(folder)) if options.people else options.data
        command = [sys.executable, "-m", "palate", "train", str(data), "--out", str(run), "--json"]
        command += ["--config", str(options.config)] if options.config else []
        changes = [
            "model.content=false", "evaluate.baselines=[]", "evaluate.references=[]", "evaluate.cutoffs=[10]",
            f"train.threads={options.threads}", *options.assignments,
        ]  # fmt: skip
        command += [part for change in changes for part in ("--set", change)] + ["--seed", str(seed)]
        if options.quick:
            command += ["--set", "train.patience=1000", "--set", f"train.max_epochs={options.quick_epochs}"]
        printed, peak = watched(command, options.threads)
        judged = json.loads(printed)
        people = Split.read(split).people
        if judged["people"] != people:
            raise SystemExit(f"Palate judged {judged['people']} people, and the split has {people}.")
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        weights, _ = read_tensors(run / "checkpoints" / "best.safetensors")
        parameters = sum(tensor.numel() for tensor in weights.values())
    events = [
        {
            "event": "epoch",
            "epoch": entry["epoch"],
            "train_seconds": entry["seconds"] - entry["validation_seconds"],
            "validation_seconds": entry["validation_seconds"],
            "ndcg@10": entry["metric"],
        }
        for entry in log
    ]
    best = max(events, key=lambda event: event["ndcg@10"])
    done = {
        "event": "done",
        "best_epoch": best["epoch"],
        "validation_ndcg": best["ndcg@10"],
        "test_ndcg": judged["metrics"]["ndcg@10"]["value"],
        "test_hr": judged["metrics"]["hit_rate@10"]["value"],
        "score_seconds": sorted(event["validation_seconds"] for event in events)[len(events) // 2],
        "peak_mb": peak,
        "parameters": parameters,
    }
    return [*events, done]


def run_peer(name: str, options: argparse.Namespace, split: Path, seed: int) -> list[dict[str, Any]]:
    """The lines that a peer's driver prints."""
    environment, given = DRIVERS[name]
    command = [str(python_of(environment, options.home)), str(HERE / f"{environment}_driver.py"), *given]
    command += ["--split", str(split), "--threads", str(options.threads), "--seed", str(seed)]
    command += ["--patience", str(options.patience), "--max-seconds", str(options.max_seconds)]
    command += ["--length", str(options.length)] if environment == "recbole" else []
    if name in SLOW and (options.quick or options.estimate):
        command += ["--steps", str(options.steps)]
    command += ["--epochs", "1" if options.quick else str(options.epochs)]
    printed, _ = watched(command, options.threads)
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def watched(command: list[str], threads: int) -> tuple[str, float]:
    """What the command prints, and the most memory it held at a time, in MB."""
    limited = {**os.environ, **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}}
    limited["OPENBLAS_NUM_THREADS"] = "1"
    peak = 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, env=limited)
        while process.poll() is None:
            peak = max(peak, peak_mb(process.pid))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; its message is above.")
        printed.seek(0)
        return printed.read(), max(peak, peak_mb(process.pid))


def row_of(name: str, events: list[dict[str, Any]], thresholds: list[float]) -> dict[str, Any]:
    """One line of the table."""
    epochs = [event for event in events if event["event"] == "epoch"]
    last = events[-1]
    row: dict[str, Any] = {"name": name, "peak_mb": last["peak_mb"], "estimated": last["event"] == "estimate"}
    if row["estimated"]:
        return {**row, **last, "epoch_seconds": last["train_seconds"]}
    seconds = sorted(event["train_seconds"] for event in epochs)
    row |= {"epoch_seconds": seconds[len(seconds) // 2], "epochs": len(epochs), **last}
    row["to_best"] = sum(event["train_seconds"] for event in epochs[: last["best_epoch"] + 1])
    row["reached"] = {str(threshold): seconds_to(epochs, threshold) for threshold in thresholds}
    row["curve"] = [[event["train_seconds"], event["ndcg@10"]] for event in epochs]
    return row


def seconds_to(epochs: list[dict[str, Any]], threshold: float) -> float | None:
    """Training time until validation NDCG@10 was this high, validation not counted; None if it never was."""
    spent = 0.0
    for event in epochs:
        spent += event["train_seconds"]
        if event["ndcg@10"] >= threshold:
            return spent
    return None


def as_markdown(rows: list[dict[str, Any]], thresholds: list[float]) -> str:
    """The table."""
    heads = ["", "s per epoch", *(f"s to NDCG@10 {t:g}" for t in thresholds), "s to own best"]
    heads += ["NDCG@10 validation", "test", "HR@10 test", "peak MB", "s to score all", "parameters"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        held = [f"{row['peak_mb']:,.0f}", f"{row['score_seconds']:.1f}", f"{row['parameters']:,}"]
        if row["estimated"]:
            cells = [f"{row['epoch_seconds']:,.0f} (estimated from the first {row['steps']} steps)"]
            cells += ["–"] * (len(thresholds) + 4) + held
        else:
            reached = [row["reached"][str(t)] for t in thresholds]
            cells = [f"{row['epoch_seconds']:.1f}"]
            cells += ["–" if seconds is None else f"{seconds:,.0f}" for seconds in reached]
            cells += [f"{row['to_best']:,.0f}", f"{row['validation_ndcg']:.4f}", f"{row['test_ndcg']:.4f}"]
            cells += [f"{row['test_hr']:.4f}", *held]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("examples/ml-1m/dataset.yaml"))
    parser.add_argument("--rows", nargs="*", default=QUICK, choices=["palate", *DRIVERS])
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("PALATE_PEERS_HOME", ".venv-peers")))
    parser.add_argument("--rounds", type=int, default=1, help="go through the rows so many times")
    parser.add_argument("--quick", action="store_true", help="one epoch, or some steps, of each peer")
    parser.add_argument("--quick-epochs", type=int, default=2, help="Palate's passes with --quick")
    parser.add_argument("--steps", type=int, default=20, help="steps of slow peers with --quick")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="estimate the epochs of slow peers, run the others to their best",
    )
    parser.add_argument("--length", type=int, default=50, help="events of a history in RecBole")
    parser.add_argument("--epochs", type=int, default=100, help="at most so many passes of a peer")
    parser.add_argument("--config", type=Path, help="a YAML file of settings for Palate")
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=36_000)
    parser.add_argument("--people", type=int, help="only so many people, to try things out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[0.17, 0.18])
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="SECTION.FIELD=VALUE"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/peers.json"), help="the rows as JSON")
    parser.add_argument("--write", help="name of the section of docs/benchmarks.md to write the table into")
    options = parser.parse_args()
    if options.write and options.people:
        parser.error("--write shows all people: leave --people out")
    options.rows = options.rows * options.rounds
    options.home = options.home.resolve()
    environments = sorted({DRIVERS[row][0] for row in options.rows if row != "palate"})
    for environment in environments:
        python_of(environment, options.home)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder) / "split.npz"
        write_split(options.data, split, options.people)
        for name in options.rows:
            seed = sum(row["row"] == name for row in rows)
            started = time.perf_counter()
            events = (
                run_palate(options, split, seed) if name == "palate" else run_peer(name, options, split, seed)
            )
            label = f"{name}, seed {seed}" if options.rows.count(name) > 1 else name
            rows.append({"row": name, **row_of(label, events, options.thresholds)})
            print(f"{label}: {time.perf_counter() - started:.0f} s in all", file=sys.stderr, flush=True)
            options.out.write_text(json.dumps(rows, indent=1))
    shown = [machine(options.threads), *(VERSIONS[name] for name in environments)]
    text = f"{', '.join(shown)}.\n\n{as_markdown(rows, options.thresholds)}"
    print(text)
    if options.write:
        write_section(options.write, text)


if __name__ == "__main__":
    main()
