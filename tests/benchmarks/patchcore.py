"""PatchCore beside anomalib's: the same numbers on the same weights, and what scoring and fitting cost.

    python tests/benchmarks/patchcore.py

WideResNet-50-2 with random weights, so that nothing is downloaded: parity needs no training, and shows nothing of
accuracy. Scoring is timed as a ratio to the bare backbone, up to the last layer that PatchCore reads, measured right
before each image in the same process, because other work on a machine changes seconds more than ratios; single
precision on both sides. Fitting runs in processes of its own, so that their largest memory can be told.

Where anomalib leaves the paper, it is named: it brings the patch map to the image by nearest neighbour, not
bilinearly, and takes the weight of its reweighted score from whatever row rounding puts first among the neighbours of
m*. Its random projection is sparse, so coresets differ.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer import ask_peer, keep_rows
from safetensors.torch import save_file

from explainvad.detection.backbones import Backbones, FrozenBackbone
from explainvad.detection.banks.patch_bank import rows_of
from explainvad.detection.banks.patchcore import PatchCore, PatchCoreOptions
from explainvad.types import InspectionImage

NAME, SIDE = "wide-resnet-50-2:random", 256
FIT, MANY, TEST, REPEATS, THREADS = 40, 400, 5, 3, 2
SHARE = 0.1
LIMIT = 1e-4  # of relative differences
PEER = Path(__file__).with_name("peer_patchcore.py")


class Pictures(Sequence[InspectionImage]):
    """Noisy weaves, made when they are asked for, as files are read; those from FIT on have a patch of a colour."""

    def __init__(self, count: int, defective: bool = False) -> None:
        self.count, self.defective = count, defective

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> InspectionImage:  # type: ignore[override]
        if i >= self.count:
            raise IndexError(i)
        rng = np.random.default_rng(10_000 * self.defective + i)
        y, x = np.mgrid[:SIDE, :SIDE]
        grey = 128 + 60 * np.sin(x / rng.uniform(8, 10)) * np.cos(y / 13) + rng.normal(0, 12, (SIDE, SIDE))
        pixels = np.clip(np.stack([grey, 0.9 * grey, 0.7 * grey], axis=2), 0, 255).astype(np.uint8)
        if self.defective:
            pixels[100:140, 80:130] = [220, 20, 20]
        return InspectionImage(f"img-{i}", "a.png", pixels, f"{i:064x}", 1, Path("a.png"))


def main() -> None:
    torch.set_num_threads(THREADS)
    scorer = patchcore()
    extractor = scorer.extractor
    assert isinstance(extractor, FrozenBackbone)
    scorer.fit(Pictures(FIT), seed=0)
    images = list(Pictures(TEST, defective=True))
    frames = torch.stack([extractor.frame(image) for image in images]).numpy()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "network.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in extractor.network.state_dict().items()}, weights)
        inputs = {"weights": np.array(str(weights)), "frames": frames, "share": np.array(SHARE)}
        bank = scorer.arrays["bank"].float().numpy()
        scoring = inputs | {"work": np.array("score"), "bank": bank, "repeats": np.array(REPEATS)}
        theirs = ask_peer(PEER, scoring, THREADS)
        same_numbers(scorer, images, theirs)
        rows = scoring_rows(scorer, extractor, images, theirs)
        fit_frames = torch.stack([extractor.frame(image) for image in Pictures(FIT)]).numpy()
        peer_fit = ask_peer(PEER, inputs | {"work": np.array("fit"), "frames": fit_frames}, THREADS)
    keep_rows("patchcore", [*rows, *fitting_rows(peer_fit)])


def patchcore(**options: Any) -> PatchCore:
    return PatchCore(PatchCoreOptions(backbone=NAME, share=SHARE, **options), Backbones(bf16=False))


def same_numbers(scorer: PatchCore, images: list[InspectionImage], theirs: dict[str, NDArray[Any]]) -> None:
    """Patches and distances agree; so do reweighted scores where both put m* first."""
    reweighted = patchcore(reweight=True)
    reweighted.load(*scorer.state())
    for i, image in enumerate(images):
        patches, (score,) = rows_of(scorer.patches(image)).numpy(), scorer.score([image])
        scale = np.abs(theirs["patches"][i]).max()
        print(f"patches: largest difference {np.abs(patches - theirs['patches'][i]).max() / scale:.1e} of the largest")
        np.testing.assert_allclose(patches, theirs["patches"][i], atol=1e-5 * scale)
        difference = np.abs(score.evidence["distance"].ravel() / theirs["distances"][i] - 1).max()
        value = reweighted.score([image])[0].value / theirs["scores"][i] - 1
        map_difference = np.abs(score.anomaly_map - theirs["maps"][i]).max() / score.anomaly_map.max()
        print(f"distances: {difference:.1e} relative; reweighted score: {value:.1e}; map: {map_difference:.1e}")
        assert difference < LIMIT and abs(value) < LIMIT


def scoring_rows(
    scorer: PatchCore, extractor: FrozenBackbone, images: list[InspectionImage], theirs: dict[str, NDArray[Any]]
) -> list[dict[str, str]]:
    """Ratios to the bare backbone, and the two packages' speed."""
    network, seconds = extractor.network, []
    scorer.score(images)
    for image in images * REPEATS:
        frame = extractor.frame(image)[None]
        works: list[Callable[[], object]] = [
            lambda frame=frame: extractor.forward(frame),
            lambda image=image: scorer.score([image]),
            lambda frame=frame: network(frame),
        ]
        seconds.append([timed(work, extractor) for work in works])
    bare, whole, full = np.array(seconds).T
    peer_bare, peer_whole = theirs["seconds"].T
    ratio, peer_ratio = statistics.median(whole / bare), statistics.median(peer_whole / peer_bare)
    against_full = statistics.median(whole / full)
    print(f"scoring over the bare backbone to layer 3: {ratio:.2f}, anomalib {peer_ratio:.2f}")
    print(f"scoring over the backbone's whole forward pass: {against_full:.2f}")
    print(f"images/s: {1 / statistics.median(whole):.2f}, anomalib {1 / statistics.median(peer_whole):.2f}")
    print(f"bare passes/s: {1 / statistics.median(bare):.2f}, anomalib {1 / statistics.median(peer_bare):.2f}")
    rows = len(scorer.arrays["bank"])
    return [
        {
            "work": f"PatchCore, {rows:,} rows, times the bare backbone to layer 3 (to the end: {against_full:.2f})",
            "ours": f"{ratio:.2f}",
            "peer": f"{peer_ratio:.2f}",
            "shown": "same patches, distances and reweighted scores to 1e-4",
        },
        {
            "work": "PatchCore scoring, images/s, anomalib = 1",
            "ours": f"{statistics.median(peer_whole) / statistics.median(whole):.2f}",
            "peer": "1",
            "shown": f"with 16 bootstrapped members; {peer_ratio / ratio:.2f} by the ratios above",
        },
    ]


@torch.inference_mode()
def timed(work: Callable[[], object], extractor: FrozenBackbone) -> float:
    extractor.see([])  # so that every score includes its forward pass
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fitting_rows(theirs: dict[str, NDArray[Any]]) -> list[dict[str, str]]:
    """Time and memory of fitting, each in a process of its own."""
    few, many = alone(FIT), alone(MANY)
    (seconds, cpu), (before, after) = theirs["seconds"], theirs["memory"]
    print(f"fit of {FIT}: {few['seconds']:.1f} s ({few['cpu']:.1f} s of CPU), {few['after']:.0f} MiB")
    print(f"anomalib: {seconds:.1f} s ({cpu:.1f} s of CPU), {after:.0f} MiB, {before:.0f} before")
    print(f"fit of {MANY}: {many}")
    return [
        {
            "work": f"PatchCore fit, {FIT} images at 256 px, coreset 10 %",
            "ours": f"{few['seconds']:.0f} s",
            "peer": f"{seconds:.0f} s",
            "shown": f"{seconds / few['seconds']:.1f} times as fast",
        },
        {
            "work": "its largest memory, in all (above the loaded model)",
            "ours": f"{few['after']:,.0f} MiB ({few['after'] - few['before']:,.0f})",
            "peer": f"{after:,.0f} MiB ({after - before:,.0f})",
            "shown": f"{few['after'] / after:.0%} ({(few['after'] - few['before']) / (after - before):.0%})",
        },
        {
            "work": f"PatchCore fit, {MANY} images, {many['rows']:,} rows",
            "ours": f"{many['seconds']:.0f} s, {many['after']:,.0f} MiB",
            "peer": "",
            "shown": f"memory grows by {many['after'] - few['after']:,.0f} MiB for ten times the images",
        },
    ]


def alone(count: int) -> dict[str, Any]:
    """What :func:`fit_alone` prints."""
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    made = subprocess.run(
        [sys.executable, __file__, str(count)], check=True, stdout=subprocess.PIPE, env=environment, text=True
    )
    answer: dict[str, Any] = json.loads(made.stdout)
    return answer


def fit_alone(count: int) -> None:
    """Fit to ``count`` images and print seconds, CPU seconds, rows and the process's largest memory, in MiB."""
    torch.set_num_threads(THREADS)
    scorer = patchcore()
    before = peak()
    started, cpu = time.perf_counter(), time.process_time()
    scorer.fit(Pictures(count), seed=0)
    seconds = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    print(json.dumps({**seconds, "rows": len(scorer.arrays["bank"]), "before": before, "after": peak()}))


def peak() -> float:
    """Largest resident memory of this process since it began, in MiB; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fit_alone(int(sys.argv[1]))
    else:
        main()
