"""WinCLIP beside anomalib's: the same numbers on the same weights, and the time that its windows cost.

``python tests/benchmarks/winclip.py``, with open_clip_torch in the peer's environment (see peer.py). Weights are
random, of ViT-B-16-plus-240, those of the patches enlarged so that windows differ: parity needs no training, and shows
nothing of accuracy. Times are ratios to the bare image encoder, measured right before each image in the same process,
because other work on a machine changes seconds more than ratios. Half precision is left out where the processor
multiplies no bfloat16: emulating it takes minutes an image.

Where anomalib leaves the paper or CLIP, it is named: it averages prompts without bringing them to unit length first.
It needs an open_clip before 2.26.1, as its extra `clip` says: with later ones, whose transformers take batches first,
its windows attend to one another instead of to their own patches.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer import ask_peer, keep_rows
from safetensors.torch import save_file
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import ClipEncoder
from explainvad.detection.clip.prompts import PromptConfig, prompt_set
from explainvad.detection.clip.winclip import WORDS, WinCLIP, WinCLIPOptions
from explainvad.detection.frozen import bf16_forward_pays
from explainvad.types import ImageScore, InspectionImage

NAME = "clip-vit-b-16-plus-240:random"
PROMPTS = PromptConfig(object="tile")
IMAGES, SHOTS, REPEATS, THREADS = 4, 2, 2, 2
LIMIT = 1e-4  # of the largest difference
Arrays = Mapping[str, NDArray[Any]]


def main() -> None:
    torch.set_num_threads(THREADS)
    pool = Backbones(bf16=False)
    clip = pool.weights(NAME).clip()
    clip.network.visual.conv1.weight.data *= 6  # type: ignore[operator, union-attr]
    precisions = (False, True) if bf16_forward_pays("cpu") else (False,)
    encoders = {bf16: ClipEncoder(clip, NAME, "random", bf16=bf16) for bf16 in precisions}
    single = encoders[False]
    images = [picture(seed) for seed in range(IMAGES + SHOTS)]
    references, images = images[:SHOTS], images[SHOTS:]
    few = {bf16: fitted(encoder, references) for bf16, encoder in encoders.items()}
    ours = {(shots, bf16): made if shots else words_of(made) for bf16, made in few.items() for shots in (0, SHOTS)}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "clip.safetensors"
        save_file(clip.network.state_dict(), weights)
        theirs = ask_peer(
            Path(__file__).with_name("peer_winclip.py"),
            {
                "weights": np.array(str(weights)),
                "object": np.array(PROMPTS.object),
                "templates": np.array(prompt_set("generic").templates),
                "text": ours[0, False]._words()[0].numpy(),
                "frames": torch.cat([single.squares(image) for image in images]).numpy(),
                "references": torch.cat([single.squares(image) for image in references]).numpy(),
                "repeats": np.array(REPEATS),
            },
            THREADS,
        )
    same_windows(single, images, theirs)
    rows, half_rows = [], []
    for shots, name in ((0, "zero-shot"), (SHOTS, f"few-shot, {SHOTS} references")):
        kind = "few-shot" if shots else "zero-shot"
        full = ours[shots, False].score(images)
        same_scores(full, theirs, kind)
        bare, peer_seconds = theirs[f"seconds-{kind}"].T
        theirs_ratio = statistics.median(peer_seconds / bare)
        seconds = times(clip.network, [ours[shots, bf16] for bf16 in precisions], images)
        rows.append(
            {
                "work": f"WinCLIP {name}, times the bare image encoder",
                "ours": f"{statistics.median(seconds[:, 1] / seconds[:, 0]):.1f}",
                "peer": f"{theirs_ratio:.1f}",
                "shown": "same maps to 1e-4",
            }
        )
        print(
            f"{kind}: an image in {np.median(seconds[:, 1:], axis=0)} s, anomalib {statistics.median(peer_seconds):.2f}"
        )
        if True in precisions:
            rounded = ours[shots, True].score(images)
            differences = [abs(a.value - b.value) for a, b in zip(full, rounded, strict=True)]
            maps = max(np.abs(a.anomaly_map - b.anomaly_map).max() for a, b in zip(full, rounded, strict=True))
            half_rows.append(
                {
                    "work": f"WinCLIP {name} in bfloat16, images/s, anomalib = 1",
                    "ours": f"{theirs_ratio / statistics.median(seconds[:, 2] / seconds[:, 0]):.1f}",
                    "peer": "1",
                    "shown": f"scores differ by {max(differences):.0e} at most, maps by {maps:.0e}",
                }
            )
    keep_rows("winclip", rows)
    if half_rows:
        keep_rows("winclip_bf16", half_rows)


def fitted(encoder: ClipEncoder, references: list[InspectionImage]) -> WinCLIP:
    pool = Backbones(bf16=False)
    pool.shared(("clip", NAME), lambda: encoder)
    made = WinCLIP(WinCLIPOptions(backbone=NAME, shots=SHOTS, prompts=PROMPTS), pool)
    made.fit(references, seed=0)
    return made


def words_of(few: WinCLIP) -> WinCLIP:
    """The same without references."""
    words = WinCLIP(few.options.model_copy(update={"shots": 0}), few.backbones)
    words.arrays = {name: few.arrays[name] for name in WORDS}
    return words


def picture(seed: int) -> InspectionImage:
    """A weave of 240 x 240 px with a patch of another colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:240, :240]
    grey = 128 + 60 * np.sin(x / rng.uniform(4, 9)) * np.cos(y / rng.uniform(4, 9))
    rgb = np.stack([grey, 0.9 * grey, 0.7 * grey], axis=2) + rng.normal(0, 12, (240, 240, 3))
    top, left = rng.integers(0, 200, 2)
    rgb[top : top + 40, left : left + 30] = rng.integers(0, 255, 3)
    pixels = np.clip(rgb, 0, 255).astype(np.uint8)
    return InspectionImage(f"img-{seed}", "a.png", pixels, f"{seed:064x}", 1, Path("a.png"))


def same_windows(encoder: ClipEncoder, images: list[InspectionImage], theirs: Arrays) -> None:
    encoding = encoder.encode(torch.cat([encoder.squares(image) for image in images]), (2, 3))
    for k, rows in encoding.windows.items():
        expected = torch.nn.functional.normalize(torch.from_numpy(theirs[f"windows-{k}"]), dim=2)
        difference = float((rows - expected).abs().max())
        print(f"windows {k} x {k}: {rows.shape[1]}, largest difference {difference:.1e}")
        assert rows.shape == expected.shape and difference < LIMIT


def same_scores(ours: list[ImageScore], theirs: Arrays, kind: str) -> None:
    maps, values = np.stack([score.anomaly_map for score in ours]), np.array([score.value for score in ours])
    difference = max(
        np.abs(maps - theirs[f"given-{kind}-map"]).max(), np.abs(values - theirs[f"given-{kind}-value"]).max()
    )
    print(f"{kind}: largest difference {difference:.1e}; standard deviation of the maps {maps.std():.1e}")
    assert difference < LIMIT
    if kind == "zero-shot":
        own = np.abs(maps - theirs["own-zero-shot-map"]).max()
        print(f"{kind}: {own:.1e} with anomalib's prompts, averaged before they have unit length")


def times(network: Any, scorers: list[WinCLIP], images: list[InspectionImage]) -> NDArray[np.float64]:
    """Seconds (images, 1 + scorers) of the bare encoder and of each scorer, an image after the other."""
    seconds = []
    for image in images * REPEATS:
        frame: Tensor = scorers[0].encoder.squares(image)
        works: list[Callable[[], object]] = [
            lambda frame=frame: network.encode_image(frame),
            *(lambda image=image, scorer=scorer: scorer.score([image]) for scorer in scorers),
        ]
        seconds.append([timed(work) for work in works])
    return np.array(seconds)


@torch.inference_mode()
def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
