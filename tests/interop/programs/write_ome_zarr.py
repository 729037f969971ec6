"""Images as ome-zarr writes them, alone and as the series of a bioformats2raw layout.

Called with a .npy file of pixels (c, z, y, x) and a folder. Prints JSON: the addresses by version
and layout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.writer import write_image

OME_XML = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0" Name="brain"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16"
SizeX="{x}" SizeY="{y}" SizeZ="{z}" SizeC="{c}" SizeT="1"/></Image></OME>
"""


def write(group: zarr.Group, pixels: np.ndarray, format_: FormatV04 | FormatV05) -> None:
    units = dict.fromkeys("zyx", "micrometer")
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": unit} for axis, unit in units.items()]
    write_image(pixels, group, axes=axes, scale_factors=[2], fmt=format_)


def main(pixels_file: str, folder: str) -> None:
    pixels = np.load(pixels_file)
    found = {}
    for format_ in (FormatV04(), FormatV05()):
        version = format_.version
        path = Path(folder, f"{version}.zarr")
        write(zarr.open_group(path, mode="w", zarr_format=format_.zarr_format), pixels, format_)
        found[f"{version} ome-zarr"] = str(path)
        root = Path(folder, f"{version}_series.zarr")
        top = zarr.open_group(root, mode="w", zarr_format=format_.zarr_format)
        layout = {"bioformats2raw.layout": 3}
        top.attrs.put(layout if version == "0.4" else {"ome": {"version": version, **layout}})
        metadata = root / "OME"
        series = {"series": ["0"]}
        top.create_group(
            "OME",
            attributes=series if version == "0.4" else {"ome": {"version": version, **series}},
        )
        sizes = dict(zip("czyx", pixels.shape, strict=True))
        (metadata / "METADATA.ome.xml").write_text(OME_XML.format(**sizes))
        write(top.create_group("0"), pixels, format_)
        found[f"{version} bioformats2raw"] = str(root / "0")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
