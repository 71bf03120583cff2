"""Forcing topics in a model of real text: four source languages, an early and a late checkpoint, all controls.

    python -m experiments.real_steer --data=DATA --pretrained=runs/real_text/seed0/pretrain

takes a model of `experiments.real_text` (Italian was left out of its training), finds the experts of a SIB-200 topic in
each source language on half of the documents, and forces them while the model writes. Judges of language and topic
are trained and tested on the other half. Every command is printed as it is run and can be run by hand; the same
command on the same --workdir goes on where it stopped.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from xlingjax.errors import InputError

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with sib200.tsv.xz and its topics", required=True)
flags.DEFINE_string("pretrained", None, "a run of experiments.real_text's pre-training", required=True)
flags.DEFINE_string("workdir", "runs/real_steer", "folder of all runs; resumes what is there")
flags.DEFINE_list("sources", ["eng_Latn", "spa_Latn", "rus_Cyrl", "hin_Deva"], "languages whose experts are forced")
flags.DEFINE_list("steps", ["256", "1536"], "checkpoints, an early and a late one")
flags.DEFINE_string("concept", "politics", "topic of SIB-200 that is forced")
flags.DEFINE_integer("seed", 0, "of splits, controls and noise")

LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "rus_Cyrl", "tur_Latn", "hin_Deva",
             "arb_Arab", "pes_Arab")


def commands(data: Path, pretrained: Path, workdir: Path, sources: list[str], steps: list[str], concept: str,
             seed: int) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`.

    >>> for line in commands(Path("D"), Path("P"), Path("W"), ["eng_Latn"], ["8"], "health", 0): print(line[4:7])
    ['--source_language=eng_Latn', '--concept=health', '--seed=0']
    """
    return [["experiments.steer", f"--model={pretrained}", f"--revisions={','.join(steps)}",
             f"--concepts={data / 'sib200.tsv.xz'}", f"--source_language={source}", f"--concept={concept}",
             f"--seed={seed}", f"--languages={','.join(LANGUAGES)}", f"--workdir={workdir / source}",
             *([] if source == sources[0] else ["--switch=none"])]  # one run switches every language on
            for source in sources]


def main() -> None:
    data, pretrained = Path(FLAGS.data), Path(FLAGS.pretrained)
    if not (data / "sib200.tsv.xz").exists():
        raise InputError(f"--data={data} lacks sib200.tsv.xz; give the folder that has it")
    if not pretrained.is_dir():
        raise InputError(f"--pretrained={pretrained} is no folder; run experiments.real_text first and give its "
                         "seed0/pretrain")
    unknown = [name for name in FLAGS.sources if name not in LANGUAGES]
    if unknown or not FLAGS.sources:
        raise InputError(
            f"--sources has {unknown[0] if unknown else 'nothing'!r}; choose among {', '.join(LANGUAGES)}")
    run_commands(commands(data, pretrained, Path(FLAGS.workdir), list(FLAGS.sources), list(FLAGS.steps),
                          FLAGS.concept, FLAGS.seed))


if __name__ == "__main__":
    run(main)
