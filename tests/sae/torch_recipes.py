"""What training has to do, written in torch from the papers: losses by autograd, and whole steps."""

import torch


class Jump(torch.autograd.Function):
    """z where above the threshold; slope in the threshold by a rectangle."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx, g):
        z, threshold = ctx.saved_tensors
        near = ((z - threshold).abs() < ctx.bandwidth / 2).float()
        return g * (z > threshold), (-(threshold / ctx.bandwidth) * near * g).sum(0), None


class Step(torch.autograd.Function):
    """1 where above the threshold."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).float()

    @staticmethod
    def backward(ctx, g):
        z, threshold = ctx.saved_tensors
        near = ((z - threshold).abs() < ctx.bandwidth / 2).float()
        return torch.zeros_like(z), (-(1 / ctx.bandwidth) * near * g).sum(0), None


def loss(p: dict, kind: str, x, y, *, sparsity=0.0, k=0, groups=(), bandwidth=0.0, target_l0=0.0, dead=None, aux_k=0,
         aux_weight=0.0, centred=True):
    """(loss, latents) with parameters named as ours, "encoder/kernel" [D, M] and so on."""
    square = lambda a: a.pow(2).sum(-1).mean()
    pre = ((x - p["decoder/bias"]) if centred else x) @ p["encoder/kernel"]
    z = pre + p["encoder/bias"]
    skip = x @ p["skip"] if "skip" in p else 0
    decode = lambda f: f @ p["decoder/kernel"] + p["decoder/bias"] + skip
    positive = torch.relu(z)
    if kind == "relu":
        return square(y - decode(positive)) + sparsity * positive.sum(-1).mean(), positive
    if kind == "gated":
        f = (z > 0) * torch.relu(torch.exp(p["log_scale"]) * pre + p["magnitude_bias"])
        held = positive @ p["decoder/kernel"].detach() + p["decoder/bias"].detach() + (
            x @ p["skip"].detach() if "skip" in p else 0)
        return square(y - decode(f)) + sparsity * positive.sum(-1).mean() + square(y - held), f
    if kind == "jumprelu":
        f = Jump.apply(positive, p["threshold"], bandwidth)
        l0 = Step.apply(positive, p["threshold"], bandwidth).sum(-1).mean()
        return square(y - decode(f)) + sparsity * ((l0 / target_l0 - 1) ** 2 if target_l0 else l0), f
    if kind == "topk":
        top = positive.topk(k, dim=-1)
        f = torch.zeros_like(positive).scatter(-1, top.indices, top.values)
    else:
        flat = positive.flatten()
        top = flat.topk(k * len(x))
        f = torch.zeros_like(flat).scatter(-1, top.indices, top.values).reshape(positive.shape)
    if kind == "matryoshka":
        prefixes = [torch.where(torch.arange(f.shape[1]) < end, f, 0) for end in groups]
        total = sum(square(y - decode(prefix)) for prefix in prefixes) / len(groups)
    else:
        total = square(y - decode(f))
    residual = (y - decode(f)).detach()
    if dead is not None and bool(dead.any()) and aux_weight:
        among = torch.where(dead, positive, -torch.inf)
        top = among.topk(min(aux_k, int(dead.sum())), dim=-1)
        explained = torch.zeros_like(positive).scatter(-1, top.indices, top.values) @ p["decoder/kernel"]
        total = total + aux_weight * square(residual - explained) / square(residual - residual.mean(0))
    return total, f


def train(p: dict, kind: str, batches, *, rate, beta_1, clip, dead_after=0, **options) -> dict:
    """The parameters after one step a batch: gradients across the decoder's rows, clipping, Adam, rows of norm 1."""
    p = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in p.items()}
    adam = torch.optim.Adam(p.values(), lr=rate, betas=(beta_1, 0.999))
    quiet = torch.zeros(p["encoder/bias"].shape, dtype=torch.long)
    for x in batches:
        x = torch.tensor(x)
        with torch.no_grad():
            fired = (loss(p, kind, x, x, **options)[1] > 0).any(0)
            quiet = torch.where(fired, 0, quiet + len(x))
        dead = quiet >= dead_after if dead_after else None
        adam.zero_grad()
        loss(p, kind, x, x, dead=dead, **options)[0].backward()
        rows = p["decoder/kernel"]
        with torch.no_grad():
            unit = rows / rows.norm(dim=1, keepdim=True)
            rows.grad -= (rows.grad * unit).sum(1, keepdim=True) * unit
        if clip:
            torch.nn.utils.clip_grad_norm_(p.values(), clip)
        adam.step()
        with torch.no_grad():
            rows /= rows.norm(dim=1, keepdim=True)
    return {name: value.detach().numpy() for name, value in p.items()}
