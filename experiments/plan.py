"""What a sweep over models, checkpoints, concepts and languages will take, before anything is downloaded.

    python -m experiments.plan

plans the whole sweep of Riemenschneider & Frank (2025): BLOOM-560m and 7b1 and their 257M decoder, 200
concepts in 16 languages, all checkpoints. The forward pass of each shape is compiled for the given mesh,
not run, and says what a device holds; hours follow from rates measured here on two layers of each shape,
or given for another machine:

    python -m experiments.plan --shapes=bloom-7b1 --mesh=data:4,model:8 --dtype=bfloat16 --device_gib=16 \\
        --teraflops=80 --billions_ranked=1

A mesh of more devices than there are is compiled for as many forced devices of the CPU (JAX_PLATFORMS=cpu
where there is an accelerator). On a CPU temporary bytes are those of float32, which bound those of 16 bits.
"""

import dataclasses
import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments._main import run
from experiments._shapes import BLOOM_560M
from xlingjax.analyses.sweep import Work, cost, operations_per_token
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.kernels.ranking import average_precision
from xlingjax.markdown import markdown
from xlingjax.models import Model, TransformerConfig, init_params
from xlingjax.models.families import FAMILIES
from xlingjax.models.placing import abstract_model, parameter_bytes
from xlingjax.responses import collect, plan
from xlingjax.sharding import AXES, batch_shards, device_memory, make_mesh

FLAGS = flags.FLAGS

SHAPES: dict[str, tuple[str, dict[str, int], int]] = {  # family, config, published checkpoints
    "bloom-560m": ("bloom", BLOOM_560M, 8),
    "bloom-1b1": ("bloom", {**BLOOM_560M, "hidden_size": 1536}, 8),
    "bloom-1b7": ("bloom", {**BLOOM_560M, "hidden_size": 2048}, 8),
    "bloom-7b1": ("bloom", {**BLOOM_560M, "hidden_size": 4096, "n_layer": 30, "n_head": 32}, 8),
    "xglm-257m": ("xglm", {"vocab_size": 256_008, "d_model": 512, "num_layers": 24, "attention_heads": 16,
                           "ffn_dim": 4096}, 44),
}
PAPER = ("bloom-560m", "bloom-7b1", "xglm-257m")

flags.DEFINE_list("shapes", list(PAPER), f"models, of {', '.join(SHAPES)}")
flags.DEFINE_string("mesh", "data:1", "devices along data, fsdp and model, for example data:4,model:8")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "of parameters and forward pass")
flags.DEFINE_integer("concepts", 200, "concepts", lower_bound=1)
flags.DEFINE_integer("languages", 16, "languages", lower_bound=1)
flags.DEFINE_integer("sentences", 1700, "of each concept in each language, positives and negatives", lower_bound=2)
flags.DEFINE_integer("tokens", 30, "of a sentence, on average", lower_bound=2)
flags.DEFINE_boolean("shared", False, "whether all concepts are labelled on the same sentences, as SIB-200's topics")
flags.DEFINE_integer("checkpoints", None, "of each model; by default as many as are published", lower_bound=1)
flags.DEFINE_integer("batch_tokens", 8192, "the most tokens of a batch", lower_bound=1)
flags.DEFINE_float("device_gib", None, "memory of a device; by default that of the devices here")
flags.DEFINE_float("teraflops", None, "a device's rate in the forward pass, 1e12 operations a second; measured here "
                   "by default")
flags.DEFINE_float("billions_ranked", None, "1e9 responses a device ranks in a second; measured here by default")


class Line(NamedTuple):
    """One model of the sweep."""

    shape: str
    checkpoints: int
    held: str  # on a device
    tokens: float  # of a checkpoint
    forward: float  # hours of all checkpoints
    ranking: float
    disk: float  # bytes of responses, one checkpoint
    cell: float  # bytes
    never: float  # bytes of every token's responses, one checkpoint
    teraflops: float


def config_of(shape: str) -> tuple[str, TransformerConfig]:
    family, options, _ = SHAPES[shape]
    return family, FAMILIES[family].read_config(options)


def sample(count: int) -> Tokens:
    """Sentences of half to one and a half times the average length."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(max(1, FLAGS.tokens // 2), FLAGS.tokens + FLAGS.tokens // 2 + 1, count)
    ids = tuple(rng.integers(10, 200, length).astype(np.int32) for length in lengths)
    return Tokens(ids, tuple(np.zeros(len(one), bool) for one in ids))


def measured_teraflops(config: TransformerConfig) -> float:
    """Of one device here in `collect`'s step, by two layers of the shape with few pieces."""
    small = dataclasses.replace(config, layers=2, vocab_size=256)
    model = Model(init_params(small, jax.random.key(0), FLAGS.dtype), small, None, "random", "random")
    rows = max(8, FLAGS.batch_tokens // (2 * FLAGS.tokens))
    tokens = sample(rows)
    read = int(tokens.lengths.sum())
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        collect(model, tokens, batch_tokens=FLAGS.batch_tokens, show=False)
        seconds.append(time.perf_counter() - begin)
    return operations_per_token(small, FLAGS.tokens) * read / min(seconds) / 1e12


def measured_ranking() -> float:
    """Billions of responses that one device here ranks in a second."""
    rng = np.random.default_rng(0)
    responses = jax.numpy.asarray(rng.standard_normal((FLAGS.sentences, 20_000), np.float32))
    labels = rng.random((FLAGS.sentences, 1)) < 0.2
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(average_precision(responses, labels))
        seconds.append(time.perf_counter() - begin)
    return responses.size / min(seconds) / 1e9


def line(shape: str, work: Work, mesh: Any, ranked: float) -> Line:
    """Compiles one shape for the mesh and reckons its sweep."""
    family, config = config_of(shape)
    count = FLAGS.checkpoints or SHAPES[shape][2]
    devices = math.prod(mesh.shape.values())
    model = abstract_model(config, compiled_dtype(), mesh if devices > 1 else None, name=shape, family=family)
    # What does not fit is said in the table, beside the models that do.
    planned = plan(model, sample(512), batch_tokens=FLAGS.batch_tokens, measure="memory", device_limit=2**62)
    parts = (parameter_bytes(config, FLAGS.dtype, mesh), planned.temporary_bytes or 0,
             2 * planned.output_bytes // batch_shards(model.params))
    limit = device_memory() if FLAGS.device_gib is None else FLAGS.device_gib * 2**30
    held = " + ".join(f"{part / 1e9:.2f}" for part in parts)
    if limit is not None and sum(parts) > limit:
        held += f": does not fit in {limit / 1e9:.1f}"
    teraflops = FLAGS.teraflops or measured_teraflops(config)
    one = cost(config, work)
    hours = count / devices / 3600
    return Line(shape, count, held, work.distinct * work.tokens, one.operations / teraflops / 1e12 * hours,
                one.ranked / ranked / 1e9 * hours, one.response_bytes, one.cell_bytes, one.token_bytes, teraflops)


def compiled_dtype() -> str:
    """The type to compile in: a CPU would copy 16-bit weights to float32, which no accelerator does."""
    return "float32" if jax.default_backend() == "cpu" else FLAGS.dtype


def table(lines: list[Line]) -> str:
    header = ["model", "checkpoints", "on a device: parameters + temporary + responses (GB)", "tokens a checkpoint",
              "10^12 operations a second", "forward (h)", "ranking (h)", "responses on disk (GB a checkpoint)",
              "one cell (GB)", "every token's (TB a checkpoint)"]
    rows = [[one.shape, str(one.checkpoints), one.held, f"{one.tokens / 1e6:,.1f} M", f"{one.teraflops:.3g}",
             f"{one.forward:,.1f}", f"{one.ranking:,.1f}", f"{one.disk / 1e9:,.0f}", f"{one.cell / 1e9:.2f}",
             f"{one.never / 1e12:,.1f}"] for one in lines]
    total = sum(one.forward + one.ranking for one in lines)
    return (f"{markdown(header, rows, right=(1, *range(3, len(header))))}\n"
            f"all {sum(one.checkpoints for one in lines)} checkpoints: {total:,.1f} hours")


def _wanted_devices(text: str) -> int:
    """Devices that a mesh names; what is wrong with it is said by `make_mesh`."""
    sizes = [part.partition(":")[2] for part in text.split(",") if part.partition(":")[0] in AXES]
    return math.prod(int(size) for size in sizes if size.isdigit()) or 1


def main() -> None:
    unknown = [shape for shape in FLAGS.shapes if shape not in SHAPES]
    if unknown or not FLAGS.shapes:
        raise InputError(f"--shapes has {unknown[0] if unknown else 'nothing'!r}; choose among {', '.join(SHAPES)}")
    for name in ("device_gib", "teraflops", "billions_ranked"):
        value = FLAGS[name].value
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name}={value:g}; give a number above 0")
    jax.config.update("jax_num_cpu_devices", max(1, _wanted_devices(FLAGS.mesh)))  # before a device is touched
    mesh = make_mesh(FLAGS.mesh)
    work = Work(FLAGS.concepts, FLAGS.languages, FLAGS.sentences, FLAGS.tokens, FLAGS.shared)
    ranked = FLAGS.billions_ranked or measured_ranking()
    lines = [line(shape, work, mesh, ranked) for shape in FLAGS.shapes]
    given = "given" if FLAGS.teraflops else f"measured here ({jax.devices()[0].device_kind}, one device)"
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    print(f"{work.concepts} concepts x {work.languages} languages x {work.sentences:,} sentences of {work.tokens:g} "
          f"tokens, {work.distinct:,} sentences read; {axes}, {FLAGS.dtype}; rates {given}, "
          f"{ranked:.3g} x 10^9 responses ranked a second\n")
    print(table(lines))


if __name__ == "__main__":
    run(main)
