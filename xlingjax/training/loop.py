"""Pre-training: from a corpus to model checkpoints, resumable to the same bytes."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from transformers import PreTrainedTokenizerFast

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.model import Model
from xlingjax.models.transformer import init_params
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.languages import hold_out
from xlingjax.training.objectives import Objective, row_losses
from xlingjax.training.optimiser import OptimiserSettings, make_optimiser, schedule
from xlingjax.training.plan import Plan
from xlingjax.training.settings import Settings, checkpoint_steps
from xlingjax.training.stepping import take_steps
from xlingjax.training.streams import Held, Stream, held_rows, leave_out, token_texts
from xlingjax.training.tokenizer import SPECIAL, train_tokenizer

TIMED = 20  # steps whose median tells how long the rest will take


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model kept during training: `load_model(workdir, revision=str(step))` reads it."""

    step: int
    tokens: int
    folder: Path


def pretrain(
    corpus: Corpus,
    config: TransformerConfig,
    settings: Settings,
    workdir: str | Path,
    *,
    family: str = "",
    validation: Corpus | None = None,
    show: Callable[[str], None] | None = None,
) -> list[Checkpoint]:
    """Trains a tokenizer and a model on a corpus, and keeps the model at powers of two steps.

    Run again on the same folder, it resumes from the last saved step and ends with the same bytes
    as an unbroken run (same machine, versions and devices). SIGTERM and SIGINT save the step before
    they end it.

    Args:
        corpus: the text; `settings.leave_out` names the languages training never sees.
        config: the model; its `vocab_size` is replaced by the tokenizer's.
        settings: all else that decides the result.
        workdir: where the run lives.
        family: name of the model's family, kept in the checkpoints.
        validation: held-out text; by default `settings.held_out` of the corpus's documents.
        show: gets the plan before training starts; a progress bar then runs on stderr.

    Returns:
        The checkpoints, step 0 (untrained) first.

    Raises:
        InputError: text, model and settings do not fit, the folder holds another experiment or is
        in
            use, the disk is full, or the loss is not finite.
    """
    if not any(text.strip() for text in corpus.texts):
        raise InputError(f"corpus {corpus.name!r} has no text to train on")
    if validation is None:
        corpus, validation = hold_out(corpus, settings.held_out, settings.seed)
    trained = leave_out(corpus, settings.leave_out)
    tokenizer = train_tokenizer(
        trained,
        settings.vocabulary,
        temperature=settings.temperature,
        objective=settings.objective,
        seed=settings.seed,
    )
    config = _fitted(config, settings, len(tokenizer))
    mark = tokenizer.eos_token_id if settings.objective == "causal" else tokenizer.bos_token_id
    texts = token_texts(trained, tokenizer, settings.length)
    stream = Stream(
        texts, settings.rows, settings.length, mark, settings.temperature, settings.seed
    )
    held = held_rows(
        token_texts(validation, tokenizer, settings.length),
        settings.rows,
        settings.length,
        mark,
        tokenizer.pad_token_id,
        settings.evaluated,
    )
    objective = Objective(settings.objective, tokenizer.mask_token_id, len(SPECIAL))
    about = {
        "settings": _identity(settings),
        "model": config.to_dict(),
        "family": family,
        "data": {"text": corpus.fingerprint, "validation": validation.fingerprint},
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
        },
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    with RunFolder(workdir) as folder:
        folder.claim(about)
        run = _Run(config, settings, objective, stream, held, tokenizer, family, folder)
        run.train(show)
        return [
            Checkpoint(step, step * settings.batch_tokens, path)
            for step, path in folder.checkpoints().items()
        ]


def _identity(settings: Settings) -> dict[str, Any]:
    """The settings; a kind of optimiser that is the default is left out: runs from before it was known resume."""
    found = dataclasses.asdict(settings)
    if settings.optimiser.kind == OptimiserSettings.kind:
        del found["optimiser"]["kind"]
    return found


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, in order of steps.

    Each has `step`, `tokens`, and after step 0 `learning_rate`, `loss` (mean of the training losses
    since the line before, nats per target) and `gradient_norm`; lines of checkpoints also
    `held_out_loss` and `bits_per_character`, language -> number.

    Raises:
        InputError: no training run in the folder.
    """
    folder = RunFolder(workdir)
    if not (folder.path / "metrics.jsonl").exists():
        raise InputError(f"{folder.path} holds no training run; give the workdir of one")
    return folder.metrics()


def _fitted(config: TransformerConfig, settings: Settings, vocabulary: int) -> TransformerConfig:
    """The config with the tokenizer's vocabulary, checked against the objective and the row
    length."""
    if config.causal != (settings.objective == "causal"):
        raise InputError(
            f"objective {settings.objective!r} does not fit a model with causal={config.causal}; "
            f"a decoder is trained with 'causal', an encoder with 'masked'"
        )
    if config.max_length and settings.length > config.max_length:
        raise InputError(
            f"length {settings.length} exceeds the model's {config.max_length} positions; "
            f"take a shorter length or a model with more positions"
        )
    if not config.head:
        raise InputError("the model has no output head; pre-training needs one")
    return dataclasses.replace(config, vocab_size=vocabulary)


def make_step(
    config: TransformerConfig,
    objective: Objective,
    optimiser: optax.GradientTransformation,
) -> Callable:
    """One update: (state, tokens [B, T], key) -> (state, loss, gradient norm). Pure, to be
    jitted."""

    def loss_of(params: dict, tokens: jax.Array, key: jax.Array) -> jax.Array:
        nll, count = row_losses(
            params, config, objective, tokens, jnp.ones(tokens.shape, bool), key
        )
        return nll.sum() / jnp.maximum(count.sum(), 1).astype(nll.dtype)

    def step(state: dict, tokens: jax.Array, key: jax.Array) -> tuple[dict, jax.Array, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(state["params"], tokens, key)
        with jax.numpy_dtype_promotion("standard"):  # optax's AdamW fails under strict
            updates, optimised = optimiser.update(gradients, state["optimiser"], state["params"])
            params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimiser": optimised}, loss, optax.tree.norm(gradients)

    return step


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run compiles, and the abstract state it works on.

    `initial`: key -> state; `step`: (state, tokens, key) -> (state, loss, gradient norm);
    `row_losses`: (params, tokens, mask, key) -> (losses, counts) of rows.
    """

    initial: Callable
    state_shape: Any
    step: Callable
    row_losses: Callable


@functools.lru_cache(maxsize=4)
def compile_programs(
    config: TransformerConfig,
    objective: Objective,
    optimiser_settings: OptimiserSettings,
    steps: int,
    rows: int,
    length: int,
) -> Programs:
    """Compiles the programs of a run; other runs of the same shape in this process share them."""
    optimiser = make_optimiser(optimiser_settings, steps)

    @jax.jit
    def initial(key: jax.Array) -> dict:
        params = init_params(config, key)
        return {"params": params, "optimiser": optimiser.init(params)}

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(initial, key)
    batch = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    step = jax.jit(make_step(config, objective, optimiser), donate_argnums=0)
    return Programs(
        initial,
        state,
        step.lower(state, batch, key).compile(),
        jax.jit(lambda params, *batch: row_losses(params, config, objective, *batch)),
    )


class _Run:
    """One run's programs, data and folder."""

    def __init__(
        self,
        config: TransformerConfig,
        settings: Settings,
        objective: Objective,
        stream: Stream,
        held: Held,
        tokenizer: PreTrainedTokenizerFast,
        family: str,
        folder: RunFolder,
    ) -> None:
        self.config, self.settings, self.stream, self.held = config, settings, stream, held
        self.tokenizer, self.family, self.folder = tokenizer, family, folder
        self.key = jax.random.key(settings.seed)
        self.rate = schedule(settings.optimiser, settings.steps)
        self.kept = set(checkpoint_steps(settings.steps, settings.checkpoint_every))
        self.programs = compile_programs(
            config,
            objective,
            settings.optimiser,
            settings.steps,
            settings.rows,
            settings.length,
        )
        self.losses: list[float] = []  # of the steps since the last line of metrics
        self.norm = math.nan
        self.begun = 0.0  # when the last step was taken
        self.paces: list[float] = []

    def train(self, show: Callable[[str], None] | None) -> None:
        """Trains from the last saved step to the last one."""
        done = self.folder.saved_step()
        plan = Plan.of(
            self.settings, self.stream, self.held, self.programs.state_shape, self.programs.step
        )
        plan.check_disk(self.folder.path)
        if show is not None:
            show(str(plan) + (f"\nresuming   after step {done:,}" if done is not None else ""))
        self.folder.forget_after(done)
        if done is None:
            done, self.state = 0, self.programs.initial(jax.random.fold_in(self.key, 0))
            self._write(0)
        else:
            self.state, self.losses = self.folder.load_state(self.programs.state_shape)
        self.show = show
        take_steps(self, done, self.settings.steps, label="train", show=show is not None)

    def over(self) -> bool:
        return False

    def take(self, step: int) -> tuple[jax.Array, jax.Array]:
        self._tell_pace(step)
        tokens, _ = self.stream.batch(step)
        self.state, loss, norm = self.programs.step(self.state, tokens, jax.random.fold_in(self.key, step))
        return loss, norm

    def _tell_pace(self, step: int) -> None:
        """Says once, after some steps, how long the rest will take."""
        now = time.perf_counter()
        self.paces += [now - self.begun] if self.begun else []
        self.begun = now
        if self.show is not None and len(self.paces) == TIMED:
            pace = float(np.median(self.paces))  # steps that write a checkpoint do not count
            self.show(f"time       {pace:.3f} s a step, {pace * (self.settings.steps - step + 1):.0f} s to go")

    def due(self, step: int) -> bool:
        return step in self.kept or step % self.settings.save_every == 0

    def keep(self, step: int, stopping: bool) -> None:
        if self.due(step):
            self._write(step)
        else:
            self.folder.save_state(step, self.state, self.losses)

    def settle(self, step: int, made: tuple[jax.Array, jax.Array]) -> str:
        value, self.norm = (float(one) for one in made)
        if not (math.isfinite(value) and math.isfinite(self.norm)):
            self._diverged(step, f"loss {value}, gradient norm {self.norm}")
        self.losses.append(value)
        return f"loss {value:.3f}"

    def _diverged(self, step: int, what: str) -> None:
        last = max(self.folder.checkpoints(), default=None)
        raise InputError(
            f"training diverged at step {step} ({what}); lower the learning rate "
            f"{self.settings.optimiser.learning_rate:g} or warm up longer, in another workdir; "
            "the last good "
            f"checkpoint is {last if last is not None else 'none'} in "
            f"{self.folder.path / 'checkpoints'}"
        )

    def _write(self, step: int) -> None:
        """Writes what is due at a step, the state last."""
        state = self.state
        line: dict[str, Any] = {"step": step, "tokens": step * self.settings.batch_tokens}
        if step:
            line |= {
                "learning_rate": float(self.rate(step - 1)),
                "gradient_norm": self.norm,
                "loss": math.fsum(self.losses) / len(self.losses),
            }
        if step in self.kept:
            line |= self._evaluate(step, state["params"])
            self.folder.save_checkpoint(
                step,
                Model(
                    state["params"],
                    self.config,
                    self.tokenizer,
                    name=f"{self.folder.path.name}@{step}",
                    family=self.family,
                ),
            )
        self.folder.report(line)
        self.losses = []
        self.folder.save_state(step, state, self.losses)

    def _evaluate(self, step: int, params: dict) -> dict[str, dict[str, float]]:
        """Held-out loss of each language in nats per target, and in bits per character of its
        text."""
        held = self.held
        nll = np.zeros(len(held.languages))
        count = np.zeros(len(held.languages))
        key = jax.random.key(0)  # the same tokens are hidden at every checkpoint
        for number, (tokens, mask, rows) in enumerate(zip(held.tokens, held.mask, held.rows)):
            losses, counts = self.programs.row_losses(
                params, tokens, mask, jax.random.fold_in(key, number)
            )
            real = rows >= 0
            np.add.at(nll, rows[real], np.asarray(losses, np.float64)[real])
            np.add.at(count, rows[real], np.asarray(counts)[real])
        loss = nll / np.maximum(count, 1)
        if not np.isfinite(loss).all():
            self._diverged(step, "the held-out loss is not finite")
        bits = loss / math.log(2) * held.tokens_per_character
        return {
            "held_out_loss": dict(zip(held.languages, loss.tolist())),
            "bits_per_character": dict(zip(held.languages, bits.tolist())),
        }
