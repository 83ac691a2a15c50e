"""The classes of BigEarthNet: 43 of CORINE Land Cover 2018, and the 19 they are merged into.

Sumbul et al., "BigEarthNet-MM" (2021), table 3; codes of the CORINE nomenclature, level 3. Eleven
classes are in none of the 19.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from seamo_fast.tasks.datasets.reading.base import IGNORE

CLASSES_19: Final = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
# Code, name, number among the 19.
_CORINE: Final[tuple[tuple[int, str, int | None], ...]] = (
    (111, "Continuous urban fabric", 0),
    (112, "Discontinuous urban fabric", 0),
    (121, "Industrial or commercial units", 1),
    (122, "Road and rail networks and associated land", None),
    (123, "Port areas", None),
    (124, "Airports", None),
    (131, "Mineral extraction sites", None),
    (132, "Dump sites", None),
    (133, "Construction sites", None),
    (141, "Green urban areas", None),
    (142, "Sport and leisure facilities", None),
    (211, "Non-irrigated arable land", 2),
    (212, "Permanently irrigated land", 2),
    (213, "Rice fields", 2),
    (221, "Vineyards", 3),
    (222, "Fruit trees and berry plantations", 3),
    (223, "Olive groves", 3),
    (231, "Pastures", 4),
    (241, "Annual crops associated with permanent crops", 3),
    (242, "Complex cultivation patterns", 5),
    (243, CLASSES_19[6], 6),
    (244, "Agro-forestry areas", 7),
    (311, "Broad-leaved forest", 8),
    (312, "Coniferous forest", 9),
    (313, "Mixed forest", 10),
    (321, "Natural grassland", 11),
    (322, "Moors and heathland", 12),
    (323, "Sclerophyllous vegetation", 12),
    (324, "Transitional woodland/shrub", 13),
    (331, "Beaches, dunes, sands", 14),
    (332, "Bare rock", None),
    (333, "Sparsely vegetated areas", 11),
    (334, "Burnt areas", None),
    (411, "Inland marshes", 15),
    (412, "Peatbogs", 15),
    (421, "Salt marshes", 16),
    (422, "Salines", 16),
    (423, "Intertidal flats", None),
    (511, "Water courses", 17),
    (512, "Water bodies", 17),
    (521, "Coastal lagoons", 18),
    (522, "Estuaries", 18),
    (523, "Sea and ocean", 18),
)
CLASSES_43: Final = tuple(name for _, name, _ in _CORINE)
TO_19: Final = {name: number for _, name, number in _CORINE}
CODES_TO_19: Final = np.full(1000, IGNORE, np.int16)
for _code, _, _number in _CORINE:
    CODES_TO_19[_code] = IGNORE if _number is None else _number
