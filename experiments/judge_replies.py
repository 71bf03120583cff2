"""Do people take a model's replies for a person's? Blinded sheets to judge, and what the filled ones say.

    python -m experiments.judge_replies --replies=replies.csv --workdir=runs/judged

reads replies (columns language, system, context, reply, reference; a line of `context` a turn) and writes a sheet for
each language and system into `runs/judged/sheets`, as a form that opens in any browser offline (.html) and as a table
(.csv), 35 items each, three of them what a person really said. `runs/judged/key.csv` says which: keep it from the
judges. When the filled sheets are back, from the form or by hand:

    python -m experiments.judge_replies --answers=FOLDER --workdir=runs/judged

prints and writes majority votes, unanimity, Fleiss' kappa and Krippendorff's alpha with intervals over items and chance
beside (`evaluation.csv`), what every judge made of the hidden human replies (`annotators.csv`), and every item
(`items.csv`).
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from absl import flags

from experiments._main import run
from xlingjax.analyses.results import write_tree
from xlingjax.errors import InputError
from xlingjax.files import claim, locked, slug, write_whole
from xlingjax.judging.human_items import (
    CATEGORIES,
    HIDDEN,
    ITEMS,
    key_csv,
    make_items,
    plain,
    read_key,
    read_replies,
    sheet_csv,
)
from xlingjax.judging.humans import (
    DRAWS,
    annotator_table,
    evaluation_rows,
    evaluation_table,
    item_table,
    read_answers,
    summary,
)
from xlingjax.report.evaluation_form import Shown, evaluation_form

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/judged", "folder of sheets, key and results")
flags.DEFINE_string("replies", None, "table of replies to make sheets from (.csv)")
flags.DEFINE_list("answers", [], "filled sheets (.csv or .json), or folders of them, to score")
flags.DEFINE_string("key", None, "of the sheets; key.csv of --workdir by default")
flags.DEFINE_integer("items", ITEMS, "of a sheet")
flags.DEFINE_integer("hidden", HIDDEN, "human replies among them")
flags.DEFINE_integer("draws", DRAWS, "of items, for the intervals")
flags.DEFINE_integer("seed", 0, "of items, their order, and intervals")

EXPLAINED = ("A person who speaks the language could well have said this here.", "You cannot tell.",
             "No person who speaks the language would say this here.")


def make(workdir: Path) -> None:
    """Sheets and their key."""
    data = Path(FLAGS.replies)
    replies = read_replies(data)
    sheets = make_items(replies, FLAGS.seed, FLAGS.items, FLAGS.hidden)
    settings = {"replies": hashlib.sha256(data.read_bytes()).hexdigest(), "seed": FLAGS.seed, "items": FLAGS.items,
                "hidden": FLAGS.hidden}
    with claim(workdir, settings, "judge_replies"):
        for code, items in sheets.items():
            name = f"{slug(items[0].language)}_{code}"
            form = evaluation_form(code, [Shown(item.context, item.reply) for item in items], CATEGORIES, EXPLAINED,
                                   f"Judging replies: {items[0].language}")
            write_whole(workdir / "sheets" / f"{name}.html", form.encode())
            write_whole(workdir / "sheets" / f"{name}.csv", sheet_csv(items).encode())
        write_whole(workdir / "key.csv", key_csv(sheets.values()).encode())
    repeated = len(replies) - len({(one.language, one.system, one.context) for one in replies})
    if repeated:
        print(f"{repeated} replies to a context that the same system had answered before were left out")
    print(f"{len(sheets)} sheets of {FLAGS.items} items in {workdir / 'sheets'}; key, not for the judges: "
          f"{workdir / 'key.csv'}")


def score(workdir: Path) -> None:
    """What the filled sheets say."""
    key = read_key(FLAGS.key or workdir / "key.csv")
    answers = read_answers(_files(FLAGS.answers), key)
    table, judges = evaluation_table(answers, key, FLAGS.draws, FLAGS.seed), annotator_table(answers, key)
    with locked(workdir):
        write_whole(workdir / "evaluation.csv", _csv(evaluation_rows(table)))
        write_whole(workdir / "annotators.csv", judges.to_dataframe().to_csv(index=False).encode())
        write_whole(workdir / "items.csv", _csv(item_table(answers, key)))
        write_tree(workdir / "result.nc", xr.DataTree.from_dict({"evaluation": table, "annotators": judges}))
    print("\n".join(summary(table, judges)))
    print(f"tables: {workdir / 'evaluation.csv'}, annotators.csv, items.csv")


def _files(named: Sequence[str]) -> list[Path]:
    out: list[Path] = []
    for path in map(Path, named):
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in (".csv", ".json")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"--answers: folder {path} has no .csv or .json file; name the folder of filled sheets")
        out += inside
    return out


def _csv(rows: Sequence[dict[str, object]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: plain(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    return file.getvalue().encode()


def main() -> None:
    if (FLAGS.replies is None) == (not FLAGS.answers):
        raise InputError("give --replies=FILE to make sheets, or --answers=FOLDER to score filled ones, one of the two")
    (make if FLAGS.replies is not None else score)(Path(FLAGS.workdir))


if __name__ == "__main__":
    run(main)
