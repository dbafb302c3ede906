"""Speed of the backbone on one 256 x 256 px image: torch fp32, torch bf16 and onnxruntime. Printed, never asserted."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from explainvad.detection.backbone.embedded import load_shipped
from explainvad.detection.backbone.network import HybridBackbone
from explainvad.detection.backbone.onnx_export import export_onnx

SIDE = 256  # px
WARM_UP, REPEATS = 5, 30


def main() -> None:
    """Export, run the three with 1 and with 2 threads, and compare their features with torch fp32."""
    network, manifest = load_shipped()
    network = network.to(memory_format=torch.channels_last).eval()  # as EmbeddedBackbone runs it
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    print(f"weights  sha256 {manifest['sha256'][:16]}…")
    print(f"versions torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), ", end="")
    print(f"onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(network, Path(folder) / "backbone.onnx", SIDE, SIDE, manifest["sha256"])
        print(f"file     {path.stat().st_size / 2**20:.1f} MiB")
        print(f"load     {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the runs\n")
        print(f"1 x 3 x {SIDE} x {SIDE}        threads   images/s   median ms   largest relative difference")
        for threads in (1, 2):
            torch.set_num_threads(threads)
            works = {
                "torch fp32 eager": lambda: network(images),
                "torch bf16 autocast": lambda: in_bfloat16(network, images),
                "onnxruntime fp32": in_onnxruntime(path, images, threads),
            }
            report(works, threads)


def in_bfloat16(network: HybridBackbone, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        features: Tensor = network(images)
    return features


def in_onnxruntime(path: Path, images: Tensor, threads: int) -> Callable[[], Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its waiting threads would slow torch
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    array = images.numpy()
    return lambda: torch.from_numpy(session.run(["features"], {"images": array})[0])


@torch.inference_mode()
def report(works: dict[str, Callable[[], Tensor]], threads: int) -> None:
    """Run the three in turn, so that what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    features = {}
    for repeat in range(WARM_UP + REPEATS):
        for name, work in works.items():
            started = time.perf_counter()
            features[name] = work()
            if repeat >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    expected = features["torch fp32 eager"]
    for name, times in seconds.items():
        median = statistics.median(times)
        difference = ((expected - features[name].float()).abs().max() / expected.abs().max()).item()
        print(f"{name:25}{threads:8}{1 / median:11.1f}{median * 1e3:12.1f}   {difference:.1e}")


if __name__ == "__main__":
    main()
