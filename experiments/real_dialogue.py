"""AfriWOZ: does an English start help dialogue models in Hausa, Nigerian Pidgin, Swahili and Yoruba?

    python -m experiments.real_dialogue --data=DATA

pre-trains two small decoders on running text, one on English alone, one on nine languages with a little of the four
targets among them; then fine-tunes in each target the decoder, an encoder-decoder and an LSTM that begin in English
(English guides and tutorials, their paragraphs as turns, stand for English dialogues, of which DATA has none), beside
all controls; then the decoder that begins multilingually. DATA holds `text/`, `afriwoz_xlsx/` and `sib200.tsv.xz`,
whose topics tell which neurons the languages share (Pidgin is not in it). Every command is printed as it is run and can
be run by hand; the same command on the same --workdir goes on where it stopped.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from experiments._real import TEXTS
from xlingjax.errors import InputError

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with text/, afriwoz_xlsx/ and sib200.tsv.xz", required=True)
flags.DEFINE_string("workdir", "runs/real_dialogue", "folder of all runs; resumes what is there")
flags.DEFINE_list("languages", ["hau", "pcm", "swa", "yor"], "targets, as AfriWOZ's files are read")
flags.DEFINE_integer("pretrain_steps", 400, "of each decoder, 2,048 tokens each")
flags.DEFINE_integer("updates", 80, "of each fine-tuning, 8 windows each")
flags.DEFINE_integer("seeds", 2, "runs of each fine-tuning")
flags.DEFINE_integer("seed", 0, "of pre-training, fine-tuning and controls")

MULTILINGUAL = ("eng", "fra", "spa", "deu", "swa", "swh", "hau", "yor", "pcm")
SOURCE = ("opensource_guide", "djangogirls")  # English text whose paragraphs follow each other
FLORES = {"eng": "eng_Latn", "hau": "hau_Latn", "swa": "swh_Latn", "yor": "yor_Latn"}


def commands(data: Path, workdir: Path, languages: list[str], pretrain_steps: int, updates: int, seeds: int,
             seed: int) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`.

    >>> for line in commands(Path("D"), Path("W"), ["hau"], 8, 4, 1, 0): print(line[0], line[-1])
    experiments.pretrain --workdir=W/pretrain_english
    experiments.dialogue --workdir=W/english
    experiments.pretrain --workdir=W/pretrain_multilingual
    experiments.dialogue --workdir=W/multilingual
    """
    texts = lambda names: ",".join(str(data / "text" / f"{name}.tsv.xz") for name in names)
    out = []
    for name, spoken in (("english", ("eng",)), ("multilingual", MULTILINGUAL)):
        decoder = workdir / f"pretrain_{name}"
        out.append([
            "experiments.pretrain", f"--corpus={texts(TEXTS)}", f"--languages={','.join(spoken)}", "--vocabulary=4000",
            "--layers=3", "--width=96", "--heads=4", "--length=128", "--batch_tokens=2048", f"--steps={pretrain_steps}",
            "--learning_rate=2e-3", f"--seed={seed}", f"--workdir={decoder}"])
        more = [] if name == "english" else ["--kinds=decoder", "--controls=", "--noscratch", "--nosheets"]
        out.append([
            "experiments.dialogue", f"--data={data / 'afriwoz_xlsx'}", f"--languages={','.join(languages)}",
            f"--decoder={decoder}", f"--revision={pretrain_steps}", f"--source_texts={texts(SOURCE)}",
            f"--concepts={data / 'sib200.tsv.xz'}",
            f"--concept_languages={','.join(f'{ours}:{theirs}' for ours, theirs in FLORES.items())}",
            "--text=144", "--label=48", "--max_new_tokens=32", "--rows=8", "--learning_rate=1e-3",
            "--source_updates=150", f"--updates={updates}", "--evaluations=2", "--validation=64", f"--seeds={seeds}",
            f"--seed={seed}", *more, f"--workdir={workdir / name}"])
    return out


def main() -> None:
    data = Path(FLAGS.data)
    for name in (*(f"text/{text}.tsv.xz" for text in TEXTS), "afriwoz_xlsx", "sib200.tsv.xz"):
        if not (data / name).exists():
            raise InputError(f"--data={data} lacks {name}; experiments/real_dialogue.py says in its head what it needs")
    if not FLAGS.languages:
        raise InputError("--languages is empty; name one at least")
    run_commands(commands(data, Path(FLAGS.workdir), list(FLAGS.languages), FLAGS.pretrain_steps, FLAGS.updates,
                          FLAGS.seeds, FLAGS.seed))


if __name__ == "__main__":
    run(main)
