"""The flags by which experiments are told their checkpoints."""

from absl import flags

from xlingjax.analyses.sources import Source, expand, sources
from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.errors import InputError

FLAGS = flags.FLAGS
_T = TraceSettings()

flags.DEFINE_string("model", None, "hub repository or folder with checkpoints; "
                    "by default a small model is pre-trained on the embedded corpus")
flags.DEFINE_list("revisions", [], "tags or branches of --model, or sub-folders of it")
flags.DEFINE_list("subfolders", [], "folders of one revision of --model")
flags.DEFINE_string("template", None, "name of a revision with {step}, filled in from --step_list")
flags.DEFINE_list("step_list", [], "steps for --template")
flags.DEFINE_string("tokenizer", None, "repository or folder of the tokenizer; by default --model's")
flags.DEFINE_float("tokens_per_step", None, "tokens of one training step, where the hub does not say")
flags.DEFINE_enum("dtype", _T.dtype, ["float32", "bfloat16", "float16", "float64"], "of the forward pass")
flags.DEFINE_integer("batch_tokens", _T.batch_tokens, "the most tokens of a batch")

NAMED = ("revisions", "subfolders", "template", "step_list", "tokenizer", "tokens_per_step")


def checkpoints() -> tuple[Source, ...]:
    """The checkpoints that flags name."""
    if not FLAGS.model:
        raise InputError("--model is empty; name a repository or a folder, or leave it out")
    revisions = [name for name in FLAGS.revisions if name]
    if FLAGS.template is not None:
        bad = [step for step in FLAGS.step_list if not step.isdigit()]
        if bad or not FLAGS.step_list:
            raise InputError(f"--step_list is {','.join(FLAGS.step_list)!r}; give whole numbers for --template")
        revisions += expand(FLAGS.template, [int(step) for step in FLAGS.step_list])
    elif FLAGS.step_list:
        raise InputError("--step_list needs --template, for example --template=global_step{step}")
    return sources(FLAGS.model, revisions, FLAGS.subfolders, FLAGS.tokens_per_step)


def refuse_present(names: tuple[str, ...], why: str) -> None:
    """`InputError` for a flag that has been given and does not fit the others."""
    for name in names:
        if FLAGS[name].present:
            raise InputError(f"--{name} {why}")
