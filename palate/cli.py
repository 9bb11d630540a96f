"""The command line: each command is a thin call of the face.

Answers go to standard output and everything else to standard error, so that ``--json`` can be piped.
Exit codes: 0 done, 2 a mistake of the user's with a message and no traceback, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from palate.errors import (
    BundleError,
    PalateError,
    SettingsError,
    missing_for_serving,
    missing_for_training,
)
from palate.settings import Settings, read_yaml

if TYPE_CHECKING:  # torch and Polars take a second to import; --help should not wait for them
    import polars as pl

    from palate.evaluate.classes import ClassJudgement
    from palate.evaluate.judgement import Judgement
    from palate.explain.shapley import Scores
    from palate.recommender import Recommender
    from palate.schema import Dataset, Part

app = typer.Typer(
    name="palate",
    help="A recommender system that learns taste by convolution, from behaviour and from content.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
answers = Console()
notices = Console(stderr=True)

NUMBERS = ("rank", "score", "probability", "share")
"""Columns that are set to the right."""
SHOWN_EVENTS = 10
"""Past events that an explanation shows, those with the largest shares."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Run = Annotated[Path, typer.Argument(help="A run folder that `palate train` wrote.", show_default=False)]
Data = Annotated[
    Path, typer.Argument(help="A dataset.yaml, a folder of tables, or one table.", show_default=False)
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a setting; may be given again."),
]
Config = Annotated[Path | None, typer.Option(help="A YAML file of settings.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw (default 0).", show_default=False)]
Count = Annotated[int, typer.Option("-n", "-k", "--count", min=1, help="How many, for each.")]
Language = Annotated[str, typer.Option(help="Of the sentences: en or zh.")]
SkipUnknown = Annotated[bool, typer.Option("--skip-unknown", help="Leave out keys that are not known.")]
OutTable = Annotated[Path | None, typer.Option(help="Write a table: .csv, .parquet or .jsonl.")]
Column = Annotated[str | None, typer.Option(help="A column's name, where the guess would be wrong.")]


def main() -> None:
    """Runs a command; a mistake of the user's ends with its message and code 2."""
    warnings.filterwarnings("ignore", module="lightning_fabric")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        app()
    except (PalateError, ModuleNotFoundError) as error:
        mistake = error if isinstance(error, PalateError) else missing(error)
        if mistake is None:
            raise
        notices.print(f"[bold red]Error:[/] {escape(str(mistake))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def missing(error: ModuleNotFoundError) -> PalateError | None:
    """What to install, where a library of an extra is not there."""
    return missing_for_training(error) or missing_for_serving(error)


def show_version(wanted: bool) -> None:
    """The version on standard output, and nothing else is done."""
    if wanted:
        from palate.version import __version__

        answers.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    del version


@app.command()
def init(
    tables: Annotated[
        list[Path], typer.Argument(help="CSV, TSV, JSONL or Parquet files.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("dataset.yaml"),
    items: Annotated[Path | None, typer.Option(help="The table that describes the items.")] = None,
    users: Annotated[Path | None, typer.Option(help="The table that describes the people.")] = None,
    user: Column = None,
    item: Column = None,
    time: Column = None,
    event: Column = None,
    value: Column = None,
    as_json: AsJson = False,
) -> None:
    """Guess what tables mean, say why, and write it down as dataset.yaml.

    Example: `palate init orders.csv --items products.csv --out dataset.yaml`
    """
    from palate.data.guess import guess_spec, write_spec

    paths = [*tables, *(table for table in (items, users) if table is not None and table not in tables)]
    guess = guess_spec(
        paths, items=items, users=users, user=user, item=item, time=time, event=event, value=value
    )
    write_spec(out, guess)
    if as_json:
        print_json({"dataset": str(out), "reasons": guess.reasons, "left_out": guess.left_out})
        return
    for line in guess.lines:
        answers.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    answers.print(
        f"Written: {escape(str(out))}. Look it over, then: palate train {escape(str(out))} --out runs/first"
    )


@app.command()
def describe(
    path: Annotated[Path, typer.Argument(help="A run folder, or data.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what a run, or a data set, consists of.

    Example: `palate describe runs/demo`
    """
    from palate.run import describe_data, describe_run, is_run

    if is_run(path):
        tree = describe_run(load(path))
    else:
        with notices.status("Reading …"):
            tree = describe_data(path)
    if as_json:
        print_json(tree)
    else:
        print_tree(tree)


@app.command()
def prepare(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    strict: Annotated[bool, typer.Option("--strict", help="Bad rows and cells are errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Clean, split and store a data set, and say what was removed.

    Training into RUN reuses what was prepared as RUN/data.

    Example: `palate prepare dataset.yaml --out runs/first/data`
    """
    from palate.data.source import read_dataset
    from palate.data.store import prepare as prepare_data
    from palate.train.progress import FilesBar

    given = given_settings(config, assignments, seed, strict)
    with notices.status("Reading and cleaning …") as status, FilesBar(notices, before=status.stop) as bar:
        dataset = read_dataset(data)
        settings = Settings.build(dataset.settings, given)
        prepared = prepare_data(dataset, settings, out, bar.told)
    if as_json:
        print_json(prepared.report)
    else:
        print_rules(prepared.report)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Bad rows and cells are errors.")] = False,
    events_from: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An event store, whose events join the data's: sqlite:///PATH or postgresql://….",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Clean, train, judge against the traditional methods, and write a run folder with a report.

    Example: `palate train dataset.yaml --out runs/first --set model.width=64 --seed 1`
    """
    from palate.data.source import read_dataset
    from palate.recommender import Recommender
    from palate.run import start_afresh, write_judgements

    recommender = Recommender(Settings.build(given_settings(config, assignments, seed, strict)))
    with notices.status("Reading …"):
        dataset = read_dataset(data)
        if events_from is not None:
            from palate.store.training import with_events

            dataset = with_events(dataset, events_from)
    start = Settings.build(
        dataset.settings, recommender.settings.model_dump(exclude_unset=True)
    ).train.start_from
    if start is not None and Path(start).resolve() == out.resolve():
        raise SettingsError(f"train.start_from and --out are both {out}; write to another folder.")
    if not resume:
        start_afresh(out)
    fit(recommender, dataset, out, resume)
    judgements = judged_on_its_split(recommender) if recommender.can_be_judged() else []
    classes = judged_classes(recommender)
    report = write_judgements(out, recommender, judgements, classes)
    if as_json:
        judged_as = as_one(judgements) if judgements else {"metrics": {}, "baselines": {}}
        print_json({"run": str(out), "report": str(report), **judged_as, **classes_json(classes)})
        return
    print_judgements(judgements)
    print_classes(classes)
    if not recommender.settings.recommends:
        if not classes:
            notices.print("Not judged: no held-out item has a label. More labelled items would tell.")
        answers.print(f"Report: {escape(str(report))}", soft_wrap=True)
        answers.print(f"Next: palate classify {escape(str(out))} KEY --json", soft_wrap=True)
        return
    if not judgements:
        notices.print("Not judged: nobody has both a history and a held-out item. More data would tell.")
    answers.print(f"Report: {escape(str(report))}", soft_wrap=True)
    answers.print(f"Next: palate recommend {escape(str(out))} --user KEY -n 10", soft_wrap=True)


@app.command()
def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="The study folder to write.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many trials.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with the search space.", show_default=False)
    ] = None,
    assignments: Assignments = None,
    seed: Seed = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials at the same time.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search for better settings by experiment, on validation people only.

    The first trial has the current settings. Without --trials and --minutes, 20 trials are made.

    Example: `palate tune dataset.yaml --out studies/first --trials 30 --set train.max_epochs=8`
    """
    from palate.data.source import read_dataset
    from palate.tune.progress import SearchBar
    from palate.tune.report import answer, write_report
    from palate.tune.study import tune as search

    space = read_yaml(config) if config is not None else None
    given = given_settings(None, assignments, None)
    with notices.status("Reading …"):
        dataset = read_dataset(data)
    try:
        with SearchBar(notices) as bar:
            found = search(
                dataset, out, space=space, settings=given, seed=seed, trials=trials, minutes=minutes,
                workers=workers, resume=resume, display=bar,
            )  # fmt: skip
    except KeyboardInterrupt:
        notices.print("\nInterrupted. The same search with --resume goes on; best.yaml has the best so far.")
        raise
    report = write_report(found)
    if as_json:
        print_json(found.to_json())
        return
    answers.print(escape(answer(found)), highlight=False, soft_wrap=True)
    answers.print(f"Report: {escape(str(report))}", highlight=False, soft_wrap=True)
    answers.print(
        f"Next: palate train {escape(str(data))} --config {escape(str(out / 'best.yaml'))} --out runs/best",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def evaluate(
    run: Run,
    part: Annotated[str, typer.Option(help="validation or test.")] = "test",
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Judge a run on its held-out part, beside the traditional methods.

    Example: `palate evaluate runs/demo --set evaluate.filter_seen=false --json`
    """
    from palate.schema import Part

    if part not in (Part.VALIDATION, Part.TEST):
        raise SettingsError(f"--part is '{part}'; wanted validation or test.")
    changes = given_settings(None, assignments, None)
    if set(changes) - {"evaluate"}:
        raise SettingsError(
            "After training only settings of 'evaluate' can change; train again for the others."
        )
    recommender, wishes = load(run), changes.get("evaluate", {})
    recommends = recommender.settings.recommends
    judgements = judged_on_its_split(recommender, part=Part(part), **wishes) if recommends else []
    classes = judged_classes(recommender, Part(part))
    if as_json:
        print_json({**(as_one(judgements) if judgements else {}), **classes_json(classes)})
    else:
        print_judgements(judgements)
        print_classes(classes)


@app.command()
def recommend(
    run: Run,
    user: Annotated[list[str] | None, typer.Option(help="A person's key; may be given again.")] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="KEY,KEY,…", help="Items of a person who is not in the data, oldest first."),
    ] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="All people of the data.")] = False,
    count: Count = 10,
    filter_seen: Annotated[
        bool | None, typer.Option("--filter-seen/--keep-seen", help="By default as the run was judged.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="KEY,KEY,…", help="Recommend only these.")] = None,
    exclude: Annotated[str | None, typer.Option(metavar="KEY,KEY,…", help="Never recommend these.")] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For this time, in ISO 8601; UTC where it names no zone."),
    ] = None,
    event: Annotated[str | None, typer.Option(metavar="TYPE", help="For this type of event.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why.")] = False,
    language: Language = "en",
    skip_unknown: SkipUnknown = False,
    out: OutTable = None,
    as_json: AsJson = False,
) -> None:
    """Say what should be shown to whom.

    Example: `palate recommend runs/demo --user 17850 -n 5`
    """
    if sum((bool(user), history is not None, everyone)) != 1:
        raise SettingsError(
            "Whose recommendations? Give one of --user KEY, --history KEY,KEY,… or --everyone."
        )
    recommender = load(run)
    found = recommender.recommend(
        users=None if history is not None else recommender.prepared.people.series if everyone else user,
        histories=[keys_of(history)] if history is not None else None,
        k=count,
        filter_seen=filter_seen,
        items=keys_of(only) if only is not None else None,
        exclude=keys_of(exclude) if exclude is not None else None,
        at=at,
        event=event,
        explain=explain,
        language=language,
        unknown="skip" if skip_unknown else "error",
    )
    if history is not None:
        found = found.drop("user")
    if explain and not as_json:  # a table has room for the sentence
        found = found.with_columns(found["reasons"].struct.field("sentence").alias("because"))
        found = found.drop("reasons")
    print_found(recommender, found, out, as_json)


@app.command()
def explain(
    run: Run,
    item: Annotated[list[str], typer.Option(help="An item's key; may be given again.")],
    user: Annotated[str | None, typer.Option(help="A person's key.")] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="KEY,KEY,…", help="Items of a person who is not in the data, oldest first."),
    ] = None,
    without: Annotated[
        bool,
        typer.Option("--without", help="Which past events would have to be undone for it to leave the list."),
    ] = False,
    inside: Annotated[
        bool,
        typer.Option("--inside", help="Which words, regions and seconds of it; wants `palate export RUN`."),
    ] = False,
    count: Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the list for --without.")] = 10,
    language: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Say why items are recommended to somebody: what each past event and each field adds to the score.

    Example: `palate explain runs/demo --user 17850 --item 22423 --without`
    """
    recommender, past = load(run), keys_of(history) if history is not None else None
    rows = recommender.explain(item, user=user, history=past, language=language).to_dicts()
    for row in rows if without else ():
        least = recommender.without(row["item"], user=user, history=past, k=count)
        events = row["reasons"]["events"]
        found = None if least.events is None else [events[place] for place in least.events]
        row["without"] = {"events": found, "proven": least.proven}
    if inside:
        look_inside(run, recommender, rows, recommender.change(user=user, history=past))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print_reasons(row)


@app.command()
def similar(
    run: Run,
    item: Annotated[list[str] | None, typer.Option(help="An item's key; may be given again.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="A person's key; may be given again.")] = None,
    count: Count = 10,
    skip_unknown: SkipUnknown = False,
    out: OutTable = None,
    as_json: AsJson = False,
) -> None:
    """Find the items, or the people, that are most alike.

    Example: `palate similar runs/demo --item 22423 -k 5`
    """
    if bool(item) == bool(user):
        raise SettingsError("Similar to what? Give --item KEY or --user KEY.")
    recommender = load(run)
    unknown: Literal["skip", "error"] = "skip" if skip_unknown else "error"
    if item:
        found = recommender.similar_items(item, count, unknown=unknown)
    else:
        found = recommender.similar_users(user or [], count, unknown=unknown)
    print_found(recommender, found, out, as_json)


@app.command()
def classify(
    run: Run,
    items: Annotated[list[str] | None, typer.Argument(help="Keys of items.", show_default=False)] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="New items: a table with a column item and any of the fields; paths begin in its folder.",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="What to tell, if the run predicts several fields.", show_default=False)
    ] = None,
    skip_unknown: SkipUnknown = False,
    out: OutTable = None,
    as_json: AsJson = False,
) -> None:
    """Say what items are, from their content alone.

    Wants a run that was trained with the task `item_class`.

    Example: `palate classify runs/genres --table new_items.csv --json`
    """
    from palate.data.additions import read_items

    recommender = load(run)
    new, notes = read_items(recommender.prepared, table) if table is not None else (None, [])
    with warnings.catch_warnings(record=True) as unusable:
        warnings.simplefilter("always", UserWarning)
        found = recommender.classify(
            items or None,
            table=new,
            media_folder=table.parent if table is not None else None,
            field=field,
            unknown="skip" if skip_unknown else "error",
        )
    for told in (*(note.detail for note in notes), *(str(warning.message) for warning in unusable)):
        notices.print(told, highlight=False, markup=False)
    if table is not None and out is None and not as_json:
        print_rows(found.to_dicts())
    else:
        print_found(recommender, found, out, as_json)


@app.command()
def report(run: Run, as_json: AsJson = False) -> None:
    """Draw the report of a run anew.

    Example: `palate report runs/demo`
    """
    from palate.run import refresh_report

    path = refresh_report(run, load(run))
    if as_json:
        print_json({"report": str(path)})
    else:
        answers.print(escape(str(path)))


@app.command()
def export(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; by default RUN/serving.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run in the form that answers without PyTorch, and compare it with the network.

    Example: `palate export runs/demo`
    """
    from palate.export.folder import export_run

    exported = export_run(run, out)
    if as_json:
        print_json(
            {"folder": str(exported.folder), "opset": exported.opset, "differences": exported.differences}
        )
        return
    answers.print(escape(str(exported.folder)))
    for name, difference in exported.differences.items():
        notices.print(f"  largest difference in {escape(name)}: {difference:.1e}", highlight=False)


@app.command()
def serve(
    run: Run,
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this machine's own want keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The event store; by default RUN/events.db.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each loads the model.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker that compute one answer.")] = 1,
    exact_up_to: Annotated[
        int | None,
        typer.Option(
            min=0, help="Most items that are compared one by one; measured if not given.", show_default=False
        ),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="A YAML file of rules for what may be shown.", show_default=False)
    ] = None,
    beside: Annotated[
        Path | None, typer.Option(help="A second run, to compare with on the page.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Most requests per second, for each key and worker.", show_default=False),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Most requests that wait, for each worker.")] = 512,
    request_seconds: Annotated[float, typer.Option(help="Most seconds of a request.")] = 10.0,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 20_000_000,
    shutdown_seconds: Annotated[
        float, typer.Option(help="Most seconds to end what has begun, when stopped.")
    ] = 30.0,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="One JSON object for each log line.")
    ] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="One log line for each request.")] = False,
) -> None:
    """Answer over HTTP: recommendations, events, new items, and a page to look at.

    Keys are read from PALATE_READ_KEY, PALATE_WRITE_KEY and PALATE_ADMIN_KEY.

    Example: `palate serve runs/demo --port 8000`
    """
    from palate.serve.launch import serve as answer
    from palate.serve.options import Keys, ServeOptions

    options = ServeOptions.of(
        host=host,
        port=port,
        store=store if store is not None else f"sqlite:///{(run / 'events.db').resolve()}",
        workers=workers,
        threads=threads,
        exact_up_to=exact_up_to,
        rules=rules.resolve() if rules is not None else None,
        beside=beside.resolve() if beside is not None else None,
        rate=rate,
        queue=queue,
        request_seconds=request_seconds,
        max_body_bytes=max_body_bytes,
        shutdown_seconds=shutdown_seconds,
        json_logs=json_logs,
        access_log=access_log,
    )
    for each in (run, beside):
        if each is not None:
            export_if_missing(each)
    answer(run, options, Keys.from_environment())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("runs/demo"),
    assignments: Assignments = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train and judge on the data of a real shop that comes with Palate.

    Example: `palate demo --out runs/demo`
    """
    from palate.demo import run_demo
    from palate.run import read_examples

    judgements = run_demo(
        out, given_settings(None, assignments, seed), fit=fit, judged=judged, say=notices.print
    )
    if as_json:
        print_json([judgement.to_json() for judgement in judgements])
        return
    print_judgements(judgements)
    person = read_examples(out)[0]["person"]
    for line in (
        f"\nReport to look at:  {out / 'report.html'}",
        "What next?",
        f"  palate recommend {out} --user {person} -n 5",
        f"  palate recommend {out} --history 22423,22699 -n 5   # somebody new, by what they bought",
        f"  palate similar {out} --item 22423 -k 5",
        "  palate init YOUR_TABLE.csv --out dataset.yaml   # your own data",
    ):
        answers.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check what Palate finds on this machine.

    Example: `palate doctor`
    """
    from palate.doctor import examine

    with notices.status("Looking around …"):
        tree = examine()
    if as_json:
        print_json(tree)
    else:
        print_tree(tree)


# What commands share


def given_settings(
    config: Path | None, assignments: Sequence[str] | None, seed: int | None, strict: bool = False
) -> dict[str, Any]:
    """What the command line says about settings, and nothing of the defaults."""
    layers: list[dict[str, Any]] = [read_yaml(config)] if config is not None else []
    layers.append({"seed": seed} if seed is not None else {})
    layers.append({"data": {"strict": True}} if strict else {})
    return Settings.build(*layers, assignments=assignments or ()).model_dump(exclude_unset=True)


def load(run: Path) -> Recommender:
    """The recommender of a run folder."""
    from palate.recommender import Recommender

    with notices.status("Loading …"):
        return Recommender.load(run)


def export_if_missing(run: Path) -> None:
    """The run has what answers without PyTorch; it is written now where it was not there."""
    if (run / "serving").is_dir():
        return
    if not (run / "bundle.json").is_file():
        raise BundleError(
            f"{run} holds no trained recommender. Name another, or train one: palate train DATA"
        )
    if find_spec("torch") is None:
        raise BundleError(
            f"{run} was not exported, and PyTorch is not installed here. Run where it is: palate export {run}"
        )
    with notices.status(f"Exporting {run} …"):  # in a process of its own, so that none keeps PyTorch
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "palate", "export", str(run), "--json"],
            stdout=subprocess.DEVNULL,
            check=False,
        )
    if done.returncode:
        raise typer.Exit(done.returncode)


def fit(recommender: Recommender, dataset: Dataset, folder: Path, resume: bool) -> None:
    """Training with a progress bar where a person is looking."""
    from palate.train.progress import Bar, FilesBar

    try:
        with FilesBar(notices) as files, Bar(notices) as bar:
            recommender.fit(dataset, folder=folder, resume=resume, display=bar, told=files.told)
    except KeyboardInterrupt:
        notices.print("\nInterrupted. The same training with --resume goes on from the last checkpoint.")
        raise
    for note in recommender.content_notes:
        notices.print(f"{note.rule}: {note.detail}", highlight=False, markup=False)
    for rule in recommender.prepared.report["rules"]:
        if rule["rule"].startswith(("unreadable files", "unreadable media")):
            notices.print(f"{rule['rule']}: {rule['detail']}", highlight=False, markup=False)


def judged(recommender: Recommender, **wishes: Any) -> Judgement:
    """The judgement, with a word on what is being done."""
    with judging() as on_start:
        return recommender.evaluate(on_start=on_start, **wishes)


@contextmanager
def judging() -> Iterator[Callable[[str], None]]:
    """A word on what is being judged; the name of each row is told to what this gives."""
    with notices.status("Judging …") as status:
        yield lambda name: status.update(f"Judging: {name.replace('_', ' ')} …")


def judged_classes(recommender: Recommender, part: Part | None = None) -> list[ClassJudgement]:
    """The judgements of the fields that a run predicts, with a word on what is being done."""
    from palate.schema import Part

    with judging() as on_start:
        return recommender.evaluate_classes(part=part or Part.TEST, on_start=on_start)


def judged_on_its_split(recommender: Recommender, **wishes: Any) -> list[Judgement]:
    """The judgement and, where items left training entirely, a second one among the new items only."""
    from palate.schema import Among

    judgements = [judged(recommender, **wishes)]
    if recommender.prepared.has_cold_split:
        judgements.append(judged(recommender, among=Among.COLD, **wishes))
    return judgements


def as_one(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The first judgement as a mapping, the one among new items within it."""
    tree = judgements[0].to_json()
    return tree | {"among_new": judgements[1].to_json()} if len(judgements) > 1 else tree


def keys_of(text: str) -> list[str]:
    """The keys in a list with commas; an empty text is an empty list."""
    return [key.strip() for key in text.split(",") if key.strip()]


# Printing


def print_json(tree: Any) -> None:
    sys.stdout.write(json.dumps(tree, ensure_ascii=False, indent=1, default=str) + "\n")


def print_judgements(judgements: Sequence[Judgement]) -> None:
    from palate.evaluate.table import results_table

    for judgement in judgements:
        answers.print(results_table(judgement.to_json()))


def print_classes(classes: Sequence[ClassJudgement]) -> None:
    from palate.evaluate.table import classes_table

    for judgement in classes:
        answers.print(classes_table(judgement.to_json()))


def classes_json(classes: Sequence[ClassJudgement]) -> dict[str, Any]:
    """What a judgement has further where fields are predicted; nothing where none is."""
    return {"classes": [judgement.to_json() for judgement in classes]} if classes else {}


def print_rules(data_report: dict[str, Any]) -> None:
    table = Table(title="What each rule removed", title_justify="left", box=None)
    for name, justify in (("rule", "left"), ("removed", "right"), ("remaining", "right"), ("detail", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for note in data_report["rules"]:
        table.add_row(note["rule"], f"{note['removed']:,}", f"{note['remaining']:,}", escape(note["detail"]))
    answers.print(table)


def print_tree(tree: dict[str, Any], indent: int = 0) -> None:
    for name, value in tree.items():
        label = f"{' ' * indent}[bold]{escape(str(name))}[/]"
        if isinstance(value, dict):
            answers.print(label, highlight=False)
            print_tree(value, indent + 2)
        else:
            answers.print(f"{label}  {escape(str(value))}", highlight=False, soft_wrap=True)


def print_found(recommender: Recommender, found: pl.DataFrame, out: Path | None, as_json: bool) -> None:
    """A table of answers: into a file, as JSON, or for the eye with the items' titles."""
    from palate.data.titles import ItemTitles
    from palate.run import write_table

    if out is not None:
        write_table(found, out)
        notices.print(f"{found.height:,} rows written to {escape(str(out))}.", highlight=False)
        return
    rows = found.to_dicts()
    if as_json:
        print_json(rows)
        return
    titles = ItemTitles(recommender.prepared)
    if "item" in found.columns and titles.titles is not None:
        for row, title in zip(rows, titles.of_keys(found["item"]), strict=True):
            row["title"] = title
    print_rows(rows)


def look_inside(run: Path, recommender: Recommender, rows: list[dict[str, Any]], change: Scores) -> None:
    """The reasons of the rows also say which parts of the items' fields carried them."""
    from palate.explain.content import inside, told_by
    from palate.runtime.model import ServingModel

    served, prepared = ServingModel.load(run / "serving"), recommender.prepared
    for row, number in zip(rows, prepared.items.ids([row["item"] for row in rows]).tolist(), strict=True):
        row["reasons"] |= inside(served, change, told_by(prepared, number))


def print_reasons(row: dict[str, Any]) -> None:
    """One item's score and what adds to it, for the eye."""
    reasons = row["reasons"]
    said = f"{row['item']}: {reasons['sentence']} (score {row['score']:.3f}, "
    said += f"{reasons['difference']:+.3f} by the history)"
    answers.print(escape(said), highlight=False, soft_wrap=True)
    print_rows(sorted(reasons["events"], key=lambda event: -abs(event["share"]))[:SHOWN_EVENTS])
    print_rows(reasons["fields"])
    for name in ("words", "frames", "seconds"):
        if reasons.get(name):
            print_rows(sorted(reasons[name], key=lambda part: -abs(part["share"]))[:SHOWN_EVENTS])
    for region in reasons.get("regions", ()):
        answers.print(f"{escape(region['field'])}, by regions from the upper left:")
        answers.print("\n".join(" ".join(f"{share:7.3f}" for share in row) for row in region["shares"]))
    if "without" not in row:
        return
    events, proven = row["without"]["events"], row["without"]["proven"]
    if events is None:
        sure = "" if proven else " Not every set of them was tried."
        answers.print(f"It was found in the list whichever of them are undone.{sure}")
        return
    named = ", ".join(str(event["item"]) for event in events)
    sure = "no fewer would do" if proven else "whether fewer would do was not proven"
    answers.print(escape(f"It leaves the list without: {named} ({sure})."), soft_wrap=True)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None)
    for name in rows[0] if rows else ["nothing to show"]:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    for row in rows:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values())
        table.add_row(*map(escape, cells))
    answers.print(table)
