"""Fine-tuning a decoder beside Hugging Face's Trainer on torch: the same weights, batches, optimiser and updates."""

import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments._machine import cores
from experiments._timing import Row, in_turns, reference, torch_device
from xlingjax.models import load_model
from xlingjax.training.fitting import programs
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.training.replies import ReplyLoss, reply_losses

FLAGS = flags.FLAGS  # --seed, of `experiments.benchmark`
RATE, DECAY = 1e-3, 0.01


class Shape(NamedTuple):
    """A GPT-2 and its batches."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    rows: int
    length: int
    steps: int


def fitting(shape: Shape) -> list[Row]:
    """Tokens a second of both; `apart` is the difference of their losses after the last update, in nats a token."""
    torch, transformers = reference("torch"), reference("transformers")
    accelerate = reference("accelerate", "peers")  # which the Trainer needs
    if torch is None or transformers is None or accelerate is None or torch_device(torch) != "cpu":
        return []
    torch.set_num_threads(cores())
    rng = np.random.default_rng(FLAGS.seed)
    batches = rng.integers(0, shape.vocabulary, (shape.steps, shape.rows, shape.length)).astype(np.int32)
    config = transformers.GPT2Config(
        vocab_size=shape.vocabulary, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
        n_positions=shape.length, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(FLAGS.seed)
        model = transformers.GPT2LMHeadModel(config)
        model.save_pretrained(folder)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        ours = load_model(folder)
        optimiser = OptimiserSettings(RATE, 0, "constant", DECAY, 1.0, 0.999)
        made = programs(ReplyLoss(ours.config), optimiser, shape.steps, 1, "float32")
        places = np.ones(batches.shape[1:], bool)
        of = lambda tokens: {"tokens": tokens, "mask": places, "counted": places}

        def mine() -> Any:
            state = made.initial(jax.tree.map(jax.numpy.copy, ours.params))
            for step, tokens in enumerate(batches):
                state, loss, _ = made.step(state, None, of(tokens), jax.random.key(step))
            return jax.block_until_ready(state["params"])

        def theirs() -> Any:
            model.load_state_dict(start)
            rows = [{"input_ids": row, "labels": row} for row in torch.tensor(batches.reshape(-1, shape.length)).long()]
            arguments = transformers.TrainingArguments(
                folder, per_device_train_batch_size=shape.rows, max_steps=shape.steps, learning_rate=RATE,
                weight_decay=DECAY, max_grad_norm=1.0, lr_scheduler_type="constant", optim="adamw_torch",
                save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
                dataloader_pin_memory=False, seed=FLAGS.seed)
            trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
            trainer._get_train_sampler = lambda *_: None  # the batches in their order
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()

        (a, params), (b, _) = in_turns(mine, theirs)
        model.eval()
        with torch.no_grad():
            ids = torch.tensor(batches[0]).long()
            loss = float(model(input_ids=ids, labels=ids).loss)
        nats, count = reply_losses(params, ours.config, of(batches[0]))
    tokens = batches.size
    work = (f"{shape.steps} updates of {shape.rows} x {shape.length} tokens, GPT-2 of {shape.layers} layers x "
            f"{shape.width} x {shape.vocabulary:,} pieces, {tokens / a:.3g} tokens a second")
    return [Row(work, "Hugging Face Trainer, the same batches", a, b,
                f"{abs(float(nats.sum()) / int(count.sum()) - loss):.0e}")]
