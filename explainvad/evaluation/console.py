"""The results of an evaluation as aligned text. Figures in full are in the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from explainvad.evaluation.metrics.resampling import interval_text

_interval = partial(interval_text, digits=3, absent="not defined")


def results_table(r: Mapping[str, Any]) -> list[str]:
    """Lines for the plain values of ``metrics.json``."""
    source = r["source"]
    lines = [
        f"data set    {source['name']}; {source['licence']}",
        f"images      {r['n_good']} good, {r['n_defect']} defect, {len(r['not_inspected'])} not inspected; "
        f"{r['fitted_on']}",
        f"image       AUROC {_interval(r['image_auroc'])}   AUPR {_interval(r['image_aupr'])}",
        f"            F1 {_interval(r['image_f1_deployed'])} at the deployed threshold, at most "
        f"{_interval(r['image_f1_max'])} at any",
        "per scorer  " + ", ".join(f"{n} AUROC {v:.3f}" for n, v in r["scorer_auroc"].items() if v is not None),
    ]
    lines += _pixels(r["pixel"])
    if r["unmasked_defects"]:
        lines.append(f"no masks    {', '.join(r['unmasked_defects'])}: left out of the pixel metrics")
    lines.append(
        f"rejected    {_interval(r['good_reject_rate'])} of the good at alpha = {r['alpha']:g} "
        f"({r['n_cal']} calibration images)"
    )
    lines += _uncertainty(r["calibration"])
    cost = r["cost"]
    gpu = f", {cost['gpu_peak_mib']:.0f} MiB on the GPU" if cost["gpu_peak_mib"] is not None else ""
    lines.append(
        f"cost        {1000 * cost['median']:.0f} ms an image (median; 95 % below {1000 * cost['p95']:.0f}), "
        f"peak memory {cost['peak_mib']:.0f} MiB{gpu}"
    )
    return lines + _by_type(r["by_type"])


def _pixels(pixel: Mapping[str, Any]) -> list[str]:
    if pixel["auroc"] is None:
        return []
    lines = [
        f"pixel       AUROC {_interval(pixel['auroc'])}   AUPR {_interval(pixel['aupr'])}",
        f"            F1 {_interval(pixel['f1_deployed'])} at the deployed threshold, at most "
        f"{_interval(pixel['f1_max'])} at any",
        "regions     "
        + "   ".join(f"AUPRO(FPR <= {limit}) {_interval(value)}" for limit, value in pixel["aupro"].items())
        + f"   ({pixel['n_regions']} defect regions)",
    ]
    if any(pixel["auspro"].values()):
        annotated = (f"AU-sPRO(FPR <= {limit}) {_interval(value)}" for limit, value in pixel["auspro"].items())
        lines.append("            " + "   ".join(annotated))
    aupimo, pointing = _interval(pixel["aupimo"]), _interval(pixel["pointing"])
    lines.append(f"            AUPIMO(FPR 1e-5 to 1e-4) {aupimo}   pointing game {pointing}")
    return lines


def _by_type(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        f"{'type':<24}{'n':>5}{'REJECT':>8}{'DEFER':>7}{'passed':>8}{'hit':>9}{'mean IoU':>10}{'peak':>9}{'AUROC':>8}"
    ]
    for name, row in rows.items():
        hit = f"{row['hits']}/{row['flagged_with_mask']}" if row["flagged_with_mask"] else "-"
        overlap = f"{row['mean_iou']:.2f}" if row["mean_iou"] is not None else "-"
        peak = f"{row['peaks']:g}/{row['with_mask']}" if row["with_mask"] else "-"
        auroc = f"{row['auroc']:.3f}" if row["auroc"] is not None else "-"
        lines.append(
            f"{name:<24}{row['n']:>5}{row['REJECT']:>8}{row['DEFER']:>7}{row['passed']:>8}{hit:>9}{overlap:>10}{peak:>9}"
            f"{auroc:>8}"
        )
    return [
        *lines,
        "passed: NOT_FLAGGED or ACCEPT; hit: flagged images with a region that overlaps the true mask;",
        "peak: all images whose largest map value lies inside the true mask; AUROC: of the type against good images",
        "intervals: 95 % over the choice of test images",
    ]


def _uncertainty(calibration: Mapping[str, Any]) -> list[str]:
    """Deferral, and what it gains."""
    lines = [f"deferred    {calibration['deferral_rate']:.3f} of all images"]
    if (risk := calibration["selective_risk"]) is not None:
        lines += [
            f"AUGRC       deferring by the epistemic part less by {other} "
            f"{_interval(risk[f'augrc_within_less_{other}'])}, negative is better"
            for other in ("random", "score")
        ]
    if (probability := calibration["probability"]) is not None:
        lines.append(f"P(defect)   ECE {probability['ece']:.3f}, Brier {probability['brier']['score']:.3f}")
    if (power := calibration["detection_power"]) is not None and power["a90"] is not None:
        bound = f", with 95 % confidence from {power['a90_95']:.1f} px" if power["a90_95"] is not None else ""
        lines.append(f"power       nine in ten found from {power['a90']:.1f} px{bound} (sqrt of the area)")
    return lines
