"""The same work done by others, to be timed beside ours: PyTorch, scikit-learn, and the way of ml-selfcond."""

import functools
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SITES = {"attn.qkv": "query_key_value", "attn.out": "self_attention.dense",
         "mlp.up": "dense_h_to_4h", "mlp.down": "dense_4h_to_h"}  # of BLOOM: ours, and the module's ending
PADDED, BATCH = 128, 30  # tokens and sentences of a batch in ml-selfcond, by default


def torch_average_precision(torch: Any, responses: Any, labels: Any, block: int = 1000) -> Any:
    """Tensor [C, N]: all neurons of a block and one concept at a time, ties included, where the tensors lie."""
    scores = torch.empty((labels.shape[1], responses.shape[1]), device=responses.device)
    truth = labels.T.contiguous()
    for start in range(0, responses.shape[1], block):
        values, order = torch.sort(responses[:, start:start + block].T.contiguous(), dim=1, descending=True)
        places = torch.arange(1, values.shape[1] + 1, device=values.device)
        differs = torch.nn.functional.pad(values[:, 1:] != values[:, :-1], (0, 1), value=True)
        ends = torch.where(differs, places, values.shape[1])
        last = ends.flip(1).cummin(1).values.flip(1)
        for concept, label in enumerate(truth):
            shown = label[order]
            hits = shown.cumsum(1).gather(1, last - 1)
            scores[concept, start:start + block] = (shown * (hits / last)).sum(1) / label.sum()
    return scores


def torch_probe(torch: Any, x: Any, y: Any, classes: int, l2: float) -> Any:
    """Tensor [D + 1, classes]: one probe by torch's own L-BFGS with a line search, to where float32 ends."""
    weight = torch.zeros((x.shape[1], classes), device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=1000, tolerance_grad=1e-3, tolerance_change=1e-9,
                               history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Any:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum") + l2 / 2 * (weight**2).sum()
        loss.backward()
        return loss

    search.step(closure)
    return torch.cat([weight, bias[None]]).detach()


def scikit_learn_average_precision(metrics: Any, responses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[C, N]: one call for each neuron and concept."""
    return np.array([[metrics.average_precision_score(label, response) for response in responses.T]
                     for label in labels.T])


def hooked_maxima(torch: Any, model: Any, batches: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Site -> tensor [L, S, F]: PyTorch as a careful user writes it, the maximum taken in the hook.

    Args:
        model: of Hugging Face, with the head that is not run.
        batches: tensors tokens int[B, T] and mask bool[B, T], where the model lies.
    """
    pooled: dict[str, list[Any]] = {site: [] for site in SITES}
    mask: Any = None

    def hook(site: str) -> Callable:
        def pool(module: Any, inputs: Any, output: Any) -> None:
            pooled[site].append(output.masked_fill(~mask[..., None], -torch.inf).amax(1))
        return pool

    handles = [module.register_forward_hook(hook(site)) for _, site, module in _modules(model)]
    with torch.inference_mode():
        for tokens, real in batches:
            mask = real
            model.transformer(tokens, attention_mask=mask)
    for handle in handles:
        handle.remove()
    layers = len(handles) // len(SITES)
    return {site: torch.cat([torch.stack(found[i:i + layers]) for i in range(0, len(found), layers)], 1)
            for site, found in pooled.items()}


def hooked_generation(
    torch: Any, model: Any, forced: np.ndarray, value: np.ndarray, count: int, new: int,
) -> np.ndarray:
    """int[count, new]: Hugging Face's own generation with neurons of the first MLP map forced by hooks.

    Args:
        model: a BLOOM of Hugging Face.
        forced: bool[L, F], which. value: float32[L, F], to what.
    """
    handles = []
    modules = [module for _, site, module in _modules(model) if site == "mlp.up"]
    for module, mask, wanted in zip(modules, forced, value):
        where, to = (torch.from_numpy(one).to(model.device) for one in (mask, wanted))
        to = to.to(model.dtype)

        def force(module: Any, inputs: Any, output: Any, where: Any = where, to: Any = to) -> Any:
            return torch.where(where, to, output)

        handles.append(module.register_forward_hook(force))
    torch.manual_seed(0)
    with torch.inference_mode():
        prompt = torch.ones((count, 1), dtype=torch.long, device=model.device)
        made = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=0.8, top_k=0,
            max_new_tokens=new, min_new_tokens=new)
    for handle in handles:
        handle.remove()
    return made[:, 1:].cpu().numpy()


def selfcond_responses(torch: Any, model: Any, sentences: Sequence[np.ndarray], folder: Path) -> np.ndarray:
    """[S, N], as ml-selfcond has them: padded to 128, every tensor to the host, the maximum over padding
    too, one pickle a batch, read back through lists.

    Args:
        model: of Hugging Face; its head runs, as there.
        sentences: the token ids of each, at most 128.
        folder: of the pickles, of which those there are overwritten.
    """
    held: dict[str, np.ndarray] = {}

    def keep(name: str, module: Any, inputs: Any, output: Any) -> None:
        held[name] = output.detach().numpy()

    handles = [module.register_forward_hook(functools.partial(keep, name)) for name, _, module in _modules(model)]
    files = []
    with torch.no_grad():
        for start in range(0, len(sentences), BATCH):
            few = sentences[start:start + BATCH]
            tokens, mask = np.zeros((len(few), PADDED), int), np.zeros((len(few), PADDED), int)
            for row, ids in enumerate(few):
                tokens[row, :len(ids)], mask[row, :len(ids)] = ids, 1
            model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask))
            files.append(folder / f"{start:05d}.pkl")
            files[-1].write_bytes(pickle.dumps({name: values.max(axis=1) for name, values in held.items()}))
    for handle in handles:
        handle.remove()
    found: dict[str, list] = {}
    for file in files:
        for name, values in pickle.loads(file.read_bytes()).items():  # our own, written just now
            found.setdefault(name, []).append(values.tolist())
    return np.concatenate([np.concatenate(values) for values in found.values()], axis=1).astype(np.float32)


def _modules(model: Any) -> Iterator[tuple[str, str, Any]]:
    """(name, our site, module) of every module that is a site, in order."""
    for name, module in model.named_modules():
        for site, ending in SITES.items():
            if name.endswith(ending):
                yield name, site, module


def numpy_alignment(x: np.ndarray, y: np.ndarray, neighbours: int = 10) -> dict[str, float]:
    """The measures of alignment of one pair of languages as they are usually written, one at a time."""
    centred = [z - z.mean(0) for z in (x, y)]
    norm = lambda a, b: float(np.linalg.norm(a.T @ b))
    out = {"cka": norm(centred[1], centred[0]) ** 2 / (norm(centred[0], centred[0]) * norm(centred[1], centred[1]))}
    n = len(x)
    grams = [z @ z.T for z in centred]
    for gram in grams:
        np.fill_diagonal(gram, 0)

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        rows, others = a.sum(1), b.sum(1)
        return float((a * b).sum() + rows.sum() * others.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ others)

    scale = unbiased(grams[0], grams[0]) * unbiased(grams[1], grams[1])
    out["cka_debiased"] = float(unbiased(*grams) / np.sqrt(scale))
    standard = [z / z.std(0) for z in centred]
    out["anc"] = float(np.abs((standard[0] * standard[1]).mean(0)).mean())
    units = [[z / np.linalg.norm(z, axis=1, keepdims=True) for z in pair] for pair in ((x, y), centred)]
    raw, apart = (a @ b.T for a, b in units)
    own = np.arange(n)
    out["mexa"] = float(((raw.argmax(1) == own) & (raw.argmax(0) == own)).mean())
    near = lambda matrix: np.sort(matrix, 1)[:, -neighbours:].mean(1)
    csls = 2 * raw - near(raw)[:, None] - near(raw.T)
    for name, matrix in (("", raw), ("centred_", apart), ("csls_", csls)):
        rank = (np.argsort(-matrix, 1) == own[:, None]).argmax(1)
        out |= {f"{name}at_1": float((rank < 1).mean()), f"{name}at_5": float((rank < 5).mean())}
    sets = []
    for z in units[0]:
        similar = z @ z.T
        np.fill_diagonal(similar, -np.inf)
        sets.append(np.argsort(-similar, 1)[:, :neighbours])
    out["mutual"] = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(*sets)]) / neighbours)
    return out


def numpy_correlations(x: np.ndarray, y: np.ndarray, count: int) -> float:
    """SVCCA of one pair of languages: two singular value decompositions, then one of their product."""
    left = [np.linalg.svd(z - z.mean(0), full_matrices=False)[0][:, :count] for z in (x, y)]
    return float(np.linalg.svd(left[0].T @ left[1], compute_uv=False).mean())


def dictionary_learning_training(
    torch: Any, trainer: Any, batches: Sequence[np.ndarray], latents: int, options: dict[str, Any], warm_up: int,
    seed: int, first: dict[str, np.ndarray],
) -> Any:
    """One of dictionary_learning's trainers after a step on each batch, with its dictionary as `.ae`.

    Args:
        trainer: its class. first: parameters it starts from.
        options: what is its own, `k` or `l1_penalty` and `sparsity_warmup_steps`, and `lr`.
    """
    made = trainer(
        steps=len(batches), activation_dim=batches[0].shape[1], dict_size=latents, layer=0, lm_name="planted",
        warmup_steps=warm_up, seed=seed, device="cpu", submodule_name="resid_post_layer_0", **options)
    made.ae.load_state_dict({name: torch.from_numpy(np.array(one)) for name, one in first.items()})
    for step, x in enumerate(batches):
        made.update(step, torch.from_numpy(x))
    return made


def save_dictionary_learning(torch: Any, trainer: Any, folder: Path) -> None:
    """As that library's `trainSAE` saves it."""
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))
