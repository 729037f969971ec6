"""With no offset given, the samples' flat-fields are as good as the issue wants them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fractal_mesospim_shading import import_mesospim
from fractal_mesospim_shading.flatfield.model_texts import facts_line

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_threads")]


def test_samples_need_no_offset(native, tmp_path, caplog):
    """Their camera has 3.5 electrons of read noise, more than most."""
    caplog.set_level(logging.INFO)
    planes = native.mosaic().shape[1]
    levels = [4, 13] if planes > 6 else [1, 4]
    (result,) = import_mesospim(
        str(native.container), str(tmp_path), correct_flatfield=True, z_levels=levels
    )
    for label, model in result.models.items():
        true = native.flats[label] / native.flats[label].mean()
        error = model.profile.flatfield / true - 1
        # Measured: 0.3 to 1.8 %; offsets are wrong by 1.1 of their uncertainty at most.
        assert np.sqrt(np.mean(error**2)) <= 0.02
        offset = model.facts["offset"]
        assert abs(offset - 100) < 2 * model.facts["offset_uncertainty"] < 4
        assert model.facts["gain"] == pytest.approx(0.2, rel=0.05)
        # Some squares of these planes hold sample.
        partly = model.facts["planes_partly_used"]
        assert 0 < partly <= model.facts["planes_used"]
        assert f"{partly} used without the parts that hold sample" in facts_line(label, model)
        assert facts_line(label, model) in caplog.text
        row = f"<tr><th>Planes used in part</th><td>{partly}</td></tr>"
        assert row in Path(result.report).read_text()
