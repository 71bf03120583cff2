"""Does a dialogue model of one language carry over to another? Three kinds of models, each beside all controls.

    python -m experiments.dialogue

pre-trains a small decoder on the English of the embedded corpus, trains it, a small encoder-decoder and an LSTM on
English dialogues, fine-tunes each on dialogues in Swahili and Spanish, and ends with `runs/dialogue/report.html`.
AfriWOZ's workbooks as published, with a decoder of `experiments.pretrain` and running text in the place of English
dialogues:

    python -m experiments.dialogue --data=afriwoz_xlsx --decoder=runs/english --source_texts=text/eng.tsv \\
        --languages=hau,pcm,swa,yor --text=192 --label=64 --workdir=runs/afriwoz

and models as published, for example `--decoder=microsoft/DialoGPT-small --pair=facebook/blenderbot_small-90M
--learning_rate=5e-5 --text=512 --label=128 --source_updates=0`.

Beside each fine-tuned model stand the model before, one from scratch with the same tokenizer and updates, and models
fine-tuned on and tested with contexts of other dialogues, or none. In the workdir: result.nc, scores.csv, claims.csv,
replies.csv (for `experiments.judge_replies`), conversations.txt, figures. The same command on the same --workdir goes
on where it stopped; with --chat as well, it talks: a line in, a line out, "/new" begins anew.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags

from experiments._embedded import pretrained
from experiments._main import run, run_commands
from xlingjax.analyses.dialogue_transfer import DialogueSettings, Transfer, chat, dialogue_transfer
from xlingjax.analyses.dialogue_transfer.settings import CONTROLS
from xlingjax.analyses.dialogue_transfer.starts import (
    NAMES,
    Start,
    from_model,
    from_pair,
    small_starts,
    text_as_dialogues,
)
from xlingjax.analyses.dialogue_transfer.tables import write_tables
from xlingjax.analyses.results import write_tree
from xlingjax.corpora import Corpus, mini_world, read_concepts, read_sib200
from xlingjax.corpora.dialogue_files import COLUMNS, read_dialogues
from xlingjax.corpora.dialogues import Dialogues
from xlingjax.corpora.running_text import read_text
from xlingjax.corpora.world import mini_dialogues
from xlingjax.errors import InputError
from xlingjax.models import load_model
from xlingjax.models.pair import load_pair
from xlingjax.report.dialogue_page import dialogue_summary, write_dialogue_report

FLAGS = flags.FLAGS
_S = DialogueSettings()
# On the embedded corpus, to end within minutes. Its turns are short, but many tokens of an English tokenizer.
EMBEDDED = {"text": 128, "label": 40, "rows": 8, "learning_rate": 2e-3, "validation": 100, "updates": 120}
LANGUAGES = ("swh", "spa")  # of the embedded dialogues, beside English
EPISODES, HELD_OUT = 120, 30  # of each of them
SENTENCES = 400  # of the embedded probe a language, for shared experts
SHEET = 35  # replies that a sheet for human evaluation needs

flags.DEFINE_string("workdir", "runs/dialogue", "folder of the run; resumes what is there")
flags.DEFINE_list("data", [], "folder or files of dialogues: AfriWOZ's workbooks, or tables of two columns; by default "
                  "the embedded corpus")
flags.DEFINE_list("columns", list(COLUMNS), "of the dialogues' tables: the flag of a new episode, and the turn")
flags.DEFINE_list("languages", [], "to fine-tune in; all of --data by default")
flags.DEFINE_list("kinds", list(NAMES), "models: decoder (DialoGPT layout), pair (Blenderbot layout), lstm")
flags.DEFINE_string("decoder", None, "folder or hub repository of the decoder; its tokenizer serves all kinds but "
                    "--pair")
flags.DEFINE_string("revision", None, "of --decoder, for example the last step of experiments.pretrain")
flags.DEFINE_string("pair", None, "folder or hub repository of the encoder-decoder; by default a small one of random "
                    "parameters, like the LSTM")
flags.DEFINE_integer("layers", None, "of the small encoder-decoder, each half; the decoder's by default")
flags.DEFINE_integer("width", None, "units of the small encoder-decoder and the LSTM; the decoder's by default")
flags.DEFINE_integer("heads", None, "of the small encoder-decoder; the decoder's by default")
flags.DEFINE_list("source_texts", [], "files of running text in the source language, whose paragraphs are taken as "
                  "turns where --data has no dialogues in it")
flags.DEFINE_list("controls", list(CONTROLS), "inputs that further models are fine-tuned on and tested with")
flags.DEFINE_string("concepts", None, "folder of concepts or SIB-200 table, for the experts that languages share; the "
                    "embedded corpus has its own")
flags.DEFINE_list("concept_languages", [], "language:its name in --concepts, for example hau:hau_Latn; the same by "
                  "default")
flags.DEFINE_boolean("sheets", True, "prepare sheets for human evaluation, where there are replies enough")
flags.DEFINE_integer("pretrain_steps", 256, "of the embedded corpus's decoder, on English text")
flags.DEFINE_boolean("chat", False, "talk with a fine-tuned model in the terminal instead")
flags.DEFINE_string("chat_language", None, "of --chat; the first one by default")
flags.DEFINE_string("chat_kind", None, "of --chat: decoder, pair or lstm; the first one by default")

SETTINGS = {
    "source_language": "of the models before fine-tuning", "scratch": "beside each model one from random parameters",
    "seeds": "runs of each fine-tuning", "control_seeds": "runs of each control",
    "source_updates": "on the source language's dialogues before fine-tuning; 0 takes the models as they are",
    "updates": "of each fine-tuning", "evaluations": "on validation, evenly spaced; the best parameters are kept",
    "patience": "evaluations without improvement that end a training; 0 = none does",
    "validation": "windows at most that parameters are chosen by", "rows": "windows of a batch",
    "accumulate": "parts that a batch is cut into", "compute": "float32, or bfloat16 for mixed precision",
    "learning_rate": "of decoder and encoder-decoder", "lstm_learning_rate": "of the LSTM",
    "warm_up": "updates of linear rise", "schedule": "linear, cosine or constant after warm-up",
    "optimiser": "adamw, adam or lamb", "weight_decay": "of matrices and embeddings",
    "clip": "highest norm of the gradient", "earlier": "turns before a reply", "text": "tokens of them, the last ones",
    "label": "tokens of a reply, the first ones", "scored": "reply, or all tokens of a decoder's row, in training",
    "leak_words": "words that a test turn has at least to count as leaked when training has it too",
    "padded_rows": "windows of a batch in the perplexity as the original computed it; 0 = leave it out",
    "replies": "test windows of each language that are answered", "conversations": "dialogues that models go on with",
    "turns": "of a conversation that models write", "max_new_tokens": "of a reply",
    "temperature": "of replies; 0 takes the likeliest token", "top_k": "0 = all tokens", "top_p": "1 = all tokens",
    "no_repeat_ngram": "size of token n-grams that no reply repeats; 0 = any may",
    "sharing": "trace which experts are shared with the source language", "permutations": "of the labels, its null",
    "k": "experts of a concept; by default 500 in 221,184, at least 20",
    "draws": "of the bootstrap over dialogues and runs", "seed": "of everything"}
for _name, _text in SETTINGS.items():
    _value = EMBEDDED.get(_name, getattr(_S, _name))
    _shown = f"{_text}; {EMBEDDED[_name]} by default, {getattr(_S, _name)} with --data" if _name in EMBEDDED else _text
    if isinstance(_value, bool):
        flags.DEFINE_boolean(_name, _value, _text)
    elif isinstance(_value, str):
        flags.DEFINE_string(_name, _value, _text)
    elif isinstance(_value, float):
        flags.DEFINE_float(_name, None if _name in EMBEDDED else _value, _shown)
    else:
        flags.DEFINE_integer(_name, None if _name in EMBEDDED else _value, _shown)


def read_settings() -> DialogueSettings:
    """What the flags say; where they say nothing, less for the embedded corpus."""
    if not FLAGS.kinds or [kind for kind in FLAGS.kinds if kind not in NAMES]:
        raise InputError(f"--kinds={','.join(FLAGS.kinds)}; choose among {', '.join(NAMES)}")
    for name, given in (("layers", FLAGS.layers), ("width", FLAGS.width), ("heads", FLAGS.heads)):
        if given is not None and given < 1:
            raise InputError(f"--{name}={given}; give 1 or more")
    if FLAGS.chat_kind is not None and FLAGS.chat_kind not in FLAGS.kinds:
        raise InputError(f"--chat_kind={FLAGS.chat_kind} is none of the --kinds, {', '.join(FLAGS.kinds)}")
    less = {} if FLAGS.data else EMBEDDED
    given = {name: FLAGS[name].value for name in SETTINGS}
    given |= {name: less.get(name, getattr(_S, name)) for name in EMBEDDED if given[name] is None}
    return DialogueSettings(**given, languages=tuple(FLAGS.languages), controls=tuple(FLAGS.controls))


def embedded(workdir: Path, settings: DialogueSettings) -> tuple[Start, Dialogues, None, Corpus]:
    """A decoder pre-trained on the embedded English, dialogues, and labelled sentences."""
    for name in ("revision", "columns", "concepts", "concept_languages", "source_texts"):
        if FLAGS[name].present:
            raise InputError(f"--{name} needs --data, the dialogues that it belongs to")
    targets = settings.languages or LANGUAGES
    dialogues = mini_dialogues((settings.source_language, *targets), seed=settings.seed, train=EPISODES,
                               held_out=HELD_OUT)
    probe = mini_world("probe", sentences=SENTENCES, languages=(settings.source_language, *targets))
    probe = probe.with_concepts([name for name, group in zip(probe.concepts, probe.groups)
                                 if group in ("topic", "feature")])
    if FLAGS.decoder is not None:
        return from_model(load_model(FLAGS.decoder)), dialogues, None, probe
    [source] = pretrained(workdir, say, lambda steps: [steps[-1]], mini_world(
        "train", languages=(settings.source_language,)), ())
    return from_model(load_model(source.name, source.revision)), dialogues, None, probe


def named(settings: DialogueSettings) -> tuple[Start, Dialogues, Dialogues | None, Corpus | None]:
    """The decoder, dialogues, text of the source language and labelled sentences that flags name."""
    if FLAGS.decoder is None:
        raise InputError("--data needs --decoder: a decoder with a tokenizer, published or of experiments.pretrain")
    if len(FLAGS.columns) != 2:
        raise InputError(f"--columns={','.join(FLAGS.columns)}; give two: the flag of a new episode, and the turn")
    data = FLAGS.data[0] if len(FLAGS.data) == 1 else FLAGS.data
    dialogues = read_dialogues(data, columns=(FLAGS.columns[0], FLAGS.columns[1]))
    source = text_as_dialogues(read_text(FLAGS.source_texts, languages=[settings.source_language]),
                               settings.source_language) if FLAGS.source_texts else None
    concepts = read_labelled(FLAGS.concepts) if FLAGS.concepts else None
    return from_model(load_model(FLAGS.decoder, FLAGS.revision)), dialogues, source, concepts


def read_labelled(name: str) -> Corpus:
    """A SIB-200 table or a folder of concepts, its languages named as the dialogues name them."""
    pairs = [pair.split(":") for pair in FLAGS.concept_languages]
    wrong = [":".join(pair) for pair in pairs if len(pair) != 2]
    if wrong:
        raise InputError(f"--concept_languages has {wrong[0]!r}; write language:its name in --concepts")
    ours = {theirs: own for own, theirs in pairs}
    path = Path(name)
    if not path.exists():
        raise InputError(f"--concepts={name} does not exist; give a folder of concepts or a SIB-200 table")
    corpus = read_sib200(path, list(ours) or None) if path.is_file() else read_concepts(path)
    return dataclasses.replace(corpus, languages=np.array(
        [ours.get(language, language) for language in corpus.languages.tolist()], str))


def starts(decoder: Start, settings: DialogueSettings) -> dict[str, Start]:
    """A model of each kind."""
    shape: Mapping[str, int] = {name: FLAGS[name].value or getattr(decoder.config, name)
                                for name in ("layers", "width", "heads")}
    small = tuple(kind for kind in FLAGS.kinds if kind != "decoder" and not (kind == "pair" and FLAGS.pair))
    found = {"decoder": decoder, **small_starts(
        decoder.tokenizer, small, **shape, text=settings.text, label=settings.label, seed=settings.seed)}
    if "pair" in FLAGS.kinds and FLAGS.pair:
        found["pair"] = from_pair(load_pair(FLAGS.pair))
    return {kind: found[kind] for kind in FLAGS.kinds}


def talk(made: Transfer) -> None:
    """Reads turns from standard input and answers each; the terminal shows "> " before a turn."""
    partner = chat(made, FLAGS.chat_language or made.languages[0], FLAGS.chat_kind or next(iter(made.starts)))
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        if line.strip() == "/new":
            partner.forget()
        elif line.strip():
            print(partner.say(line) or "…", flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir, settings = Path(FLAGS.workdir), read_settings()
    decoder, dialogues, source, concepts = named(settings) if FLAGS.data else embedded(workdir, settings)
    say(dialogues.summary())
    made = Transfer(starts(decoder, settings), dialogues, settings, workdir / "dialogue", source, concepts, say)
    if FLAGS.chat:
        return talk(made)
    tree = dialogue_transfer(made)
    write_tree(workdir / "result.nc", tree)
    write_tables(tree, workdir)
    page = write_dialogue_report(tree, workdir)
    print("\n".join(dialogue_summary(tree)))
    print(f"report: {page}", flush=True)
    if FLAGS.sheets and settings.replies >= SHEET:
        run_commands([["experiments.judge_replies", f"--replies={workdir / 'replies.csv'}",
                       f"--workdir={workdir / 'sheets'}", f"--seed={settings.seed}"]])


if __name__ == "__main__":
    run(main)
