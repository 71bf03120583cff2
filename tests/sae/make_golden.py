"""Tiny dictionaries saved by the libraries that define their layouts, with what those libraries make of fixed inputs.

    pip install .[peers]              # with a CPU build of torch also: pip uninstall torchvision diffusers
    python tests/sae/make_golden.py   # writes tests/sae/golden/TOOLKIT/KIND/, about 20 seconds

Each folder holds the two files of the toolkit, and `golden.safetensors`: inputs x, latents f, reconstructions y.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

D, M, K = 6, 10, 3
OUT = 5  # units that a transcoder writes, where it may differ
SCALE = 1.7
HOME = Path(__file__).parent / "golden"


def shaken(module, seed):
    """Every float parameter and buffer random, thresholds positive: no two names can be taken for each other."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            size = 0.5 if "bias" in name or name.startswith("b_") or "mag" in name else 1.0
            values = size * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(values.abs() if "threshold" in name else values)
    return module


def inputs(seed):
    return 1.5 * torch.randn(20, D, generator=torch.Generator().manual_seed(100 + seed))


def keep(folder, x, f, y):
    save_file({"x": x.contiguous(), "f": f.detach().contiguous(), "y": y.detach().contiguous()},
              folder / "golden.safetensors")


def dictionary_learning(home):
    from dictionary_learning.dictionary import AutoEncoderNew
    from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, matryoshka_batch_top_k, standard, top_k
    from dictionary_learning.utils import load_dictionary

    common = dict(steps=30_000, activation_dim=D, dict_size=M, layer=3, lm_name="tiny/model", device="cpu",
                  submodule_name="resid_post_layer_3", seed=0)
    makers = {
        "AutoEncoder": lambda: standard.StandardTrainer(**common),
        "AutoEncoderNew": lambda: standard.StandardTrainer(**common),
        "GatedAutoEncoder": lambda: gdm.GatedSAETrainer(**common),
        "AutoEncoderTopK": lambda: top_k.TopKTrainer(k=K, **common),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKTrainer(k=K, **common),
        "MatryoshkaBatchTopKSAE": lambda: matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer(
            k=K, group_fractions=[0.3, 0.3, 0.4], **common),
        "JumpReluAutoEncoder": lambda: jumprelu.JumpReluTrainer(**common),
    }
    for seed, (kind, make) in enumerate(makers.items()):
        folder = fresh(home / kind)
        trainer = make()
        config = json.loads(json.dumps(trainer.config)) | {"dict_class": kind}
        if kind == "AutoEncoderNew":  # of the April update, which no trainer of this release makes
            trainer.ae = AutoEncoderNew(D, M)
        shaken(trainer.ae, seed)
        torch.save({name: values.cpu() for name, values in trainer.ae.state_dict().items()}, folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": config}, indent=1))
        loaded, _ = load_dictionary(str(folder), "cpu")
        x = inputs(seed)
        f = loaded.encode(x)
        keep(folder, x, f, loaded.decode(f))


OLD = {  # as SAELens 3 wrote it, before architectures had classes of their own
    "d_in": D, "d_sae": M, "dtype": "float32", "device": "cpu", "model_name": "gpt2-small", "hook_point": None,
    "hook_point_layer": 3, "hook_point_head_index": None, "activation_fn_str": "relu", "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False, "normalize_activations": False, "prepend_bos": True, "context_size": 128,
    "dataset_path": "tiny", "sae_lens_training_version": None,
}


def saelens(home):
    import sae_lens as lens
    from sae_lens.saes.sae import SAEMetadata

    def about(hook, hook_out=None):
        said = {"model_name": "gpt2", "hook_name": hook, "context_size": 16}
        return SAEMetadata(sae_lens_version="6.54.12", sae_lens_training_version="6.54.12",
                           **said, **({"hook_name_out": hook_out} if hook_out else {}))

    post = "blocks.3.hook_resid_post"
    common = dict(d_in=D, d_sae=M)
    over = dict(metadata=about("blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out"), apply_b_dec_to_input=False,
                d_out=OUT, **common)
    here = dict(metadata=about(post), **common)
    made = {
        "standard": lens.StandardSAE(lens.StandardSAEConfig(**here)),
        "standard_uncentred": lens.StandardSAE(lens.StandardSAEConfig(
            metadata=about("blocks.3.attn.hook_z"), apply_b_dec_to_input=False, reshape_activations="hook_z",
            **common)),
        "gated": lens.GatedSAE(lens.GatedSAEConfig(**here)),
        "topk": lens.TopKSAE(lens.TopKSAEConfig(k=K, **here)),
        "topk_rescaled": lens.TopKSAE(lens.TopKSAEConfig(k=K, rescale_acts_by_decoder_norm=True, **here)),
        "jumprelu": lens.JumpReLUSAE(lens.JumpReLUSAEConfig(**here)),
        "transcoder": lens.Transcoder(lens.TranscoderConfig(**over)),
        "skip_transcoder": lens.SkipTranscoder(lens.SkipTranscoderConfig(**over)),
        "jumprelu_transcoder": lens.JumpReLUTranscoder(lens.JumpReLUTranscoderConfig(**over)),
        "scaled": lens.TopKSAE(lens.TopKSAEConfig(k=K, rescale_acts_by_decoder_norm=True,
                                                  normalize_activations="expected_average_only_in", **here)),
    }
    for seed, (kind, model) in enumerate(made.items()):
        folder = fresh(home / kind)
        shaken(model, seed).save_model(folder)
        model = type(model).load_from_disk(folder)
        x = inputs(seed)
        if kind == "standard_uncentred":
            model.turn_off_forward_pass_hook_z_reshaping()  # x has its heads side by side already
        if kind == "scaled":
            model.fold_W_dec_norm()  # and then the number, which leaves the choice of latents alone
            model.cfg.rescale_acts_by_decoder_norm = False
            model.fold_activation_norm_scaling_factor(SCALE)
        f = model.encode(x)
        keep(folder, x, f, model(x))

    for seed, (kind, hook) in enumerate((("old_standard", "blocks.4.hook_resid_pre"), ("old_topk", post))):
        folder = fresh(home / kind)
        model = made["topk"] if "topk" in kind else made["standard"]
        shaken(model, 20 + seed).save_model(folder)
        settings = OLD | {"hook_point": hook}
        if "topk" in kind:
            settings |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "architecture": "standard"}
        (folder / "cfg.json").write_text(json.dumps(settings))
        model = lens.SAE.load_from_disk(folder)
        x = inputs(20 + seed)
        keep(folder, x, model.encode(x), model(x))

    train = {
        "batchtopk": lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(k=K, **here)),
        "matryoshka_batchtopk": lens.MatryoshkaBatchTopKTrainingSAE(lens.MatryoshkaBatchTopKTrainingSAEConfig(
            k=K, matryoshka_widths=[3, 6, M], **here)),
    }
    for seed, (kind, model) in enumerate(train.items()):
        shaken(model, 30 + seed)
        model.save_model(fresh(home / f"{kind}_training"))
        folder = fresh(home / kind)
        model.save_inference_model(folder)
        model = lens.SAE.load_from_disk(folder)
        x = inputs(30 + seed)
        for one in (folder, home / f"{kind}_training"):
            keep(one, x, model.encode(x), model(x))


def sparsify(home):
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    common = dict(num_latents=M, k=K)
    made = {
        "topk/layers.3": SparseCoderConfig(**common),
        "skip/layers.3": SparseCoderConfig(skip_connection=True, **common),
        "transcoder/layers.3.mlp": SparseCoderConfig(transcode=True, **common),
        "skip_transcoder/layers.3.mlp": SparseCoderConfig(transcode=True, skip_connection=True, **common),
    }
    for seed, (kind, config) in enumerate(made.items()):
        folder = fresh(home / kind)
        shaken(SparseCoder(D, config), seed).save_to_disk(folder)
        model = SparseCoder.load_from_disk(folder)
        x = inputs(seed)
        found = model.encode(x)
        f = torch.zeros(len(x), M).scatter_(1, found.top_indices, found.top_acts)
        keep(folder, x, f, model(x).sae_out)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    for toolkit in (dictionary_learning, saelens, sparsify):
        with torch.no_grad():
            toolkit(HOME / toolkit.__name__)
        print(toolkit.__name__, "written", file=sys.stderr)
