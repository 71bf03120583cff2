"""Does a model of one language read others by their embeddings alone? (Artetxe, Ruder, Yogatama, ACL 2020.)

    python -m experiments.lexical_transfer

trains a masked LM on the English of the embedded corpus, learns Spanish and Turkish embeddings with its body frozen,
fine-tunes it on English documents (what are they about?), swaps the embeddings in and scores it on Spanish and Turkish
documents of which it has seen no label; with own positions, noise and adapters, beside joint models, mapped static
embeddings and three floors. It asks whether the same neurons are experts of a concept in both languages, and ends with
`runs/lexical_transfer/report.html`. On your own text, and topics in SIB-200's form:

    python -m experiments.lexical_transfer --corpus=text/a.tsv.xz --first=eng --languages=deu,spa,tur \\
        --topics=sib200.tsv.xz --vocabulary=8000 --layers=4 --width=128 --length=128 --workdir=runs/lexical_text

With --questions=xquad in the place of --topics it answers questions on paragraphs (files in SQuAD's layout).
Each step is kept in the workdir; the same command on the same --workdir goes on where it stopped.
"""

import dataclasses
import sys
from pathlib import Path

from absl import flags

from experiments._main import run
from xlingjax.analyses.lexical_transfer import LexicalSettings, TransferData, lexical_transfer
from xlingjax.analyses.lexical_transfer.embedded import embedded
from xlingjax.analyses.lexical_transfer.questions import read_questions
from xlingjax.analyses.lexical_transfer.topics import read_topics
from xlingjax.analyses.results import write_tree
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.report.lexical_page import lexical_summary, write_lexical_report
from xlingjax.training.objectives import UNITS
from xlingjax.training.optimiser import KINDS
from xlingjax.training.shapes import small_config

FLAGS = flags.FLAGS
_S = LexicalSettings()

flags.DEFINE_string("workdir", "runs/lexical_transfer", "folder of the run; resumes what is there")
flags.DEFINE_list("corpus", ["mini_world"], "mini_world, or files and folders of running text (.txt, .tsv)")
flags.DEFINE_string("first", "eng", "the language that the body is trained on")
flags.DEFINE_list("languages", ["spa", "tur"], "the languages that it is to read")
flags.DEFINE_string("topics", None, "SIB-200 table, the task on your own text: its train split in the first language, "
                    "its test split in all")
flags.DEFINE_list("questions", [], "the task on your own text in the place of --topics: files or folders of "
                  "xquad.<language>.json in SQuAD's layout")
flags.DEFINE_float("dose", 0.0, "share of nouns that mini_world's languages have in common, 0 to 0.3")
flags.DEFINE_integer("sentences", 6000, "of mini_world's running text in each language")
flags.DEFINE_integer("layers", 2, "blocks of the body")
flags.DEFINE_integer("width", 64, "units of the residual stream")
flags.DEFINE_integer("heads", 4, "attention heads; divides --width")
flags.DEFINE_integer("vocabulary", _S.vocabulary, "pieces of each language's tokenizer, at most")
flags.DEFINE_integer("length", _S.length, "tokens in one row")
flags.DEFINE_integer("rows", _S.rows, "rows of a step")
flags.DEFINE_integer("body_steps", _S.body_steps, "of training a body")
flags.DEFINE_integer("bank_steps", _S.bank_steps, "of learning embeddings on a frozen body")
flags.DEFINE_integer("task_steps", _S.task_steps, "of fine-tuning")
flags.DEFINE_float("body_rate", _S.body_rate, "highest learning rate of a body")
flags.DEFINE_float("bank_rate", _S.bank_rate, "highest learning rate of embeddings")
flags.DEFINE_float("task_rate", _S.task_rate, "highest learning rate of fine-tuning")
flags.DEFINE_enum("optimiser", _S.optimiser, list(KINDS), "of all steps")
flags.DEFINE_float("share", _S.share, "of the tokens that are hidden")
flags.DEFINE_enum("unit", _S.unit, list(UNITS), "what is hidden at once")
flags.DEFINE_bool("next_sentence", _S.next_sentence, "masked LM together with whether halves of rows follow each other")
flags.DEFINE_float("noise", _S.noise, "standard deviation of noise on embeddings in fine-tuning")
flags.DEFINE_integer("adapter_width", _S.adapter_width, "units of adapters")
flags.DEFINE_integer("restarts", _S.restarts, "draws of embeddings, of which the lowest held-out loss is kept")
flags.DEFINE_integer("seeds", _S.seeds, "runs from the first weight on")
flags.DEFINE_integer("beside", _S.beside, "of them those, the first ones, with baselines and other starts")
flags.DEFINE_list("baselines", list(_S.baselines), "models of all languages, of each pair with one vocabulary or two, "
                  "and mapped static embeddings; none where empty")
flags.DEFINE_bool("starts", _S.starts, "other starts of the embeddings")
flags.DEFINE_bool("trace", _S.traced, "experts of concepts in every language")
flags.DEFINE_enum("compute", _S.compute, ["float32", "bfloat16"], "what training computes in")
flags.DEFINE_integer("seed", 0, "of the embedded corpus")


def read_data() -> TransferData:
    """The text and task that the flags name."""
    others = [name for name in FLAGS.languages if name != FLAGS.first]
    if not others:
        raise InputError(f"--languages={','.join(FLAGS.languages)} has none but --first={FLAGS.first}; name another")
    if FLAGS.corpus == ["mini_world"]:
        if FLAGS.topics or FLAGS.questions:
            raise InputError(f"--{'topics' if FLAGS.topics else 'questions'} needs --corpus, the running text to train "
                             "on; mini_world has its own task")
        return embedded(FLAGS.first, others, FLAGS.dose, FLAGS.sentences, FLAGS.seed)
    if (FLAGS.topics is None) == (not FLAGS.questions):
        raise InputError("--corpus needs a task: --topics, a SIB-200 table, or --questions, such as XQuAD's files")
    if FLAGS.questions:
        return read_questions(FLAGS.corpus, FLAGS.questions, FLAGS.first, others, FLAGS.length)
    return read_topics(FLAGS.corpus, FLAGS.topics, FLAGS.first, others)


def settings() -> LexicalSettings:
    """The flags as settings; those that have one of their name."""
    found = {field.name: FLAGS[field.name].value for field in dataclasses.fields(LexicalSettings)
             if field.name in FLAGS}
    return LexicalSettings(**found | {"baselines": tuple(FLAGS.baselines)}, traced=FLAGS.trace)


def main() -> None:
    workdir, chosen = Path(FLAGS.workdir), settings()
    config = dataclasses.replace(
        small_config("xlm_roberta", FLAGS.layers, FLAGS.width, FLAGS.heads, FLAGS.length), bare_first=True)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    tree = lexical_transfer(read_data(), config, chosen, workdir / "run", say=say)
    write_tree(workdir / "result.nc", tree)
    scores = tree["scores"].to_dataset()[["role", "first", "score", "low", "high", "spread"]]
    write_whole(workdir / "scores.csv", scores.to_dataframe().to_csv().encode())
    page = write_lexical_report(tree, workdir)
    print("\n".join(lexical_summary(tree)))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
