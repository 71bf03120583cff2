"""An English body that reads three other languages by their embeddings alone, on real text; topics, and questions.

    python -m experiments.real_lexical --data=DATA --workdir=runs/real_lexical

DATA holds `text/*.tsv.xz` (running text, columns text and lang), `tatoeba.tsv.xz`, `ud/eng_ewt-train.conllu.xz`,
`sib200.tsv.xz` with `sib200_index.tsv`, and `xquad/xquad.<language>.json` (plain or .xz). A masked LM of three layers
is trained on the English of the first three, embeddings of each other language are learned with its body frozen, the
body is fine-tuned on English topics, and topics of sentences in the other languages are scored without labels,
beside a model of all languages, mapped static embeddings and three floors. SIB-200 is in no training text; its
documents are drawn into training and test anew, the same in all languages. The same is done, smaller, with XQuAD's
questions on paragraphs, beside the floors alone. The commands are printed as they are run and can be run by hand; the
same command on the same --workdir goes on where it stopped.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from experiments._real import TEXTS
from xlingjax.errors import InputError

RUNNING = (*(f"text/{name}.tsv.xz" for name in TEXTS), "tatoeba.tsv.xz", "ud/eng_ewt-train.conllu.xz")

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with running text, sib200.tsv.xz and xquad/", required=True)
flags.DEFINE_string("workdir", "runs/real_lexical", "folder of all runs; resumes what is there")
flags.DEFINE_list("languages", ["deu", "spa", "tur"], "the languages that the English body is to read; XQuAD has them")
flags.DEFINE_integer("seeds", 1, "runs from the first weight on; each costs as much as the first")


def commands(data: Path, workdir: Path, languages: list[str], seeds: int) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`.

    >>> for part in commands(Path("D"), Path("W"), ["deu"], 1)[0][:3]: print(part[-89:])
    experiments.lexical_transfer
    D/text/global_asp.tsv.xz,D/text/udhr.tsv.xz,D/tatoeba.tsv.xz,D/ud/eng_ewt-train.conllu.xz
    --first=eng
    """
    texts = ",".join(str(data / name) for name in RUNNING)
    shared = ["experiments.lexical_transfer", f"--corpus={texts}", "--first=eng", f"--languages={','.join(languages)}",
              "--vocabulary=4000", "--layers=3", "--width=96", "--heads=4", "--body_rate=3e-3", "--bank_rate=6e-3",
              "--task_rate=5e-4", "--nostarts", f"--seeds={seeds}"]
    return [
        [*shared, f"--topics={data / 'sib200.tsv.xz'}", "--length=64", "--rows=32", "--body_steps=2000",
         "--bank_steps=500", "--task_steps=400", "--baselines=joint,static", f"--workdir={workdir / 'topics'}"],
        [*shared, f"--questions={data / 'xquad'}", "--length=128", "--rows=16", "--body_steps=1000",
         "--bank_steps=300", "--task_steps=600", "--baselines=", f"--workdir={workdir / 'questions'}"]]


def main() -> None:
    data = Path(FLAGS.data)
    for name in (*RUNNING, "sib200.tsv.xz", "xquad"):
        if not (data / name).exists():
            raise InputError(f"--data={data} lacks {name}; experiments/real_lexical.py says in its head what it needs")
    if not FLAGS.languages or "eng" in FLAGS.languages:
        raise InputError(f"--languages={','.join(FLAGS.languages)}: name one or more languages other than eng")
    if FLAGS.seeds < 1:
        raise InputError(f"--seeds={FLAGS.seeds}; it must be 1 or more")
    run_commands(commands(data, Path(FLAGS.workdir), list(FLAGS.languages), FLAGS.seeds))


if __name__ == "__main__":
    run(main)
