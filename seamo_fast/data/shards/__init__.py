"""The shard format: plain arrays beside a manifest, which anything that reads .npy can read.

    OUT/
      manifest.json           written last: a folder without it is not finished
      shard-00000/
        s2l2a_10m.npy         one file for each modality and grid, <modality>_<gsd>m.npy:
        s2l2a_20m.npy         [S, T, Cg, Hg, Wg], the numbers of the source in its dtype,
        s1grd_10m.npy         uncompressed and in C order, for memory mapping
        records.json          a list of S records, in the order of the arrays
        report.json           what the shard was made from: items, settings, skipped and noted as
                              in the manifest, statistics of modalities that came without,
                              verdicts on the radiometry of Sentinel-2 tiles, and what the files
                              of each item were: their number, bytes, last change and a digest
      shard-00001/ ...

S is the number of samples in the shard, T that of the seasons. The channels of a file are the
modality's bands of that ground sampling distance (Cg), in the modality's order. A group that is not
valid is stored as zeros, without date. A shard folder appears by renaming a complete one.

    manifest.json
      format                  1
      source, release         where the samples came from, and whose statistics they carry
      seasons                 T
      modalities              in the order of the M axis; of each: name, bands (name, gsd in metres,
                              wavelength in nm or null), unit, mean, std, offset, scale, nodata,
                              release, composite; nodata_rule "pixel" where that rule holds
      arrays                  for each file, without suffix: dtype, and shape of one sample
      shards                  for each shard: name, samples, and CRC-32 of its records.json
      skipped, noted          what was left out, and what is unusual: what, why, and its kind, a
                              code of `seamo_fast.data.shards.KINDS`
      encoding                npy or tiff
      statistics              what python -m seamo_fast.stats measured, by modality and band
      created_by              the program that wrote this

    records.json, one record
      id                      the sample's name in its source
      place, position         the name of the place; its longitude and latitude, or null
      dates                   for each modality T dates such as 2020-08-13, null where unknown
      valid                   for each modality T booleans
      crc32                   for each array the CRC-32 of the sample's bytes in the .npy file

With encoding tiff an array is a folder of smaller files that take longer to read:

    shard-00000/s2l2a_10m/00017_2.tif
                              record 17 of the shard (from 0) in season 2 (from 0): [Hg, Wg, Cg]
                              pixel-interleaved (PLANARCONFIG_CONTIG), [Hg, Wg] if Cg is 1;
                              deflate, with the horizontal predictor for integers and none for
                              floats; photometric minisblack, dtype as in the manifest. Each record
                              has T files, zeros where the group is not valid, and its crc32 is a
                              list of T: those of whole files.
"""

from __future__ import annotations

from seamo_fast.data.shards.manifest import (
    DTYPES,
    ArraySpec,
    Encoding,
    Manifest,
    ShardEntry,
    array_names,
    check_modality,
    is_packed,
    record_bytes,
)
from seamo_fast.data.shards.remarks import KINDS, Remark
from seamo_fast.data.shards.shard_set import Sample, ShardSet
from seamo_fast.data.shards.write_set import ShardWriter

__all__ = [
    "DTYPES",
    "KINDS",
    "ArraySpec",
    "Encoding",
    "Manifest",
    "Remark",
    "Sample",
    "ShardEntry",
    "ShardSet",
    "ShardWriter",
    "array_names",
    "check_modality",
    "is_packed",
    "record_bytes",
]
