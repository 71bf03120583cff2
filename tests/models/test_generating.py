"""Generation equals Hugging Face's and a full forward pass, row by row, under edits of each row's own."""

import jax
import numpy as np
import pytest
import torch
import transformers

from experiments import _parity_cases as families
from experiments import _parity_oracle as reference
from xlingjax.errors import InputError
from xlingjax.models import Edit, Model, TransformerConfig, init_params, load_model
from xlingjax.models.generating import generate_tokens, positions
from xlingjax.models.sampling import kept

DECODERS = [case for case in families.CASES if "MaskedLM" not in case.model]
FAST = ("bloom-6-heads", "xglm", "llama-3.1")  # the others' texts are compared with the slow tests
CONFIG = TransformerConfig(vocab_size=61, layers=3, width=16, heads=4, mlp_width=32, fused="by_head")
GROUPED = TransformerConfig(vocab_size=61, layers=2, width=16, heads=4, key_value_heads=2, mlp_width=32,
                            positions="rotary", norm="rms", gated=True, activation="silu", tied=False)  # fmt: skip
LEARNED = TransformerConfig(vocab_size=61, layers=2, width=16, heads=4, mlp_width=32, positions="learned",
                            max_length=40, position_offset=2)  # fmt: skip


def model(config=CONFIG, seed=0) -> Model:
    """Random, with weights so large that likely tokens stand apart."""
    params = jax.tree.map(lambda leaf: 4 * leaf if leaf.ndim > 1 else leaf, init_params(config, jax.random.key(seed)))
    return Model(params, config, None, "", "random")


def ragged(rows=4, longest=9, vocabulary=61):
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, vocabulary, (rows, longest))
    return tokens, np.arange(longest) < rng.integers(1, longest + 1, rows)[:, None]


@pytest.mark.promise
@pytest.mark.parametrize("case", [
    pytest.param(case, marks=[] if case.name in FAST else pytest.mark.slow) for case in DECODERS], ids=str)
@pytest.mark.parametrize("options", [
    {}, {"repetition_penalty": 1.7}, {"no_repeat_ngram": 2}, {"repetition_penalty": 0.6, "no_repeat_ngram": 3}],
    ids=["greedy", "penalty", "bigrams", "both"])  # fmt: skip
def test_greedy_is_what_hugging_face_generates(case, options, tmp_path) -> None:
    theirs = reference.build(case)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    tokens, mask = ragged(vocabulary=ours.config.vocab_size)
    end = 7
    made = ours.generate(tokens, mask, max_new_tokens=24, stop=[end], **options)
    names = {"no_repeat_ngram": "no_repeat_ngram_size"}
    for row in range(len(tokens)):  # one at a time, because their penalties also count padding
        ids = torch.tensor(tokens[row][mask[row]][None])
        wanted = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=end,
            pad_token_id=0, bos_token_id=1, **{names.get(name, name): value for name, value in options.items()},
        )[0, ids.shape[1]:].numpy()  # fmt: skip
        np.testing.assert_array_equal(made.tokens[row][: made.lengths[row]], wanted)


def edit(config, rows) -> dict[str, Edit]:
    """Another one in every row, of two sites; the first row's changes nothing."""
    rng = np.random.default_rng(1)
    value = rng.standard_normal((config.layers, rows, 1, config.mlp_width)).astype(np.float32)
    mask = rng.random(value.shape) < 0.2
    mask[:, 0] = False
    add = rng.standard_normal((1, rows, 1, config.width)).astype(np.float32)
    add[:, 0] = 0
    return {"mlp.up": Edit(mask=mask, value=value), "resid": Edit(add=add)}


@pytest.mark.promise
@pytest.mark.parametrize("config", [CONFIG, GROUPED, LEARNED], ids=["alibi", "rotary", "learned"])
@pytest.mark.parametrize("which", ["every", "prompt", "generated", "last"])
def test_the_cache_is_a_full_forward_pass_under_the_same_edit(config, which) -> None:
    """P15: what is captured while generating is what the whole text gives, and the tokens follow from it."""
    one, new = model(config), 12
    tokens, mask = ragged()
    edits = {site: Edit(**{**vars(each), "where": positions(which, mask.sum(1).max(), new)})
             for site, each in edit(config, 4).items()}  # fmt: skip
    made = one.generate(tokens, mask, edits, max_new_tokens=new, capture=("mlp.up", "resid"))
    prompt = int(mask.sum(1).max())
    whole, real = np.zeros((4, prompt + new), int), np.ones((4, prompt + new), bool)
    for row in range(4):
        count = int(mask[row].sum())
        whole[row, prompt - count: prompt], real[row, : prompt - count] = tokens[row][mask[row]], False
    whole[:, prompt:] = made.tokens
    out = one(whole, real, capture=("mlp.up", "resid"), edits=edits)
    for site in ("mlp.up", "resid"):
        np.testing.assert_allclose(made.captured[site], out.captured[site][:, :, prompt:], atol=2e-5)
    logits = np.asarray(out.logits())[:, prompt - 1: -1]
    np.testing.assert_array_equal(logits.argmax(-1), made.tokens)
    reached = (positions(which, prompt, new) & real).sum(1)
    for site in edits:
        np.testing.assert_array_equal(made.edited[site], reached)


@pytest.mark.promise
def test_an_edit_that_changes_nothing_changes_nothing_and_others_do() -> None:
    one = model()
    tokens, mask = ragged()
    plain = one.generate(tokens, mask, max_new_tokens=12, seeds=range(4), temperature=1.0)
    same = one.generate(tokens, mask, {"mlp.up": Edit(scale=1.0)}, max_new_tokens=12, seeds=range(4), temperature=1.0)
    np.testing.assert_array_equal(plain.tokens, same.tokens)
    assert (same.edited["mlp.up"] == mask.sum(1) + 12).all()
    other = one.generate(tokens, mask, edit(CONFIG, 4), max_new_tokens=12, seeds=range(4), temperature=1.0)
    np.testing.assert_array_equal(plain.tokens[0], other.tokens[0])  # this row's own edit is empty
    assert all((plain.tokens[row] != other.tokens[row]).any() for row in (1, 2, 3))


@pytest.mark.promise
def test_a_seed_gives_its_text_whatever_the_batch() -> None:
    one, options = model(), {"max_new_tokens": 20, "temperature": 1.0, "stop": [5]}
    several = one.generate([[9, 4]], seeds=range(6), **options)
    for seed in (0, 3, 5):
        alone = one.generate([[9, 4]], seeds=seed, **options)
        np.testing.assert_array_equal(alone.tokens[0], several.tokens[seed])
        assert alone.lengths[0] == several.lengths[seed]
    assert len({row.tobytes() for row in several.tokens}) == 6, "a seed that changes nothing is a defect"
    shuffled = one.generate([[9, 4]], seeds=[4, 1, 0], **options)
    np.testing.assert_array_equal(shuffled.tokens, several.tokens[[4, 1, 0]])


@pytest.mark.promise
def test_another_concept_k_language_value_seed_or_setting_compiles_nothing() -> None:
    one = model()
    tokens, mask = ragged()
    run = lambda edits, **options: one.generate(tokens, mask, edits, max_new_tokens=6, top_p=0.8, **options)
    run(edit(CONFIG, 4), temperature=1.0, top_k=5, seeds=range(4))
    before = generate_tokens._cache_size()
    for seed in range(3):
        run(edit(CONFIG, 4), temperature=0.5 + seed, top_k=2 + seed, seeds=range(seed, seed + 4))
    run({site: Edit(**{**vars(each), "value": each.value}) for site, each in edit(CONFIG, 4).items()},
        temperature=[0.1, 0.2, 0.3, 1], seeds=9)  # fmt: skip
    assert generate_tokens._cache_size() == before


@pytest.mark.parametrize("top_k, top_p", [(0, 0.9), (3, 1.0), (5, 0.5), (1, 0.1), (100, 1e-6)])
def test_filters_keep_what_hugging_face_keeps(top_k, top_p) -> None:
    scores = np.random.default_rng(2).standard_normal((6, 40)).astype(np.float32) * 3
    given = torch.tensor(scores)
    if top_k:
        given = transformers.TopKLogitsWarper(top_k)(None, given)
    given = transformers.TopPLogitsWarper(top_p)(None, given)
    ours = kept(scores, np.full(6, top_k), np.full(6, top_p, np.float32))
    np.testing.assert_array_equal(np.asarray(ours), np.isfinite(given.numpy()))


def test_tokens_are_drawn_with_the_probabilities_of_the_model() -> None:
    one, temperature = model(), 1.3
    out = one([[4, 8]])
    wanted = np.asarray(jax.nn.softmax(out.logits()[0, -1] / temperature))
    drawn = one.generate([[4, 8]], seeds=range(4000), temperature=temperature, max_new_tokens=1).tokens[:, 0]
    found = np.bincount(drawn, minlength=61) / 4000
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / 4000)


def test_a_row_ends_at_its_stop_token_and_the_others_go_on() -> None:
    one = model()
    free = one.generate([[4]], seeds=range(8), temperature=1.0, max_new_tokens=30, stop=())
    assert (free.lengths == 30).all()
    end = int(free.tokens[0, 3])
    cut = one.generate([[4]], seeds=range(8), temperature=1.0, max_new_tokens=30, stop=[end], capture=("resid",))
    for row in range(8):
        at = np.flatnonzero(free.tokens[row] == end)
        length = at[0] + 1 if len(at) else 30
        assert cut.lengths[row] == length
        np.testing.assert_array_equal(cut.tokens[row, :length], free.tokens[row, :length])
        assert (cut.tokens[row, length:] == end).all() and np.isnan(cut.captured["resid"][:, row, length:]).all()
        assert np.isfinite(cut.captured["resid"][:, row, :length]).all()


ENCODER = TransformerConfig(vocab_size=61, layers=1, width=16, heads=4, mlp_width=32, causal=False, head="masked")


@pytest.mark.parametrize("config, arguments, said", [
    (ENCODER, {}, "is no decoder"),
    (CONFIG, {"max_new_tokens": 0}, "max_new_tokens is 0"),
    (CONFIG, {"prompts": None}, "has no tokenizer"),
    (CONFIG, {"mask": [[False, False]]}, "prompt 0 has no token"),
    (LEARNED, {"max_new_tokens": 39}, "exceed the model's 40 positions"),
    (CONFIG, {"seeds": [0, 1], "temperature": [1, 1, 1]}, "2 seeds, 3 temperature"),
    (CONFIG, {"seeds": -1}, "seeds must be"),
    (CONFIG, {"temperature": -1}, "temperature is -1; give a number of at least 0"),
    (CONFIG, {"top_p": 0}, "top_p is 0; give a number above 0 and at most 1"),
    (CONFIG, {"top_p": float("nan")}, "top_p is nan"),
    (CONFIG, {"top_k": 1.5}, "numbers that are whole"),
    (CONFIG, {"repetition_penalty": 0}, "repetition_penalty is 0"),
    (CONFIG, {"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
    (CONFIG, {"capture": ("mlp.gate",)}, "site 'mlp.gate' is not in this model"),
    (CONFIG, {"capture": ("attn.pattern",)}, "cannot be captured while generating"),
    (CONFIG, {"edits": {"mlp.gate": Edit(scale=0.0)}}, "site 'mlp.gate' is not in this model"),
    (CONFIG, {"edits": {"resid": Edit(add=np.zeros((1, 1, 2, 16)))}}, "has 2 tokens"),
    (CONFIG, {"edits": {"resid": Edit(scale=0.0, where=np.ones((1, 3), bool))}}, "the slots of prompt and new tokens"),
    (CONFIG, {"edits": {"resid": Edit(mask=np.ones(16, bool))}}, "a mask without a value"),
])  # fmt: skip
def test_what_cannot_be_is_said(config, arguments, said) -> None:
    with pytest.raises(InputError) as error:
        model(config).generate(**({"prompts": [[4, 5]], "max_new_tokens": 5} | arguments))
    assert said in str(error.value)
