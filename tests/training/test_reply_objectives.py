"""Dialogue objectives: masked perplexity equals Hugging Face's on the same weights and windows, in both layouts."""

import math

import jax
import numpy as np
import pytest
import torch
import transformers

from xlingjax.corpora.dialogues import Windows, reply_only, windows
from xlingjax.corpora.world import mini_dialogues
from xlingjax.errors import InputError
from xlingjax.models import load_model
from xlingjax.models.lstm import LstmConfig, init_lstm_pair
from xlingjax.models.pair import load_pair
from xlingjax.training.replies import (
    Epochs,
    Layout,
    check_layout,
    encode_windows,
    make_rows,
    padded_perplexity,
    plan_epoch,
    reply_losses,
    score_windows,
)
from xlingjax.training.tokenizer import train_tokenizer

TEXT, LABEL = 40, 12
RELATIVE = 1e-4  # of a perplexity against Hugging Face's
SMALL = {"vocab_size": 512, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
         "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Windows:
    return windows(mini_dialogues(("eng", "swh"), train=4, held_out=1).only("swh", "train"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(mini_dialogues(("eng", "swh"), train=20, held_out=1).corpus(), 400)


@pytest.fixture(scope="module")
def turns(found, tokenizer):
    return encode_windows(tokenizer, found, TEXT, LABEL)


def random(model, folder):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    config = transformers.GPT2Config(vocab_size=512, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return random(transformers.GPT2LMHeadModel(config), folder), load_model(folder)


def whole_loss(theirs, batches) -> tuple[float, int]:
    """Sum and number of Hugging Face's losses; its mean is over the targets of a batch."""
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, labels, targets in batches:
            loss = theirs(**inputs, labels=labels).loss
            total, count = total + float(loss) * targets, count + targets
    return total, count


@pytest.mark.parametrize("scored", ["reply", "all"])
def test_a_decoders_perplexity_is_hugging_faces(gpt2, turns, scored):
    theirs, ours = gpt2
    layout = Layout("decoder", TEXT, LABEL, scored)
    got = score_windows(ours.params, ours.config, layout, turns, rows=4)

    def batches():
        for context, reply in zip(turns.contexts, turns.replies):
            tokens = torch.tensor(np.concatenate([context, reply])).long()[None]
            labels = tokens.clone()
            if scored == "reply":
                labels[:, :len(context)] = -100
            yield {"input_ids": tokens}, labels, int((labels[:, 1:] >= 0).sum())

    total, count = whole_loss(theirs, batches())
    assert count == got.tokens.sum() and 10 < math.exp(total / count) < 5000
    assert math.exp(got.nats.sum() / count) == pytest.approx(math.exp(total / count), rel=RELATIVE)


@pytest.mark.parametrize("kind", ["BlenderbotSmall", pytest.param("Blenderbot", marks=pytest.mark.slow)])
def test_a_pairs_perplexity_is_hugging_faces(kind, turns, tmp_path):
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    theirs = random(getattr(transformers, f"{kind}ForConditionalGeneration")(config), tmp_path)
    ours = load_pair(tmp_path)
    got = score_windows(ours.params, ours.config, Layout("pair", TEXT, LABEL, start=ours.start), turns, rows=4)
    total, count = whole_loss(theirs, (
        ({"input_ids": torch.tensor(context).long()[None]}, torch.tensor(reply)[None].long(), len(reply))
        for context, reply in zip(turns.contexts, turns.replies)))
    assert count == got.tokens.sum()
    assert math.exp(got.nats.sum() / count) == pytest.approx(math.exp(total / count), rel=RELATIVE)


def test_the_originals_perplexity_counts_padding(gpt2, turns):
    theirs, ours = gpt2
    means = []
    with torch.no_grad():
        for start in range(0, len(turns.replies), 3):
            texts = [np.concatenate(pair) for pair in zip(turns.contexts, turns.replies)][start:start + 3]
            tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(text).long() for text in texts], batch_first=True)
            means.append(float(theirs(input_ids=tokens, labels=tokens).loss))
    wanted = math.exp(sum(means) / len(means))
    assert padded_perplexity(ours.params, ours.config, turns, rows=3) == pytest.approx(wanted, rel=RELATIVE)
    got = score_windows(ours.params, ours.config, Layout("decoder", TEXT, LABEL, "all"), turns)
    assert abs(wanted / math.exp(got.nats.sum() / got.tokens.sum()) - 1) > 10 * RELATIVE


def test_every_kind_scores_the_same_tokens_whatever_stands_before(found, tokenizer, turns):
    alone = encode_windows(tokenizer, reply_only(found), TEXT, LABEL)
    assert all(context.tolist() == [tokenizer.eos_token_id] for context in alone.contexts)
    for windowed in (turns, alone):
        for kind in ("decoder", "pair", "lstm"):
            layout = Layout(kind, TEXT, LABEL)
            for chosen, length in plan_epoch(layout, windowed, 4):
                batch = make_rows(layout, windowed, chosen, 4, length)
                place = batch["tokens"] if kind == "decoder" else batch["labels"]
                for row, i in enumerate(chosen):
                    assert place[row][batch["counted"][row]].tolist() == windowed.replies[i].tolist()


def test_limits_cut_old_turns_and_the_ends_of_replies(found, tokenizer):
    whole, cut = encode_windows(tokenizer, found), encode_windows(tokenizer, found, 9, 3)
    for long, short in zip(whole.contexts, cut.contexts):
        assert short.tolist() == long[-9:].tolist()
    for long, short, reply, characters in zip(whole.replies, cut.replies, found.replies, cut.characters):
        assert short.tolist() == long[:3].tolist() and len(long) > 3
        assert 0 < characters <= len(reply) and reply.startswith(tokenizer.decode(short.tolist())[:characters].strip())
    assert cut.cut == len(found) and whole.cut == 0
    assert whole.characters.tolist() == [len(reply) for reply in found.replies]


def test_an_epoch_has_every_window_once_and_others_in_another_order(turns):
    layout = Layout("decoder", 2 * TEXT, LABEL)
    batches = Epochs(layout, turns, 4, seed=0)
    epochs = []
    for epoch in range(2):
        seen = [batches._order(epoch)[place][0] for place in range(batches.steps)]
        assert sorted(i for part in seen for i in part) == list(range(len(turns.replies)))
        epochs.append([i for part in seen for i in part])
    assert epochs[0] != epochs[1] and len({length for _, length in batches._order(0)}) == 2
    np.testing.assert_array_equal(batches(3)["tokens"], Epochs(layout, turns, 4, seed=0)(3)["tokens"])


def test_padding_and_other_rows_change_no_windows_loss(turns):
    config = LstmConfig(vocab_size=512, width=8)
    params = init_lstm_pair(config, jax.random.key(0))
    layout = Layout("lstm", TEXT, LABEL)
    together = score_windows(params, config, layout, turns, rows=8)
    alone = make_rows(layout, turns, [5], 1, TEXT)
    nats, count = reply_losses(params, config, alone)
    assert float(nats[0]) == pytest.approx(together.nats[5], rel=1e-5) and int(count[0]) == together.tokens[5]


def test_what_does_not_fit_is_named(gpt2, tokenizer, found):
    with pytest.raises(InputError, match="72 tokens, but the model has 64 positions"):
        check_layout(gpt2[1].config, Layout("decoder", 60, LABEL))
    with pytest.raises(InputError, match="kind 'rnn' is unknown"):
        Layout("rnn")
    with pytest.raises(InputError, match="nothing else to score"):
        Layout("pair", scored="all")
    without = train_tokenizer(mini_dialogues(("eng",), train=20, held_out=1).corpus(), 400)
    without.eos_token = None
    with pytest.raises(InputError, match="no end token"):
        encode_windows(without, found)
