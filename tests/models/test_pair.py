"""Encoder-decoders equal Hugging Face's at every site; the encoder alone is an ordinary model."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from tolerances import BATCHING, PARITY, close

from xlingjax.errors import InputError
from xlingjax.models import Edit, TransformerConfig, load_model
from xlingjax.models.pair import EncoderDecoder, PairConfig, init_pair, load_pair
from xlingjax.models.taps import neuron_sites

T5 = {"vocab_size": 97, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2,
      "num_heads": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
      "decoder_start_token_id": 0}  # fmt: skip
BART = {"vocab_size": 97, "d_model": 24, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "max_position_embeddings": 50,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip
CASES = {
    "mt5": ("MT5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5": ("T5", T5 | {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
    "bart": ("Bart", BART), "mbart": ("MBart", BART | {"scale_embedding": True}),
    "blenderbot": ("Blenderbot", BART | {"scale_embedding": True}),
    "blenderbot_small": ("BlenderbotSmall", BART | {"scale_embedding": True})}


def modules(name: str, half: str) -> dict[str, tuple[str, str]]:
    """Site -> module of Hugging Face and whether its input or output."""
    if "t5" in name:
        layer = f"{half}.block.{{layer}}.layer"
        mlp = f"{layer}.{2 if half == 'decoder' else 1}"
        gated = name == "mt5"
        found = {"attn.q": (f"{layer}.0.SelfAttention.q", "out"), "attn.heads": (f"{layer}.0.SelfAttention.o", "in"),
                 "attn.out": (f"{layer}.0.SelfAttention.o", "out"), "attn.in": (f"{layer}.0.SelfAttention.q", "in"),
                 "mlp.in": (f"{mlp}.DenseReluDense.{'wi_0' if gated else 'wi'}", "in"),
                 "mlp.up": (f"{mlp}.DenseReluDense.{'wi_1' if gated else 'wi'}", "out"),
                 "mlp.act": (f"{mlp}.DenseReluDense.wo", "in"), "mlp.down": (f"{mlp}.DenseReluDense.wo", "out")}
        if gated:
            found["mlp.gate"] = (f"{mlp}.DenseReluDense.wi_0", "out")
        if half == "decoder":
            found |= {"cross.q": (f"{layer}.1.EncDecAttention.q", "out"),
                      "cross.in": (f"{layer}.1.EncDecAttention.q", "in"),
                      "cross.heads": (f"{layer}.1.EncDecAttention.o", "in"),
                      "cross.out": (f"{layer}.1.EncDecAttention.o", "out")}  # fmt: skip
        return found
    layer = f"model.{half}.layers.{{layer}}"
    found = {"attn.q": (f"{layer}.self_attn.q_proj", "out"), "attn.heads": (f"{layer}.self_attn.out_proj", "in"),
             "attn.in": (f"{layer}.self_attn.q_proj", "in"), "attn.out": (f"{layer}.self_attn.out_proj", "out"),
             "mlp.in": (f"{layer}.fc1", "in"), "mlp.up": (f"{layer}.fc1", "out"), "mlp.act": (f"{layer}.fc2", "in"),
             "mlp.down": (f"{layer}.fc2", "out")}
    if half == "decoder":
        found |= {f"cross.{site}": (f"{layer}.encoder_attn.{part}", place) for site, part, place in (
            ("in", "q_proj", "in"), ("q", "q_proj", "out"), ("heads", "out_proj", "in"), ("out", "out_proj", "out"))}
    return found


def build(name: str, folder):
    """A random model with no bias 0 and no norm 1, saved as Hugging Face does."""
    kind, options = CASES[name]
    config = getattr(transformers, f"{kind}Config")(**options, attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim == 1 or "shared" in key or "embed" in key else parameter.shape[1] ** -0.5
            plain = parameter.ndim == 1 and "norm" in key.lower() and key.endswith("weight")
            parameter.copy_(scale * noise + float(plain))
    model.save_pretrained(folder)
    return model


def batch():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(5, 97, (2, 17)), rng.integers(5, 97, (2, 9))
    mask, own = np.ones((2, 17), bool), np.ones((2, 9), bool)
    mask[1, 12:], own[0, 7:] = False, False
    return tokens, targets, mask, own


FAST = ("mt5", "mbart")  # the others run with the slow tests


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow, pytest.mark.promise]) for name in CASES])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, build(request.param, folder), folder


@pytest.mark.promise
def test_every_site_of_both_halves(case) -> None:
    name, theirs, folder = case
    tokens, targets, mask, own = batch()
    held: dict[str, dict[int, np.ndarray]] = {}
    hooks = []
    for half in ("encoder", "decoder"):
        layers = 3 if half == "encoder" else 2
        for site, (module, place) in modules(name, half).items():
            for layer in range(layers):
                def keep(_, inputs, output, site=f"{half}.{site}", layer=layer, place=place):
                    value = inputs[0] if place == "in" else output
                    held.setdefault(site, {})[layer] = value.detach().numpy().copy()

                hooks.append(theirs.get_submodule(module.format(layer=layer)).register_forward_hook(keep))
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask).long(),
                     decoder_input_ids=torch.tensor(targets), decoder_attention_mask=torch.tensor(own).long())
    for hook in hooks:
        hook.remove()
    ours = load_pair(folder)
    logits, captured = ours(tokens, targets, mask, own, capture=tuple(held))
    close(np.asarray(logits)[own], out.logits.numpy()[own], PARITY["float32"], f"{name} logits")
    for site, by in held.items():
        real = mask if site.startswith("encoder") else own
        wanted = np.stack([by[i].reshape(*real.shape, -1) for i in sorted(by)])
        assert np.abs(wanted).max() > 0.01
        close(np.asarray(captured[site])[:, real], wanted[:, real], PARITY["float32"], f"{name} {site}")
    assert set(captured) <= set(ours.sites)


def test_the_encoder_alone_is_a_model(case) -> None:
    name, theirs, folder = case
    tokens, _, mask, _ = batch()
    with torch.no_grad():
        wanted = theirs.get_encoder()(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask).long())[0]
    for model in (load_model(folder), load_pair(folder).encoder):
        close(np.asarray(model(tokens, mask).hidden)[mask], wanted.numpy()[mask], PARITY["float32"], name)
    assert model.config.head == "" and not model.config.causal


def test_edits_of_one_half_reach_the_other(case) -> None:
    _, _, folder = case
    ours = load_pair(folder)
    tokens, targets, mask, own = batch()
    plain, _ = ours(tokens, targets, mask, own)
    for site, edit in (("encoder.resid", Edit(scale=0.5)), ("decoder.cross.out", Edit(value=0.0))):
        changed, captured = ours(tokens, targets, mask, own, capture=("decoder.resid",), edits={site: edit})
        assert np.abs(np.asarray(changed - plain)[own]).max() > 1e-3
    nothing, _ = ours(tokens, targets, mask, own, edits={"encoder.resid": Edit(scale=1.0)})
    np.testing.assert_array_equal(nothing, plain)


def test_padding_of_either_side_changes_nothing(case) -> None:
    _, _, folder = case
    ours = load_pair(folder)
    tokens, targets, mask, own = batch()
    whole, _ = ours(tokens, targets, mask, own)
    alone, _ = ours(tokens[1:, :12], targets[1:], mask[1:, :12], own[1:])
    close(whole[1], alone[0], BATCHING * max(1, np.abs(alone[0]).max()))


ENCODER = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32, causal=False, head="")


def test_neurons_of_a_decoder_have_cross_attention() -> None:
    decoder = dataclasses.replace(ENCODER, causal=True, cross=True, head="lm")
    assert neuron_sites(decoder) == (
        "attn.q", "attn.k", "attn.v", "attn.out", "cross.q", "cross.out", "mlp.up", "mlp.down")


def test_what_does_not_fit_is_named(tmp_path) -> None:
    decoder = dataclasses.replace(ENCODER, causal=True, cross=True, head="lm")
    with pytest.raises(InputError, match="differ in vocabulary or width"):
        PairConfig(ENCODER, dataclasses.replace(decoder, vocab_size=12))
    with pytest.raises(InputError, match="cross=True"):
        PairConfig(ENCODER, ENCODER)
    config = PairConfig(ENCODER, decoder)
    pair = EncoderDecoder(init_pair(config, jax.random.key(0)), config)
    ones = np.ones((2, 3), int)
    with pytest.raises(InputError, match="2 rows are read and 1 written"):
        pair(ones, ones[:1])
    with pytest.raises(InputError, match="'resid' is of neither half"):
        pair(ones, ones, capture=("resid",))
    with pytest.raises(InputError, match="'cross.out' is not in this model"):
        pair(ones, ones, capture=("encoder.cross.out",))
    transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(InputError, match="is no encoder-decoder; load it with load_model"):
        load_pair(tmp_path)


def test_a_head_of_its_own_is_seen_whatever_the_config_says(tmp_path) -> None:
    """As mT5's published files have it, whose config newer libraries write as tied."""
    build("mt5", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    shared = tensors["shared.weight"]
    found = []
    for head in (shared.copy(), shared[::-1].copy()):
        save_file({**tensors, "lm_head.weight": head}, path, metadata={"format": "pt"})
        ours = load_pair(tmp_path)
        found.append((ours.config.decoder.tied, np.asarray(ours(*batch()[:2])[0])))
    assert [tied for tied, _ in found] == [True, False]
    np.testing.assert_allclose(found[1][1], found[0][1][..., ::-1], atol=1e-4)


def test_a_logit_bias_that_is_not_zero_is_refused(tmp_path) -> None:
    model = build("mbart", tmp_path)
    model.final_logits_bias += 0.5
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="final_logits_bias of .* is not zero"):
        load_pair(tmp_path)
