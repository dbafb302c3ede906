"""An explanation as files: each map as a picture that can be read back, and JSON that says what each is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from explainvad.encoding import sixteen_bit_png
from explainvad.types import Explanation

JSON_FILE = "explanation.json"


def explanation_files(explanation: Explanation) -> dict[str, bytes]:
    """Path below a folder -> bytes: each map as 16-bit grey PNG, and JSON that says what each is.

    A grey value g stands for low + g / 65535 * (high - low); both are in the JSON.
    """
    files, maps = {}, []
    for found in explanation.maps:
        low, high = float(found.values.min()), float(found.values.max())
        name = f"{found.scorer}-{found.name}.png"
        files[name] = sixteen_bit_png(found.values, low, high)
        said = {key: getattr(found, key) for key in ("name", "scorer", "method", "explains", "frame", "signed")}
        maps.append({"file": name, **said, "low": low, "high": high, "facts": dict(found.facts)})
    said = asdict(replace(explanation, maps=())) | {"maps": maps}
    files[JSON_FILE] = (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()
    return files
