"""What is said of models: in the log, in reports, and as warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractal_mesospim_shading.flatfield.models import ChannelModel
from fractal_mesospim_shading.images.source import ModelGroup


def processor_warning(group: ModelGroup, *, dark: bool, offset: float | None) -> str | None:
    """What to say where the microscope has changed the data before it wrote them.

    Args:
        group: of stacks.
        dark: whether a measured dark-field is subtracted.
        offset: the camera offset that was given, in counts.

    Returns:
        One line, to follow the name of the channel; None where nothing is to be said.
    """
    if not group.processors:
        return None
    start = f"image processors ({', '.join(group.processors)})"
    if group.offset_gone and (dark or offset):
        what = "a measured dark-field" if dark else f"an offset of {offset:g} counts"
        return (
            f"{start} took the camera offset away before the stacks were written, yet {what} is "
            "subtracted, as was asked for. Leave it out unless the offset is still there."
        )
    if dark or offset is not None:
        return None
    if group.offset_gone:
        partly = len(group.offset_gone) < len(group.planes)
        tiles = f" in the tiles {', '.join(map(str, group.offset_gone))}" if partly else ""
        rest = (
            "; the other tiles keep theirs and are not corrected rightly: import them apart "
            "(`exclude_groups`)"
            if partly
            else ""
        )
        return (
            f"{start} took the camera offset away{tiles} before the stacks were written: no "
            f"offset is subtracted again{rest}. If it is still there, give `camera_offset`."
        )
    return (
        f"{start} changed the noise before the stacks were written: an offset estimated from the "
        "noise cannot be trusted. Give `camera_offset` or `darkfield_file`."
    )


def offset_text(facts: Mapping[str, Any]) -> str:
    """The camera offset that was used, with its uncertainty and where it comes from."""
    uncertainty = facts.get("offset_uncertainty")
    rejected = facts.get("offset_rejected")
    if uncertainty is None:
        none = "" if rejected is None else ", none taken off"
        return f"{facts['offset']:.1f}{none} ({facts['offset_from']})"
    # Images of floats may be of any scale.
    digits = ".1f" if uncertainty >= 0.1 else ".4g"
    error = f" +- {uncertainty:{digits}}"
    if rejected is None:
        return f"{facts['offset']:{digits}}{error} ({facts['offset_from']})"
    return (
        f"{facts['offset']:.1f}, none taken off ({rejected:{digits}}{error} was "
        f"{facts['offset_from']}, {facts['offset_rejected_because']}, and is not used)"
    )


def uncertainty_text(facts: Mapping[str, Any]) -> str | None:
    """That of the flat-field; None where nothing is known."""
    whole, of_offset = (facts.get(f"relative_uncertainty{part}") for part in ("", "_of_offset"))
    if whole is not None:
        given = ", if the offset given is right" if facts.get("offset_from") == "given" else ""
        return f"{100 * whole:.2f} %{given}"
    if of_offset is not None:
        return f"{100 * of_offset:.2f} % from the camera offset; BaSiC tells none of its own"
    return None


def facts_line(label: str, model: ChannelModel) -> str:
    """One line for the log."""
    if not model.corrects:
        return (
            f"Channel {label} holds no light: it is copied as it is, not corrected. "
            f"{model.facts['reason']}"
        )
    facts = {**model.facts.get("origin", {}).get("facts", {}), **model.facts}
    text = f"Channel {label}: {facts['scenario']}"
    if "planes_used" in facts:
        text += f", {facts['planes_used']} planes used"
    if facts.get("planes_rejected"):
        text += f", {facts['planes_rejected']} left out because they hold sample"
    if facts.get("planes_partly_used"):
        text += f", {facts['planes_partly_used']} used without the parts that hold sample"
    refined = facts.get("overlap_refine", {})
    if refined.get("used"):
        text += f", refined by {refined['pairs']} overlaps"
    low, high = model.profile.typical_range
    # Which noise it was told from is in the provenance.
    facts["offset_from"] = facts["offset_from"].partition(" (")[0]
    return f"{text}; camera offset {offset_text(facts)}; flat-field {low:.2f} to {high:.2f}"
