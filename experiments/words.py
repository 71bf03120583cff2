"""What layers know of words, and whether it works across languages: probes on treebanks, beside their controls.

    python -m experiments.words --model=FOLDER --revisions=step0,step512 --treebanks=pud --workdir=runs/words

For every task (parts of speech, features as Universal Dependencies name them, word order) and language a linear probe
is trained at every layer on words of some documents and tested on others, in all languages. Ends with `report.html`.
The same command on the same --workdir goes on where it stopped.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints
from experiments._main import run
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.word_probe import ALIGNMENTS, WordProbeSettings, probe_words
from xlingjax.corpora.words import read_words
from xlingjax.errors import InputError
from xlingjax.report.word_page import word_summary, write_word_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_S = WordProbeSettings()

flags.DEFINE_string("workdir", "runs/words", "folder of the run; resumes what is there")
flags.DEFINE_string("treebanks", None, "folder of CoNLL-U files, LANGUAGE.conllu[.xz]", required=True)
flags.DEFINE_list("tasks", ["upos", "Number", "Gender", "Tense", "order:nsubj", "order:obj"],
                  "\"upos\", features, and \"order:\" with a relation: before or after its head")
flags.DEFINE_list("languages", [], "languages; all by default")
flags.DEFINE_integer("words", _S.words, "of each language and task, at most")
flags.DEFINE_integer("minimum", _S.minimum, "words that a class needs in a language")
flags.DEFINE_enum("align", _S.align, list(ALIGNMENTS), "a word is its first token, or the mean of its tokens")
flags.DEFINE_float("held_out", _S.held_out, "share of the documents that probes are tested on")
flags.DEFINE_integer("seed", _S.seed, "of words, documents and control labels")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    if FLAGS.model is None:
        raise InputError("--model is missing; name a repository or a folder of checkpoints")
    path = Path(FLAGS.treebanks)
    if not path.exists():
        raise InputError(f"--treebanks={path} does not exist; give a folder of CoNLL-U files")
    settings = WordProbeSettings(FLAGS.words, FLAGS.minimum, FLAGS.held_out, FLAGS.align, seed=FLAGS.seed,
                                 batch_tokens=FLAGS.batch_tokens)
    found = checkpoints()
    bank = read_words(path, FLAGS.tasks, FLAGS.languages or None)
    workdir = Path(FLAGS.workdir)
    tree = probe_words(found, bank, settings, workdir / "words", dtype=FLAGS.dtype, tokenizer=FLAGS.tokenizer, say=say)
    tree.attrs["corpus"] = path.name
    write_tree(workdir / "result.nc", tree)
    page = write_word_report(tree, workdir)
    print("\n".join(word_summary(tree)))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
