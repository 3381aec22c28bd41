"""Spectra of a store, as the spectrum pane shows them."""

from __future__ import annotations

import numpy as np

from skyloom.core.spectra import Spectra
from skyloom.io.formats.headers import unit_text
from skyloom.store.contents import Contents
from skyloom.viewer.protocols import Region, SpectrumView
from skyloom.viewer.spectra.names import lines_at
from skyloom.viewer.stores.listing import date_text

__all__ = ["StoreSpectrum", "stored_spectrum"]


class StoreSpectrum:
    """A spectrum of a store, whatever is picked in it; none where the observation is an image or a cube.

    Parameters
    ----------
    store : Contents
    obs_id : str
    """

    def __init__(self, store: Contents, obs_id: str) -> None:
        self.store, self.obs_id = store, obs_id

    def spectrum(self, region: Region) -> SpectrumView | None:  # noqa: ARG002  # as the protocol wants it
        """Return the spectrum."""
        reader, number = self.store.reader_of(self.store.row(self.obs_id))
        if reader.kind(number) != "spectrum":
            return None
        return stored_spectrum(self.store, self.obs_id)


def stored_spectrum(store: Contents, obs_id: str) -> SpectrumView:
    """Return a spectrum as it was observed, with the lines of its redshift and what is known of it.

    Raises
    ------
    InputError
        When there is no such observation, or it is no spectrum.
    """
    found = store.spectrum(obs_id)
    row = store.row(obs_id)
    redshift = float(store.column("redshift", [row])[0])
    lines = lines_at(found.wave, found.medium, redshift) if np.isfinite(redshift) else ()
    return SpectrumView(
        title=obs_id,
        wave=found.wave,
        medium=found.medium,
        flux=np.asarray(found.data[0], np.float64),
        error=np.sqrt(np.where(found.mask[0], np.nan, found.variance[0])).astype(np.float64),
        mask=found.mask[0],
        unit=unit_text(found.unit),
        lines=lines,
        redshift=redshift if np.isfinite(redshift) else None,
        numbers=_numbers(store, row, found, redshift),
    )


def _numbers(store: Contents, row: int, found: Spectra, redshift: float) -> tuple[tuple[str, str], ...]:
    columns = store.index.columns
    told: list[tuple[str, str]] = [
        ("position", f"{float(columns['s_ra'][row]):.6f}° {float(columns['s_dec'][row]):+.6f}°"),
        ("observed", date_text(float(columns["t_start"][row]))),
    ]
    instrument, target = (
        store.column(name, [row])[0].decode("utf-8", "replace") for name in ("instrument_name", "target_name")
    )
    told += [("instrument", instrument), ("target", target)]
    if np.isfinite(redshift):
        error = found.meta.get("redshift_err")
        with_error = f" ± {float(error):.1g}" if isinstance(error, float) and error > 0 else ""
        told.append(("redshift", f"{redshift:.6g}{with_error}"))
    if "class" in found.meta:
        told.append(("class", str(found.meta["class"])))
    if "fibre_diameter" in found.meta:
        told.append(("fibre", f"{float(found.meta['fibre_diameter']):g} arcsec"))
    exposure = float(store.column("t_exptime", [row])[0])
    if np.isfinite(exposure):
        told.append(("exposure", f"{exposure:.0f} s"))
    return tuple((name, text) for name, text in told if text)
