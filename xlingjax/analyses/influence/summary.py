"""The experiment in words: each sentence is decided by a rule on the numbers, none by taste."""

import numpy as np
import xarray as xr


def summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page, of the last checkpoint.

    That influence crosses languages is said where `claims.crosses` holds: normalised and without anchors, the mean over
    pairs of trained languages leaves the band of its null, and without anchors it exceeds the untrained checkpoint's.
    """
    of = lambda name: tree.children[name].to_dataset(inherit=False).isel(checkpoint=-1)
    found, said = of("translations"), of("claims")
    mean = lambda name, pairs="trained": _interval(found, name, pairs)
    verdict = "crosses languages" if bool(said["crosses"]) else "is not shown to cross languages"
    out = [
        f"Checkpoint {found['checkpoint'].item()}: influence {verdict}. A sentence's translation stands above other "
        f"sentences of its length in {mean('normalised')} of cases (AUC, mean over pairs of trained languages; 0.5 is "
        f"chance, the null gives {_null(found, 'normalised')}, p {_p(said, 'normalised')}), without the pieces that "
        f"both share in {mean('without anchors')} (p {_p(said, 'without anchors')}{_gain(said)}).",
        f"A look-up of shared tokens alone gives {mean('shared tokens')}."]
    if not np.isnan(float(found["mean"].sel(measure="normalised", pairs="untrained"))):
        out.append(f"Pairs with a language that training has not seen: {mean('normalised', 'untrained')}, without "
                   f"anchors {mean('without anchors', 'untrained')}.")
    out.append(f"With prompt and completion turned round, the translation stands above them in {mean('flipped')} of "
               "cases.")
    if "ratio" in tree.children:
        out.append(_ratio(of("ratio")))
    queries = of("queries")
    power = int((queries["tail_p"] > 0.05).sum())
    out.append(
        f"The largest hundredth of a query's training sequences holds {float(queries['top_share'].mean()):.2f} of its "
        f"positive influence (normal values: 0.07); for {power} of {queries.sizes['query']} queries the tail passes "
        f"for a power law, with a median exponent of {float(queries['exponent'].median()):.1f}.")
    hits = of("hits")
    out.append(f"Of the sequences shown, one token carries the influence of {int(hits['spurious'].sum())} of "
               f"{int((hits['row'] >= 0).sum())}. Scores by low rank and whole gradients agree by a correlation of "
               f"{float(hits['agreement']):.3f}.")
    out.append("One pre-training run: intervals are over documents and say nothing of other runs.")
    return out


def _gain(said: xr.Dataset) -> str:
    one = said.sel(measure="without anchors")
    if np.isnan(float(one["gain"])):
        return "; no untrained checkpoint stands beside it"
    return (f"; {float(one['gain']):+.3f} [{float(one['gain_low']):+.3f}, {float(one['gain_high']):+.3f}] against the "
            "untrained model")


def _interval(found: xr.Dataset, name: str, pairs: str) -> str:
    one = found.sel(measure=name, pairs=pairs)
    return f"{float(one['mean']):.2f} [{float(one['mean_low']):.2f}, {float(one['mean_high']):.2f}]"


def _null(found: xr.Dataset, name: str) -> str:
    return f"{float(found['mean_null'].sel(measure=name, pairs='trained')):.2f}"


def _p(said: xr.Dataset, name: str) -> str:
    return f"{float(said['p'].sel(measure=name)):.2g}"


def _ratio(ratio: xr.Dataset) -> str:
    apart = ~np.eye(ratio.sizes["source"], dtype=bool)
    whole, other = (float(np.nanmean(ratio[name].values[apart])) for name in ("whole", "whole_unrelated"))
    own = float(np.nanmean(np.diagonal(ratio["whole_unrelated"].values)))
    return (f"The {ratio.attrs['tops']} most influential sequences of a query have {whole:.2f} of that influence on "
            f"its translations, {other:.2f} on other queries in those languages and {own:.2f} on other queries in "
            "their own.")
