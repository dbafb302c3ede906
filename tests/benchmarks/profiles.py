"""Profiles on networks of their real sizes with random weights: time against bare backbones, size, flat memory.

    python tests/benchmarks/profiles.py [standard|standard_bf16|edge|memory ...]

``standard``: seconds of scoring in all against seconds inside backbones, CLIP's windows among them; with ``_bf16`` in
bfloat16, where the processor multiplies it. ``edge``: time an image at 256 px, and what has to be carried to the
device. ``memory``: resident size after 100 and 10,000 images of a lot.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from peer import keep_rows
from PIL import Image

from explainvad import Inspector
from explainvad.config import InspectionConfig, parse_config
from explainvad.detection.backbones import Backbones
from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.clip.encoder import ClipEncoder
from explainvad.detection.frozen import FrozenBackbone, bf16_forward_pays
from explainvad.detection.pretrained import PretrainedEnsemble
from explainvad.detection.registry import build
from explainvad.types import InspectionImage

DINO, CLIP, MOBILE = "dinov2-small-reg:random", "clip-vit-b-16-plus-240:random", "mobilevit-s:random"
STANDARD = (
    {"use": "dinomaly", "backbone": DINO, "steps": 2},
    {"use": "anomaly-dino", "backbone": DINO},
    {"use": "winclip", "backbone": CLIP},
)
RUNS = 8


def picture(seed: int, side: int = 512) -> NDArray[np.uint8]:
    """A smooth random surface, uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(60, 190, (side // 16, side // 16, 3), dtype=np.uint8))
    noise = rng.normal(0, 3, (side, side, 3))
    return np.clip(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)) + noise, 0, 255).astype(np.uint8)


def image(seed: int, side: int = 512) -> InspectionImage:
    """The same, as an image of a lot."""
    return InspectionImage(f"img-{seed}", f"{seed}.png", picture(seed, side), f"{seed:064x}", 1, Path(f"{seed}.png"))


class Stopwatch:
    """Seconds spent inside some methods, which call none of each other."""

    def __init__(self, *methods: tuple[type, str]) -> None:
        self.seconds = 0.0
        for kind, name in methods:
            setattr(kind, name, self._timed(getattr(kind, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def config(*scorers: dict[str, Any], **settings: Any) -> InspectionConfig:
    """Of the profile custom."""
    return parse_config({"profile": "custom", "scorer": scorers, "device": "cpu", **settings}, "benchmark")


def standard(bf16: bool = False) -> list[dict[str, str]]:
    """Scoring by the three scorers of `standard` against what their backbones take of it."""
    images = [image(i) for i in range(4)]
    watch = Stopwatch((FrozenBackbone, "forward"), (ClipEncoder, "_encode"))
    backbones, chosen = Backbones(bf16=bf16), config(*STANDARD)
    ensemble = PretrainedEnsemble.fit(images, chosen, backbones, build(chosen, backbones))
    shares, times = [], []
    for n in range(RUNS):
        watch.seconds, started = 0.0, time.perf_counter()
        ensemble.score(image(100 + n))
        times.append(time.perf_counter() - started)
        shares.append(times[-1] / watch.seconds)
    ours = f"{median(times):.2f} s an image, {median(shares):.3f} x its backbones' forwards"
    name = "bf16" if bf16 else "fp32"
    return [{"work": f"`standard`, {name}, 512 px", "ours": ours, "peer": "-", "shown": "at most 1.15 x"}]


def edge() -> list[dict[str, str]]:
    """Time an image of the edge profile with a full bank, and the size of bundle and weights."""
    watch = Stopwatch((FrozenBackbone, "forward"))
    with tempfile.TemporaryDirectory() as folder:
        references = Path(folder) / "reference"
        write_pictures(references, 220)
        member = {"use": "edge-bank", "backbone": MOBILE}
        inspector = Inspector.fit(references, config=config(member, backbones={"precision": "fp32"}))
        bundle = inspector.save(Path(folder) / "edge.evad")
        size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) / 1e6
        (scorer,) = inspector.ensemble.scorers
        rows = len(scorer.arrays["bank"])
        entry = CATALOGUE[MOBILE.partition(":")[0]]
        times, forward = [], []
        for n in range(3 * RUNS):
            seen, watch.seconds, started = image(1000 + n, 256), 0.0, time.perf_counter()
            inspector.ensemble.score(seen)
            times.append(time.perf_counter() - started)
            forward.append(watch.seconds)
    took, of_network = (1e3 * median(seconds) for seconds in (times, forward))
    sizes = f"bundle {size:.1f} MB, weights {entry.megabytes} MB"
    ours = f"{took:.0f} ms an image, {of_network:.0f} of them the network's; {sizes}"
    work = f"`edge`, 256 px, fp32, {rows:,} rows"
    return [{"work": work, "ours": ours, "peer": "-", "shown": "aim: under 60 ms, under 40 MB"}]


def memory() -> list[dict[str, str]]:
    """Resident size over a lot of 10,000 small images, analysed in one process."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "reference", 60, 96)
        write_pictures(Path(folder) / "lot", 10_000, 96, first=1000)
        member = {"use": "edge-bank", "backbone": "mobilevit-s:random", "resolution": 64}
        inspector = Inspector.fit(Path(folder) / "reference", config=config(member))
        inspector.save(Path(folder) / "m.evad")
        process, sizes = psutil.Process(), {}

        def note(_: str, done: int, of: int) -> None:
            if done in (100, of):
                sizes[done] = process.memory_info().rss / 1e6

        inspector.analyze(Path(folder) / "lot", Path(folder) / "run", progress=note)
    few, many = sizes[100], sizes[10_000]
    ours = f"{few:.0f} MB after 100 images, {many:.0f} MB after 10,000: {many / few:.2f} x"
    return [{"work": "a lot of 10,000 images, resident size", "ours": ours, "peer": "-", "shown": "at most 1.2 x"}]


def write_pictures(folder: Path, count: int, side: int = 256, first: int = 0) -> None:
    """``count`` different pictures as PNG."""
    folder.mkdir()
    for seed in range(first, first + count):
        Image.fromarray(picture(seed, side)).save(folder / f"{seed:05d}.png")


if __name__ == "__main__":
    parts: dict[str, Callable[[], list[dict[str, str]]]] = {"standard": standard, "edge": edge, "memory": memory}
    if bf16_forward_pays("cpu"):
        parts["standard_bf16"] = partial(standard, bf16=True)
    for part in sys.argv[1:] or parts:
        keep_rows(f"profiles_{part}", parts[part]())
