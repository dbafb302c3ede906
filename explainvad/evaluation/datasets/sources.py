"""The data sets that are known by name, with their official pages and licences.

Licences are as their owners' pages state them, for BTAD, MPDD and BMAD as anomalib's documentation does; the six
medical collections behind BMAD have terms of their own besides.
"""

from __future__ import annotations

from explainvad.evaluation.datasets.items import Licence, Source

_NON_COMMERCIAL = Licence("CC BY-NC-SA 4.0", commercial=False)
_MVTEC = "https://www.mvtec.com/company/research/datasets"

MVTEC_AD = Source(
    "MVTec AD",
    f"{_MVTEC}/mvtec-ad",
    _NON_COMMERCIAL,
    frozenset(
        {
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw"),
            *("tile", "toothbrush", "transistor", "wood", "zipper"),
        }
    ),
)
MVTEC_AD_2 = Source(
    "MVTec AD 2",
    f"{_MVTEC}/mvtec-ad-2",
    _NON_COMMERCIAL,
    frozenset(["can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"]),
)
MVTEC_LOCO = Source(
    "MVTec LOCO AD",
    f"{_MVTEC}/mvtec-loco",
    _NON_COMMERCIAL,
    frozenset(["breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"]),
)
VISA = Source("VisA", "https://github.com/amazon-science/spot-diff", Licence("CC BY 4.0", commercial=True))
BTAD = Source("BTAD", "https://github.com/pankajmishra000/VT-ADL", _NON_COMMERCIAL)
MPDD = Source(
    "MPDD",
    "https://github.com/stepanje/MPDD",
    _NON_COMMERCIAL,
    frozenset(["bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"]),
)
REAL_IAD = Source("Real-IAD", "https://realiad4ad.github.io/Real-IAD/", _NON_COMMERCIAL)
BMAD = Source("BMAD", "https://github.com/DorisBao/BMAD", _NON_COMMERCIAL, all_masked=False)
KOLEKTOR = Source("KolektorSDD2", "https://www.vicos.si/resources/kolektorsdd2/", _NON_COMMERCIAL)
OWN = Source("own data", "", Licence("licence not stated", commercial=None), all_masked=False)
