"""When do language-specific neurons become shared ones? Traces a pre-training run, checkpoint by checkpoint.

    python -m experiments.trace

pre-trains a small model on the embedded corpus and traces it (about 4 minutes on 2 cores); it ends
with a table and `runs/trace/report.html`. The same on published checkpoints:

    python -m experiments.trace --model=bigscience/bloom-560m-intermediate \\
        --revisions=global_step1000,global_step10000,global_step100000 \\
        --tokenizer=bigscience/bloom-560m --concepts=FOLDER --workdir=runs/bloom

FOLDER holds concepts as ml-selfcond has them, or is a SIB-200 table (.tsv, .tsv.xz) or a folder of
CoNLL-U treebanks. The same command on the same --workdir goes on where it stopped.
"""

import dataclasses
import sys
from pathlib import Path

from absl import flags

from experiments import _sources
from experiments._checkpoints import refuse_present
from experiments._embedded import CONFIG, UNSEEN, pretrained
from experiments._main import run
from experiments._results import read_result
from experiments._sources import NAMED, named
from xlingjax import hosts
from xlingjax.analyses.language_neurons import METHODS
from xlingjax.analyses.language_probe import ProbeSettings
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.analyses.trace import trace, trace_part
from xlingjax.analyses.trace.settings import TraceSettings, require_fit
from xlingjax.analyses.trace.tables import expertise_table, summary_markdown, summary_table
from xlingjax.analyses.trace.usable import usable
from xlingjax.corpora import Corpus, mini_world
from xlingjax.corpora.world import TRACED
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.models import Model
from xlingjax.report.align_page import align_section
from xlingjax.report.page import Section
from xlingjax.report.steer_page import steer_section
from xlingjax.report.trace_page import write_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_sources)
_T, _P = TraceSettings(), ProbeSettings()

flags.DEFINE_string("workdir", "runs/trace", "folder of the run; resumes what is there")
flags.DEFINE_list("unseen", [], "languages that pre-training never saw, traced as negative controls")
flags.DEFINE_integer("permutations", _T.permutations, "draws of the joint null")
flags.DEFINE_integer("halvings", _T.halvings, "random halvings of the documents, averaged")
flags.DEFINE_integer("bootstraps", _T.bootstraps, "draws of documents for pairwise intervals")
flags.DEFINE_integer("minimum", _T.minimum, "positives and negatives a concept needs in every language")
flags.DEFINE_integer("ladder_pairs", None, "language pairs for the rungs without anchors; "
                     f"{_T.ladder_pairs} by default, fewer on the embedded corpus")
flags.DEFINE_boolean("first_token", True, "whether the first real token counts in the pooling")
flags.DEFINE_boolean("shuffle_labels", False, "control: permuted labels, in which nothing is to be found")
flags.DEFINE_boolean("probe", True, "whether to probe for language identity")
flags.DEFINE_integer("probe_tokens", None, f"tokens a language for the probe; {_P.tokens} by default, "
                     "fewer on the embedded corpus")
flags.DEFINE_enum("language_neurons", "none", ["none", *METHODS], "take the neurons of single languages away at each "
                  "checkpoint and measure the damage to every language; none by default, for its time")
flags.DEFINE_string("steering", None, "result.nc of experiments.steer, shown in the report as well")
flags.DEFINE_string("alignment", None, "result.nc of experiments.align, shown in the report as well")
flags.DEFINE_string("mesh", "", "devices along data, fsdp and model, for example data:4,model:2; "
                    "one device by default")
flags.DEFINE_string("shard", None, "i/n: compute every n-th checkpoint from the i-th on, beside other jobs on "
                    "the same --workdir; the same command without it then joins them")
flags.DEFINE_string("coordinator", None, "address:port of the first of several hosts that share one mesh, or auto on "
                    "Cloud TPU VMs and under SLURM")
flags.DEFINE_string("process", None, "i/n: this is host i of n, with --coordinator=address:port")
flags.DEFINE_integer("join_seconds", hosts.JOIN, "how long hosts wait for each other at the start", lower_bound=1)
flags.DEFINE_integer("seed", 0, "of pre-training, halves, permutations and probes")
flags.DEFINE_float("dose", 0.15, "share of nouns that the embedded corpus's languages have in common")
flags.DEFINE_enum("topics", "matched", ["matched", "unlike"],
                  "topic distributions of the embedded corpus's languages")
flags.DEFINE_integer("pretrain_steps", 512, "steps of the embedded corpus's model")

FIRST_TRACED = 64  # of the embedded run, beside step 0, to end within minutes
SMALLER = {"probe_tokens": 250, "ladder_pairs": 2}  # on the embedded corpus, to end within minutes
EMBEDDED = ("dose", "topics", "pretrain_steps")  # flags of the one way to run, refused in the other
OWN_FORMS = 16  # of the 45 that mini_world says enough of to trace


def embedded(workdir: Path, wanted: TraceSettings) -> tuple[tuple[Source, ...], Corpus, tuple[str, ...]]:
    """Pre-trains on the embedded corpus; its checkpoints, its probe sentences, its unseen language."""
    refuse_present(NAMED, "needs --model, the checkpoints to trace")
    chosen = FLAGS.languages or UNSEEN
    unseen = tuple(FLAGS.unseen) or tuple(name for name in UNSEEN if name in chosen)
    training = mini_world("train", dose=FLAGS.dose, topics=FLAGS.topics)
    probe = mini_world("probe", dose=FLAGS.dose)
    probe = probe.with_concepts(traced_concepts(probe))
    if FLAGS.languages:
        training = training.language(*FLAGS.languages)
        probe = probe.language(*FLAGS.languages)
    # What the trace would refuse after minutes of pre-training is refused before them.
    require_fit(Model({}, CONFIG, None, name="the embedded corpus's model", family="bloom"), wanted)
    usable(probe, unseen, wanted.minimum)
    keep = lambda steps: [step for step in steps if step == 0 or step >= FIRST_TRACED]
    return pretrained(workdir, say, keep, training, unseen), probe, unseen


def traced_concepts(probe: Corpus) -> list[str]:
    """Topics, features, every traced noun with a shared form, and the most frequent own forms."""
    least = dict(zip(probe.concepts, probe.counts()[0].min(axis=0)))
    of = lambda *groups: [name for name, group in zip(probe.concepts, probe.groups) if group in groups]
    own = sorted(set(of("own form")) & set(TRACED), key=lambda name: (-least[name], name))[:OWN_FORMS]
    chosen = {*own, *(set(of("shared form")) & set(TRACED)), *of("topic", "feature")}
    return [name for name in probe.concepts if name in chosen]


def published() -> tuple[tuple[Source, ...], Corpus, tuple[str, ...]]:
    """The checkpoints and the corpus that flags name, and the unseen languages."""
    refuse_present(EMBEDDED, "is of the embedded corpus; leave it out with --model")
    return *named(), tuple(FLAGS.unseen)


def _probe_settings() -> ProbeSettings:
    return dataclasses.replace(_P, tokens=_chosen("probe_tokens", _P.tokens))


def _chosen(name: str, default: int) -> int:
    """A flag, or its default, which is smaller on the embedded corpus."""
    given = FLAGS[name].value
    if given is not None:
        return int(given)
    return SMALLER[name] if FLAGS.model is None else default


def read_shard(text: str | None) -> tuple[int, int] | None:
    """(part, parts) of `--shard`."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--shard={text}; give i/n with 1 <= i <= n, for example 3/16")
    if FLAGS.model is None:
        raise InputError("--shard needs --model: the embedded corpus's run is one job")
    return int(part), int(parts)


def join_hosts() -> None:
    """Starts several hosts as one, where flags say so."""
    if FLAGS.coordinator is None:
        if FLAGS.process is not None:
            raise InputError("--process needs --coordinator, the address of the first host")
        return
    if FLAGS.model is None:
        raise InputError("--coordinator needs --model: the embedded corpus's run is one host's")
    hosts.start(FLAGS.coordinator, FLAGS.process, FLAGS.join_seconds)
    if not FLAGS.mesh:
        raise InputError("--coordinator needs --mesh, over which the hosts' devices are laid, for example data:8")


def other_sections() -> list[Section]:
    """Sections of the page from other experiments' results on the same checkpoints."""
    shown = {"alignment": ("align", align_section), "steering": ("steer", steer_section)}
    return [make(read_result(flag, experiment)) for flag, (experiment, make) in shown.items()
            if FLAGS[flag].value is not None]


def say(text: str) -> None:
    if not hosts.writes():
        return
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir = Path(FLAGS.workdir)
    join_hosts()
    settings = TraceSettings(
        sites=tuple(FLAGS.sites) or None, pool=FLAGS.pool, k=FLAGS.k,
        permutations=FLAGS.permutations, halvings=FLAGS.halvings, bootstraps=FLAGS.bootstraps,
        minimum=FLAGS.minimum, ladder_pairs=_chosen("ladder_pairs", _T.ladder_pairs),
        first_token=FLAGS.first_token, shuffle=FLAGS.shuffle_labels, dtype=FLAGS.dtype, mesh=FLAGS.mesh,
        batch_tokens=FLAGS.batch_tokens, seed=FLAGS.seed,
        probe=_probe_settings() if FLAGS.probe else None,
        language_neurons="" if FLAGS.language_neurons == "none" else FLAGS.language_neurons)
    more = other_sections()
    part = read_shard(FLAGS.shard)
    found, corpus, unseen = embedded(workdir, settings) if FLAGS.model is None else published()
    settings = dataclasses.replace(settings, unseen=unseen)
    if part is not None:
        made = trace_part(found, corpus, settings, workdir / "trace", *part, tokenizer=FLAGS.tokenizer, say=say)
        print(f"shard {FLAGS.shard}: {len(made)} checkpoints ({', '.join(made)}); when all shards have ended, the "
              "same command without --shard joins them")
        return
    tree = trace(found, corpus, settings, workdir / "trace", tokenizer=FLAGS.tokenizer, say=say)
    if not hosts.writes():
        return
    write_tree(workdir / "result.nc", tree)
    write_whole(workdir / "summary.csv", summary_table(tree, as_csv=True).encode())
    write_whole(workdir / "summary.md", summary_markdown(tree).encode())
    expertise_table(tree, corpus, workdir / "trace", workdir / "expertise.csv")
    page = write_report(tree, workdir, more)
    print(summary_table(tree))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
