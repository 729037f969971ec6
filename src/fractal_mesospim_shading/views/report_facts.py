"""What a report says of a channel, in the words of a microscopist and in those of the method, and
of what was asked for.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fractal_mesospim_shading.core.quality import ShadingQuality
from fractal_mesospim_shading.flatfield.model_texts import offset_text, uncertainty_text
from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.flatfield.refining import refined_text
from fractal_mesospim_shading.images.arrays.documents import Document
from fractal_mesospim_shading.overlaps.certificate import OverlapCheck
from fractal_mesospim_shading.views.evidence import Evidence
from fractal_mesospim_shading.views.report_parts import Facts
from fractal_mesospim_shading.views.verdict import percent

_PLAIN = (("Level read", "level"), ("Seed", "seed"))


@dataclass(frozen=True)
class Known:
    """What is known of a channel.

    Attributes:
        model: that was applied.
        quality: what was measured on planes and counted.
        check: what the overlaps say; None where tiles are not known to overlap.
        evidence: what the verdict rests on; None where nothing was judged.
    """

    model: ChannelModel
    quality: ShadingQuality
    check: OverlapCheck | None
    evidence: Evidence | None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of the model, with those of the image that it was made from."""
        return {**self.model.facts.get("origin", {}).get("facts", {}), **self.model.facts}


def plain_rows(known: Known) -> Facts:
    """Name and value, for a person who knows microscopes and not this method."""
    facts, quality = known.facts, known.quality
    rows = [("Flat-field from", str(facts["scenario"]))]
    low, high = quality.profile_low, quality.profile_high
    rows.append(("Brightness within a tile", f"{low:.2f} to {high:.2f} of its mean"))
    sure = _sure_text(known)
    if sure is not None:
        rows.append(("Flat-field is sure to", sure))
    rows.append(("Counts at no light", offset_text(facts).partition(" (")[0]))
    if "planes_used" in facts:
        rows.append(("Planes used", str(facts["planes_used"])))
    planes = known.model.planes
    if planes is not None:
        out = sum(len(own) for own in planes.left_out.values())
        rows.append(("Planes left out, with sample or in doubt", str(out)))
    elif "planes_rejected" in facts:
        rows.append(("Planes left out, with sample", str(facts["planes_rejected"])))
    rows += _views_rows(known)
    for name, part in (
        ("Pixels saturated by the camera", quality.saturated),
        ("Pixels that became 0 or the largest value", quality.clipped),
        ("Pixels never acquired", quality.no_data),
    ):
        if part > 0:
            rows.append((name, percent(part)))
    return tuple(rows)


def method_rows(known: Known) -> Facts:
    """Name and value, in the words of the method."""
    facts, check = known.facts, known.check
    rows = [("Camera offset", f"{offset_text(facts)}, counts")]
    if "planes_partly_used" in facts:
        rows.append(("Planes used in part", str(facts["planes_partly_used"])))
    if "overlap_refine" in facts:
        rows.append(("Refined by overlaps", refined_text(facts["overlap_refine"])))
    uncertainty = uncertainty_text(facts)
    if uncertainty is not None:
        rows.append(("Flat-field uncertainty", uncertainty))
    if "resampled" in facts:
        rows.append(("Resampled", str(facts["resampled"])))
    rows += [(name, str(facts[key])) for name, key in _PLAIN if key in facts]
    planes = known.model.planes
    if planes is not None:
        rows.append(("Planes used", planes.text_of(planes.used)))
        if planes.left_out:
            rows.append(("Planes left out", planes.text_of(planes.left_out)))
    if check is not None:
        rows += check.rows()
    measured = check is not None and check.says_enough
    rows += known.quality.rows(seams=not measured)
    return tuple(rows)


def _sure_text(known: Known) -> str | None:
    """How sure the flat-field is, with all doubts about the offset; None where nobody knows."""
    evidence = known.evidence
    if evidence is None or not known.model.corrects:
        return None
    whole = evidence.whole_uncertainty
    if evidence.doubted is not None:
        doubt = "the counts at no light are in doubt"
        return f"not known: {doubt}" if whole is None else f"{percent(whole)}, for {doubt}"
    if whole is None:
        return None
    if not evidence.offset_supported:
        return f"{percent(whole)} if the counts at no light are right, which nothing tells"
    return percent(whole)


def _views_rows(known: Known) -> list[tuple[str, str]]:
    check, quality = known.check, known.quality
    if check is None or check.after is None or not check.measured:
        if quality.seam_text is None:
            return []
        return [("Step where tiles meet, in empty medium", quality.seam_text)]
    before, after = check.before.whole, check.after.whole
    return [
        ("Same tissue in two tiles differs by", _changed(before.median, after.median)),
        ("of which noise and stage errors give", percent(after.noise_floor)),
        ("Tiles differ in brightness by", _changed(before.gain, after.gain)),
    ]


def _changed(before: float, after: float) -> str:
    return f"{percent(before)} before, {percent(after)} after"


def asked_rows(task: str, sources: Sequence[str], asked: Document) -> Facts:
    """What was asked for, option by option; arguments as for `command_line`."""
    return (
        ("As a command", command_line(task, sources, asked)),
        *((option, _asked_text(value)) for option, value in asked.items()),
    )


def command_line(task: str, sources: Sequence[str], asked: Document) -> str:
    """The command that asks for the same, as it is typed in a shell.

    Args:
        task: name of it.
        sources: addresses of what is corrected.
        asked: options that were given, as JSON.
    """
    names = {"import_mesospim": "import", "estimate_flatfield": "estimate"}
    words = ["mesospim-shading", names.get(task, task.replace("_", "-")), *sources]
    for option, value in asked.items():
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif option == "flatfield_files":
            for label, path in value.items():
                words += ["--flatfield-file", f"{label}={path}" if label else path]
        elif isinstance(value, list):
            words += [f"--{flag}", ",".join(str(part) for part in value)]
        elif value is not None:
            words += [f"--{flag}", _asked_text(value)]
    return shlex.join(words)


def _asked_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
