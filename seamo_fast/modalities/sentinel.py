"""Sentinel-1 and Sentinel-2, with the statistics that SSL4EO-S12 publishes.

Sources: ESA, Sentinel-2 User Handbook, table 1 (centre wavelengths of Sentinel-2A, native grids);
SSL4EO-S12 v1.0 (arXiv:2211.07044) and v1.1 (arXiv:2503.00168).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from seamo_fast.modalities.band import Band
from seamo_fast.modalities.modality import Modality

_SENTINEL2: Final = (
    Band("B1", 60, 443),
    Band("B2", 10, 490),
    Band("B3", 10, 560),
    Band("B4", 10, 665),
    Band("B5", 20, 705),
    Band("B6", 20, 740),
    Band("B7", 20, 783),
    Band("B8", 10, 842),
    Band("B8A", 20, 865),
    Band("B9", 60, 945),
    Band("B10", 60, 1375),
    Band("B11", 20, 1610),
    Band("B12", 20, 2190),
)
# Nodata 0 of Sentinel-2 is the product's own fill value; SSL4EO-S12 sets no tag. It fills all bands
# of a pixel: 0 in some alone is a value, of B10 and of water a common one.
S2L1C: Final = Modality(
    name="s2l1c",
    bands=_SENTINEL2,
    unit="dn",
    mean=(1605.58, 1390.78, 1314.87, 1363.52, 1549.44, 2091.75, 2371.72, 2299.90, 2560.30,
          830.07, 22.10, 2177.07, 1524.07),
    std=(786.79, 850.35, 875.06, 1138.85, 1122.18, 1161.59, 1274.39, 1248.43, 1345.53,
         577.32, 51.15, 1336.10, 1136.54),
    scale=10000.0,
    nodata=0.0,
    nodata_rule="pixel",
    release="ssl4eo-s12-v1.0",
    composite=("B4", "B3", "B2"),
)  # fmt: skip
S2L2A: Final = Modality(
    name="s2l2a",
    bands=tuple(band for band in _SENTINEL2 if band.name != "B10"),
    unit="dn",
    mean=(752.40, 884.30, 1144.16, 1297.47, 1624.91, 2194.64, 2422.21, 2517.76, 2581.65,
          2645.52, 2368.51, 1805.07),
    std=(1108.03, 1155.15, 1183.63, 1368.11, 1370.27, 1355.56, 1416.51, 1474.79, 1439.31,
         1582.28, 1455.52, 1343.48),
    scale=10000.0,
    nodata=0.0,
    nodata_rule="pixel",
    release="ssl4eo-s12-v1.0",
    composite=("B4", "B3", "B2"),
)  # fmt: skip
S1GRD: Final = Modality(
    name="s1grd",
    bands=(Band("VV", 10), Band("VH", 10)),
    unit="db",
    mean=(-12.54847, -20.19237),
    std=(5.25698, 5.91151),
    nodata=0.0,
    release="ssl4eo-s12-v1.0",
    composite=("VV", "VH"),
)
# SSL4EO-S12 v1.1 keeps the +1000 DN of processing baseline 04.00 and stores every band at 10 m.
S2L1C_V11: Final = replace(
    S2L1C.on_one_grid(10),
    mean=(2607.345, 2393.068, 2320.225, 2373.963, 2562.536, 3110.071, 3392.832, 3321.154,
          3583.77, 1838.712, 1021.753, 3205.112, 2545.798),
    std=(786.523, 849.702, 875.318, 1143.578, 1126.248, 1161.98, 1273.505, 1246.79, 1342.755,
         576.795, 45.626, 1340.347, 1145.036),
    offset=1000.0,
    release="ssl4eo-s12-v1.1",
)  # fmt: skip
S2L2A_V11: Final = replace(
    S2L2A.on_one_grid(10),
    mean=(1793.243, 1924.863, 2184.553, 2340.936, 2671.402, 3240.082, 3468.412, 3563.244,
          3627.704, 3711.071, 3416.714, 2849.625),
    std=(1160.144, 1201.092, 1219.943, 1397.225, 1400.035, 1373.136, 1429.17, 1485.025,
         1447.836, 1652.703, 1471.002, 1365.307),
    offset=1000.0,
    release="ssl4eo-s12-v1.1",
)  # fmt: skip
S1GRD_V11: Final = replace(
    S1GRD, mean=(-12.577, -20.265), std=(5.179, 5.872), nodata=None, release="ssl4eo-s12-v1.1"
)
SENTINEL: Final = (S2L1C, S2L2A, S1GRD, S2L1C_V11, S2L2A_V11, S1GRD_V11)
